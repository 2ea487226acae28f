"""Cases worth looking at: the worst, the best, the wrong side, boxes of what is absent. Chooses; draws nothing.

The choice is by the figures alone, never by eye, and takes turns over modalities, concepts and images.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import product

from medglip.evaluate.cases import Case
from medglip.evaluate.confusion import landing


def best_iou(case: Case) -> float:
    """IoU of the best-scored box of a shown phrase with the true box that it overlaps most; 0 without a box."""
    return float(case.iou[0].max()) if case.iou.size else 0.0


def worst_cases(cases: Sequence[Case], total: int = 24, of_modality: int = 6) -> list[Case]:
    """Shown phrases whose best box is farthest from the truth; of equal ones the most confident first.

    Args:
        cases: Of any kind.
        total: At most so many.
        of_modality: At most so many of a modality.

    Returns:
        Worst first, within what the turns allow.
    """
    wrong = [case for case in cases if case.shown and best_iou(case) < 0.5]
    return _in_turn(wrong, lambda case: (best_iou(case), -_score(case)), total, of_modality)


def best_cases(cases: Sequence[Case], total: int = 12, of_modality: int = 2) -> list[Case]:
    """Shown phrases whose best box is nearest to the truth, best first; arguments as in ``worst_cases``."""
    right = [case for case in cases if case.shown and best_iou(case) >= 0.5]
    return _in_turn(right, lambda case: (-best_iou(case), -_score(case)), total, of_modality)


def wrong_sides(cases: Sequence[Case], total: int = 8, of_modality: int = 4) -> list[Case]:
    """Shown phrases with a side whose best box lies on the other side's region, the most confident first."""
    other = [case for case in cases if case.shown and is_wrong_side(case)]
    return _in_turn(other, lambda case: (-_score(case),), total, of_modality)


def is_wrong_side(case: Case) -> bool:
    """Whether the best box of a phrase with a side lies on a region of the same label and the other side."""
    label, _, side = case.concept.partition("@")
    other = {"left": "right", "right": "left"}.get(side)
    return other is not None and landing(case) == f"{label}@{other}"


def false_alarms(
    cases: Sequence[Case], limits: Mapping[str, tuple[float, float]], total: int = 12, of_modality: int = 3
) -> list[Case]:
    """Absent phrases that would be shown with a box all the same, the most confident first.

    Args:
        cases: Of any kind.
        limits: Modality to the least score of a box and the least presence of a phrase that are shown.
        total: At most so many.
        of_modality: At most so many of a modality.
    """
    found = [case for case in cases if not case.shown and is_shown(case, *limits[case.modality])]
    return _in_turn(found, lambda case: (-_score(case),), total, of_modality)


def is_shown(case: Case, score: float, presence: float) -> bool:
    """Whether a user would see a box for a phrase, at a least score and a least presence."""
    return len(case.scores) > 0 and _score(case) >= score and case.presence >= presence


def _score(case: Case) -> float:
    return float(case.scores[0]) if len(case.scores) else 0.0


def _in_turn(cases: Sequence[Case], key: Callable[[Case], tuple[float, ...]], total: int, of_modality: int) -> list[Case]:
    """The first by ``key``, ties by image and concept: modalities in turn, one of an image, new concepts before others."""
    order = sorted(cases, key=lambda case: (*key(case), case.image, case.concept))
    modalities, concepts, images = Counter[str](), set[str](), set[str]()
    chosen: list[Case] = []
    for again, turn in product((False, True), range(1, of_modality + 1)):
        for case in order:
            room = len(chosen) < total and modalities[case.modality] < turn
            if room and case.image not in images and (again or case.concept not in concepts):
                chosen.append(case)
                modalities[case.modality] += 1
                concepts.add(case.concept)
                images.add(case.image)
    return sorted(chosen, key=lambda case: (*key(case), case.image, case.concept))
