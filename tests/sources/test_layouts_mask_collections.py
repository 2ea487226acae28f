"""Collections of masks made of many public sets, in their published layouts, generated tiny."""

import json
from pathlib import Path

import numpy as np
import pytest
from images_world import A, B, C, World, check, check_dataset, drawn, records_of, scene, write

from medglip.curate import load_source
from medglip.errors import InputError

LUNG, LIVER = "thorax.lung", "abdomen.liver"


def biomedparse() -> World:
    """Names with dots and underscores, targets that overlap, blanks written as +, and several modalities."""
    files: dict[str, object] = {}
    shown: dict[str, list] = {}
    images = {
        "LIDC-IDRI/train/LIDC.IDRI.0012.v1_slice.7_CT_lung": {"nodule": (f"{LUNG}.nodule", C)},
        "amos22/CT/test/amos_0004_slice7_CT_abdomen": {
            "kidney": ("abdomen.kidney", B), "left+kidney": ("abdomen.kidney@left", C), "liver": (LIVER, A)},
        "BraTS2023/train/case.v2_31_MRI-T1-Gd_brain": {"tumor+core": ("head_neck.brain.tumor.core", A)},
        "ACDC/test/patient101_frame01_3_MRI_heart": {"left+heart+ventricle": ("thorax.heart.left_ventricle", A)},
        "BreastUS/train/benign_9_ultrasound_breast": {"benign+tumor": ("thorax.breast.tumor.benign", A)},
        "REFUGE/test/T0009_fundus_retinal": {
            "optic+disc": ("head_neck.eye.optic_disc", B), "optic+cup": ("head_neck.eye.optic_cup", C)},
        "PolypGen/train/EndoCV2021_C1_0011_endoscope_colon": {"polyp": ("abdomen.colon.polyp", A)},
        "ISIC/test/ISIC_0012345_dermoscopy_skin": {"lesion": ("systemic.skin.lesion", A)},
    }  # fmt: skip
    for number, (image, targets) in enumerate(images.items()):
        folder, _, stem = image.rpartition("/")
        files[f"BiomedParseData/{image}.png"] = scene(number)
        shown[f"BiomedParseData/{image}.png"] = list(targets.values())
        for target, (_, window) in targets.items():
            files[f"BiomedParseData/{folder}_mask/{stem}_{target}.png"] = drawn(window)
    files["BiomedParseData/LIDC-IDRI/train.json"] = "{}"
    splits = {name: name.split("/")[-2] for name in shown}
    return World("multi_biomedparse", files, shown, splits=splits)


CLASSES = {
    "AMOS2022": {"left_kidney": "0001", "liver": "0002", "union_left_kidney_liver": "0003"},
    "ACDC": {"right_ventricle": "0000", "left_ventricle": "0002", "ventricular_cavity": "0003"},
    "BraTS2021": {"union_necrosis_edema": 10, "edema": 11},
    "ichallenge_adam_task2": {"optic_disc": "0000"}, "covid_19_ct_cxr": {"left_lung": "0001", "right_lung": "0000"},
    "breast_ultrasound_images_dataset": {"benign_breast_tumor": "0000"}, "autoPET": {"FDG-avid lesion": "0000"},
    "kvasir_seg": {"polyp": "0000"}, "isic2018_task1": {"skin_lesion": "0000"}, "QUBIQ2020": {"kidney": "0000"},
}  # fmt: skip


def sa_med2d() -> World:
    """One picture a modality with the traps of the set; class numbers are named by its JSON only."""
    pictures: dict[str, dict[str, object]] = {
        "ct_00--AMOS2022--amos_0001--z_0042": {"0001_000": drawn(A, value=1), "0002_000": drawn(B, value=1),
                                               "0002_001": drawn((2, 40, 12, 46), value=1), "0003_000": drawn(A, B)},
        "ct_00--AMOS2022--amos_0001--z_0043": {"0002_000": drawn(A, height=20, width=20)},
        "mr_00--ACDC--patient001_frame01--x_0006": {"0000_000": drawn(A), "0003_000": drawn(A, B)},
        "mr_flair--BraTS2021--BraTS2021_00218--z_0141": {"0011_000": drawn(A), "0010_000": drawn(B)},
        "fundus_photography--ichallenge_adam_task2--A0001--2d_none": {"0000_000": drawn(A, value=0, ground=255)},
        "x_ray--covid_19_ct_cxr--16660_5_1--2d_none": {"0000_000": drawn(A), "0001_000": drawn(B)},
        "ultrasound_00--breast_ultrasound_images_dataset--benign (1)--2d_none": {"0000_000": drawn(A)},
        "pet_00--autoPET--PETCT_0011f3deaf--y_0100": {"0000_000": drawn(A)},
        "endoscopy_00--kvasir_seg--cju0qkwl35piu0993l0dewei2--2d_none": {"0000_000": drawn(A)},
        "dermoscopy_00--isic2018_task1--ISIC_0000000--2d_none": {"0000_000": drawn(A)},
    }  # fmt: skip
    found = (
        [("abdomen.kidney@left", A), (LIVER, (2, 8, 56, 46))], None, [("thorax.heart.right_ventricle", A)],
        [("systemic.edema", A)], [("head_neck.eye.optic_disc", A)], [(f"{LUNG}@left", B), (f"{LUNG}@right", A)],
        [("thorax.breast.tumor.benign", A)], [("systemic.pet_lesion", A)], [("systemic.polyp", A)],
        [("systemic.skin.lesion", A)],
    )  # fmt: skip
    root, files, shown = "SAMed2Dv1", {}, {}
    for number, (stem, masks) in enumerate(pictures.items()):
        files[f"{root}/images/{stem}.png"] = scene(number, colours=stem.startswith(("fundus", "endo", "dermo")))
        files |= {f"{root}/masks/{stem}--{name}.png": mask for name, mask in masks.items()}
        if found[number] is not None:
            shown[f"{root}/images/{stem}.png"] = found[number]
    hidden = "ct_00--QUBIQ2020--kidney_case01--z_0000"
    files |= {
        f"{root}/images/ct_00--AMOS2022--amos_0002--z_0000.png": np.full((48, 64), 7, np.uint8),
        f"{root}/images/{hidden}.png": drawn(A), f"{root}/masks/{hidden}--0000_000.png": drawn(A),
        f"{root}/SAMed2D_v1_class_mapping_id.json": json.dumps(CLASSES), f"{root}/SAMed2D_v1.json": "{}",
    }  # fmt: skip
    return World("multi_sa_med2d_20m", files, shown, reasons=("constant_image", "size_mismatch"))


WORLDS = (biomedparse(), sa_med2d())


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.source)
def test_a_published_layout_gives_its_boxes_and_splits(world: World, tmp_path: Path) -> None:
    records = check(world, tmp_path)
    assert all(record.absent == () and record.exhaustive == () for record in records.values())  # what has no mask is unknown


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.source)
def test_its_dataset_validates_clean(world: World, tmp_path: Path) -> None:
    check_dataset(world, tmp_path)


def test_every_modality_of_both_collections_has_its_part() -> None:
    modalities = {"ct", "mr", "xray", "ultrasound", "endoscopy", "dermoscopy", "fundus"}
    assert modalities | {"pet"} == set(load_source("multi_sa_med2d_20m").modalities)
    assert modalities | {"histopathology", "oct"} == set(load_source("multi_biomedparse").modalities)


def test_slices_of_one_scan_stay_together_and_equal_numbers_of_two_sets_do_not(tmp_path: Path) -> None:
    stems = ("ct_00--AMOS2022--amos_0001--z_0042", "ct_00--AMOS2022--amos_0001--x_0007", "ct_00--KiTS--amos_0001--z_0001")
    files: dict[str, object] = {f"images/{stem}.png": scene(number, colours=False) for number, stem in enumerate(stems)}
    files["SAMed2D_v1_class_mapping_id.json"] = json.dumps(CLASSES)
    records, _ = records_of("multi_sa_med2d_20m", write(files, tmp_path))
    groups = [records[f"images/{stem}.png"].group for stem in stems]
    assert groups[0] == groups[1] != groups[2]


def test_a_class_number_that_the_json_does_not_name_is_refused(tmp_path: Path) -> None:
    world = sa_med2d()
    stem = "SAMed2Dv1/{}/dermoscopy_00--isic2018_task1--ISIC_0000000--2d_none"
    files = {
        name: content for name, content in world.files.items() if name.startswith(stem.format("images")) or ".json" in name
    }
    records, rejects = records_of(
        "multi_sa_med2d_20m", write(files | {f"{stem.format('masks')}--0009_000.png": drawn(A)}, tmp_path)
    )
    assert not records
    assert [(reject.reason, "'0009'" in reject.detail) for reject in rejects] == [("unknown_label", True)]


def test_a_collection_without_its_class_names_is_not_read(tmp_path: Path) -> None:
    files = {name: content for name, content in sa_med2d().files.items() if "class_mapping" not in name}
    with pytest.raises(InputError, match="SAMed2D_v1_class_mapping_id"):
        records_of("multi_sa_med2d_20m", write(files, tmp_path))
