"""How well presence tells images that show a phrase from images that do not. Knows no boxes."""

import numpy as np


def auroc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Area under the ROC curve: how often a positive scores above a negative, ties half; NaN where one kind is missing.

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


def best_presence_threshold(scores: np.ndarray, truth: np.ndarray) -> float:
    """The presence of best sensitivity plus specificity, half-way to the next; 0.5 where one kind is missing."""
    if truth.all() or not truth.any():
        return 0.5
    order = np.argsort(-scores, kind="mergesort")
    found = truth[order].cumsum() / truth.sum() - (~truth[order]).cumsum() / (~truth).sum()
    last = np.append(np.diff(scores[order]) != 0, True)  # a threshold cannot part equal scores
    place = int(np.where(last, found, -1).argmax())
    ordered = np.append(scores[order], 0.0)
    return float(ordered[place] + ordered[place + 1]) / 2
