"""The areas of curves are the figures; confusions and examples are what they say."""

import numpy as np
import pytest
from asked import random_cases
from judged_cases import BOX, FAR, LEFT, LIVER, OTHER, RIGHT, SPLEEN, made, mixed_cases

from medglip.evaluate.confusion import NOWHERE, confusion, landing
from medglip.evaluate.curves import GRID, absence_roc, precision_recall
from medglip.evaluate.examples import best_cases, best_iou, false_alarms, is_wrong_side, worst_cases, wrong_sides
from medglip.evaluate.tally import Tally

BOTH = ((RIGHT, OTHER), (SPLEEN, FAR))


@pytest.mark.parametrize("seed", range(4))
def test_area_under_precision_is_ap(seed):
    cases, figures = random_cases(seed), Tally(random_cases(seed)).figures()
    assert precision_recall(cases, 0.5).mean() == pytest.approx(figures["ap50"], abs=1e-9)
    assert precision_recall(cases, 0.75).mean() == pytest.approx(figures["ap75"], abs=1e-9)


def test_area_under_roc_is_auroc_and_ties_are_a_slope():
    shown = [made(f"s{n}", presence=p) for n, p in enumerate((0.9, 0.4))]
    absent = [made(f"a{n}", truth=(), presence=p) for n, p in enumerate((0.4, 0.1))]
    curve = absence_roc([*shown, *absent])
    assert np.trapezoid(curve, GRID) == pytest.approx(0.875, abs=1e-9)
    assert (np.diff(curve) >= 0).all()
    assert absence_roc(shown) is None
    assert precision_recall(absent) is None


def test_landing_is_truth_first_then_what_is_overlapped_most():
    assert landing(made()) == LIVER
    assert landing(made(others=((SPLEEN, BOX),))) == LIVER  # right, whatever else is there
    assert landing(made(boxes=((*FAR, 0.9), (*BOX, 0.8)), others=BOTH)) == SPLEEN
    assert landing(made(boxes=((26, 20, 50, 44, 0.9),), others=BOTH)) == NOWHERE
    assert landing(made(boxes=())) == NOWHERE


def test_confusion_counts_by_hand():
    cases = [
        made("a"), made("b"), made("c", boxes=((*FAR, 0.9),), others=BOTH), made("d", boxes=()),
        made("e", concept=LEFT, boxes=((*OTHER, 0.9),), others=BOTH), made("f", truth=(), boxes=((*FAR, 0.9),), others=BOTH),
    ]  # fmt: skip
    found = confusion(cases)
    assert found.concepts == (LIVER, LEFT)
    assert found.counts.tolist() == [[2, 0, 1, 1], [0, 0, 1, 0]]
    assert [tuple(one) for one in found.mistakes] == [(LEFT, RIGHT, 1, 1.0), (LIVER, SPLEEN, 1, 0.25)]
    assert confusion(cases, most=1).counts.tolist() == [[2, 1, 1]]
    assert confusion([]).counts.shape == (0, 2)


def test_rows_of_the_confusion_are_the_shown_questions():
    cases = mixed_cases(3, patients=20)
    found = confusion(cases)
    for concept, row in zip(found.concepts, found.counts, strict=True):
        mine = [case for case in cases if case.concept == concept and case.shown]
        assert row.sum() == len(mine)
        assert row[found.concepts.index(concept)] == sum(best_iou(case) >= 0.5 for case in mine)


def test_worst_and_best_keep_to_their_rules():
    cases = mixed_cases(5, patients=40, skill=0.5)
    worst, best = worst_cases(cases, total=5, of_modality=3), best_cases(cases)
    assert len(worst) == 5
    assert all(case.shown and best_iou(case) < 0.5 for case in worst)
    assert [best_iou(case) for case in worst] == sorted(best_iou(case) for case in worst)
    assert len({case.image for case in worst}) == 5
    assert max(sum(case.modality == name for case in worst) for name in ("ct", "xray")) == 3
    assert all(best_iou(case) >= 0.5 for case in best)
    assert 0 < len(best) <= 4  # two of a modality
    assert worst_cases([made()]) == best_cases([made(truth=())]) == []


def test_wrong_sides_are_told_from_other_mistakes():
    wrong = made("w", concept=LEFT, boxes=((*OTHER, 0.8),), others=BOTH)
    else_where = made("e", concept=LEFT, boxes=((*FAR, 0.9),), others=BOTH)
    assert [is_wrong_side(case) for case in (wrong, else_where, made(concept=LEFT))] == [True, False, False]
    assert wrong_sides([else_where, wrong, made()]) == [wrong]


def test_false_alarms_are_above_both_thresholds():
    def absent(name, score, presence):
        return made(name, truth=(), boxes=((*FAR, score),), presence=presence)

    loud, quiet = absent("loud", 0.8, 0.9), absent("quiet", 0.4, 0.9)
    cases = [absent("unsure", 0.9, 0.3), quiet, loud, made(), absent("low", 0.1, 0.9)]
    assert false_alarms(cases, {"ct": (0.3, 0.5)}) == [loud, quiet]
