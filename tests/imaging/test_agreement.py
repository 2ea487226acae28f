"""Real series read by medglip and by SimpleITK: the same grey values at the same places.

Where they differ on purpose (gantry tilt, gaps, mosaics, SUV, the pitch across a single slice) docs/reference/real-files.md
says why; here these properties are compared as far as they agree.
"""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from medglip.imaging.nifti import read_volume
from medglip.imaging.series import dicom_files, read_series, series_in

SERIES = [
    "ct-mr-totalsegmentator-reference/example_ct_dicom", "dicom-ct-head-ge-tilt",
    "dicom-dicom2nifti/failing/gantrytilting/001", "dicom-dicom2nifti/failing/notavolume/001",
    "dicom-dicom2nifti/failing/slicecount/001", "dicom-dicom2nifti/failing/sliceincrement/001",
    "dicom-dicom2nifti/failing/sliceorientation/001", "dicom-dicom2nifti/ge/dti/002", "dicom-dicom2nifti/ge/fmri/001",
    "dicom-dicom2nifti/generic/anatomical/002_non_isotropic", "dicom-dicom2nifti/generic/compressed_j2k/001",
    "dicom-dicom2nifti/generic/compressed_jpegls/001", "dicom-dicom2nifti/generic/compressed_rle/001",
    "dicom-dicom2nifti/generic/rgb/001", "dicom-dicom2nifti/hitachi/anatomical/001", "dicom-seg-dcmqi/23x38x3/image",
    "dicom-seg-dcmqi/ct-3slice",
]  # fmt: skip


@pytest.mark.parametrize("name", SERIES)
def test_series_equal_simpleitk(real_data: Path, name: str) -> None:
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    found = series_in(dicom_files(real_data / name))
    assert found
    for series in found:
        ours = read_series(series)
        image = SimpleITK.ReadImage([str(frame.path) for frame in series.frames])
        theirs = SimpleITK.GetArrayFromImage(image)
        assert np.allclose(ours.voxels, theirs, rtol=1e-6, atol=1e-6)
        axes = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
        across = 2 if {"gantry_tilt", "missing_slices"} & set(ours.flags) or len(series.frames) == 1 else 3
        assert ours.affine_ijk_to_mm is not None
        assert np.allclose(
            ours.affine_ijk_to_mm[:3, :across], axes[:, :across], atol=1e-3
        )  # GDCM takes the normal, medglip the positions
        assert np.allclose(ours.affine_ijk_to_mm[:3, 3], image.GetOrigin(), atol=1e-4)


@pytest.mark.parametrize(
    "name",
    ["nifti-niivue/CT_AVM.nii.gz", "nifti-niivue/chris_PD.nii.gz", "nifti-niivue/CT_pitch.nii.gz",
     "ct-mr-totalsegmentator-reference/example_mr_sm.nii.gz", "mri-mni-atlas-mricron/aal.nii.gz"],
)  # fmt: skip
def test_volumes_equal_simpleitk(real_data: Path, name: str) -> None:
    ours, image = read_volume(real_data / name), SimpleITK.ReadImage(str(real_data / name))
    theirs = SimpleITK.GetArrayFromImage(image)
    assert np.allclose(ours.voxels, theirs, rtol=1e-5, atol=1e-4 * max(1.0, float(np.abs(theirs).max())))
    axes = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    assert ours.affine_ijk_to_mm is not None
    assert np.allclose(ours.affine_ijk_to_mm[:3, :3], axes, atol=1e-3)
    assert np.allclose(ours.affine_ijk_to_mm[:3, 3], image.GetOrigin(), atol=1e-3)
