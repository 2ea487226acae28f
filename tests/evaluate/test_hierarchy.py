from dataclasses import replace

import numpy as np
import pytest
from asked import case_of

from medglip.evaluate.hierarchy import boxes_inside, figures, pairs, relations
from medglip.records import label_tree

TREE = label_tree()
KIDNEY, CYST, ANY_CYST, LIVER = "abdomen.kidney", "abdomen.kidney.cyst", "systemic.cyst", "abdomen.liver"


def asked(concept, presence=0.9, boxes=(), scores=None, image="1", **given):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    scores = np.full(len(boxes), 0.9) if scores is None else scores
    case = case_of(np.random.default_rng(0), image=image, presence=presence, boxes=boxes, scores=np.array(scores, np.float32),
                   truth=np.zeros((0, 4), np.float32), **given)  # fmt: skip
    return replace(case, concept=concept)


def named(cases):
    found = pairs(cases, TREE)
    return {(cases[child].concept, cases[parent].concept, bool(part))
            for (child, parent), part in zip(found.numbers, found.is_part, strict=True)}  # fmt: skip


def test_kinds_and_places_of_the_tree():
    assert relations(CYST, TREE)[ANY_CYST] == relations(CYST, TREE)[CYST] == "kind"
    assert relations(CYST, TREE)[KIDNEY] == "part"
    assert "abdomen" not in relations(CYST, TREE)
    assert relations(LIVER, TREE) == {LIVER: "kind"}


def test_every_relation_leads_upward():
    for label in TREE:
        assert set(relations(label.id, TREE)) <= {label.id, *TREE.ancestors(label.id)}


def test_a_side_is_kept_or_lost_and_never_gained():
    concepts = [KIDNEY, f"{KIDNEY}@left", f"{KIDNEY}@right", f"{CYST}@left", CYST, ANY_CYST, LIVER]
    found = named([asked(concept) for concept in concepts])
    assert found == {
        (f"{KIDNEY}@left", KIDNEY, False), (f"{KIDNEY}@right", KIDNEY, False), (f"{CYST}@left", CYST, False),
        (f"{CYST}@left", ANY_CYST, False), (CYST, ANY_CYST, False), (f"{CYST}@left", f"{KIDNEY}@left", True),
        (f"{CYST}@left", KIDNEY, True), (CYST, KIDNEY, True),
    }  # fmt: skip


def test_pairs_are_of_one_image_and_of_distinct_concepts():
    assert named([asked(CYST), asked(KIDNEY, image="2"), asked(KIDNEY, source="scans")]) == set()
    assert len(pairs([asked(CYST), asked(CYST), asked(KIDNEY)], TREE).numbers) == 1
    assert pairs([], TREE).numbers.shape == (0, 2)


def test_boxes_of_parts_lie_inside_by_nine_tenths():
    whole = asked(KIDNEY, boxes=[[0, 0, 10, 10], [50, 50, 60, 60], [70, 70, 99, 99]], scores=[0.9, 0.8, 0.1])
    parts = [asked(CYST, boxes=[box]) for box in ([51, 51, 59, 59], [1, 0, 11, 10], [2, 0, 12, 10], [70, 70, 99, 99])]
    silent = asked(CYST, presence=0.1, boxes=[[0, 0, 5, 5]])
    cases = [whole, *parts, silent]
    inside = boxes_inside(cases, np.array([[number, 0] for number in range(1, 6)]))
    # Inside a second box; by 9/10; by 8/10; in a box below the threshold; said to be absent.
    assert np.array_equal(inside, [1, 1, 0, 0, np.nan], equal_nan=True)
    assert np.isnan(boxes_inside(cases, np.array([[0, 5]]))).all()
    assert len(boxes_inside([], np.zeros((0, 2), int))) == 0


@pytest.mark.parametrize("seed", range(3))
def test_inside_is_the_same_one_by_one(seed):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 20, (12, 3, 2))
    cases = [asked(KIDNEY, boxes=np.concatenate([one, one + rng.uniform(5, 60, (3, 2))], axis=1)[: number % 4])
             for number, one in enumerate(low)]  # fmt: skip
    numbers = rng.integers(0, 12, (40, 2))
    for (child, parent), told in zip(numbers, boxes_inside(cases, numbers), strict=True):
        first, others = cases[child].boxes, cases[parent].boxes
        if not len(first) or not len(others):
            assert np.isnan(told)
            continue
        shares = []
        for other in others.astype(float):
            x0, y0, x1, y1 = *np.maximum(first[0, :2], other[:2]), *np.minimum(first[0, 2:], other[2:])
            shares.append(max(0, x1 - x0) * max(0, y1 - y0) / np.prod(first[0, 2:].astype(float) - first[0, :2]))
        assert told == (max(shares) >= 0.9)


def test_figures_by_hand():
    good = [asked(KIDNEY, 0.9, [[0, 0, 50, 50]]), asked(CYST, 0.6, [[10, 10, 20, 20]]), asked(ANY_CYST, 0.6)]
    bad = [asked(KIDNEY, 0.2, image="2"), asked(CYST, 0.8, [[60, 60, 70, 70]], image="2"), asked(ANY_CYST, 0.7, image="2")]
    found = figures(good + bad)
    assert found["hierarchy_kinds"] == found["hierarchy_parts"] == 0.5
    assert found["hierarchy_pairs"] == 4
    assert found["hierarchy_excess"] == pytest.approx((0.6 + 0.1) / 4)
    assert found["hierarchy_contradicted"] == 0.25  # "no kidney", and a cyst of it
    assert found["hierarchy_inside"] == 1.0  # the bad kidney shows no box, so that its cyst is not judged
    assert figures(good)["hierarchy_kinds"] == 1.0
    assert figures(good)["hierarchy_excess"] == 0.0


@pytest.mark.parametrize("cases", [[], [asked(LIVER), asked(KIDNEY)]])
def test_without_pairs_the_figures_are_none(cases):
    found = figures(cases)
    assert found.pop("hierarchy_pairs") == 0
    assert set(found.values()) == {None}
