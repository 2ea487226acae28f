"""Places: pixels to mm and back on every kind of affine; transforms that can be undone and keep a place where it is."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from medglip.errors import RecordError
from medglip.records.geometry import (
    Transform,
    box_corners_mm,
    box_of_corners_mm,
    mm_to_px,
    mm_to_voxel,
    px_to_mm,
    voxel_box_corners_mm,
    voxel_to_mm,
)
from medglip.records.masks import box_of_mask

SEEDS = st.integers(0, 2**32 - 1)
IMAGES = arrays(np.int16, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12), elements=st.integers(1, 999))
EXACT = ("crop", "pad", "flip_horizontal", "flip_vertical", "rotate90")
PLAIN = (1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)


@st.composite
def affines(draw):
    """4x4 affines: any direction, either handedness, pitches of 0.05 to 10 mm, sheared slices, far origins."""
    rng = np.random.default_rng(draw(SEEDS))
    directions, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = directions * np.exp(rng.uniform(np.log(0.05), np.log(10), 3)) * rng.choice([-1, 1], 3)
    affine[:3, 2] += affine[:3, 1] * rng.uniform(-0.4, 0.4) * draw(st.booleans())
    affine[:3, 3] = rng.uniform(-1, 1, 3) * draw(st.sampled_from([0.0, 300.0, 20000.0]))
    return affine


def lying(order: tuple[int, ...], signs: tuple[int, ...]) -> np.ndarray:
    """Affine of a volume whose axes run along the patient's, in this order and these directions."""
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, order] * signs * (0.7, 0.8, 5.0)
    affine[:3, 3] = (-120.0, 45.5, 900.25)
    return affine


def drawn_step(rng: np.random.Generator, size_hw: tuple[int, int], names: tuple[str, ...]) -> tuple[str, tuple[int, ...]]:
    height, width = size_hw
    name = str(rng.choice(names))
    if name == "crop":
        (x0, x1), (y0, y1) = (np.sort(rng.choice(side + 1, 2, replace=False)).tolist() for side in (width, height))
        return name, (x0, y0, x1, y1)
    if name == "pad":
        return name, tuple(rng.integers(0, 4, 4).tolist())
    if name == "resize":
        return name, tuple(rng.integers(1, 30, 2).tolist())
    return name, (int(rng.integers(-5, 6)),) if name == "rotate90" else ()


def drawn_transform(seed: int, size_hw: tuple[int, int], names: tuple[str, ...], steps: int = 6) -> Transform:
    rng = np.random.default_rng(seed)
    transform = Transform.identity(size_hw)
    for _ in range(steps):
        name, numbers = drawn_step(rng, transform.target_hw, names)
        transform = getattr(transform, name)(*numbers)
    return transform


def done_by_numpy(name: str, numbers: tuple[int, ...], image: np.ndarray) -> np.ndarray:
    if name == "crop":
        x0, y0, x1, y1 = numbers
        return image[y0:y1, x0:x1]
    if name == "pad":
        left, top, right, bottom = numbers
        return np.pad(image, [(top, bottom), (left, right)] + [(0, 0)] * (image.ndim - 2))
    if name == "rotate90":
        return np.rot90(image, numbers[0])
    return np.fliplr(image) if name == "flip_horizontal" else np.flipud(image)


@settings(max_examples=100, deadline=None)
@given(affines(), SEEDS)
def test_pixels_to_mm_and_back(affine, seed):
    rng = np.random.default_rng(seed)
    matrix = affine[:3].ravel()
    points = rng.uniform(-10, 4000, (20, 2))
    places = px_to_mm(points, matrix)
    back, distance = mm_to_px(places, tuple(matrix))
    assert np.abs(back - points).max() < 1e-6
    assert np.abs(distance).max() < 1e-7
    assert np.abs(px_to_mm(back, matrix) - places).max() < 1e-6
    centres = np.column_stack([points - 0.5, np.zeros(20), np.ones(20)])
    assert np.allclose(places, centres @ affine[:3].T, atol=1e-7, rtol=0)


@settings(max_examples=100, deadline=None)
@given(affines(), st.floats(-50, 50))
def test_distance_from_the_plane(affine, offset_mm):
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    normal *= np.sign(normal @ affine[:3, 2]) / np.linalg.norm(normal)
    points, distance = mm_to_px(px_to_mm((3.25, 7.5), affine[:3]) + offset_mm * normal, affine[:3])
    assert points == pytest.approx([3.25, 7.5], abs=1e-6)
    assert distance == pytest.approx(offset_mm, abs=1e-7)


@settings(max_examples=100, deadline=None)
@given(affines(), SEEDS)
def test_voxels_to_mm_and_back(affine, seed):
    points = np.random.default_rng(seed).uniform(-10, 1000, (4, 5, 3))
    places = voxel_to_mm(points, affine.ravel().tolist())
    assert places.shape == points.shape
    assert np.abs(mm_to_voxel(places, affine) - points).max() < 1e-6
    assert np.abs(voxel_to_mm(mm_to_voxel(places, affine), affine) - places).max() < 1e-6


@pytest.mark.parametrize("signs", list(product((1, -1), repeat=3)), ids=str)
@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_every_way_a_volume_can_lie(order, signs):
    affine = lying(order, signs)
    box = (1, 2, 3, 4, 7, 5)
    corners = voxel_box_corners_mm(box, affine)
    k, j, i = (axis.ravel() for axis in np.mgrid[1:4, 2:7, 3:5])
    centres = np.column_stack([i, j, k, np.ones(k.size)]) @ affine[:3].T
    half = np.abs(affine[:3, :3]).sum(axis=1) / 2
    expected = np.concatenate([centres.min(axis=0) - half, centres.max(axis=0) + half])
    assert box_of_corners_mm(corners) == pytest.approx(expected)
    back = mm_to_voxel(corners, affine)
    assert back.min(axis=0) == pytest.approx(box[:3], abs=1e-9)
    assert back.max(axis=0) == pytest.approx(box[3:], abs=1e-9)
    assert np.array_equal(np.floor(mm_to_voxel(centres, affine)), np.column_stack([k, j, i]))


def test_a_plane_of_a_volume_has_the_places_of_its_voxels():
    affine = lying((1, 2, 0), (1, -1, -1))
    plane = affine[:3].copy()
    plane[:, 3] += 4 * affine[:3, 2]
    corners = box_corners_mm((3, 2, 5, 7), plane)
    assert corners == pytest.approx(voxel_to_mm([(4.5, 2, 3), (4.5, 2, 5), (4.5, 7, 5), (4.5, 7, 3)], affine))


@pytest.mark.parametrize(
    ("affine", "words"),
    [
        ((1,) * 12, "span a plane"),
        ((0,) * 12, "span a plane"),
        ((1, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0), "span a plane"),
        ((1.0,) * 16, "12 finite numbers"),
        ((float("nan"),) * 12, "12 finite numbers"),
    ],
)
def test_planes_that_cannot_be_used_are_refused(affine, words):
    for use in (lambda: px_to_mm((0, 0), affine), lambda: mm_to_px((0, 0, 0), affine),
                lambda: Transform.identity((4, 4)).affine(affine)):  # fmt: skip
        with pytest.raises(RecordError, match=words):
            use()


@pytest.mark.parametrize(("affine", "words"), [(np.diag([1, 1, 0, 1]), "span space"), (PLAIN, "16 finite numbers")])
def test_volumes_that_cannot_be_used_are_refused(affine, words):
    with pytest.raises(RecordError, match=words):
        voxel_to_mm((0, 0, 0), affine)
    with pytest.raises(RecordError, match=words):
        mm_to_voxel((0, 0, 0), affine)


def test_a_plane_without_slice_direction_can_be_used():
    flat = (1, 0, 0, 5, 0, 1, 0, 6, 0, 0, 0, 7)
    points, distance = mm_to_px((5, 6, 9), flat)
    assert (points.tolist(), float(distance)) == ([0.5, 0.5], 2.0)


@settings(max_examples=100, deadline=None)
@given(IMAGES, SEEDS, st.integers(0, 8), st.booleans())
def test_exact_steps_do_what_numpy_does(image, seed, steps, colour):
    image = np.dstack([image, image + 1, image + 2]) if colour else image
    rng = np.random.default_rng(seed)
    transform, expected = Transform.identity(image.shape[:2]), image
    for _ in range(steps):
        name, numbers = drawn_step(rng, transform.target_hw, EXACT)
        transform, expected = getattr(transform, name)(*numbers), done_by_numpy(name, numbers, expected)
    found = transform.pixels(image)
    assert found.dtype == image.dtype
    assert np.array_equal(found, expected)
    assert transform.target_hw == expected.shape[:2]
    assert np.array_equal(transform.mask(image > 400) if not colour else found > 400, expected > 400)


@settings(max_examples=100, deadline=None)
@given(IMAGES, SEEDS)
def test_box_of_the_mask_goes_where_the_mask_goes(image, seed):
    mask = image > 500
    box = box_of_mask(mask)
    transform = drawn_transform(seed, mask.shape, ("pad", "flip_horizontal", "flip_vertical", "rotate90"))
    if box is None:
        assert not transform.mask(mask).any()
        return
    assert box_of_mask(transform.mask(mask)) == tuple(transform.boxes(box))
    back = transform.inverse()
    assert np.array_equal(back.mask(transform.mask(mask)), mask)
    assert tuple(back.boxes(transform.boxes(box))) == box


@settings(max_examples=100, deadline=None)
@given(IMAGES, SEEDS)
def test_what_is_cut_away_comes_back_as_padding(image, seed):
    transform = drawn_transform(seed, image.shape, EXACT)
    back = transform.inverse().pixels(transform.pixels(image))
    kept = transform.inverse().mask(np.ones(transform.target_hw))
    assert np.array_equal(back, np.where(kept, image, 0))


@settings(max_examples=100, deadline=None)
@given(SEEDS, st.integers(1, 900), st.integers(1, 900))
def test_a_transform_can_be_undone(seed, height, width):
    transform = drawn_transform(seed, (height, width), (*EXACT, "resize"))
    rng = np.random.default_rng(seed)
    points = rng.uniform(-5, 1000, (20, 2))
    back = transform.inverse()
    assert back.points(transform.points(points)) == pytest.approx(points, abs=1e-9)
    assert (back.source_hw, back.target_hw) == (transform.target_hw, transform.source_hw)
    assert back.inverse().matrix == pytest.approx(transform.matrix, rel=1e-12, abs=1e-9)
    low = rng.uniform(0, 500, (5, 2))
    boxes = np.concatenate([low, low + rng.uniform(1, 100, (5, 2))], axis=1)
    assert back.boxes(transform.boxes(boxes)) == pytest.approx(boxes, abs=1e-9)
    assert (transform.boxes(boxes)[:, 2:] > transform.boxes(boxes)[:, :2]).all()


@settings(max_examples=100, deadline=None)
@given(affines(), SEEDS)
def test_a_point_keeps_its_place_in_the_patient(affine, seed):
    transform = drawn_transform(seed, (60, 90), (*EXACT, "resize"))
    points = np.random.default_rng(seed).uniform(0, 90, (20, 2))
    places = px_to_mm(points, affine[:3])
    moved = transform.affine(affine[:3].ravel())
    assert moved is not None
    assert len(moved) == 12
    assert px_to_mm(transform.points(points), moved) == pytest.approx(places, abs=1e-6)
    assert np.reshape(moved, (3, 4))[:, 2] == pytest.approx(affine[:3, 2])
    _, distance = mm_to_px(places + 3 * affine[:3, 2], moved)
    assert distance == pytest.approx(mm_to_px(places + 3 * affine[:3, 2], affine[:3])[1], abs=1e-6)
    column_mm, row_mm = np.linalg.norm(affine[:3, :2], axis=0)
    expected = np.linalg.norm(np.reshape(moved, (3, 4))[:, :2], axis=0)[::-1]
    assert transform.spacing((row_mm, column_mm)) == pytest.approx(expected)


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_steps_and_their_opposites(seed):
    start = drawn_transform(seed, (7, 9), EXACT)
    height, width = start.target_hw
    for end in (
        start.flip_horizontal().flip_horizontal(),
        start.flip_vertical().flip_vertical(),
        start.rotate90(4),
        start.rotate90(3).rotate90(),
        start.rotate90(-1).rotate90(1),
        start.rotate90(2).flip_horizontal().flip_vertical(),
        start.pad(1, 2, 3, 4).crop(1, 2, 1 + width, 2 + height),
        start.resize(2 * width, 4 * height).resize(width, height),
    ):
        assert np.array_equal(end.matrix, start.matrix)
        assert end.target_hw == start.target_hw
        assert end.shown_xyxy == start.shown_xyxy


@settings(max_examples=100, deadline=None)
@given(IMAGES, st.integers(1, 4), st.integers(1, 4))
def test_whole_enlargement_repeats_pixels_and_comes_back(image, right, down):
    height, width = image.shape
    larger = Transform.identity(image.shape).resize(right * width, down * height)
    expected = image.repeat(down, axis=0).repeat(right, axis=1)
    assert np.array_equal(larger.pixels(image), expected)
    assert np.array_equal(larger.inverse().pixels(expected), image)


@settings(max_examples=150, deadline=None)
@given(SEEDS)
def test_a_resized_mask_stays_in_its_box(seed):
    rng = np.random.default_rng(seed)
    mask = np.zeros((20, 30), bool)
    (x0, y0), (width, height) = rng.integers(0, (20, 12)).tolist(), rng.integers(1, (10, 8)).tolist()
    mask[y0 : y0 + height, x0 : x0 + width] = True
    transform = drawn_transform(seed, mask.shape, ("resize", "pad", "flip_horizontal", "flip_vertical", "rotate90"))
    found = box_of_mask(transform.mask(mask))
    if found:  # a small mask may fall between the pixels of a smaller image
        assert np.abs(np.array(found) - transform.boxes((x0, y0, x0 + width, y0 + height))).max() <= 0.5 + 1e-9


def test_a_crop_into_the_padding_shows_nothing():
    transform = Transform.identity((3, 3)).pad(left=4).crop(0, 0, 2, 3)
    assert transform.pixels(np.ones((3, 3)), fill=7).tolist() == [[7, 7]] * 3
    assert transform.inverse().pixels(np.ones((3, 2))).tolist() == [[0, 0, 0]] * 3


def test_unknown_stays_unknown():
    transform = Transform.identity((3, 3)).resize(6, 6)
    assert transform.affine(None) is None
    assert transform.spacing(None) is None


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (lambda t: t.crop(2, 0, 2, 3), "x0 < x1"),
        (lambda t: t.crop(-1, 0, 2, 3), "pad first"),
        (lambda t: t.crop(0, 0, 6, 3), "inside 5 x 4 pixels"),
        (lambda t: t.crop(0.5, 0, 2, 3), "whole numbers"),
        (lambda t: t.pad(-1), "use crop"),
        (lambda t: t.pad(left=1.5), "whole numbers"),
        (lambda t: t.rotate90(0.5), "whole numbers"),
        (lambda t: t.resize(0, 3), "from 1"),
        (lambda t: t.resize(3, 2.5), "whole numbers"),
        (lambda t: Transform.identity((0, 3)), "from 1"),
        (lambda t: t.pixels(np.zeros((5, 4))), r"\(4, 5\)"),
    ],
)
def test_steps_that_cannot_be_done_are_refused(step, words):
    with pytest.raises(RecordError, match=words):
        step(Transform.identity((4, 5)))
