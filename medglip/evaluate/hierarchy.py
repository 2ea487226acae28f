"""Whether the answers about an image fit each other, as the label tree says they must. Knows no truth."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import torch

from medglip.evaluate.absence import boxes_shown, said_there
from medglip.evaluate.averages import Figures, ThresholdsOf, mean_over_labels, usual_thresholds
from medglip.evaluate.cases import Case
from medglip.model.losses.hierarchy import consistency
from medglip.records.labels import LabelTree, label_tree

INSIDE = 0.9  # share of a part's box that lies in the box of the whole

Relation = Literal["kind", "part"]


class Pairs(NamedTuple):
    """Pairs of cases of one image, the first narrower than the second.

    Attributes:
        numbers: (H, 2) int64 numbers of cases: (child, parent).
        is_part: (H,) bool: the child is a part of the parent or is sited in it; else it is a kind of it.
    """

    numbers: np.ndarray
    is_part: np.ndarray


@lru_cache(maxsize=8192)
def relations(label_id: str, tree: LabelTree) -> dict[str, Relation]:
    """Labels that must be where a label is, itself included: ``kind`` upward through is_a and also_is alone, else ``part``.

    A finding with several sites is in one of them, so that none of them must be there. Body regions are left out: nobody
    marks them.

    >>> from medglip.records.labels import label_tree
    >>> found = relations("abdomen.kidney.cyst", label_tree())
    >>> found["systemic.cyst"], found["abdomen.kidney"]
    ('kind', 'part')
    """
    found: dict[str, Relation] = {}
    queue: list[tuple[str, Relation]] = [(label_id, "kind")]
    while queue:
        above, relation = queue.pop(0)
        if tree[above].level == "body_region" or found.get(above) in ("kind", relation):
            continue
        found[above] = relation
        label = tree[above]
        queue += [(kind, relation) for kind in (label.is_a, *label.also_is) if kind]
        queue += [(place, "part") for place in (label.part_of, *(label.site if len(label.site) == 1 else ())) if place]
    return found


def pairs(cases: Sequence[Case], tree: LabelTree) -> Pairs:
    """All pairs of cases of one image of which one concept must be there with the other; a concept asked twice counts once.

    A side is kept on the way up or is lost, and never gained: the left kidney is a kidney, not the other way round.
    """
    images: dict[tuple[str, str], dict[str, int]] = {}
    for number, case in enumerate(cases):
        images.setdefault((case.source, case.image), {}).setdefault(case.concept, number)
    numbers, is_part = [np.zeros((0, 2), np.int64)], [np.zeros(0, bool)]
    for asked in images.values():
        places, parts = _places(tuple(asked), tree)
        numbers.append(np.fromiter(asked.values(), np.int64, len(asked))[places])
        is_part.append(parts)
    return Pairs(np.concatenate(numbers), np.concatenate(is_part))


def boxes_inside(cases: Sequence[Case], numbers: np.ndarray, thresholds_of: ThresholdsOf = usual_thresholds) -> np.ndarray:
    """Whether the best box of a child lies, by ``INSIDE`` of its area, in one box of its parent.

    Args:
        cases: N cases.
        numbers: (H, 2) int64 pairs (child, parent) of them.
        thresholds_of: Only boxes above the thresholds count.

    Returns:
        (H,) float64, 1 or 0; NaN where one of the two shows no box.
    """
    count = boxes_shown(cases, thresholds_of)
    offset = np.append(0, count.cumsum())
    every = np.concatenate([np.zeros((0, 4)), *(case.boxes[:n] for case, n in zip(cases, count.tolist(), strict=True))])
    child, parent = numbers[:, 0], numbers[:, 1]
    judged = np.flatnonzero((count[child] > 0) & (count[parent] > 0))
    result = np.full(len(numbers), np.nan)
    result[judged] = 0.0
    repeats = count[parent[judged]]
    pair = np.repeat(judged, repeats)
    within = np.arange(len(pair)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    inner, outer = every[offset[child[pair]]], every[offset[parent[pair]] + within]
    low, high = np.maximum(inner[:, :2], outer[:, :2]), np.minimum(inner[:, 2:], outer[:, 2:])
    area = (inner[:, 2:] - inner[:, :2]).clip(0).prod(axis=1)
    result[pair[(high - low).clip(0).prod(axis=1) >= INSIDE * area - 1e-9]] = 1.0
    return result


def figures(cases: Sequence[Case], thresholds_of: ThresholdsOf = usual_thresholds) -> Figures:
    """How well answers about one image fit each other; means over labels (of the child) and then over sources.

    Returns:
        ``hierarchy_kinds``: share of pairs (kind, what it is a kind of) in which the narrower phrase is not more present;
        ``hierarchy_parts``: the same of (part or finding, where it is); ``hierarchy_excess``: mean of
        max(0, presence of child - presence of parent) over both; ``hierarchy_contradicted``: of children that are said to
        be there, the share whose parent is said to be absent; ``hierarchy_inside``: of parts whose best box is above
        the thresholds, as a box of the whole is, the share that lies in one, by 90 % of its area; ``hierarchy_pairs``: how
        many pairs there are. None where undefined.
    """
    numbers, is_part = pairs(cases, label_tree())
    presence = np.array([case.presence for case in cases], float)
    there = said_there(cases, thresholds_of)
    child, parent = numbers[:, 0], numbers[:, 1]
    excess = np.maximum(presence[child] - presence[parent], 0.0)
    contradicted = np.where(there[child], ~there[parent], np.nan)
    inside = np.where(is_part, boxes_inside(cases, numbers, thresholds_of), np.nan)
    labels = _by_child(cases, child)
    likely = torch.from_numpy(presence)

    def ordered(where: np.ndarray) -> float | None:
        chosen = {label: some[where[some]] for label, some in labels.items()}
        return mean_over_labels({label: float(consistency(likely, torch.from_numpy(numbers[some])))
                                 for label, some in chosen.items() if len(some)})  # fmt: skip

    def mean(values: np.ndarray) -> float | None:
        known = {label: values[some][~np.isnan(values[some])] for label, some in labels.items()}
        return mean_over_labels({label: float(some.mean()) for label, some in known.items() if len(some)})

    return {
        "hierarchy_kinds": ordered(~is_part),
        "hierarchy_parts": ordered(is_part),
        "hierarchy_excess": mean(excess),
        "hierarchy_contradicted": mean(contradicted),
        "hierarchy_inside": mean(inside),
        "hierarchy_pairs": float(len(numbers)),
    }


def _by_child(cases: Sequence[Case], child: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    """Numbers of the pairs of each (source, concept of the child)."""
    found: dict[tuple[str, str], list[int]] = {}
    for pair, number in enumerate(child.tolist()):
        found.setdefault((cases[number].source, cases[number].concept), []).append(pair)
    return {label: np.array(some, np.int64) for label, some in found.items()}


@lru_cache(maxsize=4096)
def _places(concepts: tuple[str, ...], tree: LabelTree) -> tuple[np.ndarray, np.ndarray]:
    """Places (H, 2) in ``concepts`` of child and parent, and whether it is a part (H,): images are often asked the same."""
    sides: dict[str, list[tuple[int, str | None]]] = {}
    split = [tree.split(concept) for concept in concepts]
    for place, (label, side) in enumerate(split):
        sides.setdefault(label, []).append((place, side))
    rows = [
        (place, above, relation == "part")
        for place, (label, side) in enumerate(split)
        for wider, relation in relations(label, tree).items()
        for above, its_side in sides.get(wider, ())
        if above != place and its_side in (None, side)
    ]
    table = np.array(rows, np.int64).reshape(-1, 3)
    return table[:, :2], table[:, 2] > 0
