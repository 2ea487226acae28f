from dataclasses import replace

import nibabel
import numpy as np
import pytest

from medglip.curate.cases import Refused
from medglip.curate.sides import midline_mm, sided
from medglip.curate.source import Named
from medglip.imaging.volume import Volume

KIDNEY = Named("abdomen.kidney")
LPS = np.diag([2.0, 2.0, 4.0, 1.0])  # i to the left, j to the back, k to the head
SHAPE_KJI = (8, 20, 50)


def body(first: int, last: int, *, unit: str = "HU") -> np.ndarray:
    """Air, and a body between two columns."""
    air, flesh = (-1000, 40) if unit == "HU" else (3, 200)
    voxels = np.full(SHAPE_KJI, air, np.int16)
    voxels[:, 3:18, first:last] = flesh
    return voxels


def organs(*columns: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(SHAPE_KJI, bool)
    for start, stop in columns:
        mask[2:6, 8:12, start:stop] = True
    return mask


def whole(mask: np.ndarray) -> tuple[slice, ...]:
    return tuple(slice(0, length) for length in mask.shape)


def sides_of(mask: np.ndarray, volume: Volume) -> dict[str | None, int]:
    """Side -> number of voxels."""
    found = sided(KIDNEY, mask, whole(mask), volume, "labels.nii.gz")
    return {named.laterality: int(piece.sum()) for named, piece in found}


@pytest.mark.parametrize("unit", ["HU", "au"])
def test_the_midline_is_the_bodys_and_not_the_images(unit: str) -> None:
    volume = Volume(body(24, 48, unit=unit), LPS, unit=unit)  # all of it in the left half of the image
    mask = organs((26, 30), (41, 46))
    assert midline_mm(volume, whole(mask)) == pytest.approx(71.0)
    assert sides_of(mask, volume) == {"right": 64, "left": 80}


def test_one_organ_alone_has_its_side() -> None:
    volume = Volume(body(24, 48), LPS, unit="HU")
    assert sides_of(organs((26, 30)), volume) == {"right": 64}
    assert sides_of(organs((42, 46)), volume) == {"left": 64}


def test_pieces_of_one_side_are_one_mask() -> None:
    volume = Volume(body(0, 50), LPS, unit="HU")
    assert sides_of(organs((2, 6), (8, 12), (40, 44)), volume) == {"right": 128, "left": 64}


@pytest.mark.parametrize("columns", [(22, 27), (5, 45), (12, 30)])
def test_what_is_in_the_middle_or_on_both_sides_has_no_side(columns: tuple[int, int]) -> None:
    volume = Volume(body(0, 50), LPS, unit="HU")
    assert set(sides_of(organs(columns), volume)) == {None}


def test_two_near_the_middle_are_two() -> None:
    volume = Volume(body(0, 50), LPS, unit="HU")
    found = list(sided(KIDNEY, organs((21, 24), (26, 29)), whole(organs((21, 24))), volume, "labels.nii.gz"))
    assert [(named.laterality, int(piece.sum())) for named, piece in found] == [(None, 48), (None, 48)]


@pytest.mark.parametrize("codes", ["LPS", "RAS", "RPI", "PIR", "SAL", "ASL"])
def test_sides_do_not_depend_on_the_order_of_the_array(codes: str) -> None:
    image, mask = body(24, 48), organs((26, 30), (41, 46))
    ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ LPS
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(ras), nibabel.orientations.axcodes2ornt(codes))
    turned = [nibabel.Nifti1Image(array.T.astype(np.int16), ras).as_reoriented(turn) for array in (image, mask)]
    voxels, labels = (np.asarray(one.dataobj).T for one in turned)
    volume = Volume(voxels, np.diag([-1.0, -1.0, 1.0, 1.0]) @ turned[0].affine, unit="HU")
    assert sides_of(labels > 0, volume) == {"right": 64, "left": 80}


def test_arms_in_other_planes_do_not_move_the_midline() -> None:
    voxels = body(10, 40)
    voxels[0, 3:18, 0:10] = 40  # an arm, below the organs
    mask = organs((12, 16))
    box = (slice(2, 6), slice(0, 20), slice(0, 50))
    assert midline_mm(Volume(voxels, LPS, unit="HU"), box) == pytest.approx(49.0)
    assert sides_of(mask, Volume(voxels, LPS, unit="HU")) == {"right": 64}


def test_a_mask_in_a_box_lies_where_the_box_is() -> None:
    volume = Volume(body(0, 50), LPS, unit="HU")
    box = (slice(2, 6), slice(8, 12), slice(40, 45))
    (found,) = sided(KIDNEY, np.ones((4, 4, 5), bool), box, volume, "labels.nii.gz")
    assert found[0] == Named("abdomen.kidney", "left")


def test_without_an_orientation_no_side_is_made_up() -> None:
    volume = replace(Volume(body(0, 50), LPS, unit="HU"), affine_ijk_to_mm=None)
    with pytest.raises(Refused, match=r"patient's left is; correct its header") as caught:
        sides_of(organs((2, 6)), volume)
    assert caught.value.reason == "orientation_unknown"
