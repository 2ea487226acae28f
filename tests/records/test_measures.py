"""Sizes of masks: against every pair of outline points, under turns and spacings, from pixels and from run lengths."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.spatial.distance import pdist
from skimage.measure import find_contours

from medglip.errors import RecordError
from medglip.records.masks import Rle, box_of_mask, rle_of_mask
from medglip.records.measures import area_mm2, axes_mm, axes_of_rle

MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=16))
SPACINGS = st.tuples(st.floats(0.05, 10), st.floats(0.05, 10))
RING = np.pad(np.pad(np.zeros((3, 4), bool), 2, constant_values=True), 1)


def ellipse(long: float, short: float, angle: float, centre: np.ndarray, side: int) -> np.ndarray:
    """Pixels whose centres lie in an ellipse of these axes, in pixels."""
    y, x = np.mgrid[:side, :side].astype(float)
    y, x = y - centre[0], x - centre[1]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return (along / long) ** 2 + (across / short) ** 2 <= 0.25


def measured(mask: np.ndarray, spacing_mm: tuple[float, float]) -> tuple[float, float]:
    """Axes of a mask that has some."""
    axes = axes_mm(mask, spacing_mm)
    assert axes is not None
    return axes


def axes_by_all_pairs(mask: np.ndarray, spacing_mm: tuple[float, float]) -> tuple[float, float]:
    """Every pair of points in the middle of a pixel's side."""
    middles = np.argwhere(mask)[:, None] + np.array([(0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5)])
    points = np.unique(middles.reshape(-1, 2), axis=0) * spacing_mm
    gaps = points[:, None] - points
    lengths = np.linalg.norm(gaps, axis=2)
    longest = gaps[lengths >= lengths.max() * (1 - 1e-9)] / lengths.max()
    return lengths.max(), max(np.ptp(points @ (-across, along)) for along, across in longest)


@settings(max_examples=100, deadline=None)
@given(MASKS, SPACINGS)
@example(RING, (1.0, 1.0))
@example(np.ones((1, 1), bool), (3.0, 0.5))
@example(np.eye(9, dtype=bool), (1.0, 1.0))
@example(np.eye(16, 2, -7, dtype=bool), (0.7, 0.7))
def test_axes_are_those_of_all_pairs(mask, spacing):
    if not mask.any():
        assert axes_mm(mask, spacing) is None
        return
    found = measured(mask, spacing)
    assert found == pytest.approx(axes_by_all_pairs(mask, spacing))
    outline = np.vstack(find_contours(np.pad(mask, 1).astype(float), 0.5)) * spacing
    assert found[0] == pytest.approx(pdist(outline).max())


@settings(max_examples=100, deadline=None)
@given(MASKS, SPACINGS, st.tuples(*[st.integers(0, 5)] * 4))
@example(RING, (1.0, 2.0), (0, 0, 0, 0))
@example(np.ones((5, 7), bool), (1.0, 2.0), (0, 0, 0, 0))
@example(np.ones((1, 7), bool), (1.0, 2.0), (0, 0, 0, 0))
@example(np.ones((7, 1), bool), (1.0, 2.0), (0, 0, 0, 0))
def test_run_lengths_and_pixels_measure_the_same(mask, spacing, margin):
    left, right, top, bottom = margin
    whole = np.pad(mask, ((top, bottom), (left, right)))
    code = rle_of_mask(whole)
    assert axes_of_rle(code, spacing) == pytest.approx(axes_mm(mask, spacing))
    assert area_mm2(code, spacing) == pytest.approx(mask.sum() * spacing[0] * spacing[1])
    assert area_mm2(whole, spacing) == pytest.approx(mask.sum() * spacing[0] * spacing[1])


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_of_large_masks(seed):
    rng = np.random.default_rng(seed)
    long, short = rng.uniform(100, 700, 2)
    mask = ellipse(long, short, rng.uniform(0, np.pi), rng.uniform(200, 500, 2), 700)
    mask &= rng.random(mask.shape) > rng.choice([0.0, 0.001, 0.9])
    assert axes_of_rle(rle_of_mask(mask), (0.3, 0.4)) == pytest.approx(axes_mm(mask, (0.3, 0.4)))


@settings(max_examples=100, deadline=None)
@given(MASKS.filter(np.any), SPACINGS, st.floats(0.01, 100))
def test_axes_do_not_depend_on_how_the_image_lies(mask, spacing, factor):
    long, short = measured(mask, spacing)
    for same in (np.fliplr(mask), np.flipud(mask), np.rot90(mask, 2), np.pad(mask, 3), mask.astype(float) * 256):
        assert axes_mm(same, spacing) == pytest.approx((long, short))
    assert axes_mm(mask.T, spacing[::-1]) == pytest.approx((long, short))
    assert axes_mm(np.rot90(mask), spacing[::-1]) == pytest.approx((long, short))
    assert axes_mm(mask, (spacing[0] * factor, spacing[1] * factor)) == pytest.approx((long * factor, short * factor))
    x0, y0, x1, y1 = box_of_mask(mask) or (0, 0, 0, 0)
    sides = (x1 - x0) * spacing[1], (y1 - y0) * spacing[0]
    assert 0 < short <= long + 1e-9
    assert max(sides) - 1e-9 <= long <= np.hypot(*sides) + 1e-9
    assert mask.sum() * spacing[0] * spacing[1] <= long * np.hypot(*sides) + 1e-9


@settings(max_examples=50, deadline=None)
@given(MASKS.filter(np.any), st.integers(1, 4), st.integers(1, 4))
def test_a_finer_grid_measures_nearly_the_same(mask, down, right):
    finer = mask.repeat(down, axis=0).repeat(right, axis=1)
    found, _ = measured(finer, (1 / down, 1 / right))
    long, _ = measured(mask, (1.0, 1.0))
    assert long - 1e-9 <= found <= long + np.sqrt(2)  # the corners of a coarse pixel become middles of finer ones


@pytest.mark.parametrize("seed", range(100))
def test_a_turned_ellipse_keeps_its_axes_within_a_pixel(seed):
    rng = np.random.default_rng(seed)
    long = np.exp(rng.uniform(np.log(3), np.log(80)))
    short = long * rng.uniform(0.4, 1.0)
    side = int(long) + 5
    centre = side / 2 + rng.uniform(-0.5, 0.5, 2)
    for angle in rng.uniform(0, np.pi, 5):
        found = measured(ellipse(long, short, angle, centre, side), (1.0, 1.0))
        assert found[0] == pytest.approx(long, abs=1.0)
        assert found[1] == pytest.approx(short, abs=1.5)


@pytest.mark.parametrize("count", [1, 2, 5, 100])
def test_a_line_is_as_long_as_its_pixels(count):
    assert axes_mm(np.ones((1, count)), (0.5, 0.5)) == (0.5 * count, 0.5)
    assert axes_mm(np.ones((count, 1)), (0.5, 0.5)) == (0.5 * count, 0.5)
    assert axes_mm(np.ones((count, 1)), (2.0, 0.25)) == (2.0 * count, 0.25)


def test_one_pixel_of_unequal_sides():
    assert axes_mm(np.ones((1, 1)), (3.0, 0.5)) == (3.0, 0.5)
    assert area_mm2(np.ones((1, 1)), (3.0, 0.5)) == 1.5


def test_of_equal_long_axes_the_one_with_the_longest_short_axis_counts():
    mask = np.array([(0, 0, 1), (1, 0, 0), (0, 1, 1)])  # the extents across its longest axes are 2.85 and 3.16
    assert measured(mask, (1.0, 1.0)) == pytest.approx((np.sqrt(10), np.sqrt(10)))


@pytest.mark.parametrize("shape", [(4, 5), (1, 1), (0, 3), (3, 0), (0, 0)])
def test_an_empty_mask_has_no_axes(shape):
    assert axes_mm(np.zeros(shape), (1.0, 1.0)) is None
    assert area_mm2(np.zeros(shape), (1.0, 1.0)) == 0.0
    if min(shape):
        assert axes_of_rle(rle_of_mask(np.zeros(shape)), (1.0, 1.0)) is None


def test_without_a_spacing_there_are_no_sizes():
    assert axes_mm(np.ones((2, 2)), None) is None
    assert axes_of_rle(rle_of_mask(np.ones((2, 2))), None) is None
    assert area_mm2(np.ones((2, 2)), None) is None


@pytest.mark.parametrize("spacing", [(0.0, 1.0), (1.0, -1.0), (float("nan"), 1.0), (1.0, float("inf"))])
def test_a_spacing_that_cannot_be_is_refused(spacing):
    for measure in (axes_mm, area_mm2):
        with pytest.raises(RecordError, match="above 0 in mm"):
            measure(np.ones((2, 2)), spacing)
    with pytest.raises(RecordError, match="above 0 in mm"):
        axes_of_rle(rle_of_mask(np.ones((2, 2))), spacing)


def test_other_dimensions_are_refused():
    with pytest.raises(RecordError, match=r"\(H, W\)"):
        axes_mm(np.ones((2, 2, 2)), (1.0, 1.0))


@pytest.mark.parametrize("counts", ["", "é", "P", "16", "zzzz", "2"])
def test_a_code_that_does_not_fill_its_mask_is_refused(counts):
    with pytest.raises(RecordError, match="does not decode"):
        axes_of_rle(Rle((2, 4), counts), (1.0, 1.0))
