"""Sources of MR in their published layouts, generated tiny: counts, boxes, sequences, splits, and their traps."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from volumes_world import (
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

from medglip.curate import load_source

BRAIN, PROSTATE = "head_neck.brain", "pelvis.prostate"
CORE, RIM = (10, 5, 5, 12, 8, 7), (12, 5, 5, 13, 8, 7)  # inside MIDDLE
ATLAS = "ATLAS_2/Training/R001/sub-r001s001/ses-1/anat/sub-r001s001_ses-1_space-MNI152NLin2009aSym_"
STROKE = "sub-strokecase0001_ses-0001"
# Source -> images with their label files, blocks, what the fullest plane shows, volumes of an image file, other files.
Plain = tuple[dict[str, str], list[Block], dict[str, list[tuple[int, ...]]], int, tuple[str, ...]]


def task(folder: str, name: str, blocks: list[Block], truth: dict[str, list[tuple[int, ...]]], volumes: int = 1) -> Plain:
    """A task of the decathlon."""
    beside = (
        f"{folder}/imagesTr/._{name}",
        f"{folder}/labelsTr/._{name}",
        f"{folder}/imagesTs/{name}",
        f"{folder}/dataset.json",
    )
    return {f"{folder}/imagesTr/{name}": f"{folder}/labelsTr/{name}"}, blocks, truth, volumes, beside


PLAIN: dict[str, Plain] = {
    "mri_msd_brain": task(
        "Task01_BrainTumour", "BRATS_001.nii.gz", [(1, MIDDLE), (2, CORE), (3, RIM)],
        {f"{BRAIN}.tumor": [box(MIDDLE)], f"{BRAIN}.tumor.edema": [box(MIDDLE)], f"{BRAIN}.tumor.core": [(10, 5, 13, 8)],
         f"{BRAIN}.tumor.non_enhancing_core": [box(CORE)], f"{BRAIN}.tumor.enhancing_core": [box(RIM)]}, 4,
    ),
    "mri_msd_heart": task("Task02_Heart", "la_003.nii.gz", [(1, MIDDLE)], {"thorax.heart.left_atrium": [box(MIDDLE)]}),
    "mri_msd_hippocampus": task(
        "Task04_Hippocampus", "hippocampus_001.nii.gz", [(1, CORE), (2, RIM)],
        {f"{BRAIN}.hippocampus": [(10, 5, 13, 8)], f"{BRAIN}.hippocampus.anterior": [box(CORE)],
         f"{BRAIN}.hippocampus.posterior": [box(RIM)]},
    ),
    "mri_msd_prostate": task(
        "Task05_Prostate", "prostate_00.nii.gz", [(1, CORE), (2, RIM)],
        {PROSTATE: [(10, 5, 13, 8)], f"{PROSTATE}.peripheral_zone": [box(CORE)], f"{PROSTATE}.transition_zone": [box(RIM)]}, 2,
    ),
    "mri_promise12": (
        {"training_data/Case00.mhd": "training_data/Case00_segmentation.mhd"}, [(1, MIDDLE)], {PROSTATE: [box(MIDDLE)]}, 1,
        ("training_data/Case00_report.txt",),
    ),
    "mri_isles22": (
        {f"ISLES-2022/sub-strokecase0001/ses-0001/dwi/{STROKE}_{sequence}.nii.gz":
         f"ISLES-2022/derivatives/sub-strokecase0001/ses-0001/{STROKE}_msk.nii.gz" for sequence in ("dwi", "adc")},
        [(1, RIGHT), (1, LEFT)], {f"{BRAIN}.infarct": [box(RIGHT), box(LEFT)]}, 1,
        (f"ISLES-2022/sub-strokecase0001/ses-0001/anat/{STROKE}_FLAIR.nii.gz", "ISLES-2022/participants.tsv"),
    ),
    "mri_atlas2": (
        {f"{ATLAS}T1w.nii.gz": f"{ATLAS}label-L_desc-T1lesion_mask.nii.gz"}, [(1, RIGHT)],
        {f"{BRAIN}.infarct": [box(RIGHT)]}, 1,
        ("ATLAS_2/MNI152NLin2009aSym.nii.gz", "ATLAS_2/Training/R001/dataset_description.json"),
    ),
    "mri_feta": (
        {f"feta_2.1/sub-{name}_T2w.nii.gz": f"feta_2.1/sub-{name}_dseg.nii.gz"
         for name in ("001/anat/sub-001_rec-mial", "041/anat/sub-041_rec-irtk")},
        [(1, RIGHT), (5, LEFT), (6, MIDDLE)],
        {f"{BRAIN}.csf": [box(RIGHT)], f"{BRAIN}.cerebellum": [box(LEFT)], f"{BRAIN}.deep_gray_matter": [box(MIDDLE)]}, 1,
        ("feta_2.1/participants.tsv", "feta_2.1/sub-001/anat/sub-001_rec-mial_T2w.json"),
    ),
}  # fmt: skip


def write_plain(source: str, folder: Path) -> Path:
    files, blocks, _, volumes, beside = PLAIN[source]
    for image, labels in files.items():
        save(folder / image, noise(SHAPE_IJK if volumes == 1 else (*SHAPE_IJK, volumes), source, image))
        save(folder / labels, labelled(*blocks))
    decoys(folder, *beside)
    return folder


@pytest.mark.parametrize("source", PLAIN)
def test_a_published_layout_gives_its_counts_and_boxes(source: str, tmp_path: Path) -> None:
    files, blocks, truth, volumes, _ = PLAIN[source]
    result = checked(source, write_plain(source, tmp_path))
    assert result.reasons == []
    assert sorted(volume.origin.file for volume in result.volumes) == sorted([*files] * volumes)
    planes = max(block[5] for _, block in blocks) - min(block[2] for _, block in blocks)
    axial = [record for record in result.records if record.origin.axis == "k"]
    assert len(axial) == planes * len(files) * volumes
    sequences = {record.modality_detail.get("sequence") for record in axial}
    for sequence in sequences:
        assert shown(fullest([r for r in axial if r.modality_detail.get("sequence") == sequence])) == truth
    assert len(sequences) == max(volumes, len(load_source(source).parts))


@pytest.mark.parametrize("source", ["mri_msd_brain", "mri_msd_prostate"])
def test_the_channels_of_a_file_are_images_of_one_patient(source: str, tmp_path: Path) -> None:
    result = converted(source, write_plain(source, tmp_path))
    (file,) = PLAIN[source][0]
    channels = noise((*SHAPE_IJK, PLAIN[source][3]), source, file)
    for number, part in enumerate(load_source(source).parts):
        pictures = [p for p in result.pictures if p.record.modality_detail["sequence"] == part.detail["sequence"]]
        for picture in pictures:
            meaning = picture.record.intensity
            values = picture.pixels * meaning.slope + meaning.intercept
            assert np.array_equal(values, channels[:, :, picture.record.origin.slice, number].T)
    assert {record.origin.file for record in result.records} == {file}
    assert len({record.group for record in result.records}) == 1


BOTH = {"A0S9V9": (0, 3), "B1C2D3": (3, 0), "E4F5G6": (0, 3)}


def write_mnms(folder: Path, frames: dict[str, tuple[int, int]], labelled_frames: tuple[int, ...]) -> Path:
    sets = {"A0S9V9": "Training/Labeled", "B1C2D3": "Validation", "E4F5G6": "Testing"}
    for case, place in sets.items():
        labels = np.zeros((*SHAPE_IJK, 5), np.int16)
        for frame in labelled_frames:
            labels[..., frame] = labelled((1, RIGHT), (2, MIDDLE), (3, LEFT))
        affine = SHEARED_RAS if place == "Testing" else np.diag([-1.5, -1.5, 4.0, 1.0])
        save(folder / f"OpenDataset/{place}/{case}/{case}_sa.nii.gz", noise((*SHAPE_IJK, 5), case), affine)
        save(folder / f"OpenDataset/{place}/{case}/{case}_sa_gt.nii.gz", labels, affine)
    decoys(folder, "OpenDataset/Training/Unlabeled/Z9Z9Z9/Z9Z9Z9_sa.nii.gz")
    rows = [f"{n},{case},Philips,B,2,HCM,{ed},{es},45,M" for n, (case, (ed, es)) in enumerate(frames.items())]
    head = ",External code,VendorName,Vendor,Centre,Pathology,ED,ES,Age,Sex"
    table = folder / "OpenDataset/211230_M&Ms_Dataset_information_diagnosis_opendataset.csv"
    table.write_text("\n".join([head, *rows]))
    return folder


def test_mnms_is_read_in_the_frames_that_its_table_names(tmp_path: Path) -> None:
    result = checked("mri_mnms", write_mnms(tmp_path, BOTH, (0, 3)))
    assert result.reasons == []
    assert len(result.volumes) == 6
    for record in result.records:
        case, frame = Path(record.origin.file).name[:6], int(record.modality_detail["frame"])
        (picture,) = [p for p in result.pictures if p.record.id == record.id]
        values = picture.pixels * record.intensity.slope + record.intensity.intercept
        assert np.array_equal(values, noise((*SHAPE_IJK, 5), case)[:, :, record.origin.slice, frame].T)
    assert {(record.split, record.modality_detail["frame"]) for record in result.records} == {
        (split, frame) for split in ("train", "val", "test") for frame in ("0", "3")
    }
    assert len({record.group for record in result.records}) == 3
    assert shown(fullest(result.records)) == {
        "thorax.heart.left_ventricle": [box(RIGHT)], "thorax.heart.myocardium": [box(MIDDLE)],
        "thorax.heart.right_ventricle": [box(LEFT)],
    }  # fmt: skip


def test_a_frame_without_labels_is_no_negative(tmp_path: Path) -> None:
    frames = {"A0S9V9": (0, 2), "B1C2D3": (0, 7), "E4F5G6": (0, "")}
    result = converted("mri_mnms", write_mnms(tmp_path, frames, (0,)))
    assert result.reasons == ["missing_field", "unlabelled", "unreadable_file"]
    assert {record.modality_detail["frame"] for record in result.records} == {"0"}


def write_lgg(folder: Path) -> Path:
    patients = ("TCGA_CS_4941_19960909", "TCGA_CS_4941_19970101", "TCGA_DU_5851_19950428")
    for patient in patients:
        for root in ("kaggle_3m", "lgg-mri-segmentation/kaggle_3m"):
            (folder / root / patient).mkdir(parents=True)
            for n, block in ((1, None), (2, MIDDLE)):
                colours = noise((16, 24, 3), patient, n).astype(np.uint8)
                mask = labelled((255, block))[:, :, 5].T if block else np.zeros((16, 24))
                Image.fromarray(colours).save(folder / root / patient / f"{patient}_{n}.tif")
                Image.fromarray(mask.astype(np.uint8)).save(folder / root / patient / f"{patient}_{n}_mask.tif")
    decoys(folder, "kaggle_3m/data.csv", "kaggle_3m/README.md")
    return folder


def test_slices_of_lower_grade_gliomas_stay_with_their_patient(tmp_path: Path) -> None:
    result = checked("mri_lgg_kaggle", write_lgg(tmp_path))
    assert result.reasons == []
    assert len(result.records) == 6  # of kaggle_3m only
    assert len({record.group for record in result.records}) == 2
    for record in result.records:
        marked = record.origin.file.endswith("_2.tif")
        assert shown(record) == ({f"{BRAIN}.tumor": [box(MIDDLE)]} if marked else {})
        assert (f"{BRAIN}.tumor" in record.absent) != marked


def write_chaos(folder: Path) -> Path:
    root = folder / "Train_Sets/MR/1"
    greys = labelled((63, RIGHT), (126, MIDDLE), (190, LEFT))  # 190 stands for 189
    series = {
        "T1DUAL/DICOM_anon/InPhase": [f"IMG-0004-{2 * k + 2:05d}.dcm" for k in range(12)],
        "T1DUAL/DICOM_anon/OutPhase": [f"IMG-0004-{2 * k + 1:05d}.dcm" for k in range(12)],
        "T2SPIR/DICOM_anon": [f"IMG-0002-{k + 1:05d}.dcm" for k in range(12)],
    }
    for place, names in series.items():
        image = noise(SHAPE_IJK, place) + 100
        save_series(root / place, names, image, modality="MR", uid_a_file="T1" in place)
        ground = root / place.split("/")[0] / "Ground"
        ground.mkdir(exist_ok=True)
        if "OutPhase" not in place:
            for k, name in enumerate(names):
                Image.fromarray(greys[:, :, k].T.astype(np.uint8)).save(ground / name.replace(".dcm", ".png"))
    return folder


def test_one_mask_of_chaos_serves_both_phases_and_its_greys_have_slack(tmp_path: Path) -> None:
    result = checked("mri_chaos", write_chaos(tmp_path))
    assert result.reasons == []
    by_sequence = {record.modality_detail["sequence"]: record for record in result.records if len(record.regions) == 3}
    assert set(by_sequence) == {"T1 in phase", "T1 out of phase", "T2 SPIR"}
    for record in by_sequence.values():
        assert shown(record) == {
            "abdomen.liver": [box(RIGHT)], "abdomen.kidney@right": [box(MIDDLE)], "abdomen.kidney@left": [box(LEFT)],
        }  # fmt: skip
        assert record.absent == ("abdomen.spleen",)


def test_a_grey_beyond_the_slack_refuses_the_case(tmp_path: Path) -> None:
    root = write_chaos(tmp_path) / "Train_Sets/MR/1/T2SPIR/Ground"
    Image.fromarray(np.full((16, 24), 100, np.uint8)).save(root / "IMG-0002-00003.png")
    (reject,) = converted("mri_chaos", tmp_path).rejects
    assert reject.reason == "unknown_label"
    assert "'100'" in reject.detail


def write_totalsegmentator(folder: Path) -> Path:
    root = folder / "TotalsegmentatorMRI_dataset_v200/s0001"
    save(root / "mri.nii.gz", noise(SHAPE_IJK, "total"))
    for name, block in (("liver", RIGHT), ("lung_left", LEFT), ("thigh_medial_compartment_right", MIDDLE), ("spleen", None)):
        save(root / "segmentations" / f"{name}.nii.gz", labelled((1, block)) if block else labelled())
    decoys(root.parent, "meta.csv")
    return folder


def test_totalsegmentator_mri_reads_its_masks(tmp_path: Path) -> None:
    result = checked("mr_totalsegmentator", write_totalsegmentator(tmp_path))
    assert result.reasons == []
    assert shown(fullest(result.records)) == {
        "abdomen.liver": [box(RIGHT)], "thorax.lung@left": [box(LEFT)],
        "musculoskeletal.muscle.thigh_medial@right": [box(MIDDLE)],
    }  # fmt: skip


def test_the_dataset_of_them_all_validates_clean(tmp_path: Path) -> None:
    special = {
        "mri_mnms": lambda folder: write_mnms(folder, BOTH, (0, 3)), "mri_lgg_kaggle": write_lgg, "mri_chaos": write_chaos,
        "mr_totalsegmentator": write_totalsegmentator,
    }  # fmt: skip
    check_dataset({source: partial(write_plain, source) for source in PLAIN} | special, tmp_path)


CONFLICTS = [
    ("mri_acdc", "mri_mnms", "1", "thorax.heart.right_ventricle", "thorax.heart.left_ventricle"),
    ("mri_acdc", "mri_mnms", "3", "thorax.heart.left_ventricle", "thorax.heart.right_ventricle"),
    ("ct_btcv", "ct_flare22", "1", "abdomen.spleen", "abdomen.liver"),
    ("ct_btcv", "ct_flare22", "6", "abdomen.liver", "abdomen.inferior_vena_cava"),
    ("mri_brats21", "mri_brats23_glioma", "3", None, f"{BRAIN}.tumor.enhancing_core"),
    ("mri_brats21", "mri_brats23_glioma", "4", f"{BRAIN}.tumor.enhancing_core", None),
    ("mri_brats21", "mri_msd_brain", "1", f"{BRAIN}.tumor.necrotic_core", f"{BRAIN}.tumor.edema"),
    ("ct_msd_pancreas", "ct_lits", "2", "abdomen.pancreas.tumor", "abdomen.liver.tumor"),
]
# Source -> its images, "{}" standing for a sequence, and their label file.
LABELLED = {
    "mri_acdc": ("training/patient001/patient001_frame01.nii.gz", "training/patient001/patient001_frame01_gt.nii.gz"),
    "ct_btcv": ("Training/img/img0001.nii.gz", "Training/label/label0001.nii.gz"),
    "ct_flare22": ("FLARE22_LabeledCase50/images/FLARE22_Tr_0001_0000.nii.gz",
                   "FLARE22_LabeledCase50/labels/FLARE22_Tr_0001.nii.gz"),
    "mri_brats21": ("BraTS2021_00000/BraTS2021_00000_{}.nii.gz", "BraTS2021_00000/BraTS2021_00000_seg.nii.gz"),
    "mri_brats23_glioma": ("BraTS-GLI-00002-000/BraTS-GLI-00002-000-{}.nii.gz",
                           "BraTS-GLI-00002-000/BraTS-GLI-00002-000-seg.nii.gz"),
    "mri_msd_brain": ("imagesTr/BRATS_001.nii.gz", "labelsTr/BRATS_001.nii.gz"),
    "ct_msd_pancreas": ("imagesTr/pancreas_001.nii.gz", "labelsTr/pancreas_001.nii.gz"),
    "ct_lits": ("volume-0.nii", "segmentation-0.nii"),
}  # fmt: skip


def own_concepts(source: str, value: int, folder: Path) -> set[str] | None:
    """What a volume with one label value shows, less the unions that are derived of it; None where it is refused."""
    if source == "mri_mnms":
        write_mnms(folder, {"A0S9V9": (0, 0), "B1C2D3": (0, 0), "E4F5G6": (0, 0)}, (0,))
        for path in folder.rglob("*_sa_gt.nii.gz"):
            save(path, labelled((value, MIDDLE))[..., None].repeat(5, 3))
            save(Path(str(path).replace("_sa_gt", "_sa")), noise((*SHAPE_IJK, 5)))
    else:
        image, labels = LABELLED[source]
        for part in load_source(source).parts:  # those of BraTS are named by their sequences
            save(folder / image.format(part.name), noise((*SHAPE_IJK, 4) if source == "mri_msd_brain" else SHAPE_IJK))
        save(folder / labels, labelled((value, MIDDLE)))
    result = converted(source, folder)
    if result.rejects:
        assert set(result.reasons) == {"unknown_label"}
        return None
    unions = {derived.named.concept for part in load_source(source).parts for derived in part.derived}
    return {region.concept for record in result.records for region in record.regions} - unions


@pytest.mark.parametrize(("one", "other", "value", "of_one", "of_other"), CONFLICTS)
def test_one_value_means_what_its_own_source_says(
    one: str, other: str, value: str, of_one: str | None, of_other: str | None, tmp_path: Path
) -> None:
    for source, concept in ((one, of_one), (other, of_other)):
        found = own_concepts(source, int(value), tmp_path / source)
        assert found == (None if concept is None else {concept})
