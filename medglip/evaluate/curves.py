"""Curves of a page, whose areas are the figures: precision over recall, and the ROC of absence. Knows cases only.

A curve is drawn for each label, then averaged over labels and over sources, as the figures are.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from medglip.evaluate.boxes import MOST, RECALLS, match
from medglip.evaluate.cases import Case

GRID = np.linspace(0, 1, 101)


def precision_recall(cases: Sequence[Case], threshold: float = 0.5) -> np.ndarray | None:
    """Precision at the 101 recalls of COCO, mean over labels and then over sources; its mean is AP at that IoU.

    Args:
        cases: Of all labels and sources.
        threshold: The least IoU of a right box.

    Returns:
        (101,) in [0, 1], or None where no label is shown.

    Source: pycocotools COCOeval.accumulate.
    """

    def one(some: Sequence[Case]) -> np.ndarray | None:
        total = sum(len(case.truth) for case in some)
        if not total:
            return None
        scores = np.concatenate([np.asarray(case.scores[:MOST], float) for case in some])
        order = np.argsort(-scores, kind="mergesort")
        hits = np.concatenate([match(case.iou[:MOST], threshold) for case in some])[order].cumsum()
        precision = hits / np.arange(1, len(hits) + 1)
        precision = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
        place = np.searchsorted(hits / total, RECALLS, side="left")
        return precision[np.minimum(place, len(hits))]

    return _mean(cases, one)


def absence_roc(cases: Sequence[Case]) -> np.ndarray | None:
    """Share of shown phrases above a presence threshold at 101 shares of absent ones above it.

    Returns:
        (101,) in [0, 1] at the false positive rates ``GRID``, or None where no label is both shown and absent.

    Source: Fawcett, An introduction to ROC analysis, Pattern Recognition Letters 2006, section 7.1 (vertical averaging).
    """

    def one(some: Sequence[Case]) -> np.ndarray | None:
        presence, shown = np.array([case.presence for case in some]), np.array([case.shown for case in some])
        if shown.all() or not shown.any():
            return None
        order = np.argsort(-presence, kind="mergesort")
        last = np.append(np.diff(presence[order]) != 0, True)  # a threshold cannot part equal values
        found = np.append(0.0, (shown[order].cumsum() / shown.sum())[last])
        false = np.append(0.0, ((~shown[order]).cumsum() / (~shown).sum())[last])
        return np.interp(GRID, false, found)

    return _mean(cases, one)


def _mean(cases: Sequence[Case], one: Callable[[Sequence[Case]], np.ndarray | None]) -> np.ndarray | None:
    """The curve of each label of each source, averaged over labels, then over sources."""
    labels: dict[tuple[str, str], list[Case]] = defaultdict(list)
    for case in cases:
        labels[case.source, case.concept].append(case)
    sources: dict[str, list[np.ndarray]] = defaultdict(list)
    for (source, _), some in labels.items():
        if (curve := one(some)) is not None:
            sources[source].append(curve)
    return np.mean([np.mean(curves, axis=0) for curves in sources.values()], axis=0) if sources else None
