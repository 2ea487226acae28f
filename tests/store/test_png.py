"""PNG bytes: what each filter gives, read back by another library's decoder."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from medglip.store.png import SIGNATURE, png_bytes

ROWS, COLUMNS = np.mgrid[0:200, 0:150]
LINE = np.random.default_rng(1).integers(0, 65536, 150, dtype=np.uint16)


def filters_used(png: bytes) -> set[int]:
    """The filter numbers at the head of the rows of a PNG."""
    at, data, header = len(SIGNATURE), b"", ()
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at : at + 8])
        body = png[at + 8 : at + 8 + size]
        assert zlib.crc32(kind + body) == int.from_bytes(png[at + 8 + size : at + 12 + size], "big")
        header = struct.unpack(">IIBBBBB", body) if kind == b"IHDR" else header
        data += body if kind == b"IDAT" else b""
        at += 12 + size
    width, height, bits, colour, *_ = header
    line = 1 + width * bits // 8 * (3 if colour == 2 else 1)
    raw = zlib.decompress(data)
    assert len(raw) == height * line
    return set(raw[::line])


@pytest.mark.parametrize(
    ("pixels", "filters"),
    [
        (np.random.default_rng(0).integers(0, 256, (200, 150), dtype=np.uint8), {0}),  # noise: nothing to predict
        ((LINE + 3 * ROWS).astype(np.uint8), {2}),  # every row is the one above and a little more
        ((COLUMNS + ROWS * ROWS % 97 * 31).astype(np.uint8), {1}),  # steps along a row, rows that jump
        ((LINE + 3 * ROWS).astype(np.uint16), {2}),
        (np.stack([COLUMNS, ROWS, COLUMNS + ROWS], axis=-1).astype(np.uint8), {1, 2}),
        (np.full((1, 1), 65535, np.uint16), {0, 1, 2}),
    ],
)
def test_each_filter_reads_back(pixels, filters):
    png = png_bytes(np.ascontiguousarray(pixels))
    assert filters_used(png) <= filters
    back = np.asarray(Image.open(io.BytesIO(png)))
    assert back.dtype == pixels.dtype
    assert np.array_equal(back, pixels)


def test_smooth_images_are_no_larger_than_those_of_pillow():
    smooth = (2000 + 500 * np.sin(ROWS / 20) + 300 * np.cos(COLUMNS / 30)).astype(np.uint16)
    theirs = io.BytesIO()
    Image.fromarray(smooth).save(theirs, "PNG", compress_level=3)
    assert len(png_bytes(smooth)) < 1.3 * len(theirs.getvalue())
