"""Whether scores mean what they say: calibration error, reliability, Brier score, temperatures. Knows no boxes' places."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from medglip.evaluate.averages import Figures, by_label, mean_over_labels, rounded
from medglip.evaluate.boxes import match
from medglip.evaluate.cases import Case

BINS = 15
ENOUGH = 30  # cases of each kind, present and absent, from which a label may have a temperature of its own
OTHERS = ""  # the key of the temperature of every concept that has none of its own
SPREAD = 1.0  # how far, as a share of it, slopes of labels lie from that of all: the pull on a label with few cases
LEAST_SCORE = 0.05  # boxes below are left out: the hundred empty ones of a phrase would be all that counts
_STEEPEST, _FLATTEST = 20.0, 0.05  # slopes 1 / T that are tried
_GOLDEN = (5**0.5 - 1) / 2


class Reliability(NamedTuple):
    """The points of a reliability diagram, one for each bin that is not empty, rising.

    Attributes:
        confidence: (B,) mean of the probabilities in the bin.
        frequency: (B,) share of them that came true.
        counts: (B,) int64, how many are in the bin.
    """

    confidence: np.ndarray
    frequency: np.ndarray
    counts: np.ndarray


def reliability(probabilities: np.ndarray, truth: np.ndarray, bins: int = BINS, equal_mass: bool = False) -> Reliability:
    """Mean probability against observed frequency, bin by bin.

    Args:
        probabilities: (N,) in [0, 1].
        truth: (N,) bool.
        bins: How many, empty ones included.
        equal_mass: Bins of as many values each, as far as equal values, which stay together, allow; else of equal width.

    Source: DeGroot and Fienberg, The comparison and evaluation of forecasters, 1983; equal mass: Nguyen and O'Connor,
    Posterior calibration (arXiv 1508.05154), section 3.
    """
    probabilities = np.asarray(probabilities, float)
    if equal_mass:
        below = np.searchsorted(np.sort(probabilities), probabilities, side="left")
        place = bins * below // max(1, len(probabilities))
    else:
        place = np.minimum((probabilities * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    sums = (np.bincount(place, weights, minlength=bins)[count > 0] for weights in (probabilities, truth.astype(float)))
    confidence, frequency = (total / count[count > 0] for total in sums)
    return Reliability(confidence, frequency, count[count > 0])


def calibration_error(probabilities: np.ndarray, truth: np.ndarray, bins: int = BINS, equal_mass: bool = False) -> float:
    """Expected calibration error: mean distance of probability and frequency over the bins, by their counts; NaN of nothing.

    Source: Naeini et al., Obtaining well calibrated probabilities using Bayesian binning, AAAI 2015; Guo et al. (arXiv
    1706.04599), section 2, equation 3.
    """
    points = reliability(probabilities, truth, bins, equal_mass)
    total = points.counts.sum()
    return float((np.abs(points.confidence - points.frequency) * points.counts).sum() / total) if total else float("nan")


def brier(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Mean squared distance of probability and truth; NaN of nothing.

    Source: Brier, Verification of forecasts expressed in terms of probability, Monthly Weather Review 1950, of one class.

    >>> brier(np.array([1.0, 0.5]), np.array([True, False]))
    0.125
    """
    return float(((probabilities - truth) ** 2).mean()) if len(truth) else float("nan")


def tempered(probabilities: np.ndarray, temperatures: np.ndarray | float) -> np.ndarray:
    """The probabilities whose logits are divided by the temperatures; 0, 1/2 and 1 stay what they are.

    >>> tempered(np.array([0.9, 0.5, 1.0]), 2.0)
    array([0.75, 0.5 , 1.  ])
    """
    with np.errstate(divide="ignore"):  # log(0) is what is meant
        logits = np.log(probabilities) - np.log1p(-np.asarray(probabilities, float))
        return 1 / (1 + np.exp(-logits / temperatures))


def fit_temperatures(cases: Sequence[Case], enough: int = ENOUGH) -> dict[str, float]:
    """Temperature of presence of each concept that was asked often enough, and (key ``""``) of every other one.

    The slope 1 / T minimises the cross-entropy of sigmoid(logit / T), summed over the cases, plus a pull
    (slope - slope of all)^2 / (2 (SPREAD slope of all)^2); that of all cases is pulled to 1 likewise. Both sums are convex in
    the slope, so golden section finds the minimum; it stays between 1/20 and 20.

    Args:
        cases: Of a split that the model was not trained on.
        enough: How many cases a concept needs of each kind, present and absent.

    Returns:
        Concept to temperature above 0: above 1 for a model that is too sure. ``{"": 1.0}`` where there are no cases.

    Source: Guo et al., On calibration of modern neural networks (arXiv 1706.04599), section 4.2; the pull is a Gaussian prior.
    """
    logits, shown, concept, names = _asked(cases)
    of_all = _slopes(logits, shown, np.zeros(len(cases), np.int64), np.ones(1))
    positive = np.bincount(concept[shown], minlength=len(names))
    chosen = np.minimum(positive, np.bincount(concept, minlength=len(names)) - positive) >= enough
    place = np.cumsum(chosen) - 1
    used = chosen[concept]
    slopes = _slopes(logits[used], shown[used], place[concept[used]], np.repeat(of_all, chosen.sum()))
    own = [name for name, has_own in zip(names, chosen, strict=True) if has_own]
    return {OTHERS: round(float(1 / of_all[0]), 4)} | {
        name: round(float(1 / slope), 4) for name, slope in zip(own, slopes, strict=True)
    }


def presence_after(cases: Sequence[Case], temperatures: Mapping[str, float]) -> np.ndarray:
    """(N,) presence of the cases, tempered."""
    usual = temperatures.get(OTHERS, 1.0)
    return tempered(_presence(cases), np.array([temperatures.get(case.concept, usual) for case in cases], float))


def cross_validated(cases: Sequence[Case], folds: int = 5, enough: int = ENOUGH) -> np.ndarray | None:
    """(N,) presence of the cases, each tempered by what cases of other patients teach; None with fewer than two patients."""
    patients, place = np.unique(np.array([case.patient for case in cases], dtype=str), return_inverse=True)
    folds = min(folds, len(patients))
    if folds < 2:
        return None
    fold = (np.random.default_rng(0).permutation(len(patients)) % folds)[place]
    presence = np.zeros(len(cases))
    for number in range(folds):
        left_out = np.flatnonzero(fold == number)
        taught = fit_temperatures([cases[other] for other in np.flatnonzero(fold != number).tolist()], enough)
        presence[left_out] = presence_after([cases[own] for own in left_out.tolist()], taught)
    return presence


def box_outcomes(
    cases: Sequence[Case], least_score: float = LEAST_SCORE, least_iou: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N,) float64 of the boxes of all cases, and whether they are right, (N,) bool.

    A box is right where it takes a true box by ``least_iou`` that no better box took, so the second box of one object is
    wrong, as for average precision.

    Source: Kuppers et al., Multivariate confidence calibration for object detection (arXiv 2004.13546), section 3.
    """
    scores, right = [np.zeros(0)], [np.zeros(0, bool)]
    for case in cases:
        kept = int(np.count_nonzero(case.scores >= least_score))  # they fall
        if kept:
            scores.append(case.scores[:kept].astype(float))
            right.append(match(case.iou[:kept], least_iou))
    return np.concatenate(scores), np.concatenate(right)


def figures(cases: Sequence[Case]) -> Figures:
    """Figures of calibration over all questions together; None where undefined.

    Returns:
        ``presence_ece`` (15 bins of equal width), ``presence_ece_mass`` (of equal mass), ``presence_brier``; the same with
        ``_tempered``: after temperatures that other patients taught, five folds; ``presence_ece_by_label``: of equal mass,
        within labels of 30 cases of each kind, mean over labels and then over sources (and ``_tempered``);
        ``box_ece``, ``box_ece_mass`` and ``box_brier``: a box's score against whether it is right at IoU 0.5, of
        boxes of score 0.05 or more; ``presence_reliability`` and ``box_reliability``: [probability, frequency, count] of
        each bin of equal width.
    """
    presence, shown = _presence(cases), np.array([case.shown for case in cases], bool)
    scores, right = box_outcomes(cases)
    after = cross_validated(cases)
    result = _errors("presence", presence, shown)
    result |= _errors("presence", presence[:0] if after is None else after, shown[:0] if after is None else shown, "_tempered")
    result["presence_ece_by_label"] = _within_labels(cases, presence, shown)
    result["presence_ece_by_label_tempered"] = None if after is None else _within_labels(cases, after, shown)
    result |= _errors("box", scores, right)
    result["presence_reliability"] = _points(reliability(presence, shown))
    result["box_reliability"] = _points(reliability(scores, right))
    return result


def _errors(name: str, values: np.ndarray, truth: np.ndarray, suffix: str = "") -> Figures:
    """Both calibration errors and the Brier score."""
    return {
        f"{name}_ece{suffix}": rounded(calibration_error(values, truth)),
        f"{name}_ece_mass{suffix}": rounded(calibration_error(values, truth, equal_mass=True)),
        f"{name}_brier{suffix}": rounded(brier(values, truth)),
    }


def _within_labels(cases: Sequence[Case], values: np.ndarray, shown: np.ndarray) -> float | None:
    """Calibration error within each label with enough cases of both kinds, mean over labels and then over sources."""
    found = {}
    for label, numbers in by_label(cases).items():
        positive = int(shown[numbers].sum())
        if min(positive, len(numbers) - positive) >= ENOUGH:
            found[label] = calibration_error(values[numbers], shown[numbers], equal_mass=True)
    return mean_over_labels(found)


def _points(points: Reliability) -> list[list[float]]:
    return [[round(float(p), 4), round(float(f), 4), int(n)] for p, f, n in zip(*points, strict=True)]


def _presence(cases: Sequence[Case]) -> np.ndarray:
    return np.array([case.presence for case in cases], float)


def _asked(cases: Sequence[Case]) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Logits (N,) of presence, whether it is shown (N,), the number (N,) of its concept, and the concepts, sorted."""
    presence = _presence(cases).clip(1e-7, 1 - 1e-7)
    names, concept = np.unique(np.array([case.concept for case in cases], dtype=str), return_inverse=True)
    shown = np.array([case.shown for case in cases], bool)
    return np.log(presence / (1 - presence)), shown, concept.astype(np.int64), names.tolist()


def _slopes(logits: np.ndarray, shown: np.ndarray, group: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """(C,) best slopes of the cases (N,) of each group, by golden section, all groups at once; ``centre`` (C,) pulls."""
    count = len(centre)

    def cost(slopes: np.ndarray) -> np.ndarray:
        scaled = logits * slopes[group]
        paid = np.bincount(group, np.logaddexp(0, scaled) - shown * scaled, minlength=count)
        return paid + ((slopes - centre) / (SPREAD * centre)) ** 2 / 2

    low, high = np.full(count, _FLATTEST), np.full(count, _STEEPEST)
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = cost(left), cost(right)
    for _ in range(40):  # 20 * 0.618^40 is below 1e-7
        lower = at_left < at_right
        low, high = np.where(lower, low, left), np.where(lower, right, high)
        kept, at_kept = np.where(lower, left, right), np.where(lower, at_left, at_right)
        new = np.where(lower, high - _GOLDEN * (high - low), low + _GOLDEN * (high - low))
        at_new = cost(new)
        left, right = np.where(lower, new, kept), np.where(lower, kept, new)
        at_left, at_right = np.where(lower, at_new, at_kept), np.where(lower, at_kept, at_new)
    return (low + high) / 2
