from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from medglip.errors import InputError
from medglip.imaging.dicom import Unusable, read_header
from medglip.imaging.series import dicom_files, read_folder, read_series, series_in
from medglip.imaging.slices import cuts

Make = Callable[..., Path]
VOXELS = np.random.default_rng(0).integers(0, 2000, (6, 4, 5)).astype(np.uint16)
AXIAL = [1, 0, 0, 0, 1, 0]


def write_series(
    folder: Path,
    make_dicom: Make,
    order: list[int] | None = None,
    places: list[float] | None = None,
    **elements: object,
) -> Path:
    """Slices of VOXELS, file names in ``order``, at z = ``places``."""
    folder.mkdir(exist_ok=True)
    places = places or [10.0 + 2.5 * k for k in range(len(VOXELS))]
    for name, k in enumerate(order or range(len(VOXELS))):
        facts = {
            "ImageOrientationPatient": AXIAL, "ImagePositionPatient": [-20.0, -30.0, places[k]],
            "PixelSpacing": [0.8, 0.6], "RescaleSlope": 1, "RescaleIntercept": -1024,
            "SOPInstanceUID": f"1.2.3.{k + 1}", "SliceThickness": 2.5, "InstanceNumber": name,
        } | elements  # fmt: skip
        make_dicom(folder / f"{name:02d}", VOXELS[k], **facts)
    return folder


def test_files_in_any_order_give_the_same_volume(tmp_path: Path, make_dicom: Make) -> None:
    first = read_folder(write_series(tmp_path / "a", make_dicom))
    second = read_folder(write_series(tmp_path / "b", make_dicom, order=[3, 0, 5, 1, 4, 2]))
    for volume in (first, second):
        assert np.array_equal(volume.voxels, VOXELS.astype(int) - 1024)
        assert volume.affine_ijk_to_mm @ (2, 3, 4, 1) == pytest.approx((-20 + 2 * 0.6, -30 + 3 * 0.8, 20.0, 1))
        assert volume.spacing_kji_mm == pytest.approx((2.5, 0.8, 0.6))
        assert volume.unit == "HU"
        assert volume.checks == {"regular": "yes"}
        assert volume.orientation == "LPS"
    assert first.sop_uids == second.sop_uids == tuple(f"1.2.3.{k + 1}" for k in range(6))


def test_feet_first_positions_are_sorted_along_the_normal(tmp_path: Path, make_dicom: Make) -> None:
    folder = write_series(tmp_path / "a", make_dicom, places=[25.0 - 2.5 * k for k in range(6)])
    volume = read_folder(folder)
    assert np.array_equal(volume.voxels, VOXELS[::-1].astype(int) - 1024)
    assert volume.affine_ijk_to_mm[2, 2] == pytest.approx(2.5)


def test_a_repeated_slice_is_dropped_and_a_conflicting_one_refused(tmp_path: Path, make_dicom: Make) -> None:
    folder = write_series(tmp_path / "a", make_dicom)
    place = {"ImageOrientationPatient": AXIAL, "ImagePositionPatient": [-20.0, -30.0, 15.0], "PixelSpacing": [0.8, 0.6],
             "RescaleSlope": 1, "RescaleIntercept": -1024, "SliceThickness": 2.5}  # fmt: skip
    make_dicom(folder / "again", VOXELS[2], SOPInstanceUID="1.2.3.99", **place)
    assert np.array_equal(read_folder(folder).voxels, VOXELS.astype(int) - 1024)
    make_dicom(folder / "again", VOXELS[2] + 1, SOPInstanceUID="1.2.3.99", **place)
    with pytest.raises(InputError, match=r"'02' and 'again' lie at one place|'again' and '02' lie at one place"):
        read_folder(folder)


def test_missing_slices_are_counted_and_never_invented(tmp_path: Path, make_dicom: Make) -> None:
    volume = read_folder(write_series(tmp_path / "a", make_dicom, places=[0, 2.5, 5.0, 12.5, 15.0, 17.5]))
    assert volume.checks == {"regular": "no", "missing_slices": "2", "missing_after_slice": "2, 2"}
    assert "missing_slices" in volume.flags
    assert volume.shape_kji[0] == 6
    assert volume.voxel_mm3 is None
    assert volume.origins_mm[3] == pytest.approx((-20, -30, 12.5))


def test_a_tilted_gantry_is_a_sheared_affine(tmp_path: Path, make_dicom: Make) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    for k in range(6):
        make_dicom(
            folder / str(k), VOXELS[k], ImageOrientationPatient=AXIAL, ImagePositionPatient=[0.0, 0.5 * k, 2.0 * k],
            PixelSpacing=[1.0, 1.0], SOPInstanceUID=f"1.2.3.{k + 1}", Modality="MR",
        )  # fmt: skip
    volume = read_folder(folder)
    assert volume.affine_ijk_to_mm[:3, 2] == pytest.approx((0, 0.5, 2.0))
    assert "gantry_tilt" in volume.flags
    assert float(volume.checks["gantry_tilt_degrees"]) == pytest.approx(14.04, abs=0.01)
    assert volume.voxel_mm3 == pytest.approx(2.0)


def test_two_echoes_at_one_place_are_two_volumes(tmp_path: Path, make_dicom: Make) -> None:
    folder = write_series(tmp_path / "a", make_dicom, Modality="MR", EchoTime=10.0)
    for k in range(6):
        make_dicom(
            folder / f"second{k}", VOXELS[k] + 1, ImageOrientationPatient=AXIAL, PixelSpacing=[0.8, 0.6], Modality="MR",
            ImagePositionPatient=[-20.0, -30.0, 10 + 2.5 * k], SOPInstanceUID=f"1.2.4.{k}", EchoTime=80.0,
        )  # fmt: skip
    found = series_in(dicom_files(folder))
    assert [len(series.frames) for series in found] == [6, 6]
    with pytest.raises(InputError, match="make 2 volumes"):
        read_folder(folder)


def test_a_localizer_of_another_direction_is_another_volume(tmp_path: Path, make_dicom: Make) -> None:
    folder = write_series(tmp_path / "a", make_dicom)
    make_dicom(folder / "scout", VOXELS[0], ImageOrientationPatient=[0, 1, 0, 0, 0, -1], PixelSpacing=[0.8, 0.6],
               ImagePositionPatient=[0.0, 0.0, 0.0], SOPInstanceUID="1.2.9")  # fmt: skip
    assert sorted(len(series.frames) for series in series_in(dicom_files(folder))) == [1, 6]


def enhanced(folder: Path, make_dicom: Make) -> Path:
    """VOXELS as one multi-frame file with functional groups, frames out of order."""
    frames = []
    order = [4, 1, 0, 5, 3, 2]
    for k in order:
        group, place = Dataset(), Dataset()
        place.ImagePositionPatient = [-20.0, -30.0, 10.0 + 2.5 * k]
        group.PlanePositionSequence = [place]
        frames.append(group)
    shared, turn, measures, rescale = Dataset(), Dataset(), Dataset(), Dataset()
    turn.ImageOrientationPatient = AXIAL
    measures.PixelSpacing, measures.SliceThickness = [0.8, 0.6], 2.5
    rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 1, -1024, "HU"
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [turn], [measures]
    shared.PixelValueTransformationSequence = [rescale]
    folder.mkdir()
    make_dicom(
        folder / "multi.dcm", VOXELS[order], PerFrameFunctionalGroupsSequence=frames,
        SharedFunctionalGroupsSequence=[shared],
    )  # fmt: skip
    return folder


def test_a_multi_frame_file_equals_its_single_frame_twin(tmp_path: Path, make_dicom: Make) -> None:
    single = read_folder(write_series(tmp_path / "single", make_dicom))
    multi = read_folder(enhanced(tmp_path / "multi", make_dicom))
    assert np.array_equal(single.voxels, multi.voxels)
    assert np.allclose(single.affine_ijk_to_mm, multi.affine_ijk_to_mm)
    assert single.spacing_kji_mm == pytest.approx(multi.spacing_kji_mm)
    assert multi.unit == "HU"


def test_a_clip_and_other_objects_make_no_volume(tmp_path: Path, make_dicom: Make) -> None:
    make_dicom(tmp_path / "clip", VOXELS, Modality="US", ImageOrientationPatient=AXIAL, ImagePositionPatient=[0, 0, 0])
    make_dicom(tmp_path / "cr", VOXELS[0], Modality="CR", SOPInstanceUID="1.2.3.8")
    assert series_in(dicom_files(tmp_path)) == []
    with pytest.raises(InputError, match="make 0 volumes"):
        read_folder(tmp_path)


def test_one_slice_without_thickness_has_a_place_but_no_volume(tmp_path: Path, make_dicom: Make) -> None:
    make_dicom(tmp_path / "x", VOXELS[0], ImageOrientationPatient=AXIAL, ImagePositionPatient=[1.0, 2.0, 3.0],
               PixelSpacing=[0.8, 0.6], Modality="MR")  # fmt: skip
    volume = read_folder(tmp_path)
    assert volume.affine_ijk_to_mm[:3, 3] == pytest.approx((1, 2, 3))
    assert volume.voxel_mm3 is None
    assert volume.checks == {"slice_pitch": "unknown"}
    assert volume.spacing_kji_mm is None
    assert cuts(volume)[0].spacing_mm(volume) == pytest.approx((0.8, 0.6))


@pytest.mark.parametrize("series", ["compressed_j2k", "compressed_jpegls", "compressed_rle"])
def test_real_compressed_series_equal_their_reference(real_data: Path, series: str) -> None:
    from medglip.imaging.nifti import read_volume
    from medglip.imaging.volume import on_grid_of

    folder = real_data / "dicom-dicom2nifti" / "generic"
    volume = read_folder(folder / series / "001")
    reference = read_volume(folder / "compressed_ground_truth.nii.gz")
    voxels, _ = on_grid_of(volume, reference, "reference")
    assert np.array_equal(volume.voxels, voxels)


def test_real_multi_frame_equals_its_reference(real_data: Path) -> None:
    from medglip.imaging.nifti import read_volume
    from medglip.imaging.volume import on_grid_of

    folder = real_data / "dicom-dicom2nifti" / "siemens_multiframe" / "anatomical"
    volume = read_folder(folder / "001")
    (path,) = folder.glob("001_ground_truth.nii.gz")
    voxels, _ = on_grid_of(volume, read_volume(path), "reference")
    assert np.array_equal(volume.voxels, voxels)


def test_real_tilt_is_found(real_data: Path) -> None:
    (series,) = series_in(dicom_files(real_data / "dicom-ct-head-ge-tilt"))
    assert "gantry_tilt" in read_series(series).flags


def second_volume(folder: Path, make_dicom: Make, number: int, **elements: object) -> None:
    """VOXELS plus ``number`` at the places of ``write_series``, as further files of the same series."""
    for k in range(6):
        facts = {
            "ImageOrientationPatient": AXIAL, "PixelSpacing": [0.8, 0.6], "Modality": "MR",
            "ImagePositionPatient": [-20.0, -30.0, 10 + 2.5 * k], "SOPInstanceUID": f"1.2.{3 + number}.{k}",
            "SliceThickness": 2.5, "InstanceNumber": 6 * number + k,
        } | elements  # fmt: skip
        make_dicom(folder / f"n{number}_{k}", VOXELS[k] + number, **facts)


def test_magnitude_and_phase_of_one_series_are_two_volumes(tmp_path: Path, make_dicom: Make) -> None:
    second_volume(tmp_path, make_dicom, 1, ImageType=["ORIGINAL", "PRIMARY", "M", "FFE"])
    second_volume(tmp_path, make_dicom, 2, ImageType=["ORIGINAL", "PRIMARY", "P", "FFE"])
    volumes = [read_series(series) for series in series_in(dicom_files(tmp_path))]
    assert [volume.shape_kji for volume in volumes] == [(6, 4, 5)] * 2
    assert [np.array_equal(volume.voxels, VOXELS + number) for number, volume in enumerate(volumes, 1)] == [True, True]


@pytest.mark.parametrize(
    ("keyword", "values"),
    [("EchoTime", [80.0, 10.0]), ("DiffusionBValue", [1000.0, 0.0]), ("TemporalPositionIdentifier", [11, 2]),
     ("TriggerTime", [300.0, 40.0])],
)  # fmt: skip
def test_volumes_at_one_place_are_told_apart_and_sorted_by_number(
    tmp_path: Path, make_dicom: Make, keyword: str, values: list
) -> None:
    for number, value in enumerate(values, 1):
        second_volume(tmp_path, make_dicom, number, **{keyword: value})
    found = series_in(dicom_files(tmp_path))
    assert [series.apart[0] for series in found] == [keyword] * 2
    assert [float(series.apart[1]) for series in found] == sorted(map(float, values))
    assert np.array_equal(read_series(found[0]).voxels, VOXELS + 2)  # the second one written has the smaller value


def test_volumes_that_only_their_numbers_tell_apart(tmp_path: Path, make_dicom: Make) -> None:
    for number in (1, 2, 3):
        second_volume(tmp_path, make_dicom, number)
    found = series_in(dicom_files(tmp_path))
    assert [series.apart for series in found] == [("InstanceNumber", str(at)) for at in (1, 2, 3)]
    assert all(np.array_equal(read_series(series).voxels, VOXELS + at) for at, series in enumerate(found, 1))


def test_a_conflict_has_a_reason_of_its_own(tmp_path: Path, make_dicom: Make) -> None:
    second_volume(tmp_path, make_dicom, 1, InstanceNumber=7)
    second_volume(tmp_path, make_dicom, 2, InstanceNumber=7)
    (series,) = series_in(dicom_files(tmp_path))
    with pytest.raises(Unusable, match="no attribute tells them apart") as refused:
        read_series(series)
    assert refused.value.reason == "conflicting_slices"


def test_what_is_left_out_is_counted(tmp_path: Path, make_dicom: Make) -> None:
    folder = write_series(tmp_path / "a", make_dicom)
    place = {"ImageOrientationPatient": AXIAL, "PixelSpacing": [0.8, 0.6], "RescaleSlope": 1, "RescaleIntercept": -1024,
             "SliceThickness": 2.5, "ImagePositionPatient": [-20.0, -30.0, 15.0]}  # fmt: skip
    make_dicom(folder / "same_pixels", VOXELS[2], SOPInstanceUID="1.2.3.99", **place)
    make_dicom(folder / "same_file", VOXELS[2], SOPInstanceUID="1.2.3.3", **place)
    volume = read_folder(folder)
    assert volume.checks == {"regular": "yes", "duplicate_slices": "1", "repeated_files": "1"}
    assert np.array_equal(volume.voxels, VOXELS.astype(int) - 1024)


def test_uneven_slices_are_flagged(tmp_path: Path, make_dicom: Make) -> None:
    volume = read_folder(write_series(tmp_path / "a", make_dicom, places=[0, 2.5, 5.0, 6.2, 9.0, 13.3]))
    assert "uneven_slices" in volume.flags
    assert volume.voxel_mm3 is None


def test_stacks_of_one_file_are_volumes_of_their_own(tmp_path: Path, make_dicom: Make) -> None:
    path = enhanced(tmp_path / "multi", make_dicom) / "multi.dcm"
    header = read_header(path, pixels=True)
    for group in header.PerFrameFunctionalGroupsSequence:
        content = Dataset()
        content.StackID = "1" if float(group.PlanePositionSequence[0].ImagePositionPatient[2]) < 17 else "2"
        group.FrameContentSequence = [content]
    header.save_as(path)
    volumes = [read_series(series) for series in series_in([path])]
    assert [volume.shape_kji[0] for volume in volumes] == [3, 3]
    assert np.array_equal(np.concatenate([volume.voxels for volume in volumes]), VOXELS.astype(int) - 1024)


def test_real_volumes_in_time_and_direction_equal_their_reference(real_data: Path) -> None:
    from medglip.imaging.nifti import read_volume
    from medglip.imaging.volume import on_grid_of

    for name, count in (("ge/dti/002", 4), ("ge/fmri/001", 2), ("philips_enhanced/fmri/001", 4)):
        folder = real_data / "dicom-dicom2nifti" / name
        found = series_in(dicom_files(folder))
        assert len(found) == count
        for at, series in enumerate(found):
            volume = read_series(series)
            reference = read_volume(folder.parent / f"{folder.name}_ground_truth.nii.gz", index=at)
            voxels, off = on_grid_of(volume, reference, name)
            assert off == 0.0
            assert np.allclose(volume.voxels, voxels, atol=1e-3), name
