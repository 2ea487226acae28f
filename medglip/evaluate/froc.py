"""Free-response ROC of lesions: how many are found at how many false marks an image. Knows no presence and no masks.

A false positive rate is counted per image, that is per slice of a volume, not per scan as LUNA16 does.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from medglip.evaluate.averages import Figures, by_label, mean_over_labels, rounded
from medglip.evaluate.cases import Case

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
GRID = np.geomspace(1 / 16, 16, 33)
# When a box hits a lesion: at this IoU or more; or where the centre of the box is in the box of the lesion, which is
# LUNA16's rule (a mark nearer to the centre than the radius) with the box in place of the ball.
Rule = float | Literal["centre"]
RULES: dict[str, Rule] = {"iou10": 0.1, "iou50": 0.5, "centre": "centre"}


class Curve(NamedTuple):
    """A FROC curve, from the highest threshold to the lowest; it begins at (0, 0).

    Attributes:
        rates: (T,) false positives an image, rising.
        sensitivities: (T,) share of the lesions that are hit, rising.
    """

    rates: np.ndarray
    sensitivities: np.ndarray


def hits(case: Case, rule: Rule = "centre") -> np.ndarray:
    """(K, G) bool: which boxes hit which true boxes."""
    if rule != "centre":
        return case.iou >= rule
    centre = (case.boxes[:, None, :2].astype(float) + case.boxes[:, None, 2:]) / 2
    return ((case.truth[None, :, :2] <= centre) & (centre <= case.truth[None, :, 2:])).all(axis=2)


def marks(case: Case, rule: Rule = "centre") -> tuple[np.ndarray, np.ndarray]:
    """What counts as found and as false in one image, by the rule of LUNA16.

    A lesion is found with the best score of the boxes that hit it. A box that hits a lesion is never false, not even where
    a better box hits it too; a box may hit several lesions.

    Returns:
        Scores (F,) of the boxes that hit nothing, and for each lesion (G,) the best score, minus infinity where it is missed.
    """
    hit = hits(case, rule)
    reached = np.where(hit, case.scores[:, None].astype(float), -np.inf)
    return case.scores[~hit.any(axis=1)], reached.max(axis=0, initial=-np.inf)


def curve(false: np.ndarray, found: np.ndarray, images: int) -> Curve:
    """The FROC curve of some images.

    Args:
        false: (F,) scores of the false marks of all images.
        found: (L,) best score at which each lesion of all images is hit, minus infinity where it is missed.
        images: Number of images, those without a lesion included.

    Returns:
        A point for every score, and (0, 0); sensitivities NaN where there is no lesion, rates NaN where there is no image.

    Source: Bunch et al., A free response approach to the measurement and characterization of radiographic observer
    performance, Proc. SPIE 0127, 1977; the rule of counting: Setio et al., LUNA16 (arXiv 1612.08012), section 2.4.
    """
    reached = found[np.isfinite(found)]
    limits = np.append(np.inf, np.unique(np.concatenate([false, reached]))[::-1])
    above = [len(some) - np.searchsorted(np.sort(some), limits, side="left") for some in (false, reached)]
    return Curve(above[0] / (images or np.nan), above[1] / (len(found) or np.nan))


def sensitivity_at(one: Curve, rates: Sequence[float] | np.ndarray = RATES) -> np.ndarray:
    """Sensitivity (R,) at some false positive rates, linear between the points; beyond the last point that of the last.

    >>> sensitivity_at(Curve(np.array([0.0, 0.0, 1.0]), np.array([0.0, 0.5, 1.0])), [0.0, 0.5, 4.0]).tolist()
    [0.5, 0.75, 1.0]
    """
    return np.interp(rates, one.rates, one.sensitivities)


def cpm(one: Curve) -> float:
    """Competition performance metric: mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives an image.

    Source: Niemeijer et al., On combining computer-aided detection systems, IEEE TMI 30(2), 2011, section III; LUNA16.
    """
    return float(sensitivity_at(one).mean())


def curves(cases: Sequence[Case], rule: Rule = "centre", level: str = "finding") -> dict[tuple[str, str], Curve]:
    """The curve of each label (source, concept) of a level that some image shows.

    The images of a label are those that were asked for it: where its truth is known.
    """
    some = [case for case in cases if case.level == level]
    found: dict[tuple[str, str], Curve] = {}
    for label, numbers in by_label(some).items():
        mine = [some[number] for number in numbers]
        if any(case.shown for case in mine):
            false, reached = zip(*(marks(case, rule) for case in mine), strict=True)
            found[label] = curve(np.concatenate(false), np.concatenate(reached), len({case.image for case in mine}))
    return found


def figures(cases: Sequence[Case]) -> Figures:
    """FROC figures of the findings, means over labels and then over sources, for each rule of ``RULES``.

    Returns:
        ``cpm_<rule>``; ``froc_<rule>_at_1``: the sensitivity at one false positive an image; ``froc_<rule>``: the
        sensitivities at the rates ``froc_rates``, the points of the plot. None, and no points, where no finding is shown.
    """
    result: Figures = {"froc_rates": [round(float(rate), 4) for rate in GRID]}
    for name, rule in RULES.items():
        labels = curves(cases, rule)
        result[f"cpm_{name}"] = mean_over_labels({label: cpm(one) for label, one in labels.items()})
        result[f"froc_{name}_at_1"] = mean_over_labels(
            {label: float(sensitivity_at(one, [1.0])[0]) for label, one in labels.items()}
        )
        result[f"froc_{name}"] = _mean_curve(labels)
    return result


def _mean_curve(labels: dict[tuple[str, str], Curve]) -> list[float]:
    """Sensitivities at the rates of the grid, mean over labels and then over sources."""
    sources: dict[str, list[np.ndarray]] = {}
    for (source, _), one in labels.items():
        sources.setdefault(source, []).append(sensitivity_at(one, GRID))
    if not sources:
        return []
    return [rounded(value) or 0.0 for value in np.mean([np.mean(some, axis=0) for some in sources.values()], axis=0)]
