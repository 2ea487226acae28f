from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from medglip.curate import load_source
from medglip.curate.engine import found_tasks, run
from medglip.records import Picture, Reject, VolumeRecord

TOML = """
name = "tiny"
title = "Tiny"
licence = "CC0-1.0"
names = "public"
[[part]]
converter = "dicom_seg"
modality = "ct"
exhaustive = ["liver", "left kidney", "spleen"]
labels = { "Blob" = "skip" }
labels_by_name = { enabled = true }
files = { seg = "**/*", image = "**/*" }
"""
SHAPE = (4, 12, 10)
LIVER = ("Liver", codes.SCT.Liver, None)
LEFT_KIDNEY = ("Segment 2", codes.SCT.Kidney, codes.SCT.Left)


def ct_slice(patient: str, k: int) -> Dataset:
    data, root = Dataset(), f"1.2.{sum(patient.encode())}"
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, f"{root}.{k + 1}"
    data.StudyInstanceUID, data.SeriesInstanceUID = f"{root}.100", f"{root}.200"
    data.FrameOfReferenceUID, data.Modality, data.PatientID = f"{root}.300", "CT", patient
    for empty in ("PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
                  "AccessionNumber", "ReferringPhysicianName"):  # fmt: skip
        setattr(data, empty, "")
    data.SeriesNumber, data.InstanceNumber = 1, k + 1
    data.Rows, data.Columns = SHAPE[1:]
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 1
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit = 15
    data.PixelSpacing, data.ImageOrientationPatient = [0.8, 0.8], [1, 0, 0, 0, 1, 0]
    data.ImagePositionPatient, data.SliceThickness = [-10.0, 5.0, 50.0 + 3.0 * k], 3.0
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    data.PixelData = np.random.default_rng(k).integers(0, 1500, SHAPE[1:]).astype(np.int16).tobytes()
    data["PixelData"].VR = "OW"
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = (
        CTImageStorage,
        data.SOPInstanceUID,
    )
    return data


def write_ct(folder: Path, patient: str = "p1") -> list[Dataset]:
    (folder / patient).mkdir(parents=True)
    slices = [ct_slice(patient, k) for k in range(SHAPE[0])]
    for k, data in enumerate(slices):
        data.save_as(folder / patient / f"IM{9 - k}", enforce_file_format=True)  # names against the order
    return slices


def write_seg(path: Path, images: list[Dataset], segments: list[tuple], masks: np.ndarray) -> Path:
    described = []
    for number, (name, code, side) in enumerate(segments, 1):
        described.append(hd.seg.SegmentDescription(
            number, name, codes.SCT.Organ, code, hd.seg.SegmentAlgorithmTypeValues.MANUAL
        ))  # fmt: skip
        if side is not None:
            modifier = hd.sr.CodedConcept(side.value, side.scheme_designator, side.meaning)
            described[-1].SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [modifier]
    hd.seg.Segmentation(
        images, masks, "BINARY", described, generate_uid(), 2, generate_uid(), 1, "maker", "model", "1", "2"
    ).save_as(path)
    return path


def two_masks() -> np.ndarray:
    masks = np.zeros((*SHAPE, 2), np.uint8)
    masks[0:3, 2:8, 1:5, 0] = 1
    masks[1:3, 6:10, 3:8, 1] = 1  # overlaps the liver
    return masks


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.toml").write_text(TOML)
    return tmp_path / "in"


def convert(folder: Path) -> list:
    tasks, rejects = found_tasks(load_source(folder.parent / "tiny.toml"), folder)
    return [*rejects, *(item for task in tasks for item in run(task))]


def pictures_of(items: list) -> list[Picture]:
    return [item for item in items if isinstance(item, Picture)]


def test_segments_become_regions_by_code_side_and_position(folder: Path) -> None:
    write_seg(folder.parent / "seg", write_ct(folder), [LIVER, LEFT_KIDNEY], two_masks()).rename(folder / "p1" / "seg")
    *pictures, volume = convert(folder)
    assert [p.record.origin.slice for p in pictures] == [0, 1, 2]
    assert {r.concept: r.box_xyxy for r in pictures[1].record.regions} == {
        "abdomen.liver": (1, 2, 5, 8), "abdomen.kidney@left": (3, 6, 8, 10),
    }  # fmt: skip
    assert pictures[0].record.absent == ("abdomen.kidney@left", "abdomen.spleen")
    assert pictures[1].record.spacing_source == "PixelSpacing"
    assert np.reshape(pictures[1].record.affine_px_to_mm, (3, 4)) @ (0, 0, 0, 1) == pytest.approx((-10, 5, 53))
    assert isinstance(volume, VolumeRecord)
    assert volume.keys.patient
    assert "p1" not in volume.keys.patient


def test_several_objects_of_one_series_make_one_picture(folder: Path) -> None:
    images = write_ct(folder)
    write_seg(folder / "p1" / "a", images, [LIVER], two_masks()[..., :1])
    write_seg(folder / "p1" / "b", images, [LEFT_KIDNEY], two_masks()[..., 1:])
    items = convert(folder)
    assert len(items) == 4
    assert len(items[1].record.regions) == 2


def test_names_decide_where_codes_do_not(folder: Path) -> None:
    private = Code("X1", "99PRIVATE", "something")
    segments = [("spleen", private, None), ("Blob", private, None)]
    write_seg(folder / "p1" / "seg", write_ct(folder), segments, two_masks())
    regions = [r.concept for p in pictures_of(convert(folder)) for r in p.record.regions]
    assert set(regions) == {"abdomen.spleen"}


def test_an_unknown_segment_is_rejected_alone(folder: Path) -> None:
    images = write_ct(folder)
    write_seg(folder / "p1" / "seg", images, [LIVER, ("Zorp", Code("X1", "99PRIVATE", "zorp"), None)], two_masks())
    items = convert(folder)
    (reject,) = [item for item in items if isinstance(item, Reject)]
    assert (reject.reason, reject.file) == ("unknown_label", "p1/seg")
    # it may be any label, so that nothing counts as searched for and absent
    assert all(not p.record.absent and not p.record.exhaustive for p in pictures_of(items))
    assert "'Zorp'" in reject.detail
    assert {r.label for p in pictures_of(items) for r in p.record.regions} == {"abdomen.liver"}


def test_a_side_that_contradicts_itself_is_rejected(folder: Path) -> None:
    images = write_ct(folder)
    write_seg(folder / "p1" / "seg", images, [LIVER, ("right kidney", codes.SCT.Kidney, codes.SCT.Left)], two_masks())
    (reject,) = [item for item in convert(folder) if isinstance(item, Reject)]
    assert "right kidney" in reject.detail
    assert "left" in reject.detail


def test_what_is_missing_is_said(folder: Path) -> None:
    images = write_ct(folder)
    write_ct(folder, "patient2")
    write_seg(folder / "p1" / "seg", images, [LIVER], two_masks()[..., :1])
    strangers = [ct_slice("stranger", k) for k in range(SHAPE[0])]
    write_seg(folder / "lost.dcm", strangers, [LIVER], two_masks()[..., :1])
    (folder / "cut.dcm").write_bytes((folder / "p1" / "seg").read_bytes()[:200])
    (folder / "notes.txt").write_text("no DICOM")
    rejects = {item.file: item.reason for item in convert(folder) if isinstance(item, Reject)}
    assert rejects.pop("cut.dcm") in ("unreadable_file", "missing_image")
    assert rejects == {"lost.dcm": "missing_image", "patient2/IM6": "unlabelled"}


def test_objects_of_images_that_the_part_does_not_take_are_not_called_lost(folder: Path) -> None:
    images = write_ct(folder)
    write_seg(folder / "p1" / "seg", images, [LIVER], two_masks()[..., :1])
    others = [ct_slice("other", k) for k in range(SHAPE[0])]
    write_seg(folder / "mr_seg.dcm", others, [LIVER], two_masks()[..., :1])
    for k, data in enumerate(others):
        data.Modality = "MR"
        data.save_as(folder / f"mr{k}.dcm", enforce_file_format=True)
    rejects = [item for item in convert(folder) if isinstance(item, Reject)]
    assert [(reject.file, reject.reason) for reject in rejects] == [("mr_seg.dcm", "other_modality")]
    assert "MR image" in rejects[0].detail


def test_a_broken_object_leaves_the_others(folder: Path) -> None:
    images = write_ct(folder)
    write_seg(folder / "p1" / "a", images, [LIVER], two_masks()[..., :1])
    path = write_seg(folder / "p1" / "b", images, [LEFT_KIDNEY], two_masks()[..., 1:])
    path.write_bytes(path.read_bytes()[:-20])
    items = convert(folder)
    assert [(i.file, i.reason) for i in items if isinstance(i, Reject)] == [("p1/b", "unreadable_file")]
    assert len(pictures_of(items)) == 3


def test_real_source(real_data: Path) -> None:
    tasks, rejects = found_tasks(load_source("dicom_seg_dcmqi"), real_data / "dicom-seg-dcmqi")
    assert {reject.reason for reject in rejects} <= {"missing_image", "unlabelled"}
    items = {task.case.key: run(task) for task in tasks}
    *pictures, volume = items["ct-3slice/01.dcm"]
    assert len(pictures) == 3
    assert volume.orientation == "LPS"
    assert [r.label for p in pictures for r in p.record.regions] == ["abdomen.liver"] * 3
    assert pictures[0].record.regions[0].box_xyxy[0] < 100  # the liver is on the image's left
