"""Pixels on disk: lossless PNG bytes, their hash, and uncompressed tar shards that are read by offset.

Knows nothing of records.
"""

import hashlib
import io
import os
import tarfile
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import NamedTuple, Self
from zlib import crc32

import numpy as np
from PIL import Image
from scipy.fft import dctn

from medglip.errors import DatasetError, RecordError
from medglip.store.png import SIGNATURE
from medglip.store.png import png_bytes as encoded_png

TAR_BLOCK = 512
SHARD_BYTES = 256 * 2**20


class Extent(NamedTuple):
    """Where the PNG of one image lies.

    Attributes:
        shard: Number of the shard in its part, from 0.
        offset: First byte of the PNG in the shard.
        size: Bytes of the PNG.
    """

    shard: int
    offset: int
    size: int


def checked_pixels(pixels: np.ndarray) -> np.ndarray:
    """The same pixels, contiguous, if they can be stored.

    Args:
        pixels: uint8 (H, W) or (H, W, 3), or uint16 (H, W).

    Raises:
        RecordError: another type or shape.
    """
    colour = pixels.ndim == 3 and pixels.shape[2] == 3
    if not (pixels.dtype == np.uint8 and (pixels.ndim == 2 or colour)) and not (pixels.dtype == np.uint16 and pixels.ndim == 2):
        raise RecordError(
            f"Pixels to store: found {pixels.dtype} {pixels.shape}; allowed: uint8 (H, W) or (H, W, 3), uint16 (H, W);"
            " convert them with medglip.imaging.intensity.to_stored."
        )
    if pixels.size == 0:
        raise RecordError(f"Pixels to store: found an empty array {pixels.shape}; allowed: at least 1 x 1.")
    return np.ascontiguousarray(pixels)


def pixel_sha256(pixels: np.ndarray) -> str:
    """Hash of an image: of its type, shape and pixels, not of a file, so that it is the same whatever wrote the PNG.

    Args:
        pixels: uint8 (H, W) or (H, W, 3), or uint16 (H, W).

    Returns:
        64 hex digits.

    Raises:
        RecordError: another type or shape.

    >>> pixel_sha256(np.zeros((2, 3), np.uint8))[:8]
    '43d95ab7'
    """
    pixels = checked_pixels(pixels)
    digest = hashlib.sha256(f"{pixels.dtype.name} {'x'.join(map(str, pixels.shape))}\n".encode())
    digest.update(pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).data)
    return digest.hexdigest()


def perceptual_hash(pixels: np.ndarray) -> str:
    """Hash of what an image looks like: near duplicates (scaled, recompressed, windowed anew) differ in few of 64 bits.

    Args:
        pixels: uint8 (H, W) or (H, W, 3), or uint16 (H, W).

    Returns:
        16 hex digits; compare two by the number of bits that differ.

    Source: Zauner, "Implementation and benchmarking of perceptual image hash functions" (2010), section 3.2.1: signs of
    the 8 x 8 lowest frequencies (without the mean) of a 32 x 32 grey image, against their median.
    """
    image = Image.fromarray(checked_pixels(pixels))
    image = image.convert("L") if image.mode == "RGB" else image
    if image.mode == "L" and (factor := min(image.size) // 128) > 1:  # most of the time would go into the large ones
        image = image.reduce(factor)
    small = np.asarray(Image.fromarray(np.asarray(image, np.float32)).resize((32, 32), Image.Resampling.BOX))
    waves = dctn(small, norm="ortho")[:8, :8].ravel()
    bits = waves > np.median(waves[1:])
    bits[0] = False
    return np.packbits(bits).tobytes().hex()


def png_bytes(pixels: np.ndarray) -> bytes:
    """The image as PNG, lossless; equal pixels give equal bytes with the same ISA-L on the same kind of processor.

    Args:
        pixels: uint8 (H, W) or (H, W, 3), or uint16 (H, W).

    Raises:
        RecordError: another type or shape.
    """
    return encoded_png(checked_pixels(pixels))


def pixels_of_png(png: bytes, where: str) -> np.ndarray:
    """The image in a PNG: uint8 (H, W) or (H, W, 3), or uint16 (H, W).

    Args:
        png: The file's bytes.
        where: Named in the error.

    Raises:
        DatasetError: the bytes are no such PNG, or a bit of them was changed.
    """
    check_png(png, where)
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            dtype = np.uint16 if image.mode == "I;16" else np.uint8
            if image.mode not in ("L", "RGB", "I;16"):
                raise DatasetError(f"{where}: found a PNG of mode {image.mode!r}; allowed: L, RGB, I;16.")
            return np.asarray(image, dtype=dtype)
    except (OSError, SyntaxError, ValueError) as error:
        raise DatasetError(f"{where}: found {len(png)} bytes that are no PNG ({error}); restore the shard.") from error


def check_png(png: bytes, where: str) -> None:
    """Whether a PNG is as it was written, by the checksums in it; nothing is decoded.

    Args:
        png: The file's bytes.
        where: Named in the error.

    Raises:
        DatasetError: it is no PNG, or a bit was changed.

    Source: W3C PNG specification, section 5.3: each chunk is its length, its type, its data and their CRC-32.
    """
    at, kind = len(SIGNATURE), b""
    view = memoryview(png)
    whole = png.startswith(SIGNATURE)
    while whole and kind != b"IEND":
        size = int.from_bytes(view[at : at + 4], "big")
        kind, end = bytes(view[at + 4 : at + 8]), at + 8 + size
        whole = crc32(view[at + 4 : end]) == int.from_bytes(view[end : end + 4], "big") and end + 4 <= len(png)
        at = end + 4
    if not whole or at != len(png):
        raise DatasetError(f"{where}: found {len(png)} bytes that are no PNG, or were changed; restore the shard.")


# Files kept open by this process, each with its identity; a read names its offset, so forked processes may share them.
_opened: OrderedDict[str, tuple[tuple[int, int], io.FileIO]] = OrderedDict()
_OPENED = 64
_opening = Lock()


def read_bytes(path: Path | str, offset: int, size: int) -> bytes:
    """``size`` bytes of a file from ``offset``; its handle is kept for the next call. Any process or thread may call it.

    Raises:
        DatasetError: the file is missing or shorter.
    """
    try:
        found = _pread(_handle(str(path)), size, offset) if hasattr(os, "pread") else _read_once(path, offset, size)
    except OSError as error:
        raise DatasetError(f"Shard {str(path)!r} cannot be read: {error.strerror}; restore it.") from error
    if len(found) != size:
        raise DatasetError(
            f"Shard {str(path)!r} ends before byte {offset + size}, found {len(found)} of {size} bytes; restore it."
        )
    return found


def _handle(path: str) -> io.FileIO:
    there = os.stat(path)
    identity = there.st_dev, there.st_ino
    known = _opened.get(path)
    if known is not None and known[0] == identity:
        return known[1]
    file = io.FileIO(path, "rb")
    if hasattr(os, "posix_fadvise"):  # a PNG is asked for whole, and its neighbours are not wanted
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
    with _opening:
        _opened[path] = identity, file
        if len(_opened) > _OPENED:
            _opened.popitem(last=False)  # closed when the last thread that reads it lets it go
    return file


def _pread(file: io.FileIO, size: int, offset: int) -> bytes:
    return os.pread(file.fileno(), size, offset)  # the argument holds the file, so it stays open


def _read_once(path: Path | str, offset: int, size: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


class _HashedFile(io.BufferedWriter):
    """A file being written whose hash is known at the end without reading it again."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path, "wb"))
        self.path, self.digest = path, hashlib.sha256()

    def write(self, data) -> int:
        self.digest.update(data)
        return super().write(data)


class WrittenFile(NamedTuple):
    """A finished file with its size in bytes and SHA-256."""

    path: Path
    size: int
    sha256: str


class ShardWriter:
    """Writes PNGs into tars of bounded size, one after the other.

    A member is named by the hash of its pixels. Time, owner and mode are fixed, so equal images give equal bytes.

    Attributes:
        finished: The shards that are complete, in order; closing adds the last.
    """

    def __init__(self, folder: Path, limit: int = SHARD_BYTES) -> None:
        self.finished: list[WrittenFile] = []
        self._folder, self._limit = folder, limit
        self._open: tuple[_HashedFile, tarfile.TarFile] | None = None

    def add(self, sha256: str, png: bytes) -> Extent:
        """Append one PNG and say where it lies."""
        if self._open is not None and self._open[0].tell() + len(png) > self._limit:
            self.close()
        if self._open is None:
            file = _HashedFile(self._folder / f"{len(self.finished):05d}.tar")
            # ustar: its header is one block, so the PNG's offset is known
            self._open = file, tarfile.TarFile(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)
        file, tar = self._open
        member = tarfile.TarInfo(f"{sha256}.png")
        member.size, member.mtime, member.mode = len(png), 0, 0o644
        offset = file.tell() + TAR_BLOCK
        tar.addfile(member, io.BytesIO(png))
        return Extent(len(self.finished), offset, len(png))

    def close(self) -> None:
        """Finish the open shard, if there is one."""
        if self._open is None:
            return
        file, tar = self._open
        self._open = None
        with file:
            tar.close()
            size = file.tell()
        self.finished.append(WrittenFile(file.path, size, file.digest.hexdigest()))

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close; what was written stays."""
        self.close()


def name_in_header(header: bytes, where: str) -> str:
    """Name of a tar member by the block before its content.

    Args:
        header: ``TAR_BLOCK`` bytes.
        where: Named in the error.

    Raises:
        DatasetError: the bytes are no header.
    """
    try:
        return tarfile.TarInfo.frombuf(header, "ascii", "strict").name
    except tarfile.HeaderError as error:
        raise DatasetError(f"{where}: no member begins there ({error}); restore the shard.") from error
