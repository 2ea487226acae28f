from dataclasses import replace

import numpy as np
import pytest
from asked import HEART, LUNG, NODULE, case_of, random_cases

from medglip.evaluate.calibration import (
    OTHERS,
    SPREAD,
    box_outcomes,
    brier,
    calibration_error,
    cross_validated,
    figures,
    fit_temperatures,
    presence_after,
    reliability,
    tempered,
)

NONE, ONE = np.zeros((0, 4), np.float32), np.array([[0, 0, 10, 10]], np.float32)


PLAIN = case_of(np.random.default_rng(0), truth=NONE, boxes=NONE, scores=np.zeros(0, np.float32))


def asked(presence, shown, concept=HEART, patient="films/1", **given):
    return replace(PLAIN, truth=ONE if shown else NONE, presence=presence, concept=concept, patient=patient, **given)


def told(count, sharpness, concept, seed=0):
    """Questions whose truth follows the logit, and a model that multiplies the logit by ``sharpness``."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, count)
    shown = rng.random(count) < 1 / (1 + np.exp(-logits))
    presence = 1 / (1 + np.exp(-sharpness * logits))
    return [asked(float(p), bool(s), concept, f"films/{n // 2}") for n, (p, s) in enumerate(zip(presence, shown, strict=True))]


def test_calibration_error_by_hand():
    probabilities, truth = np.array([0.1, 0.15, 0.9, 0.9]), np.array([False, True, True, True])
    points = reliability(probabilities, truth, bins=2)
    assert points.counts.tolist() == [2, 2]
    assert points.frequency.tolist() == [0.5, 1.0]
    assert points.confidence == pytest.approx([0.125, 0.9])
    assert calibration_error(probabilities, truth, bins=2) == pytest.approx((2 * 0.375 + 2 * 0.1) / 4)


def test_equal_mass_fills_bins_alike_and_keeps_equal_values_together():
    probabilities = np.array([0.01, 0.02, 0.03, 0.04, 0.05, 0.96])
    assert reliability(probabilities, np.ones(6, bool), 3, equal_mass=True).counts.tolist() == [2, 2, 2]
    truth = np.array([True, False] * 10)
    assert calibration_error(np.full(20, 0.5), truth, 5, equal_mass=True) == 0.0
    assert reliability(np.full(20, 0.5), truth, 5, equal_mass=True).counts.tolist() == [20]


@pytest.mark.parametrize("equal_mass", [False, True])
def test_extremes_are_in_the_outer_bins_and_nothing_is_undefined(equal_mass):
    truth = np.array([False, False, True, True])
    assert calibration_error(np.array([0.0, 0.0, 1.0, 1.0]), truth, 15, equal_mass) == 0.0
    assert calibration_error(np.array([1.0, 1.0, 0.0, 0.0]), truth, 15, equal_mass) == 1.0
    assert np.isnan(calibration_error(np.zeros(0), np.zeros(0, bool), 15, equal_mass))


@pytest.mark.parametrize("seed", range(3))
def test_calibration_error_is_the_sum_over_bins(seed):
    rng = np.random.default_rng(seed)
    probabilities, truth = rng.random(200), rng.random(200) < 0.3
    total = 0.0
    for number in range(15):
        some = (probabilities >= number / 15) & (probabilities < (number + 1) / 15)
        total += abs(probabilities[some].sum() - truth[some].sum()) / 200
    assert calibration_error(probabilities, truth) == pytest.approx(total)


def test_brier_by_hand():
    assert brier(np.array([0.5, 1.0, 0.0, 0.2]), np.array([True, True, True, False])) == pytest.approx((0.25 + 1 + 0.04) / 4)
    assert np.isnan(brier(np.zeros(0), np.zeros(0, bool)))


def test_a_temperature_divides_the_logit():
    assert tempered(np.array([0.9, 0.1, 0.0, 0.5, 1.0]), 2.0) == pytest.approx([0.75, 0.25, 0, 0.5, 1])
    values = np.linspace(0.01, 0.99, 9)
    assert tempered(tempered(values, 3.0), 1 / 3.0) == pytest.approx(values)
    assert tempered(values, 1.0) == pytest.approx(values)


def test_a_temperature_is_found_again():
    cases = told(3000, 3.0, HEART) + told(3000, 0.5, LUNG, 1)
    found = fit_temperatures(cases)
    assert found[HEART] == pytest.approx(3.0, rel=0.1)
    assert found[LUNG] == pytest.approx(0.5, rel=0.1)
    shown, after = np.array([case.shown for case in cases]), presence_after(cases, found)
    before = np.array([case.presence for case in cases])
    assert calibration_error(after, shown) < 0.02 < calibration_error(before, shown)


def test_the_slope_is_the_minimum_of_the_cost():
    cases = told(300, 2.0, HEART)
    best = 1 / fit_temperatures(cases, enough=1000)[OTHERS]
    logits = np.array([np.log(case.presence / (1 - case.presence)) for case in cases])
    shown = np.array([case.shown for case in cases])

    def cost(slope):
        return (np.logaddexp(0, slope * logits) - shown * slope * logits).sum() + ((slope - 1) / SPREAD) ** 2 / 2

    assert cost(best) <= min(cost(slope) for slope in np.linspace(0.05, 5, 500)) + 1e-6


def test_few_cases_take_the_temperature_of_all_or_are_pulled_to_it():
    many = told(3000, 2.0, HEART)
    few = [asked(0.99, True, NODULE)] * 8 + [asked(0.01, False, NODULE)] * 8  # never wrong: alone it would go to the end
    found = fit_temperatures(many + few)
    assert set(found) == {OTHERS, HEART}
    assert presence_after([few[0]], found)[0] == pytest.approx(tempered(np.array([0.99]), found[OTHERS])[0])
    pulled = fit_temperatures(many + few, enough=5)[NODULE]
    assert found[OTHERS] / 4 < pulled < found[OTHERS]


@pytest.mark.parametrize("cases", [[], [asked(1.0, True), asked(0.0, False)]])
def test_temperatures_of_next_to_nothing_stay_near_1(cases):
    assert fit_temperatures(cases) == {OTHERS: pytest.approx(1.0, abs=1e-3)}


def test_cross_validation_never_learns_from_the_patient():
    cases = told(400, 3.0, HEART)
    after = cross_validated(cases, folds=4)
    # Turning one patient's truth around changes every other patient's presence at most, and that patient's not at all.
    turned = [
        asked(case.presence, not case.shown, HEART, case.patient) if case.patient == "films/7" else case for case in cases
    ]
    mine = np.array([case.patient == "films/7" for case in cases])
    again = cross_validated(turned, folds=4)
    assert np.array_equal(after[mine], again[mine])
    assert not np.array_equal(after[~mine], again[~mine])
    assert cross_validated(cases[:2]) is None
    assert cross_validated([]) is None


def test_second_boxes_and_boxes_of_low_score():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60], [0, 0, 10, 10]], np.float32)
    case = asked(0.9, True, boxes=boxes, scores=np.array([0.9, 0.8, 0.7, 0.01], np.float32))
    scores, right = box_outcomes([case, asked(0.9, False, boxes=boxes[:1], scores=np.array([0.6], np.float32))])
    assert right.tolist() == [True, False, False, False]
    assert scores == pytest.approx([0.9, 0.8, 0.7, 0.6])


def test_figures_fall_when_a_sure_model_is_tempered():
    found = figures(told(600, 4.0, HEART) + told(600, 3.0, LUNG, 1))
    for name in ("presence_ece", "presence_ece_mass", "presence_brier", "presence_ece_by_label"):
        assert found[f"{name}_tempered"] < found[name]
    assert found["box_ece"] is None
    assert found["box_reliability"] == []
    assert sum(count for _, _, count in found["presence_reliability"]) == 1200


def test_figures_of_nothing_and_of_random_cases():
    empty = figures([])
    assert {value for value in empty.values() if not isinstance(value, list)} == {None}
    found = figures(random_cases(0))
    assert set(found) == set(empty)
    assert 0 < found["box_ece"] < 1
