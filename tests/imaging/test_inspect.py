"""What `inspect` says of every kind of file: facts, words, and never a traceback or a patient's name."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image
from pydicom.dataset import Dataset

from medglip.errors import InputError
from medglip.imaging.dicom import read_header
from medglip.imaging.explain import MEANINGS
from medglip.imaging.inspect import inspect

Make = Callable[..., Path]
GREY = np.arange(64, dtype=np.uint16).reshape(8, 8) * 60
SECRETS = ("Doe^Jane", "19520304", "MRN-998877", "20200102", "1.2.3.4")


def one(path: Path) -> dict:
    (facts,) = inspect(path)
    json.dumps(facts, default=str)
    assert facts["words"]
    return facts


def said(facts: dict) -> str:
    return " ".join(facts["words"])


def test_a_ct_slice_is_explained_without_its_patient(tmp_path: Path, make_dicom: Make) -> None:
    path = make_dicom(
        tmp_path / "x", GREY, PatientName="Doe^Jane", PatientBirthDate="19520304", PatientID="MRN-998877",
        StudyDate="20200102", RescaleSlope=1, RescaleIntercept=-1024, PixelSpacing=[0.5, 0.7],
    )  # fmt: skip
    facts = one(path)
    assert "Hounsfield units from -1024 to 2756" in said(facts)
    assert "rows are 0.5 mm and columns 0.7 mm apart (PixelSpacing)" in said(facts)
    assert "soft tissue" in said(facts)
    for secret in SECRETS:
        assert secret not in json.dumps(facts, default=str).replace(str(tmp_path), "")


def test_every_problem_has_a_meaning(tmp_path: Path, make_dicom: Make) -> None:
    facts = one(make_dicom(tmp_path / "x", np.zeros((4, 4), np.uint16), Modality="US"))
    assert {"burned_in_risk", "constant_image", "spacing_unknown"} <= set(facts["problems"])
    for code in facts["problems"]:
        assert f"{code}: {MEANINGS[code]}" in said(facts)


def test_a_series_with_a_gap_and_a_broken_file_are_both_told(tmp_path: Path, make_dicom: Make) -> None:
    for number, z in enumerate((0.0, 2.0, 4.0, 8.0)):
        make_dicom(tmp_path / f"{number}", GREY, Modality="MR", ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                   ImagePositionPatient=[0, 0, z], PixelSpacing=[1, 1], SOPInstanceUID=f"1.2.{number}")  # fmt: skip
    make_dicom(tmp_path / "clip", np.zeros((3, 4, 4), np.uint8), Modality="US")
    (tmp_path / "cut").write_bytes(bytes(128) + b"DICM" + b"\x02\x00\x00\x00UL\x04")
    (tmp_path / "notes.txt").write_text("hello")
    head, series, broken, others = inspect(tmp_path)
    assert head["kinds"] == {"image": 5, "unreadable": 1}
    assert "1 image without a place" in said(head)
    assert "1 slice missing after slice 2 (from 0)" in said(series)
    assert "missing_slices" in series["problems"]
    assert broken["format"] == "unreadable"
    assert "cut" in broken["reason"]
    assert others["by_ending"] == {".txt": 1}


def test_a_series_that_makes_no_volume_says_why(tmp_path: Path, make_dicom: Make) -> None:
    for number in (0, 1):
        make_dicom(tmp_path / f"{number}", GREY + number, ImageOrientationPatient=[1, 0, 0, 0, 1, 0], PixelSpacing=[1, 1],
                   ImagePositionPatient=[0, 0, 0], SOPInstanceUID=f"1.2.{number}")  # fmt: skip
    _, series = inspect(tmp_path)
    assert series["problems"] == ["conflicting_slices"]
    assert "lie at one place" in said(series)


def item(**elements: object) -> Dataset:
    found = Dataset()
    for keyword, value in elements.items():
        setattr(found, keyword, value)
    return found


def bare(path: Path, make_dicom: Make, **elements: object) -> Path:
    """A DICOM object without pixels."""
    header = read_header(make_dicom(path, GREY, **elements), pixels=True)
    del header.PixelData, header.Rows
    header.save_as(path)
    return path


def test_objects_that_are_no_images_are_put_in_words(tmp_path: Path, make_dicom: Make) -> None:
    code = item(CodeValue="1", CodingSchemeDesignator="99X", CodeMeaning="Length")
    report = bare(tmp_path / "sr", make_dicom, Modality="SR", ConceptNameCodeSequence=[item(CodeMeaning="Measurements")],
                  ContentSequence=[item(ValueType="NUM", ConceptNameCodeSequence=[code]),
                                   item(ValueType="TEXT", TextValue="Doe^Jane")])  # fmt: skip
    facts = one(report)
    assert "'Measurements'" in said(facts)
    assert facts["measurements"] == {"Length": 1}
    assert "Doe" not in json.dumps(facts)
    contour = item(ContourGeometricType="CLOSED_PLANAR", ContourData=[0, 0, 0, 1, 0, 0, 1, 1, 0])
    facts = one(bare(tmp_path / "rt", make_dicom, Modality="RTSTRUCT",
                     StructureSetROISequence=[item(ROINumber=1, ROIName="Left lung")],
                     ROIContourSequence=[item(ReferencedROINumber=1, ContourSequence=[contour, contour])]))  # fmt: skip
    assert facts["rois"] == [{"name": "Left lung", "contours": 2}]
    directory = bare(tmp_path / "DICOMDIR", make_dicom, Modality="", SOPClassUID="1.2.840.10008.1.3.10",
                     DirectoryRecordSequence=[item(DirectoryRecordType=kind) for kind in ("PATIENT", "IMAGE", "IMAGE")]
                     )  # fmt: skip
    assert one(directory)["records"] == {"IMAGE": 2, "PATIENT": 1}
    plan = bare(tmp_path / "plan", make_dicom, Modality="RTPLAN", BeamSequence=[item(BeamNumber=1)] * 3)
    assert "3 beams" in said(one(plan))
    assert one(bare(tmp_path / "ct", make_dicom))["holds"] == "no image"


def test_a_nifti_file_of_four_dimensions_is_explained(tmp_path: Path) -> None:
    data = np.zeros((4, 5, 6, 3), np.int16)
    data[1, 1, 1] = 7
    nibabel.save(nibabel.Nifti1Image(data, np.diag([1.0, 2.0, 3.0, 1.0])), tmp_path / "x.nii.gz")
    facts = one(tmp_path / "x.nii.gz")
    assert facts["volumes"] == 3
    assert facts["orientation"] == "RAS"
    assert "option `index`" in said(facts)
    assert "may be a label volume (0, 7)" in said(facts)


def test_rasters_tell_pages_palettes_and_masks(tmp_path: Path) -> None:
    mask = (GREY > 1000).astype(np.uint8) * 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    facts = one(tmp_path / "mask.png")
    assert "maybe_mask" in facts["problems"]
    assert "Its values: 0, 255." in said(facts)
    tifffile.imwrite(tmp_path / "deep.tif", np.stack([GREY] * 3), photometric="minisblack")
    facts = one(tmp_path / "deep.tif")
    assert (facts["type"], facts["pages"]) == ("uint16", 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.dstack([mask] * 3 + [mask])).save(tmp_path / "turned.png", exif=exif)
    assert {"turned_by_exif", "alpha_varies"} <= set(one(tmp_path / "turned.png")["problems"])


def test_a_slide_is_explained_and_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "s.tif", np.zeros((300, 400, 3), np.uint8), tile=(128, 128), photometric="rgb")
    monkeypatch.setattr("medglip.imaging.raster.MOST_PIXELS", 1000)
    facts = one(tmp_path / "s.tif")
    assert facts["tiles"] == 12
    assert "tile by tile" in said(facts)


def test_tables_are_explained_without_their_cells(tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_bytes(
        '\ufeffpatient,x,y,w,h,label\r\n"Doe^Jane",1,2,3,4,Mass\r\nB,1,2,3,4,Mass\r\n'.encode()
    )
    facts = one(tmp_path / "boxes.csv")
    assert facts["rows"] == 2
    assert facts["labels"] == {"label": {"Mass": 2}}
    assert "box_table" in said(facts)
    assert "byte_order_mark" in facts["problems"]
    assert "Doe" not in json.dumps(facts)
    (tmp_path / "rle.csv").write_text("ImageId, EncodedPixels\na,1 2\nb,-1,extra\n")
    facts = one(tmp_path / "rle.csv")
    assert "rle_table" in said(facts)
    assert "ragged_rows" in facts["problems"]


def test_json_tells_coco_from_the_rest(tmp_path: Path) -> None:
    marks = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "segmentation": [[0, 0, 1, 0, 1, 1]]},
             {"image_id": 9, "category_id": 1, "bbox": [0, 0, 50, 5]}]  # fmt: skip
    coco = {"images": [{"id": 1, "width": 10, "height": 10}], "annotations": marks, "categories": [{"id": 1, "name": "lung"}]}
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    facts = one(tmp_path / "coco.json")
    assert facts["categories"] == {"lung": 2}
    assert facts["shapes"] == {"polygons": 1, "boxes only": 1}
    assert facts["problems"] == ["unknown_image"]
    (tmp_path / "qa.jsonl").write_text('{"question": "?", "answer": "yes"}\n' * 2)
    assert one(tmp_path / "qa.jsonl")["holds"] == "questions and answers"
    (tmp_path / "map.json").write_text('{"1": "liver"}')
    assert one(tmp_path / "map.json")["keys"] == ["1"]
    (tmp_path / "cases.json").write_text(json.dumps({f"MRN-{number}": 1 for number in range(20)}))
    assert "MRN" not in json.dumps(one(tmp_path / "cases.json"))  # so many keys are names of cases


@pytest.mark.parametrize(
    ("text", "holds", "words"),
    [
        ("<annotation><size><width>4</width><height>3</height></size><object><name>RBC</name></object></annotation>",
         "Pascal VOC", "1 box in an image of 4 x 3 pixels: RBC (1)"),
        ('<Annotations MicronsPerPixel="0.25"><Annotation Name="Tumor"><Regions><Region><Vertices><Vertex X="1" Y="2"/>'
         "</Vertices></Region></Regions></Annotation></Annotations>", "Aperio", "0.25 microns a pixel"),
        ("<LidcReadMessage><readingSession/><readingSession/></LidcReadMessage>", "LIDC-IDRI", "2 readers"),
        ("<other><a/></other>", "XML", "root 'other'"),
    ],
)  # fmt: skip
def test_xml_is_told_by_its_root(tmp_path: Path, text: str, holds: str, words: str) -> None:
    (tmp_path / "x.xml").write_text(text)
    facts = one(tmp_path / "x.xml")
    assert facts["holds"] == holds
    assert words in said(facts)


def test_arrays_and_archives_are_listed(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.zeros((3, 4, 5), np.uint8), masks=np.zeros(3))
    assert set(one(tmp_path / "x.npz")["arrays"]) == {"images", "masks"}
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images/a.png", b"1")
        archive.writestr("../escape.txt", bytes(1_000_000))
    facts = one(tmp_path / "x.zip")
    assert facts["by_ending"] == {".png": 1, ".txt": 1}
    assert facts["problems"] == ["unsafe_members", "huge_when_unpacked"]
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as packed:
        member = tarfile.TarInfo("a/b.dcm")
        member.size = 3
        packed.addfile(member, io.BytesIO(b"abc"))
    assert one(tmp_path / "x.tar.gz")["files"] == 1
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    assert "video" in said(one(tmp_path / "clip.mp4"))


@pytest.mark.parametrize(
    ("name", "content"),
    [("x.npy", b"\x93NUMPY broken"), ("x.zip", b"PK broken"), ("x.json", b"{broken"), ("x.xml", b"<broken"),
     ("x.nii.gz", b"\x1f\x8bbroken"), ("x.nrrd", b"NRRD0004 broken"), ("x.png", b"\x89PNG broken"), ("x.tif", b"II*\0broken"),
     ("x.dcm", bytes(128) + b"DICM"), ("x.bin", bytes(range(256))), ("x.csv", b""), ("x.mha", b"ObjectType = Image\n"),
     ("x.tar", b"broken"), ("x.gif", b"GIF89a")],
)  # fmt: skip
def test_what_cannot_be_read_is_one_sentence_with_its_name(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        inspect(tmp_path / name)


def test_pickled_arrays_are_never_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="Python objects"):
        inspect(tmp_path / "x.npy")


def test_every_real_file_is_explained_or_refused_in_a_sentence(real_data: Path) -> None:
    # A sample of all: nothing but InputError may come out, and no patient's name.
    refused = []
    for path in [path for path in sorted(real_data.rglob("*")) if path.is_file()][::37]:
        try:
            one(path)
        except InputError as error:
            refused.append((path.name, str(error)))
    assert all(name in reason for name, reason in refused)
