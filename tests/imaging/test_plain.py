import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medglip.errors import InputError
from medglip.imaging.dicom import Unusable, read_dicom, read_header
from medglip.imaging.frames import frames_of
from medglip.imaging.plain import Plain, plain_of, plain_values
from medglip.imaging.series import dicom_files, read_series, series_in

Make = Callable[..., Path]
PLACE = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, 0], "PixelSpacing": [1, 1],
         "SliceThickness": 1}  # fmt: skip


def drawn(rng: np.random.Generator) -> tuple[np.ndarray, dict[str, object]]:
    """Pixels of every bit pattern, and elements of the pixel chain in any mixture."""
    dtype = np.dtype(rng.choice(["u1", "i1", "u2", "i2"]))
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    edge = int(rng.integers(2, 400))
    shape = tuple(rng.integers(1, 8, 2))
    pixels = rng.integers(max(low, -edge), min(high, edge), shape) if rng.random() < 0.5 else rng.integers(low, high, shape)
    elements: dict[str, object] = {"BitsStored": int(rng.integers(2, 8 * dtype.itemsize + 1))}
    if rng.random() < 0.6:
        elements["BitsStored"] = 8 * dtype.itemsize if dtype.itemsize == 1 else int(rng.choice([12, 16]))
    elements["Modality"] = str(rng.choice(["CT", "CT", "MR", "PT", "NM"]))
    if rng.random() < 0.7:
        elements["RescaleSlope"] = float(rng.choice([1, 1, 2, -1, 0.5, 1000, 0, 0.0123]))
        elements["RescaleIntercept"] = float(rng.choice([0, -1024, -1024, -8192, 0.25, 40000, 3e9]))
    if rng.random() < 0.3:
        elements["PhotometricInterpretation"] = "MONOCHROME1"
    if rng.random() < 0.2:
        elements["PresentationLUTShape"] = str(rng.choice(["INVERSE", "IDENTITY"]))
    if rng.random() < 0.4:
        elements["PixelPaddingValue"] = int(rng.choice(pixels.ravel()))
        if rng.random() < 0.5:
            elements["PixelPaddingRangeLimit"] = int(rng.choice(pixels.ravel()))
        if dtype.kind == "u":  # written as unsigned
            elements = {word: abs(value) if "Padding" in word else value for word, value in elements.items()}  # type: ignore[arg-type]
    if elements["Modality"] == "PT":
        elements |= {"Units": str(rng.choice(["GML", "BQML", "PROPCPS"])), "DecayCorrection": "ADMIN", "PatientWeight": 70}
        dose = Dataset()
        dose.RadionuclideTotalDose, dose.RadionuclideHalfLife = 3.5e8, 6586.2
        elements["RadiopharmaceuticalInformationSequence"] = [dose]
    return pixels.astype(dtype), elements


def written(path: Path, make_dicom: Make, pixels: np.ndarray, syntax: str = ExplicitVRLittleEndian, **elements: object) -> Path:
    make_dicom(path, pixels, **PLACE, **elements)
    if syntax != ExplicitVRLittleEndian:
        read, data = read_header(path, pixels=True), Dataset()
        data.update({element.tag: element for element in read})
        data.file_meta = read.file_meta
        data.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            data.PixelData = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
        data.save_as(path, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=syntax != ExplicitVRBigEndian)
    return path


@pytest.mark.parametrize("seed", range(8))
def test_plain_frames_equal_the_whole_chain(tmp_path: Path, make_dicom: Make, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for number in range(25):
        pixels, elements = drawn(rng)
        syntax = ImplicitVRLittleEndian if rng.random() < 0.3 else ExplicitVRLittleEndian
        path = written(tmp_path / str(number), make_dicom, pixels, syntax, **elements)
        plain = plain_of(read_header(path))
        assert plain is not None, elements
        values, expected = plain_values(path, plain), read_dicom(path).frames[0]
        assert values is not None
        assert values.dtype == expected.dtype, elements
        assert np.array_equal(values, expected), elements


@pytest.mark.parametrize(
    "elements",
    [{"Modality": "US"}, {"Modality": "DX"}, {"NumberOfFrames": 2, "Rows": 2}, {"PhotometricInterpretation": "PALETTE COLOR"},
     {"BitsStored": 17}, {"RescaleSlope": [1, 2]}, {"OverlayRows": 1}, {"ModalityLUTSequence": [Dataset()]},
     {"SharedFunctionalGroupsSequence": [Dataset()]}, {"SamplesPerPixel": None}, {"BitsAllocated": 12}],
    ids=lambda elements: next(iter(elements)),
)  # fmt: skip
def test_what_is_not_plain_is_left_to_the_whole_chain(tmp_path: Path, make_dicom: Make, elements: dict[str, object]) -> None:
    overlay = elements.pop("OverlayRows", None)
    path = make_dicom(tmp_path / "a", np.zeros((4, 4), np.uint16), **PLACE, **elements)
    header = read_header(path)
    if overlay:
        header.add_new(0x60000010, "US", 4)
    assert plain_of(header) is None


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_other_native_syntaxes_are_left_to_the_whole_chain(tmp_path: Path, make_dicom: Make, syntax: str) -> None:
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4)
    path = written(tmp_path / "a", make_dicom, pixels, syntax, RescaleIntercept=-5, RescaleSlope=1)
    assert plain_of(read_header(path)) is None
    (series,) = series_in([path])
    assert np.array_equal(read_series(series).voxels[0], pixels.astype(int) - 5)


def test_a_header_that_was_not_read_from_a_plain_file_has_no_place(tmp_path: Path, make_dicom: Make) -> None:
    path = make_dicom(tmp_path / "a", np.zeros((4, 4), np.uint16), **PLACE)
    assert plain_of(read_header(path, pixels=True)) is None
    packed = tmp_path / "a.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert plain_of(read_header(packed)) is None
    assert plain_of(Dataset()) is None


def test_pixels_that_are_not_where_they_should_be_are_not_taken(tmp_path: Path, make_dicom: Make) -> None:
    pixels = np.arange(16, dtype=np.uint16).reshape(4, 4)
    path = make_dicom(tmp_path / "a", pixels, **PLACE)
    plain = plain_of(read_header(path))
    assert plain is not None
    assert np.array_equal(plain_values(path, plain), pixels)
    whole = path.read_bytes()
    for changed in (whole[:-2], whole + b"\0\0", whole[: plain.at], whole[: plain.at] + b"\xe1" + whole[plain.at + 1 :],
                    whole[: plain.at + 8] + b"\x22" + whole[plain.at + 9 :]):  # fmt: skip
        path.write_bytes(changed)
        assert plain_values(path, plain) is None
    path.unlink()
    assert plain_values(path, plain) is None


def test_a_cut_off_slice_is_named(tmp_path: Path, make_dicom: Make) -> None:
    for k in range(3):
        path = make_dicom(tmp_path / str(k), np.full((4, 4), k, np.uint16), **PLACE | {"ImagePositionPatient": [0, 0, k]},
                          SOPInstanceUID=f"1.2.{k}")  # fmt: skip
    path.write_bytes(path.read_bytes()[:-8])
    (series,) = series_in(dicom_files(tmp_path))
    with pytest.raises(InputError, match="'2' is broken or cut off"):
        read_series(series)


def test_slices_of_many_slopes_make_the_volume_that_single_files_make(tmp_path: Path, make_dicom: Make) -> None:
    rng = np.random.default_rng(1)
    for k, (slope, dtype) in enumerate([(1, "u2"), (0.5, "u2"), (1, "i2"), (300, "u2"), (2, "i2"), (0.1, "i2")]):
        pixels = rng.integers(0, 30000, (5, 6)).astype(dtype)
        make_dicom(tmp_path / str(k), pixels, **PLACE | {"ImagePositionPatient": [0, 0, 2 * k]}, SOPInstanceUID=f"1.2.{k}",
                   RescaleSlope=slope, RescaleIntercept=-10, Modality="PT")  # fmt: skip
    (series,) = series_in(dicom_files(tmp_path))
    voxels = read_series(series).voxels
    single = [read_dicom(frame.path).frames[0] for frame in series.frames]
    assert all(isinstance(frame.plain, Plain) for frame in series.frames)
    assert np.array_equal(voxels, np.stack(single))
    assert voxels.dtype == np.stack(single).dtype


def test_real_files_read_plainly_equal_the_whole_chain(real_data: Path) -> None:
    plainly = 0
    for path in dicom_files(real_data / "dicom-dicom2nifti") + dicom_files(real_data / "dicom-mr-12bit"):
        header = read_header(path)
        for frame in frames_of(path, header):
            if frame.plain is None:
                continue
            try:
                expected = read_dicom(path).frames[0]
            except Unusable:
                continue
            values = plain_values(path, frame.plain)
            if values is not None:
                plainly += 1
                assert values.dtype == expected.dtype
                assert np.array_equal(values, expected), path.name
    assert plainly > 20
