"""Average precision and recall of scored boxes against true ones, as COCO counts them. Knows no phrases and no absence.

The figures equal pycocotools' COCOeval for boxes without crowds, which the tests hold to 1e-9.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MOST = 100  # boxes of a label in an image that count; COCO's largest maxDets
# Areas of a true box in pixels, both ends included. Source: COCOeval, Params.areaRng.
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}


class Found(NamedTuple):
    """What was found of one label in one image.

    Attributes:
        boxes: (K, 4) xyxy pixels, by falling score.
        scores: (K,).
        truth: (G, 4) xyxy pixels; G = 0 where the image does not show the label.
    """

    boxes: np.ndarray
    scores: np.ndarray
    truth: np.ndarray


def areas(boxes: np.ndarray) -> np.ndarray:
    """Areas (N,) float64 of boxes (N, 4) xyxy."""
    return (boxes[:, 2:].astype(float) - boxes[:, :2]).clip(0).prod(axis=1)


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union (N, M) float64 of boxes (N, 4) and (M, 4), xyxy."""
    first, second = first.astype(float), second.astype(float)  # in float32 the last digits would decide about 0.5
    low, high = np.maximum(first[:, None, :2], second[None, :, :2]), np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    return shared / np.maximum(areas(first)[:, None] + areas(second)[None, :] - shared, 1e-9)


def matches(iou: np.ndarray, thresholds: np.ndarray, ignored: np.ndarray | None = None) -> np.ndarray:
    """Which true box each box takes: by falling score, the one it overlaps most among those not yet taken.

    Args:
        iou: (K, G), boxes in order of falling score.
        thresholds: (T,), the least IoU that counts.
        ignored: (G,) bool, true boxes that do not count; taken only where no other fits.

    Returns:
        (T, K) int: number of the true box, -1 where none fits.

    Source: COCOeval.evaluateImg; of equal overlaps the last one is taken, as there.
    """
    taken = np.full((len(thresholds), len(iou)), -1)
    count = iou.shape[1]
    if not count or not len(iou):
        return taken
    free = np.ones((len(thresholds), count), bool)
    for number in np.flatnonzero(iou.max(axis=1) >= thresholds.min()):
        fits = free & (iou[number] >= thresholds[:, None])
        if ignored is not None:
            proper = fits & ~ignored
            fits = np.where(proper.any(axis=1, keepdims=True), proper, fits)
        best = count - 1 - np.where(fits, iou[number], -1.0)[:, ::-1].argmax(axis=1)
        hit = np.flatnonzero(fits.any(axis=1))
        taken[hit, number] = best[hit]
        free[hit, best[hit]] = False
    return taken


def match(iou: np.ndarray, threshold: float) -> np.ndarray:
    """Which boxes (K,) bool are right at one threshold; see ``matches``."""
    return matches(iou, np.array([threshold]))[0] >= 0


def precision_at_recalls(right: np.ndarray, counted: np.ndarray, total: float) -> np.ndarray:
    """Average precision: the mean over 101 recall points of the best precision at that recall or a higher one.

    Args:
        right: (T, N) numbers of right boxes at each place of the ranking: 0, 1, or a multiplicity.
        counted: (T, N) numbers of boxes that count there, right or wrong.
        total: Number of true boxes, above 0.

    Returns:
        (T,) in [0, 1].

    Source: COCOeval.accumulate.
    """
    hits, ranked = right.cumsum(axis=1), counted.cumsum(axis=1)
    precision = np.divide(hits, ranked, out=np.zeros(hits.shape), where=ranked > 0)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    values = np.zeros(len(right))
    for row, recall in enumerate(hits / total):
        place = np.searchsorted(recall, RECALLS, side="left")
        values[row] = np.append(best[row], 0.0)[np.minimum(place, len(recall))].mean()
    return values


def average_precision(
    scores: Sequence[np.ndarray], ious: Sequence[np.ndarray], thresholds: np.ndarray = THRESHOLDS
) -> np.ndarray:
    """Average precision of one label at each IoU threshold.

    Args:
        scores: For each image (K,) in falling order.
        ious: For each image (K, G) with its true boxes; G may be 0.
        thresholds: (T,).

    Returns:
        (T,) in [0, 1]; NaN where no image has a true box.
    """
    total = sum(iou.shape[1] for iou in ious)
    if total == 0:
        return np.full(len(thresholds), np.nan)
    order = np.argsort(-np.concatenate([np.asarray(score, float) for score in scores]), kind="mergesort")
    right = np.concatenate([matches(iou, thresholds) >= 0 for iou in ious], axis=1)[:, order]
    return precision_at_recalls(right, np.ones(right.shape), total)


def coco_figures(labels: Mapping[str, Sequence[Found]]) -> dict[str, float | None]:
    """The twelve figures of COCO: means over labels that have a true box, as ``COCOeval.summarize`` prints them.

    Args:
        labels: For each label what was found in each image, in the order of the images.

    Returns:
        ``AP``, ``AP50``, ``AP75``, ``APs``, ``APm``, ``APl``, ``AR1``, ``AR10``, ``AR100``, ``ARs``, ``ARm``, ``ARl``, each in
        [0, 1], None where no label has a true box of that size. Sizes are those of the true box.
    """
    precision: dict[str, list[np.ndarray]] = {name: [] for name in AREAS}
    recall: dict[str, list[float]] = {}
    for images in labels.values():
        overlaps = [box_iou(image.boxes[:MOST], image.truth) for image in images]
        usual = [matches(iou, THRESHOLDS) for iou in overlaps]
        for name, limits in AREAS.items():
            most = (1, 10, MOST) if name == "all" else (MOST,)
            found = _judged(list(zip(images, overlaps, usual, strict=True)), limits, most)
            if found is not None:
                precision[name].append(found[0])
                for count, value in zip(most, found[1], strict=True):
                    recall.setdefault(f"{name}{count}", []).append(value)
    whole = precision["all"]
    values = {
        "AP": whole, "AP50": [one[:1] for one in whole], "AP75": [one[5:6] for one in whole],
        "APs": precision["small"], "APm": precision["medium"], "APl": precision["large"],
        "AR1": recall.get("all1"), "AR10": recall.get("all10"), f"AR{MOST}": recall.get(f"all{MOST}"),
        "ARs": recall.get(f"small{MOST}"), "ARm": recall.get(f"medium{MOST}"), "ARl": recall.get(f"large{MOST}"),
    }  # fmt: skip
    return {name: float(np.mean(some)) if some else None for name, some in values.items()}


def _judged(
    images: Sequence[tuple[Found, np.ndarray, np.ndarray]], limits: tuple[float, float], most: Sequence[int]
) -> tuple[np.ndarray, list[float]] | None:
    """Average precision (T,) and, for each number of boxes, mean recall of one label; None without a true box that counts.

    True boxes outside the limits are ignored, and so are boxes that take them, and wrong boxes outside the limits.

    Args:
        images: Each with the overlaps (K, G) of its boxes and the true boxes (T, K) that they take where none is ignored.
        limits: Areas.
        most: Numbers of boxes.
    """
    total, scores, right, counted, places = 0, [], [], [], []
    for image, iou, usual in images:
        ignored, outside = _outside(areas(image.truth), limits), _outside(areas(image.boxes[:MOST]), limits)
        total += int((~ignored).sum())
        taken = matches(iou, THRESHOLDS, ignored) if ignored.any() and not ignored.all() else usual
        aside = np.where(taken >= 0, np.append(ignored, False)[taken], outside)
        scores.append(np.asarray(image.scores[:MOST], float))
        right.append((taken >= 0) & ~aside)
        counted.append(~aside)
        places.append(np.arange(len(iou)))
    if not total:
        return None
    order = np.argsort(-np.concatenate(scores), kind="mergesort")
    hits, place = np.concatenate(right, axis=1), np.concatenate(places)
    precision = precision_at_recalls(hits[:, order], np.concatenate(counted, axis=1)[:, order], total)
    return precision, [float(hits[:, place < count].sum(axis=1).mean() / total) for count in most]


def _outside(sizes: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    return (sizes < limits[0]) | (sizes > limits[1])


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
