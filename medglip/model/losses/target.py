"""The truth about one row of a prompt, as the losses read it. Knows no data set and no model.

A target speaks of phrases by their column in the prompt and of boxes by their number.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Target(NamedTuple):
    """The truth about one image and the phrases of one row, in pixels of the model's input.

    Not annotated is not absent: what is not known to be true or false costs nothing. ``presence`` holds what the
    annotation says and nothing else; the losses add what follows from ``parents`` (``with_ancestors``).

    Attributes:
        boxes: (G, 4) float32 xyxy; G may be 0; equal boxes are one box with several names.
        names: (G, P) bool, whether phrase p names box g.
        unsure_boxes: (I, 4) float32 places where phrases may be right although no box is kept there (cut off by the crop).
        unsure_names: (I, P) bool, the phrases so concerned.
        presence: (P,) float32, 1 there, 0 not there, -1 not known or padding.
        concepts: (P,) int64, what each phrase means: equal numbers are the same concept, in all images and on all
            processes; -1 for a phrase of no concept (free text, padding). None: no phrase has one.
        parents: (H, 2) int64, rows (child phrase, parent phrase): where the child is, the parent is. None: nothing known.
        masks: (G, H/4, W/4) float in [0, 1], the part of each cell of stride 4 that box g's region covers. None: no masks.
        mask_is_known: (G,) bool, whether masks[g] is the truth; other masks cost nothing. None: all masks given are known.
    """

    boxes: Tensor
    names: Tensor
    unsure_boxes: Tensor
    unsure_names: Tensor
    presence: Tensor
    concepts: Tensor | None = None
    parents: Tensor | None = None
    masks: Tensor | None = None
    mask_is_known: Tensor | None = None


def number_in_batch(parts: Sequence[Tensor], of: Tensor) -> Tensor:
    """(M,) int64, where box g of row r is found once the rows' parts (G_r, ...) stand after one another.

    Args:
        parts: One a row.
        of: (M, 2) int64 rows (row r, box g).

    >>> number_in_batch([torch.zeros(3), torch.zeros(2)], torch.tensor([[0, 2], [1, 0]]))
    tensor([2, 3])
    """
    first = torch.tensor([0, *map(len, parts)], device=of.device).cumsum(0)
    return first[of[:, 0]] + of[:, 1]
