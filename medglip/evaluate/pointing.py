"""Whether the middle of the best box points at what was asked, and how often a blind guess would. Knows no presence."""

from collections.abc import Sequence

import numpy as np

from medglip.evaluate.averages import Figures, mean_over_cases
from medglip.evaluate.cases import Case
from medglip.evaluate.masks import joined, spans
from medglip.evaluate.phrases import best_box_hits

LOOSE = 0.1


def points_at_box(case: Case) -> bool:
    """Whether the centre of the best box lies in a true box, its border included; False without a box.

    Source: the pointing game of Zhang et al., Top-down neural attention by excitation backprop (arXiv 1608.00507),
    section 4.2, with the centre of the best box as the point, and without its margin of 15 pixels.
    """
    if not len(case.boxes):
        return False
    centre = (case.boxes[0, :2].astype(float) + case.boxes[0, 2:]) / 2
    return bool(((case.truth[:, :2] <= centre) & (centre <= case.truth[:, 2:])).all(axis=1).any())


def points_at_mask(case: Case) -> bool | None:
    """Whether that centre lies in the pixels of a true mask; None where a true region has no mask."""
    pieces = _pieces(case)
    if pieces is None:
        return None
    width, height = case.size_wh
    if not len(case.boxes):
        return False
    column, row = np.floor((case.boxes[0, :2].astype(float) + case.boxes[0, 2:]) / 2).astype(int)
    if not (0 <= column < width and 0 <= row < height):
        return False
    place = column * height + row
    return bool(((pieces[:, 0] <= place) & (place < pieces[:, 1])).any())


def share_of_boxes(case: Case) -> float:
    """Share of the image that its true boxes cover together: how often a point anywhere in the image lies in one."""
    width, height = case.size_wh
    boxes = case.truth.astype(float).clip(0, [width, height, width, height])
    if len(boxes) < 2:
        return float((boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1).sum() / (width * height))
    xs, ys = np.unique(boxes[:, 0::2]), np.unique(boxes[:, 1::2])  # between two edges a cell is covered whole or not at all
    in_x = (boxes[:, None, 0] <= xs[:-1]) & (xs[:-1] < boxes[:, None, 2])
    in_y = (boxes[:, None, 1] <= ys[:-1]) & (ys[:-1] < boxes[:, None, 3])
    covered = (in_y[:, :, None] & in_x[:, None, :]).any(axis=0)
    return float((covered * np.outer(np.diff(ys), np.diff(xs))).sum() / (width * height))


def share_of_masks(case: Case) -> float | None:
    """Share of the image that its true masks cover together; None where a true region has no mask."""
    pieces = _pieces(case)
    return None if pieces is None else float((pieces[:, 1] - pieces[:, 0]).sum() / (case.size_wh[0] * case.size_wh[1]))


def figures(cases: Sequence[Case]) -> Figures:
    """Pointing of the phrases that are shown, means over labels and then over sources; a phrase without a box misses.

    Returns:
        ``pointing_box``: the centre of the best box lies in a true box; ``pointing_mask``: in a true mask, where every true
        region has one; ``pointing_box_random``, ``pointing_mask_random``: the same of a point drawn anywhere in the image.
        ``recall_iou10``: the best box has an IoU of 0.1 or more with a true box. None where undefined. ``pointing_box`` and
        ``recall_iou10`` are ``centre`` and ``recall01`` of the headline figures.
    """
    shown = [case for case in cases if case.shown]
    masked = [case for case in shown if None not in case.true_masks and len(case.true_masks) == len(case.truth)]
    return {
        "pointing_box": mean_over_cases(shown, np.array([points_at_box(case) for case in shown], float)),
        "pointing_box_random": mean_over_cases(shown, np.array([share_of_boxes(case) for case in shown], float)),
        "pointing_mask": mean_over_cases(masked, np.array([points_at_mask(case) for case in masked], float)),
        "pointing_mask_random": mean_over_cases(masked, np.array([share_of_masks(case) for case in masked], float)),
        "recall_iou10": mean_over_cases(shown, np.array([best_box_hits(case.iou, LOOSE) for case in shown], float)),
    }


def _pieces(case: Case) -> np.ndarray | None:
    """Pixels of the true masks together, (N, 2) as ``joined`` gives them; None where a true region has no mask."""
    masks = [mask for mask in case.true_masks if mask is not None]
    if not masks or len(masks) < len(case.truth):
        return None
    return spans(masks[0]) if len(masks) == 1 else joined([spans(mask) for mask in masks])
