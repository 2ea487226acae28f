"""The pixel chain of one DICOM file: decoded, coloured, rescaled, windowed, inverted. Knows no series, labels or datasets.

Order: decode (pydicom and pylibjpeg; bits above BitsStored cleared, YBR to RGB), palette, modality LUT or rescale, VOI
LUT for images made for display, MONOCHROME1 inverted last.
"""

import warnings
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames, get_frame
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, convert_color_space, pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
)

from medglip.imaging.codestream import Codestream, codestream_of, mended, misfit
from medglip.imaging.decoders import advice_for, plugins_for, syntax_name, without_panics
from medglip.imaging.grey import Range, Step, inverted, padding_as_air, rescaled
from medglip.imaging.header import MEASURED, PIXEL_KEYWORDS, Unusable, flags_of, functional, no_image_of, object_of, overlays_of
from medglip.imaging.second_decoder import decoded_by_gdcm
from medglip.imaging.suv import suv_factor

Values = tuple[np.ndarray, str, Range | None, bool, tuple[str, ...]]

# Frames that would need more memory than this are read one at a time, or as tiles.
MOST_BYTES = 4 << 30
_NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


def values_of(header: Dataset, name: str, frames: Sequence[int] | None) -> Values:
    """Frames (N, H, W[, 3]), unit, window, inverted and flags of a data set read with its pixels.

    Raises:
        Unusable: there are no pixels, too many, or no decoder for them.
    """
    array, odd = _decoded(header, name, frames)
    flags = (*flags_of(header), *odd)
    if array.ndim == 4 or header.get("PhotometricInterpretation") == "PALETTE COLOR":
        colours, window = _colours(array, header)
        return colours, "rgb", window, False, flags
    numbers = list(frames) if frames is not None else list(range(len(array)))
    values, span = _modality_values(array, header, numbers)
    unit = "au"
    if header.get("Modality") == "CT":
        if edges := padding_of(header):
            values = padding_as_air(values, array, edges, _most_padding(header, numbers, edges))
        unit, flags = ("HU", flags) if _is_hounsfield(span, header) else ("au", (*flags, "not_hu"))
    elif header.get("Modality") == "PT":
        factor = suv_factor(header)
        unit, flags = ("SUVbw", flags) if factor else ("au", (*flags, "suv_unavailable"))
        values = values if factor in (None, 1.0) else (values * factor).astype(np.float32, copy=False)
    window = None
    if header.get("Modality") not in MEASURED:
        values, span, window = _voi(values, span, header)
    if turned := is_inverted(header):
        total = span[0] + span[1]
        values = inverted(values, total)
        window = (total - window[1], total - window[0]) if window else None
    return values, unit, window, turned, flags


def syntax_of(header: Dataset) -> UID:
    """The transfer syntax: that of the file, or what reading a file without one has shown."""
    if "TransferSyntaxUID" not in (getattr(header, "file_meta", None) or ()):
        implicit, little = header.original_encoding
        header.file_meta = getattr(header, "file_meta", None) or FileMetaDataset()
        native = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        header.file_meta.TransferSyntaxUID = native
    return header.file_meta.TransferSyntaxUID


def must_hold_pixels(header: Dataset, name: str) -> None:
    """Refuses a data set that is no image.

    Raises:
        Unusable: what it is instead.
    """
    if holds := no_image_of(header):
        raise Unusable("no_image", f"DICOM file {name!r} holds no image but: {holds}; give the image it belongs to.")
    if not any(keyword in header for keyword in PIXEL_KEYWORDS):
        raise Unusable("no_pixels", f"DICOM file {name!r} ({object_of(header)}) holds no pixels; allowed: images.")
    if lacking := [word for word in ("Rows", "Columns", "BitsAllocated") if not header.get(word)]:
        raise Unusable("no_pixels", f"DICOM file {name!r} ({object_of(header)}) holds pixel data without {lacking[0]}, so"
                                    " nobody can tell what it shows; allowed: images.")  # fmt: skip


def _decoded(header: Dataset, name: str, frames: Sequence[int] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Frames as decoded, (N, H, W) or (N, H, W, 3), YBR turned to RGB; and what was odd about them."""
    must_hold_pixels(header, name)
    syntax = syntax_of(header)
    count = int(header.get("NumberOfFrames") or 1)
    wanted = count if frames is None else len(frames)
    samples = int(header.Rows) * int(header.Columns) * int(header.get("SamplesPerPixel", 1))
    size = wanted * samples * int(header.BitsAllocated) // 8
    if size > MOST_BYTES:
        raise Unusable("too_large", f"DICOM file {name!r} holds {count} frames of {header.Columns} x {header.Rows} pixels,"
                                    f" {size / 1e9:.1f} GB; read single frames, or medglip.imaging.tiles a slide.")  # fmt: skip
    compressed = syntax not in _NATIVE
    if compressed:
        _must_fit(header, count, name)
    payload = _first_frame(header, count) if compressed else b""
    stream = codestream_of(payload)
    stored = int(header.get("BitsStored") or header.BitsAllocated)
    if _wider(header, stream, stored):
        header.BitsStored, header.HighBit = stream.bits, stream.bits - 1  # type: ignore[union-attr]
    array, scans = _by_any(header, frames, name)
    if stored != header.get("BitsStored", stored) and array.max() < 2**stored:
        header.BitsStored, header.HighBit = stored, stored - 1  # the codestream only has a wider box
    if compressed:
        _must_show_something(array, header, payload, name)
    array, odd = _rgb_in_name_only(array, header, syntax, stream)
    if _disagree(header, stream, stored):
        odd = (*odd, "bits_mismatch")
    return array.astype(array.dtype.newbyteorder("="), copy=False), (*odd, *scans)


def _must_fit(header: Dataset, count: int, name: str) -> None:
    """Refuse compressed frames that no decoder should be asked for.

    Raises:
        Unusable: one says that it is of another size than the file.
    """
    try:
        payloads = list(generate_frames(header.PixelData, number_of_frames=count))
    except (ValueError, AttributeError, TypeError, RuntimeError):
        return  # the decoder says what is wrong
    for payload in payloads:
        if odd := misfit(payload, int(header.Rows), int(header.Columns)):
            raise Unusable("size_mismatch", f"DICOM file {name!r} is damaged: it holds {odd}.")


def _by_plugins(header: Dataset, frames: Sequence[int] | None, plugins: Sequence[str]) -> np.ndarray:
    """Frames as the first of pydicom's plugins decodes them that can.

    Raises:
        RuntimeError, NotImplementedError: none can, or there is none.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refused: Exception = NotImplementedError("there is no decoder")
        for plugin in plugins:
            try:
                with without_panics():
                    if frames is not None:
                        return np.stack([pixel_array(header, index=int(number), decoding_plugin=plugin) for number in frames])
                    array = pixel_array(header, decoding_plugin=plugin)
            except RuntimeError as error:
                refused = error
            except StopIteration:  # so pydicom says it
                refused = RuntimeError("it holds fewer frames than it promises")
            else:
                return array if int(header.get("NumberOfFrames") or 1) > 1 else array[None]
    raise refused


def _by_any(header: Dataset, frames: Sequence[int] | None, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Frames by pydicom's plugins; else with mended scan headers; else by GDCM; and what had to be done."""
    syntax, count = syntax_of(header), int(header.get("NumberOfFrames") or 1)
    plugins = plugins_for(syntax) if syntax not in _NATIVE else ("",)
    try:
        return _by_plugins(header, frames, plugins), ()
    except (RuntimeError, NotImplementedError) as error:
        refused = error
    if syntax not in _NATIVE:
        with suppress(RuntimeError, NotImplementedError, ValueError):
            if syntax in (JPEGBaseline8Bit, JPEGExtended12Bit) and _mend(header, count):
                return _by_plugins(header, frames, plugins), ("mended_jpeg",)
        with suppress(RuntimeError, ValueError, IndexError, OSError):
            return decoded_by_gdcm(header, frames), ()
    reason = " ".join(str(refused).split())
    raise Unusable(
        f"no_decoder:{syntax}",
        f"DICOM file {name!r}: no decoder reads its {syntax_name(syntax)} ({syntax}): {advice_for(syntax)}. ({reason})",
    ) from refused


def _mend(header: Dataset, count: int) -> bool:
    """Puts scan headers right that a strict decoder refuses; whether there was one."""
    payloads = list(generate_frames(header.PixelData, number_of_frames=count))
    right = [mended(payload) for payload in payloads]
    header.PixelData = encapsulate([new or old for new, old in zip(right, payloads, strict=True)])
    return any(right)


def _first_frame(header: Dataset, count: int) -> bytes:
    try:
        return get_frame(header.PixelData, 0, number_of_frames=count)
    except (ValueError, AttributeError, TypeError):
        return b""


def _wider(header: Dataset, stream: Codestream | None, stored: int) -> bool:
    """Whether the codestream has more bits than the header says, which would be cut off (rule 11: trust the codestream)."""
    return (
        stream is not None and stream.kind == "jpeg" and stored < stream.bits <= int(header.BitsAllocated)
        and not header.get("PixelRepresentation") and not any(overlay.in_pixels for overlay in overlays_of(header))
    )  # fmt: skip


def _disagree(header: Dataset, stream: Codestream | None, stored: int) -> bool:
    """Whether header and codestream disagree in a way that changes values."""
    if stream is None:
        return False
    sign = stream.signed is not None and stream.signed != bool(header.get("PixelRepresentation"))
    narrow = bool(header.get("PixelRepresentation")) and stream.bits < stored  # the sign bit lies elsewhere
    return sign or narrow or stored != header.get("BitsStored", stored)


def _must_show_something(array: np.ndarray, header: Dataset, payload: bytes, name: str) -> None:
    """Refuses a frame of one value whose header or whose number of bytes says that it shows something."""
    if array.min() != array.max():
        return
    darkest, brightest = header.get("SmallestImagePixelValue"), header.get("LargestImagePixelValue")
    more = isinstance(darkest, int) and isinstance(brightest, int) and darkest != brightest
    # A flat image takes at most one bit a sample in any of the codecs; two bits a sample are no flat image.
    if more or len(payload) * 4 > int(header.Rows) * int(header.Columns) * int(header.get("SamplesPerPixel", 1)):
        raise Unusable("broken_pixels", f"DICOM file {name!r} decodes to the one value {array.min()}, its header or its size"
                                        " says more; it is broken.")  # fmt: skip


def _rgb_in_name_only(
    array: np.ndarray, header: Dataset, syntax: UID, stream: Codestream | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """A JPEG whose header says RGB and whose pixels are YBR, as ultrasound devices write it, turned to RGB.

    The pixels tell: in YBR both colour channels lie near 128 almost everywhere, in RGB grey pixels have three equal ones.
    """
    lossy_jpeg = syntax in (JPEGBaseline8Bit, JPEGExtended12Bit)
    if not lossy_jpeg or array.ndim != 4 or header.get("PhotometricInterpretation") != "RGB" or stream is None:
        return array, ()
    chroma = np.abs(array[0, ..., 1:].astype(np.int16) - 128).max(axis=-1) <= 8
    grey = np.ptp(array[0].astype(np.int16), axis=-1) <= 8
    if chroma.mean() < 0.5 or grey.mean() > 0.5:
        return array, ()
    return convert_color_space(array, "YBR_FULL", "RGB", per_frame=True), ("ybr_tagged_rgb",)


def _colours(array: np.ndarray, header: Dataset) -> tuple[np.ndarray, Range | None]:
    """RGB as uint8, or uint16 where more bits are stored, with the window of that depth."""
    if array.ndim == 3:
        array = np.stack([apply_color_lut(frame, header)[..., :3] for frame in array])
        if array.dtype.itemsize == 2:
            # A 16-bit palette holds 8-bit colours in its high or, wrongly but often, in its low bytes.
            array = (array >> 8 if array.max() > 255 else array).astype(np.uint8)
        return array.astype(np.uint8, copy=False), None
    if array.dtype.itemsize > 2:
        array = (array.astype(np.uint64) >> (8 * array.dtype.itemsize - 16)).astype(np.uint16)
    if array.dtype.itemsize == 2:
        return array.astype(np.uint16), (0.0, float(2 ** min(int(header.get("BitsStored", 16)), 16) - 1))
    return array.astype(np.uint8, copy=False), None


def padding_of(header: Dataset) -> tuple[int, int] | None:
    """Lowest and highest stored number that stands for padding, or None."""
    padding, last = header.get("PixelPaddingValue"), header.get("PixelPaddingRangeLimit")
    if not isinstance(padding, int):
        return None
    low, high = sorted((padding, last if isinstance(last, int) else padding))
    return low, high


def _most_padding(header: Dataset, numbers: Sequence[int], edges: tuple[int, int]) -> float | None:
    """The highest value that padding can have; None where more brightness is not a higher value, or a table says it."""
    if header.get("ModalityLUTSequence"):
        return None
    steps = steps_of(header, numbers)
    return max(edges[1] * slope + offset for slope, offset in steps) if all(slope > 0 for slope, _ in steps) else None


def _is_hounsfield(span: Range, header: Dataset) -> bool:
    """Whether CT values are Hounsfield units: rescaled, and able to fall below 0, for a CT holds air or fat."""
    rescaled = "RescaleIntercept" in header or functional(header, "PixelValueTransformationSequence", 0) is not None
    return rescaled and span[0] < 0


def is_inverted(header: Dataset) -> bool:
    """Whether the lowest number is white."""
    return header.get("PhotometricInterpretation") == "MONOCHROME1" or header.get("PresentationLUTShape") == "INVERSE"


def steps_of(header: Dataset, numbers: Sequence[int]) -> list[Step]:
    """Slope and intercept of frames: 1 and 0 where missing, which is normal."""
    items = (functional(header, "PixelValueTransformationSequence", number) or header for number in numbers)
    return [(float(item.get("RescaleSlope", 1) or 1), float(item.get("RescaleIntercept", 0) or 0)) for item in items]


def span_of(bits: int, signed: bool) -> Range:
    """The numbers that can be stored."""
    return (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)


def _modality_values(array: np.ndarray, header: Dataset, numbers: Sequence[int]) -> tuple[np.ndarray, Range]:
    """Values after modality LUT or rescale, and the span they may take."""
    if header.get("ModalityLUTSequence"):
        values = apply_modality_lut(array, header)
        return values, (0.0, 2.0 ** int(header.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    span = span_of(int(header.get("BitsStored", 16)), bool(header.get("PixelRepresentation", 0)))
    steps = steps_of(header, numbers)
    slope, intercept = steps[0]
    return rescaled(array, steps), (span[0] * slope + intercept, span[1] * slope + intercept)


def _voi(values: np.ndarray, span: Range, header: Dataset) -> tuple[np.ndarray, Range, Range | None]:
    """Values after a VOI LUT sequence, or the header's first window (PS3.3 C.11.2.1.2) and the values as they are."""
    if header.get("VOILUTSequence") and values.dtype.kind in "iu":
        top = 2.0 ** int(header.VOILUTSequence[0].LUTDescriptor[2]) - 1
        return apply_voi_lut(values, header), (0.0, top), (0.0, top)
    item = functional(header, "FrameVOILUTSequence", 0) or header
    centre, width = _first(item.get("WindowCenter")), _first(item.get("WindowWidth"))
    if centre is None or width is None or width <= 0:
        return values, span, None
    if (item.get("VOILUTFunction") or "LINEAR") == "LINEAR":
        if width <= 1:  # a threshold: nothing between black and white
            return values, span, None
        centre, width = centre - 0.5, width - 1.0
    # A sigmoid window has at its centre the slope of the linear one of the same width.
    return values, span, (centre - width / 2, centre + width / 2)


def _first(value: object) -> float | None:
    try:
        return float(value[0] if isinstance(value, pydicom.multival.MultiValue) else value)  # type: ignore[arg-type]
    except (TypeError, ValueError, IndexError):
        return None
