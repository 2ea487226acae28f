import numpy as np

from medglip.evaluate.absence import auroc, best_presence_threshold
from medglip.evaluate.phrases import best_box_hits


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
