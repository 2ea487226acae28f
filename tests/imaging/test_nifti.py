import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from medglip.errors import InputError
from medglip.imaging.nifti import read_labels, read_volume

AFFINE_RAS = np.array([[-0.9, 0, 0, 10], [0, 0.9, 0, -20], [0, 0, 3.0, 5], [0, 0, 0, 1]])


def write(path: Path, array: np.ndarray, affine: np.ndarray | None = AFFINE_RAS, **header: float) -> Path:
    image = nibabel.Nifti1Image(array, affine)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def test_ras_is_flipped_once_to_lps(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    volume = read_volume(write(tmp_path / "a.nii.gz", array))
    assert np.array_equal(volume.voxels, array.transpose(2, 1, 0))
    assert volume.affine_ijk_to_mm @ (1, 2, 3, 1) == pytest.approx((-9.1, 18.2, 14, 1))
    assert volume.spacing_kji_mm == pytest.approx((3.0, 0.9, 0.9))
    assert volume.orientation == "LAS"


def test_scaling_is_applied(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.int16), AFFINE_RAS)
    image.header.set_slope_inter(2.0, -1024.0)
    nibabel.save(image, tmp_path / "ct.nii")
    volume = read_volume(tmp_path / "ct.nii", modality="ct")
    assert volume.unit == "HU"
    assert volume.voxels.dtype == np.float32


def test_ct_without_a_negative_number_is_not_in_hounsfield_units(tmp_path: Path) -> None:
    volume = read_volume(write(tmp_path / "ct.nii", np.ones((2, 2, 2), np.int16)), modality="ct")
    assert volume.unit == "au"
    assert "not_hu" in volume.flags


def test_sform_then_qform_then_unknown(tmp_path: Path) -> None:
    array = np.zeros((2, 3, 4), np.uint8)
    image = nibabel.Nifti1Image(array, AFFINE_RAS)
    other = AFFINE_RAS.copy()
    other[0, 3] = 99.0
    image.set_qform(other, 1)
    image.set_sform(AFFINE_RAS, 2)
    nibabel.save(image, tmp_path / "both.nii")
    both = read_volume(tmp_path / "both.nii")
    assert both.affine_ijk_to_mm[0, 3] == -10.0
    assert both.checks["sform_qform"] == "differ"
    image.set_sform(None, 0)
    nibabel.save(image, tmp_path / "q.nii")
    assert read_volume(tmp_path / "q.nii").affine_ijk_to_mm[0, 3] == -99.0
    image.set_qform(None, 0)
    nibabel.save(image, tmp_path / "none.nii")
    none = read_volume(tmp_path / "none.nii")
    assert none.affine_ijk_to_mm is None
    assert "orientation_unknown" in none.flags
    assert none.spacing_kji_mm == pytest.approx((3.0, 0.9, 0.9))


def test_four_dimensions_need_an_index(tmp_path: Path) -> None:
    array = np.arange(48, dtype=np.int16).reshape(2, 3, 4, 2)
    path = write(tmp_path / "bold.nii.gz", array)
    with pytest.raises(InputError, match=r"'bold.nii.gz' holds 2 volumes.*index"):
        read_volume(path)
    with pytest.raises(InputError, match=r"found index 2; allowed: 0 to 1"):
        read_volume(path, index=2)
    assert np.array_equal(read_volume(path, index=1).voxels, array[..., 1].T)
    assert read_volume(write(tmp_path / "one.nii", array[..., :1])).shape_kji == (4, 3, 2)


def test_a_truncated_or_missing_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "whole.nii.gz", np.random.default_rng(0).integers(0, 900, (20, 20, 20)).astype(np.int16))
    (tmp_path / "cut.nii.gz").write_bytes(path.read_bytes()[:-400])
    for name in ("cut.nii.gz", "empty.nii.gz", "text.nii", "gone.nii"):
        if name == "empty.nii.gz":
            (tmp_path / name).write_bytes(b"")
        if name == "text.nii":
            (tmp_path / name).write_text("no volume")
        with pytest.raises(InputError, match=name):
            read_volume(tmp_path / name)


def test_labels_are_integers_and_may_exceed_255(tmp_path: Path) -> None:
    array = np.array([[[0, 300], [2, 70000]]], np.float64)
    labels = read_labels(write(tmp_path / "seg.nii", array))
    assert labels.voxels.dtype.kind == "i"
    assert sorted(np.unique(labels.voxels)) == [0, 2, 300, 70000]
    array[0, 0, 0] = 0.4
    with pytest.raises(InputError, match=r"'seg.nii' holds values such as 0\.4.*integers"):
        read_labels(write(tmp_path / "seg.nii", array))


def test_numbers_that_are_not_finite_are_filled_and_counted(tmp_path: Path) -> None:
    array = np.array([[[1.0, np.nan, np.inf, -2.0]]], np.float32)
    volume = read_volume(write(tmp_path / "nan.nii", array))
    assert volume.voxels.ravel().tolist() == [1.0, -2.0, -2.0, -2.0]
    assert volume.checks["not_finite_filled"] == "2"


def test_big_endian_and_colour_voxels(tmp_path: Path) -> None:
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    big = nibabel.Nifti1Image(np.arange(8, dtype=">i2").reshape(2, 2, 2), AFFINE_RAS, header)
    nibabel.save(big, tmp_path / "big.nii")
    assert read_volume(tmp_path / "big.nii").voxels.dtype == np.dtype("=i2")
    colour = np.zeros((2, 3, 4), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    colour["G"] = 7
    volume = read_volume(write(tmp_path / "rgb.nii", colour))
    assert volume.voxels.shape == (4, 3, 2, 3)
    assert volume.unit == "rgb"


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_nrrd_and_metaimage_agree_with_nifti(tmp_path: Path, ending: str) -> None:
    nifti = write(tmp_path / "a.nii", np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(nifti)), str(tmp_path / f"a.{ending}"))
    first, second = read_volume(nifti), read_volume(tmp_path / f"a.{ending}")
    assert np.array_equal(first.voxels, second.voxels)
    assert np.allclose(first.affine_ijk_to_mm, second.affine_ijk_to_mm, atol=1e-5)
    content = (tmp_path / f"a.{ending}").read_bytes()
    (tmp_path / f"cut.{ending}").write_bytes(content[:-20])
    with pytest.raises(InputError, match=f"cut.{ending}"):
        read_volume(tmp_path / f"cut.{ending}")


def test_an_nrrd_without_pitch_has_none(tmp_path: Path) -> None:
    (tmp_path / "bare.nrrd").write_bytes(
        b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n\n" + bytes(range(8))
    )
    volume = read_volume(tmp_path / "bare.nrrd")
    assert volume.voxels.sum() == 28
    assert volume.affine_ijk_to_mm is None
    assert volume.spacing_kji_mm is None


def test_gzip_without_nifti_is_named(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "x.nii.gz", "wb") as file:
        file.write(b"nothing")
    with pytest.raises(InputError, match=r"x\.nii\.gz"):
        read_volume(tmp_path / "x.nii.gz")


def test_real_edge_cases(real_data: Path) -> None:
    nibabel_data = real_data / "nifti-nibabel-testdata"
    assert read_volume(nibabel_data / "anatomical.nii").voxels.dtype.isnative
    assert read_volume(nibabel_data / "example_nifti2.nii.gz", index=0).voxels.ndim == 3
    assert read_volume(nibabel_data / "test.mgz", index=0).affine_ijk_to_mm is not None
    with pytest.raises(InputError, match=r"nifti1\.hdr"):
        read_volume(nibabel_data / "nifti1.hdr")
    assert "not_hu" in read_volume(real_data / "nifti-niivue" / "CT_AVM.nii.gz", modality="ct").flags
