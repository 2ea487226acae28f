import csv
import gzip
import json
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image

from medglip.errors import InputError
from medglip.phantoms import MODALITIES, cases, write_archive
from medglip.phantoms.files import FUNDUS_COLOURS, affine_of, slug
from medglip.records import box_of_mask, rle_of_mask

CASES = 5  # the third CT is JPEG 2000, the fifth lies prone


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_equal_seeds_give_equal_bytes(archive, tmp_path):
    # The exams of a smaller archive are those that a larger one begins with; only tables grow.
    again = write_archive(tmp_path / "again", cases=1)
    written = sorted(path for path in again.rglob("*") if path.is_file() and path.suffix not in (".csv", ".json"))
    assert len(written) > 50
    for path in written:
        assert path.read_bytes() == (archive / path.relative_to(again)).read_bytes(), path.name


def test_folders_and_tables(archive):
    assert {path.name for path in archive.iterdir() if path.is_dir()} == set(MODALITIES)
    for modality in MODALITIES:
        rows = _rows(archive / modality / "reports.csv")
        assert len(rows) == CASES * (1 if modality in ("ct", "mr", "ultrasound") else 3)
        assert all(row["findings"].endswith(".") for row in rows)
        assert len({row["image"] for row in rows}) == len(rows)
    people = _rows(archive / "patients.csv")
    assert max(int(person["ct_exams"]) for person in people) > 1
    assert "Synthetic" in (archive / "README.txt").read_text()


def test_ct_slices_are_the_scene(archive):
    compressed, positions = set(), []
    for scene in cases("ct", CASES):
        files = sorted((archive / "ct" / scene.exam.case / "series").iterdir())
        slices = [pydicom.dcmread(file) for file in files]
        order = np.argsort([float(image.ImagePositionPatient[2]) for image in slices])
        positions.append(list(order))
        compressed.add(slices[0].file_meta.TransferSyntaxUID.is_compressed)
        turned = slices[0].ImageOrientationPatient[0] < 0
        for k, at in enumerate(order):
            image = slices[at]
            hu = image.pixel_array.astype(int) * int(image.RescaleSlope) + int(image.RescaleIntercept)
            truth = scene.values[k][::-1, ::-1] if turned else scene.values[k]
            assert np.array_equal(np.where(hu < -1024, truth, hu), truth)
        assert str(slices[0].PatientName).startswith("Phantom^")
        assert slices[0].ImageComments == "synthetic phantom"
        assert len({image.SOPInstanceUID for image in slices}) == len(slices)
    assert compressed == {True, False}
    assert any(order != sorted(order) for order in positions)


def test_segmentations_are_the_masks(archive):
    for scene in list(cases("ct", CASES))[3:5]:  # one lying supine, one prone
        home = archive / "ct" / scene.exam.case
        slices = sorted((pydicom.dcmread(file, stop_before_pixels=True) for file in (home / "series").iterdir()),
                        key=lambda image: float(image.ImagePositionPatient[2]))  # fmt: skip
        segmentation = hd.seg.segread(home / "segmentation.dcm")
        pixels = segmentation.get_pixels_by_source_instance(
            [image.SOPInstanceUID for image in slices], ignore_spatial_locations=True, assert_missing_frames_are_empty=True
        )
        labels = [segmentation.get_segment_description(n).segment_label for n in segmentation.segment_numbers]
        assert labels == list(scene.searched)
        turned = slices[0].ImageOrientationPatient[0] < 0
        for number, name in enumerate(labels):
            found = pixels[..., number].astype(bool)
            assert np.array_equal(found[:, ::-1, ::-1] if turned else found, scene.mask(name)), name
        kidney = segmentation.get_segment_description(labels.index("left kidney") + 1)
        modifier = kidney.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0]
        assert modifier.CodeMeaning == "Left"
        assert kidney.segmented_property_type.meaning == "Kidney"


def test_mr_volumes_are_oblique_anisotropic_and_true_in_any_layout(archive):
    layouts = set()
    for scene in cases("mr", CASES):
        image = nib.load(archive / "mr" / scene.kind / f"{scene.exam.case}.nii.gz")
        layouts.add(nib.aff2axcodes(image.affine))
        lps = np.diag([-1, -1, 1, 1]) @ image.affine
        k, j, i = (int(n) for n in np.argwhere(scene.mask("liver" if scene.kind == "abdomen" else "brain"))[7])
        place = affine_of(scene) @ (i, j, k, 1)
        voxel = np.rint(np.linalg.inv(lps) @ place).astype(int)[:3]
        assert np.asarray(image.dataobj)[tuple(voxel)] == scene.values[k, j, i]
        cosines = np.abs(lps[:3, :3] / np.linalg.norm(lps[:3, :3], axis=0))
        assert 0.9 < cosines.max(axis=0).min() < 0.9999
        spacing = sorted(image.header.get_zooms())
        assert spacing[2] > 3 * spacing[0]
    assert len(layouts) > 1


def test_mr_labels(archive):
    scenes = list(cases("mr", 2))
    for scene in scenes:
        home = archive / "mr" / scene.kind
        if scene.kind == "abdomen":
            labels = np.asarray(nib.load(home / f"{scene.exam.case}_labels.nii.gz").dataobj)
            organs = np.logical_or.reduce([scene.mask(name) for name in scene.names()])
            assert np.count_nonzero(labels) == organs.sum()
            assert labels.dtype == np.uint8
        else:
            for name in scene.searched:
                mask = np.asarray(nib.load(home / f"{scene.exam.case}_masks" / f"{slug(name)}.nii.gz").dataobj)
                assert np.count_nonzero(mask) == scene.mask(name).sum()
    assert {scene.kind for scene in scenes} == {"abdomen", "brain"}


def test_radiographs_and_their_boxes(archive):
    rows = _rows(archive / "xray" / "boxes.csv")
    kinds = []
    for scene in cases("xray", CASES):
        file = f"{scene.exam.case}.dcm"
        image = pydicom.dcmread(archive / "xray" / "images" / file)
        kinds.append(image.PhotometricInterpretation)
        shown = 4095 - image.pixel_array if kinds[-1] == "MONOCHROME1" else image.pixel_array
        assert np.array_equal(shown, scene.values)
        here = [row for row in rows if row["image"] == file]
        boxes = {(row["label"], *(int(row[edge]) for edge in "xywh")) for row in here if row["w"]}
        truth = {(thing.name, *(int(edge) for edge in box_of_mask(thing.mask))) for thing in scene.things}
        assert {(name, x, y, x + w, y + h) for name, x, y, w, h in boxes} == truth
        healthy = not any(thing.within for thing in scene.things)
        assert any(row["label"] == "No finding" for row in here) == healthy
    assert abs(kinds.count("MONOCHROME1") - len(kinds) / 2) < 1
    assert any(row["label"] == "No finding" for row in rows)


def test_clips_and_their_masks(archive):
    for scene in cases("ultrasound", 3):
        home = archive / "ultrasound" / scene.kind
        clip = pydicom.dcmread(home / "clips" / f"{scene.exam.case}.dcm")
        frames = clip.pixel_array
        assert np.array_equal(frames[..., 0] if frames.ndim == 4 else frames, scene.values)
        region = clip.SequenceOfUltrasoundRegions[0]
        assert region.PhysicalUnitsXDirection == 3
        assert region.PhysicalDeltaX * 10 == pytest.approx(scene.spacing_mm[1])
        for frame in (0, 2, 4):
            for name in scene.searched:
                mask = np.asarray(Image.open(home / "masks" / f"{scene.exam.case}_f{frame}_{slug(name)}.png"))
                assert np.array_equal(mask > 0, scene.mask(name)[frame])


def test_coco_file(archive):
    coco = json.loads((archive / "endoscopy" / "annotations.json").read_text())
    names = {category["id"]: category["name"] for category in coco["categories"]}
    for scene, entry in zip(cases("endoscopy", CASES), coco["images"], strict=True):
        picture = Image.open(archive / "endoscopy" / "images" / entry["file_name"])
        assert picture.size == (entry["width"], entry["height"])
        assert picture.mode == "RGB"
        marks = [mark for mark in coco["annotations"] if mark["image_id"] == entry["id"]]
        codes = sorted((names[mark["category_id"]], mark["segmentation"]["counts"]) for mark in marks)
        assert codes == sorted((thing.name, rle_of_mask(thing.mask).counts) for thing in scene.things)


def test_binary_and_coloured_masks(archive):
    scene = next(cases("dermoscopy", 1))
    for name in scene.names():
        mask = np.asarray(Image.open(archive / "dermoscopy" / "masks" / f"{scene.exam.case}_{slug(name)}.png"))
        assert set(np.unique(mask)) <= {0, 255}
        assert np.array_equal(mask > 0, scene.mask(name))
    for scene in cases("fundus", 1):
        layers = [np.asarray(Image.open(archive / "fundus" / "masks" / f"{scene.exam.case}_{n}.png")) for n in (1, 2)]
        assert np.array_equal(np.asarray(Image.open(archive / "fundus" / "images" / f"{scene.exam.case}.png")), scene.values)
        for name, colour in FUNDUS_COLOURS.items():
            drawn = np.logical_or.reduce([(layer == colour).all(axis=-1) for layer in layers])
            assert np.array_equal(drawn, scene.mask(name)), name


def test_nothing_tells_the_time(archive):
    path = next((archive / "mr" / "abdomen").glob("*.nii.gz"))
    assert path.read_bytes()[4:8] == b"\0\0\0\0"
    assert gzip.decompress(path.read_bytes())
    for file in (archive / "ct").rglob("segmentation.dcm"):
        assert pydicom.dcmread(file).InstanceCreationDate == "20000101"


def test_what_it_refuses(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InputError, match="not an empty folder"):
        write_archive(tmp_path / "full", cases=1)
    with pytest.raises(InputError, match="found 0 cases"):
        write_archive(tmp_path / "new", cases=0)


def test_progress_is_told(archive, told):
    total = CASES * 15
    assert [done for done, _, _ in told] == list(range(1, total + 1))
    assert {total for _, total, _ in told} == {total}
    assert {note for _, _, note in told} == set(MODALITIES)
