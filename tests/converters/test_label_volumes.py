from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from medglip.curate import load_source
from medglip.curate.engine import found_tasks, run
from medglip.records import Picture, Reject, VolumeRecord

TOML = """
name = "tiny"
title = "Tiny"
licence = "CC0-1.0"
names = "public"
[[part]]
converter = "label_volumes"
modality = "{modality}"
exhaustive = "all"
options = {{ {options} }}
files = {{ image = "{{case}}_ct.{ending}", labels = "{{case}}_seg.{ending}" }}
[part.labels]
"1" = "liver"
"2" = "left kidney"
"3" = "right kidney"
"4" = "spleen"
"""
LPS_AFFINE_RAS = np.diag([-1.5, -1.5, 4.0, 1.0])  # i to the left, j to the back, k to the head


def anatomy() -> tuple[np.ndarray, np.ndarray]:
    """CT and labels (i, j, k) in LPS order: liver on the patient's right, a kidney on either side."""
    labels = np.zeros((20, 16, 6), np.uint8)
    labels[2:9, 3:10, 1:4] = 1
    labels[14:17, 9:12, 2] = 2
    labels[3:6, 11:14, 2] = 3
    image = np.random.default_rng(0).integers(-50, 50, labels.shape).astype(np.int16)
    image[:, :2] = -1000
    return image, labels


def write(folder: Path, image: np.ndarray, labels: np.ndarray, affine: np.ndarray = LPS_AFFINE_RAS, case: str = "p1") -> None:
    nibabel.save(nibabel.Nifti1Image(image, affine), folder / f"{case}_ct.nii.gz")
    nibabel.save(nibabel.Nifti1Image(labels, affine), folder / f"{case}_seg.nii.gz")


def convert(folder: Path, options: str = "", ending: str = "nii.gz", modality: str = "ct") -> list:
    toml = folder.parent / "tiny.toml"
    toml.write_text(TOML.format(options=options, ending=ending, modality=modality))
    tasks, rejects = found_tasks(load_source(toml), folder)
    return [*rejects, *(item for task in tasks for item in run(task))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def boxes(picture: Picture) -> dict[str, tuple]:
    return {region.concept: region.box_xyxy for region in picture.record.regions}


def test_boxes_are_exact_and_absent_is_what_was_searched_for(folder: Path) -> None:
    write(folder, *anatomy())
    *pictures, volume = convert(folder)
    assert [picture.record.origin.slice for picture in pictures] == [1, 2, 3]
    assert boxes(pictures[1]) == {
        "abdomen.liver": (2, 3, 9, 10), "abdomen.kidney@left": (14, 9, 17, 12), "abdomen.kidney@right": (3, 11, 6, 14),
    }  # fmt: skip
    assert pictures[1].record.absent == ("abdomen.spleen",)
    assert set(pictures[0].record.absent) == {"abdomen.spleen", "abdomen.kidney@left", "abdomen.kidney@right"}
    record = pictures[1].record
    assert record.spacing_mm == pytest.approx((1.5, 1.5))
    assert np.reshape(record.affine_px_to_mm, (3, 4)) @ (14, 9, 0, 1) == pytest.approx((21.0, 13.5, 8.0))
    assert (record.intensity.unit, record.modality_detail["plane"], record.origin.axis) == ("HU", "axial", "k")
    assert isinstance(volume, VolumeRecord)
    by_label = {(i.label, i.laterality): i for i in volume.instances}
    assert by_label["abdomen.liver", None].box_kji == (1, 3, 2, 4, 10, 9)
    assert by_label["abdomen.liver", None].volume_mm3 == pytest.approx(3 * 49 * 1.5 * 1.5 * 4.0)


def test_a_structure_is_one_instance_over_its_slices(folder: Path) -> None:
    write(folder, *anatomy())
    *pictures, volume = convert(folder)
    livers = {r.instance for p in pictures for r in p.record.regions if r.label == "abdomen.liver"}
    assert livers == {next(i.id for i in volume.instances if i.label == "abdomen.liver")}


def test_other_array_orders_give_the_same_pictures(folder: Path, tmp_path: Path) -> None:
    image, labels = anatomy()
    write(folder, image, labels)
    truth = convert(folder)
    (tmp_path / "turned").mkdir()
    for codes in ("RAS", "PIR", "SAL"):
        to = nibabel.orientations.axcodes2ornt(codes)
        turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(LPS_AFFINE_RAS), to)
        for name, array in (("ct", image), ("seg", labels)):
            nibabel.save(
                nibabel.Nifti1Image(array, LPS_AFFINE_RAS).as_reoriented(turn),
                tmp_path / "turned" / f"p1_{name}.nii.gz",
            )
        turned = sorted(convert(tmp_path / "turned")[:-1], key=lambda picture: picture.record.affine_px_to_mm[11])
        for first, second in zip(truth[:-1], turned, strict=True):
            assert np.array_equal(first.pixels, second.pixels)
            assert boxes(first) == boxes(second)
            assert first.record.affine_px_to_mm == pytest.approx(second.record.affine_px_to_mm, abs=0.01)


def test_the_side_is_in_the_label_not_in_the_picture(folder: Path) -> None:
    image, labels = anatomy()
    swapped = np.array([0, 1, 3, 2], np.uint8)[labels]
    write(folder, image, swapped)
    picture = convert(folder)[1]
    assert boxes(picture)["abdomen.kidney@right"] == (14, 9, 17, 12)


def test_planes_and_their_number_are_options(folder: Path) -> None:
    write(folder, *anatomy())
    pictures = convert(folder, 'planes = ["axial", "coronal"], max_slices = 2, empty_slices = 0.5')[:-1]
    assert [p.record.modality_detail["plane"] for p in pictures] == ["axial"] * 3
    empty = [p for p in pictures if not p.record.regions]
    assert len(empty) == 1
    assert len(empty[0].record.absent) == 4  # coronal planes of 6 x 20 are slivers


def test_a_volume_without_any_label_is_a_negative(folder: Path) -> None:
    image, labels = anatomy()
    write(folder, image, np.zeros_like(labels))
    assert [type(item) for item in convert(folder)] == [VolumeRecord]
    pictures = convert(folder, "max_slices = 4, empty_slices = 0.5")[:-1]
    assert len(pictures) == 2
    assert all(len(picture.record.absent) == 4 for picture in pictures)


def test_an_unknown_value_refuses_the_case_and_no_other(folder: Path) -> None:
    image, labels = anatomy()
    write(folder, image, labels, case="p2")
    labels[0, 0, 0] = 9
    write(folder, image, labels)
    items = convert(folder)
    (reject,) = [item for item in items if isinstance(item, Reject)]
    assert (reject.reason, reject.file) == ("unknown_label", "p1_ct.nii.gz")
    assert "'9' (p1_seg.nii.gz, 1 voxels)" in reject.detail
    assert "Nearest known" in reject.detail
    assert sum(isinstance(item, Picture) for item in items) == 3


def bad_input(folder: Path, kind: str) -> None:
    image, labels = anatomy()
    write(folder, image, labels)
    path = folder / "p1_seg.nii.gz"
    if kind == "missing":
        path.unlink()
    if kind == "cut off":
        path.write_bytes(path.read_bytes()[:-40])
    if kind == "size":
        nibabel.save(nibabel.Nifti1Image(labels[:-1], LPS_AFFINE_RAS), path)
    if kind == "shifted":
        moved = LPS_AFFINE_RAS.copy()
        moved[0, 3] = 5.0
        nibabel.save(nibabel.Nifti1Image(labels, moved), path)
    if kind == "four dimensions":
        nibabel.save(nibabel.Nifti1Image(np.stack([image, image], axis=-1), LPS_AFFINE_RAS), folder / "p1_ct.nii.gz")
    if kind == "fractions":
        nibabel.save(nibabel.Nifti1Image(labels * np.float32(0.5), LPS_AFFINE_RAS), path)
    if kind == "constant":
        nibabel.save(nibabel.Nifti1Image(np.full_like(image, -5), LPS_AFFINE_RAS), folder / "p1_ct.nii.gz")


@pytest.mark.parametrize(
    ("kind", "reason", "words"),
    [
        ("missing", "unlabelled", "no label volume"),
        ("cut off", "unreadable_file", "p1_seg.nii.gz"),
        ("size", "size_mismatch", "(6, 16, 19)"),
        ("shifted", "geometry_mismatch", "voxels away"),
        ("four dimensions", "unreadable_file", "holds 2 volumes"),
        ("fractions", "unreadable_file", "0.5"),
        ("constant", "constant_image", "-5"),
    ],
)
def test_bad_input_is_one_reject_with_its_reason(folder: Path, kind: str, reason: str, words: str) -> None:
    bad_input(folder, kind)
    (reject,) = convert(folder)
    assert isinstance(reject, Reject)
    assert reject.reason == reason
    assert words in reject.detail


def test_labels_without_image_are_orphans(folder: Path) -> None:
    write(folder, *anatomy())
    write(folder, *anatomy(), case="p2")
    (folder / "p2_ct.nii.gz").unlink()
    rejects = [item for item in convert(folder) if isinstance(item, Reject)]
    assert [(reject.file, reject.reason) for reject in rejects] == [("p2_seg.nii.gz", "orphan")]


def test_four_dimensions_are_read_where_an_index_is_given(folder: Path) -> None:
    image, labels = anatomy()
    write(folder, np.stack([np.zeros_like(image), image], axis=-1), labels)
    four = convert(folder, "index = 1")
    write(folder, image, labels)
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(four[:-1], convert(folder)[:-1], strict=True))


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_nrrd_and_metaimage_give_what_nifti_gives(folder: Path, ending: str) -> None:
    write(folder, *anatomy())
    truth = convert(folder)
    for name in ("p1_ct", "p1_seg"):
        image = SimpleITK.ReadImage(str(folder / f"{name}.nii.gz"))
        SimpleITK.WriteImage(image, str(folder / f"{name}.{ending}"))
    items = convert(folder, ending=ending)
    for first, second in zip(truth[:-1], items[:-1], strict=True):
        assert np.array_equal(first.pixels, second.pixels)
        assert boxes(first) == boxes(second)


def test_countable_labels_are_parted_into_objects(folder: Path) -> None:
    image, labels = anatomy()
    lesions = np.zeros_like(labels)
    lesions[2:6, 2:6, 1:4] = lesions[10:16, 4:9, 2:5] = 1
    lesions[18, 14, 5] = 1  # a speck
    write(folder, image, lesions)
    toml = TOML.replace('"liver"', '"liver tumor"')
    (folder.parent / "tiny.toml").write_text(toml.format(options="", ending="nii.gz", modality="ct"))
    tasks, _ = found_tasks(load_source(folder.parent / "tiny.toml"), folder)
    *pictures, volume = run(tasks[0])
    assert [instance.voxels for instance in volume.instances] == [90, 48]
    both = next(p for p in pictures if p.record.origin.slice == 2)
    assert sorted(r.box_xyxy for r in both.record.regions) == [(2, 2, 6, 6), (10, 4, 16, 9)]
    assert {r.instance for r in both.record.regions} == {i.id for i in volume.instances}


def test_real_volumes_with_a_dicom_series(real_data: Path) -> None:
    source = load_source("ct_mr_totalsegmentator_reference")
    tasks, rejects = found_tasks(source, real_data / "ct-mr-totalsegmentator-reference")
    assert not rejects
    by_part = {task.part.name: task for task in tasks}
    *pictures, volume = run(by_part["ct_dicom"])
    assert volume.orientation == "LPS"
    assert volume.shape_kji == (20, 512, 512)
    assert len(pictures) == 16
    for picture in pictures:
        centres = {r.label: (r.box_xyxy[0] + r.box_xyxy[2]) / 2 for r in picture.record.regions}
        assert centres["abdomen.liver"] < 256 < centres["abdomen.spleen"]  # the patient's right is on the image's left
    for name, count in (("ct", 20), ("mr", 20)):
        items = run(by_part[name])
        assert sum(isinstance(item, Picture) for item in items) == count
        sides = {r.laterality: r.box_xyxy for r in items[5].record.regions if r.label == "abdomen.kidney"}
        assert sides["right"][0] < sides["left"][0]


def test_real_atlas(real_data: Path) -> None:
    tasks, rejects = found_tasks(load_source("mri_mni_atlas_mricron"), real_data / "mri-mni-atlas-mricron")
    assert not rejects
    *pictures, volume = run(next(task for task in tasks if task.part.name == "aal"))
    assert {p.record.modality_detail["plane"] for p in pictures} == {"axial", "coronal", "sagittal"}
    assert len(volume.instances) == 116
    shown = {region.concept for picture in pictures for region in picture.record.regions}
    assert len(shown) == 116


def write_frames(folder: Path, count: int = 4) -> None:
    """An image and labels of four dimensions; the labels move with the frames, the first and the last have none."""
    image, labels = anatomy()
    frames = np.stack([image + frame for frame in range(count)], axis=-1)
    drawn = np.stack([np.roll(labels, frame, axis=0) * (0 < frame < count - 1) for frame in range(count)], axis=-1)
    write(folder, frames, drawn)


def test_labelled_frames_of_four_dimensions_are_cases_of_their_own(folder: Path) -> None:
    write_frames(folder)
    (folder / "frames.csv").write_text("who;first;second\np1;1;2\n")
    options = 'about_key = "who", frames = ["{first}", "{second}"]'
    toml = TOML.replace('labels = "', 'about = "frames.csv", labels = "')
    toml = toml.replace("exhaustive", 'detail = {{ frame = "{{frame}}" }}\nexhaustive')
    (folder.parent / "tiny.toml").write_text(toml.format(options=options, ending="nii.gz", modality="ct"))
    tasks, rejects = found_tasks(load_source(folder.parent / "tiny.toml"), folder)
    assert rejects == []
    assert [task.case.key for task in tasks] == ["p1_ct.nii#1", "p1_ct.nii#2"]
    for frame, task in enumerate(tasks, 1):
        picture = next(item for item in run(task) if isinstance(item, Picture) and item.record.origin.slice == 2)
        assert boxes(picture)["abdomen.liver"] == (2 + frame, 3, 9 + frame, 10)
        assert picture.record.modality_detail["frame"] == str(frame)
    assert len({item.id for task in tasks for item in run(task) if isinstance(item, VolumeRecord)}) == 2


def test_a_unit_that_the_file_cannot_say_is_told(folder: Path) -> None:
    image, labels = anatomy()
    write(folder, np.abs(image).astype(np.float32) / 100, labels)
    record = convert(folder, 'unit = "SUVbw"', modality="pet")[0].record
    assert (record.intensity.unit, record.intensity.window) == ("SUVbw", (0.0, 10.0))
    (reject,) = convert(folder, 'unit = "SUV"', modality="pet")
    assert "allowed: HU, SUVbw, au" in reject.detail


def test_axes_of_a_scanner_are_no_patients(folder: Path) -> None:
    image, labels = anatomy()
    write(folder, image, labels, affine=np.diag([1.5, 1.5, 4.0, 1.0]))  # to the right and to the front, says the file
    *pictures, volume = convert(folder, "oriented = false")
    assert boxes(pictures[1])["abdomen.liver"] == (2, 3, 9, 10)  # as it lies
    assert (volume.orientation, pictures[1].record.affine_px_to_mm) == (None, None)
    assert volume.spacing_kji_mm == pytest.approx((4.0, 1.5, 1.5))
    (reject,) = convert(folder, 'oriented = false, sides = ["spleen"]')
    assert "allowed: labels without a side" in reject.detail


def test_sides_are_told_by_the_midline(folder: Path) -> None:
    image, labels = np.full((20, 16, 6), -1000, np.int16), np.zeros((20, 16, 6), np.uint8)
    image[1:19] = 40
    image[9, 9] = 60
    labels[1:4, 11:14, 2] = labels[16:19, 9:12, 1:4] = 2
    labels[7:12, 3:6, 2] = 4
    write(folder, image, labels)
    toml = TOML.replace('"2" = "left kidney"', '"2" = "kidney"')
    (folder.parent / "tiny.toml").write_text(toml.format(options='sides = ["kidney"]', ending="nii.gz", modality="ct"))
    (task,), _ = found_tasks(load_source(folder.parent / "tiny.toml"), folder)
    below, middle, _, volume = run(task)
    assert boxes(middle) == {
        "abdomen.kidney@right": (1, 11, 4, 14), "abdomen.kidney@left": (16, 9, 19, 12), "abdomen.spleen": (7, 3, 12, 6),
    }  # fmt: skip
    assert boxes(below) == {"abdomen.kidney@left": (16, 9, 19, 12)}
    assert "abdomen.kidney" not in below.record.absent
    assert [one.laterality for one in volume.instances if one.label == "abdomen.kidney"] == ["left", "right"]


@pytest.mark.parametrize("seed", range(4))
def test_labels_of_another_grid_take_the_nearest_voxel(seed: int, folder: Path) -> None:
    rng = np.random.default_rng(seed)
    image, _ = anatomy()
    fine = LPS_AFFINE_RAS @ np.diag([0.5, 1 / 3, 0.5, 1.0])
    fine[:3, 3] = LPS_AFFINE_RAS[:3, :3] @ [-0.25, -1 / 3, -0.25]  # its voxels fill those of the image
    truth = np.kron(rng.integers(0, 5, (5, 4, 3)), np.ones((4, 4, 2))).astype(np.uint8)
    labels = np.kron(truth, np.ones((2, 3, 2))).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(image, LPS_AFFINE_RAS), folder / "p1_ct.nii.gz")
    nibabel.save(nibabel.Nifti1Image(labels[::-1], fine @ flip(labels.shape[0])), folder / "p1_seg.nii.gz")
    (refused,) = convert(folder)
    assert refused.reason in ("geometry_mismatch", "size_mismatch")
    *pictures, volume = convert(folder, 'resample_labels = "nearest"')
    assert volume.checks["labels_resampled"] == "nearest"
    values = {"abdomen.liver": 1, "abdomen.kidney@left": 2, "abdomen.kidney@right": 3, "abdomen.spleen": 4}
    assert len(pictures) == image.shape[2]
    for picture in pictures:
        plane = truth[:, :, picture.record.origin.slice].T
        found = {values[region.concept]: region.mask.decode().astype(bool) for region in picture.record.regions}
        assert found.keys() == set(np.unique(plane)) - {0}
        assert all(np.array_equal(mask, plane == value) for value, mask in found.items())


def flip(length: int) -> np.ndarray:
    """Turns the first axis of an affine around."""
    turned = np.diag([-1.0, 1.0, 1.0, 1.0])
    turned[0, 3] = length - 1
    return turned


def test_an_object_without_a_code_refuses_its_case(folder: Path) -> None:
    image, labels = anatomy()
    write(folder, image, labels)
    (folder / "codes.csv").write_text("who,value,code\np1,1,4\np1,2,1\np2,3,1\n")
    toml = TOML.replace('labels = "', 'codes = "codes.csv", labels = "')
    codes = 'codes = {{ case = "who", is = "{case}", value = "value", label = "code" }}'.replace("{{", "{").replace("}}", "}")
    (folder.parent / "tiny.toml").write_text(toml.format(options=codes, ending="nii.gz", modality="ct"))
    (task,), _ = found_tasks(load_source(folder.parent / "tiny.toml"), folder)
    (reject,) = run(task)
    assert (reject.reason, "the value 3" in reject.detail) == ("unknown_label", True)
    (folder / "codes.csv").write_text("who,value,code\np1,1,4\np1,2,1\np1,3,1\n")
    picture = run(task)[1]
    assert {region.concept for region in picture.record.regions} == {"abdomen.spleen", "abdomen.liver"}
    assert sum(region.concept == "abdomen.liver" for region in picture.record.regions) == 2  # two objects of one class
