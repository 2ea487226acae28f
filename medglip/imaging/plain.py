"""Plain frames: grey, uncompressed, one a file; read by their place in the file. Knows no series, labels or datasets.

A series has hundreds of them, and parsing each file a second time took longer than reading its pixels. The values are
those that ``medglip.imaging.pixels`` gives; whatever is not plain, or odd in any way, is left to it.
"""

import os
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medglip.imaging.grey import Range, Step, inverted, padding_as_air, rescaled
from medglip.imaging.header import BROKEN, MEASURED
from medglip.imaging.pixels import MOST_BYTES, is_inverted, padding_of, span_of, steps_of
from medglip.imaging.suv import suv_factor

_PIXEL_DATA = b"\xe0\x7f\x10\x00"
_GREY = ("MONOCHROME1", "MONOCHROME2")
# What makes values of pixels in another way: groups of an enhanced file, tables, other pixels. Overlays may lie in bits.
_OTHER_WAYS = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence", "ModalityLUTSequence", "PixelAspectRatio",
               "FloatPixelData", "DoubleFloatPixelData")  # fmt: skip
_OVERLAYS = 0x60000000


class Plain(NamedTuple):
    """Where a plain frame lies and what its numbers mean.

    Attributes:
        at: First byte of the pixel element in the file.
        implicit: Whether its VR is left out.
        rows, columns: Of the frame.
        bytes_: Of a pixel: 1 or 2.
        stored: Bits of a pixel that count; those above are cleared.
        signed: Whether stored numbers have a sign.
        step: Slope and intercept.
        padding: Stored numbers that stand for padding in a CT, from and to; or None.
        factor: What a PET is multiplied by, or None.
        turned: Whether the lowest number is white.
    """

    at: int
    implicit: bool
    rows: int
    columns: int
    bytes_: int
    stored: int
    signed: bool
    step: Step
    padding: tuple[int, int] | None = None
    factor: float | None = None
    turned: bool = False

    @property
    def span(self) -> Range:
        """The values that can be stored, rescaled."""
        low, high = span_of(self.stored, self.signed)
        return low * self.step[0] + self.step[1], high * self.step[0] + self.step[1]


def plain_of(header: Dataset) -> Plain | None:
    """Where and what the pixels of a file are, from its ``read_header``; None where they are not plain."""
    try:
        return _plain(header)
    except BROKEN:
        return None  # reading the file in full will say what is broken


def _plain(header: Dataset) -> Plain | None:
    at, syntax = getattr(header, "pixels_at", None), header.file_meta.get("TransferSyntaxUID")
    modality, bits, stored = header.get("Modality"), header.get("BitsAllocated"), header.get("BitsStored")
    sign, rows, columns = header.get("PixelRepresentation"), header.get("Rows"), header.get("Columns")
    if (
        at is None
        or syntax not in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
        or modality not in MEASURED
        or bits not in (8, 16)
        or not isinstance(stored, int)
        or not 1 <= stored <= bits
        or sign not in (0, 1)
        or header.get("SamplesPerPixel") != 1
        or header.get("PhotometricInterpretation") not in _GREY
        or (header.get("NumberOfFrames") or 1) != 1
        or not (isinstance(rows, int) and isinstance(columns, int) and 0 < rows * columns * 2 <= MOST_BYTES)
        or any(word in header for word in _OTHER_WAYS)
        or max(header.keys()) >= _OVERLAYS
    ):
        return None
    return Plain(
        at, syntax == ImplicitVRLittleEndian, rows, columns, bits // 8, stored, bool(sign), steps_of(header, [0])[0],
        padding_of(header) if modality == "CT" else None, suv_factor(header) if modality == "PT" else None, is_inverted(header),
    )  # fmt: skip


def plain_values(path: Path, plain: Plain) -> np.ndarray | None:
    """The frame (H, W) as values, as ``read_dicom`` gives them; maybe not to be written to.

    None where the file does not hold, at the place, a pixel element of the right length that ends it: then the file is
    to be read in full, which will say what is wrong with it.
    """
    size = plain.rows * plain.columns * plain.bytes_
    head = 8 if plain.implicit else 12
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(plain.at)
            data = file.read(head + size + 2)
            whole = os.fstat(file.fileno()).st_size == plain.at + len(data)
    except OSError:
        return None
    said = head + size + size % 2
    length = struct.pack("<I", size + size % 2)
    first = (length,) if plain.implicit else (b"OW\0\0" + length, b"OB\0\0" + length)
    if not whole or len(data) != said or data[:4] != _PIXEL_DATA or data[4:head] not in first:
        return None
    kind = "i" if plain.signed else "u"
    array = np.frombuffer(data, f"<{kind}{plain.bytes_}", plain.rows * plain.columns, head)
    array = array.astype(array.dtype.newbyteorder("="), copy=False).reshape(1, plain.rows, plain.columns)
    if shift := 8 * plain.bytes_ - plain.stored:
        array = np.left_shift(array, shift)
        np.right_shift(array, shift, out=array)
    values = rescaled(array, [plain.step])
    if plain.padding is not None:
        most = plain.padding[1] * plain.step[0] + plain.step[1] if plain.step[0] > 0 else None
        values = padding_as_air(values, array, plain.padding, most)
    if plain.factor not in (None, 1.0):
        values = (values * plain.factor).astype(np.float32, copy=False)
    return (inverted(values, sum(plain.span)) if plain.turned else values)[0]
