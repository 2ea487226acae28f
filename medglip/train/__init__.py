"""Training: samples from datasets, augmentation, one visible loop, checkpoints."""

from medglip.train.loop import train

__all__ = ["train"]
