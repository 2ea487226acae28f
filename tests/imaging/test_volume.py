from itertools import permutations, product

import numpy as np
import pytest

from medglip.imaging.volume import GridError, Volume, on_grid_of, spacing_of_affine


def affine(spacing: tuple[float, float, float] = (1.0, 2.0, 3.0), tilt: float = 0.0) -> np.ndarray:
    """(i, j, k) to LPS, turned by ``tilt`` radians around x."""
    turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    matrix = np.eye(4)
    matrix[:3, :3] = turn * np.array(spacing)
    matrix[:3, 3] = (-30.0, 12.5, 7.0)
    return matrix


def reordered(volume: Volume, order: tuple[int, ...], flips: tuple[bool, ...]) -> Volume:
    """The same voxels at the same places, in another array order (of k, j, i)."""
    assert volume.affine_ijk_to_mm is not None
    voxels, matrix = volume.voxels, volume.affine_ijk_to_mm.copy()
    for axis, flip in enumerate(flips):
        if flip:
            column = 2 - axis
            matrix[:3, 3] += matrix[:3, column] * (voxels.shape[axis] - 1)
            matrix[:3, column] *= -1
            voxels = np.flip(voxels, axis)
    columns = [2 - order[2 - column] for column in range(3)]
    matrix[:3, :3] = matrix[:3, columns]
    return Volume(voxels.transpose(order), matrix, spacing_of_affine(matrix))


ALL_48 = [(order, flips) for order in permutations(range(3)) for flips in product((False, True), repeat=3)]


@pytest.mark.parametrize(("order", "flips"), ALL_48)
def test_labels_in_any_array_order_come_back_in_the_images(order: tuple, flips: tuple) -> None:
    image = Volume(np.arange(24).reshape(2, 3, 4), affine(tilt=0.3))
    back, off = on_grid_of(image, reordered(image, order, flips), "labels.nii")
    assert np.array_equal(back, image.voxels)
    assert off == 0.0


def test_a_mask_of_another_size_is_refused_by_size() -> None:
    image = Volume(np.zeros((2, 3, 4)), affine())
    with pytest.raises(GridError, match=r"'heart.nii.gz'.*\(2, 3, 5\).*\(2, 3, 4\)") as caught:
        on_grid_of(image, Volume(np.zeros((2, 3, 5)), affine()), "heart.nii.gz")
    assert caught.value.reason == "size_mismatch"


@pytest.mark.parametrize(("shift", "fits"), [(0.05, True), (0.4, True), (0.6, False)])
def test_a_shifted_mask_is_refused_beyond_half_a_voxel(shift: float, fits: bool) -> None:
    moved = affine()
    moved[0, 3] += shift
    image, labels = Volume(np.zeros((2, 3, 4)), affine()), Volume(np.zeros((2, 3, 4)), moved)
    if fits:
        assert on_grid_of(image, labels, "m")[1] == pytest.approx(shift if shift > 0.1 else 0.0)
    else:
        with pytest.raises(GridError, match=r"0\.60 voxels") as caught:
            on_grid_of(image, labels, "m")
        assert caught.value.reason == "geometry_mismatch"


def test_a_turned_mask_is_refused() -> None:
    with pytest.raises(GridError, match="turned or scaled"):
        on_grid_of(Volume(np.zeros((2, 3, 4)), affine()), Volume(np.zeros((2, 3, 4)), affine(tilt=0.8)), "m")


def test_volume_of_a_voxel_is_unknown_where_slices_are_uneven() -> None:
    even = Volume(np.zeros((2, 3, 4)), affine(), (3.0, 2.0, 1.0))
    assert even.voxel_mm3 == pytest.approx(6.0)
    assert Volume(np.zeros((2, 3, 4)), affine(), (3.0, 2.0, 1.0), origins_mm=np.zeros((2, 3))).voxel_mm3 is None
    assert Volume(np.zeros((2, 3, 4))).voxel_mm3 is None
