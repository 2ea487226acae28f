"""What the model is punished for, one file a term, and the truth it is held against. Knows no dataset and no encoder."""

from medglip.model.losses.align import sigmoid_focal
from medglip.model.losses.criterion import grounding_loss
from medglip.model.losses.hierarchy import consistency, with_ancestors
from medglip.model.losses.target import Target
from medglip.model.losses.words import masked_words

__all__ = ["Target", "consistency", "grounding_loss", "masked_words", "sigmoid_focal", "with_ancestors"]
