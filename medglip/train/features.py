"""Features of the frozen part of the image encoder, kept in memory by image and view. Knows no truth."""

from collections.abc import Sequence

import torch
from torch import Tensor

from medglip.model.dense import MedGLIP
from medglip.train.samples import Key, Question, Samples


class FrozenFeatures:
    """Gives the frozen features of questions; computes what it does not remember.

    On a CPU the frozen blocks cost more than everything that learns, and they always answer the same. With ``views``
    fixed views an image they are computed once a view. Kept as float16.

    Args:
        model: Whose ``image_encoder.frozen`` is asked.
        samples: Where pixels are read that were not sent along.
        megabytes: What may be kept; 0 keeps nothing.
    """

    def __init__(self, model: MedGLIP, samples: Samples, megabytes: int) -> None:
        self.model, self.samples = model, samples
        self.room = megabytes * 2**20
        self.kept: dict[Key, list[Tensor]] = {}

    def __call__(self, questions: Sequence[Question], device: torch.device) -> list[Tensor]:
        """Frozen levels of the questions' images, each (B, C, H, W) float32."""
        new = [place for place, question in enumerate(questions) if question.key not in self.kept]
        fresh: dict[int, list[Tensor]] = {}
        if new:
            levels = self.model.image_encoder.frozen(self.pixels([questions[place] for place in new], device))
            if len(new) == len(questions) and self.room <= 0:
                return levels
            for row, place in enumerate(new):
                fresh[place] = [level[row] for level in levels]
                self._keep(questions[place].key, fresh[place])
        rows = [
            fresh[place] if place in fresh else [level.to(device, torch.float32) for level in self.kept[question.key]]
            for place, question in enumerate(questions)
        ]
        return [torch.stack(level).contiguous(memory_format=torch.channels_last) for level in zip(*rows, strict=True)]

    def pixels(self, questions: Sequence[Question], device: torch.device) -> Tensor:
        """The questions' images (B, 3, S, S) float32 in [0, 1]."""
        images = [q.image if q.image is not None else self.samples.image(*q.key) for q in questions]
        batch = torch.stack(images)
        if device.type == "cuda":
            batch = batch.pin_memory()
        batch = batch.to(device, non_blocking=True).to(torch.float32).div_(255)
        return batch.contiguous(memory_format=torch.channels_last)

    def side(self, questions: Sequence[Question]) -> int:
        """Side in pixels of the canvas on which these questions' images are drawn; no pixel is read."""
        return questions[0].key.canvas

    def _keep(self, key: Key, levels: list[Tensor]) -> None:
        size = sum(level.numel() for level in levels) * 2
        if size <= self.room:
            self.kept[key] = [level.to("cpu", torch.float16, copy=True) for level in levels]
            self.room -= size
