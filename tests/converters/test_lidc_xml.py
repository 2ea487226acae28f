"""LIDC-IDRI: readings and series in the published layout, generated tiny. The nodules are squares."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from medglip.curate import convert, load_source
from medglip.curate.engine import found_tasks, run
from medglip.imaging.readings import inside_of
from medglip.records import Picture, Reject, VolumeRecord
from medglip.store.checks.validate import validate
from medglip.store.matrix import Matrix

SHAPE = (6, 40, 48)
PITCH = 2.5
ROOT = "1.3.6.1.4.1.14519.5.2.1.6279.6001."
NODULE = "thorax.lung.nodule"
RATED = {"subtlety": 5, "internalStructure": 1, "calcification": 6, "sphericity": 4, "margin": 5, "lobulation": 1,
         "spiculation": 1, "texture": 5, "malignancy": 4}  # fmt: skip


class Drawn(NamedTuple):
    """A nodule of one reader: its outline (x0, y0, x1, y1) on some slices, and a hole on some."""

    square: tuple[int, int, int, int]
    slices: tuple[int, ...]
    hole: tuple[int, int, int, int] | None = None
    ratings: dict[str, int] | None = None


def chain(x0: int, y0: int, x1: int, y1: int) -> list[tuple[int, int]]:
    """Every pixel of the border of a square, in order, closed."""
    top = [(x, y0) for x in range(x0, x1)]
    right = [(x1, y) for y in range(y0, y1)]
    bottom = [(x, y1) for x in range(x1, x0, -1)]
    left = [(x0, y) for y in range(y1, y0, -1)]
    return [*top, *right, *bottom, *left, (x0, y0)]


def write_series(folder: Path, patient: str = "LIDC-IDRI-0001", number: int = 1, modality: str = "CT") -> Path:
    where = folder / patient / f"{ROOT}{number}0" / f"{ROOT}{number}1"
    where.mkdir(parents=True)
    for k in range(SHAPE[0]):
        data = Dataset()
        data.SOPClassUID, data.SOPInstanceUID, data.Modality = CTImageStorage, f"{ROOT}{number}2.{k}", modality
        data.StudyInstanceUID, data.SeriesInstanceUID = f"{ROOT}{number}0", f"{ROOT}{number}1"
        data.FrameOfReferenceUID, data.PatientID = f"{ROOT}{number}3", patient
        data.Rows, data.Columns = SHAPE[1:]
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 1
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.RescaleSlope, data.RescaleIntercept = 15, 1, -1024
        data.PixelSpacing, data.ImageOrientationPatient = [0.7, 0.7], [1, 0, 0, 0, 1, 0]
        data.ImagePositionPatient, data.SliceThickness = [-160, -170, -100 + PITCH * k], PITCH
        data.add_new("PixelData", "OW", np.random.default_rng(k).integers(0, 1500, SHAPE[1:]).astype(np.int16).tobytes())
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = CTImageStorage, data.SOPInstanceUID
        data.save_as(where / f"{SHAPE[0] - k:06d}.dcm", enforce_file_format=True)  # names against the order
    return where


def roi(points: list[tuple[int, int]], k: int, inclusion: str = "TRUE", number: int = 1, sop: bool = True) -> str:
    edges = "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in points)
    uid = f"{ROOT}{number}2.{k}" if sop else "1.2.3"
    return (
        f"<roi><imageZposition>{-100 + PITCH * k}</imageZposition><imageSOP_UID>{uid}</imageSOP_UID>"
        f"<inclusion>{inclusion}</inclusion>{edges}</roi>"
    )


def nodule(rois: str, ratings: dict[str, int] | None, name: str = "Nodule 001") -> str:
    rated = "".join(f"<{key}>{value}</{key}>" for key, value in (ratings or {}).items())
    told = f"<characteristics>{rated}</characteristics>" if ratings else ""
    return f"<unblindedReadNodule><noduleID>{name}</noduleID>{told}{rois}</unblindedReadNodule>"


def drawn(one: Drawn, sop: bool = True) -> str:
    rois = "".join(roi(chain(*one.square), k, sop=sop) for k in one.slices)
    if one.hole:
        rois += roi(chain(*one.hole), one.slices[0], "FALSE")
    return nodule(rois, RATED if one.ratings is None else one.ratings)


def point(k: int, x: int, y: int) -> str:
    return nodule(roi([(x, y)], k), None, "IL057_1")


def other(k: int, x: int, y: int) -> str:
    locus = f"<locus><xCoord>{x}</xCoord><yCoord>{y}</yCoord></locus>"
    return f"<nonNodule><nonNoduleID>7</nonNoduleID><imageZposition>{-100 + PITCH * k}</imageZposition>{locus}</nonNodule>"


def write_reading(path: Path, *sessions: str, number: int = 1) -> Path:
    header = f"<ResponseHeader><SeriesInstanceUid>{ROOT}{number}1</SeriesInstanceUid></ResponseHeader>"
    body = "".join(f"<readingSession><annotationVersion>3.12</annotationVersion>{one}</readingSession>" for one in sessions)
    path.write_text(
        f'<?xml version="1.0"?><LidcReadMessage uid="1" xmlns="http://www.nih.gov">{header}{body}</LidcReadMessage>'
    )
    return path


def converted(folder: Path, **options: object) -> tuple[list, VolumeRecord | None, list[Reject]]:
    source = load_source("ct_lidc_idri")
    (part,) = source.parts
    source = replace(source, parts=(replace(part, options=part.options | options),))
    tasks, rejects = found_tasks(source, folder)
    items = [item for task in tasks for item in run(task)]
    volumes = [item for item in items if isinstance(item, VolumeRecord)]
    records = [item.record for item in items if isinstance(item, Picture)]
    return records, (volumes or [None])[0], [*rejects, *(item for item in items if isinstance(item, Reject))]


A, SHIFTED, B = (10, 10, 16, 16), (11, 10, 17, 16), (30, 20, 36, 26)
# Readers 1 to 3 see one nodule, the second a pixel to the right of the others; the fourth alone sees another.
FOUR = (
    drawn(Drawn(A, (1, 2), ratings=RATED | {"malignancy": 5, "internalStructure": 2})),
    drawn(Drawn(SHIFTED, (1, 2), ratings=RATED | {"malignancy": 3})),
    drawn(Drawn(A, (1, 2, 3), ratings=RATED | {"subtlety": 0})) + other(5, 3, 3),
    drawn(Drawn(B, (4,))),
)


def test_the_published_layout_gives_the_consensus_of_its_readers(tmp_path: Path) -> None:
    write_reading(write_series(tmp_path) / "069.xml", *FOUR)
    records, volume, rejects = converted(tmp_path)
    assert rejects == []
    assert volume.checks["non_nodules"] == "1"
    shown = {record.origin.slice: [(region.concept, region.box_xyxy) for region in record.regions] for record in records}
    # The edge is outside the nodule; two of three agree on what the first and third drew, none on slice 3.
    assert shown == {1: [(NODULE, (11, 11, 16, 16))], 2: [(NODULE, (11, 11, 16, 16))], 4: [(NODULE, (31, 21, 36, 26))]}
    first, lone = records[0].regions[0], records[-1].regions[0]
    assert (first.mask.area, first.instance) == (25, records[1].regions[0].instance)
    assert first.attributes == {
        "readers": 3, "agreement": 0.75, "nodule": 1, "subtlety": "obvious", "subtlety_rating": 5.0,
        "internal_structure": "soft tissue", "calcification": "absent", "sphericity": "ovoid/round", "sphericity_rating": 4.0,
        "margin": "sharp", "margin_rating": 5.0, "lobulation": "no lobulation", "lobulation_rating": 1.0,
        "spiculation": "no spiculation", "spiculation_rating": 1.0, "texture": "solid", "texture_rating": 5.0,
        "malignancy": "moderately suspicious", "malignancy_rating": 4.0,
        "ratings": "1: 5 2 6 4 5 1 1 5 5; 2: 5 1 6 4 5 1 1 5 3; 3: - 1 6 4 5 1 1 5 4",
    }  # fmt: skip
    assert "uncertain" not in first.flags
    assert (lone.attributes["readers"], lone.attributes["agreement"]) == (1, 0.25)
    assert "uncertain" in lone.flags
    assert any(phrase.text == "sharp lung nodule" for phrase in first.phrases)
    matrix = Matrix({"ct_lidc_idri": load_source("ct_lidc_idri").matrix})
    assert matrix.state("ct_lidc_idri", "ct", NODULE) == "exhaustive"


def test_its_dataset_validates_clean(tmp_path: Path) -> None:
    write_reading(write_series(tmp_path / "in") / "069.xml", *FOUR)
    done = convert("ct_lidc_idri", tmp_path / "in", tmp_path / "dataset")
    assert (done.images, done.regions, done.volumes) == (3, 3, 1)
    assert [problem for problem in validate(tmp_path / "dataset") if problem.level == "error"] == []


def test_the_order_of_the_readers_does_not_matter(tmp_path: Path) -> None:
    found = []
    for name, sessions in (("a", FOUR), ("b", FOUR[::-1])):
        write_reading(write_series(tmp_path / name) / "069.xml", *sessions)
        told = [(record.origin.slice, region) for record in converted(tmp_path / name)[0] for region in record.regions]
        found.append({
            (k, region.box_xyxy, region.mask, *(region.attributes[key] for key in ("readers", "malignancy_rating")))
            for k, region in told
        })  # fmt: skip
    assert found[0] == found[1]


def test_each_reader_s_marks_are_kept_where_they_are_asked_for(tmp_path: Path) -> None:
    write_reading(write_series(tmp_path) / "069.xml", *FOUR)
    records, _, _ = converted(tmp_path, readers="each")
    told = {
        (record.origin.slice, region.attributes["reader"]): (region.box_xyxy, region.attributes["malignancy_rating"])
        for record in records
        for region in record.regions
    }
    assert told == {
        (1, "1"): ((11, 11, 16, 16), 5), (2, "1"): ((11, 11, 16, 16), 5),
        (1, "2"): ((12, 11, 17, 16), 3), (2, "2"): ((12, 11, 17, 16), 3),
        (1, "3"): ((11, 11, 16, 16), 4), (2, "3"): ((11, 11, 16, 16), 4), (3, "3"): ((11, 11, 16, 16), 4),
        (4, "4"): ((31, 21, 36, 26), 4),
    }  # fmt: skip
    assert len({region.attributes["nodule"] for record in records for region in record.regions}) == 2


def test_an_outline_that_excludes_is_a_hole(tmp_path: Path) -> None:
    write_reading(write_series(tmp_path) / "069.xml", drawn(Drawn((5, 5, 15, 15), (2,), hole=(8, 8, 10, 10))))
    (record,), _, rejects = converted(tmp_path)
    assert rejects == []
    inside = record.regions[0].mask.decode()
    assert inside.sum() == 81 - 9
    assert not inside[8:11, 8:11].any()


def test_the_slice_is_that_of_the_sop_uid_else_of_the_position(tmp_path: Path) -> None:
    write_reading(write_series(tmp_path) / "069.xml", drawn(Drawn(A, (3,)), sop=False))
    (record,), _, rejects = converted(tmp_path)
    assert (record.origin.slice, rejects) == (3, [])


def test_points_give_no_region_and_no_true_negative_near_them(tmp_path: Path) -> None:
    write_reading(write_series(tmp_path) / "069.xml", drawn(Drawn(B, (5,))) + point(1, 7, 7))
    records, volume, rejects = converted(tmp_path, empty_slices=9.0)
    assert rejects == []
    assert volume.checks["nodules_below_3_mm"] == "1"
    told = {record.origin.slice: (len(record.regions), record.absent) for record in records}
    expected = {0: (0, ()), 1: (0, ()), 2: (0, ()), 3: (0, (NODULE,)), 4: (0, (NODULE,)), 5: (1, ())}
    assert told == {k: expected[k] for k in told}
    assert {1, 3, 5} <= set(told)


def test_what_the_consensus_left_out_is_no_true_negative(tmp_path: Path) -> None:
    write_reading(write_series(tmp_path) / "069.xml", *FOUR)
    records, _, _ = converted(tmp_path, empty_slices=9.0)
    absent = {record.origin.slice for record in records if NODULE in record.absent}
    assert {0, 5} <= absent
    assert 3 not in absent  # one reader of three drew on it


def test_marks_that_cannot_be_drawn_are_listed(tmp_path: Path) -> None:
    far = Drawn((60, 60, 70, 70), (1,))
    strip = nodule(roi([(20, 20), (26, 20), (23, 20)], 2), RATED)
    gone = nodule(roi(chain(*A), 90), RATED)
    write_reading(write_series(tmp_path) / "069.xml", drawn(far) + drawn(Drawn(A, (4,))) + strip + gone)
    records, volume, rejects = converted(tmp_path)
    assert sorted(reject.reason for reject in rejects) == ["no_pixel", "off_slices", "outside_image"]
    assert [record.origin.slice for record in records] == [4]
    assert volume.checks["outlines_off_slices"] == "1"


def test_nodules_that_come_near_each_other_are_one_and_two_of_one_reader_are_in_doubt(tmp_path: Path) -> None:
    near = (18, 10, 24, 16)
    write_reading(write_series(tmp_path) / "069.xml", drawn(Drawn(A, (1,))) + drawn(Drawn(near, (1,))), drawn(Drawn(A, (1,))))
    (record,), _, _ = converted(tmp_path)
    assert [(region.box_xyxy, region.flags.count("uncertain")) for region in record.regions] == [((11, 11, 16, 16), 1)]
    (record,), _, _ = converted(tmp_path, tolerance_mm=1.0)
    assert [region.attributes["readers"] for region in record.regions] == [2, 1]
    assert [region.flags.count("uncertain") for region in record.regions] == [0, 0]


def test_readings_lie_anywhere_and_x_rays_are_passed_over(tmp_path: Path) -> None:
    write_series(tmp_path)
    xray = write_series(tmp_path, number=2, modality="DX")
    (xray / "068.xml").write_text('<IdriReadMessage xmlns="http://www.nih.gov"><ResponseHeader/></IdriReadMessage>')
    (tmp_path / "tcia-lidc-xml/185").mkdir(parents=True)
    write_reading(tmp_path / "tcia-lidc-xml/185/158.xml", *FOUR)
    write_reading(tmp_path / "tcia-lidc-xml/185/159.xml", *FOUR, number=7)
    write_series(tmp_path, "LIDC-IDRI-0002", number=3)
    (tmp_path / "tcia-lidc-xml/185/160.xml").write_text("<LidcReadMessage>")
    records, _, rejects = converted(tmp_path)
    assert len(records) == 3
    assert sorted(reject.reason for reject in rejects) == ["missing_image", "unlabelled", "unreadable_file"]


def test_two_readings_of_one_series_are_not_chosen_from(tmp_path: Path) -> None:
    where = write_series(tmp_path)
    write_reading(where / "069.xml", *FOUR)
    write_reading(where / "070.xml", *FOUR[:2])
    records, _, (reject,) = converted(tmp_path)
    assert not records
    assert reject.reason == "ambiguous_file"


@pytest.mark.parametrize("corners", [[(2, 3), (9, 3), (9, 8), (2, 8)], chain(2, 3, 9, 8), chain(2, 3, 9, 8)[::-1]])
def test_the_pixels_that_an_outline_runs_through_are_outside(corners: list) -> None:
    inside, corner = inside_of(np.array(corners))
    assert corner == (2, 3)
    expected = np.zeros((6, 8), bool)
    expected[1:-1, 1:-1] = True
    assert np.array_equal(inside, expected)


def test_a_slanted_outline_leaves_out_the_pixels_on_it() -> None:
    inside, corner = inside_of(np.array([(3, 0), (6, 3), (3, 6), (0, 3)]))
    away = np.abs(np.indices((7, 7)) - 3).sum(axis=0)
    assert corner == (0, 0)
    assert np.array_equal(inside, away < 3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(2, 12), min_size=3, max_size=12), st.integers(0, 20))
def test_what_an_outline_encloses_is_what_pylidc_finds(radii: list[int], shift: int) -> None:
    """A star drawn pixel by pixel, against the rule of pylidc: what matplotlib's path holds, less its points."""
    turn = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    corners = np.rint(13 + shift + np.array(radii)[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)).astype(int)
    points = []
    for one, two in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        steps = max(int(np.abs(two - one).max()), 1)
        points += [tuple(np.rint(one + (two - one) * n / steps).astype(int)) for n in range(steps)]
    outline = np.array(points)
    inside, (x0, y0) = inside_of(outline)
    rows, columns = np.indices(inside.shape)
    centres = np.column_stack([columns.ravel() + x0, rows.ravel() + y0])
    expected = Outline(np.vstack([outline, outline[:1]]), closed=True).contains_points(centres).reshape(inside.shape)
    expected[outline[:, 1] - y0, outline[:, 0] - x0] = False
    assert np.array_equal(inside, expected)
