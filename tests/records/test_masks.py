"""Masks: what goes in comes out; empty, one-pixel and full ones too."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from medglip.errors import RecordError
from medglip.records.masks import Rle, box_of_mask, rle_of_crop, rle_of_mask

MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))
ONE_PIXEL = np.zeros((3, 5), bool)
ONE_PIXEL[2, 4] = True


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
