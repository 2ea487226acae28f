"""Sources of PET and of 3-D OCT in their published layouts, generated tiny: counts, boxes, units, and their traps."""

from pathlib import Path

import numpy as np
import pytest
from volumes_world import (
    LEFT,
    MIDDLE,
    RIGHT,
    SHAPE_IJK,
    SPACING_MM,
    box,
    check_dataset,
    checked,
    converted,
    decoys,
    fullest,
    labelled,
    noise,
    save,
    shown,
)

STUDIES = {
    "PETCT_0011f3deaf/03-23-2003-NA-PET-CT Ganzkoerper  primaer mit KM-10445": True,
    "PETCT_0011f3deaf/07-12-2004-NA-PET-CT Ganzkoerper nativ-55555": False,
    "PETCT_ffff000001/01-01-2001-NA-Unspecified CT ABDOMEN-00001": True,
}


def write_autopet(folder: Path) -> Path:
    root = folder / "FDG-PET-CT-Lesions"
    for study, has_lesions in STUDIES.items():
        uptake = np.abs(noise(SHAPE_IJK, study)).astype(np.float32) / 30
        save(root / study / "SUV.nii.gz", uptake)
        save(root / study / "CTres.nii.gz", noise(SHAPE_IJK, study, "ct"))
        save(root / study / "SEG.nii.gz", labelled((1, RIGHT), (1, LEFT)) if has_lesions else labelled())
        save(root / study / "PET.nii.gz", uptake * 1000)
        save(root / study / "CT.nii.gz", noise((32, 20, 12), study))
    return folder


def test_autopet_is_read_in_suv_on_the_grid_of_the_pet(tmp_path: Path) -> None:
    result = checked("pet_autopet", write_autopet(tmp_path))
    assert result.reasons == []
    files = {(record.modality, Path(record.origin.file).name) for record in result.records}
    assert files == {("pet", "SUV.nii.gz"), ("ct", "CTres.nii.gz")}
    assert len(result.volumes) == 2 * len(STUDIES)
    assert len({record.group for record in result.records}) == 2
    for study, has_lesions in STUDIES.items():
        pet = [r for r in result.records if study in r.origin.file and r.modality == "pet"]
        ct = [r for r in result.records if study in r.origin.file and r.modality == "ct"]
        assert {(r.intensity.unit, r.intensity.window) for r in pet} == {("SUVbw", (0.0, 10.0))}
        assert {r.intensity.unit for r in ct} == {"HU"}
        for records in (pet, ct):
            assert shown(fullest(records)) == ({"systemic.pet_lesion": [box(RIGHT), box(LEFT)]} if has_lesions else {})
            empty = [r for r in records if not r.regions]
            assert empty
            assert all(r.absent == ("systemic.pet_lesion",) for r in empty)


def test_uptake_is_stored_as_it_was(tmp_path: Path) -> None:
    result = converted("pet_autopet", write_autopet(tmp_path))
    picture = next(p for p in result.pictures if p.record.modality == "pet" and "10445" in p.record.origin.file)
    meaning = picture.record.intensity
    values = picture.pixels * meaning.slope + meaning.intercept
    truth = np.abs(noise(SHAPE_IJK, next(iter(STUDIES)))).astype(np.float32)[:, :, picture.record.origin.slice].T / 30
    assert np.abs(values - truth).max() <= meaning.slope


def write_hecktor(folder: Path, moved_mm: float = 0.0) -> Path:
    """CT and labels on a grid twice as fine as that of the PET, voxel for voxel inside its voxels."""
    fine, coarse = np.diag([-1.5, -1.5, 4.0, 1.0]), np.diag([-3.0, -3.0, 4.0, 1.0])
    coarse[:2, 3] = -0.75  # centres of the coarse voxels lie between two fine ones
    coarse[2, 3] = moved_mm
    labels = labelled((1, (2, 2, 2, 6, 12, 10)), (2, (18, 4, 3, 22, 12, 9)))
    save(folder / "hecktor2022_training/imagesTr/CHUM-001__CT.nii.gz", noise(SHAPE_IJK, "hecktor"), fine)
    uptake = np.abs(noise((12, 8, 12))).astype(np.float32) / 30
    save(folder / "hecktor2022_training/imagesTr/CHUM-001__PT.nii.gz", uptake, coarse)
    save(folder / "hecktor2022_training/labelsTr/CHUM-001.nii.gz", labels, fine)
    decoys(folder, "hecktor2022_training/hecktor2022_clinical_info_training.csv",
           "hecktor2022_testing/imagesTs/USZ-001__CT.nii.gz")  # fmt: skip
    return folder


def test_labels_on_the_grid_of_the_ct_are_brought_onto_the_pet(tmp_path: Path) -> None:
    result = checked("pet_hecktor22", write_hecktor(tmp_path))
    assert result.reasons == []
    primary, nodal = "head_neck.neck.primary_tumor", "head_neck.neck.lymph_node_tumor"
    by_modality = {m: [r for r in result.records if r.modality == m] for m in ("ct", "pet")}
    assert shown(fullest(by_modality["ct"])) == {primary: [(2, 2, 6, 12)], nodal: [(18, 4, 22, 12)]}
    assert shown(fullest(by_modality["pet"])) == {primary: [(1, 1, 3, 6)], nodal: [(9, 2, 11, 6)]}
    assert [volume.checks.get("labels_resampled") for volume in result.volumes] == [None, "nearest"]
    assert {r.intensity.unit for r in by_modality["pet"]} == {"SUVbw"}
    assert {r.absent for r in by_modality["pet"] if len(r.regions) == 1} == {(nodal,)}


def test_where_the_image_reaches_beyond_the_labels_nothing_is_absent(tmp_path: Path) -> None:
    result = checked("pet_hecktor22", write_hecktor(tmp_path, moved_mm=8.0))
    pet = [record for record in result.records if record.modality == "pet"]
    assert [record.origin.slice for record in pet] == list(range(8))  # two planes further down
    assert all(record.absent == () for record in pet)
    assert result.volumes[1].checks["labels_cover"] == "part"


def test_labels_beside_the_image_are_not_an_empty_image(tmp_path: Path) -> None:
    result = converted("pet_hecktor22", write_hecktor(tmp_path, moved_mm=500.0))
    assert result.reasons == ["geometry_mismatch"]
    assert {record.modality for record in result.records} == {"ct"}


def write_retouch(folder: Path) -> Path:
    for name in ("Cirrus/TRAIN001", "Spectralis/TRAIN025", "Topcon/TRAIN049"):
        root = folder / f"RETOUCH-TrainingSet-{name}"
        save(root / "oct.mhd", np.abs(noise(SHAPE_IJK, name)) % 256)
        save(root / "reference.mhd", labelled((1, RIGHT), (2, LEFT), (3, MIDDLE)).astype(np.uint8))
    decoys(folder, "RETOUCH-TestSet-Cirrus/TEST001/oct.mhd")
    return folder


@pytest.mark.parametrize("missing", [False, True])
def test_bscans_of_retouch_lie_as_the_scanner_wrote_them(missing: bool, tmp_path: Path) -> None:
    write_retouch(tmp_path)
    if missing:
        (tmp_path / "RETOUCH-TrainingSet-Topcon/TRAIN049/reference.raw").unlink()
    result = checked("oct_retouch", tmp_path)
    assert result.reasons == ["unreadable_file"] * missing
    retina = "head_neck.eye.retina"
    assert len(result.volumes) == 3 - missing
    for record in result.records:
        assert record.affine_px_to_mm is None
        assert "orientation_unknown" in record.flags
        assert record.spacing_mm == pytest.approx((SPACING_MM[1], SPACING_MM[0]))
        assert not any(region.laterality for region in record.regions)
        assert (record.height, record.width) == (SHAPE_IJK[1], SHAPE_IJK[0])
    assert shown(fullest(result.records)) == {
        f"{retina}.intraretinal_fluid": [box(RIGHT)], f"{retina}.subretinal_fluid": [box(LEFT)],
        f"{retina}.pigment_epithelial_detachment": [box(MIDDLE)],
    }  # fmt: skip


def test_the_dataset_of_them_all_validates_clean(tmp_path: Path) -> None:
    check_dataset({"pet_autopet": write_autopet, "pet_hecktor22": write_hecktor, "oct_retouch": write_retouch}, tmp_path)
