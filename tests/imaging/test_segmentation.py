from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from medglip.errors import InputError
from medglip.imaging.opened import open_image
from medglip.imaging.segmentation import masks_on, read_segmentation, references_of
from medglip.imaging.series import read_folder
from medglip.imaging.volume import GridError, Volume

SHAPE = (5, 12, 10)


def ct_slice(k: int, z: float) -> Dataset:
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, f"1.2.7.{k + 1}"
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = "1.2.5", "1.2.6", "1.2.8"
    data.Modality, data.PatientID, data.PatientName, data.PatientBirthDate, data.PatientSex = "CT", "p", "", "", ""
    data.StudyID, data.StudyDate, data.StudyTime, data.AccessionNumber = "", "", "", ""
    data.ReferringPhysicianName, data.SeriesNumber, data.InstanceNumber = "", 1, k + 1
    data.Rows, data.Columns = SHAPE[1:]
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 1
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit = 15
    data.PixelSpacing, data.ImageOrientationPatient = [0.8, 0.7], [1, 0, 0, 0, 1, 0]
    data.ImagePositionPatient, data.SliceThickness = [-10.0, 5.0, z], 2.0
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    pixels = np.random.default_rng(k).integers(0, 1500, SHAPE[1:]).astype(np.int16)
    data.PixelData = pixels.tobytes()
    data["PixelData"].VR = "OW"
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = (
        CTImageStorage,
        data.SOPInstanceUID,
    )
    return data


@pytest.fixture
def ct(tmp_path: Path) -> list[Dataset]:
    """Five slices, written to ``tmp_path / "ct"``."""
    (tmp_path / "ct").mkdir()
    slices = [ct_slice(k, 100.0 + 2.0 * k) for k in range(SHAPE[0])]
    for k, data in enumerate(slices):
        data.save_as(tmp_path / "ct" / f"{k}.dcm", enforce_file_format=True)
    return slices


def write_seg(path: Path, images: list[Dataset], masks: np.ndarray, kind: str = "BINARY", **options: object) -> Path:
    """A SEG of two segments, left kidney and liver; ``masks`` is (slices, rows, columns, 2)."""
    described = [
        hd.seg.SegmentDescription(number, name, codes.SCT.Organ, code, hd.seg.SegmentAlgorithmTypeValues.MANUAL)
        for number, (name, code) in enumerate([("left kidney", codes.SCT.Kidney), ("liver", codes.SCT.Liver)], 1)
    ]
    hd.seg.Segmentation(
        images, masks, kind, described, generate_uid(), 2, generate_uid(), 1, "maker", "model", "1", "2", **options
    ).save_as(path)
    return path


def two_masks() -> np.ndarray:
    masks = np.zeros((*SHAPE, 2), np.uint8)
    masks[1:3, 2:6, 3:8, 0] = 1
    masks[2:4, 4:9, 1:5, 1] = 1  # overlaps the first
    return masks


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_masks_come_back_on_the_image(tmp_path: Path, ct: list[Dataset], kind: str) -> None:
    masks = two_masks()
    if kind == "LABELMAP":
        masks[..., 1] *= 1 - masks[..., 0]  # a label map holds one label a voxel
    given = masks.astype(np.float32) * 0.6 if kind == "FRACTIONAL" else masks
    segmentation = read_segmentation(write_seg(tmp_path / "seg.dcm", ct[::-1], given[::-1], kind))
    found = list(masks_on(segmentation, read_folder(tmp_path / "ct")))
    assert [segment.label for segment, _ in found] == ["left kidney", "liver"]
    assert found[0][0].kind[:2] == ("SCT", "64033007")
    for number, (_, mask) in enumerate(found):
        assert np.array_equal(mask, masks[..., number] > 0)


def test_a_segmentation_is_not_taken_for_an_image(tmp_path: Path, ct: list[Dataset]) -> None:
    with pytest.raises(InputError, match="no image but: segmentation"):
        open_image(write_seg(tmp_path / "seg.dcm", ct, two_masks()))


def test_a_fraction_below_a_half_is_outside(tmp_path: Path, ct: list[Dataset]) -> None:
    path = write_seg(tmp_path / "seg.dcm", ct, two_masks() * np.float32(0.45), "FRACTIONAL")
    assert not any(mask.any() for _, mask in masks_on(read_segmentation(path), read_folder(tmp_path / "ct")))


def test_frames_are_placed_by_position_not_by_order(tmp_path: Path, ct: list[Dataset]) -> None:
    data = dcmread(write_seg(tmp_path / "seg.dcm", ct, two_masks(), omit_empty_frames=True))
    order = list(range(int(data.NumberOfFrames)))[::-1]
    frames = data.pixel_array[order]
    data.PerFrameFunctionalGroupsSequence = [data.PerFrameFunctionalGroupsSequence[n] for n in order]
    data.PixelData = np.packbits(frames.ravel(), bitorder="little").tobytes()
    data.save_as(tmp_path / "turned.dcm")
    volume = read_folder(tmp_path / "ct")
    for number, (_, mask) in enumerate(masks_on(read_segmentation(tmp_path / "turned.dcm"), volume)):
        assert np.array_equal(mask, two_masks()[..., number] > 0)


def test_missing_slices_of_the_image_are_passed_over(tmp_path: Path, ct: list[Dataset]) -> None:
    path = write_seg(tmp_path / "seg.dcm", ct, two_masks())
    (tmp_path / "ct" / "2.dcm").unlink()
    for number, (_, mask) in enumerate(masks_on(read_segmentation(path), read_folder(tmp_path / "ct"))):
        assert np.array_equal(mask, np.delete(two_masks()[..., number], 2, axis=0) > 0)


def test_another_grid_is_refused(tmp_path: Path, ct: list[Dataset]) -> None:
    segmentation = read_segmentation(write_seg(tmp_path / "seg.dcm", ct, two_masks()))
    volume = read_folder(tmp_path / "ct")
    with pytest.raises(GridError, match=r"'seg.dcm' has frames of 12 x 10") as caught:
        list(masks_on(segmentation, Volume(np.zeros((5, 12, 11)), volume.affine_ijk_to_mm)))
    assert caught.value.reason == "size_mismatch"
    moved = volume.affine_ijk_to_mm.copy()
    moved[0, 3] += 0.6
    with pytest.raises(GridError, match=r"frame 1, lies 0\.86 pixels") as caught:
        list(masks_on(segmentation, Volume(volume.voxels, moved)))
    assert caught.value.reason == "geometry_mismatch"


def test_references_name_series_and_instances(tmp_path: Path, ct: list[Dataset]) -> None:
    found = references_of(dcmread(write_seg(tmp_path / "seg.dcm", ct, two_masks())), "seg.dcm")
    assert found.series == {"1.2.6"}
    assert found.instances == {data.SOPInstanceUID for data in ct}
    assert found.frames_of_reference == {"1.2.8"}


def test_an_image_is_no_segmentation(tmp_path: Path, ct: list[Dataset]) -> None:
    with pytest.raises(InputError, match=r"'0.dcm' is 'CT'; allowed: SEG"):
        read_segmentation(tmp_path / "ct" / "0.dcm")


@pytest.mark.parametrize(
    ("images", "seg", "nrrd"),
    [
        ("ct-3slice", "liver.dcm", "liver_seg.nrrd"),
        ("23x38x3/image", "23x38x3/seg/label.seg", "23x38x3/nrrd/label.nrrd"),
    ],
)
def test_real_segments_equal_the_label_map_beside_them(real_data: Path, images: str, seg: str, nrrd: str) -> None:
    from medglip.imaging.nifti import read_labels
    from medglip.imaging.volume import on_grid_of

    folder = real_data / "dicom-seg-dcmqi"
    volume = read_folder(folder / images)
    ((_, mask),) = masks_on(read_segmentation(folder / seg), volume)
    truth, _ = on_grid_of(volume, read_labels(folder / nrrd), nrrd)
    assert mask.any()
    assert np.array_equal(mask, truth > 0)


def test_real_multi_frame_ct_equals_its_single_frame_twin(real_data: Path) -> None:
    folder = real_data / "dicom-seg-dcmqi" / "23x38x3"
    single, multi = read_folder(folder / "image"), read_folder(folder / "multiframe")
    assert np.array_equal(single.voxels, multi.voxels)
    assert np.allclose(single.affine_ijk_to_mm, multi.affine_ijk_to_mm, atol=1e-3)
