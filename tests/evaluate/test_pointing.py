import numpy as np
import pytest
from asked import case_of, random_cases

from medglip.evaluate.phrases import NAMES, values_of
from medglip.evaluate.pointing import figures, points_at_box, points_at_mask, share_of_boxes, share_of_masks
from medglip.records import rle_of_mask

SIDE = 20


def pointing(boxes, truth, masks=None, **given):
    boxes, truth = (np.array(some, np.float32).reshape(-1, 4) for some in (boxes, truth))
    masks = (None,) * len(truth) if masks is None else tuple(None if one is None else rle_of_mask(one) for one in masks)
    scores = np.linspace(0.9, 0.1, len(boxes), dtype=np.float32)
    return case_of(np.random.default_rng(0), truth=truth, boxes=boxes, scores=scores, size_wh=(SIDE, SIDE + 4),
                   true_masks=masks, **given)  # fmt: skip


def ring():
    """A square of 10 pixels with a hole of 4 in its middle."""
    mask = np.zeros((SIDE + 4, SIDE), bool)
    mask[2:12, 3:13] = True
    mask[5:9, 6:10] = False
    return mask


def test_centre_of_a_ring_is_in_its_box_and_not_in_its_mask():
    box = [3, 2, 13, 12]
    case = pointing([box], [box], [ring()])
    assert points_at_box(case)
    assert points_at_mask(case) is False
    assert points_at_mask(pointing([[3, 2, 5, 4]], [box], [ring()])) is True


def test_every_pixel_is_told_as_the_mask_tells_it():
    mask = np.random.default_rng(0).random((SIDE + 4, SIDE)) < 0.4
    told = [[points_at_mask(pointing([[x, y, x + 1, y + 1]], [[0, 0, 20, 24]], [mask])) for x in range(SIDE)]
            for y in range(SIDE + 4)]  # fmt: skip
    assert np.array_equal(told, mask)


def test_only_the_best_box_points_and_no_box_misses():
    assert not points_at_box(pointing([[10, 10, 20, 20], [0, 0, 4, 4]], [[0, 0, 4, 4]]))
    assert not points_at_box(pointing([], [[0, 0, 4, 4]]))
    assert points_at_mask(pointing([], [[0, 0, 4, 4]], [ring()])) is False
    assert points_at_mask(pointing([[30, 30, 40, 40]], [[0, 0, 4, 4]], [ring()])) is False  # outside of the image


def test_a_region_without_mask_leaves_the_mask_unknown():
    case = pointing([[0, 0, 4, 4]], [[0, 0, 4, 4], [8, 8, 9, 9]], [ring(), None])
    assert points_at_mask(case) is None
    assert share_of_masks(case) is None
    found = figures([case])
    assert found["pointing_box"] == 1.0
    assert found["pointing_mask"] is None


@pytest.mark.parametrize("seed", range(4))
def test_random_shares_are_the_pixels_that_are_covered(seed):
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 15, (4, 2))
    truth = np.hstack([low, low + rng.integers(1, 9, (4, 2))])
    masks = rng.random((4, SIDE + 4, SIDE)) < 0.2
    drawn = np.zeros((SIDE + 4, SIDE), bool)
    for x0, y0, x1, y1 in truth:
        drawn[y0:y1, x0:x1] = True
    case = pointing([], truth, masks)
    assert share_of_boxes(case) == pytest.approx(drawn.mean())
    assert share_of_masks(case) == pytest.approx(masks.any(axis=0).mean())
    one = pointing([], truth[:1], masks[:1])
    assert share_of_boxes(one) == pytest.approx((min(truth[0, 2], 20) - truth[0, 0]) * (truth[0, 3] - truth[0, 1]) / 480)


def test_a_random_point_hits_as_often_as_is_said():
    rng = np.random.default_rng(0)
    truth = [[2, 2, 9, 12], [5, 8, 18, 20]]
    points = rng.uniform(0, [SIDE, SIDE + 4], (1000, 2))
    case = pointing([], truth, [ring(), ring()[::-1]])
    hit = [points_at_box(pointing([[*point, *point]], truth)) for point in points]
    assert np.mean(hit) == pytest.approx(share_of_boxes(case), abs=0.05)


def test_pointing_and_loose_recall_are_the_headline_figures():
    for case in random_cases(1):
        if case.shown:
            values = dict(zip(NAMES, values_of(case), strict=True))
            assert points_at_box(case) == values["centre"]
            assert figures([case])["recall_iou10"] == values["recall01"]


def test_figures_are_means_over_labels_and_none_without_phrases():
    box = [0, 0, 10, 12]
    hit, miss = pointing([box], [box]), pointing([[10, 12, 20, 24]], [box])
    found = figures([hit, hit, hit, pointing([box], []), pointing([[10, 12, 20, 24]], [box], concept="thorax.lung")])
    assert found["pointing_box"] == 0.5
    assert found["pointing_box_random"] == 0.25
    assert figures([miss])["pointing_box"] == 0.0
    assert set(figures([]).values()) == {None}
