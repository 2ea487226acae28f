"""Volumes without marks: each volume a case wherever its files lie, planes without regions, and a reason for the rest."""

from pathlib import Path
from zlib import crc32

import nibabel
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from small_sources import HEAD, Converted, converted

from medglip.curate import load_source
from medglip.curate.engine import found_tasks
from medglip.errors import SourceError

SERIES = """
converter = "volumes"
modality = "{modality}"
files = {{ series = "**/*" }}
options = {{ {options} }}
"""
FILES = """
converter = "volumes"
modality = "{modality}"
files = {{ image = "{{case}}.nii.gz" }}
options = {{ {options} }}
"""
SIZE = (40, 60)


def slab(seed: int, slices: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 2000, (slices, *SIZE)).astype(np.int16)


def dicom(path: Path, pixels: np.ndarray, *, series: str = "1", z: float | None = 0.0, **more: object) -> None:
    data = Dataset()
    data.SOPClassUID, data.Modality, data.PatientID = CTImageStorage, "CT", "p1"
    data.SOPInstanceUID = f"1.2.{series}.{crc32(path.as_posix().encode())}"
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = "1.9", f"1.8.{series}", "1.7"
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 1
    data.Rows, data.Columns = pixels.shape
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    data.PixelSpacing, data.SliceThickness, data.InstanceNumber = [0.8, 0.8], 3.0, 1
    if z is not None:
        data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-10.0, -20.0, z]
    data.PixelData = pixels.tobytes()
    for name, value in more.items():
        setattr(data, name, value)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def write_series(folder: Path, pixels: np.ndarray, *, series: str = "1", **more: object) -> None:
    for k, plane in enumerate(pixels):
        dicom(folder / f"IM{k}", plane, series=series, z=3.0 * k, **more)


def nifti(path: Path, array: np.ndarray, pitch: tuple[float, float, float] = (1.0, 1.0, 3.0)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image(array, np.diag([*pitch, 1.0])).to_filename(path)


def archive(options: str = "", modality: str = "ct") -> str:
    return SERIES.format(options=options, modality=modality)


def files(options: str = "", modality: str = "mr") -> str:
    return FILES.format(options=options, modality=modality)


def planes(result: Converted) -> list[tuple[str, int]]:
    return [(picture.record.origin.case, picture.record.origin.slice) for picture in result.pictures]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "in"


def test_each_series_is_a_case_in_any_folders(folder: Path) -> None:
    write_series(folder / "a/b", slab(1), series="1")
    write_series(folder / "a/c", slab(2, 3), series="2")
    for k, plane in enumerate(slab(3, 2)):  # one series, a folder a slice
        dicom(folder / f"d/{k}/IM", plane, series="3", z=5.0 * k)
    (folder / "notes.txt").write_text("beside them")
    result = converted(folder, archive())
    assert result.rejects == []
    assert planes(result) == [("a/b/IM0", k) for k in range(4)] + [("a/c/IM0", k) for k in range(3)] + [
        ("d/0/IM", 0),
        ("d/0/IM", 1),
    ]


def test_nothing_is_marked_and_nothing_is_known_to_be_absent(folder: Path) -> None:
    write_series(folder, slab(1))
    for picture in converted(folder, archive()).pictures:
        assert (picture.record.regions, picture.record.absent, picture.record.exhaustive) == ((), (), ())
        assert picture.record.spacing_mm == (0.8, 0.8)
        assert picture.record.affine_px_to_mm is not None


def test_planes_are_spread_over_those_that_show_something(folder: Path) -> None:
    voxels = np.zeros((60, 40, 12), np.int16)
    voxels[:, :, 3:11] = np.moveaxis(slab(4, 8), 0, 2).swapaxes(0, 1)
    nifti(folder / "a.nii.gz", voxels)
    assert planes(converted(folder, files())) == [("a.nii", k) for k in range(3, 11)]
    assert [k for _, k in planes(converted(folder, files("max_slices = 2")))] == [5, 9]
    more = converted(folder, files('max_slices = 1, planes = ["axial", "coronal", "sagittal"]'))
    assert [picture.record.modality_detail["plane"] for picture in more.pictures] == ["axial"]  # the others are slivers


def test_a_thin_stack_is_cut_as_it_was_acquired(folder: Path) -> None:
    nifti(folder / "a.nii.gz", slab(5, 3), (1.0, 1.0, 1.0))  # 3 x 40 x 60 voxels of 1 mm: sagittal slices
    result = converted(folder, files())
    assert {(picture.record.modality_detail["plane"], picture.pixels.shape) for picture in result.pictures} == {
        ("sagittal", (60, 40))
    }
    assert len(result.pictures) == 3


def test_one_slice_is_one_image(folder: Path) -> None:
    dicom(folder / "one.dcm", slab(6, 1)[0])
    assert len(converted(folder, archive()).pictures) == 1


def test_directions_and_times_of_one_series_are_volumes_of_their_own(folder: Path) -> None:
    write_series(folder / "t1", slab(7), AcquisitionNumber=1)
    write_series(folder / "t2", slab(8), AcquisitionNumber=2)
    dicom(folder / "scout", slab(9, 1)[0], z=None, ImageOrientationPatient=[0, 1, 0, 0, 0, -1], ImagePositionPatient=[0, 0, 0])
    result = converted(folder, archive())
    assert result.rejects == []
    assert planes(result) == [("scout", 0)] + [("t1/IM0", k) for k in range(4)] + [("t2/IM0", k) for k in range(4)]
    first = converted(folder, archive("index = 0"))
    assert {case for case, _ in planes(first)} == {"scout", "t1/IM0"}


def test_slices_that_nothing_tells_apart_are_refused(folder: Path) -> None:
    write_series(folder / "a", slab(10))
    write_series(folder / "b", slab(11))
    result = converted(folder, archive())
    assert (result.pictures, result.reasons) == ([], ["conflicting_slices"])


def test_of_two_files_of_one_object_the_one_that_can_be_read_is_kept(folder: Path) -> None:
    for k, plane in enumerate(slab(12)):
        for name in ("a", "b"):
            dicom(folder / f"{name}{k}.dcm", plane, series="2", z=3.0 * k, SOPInstanceUID=f"1.5.{k}")
    cut = (folder / "a2.dcm").read_bytes()
    (folder / "a2.dcm").write_bytes(cut[: len(cut) // 2])
    result = converted(folder, archive())
    assert sorted(reject.file for reject in result.rejects) == ["a2.dcm", "b0.dcm", "b1.dcm", "b3.dcm"]
    assert set(result.reasons) == {"duplicate_image"}
    assert planes(result) == [("a0.dcm", k) for k in range(4)]


def test_what_is_no_slice_has_its_reason(folder: Path) -> None:
    write_series(folder / "s", slab(13))
    dicom(folder / "projection.dcm", slab(14, 1)[0], series="2", z=None)
    dicom(folder / "xray.dcm", slab(15, 1)[0], series="3", Modality="DX")
    dicom(folder / "plan.dcm", slab(16, 1)[0], series="4", Modality="RTPLAN")
    (folder / "cut.dcm").write_bytes(b"no DICOM at all")
    result = converted(folder, archive())
    assert {reject.file: reject.reason for reject in result.rejects} == {
        "projection.dcm": "no_place", "xray.dcm": "other_modality", "plan.dcm": "not_a_picture", "cut.dcm": "unreadable_file",
    }  # fmt: skip
    assert len(result.pictures) == 4
    options = 'other_modality = "ignore", without_place = "ignore"'
    assert converted(folder, archive(options)).reasons == ["not_a_picture", "unreadable_file"]


def test_a_file_of_four_dimensions_needs_an_index(folder: Path) -> None:
    nifti(folder / "a.nii.gz", np.stack([np.moveaxis(slab(seed, 3), 0, 2) for seed in (1, 2)], axis=3))
    refused = converted(folder, files())
    assert (refused.pictures, refused.reasons) == ([], ["unreadable_file"])
    assert "holds 2 volumes" in refused.rejects[0].detail
    assert len(converted(folder, files("index = 1")).pictures) == 3


def test_texts_come_from_a_table(folder: Path) -> None:
    write_series(folder / "s", slab(17))
    (folder / "reports.csv").write_text("study,report\n1.9,No nodule.\n")
    part = archive('about_key = "study", about_is = "{study}", texts = [{ kind = "report", text = "{report}" }]')
    result = converted(folder, part.replace('"**/*"', '"**/*", about = "reports.csv"'))
    assert [[(text.kind, text.text) for text in picture.record.texts] for picture in result.pictures] == [
        [("report", "No nodule.")]
    ] * 4


def test_a_constant_volume_has_nothing_to_see(folder: Path) -> None:
    nifti(folder / "a.nii.gz", np.full((20, 20, 5), 7, np.int16))
    assert converted(folder, files()).reasons == ["constant_image"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (('series = "**/*"', 'series = "**/*", image = "*.nii"'), "name series or image"),
        (('series = "**/*"', 'about = "a.csv"'), "name series or image"),
        (("options", 'exhaustive = "all"\nlabels = { a = "lung" }\noptions'), "take its exhaustive out"),
    ],
)
def test_a_part_that_cannot_be_is_refused(folder: Path, change: tuple[str, str], match: str) -> None:
    write_series(folder, slab(18))
    toml = folder.parent / "tiny.toml"
    toml.write_text(HEAD + "[[part]]\n" + archive().replace(*change, 1))
    with pytest.raises(SourceError, match=match):
        found_tasks(load_source(toml), folder)


def test_what_one_part_takes_another_does_not_reject(folder: Path) -> None:
    write_series(folder / "s", slab(19))
    dicom(folder / "xray.dcm", slab(20, 1)[0], series="3", Modality="DX")
    dicom(folder / "plan.dcm", slab(21, 1)[0], series="4", Modality="RTPLAN")
    pictures = 'converter = "dicom_images"\nmodality = "xray"\nfiles = { image = "**/*" }\n'
    result = converted(folder, archive() + "[[part]]\n" + pictures)
    assert [(reject.file, reject.reason) for reject in result.rejects] == [("plan.dcm", "not_a_picture")]
    assert len(result.pictures) == 5
