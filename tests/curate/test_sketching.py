"""`medglip new-source`: folders of each kind, generated tiny. Each sketch, once filled in, converts its own folder."""

import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from sketched_folders import (
    aperio,
    arrays,
    boxes,
    busi,
    class_folders,
    class_suffixes,
    coco,
    codes,
    colours,
    dicom,
    dicom_alone,
    dicom_boxes,
    dicom_masks,
    drive,
    four_contrasts,
    in_folders,
    indexed,
    jpeg_masks,
    json_boxes,
    key_slices,
    label_volumes,
    lidc,
    masks_and_reports,
    mixed_endings,
    noise,
    outlines,
    questions,
    report_table,
    reports,
    save,
    series_alone,
    series_beside_volumes,
    square,
    table,
    total_segmentator,
    voc,
    volume,
    volumes_alone,
    write,
    yolo,
)

from medglip.curate import load_source
from medglip.curate.engine import found_tasks, run
from medglip.curate.sketching import sketch
from medglip.curate.sketching.pairing import paired
from medglip.curate.sketching.shapes import shapes
from medglip.errors import InputError, SourceError
from medglip.records import ImageRecord, Picture, Reject


@dataclass(frozen=True)
class Kind:
    """What a sketch must say of a folder, and what converting it by the sketch must give."""

    build: Callable[[Path], None]
    converter: str
    files: dict[str, str]
    labels: dict[str, str] = field(default_factory=dict)  # what the curator fills in
    modality: str | None = None
    images: int = 3
    regions: int = 3
    texts: int = 0
    options: dict[str, object] = field(default_factory=dict)


HEADS = [
    (("x", "y", "width", "height"), (10, 8, 20, 8)), (("Bbox [x", "y", "w", "h]"), (10, 8, 20, 8)),
    (("xmin", "ymin", "xmax", "ymax"), (10, 8, 30, 16)), (("x_min", "y_min", "x_max", "y_max"), (10, 8, 30, 16)),
    (("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"), (10, 8, 30, 16)), (("Left", "Top", "Right", "Bottom"), (10, 8, 30, 16)),
    (("x_center", "y_center", "width", "height"), (20, 12, 20, 8)),
    (("cx", "cy", "w", "h"), (20 / 48, 12 / 32, 20 / 48, 8 / 32)),
]  # fmt: skip
TUMOR = {"255": "breast tumor"}
KINDS = {
    "busi": Kind(busi, "mask_images", {"mask": r"Set_with_GT/{kind}/{case}_mask{number:(?:_\d+)?}.png"}, TUMOR, "ultrasound",
                 6, 7, options={"kind": "binary"}),
    "binary": Kind(in_folders, "mask_images", {"image": "images/{case}.png", "mask": "masks/{case}.png"}, TUMOR, "ultrasound"),
    "masks and reports": Kind(masks_and_reports, "mask_images", {"mask": "masks/{case}.png", "about": "reports.csv"}, TUMOR,
                              "ultrasound", texts=3, options={"about_key": "image"}),
    "jpeg": Kind(jpeg_masks, "mask_images", {"mask": "masks/{case}.jpg"}, TUMOR, "ultrasound", options={"kind": "binary"}),
    "colours": Kind(colours, "mask_images", {"mask": "masks/{case}.png"}, {"255,0,0": "liver", "0,255,0": "spleen"}, "ct",
                    regions=6, options={"kind": "colour"}),
    "indexed": Kind(indexed, "mask_images", {}, {"3": "liver"}, "ct", options={"kind": "indexed"}),
    "class folders": Kind(class_folders, "mask_images", {"mask": "masks/{label}/{case}.png"}, {}, "ct", regions=6,
                          options={"label": "{label}"}),
    "class suffixes": Kind(class_suffixes, "mask_images", {"mask": "gt/{case}_{label:cup|disc}.tif"},
                           {"cup": "optic cup", "disc": "optic disc"}, "fundus", regions=6),
    "drive": Kind(drive, "mask_images", {"image": "training/images/{case}_training.tif",
                                         "mask": "training/1st_manual/{case}_manual1.gif"},
                  {"255": "retinal vessel"}, "fundus"),
    "outlines": Kind(outlines, "mask_images", {"mask": "{case}_Annotation.png"}, {"255": "fetal head"}, "ultrasound",
                     options={"kind": "outline"}),
    "mixed endings": Kind(mixed_endings, "mask_images", {"image": "images/{case}.{ending:jpg|png}"}, TUMOR, "ultrasound", 4, 4),
    "label volumes": Kind(label_volumes, "label_volumes",
                          {"image": "imagesTr/{case}.nii.gz", "labels": "labelsTr/{case}.nii.gz"},
                          {"1": "liver", "2": "liver tumor"}, "ct", images=-1, regions=-1),
    "four contrasts": Kind(four_contrasts, "label_volumes", {"image": "{patient}/{patient}_flair.nii.gz",
                           "labels": "{patient}/{patient}_seg.nii.gz"}, {"1": "brain tumor"}, "mr", images=-1, regions=-1),
    "totalsegmentator": Kind(total_segmentator, "binary_volumes", {"image": "{patient}/ct.nii.gz",
                             "mask": "{patient}/segmentations/{label}.nii.gz"}, {}, "ct", images=-1, regions=-1),
    "voc": Kind(voc, "voc", {"annotation": "Annotations/{case}.xml"}, {}, "microscopy", 2, 2),
    "coco": Kind(coco, "coco", {"image": "imgs/{case}.png", "annotations": "train.json"}, {}, "endoscopy", 1, 1),
    "codes": Kind(codes, "rle_table", {"table": "train-rle.csv"}, {"object": "pneumothorax"}, "xray", 3, 1),
    "aperio": Kind(aperio, "polygons_xml", {"polygons": "tiles/{case}.xml"}, {"Lymphocyte": "lymphocyte nucleus"},
                   "histopathology", 2, 2, options={"label_from": "annotation"}),
    "lidc": Kind(lidc, "lidc_xml", {"series": "LIDC-1/study/series/*.dcm", "marks": "**/*.xml"}, {}, None, 2, 2),
    "dicom": Kind(dicom_alone, "dicom_images", {}, {}, None, 3, 0),
    "series": Kind(series_alone, "volumes", {"series": "**/*"}, {}, None, 6, 0),
    "series and the same as files": Kind(series_beside_volumes, "volumes", {"series": "**/*"}, {}, None, 6, 0),
    "volumes": Kind(volumes_alone, "volumes", {"image": "scans/{case}.nii.gz"}, {}, "mr", 6, 0),
    "dicom boxes": Kind(dicom_boxes, "dicom_images", {"image": "**/*", "table": "boxes.csv"}, {"Nodule": "lung nodule"}, None),
    "dicom masks": Kind(dicom_masks, "dicom_masks", {"series": "{patient}/DICOM_anon/{slice}.dcm",
                        "mask": "{patient}/Ground/*.png"}, {"object": "liver"}, None, 6, 6, options={"match": "order"}),
    "arrays": Kind(arrays, "npy_stacks", {"image": "fold1/images.npy", "mask": "fold1/masks.npy"},
                   {"0": "nucleus", "1": "skip"},
                   "histopathology", 2, 2, options={"axes": "nhwc", "mask_axes": "nhwc", "kind": "layers"}),
    "reports": Kind(reports, "text_table", {"report": "reports/{case}.txt"}, {}, "xray", 3, 0, 3),
    "report table": Kind(report_table, "text_table", {"table": "reports.csv"}, {}, "xray", 3, 0, 3),
    "questions": Kind(questions, "qa_json", {"questions": "qa.json"}, {}, "xray", 3, 0, 3),
    "json boxes": Kind(json_boxes, "box_json", {"annotations": "ann.json"}, {"Nodule": "lung nodule", "Mass": "lung mass"},
                       "xray", 2, 4, options={"format": "xyxy"}),
    "key slices": Kind(key_slices, "key_slices", {"table": "DL_info.csv"}, {"1": "bone lesion"}, None, 2, 2,
                       options={"named": "{patient}_{case}.png"}),
    "yolo": Kind(yolo, "yolo", {"labels": "labels/{case}.txt", "names": "classes.txt"}, {}, "endoscopy", 2, 2),
    **{f"boxes {header[0]} {header[2]}": Kind(boxes(("image_id", *header, "class_name"), (*row, "polyp")), "box_table",
       {"image": "images/{case}.png", "table": "boxes.csv"}, {}, "endoscopy", 3, 2) for header, row in HEADS},
}  # fmt: skip


def filled_in(text: str, labels: dict[str, str]) -> str:
    """The sketch as a curator leaves it: title, licence and the labels that were left to do."""
    text = text.replace('title = ""', 'title = "Generated"').replace('licence = ""', 'licence = "CC0-1.0"')
    for raw, label in labels.items():
        text = re.sub(rf"^{re.escape(json.dumps(raw))} = .*$", f'"{raw}" = "{label}"', text, count=1, flags=re.MULTILINE)
    return text


def converted(text: str, folder: Path) -> tuple[list[ImageRecord], list[Reject]]:
    path = folder.parent / "sketched.toml"
    path.write_text(text)
    tasks, rejects = found_tasks(load_source(path), folder)
    items = [item for task in tasks for item in run(task)]
    return (
        [item.record for item in items if isinstance(item, Picture)],
        [*rejects, *(item for item in items if isinstance(item, Reject))],
    )


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_sketch_once_filled_in_converts_its_folder(tmp_path: Path, kind: Kind) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    kind.build(folder)
    text, todo = sketch("made_up", folder, modality=kind.modality)
    part = tomllib.loads(text)["part"][0]
    assert part["converter"] == kind.converter
    assert kind.files.items() <= part["files"].items()
    assert kind.options.items() <= part["options"].items()
    assert todo[:2] == ("title", "licence")
    with pytest.raises(SourceError):  # nobody can forget title and licence
        converted(text, folder)
    records, rejects = converted(filled_in(text, kind.labels), folder)
    assert [reject for reject in rejects if reject.reason != "unlabelled"] == []
    regions = [region for record in records for region in record.regions]
    assert records
    assert len(records) == kind.images or kind.images < 0
    assert len(regions) == kind.regions or (kind.regions < 0 and regions)
    assert sum(len(record.texts) for record in records) == kind.texts


@pytest.mark.parametrize(("header", "row"), HEADS)
def test_boxes_of_every_header_are_the_same_box(tmp_path: Path, header: tuple[str, ...], row: tuple[float, ...]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    boxes(("image_id", *header, "class_name"), (*row, "polyp"))(folder)
    text, _ = sketch("made_up", folder, modality="endoscopy")
    records, _ = converted(filled_in(text, {}), folder)
    found = [region.box_xyxy for record in records for region in record.regions]
    assert found
    assert np.allclose(found, (10, 8, 30, 16))


def test_rows_without_a_box_are_negatives_and_their_words_no_labels(tmp_path: Path) -> None:
    header = ("image_id", "class_name", "rad_id", "x_min", "y_min", "x_max", "y_max")
    boxes(header, ("polyp", "R1", 10, 8, 30, 16), ("im_2", "No finding", "R1", "", "", "", ""))(tmp_path)
    part = tomllib.loads(sketch("made_up", tmp_path)[0])["part"][0]
    assert part["options"]["negative"] == ["No finding"]
    assert part["options"]["columns"] == {
        "image": "image_id",
        "label": "class_name",
        "reader": "rad_id",
        "box": list(header[3:]),
    }
    assert set(part["labels"]) == {"polyp"}


def test_a_target_of_nought_is_a_negative(tmp_path: Path) -> None:
    boxes(("patientId", "x", "y", "width", "height", "Target"), (10, 8, 20, 8, 1), ("im_2", "", "", "", "", 0))(tmp_path)
    options = tomllib.loads(sketch("made_up", tmp_path)[0])["part"][0]["options"]
    assert options["negative"] == ["0"]
    assert options["columns"]["target"] == "Target"


def test_objects_with_their_series(tmp_path: Path) -> None:
    series = tmp_path / "in/series"
    for k in range(3):
        dicom(tmp_path / "in", f"series/{k}.dcm", k, k=k)
    for kind, converter, words in (
        ("SEG", "dicom_seg", "SegmentSequence"),
        ("RTSTRUCT", "dicom_rtstruct", "StructureSetROISequence"),
    ):
        data, item = Dataset(), Dataset()
        setattr(item, "SegmentLabel" if kind == "SEG" else "ROIName", "Liver")
        data.Modality, data.SOPClassUID, data.SOPInstanceUID = kind, "1.2.840.10008.5.1.4.1.1.66.4", f"1.9.{len(kind)}"
        setattr(data, words, [item])
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = (
            data.SOPClassUID,
            data.SOPInstanceUID,
        )
        data.save_as(series / "object.dcm", enforce_file_format=True)
        text, _ = sketch("made_up", tmp_path / "in")
        part = tomllib.loads(text)["part"][0]
        assert (part["converter"], part["modality"]) == (converter, "ct")
        assert set(part["files"].values()) == {"**/*"}
        assert part["labels"] == {"Liver": "abdomen.liver"}
        assert load_source(written(tmp_path, filled_in(text, {}))).parts[0].converter == converter


def written(folder: Path, text: str) -> Path:
    path = folder / "sketched.toml"
    path.write_text(text)
    return path


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no file"):
        sketch("made_up", tmp_path)


@pytest.mark.parametrize(
    "junk", [{"notes.docx": "x", "a/b.bin": "\x00\x01"}, {"readme.md": "# hello"}, {"x.csv": "a,b\n1,2\n"}]
)
def test_junk_is_left_to_do_and_never_loads(tmp_path: Path, junk: dict[str, str]) -> None:
    folder = tmp_path / "in"
    for name, text in junk.items():
        write(folder, name, text)
    text, todo = sketch("made_up", folder, modality="ct")
    part = tomllib.loads(text)["part"][0]
    assert part["converter"] == "TODO"
    assert any(one.startswith("converter") for one in todo)
    with pytest.raises(SourceError):
        converted(filled_in(text, {}), folder)


def unknown_columns(folder: Path) -> None:
    boxes(("image_id", "age", "sex"), (61, "F"))(folder)


def unknown_json(folder: Path) -> None:
    save(folder, "a.png", noise(1))
    write(folder, "a.json", {"version": 3, "shapes": 7})


def unknown_names(folder: Path) -> None:
    for n in range(3):
        save(folder, f"images/im_{n}.png", noise(n))
        save(folder, f"masks/{'xyz'[n]}.png", square())


def one_cell_box(folder: Path) -> None:
    boxes(("image_id", "bbox", "label"), ("[10, 8, 20, 8]", "polyp"))(folder)


def other_images(folder: Path) -> None:
    boxes(("x", "y", "width", "height", "label"), (10, 8, 20, 8, "polyp"))(folder)
    table(folder, "boxes.csv", ("image", "x", "y", "width", "height", "label"), ("elsewhere", 10, 8, 20, 8, "polyp"))


def no_labels(folder: Path) -> None:
    for n in range(3):
        volume(folder, f"p{n}/image.nii.gz", noise(n, 16, 16, 4))
        volume(folder, f"p{n}/ground_truth.nii.gz", noise(9 + n, 16, 16, 4).astype(np.int16) - 100)


@pytest.mark.parametrize(
    ("build", "what"),
    [(unknown_columns, "converter"), (unknown_json, "converter"), (unknown_names, "files"), (one_cell_box, "columns"),
     (other_images, "options"), (no_labels, "labels")],
)  # fmt: skip
def test_what_cannot_be_told_is_said(tmp_path: Path, build: Callable[[Path], None], what: str) -> None:
    build(tmp_path)
    text, todo = sketch("made_up", tmp_path, modality="endoscopy")
    assert any(one.startswith(what) for one in todo), todo
    assert text.count("TODO") > 2  # beside title and licence


def test_a_wrong_guess_is_tried_and_told(tmp_path: Path) -> None:
    in_folders(tmp_path)
    for n in (7, 8):
        save(tmp_path, f"masks/stray_im_{n}.png", square())
    text, todo = sketch("made_up", tmp_path, modality="ultrasound")
    assert "# It finds 3 cases; 2 files or cases cannot be used, 0 other files fit no pattern." in text
    assert any(one.startswith("orphan: 2 files") for one in todo)


def test_the_modality_that_the_files_contradict_is_told(tmp_path: Path) -> None:
    dicom_alone(tmp_path)
    _, todo = sketch("made_up", tmp_path, modality="ct")
    assert any(one.startswith("modality: the files say xray") for one in todo)


def test_a_converter_may_be_given(tmp_path: Path) -> None:
    in_folders(tmp_path)
    text, todo = sketch("made_up", tmp_path, converter="coco")
    assert tomllib.loads(text)["part"][0]["converter"] == "coco"
    assert "converter: the files look like mask_images" in todo
    with pytest.raises(InputError, match="mask_images"):
        sketch("made_up", tmp_path, converter="mask_image")
    assert 'image = "TODO"' in sketch("made_up", converter="coco")[0]


@pytest.mark.parametrize("name", ["Upper", "with space", "a-b", ""])
def test_names_are_checked(name: str) -> None:
    with pytest.raises(InputError, match="lower-case"):
        sketch(name)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_images_are_never_their_own_marks(tmp_path: Path, kind: Kind) -> None:
    kind.build(tmp_path)
    found = shapes(sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()))
    marks = [shape for shape in found if shape.marking]
    images = [shape for shape in found if not shape.marking]
    for one in marks if images else ():
        pair = paired(images[0], one)
        assert pair.image != pair.marks or pair.marks == "TODO"
