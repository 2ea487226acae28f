"""Sources of label volumes in their published layouts, generated tiny: their counts, boxes, sides, splits and parents."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
import pytest

from medglip.curate import convert, load_source
from medglip.curate.engine import found_tasks, run
from medglip.records import Picture, Reject, VolumeRecord
from medglip.store.checks.validate import validate
from medglip.store.matrix import Matrix

SHAPE_IJK = (24, 16, 12)
AFFINE_RAS = np.diag([-1.5, -1.5, 4.0, 1.0])  # i to the left, j to the back, k to the head
# KiTS stores slice, row, column, the slices from the head down.
SLICES_FIRST = np.array([[0, 0, -1.5, 0], [0, -1.5, 0, 0], [-4.0, 0, 0, 0], [0, 0, 0, 1.0]])
Block = tuple[int, tuple[int, int, int, int, int, int]]  # value, voxels (i0, j0, k0, i1, j1, k1)

ORGAN, TUMOR, CYST, TWIN = (1, 2, 2, 12, 14, 10), (3, 4, 4, 8, 9, 8), (9, 10, 4, 11, 13, 7), (14, 3, 2, 22, 13, 10)
EDEMA, CORE, RIM, CAVITY = (3, 3, 2, 13, 13, 10), (5, 5, 4, 9, 9, 8), (9, 5, 4, 11, 9, 8), (16, 4, 4, 20, 8, 8)


class Layout(NamedTuple):
    """A published layout.

    Attributes:
        source: Name of the source.
        files: Image -> label file.
        blocks: What the label files hold.
        shown: Concept -> boxes in the plane that shows most of it.
        inside: Concept -> concepts of its parents there, sorted.
        images: Images of each part.
        decoys: Files beside them that are none of its cases.
        slices_first: True for arrays of slice, row, column.
    """

    source: str
    files: dict[str, str]
    blocks: list[Block]
    shown: dict[str, list[tuple[float, ...]]]
    inside: dict[str, list[str]]
    images: dict[str, int]
    decoys: tuple[str, ...] = ()
    slices_first: bool = False


def box(block: tuple[int, ...]) -> tuple[int, ...]:
    """Pixels (x0, y0, x1, y1) of a block in its axial planes."""
    return block[0], block[1], block[3], block[4]


def msd(source: str, task: str, organ: str, blocks: list[Block], shown: dict, inside: dict) -> Layout:
    case = f"{organ}_001.nii.gz"
    decoys = (f"{task}/imagesTr/._{case}", f"{task}/labelsTr/._{case}", f"{task}/imagesTs/{organ}_002.nii.gz",
              f"{task}/dataset.json")  # fmt: skip
    planes = max(block[5] for _, block in blocks) - min(block[2] for _, block in blocks)
    files = {f"{task}/imagesTr/{case}": f"{task}/labelsTr/{case}"}
    return Layout(source, files, blocks, shown, inside, {"volumes": planes}, decoys)


def brats(
    source: str, stem: str, sequences: tuple[str, ...], values: tuple[int, int, int], core: str, *, cavity: bool
) -> Layout:
    blocks = list(zip(values, (EDEMA, CORE, RIM), strict=True))
    tumor = "head_neck.brain.tumor"
    shown = {
        tumor: [box(EDEMA)], f"{tumor}.edema": [box(EDEMA)], f"{tumor}.core": [(5, 5, 11, 9)],
        f"{tumor}.{core}": [box(CORE)], f"{tumor}.enhancing_core": [box(RIM)],
    }  # fmt: skip
    within = [tumor, f"{tumor}.core"]
    inside = {f"{tumor}.edema": [tumor], f"{tumor}.core": [tumor], f"{tumor}.enhancing_core": within, f"{tumor}.{core}": within}
    if cavity:
        blocks.append((4, CAVITY))
        shown["head_neck.brain.resection_cavity"] = [box(CAVITY)]
    files = {stem.format(name): stem.format("seg") for name in sequences}
    return Layout(source, files, blocks, shown, inside, dict.fromkeys(sequences, 8))


NEW = ("t1n", "t1c", "t2w", "t2f")
LIVER = {"abdomen.liver": [box(ORGAN)], "abdomen.liver.tumor": [box(TUMOR)]}
IN_LIVER = {"abdomen.liver.tumor": ["abdomen.liver"]}
LAYOUTS = (
    Layout(
        "ct_kits23", {"dataset/case_00007/imaging.nii.gz": "dataset/case_00007/segmentation.nii.gz"},
        [(1, ORGAN), (1, TWIN), (2, TUMOR), (3, CYST)],
        {"abdomen.kidney": [box(ORGAN), box(TWIN)], "abdomen.kidney.tumor": [box(TUMOR)], "abdomen.kidney.cyst": [box(CYST)]},
        {"abdomen.kidney.tumor": ["abdomen.kidney"], "abdomen.kidney.cyst": ["abdomen.kidney"]}, {"volumes": 8},
        ("dataset/case_00007/instances/tumor_instance-1_annotation-1.nii.gz", "dataset/kits23.json"), slices_first=True,
    ),
    Layout(
        "ct_lits", {"Training Batch 1/volume-0.nii": "Training Batch 1/segmentation-0.nii",
                    "Training Batch 2/volume-30.nii": "Training Batch 2/segmentation-30.nii"},
        [(1, ORGAN), (2, TUMOR)], LIVER, IN_LIVER, {"volumes": 16},
    ),
    msd("ct_msd_liver", "Task03_Liver", "liver", [(1, ORGAN), (2, TUMOR)], LIVER, IN_LIVER),
    msd("ct_msd_lung", "Task06_Lung", "lung", [(1, TUMOR)], {"thorax.lung.tumor": [box(TUMOR)]}, {}),
    msd("ct_msd_pancreas", "Task07_Pancreas", "pancreas", [(1, ORGAN), (2, TUMOR)],
        {"abdomen.pancreas": [box(ORGAN)], "abdomen.pancreas.tumor": [box(TUMOR)]},
        {"abdomen.pancreas.tumor": ["abdomen.pancreas"]}),
    msd("ct_msd_hepatic_vessel", "Task08_HepaticVessel", "hepaticvessel", [(1, TWIN), (2, TUMOR)],
        {"abdomen.liver.vessel": [box(TWIN)], "abdomen.liver.tumor": [box(TUMOR)]}, {}),
    msd("ct_msd_spleen", "Task09_Spleen", "spleen", [(1, TWIN)], {"abdomen.spleen": [box(TWIN)]}, {}),
    msd("ct_msd_colon", "Task10_Colon", "colon", [(1, TUMOR)], {"abdomen.colon.tumor": [box(TUMOR)]}, {}),
    Layout(
        "ct_mr_amos22",
        {f"images{name}.nii.gz": f"labels{name}.nii.gz"
         for name in ("Tr/amos_0001", "Tr/amos_0410", "Tr/amos_0411", "Va/amos_0409", "Va/amos_0410", "Va/amos_0600")},
        [(6, ORGAN), (2, TUMOR), (3, TWIN)],
        {"abdomen.liver": [box(ORGAN)], "abdomen.kidney@right": [box(TUMOR)], "abdomen.kidney@left": [box(TWIN)]},
        {}, {"ct": 24, "mr": 24}, ("dataset.json", "imagesTs/amos_0200.nii.gz"),
    ),
    Layout(
        "mri_acdc",
        {f"ACDC/{name}.nii.gz": f"ACDC/{name}_gt.nii.gz" for name in
         ("training/patient001/patient001_frame01", "training/patient001/patient001_frame12",
          "testing/patient101/patient101_frame01")},
        [(1, TWIN), (2, EDEMA), (3, CORE)],
        {"thorax.heart.right_ventricle": [box(TWIN)], "thorax.heart.myocardium": [box(EDEMA)],
         "thorax.heart.left_ventricle": [box(CORE)]},
        {}, {"frames": 24}, ("ACDC/training/patient001/Info.cfg", "ACDC/training/patient001/patient001_4d.nii.gz"),
    ),
    brats("mri_brats21", "BraTS2021_00000/BraTS2021_00000_{}.nii.gz", ("flair", "t1", "t1ce", "t2"), (2, 1, 4),
          "necrotic_core", cavity=False),
    brats("mri_brats23_glioma", "BraTS-GLI-00002-000/BraTS-GLI-00002-000-{}.nii.gz", NEW, (2, 1, 3), "necrotic_core",
          cavity=False),
    brats("mri_brats24_glioma", "BraTS-GLI-02405-100/BraTS-GLI-02405-100-{}.nii.gz", NEW, (2, 1, 3), "non_enhancing_core",
          cavity=True),
)  # fmt: skip


def save(path: Path, array: np.ndarray, *, slices_first: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    turned = (array.transpose(2, 1, 0), SLICES_FIRST) if slices_first else (array, AFFINE_RAS)
    nibabel.save(nibabel.Nifti1Image(*turned), path)


def write(layout: Layout, folder: Path) -> Path:
    labels = np.zeros(SHAPE_IJK, np.uint8)
    for value, (i0, j0, k0, i1, j1, k1) in layout.blocks:
        labels[i0:i1, j0:j1, k0:k1] = value
    rng = np.random.default_rng(1)
    for image, label in layout.files.items():
        save(folder / image, rng.integers(-100, 300, SHAPE_IJK).astype(np.int16), slices_first=layout.slices_first)
        save(folder / label, labels, slices_first=layout.slices_first)
    for decoy in layout.decoys:
        (folder / decoy).parent.mkdir(parents=True, exist_ok=True)
        (folder / decoy).write_bytes(b"not of a case")
    return folder


def items_of(source: str, folder: Path) -> list:
    tasks, rejects = found_tasks(load_source(source), folder)
    return [*rejects, *(item for task in tasks for item in run(task))]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.source)
def test_a_published_layout_gives_its_counts_and_boxes(layout: Layout, tmp_path: Path) -> None:
    source = load_source(layout.source)
    tasks, rejects = found_tasks(source, write(layout, tmp_path))
    found = {task.key: (task.part.name, run(task)) for task in tasks}
    assert rejects == []
    assert len(found) == len(layout.files)
    matrix = Matrix({source.name: source.matrix})
    images: Counter[str] = Counter()
    for part, items in found.values():
        pictures = [item.record for item in items if isinstance(item, Picture)]
        assert sum(isinstance(item, VolumeRecord) for item in items) == len(items) - len(pictures) == 1
        images[part] += len(pictures)
        fullest = max(pictures, key=lambda record: len(record.regions))
        shown: dict[str, list] = {}
        for region in fullest.regions:
            shown.setdefault(region.concept, []).append(region.box_xyxy)
        assert {concept: sorted(boxes) for concept, boxes in shown.items()} == layout.shown
        concepts = {region.id: region.concept for region in fullest.regions}
        for region in fullest.regions:
            assert sorted(concepts[parent] for parent in region.parents) == layout.inside.get(region.concept, [])
        assert {matrix.state(source.name, fullest.modality, concept) for concept in shown} <= {"exhaustive", "possible"}
        assert set(fullest.absent).isdisjoint(shown)
    assert images == layout.images


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.source)
def test_its_dataset_validates_clean(layout: Layout, tmp_path: Path) -> None:
    done = convert(layout.source, write(layout, tmp_path / "in"), tmp_path / "dataset")
    assert done.images == sum(layout.images.values())
    assert [problem for problem in validate(tmp_path / "dataset") if problem.level == "error"] == []


@pytest.mark.parametrize(
    ("written", "read", "value"),
    [("mri_brats24_glioma", "mri_brats23_glioma", 4), ("mri_brats21", "mri_brats23_glioma", 4)],
)
def test_a_volume_of_another_year_is_refused_by_its_values(written: str, read: str, value: int, tmp_path: Path) -> None:
    blocks = next(layout for layout in LAYOUTS if layout.source == written).blocks
    target = next(layout for layout in LAYOUTS if layout.source == read)
    items = items_of(read, write(target._replace(blocks=blocks), tmp_path))
    assert [(item.reason, f"'{value}'" in item.detail) for item in items if isinstance(item, Reject)] == [
        ("unknown_label", True)
    ] * 4
    assert len(items) == 4


def test_the_years_and_sequences_of_a_patient_share_a_group(tmp_path: Path) -> None:
    layout = next(layout for layout in LAYOUTS if layout.source == "mri_brats23_glioma")
    later = {
        image.replace("00002-000", "00002-001"): label.replace("00002-000", "00002-001")
        for image, label in layout.files.items()
    }
    items = items_of(layout.source, write(layout._replace(files=layout.files | later), tmp_path))
    records = [item.record for item in items if isinstance(item, Picture)]
    assert len(records) == 64
    assert len({record.group for record in records}) == 1


def test_ct_and_mr_of_amos_are_told_apart_by_number_and_keep_their_splits(tmp_path: Path) -> None:
    layout = next(layout for layout in LAYOUTS if layout.source == "ct_mr_amos22")
    records = [item.record for item in items_of(layout.source, write(layout, tmp_path)) if isinstance(item, Picture)]
    assert {(record.origin.file, record.modality, record.split) for record in records} == {
        ("imagesTr/amos_0001.nii.gz", "ct", "train"), ("imagesTr/amos_0410.nii.gz", "ct", "train"),
        ("imagesTr/amos_0411.nii.gz", "mr", "train"), ("imagesVa/amos_0409.nii.gz", "ct", "val"),
        ("imagesVa/amos_0410.nii.gz", "mr", "val"), ("imagesVa/amos_0600.nii.gz", "mr", "val"),
    }  # fmt: skip
    assert all(("pelvis.urinary_bladder" in record.absent) == (record.modality == "ct") for record in records)


def test_both_frames_of_a_patient_of_acdc_share_a_group_and_the_official_split(tmp_path: Path) -> None:
    layout = next(layout for layout in LAYOUTS if layout.source == "mri_acdc")
    records = [item.record for item in items_of(layout.source, write(layout, tmp_path)) if isinstance(item, Picture)]
    groups = {(record.split, record.modality_detail["frame"]): record.group for record in records}
    assert groups["train", "01"] == groups["train", "12"] != groups["test", "01"]
    assert {record.split_source for record in records} == {"official"}
