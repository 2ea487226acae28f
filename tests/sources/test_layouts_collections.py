"""A ready-made collection whose boxes lie in plans beside the volumes, in its published layout, generated tiny."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nibabel.orientations import aff2axcodes, axcodes2ornt, inv_ornt_aff
from scipy.ndimage import find_objects, label
from volumes_world import LEFT, MIDDLE, RIGHT, SHAPE_IJK, Converted, check_dataset, checked, labelled, noise, save, shown

from medglip.curate import box_plans, load_source
from medglip.curate.engine import found_tasks, run
from medglip.errors import InputError
from medglip.records import Picture, label_tree

RAS = np.diag([1.5, 1.5, 4.0, 1.0])  # i to the right, j to the front, k to the head: as the collection's loader turns volumes
LAS = np.diag([-1.5, 1.5, 4.0, 1.0])
KIDNEY, TUMOR, CYST = "abdomen.kidney", "abdomen.kidney.tumor", "abdomen.kidney.cyst"
IN_KIDNEY = (3, 5, 4, 6, 9, 7)
KITS = {"1": "kidney", "2": "tumor", "3": "kidney cyst"}
GLI = {"1": "non-enhancing brain tumor core", "3": "enhancing brain tumor tissue"}


def boxes_of(mask: np.ndarray) -> list[dict[str, Any]]:
    """The boxes of the pieces of a mask, both ends inside, as the planner of MedVision writes them."""
    numbers, count = label(mask)
    found = []
    for number in range(1, count + 1):
        window = find_objects((numbers == number).astype(np.int32))[0]
        low, high = [side.start for side in window], [side.stop - 1 for side in window]
        lengths = [end - start + 1 for start, end in zip(low, high, strict=True)]
        found.append({"min_coords": low, "max_coords": high, "dimensions": lengths,
                      "mask_image_ratio": float((numbers == number).sum() / mask.size)})  # fmt: skip
    return found


def grid(array: np.ndarray, affine: np.ndarray) -> dict[str, Any]:
    return {"voxel_size": [1.5, 1.5, 4.0], "affine": affine.tolist(), "orientation": list(aff2axcodes(affine)),
            "array_size": list(array.shape)}  # fmt: skip


def planned(case_id: str, image: str, mask: np.ndarray, affine: np.ndarray = RAS) -> dict[str, Any]:
    """A case of a detection plan."""
    case: dict[str, Any] = {"case_ID": case_id, "image_file": image, "mask_file": image.replace("Images", "Masks"),
                            "image_file_info": grid(mask, affine), "mask_file_info": grid(mask, affine)}  # fmt: skip
    for dim, name in enumerate("xyz"):
        slices = []
        for index in range(mask.shape[dim]):
            plane = mask.take(index, axis=dim)
            profile = [{"label": float(value), "bboxes": boxes_of(plane == value)} for value in np.unique(plane[plane > 0])]
            slices += [{"slice_idx": index, "slice_profile": profile}] if profile else []
        case[f"slice_profiles_{name}"] = slices
    case["profile_3D"] = [{"label": float(value), "bboxes": boxes_of(mask == value)} for value in np.unique(mask[mask > 0])]
    return case


def task(
    number: int, modality: str, labels: dict[str, str], train: Sequence[dict], test: Sequence[dict] = ()
) -> dict[str, Any]:  # fmt: skip
    return {"image_modality": modality, "image_description": f"a {modality} scan", "labels_map": labels,
            "task_type": "detection", "task_ID": f"{number:02d}", "train_cases_number": len(train),
            "train_cases": list(train), "test_cases_number": len(test), "test_cases": list(test)}  # fmt: skip


def write_plan(folder: Path, *tasks: dict, version: str = "1.0.0", kind: str = "detection") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"dataset_info": {"dataset": folder.name}, "tasks": list(tasks), "tasks_number": len(tasks)}, indent=4)
    (folder / f"benchmark_plan_{kind}_v{version}.json.gz").write_bytes(gzip.compress(content.encode()))


def medvision(folder: Path) -> Path:
    """Five sets: organs less their tumors, visits of one patient in both lists, two modalities of one set, an old plan."""
    data = folder / "Data/Datasets"
    kidneys = labelled((1, RIGHT), (2, IN_KIDNEY), (3, LEFT))
    kidneys[20, 14, 5] = 2  # a speck beside the tumor
    save(data / "KiTS23/Images/case_00000.nii.gz", noise(SHAPE_IJK, "kits"), RAS)
    save(data / "KiTS23/Masks/case_00000.nii.gz", kidneys, RAS)
    plan = planned("case_00000", "Images/case_00000.nii.gz", kidneys)
    gone = planned("case_00001", "Images/case_00001.nii.gz", kidneys)
    write_plan(data / "KiTS23", task(1, "CT", KITS, [plan], [gone]), version="1.10.0")
    write_plan(data / "KiTS23", task(1, "CT", {"1": "liver"}, [plan]), version="1.9.0")
    write_plan(data / "KiTS23", task(1, "CT", {"1": "spleen"}, []), kind="segmentation")
    tumor = labelled((1, MIDDLE), (3, (11, 6, 5, 13, 8, 7)))
    visits = {}
    for visit in ("100", "101"):
        for sequence in ("t1c", "t2w"):
            name = f"BraTS24-GLI/Images-{sequence}/BraTS-GLI-00005-{visit}-{sequence}.nii.gz"
            save(data / "BraTS24" / name, noise(SHAPE_IJK, name), RAS)
            visits[visit, sequence] = planned(f"BraTS-GLI-00005-{visit}", name, tumor)
    write_plan(data / "BraTS24", task(1, "MRI", GLI, [visits["100", "t1c"]], [visits["101", "t1c"]]),
               task(2, "MRI", GLI, [visits["101", "t2w"], visits["100", "t2w"]]))  # fmt: skip
    organs = labelled((6, LEFT))
    for part in ("CT", "MRI"):
        save(data / f"AMOS22/AMOS22-{part}/Images/amos_{part}.nii.gz", noise(SHAPE_IJK, part), RAS)
    write_plan(data / "AMOS22", *(
        task(number, part, {"6": "liver"}, [planned(f"amos_{part}", f"AMOS22-{part}/Images/amos_{part}.nii.gz", organs)])
        for number, part in enumerate(("CT", "MRI"), 1)
    ))  # fmt: skip
    save(data / "DEEP-PSMA/Images-PSMA/train_0001.nii.gz", noise(SHAPE_IJK, "pet"), RAS)
    write_plan(data / "DEEP-PSMA", task(1, "PET", {"1": "total tumor burden"}, [
        planned("train_0001", "Images-PSMA/train_0001.nii.gz", labelled((1, MIDDLE)))]))  # fmt: skip
    echo = labelled((1, (4, 3, 0, 12, 9, 1)), (2, (12, 3, 0, 14, 9, 1)), shape=(24, 16, 1))
    for view in ("2CH_ED", "4CH_ES"):
        save(data / f"CAMUS/Images/patient0007_{view}.nii.gz", noise((24, 16, 1), view), RAS)
    write_plan(data / "CAMUS", task(1, "ultrasound", {"1": "left ventricle", "2": "myocardium"}, [
        flat(planned(f"patient0007_{view}", f"Images/patient0007_{view}.nii.gz", echo)) for view in ("2CH_ED", "4CH_ES")
    ]))  # fmt: skip
    return folder


def flat(case: dict[str, Any]) -> dict[str, Any]:
    """A case of one plane: the planner passes over the slices that are lines."""
    return case | {"slice_profiles_x": [], "slice_profiles_y": []}


def of_plane(result: Converted, file: str, axis: str, index: int) -> Any:
    (record,) = [one for one in result.records if one.origin.file.endswith(file)
                 and (one.origin.axis, one.origin.slice) == (axis, index)]  # fmt: skip
    return record


def turned(block: tuple[int, ...], plane: str) -> tuple[float, ...]:
    """Where a block of voxels of a RAS volume lies in a plane in radiological display: worked out by hand."""
    i0, j0, k0, i1, j1, k1 = block
    width, depth, height = SHAPE_IJK
    return {"axial": (width - i1, depth - j1, width - i0, depth - j0),
            "coronal": (width - i1, height - k1, width - i0, height - k0),
            "sagittal": (depth - j1, height - k1, depth - j0, height - k0)}[plane]  # fmt: skip


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return checked("multi_medvision", medvision(tmp_path_factory.mktemp("medvision")))


@pytest.mark.parametrize(
    ("plane", "axis", "index", "cyst"), [("axial", "k", 5, True), ("coronal", "j", 6, True), ("sagittal", "i", 4, False)]
)
def test_boxes_of_three_planes_lie_where_the_voxels_are_shown(
    plane: str, axis: str, index: int, cyst: bool, converted: Converted
) -> None:
    record = of_plane(converted, "case_00000.nii.gz", axis, index)
    assert record.modality_detail["plane"] == plane
    found = shown(record)
    assert found[TUMOR] == [turned(IN_KIDNEY, plane)]  # the speck beside it is none
    assert found.get(CYST) == ([turned(LEFT, plane)] if cyst else None)


def test_an_organ_is_shown_with_the_tumors_that_its_label_leaves_out(converted: Converted) -> None:
    record = of_plane(converted, "case_00000.nii.gz", "k", 5)
    assert shown(record)[KIDNEY] == [(2, 3, 23, 14)]
    (region,) = [one for one in record.regions if one.label == KIDNEY]
    assert "merged" in region.flags  # both kidneys, and what is in them


def test_objects_have_the_voxels_that_the_plan_counts(converted: Converted) -> None:
    (volume,) = [one for one in converted.volumes if one.origin.file.endswith("case_00000.nii.gz")]
    (tumor,) = [one for one in volume.instances if one.label == TUMOR]
    assert (tumor.box_kji, tumor.voxels) == ((4, 5, 3, 7, 9, 6), 3 * 4 * 3)
    assert tumor.volume_mm3 == pytest.approx(36 * 1.5 * 1.5 * 4)
    record = of_plane(converted, "case_00000.nii.gz", "k", 5)
    assert [one.instance for one in record.regions if one.label == TUMOR] == [tumor.id]


def test_what_a_volume_marks_elsewhere_is_absent_from_its_other_planes(converted: Converted) -> None:
    record = of_plane(converted, "case_00000.nii.gz", "k", 9)
    assert set(shown(record)) == {KIDNEY}
    assert {TUMOR, CYST} <= set(record.absent)
    assert "abdomen.liver" not in record.absent  # the older plan is not read


def test_a_patient_with_a_tested_volume_is_tested_with_all(converted: Converted) -> None:
    brains = [record for record in converted.records if "BraTS24" in record.origin.file]
    assert len({record.origin.file for record in brains}) == 4
    assert {(record.split, record.split_source) for record in brains} == {("test", "official")}
    assert len({record.group for record in brains}) == 1
    echoes = [record for record in converted.records if record.modality == "ultrasound"]
    assert {record.split for record in echoes} == {"train"}
    assert len({record.group for record in echoes}) == 1


def test_each_modality_has_its_part_and_a_missing_volume_is_listed_once(converted: Converted) -> None:
    by_modality = {record.origin.file: record.modality for record in converted.records}
    assert by_modality["Data/Datasets/AMOS22/AMOS22-CT/Images/amos_CT.nii.gz"] == "ct"
    assert by_modality["Data/Datasets/AMOS22/AMOS22-MRI/Images/amos_MRI.nii.gz"] == "mr"
    assert set(by_modality.values()) == set(load_source("multi_medvision").modalities)
    assert [(reject.reason, reject.case.rpartition("/")[2]) for reject in converted.rejects] == [
        ("missing_file", "case_00001.nii.gz")
    ]


def one_case(folder: Path, case: dict[str, Any], affine: np.ndarray = RAS, labels: dict[str, str] | None = None) -> Converted:
    """A folder with one volume and its plan, converted."""
    data = folder / "KiPA22"
    save(data / "Images/0.nii.gz", noise(SHAPE_IJK, "one"), affine)
    write_plan(data, task(1, "CT", labels or {"1": "renal vein", "4": "tumor"}, [case]))
    return checked("multi_medvision", folder)


MASK = labelled((1, MIDDLE), (4, RIGHT))


@pytest.mark.parametrize("affine", [LAS, np.diag([1.5, -1.5, 4.0, 1.0])])
def test_a_volume_turned_otherwise_than_its_plan_is_refused(affine: np.ndarray, tmp_path: Path) -> None:
    result = one_case(tmp_path, planned("0", "Images/0.nii.gz", MASK), affine)
    assert (result.reasons, result.records) == (["geometry_mismatch"], [])
    assert "runs RAS" in result.rejects[0].detail


def test_boxes_of_a_mask_on_another_grid_are_refused(tmp_path: Path) -> None:
    case = planned("0", "Images/0.nii.gz", MASK)
    case["mask_file_info"] = grid(MASK, RAS + np.array([[0, 0, 0, 9.0], [0] * 4, [0] * 4, [0] * 4]))
    result = one_case(tmp_path, case)
    assert (result.reasons, result.records) == (["geometry_mismatch"], [])


def test_a_box_that_is_not_what_it_measures_leaves_its_label_in_doubt(tmp_path: Path) -> None:
    case = planned("0", "Images/0.nii.gz", MASK)
    wrong = next(one for one in case["slice_profiles_z"][3]["slice_profile"] if one["label"] == 4.0)["bboxes"][0]
    wrong["max_coords"] = [end + 1 for end in wrong["max_coords"]]  # half-open, though the plan's ends lie inside
    result = one_case(tmp_path, case)
    assert result.reasons == ["bad_box"]
    assert "both inside it" in result.rejects[0].detail
    assert all(TUMOR not in record.absent for record in result.records)
    assert any("abdomen.renal_vein" in record.absent for record in result.records)


def test_a_label_without_a_meaning_is_listed_and_nothing_is_absent(tmp_path: Path) -> None:
    result = one_case(tmp_path, planned("0", "Images/0.nii.gz", MASK), labels={"1": "griffin", "4": "tumor"})
    assert result.reasons == ["unknown_label"]
    assert {concept for record in result.records for concept in shown(record)} == {KIDNEY, TUMOR}
    assert all(record.absent == () for record in result.records)


def test_sets_that_mark_a_part_only_have_no_negatives(tmp_path: Path) -> None:
    save(tmp_path / "LNQ2023/Images/1.nii.gz", noise(SHAPE_IJK, "node"), RAS)
    case = planned("1", "Images/1.nii.gz", labelled((1, MIDDLE)))
    write_plan(tmp_path / "LNQ2023", task(1, "CT", {"1": "mediastinal lymph node"}, [case]))
    records = checked("multi_medvision", tmp_path).records
    assert records
    assert all(record.absent == () and record.exhaustive == () for record in records)


def test_without_a_plan_nothing_is_read(tmp_path: Path) -> None:
    save(tmp_path / "KiTS23/Images/case_00000.nii.gz", noise(SHAPE_IJK, "kits"), RAS)
    with pytest.raises(InputError, match="benchmark_plan_detection"):
        checked("multi_medvision", tmp_path)


@pytest.mark.parametrize("style", [{"indent": 4}, {"separators": (",", ":")}, {"sort_keys": True}], ids=str)
def test_a_plan_is_read_piece_by_piece_however_it_is_written(
    style: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(box_plans, "_PIECE", 50)
    masks = [labelled((value, MIDDLE)) for value in (1, 2, 3)]
    train, test, other = (planned(f"c{n}", f"Images/c{n}.nii.gz", mask) for n, mask in enumerate(masks))
    empty = task(2, "PET", {"1": "spleen"}, [])
    tasks = [task(1, "CT", KITS, [train], [test]), empty, task(3, "MRI", {"3": "liver"}, [], [other])]
    (tmp_path / "plan.json").write_text(json.dumps({"tasks": tasks, "tasks_number": 3}, **style))
    plan = box_plans.read_plan(tmp_path, "plan.json", ())
    said = {image: [(one.modality, one.names["set"], one.labels, set(one.rows[:, 0])) for one in entries]
            for image, entries in plan.items()}  # fmt: skip
    kits = {int(number): name for number, name in KITS.items()}
    assert said == {
        "Images/c0.nii.gz": [("CT", "train", kits, {1})],
        "Images/c1.nii.gz": [("CT", "test", kits, {2})],
        "Images/c2.nii.gz": [("MRI", "test", {3: "liver"}, {3})],
    }


@pytest.mark.parametrize("content", [b"{", b'{"tasks": [{"train_cases": [{"case_ID": "1"}]}]}', b'{"tasks": 3}'])
def test_a_broken_plan_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "KiTS23").mkdir()
    (tmp_path / "KiTS23/benchmark_plan_detection_v1.0.0.json.gz").write_bytes(gzip.compress(content))
    with pytest.raises(InputError, match="broken or no plan"):
        checked("multi_medvision", tmp_path)


def test_a_union_is_made_of_labels_that_are_not_counted() -> None:
    unions = [one.named.label for part in load_source("multi_medvision").parts for one in part.derived]
    assert unions
    assert not any(label_tree()[label].countable for label in unions)


def test_the_datasets_validate_clean(tmp_path: Path) -> None:
    check_dataset({"multi_medvision": medvision}, tmp_path)


BOTH_WAYS = """
name = "tiny"
title = "Tiny"
licence = "CC0-1.0"
names = "public"
[[part]]
name = "boxes"
converter = "slice_boxes"
modality = "mr"
files = { image = "boxes/{case}.nii.gz", plan = "plan_v{version}.json" }
options = { planes = ["axial", "coronal", "sagittal"] }
labels = { liver = "liver", spleen = "spleen" }
[[part]]
name = "voxels"
converter = "label_volumes"
modality = "mr"
files = { image = "voxels/{case}.nii.gz", labels = "voxels/{case}_seg.nii.gz" }
options = { planes = ["axial", "coronal", "sagittal"] }
labels = { "1" = "liver", "2" = "spleen" }
"""


@pytest.mark.parametrize("codes", ["RAS", "LPS", "ASL", "PIR", "SRA", "ILP"])
def test_boxes_of_a_plan_are_those_of_its_voxels_however_the_volume_is_turned(codes: str, tmp_path: Path) -> None:
    shape = (20, 22, 24)
    labels = labelled((1, (2, 3, 4, 9, 12, 15)), (2, (12, 5, 16, 18, 19, 23)), shape=shape)
    affine = np.linalg.inv(inv_ornt_aff(axcodes2ornt(codes), shape)) @ np.diag([1.5, 1.4, 1.6, 1.0])
    assert "".join(aff2axcodes(affine)) == codes
    for folder in ("boxes", "voxels"):
        save(tmp_path / f"in/{folder}/a.nii.gz", noise(shape, codes), affine)
    save(tmp_path / "in/voxels/a_seg.nii.gz", labels, affine)
    case = planned("a", "boxes/a.nii.gz", labels, affine)
    plan = {"tasks": [task(1, "MRI", {"1": "liver", "2": "spleen"}, [case])]}
    (tmp_path / "in/plan_v1.json").write_text(json.dumps(plan))
    (tmp_path / "tiny.toml").write_text(BOTH_WAYS)
    tasks, rejects = found_tasks(load_source(tmp_path / "tiny.toml"), tmp_path / "in")
    found: dict[str, dict[Any, Any]] = {"boxes": {}, "voxels": {}}
    for record in (item.record for one in tasks for item in run(one) if isinstance(item, Picture)):
        way = found[record.origin.file.split("/")[0]]
        way[record.origin.axis, record.origin.slice] = shown(record), record.affine_px_to_mm, record.sha256
    assert rejects == []
    assert len(found["boxes"]) > 40
    assert found["boxes"] == found["voxels"]
