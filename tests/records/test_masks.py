"""Masks: what goes in comes out; empty, one-pixel and full ones too."""

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask

from medglip.errors import RecordError
from medglip.records.masks import Rle, box_of_mask, rle_of_crop, rle_of_mask

MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))
ONE_PIXEL = np.zeros((3, 5), bool)
ONE_PIXEL[2, 4] = True
SHAPES = ("random", "sparse", "empty", "full", "one pixel", "one row", "one column", "rings", "chessboard", "border")
SIZES = ((1, 1), (1, 37), (41, 1), (2, 3), (64, 48), (97, 211), (1024, 1536))


def drawn(shape: str, size_hw: tuple[int, int], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    (height, width), mask = size_hw, np.zeros(size_hw, bool)
    y, x = np.mgrid[:height, :width]
    row, column = rng.integers(height), rng.integers(width)
    if shape == "random":
        return rng.random(size_hw) < 0.5
    if shape == "sparse":
        return rng.random(size_hw) < 0.01
    if shape == "full":
        return ~mask
    if shape == "one pixel":
        mask[row, column] = True
    elif shape == "one row":
        mask[row] = True
    elif shape == "one column":
        mask[:, column] = True
    elif shape == "rings":
        mask = np.hypot(y - row, x - column).astype(int) % 7 < 3
    elif shape == "chessboard":
        mask = (x + y) % 2 == 0
    elif shape == "border":
        mask[0] = mask[-1] = mask[:, 0] = mask[:, -1] = True
    return mask


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Of two empty masks, 1."""
    return float((a & b).sum() / (a | b).sum()) if (a | b).any() else 1.0


def as_coco(code: Rle) -> dict:
    return {"size": list(code.size_hw), "counts": code.counts.encode("ascii")}


@settings(max_examples=200, deadline=None)
@given(MASKS)
@example(np.zeros((4, 7), bool))
@example(np.ones((4, 7), bool))
@example(np.ones((1, 1), bool))
@example(ONE_PIXEL)
def test_round_trip_area_and_box(mask):
    code = rle_of_mask(mask)
    back = code.decode()
    assert back.dtype == bool
    assert np.array_equal(back, mask)
    assert code.size_hw == mask.shape
    assert code.area == mask.sum()
    box = box_of_mask(mask)
    assert (box is None) == (not mask.any())
    if box:
        x0, y0, x1, y1 = map(int, box)
        assert mask[y0:y1, x0:x1].sum() == mask.sum(), "nothing lies outside"
        inside = mask[y0:y1, x0:x1]
        assert inside[0].any()
        assert inside[-1].any()
        assert inside[:, 0].any()
        assert inside[:, -1].any()


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_round_trip_loses_no_pixel(shape, size):
    for seed in range(3):
        mask = drawn(shape, size, seed)
        code = rle_of_mask(mask)
        assert iou(code.decode(), mask) == 1.0
        assert rle_of_mask(code.decode()) == code
        assert code.area == mask.sum()
        sent = json.loads(json.dumps({"size": code.size_hw, "counts": code.counts}))
        assert Rle(tuple(sent["size"]), sent["counts"]) == code


@settings(max_examples=100, deadline=None)
@given(array_shapes(min_dims=2, max_dims=2, max_side=30).flatmap(lambda size: st.tuples(*[arrays(bool, size)] * 2)))
def test_coco_reads_the_code(masks):
    a, b = masks
    found = coco_mask.iou([as_coco(rle_of_mask(a))], [as_coco(rle_of_mask(b))], [False])
    assert found[0, 0] == pytest.approx(iou(a, b) if (a | b).any() else 0.0)
    union = coco_mask.merge([as_coco(rle_of_mask(a)), as_coco(rle_of_mask(b))])
    assert union["counts"].decode() == rle_of_mask(a | b).counts
    x, y, width, height = coco_mask.toBbox(as_coco(rle_of_mask(a)))
    assert (box_of_mask(a) or (0, 0, 0, 0)) == (x, y, x + width, y + height)


@settings(max_examples=50, deadline=None)
@given(MASKS)
def test_code_does_not_depend_on_the_array(mask):
    code = rle_of_mask(mask)
    numbers = mask.astype(np.int64) * 300  # would wrap to 44 as uint8, and 256 to 0
    assert rle_of_mask(numbers) == code
    assert rle_of_mask(mask.astype(np.float32) * 0.5) == code
    assert rle_of_mask(np.asfortranarray(mask)) == code
    assert rle_of_mask(np.flip(np.flip(mask, 1), 1)) == code
    assert hash(code) == hash(Rle(code.size_hw, code.counts))


def test_value_256_is_inside():
    assert rle_of_mask(np.full((2, 2), 256)).area == 4


@settings(max_examples=100, deadline=None)
@given(MASKS, st.tuples(*[st.integers(0, 6)] * 4))
def test_crop_equals_the_padded_mask(crop, margin):
    left, right, top, bottom = margin
    whole = np.pad(crop, ((top, bottom), (left, right)))
    assert rle_of_crop(crop, (left, top), whole.shape) == rle_of_mask(whole)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_crop_around_the_mask_gives_the_code_of_the_mask(shape, size):
    mask = drawn(shape, size, 7)
    x0, y0, x1, y1 = map(int, box_of_mask(mask) or (0, 0, *size[::-1]))
    code = rle_of_crop(mask[y0:y1, x0:x1], (x0, y0), size)
    assert code == rle_of_mask(mask)
    assert iou(code.decode(), mask) == 1.0


@pytest.mark.parametrize("corner", [(-1, 0), (0, -1), (3, 0), (0, 2)])
def test_crop_outside_the_image_is_refused(corner):
    with pytest.raises(RecordError, match="does not lie in"):
        rle_of_crop(np.ones((3, 3)), corner, (4, 5))


@pytest.mark.parametrize("shape", [(4,), (2, 3, 1)])
def test_other_dimensions_are_refused(shape):
    with pytest.raises(RecordError, match=r"\(H, W\)"):
        rle_of_mask(np.ones(shape))


def test_a_code_that_is_no_text_is_refused():
    with pytest.raises(RecordError, match="does not decode"):
        Rle((2, 2), "é").decode()


def test_a_broken_code_is_refused_or_is_another_mask_but_never_ends_the_process():
    rng = np.random.default_rng(5)
    refused = 0
    for _ in range(200):
        whole = rle_of_mask(rng.random((17, 23)) < 0.3)
        at = int(rng.integers(1, len(whole.counts)))
        for counts in (whole.counts[:at], whole.counts[:at] + chr(rng.integers(32, 127)) + whole.counts[at + 1 :], "", "oooo"):
            broken = Rle(whole.size_hw, counts)
            try:
                assert broken.decode().shape == (17, 23)
                assert broken.area == broken.decode().sum()
            except RecordError:
                refused += 1
    assert refused > 200
