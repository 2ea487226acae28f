"""One DICOM file: what its header says, and its pixels as values. Knows nothing of series, labels or datasets.

Order of the pixel chain: decode (pydicom and pylibjpeg; bits above BitsStored cleared, YBR to RGB), palette, modality
LUT or rescale, VOI LUT for images made for display, MONOCHROME1 inverted last.
"""

import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medglip.errors import InputError

# Objects that hold no image of their own.
NO_IMAGE = {"SEG": "segmentation", "RTSTRUCT": "contours", "SR": "structured report", "RTPLAN": "radiotherapy plan",
            "RTDOSE": "dose", "PR": "presentation state", "KO": "key objects", "ANN": "annotations"}  # fmt: skip
MODALITY_OF = {
    "CT": "ct", "MR": "mr", "PT": "pet", "CR": "xray", "DX": "xray", "RG": "xray", "PX": "xray", "IO": "xray",
    "XA": "xray", "RF": "xray", "MG": "mammography", "US": "ultrasound", "IVUS": "ultrasound", "ES": "endoscopy",
    "DMS": "dermoscopy", "OP": "fundus", "OPT": "oct", "SM": "histopathology", "GM": "microscopy",
}  # fmt: skip
# Measured modalities are shown by our own windows; for the others the header's window is part of the image.
_MEASURED = ("CT", "MR", "PT", "NM")
BROKEN = (InvalidDicomError, EOFError, OSError, ValueError, TypeError, KeyError, AttributeError, IndexError,
           RuntimeError, NotImplementedError, struct.error)  # fmt: skip
# First element of a file without preamble: group 0002 or 0008, little or big endian.
_FIRST_BYTES = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")

Range = tuple[float, float]


@dataclass(frozen=True, eq=False)
class DicomImage:
    """Frames of one DICOM file.

    Attributes:
        frames: (N, H, W) or (N, H, W, 3), values in ``unit``.
        unit: ``HU``, ``SUVbw``, ``au`` or ``rgb``.
        modality: One of ``medglip.records.MODALITIES``.
        window: (low, high) that the header asks for, or None.
        inverted: True where the file is MONOCHROME1 and the values have been inverted.
        spacing_mm: (row, column) pitch, or None.
        spacing_source: Where the pitch is from, or None.
        sop_uid, patient, study, series: The source's ids as they are; hash them before they are written anywhere.
        detail: What the header says of the acquisition, for ``modality_detail``.
        flags: ``lossy``, ``burned_in_risk``, ``spacing_uncalibrated``, ``not_hu``, ``suv_unavailable``.
    """

    frames: np.ndarray
    unit: str
    modality: str
    window: Range | None = None
    inverted: bool = False
    spacing_mm: tuple[float, float] | None = None
    spacing_source: str | None = None
    sop_uid: str | None = None
    patient: str | None = None
    study: str | None = None
    series: str | None = None
    detail: dict[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


def is_dicom(path: Path) -> bool:
    """Whether the content, not the name, is DICOM; with or without preamble."""
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError:
        return False
    return head[128:] == b"DICM" or head[:2] in _FIRST_BYTES


def read_header(path: Path, *, pixels: bool = False) -> Dataset:
    """The data set of a file, without its pixels unless asked for.

    Raises:
        InputError: the file is missing, not DICOM, or broken.
    """
    if not path.is_file():
        raise InputError(f"DICOM file {str(path)!r} is not there.")
    if not is_dicom(path):
        raise InputError(f"{path.name!r} is not a DICOM file: no DICM mark and no DICOM element at its beginning.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path, stop_before_pixels=not pixels, force=True)
            # Elements are parsed when first used; use the one every object has.
            header.get("SOPClassUID")
    except BROKEN as error:
        raise InputError(f"DICOM file {path.name!r} is broken or cut off: {error}.") from error
    if len(header) == 0:
        raise InputError(f"DICOM file {path.name!r} is broken or cut off: it holds no element.")
    return header


def read_dicom(path: Path, frames: Sequence[int] | None = None) -> DicomImage:
    """Pixels of one file as values, with spacing and ids.

    Args:
        path: The file.
        frames: Which frames of a multi-frame file, from 0; None for all.

    Raises:
        InputError: the file is broken, holds no pixels, or its compression has no decoder.
    """
    header = read_header(path, pixels=True)
    try:
        values, unit, window, inverted, flags = _values(header, path.name, frames)
        spacing, spacing_source, calibrated = spacing_of(header)
        return DicomImage(
            frames=values, unit=unit, modality=MODALITY_OF.get(header.get("Modality", ""), "other"), window=window,
            inverted=inverted, spacing_mm=spacing, spacing_source=spacing_source, **ids_of(header),
            detail=detail_of(header), sop_uid=header.get("SOPInstanceUID"),
            flags=flags if calibrated else (*flags, "spacing_uncalibrated"),
        )  # fmt: skip
    except BROKEN as error:
        raise InputError(f"DICOM file {path.name!r} is broken or cut off: {error}.") from error


def _values(
    header: Dataset, name: str, frames: Sequence[int] | None
) -> tuple[np.ndarray, str, Range | None, bool, tuple[str, ...]]:
    """Frames (N, H, W[, 3]), unit, window, inverted and flags of a data set read with its pixels."""
    array = _decoded(header, name, frames)
    flags = _flags(header)
    if array.ndim == 4 or header.get("PhotometricInterpretation") == "PALETTE COLOR":
        colours, window = _colours(array, header)
        return colours, "rgb", window, False, flags
    numbers = list(frames) if frames is not None else list(range(len(array)))
    values, span = _modality_values(array, header, numbers)
    unit = "au"
    if header.get("Modality") == "CT":
        rescaled = "RescaleIntercept" in header or functional(header, "PixelValueTransformationSequence", 0) is not None
        unit, flags = ("HU", flags) if rescaled else ("au", (*flags, "not_hu"))
    elif header.get("Modality") == "PT":
        factor = suv_factor(header)
        unit, flags = ("SUVbw", flags) if factor else ("au", (*flags, "suv_unavailable"))
        values = values if factor in (None, 1.0) else (values * factor).astype(np.float32)
    window = None
    if header.get("Modality") not in _MEASURED:
        values, span, window = _voi(values, span, header)
    inverted = header.get("PhotometricInterpretation") == "MONOCHROME1" or header.get("PresentationLUTShape") == "INVERSE"
    if inverted:
        total = span[0] + span[1]
        values = _compact(total - values.astype(np.float64), values.dtype)
        window = (total - window[1], total - window[0]) if window else None
    return values, unit, window, inverted, flags


def functional(header: Dataset, sequence: str, frame: int) -> Dataset | None:
    """First item of a functional group of one frame: its own, else the shared one, else None."""
    for groups, at in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        items = header.get(groups) or []
        if at < len(items) and items[at].get(sequence):
            return items[at].get(sequence)[0]
    return None


def spacing_of(header: Dataset) -> tuple[tuple[float, float] | None, str | None, bool]:
    """Pitch (row, column) in mm, the attribute it is from, and whether it holds in the patient, not at the detector.

    Source: DICOM PS3.3 10.7.1.3 (calibration), C.8.5.5 (ultrasound regions).
    """
    calibrated = header.get("Modality") in _MEASURED or "PixelSpacingCalibrationType" in header
    measures = functional(header, "PixelMeasuresSequence", 0)
    found = _pitch(header.get("PixelSpacing")) or (_pitch(measures.get("PixelSpacing")) if measures else None)
    if found:
        at_detector = not calibrated and found == _pitch(header.get("ImagerPixelSpacing"))
        return found, "PixelSpacing", not at_detector
    if found := _pitch(header.get("NominalScannedPixelSpacing")):
        return found, "NominalScannedPixelSpacing", True
    if found := _pitch(header.get("ImagerPixelSpacing")):
        factor = float(header.get("EstimatedRadiographicMagnificationFactor") or 1.0)
        return (found[0] / factor, found[1] / factor), "ImagerPixelSpacing", False
    if found := _ultrasound_pitch(header):
        return found, "ultrasound region", True
    return None, None, True


def suv_factor(header: Dataset) -> float | None:
    """What to multiply PET values by to get SUV by body weight; None where the header does not tell.

    Source: QIBA FDG-PET/CT, SUV computation from DICOM (happy path for BQML; GML is SUV already).
    """
    if header.get("Units") == "GML":
        return 1.0
    dose = (header.get("RadiopharmaceuticalInformationSequence") or [Dataset()])[0]
    try:
        weight_g = float(header.PatientWeight) * 1000.0
        activity, half_life = float(dose.RadionuclideTotalDose), float(dose.RadionuclideHalfLife)
        if header.Units != "BQML" or min(weight_g, activity, half_life) <= 0:
            return None
        if header.DecayCorrection == "ADMIN":
            return weight_g / activity
        if header.DecayCorrection != "START":
            return None
        waited = (_seconds(header.SeriesTime) - _seconds(dose.RadiopharmaceuticalStartTime)) % 86400.0
    except (AttributeError, TypeError, ValueError):
        return None
    return weight_g / (activity * 2.0 ** (-waited / half_life))


def ids_of(header: Dataset) -> dict[str, str | None]:
    """The source's ids of patient, study and series, as they are."""
    names = {"patient": "PatientID", "study": "StudyInstanceUID", "series": "SeriesInstanceUID"}
    return {ours: str(header.get(theirs) or "") or None for ours, theirs in names.items()}


def detail_of(header: Dataset) -> dict[str, str]:
    """What the header says of the acquisition in coded words; free text may hold names and is left alone."""
    names = {"view": "ViewPosition", "body_part": "BodyPartExamined", "scanning_sequence": "ScanningSequence"}
    found = {ours: header.get(theirs) for ours, theirs in names.items()}
    return {
        ours: "/".join(map(str, text)).lower() if isinstance(text, pydicom.multival.MultiValue) else str(text).lower()
        for ours, text in found.items()
        if text
    }


def _decoded(header: Dataset, name: str, frames: Sequence[int] | None) -> np.ndarray:
    """Frames as decoded, (N, H, W) or (N, H, W, 3); YBR turned to RGB."""
    if not any(keyword in header for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        kind = UID(str(header.get("SOPClassUID") or "")).name or "unknown kind"
        raise InputError(f"DICOM file {name!r} ({kind}) holds no pixels; allowed: images.")
    if header.get("Modality") in NO_IMAGE:
        raise InputError(f"DICOM file {name!r} holds no image but: {NO_IMAGE[header.Modality]}; give the image it belongs to.")
    if not hasattr(header, "file_meta") or "TransferSyntaxUID" not in header.file_meta:
        implicit, little = header.original_encoding
        header.file_meta = getattr(header, "file_meta", FileMetaDataset())
        native = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        header.file_meta.TransferSyntaxUID = native
    syntax = header.file_meta.TransferSyntaxUID
    count = int(header.get("NumberOfFrames") or 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if frames is None:
                array = pixel_array(header)
                array = array if count > 1 else array[None]
            else:
                array = np.stack([pixel_array(header, index=int(number)) for number in frames])
    except (RuntimeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"DICOM file {name!r}: no decoder reads its {syntax.name} ({syntax}): {reason}") from error
    darkest, brightest = header.get("SmallestImagePixelValue"), header.get("LargestImagePixelValue")
    if syntax.is_compressed and darkest != brightest and isinstance(darkest, int) and array.min() == array.max():
        raise InputError(f"DICOM file {name!r} decodes to the one value {array.min()}, its header says more; it is broken.")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


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


def _modality_values(array: np.ndarray, header: Dataset, numbers: Sequence[int]) -> tuple[np.ndarray, Range]:
    """Values after modality LUT or rescale (1 and 0 where missing, which is normal), and the span they may take."""
    bits, signed = int(header.get("BitsStored", 16)), bool(header.get("PixelRepresentation", 0))
    span = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
    if header.get("ModalityLUTSequence"):
        values = apply_modality_lut(array, header)
        return values, (0.0, 2.0 ** int(header.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    steps = []
    for number in numbers:
        item = functional(header, "PixelValueTransformationSequence", number) or header
        steps.append((float(item.get("RescaleSlope", 1) or 1), float(item.get("RescaleIntercept", 0) or 0)))
    slope, intercept = steps[0]
    if all(step == (1.0, 0.0) for step in steps):
        return array, span
    shape = (-1,) + (1,) * (array.ndim - 1)
    slopes, intercepts = (np.array(column).reshape(shape) for column in zip(*steps, strict=True))
    if array.dtype.kind in "iu" and all(slope.is_integer() and offset.is_integer() for slope, offset in steps):
        values = array.astype(np.int64) * slopes.astype(np.int64) + intercepts.astype(np.int64)
        return _compact(values, np.dtype(np.int16)), (span[0] * slope + intercept, span[1] * slope + intercept)
    values = (array * slopes + intercepts).astype(np.float32)
    return values, (span[0] * slope + intercept, span[1] * slope + intercept)


def _voi(values: np.ndarray, span: Range, header: Dataset) -> tuple[np.ndarray, Range, Range | None]:
    """Values after a VOI LUT sequence, or the header's first window (PS3.3 C.11.2.1.2) and the values as they are."""
    if header.get("VOILUTSequence") and values.dtype.kind in "iu":
        top = 2.0 ** int(header.VOILUTSequence[0].LUTDescriptor[2]) - 1
        return apply_voi_lut(values, header), (0.0, top), (0.0, top)
    item = functional(header, "FrameVOILUTSequence", 0) or header
    centre, width = _first(item.get("WindowCenter")), _first(item.get("WindowWidth"))
    if centre is None or width is None or width < 1:
        return values, span, None
    if item.get("VOILUTFunction", "LINEAR") == "LINEAR":
        centre, width = centre - 0.5, width - 1.0
    # A sigmoid window has at its centre the slope of the linear one of the same width.
    return values, span, (centre - width / 2, centre + width / 2) if width > 0 else None


def _compact(values: np.ndarray, preferred: np.dtype) -> np.ndarray:
    """The same numbers in the smallest type that holds them, the preferred one first."""
    if preferred.kind == "f":
        return values.astype(np.float32)
    low, high = values.min(), values.max()
    for dtype in (preferred, np.dtype(np.int16), np.dtype(np.uint16), np.dtype(np.int32)):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return values.astype(dtype)
    return values.astype(np.float32)


def _flags(header: Dataset) -> tuple[str, ...]:
    flags = []
    if str(header.get("LossyImageCompression", "")) == "01":
        flags.append("lossy")
    burned_in = header.get("BurnedInAnnotation")
    if burned_in == "YES" or (burned_in != "NO" and header.get("Modality") in ("US", "ES", "SC", "OT", "XC")):
        flags.append("burned_in_risk")
    return tuple(flags)


def _pitch(value: object) -> tuple[float, float] | None:
    """(row, column) of a PixelSpacing-like attribute, None where it is missing or not above 0."""
    try:
        row, column = (float(number) for number in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return None
    return (row, column) if np.isfinite([row, column]).all() and min(row, column) > 0 else None


def _ultrasound_pitch(header: Dataset) -> tuple[float, float] | None:
    """Pitch of the ultrasound regions measured in cm both ways (unit code 3), where all of them agree within 1 %."""
    pitches = [
        (abs(float(region.PhysicalDeltaY)) * 10.0, abs(float(region.PhysicalDeltaX)) * 10.0)
        for region in header.get("SequenceOfUltrasoundRegions") or []
        if region.get("PhysicalUnitsXDirection") == 3 and region.get("PhysicalUnitsYDirection") == 3
    ]
    if not pitches or not np.allclose(pitches, pitches[0], rtol=0.01) or min(pitches[0]) <= 0:
        return None
    return pitches[0]


def _first(value: object) -> float | None:
    try:
        return float(value[0] if isinstance(value, pydicom.multival.MultiValue) else value)  # type: ignore[arg-type]
    except (TypeError, ValueError, IndexError):
        return None


def _seconds(time: str) -> float:
    """Seconds since midnight of a DICOM time HHMMSS.ffffff."""
    text = str(time)
    return int(text[:2]) * 3600.0 + int(text[2:4] or 0) * 60.0 + float(text[4:] or 0)
