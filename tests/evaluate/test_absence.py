import numpy as np
import pytest
from asked import HEART, LUNG, case_of, random_cases

from medglip.evaluate.absence import (
    auroc,
    best_presence_threshold,
    boxes_shown,
    figures,
    said_there,
    sensitivity_at_specificity,
    specificity_at_sensitivity,
)
from medglip.evaluate.phrases import best_box_hits

NONE, ONE = np.zeros((0, 4), np.float32), np.array([[0, 0, 10, 10]], np.float32)


def asked(presence, scores=(), truth=NONE, **given):
    """A case with boxes of some scores; where they lie does not matter here."""
    scores = np.array(scores, np.float32)
    return case_of(np.random.default_rng(0), truth=truth, presence=presence, scores=scores,
                   boxes=np.tile(ONE, (len(scores), 1)), **given)  # fmt: skip


def test_auroc_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    scores, truth = rng.integers(0, 6, 60) / 5, rng.random(60) < 0.4
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[truth] for n in scores[~truth]]
    assert np.isclose(auroc(scores, truth), np.mean(pairs))


def test_auroc_needs_both_kinds():
    assert np.isnan(auroc(np.array([0.1, 0.2]), np.array([True, True])))


def test_presence_threshold_parts_what_can_be_parted():
    scores, truth = np.array([0.9, 0.7, 0.4, 0.2]), np.array([True, True, False, False])
    threshold = best_presence_threshold(scores, truth)
    assert ((scores >= threshold) == truth).all()
    assert best_presence_threshold(scores, np.ones(4, bool)) == 0.5


def test_only_the_best_box_counts():
    assert best_box_hits(np.array([[0.6, 0.0], [0.9, 0.9]]))
    assert not best_box_hits(np.array([[0.4], [0.9]]))
    assert not best_box_hits(np.zeros((0, 2)))


@pytest.mark.parametrize("seed", range(4))
def test_operating_points_are_the_best_of_all_thresholds(seed):
    rng = np.random.default_rng(seed)
    scores, truth = rng.integers(0, 12, 80) / 11, rng.random(80) < 0.5
    points = [((scores[truth] >= limit).mean(), (scores[~truth] < limit).mean()) for limit in (*np.unique(scores), 2.0)]
    for least in (0.5, 0.95, 1.0):
        best = max(y for x, y in points if x >= least), max(x for x, y in points if y >= least)
        assert specificity_at_sensitivity(scores, truth, least) == pytest.approx(best[0])
        assert sensitivity_at_specificity(scores, truth, least) == pytest.approx(best[1])


def test_operating_points_by_hand():
    # 20 positives, of which one lies below every negative: 95 % sensitivity may give it up, 100 % may not.
    scores = np.concatenate([[0.0], np.full(19, 0.8), np.linspace(0.1, 0.5, 10)])
    truth = np.arange(30) < 20
    assert specificity_at_sensitivity(scores, truth) == 1.0
    assert specificity_at_sensitivity(scores, truth, 1.0) == 0.0
    assert sensitivity_at_specificity(scores, truth) == 0.95


def test_equal_scores_cannot_be_parted():
    scores, truth = np.full(6, 0.5), np.array([True, False] * 3)
    assert specificity_at_sensitivity(scores, truth) == sensitivity_at_specificity(scores, truth) == 0.0


@pytest.mark.parametrize("truth", [np.ones(3, bool), np.zeros(3, bool), np.zeros(0, bool)])
def test_operating_points_need_both_kinds(truth):
    scores = np.linspace(0, 1, len(truth))
    assert np.isnan(specificity_at_sensitivity(scores, truth))
    assert np.isnan(sensitivity_at_specificity(scores, truth))


def test_boxes_are_shown_above_both_thresholds_of_the_modality():
    cases = [asked(0.6, [0.9, 0.4, 0.1]), asked(0.4, [0.9]), asked(0.6, [0.9, 0.4], modality="ct")]
    limits = {"xray": (0.4, 0.5), "ct": (0.5, 0.7)}
    assert boxes_shown(cases, limits.get).tolist() == [2, 0, 0]
    assert said_there(cases, limits.get).tolist() == [True, False, False]
    assert boxes_shown(cases).tolist() == [2, 0, 2]


def test_figures_by_hand():
    cases = [
        asked(0.9, [0.9], ONE, image="1"), asked(0.3, [0.9], ONE, image="2"),
        asked(0.8, [0.9, 0.5, 0.2], image="3"), asked(0.1, [0.9], image="4"),
        asked(0.7, [0.9], image="3", concept=LUNG), asked(0.6, [0.1], image="4", concept=LUNG),
    ]  # fmt: skip
    found = figures(cases)
    assert found["absent_rejected"] == 0.25  # half of HEART's, none of LUNG's
    assert found["shown_rejected"] == 0.5
    assert found["false_boxes_per_absent_phrase"] == (1 + 0.5) / 2
    assert found["absent_with_box"] == 0.5
    assert found["false_boxes_per_image"] == 1.5  # three in image 3, none in image 4
    assert found["specificity_at_sensitivity_95"] == 0.5  # of HEART alone: LUNG is never shown
    assert found["sensitivity_at_specificity_95"] == 0.5


def test_labels_weigh_alike_in_a_source_and_sources_in_the_mean():
    cases = [asked(0.0) for _ in range(9)] + [asked(1.0, concept=LUNG)] + [asked(1.0, source="scans")]
    assert figures(cases)["absent_rejected"] == (0.5 + 0) / 2


@pytest.mark.parametrize("cases", [[], [asked(0.9, [0.9], ONE, concept=HEART)]])
def test_without_absent_phrases_the_figures_are_none(cases):
    found = figures(cases)
    assert {name for name, value in found.items() if value is not None} <= {"shown_rejected"}


def test_order_of_the_cases_does_not_matter():
    cases = random_cases(3)
    assert figures(cases) == figures(cases[::-1])
