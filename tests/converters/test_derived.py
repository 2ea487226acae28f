"""Labels that a source of label volumes derives: unions of its own labels, beside them or in their place."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medglip.curate import load_source
from medglip.curate.engine import found_tasks, run
from medglip.curate.source import Part
from medglip.errors import SourceError
from medglip.records import Picture, Reject, VolumeRecord

AFFINE_RAS = np.diag([-1.5, -1.5, 4.0, 1.0])
TOML = """
name = "tiny"
title = "Tiny"
licence = "CC0-1.0"
names = "public"
[[part]]
converter = "label_volumes"
modality = "ct"
exhaustive = {exhaustive}
files = {{ image = "{{case}}_ct.nii.gz", labels = "{{case}}_seg.nii.gz" }}
[part.options]
{options}
[part.options.derived]
{derived}
[part.labels]
{labels}
"""
KIDNEY = {"derived": '"kidney" = ["1", "2", "3"]', "labels": '"1" = "skip"\n"2" = "kidney tumor"\n"3" = "kidney cyst"'}
BRAIN = {
    "derived": '"whole tumor" = ["1", "2", "4"]\n"tumor core" = ["1", "4"]',
    "labels": '"1" = "necrotic tumor core"\n"2" = "peritumoral edema"\n"4" = "enhancing tumor"',
}


def part_of(folder: Path, *, derived: str, labels: str, exhaustive: str = '"all"', options: str = "") -> Part:
    (folder / "tiny.toml").write_text(TOML.format(derived=derived, labels=labels, exhaustive=exhaustive, options=options))
    return load_source(folder / "tiny.toml").parts[0]


def items_of(folder: Path, voxels: np.ndarray, **toml: str) -> list:
    """What comes out of one volume with these labels (i, j, k)."""
    part_of(folder, **toml)
    inputs = folder / "in"
    inputs.mkdir(exist_ok=True)
    image = np.random.default_rng(0).integers(-50, 50, voxels.shape).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(image, AFFINE_RAS), inputs / "p1_ct.nii.gz")
    nibabel.save(nibabel.Nifti1Image(voxels.astype(np.uint8), AFFINE_RAS), inputs / "p1_seg.nii.gz")
    tasks, rejects = found_tasks(load_source(folder / "tiny.toml"), inputs)
    return [*rejects, *(item for task in tasks for item in run(task))]


def union(picture: Picture, label: str) -> np.ndarray:
    """(H, W) bool: the pixels of a label in a picture."""
    found = np.zeros(picture.pixels.shape, bool)
    for region in picture.record.regions:
        if region.label == label:
            found |= region.mask.decode().astype(bool)
    return found


def two_kidneys() -> np.ndarray:
    voxels = np.zeros((24, 16, 8), np.uint8)
    voxels[1:12, 2:14, 1:7] = voxels[14:22, 3:13, 1:7] = 1
    voxels[3:8, 4:9, 2:6] = 2
    voxels[16:20, 5:9, 2:4] = 3
    return voxels


def test_an_organ_with_its_tumors_takes_the_place_of_what_they_leave_over(tmp_path: Path) -> None:
    *pictures, volume = items_of(tmp_path, two_kidneys(), options='apart = ["kidney"]', **KIDNEY)
    assert isinstance(volume, VolumeRecord)
    kidneys = [one for one in volume.instances if one.label == "abdomen.kidney"]
    assert [one.voxels for one in kidneys] == [11 * 12 * 6, 8 * 10 * 6]
    fullest = max(pictures, key=lambda picture: len(picture.record.regions)).record
    boxes = {region.id: region.box_xyxy for region in fullest.regions}
    parents = {region.label: [boxes[parent] for parent in region.parents] for region in fullest.regions}
    assert parents["abdomen.kidney.tumor"] == [(1, 2, 12, 14)]
    assert parents["abdomen.kidney.cyst"] == [(14, 3, 22, 13)]


def test_without_apart_a_derived_organ_is_one_region(tmp_path: Path) -> None:
    picture = items_of(tmp_path, two_kidneys(), **KIDNEY)[0]
    assert [(region.label, region.box_xyxy) for region in picture.record.regions] == [("abdomen.kidney", (1, 2, 22, 14))]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), values=st.sets(st.sampled_from([1, 2, 4]), min_size=1))
def test_a_derived_label_is_the_union_of_its_parts_in_every_plane(seed: int, values: set[int], tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    voxels = np.zeros((14, 12, 4), np.uint8)
    for value in sorted(values):
        i, j = rng.integers(0, 8), rng.integers(0, 6)
        voxels[i : i + 5, j : j + 5, 1:3] = value
    for item in items_of(tmp_path, voxels, **BRAIN):
        if isinstance(item, Picture):
            plane = voxels[:, :, item.record.origin.slice].T
            assert np.array_equal(union(item, "head_neck.brain.tumor"), plane > 0)
            assert np.array_equal(union(item, "head_neck.brain.tumor.core"), np.isin(plane, [1, 4]))
            assert np.array_equal(union(item, "head_neck.brain.tumor.edema"), plane == 2)


def test_a_volume_without_any_part_lacks_the_union_too(tmp_path: Path) -> None:
    voxels = np.zeros((14, 12, 4))
    voxels[3:9, 3:9, 1:3] = 2
    record = items_of(tmp_path, voxels, **BRAIN)[0].record
    assert "head_neck.brain.tumor.core" in record.absent
    assert {region.label for region in record.regions} == {"head_neck.brain.tumor", "head_neck.brain.tumor.edema"}


def test_zero_may_be_part_of_a_union(tmp_path: Path) -> None:
    voxels = np.zeros((14, 12, 4))
    voxels[3:9, 3:9, :] = 2
    labels = '"0" = "skip"\n"2" = "kidney tumor"'
    record = items_of(tmp_path, voxels, derived='"kidney" = ["0", "2"]', labels=labels)[0].record
    assert {region.label: region.box_xyxy for region in record.regions}["abdomen.kidney"] == (0, 0, 14, 12)


@pytest.mark.parametrize(
    ("exhaustive", "searched"),
    [
        ('"all"', True),
        ('["enhancing tumor", "necrotic tumor core"]', True),  # all parts of the core
        ('["tumor core"]', True),
        ('["enhancing tumor"]', False),
    ],
)
def test_a_union_is_searched_for_where_all_its_parts_are(exhaustive: str, searched: bool, tmp_path: Path) -> None:
    part = part_of(tmp_path, exhaustive=exhaustive, **BRAIN)
    assert ("head_neck.brain.tumor.core" in part.exhaustive) == searched
    assert ("head_neck.brain.tumor" in part.exhaustive) == (exhaustive == '"all"')


def test_a_skipped_part_is_not_known_to_be_searched_for(tmp_path: Path) -> None:
    assert "abdomen.kidney" not in part_of(tmp_path, exhaustive='["kidney tumor", "kidney cyst"]', **KIDNEY).exhaustive


@pytest.mark.parametrize(
    ("derived", "words"),
    [
        ('"whole kidny" = ["1", "2"]', ["whole kidny", "nearest"]),
        ('"kidney" = ["1", "7"]', ["'kidney'", "'7'", "known: '1', '2', '3'"]),
        ('"kidney" = []', ["'kidney'", "a list of raw labels"]),
        ('"kidney" = [1, 2]', ["'kidney'", "a list of raw labels"]),
        ('"kidney" = "1"', ["'kidney'", "a list of raw labels"]),
        ('"skip" = ["1"]', ["'skip'", "labels of the tree"]),
        ('"kidney tumor" = ["1", "2"]', ["abdomen.kidney.tumor", "the raw label '2'", "skip"]),
        ('"kidney" = ["1"]\n"renal parenchyma" = ["1", "2"]', ["abdomen.kidney", "another derived label"]),
    ],
)
def test_a_wrong_table_is_refused_when_the_source_loads(derived: str, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        part_of(tmp_path, derived=derived, labels=KIDNEY["labels"])
    assert "tiny.toml part 1" in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_an_unknown_name_in_apart_refuses_the_case(tmp_path: Path) -> None:
    (reject,) = items_of(tmp_path, two_kidneys(), options='apart = ["liver"]', **KIDNEY)
    assert isinstance(reject, Reject)
    assert "'liver'" in reject.detail
    assert "abdomen.kidney" in reject.detail


def test_a_converter_that_derives_nothing_says_so(tmp_path: Path) -> None:
    part_of(tmp_path, **KIDNEY)
    text = (tmp_path / "tiny.toml").read_text().replace("label_volumes", "voc")
    (tmp_path / "tiny.toml").write_text(text)
    (tmp_path / "in").mkdir()
    with pytest.raises(SourceError, match="'voc' has no"):
        found_tasks(load_source(tmp_path / "tiny.toml"), tmp_path / "in")


MASKS = """
name = "tiny"
title = "Tiny"
licence = "CC0-1.0"
names = "public"
[[part]]
converter = "binary_volumes"
modality = "ct"
exhaustive = ["left lung"]
labels = { "middle" = "skip" }
labels_by_name = { enabled = true }
files = { image = "{case}/ct.nii.gz", mask = "{case}/masks/{label}.nii.gz" }
[part.options.derived]
"left lung" = ["lung_upper_lobe_left", "lung_lower_lobe_left", "middle"]
"""
LUNG, LOBE = "thorax.lung@left", "thorax.lung.upper_lobe@left"


def boxes_of_masks(folder: Path, masks: dict[str, tuple[int, int]]) -> tuple[dict[str, tuple], Picture]:
    """Boxes of the only plane with regions; each mask spans these columns."""
    (folder / "tiny.toml").write_text(MASKS)
    (folder / "in" / "p1" / "masks").mkdir(parents=True)
    image = np.random.default_rng(0).integers(-900, 90, (20, 10, 3)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(image, AFFINE_RAS), folder / "in" / "p1" / "ct.nii.gz")
    for name, (start, stop) in masks.items():
        mask = np.zeros(image.shape, np.uint8)
        mask[start:stop, 2:8, 1] = 1
        nibabel.save(nibabel.Nifti1Image(mask, AFFINE_RAS), folder / "in" / "p1" / "masks" / f"{name}.nii.gz")
    tasks, _ = found_tasks(load_source(folder / "tiny.toml"), folder / "in")
    (picture,) = [item for item in run(tasks[0]) if isinstance(item, Picture)]
    return {region.concept: region.box_xyxy for region in picture.record.regions}, picture


def test_mask_files_are_united_where_all_are_there(tmp_path: Path) -> None:
    masks = {"lung_upper_lobe_left": (2, 6), "lung_lower_lobe_left": (6, 6), "middle": (10, 15)}
    boxes, picture = boxes_of_masks(tmp_path, masks)
    assert boxes == {LOBE: (2, 2, 6, 8), LUNG: (2, 2, 15, 8)}
    assert LUNG in picture.record.exhaustive


def test_a_missing_mask_file_leaves_the_union_unknown(tmp_path: Path) -> None:
    boxes, picture = boxes_of_masks(tmp_path, {"lung_upper_lobe_left": (2, 6), "middle": (10, 15)})
    assert boxes == {LOBE: (2, 2, 6, 8)}
    assert LUNG not in picture.record.exhaustive


def test_a_mask_file_of_the_derived_label_goes_first(tmp_path: Path) -> None:
    masks = {"lung_upper_lobe_left": (2, 6), "lung_lower_lobe_left": (6, 9), "middle": (10, 15), "lung_left": (2, 9)}
    boxes, picture = boxes_of_masks(tmp_path, masks)
    assert boxes[LUNG] == (2, 2, 9, 8)
    assert LUNG in picture.record.exhaustive
