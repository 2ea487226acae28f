"""Average precision of scored boxes against true ones, as COCO counts it. Knows no images and no phrases."""

from collections.abc import Sequence

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union (N, M) of boxes (N, 4) and (M, 4), xyxy."""
    low, high = np.maximum(first[:, None, :2], second[None, :, :2]), np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1) for boxes in (first, second)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None, :] - shared, 1e-9)


def match(iou: np.ndarray, threshold: float) -> np.ndarray:
    """Which boxes are right: each takes the true box it overlaps most among those not yet taken.

    Args:
        iou: (K, G), boxes in order of falling score.
        threshold: The least IoU that counts.

    Returns:
        (K,) bool.
    """
    right = np.zeros(len(iou), bool)
    free = np.ones(iou.shape[1], bool)
    if not free.size:
        return right
    for number in np.flatnonzero(iou.max(axis=1) >= threshold):
        fit = np.where(free, iou[number], -1.0)
        best = int(fit.argmax())
        if fit[best] >= threshold:
            right[number], free[best] = True, False
    return right


def average_precision(
    scores: Sequence[np.ndarray], ious: Sequence[np.ndarray], thresholds: np.ndarray = THRESHOLDS
) -> np.ndarray:
    """Average precision of one label at each IoU threshold: 101 recall points, precision made monotonic.

    Args:
        scores: For each image (K,) in falling order.
        ious: For each image (K, G) with its true boxes; G may be 0.
        thresholds: (T,).

    Returns:
        (T,) in [0, 1]; NaN where no image has a true box.

    Source: pycocotools COCOeval, which gives the same to 1e-9 for areaRng all.
    """
    total = sum(iou.shape[1] for iou in ious)
    if total == 0:
        return np.full(len(thresholds), np.nan)
    joined = np.concatenate([np.asarray(score, float) for score in scores])
    order = np.argsort(-joined, kind="mergesort")
    values = []
    for threshold in thresholds:
        right = np.concatenate([match(iou, threshold) for iou in ious])[order]
        hits = right.cumsum()
        recall, precision = hits / total, hits / np.arange(1, len(right) + 1)
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        place = np.searchsorted(recall, RECALLS, side="left")
        values.append(np.append(precision, 0.0)[np.minimum(place, len(precision))].mean())
    return np.array(values)


def best_score_threshold(scores: np.ndarray, right: np.ndarray, total: int) -> float:
    """The score above which boxes give the best F1, half-way to the next one; 0.5 where nothing is right.

    Args:
        scores: (N,) of all boxes of all labels.
        right: (N,) bool.
        total: Number of true boxes.
    """
    if not right.any():
        return 0.5
    order = np.argsort(-scores, kind="mergesort")
    hits = right[order].cumsum()
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + total)
    ordered = np.append(scores[order], 0.0)
    return float(ordered[int(f1.argmax())] + ordered[int(f1.argmax()) + 1]) / 2
