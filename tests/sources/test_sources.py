"""Every source in datasets/: it loads, its converter takes what it says, and its samples convert where they are there."""

from pathlib import Path

import pytest

from medglip.curate import load_source, source_names
from medglip.curate.engine import found_tasks, load_converter, run
from medglip.curate.layout import compiled
from medglip.records import MODALITIES, Picture, Reject, label_tree

# Rejects that a sample of the source must give, because its files are so.
EXPECTED = {"us_busi": {"size_mismatch"}}
SAMPLES = (
    "ct_bhsd_hemorrhage", "ct_curvas_abdomen", "ct_mr_sammed2d_demo", "derm_ham10000", "endo_kvasir_seg_512",
    "endo_kvasir_seg_native", "fundus_chase_db1", "fundus_drive", "fundus_idrid_hardexudates", "mri_pd25_brain",
    "mri_spider_lumbar_t2", "multi_biomedparse_demo", "path_bccd_blood_cells", "path_monusac", "path_rings_prostate",
    "petct_soft_tissue_sarcoma", "us_busi", "us_carotid_ccaus", "us_covid_pocus", "us_hc18_fetal_head",
    "xray_cdd_cesm_mammo", "xray_covid_chestxray", "xray_nih_chestxray14", "xray_tbx11k_sample",
)  # fmt: skip
# Sources whose samples hold no region: texts only, or boxes of other images.
WITHOUT_REGIONS = ("us_covid_pocus", "xray_nih_chestxray14")
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
    assert len({part.name for part in source.parts}) == len(source.parts)


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
    for record in records:
        assert all(region.phrases for region in record.regions)
        assert name not in FLIPPED or not any(region.laterality for region in record.regions)


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
