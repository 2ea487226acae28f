"""What a compressed frame says of itself: bits, sign, colour, whole or cut off. Knows no headers and decodes nothing.

Source: ITU-T T.81 B.2 (JPEG), T.87 C.2 (JPEG-LS), T.800 A.5 (JPEG 2000).
"""

import struct
from typing import NamedTuple

# Markers of JPEG that begin a frame: SOF0 to SOF15 without DHT, JPG and DAC; SOF55 is JPEG-LS.
_FRAMES = ({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}) | {0xF7}
_APP14, _SCAN = 0xEE, 0xDA


class Codestream(NamedTuple):
    """Facts of one compressed frame.

    Attributes:
        kind: ``jpeg``, ``jpeg-ls`` or ``jpeg2000``.
        bits: Of a sample.
        signed: Whether samples have a sign; None where the format does not say (JPEG, JPEG-LS).
        samples: Of a pixel.
        adobe: Colour transform that Adobe's marker names (0 none, 1 YCbCr), or None.
        complete: Whether the end-of-image marker is there.
        height: In pixels; 0 where it is left to be told after the scan (T.81 B.2.5).
        width: In pixels.
    """

    kind: str
    bits: int
    signed: bool | None
    samples: int
    adobe: int | None
    complete: bool
    height: int
    width: int


def codestream_of(frame: bytes) -> Codestream | None:
    """Facts of a frame; None where it is no JPEG of any kind.

    >>> codestream_of(bytes.fromhex("ffd8 ffc3 000b 0c 0010 0010 01 01 11 00 ffd9")).bits
    12
    """
    complete = b"\xff\xd9" in frame[-16:]
    begin = frame.find(b"\xff\x4f\xff\x51", 0, 512)  # a JP2 file has boxes before its codestream
    try:
        if begin >= 0:
            depth, samples = frame[begin + 42], struct.unpack(">H", frame[begin + 40 : begin + 42])[0]
            right, lower, left, upper = struct.unpack(">4I", frame[begin + 8 : begin + 24])
            return Codestream("jpeg2000", (depth & 0x7F) + 1, bool(depth & 0x80), samples, None, complete, lower - upper,
                              right - left)  # fmt: skip
        return _jpeg(frame, complete) if frame[:2] == b"\xff\xd8" else None
    except (IndexError, struct.error):
        return None


def misfit(frame: bytes, height: int, width: int) -> str:
    """Why no decoder should be asked for a frame of a file that says ``height`` x ``width`` pixels; empty where one may.

    Decoders take memory for what a frame says of itself, and search without end for the number of rows that it leaves open.

    >>> misfit(bytes.fromhex("ffd8 ffc3 000b 0c 0000 0010 01 01 11 00 ffd9"), 16, 16)
    'a frame of 16 x 0 pixels where 16 x 16 are promised'
    """
    stream = codestream_of(frame)
    if stream is None or 0 < stream.height * stream.width <= 4 * height * width:
        return ""
    return f"a frame of {stream.width} x {stream.height} pixels where {width} x {height} are promised"


def mended(frame: bytes) -> bytes | None:
    """A sequential JPEG whose scan header names impossible coefficients, as old scanners wrote it, put right; else None.

    A sequential scan always runs from coefficient 0 to 63; strict decoders refuse any other numbers.
    """
    if (stream := codestream_of(frame)) is None or stream.kind != "jpeg" or b"\xff\xc3" in frame[:512]:
        return None
    at = frame.find(b"\xff\xda")
    if at < 0 or at + 5 >= len(frame):
        return None
    spectral = at + 5 + 2 * frame[at + 4]
    if frame[spectral : spectral + 3] == b"\0\x3f\0":
        return None
    return frame[:spectral] + b"\0\x3f\0" + frame[spectral + 3 :]


def _jpeg(frame: bytes, complete: bool) -> Codestream | None:
    at, adobe = 2, None
    while at + 4 <= len(frame) and frame[at] == 0xFF:
        marker, length = frame[at + 1], struct.unpack(">H", frame[at + 2 : at + 4])[0]
        if marker == _APP14 and frame[at + 4 : at + 9] == b"Adobe":
            adobe = frame[at + 15]
        if marker in _FRAMES:
            kind = "jpeg-ls" if marker == 0xF7 else "jpeg"
            height, width = struct.unpack(">HH", frame[at + 5 : at + 9])
            return Codestream(kind, frame[at + 4], None, frame[at + 9], adobe, complete, height, width)
        if marker == _SCAN:
            return None
        at += 2 + length
    return None
