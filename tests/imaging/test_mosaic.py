from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medglip.imaging.dicom import read_dicom, read_header
from medglip.imaging.nifti import read_volume
from medglip.imaging.series import read_series, series_in
from medglip.imaging.volume import on_grid_of

Make = Callable[..., Path]
VOXELS = np.random.default_rng(0).integers(0, 2000, (5, 4, 6)).astype(np.uint16)


@pytest.fixture
def mosaic(tmp_path: Path, make_dicom: Make) -> Path:
    """VOXELS as a mosaic of three by three tiles, four of them empty."""
    tiles = np.zeros((9, 4, 6), np.uint16)
    tiles[:5] = VOXELS
    frame = tiles.reshape(3, 3, 4, 6).swapaxes(1, 2).reshape(12, 18)
    path = make_dicom(tmp_path / "m", frame, Modality="MR", ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"],
                      ImageOrientationPatient=[1, 0, 0, 0, 1, 0], PixelSpacing=[2.0, 1.0], SpacingBetweenSlices=3.0,
                      # where the corner of a slice as large as the mosaic would be: 6 columns and 4 rows further out
                      ImagePositionPatient=[10.0 - 6.0, 20.0 - 8.0, 30.0])  # fmt: skip
    header = read_header(path, pixels=True)
    header.add_new((0x0019, 0x0010), "LO", "SIEMENS MR HEADER")
    header.add_new((0x0019, 0x100A), "US", 5)
    header.save_as(path)
    return path


def test_a_mosaic_is_a_volume_of_its_tiles(mosaic: Path) -> None:
    image = read_dicom(mosaic)
    assert np.array_equal(image.frames, VOXELS)
    assert "mosaic" in image.flags
    (series,) = series_in([mosaic])
    volume = read_series(series)
    assert np.array_equal(volume.voxels, VOXELS)
    assert volume.spacing_kji_mm == pytest.approx((3.0, 2.0, 1.0))
    assert volume.affine_ijk_to_mm @ (1, 2, 3, 1) == pytest.approx((11.0, 24.0, 39.0, 1.0))


def test_a_number_of_tiles_that_does_not_fit_is_not_believed(mosaic: Path) -> None:
    header = read_header(mosaic, pixels=True)
    header[0x0019, 0x100A].value = 20  # five tiles a row do not divide 18 columns
    header.save_as(mosaic)
    assert read_dicom(mosaic).frames.shape == (1, 12, 18)


@pytest.mark.parametrize(("file", "reference"), [("12bitUnsigned.dcm", "2.nii"), ("12bitSigned_0x0F0F.dcm", "4.nii")])
def test_real_mosaics_equal_their_reference(real_data: Path, file: str, reference: str) -> None:
    folder = real_data / "dicom-mr-12bit"
    (series,) = series_in([folder / "In" / file])
    volume = read_series(series)
    voxels, off = on_grid_of(volume, read_volume(folder / "Ref" / reference), reference)
    assert off == 0.0
    assert np.array_equal(volume.voxels, voxels)
