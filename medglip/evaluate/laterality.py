"""Whether "left" and "right" mean something to a model: on which side its boxes lie. Knows no masks and no average precision.

The sides are the patient's.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from medglip.evaluate.absence import boxes_shown
from medglip.evaluate.averages import Figures, ThresholdsOf, mean_over_cases, mean_over_labels, usual_thresholds
from medglip.evaluate.boxes import box_iou
from medglip.evaluate.cases import Case
from medglip.records.labels import LabelTree, label_tree
from medglip.records.record import ImageRecord
from medglip.train.vocabulary import opposite

LEAST = 0.1  # IoU from which a box lies on a region: a box on the wrong side has none
AT_ONCE = 8  # questions of the swap test, each with its image

Side = Literal["own", "other", "neither"]


def lies_on(box: np.ndarray, own: np.ndarray, other: np.ndarray, least: float = LEAST) -> Side:
    """On which regions a box lies: those that it overlaps more, by ``least`` or more; its own ones where both are alike.

    Args:
        box: (1, 4) xyxy, or (0, 4): no box lies on neither.
        own: (G, 4) of the side that was asked for.
        other: (O, 4) of the other side.
        least: IoU.
    """
    if not len(box):
        return "neither"
    near, far = (float(box_iou(box, regions).max(initial=0.0)) for regions in (own, other))
    if max(near, far) < least:
        return "neither"
    return "own" if near >= far else "other"


def other_side(case: Case, tree: LabelTree) -> np.ndarray:
    """(O, 4) regions of the image that show the same on the other side; none for a concept without a side."""
    if "@" not in case.concept:
        return case.others[:0]
    swapped = opposite(case.concept)
    return case.others[[tree.covers(swapped, concept) for concept in case.other_concepts]] if len(case.others) else case.others


def figures(cases: Sequence[Case], thresholds_of: ThresholdsOf = usual_thresholds) -> Figures:
    """Figures of the phrases that name a side, means over labels and then over sources; None where undefined.

    Where both sides are marked, the best box of the phrase lies on ``laterality_own``, ``laterality_other`` or
    ``laterality_neither`` (shares that sum to 1); ``laterality_accuracy`` is own / (own + other). Where only the side that
    was asked for is marked, it lies there: ``laterality_alone_own``. Where only the other side is marked and the one asked
    for is known to be absent: ``laterality_absent_rejected``, no box is above the thresholds, and
    ``laterality_absent_other``, the best box is, and lies on the other side. Counts: ``laterality_both``,
    ``laterality_alone``, ``laterality_absent``.
    """
    tree = label_tree()
    sided = [case for case in cases if "@" in case.concept]
    answered = boxes_shown(sided, thresholds_of) > 0
    others = [other_side(case, tree) for case in sided]
    marked, shown = np.array([len(one) > 0 for one in others], bool), np.array([case.shown for case in sided], bool)
    places = np.array([lies_on(case.boxes[:1], case.truth, one) for case, one in zip(sided, others, strict=True)], dtype=str)
    own, other, both = places == "own", places == "other", shown & marked
    alone, absent = shown & ~marked, ~shown & marked

    def mean(values: np.ndarray, where: np.ndarray) -> float | None:
        return mean_over_cases(sided, np.where(where, values.astype(float), np.nan))

    return {
        "laterality_accuracy": mean(own, both & (own | other)),
        "laterality_own": mean(own, both),
        "laterality_other": mean(other, both),
        "laterality_neither": mean(~(own | other), both),
        "laterality_alone_own": mean(own, alone),
        "laterality_absent_rejected": mean(~answered, absent),
        "laterality_absent_other": mean(answered & other, absent),
        "laterality_both": float(both.sum()),
        "laterality_alone": float(alone.sum()),
        "laterality_absent": float(absent.sum()),
    }


def sided_regions(record: ImageRecord, tree: LabelTree) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Labels that an image shows on a side, with the boxes (L, 4) of their left and (R, 4) of their right regions.

    A label of which a region without a side, or of both, is marked is left out: which side that one is of is not known.
    """
    found = {}
    for label in dict.fromkeys(region.label for region in record.regions if region.laterality in ("left", "right")):
        regions = [region for region in record.regions if tree.covers(label, region.concept)]
        if all(region.laterality in ("left", "right") for region in regions):
            left, right = (
                np.array([region.box_xyxy for region in regions if region.laterality == side], np.float32).reshape(-1, 4)
                for side in ("left", "right")
            )
            found[label] = left, right
    return found


def swap_test(grounder: Any, pairs: Sequence[tuple[Any, ImageRecord]], tree: LabelTree, least: float = LEAST) -> Figures:
    """Ask for the left and, on its own, for the right of everything that an image shows on a side.

    Each phrase is asked alone, so that no other phrase of the prompt gives it away. A phrase is judged where the image shows
    it, and its best box is above the thresholds and lies on its region. The same phrase with left and right swapped is
    consistent where the other side is marked and the best box, above the thresholds, lies there; or where it is not marked,
    and nothing is above the thresholds or the best box is off the first region. It is stuck where its best box stays.

    Args:
        grounder: Has ``answer`` and ``info.thresholds_of``, as ``medglip.Grounder``.
        pairs: Datasets, each with one of its records.
        tree: The label tree.
        least: IoU from which a box lies on a region.

    Returns:
        ``swap_consistent`` and ``swap_stuck``, means over labels and then over sources, None where nothing is judged; the
        counts ``swap_asked`` (phrases that are shown) and ``swap_judged``.
    """
    consistent: dict[tuple[str, str], list[bool]] = defaultdict(list)
    stuck: dict[tuple[str, str], list[bool]] = defaultdict(list)
    asked = 0
    for data, record in pairs:
        regions = sided_regions(record, tree)
        boxes = _both_sides(grounder, data, record, list(regions), tree) if regions else {}
        for label, sides in regions.items():
            for side, own, other in (("left", *sides), ("right", *sides[::-1])):
                asked += len(own) > 0
                first, second = boxes[f"{label}@{side}"], boxes[opposite(f"{label}@{side}")]
                if not len(own) or lies_on(first, own, other, least) != "own":
                    continue
                place = lies_on(second, own, other, least)
                key = record.origin.dataset, f"{label}@{side}"
                consistent[key].append(place == "other" if len(other) else place == "neither")
                stuck[key].append(place == "own")
    return {
        "swap_consistent": mean_over_labels({key: float(np.mean(some)) for key, some in consistent.items()}),
        "swap_stuck": mean_over_labels({key: float(np.mean(some)) for key, some in stuck.items()}),
        "swap_asked": float(asked),
        "swap_judged": float(sum(map(len, consistent.values()))),
    }


def _both_sides(grounder: Any, data: Any, record: ImageRecord, labels: Sequence[str], tree: LabelTree) -> dict[str, np.ndarray]:
    """For the left and the right of each label the best box (1, 4) above the thresholds, or (0, 4)."""
    concepts = [f"{label}@{side}" for label in labels for side in ("left", "right")]
    image = data.display(record.id)
    least_score, least_presence = grounder.info.thresholds_of(record.modality)
    found = {}
    for start in range(0, len(concepts), AT_ONCE):
        some = concepts[start : start + AT_ONCE]
        texts = [[tree.concept_name(concept)] for concept in some]
        answers = grounder.answer([image] * len(some), texts, [record.modality] * len(some))
        for concept, answer in zip(some, answers, strict=True):
            scores = answer.scores[0]
            is_there = answer.presence[0] >= least_presence and len(scores) > 0 and scores[0] >= max(least_score, 1e-12)
            found[concept] = np.asarray(answer.boxes[0][:1] if is_there else answer.boxes[0][:0], np.float32)
    return found
