from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
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
converter = "dicom_masks"
modality = "ct"
exhaustive = "all"
options = {{ {options} }}
files = {{ series = "{{case}}/ct/{{slice}}.dcm", mask = "{mask}" }}
[part.labels]
{labels}
"""
FOLDERS = {"mask": "{case}/masks/{label}/{slice}.png", "labels": '"liver" = "liver"\n"spot" = "liver tumor"\n"odd" = "skip"'}
GREYS = {"mask": "{case}/masks/{number}.png", "labels": '"63" = "liver"\n"252" = "spleen"'}
SHAPE_KJI = (5, 12, 16)
LIVER, SPLEEN = np.zeros(SHAPE_KJI, np.uint8), np.zeros(SHAPE_KJI, np.uint8)
LIVER[1:4, 2:9, 1:7] = 1
SPLEEN[2, 4:8, 10:14] = 1


def write_slices(folder: Path, names: Sequence[str], voxels: np.ndarray, uids: Sequence[str]) -> None:
    """DICOM slices, the k-th under the k-th name."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, plane, uid) in enumerate(zip(names, voxels, uids, strict=True)):
        data = Dataset()
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, f"1.2.3.9.{number}"
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = f"1.2.{uid}", f"1.2.3.{uid}", f"1.2.4.{uid}"
        data.Modality, data.PatientID = "CT", "someone"
        data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 3.0 * number], [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.SliceThickness = [2, 2], 3
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.Rows, data.Columns = plane.shape
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.add_new("PixelData", "OW", plane.astype("<i2").tobytes())
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = CTImageStorage, data.SOPInstanceUID
        data.save_as(folder / f"{name}.dcm", enforce_file_format=True)


def write(folder: Path, names: Sequence[str], masks: dict[str, np.ndarray], *, uids: Sequence[str] = "11111") -> None:
    """A series, and masks as PNG by folder ("" for none), the k-th of each under the k-th name."""
    image = np.random.default_rng(0).integers(-200, 200, SHAPE_KJI)
    write_slices(folder / "p1/ct", names, image, uids)
    for where, voxels in masks.items():
        (folder / "p1/masks" / where).mkdir(parents=True, exist_ok=True)
        for name, plane in zip(names, voxels, strict=True):
            Image.fromarray(plane.astype(np.uint8)).save(folder / "p1/masks" / where / f"{name}.png")


def convert(folder: Path, options: str = "", *, mask: str, labels: str) -> tuple[list[Picture], list[Reject]]:
    toml = folder.parent / "tiny.toml"
    toml.write_text(TOML.format(options=options, mask=mask, labels=labels))
    tasks, rejects = found_tasks(load_source(toml), folder)
    items = [*rejects, *(item for task in tasks for item in run(task))]
    pictures = [item for item in items if isinstance(item, Picture)]
    assert sum(isinstance(item, VolumeRecord) for item in items) == bool(pictures)
    return pictures, [item for item in items if isinstance(item, Reject)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "in"


def areas(pictures: list[Picture], label: str) -> dict[int, int]:
    """Slice -> pixels of a label."""
    found = {}
    for picture in pictures:
        for region in picture.record.regions:
            if region.label == label:
                found[picture.record.origin.slice] = found.get(picture.record.origin.slice, 0) + region.mask.area
    return found


LIVER_AREAS = {1: 42, 2: 42, 3: 42}


@pytest.mark.parametrize(
    "names", [[f"image_{n}" for n in (8, 9, 10, 11, 12)], [f"image_{n}" for n in (12, 11, 10, 9, 8)], list("ebdca")]
)
def test_masks_find_their_slices_by_name_in_any_order(names: list[str], folder: Path) -> None:
    write(folder, names, {"liver": LIVER * 255, "spot": SPLEEN})
    pictures, rejects = convert(folder, **FOLDERS)
    assert not rejects
    assert areas(pictures, "abdomen.liver") == LIVER_AREAS
    assert areas(pictures, "abdomen.liver.tumor") == {2: 16}


def test_masks_find_their_slices_by_order_of_numbers(folder: Path) -> None:
    write(folder, [f"i{n}" for n in (8, 9, 10, 11, 12)], {})
    (folder / "p1/masks").mkdir()
    for number, plane in zip((98, 99, 100, 101, 102), LIVER * 63 + SPLEEN * 252, strict=True):
        Image.fromarray(plane).save(folder / f"p1/masks/GT_{number}.png")
    pictures, rejects = convert(folder, 'match = "order"', **GREYS)
    assert not rejects
    assert areas(pictures, "abdomen.liver") == LIVER_AREAS
    assert areas(pictures, "abdomen.spleen") == {2: 16}
    _, rejects = convert(folder, **GREYS)
    assert [(reject.reason, "fit 0 of 5 slices" in reject.detail) for reject in rejects] == [("missing_mask", True)]


def test_greys_may_have_slack_and_no_more(folder: Path) -> None:
    write(folder, list("abcde"), {"": LIVER * 60 + SPLEEN * 255})
    pictures, rejects = convert(folder, "tolerance = 3", **GREYS)
    assert not rejects
    assert areas(pictures, "abdomen.liver") == LIVER_AREAS
    pictures, rejects = convert(folder, "tolerance = 2", **GREYS)
    assert not pictures
    assert [reject.reason for reject in rejects] == ["unknown_label"]


def test_a_label_option_makes_masks_binary(folder: Path) -> None:
    write(folder, list("abcde"), {"": LIVER * 200})
    pictures, rejects = convert(folder, 'label = "liver"', mask=GREYS["mask"], labels='"liver" = "liver"')
    assert not rejects
    assert areas(pictures, "abdomen.liver") == LIVER_AREAS


def test_folders_of_one_label_are_objects_of_their_own(folder: Path) -> None:
    write(folder, list("abcde"), {"liver": LIVER, "spot1": LIVER, "spot2": np.roll(LIVER, 2, axis=2)})
    mask = "{case}/masks/{label:[a-z]+}{number:\\\\d*}/{slice}.png"
    pictures, rejects = convert(folder, mask=mask, labels=FOLDERS["labels"])
    assert not rejects
    boxes = sorted(r.box_xyxy for r in pictures[1].record.regions if r.label == "abdomen.liver.tumor")
    assert boxes == [(1, 2, 7, 9), (3, 2, 9, 9)]  # they overlap, and are two all the same


def test_a_folder_that_cannot_be_used_is_rejected_alone_and_leaves_its_label_unknown(folder: Path) -> None:
    write(folder, list("abcde"), {"liver": LIVER, "spot": SPLEEN, "odd": SPLEEN, "nonesuch": SPLEEN})
    (folder / "p1/masks/spot/c.png").unlink()
    pictures, rejects = convert(folder, **FOLDERS)
    assert sorted(reject.reason for reject in rejects) == ["missing_mask", "unknown_label"]
    assert areas(pictures, "abdomen.liver") == LIVER_AREAS
    assert not any(picture.record.absent for picture in pictures)


def test_an_empty_folder_of_masks_is_a_negative(folder: Path) -> None:
    write(folder, list("abcde"), {"liver": LIVER, "spot": SPLEEN * 0})
    pictures, _ = convert(folder, **FOLDERS)
    assert all(picture.record.absent == ("abdomen.liver.tumor",) for picture in pictures)


def test_a_series_of_many_uids_is_one_where_the_source_says_so(folder: Path) -> None:
    write(folder, list("abcde"), {"liver": LIVER}, uids="12345")
    _, (reject,) = convert(folder, **FOLDERS)
    assert reject.reason == "ambiguous_series"
    assert "make 5 volumes" in reject.detail
    pictures, rejects = convert(folder, "one_series = true", **FOLDERS)
    assert not rejects
    assert areas(pictures, "abdomen.liver") == LIVER_AREAS


def test_masks_of_another_size_and_no_masks_at_all(folder: Path) -> None:
    write(folder, list("abcde"), {"liver": LIVER[:, :-1]})
    _, rejects = convert(folder, **FOLDERS)
    assert [reject.reason for reject in rejects] == ["size_mismatch", "unlabelled"]
    for path in (folder / "p1/masks/liver").iterdir():
        path.unlink()
    _, rejects = convert(folder, **FOLDERS)
    assert [reject.reason for reject in rejects] == ["unlabelled"]


def test_masks_may_be_dicom(folder: Path) -> None:
    write(folder, list("abcde"), {})
    write_slices(folder / "p1/masks/liver", list("abcde"), LIVER * 255, "11111")
    pictures, rejects = convert(folder, mask="{case}/masks/{label}/{slice}.dcm", labels=FOLDERS["labels"])
    assert not rejects
    assert areas(pictures, "abdomen.liver") == LIVER_AREAS
