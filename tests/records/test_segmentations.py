"""Polygons and run-length codes of COCO files: what pycocotools makes of good ones, refused where they would end it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from medglip.errors import RecordError
from medglip.records import rle_of_mask
from medglip.records.segmentations import mask_of_runs, rle_of_polygons

masks = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda hw: hnp.arrays(bool, hw))


@given(masks)
@settings(max_examples=60, deadline=None)
def test_plain_and_packed_codes_give_the_mask(mask):
    runs = [0] if mask[0, 0] else []
    flat = mask.T.ravel()
    runs += np.diff(np.flatnonzero(np.diff(flat.astype(int), prepend=2, append=2))).tolist()
    size = list(mask.shape)
    assert np.array_equal(mask_of_runs({"size": size, "counts": runs}), mask)
    packed = rle_of_mask(mask).counts
    assert np.array_equal(mask_of_runs({"size": size, "counts": packed}), mask)
    assert np.array_equal(mask_of_runs({"size": size, "counts": packed.encode()}), mask)


@given(hnp.arrays(float, st.integers(3, 8).map(lambda n: (n, 2)), elements=st.floats(-5, 30)))
@settings(max_examples=60, deadline=None)
def test_polygons_are_drawn_as_coco_draws_them(ring):
    theirs = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([ring.ravel().tolist()], 20, 25)))
    assert np.array_equal(rle_of_polygons([ring], (20, 25)).decode(), theirs)


def test_rings_without_an_inside_or_with_no_number_are_left_out():
    assert rle_of_polygons([[1, 1, 2, 2], [1, 1, np.nan, 2, 3, 3]], (9, 9)) is None
    good = [0, 0, 5, 0, 5, 5, 0, 5]
    assert rle_of_polygons([[1, 1], good], (9, 9)) == rle_of_polygons([good], (9, 9))


@pytest.mark.parametrize(
    "code",
    [
        {"size": [2, 2], "counts": [10**12]},
        {"size": [2, 2], "counts": [10**30]},
        {"size": [2, 2], "counts": [-1, 5]},
        {"size": [2, 2], "counts": [1, 2]},
        {"size": [2, 2], "counts": [[4]]},
        {"size": [2, 2], "counts": "zz~"},
        {"size": [2], "counts": [4]},
        {"size": [10**9, 10**9], "counts": [10**18]},
        {"size": [0, 0], "counts": []},
        {"counts": [4]},
    ],
)
def test_codes_that_do_not_fit_are_refused(code):
    with pytest.raises(RecordError):
        mask_of_runs(code)


@pytest.mark.parametrize("ring", [[1e300, 1e300, -1e300, 5, 7, 8e300], [0, 0, 5, 0, 5, 1e6], [1, 2, 3], ["a", "b"] * 3])
def test_polygons_that_never_end_are_refused(ring):
    with pytest.raises(RecordError):
        rle_of_polygons([ring], (9, 9))
