"""The pixel chain on generated files: compressed, mislabelled, padded, windowed."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels import get_encoder
from pydicom.uid import UID, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from medglip.errors import InputError
from medglip.imaging import decoders
from medglip.imaging.codestream import codestream_of, mended
from medglip.imaging.dicom import Unusable, read_dicom, read_header

Make = Callable[..., Path]
GREY = np.arange(64, dtype=np.uint16).reshape(8, 8) * 60
LARGE = np.kron(GREY, np.ones((8, 8), np.uint16))  # codecs want some pixels


def compressed(path: Path, frames: list[bytes], syntax: str, **elements: object) -> Path:
    """The file at ``path`` with its pixel data replaced."""
    header = read_header(path, pixels=True)
    header.file_meta.TransferSyntaxUID = UID(syntax)
    header.PixelData = encapsulate(frames)
    header["PixelData"].is_undefined_length = True
    for keyword, value in elements.items():
        setattr(header, keyword, value)
    header.save_as(path)
    return path


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, **options)
    return file.getvalue()


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize("signed", [False, True])
def test_lossless_codecs_give_the_plain_file_back(tmp_path: Path, make_dicom: Make, syntax: str, signed: bool) -> None:
    pixels = (LARGE.astype(np.int16) - 1000) if signed else LARGE
    plain = make_dicom(tmp_path / "plain", pixels, Modality="MR")
    encoder = get_encoder(syntax)
    if not encoder.is_available:
        pytest.skip("no encoder here")
    frame = encoder.encode(read_header(plain, pixels=True))
    path = compressed(make_dicom(tmp_path / "packed", pixels, Modality="MR"), [frame], syntax)
    assert np.array_equal(read_dicom(path).frames, read_dicom(plain).frames)


def us_like() -> np.ndarray:
    """A mostly black picture with a little colour, as ultrasound is."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[20:40, 10:50] = 90
    pixels[24:32, 16:32] = (200, 30, 30)
    return pixels


def test_ybr_jpeg_that_is_tagged_rgb_becomes_rgb(tmp_path: Path, make_dicom: Make) -> None:
    pixels = us_like()
    payload = jpeg(pixels, subsampling=0)
    jfif = payload.index(b"JFIF")
    payload = payload[: jfif - 4] + payload[jfif + 14 :]  # without the marker that would give the colours away
    path = compressed(make_dicom(tmp_path / "x", pixels, Modality="US"), [payload], JPEGBaseline8Bit)
    image = read_dicom(path)
    assert "ybr_tagged_rgb" in image.flags
    assert np.abs(image.frames[0].astype(int) - pixels).mean() < 3


def test_true_rgb_jpeg_stays_rgb(tmp_path: Path, make_dicom: Make) -> None:
    pixels = us_like()
    path = compressed(make_dicom(tmp_path / "x", pixels, Modality="US"), [jpeg(pixels, keep_rgb=True)], JPEGBaseline8Bit)
    image = read_dicom(path)
    assert "ybr_tagged_rgb" not in image.flags
    assert np.abs(image.frames[0].astype(int) - pixels).mean() < 3


def test_a_codestream_with_another_sign_is_believed(tmp_path: Path, make_dicom: Make) -> None:
    pixels = LARGE.astype(np.int16) - 1000
    plain = read_header(make_dicom(tmp_path / "plain", pixels, Modality="MR"), pixels=True)
    frame = get_encoder(JPEG2000Lossless).encode(plain)
    path = compressed(make_dicom(tmp_path / "x", pixels, Modality="MR"), [frame], JPEG2000Lossless, PixelRepresentation=0)
    assert codestream_of(frame).signed is True
    assert "bits_mismatch" in read_dicom(path).flags


def test_a_wider_codestream_is_not_cut_off(tmp_path: Path, make_dicom: Make) -> None:
    payload = decoders._flat_lossless_jpeg()  # 12 bits, every sample 2048
    pixels = np.zeros((32, 32), np.uint16)
    path = make_dicom(tmp_path / "x", pixels, Modality="MR", BitsStored=10, HighBit=9)
    image = read_dicom(compressed(path, [payload], JPEGLosslessSV1))
    assert image.frames.max() == 2048
    assert "bits_mismatch" in image.flags


def test_an_image_that_decodes_to_nothing_is_broken(tmp_path: Path, make_dicom: Make) -> None:
    zeros = np.zeros((32, 32), np.uint16)
    payload = decoders._flat_lossless_jpeg()
    path = compressed(make_dicom(tmp_path / "x", zeros, Modality="MR"), [payload], JPEGLosslessSV1)
    header = read_header(path, pixels=True)
    header.add_new("SmallestImagePixelValue", "US", 0)
    header.add_new("LargestImagePixelValue", "US", 900)
    header.save_as(path)
    with pytest.raises(Unusable, match="the one value 2048") as refused:
        read_dicom(path)
    assert refused.value.reason == "broken_pixels"
    del header.SmallestImagePixelValue, header.LargestImagePixelValue
    header.save_as(path)
    assert read_dicom(path).frames.max() == 2048  # a flat image that says no more is a flat image


def test_a_syntax_without_decoder_names_itself_and_a_way_out(tmp_path: Path, make_dicom: Make) -> None:
    known, unknown = "1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.110"
    for syntax, words in (
        ("1.2.840.10008.1.2.4.55", "SimpleITK refuses these bytes"),
        (known, "a video"),
        (unknown, "JPEG XL Lossless"),
    ):
        path = compressed(make_dicom(tmp_path / syntax, GREY), [b"\0\0"], known if syntax == unknown else syntax)
        if syntax == unknown:  # pydicom does not write what it does not know
            path.write_bytes(path.read_bytes().replace(known.encode(), unknown.encode()))
        with pytest.raises(Unusable, match=words) as refused:
            read_dicom(path)
        assert refused.value.reason == f"no_decoder:{syntax}"


@pytest.mark.parametrize(
    ("function", "window"),
    [(None, (1000.0, 1999.0)), ("LINEAR", (1000.0, 1999.0)), ("LINEAR_EXACT", (1000.0, 2000.0)), ("SIGMOID", (1000.0, 2000.0))],
)
def test_window_functions(tmp_path: Path, make_dicom: Make, function: str | None, window: tuple) -> None:
    elements = {"Modality": "DX", "WindowCenter": [1500, 40], "WindowWidth": [1000, 400]}
    elements |= {"VOILUTFunction": function} if function else {}
    assert read_dicom(make_dicom(tmp_path / "x", GREY, **elements)).window == pytest.approx(window)


def test_presentation_lut_inverts_like_monochrome1(tmp_path: Path, make_dicom: Make) -> None:
    path = make_dicom(tmp_path / "x", GREY, Modality="DX", BitsStored=12, HighBit=11, PresentationLUTShape="INVERSE")
    image = read_dicom(path)
    assert image.inverted
    assert np.array_equal(image.frames[0], 4095 - GREY)


def test_padding_above_air_becomes_air(tmp_path: Path, make_dicom: Make) -> None:
    pixels = GREY.astype(np.int16) - 1000
    pixels[0] = 3000
    path = make_dicom(tmp_path / "x", pixels, RescaleSlope=1, RescaleIntercept=0, PixelPaddingValue=3000)
    image = read_dicom(path)
    assert (image.frames[0, 0] == -1024).all()
    assert np.array_equal(image.frames[0, 1:], pixels[1:])


def test_a_ct_that_cannot_be_negative_is_not_in_hounsfield_units(tmp_path: Path, make_dicom: Make) -> None:
    image = read_dicom(make_dicom(tmp_path / "x", GREY, RescaleSlope=1, RescaleIntercept=0))
    assert image.unit == "au"
    assert "not_hu" in image.flags


def palette(bits: int, segmented: bool) -> dict[str, object]:
    """A red ramp of 256 entries, plain or as one linear segment."""
    top = 255 if bits == 8 else 65535
    word = np.uint8 if bits == 8 else np.uint16
    ramp = np.linspace(0, top, 256).round().astype(word)
    found: dict[str, object] = {}
    for colour, data in (("Red", ramp), ("Green", np.zeros_like(ramp)), ("Blue", np.zeros_like(ramp))):
        found[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        name = f"{'Segmented' if segmented else ''}{colour}PaletteColorLookupTableData"
        # discrete segment of one entry, then a linear one of 255 up to the last value
        found[name] = np.array([0, 1, data[0], 1, 255, data[-1]], word).tobytes() if segmented else data.tobytes()
    return found


@pytest.mark.parametrize("segmented", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_palettes_of_both_depths_and_kinds_give_the_same_colours(
    tmp_path: Path, make_dicom: Make, bits: int, segmented: bool
) -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    table = palette(bits, segmented)
    path = make_dicom(tmp_path / "x", pixels, Modality="US", PhotometricInterpretation="PALETTE COLOR", **table)
    image = read_dicom(path)
    assert image.unit == "rgb"
    assert np.abs(image.frames[0, ..., 0].astype(int) - pixels).max() <= 1
    assert image.frames[0, ..., 1:].max() == 0


def test_pixel_data_without_its_description_is_refused(tmp_path: Path, make_dicom: Make) -> None:
    header = read_header(make_dicom(tmp_path / "x", GREY), pixels=True)
    del header.Rows
    header.save_as(tmp_path / "x")
    with pytest.raises(Unusable, match="without Rows") as refused:
        read_dicom(tmp_path / "x")
    assert refused.value.reason == "no_pixels"


def test_too_many_frames_are_refused_with_advice(tmp_path: Path, make_dicom: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_dicom(tmp_path / "x", np.zeros((9, 8, 8), np.uint8), Modality="US")
    monkeypatch.setattr("medglip.imaging.pixels.MOST_BYTES", 200)
    with pytest.raises(Unusable, match="read single frames"):
        read_dicom(path)
    assert read_dicom(path, frames=[8]).frames.shape == (1, 8, 8)


def test_real_mismatches_are_believed_and_told(real_data: Path) -> None:
    image = read_dicom(real_data / "dicom-pydicom-testfiles" / "J2K_pixelrep_mismatch.dcm")
    assert "bits_mismatch" in image.flags
    assert image.frames.min() == -2000


def test_real_rejections_give_true_reasons(real_data: Path) -> None:
    folder = real_data / "dicom-pydicom-testfiles"
    reasons = {"test-SR.dcm": "no_image", "rtplan.dcm": "no_image", "nested_priv_SQ.dcm": "no_pixels",
               "waveform_ecg.dcm": "no_image", "UN_sequence.dcm": "no_pixels",
               "JPEG2000-embedded-sequence-delimiter.dcm": "size_mismatch"}  # fmt: skip
    for name, reason in reasons.items():
        with pytest.raises(Unusable) as refused:
            read_dicom(folder / name)
        assert refused.value.reason == reason, name
    with pytest.raises(InputError, match="less than expected"):
        read_dicom(folder / "MR_truncated.dcm")


def test_probe_of_decoders_decodes_what_it_can_write() -> None:
    states = {decoder.uid: decoder.state for decoder in decoders.probed()}
    assert not {"wrong", "fails"} & set(states.values())
    assert states[RLELossless] == states[JPEGLosslessSV1] == states[JPEGBaseline8Bit] == "works"
    assert states["1.2.840.10008.1.2.4.55"] == "ready"
    assert states["1.2.840.10008.1.2.4.102"] == "none"
    versions = {name: found for name, found, _ in decoders.versions()}
    assert versions["pydicom"]


def test_advice_names_the_package_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "find_spec", lambda name: None)
    assert decoders.advice_for("1.2.840.10008.1.2.4.90") == "install pylibjpeg-openjpeg"


def test_codestreams_tell_bits_and_sign() -> None:
    found = codestream_of(jpeg(us_like()))
    assert found is not None
    assert (found.kind, found.bits, found.samples, found.complete) == ("jpeg", 8, 3, True)
    assert codestream_of(jpeg(us_like())[:-100]).complete is False
    assert codestream_of(b"no stream") is None


def test_a_scan_header_that_cannot_be_is_put_right(tmp_path: Path, make_dicom: Make) -> None:
    grey = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    whole = jpeg(grey)
    at = whole.index(b"\xff\xda")
    spectral = at + 5 + 2 * whole[at + 4]
    odd = whole[:spectral] + b"\0\0\0" + whole[spectral + 3 :]
    assert mended(odd) == whole
    assert mended(whole) is None
    assert mended(b"no stream") is None
    truth = read_dicom(compressed(make_dicom(tmp_path / "a", grey, Modality="US"), [whole], JPEGBaseline8Bit))
    image = read_dicom(compressed(make_dicom(tmp_path / "b", grey, Modality="US"), [odd], JPEGBaseline8Bit))
    assert np.abs(image.frames.astype(int) - truth.frames).max() <= 1


def test_a_real_scan_header_that_cannot_be_is_put_right(real_data: Path) -> None:
    import SimpleITK

    path = real_data / "dicom-pydicom-testfiles" / "JPEG-lossy.dcm"
    image = read_dicom(path)
    assert "mended_jpeg" in image.flags
    truth = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    assert np.abs(image.frames.astype(int) - truth).max() <= 1


def test_progressive_jpeg_is_decoded_by_the_second_decoder(tmp_path: Path, make_dicom: Make) -> None:
    grey = (np.add.outer(np.arange(64), np.arange(64)) * 2).astype(np.uint8)
    path = make_dicom(tmp_path / "x", np.stack([grey, 255 - grey]), Modality="US", RescaleSlope=2, RescaleIntercept=-10)
    frames = [jpeg(grey, progressive=True), jpeg(255 - grey, progressive=True)]
    path = compressed(path, frames, "1.2.840.10008.1.2.4.55")
    values = read_dicom(path).frames
    assert np.abs(values - (np.stack([grey, 255 - grey]).astype(int) * 2 - 10)).max() <= 8  # stored values, rescaled once
    assert np.array_equal(read_dicom(path, frames=[1]).frames[0], values[1])


@pytest.mark.parametrize("rows", [0, 20_000])
def test_a_frame_of_another_size_is_refused_before_it_is_decoded(tmp_path: Path, make_dicom: Make, rows: int) -> None:
    grey = np.add.outer(np.arange(20), np.arange(30)).astype(np.uint8)
    whole = jpeg(grey)
    at = whole.index(b"\xff\xc0") + 5
    broken = whole[:at] + rows.to_bytes(2, "big") + whole[at + 2 :]
    path = compressed(make_dicom(tmp_path / "a", grey, Modality="US"), [broken], JPEGBaseline8Bit)
    with pytest.raises(Unusable, match=f"a frame of 30 x {rows} pixels where 30 x 20 are promised") as refused:
        read_dicom(path)
    assert refused.value.reason == "size_mismatch"


def test_a_codestream_says_its_size(tmp_path: Path, make_dicom: Make) -> None:
    header = read_header(make_dicom(tmp_path / "a", np.resize(LARGE, (40, 72)), Modality="MR"), pixels=True)
    for payload in (jpeg(np.zeros((40, 72), np.uint8)), get_encoder(JPEG2000Lossless).encode(header)):
        found = codestream_of(payload)
        assert found is not None
        assert (found.height, found.width) == (40, 72)


def test_fewer_compressed_frames_than_promised_is_said(tmp_path: Path, make_dicom: Make) -> None:
    grey = np.zeros((3, 16, 16), np.uint8)
    path = make_dicom(tmp_path / "a", grey, Modality="US")
    header = read_header(path, pixels=True)
    header.file_meta.TransferSyntaxUID, header.NumberOfFrames = JPEGBaseline8Bit, 3
    header.PixelData = encapsulate([jpeg(grey[0]), jpeg(grey[1])])
    header["PixelData"].is_undefined_length = True
    header.save_as(path)
    with pytest.raises(Unusable, match="fewer frames"):
        read_dicom(path)
