from pathlib import Path

import nibabel
import numpy as np
import pytest

from medglip.curate import load_source
from medglip.curate.engine import found_tasks, run
from medglip.records import Picture, Reject

TOML = """
name = "tiny"
title = "Tiny"
licence = "CC0-1.0"
names = "public"
annotation = "machine"
[[part]]
converter = "binary_volumes"
modality = "ct"
labels = { "heart_box" = "skip" }
labels_by_name = { enabled = true }
files = { image = "{case}/ct.nii.gz", mask = "{case}/masks/{label}.nii.gz" }
"""
AFFINE = np.diag([-1.0, -1.0, 3.0, 1.0])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One case: liver, a left kidney that overlaps it, and an empty spleen."""
    (tmp_path / "in" / "p1" / "masks").mkdir(parents=True)
    (tmp_path / "tiny.toml").write_text(TOML)
    image = np.random.default_rng(0).integers(-900, 90, (12, 10, 4)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(image, AFFINE), tmp_path / "in" / "p1" / "ct.nii.gz")
    liver, kidney = np.zeros((2, *image.shape), np.uint8)
    liver[1:6, 2:7, 1:3] = 1
    kidney[4:9, 5:9, 2] = 255
    write(tmp_path / "in", "liver", liver)
    write(tmp_path / "in", "kidney_left", kidney)
    write(tmp_path / "in", "spleen", np.zeros_like(liver))
    return tmp_path / "in"


def write(folder: Path, label: str, mask: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path = folder / "p1" / "masks" / f"{label}.nii.gz"
    nibabel.save(nibabel.Nifti1Image(mask, affine), path)
    return path


def convert(folder: Path) -> tuple[list[Picture], list[Reject]]:
    tasks, rejects = found_tasks(load_source(folder.parent / "tiny.toml"), folder)
    items = [*rejects, *(item for task in tasks for item in run(task))]
    return [i for i in items if isinstance(i, Picture)], [i for i in items if isinstance(i, Reject)]


def test_masks_may_overlap_and_an_empty_one_is_a_negative(folder: Path) -> None:
    (first, second), rejects = convert(folder)
    assert not rejects
    assert {r.concept: r.box_xyxy for r in second.record.regions} == {
        "abdomen.liver": (1, 2, 6, 7), "abdomen.kidney@left": (4, 5, 9, 9),
    }  # fmt: skip
    assert second.record.absent == ("abdomen.spleen",)
    assert first.record.absent == ("abdomen.kidney@left", "abdomen.spleen")
    assert second.record.regions[0].provenance == "machine"


def test_a_missing_mask_says_nothing(folder: Path) -> None:
    (folder / "p1" / "masks" / "spleen.nii.gz").unlink()
    pictures, _ = convert(folder)
    assert not any("spleen" in concept for picture in pictures for concept in picture.record.absent)


@pytest.mark.parametrize(
    ("kind", "label", "reason", "words"),
    [
        ("size", "heart", "size_mismatch", "(4, 10, 11)"),
        ("turned", "heart", "geometry_mismatch", "heart.nii.gz"),
        ("label", "hart", "unknown_label", "nearest"),
        ("cut off", "heart", "unreadable_file", "broken or cut off"),
        ("many values", "heart", "not_binary", "[1, 2]"),
    ],
)
def test_a_mask_that_cannot_be_used_is_rejected_alone(folder: Path, kind: str, label: str, reason: str, words: str) -> None:
    truth, _ = convert(folder)
    mask = np.zeros((12, 10, 4), np.uint8)
    mask[2:4, 2:4, 1] = 1
    if kind == "many values":
        mask[3, 3, 1] = 2
    moved = AFFINE.copy()
    moved[:3, 3] = 7.0
    path = write(folder, label, mask[:-1] if kind == "size" else mask, moved if kind == "turned" else AFFINE)
    if kind == "cut off":
        path.write_bytes(path.read_bytes()[:40])
    pictures, (reject,) = convert(folder)
    assert (reject.reason, reject.file) == (reason, f"p1/masks/{label}.nii.gz")
    assert words in reject.detail
    assert [p.record for p in pictures] == [p.record for p in truth]


def test_a_skipped_class_and_a_mirrored_mask(folder: Path) -> None:
    truth, _ = convert(folder)
    write(folder, "heart_box", np.ones((12, 10, 4), np.uint8))
    liver = np.asarray(nibabel.load(folder / "p1" / "masks" / "liver.nii.gz").dataobj)
    mirrored = AFFINE.copy()
    mirrored[0, 0], mirrored[0, 3] = 1.0, -11.0  # the same places from the other end
    write(folder, "liver", liver[::-1], mirrored)
    pictures, rejects = convert(folder)
    assert not rejects
    assert [p.record for p in pictures] == [p.record for p in truth]


def test_no_mask_is_unlabelled_not_negative(folder: Path) -> None:
    for path in (folder / "p1" / "masks").iterdir():
        path.unlink()
    assert [(r.reason, len(p)) for p, (r,) in [convert(folder)]] == [("unlabelled", 0)]
    write(folder, "unheard_of", np.zeros((12, 10, 4), np.uint8))
    pictures, rejects = convert(folder)
    assert not pictures
    assert [r.reason for r in rejects] == ["unknown_label", "unlabelled"]


def test_real_masks(real_data: Path) -> None:
    source = load_source("ct_mr_totalsegmentator_reference")
    tasks, _ = found_tasks(source, real_data / "ct-mr-totalsegmentator-reference")
    by_part = {task.part.name: task for task in tasks}
    items = run(by_part["ct_masks"])
    assert not [item for item in items if isinstance(item, Reject)]
    pictures = [item for item in items if isinstance(item, Picture)]
    assert len(pictures) == 20
    assert all("thorax.heart" in picture.record.absent for picture in pictures)  # an empty file
    vessels = [item for item in run(by_part["ct_vessels"]) if isinstance(item, Picture)]
    assert {picture.record.modality_detail["plane"] for picture in vessels} == {"axial", "coronal"}
    assert any(region.label == "systemic.aorta" for picture in vessels for region in picture.record.regions)


def test_the_split_is_in_a_table(folder: Path) -> None:
    toml = TOML.replace("labels_by_name", 'split = "{split}"\noptions = { about_key = "image_id" }\nlabels_by_name')
    toml = toml.replace("files = {", 'files = { about = "meta.csv",')
    (folder.parent / "tiny.toml").write_text(toml)
    (folder / "meta.csv").write_text("image_id;split\np1;test\n")
    pictures, rejects = convert(folder)
    assert not rejects
    assert {(picture.record.split, picture.record.split_source) for picture in pictures} == {("test", "official")}
