import numpy as np
import pytest
from asked import case_of

from medglip.evaluate.masks import area, dice, figures, hd95, joined, mask_iou, score_masks, shared, spans
from medglip.records import rle_of_mask

H, W = 24, 20


def square(x0, y0, x1, y1):
    mask = np.zeros((H, W), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def of(mask):
    return spans(rle_of_mask(mask))


def masked(found, true, truths=None, **given):
    """A case with a box for each found mask and a true box for each true mask; None stands for no mask."""
    masks = [tuple(None if one is None else rle_of_mask(one) for one in some) for some in (found, true)]
    box = np.array([[0, 0, 9, 9]], np.float32)
    return case_of(np.random.default_rng(0), truth=np.tile(box, (len(true) if truths is None else truths, 1)),
                   boxes=np.tile(box, (len(found), 1)), scores=np.linspace(0.9, 0.5, len(found), dtype=np.float32),
                   size_wh=(W, H), found_masks=masks[0], true_masks=masks[1], **given)  # fmt: skip


@pytest.mark.parametrize("seed", range(8))
def test_run_lengths_count_as_pixels_do(seed):
    rng = np.random.default_rng(seed)
    first, second, third = rng.random((3, H, W)) < rng.choice([0.0, 0.1, 0.5, 0.95, 1.0], (3, 1, 1))
    assert area(of(first)) == first.sum()
    assert shared(of(first), of(second)) == shared(of(second), of(first)) == (first & second).sum()
    assert np.array_equal(joined([of(first), of(second), of(third)]), of(first | second | third))
    if (first | second).any():
        assert mask_iou(of(first), of(second)) == (first & second).sum() / (first | second).sum()


def test_overlap_by_hand_and_of_empty_masks():
    first, second, empty = of(square(0, 0, 10, 10)), of(square(5, 0, 15, 10)), of(square(0, 0, 0, 0))
    assert dice(first, second) == 0.5
    assert mask_iou(first, second) == 1 / 3
    assert dice(first, empty) == mask_iou(empty, first) == 0.0
    assert np.isnan(dice(empty, empty))
    assert np.isnan(mask_iou(empty, empty))
    assert np.isnan(hd95(first, empty, (H, W), (1.0, 1.0)))
    assert len(joined([])) == 0


def test_distance_by_hand_has_the_unit_of_the_spacing():
    first, second = of(square(2, 5, 3, 6)), of(square(5, 9, 6, 10))
    assert hd95(first, second, (H, W), (1.0, 1.0)) == 5.0
    assert hd95(first, second, (H, W), (0.5, 2.0)) == pytest.approx((1.5**2 + 8**2) ** 0.5)
    assert hd95(first, first, (H, W), (0.5, 2.0)) == 0.0


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_dice_and_distance_equal_monais():
    metrics = pytest.importorskip("monai.metrics")
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:H, :W]
    for number in range(8):
        pair = [
            (x - cx) ** 2 / a + (y - cy) ** 2 / b < 30 for cx, cy, a, b in rng.uniform([6, 6, 0.5, 0.5], [14, 18, 2, 2], (2, 4))
        ]
        if number % 2:  # ragged and in pieces, up to the border of the image
            pair = [mask ^ (rng.random((H, W)) < 0.15) for mask in pair]
        tensors = [torch.from_numpy(mask)[None, None] for mask in pair]
        spacing = rng.uniform(0.3, 2.0, 2).tolist()
        theirs = metrics.compute_hausdorff_distance(*tensors, include_background=True, percentile=95, spacing=spacing[::-1])
        assert hd95(of(pair[0]), of(pair[1]), (H, W), tuple(spacing)) == pytest.approx(float(theirs), rel=1e-5)
        assert dice(of(pair[0]), of(pair[1])) == pytest.approx(float(metrics.compute_dice(*tensors)))


def test_the_best_box_is_judged_against_all_true_masks_together():
    left, right = square(0, 0, 5, 10), square(10, 0, 15, 10)
    scores = score_masks([masked([left, right], [left, right])])
    assert scores.iou[0] == 0.5
    assert scores.dice[0] == pytest.approx(2 / 3)
    assert scores.dice_all[0] == 1.0
    assert scores.missed[0] == scores.unknown[0] == 0
    assert np.isnan(scores.false[0])


def test_missing_empty_and_unknown_masks_are_counted():
    some = square(0, 0, 5, 10)
    cases = [
        masked([some], [some]), masked([None], [some]), masked([square(0, 0, 0, 0)], [some]), masked([], [some]),
        masked([some], [some, None]), masked([some], [square(0, 0, 0, 0)]), masked([some], []), masked([None], []),
    ]  # fmt: skip
    scores = score_masks(cases)
    assert np.array_equal(scores.dice, [1, 0, 0, 0, *[np.nan] * 4], equal_nan=True)
    assert np.array_equal(scores.missed, [0, 1, 1, 1, *[np.nan] * 4], equal_nan=True)
    assert np.array_equal(scores.hd95_px, [0, *[np.nan] * 7], equal_nan=True)
    assert np.isnan(scores.hd95_mm).all()
    assert np.array_equal(scores.unknown, [0, 0, 0, 0, 1, 1, np.nan, np.nan], equal_nan=True)
    assert np.array_equal(scores.false, [*[np.nan] * 6, 1, 0], equal_nan=True)
    found = figures(cases)
    assert (found["masks_judged"], found["masks_missed"], found["masks_unknown"]) == (4, 3, 2)
    assert (found["dice"], found["mask_missed"], found["absent_with_mask"]) == (0.25, 0.75, 0.5)


def test_millimetres_and_pixels_are_told_apart():
    first, second = square(2, 5, 3, 6), square(5, 9, 6, 10)
    found = figures([masked([first], [second]), masked([first], [second], spacing_xy_mm=(2.0, 2.0))])
    assert (found["hd95_px"], found["hd95_mm"]) == (5.0, 10.0)
    assert np.isnan(score_masks([masked([first], [second])], distances=False).hd95_px[0])


@pytest.mark.parametrize("cases", [[], [masked([], [square(0, 0, 5, 5)])]])
def test_without_a_mask_head_all_is_none(cases):
    assert set(figures(cases).values()) == {None}
