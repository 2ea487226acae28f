import numpy as np
import pytest

from medglip.language.places import IMAGE_AXES, box_iou, long_axis_mm, patient_axes, place_words, share_inside
from medglip.records import Region, rle_of_mask


def test_radiological_axial_slice_names_the_patients_sides():
    axes, plane = patient_axes((0.7, 0, 0, -100, 0, 0.7, 0, -100, 0, 0, 3, 50))
    assert (axes, plane) == ((("right", "left"), ("anterior", "posterior")), "axial")


def test_flipped_columns_turn_the_words():
    axes, _ = patient_axes((-0.7, 0, 0, 100, 0, 0.7, 0, -100, 0, 0, 3, 50))
    assert axes[0] == ("left", "right")


def test_coronal_rows_go_down_the_patient():
    axes, plane = patient_axes((0.7, 0, 0, 0, 0, 0, 1, 0, 0, -0.7, 0, 0))
    assert (axes, plane) == ((("right", "left"), ("upper", "lower")), "coronal")


def test_oblique_and_unknown_keep_the_images_words():
    turned = np.deg2rad(45)
    c, s = np.cos(turned), np.sin(turned)
    assert patient_axes((c, -s, 0, 0, s, c, 0, 0, 0, 0, 1, 0))[0] == IMAGE_AXES
    assert patient_axes(None) == (IMAGE_AXES, None)


def test_place_is_empty_in_the_middle_and_for_a_box_that_fills_the_frame():
    frame = (0, 0, 100, 100)
    assert place_words((45, 45, 55, 55), frame, IMAGE_AXES) == ()
    assert place_words((0, 0, 100, 20), frame, IMAGE_AXES) == ("upper",)


def test_size_follows_the_mask_and_never_exists_without_spacing():
    mask = np.zeros((40, 40), bool)
    np.fill_diagonal(mask[5:25, 5:25], True)
    region = Region(label="abdomen.liver.lesion", box_xyxy=(5, 5, 25, 25), mask=rle_of_mask(mask))
    size, basis = long_axis_mm(region, (0.5, 0.5))
    assert basis == "mask"
    assert size == pytest.approx(20 * np.sqrt(2) * 0.5, rel=0.03)  # through the middles of the pixels' sides
    assert long_axis_mm(Region(label="x", box_xyxy=(0, 0, 10, 4)), (2.0, 0.5)) == (8.0, "box")
    assert long_axis_mm(region, None) is None


def test_overlap_measures():
    assert box_iou((0, 0, 2, 2), (5, 5, 6, 6)) == 0
    inner, outer = Region(label="x", box_xyxy=(2, 2, 4, 4)), Region(label="y", box_xyxy=(0, 0, 4, 3))
    assert share_inside(inner, outer) == pytest.approx(0.5)
