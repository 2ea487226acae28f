import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from medglip.errors import InputError
from medglip.imaging.dicom import read_dicom, read_header
from medglip.imaging.header import Unusable, burned_in_risk, is_dicom, overlays_of

Make = Callable[..., Path]
GREY = np.arange(64, dtype=np.uint16).reshape(8, 8) * 60
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@pytest.mark.parametrize(
    ("elements", "risk"),
    [
        ({"Modality": "CT"}, False),
        ({"Modality": "CT", "BurnedInAnnotation": "YES"}, True),
        ({"Modality": "US"}, True),
        ({"Modality": "US", "BurnedInAnnotation": "NO"}, False),
        ({"Modality": "XA"}, True),
        ({"Modality": "MR", "SOPClassUID": SECONDARY_CAPTURE}, True),
        ({"Modality": "SM", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.6"}, False),
        ({"Modality": "CT", "ImageType": ["DERIVED", "SECONDARY"]}, True),
        ({"Modality": "CT", "ImageType": ["DERIVED", "SECONDARY", "MPR"], "ImagePositionPatient": [0, 0, 0]}, False),
        ({"Modality": "CT", "ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"], "ImagePositionPatient": [0, 0, 0]}, True),
        ({"Modality": "CT", "SeriesDescription": "Dose report", "BurnedInAnnotation": "NO"}, True),
    ],
)
def test_pictures_that_may_carry_text_are_told(elements: dict, risk: bool) -> None:
    header = Dataset()
    for keyword, value in elements.items():
        setattr(header, keyword, value)
    assert burned_in_risk(header) is risk


def overlay(header: Dataset, *, data: bool) -> None:
    header.add_new((0x6000, 0x0010), "US", 8)
    header.add_new((0x6000, 0x0011), "US", 8)
    header.add_new((0x6000, 0x0100), "US", 1 if data else 16)
    header.add_new((0x6000, 0x0102), "US", 0 if data else 12)
    if data:
        header.add_new((0x6000, 0x3000), "OW", bytes(8))


def test_overlay_planes_are_reported_and_never_drawn(tmp_path: Path, make_dicom: Make) -> None:
    beside = read_header(make_dicom(tmp_path / "a", GREY, Modality="MR"), pixels=True)
    overlay(beside, data=True)
    beside.save_as(tmp_path / "beside")
    image = read_dicom(tmp_path / "beside")
    assert "overlay_plane" in image.flags
    assert np.array_equal(image.frames[0], GREY)
    inside = read_header(
        make_dicom(tmp_path / "b", GREY | np.uint16(0x1000), Modality="MR", BitsStored=12, HighBit=11), pixels=True
    )
    overlay(inside, data=False)
    inside.save_as(tmp_path / "inside")
    assert overlays_of(inside)[0].in_pixels
    image = read_dicom(tmp_path / "inside")
    assert "overlay_in_pixels" in image.flags
    assert np.array_equal(image.frames[0], GREY)


def test_content_decides_also_in_gzip(tmp_path: Path, make_dicom: Make) -> None:
    path = make_dicom(tmp_path / "plain", GREY)
    (tmp_path / "packed.dcm.gz").write_bytes(gzip.compress(path.read_bytes()))
    (tmp_path / "table.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    assert is_dicom(tmp_path / "packed.dcm.gz")
    assert np.array_equal(read_dicom(tmp_path / "packed.dcm.gz").frames, read_dicom(path).frames)
    assert not is_dicom(tmp_path / "table.csv.gz")
    (tmp_path / "binary").write_bytes(b"\x08\x00" + b"\xff" * 300)  # begins like a DICOM element and is none
    assert not is_dicom(tmp_path / "binary")


@pytest.mark.parametrize(
    ("elements", "reason", "words"),
    [
        ({"Modality": "SR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.33"}, "no_image", "structured report"),
        ({"Modality": "RTSTRUCT"}, "no_image", "contours"),
        ({"Modality": "", "SOPClassUID": "1.2.840.10008.1.3.10"}, "no_image", "directory of other files"),
        ({"Modality": "ECG", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.9.1.1"}, "no_image", "waveform"),
    ],
)
def test_objects_without_pictures_give_a_reason(
    tmp_path: Path, make_dicom: Make, elements: dict, reason: str, words: str
) -> None:
    path = make_dicom(tmp_path / "x", GREY, **elements)
    with pytest.raises(Unusable, match=words) as refused:
        read_dicom(path)
    assert refused.value.reason == reason
    assert isinstance(refused.value, InputError)


def test_pixel_aspect_is_recorded_and_not_resampled(tmp_path: Path, make_dicom: Make) -> None:
    image = read_dicom(make_dicom(tmp_path / "x", GREY, Modality="US", PixelAspectRatio=["4", "3"]))
    assert image.detail["pixel_aspect_ratio"] == "4:3"
    assert image.frames.shape == (1, 8, 8)


def test_real_overlays_are_found(real_data: Path) -> None:
    for name in ("examples_overlay.dcm", "MR-SIEMENS-DICOM-WithOverlays.dcm"):
        assert "overlay_plane" in read_dicom(real_data / "dicom-pydicom-testfiles" / name).flags


def test_a_broken_number_of_frames_breaks_an_image_and_nothing_else(tmp_path: Path, make_dicom: Make) -> None:
    for name, modality in (("image", "CT"), ("dose", "RTDOSE")):
        path = make_dicom(tmp_path / name, GREY, Modality=modality, NumberOfFrames="77")
        path.write_bytes(path.read_bytes().replace(b"IS\x02\x0077", b"IS\x02\x007A"))
    with pytest.raises(InputError, match="'image' is broken"):
        read_header(tmp_path / "image")
    with pytest.raises(Unusable, match="no image but: dose"):
        read_dicom(tmp_path / "dose")


def test_the_header_knows_where_reading_stopped(tmp_path: Path, make_dicom: Make) -> None:
    path = make_dicom(tmp_path / "x", GREY)
    assert path.read_bytes()[read_header(path).pixels_at :].startswith(b"\xe0\x7f\x10\x00")
    assert read_header(path, pixels=True).pixels_at is None
