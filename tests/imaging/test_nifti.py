import gzip
import struct
import tracemalloc
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


def patched(path: Path, at: int, kind: str, *values: float) -> Path:
    """The NIfTI-1 file with numbers of its header replaced."""
    content = bytearray(path.read_bytes())
    content[at : at + struct.calcsize(kind) * len(values)] = struct.pack(f"<{len(values)}{kind}", *values)
    path.write_bytes(content)
    return path


PIXDIM, SLOPE = 80, 112  # offsets in the NIfTI-1 header


def plain(path: Path, affine: np.ndarray | None, codes: tuple[int, int] = (1, 1)) -> Path:
    image = nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), affine)
    image.set_sform(affine, codes[0])
    image.set_qform(affine, codes[1])
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("slope", [0.0, float("nan")])
def test_a_slope_of_zero_or_nan_scales_nothing(tmp_path: Path, slope: float) -> None:
    path = patched(plain(tmp_path / "x.nii", np.eye(4)), SLOPE, "f", slope, 7.0)
    assert read_volume(path).voxels.max() == 59


@pytest.mark.parametrize(
    ("pitch", "spacing"), [(-2.0, (3.0, 2.0, 2.0)), (0.0, None), (float("nan"), None)],
)  # fmt: skip
def test_a_pitch_that_cannot_be_is_never_made_up(tmp_path: Path, pitch: float, spacing: tuple | None) -> None:
    matrix = np.diag([2.0, 2.0, 3.0, 1.0])
    bare = patched(plain(tmp_path / "bare.nii", matrix, (0, 0)), PIXDIM, "f", pitch)
    volume = read_volume(bare)
    assert volume.spacing_kji_mm == spacing
    assert "orientation_unknown" in volume.flags
    only_qform = read_volume(patched(plain(tmp_path / "q.nii", matrix, (0, 1)), PIXDIM, "f", pitch))
    assert only_qform.spacing_kji_mm == spacing
    assert (only_qform.affine_ijk_to_mm is None) == (spacing is None)
    with_sform = read_volume(patched(plain(tmp_path / "s.nii", matrix, (1, 1)), PIXDIM, "f", pitch))
    assert with_sform.spacing_kji_mm == (3.0, 2.0, 2.0)  # the sform knows better


def test_a_sheared_affine_is_kept_and_told(tmp_path: Path) -> None:
    matrix = np.diag([2.0, 2.0, 3.0, 1.0])
    matrix[1, 2] = 0.8
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), matrix)
    image.set_qform(None, 0)
    nibabel.save(image, tmp_path / "x.nii")
    volume = read_volume(tmp_path / "x.nii")
    assert volume.checks["sheared"] == "yes"
    assert np.allclose(volume.affine_ijk_to_mm, np.diag([-1, -1, 1, 1]) @ matrix)
    assert volume.spacing_kji_mm == pytest.approx((np.hypot(3.0, 0.8), 2.0, 2.0))


@pytest.mark.parametrize("kind", [nibabel.Nifti1Pair, nibabel.Nifti2Image, nibabel.MGHImage])
def test_pairs_nifti_2_and_mgh_equal_nifti_1(tmp_path: Path, kind: type) -> None:
    data, matrix = np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.diag([-1.0, 2.0, 3.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(data, matrix), tmp_path / "one.nii")
    ending = {nibabel.Nifti1Pair: "img", nibabel.Nifti2Image: "nii.gz", nibabel.MGHImage: "mgz"}[kind]
    image = kind(data, matrix)
    if kind is nibabel.Nifti2Image or kind is nibabel.Nifti1Pair:
        image.set_sform(matrix, 1)
    nibabel.save(image, tmp_path / f"two.{ending}")
    one, two = read_volume(tmp_path / "one.nii"), read_volume(tmp_path / f"two.{ending}")
    assert np.array_equal(one.voxels, two.voxels)
    assert np.allclose(one.affine_ijk_to_mm, two.affine_ijk_to_mm)
    if ending == "img":
        assert np.array_equal(read_volume(tmp_path / "two.hdr").voxels, one.voxels)
        (tmp_path / "two.img").unlink()
        with pytest.raises(InputError, match="half of a pair"):
            read_volume(tmp_path / "two.hdr")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("ending", ["nrrd", "nhdr", "mha", "mhd"])
def test_packed_plain_and_detached_volumes_agree(tmp_path: Path, ending: str, compressed: bool) -> None:
    image = SimpleITK.GetImageFromArray(np.arange(60, dtype=np.int16).reshape(5, 4, 3))
    image.SetSpacing((0.5, 2.0, 3.0))
    image.SetOrigin((10.0, 20.0, 30.0))
    SimpleITK.WriteImage(image, str(tmp_path / f"x.{ending}"), compressed)
    volume = read_volume(tmp_path / f"x.{ending}")
    assert np.array_equal(volume.voxels, np.arange(60).reshape(5, 4, 3))
    assert volume.affine_ijk_to_mm @ (1, 1, 1, 1) == pytest.approx((10.5, 22.0, 33.0, 1.0))
    parts = [path for path in tmp_path.iterdir() if path.suffix not in (".nhdr", ".mhd", ".nrrd", ".mha")]
    if parts:
        parts[0].unlink()
        with pytest.raises(InputError, match=f"x.{ending}"):
            read_volume(tmp_path / f"x.{ending}")


def test_a_sheared_nrrd_is_kept_and_told(tmp_path: Path) -> None:
    head = ["NRRD0004", "type: short", "dimension: 3", "space: left-posterior-superior", "sizes: 3 4 5",
            "space directions: (2,0,0) (0,2,0) (0,0.8,3)", "space origin: (1,2,3)", "endian: little",
            "encoding: raw", "", ""]  # fmt: skip
    (tmp_path / "x.nrrd").write_bytes("\n".join(head).encode() + np.arange(60, dtype=np.int16).tobytes())
    volume = read_volume(tmp_path / "x.nrrd")
    assert volume.checks["sheared"] == "yes"
    assert volume.affine_ijk_to_mm @ (1, 1, 1, 1) == pytest.approx((3.0, 4.8, 6.0, 1.0))


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<u1", "<f4", ">f4", "<f8", ">i4"])
@pytest.mark.parametrize("scaled", [None, (0.37, -5.0), (1.0, 1000.0), (2.0, 0.0)])
@pytest.mark.parametrize("kind", ["x.nii", "x.nii.gz", "x.img", "x.img.gz"])
def test_voxels_equal_nibabels_own(tmp_path: Path, dtype: str, scaled: tuple[float, float] | None, kind: str) -> None:
    data = np.random.default_rng(0).integers(0, 200, (6, 5, 4, 3)).astype(dtype)
    header = (nibabel.nifti1.Nifti1PairHeader if ".img" in kind else nibabel.Nifti1Header)(endianness=dtype[0])
    header.set_data_dtype(dtype)
    image = (nibabel.Nifti1Pair if ".img" in kind else nibabel.Nifti1Image)(data, AFFINE_RAS, header)
    nibabel.save(image, tmp_path / kind)
    if scaled:
        holder = tmp_path / kind.replace("img", "hdr")
        head = bytearray(gzip.decompress(holder.read_bytes()) if kind.endswith("gz") else holder.read_bytes())
        head[112:120] = struct.pack(dtype[0].replace("|", "<") + "2f", *scaled)
        holder.write_bytes(gzip.compress(bytes(head)) if kind.endswith("gz") else bytes(head))
    for index in range(3):
        expected = np.asarray(nibabel.load(tmp_path / kind).dataobj)[..., index].T
        voxels = read_volume(tmp_path / kind, index=index).voxels
        assert voxels.dtype.isnative
        assert np.array_equal(voxels, expected.astype(np.float32) if expected.dtype.kind == "f" else expected)
        assert voxels.dtype == (np.float32 if expected.dtype.kind == "f" else np.dtype(dtype).newbyteorder("="))


@pytest.mark.parametrize("index", [None, 2])
def test_a_packed_file_that_ends_early_is_named_wherever_it_ends(tmp_path: Path, index: int | None) -> None:
    shape = (20, 20, 20) if index is None else (20, 20, 20, 3)
    path = write(tmp_path / "x.nii.gz", np.random.default_rng(0).integers(0, 900, shape).astype(np.int16))
    whole = path.read_bytes()
    for kept in (15, 300, 2000, len(whole) // 2, len(whole) - 500):
        path.write_bytes(whole[:kept])
        with pytest.raises(InputError, match=r"x\.nii\.gz"):
            read_volume(path, index=index)


@pytest.mark.parametrize("shape", [(20, 20, 20), (64, 128, 128)])
def test_a_packed_file_whose_checksum_does_not_fit_is_refused(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    data = np.random.default_rng(0).integers(0, 900, shape).astype(np.int16)
    whole = write(tmp_path / "x.nii.gz", data).read_bytes()
    for changed, readable in ((whole[:-8] + b"\x12\x34\x56\x78" + whole[-4:], False), (whole[:-4] + b"\0\0\0\1", False),
                              (whole + b"something else", True), (whole + b"\0" * 600, True), (whole + b"x", True),
                              (whole[:-8], True)):  # fmt: skip
        (tmp_path / "x.nii.gz").write_bytes(changed)
        if readable:
            assert np.array_equal(read_volume(tmp_path / "x.nii.gz").voxels, data.T)
        else:
            with pytest.raises(InputError, match=r"x\.nii\.gz.*broken"):
                read_volume(tmp_path / "x.nii.gz")


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<f4"])
def test_reading_takes_little_more_memory_than_the_volume(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "x.nii.gz"
    header = nibabel.Nifti1Header(endianness=dtype[0])
    header.set_data_dtype(dtype)
    nibabel.save(nibabel.Nifti1Image(np.zeros((128, 256, 256), dtype), AFFINE_RAS, header), path)
    tracemalloc.start()
    try:
        voxels = read_volume(path).voxels
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.3 * voxels.nbytes


def test_a_number_that_is_not_finite_is_filled_also_where_the_file_is_not_packed(tmp_path: Path) -> None:
    array = np.array([[[1.0, np.nan], [3.0, -np.inf]]], np.float32)
    before = write(tmp_path / "x.nii", array).read_bytes()
    volume = read_volume(tmp_path / "x.nii")
    assert volume.checks["not_finite_filled"] == "2"
    assert np.array_equal(volume.voxels.T, [[[1.0, 1.0], [3.0, 1.0]]])
    assert (tmp_path / "x.nii").read_bytes() == before
