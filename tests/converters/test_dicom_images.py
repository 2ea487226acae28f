from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
    UltrasoundMultiFrameImageStorage,
)
from small_sources import Converted, boxes, converted, noise

from medglip.errors import InputError, SourceError

NODULE, EFFUSION = "thorax.lung.nodule", "thorax.pleura.effusion"
ARCHIVE = """
converter = "dicom_images"
modality = "{modality}"
files = {{ image = "**/*" }}
options = {{ {options} }}
"""
TABLE = """
converter = "dicom_images"
modality = "{modality}"
exhaustive = "all"
files = {{ image = "**/*", table = "boxes.csv" }}
options = {{ {options} }}
labels = {{ Nodule = "lung nodule", Effusion = "pleural effusion" }}
"""
COLUMNS = 'columns = { image = "image", label = "label", box = ["x", "y", "w", "h"] }, negative = ["none"]'


def archive(modality: str = "xray", options: str = "") -> str:
    return ARCHIVE.format(modality=modality, options=options)


def table(options: str = COLUMNS, modality: str = "xray") -> str:
    return TABLE.format(options=options, modality=modality)


def dicom(path: Path, pixels: np.ndarray, kind: str = "CR", sop: str = "", **more: object) -> None:
    data = Dataset()
    clip = pixels.ndim == 3
    data.SOPClassUID = UltrasoundMultiFrameImageStorage if clip else ComputedRadiographyImageStorage
    data.SOPInstanceUID = sop or f"1.2.{int(pixels.sum())}"
    data.Modality, data.PatientID, data.StudyInstanceUID = kind, "p1", "1.9"
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.Rows, data.Columns = pixels.shape[-2:]
    data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
    if clip:
        data.NumberOfFrames = len(pixels)
    data.PixelData = pixels.tobytes()
    for name, value in more.items():
        setattr(data, name, value)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def clip(frames: int = 20) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 255, (frames, 40, 60)).astype(np.uint8)


def frames_of(result: Converted) -> list[int | None]:
    return [picture.record.origin.frame for picture in result.pictures]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "in"


def test_images_are_found_by_content_in_any_folders(folder: Path) -> None:
    dicom(folder / "A/S1/IM0001", noise(), ViewPosition="PA")
    dicom(folder / "A/S1/IM0002.dcm", noise(42))
    (folder / "A/S1/IM0002.txt").write_text("beside it")  # not a second file of the case
    (folder / "DICOMDIR.bak").write_bytes(b"\0" * 200)
    result = converted(folder, archive())
    assert sorted(result.records) == ["A/S1/IM0001", "A/S1/IM0002.dcm"]
    assert result.rejects == []
    assert {record.absent for record in result.records.values()} == {()}
    assert len({record.group for record in result.records.values()}) == 1
    assert result.records["A/S1/IM0001"].modality_detail["view"] == "pa"


def test_what_is_no_image_of_the_part_is_listed(folder: Path) -> None:
    dicom(folder / "a.dcm", noise())
    dicom(folder / "us.dcm", noise(41), kind="US")
    dicom(folder / "sr.dcm", noise(42), kind="SR", SOPClassUID=EnhancedSRStorage)
    dicom(folder / "copy/a.dcm", noise())
    (folder / "cut.dcm").write_bytes((folder / "a.dcm").read_bytes()[:150])
    result = converted(folder, archive())
    assert sorted(result.records) == ["a.dcm"]
    assert {reject.file: reject.reason for reject in result.rejects if reject.file != "cut.dcm"} == {
        "us.dcm": "other_modality", "sr.dcm": "not_a_picture", "copy/a.dcm": "duplicate_image",
    }  # fmt: skip
    assert any(reject.file == "cut.dcm" for reject in result.rejects)
    ignoring = converted(folder, archive(options='other_modality = "ignore"'))
    assert not any(reject.reason == "other_modality" for reject in ignoring.rejects)


def test_frames_of_a_clip_are_spread_evenly(folder: Path) -> None:
    dicom(folder / "clip.dcm", clip(), kind="US")
    result = converted(folder, archive("ultrasound"))
    assert frames_of(result) == [0, 3, 5, 8, 11, 14, 16, 19]
    assert all(np.array_equal(picture.pixels, clip()[picture.record.origin.frame or 0]) for picture in result.pictures)
    assert frames_of(converted(folder, archive("ultrasound", "frames = 2"))) == [0, 19]
    assert frames_of(converted(folder, archive("ultrasound", "frames = 0"))) == list(range(20))
    assert len({picture.record.group for picture in result.pictures}) == 1
    assert len({picture.record.id for picture in result.pictures}) == 8


def test_a_frame_that_is_of_one_grey_is_listed_and_the_rest_stays(folder: Path) -> None:
    pixels = clip(3)
    pixels[1] = 7
    dicom(folder / "clip.dcm", pixels, kind="US")
    result = converted(folder, archive("ultrasound"))
    assert frames_of(result) == [0, 2]
    assert result.reasons == ["constant_image"]


def test_rows_name_images_by_file_or_by_uid(folder: Path) -> None:
    dicom(folder / "one/IM1.dcm", noise(), sop="1.2.3.1")
    dicom(folder / "two/IM2", noise(41), sop="1.2.3.2")
    dicom(folder / "three/IM3", noise(42), sop="1.2.3.3")
    (folder / "boxes.csv").write_text(
        "image,label,x,y,w,h\nIM1,Nodule,5,6,15,12\n1.2.3.2,Effusion,0,0,10,10\n1.2.3.3,none,,,,\n"
    )
    result = converted(folder, table())
    assert boxes(result.records["one/IM1.dcm"]) == [(NODULE, (5, 6, 20, 18))]
    assert boxes(result.records["two/IM2"]) == [(EFFUSION, (0, 0, 10, 10))]
    assert result.records["one/IM1.dcm"].absent == (EFFUSION,)
    assert result.records["three/IM3"].absent == (NODULE, EFFUSION)
    assert result.rejects == []


def test_rows_name_frames(folder: Path) -> None:
    dicom(folder / "clip.dcm", clip(), kind="XA")
    rows = "clip,Nodule,5,6,15,12,8\nclip,Nodule,6,6,15,12,9\nclip,none,,,,,20\n"
    (folder / "boxes.csv").write_text(f"image,label,x,y,w,h,frame\n{rows}")
    columns = COLUMNS.replace('"h"]', '"h"], frame = "frame"')
    result = converted(folder, table(f"{columns}, first_frame = 1, frames = 2"))
    assert frames_of(result) == [0, 7, 8, 19]
    shown = {picture.record.origin.frame: boxes(picture.record) for picture in result.pictures}
    assert shown == {0: [], 7: [(NODULE, (5, 6, 20, 18))], 8: [(NODULE, (6, 6, 21, 18))], 19: []}
    absent = {picture.record.origin.frame: picture.record.absent for picture in result.pictures}
    assert absent == {0: (), 7: (EFFUSION,), 8: (EFFUSION,), 19: (NODULE, EFFUSION)}  # 0: nobody looked
    (folder / "boxes.csv").write_text("image,label,x,y,w,h,frame\nclip,Nodule,5,6,15,12,21\n")
    assert converted(folder, table(f"{columns}, first_frame = 1")).reasons == ["no_such_frame"]


def test_an_image_may_be_named_by_its_patient(folder: Path) -> None:
    dicom(folder / "a", noise(), PatientID="CASE 7")
    dicom(folder / "b", noise(41), PatientID="CASE 8")
    (folder / "boxes.csv").write_text("image,label,x,y,w,h\nCASE 7,Nodule,5,6,15,12\nCASE 9,Nodule,5,6,15,12\n")
    result = converted(folder, table(f'{COLUMNS}, id = "{{patientid}}"'))
    assert boxes(result.records["a"]) == [(NODULE, (5, 6, 20, 18))]
    assert boxes(result.records["b"]) == []
    assert [(reject.reason, reject.case) for reject in result.rejects] == [("missing_file", "CASE 9")]


def test_a_table_may_hold_labels_of_images_instead_of_boxes(folder: Path) -> None:
    dicom(folder / "a", noise(), sop="1.2.3.1")
    (folder / "labels.csv").write_text("SOPInstanceUID,finding\n1.2.3.1,mild edema\n")
    text = archive(options='about_key = "SOPInstanceUID", about_id = "{sop}"').replace(
        '"**/*" }', '"**/*", about = "labels.csv" }'
    )
    assert [text.text for text in converted(folder, f'{text}\ntext = "{{finding}}"').only.texts] == ["mild edema"]


def test_images_of_a_study_without_a_patient_stay_together(folder: Path) -> None:
    dicom(folder / "a", noise(), PatientID="")
    dicom(folder / "b", noise(41), PatientID="")
    dicom(folder / "c", noise(42), PatientID="", StudyInstanceUID="1.8")
    groups = {name: record.group for name, record in converted(folder, archive()).records.items()}
    assert groups["a"] == groups["b"] != groups["c"]


def test_rows_that_cannot_be_are_refused_and_leave_their_label_in_doubt(folder: Path) -> None:
    dicom(folder / "a", noise())
    (folder / "boxes.csv").write_text("image,label,x,y,w,h\na,Nodule,5,6,900,12\na,Nodul,5,6,9,9\na,Effusion,1,1,9,9\n")
    result = converted(folder, table())
    assert result.reasons == ["box_out_of_image", "unknown_label"]
    assert boxes(result.only) == [(EFFUSION, (1, 1, 10, 10))]
    assert result.only.exhaustive == ()


def test_wrong_options_and_a_missing_table_are_named(folder: Path) -> None:
    dicom(folder / "a", noise())
    with pytest.raises(InputError, match="no file is their table"):
        converted(folder, table())
    with pytest.raises(SourceError, match="must name image"):
        converted(folder, table('columns = { box = ["x", "y", "w", "h"] }'))
    with pytest.raises(SourceError, match=r"neither columns\.label"):
        converted(folder, table('columns = { image = "image", box = ["x", "y", "w", "h"] }'))


def test_real_clips_and_images_of_an_archive(real_data: Path) -> None:
    found = converted_archive(real_data / "dicom-pydicom-testfiles")
    assert found.pictures
    assert all(reject.detail for reject in found.rejects)
    assert {picture.record.modality for picture in found.pictures} == {"ultrasound"}


def converted_archive(folder: Path) -> Converted:
    """Convert a folder that may not be written to, with the TOML elsewhere."""
    import tempfile

    with tempfile.TemporaryDirectory() as empty:
        link = Path(empty) / "in"
        link.symlink_to(folder)
        return converted(link, archive("ultrasound", 'frames = 2, other_modality = "ignore"'))
