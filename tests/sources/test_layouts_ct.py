"""Sources of CT in their published layouts, generated tiny: counts, boxes, sides, splits, and their traps."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from volumes_world import (
    AFFINE_RAS,
    LEFT,
    MIDDLE,
    RIGHT,
    SHAPE_IJK,
    SHEARED_RAS,
    Block,
    box,
    check_dataset,
    checked,
    converted,
    decoys,
    fullest,
    labelled,
    noise,
    save,
    save_series,
    shown,
)

FLARE = "Training/FLARE22_LabeledCase50"
# Source -> images with their label files, blocks, what the fullest plane shows, and files that are none of its cases.
PLAIN: dict[str, tuple[dict[str, str], list[Block], dict[str, list[tuple[int, ...]]], tuple[str, ...]]] = {
    "ct_btcv": (
        {"Abdomen/RawData/Training/img/img0001.nii.gz": "Abdomen/RawData/Training/label/label0001.nii.gz"},
        [(1, LEFT), (6, RIGHT), (11, MIDDLE)],
        {"abdomen.spleen": [box(LEFT)], "abdomen.liver": [box(RIGHT)], "abdomen.pancreas": [box(MIDDLE)]},
        ("Abdomen/RawData/Training/img/._img0001.nii.gz", "Abdomen/RawData/Testing/img/img0061.nii.gz"),
    ),
    "ct_flare22": (
        {f"{FLARE}/images/FLARE22_Tr_0001_0000.nii.gz": f"{FLARE}/labels/FLARE22_Tr_0001.nii.gz",
         "Tuning/images/FLARETs_0001_0000.nii.gz": "Tuning/labels/FLARETs_0001.nii.gz"},
        [(1, RIGHT), (3, LEFT), (4, MIDDLE)],
        {"abdomen.spleen": [box(LEFT)], "abdomen.liver": [box(RIGHT)], "abdomen.pancreas": [box(MIDDLE)]},
        ("Training/FLARE22_UnlabeledCase1-1000/Case_00001_0000.nii.gz", "Testing/FLARETs_0001_0000.nii.gz"),
    ),
    "ct_abdomenct1k": (
        {"AbdomenCT-1K-ImagePart1/Case_00001_0000.nii.gz": "Mask/Case_00001.nii.gz"},
        [(1, MIDDLE), (2, RIGHT), (2, LEFT)],
        {"abdomen.liver": [box(MIDDLE)], "abdomen.kidney@right": [box(RIGHT)], "abdomen.kidney@left": [box(LEFT)]},
        ("Mask/._Case_00001.nii.gz",),
    ),
    "ct_word": (
        {f"WORD-V0.1.0/images{name}.nii.gz": f"WORD-V0.1.0/labels{name}.nii.gz"
         for name in ("Tr/word_0002", "Val/word_0001", "Ts/word_0014")},
        [(1, MIDDLE), (12, RIGHT), (12, LEFT)],
        {"abdomen.liver": [box(MIDDLE)], "abdomen.adrenal_gland@right": [box(RIGHT)],
         "abdomen.adrenal_gland@left": [box(LEFT)]},
        ("WORD-V0.1.0/dataset.json",),
    ),
    "ct_ct_org": (
        {"OrganSegmentations/volume-3.nii.gz": "OrganSegmentations/labels-3.nii.gz",
         "OrganSegmentations/volume-21.nii.gz": "OrganSegmentations/labels-21.nii.gz"},
        [(4, RIGHT), (4, LEFT), (2, MIDDLE)],
        {"abdomen.kidney@right": [box(RIGHT)], "abdomen.kidney@left": [box(LEFT)], "pelvis.urinary_bladder": [box(MIDDLE)]},
        ("OrganSegmentations/README.txt",),
    ),
    "ct_covid19_ct_seg": (
        {"COVID-19-CT-Seg_20cases/coronacases_001.nii.gz": "Lung_and_Infection_Mask/coronacases_001.nii.gz"},
        [(2, RIGHT), (1, LEFT), (3, (2, 4, 4, 5, 8, 8))],
        {"thorax.lung@right": [box(RIGHT)], "thorax.lung@left": [box(LEFT)], "thorax.lung.covid_infection": [(2, 4, 5, 8)]},
        ("Lung_Mask/coronacases_001.nii.gz", "Infection_Mask/coronacases_001.nii.gz"),
    ),
    "ct_ctpelvic1k": (
        {"CTPelvic1K_dataset6_data/dataset6_CLINIC_0001_data.nii.gz":
         "ipcai2021_dataset6_Anonymized/dataset6_CLINIC_0001_mask_4label.nii.gz"},
        [(3, RIGHT), (2, LEFT), (1, MIDDLE)],
        {"musculoskeletal.hip_bone@right": [box(RIGHT)], "musculoskeletal.hip_bone@left": [box(LEFT)],
         "musculoskeletal.sacrum": [box(MIDDLE)]}, (),
    ),
    "ct_atm22": (
        {"TrainBatch1/imagesTr/ATM_001_0000.nii.gz": "TrainBatch1/labelsTr/ATM_001_0000.nii.gz",
         "TrainBatch1/imagesTr/ATM_002_0000.nii.gz": "TrainBatch1/labelsTr/ATM_002.nii.gz"},
        [(1, MIDDLE)], {"thorax.airway": [box(MIDDLE)]}, ("TrainBatch1/imagesVal/ATM_281_0000.nii.gz",),
    ),
}  # fmt: skip
SPLITS = {
    "ct_flare22": ["train", "val"], "ct_word": ["test", "train", "val"], "ct_ct_org": ["test", "train"],
}  # fmt: skip


def write_plain(source: str, folder: Path) -> Path:
    files, blocks, _, others = PLAIN[source]
    for image, labels in files.items():
        save(folder / image, noise(SHAPE_IJK, source, image))
        save(folder / labels, labelled(*blocks))
    decoys(folder, *others)
    return folder


@pytest.mark.parametrize("source", PLAIN)
def test_a_published_layout_gives_its_counts_and_boxes(source: str, tmp_path: Path) -> None:
    files, blocks, truth, _ = PLAIN[source]
    result = checked(source, write_plain(source, tmp_path))
    assert result.reasons == []
    assert {volume.origin.file for volume in result.volumes} == set(files)
    for file in files:
        axial = [record for record in result.of(file) if record.origin.axis == "k"]
        assert len(axial) == max(block[5] for _, block in blocks) - min(block[2] for _, block in blocks)
        assert shown(fullest(axial)) == truth
    if source in SPLITS:
        assert sorted({record.split for record in result.records}) == SPLITS[source]
        assert {record.split_source for record in result.records} == {"official"}


def write_totalsegmentator(folder: Path) -> Path:
    for case, affine in (("s0011", AFFINE_RAS), ("s0864", SHEARED_RAS), ("s1400", AFFINE_RAS)):
        root = folder / "Totalsegmentator_dataset_v201" / case
        save(root / "ct.nii.gz", noise(SHAPE_IJK, case), affine)
        masks = {"liver": labelled((1, RIGHT)), "lung_upper_lobe_left": labelled((1, LEFT)), "kidney_left": labelled(),
                 "lung_lower_lobe_left": labelled((1, MIDDLE))}  # fmt: skip
        for name, mask in masks.items():
            save(root / "segmentations" / f"{name}.nii.gz", mask.astype(np.uint8), affine)
        decoys(root, "segmentations/._liver.nii.gz")
    table = "image_id;age;gender;institute;study_type;split\ns0011;74;m;A;ct thorax;train\ns0864;;f;B;ct;test\n"
    (folder / "Totalsegmentator_dataset_v201" / "meta.csv").write_text(table)
    return folder


def test_totalsegmentator_takes_its_split_from_a_table_with_semicolons(tmp_path: Path) -> None:
    result = checked("ct_totalsegmentator", write_totalsegmentator(tmp_path))
    assert [(reject.reason, reject.file.split("/")[1]) for reject in result.rejects] == [("missing_row", "s1400")]
    by_split = {record.split: record for record in result.records if len(record.regions) == 4}
    assert set(by_split) == {"train", "test"}
    for record in by_split.values():
        assert shown(record) == {
            "abdomen.liver": [box(RIGHT)], "thorax.lung.upper_lobe@left": [box(LEFT)],
            "thorax.lung.lower_lobe@left": [box(MIDDLE)], "thorax.lung@left": [(9, 3, 22, 13)],
        }  # fmt: skip
        assert record.absent == ("abdomen.kidney@left",)  # an empty mask; of the right one nothing is said


TOUCHING = (5, 2, 2, 8, 12, 10)  # beside RIGHT


def write_ribfrac(folder: Path) -> Path:
    for case, info in ((7, "train-info-1"), (421, "val-info")):
        save(folder / f"images/RibFrac{case}-image.nii.gz", noise(SHAPE_IJK, "ribs", case))
        save(folder / f"labels/RibFrac{case}-label.nii.gz", labelled((1, RIGHT), (2, TOUCHING), (3, LEFT)))
        rows = [f"RibFrac{case},{value},{code}" for value, code in ((0, 0), (1, 2), (2, 2), (3, -1))]
        (folder / f"ribfrac-{info}.csv").write_text("\n".join(["public_id,label_id,label_code", *rows, "RibFrac9,1,4"]))
    return folder


def test_fractures_are_named_by_the_table_and_keep_their_numbers(tmp_path: Path) -> None:
    result = checked("ct_ribfrac", write_ribfrac(tmp_path))
    assert result.reasons == []
    assert sorted({record.split for record in result.records}) == ["train", "val"]
    for volume in result.volumes:
        fullest_of = fullest(result.of(volume.origin.file))
        assert shown(fullest_of) == {
            "thorax.rib.fracture.nondisplaced": [box(RIGHT), box(TOUCHING)], "thorax.rib.fracture": [box(LEFT)],
        }  # fmt: skip
        assert len(volume.instances) == 3
        assert "thorax.rib.fracture.displaced" not in fullest_of.absent  # the one without a type may be displaced


def test_a_fracture_without_a_row_refuses_its_case(tmp_path: Path) -> None:
    save(tmp_path / "RibFrac7-image.nii.gz", noise())
    save(tmp_path / "RibFrac7-label.nii.gz", labelled((1, RIGHT), (5, LEFT)))
    (tmp_path / "ribfrac-train-info-1.csv").write_text("public_id,label_id,label_code\nRibFrac7,1,2\n")
    (reject,) = converted("ct_ribfrac", tmp_path).rejects
    assert reject.reason == "unknown_label"
    assert "the value 5" in reject.detail


def write_verse(folder: Path) -> Path:
    sagittal = np.array([[0, 0, -4.0, 0], [-1.5, 0, 0, 0], [0, -1.5, 0, 0], [0, 0, 0, 1.0]])  # i to the back, j to the feet
    cases = {"dataset-01training": ("verse500", "verse500_dir-sag"), "test": ("verse401", "verse401_split-verse253")}
    for place, (patient, name) in cases.items():
        root = folder / place
        save(root / f"rawdata/sub-{patient}/sub-{name}_ct.nii.gz", noise(SHAPE_IJK, name), sagittal)
        mask = labelled((20, RIGHT), (25, LEFT), (28, MIDDLE))
        save(root / f"derivatives/sub-{patient}/sub-{name}_seg-vert_msk.nii.gz", mask, sagittal)
        decoys(root, f"derivatives/sub-{patient}/sub-{name}_seg-subreg_ctd.json")
    return folder


def test_vertebrae_in_the_scanners_own_orientation(tmp_path: Path) -> None:
    result = checked("ct_verse", write_verse(tmp_path))
    assert result.reasons == []
    assert sorted({record.split for record in result.records}) == ["test", "train"]
    sagittals = [record for record in result.records if record.modality_detail["plane"] == "sagittal"]
    assert shown(fullest(sagittals)) == {
        "musculoskeletal.vertebra.l1": [box(RIGHT)], "musculoskeletal.vertebra.l6": [box(LEFT)],
        "musculoskeletal.vertebra.t13": [box(MIDDLE)],
    }  # fmt: skip
    assert all(record.absent == () for record in result.records)


def test_lungs_drawn_as_one_piece_have_no_side(tmp_path: Path) -> None:
    save(tmp_path / "volume-30.nii.gz", noise())
    save(tmp_path / "labels-30.nii.gz", labelled((3, (2, 3, 3, 22, 12, 9))))
    result = converted("ct_ct_org", tmp_path)
    assert {region.concept for record in result.records for region in record.regions} == {"thorax.lung"}


def write_chaos(folder: Path) -> Path:
    root = folder / "CHAOS_Train_Sets/Train_Sets/CT/1"
    labels = labelled((255, RIGHT))
    labels[:, :, 5] = labelled((255, MIDDLE))[:, :, 5]
    save_series(root / "DICOM_anon", [f"i{k:04d},0000b.dcm" for k in range(12)], noise(SHAPE_IJK, "chaos"), uid_a_file=True)
    (root / "Ground").mkdir()
    for k in range(12):
        Image.fromarray(labels[:, :, k].T.astype(np.uint8)).save(root / "Ground" / f"liver_GT_{k:03d}.png")
    decoys(folder, "CHAOS_Test_Sets/Test_Sets/CT/2/DICOM_anon/i0000,0000b.dcm")
    return folder


def test_chaos_pairs_slices_and_png_masks_by_order(tmp_path: Path) -> None:
    result = checked("ct_chaos", write_chaos(tmp_path))
    assert result.reasons == []
    assert {r.origin.slice: shown(r)["abdomen.liver"] for r in result.records} == {
        k: [box(MIDDLE if k == 5 else RIGHT)] for k in range(2, 10)
    }
    (tmp_path / "CHAOS_Train_Sets/Train_Sets/CT/1/Ground/liver_GT_011.png").unlink()
    missing, whole = converted("ct_chaos", tmp_path).rejects
    assert (missing.reason, whole.reason) == ("missing_mask", "unlabelled")
    assert "11 masks" in missing.detail


INSIDE = ((2, 3, 3, 4, 7, 8), (2, 8, 4, 4, 11, 9))  # RIGHT


def write_3dircadb(folder: Path) -> Path:
    root = folder / "3Dircadb1/3Dircadb1.1"
    names = [f"image_{k}" for k in range(SHAPE_IJK[2])]  # not padded: image_10 comes before image_2 as text
    masks = {"liver": RIGHT, "livertumor01": INSIDE[0], "livertumor02": INSIDE[1], "rightkidney": LEFT, "skin": MIDDLE,
             "unheardof": MIDDLE, "spleen": MIDDLE}  # fmt: skip
    save_series(root / "PATIENT_DICOM/PATIENT_DICOM", names, noise(SHAPE_IJK, "ircad"))
    for name, block in masks.items():
        save_series(root / "MASKS_DICOM/MASKS_DICOM" / name, names, labelled((255, block)))
    (root / "MASKS_DICOM/MASKS_DICOM/spleen/image_3").unlink()
    decoys(folder, "3Dircadb1/3Dircadb1.1/LABELLED_DICOM/image_0")
    return folder


def test_every_tumor_of_3dircadb_has_a_folder_of_its_own(tmp_path: Path) -> None:
    result = checked("ct_3dircadb", write_3dircadb(tmp_path))
    assert sorted((reject.reason, "unheardof" in reject.file) for reject in result.rejects) == [
        ("missing_mask", False), ("unknown_label", True),
    ]  # fmt: skip
    assert shown(fullest(result.records)) == {
        "abdomen.liver": [box(RIGHT)], "abdomen.liver.tumor": [box(block) for block in INSIDE],
        "abdomen.kidney@right": [box(LEFT)],  # what the folder says, wherever it lies
    }  # fmt: skip
    assert "abdomen.spleen" not in {concept for record in result.records for concept in record.absent}


LESIONS = """File_name,Patient_index,Study_index,Series_ID,Key_slice_index,Measurement_coordinates,Bounding_boxes,\
Lesion_diameters_Pixel_,Normalized_lesion_location,Coarse_lesion_type,Possibly_noisy,Slice_range,Spacing_mm_px_,Image_size,\
DICOM_windows,Patient_gender,Patient_age,Train_Val_Test
000001_01_01_109.png,1,1,1,109,"1, 2",{one},"8, 6","0.5, 0.5, 0.5",-1,0,"103, 115","0.5, 0.5, 5","30, 20","-175, 275",F,62,1
000001_01_01_109.png,1,1,1,109,"1, 2",{two},"8, 6","0.5, 0.5, 0.5",-1,1,"103, 115","0.5, 0.5, 5","30, 20","-175, 275",F,62,1
000002_01_01_007.png,2,1,1,7,"1, 2",{one},"8, 6","0.5, 0.5, 0.5",4,0,"1, 9","0.8, 0.8, 1","30, 20","-160, 240",M,50,2
000003_04_01_012.png,3,4,1,12,"1, 2",{one},"8, 6","0.5, 0.5, 0.5",5,0,"1, 9","0.8, 0.8, 1","30, 20","-1500, 500",M,50,3
000009_01_01_001.png,9,1,1,1,"1, 2",{one},"8, 6","0.5, 0.5, 0.5",5,0,"1, 9","0.8, 0.8, 1","30, 20","-1500, 500",M,50,3
"""


def write_deeplesion(folder: Path) -> Path:
    for name in ("000001_01_01/109", "000001_01_01/108", "000002_01_01/007", "000003_04_01/012"):
        (folder / "Images_png" / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = (noise((20, 30), name).astype(int) + 32768).astype(np.uint16)
        Image.fromarray(pixels).save(folder / "Images_png" / f"{name}.png")
    text = LESIONS.format(one='"3.5, 4.25, 12.5, 11"', two='"15, 3, 25, 30"')  # the second leaves the image
    (folder / "DL_info.csv").write_text(text)
    return folder


def test_deeplesion_in_hounsfield_units(tmp_path: Path) -> None:
    result = checked("ct_deeplesion", write_deeplesion(tmp_path))
    assert result.reasons == ["box_out_of_image", "missing_file"]
    assert [record.origin.file for record in result.records] == [
        f"Images_png/{name}.png" for name in ("000001_01_01/109", "000002_01_01/007", "000003_04_01/012")
    ]
    assert [shown(record) for record in result.records] == [
        {concept: [(3.5, 4.25, 12.5, 11.0)]} for concept in ("systemic.lesion", "abdomen.liver.lesion", "thorax.lung.lesion")
    ]
    assert [record.split for record in result.records] == ["train", "val", "test"]
    assert [record.intensity.window for record in result.records] == [(-175, 275), (-160, 240), (-1500, 500)]
    assert result.records[0].spacing_mm == (0.5, 0.5)
    assert all(record.absent == () for record in result.records)
    stored, meaning = result.pictures[0].pixels, result.records[0].intensity
    assert np.array_equal(stored * meaning.slope + meaning.intercept, noise((20, 30), "000001_01_01/109"))


def test_a_doubtful_mark_is_kept_and_flagged(tmp_path: Path) -> None:
    (tmp_path / "Images_png/000001_01_01").mkdir(parents=True)
    Image.fromarray(noise((20, 30)).astype(np.uint16)).save(tmp_path / "Images_png/000001_01_01/109.png")
    text = LESIONS.format(one='"3, 4, 12, 11"', two='"15, 3, 25, 12"').splitlines()
    (tmp_path / "DL_info.csv").write_text("\n".join(text[:3]))
    (record,) = converted("ct_deeplesion", tmp_path).records
    assert ["uncertain" in region.flags for region in sorted(record.regions, key=lambda r: r.box_xyxy)] == [False, True]


def test_the_dataset_of_them_all_validates_clean(tmp_path: Path) -> None:
    special = {
        "ct_totalsegmentator": write_totalsegmentator, "ct_ribfrac": write_ribfrac, "ct_verse": write_verse,
        "ct_chaos": write_chaos, "ct_3dircadb": write_3dircadb, "ct_deeplesion": write_deeplesion,
    }  # fmt: skip
    check_dataset({source: partial(write_plain, source) for source in PLAIN} | special, tmp_path)
