from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from scipy.ndimage import binary_fill_holes
from skimage.measure import grid_points_in_poly

from medglip.errors import InputError
from medglip.imaging.contours import Contour, Roi, filled, mask_of_roi, read_contours, references_of
from medglip.imaging.dicom import read_header
from medglip.imaging.series import read_series, series_in
from medglip.imaging.volume import GridError, Volume

SHAPE = (4, 24, 20)
STRAIGHT = np.array([[0.5, 0, 0, -10], [0, 0.8, 0, 5], [0, 0, 3, 50], [0, 0, 0, 1.0]])


def oblique() -> np.ndarray:
    """Turned about two axes, with a mirrored slice order."""
    a, b = 0.4, -0.7
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag([0.5, 0.8, -3.0])
    affine[:3, 3] = (31.0, -7.5, 12.25)
    return affine


def volume(affine: np.ndarray = STRAIGHT, **more: object) -> Volume:
    return Volume(np.zeros(SHAPE, np.int16), affine, frame_of_reference="1.2.8", **more)


def square(low: float, high: float) -> list[tuple[float, float]]:
    return [(low, low), (high, low), (high, high), (low, high)]


def contour(corners: list[tuple[float, float]], k: float, affine: np.ndarray = STRAIGHT, kind: str = "CLOSED_PLANAR"):
    """A contour through (column, row) corners at slice k, rounded as decimal strings are."""
    points = np.array([(x, y, k, 1.0) for x, y in corners]) @ affine.T
    return Contour(kind, np.round(points[:, :3], 5))


def drawn(*contours: Contour, on: Volume | None = None):
    return mask_of_roi(Roi(1, "x", "1.2.8", contours), on or volume())


def box(low: int, high: int) -> np.ndarray:
    mask = np.zeros(SHAPE[1:], dtype=bool)
    mask[low:high, low:high] = True
    return mask


def write_rtstruct(path: Path, rois: list[tuple[str, list[Contour]]], space: str = "1.2.8") -> Path:
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = "1.2.840.10008.5.1.4.1.1.481.3", "1.2.9", "RTSTRUCT"
    image, series, study, frame = Dataset(), Dataset(), Dataset(), Dataset()
    image.ReferencedSOPInstanceUID, series.SeriesInstanceUID, series.ContourImageSequence = "1.2.7.1", "1.2.6", [image]
    study.RTReferencedSeriesSequence, frame.FrameOfReferenceUID = [series], space
    frame.RTReferencedStudySequence = [study]
    data.ReferencedFrameOfReferenceSequence = [frame]
    named, lines = [], []
    for number, (name, contours) in enumerate(rois, 1):
        one, line = Dataset(), Dataset()
        one.ROINumber, one.ROIName, line.ReferencedROINumber = number, name, number
        items = []
        for each in contours:
            item = Dataset()
            item.ContourGeometricType, item.NumberOfContourPoints = each.kind, len(each.points_mm)
            item.ContourData = [f"{value:.5f}" for value in each.points_mm.ravel()]
            items.append(item)
        if items:
            line.ContourSequence = items
        named.append(one)
        lines.append(line)
    data.StructureSetROISequence, data.ROIContourSequence = named, lines
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = data.SOPClassUID, "1.2.9"
    data.save_as(path, enforce_file_format=True)
    return path


def test_a_rectangle_on_pixel_borders_is_exact() -> None:
    assert np.array_equal(filled(np.array(square(1.5, 4.5)), SHAPE[1:]), box(2, 5))


def test_a_centre_on_the_left_or_upper_edge_is_inside_on_the_others_outside() -> None:
    assert np.array_equal(filled(np.array(square(2, 5)), SHAPE[1:]), box(2, 5))


def test_a_polygon_may_pass_every_border() -> None:
    assert filled(np.array(square(-1e7, 1e7)), SHAPE[1:]).all()
    assert not filled(np.array(square(-50, -40)), SHAPE[1:]).any()


coordinates = st.floats(-6, 26, allow_nan=False).map(lambda x: round(x, 2) + 0.003)  # never on a centre
polygons = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=9)


@given(polygons)
def test_filling_agrees_with_scikit_image(corners: list[tuple[float, float]]) -> None:
    labels = grid_points_in_poly(SHAPE[1:], np.array(corners)[:, ::-1], binarize=False)
    mask = filled(np.array(corners), SHAPE[1:])
    sure = labels < 2  # on an edge each has its own rule
    assert np.array_equal(mask[sure], labels[sure] == 1)


@given(st.lists(st.tuples(st.integers(-2, 22), st.integers(-2, 22)), min_size=4, max_size=8), st.data())
def test_parts_that_share_an_edge_make_up_the_whole(corners: list[tuple[int, int]], data: st.DataObject) -> None:
    # Corners on pixel centres: a closed rule would count shared pixels twice.
    cut = data.draw(st.integers(2, len(corners) - 2))
    whole, first, second = (
        filled(np.array(part), SHAPE[1:]) for part in (corners, corners[: cut + 1], [*corners[cut:], corners[0]])
    )
    assert np.array_equal(whole, first ^ second)


@given(polygons)
def test_direction_and_first_corner_make_no_difference(corners: list[tuple[float, float]]) -> None:
    mask = filled(np.array(corners), SHAPE[1:])
    assert np.array_equal(filled(np.array(corners[::-1]), SHAPE[1:]), mask)
    assert np.array_equal(filled(np.array(corners[2:] + corners[:2]), SHAPE[1:]), mask)


@pytest.mark.parametrize("affine", [STRAIGHT, oblique()], ids=["straight", "oblique"])
@pytest.mark.parametrize(("low", "high"), [(2.5, 9.5), (3, 10)])
def test_a_square_with_a_hole_lands_on_its_slice(affine: np.ndarray, low: float, high: float) -> None:
    parts = [contour(square(low, high), 2, affine), contour(square(low + 2, high - 2), 2, affine)]
    found = drawn(*parts, on=volume(affine))
    assert np.array_equal(found.mask[2], box(3, 10) & ~box(5, 8))
    assert not found.mask[[0, 1, 3]].any()
    assert not found.skipped


def test_nested_contours_alternate() -> None:
    found = drawn(*(contour(square(*edges), 0) for edges in [(0.5, 15.5), (3.5, 12.5), (6.5, 9.5)]))
    assert np.array_equal(found.mask[0], box(1, 16) & ~box(4, 13) | box(7, 10))


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_a_keyhole_equals_a_square_with_a_hole(shift: float) -> None:
    outer, inner = square(2.5 + shift, 14.5 + shift), square(6.5 + shift, 10.5 + shift)
    keyhole = [*outer, outer[0], inner[0], *inner[:0:-1], inner[0]]
    one, two = drawn(contour(keyhole, 1)), drawn(contour(outer, 1), contour(inner, 1))
    assert np.array_equal(one.mask, two.mask)
    assert not one.mask[1, 8:10, 8:10].any()


@pytest.mark.parametrize(("k", "at"), [(1.3, 1), (1.7, 2), (1.5, 1), (-0.5, 0), (3.5, 3), (-0.6, None), (3.6, None)])
def test_a_contour_between_slices_goes_to_the_nearest(k: float, at: int | None) -> None:
    found = drawn(contour(square(2.5, 6.5), k))
    assert np.flatnonzero(found.mask.any(axis=(1, 2))).tolist() == ([] if at is None else [at])
    assert found.skipped == ({"off_slices": 1} if at is None else {})


def test_a_missing_slice_takes_no_contour_of_its_neighbours() -> None:
    origins = np.array([[-10, 5, 50.0], [-10, 5, 53], [-10, 5, 59], [-10, 5, 62]])  # none at 56
    found = drawn(*(contour(square(2.5, 6.5), k) for k in range(5)), on=volume(origins_mm=origins))
    assert found.mask.any(axis=(1, 2)).all()
    assert found.skipped == {"off_slices": 1}


def test_two_planes_on_one_slice_do_not_cancel() -> None:
    found = drawn(contour(square(2.5, 9.5), 0.9), contour(square(2.5, 8.5), 1.3))
    assert np.array_equal(found.mask[1], box(3, 10))
    assert found.skipped == {"second_plane": 1}


def test_what_cannot_be_filled_is_counted_and_leaves_the_slice() -> None:
    whole, points = contour(square(2.5, 9.5), 1), square(12, 15)
    found = drawn(
        whole, whole, contour(points[:1], 1, kind="POINT"), contour(points, 1, kind="OPEN_PLANAR"),
        contour(points[:2], 1), contour([points[0], points[1], points[0]], 1), contour(square(12.1, 12.4), 1),
        Contour("CLOSED_PLANAR", np.zeros((0, 3)), broken=True),
        Contour("CLOSED_PLANAR", np.array([[-5, 8, 50.0], [-5, 12, 53], [-5, 9, 56]])),
    )  # fmt: skip
    assert np.array_equal(found.mask[1], box(3, 10))
    assert found.skipped == {
        "repeated": 1, "not_closed": 2, "too_few_points": 2, "no_pixel": 1, "broken_points": 1, "across_slices": 1,
    }  # fmt: skip


def test_another_space_is_refused() -> None:
    with pytest.raises(GridError, match=r"'heart' lies in the frame of reference '9.9'.*register") as caught:
        mask_of_roi(Roi(1, "heart", "9.9", ()), volume())
    assert caught.value.reason == "geometry_mismatch"
    with pytest.raises(GridError, match="no position"):
        mask_of_roi(Roi(1, "heart", None, ()), Volume(np.zeros(SHAPE)))


def test_a_file_gives_its_rois_and_references(tmp_path: Path) -> None:
    lines = [contour(square(2.5, 6.5), 1), contour(square(1, 2)[:1], 1, kind="POINT")]
    path = write_rtstruct(tmp_path / "rt", [("Heart ", lines), ("Areola", [])])
    heart, areola = read_contours(path)
    assert (heart.number, heart.name, heart.frame_of_reference) == (1, "Heart", "1.2.8")
    assert [one.kind for one in heart.contours] == ["CLOSED_PLANAR", "POINT"]
    assert all(np.array_equal(a.points_mm, b.points_mm) for a, b in zip(heart.contours, lines, strict=True))
    assert areola.contours == ()
    found = references_of(read_header(path), "rt")
    assert (found.series, found.instances, found.frames_of_reference) == ({"1.2.6"}, {"1.2.7.1"}, {"1.2.8"})
    assert np.array_equal(mask_of_roi(heart, volume()).mask[1], box(3, 7))


def test_a_file_without_contours_is_refused(tmp_path: Path, make_dicom) -> None:
    with pytest.raises(InputError, match="'CT'; allowed: RTSTRUCT"):
        read_contours(make_dicom(tmp_path / "ct", np.zeros((4, 4), np.int16)))


def test_coordinates_that_are_no_points_are_marked(tmp_path: Path) -> None:
    odd = Contour("CLOSED_PLANAR", np.array([1.0, 2, 3, 4]))
    (roi,) = read_contours(write_rtstruct(tmp_path / "rt", [("x", [odd])]))
    assert roi.contours[0].broken
    assert mask_of_roi(roi, volume()).skipped == {"broken_points": 1}


def test_a_real_body_outline_fits_its_slice(real_data: Path) -> None:
    folder = real_data / "dicom-rtstruct-dicompyler"
    rois = {roi.name: roi for roi in read_contours(folder / "rtss.dcm")}
    assert len(rois) == 10
    assert sum(len(roi.contours) for roi in rois.values()) == 441
    image = read_series(series_in([folder / "ct.0.dcm"])[0])
    body = mask_of_roi(rois["BODY"], image)
    assert body.skipped["off_slices"] == 137
    patient = binary_fill_holes(image.voxels[0] > -300)
    overlap = (body.mask[0] & patient).sum() / (body.mask[0] | patient).sum()
    assert overlap > 0.9
    assert not mask_of_roi(rois["Heart"], image).mask.any()
