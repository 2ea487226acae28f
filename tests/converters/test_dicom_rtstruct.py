from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from medglip.curate import load_source
from medglip.curate.engine import found_tasks, run
from medglip.records import Picture, Reject, VolumeRecord

TOML = """
name = "tiny"
title = "Tiny"
licence = "CC0-1.0"
names = "public"
[[part]]
converter = "dicom_rtstruct"
modality = "ct"
exhaustive = ["heart", "spleen", "left lung"]
labels = { "Couch_Surface" = "skip", "gtv" = "lung tumor", "GTV-9" = "skip" }
labels_by_name = { enabled = true }
files = { contours = "**/*", series = "**/*" }
"""
SHAPE = (4, 24, 20)
RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
# Row and column directions: along the patient, and turned about two axes.
STRAIGHT = (1.0, 0, 0, 0, 1.0, 0)
OBLIQUE = (0.8, 0.6, 0, -0.48, 0.64, 0.6)

Box = tuple[float, float, float, float]


def placed(directions: tuple[float, ...], corners: list[tuple[float, float]], k: float) -> list[str]:
    """ContourData of (column, row) corners at slice k."""
    along, down = np.array(directions[:3]), np.array(directions[3:])
    normal = np.cross(along, down)
    points = [np.array([-10.0, 5, 50]) + 0.8 * x * along + 0.8 * y * down + 3.0 * k * normal for x, y in corners]
    return [f"{value:.4f}" for point in points for value in point]


def corners_of(box: Box) -> list[tuple[float, float]]:
    """Corners of a half-open pixel box, on the borders of its pixels."""
    x0, y0, x1, y1 = (edge - 0.5 for edge in box)
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def saved(data: Dataset, path: Path) -> Path:
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def write_ct(folder: Path, patient: str = "p1", directions: tuple[float, ...] = STRAIGHT) -> None:
    root, normal = f"1.2.{sum(patient.encode())}", np.cross(directions[:3], directions[3:])
    for k in range(SHAPE[0]):
        data = Dataset()
        data.SOPClassUID, data.SOPInstanceUID, data.Modality = CTImageStorage, f"{root}.{k + 1}", "CT"
        data.StudyInstanceUID, data.SeriesInstanceUID = f"{root}.100", f"{root}.200"
        data.FrameOfReferenceUID, data.PatientID = f"{root}.300", patient
        data.Rows, data.Columns = SHAPE[1:]
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 1
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit = 15
        data.PixelSpacing, data.ImageOrientationPatient = [0.8, 0.8], list(directions)
        data.ImagePositionPatient = [f"{x:.6f}" for x in np.array([-10.0, 5, 50]) + 3.0 * k * normal]
        data.SliceThickness, data.RescaleSlope, data.RescaleIntercept = 3.0, 1, -1024
        pixels = np.random.default_rng(k).integers(0, 1500, SHAPE[1:]).astype(np.int16)
        data.add_new("PixelData", "OW", pixels.tobytes())
        saved(data, folder / patient / f"IM{9 - k}")  # names against the order


def write_rtstruct(
    path: Path, rois: dict[str, list], patient: str = "p1", directions: tuple[float, ...] = STRAIGHT,
    space: str = "", names_series: bool = True,
) -> Path:  # fmt: skip
    """``rois``: name -> (slice, box or corners[, kind]) of each contour."""
    root = f"1.2.{sum(patient.encode())}"
    data, frame, study, series = Dataset(), Dataset(), Dataset(), Dataset()
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = RTSTRUCT, f"{root}.{len(path.name)}.900", "RTSTRUCT"
    frame.FrameOfReferenceUID, series.SeriesInstanceUID = space or f"{root}.300", f"{root}.200"
    study.RTReferencedSeriesSequence = [series]
    if names_series:
        frame.RTReferencedStudySequence = [study]
    data.ReferencedFrameOfReferenceSequence = [frame]
    named, lines = [], []
    for number, (name, contours) in enumerate(rois.items(), 1):
        roi, line, items = Dataset(), Dataset(), []
        roi.ROINumber, roi.ROIName, line.ReferencedROINumber = number, name, number
        for k, shape, *kind in contours:
            item = Dataset()
            item.ContourGeometricType = kind[0] if kind else "CLOSED_PLANAR"
            item.ContourData = placed(directions, shape if isinstance(shape, list) else corners_of(shape), k)
            items.append(item)
        line.ContourSequence = items
        named.append(roi)
        lines.append(line)
    data.StructureSetROISequence, data.ROIContourSequence = named, lines
    return saved(data, path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.toml").write_text(TOML)
    return tmp_path / "in"


def convert(folder: Path) -> tuple[list[Picture], list[VolumeRecord], list[Reject]]:
    tasks, rejects = found_tasks(load_source(folder.parent / "tiny.toml"), folder)
    items = [*rejects, *(item for task in tasks for item in run(task))]
    return tuple([item for item in items if isinstance(item, kind)] for kind in (Picture, VolumeRecord, Reject))


def concepts(pictures: list[Picture]) -> set[str]:
    return {region.concept for picture in pictures for region in picture.record.regions}


HEART = [(k, (2, 3, 12, 15)) for k in range(3)]


@pytest.mark.parametrize("directions", [STRAIGHT, OBLIQUE], ids=["straight", "oblique"])
def test_rois_become_regions_of_their_slices(folder: Path, directions: tuple[float, ...]) -> None:
    write_ct(folder, directions=directions)
    rois = {"HEART": HEART, "Lung_L": [(1, (5, 6, 18, 20)), (1, (8, 9, 12, 12))]}
    write_rtstruct(folder / "p1" / "rt", rois, directions=directions)
    pictures, (volume,), rejects = convert(folder)
    assert not rejects
    assert [picture.record.origin.slice for picture in pictures] == [0, 1, 2]
    found = {region.concept: region for region in pictures[1].record.regions}
    assert {concept: region.box_xyxy for concept, region in found.items()} == {
        "thorax.heart": (2, 3, 12, 15), "thorax.lung@left": (5, 6, 18, 20),
    }  # fmt: skip
    assert found["thorax.lung@left"].mask.area == 13 * 14 - 4 * 3  # the hole
    assert pictures[0].record.absent == ("abdomen.spleen", "thorax.lung@left")
    assert {instance.voxels for instance in volume.instances} == {3 * 10 * 12, 13 * 14 - 4 * 3}
    assert volume.keys.patient
    assert "p1" not in volume.keys.patient


@pytest.mark.parametrize(
    ("name", "label"),
    [("GTV-1", "thorax.lung.tumor"), ("Gtv2", "thorax.lung.tumor"), ("GTV", "thorax.lung.tumor"),
     ("PTV_03", "systemic.planning.ptv"), ("lt lung", "thorax.lung@left"), ("LUNG_R", "thorax.lung@right"),
     ("spinal-Cord", "musculoskeletal.spinal_cord")],
)  # fmt: skip
def test_names_are_found_in_whatever_spelling(folder: Path, name: str, label: str) -> None:
    write_ct(folder)
    write_rtstruct(folder / "rt", {name: HEART, "couch surface": HEART, "gtv 9": HEART})
    pictures, _, rejects = convert(folder)
    assert not rejects
    assert concepts(pictures) == {label}


def test_an_unknown_name_is_rejected_alone_and_nothing_is_absent_beside_it(folder: Path) -> None:
    write_ct(folder)
    write_rtstruct(folder / "p1" / "rt", {"Heart": HEART, "Spleeen": HEART})
    pictures, _, (reject,) = convert(folder)
    assert (reject.reason, reject.file) == ("unknown_label", "p1/rt")
    assert "p1/rt, ROI 2 'Spleeen'" in reject.detail
    assert "nearest: 'spleen'" in reject.detail
    assert concepts(pictures) == {"thorax.heart"}
    assert {picture.record.absent for picture in pictures} == {()}


def test_a_roi_without_contours_is_absent_where_the_source_is_exhaustive(folder: Path) -> None:
    write_ct(folder)
    write_rtstruct(folder / "rt", {"Heart": HEART, "Spleen": [], "Liver": []})
    pictures, _, rejects = convert(folder)
    assert not rejects
    assert {picture.record.absent for picture in pictures} == {("abdomen.spleen", "thorax.lung@left")}


def test_contours_that_hide_something_take_their_label_from_the_absent(folder: Path) -> None:
    write_ct(folder)
    spleen = [(1, (3, 3, 9, 9)), (2, [(3, 3), (9, 9), (12, 5)], "OPEN_PLANAR")]
    every_other = [(0, (12, 3, 18, 9)), (2, (12, 3, 18, 9)), (3, (4.2, 4.2, 4.4, 4.4)), (9, (12, 3, 18, 9))]
    write_rtstruct(folder / "rt", {"Heart": HEART, "Spleen": spleen, "Lung_L": every_other})
    pictures, (volume,), rejects = convert(folder)
    assert not rejects
    assert {picture.record.absent for picture in pictures} == {()}
    assert {picture.record.exhaustive for picture in pictures} == {("thorax.heart",)}
    counts = {name: count for name, count in volume.checks.items() if name.startswith("contours_")}
    assert counts == {"contours_not_closed": "1", "contours_off_slices": "1", "contours_no_pixel": "1"}


def test_a_roi_of_points_is_rejected_with_the_reason(folder: Path) -> None:
    write_ct(folder)
    write_rtstruct(folder / "rt", {"Heart": HEART, "Spleen": [(1, [(3, 3)], "POINT")]})
    pictures, _, (reject,) = convert(folder)
    assert reject.reason == "not_filled"
    assert "none of the 1 contours of ROI 'Spleen'" in reject.detail
    assert "POINT" in reject.detail
    assert {picture.record.absent for picture in pictures} == {("thorax.lung@left",)}


def test_another_frame_of_reference_is_refused(folder: Path) -> None:
    write_ct(folder)
    write_rtstruct(folder / "rt", {"Heart": HEART}, space="9.9.9")
    pictures, volumes, rejects = convert(folder)
    assert not pictures
    assert not volumes
    assert [reject.reason for reject in rejects] == ["geometry_mismatch", "unlabelled"]
    assert "'9.9.9'" in rejects[0].detail


def test_a_file_that_names_no_series_is_found_by_its_space(folder: Path) -> None:
    write_ct(folder)
    write_ct(folder, "patient2")
    write_rtstruct(folder / "rt", {"Heart": HEART}, names_series=False)
    pictures, (volume,), (reject,) = convert(folder)
    assert len(pictures) == 3
    assert volume.origin.file == "p1/IM6"
    assert (reject.file, reject.reason) == ("patient2/IM6", "unlabelled")


def test_a_second_file_with_the_same_label_is_not_drawn_over_the_first(folder: Path) -> None:
    write_ct(folder)
    write_rtstruct(folder / "a", {"Heart": HEART})
    write_rtstruct(folder / "b2", {"heart": [(0, (0, 0, 5, 5))], "Liver": HEART})
    pictures, _, (reject,) = convert(folder)
    assert (reject.file, reject.reason) == ("b2", "duplicate_label")
    assert concepts(pictures) == {"thorax.heart", "abdomen.liver"}
    assert all(len(picture.record.regions) == 2 for picture in pictures)
    assert {picture.record.absent for picture in pictures} == {("abdomen.spleen", "thorax.lung@left")}


def test_what_is_missing_is_said(folder: Path) -> None:
    write_ct(folder)
    write_rtstruct(folder / "p1" / "rt", {"Heart": HEART})
    write_rtstruct(folder / "lost.dcm", {"Heart": HEART}, patient="stranger")
    (folder / "cut.dcm").write_bytes((folder / "p1" / "rt").read_bytes()[:200])
    (folder / "notes.txt").write_text("no DICOM")
    pictures, _, rejects = convert(folder)
    reasons = {reject.file: reject.reason for reject in rejects}
    assert reasons.pop("cut.dcm") in ("unreadable_file", "missing_image")
    assert reasons == {"lost.dcm": "missing_image"}
    assert len(pictures) == 3


def test_real_contours(tmp_path: Path, real_data: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TOML.replace('exhaustive = ["heart", "spleen", "left lung"]', ""))
    tasks, rejects = found_tasks(load_source(tmp_path / "tiny.toml"), real_data / "dicom-rtstruct-dicompyler")
    assert not rejects
    (task,) = tasks
    picture, volume = run(task)  # every ROI has a label; only the outline meets the one slice that is there
    assert [region.label for region in picture.record.regions] == ["systemic.body"]
    assert volume.checks["contours_off_slices"] == "437"
    x0, y0, x1, y1 = picture.record.regions[0].box_xyxy
    assert x1 - x0 > 300
    assert y1 - y0 > 150
