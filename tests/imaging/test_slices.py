from itertools import permutations, product

import numpy as np
import pytest

from medglip.errors import InputError
from medglip.imaging.slices import PLANES, choose_slices, cuts
from medglip.imaging.volume import Volume, spacing_of_affine

SPACING_IJK = (0.8, 0.8, 2.5)


def body() -> Volume:
    """A volume in LPS order with a mark near the patient's left, front and head."""
    voxels = np.zeros((6, 10, 12))
    voxels[4, 2, 9] = 1.0
    matrix = np.diag([*SPACING_IJK, 1.0])
    matrix[:3, 3] = (-4.0, -5.0, 100.0)
    return Volume(voxels, matrix, spacing_of_affine(matrix))


def reordered(volume: Volume, order: tuple[int, ...], flips: tuple[bool, ...]) -> Volume:
    assert volume.affine_ijk_to_mm is not None
    voxels, matrix = volume.voxels, volume.affine_ijk_to_mm.copy()
    for axis in range(3):
        if flips[axis]:
            matrix[:3, 3] += matrix[:3, 2 - axis] * (voxels.shape[axis] - 1)
            matrix[:3, 2 - axis] *= -1
            voxels = np.flip(voxels, axis)
    matrix[:3, :3] = matrix[:3, [2 - order[2 - column] for column in range(3)]]
    return Volume(voxels.transpose(order), matrix, spacing_of_affine(matrix))


def marked(volume: Volume, plane: str) -> tuple[np.ndarray, np.ndarray, tuple[int, int], np.ndarray]:
    """The plane with the mark, its place in mm, (row, column) of the mark, and the affine."""
    (cut,) = cuts(volume, [plane])
    for index in range(cut.count):
        image = cut.take(volume.voxels, index)
        if image.any():
            row, column = (int(at[0]) for at in np.nonzero(image))
            matrix = np.reshape(cut.affine_px_to_mm(volume, index), (3, 4))
            return image, matrix @ (column, row, 0, 1), (row, column), matrix
    raise AssertionError("the mark is lost")


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("flips", list(product((False, True), repeat=3)))
def test_all_48_array_orders_give_one_radiological_picture(order: tuple, flips: tuple) -> None:
    for plane in PLANES:
        picture, place, _, matrix = marked(body(), plane)
        again, place_again, _, matrix_again = marked(reordered(body(), order, flips), plane)
        assert np.array_equal(picture, again)
        assert np.abs(place - place_again).max() <= 0.01
        assert np.allclose(matrix, matrix_again)
        assert np.linalg.det(matrix[:, :3]) > 0
        (cut,) = cuts(reordered(body(), order, flips), [plane])
        assert cut.count == {"axial": 6, "coronal": 10, "sagittal": 12}[plane]


def test_left_is_on_the_right_and_the_head_is_up() -> None:
    _, place, (row, column), _ = marked(body(), "axial")
    assert (row, column) == (2, 9)  # front is up, the patient's left is on the image's right
    assert place == pytest.approx((-4.0 + 9 * 0.8, -5.0 + 2 * 0.8, 100.0 + 4 * 2.5))
    assert marked(body(), "coronal")[2] == (1, 9)
    assert marked(body(), "sagittal")[2] == (1, 2)  # front is on the image's left


def test_spacing_is_that_of_the_stored_image() -> None:
    volume = body()
    expected = {"axial": (0.8, 0.8), "coronal": (2.5, 0.8), "sagittal": (2.5, 0.8)}
    for plane, pitch in expected.items():
        (cut,) = cuts(volume, [plane])
        assert cut.spacing_mm(volume) == pytest.approx(pitch)
        matrix = np.reshape(cut.affine_px_to_mm(volume, 0), (3, 4))
        assert np.linalg.norm(matrix[:, :2], axis=0)[::-1] == pytest.approx(pitch)


@pytest.mark.parametrize("degrees", [0, 10, 20, 35, 44])
def test_an_oblique_volume_keeps_its_millimetres(degrees: float) -> None:
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    straight = body()
    matrix = np.eye(4)
    matrix[:3] = turn @ straight.affine_ijk_to_mm[:3]
    volume = Volume(straight.voxels, matrix, spacing_of_affine(matrix))
    picture, place, _, _ = marked(volume, "axial")
    assert np.array_equal(picture, marked(straight, "axial")[0])
    assert place == pytest.approx(tuple(matrix[:3] @ (9, 2, 4, 1)), abs=0.01)
    assert cuts(volume, ["axial"])[0].oblique == (np.cos(angle) < 0.9)


def test_the_native_plane_lies_across_the_largest_pitch() -> None:
    assert cuts(body())[0].plane == "axial"
    sagittal = Volume(np.zeros((4, 5, 6)), np.array([[0, 0, 4, 0], [1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]]))
    sagittal = Volume(sagittal.voxels, sagittal.affine_ijk_to_mm, spacing_of_affine(sagittal.affine_ijk_to_mm))
    assert (cuts(sagittal)[0].plane, cuts(sagittal)[0].axis_name) == ("sagittal", "k")
    even = np.diag([1.0, -1.0, 1.0, 1.0])
    assert cuts(Volume(np.zeros((4, 5, 6)), even, (1.0, 1.0, 1.0)))[0].plane == "axial"
    single = Volume(np.zeros((1, 5, 6)), np.diag([1.0, 1.0, 0.1, 1.0]), (0.1, 1.0, 1.0))
    assert cuts(single)[0].axis_name == "k"


def test_uneven_slices_keep_their_own_places() -> None:
    volume = body()
    origins = np.array([[-4.0, -5.0, 100.0 + z] for z in (0, 2.5, 5, 12.5, 15, 17.5)])
    uneven = Volume(volume.voxels, volume.affine_ijk_to_mm, volume.spacing_kji_mm, origins_mm=origins)
    assert marked(uneven, "axial")[1][2] == pytest.approx(115.0)
    assert cuts(uneven, ["coronal"])[0].spacing_mm(uneven) is None


def test_without_orientation_planes_lie_as_stored() -> None:
    volume = Volume(np.arange(24).reshape(2, 3, 4))
    (cut,) = cuts(volume)
    assert np.array_equal(cut.take(volume.voxels, 1), volume.voxels[1])
    assert cut.plane == ""
    assert cut.affine_px_to_mm(volume, 1) is None
    with pytest.raises(InputError, match="orientation"):
        cuts(volume, ["axial"])
    with pytest.raises(InputError, match=r"'transverse'.*axial"):
        cuts(body(), ["transverse"])


def test_every_concept_is_shown_at_its_largest_before_planes_are_spread() -> None:
    areas = np.zeros((3, 30), int)
    areas[0, 2:20] = 50
    areas[0, 7] = 100
    areas[1, 6:9] = (10, 90, 80)
    areas[2, 25] = 4
    assert choose_slices(areas, 2) == [7, 25]
    chosen = choose_slices(areas, 4)
    assert {7, 25} < set(chosen)
    assert len(chosen) == 4
    assert choose_slices(areas) == [*range(2, 20), 25]
    assert choose_slices(areas, 4) == chosen


def test_empty_planes_are_kept_by_share() -> None:
    areas = np.zeros((1, 20), int)
    areas[0, 8:12] = 5
    kept = choose_slices(areas, 4, empty_share=0.5)
    assert len(kept) == 6
    assert set(range(8, 12)) < set(kept)
    assert choose_slices(np.zeros((1, 20), int), 4) == []
    assert len(choose_slices(np.zeros((1, 20), int), 4, empty_share=0.5)) == 2


@pytest.mark.parametrize("signs", list(product((-1.0, 1.0), repeat=3)))
def test_a_plane_has_its_own_memory_and_lies_in_one_piece(signs: tuple[float, ...]) -> None:
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    volume = Volume(voxels, np.diag([*signs, 1.0]), (1.0, 1.0, 1.0))
    for cut in cuts(volume, PLANES):
        plane = cut.take(voxels, 1)
        assert plane.flags.c_contiguous
        assert not np.shares_memory(plane, voxels)
        assert np.array_equal(plane, cut.turned(voxels.take(1, axis=cut.axis)))
