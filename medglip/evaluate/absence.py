"""How well presence tells images that show a phrase from images that do not, and what is found of absent phrases.

Knows no boxes but their scores.
"""

from collections.abc import Sequence

import numpy as np

from medglip.evaluate.averages import Figures, ThresholdsOf, by_label, mean_over_cases, mean_over_labels, usual_thresholds
from medglip.evaluate.cases import Case
from medglip.predict import MOST

LEAST = 0.95


def auroc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Area under the ROC curve: how often a positive scores above a negative, ties half; NaN where one kind is missing.

    Source: Hanley and McNeil, The meaning and use of the area under a ROC curve, Radiology 1982.

    >>> auroc(np.array([0.9, 0.4, 0.4, 0.1]), np.array([True, True, False, False]))
    0.875
    """
    positive, negative = scores[truth], scores[~truth]
    if not len(positive) or not len(negative):
        return float("nan")
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    upto = np.searchsorted(ordered, positive, side="right")
    return float((below + upto).sum() / (2 * len(positive) * len(negative)))


def specificity_at_sensitivity(scores: np.ndarray, truth: np.ndarray, least: float = LEAST) -> float:
    """The best specificity among the thresholds that keep a share ``least`` of the positives; NaN where one kind is missing.

    A score at the threshold is a positive answer, and equal scores are answered alike: nothing is interpolated.

    Args:
        scores: (N,) of any scale.
        truth: (N,) bool.
        least: In [0, 1].

    Source: Obuchowski, Receiver operating characteristic curves and their use in radiology, Radiology 2003.

    >>> specificity_at_sensitivity(np.array([0.9, 0.4, 0.4, 0.1]), np.array([True, True, False, False]))
    0.5
    """
    sensitivity, specificity = _operating_points(scores, truth)
    return float(specificity[sensitivity >= least - 1e-12].max()) if len(sensitivity) else float("nan")


def sensitivity_at_specificity(scores: np.ndarray, truth: np.ndarray, least: float = LEAST) -> float:
    """The best sensitivity among the thresholds that refuse a share ``least`` of the negatives; else as the other one.

    >>> sensitivity_at_specificity(np.array([0.9, 0.4, 0.4, 0.1]), np.array([True, True, False, False]))
    0.5
    """
    sensitivity, specificity = _operating_points(scores, truth)
    return float(sensitivity[specificity >= least - 1e-12].max()) if len(sensitivity) else float("nan")


def best_presence_threshold(scores: np.ndarray, truth: np.ndarray) -> float:
    """The presence of best sensitivity plus specificity, half-way to the next; 0.5 where one kind is missing.

    Source: Youden, Index for rating diagnostic tests, Cancer 1950.
    """
    if truth.all() or not truth.any():
        return 0.5
    order = np.argsort(-scores, kind="mergesort")
    found = truth[order].cumsum() / truth.sum() - (~truth[order]).cumsum() / (~truth).sum()
    last = np.append(np.diff(scores[order]) != 0, True)  # a threshold cannot part equal scores
    place = int(np.where(last, found, -1).argmax())
    ordered = np.append(scores[order], 0.0)
    return float(ordered[place] + ordered[place + 1]) / 2


def boxes_shown(cases: Sequence[Case], thresholds_of: ThresholdsOf = usual_thresholds) -> np.ndarray:
    """(N,) int64: boxes of each case that are shown: above its modality's thresholds; none where it is called absent."""
    limits = {modality: thresholds_of(modality) for modality in {case.modality for case in cases}}
    return np.array([
        min(MOST, int(np.count_nonzero(case.scores >= limits[case.modality][0])))
        if case.presence >= limits[case.modality][1] else 0
        for case in cases
    ], np.int64)  # fmt: skip


def said_there(cases: Sequence[Case], thresholds_of: ThresholdsOf = usual_thresholds) -> np.ndarray:
    """(N,) bool: whose presence is at or above the threshold of its modality."""
    limits = {modality: thresholds_of(modality)[1] for modality in {case.modality for case in cases}}
    return np.array([case.presence >= limits[case.modality] for case in cases], bool)


def figures(cases: Sequence[Case], thresholds_of: ThresholdsOf = usual_thresholds) -> Figures:
    """Figures of absence, each a mean over labels and then over sources; None where undefined.

    Args:
        cases: Of all labels and sources.
        thresholds_of: ``CheckpointInfo.thresholds_of`` of the model that was asked.

    Returns:
        ``specificity_at_sensitivity_95`` and ``sensitivity_at_specificity_95`` of presence within a label;
        ``absent_rejected`` and ``shown_rejected``: the share of absent and of shown phrases whose presence is below the
        threshold; ``false_boxes_per_absent_phrase``: boxes above both thresholds; ``absent_with_box``: the share of absent
        phrases with such a box; ``false_boxes_per_image``: those boxes of all absent phrases of an image together, mean
        over the images that were asked for an absent phrase, then over sources. Unlike the others it grows with the number
        of phrases asked.
    """
    presence = np.array([case.presence for case in cases], float)
    shown = np.array([case.shown for case in cases], bool)
    rejected = (~said_there(cases, thresholds_of)).astype(float)
    boxes = boxes_shown(cases, thresholds_of).astype(float)
    labels = by_label(cases)
    absent_boxes = np.where(shown, np.nan, boxes)
    return {
        "specificity_at_sensitivity_95": mean_over_labels(
            {label: specificity_at_sensitivity(presence[some], shown[some]) for label, some in labels.items()}
        ),
        "sensitivity_at_specificity_95": mean_over_labels(
            {label: sensitivity_at_specificity(presence[some], shown[some]) for label, some in labels.items()}
        ),
        "absent_rejected": mean_over_cases(cases, np.where(shown, np.nan, rejected)),
        "shown_rejected": mean_over_cases(cases, np.where(shown, rejected, np.nan)),
        "false_boxes_per_absent_phrase": mean_over_cases(cases, absent_boxes),
        "absent_with_box": mean_over_cases(cases, np.where(shown, np.nan, boxes > 0)),
        "false_boxes_per_image": _per_image(cases, absent_boxes),
    }


def _operating_points(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sensitivity and specificity (T,) at every threshold that answers differently; empty where one kind is missing."""
    positive, negative = np.sort(scores[truth]), np.sort(scores[~truth])
    if not len(positive) or not len(negative):
        return np.zeros(0), np.zeros(0)
    limits = np.append(np.unique(scores), np.inf)
    sensitivity = 1 - np.searchsorted(positive, limits, side="left") / len(positive)
    return sensitivity, np.searchsorted(negative, limits, side="left") / len(negative)


def _per_image(cases: Sequence[Case], values: np.ndarray) -> float | None:
    """Sum of the values (N,) within each image, mean over the images that have one, then over sources."""
    sums: dict[tuple[str, str], float] = {}
    for case, value in zip(cases, values, strict=True):
        if not np.isnan(value):
            sums[case.source, case.image] = sums.get((case.source, case.image), 0.0) + float(value)
    return mean_over_labels(sums)
