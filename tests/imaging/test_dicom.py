from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from medglip.errors import InputError
from medglip.imaging.dicom import is_dicom, read_dicom, read_header, suv_factor
from medglip.imaging.intensity import display, to_stored

Make = Callable[..., Path]
GREY = np.arange(64, dtype=np.uint16).reshape(8, 8) * 60


def shown(path: Path) -> np.ndarray:
    image = read_dicom(path)
    return display(*to_stored(image.frames[0], image.unit, window=image.window, inverted=image.inverted))


def test_rescale_gives_hounsfield_units_as_integers(tmp_path: Path, make_dicom: Make) -> None:
    path = make_dicom(tmp_path / "ct", GREY, RescaleSlope=1, RescaleIntercept=-1024)
    image = read_dicom(path)
    assert image.unit == "HU"
    assert image.modality == "ct"
    assert image.frames.dtype == np.int16
    assert np.array_equal(image.frames[0], GREY.astype(int) - 1024)
    assert "not_hu" in read_dicom(make_dicom(tmp_path / "raw", GREY)).flags


def test_bits_above_bits_stored_are_cleared(tmp_path: Path, make_dicom: Make) -> None:
    dirty = GREY | np.uint16(0xA000)
    path = make_dicom(tmp_path / "dirty", dirty, BitsStored=12, HighBit=11, Modality="MR")
    assert np.array_equal(read_dicom(path).frames[0], GREY)


def test_monochrome1_is_its_monochrome2_twin(tmp_path: Path, make_dicom: Make) -> None:
    facts = {"Modality": "DX", "BitsStored": 12, "HighBit": 11}
    positive = make_dicom(tmp_path / "2", GREY, WindowCenter=1500, WindowWidth=1000, **facts)
    negative = make_dicom(
        tmp_path / "1", 4095 - GREY, PhotometricInterpretation="MONOCHROME1",
        WindowCenter=4096 - 1500, WindowWidth=1000, **facts,
    )  # fmt: skip
    first, second = read_dicom(positive), read_dicom(negative)
    assert np.array_equal(first.frames, second.frames)
    assert first.window == pytest.approx(second.window)
    assert (first.inverted, second.inverted) == (False, True)
    assert np.array_equal(shown(positive), shown(negative))


def test_voi_lut_is_applied_to_images_made_for_display(tmp_path: Path, make_dicom: Make) -> None:
    lut = Dataset()
    lut.LUTDescriptor, lut.LUTData = [4, 0, 8], np.array([0, 10, 20, 200], np.uint16).tobytes()
    pixels = np.array([[0, 1], [2, 3]], np.uint16)
    path = make_dicom(tmp_path / "dx", pixels, Modality="DX", VOILUTSequence=[lut])
    path_ct = make_dicom(tmp_path / "ct", pixels, RescaleSlope=1, RescaleIntercept=0, WindowCenter=1, WindowWidth=2)
    assert read_dicom(path).frames[0].tolist() == [[0, 10], [20, 200]]
    assert read_dicom(path_ct).window is None  # CT is shown by our own windows


def test_modality_lut_is_applied(tmp_path: Path, make_dicom: Make) -> None:
    lut = Dataset()
    lut.LUTDescriptor, lut.LUTData = [4, 0, 16], np.array([5, 50, 500, 5000], np.uint16).tobytes()
    lut.ModalityLUTType = "US"
    path = make_dicom(tmp_path / "cr", np.array([[0, 1], [2, 3]], np.uint16), Modality="CR", ModalityLUTSequence=[lut])
    assert read_dicom(path).frames[0].tolist() == [[5, 50], [500, 5000]]


def test_palette_and_ybr_become_rgb(tmp_path: Path, make_dicom: Make) -> None:
    table = {
        f"{colour}PaletteColorLookupTableDescriptor": [4, 0, 8] for colour in ("Red", "Green", "Blue")
    } | {
        "RedPaletteColorLookupTableData": bytes([0, 255, 0, 9]),
        "GreenPaletteColorLookupTableData": bytes([0, 0, 255, 9]),
        "BluePaletteColorLookupTableData": bytes([0, 0, 0, 9]),
    }  # fmt: skip
    pixels = np.array([[0, 1], [2, 3]], np.uint8)
    path = make_dicom(tmp_path / "p", pixels, Modality="US", PhotometricInterpretation="PALETTE COLOR", **table)
    image = read_dicom(path)
    assert image.unit == "rgb"
    assert image.frames[0].tolist() == [[[0, 0, 0], [255, 0, 0]], [[0, 255, 0], [9, 9, 9]]]
    grey_ybr = np.full((2, 2, 3), 128, np.uint8)
    path = make_dicom(tmp_path / "y", grey_ybr, Modality="US", PhotometricInterpretation="YBR_FULL")
    assert np.abs(read_dicom(path).frames[0].astype(int) - 128).max() <= 1


def test_frames_of_a_clip_are_read_all_or_some(tmp_path: Path, make_dicom: Make) -> None:
    clip = np.arange(5 * 4 * 6, dtype=np.uint8).reshape(5, 4, 6)
    path = make_dicom(tmp_path / "clip", clip, Modality="US")
    assert np.array_equal(read_dicom(path).frames, clip)
    assert np.array_equal(read_dicom(path, frames=[0, 3]).frames, clip[[0, 3]])


def region(delta_mm: float, unit: int = 3) -> Dataset:
    part = Dataset()
    part.PhysicalUnitsXDirection = part.PhysicalUnitsYDirection = unit
    part.PhysicalDeltaX, part.PhysicalDeltaY = delta_mm / 10, -delta_mm / 10
    return part


@pytest.mark.parametrize(
    ("elements", "spacing", "source", "calibrated"),
    [
        ({"Modality": "CT", "PixelSpacing": [0.5, 0.7]}, (0.5, 0.7), "PixelSpacing", True),
        ({"Modality": "DX", "PixelSpacing": [0.1, 0.1], "ImagerPixelSpacing": [0.1, 0.1]},
         (0.1, 0.1), "PixelSpacing", False),
        ({"Modality": "DX", "PixelSpacing": [0.1, 0.1], "PixelSpacingCalibrationType": "FIDUCIAL",
          "ImagerPixelSpacing": [0.1, 0.1]}, (0.1, 0.1), "PixelSpacing", True),
        ({"Modality": "CR", "ImagerPixelSpacing": [0.2, 0.2]}, (0.2, 0.2), "ImagerPixelSpacing", False),
        ({"Modality": "MG", "ImagerPixelSpacing": [0.2, 0.2], "EstimatedRadiographicMagnificationFactor": 2.0},
         (0.1, 0.1), "ImagerPixelSpacing", False),
        ({"Modality": "US", "SequenceOfUltrasoundRegions": [region(0.3)]}, (0.3, 0.3), "ultrasound region", True),
        ({"Modality": "US", "SequenceOfUltrasoundRegions": [region(0.3), region(0.5)]}, None, None, True),
        ({"Modality": "US", "SequenceOfUltrasoundRegions": [region(0.3, unit=4)]}, None, None, True),
        ({"Modality": "CT", "PixelSpacing": [0.0, 0.7]}, None, None, True),
        ({"Modality": "OT"}, None, None, True),
    ],
)  # fmt: skip
def test_spacing_follows_its_order_of_sources(
    tmp_path: Path, make_dicom: Make, elements: dict, spacing: object, source: object, calibrated: bool
) -> None:
    image = read_dicom(make_dicom(tmp_path / "x", GREY, **elements))
    assert image.spacing_mm == (pytest.approx(spacing) if spacing else None)
    assert image.spacing_source == source
    assert ("spacing_uncalibrated" in image.flags) == (not calibrated)


def test_suv_needs_all_its_facts() -> None:
    header, dose = Dataset(), Dataset()
    dose.RadionuclideTotalDose, dose.RadionuclideHalfLife = 4e8, 6586.2
    dose.RadiopharmaceuticalStartTime = "100000"
    header.Units, header.DecayCorrection, header.PatientWeight = "BQML", "START", 80.0
    header.SeriesTime, header.RadiopharmaceuticalInformationSequence = "114946.200000", [dose]
    assert suv_factor(header) == pytest.approx(80_000 / 2e8, rel=1e-6)  # one half-life later
    header.DecayCorrection = "ADMIN"
    assert suv_factor(header) == pytest.approx(80_000 / 4e8)
    del header.PatientWeight
    assert suv_factor(header) is None


def test_files_that_cannot_be_used_are_named(tmp_path: Path, make_dicom: Make) -> None:
    path = make_dicom(tmp_path / "whole.dcm", GREY)
    (tmp_path / "cut.dcm").write_bytes(path.read_bytes()[:-30])
    (tmp_path / "text.dcm").write_text("not DICOM at all, only text")
    (tmp_path / "empty.dcm").write_bytes(b"")
    for name in ("cut.dcm", "text.dcm", "empty.dcm", "gone.dcm"):
        with pytest.raises(InputError, match=name):
            read_dicom(tmp_path / name)
    assert is_dicom(path)
    assert not is_dicom(tmp_path / "text.dcm")
    header = read_header(path, pixels=True)
    del header.PixelData
    header.save_as(tmp_path / "bare.dcm")
    with pytest.raises(InputError, match=r"bare.dcm.*CT Image Storage.*no pixels"):
        read_dicom(tmp_path / "bare.dcm")


def test_every_lossless_transfer_syntax_decodes_alike(real_data: Path) -> None:
    folder = real_data / "dicom-cornerstone-transfer-syntaxes"
    truth = read_dicom(next(folder.glob("*LittleEndianImplicit*"))).frames
    lossless = [*folder.glob("*Lossless*"), *folder.glob("*Process14*"), *folder.glob("*Explicit*")]
    assert len(lossless) >= 6
    for path in lossless:
        assert np.array_equal(read_dicom(path).frames, truth), path.name
    progressive = read_dicom(next(folder.glob("*Process10_12*"))).frames  # a retired process, which only GDCM decodes
    lossy = read_dicom(next(folder.glob("*Process2_4*"))).frames
    assert np.abs(progressive - lossy).max() < 2.5  # one step of the rescale slope: the same 12 bits in another order


def test_real_files_either_decode_or_say_why(real_data: Path) -> None:
    for path in sorted((real_data / "dicom-pydicom-testfiles").glob("*.dcm"))[::3]:
        with suppress(InputError):  # nothing but InputError may come out
            image = read_dicom(path)
            assert image.frames.dtype.isnative
            to_stored(image.frames[0], image.unit, window=image.window)
