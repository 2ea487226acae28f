"""The header of one DICOM file: is it DICOM, what object, whose, what it warns of. Knows nothing of pixels or series."""

import gzip
import io
import os
import re
import struct
import warnings
import zlib
from collections.abc import MutableSequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import UID

from medglip.errors import InputError

# pydicom warns of odd values by printing them, and they may be a patient's. What matters of them is judged here.
warnings.filterwarnings("ignore", module=r"pydicom\b")

# Objects that hold no image of their own.
NO_IMAGE = {"SEG": "segmentation", "RTSTRUCT": "contours", "SR": "structured report", "RTPLAN": "radiotherapy plan",
            "RTDOSE": "dose", "PR": "presentation state", "KO": "key objects", "ANN": "annotations"}  # fmt: skip
MODALITY_OF = {
    "CT": "ct", "MR": "mr", "PT": "pet", "CR": "xray", "DX": "xray", "RG": "xray", "PX": "xray", "IO": "xray",
    "XA": "xray", "RF": "xray", "MG": "mammography", "US": "ultrasound", "IVUS": "ultrasound", "ES": "endoscopy",
    "DMS": "dermoscopy", "OP": "fundus", "OPT": "oct", "SM": "histopathology", "GM": "microscopy",
}  # fmt: skip
# Measured modalities are shown by our own windows; for the others the header's window is part of the image.
MEASURED = ("CT", "MR", "PT", "NM")
BROKEN = (InvalidDicomError, EOFError, OSError, ValueError, TypeError, KeyError, AttributeError, IndexError,
           RuntimeError, NotImplementedError, ArithmeticError, BytesLengthException, struct.error, zlib.error)  # fmt: skip
PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
# What one byte can become at most when it is unpacked: the limit of deflate. Runs of one value come near it.
MOST_PACKED = 1032
# First element of a file without preamble: group 0002 or 0008, little or big endian.
_FIRST_BYTES = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")
# SOP classes of pictures that devices write their texts into: ultrasound, secondary capture, angiography, endoscopy.
_TEXT_IN_PIXELS = re.compile(r"1\.2\.840\.10008\.5\.1\.4\.1\.1\.(3\.1|6\.\d|7(\.\d)?|12\.[12](\.1)?|77\.1\.1(\.1)?)")
_TEXT_MODALITIES = ("US", "ES", "SC", "OT", "XC", "XA", "RF")
_SCREEN_WORDS = ("SAVE", "SCREEN", "DOSE")


class Unusable(InputError):
    """A file that is understood and cannot be used. ``reason`` is the short code that a list of rejects shows."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def is_dicom(path: Path) -> bool:
    """Whether the content, not the name, is DICOM; with or without preamble, also packed by gzip (``x.dcm.gz``)."""
    try:
        with open_packed(path) as file:
            return _begins_dicom(file)
    except OSError:
        return False


def _begins_dicom(file: BinaryIO) -> bool:
    """Whether a file at its beginning holds DICOM."""
    try:
        head = file.read(140)
    except (OSError, EOFError, zlib.error):
        return False
    return head[128:132] == b"DICM" or (head[:2] in _FIRST_BYTES and _element(head))


def open_packed(path: Path) -> BinaryIO:
    """The file, unpacked where its content is gzip."""
    file = Bounded(path)
    if file.read(2) == b"\x1f\x8b":
        file.close()
        return _Unpacked(path, "rb")  # type: ignore[return-value]
    file.seek(0)
    return file


# What may be asked for without a look at the size: almost all elements are shorter, and a look takes longer than they do.
_SMALL = 1 << 16


class Bounded(io.BufferedReader):
    """A file that is never asked for more than it holds: a broken length would take that much memory before it is seen."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any file."""
        if size is None or size < _SMALL:
            return super().read(size)
        return super().read(min(size, max(self._size - self.tell(), 0)))

    def __del__(self) -> None:
        with suppress(ValueError):  # of a file that could not be opened
            self.close()  # Pillow lets go of a file without closing it


class _Unpacked(gzip.GzipFile):
    """The same of a packed file, whose length nobody knows: it is read in pieces."""

    def read(self, size: int | None = -1) -> bytes:
        """As of any file."""
        if size is None or size < _SMALL:
            return super().read(size)
        pieces = []
        while size and (piece := super().read(min(size, 16 * _SMALL))):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)


def _element(head: bytes) -> bool:
    """Whether bytes begin with an element of group 0002 or 0008: a known VR, or a length that such an element may have."""
    if len(head) < 8:
        return False
    order = "<" if head[1] == 0 else ">"
    (number,) = struct.unpack(order + "H", head[2:4])
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return explicit or (number < 0x3000 and struct.unpack("<I", head[4:8])[0] < 1 << 16)


def read_header(path: Path, *, pixels: bool = False) -> Dataset:
    """The data set of a file, without its pixels unless asked for.

    Its attribute ``pixels_at`` says at which byte of the file reading stopped: where the pixels begin, if there are any;
    None where they were read, or the file is packed.

    Raises:
        InputError: the file is missing, not DICOM, or broken.
    """
    if not path.is_file():
        raise InputError(f"DICOM file {str(path)!r} is not there.")
    not_dicom = f"{path.name!r} is not a DICOM file: no DICM mark and no DICOM element at its beginning."
    try:
        opened = open_packed(path)
    except OSError as error:
        raise InputError(not_dicom) from error
    try:
        with warnings.catch_warnings(), opened as file:
            warnings.simplefilter("ignore")
            if not _begins_dicom(file):
                raise InputError(not_dicom)
            file.seek(0)
            header = pydicom.dcmread(file, stop_before_pixels=not pixels, force=True)
            _drop_broken_meta(header)
            header.pixels_at = None if pixels or not isinstance(file, Bounded) else file.tell()
            _check_single(header, path.stat().st_size)
    except BROKEN as error:
        raise InputError(f"DICOM file {path.name!r} is broken or cut off: {error}.") from error
    if len(header) == 0:
        raise InputError(f"DICOM file {path.name!r} is broken or cut off: it holds no element.")
    return header


def _drop_broken_meta(header: Dataset) -> None:
    """Take out what cannot be parsed of the file meta group, which pydicom leaves until somebody uses it."""
    meta = getattr(header, "file_meta", None) or Dataset()
    for tag in list(meta.keys()):
        try:
            meta[tag]
        except BROKEN:
            del meta[tag]


# What every reader takes for one value, without looking.
_SINGLE = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality",
           "Rows", "Columns", "NumberOfFrames")  # fmt: skip


def _check_single(header: Dataset, size: int) -> None:
    """Parse what every reader uses, which pydicom leaves until it is used; ``size`` is that of the file, in bytes.

    Raises:
        ValueError: one of it is no single value, or there are more frames than a file of this size can hold.
    """
    header.get("PatientID")
    for word in _SINGLE:
        if isinstance(value := header.get(word), MutableSequence):
            raise ValueError(f"{word} has {len(value)} values; allowed: one")
    try:
        frames = int(header.get("NumberOfFrames") or 1)
    except ValueError:
        if no_image_of(header):
            return  # refused for what it is, or passed over in a folder of images
        raise
    if frames < 0 or frames > max(size, 1) * MOST_PACKED:
        raise ValueError(f"NumberOfFrames is {frames}, and the file has {size} bytes")


# PerFrameFunctionalGroupsSequence and SharedFunctionalGroupsSequence: asked for by number, for that is done often.
_PER_FRAME, _SHARED = 0x52009230, 0x52009229


def functional(header: Dataset, sequence: str, frame: int) -> Dataset | None:
    """First item of a functional group of one frame: its own, else the shared one, else None."""
    for groups, at in ((_PER_FRAME, frame), (_SHARED, 0)):
        if groups not in header:
            continue
        items = header[groups].value or []
        if at < len(items) and items[at].get(sequence):
            return items[at].get(sequence)[0]
    return None


def object_of(header: Dataset) -> str:
    """What object a data set is, in the standard's words, for example ``CT Image Storage``; ``unknown kind`` if it hides it."""
    meta = getattr(header, "file_meta", None) or Dataset()
    uid = UID(str(header.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or ""))
    return uid.name if uid and uid.name != uid else "unknown kind"


def no_image_of(header: Dataset) -> str | None:
    """What a data set holds instead of an image, or None for one that may be an image."""
    kind = str(header.get("Modality") or "")
    if kind in NO_IMAGE:
        return NO_IMAGE[kind]
    name = object_of(header)
    for word, holds in (("Structured", "structured report"), (" SR", "structured report"), ("RT Plan", NO_IMAGE["RTPLAN"]),
                        ("RT Ion Plan", NO_IMAGE["RTPLAN"]), ("RT Structure", "contours"), ("Segmentation", "segmentation"),
                        ("Presentation State", NO_IMAGE["PR"]), ("Waveform", "waveform"), ("Annotations", "annotations"),
                        ("Media Storage Directory", "directory of other files"), ("Encapsulated", "document"),
                        ("RT Dose", "dose")):  # fmt: skip
        if word in name:
            return holds
    return None


def ids_of(header: Dataset) -> dict[str, str | None]:
    """The source's ids of patient, study and series, as they are."""
    names = {"patient": "PatientID", "study": "StudyInstanceUID", "series": "SeriesInstanceUID"}
    return {ours: str(header.get(theirs) or "") or None for ours, theirs in names.items()}


def detail_of(header: Dataset) -> dict[str, str]:
    """What the header says of the acquisition in coded words; free text may hold names and is left alone."""
    names = {"view": "ViewPosition", "body_part": "BodyPartExamined", "scanning_sequence": "ScanningSequence"}
    found = {ours: header.get(theirs) for ours, theirs in names.items()}
    detail = {
        ours: "/".join(map(str, text)).lower() if isinstance(text, pydicom.multival.MultiValue) else str(text).lower()
        for ours, text in found.items()
        if text
    }
    # Rule 10: pixels that are not square are recorded, never resampled.
    ratio = header.get("PixelAspectRatio")
    if ratio is not None and len(ratio) == 2 and int(ratio[0]) != int(ratio[1]):
        detail["pixel_aspect_ratio"] = f"{int(ratio[0])}:{int(ratio[1])}"
    return detail


def flags_of(header: Dataset) -> tuple[str, ...]:
    """``lossy``, ``burned_in_risk``, ``overlay_plane`` and ``overlay_in_pixels``, where the header says so."""
    flags = []
    if str(header.get("LossyImageCompression", "")) == "01":
        flags.append("lossy")
    if burned_in_risk(header):
        flags.append("burned_in_risk")
    flags += sorted({f"overlay_{'in_pixels' if overlay.in_pixels else 'plane'}" for overlay in overlays_of(header)})
    return tuple(flags)


def burned_in_risk(header: Dataset) -> bool:
    """Whether text may be drawn into the pixels; no header can prove that there is none.

    Source: the rules that de-identification tools share (CTP, deid): what the header admits, words of saved screens and
    dose sheets, pictures of devices that write into their images, derived pictures without a place in the patient.
    """
    said = header.get("BurnedInAnnotation")
    if said == "YES":
        return True
    words = " ".join([*map(str, header.get("ImageType") or ()), str(header.get("SeriesDescription") or "")]).upper()
    if any(word in words for word in _SCREEN_WORDS):
        return True
    if said == "NO":
        return False
    uid, modality = str(header.get("SOPClassUID") or ""), header.get("Modality")
    if modality in _TEXT_MODALITIES or _TEXT_IN_PIXELS.fullmatch(uid):
        return True
    # A derived slice that keeps its place in the patient is a reformat; without a place it may be a picture of a screen.
    placed = "ImagePositionPatient" in header or "PerFrameFunctionalGroupsSequence" in header
    return not placed and "ImageType" in header and any(word in words for word in ("SECONDARY", "DERIVED"))


class Overlay(NamedTuple):
    """A plane of graphics (group 60xx): its group and size, and whether it lies in unused bits of the pixels."""

    group: int
    rows: int
    columns: int
    in_pixels: bool


def overlays_of(header: Dataset) -> list[Overlay]:
    """The overlay planes of a data set; they are reported, and never drawn into the pixels.

    Source: DICOM PS3.3 C.9.2. Without overlay data of its own, a plane lies in a bit of the pixels above BitsStored.
    """
    found = []
    for group in range(0x6000, 0x6020, 2):
        if (group, 0x0010) not in header and (group, 0x0102) not in header:
            continue
        rows, columns = (header.get((group, number)) for number in (0x0010, 0x0011))
        size = [int(item.value) if item is not None and item.value else 0 for item in (rows, columns)]
        found.append(Overlay(group, size[0], size[1], in_pixels=(group, 0x3000) not in header))
    return found


def pitch(value: object) -> tuple[float, float] | None:
    """(row, column) of a PixelSpacing-like attribute, None where it is missing or not above 0."""
    try:
        row, column = (float(number) for number in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return None
    return (row, column) if np.isfinite([row, column]).all() and min(row, column) > 0 else None
