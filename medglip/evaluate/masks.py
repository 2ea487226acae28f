"""How well found masks cover true ones: overlap, and the distance of their edges. Knows no boxes and no presence.

Overlaps are counted in run-length codes, without making pixels of them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from medglip.evaluate.averages import Figures, mean_over_cases
from medglip.evaluate.cases import Case
from medglip.records.masks import Rle


class MaskScores(NamedTuple):
    """What came of the masks of some cases, each (N,) float64; NaN where it is undefined or does not count.

    Attributes:
        iou: Of the best box's mask with the true masks together; 0 where the mask is missing or empty.
        dice: The same as Dice.
        dice_all: Dice of all found masks together with all true ones.
        hd95_mm: 95 % Hausdorff distance of the best box's mask in mm, where the image has a spacing; NaN where one is empty.
        hd95_px: The same in pixels, where the image has no spacing.
        missed: 1 where a phrase with true masks has no mask, or an empty one, at its best box; else 0.
        unknown: 1 where a phrase is shown and a region of it has no true mask, or none of them has a pixel; else 0.
        false: Of absent phrases: 1 where one was given a mask, else 0.
    """

    iou: np.ndarray
    dice: np.ndarray
    dice_all: np.ndarray
    hd95_mm: np.ndarray
    hd95_px: np.ndarray
    missed: np.ndarray
    unknown: np.ndarray
    false: np.ndarray


def spans(mask: Rle) -> np.ndarray:
    """The pixels inside, (N, 2) int64: from ``[n, 0]`` to before ``[n, 1]``, counted down the columns, rising, apart.

    >>> from medglip.records.masks import rle_of_mask
    >>> spans(rle_of_mask(np.array([[0, 1], [1, 1]]))).tolist()
    [[1, 4]]
    """
    ends = np.cumsum(mask.runs())
    pieces = np.stack([ends[0 : len(ends) - 1 : 2], ends[1::2]], axis=1)
    return pieces[pieces[:, 1] > pieces[:, 0]]


def joined(several: Sequence[np.ndarray]) -> np.ndarray:
    """The pixels that are in one of several masks, as ``spans`` gives them.

    >>> joined([np.array([[0, 2], [5, 6]]), np.array([[1, 4]])]).tolist()
    [[0, 4], [5, 6]]
    """
    pieces = np.concatenate([np.zeros((0, 2), np.int64), *several])
    if not len(pieces):
        return pieces
    pieces = pieces[np.argsort(pieces[:, 0], kind="stable")]
    reached = np.maximum.accumulate(pieces[:, 1])
    first = np.append(True, pieces[1:, 0] > reached[:-1])
    last = np.append(first[1:], True)
    return np.stack([pieces[first, 0], reached[last]], axis=1)


def shared(first: np.ndarray, second: np.ndarray) -> int:
    """Number of pixels that two masks, as ``spans`` gives them, have in common.

    >>> shared(np.array([[0, 4], [6, 8]]), np.array([[2, 7]]))
    3
    """
    if not len(first) or not len(second):
        return 0
    sizes = np.concatenate([[0], np.cumsum(first[:, 1] - first[:, 0])])
    place = np.searchsorted(first[:, 0], second, side="right")  # pieces of the first that begin at or before each end
    last = first[np.maximum(place - 1, 0)]
    inside = sizes[np.maximum(place - 1, 0)] + np.minimum(second, last[..., 1]) - last[..., 0]
    before = np.where(place > 0, inside, 0)
    return int((before[:, 1] - before[:, 0]).sum())


def area(pieces: np.ndarray) -> int:
    """Number of pixels of a mask, as ``spans`` gives it."""
    return int((pieces[:, 1] - pieces[:, 0]).sum())


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Dice of two masks, as ``spans`` gives them, in [0, 1]; NaN where both are empty.

    Source: Dice, Measures of the amount of ecologic association between species, Ecology 1945: 2 |A and B| / (|A| + |B|).
    """
    total = area(first) + area(second)
    return 2 * shared(first, second) / total if total else float("nan")


def mask_iou(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two masks, as ``spans`` gives them, in [0, 1]; NaN where both are empty."""
    both = shared(first, second)
    total = area(first) + area(second) - both
    return both / total if total else float("nan")


def hd95(first: np.ndarray, second: np.ndarray, size_hw: tuple[int, int], spacing_xy: tuple[float, float]) -> float:
    """95 % Hausdorff distance of the edges of two masks, the larger of the two ways; NaN where one is empty.

    An edge is the pixels of a mask of which a neighbour is outside. Where an object is cut by the border of the image its
    edge runs along the border.

    Args:
        first: Pixels as ``spans`` gives them.
        second: The same.
        size_hw: Of the image.
        spacing_xy: Distance of columns and of rows; the figure has its unit.

    Source: Huttenlocher et al., Comparing images using the Hausdorff distance, IEEE TPAMI 1993, with the 95th percentile
    in place of the maximum. The same as ``monai.metrics.compute_hausdorff_distance``, to which the tests hold it, at about a
    third of the time and without the seconds that importing MONAI takes.
    """
    if not len(first) or not len(second):
        return float("nan")
    height, (x_step, y_step) = size_hw[0], spacing_xy
    low = int(min(first[0, 0], second[0, 0])) // height
    high = -(-int(max(first[-1, 1], second[-1, 1])) // height)
    edges = [_edge(pieces - low * height, high - low, height) * [x_step, y_step] for pieces in (first, second)]
    ways = (cKDTree(edges[1 - own]).query(edges[own])[0] for own in (0, 1))
    return float(max(np.percentile(way, 95) for way in ways))


def _edge(pieces: np.ndarray, columns: int, height: int) -> np.ndarray:
    """(E, 2) columns and rows of the pixels of a mask of which one of the four neighbours is outside of it or of the image."""
    steps = np.zeros(columns * height + 1, np.int8)
    steps[pieces[:, 0]] += 1
    steps[pieces[:, 1]] -= 1
    inside = np.zeros((columns + 2, height + 2), bool)
    inside[1:-1, 1:-1] = steps[:-1].cumsum(dtype=np.int8).reshape(columns, height)
    kept = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    return np.argwhere(inside[1:-1, 1:-1] & ~kept)


def has_masks(cases: Sequence[Case]) -> bool:
    """Whether the model that was asked has a mask head, as far as the cases tell: one of them has a place for a mask."""
    return any(case.found_masks for case in cases)


def score_masks(cases: Sequence[Case], distances: bool = True) -> MaskScores:
    """The scores of each case; the truth are all true masks together, what is judged is the mask of the best box.

    Masks are drawn for the boxes above the thresholds only, so a phrase that is called absent has none: it is missed.

    Args:
        cases: N cases.
        distances: False leaves the edges out, which take most of the time.
    """
    values = {name: np.full(len(cases), np.nan) for name in MaskScores._fields}
    for number, case in enumerate(cases):
        found = [mask for mask in case.found_masks if mask is not None]
        if not case.shown:
            values["false"][number] = any(mask.area for mask in found)
            continue
        marked = [mask for mask in case.true_masks if mask is not None]
        true = joined([spans(mask) for mask in marked])
        values["unknown"][number] = len(marked) < len(case.truth) or not len(true)
        if values["unknown"][number]:
            continue
        best = case.found_masks[0] if case.found_masks else None
        mine = spans(best) if best is not None else np.zeros((0, 2), np.int64)
        values["missed"][number] = not len(mine)
        values["iou"][number], values["dice"][number] = mask_iou(mine, true), dice(mine, true)
        values["dice_all"][number] = dice(joined([spans(mask) for mask in found]), true)
        if distances:
            name = "hd95_px" if case.spacing_xy_mm is None else "hd95_mm"
            values[name][number] = hd95(mine, true, case.size_wh[::-1], case.spacing_xy_mm or (1.0, 1.0))
    return MaskScores(**values)


def figures(cases: Sequence[Case]) -> Figures:
    """Figures of masks of the phrases that are shown, means over labels and then over sources.

    Returns:
        ``mask_iou``, ``dice``, ``dice_all`` (see ``MaskScores``; a missing mask counts 0); ``hd95_mm`` over images with a
        spacing and ``hd95_px`` over those without, missing masks left out; ``mask_missed``, the share of phrases without
        one; ``absent_with_mask``, the share of absent phrases that were given one; the counts ``masks_judged``,
        ``masks_missed`` and ``masks_unknown`` (shown, but not every region has a true mask). All None where the model has no
        mask head.
    """
    names = ("mask_iou", "dice", "dice_all", "hd95_mm", "hd95_px", "mask_missed", "absent_with_mask",
             "masks_judged", "masks_missed", "masks_unknown")  # fmt: skip
    if not has_masks(cases):
        return dict.fromkeys(names)
    scores = score_masks(cases)
    means = (scores.iou, scores.dice, scores.dice_all, scores.hd95_mm, scores.hd95_px, scores.missed, scores.false)
    counts = (np.count_nonzero(~np.isnan(scores.missed)), np.nansum(scores.missed), np.nansum(scores.unknown))
    return dict(zip(names, [*(mean_over_cases(cases, one) for one in means), *map(float, counts)], strict=True))
