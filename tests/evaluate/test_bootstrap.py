"""Patients, not cases, are drawn; intervals are the normal ones where those hold; equal models do not differ."""

from dataclasses import replace

import numpy as np
import pytest
from judged_cases import FAR, LEFT, SPLEEN, hit_or_miss, made, mixed_cases

from medglip.errors import InputError
from medglip.evaluate.bootstrap import Patients, every_interval, intervals, matched, paired, paired_by
from medglip.evaluate.tally import Tally

HITS = np.arange(80) % 5 < 3


def test_interval_of_a_mean_is_the_normal_one():
    low, high = intervals(hit_or_miss(HITS), draws=400)["acc50"]
    half = 1.96 * np.sqrt(0.6 * 0.4 / 80)
    assert abs(low - (0.6 - half)) < 0.04
    assert abs(high - (0.6 + half)) < 0.04


def test_a_lower_level_is_narrower_and_seeds_decide():
    cases = hit_or_miss(HITS)
    wide, narrow = (intervals(cases, draws=200, level=level)["acc50"] for level in (0.95, 0.5))
    assert wide[0] < narrow[0] < 0.6 < narrow[1] < wide[1]
    assert intervals(cases, draws=50, seed=3) == intervals(Tally(cases), draws=50, seed=3)
    assert intervals(cases, draws=50, seed=3) != intervals(cases, draws=50, seed=4)


def test_more_cases_of_the_same_patients_tell_nothing_new():
    cases = hit_or_miss(HITS)
    copies = [replace(case, image=f"{case.image} again {number}") for case in cases for number in range(4)]
    assert intervals(copies, draws=100)["acc50_micro"] == intervals(cases, draws=100)["acc50_micro"]


def test_no_source_vanishes():
    cases = [*hit_or_miss([1, 0, 1, 0, 1]), *hit_or_miss([1], "films"), *hit_or_miss([0, 1], "scans")]
    patients, rng = Patients(cases), np.random.default_rng(0)
    assert patients.count == 8
    sources = np.array([case.source for case in cases])
    drawn = [patients.draw(rng) for _ in range(50)]
    for source, count in (("scenes", 5), ("films", 1), ("scans", 2)):
        assert {int(weights[sources == source].sum()) for weights in drawn} == {count}
    assert len({tuple(weights) for weights in drawn}) > 10


def test_a_patient_is_one_of_its_source():
    same_key = [made("a", "p", source="x"), replace(made("b", "p", source="y"), patient="x/p")]
    assert Patients(same_key).count == 2


def test_intervals_hold_their_figure_and_stay_in_range():
    cases = mixed_cases(3, patients=8)
    figures = Tally(cases).figures()
    for name, ends in intervals(cases, draws=100).items():
        assert 0 <= ends[0] <= round(figures[name], 4) <= ends[1], name
        assert ends[1] <= 1 or name == "false_positives_per_image", name


def test_ends_are_percentiles_turned_round_the_figure():
    cases, rng = hit_or_miss(HITS[:20]), np.random.default_rng(0)
    patients, tally = Patients(cases), Tally(cases)
    drawn = [tally.figures(patients.draw(rng))["miou"] for _ in range(60)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    figure = tally.figures()["miou"]
    assert intervals(cases, draws=60)["miou"] == pytest.approx((2 * figure - high, 2 * figure - low), abs=1e-4)


def test_an_interval_needs_two_patients_and_a_defined_figure():
    assert set(intervals(hit_or_miss([1]), draws=5).values()) == {None}
    assert set(intervals([], draws=5).values()) == {None}
    found = intervals(hit_or_miss([1, 0, 1]), draws=20)
    assert found["absence_auroc"] is None  # nothing is absent
    assert found["acc50"] is not None


@pytest.mark.parametrize("choice", [{"draws": 0}, {"level": 0.0}, {"level": 1.0}, {"level": 95}])
def test_bad_choices_are_one_sentence(choice):
    cases = hit_or_miss([1, 0])
    for ask in (lambda: intervals(cases, **choice), lambda: paired(cases, cases, **choice)):
        with pytest.raises(InputError, match="allowed"):
            ask()


def test_groups_have_intervals_of_their_own():
    tally = Tally(mixed_cases())
    found = every_interval(tally, draws=30)
    assert set(found["intervals_by_modality"]) == {"ct", "xray"}
    assert found["intervals_by_source"]["films"] == intervals(tally.by("source")["films"], draws=30)
    assert found["bootstrap"] == {"draws": 30, "seed": 0, "level": 0.95}


def test_equal_models_do_not_differ():
    cases = mixed_cases()
    found = paired(cases, mixed_cases(), draws=60)
    assert (found.patients, found.questions, found.left_out, found.other_truth, found.reason) == (6, 18, (0, 0), 0, "")
    for one in found.figures.values():
        assert one is not None
        assert (one.difference, one.low, one.high, one.p) == (0.0, 0.0, 0.0, 1.0)


def test_the_better_model_is_told_and_signs_turn_with_the_order():
    worse, better = hit_or_miss(HITS & (np.arange(80) % 2 > 0)), hit_or_miss(HITS)
    one, turned = (paired(*pair, draws=200).figures["acc50"] for pair in ((worse, better), (better, worse)))
    assert one.difference == pytest.approx(0.3) == -turned.difference
    assert (one.a, one.b) == (turned.b, turned.a)
    assert 0 < one.low < 0.3 < one.high
    assert one.p <= 0.01
    assert turned.high < 0


def test_pairs_cancel_what_is_hard_about_a_patient():
    first = np.random.default_rng(1).random(60) < 0.5
    second = first.copy()
    second[:6] = True
    difference = paired(hit_or_miss(first), hit_or_miss(second), draws=150).figures["acc50"]
    low, high = intervals(hit_or_miss(first), draws=150)["acc50"]
    assert difference.high - difference.low < 0.7 * (high - low)


def test_the_interval_of_level_1_less_p_ends_at_0():
    first, second = hit_or_miss(HITS), hit_or_miss(np.roll(HITS, 1) | (np.arange(80) % 7 == 0))
    one = paired(first, second, draws=200).figures["miou"]
    assert 0.01 < one.p < 0.9
    at_p = paired(first, second, draws=200, level=1 - one.p).figures["miou"]
    assert min(abs(at_p.low), abs(at_p.high)) < 0.04


def test_few_patients_cannot_give_a_small_p():
    for patients in (2, 4, 6):
        worse, better = hit_or_miss([False] * patients), hit_or_miss([True] * patients)
        one = paired(worse, better, draws=200).figures["acc50"]
        assert one.p == pytest.approx(2 / 2**patients, abs=1e-4)  # all signs equal, one way or the other


def test_cases_are_matched_by_image_and_concept():
    first = [made("a", "p1"), made("a", "p1", SPLEEN), made("b", "p2"), made("c", "p3")]
    second = [made("b", "p2"), made("a", "p1"), made("a", "p1"), made("a", "p1", LEFT)]
    both = matched(first, second)
    assert [(case.image, case.concept) for case in both.first.cases] == [(c.image, c.concept) for c in both.second.cases]
    assert len(both.first.cases) == 2
    assert both.left_out == (2, 2)
    assert paired(first, second, draws=5).left_out == (2, 2)


def test_thresholds_of_each_model_are_kept():
    cases = [made(f"i{number}", f"p{number}", boxes=((*FAR, 0.4),)) for number in range(3)]
    strict = Tally(cases, lambda modality: (0.5, 0.5))
    loose = Tally(cases, lambda modality: (0.1, 0.5))
    one = paired(strict, loose, draws=10).figures["false_positives_per_image"]
    assert (one.a, one.b) == (0.0, 1.0)


def test_other_truth_is_counted():
    first = [made("a", "p1"), made("b", "p2")]
    assert paired(first, [made("a", "p1", truth=(FAR,)), made("b", "p2")], draws=5).other_truth == 1


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ([], [made()], "share no question"),
        ([made("a")], [made("b")], "share no question"),
        ([made("a"), made("b")], [made("a"), made("b")], "one patient"),
    ],
)
def test_too_little_to_compare_is_said(first, second, reason):
    found = paired(first, second, draws=5)
    assert reason in found.reason
    assert found.figures == {}


def test_comparison_by_group():
    first, second = mixed_cases(1), mixed_cases(1, skill=3.5)
    found = paired_by("modality", first, second, draws=20)
    assert set(found) == {"ct", "xray"}
    alone = paired([case for case in first if case.modality == "ct"], [case for case in second if case.modality == "ct"],
                   draws=20)  # fmt: skip
    assert found["ct"].figures == alone.figures
