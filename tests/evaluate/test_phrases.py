"""Figures of single phrases, by hand."""

import numpy as np
import pytest
from asked import case_of, random_cases

from medglip.evaluate.phrases import NAMES, best_box_hits, figures, values_of

TRUE = [[0, 0, 10, 10], [50, 50, 60, 60]]


def asked(boxes, truth, others=(), **given):
    """A phrase with these boxes, of falling score from 0.9."""
    arrays = {name: np.array(some, np.float32).reshape(-1, 4)
              for name, some in (("boxes", boxes), ("truth", truth), ("others", others))}  # fmt: skip
    return case_of(np.random.default_rng(0), scores=np.linspace(0.9, 0.1, len(boxes), dtype=np.float32), **arrays, **given)


def values(case):
    return dict(zip(NAMES, values_of(case), strict=True))


def test_only_the_best_box_counts():
    assert best_box_hits(np.array([[0.6, 0.0], [0.9, 0.9]]))
    assert not best_box_hits(np.array([[0.4], [0.9]]))
    assert not best_box_hits(np.zeros((0, 2)))


def test_any_of_the_true_boxes_will_do():
    for true in TRUE:
        assert values(asked([true], TRUE)) == dict.fromkeys(NAMES, 1.0)
    around = [0, 0, 60, 60]  # the box around both is no answer
    assert values(asked([around], TRUE))["acc50"] == 0.0
    assert values(asked([around], TRUE))["miou"] == pytest.approx(100 / 3600)


@pytest.mark.parametrize(("rank", "right"), [(1, (1, 1, 1)), (2, (0, 1, 1)), (5, (0, 1, 1)), (6, (0, 0, 1)), (11, (0, 0, 0))])
def test_recall_looks_at_so_many_boxes(rank, right):
    found = values(asked([[90, 90, 99, 99]] * (rank - 1) + [TRUE[0]], TRUE))
    assert (found["r1"], found["r5"], found["r10"]) == right
    assert found["acc50"] == found["r1"]


def test_near_misses_are_told_from_blindness():
    near = values(asked([[0, 0, 10, 4.9]], TRUE))
    assert (near["acc50"], near["recall01"], near["centre"]) == (0.0, 1.0, 1.0)
    beside = values(asked([[9, 9, 19, 19]], TRUE))
    assert (beside["recall01"], beside["centre"]) == (0.0, 0.0)
    wide = values(asked([[0, 0, 20, 20]], TRUE))  # its centre is the corner of the true box, which is part of it
    assert (wide["acc50"], wide["centre"]) == (0.0, 1.0)


def test_a_box_on_another_region_is_found_but_wrong():
    found = values(asked([[30, 30, 40, 40]], TRUE, [[30, 30, 40, 40]]))
    assert (found["found"], found["acc50"], found["miou"]) == (1.0, 0.0, 0.0)


def test_without_a_box_a_phrase_is_missed_and_without_truth_it_has_no_value():
    assert values(asked([], TRUE)) == dict.fromkeys(NAMES, 0.0)
    assert np.isnan(values_of(asked([TRUE[0]], []))).all()


def test_phrases_of_no_one_and_many_regions_are_apart():
    cases = [
        asked([TRUE[0]], [], presence=0.9),
        asked([TRUE[0]], [], presence=0.4),
        asked([TRUE[0]], TRUE[:1], presence=0.9),
        asked([TRUE[0]], TRUE[:1], presence=0.4),
        asked([TRUE[0], TRUE[0], [90, 90, 99, 99]], TRUE, presence=0.9),
    ]
    found = figures(cases)
    assert found["zero"] == {"phrases": 2, "silent": 0.5}
    one, many = found["one"], found["many"]
    assert (one["phrases"], one["acc50"], one["detected"], one["miou"], one["miou_shown"]) == (2, 1.0, 0.5, 1.0, 0.5)
    assert (one["covered"], many["phrases"], many["acc50"], many["covered"]) == (0.5, 1, 1.0, 0.5)
    shown = figures(cases, lambda modality: (0.95, 0.3))  # no score is as high
    assert (shown["zero"]["silent"], shown["one"]["detected"], shown["many"]["covered"]) == (1.0, 0.0, 0.0)


def test_without_phrases_nothing_is_defined():
    found = figures([])
    assert {kind: one.pop("phrases") for kind, one in found.items()} == {"zero": 0, "one": 0, "many": 0}
    assert {value for one in found.values() for value in one.values()} == {None}


@pytest.mark.parametrize("seed", range(3))
def test_more_boxes_never_hurt_and_hits_agree_with_overlaps(seed):
    for case in random_cases(seed):
        if case.shown:
            found = values(case)
            assert found["r1"] <= found["r5"] <= found["r10"] <= float(case.iou.max(initial=0) >= 0.5)
            assert found["acc50"] == (found["miou"] >= 0.5) <= found["recall01"]
            assert found["found"] >= found["acc50"]
