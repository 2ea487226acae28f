import numpy as np
import pytest
from asked import HEART, NODULE, case_of, random_cases

from medglip.evaluate.froc import GRID, RATES, RULES, cpm, curve, curves, figures, hits, marks, sensitivity_at

NONE = np.zeros((0, 4), np.float32)


def lesions(boxes=(), scores=(), truth=(), **given):
    boxes, truth = (np.array(some, np.float32).reshape(-1, 4) for some in (boxes, truth))
    given = {"concept": NODULE, **given}
    return case_of(np.random.default_rng(0), truth=truth, boxes=boxes, scores=np.array(scores, np.float32), **given)


def test_rules_of_a_hit():
    truth = [[0, 0, 10, 10], [50, 50, 60, 60]]
    case = lesions([[5, 0, 15, 10], [6, 0, 16, 10], [0, 0, 100, 100]], [0.9, 0.8, 0.7], truth)
    assert hits(case, 0.1).tolist() == [[True, False], [True, False], [False, False]]
    assert hits(case, 0.5).tolist() == [[False, False]] * 3
    assert hits(case, "centre").tolist() == [[True, False], [False, False], [False, True]]


def test_a_second_box_of_a_lesion_is_not_false():
    case = lesions([[0, 0, 10, 10], [1, 0, 11, 10], [90, 90, 99, 99]], [0.9, 0.8, 0.25], [[0, 0, 10, 10], [30, 30, 40, 40]])
    false, found = marks(case, 0.5)
    assert false.tolist() == [0.25]
    assert np.allclose(found, [0.9, -np.inf])


def test_images_without_boxes_or_lesions():
    false, found = marks(lesions(truth=[[0, 0, 10, 10]]))
    assert len(false) == 0
    assert found.tolist() == [-np.inf]
    false, found = marks(lesions([[0, 0, 10, 10]], [0.5]))
    assert false.tolist() == [0.5]
    assert len(found) == 0


def test_curve_by_hand():
    # Two images, four lesions: hit at 0.9, 0.7, 0.7 and never; false marks at 0.8, 0.7 and 0.1.
    one = curve(np.array([0.8, 0.1, 0.7]), np.array([0.7, 0.9, -np.inf, 0.7]), 2)
    assert one.rates.tolist() == [0, 0, 0.5, 1.0, 1.5]
    assert one.sensitivities.tolist() == [0, 0.25, 0.25, 0.75, 0.75]
    assert sensitivity_at(one).tolist() == [0.25, 0.25, 0.25, 0.75, 0.75, 0.75, 0.75]
    assert cpm(one) == pytest.approx(3.75 / 7)
    assert sensitivity_at(one, [0.75]).tolist() == [0.5]


def test_perfect_and_empty_curves():
    assert cpm(curve(np.zeros(0), np.array([0.5, 0.4]), 3)) == 1.0
    assert cpm(curve(np.array([0.5]), np.full(2, -np.inf), 3)) == 0.0
    assert np.isnan(cpm(curve(np.array([0.5]), np.zeros(0), 3)))


@pytest.mark.parametrize("seed", range(3))
def test_equals_monai(seed):
    froc = pytest.importorskip("monai.metrics.froc")
    rng = np.random.default_rng(seed)
    false = rng.integers(1, 30, 40) / 30
    found = np.where(rng.random(25) < 0.7, rng.integers(1, 30, 25) / 30, -np.inf)
    found[0] = -np.inf  # MONAI leaves the lowest score out: here that of the missed, which it calls 0
    ours = curve(false, found, 6)
    rates, sensitivities = froc.compute_froc_curve_data(false, np.where(np.isfinite(found), found, 0.0), 25, 6)
    assert np.allclose(ours.rates, rates[::-1])
    assert np.allclose(ours.sensitivities, sensitivities[::-1])
    assert np.isclose(cpm(ours), froc.compute_froc_score(rates, sensitivities, RATES))


def test_figures_are_of_findings_alone_and_means_of_labels_and_sources():
    good = lesions([[0, 0, 10, 10]], [0.9], [[0, 0, 10, 10]])
    bad = lesions([[0, 0, 10, 10]], [0.9], [[50, 50, 60, 60]], source="scans")
    organ = lesions([[0, 0, 10, 10]], [0.9], [[50, 50, 60, 60]], concept=HEART)
    found = figures([good, bad, organ])
    for rule in RULES:
        assert found[f"cpm_{rule}"] == found[f"froc_{rule}_at_1"] == 0.5
        assert found[f"froc_{rule}"] == [0.5] * len(GRID)


def test_absent_findings_bring_false_marks_and_images():
    shown = lesions([[0, 0, 10, 10]], [0.5], [[0, 0, 10, 10]], image="1")
    absent = lesions([[0, 0, 10, 10]] * 2, [0.9, 0.8], image="2")
    (one,) = curves([shown, absent], 0.5).values()
    assert one.rates.tolist() == [0, 0.5, 1, 1]
    assert one.sensitivities.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("cases", [[], [lesions([[0, 0, 10, 10]], [0.9])]])
def test_without_a_finding_there_are_no_figures(cases):
    found = figures(cases)
    assert found["cpm_centre"] is None
    assert found["froc_centre"] == []
    assert len(found["froc_rates"]) == len(GRID)


def test_curves_rise_with_the_rate_and_with_a_looser_rule():
    found = figures(random_cases(0))
    for rule in RULES:
        assert (np.diff(found[f"froc_{rule}"]) >= 0).all()
    assert (np.array(found["froc_iou10"]) >= found["froc_iou50"]).all()
    assert found["cpm_iou10"] > found["cpm_iou50"]
