"""Every source in datasets/: it loads, its converter takes what it says, and its samples convert where they are there."""

from pathlib import Path

import pytest

from medglip.curate import convert, load_source, source_names
from medglip.curate.engine import found_tasks, load_converter, run
from medglip.curate.layout import compiled
from medglip.phantoms import write_archive
from medglip.records import MODALITIES, Picture, Reject, label_tree
from medglip.records.captions import caption_of
from medglip.store.checks.validate import validate
from medglip.store.matrix import Matrix

# Rejects that a sample of the source must give, because its files are so.
EXPECTED = {
    "us_busi": {"size_mismatch"},
    "dicom_cornerstone_transfer_syntaxes": {"duplicate_image"},  # one slice, stored in many ways
    "dicom_dicom2nifti": {"duplicate_image"},
    "dicom_pydicom_testfiles": {"duplicate_image", "not_a_picture", "unreadable_file"},
    "dicom_seg_highdicom": {"missing_image", "other_modality"},  # SEG objects of images elsewhere, and of slides
    "nifti_nibabel_testdata": {"constant_image", "no_pixels"},
}
SAMPLES = (
    "ct_bhsd_hemorrhage", "ct_curvas_abdomen", "ct_mr_sammed2d_demo", "derm_ham10000",
    "dicom_cornerstone_transfer_syntaxes", "dicom_ct_head_ge_tilt", "dicom_dicom2nifti", "dicom_mr_12bit",
    "dicom_pet_acrin_flt_breast", "dicom_pydicom_testfiles", "dicom_rtstruct_dicompyler", "dicom_seg_highdicom",
    "endo_kvasir_seg_512", "endo_kvasir_seg_native", "fundus_chase_db1", "fundus_drive", "fundus_idrid_hardexudates",
    "mri_mni152_nilearn", "mri_pd25_brain", "mri_spider_lumbar_t2", "multi_biomedparse_demo", "nifti_nibabel_testdata",
    "nifti_niivue", "path_bccd_blood_cells", "path_monusac", "path_rings_prostate", "petct_soft_tissue_sarcoma",
    "us_busi", "us_carotid_ccaus", "us_covid_pocus", "us_hc18_fetal_head", "xray_cdd_cesm_mammo",
    "xray_covid_chestxray", "xray_nih_chestxray14", "xray_tbx11k_sample",
)  # fmt: skip
# Sources whose samples hold no region: texts only, boxes of other images, or images that nobody marked.
WITHOUT_REGIONS = (
    "us_covid_pocus", "xray_nih_chestxray14", "dicom_cornerstone_transfer_syntaxes", "dicom_ct_head_ge_tilt",
    "dicom_dicom2nifti", "dicom_mr_12bit", "dicom_pet_acrin_flt_breast", "dicom_pydicom_testfiles", "mri_mni152_nilearn",
    "nifti_nibabel_testdata", "nifti_niivue",
)  # fmt: skip
# Their files were flipped by whoever copied them: no region may claim a side.
FLIPPED = ("petct_soft_tissue_sarcoma", "xray_cdd_cesm_mammo")


@pytest.mark.parametrize("name", source_names())
def test_a_source_is_complete(name: str) -> None:
    source = load_source(name)
    assert source.name == name
    assert source.licence.strip()
    assert source.title.strip()
    assert source.page.startswith("https://") or name == "phantom"
    assert source.modalities
    assert set(source.modalities) <= set(MODALITIES)
    tree = label_tree()
    for part in source.parts:
        converter = load_converter(part)  # knows every role and option, or raises
        assert converter.__doc__
        for pattern in part.files.values():
            compiled(pattern)
        for concept in (*part.exhaustive, *(named.concept for named in part.labels.values() if named)):
            assert tree.split(concept)[0] in tree
        assert part.field, f"{name} {part.name}: say what anatomy its images show"
        matrix = Matrix({name: {part.modality: [part.facts]}})
        states = {concept: matrix.state(name, part.modality, concept) for concept in part.exhaustive}
        assert set(states.values()) <= {"exhaustive"}
        named = {matrix.state(name, part.modality, one.concept) for one in part.labels.values() if one}
        assert "impossible" not in named
        assert matrix.state(name, part.modality, part.field[0]) != "impossible"
    assert len({part.name for part in source.parts}) == len(source.parts)


def check_matrix(matrix, record):
    """Nothing impossible is shown; what is absent is not shown under a narrower name; what is searched for is known."""
    tree = label_tree()
    for region in record.regions:
        assert matrix.state(record.origin.dataset, record.modality, region.concept) != "impossible", region.concept
        assert not matrix.is_negative(record, region.concept)
        ids = {other.id: other for other in record.regions}
        assert all(ids[parent].label != region.label for parent in region.parents)
    for concept in record.absent:
        assert matrix.is_negative(record, concept)
        assert matrix.state(record.origin.dataset, record.modality, concept) != "impossible", concept
        assert not any(tree.covers(concept, region.concept) for region in record.regions)


def test_phantoms_fit_the_matrix(tmp_path: Path) -> None:
    tasks, _ = found_tasks(load_source("phantom"), write_archive(tmp_path / "archive", cases=1, seed=5))
    records = [item.record for task in tasks for item in run(task) if isinstance(item, Picture)]
    matrix = Matrix({"phantom": load_source("phantom").matrix})
    for record in records:
        check_matrix(matrix, record)
        assert all(len(region.phrases) >= 3 for region in record.regions)
    assert {record.modality for record in records} == set(load_source("phantom").modalities)
    assert any(region.parents for record in records for region in record.regions)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_samples_of_a_source_convert(name: str, real_data: Path) -> None:
    folder = real_data / name.replace("_", "-")
    if not folder.is_dir():
        pytest.skip(f"no samples of {name}")
    tasks, rejects = found_tasks(load_source(name), folder, limit=4)
    items = [item for task in tasks[:12] for item in run(task)]
    records = [item.record for item in items if isinstance(item, Picture)]
    rejects += [item for item in items if isinstance(item, Reject)]
    assert records
    assert {reject.reason for reject in rejects} <= EXPECTED.get(name, set())
    assert any(record.regions for record in records) or name in WITHOUT_REGIONS
    matrix = Matrix({name: load_source(name).matrix})
    for record in records:
        assert all(len(region.phrases) >= 3 for region in record.regions)
        check_matrix(matrix, record)
        caption = caption_of(record, label_tree())
        assert sorted(one for span in caption.spans for one in span.regions) == [region.id for region in record.regions]
        assert name not in FLIPPED or not any(region.laterality for region in record.regions)


@pytest.mark.parametrize("name", [name for name in source_names() if name != "phantom"])
def test_a_dataset_of_a_source_validates_clean(name: str, real_data: Path, tmp_path: Path) -> None:
    folder = real_data / name.replace("_", "-")
    if not folder.is_dir():
        pytest.skip(f"no samples of {name}")
    convert(name, folder, tmp_path / "dataset", limit=2)
    problems = validate(tmp_path / "dataset")
    assert [problem for problem in problems if problem.level == "error"] == []


@pytest.mark.parametrize(
    ("name", "patient_of"),
    [
        ("ct_bhsd_hemorrhage", lambda stem: stem[:3]),
        ("ct_curvas_abdomen", lambda stem: stem.split("_")[0]),
        ("mri_spider_lumbar_t2", lambda stem: stem.split("_")[0]),
        ("mri_pd25_brain", lambda stem: "atlas"),
        ("petct_soft_tissue_sarcoma", lambda stem: stem.split("STS_")[1][:3]),
        ("path_monusac", lambda stem: stem[:12]),
        ("us_carotid_ccaus", lambda stem: stem.split("_slice_")[0]),
        ("fundus_chase_db1", lambda stem: stem[:8]),
    ],
)
def test_slices_and_distorted_copies_of_a_patient_stay_together(name, patient_of, real_data: Path) -> None:
    source = load_source(name)
    tasks, _ = found_tasks(source, real_data / name.replace("_", "-"))
    by_patient: dict[str, set[str]] = {}
    for task in tasks:
        template = task.part.patient.format_map(task.case.fields)
        by_patient.setdefault(patient_of(Path(task.case.one("image")).stem), set()).add(template)
    assert all(len(groups) == 1 for groups in by_patient.values())
    assert len(set.union(*by_patient.values())) == len(by_patient)


def test_the_images_of_busi_without_a_tumour_are_negatives(real_data: Path) -> None:
    tasks, _ = found_tasks(load_source("us_busi"), real_data / "us-busi")
    (normal,) = [item.record for task in tasks if task.case.fields["class"] == "normal" for item in run(task)][:1]
    assert not normal.regions
    assert "thorax.breast.tumor" in normal.absent
    assert [text.text for text in normal.texts] == ["Breast ultrasound: normal."]


def test_an_image_of_the_covid_collection_is_annotated_once(real_data: Path) -> None:
    tasks, _ = found_tasks(load_source("xray_covid_chestxray"), real_data / "xray-covid-chestxray")
    records = [item.record for task in tasks for item in run(task) if isinstance(item, Picture)]
    assert len({record.origin.file for record in records}) == len(records)
    for record in records:
        assert len({region.laterality is None for region in record.regions}) <= 1  # with sides, or without: not both
        assert record.licence.startswith("CC ")
        assert {text.kind for text in record.texts} == {"finding", "report"}
    assert {record.modality for record in records} == {"xray", "ct"}


def test_of_contours_those_on_the_slices_that_are_there_become_regions(real_data: Path) -> None:
    tasks, _ = found_tasks(load_source("dicom_rtstruct_dicompyler"), real_data / "dicom-rtstruct-dicompyler")
    records = [item.record for task in tasks for item in run(task) if isinstance(item, Picture)]
    (region,) = [region for record in records for region in record.regions]
    assert region.label == "systemic.body"
    assert region.mask is not None
    width_mm = (region.box_xyxy[2] - region.box_xyxy[0]) * records[0].spacing_mm[1]
    assert 300 < width_mm < 550  # an adult with the arms up
    assert "thorax.heart" in records[0].absent  # drawn on other slices
