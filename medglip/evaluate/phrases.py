"""How well the boxes of a phrase fit what it names, phrase by phrase. Knows no ranking over images and no means over labels.

Of a phrase with several regions any one will do: the "any box" protocol of Flickr30k Entities, which GLIP reports. The
other one, a single box around all of them, is not used: the box around both lungs is no answer to "lung".
"""

from collections.abc import Sequence

import numpy as np

from medglip.evaluate.absence import boxes_shown
from medglip.evaluate.averages import ThresholdsOf, rounded, usual_thresholds
from medglip.evaluate.boxes import box_iou
from medglip.evaluate.cases import Case

NAMES = ("acc50", "r1", "r5", "r10", "miou", "found", "recall01", "centre")


def best_box_hits(iou: np.ndarray, least: float = 0.5) -> bool:
    """Whether the first of the boxes (K, G), by falling score, overlaps one of the true boxes by ``least``."""
    return bool(iou.size) and bool(iou[0].max() >= least)


def values_of(case: Case) -> tuple[float, ...]:
    """The values of ``NAMES`` for a phrase that is there; the best box is the one of the highest score, shown or not.

    Returns:
        ``acc50``: the best box overlaps a true one by 0.5; ``r1``, ``r5``, ``r10``: one of so many best boxes does;
        ``miou``: overlap of the best box with the true box that it overlaps most, 0 without a box; ``found``: it overlaps any
        region of the image by 0.5, named right or not; ``recall01``: it overlaps a true box by 0.1; ``centre``: its centre
        lies in a true box. NaN for a phrase that is absent.

    Source: R@k and "any box": Kamath et al., MDETR, 2021, phrase grounding on Flickr30k Entities.
    """
    if not case.shown:
        return (float("nan"),) * len(NAMES)
    if not len(case.boxes):
        return (0.0,) * len(NAMES)
    best = case.iou.max(axis=1)
    first = float(best[0])
    middle = (case.boxes[0, :2].astype(float) + case.boxes[0, 2:]) / 2
    centre = ((case.truth[:, :2] <= middle) & (middle <= case.truth[:, 2:])).all(axis=1).any()
    within = [float(best[:count].max() >= 0.5) for count in (1, 5, 10)]
    anywhere = max(first, float(box_iou(case.boxes[:1], case.others).max(initial=0.0)))
    return within[0], *within, first, float(anywhere >= 0.5), float(first >= 0.1), float(centre)


def figures(cases: Sequence[Case], thresholds_of: ThresholdsOf = usual_thresholds) -> dict[str, dict[str, float | None]]:
    """Figures of phrases by how many regions they name, as plain means over phrases.

    Args:
        cases: Of any images and labels.
        thresholds_of: ``CheckpointInfo.thresholds_of`` of the model that was asked; boxes above them are shown to a user.

    Returns:
        ``zero``: phrases that are absent: how many (``phrases``), and the share of which no box is shown (``silent``).
        ``one`` and ``many``: how many, the means of ``NAMES``, the share with a box shown (``detected``), overlap of the best
        box where one is shown and else 0 (``miou_shown``), and the share of the true boxes that a shown box overlaps by 0.5
        (``covered``). None where there is no such phrase.
    """
    shown = boxes_shown(cases, thresholds_of)
    regions = np.array([len(case.truth) for case in cases], int)
    absent = np.flatnonzero(regions == 0)
    result: dict[str, dict[str, float | None]] = {"zero": {"phrases": len(absent), "silent": _mean(shown[absent] == 0)}}
    for kind, places in (("one", np.flatnonzero(regions == 1)), ("many", np.flatnonzero(regions > 1))):
        some = [(cases[int(place)], int(shown[place])) for place in places]
        values = np.array([values_of(case) for case, _ in some]).reshape(-1, len(NAMES))
        result[kind] = {
            "phrases": len(some),
            **{name: _mean(values[:, column]) for column, name in enumerate(NAMES)},
            "detected": _mean(shown[places] > 0),
            "miou_shown": _mean([case.iou[0].max() if count else 0.0 for case, count in some]),
            "covered": _mean([(case.iou[:count].max(axis=0, initial=0.0) >= 0.5).mean() for case, count in some]),
        }
    return result


def _mean(values: Sequence[float] | np.ndarray) -> float | None:
    return rounded(np.mean(values)) if len(values) else None
