"""Whole slides and other pictures too large for memory, read tile by tile. Knows no labels and no datasets.

DICOM slides (VL Whole Slide Microscopy, tiled full or sparse) through pydicom, tiled and striped TIFF (BigTIFF, Aperio
SVS, OME) through tifffile, their compressed tiles through Pillow where tifffile lacks the codec. Memory holds one tile.
"""

import io
import re
import struct
import warnings
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import iter_pixels

from medglip.errors import InputError
from medglip.imaging.codestream import misfit
from medglip.imaging.decoders import advice_for, plugins_for, syntax_name, without_panics
from medglip.imaging.header import BROKEN, Unusable, is_dicom, read_header
from medglip.imaging.pitch import spacing_of
from medglip.imaging.pixels import syntax_of
from medglip.imaging.raster import is_tiff

# Millimetres in the unit of TIFF's ResolutionUnit: inch and centimetre.
_MM_OF_UNIT = {2: 25.4, 3: 10.0}
_TIFF_TAGS = (256, 257, 258, 259, 262, 277, 284, 317, 338, 339, 347, 530)


@dataclass(frozen=True, eq=False)
class Tile:
    """One piece of a slide.

    Attributes:
        pixels: (h, w) or (h, w, 3), cut where it reaches over the edge of the slide.
        offset_px: (column, row) of its first pixel in the whole picture of this level.
        spacing_mm: (row, column) pitch, or None.
        frame: Its number in the file, from 0.
    """

    pixels: np.ndarray
    offset_px: tuple[int, int]
    spacing_mm: tuple[float, float] | None
    frame: int


@dataclass(frozen=True, slots=True)
class Slide:
    """What a file of tiles holds.

    Attributes:
        size_px: (width, height) of the whole picture.
        tile_px: (width, height) of a tile.
        tiles: How many.
        spacing_mm: (row, column) pitch, or None.
        levels: (width, height) of each resolution, the finest first.
        kind: ``DICOM slide, tiled full``, ``DICOM slide, tiled sparse`` or ``tiled TIFF``.
    """

    size_px: tuple[int, int]
    tile_px: tuple[int, int]
    tiles: int
    spacing_mm: tuple[float, float] | None
    levels: tuple[tuple[int, int], ...]
    kind: str


def is_slide(header: Dataset) -> bool:
    """Whether a DICOM header is that of a picture kept in tiles."""
    return "TotalPixelMatrixColumns" in header and "TotalPixelMatrixRows" in header and "Rows" in header


def slide_of(path: Path, *, level: int = 0) -> Slide:
    """What a DICOM slide or TIFF holds, without decoding a pixel.

    Args:
        path: The file.
        level: Resolution of a TIFF pyramid, 0 the finest.

    Raises:
        InputError: it is missing, broken, no slide, or has no such level.
    """
    if path.is_file() and is_tiff(path):
        with _tiff(path) as file:
            pages = _levels(file)
            page = _level(pages, level, path)
            sizes = tuple((int(one.imagewidth), int(one.imagelength)) for one in pages)
            tile = (int(page.tilewidth), int(page.tilelength)) if page.is_tiled else (page.imagewidth, page.rowsperstrip)
            return Slide(sizes[level], (int(tile[0]), int(tile[1])), len(page.dataoffsets), _pitch(pages, level), sizes,
                         "tiled TIFF" if page.is_tiled else "striped TIFF")  # fmt: skip
    header = read_header(path)
    if not is_slide(header):
        raise InputError(f"{path.name!r} is no slide: its header names no total pixel matrix; read it with read_dicom.")
    size = int(header.TotalPixelMatrixColumns), int(header.TotalPixelMatrixRows)
    sparse = header.get("DimensionOrganizationType") != "TILED_FULL"
    return Slide(size, (int(header.Columns), int(header.Rows)), int(header.get("NumberOfFrames") or 1),
                 spacing_of(header)[0], (size,), f"DICOM slide, tiled {'sparse' if sparse else 'full'}")  # fmt: skip


def tiles_of(path: Path, *, level: int = 0) -> Iterator[Tile]:
    """The tiles of a slide, one after another in the order of the file.

    Args:
        path: A DICOM slide, or a TIFF (its strips are its tiles where it has none).
        level: Resolution of a TIFF pyramid, 0 the finest; a DICOM file holds one.

    Raises:
        InputError: it is missing, broken, no slide, or its compression has no decoder.
    """
    slide = slide_of(path, level=level)
    yield from _dicom_tiles(path, slide) if is_dicom(path) else _tiff_tiles(path, slide, level)


def _dicom_tiles(path: Path, slide: Slide) -> Iterator[Tile]:
    header = read_header(path)
    places = [_place(header, frame, slide) for frame in range(slide.tiles)]
    plugin = next(iter(plugins_for(str(syntax_of(header)))), "")
    try:
        with warnings.catch_warnings(), without_panics(), closing(_payloads(path, slide)) as payloads:
            warnings.simplefilter("ignore")
            pictures = iter_pixels(path, decoding_plugin=plugin)
            for frame, payload in enumerate(payloads):
                if odd := misfit(payload, slide.tile_px[1], slide.tile_px[0]):
                    raise InputError(f"DICOM slide {path.name!r} is damaged: it holds {odd}.")
                if (pixels := next(pictures, None)) is None:
                    return
                yield Tile(_cut(pixels, places[frame], slide), places[frame], slide.spacing_mm, frame)
    except (RuntimeError, NotImplementedError) as error:
        syntax = str(syntax_of(header))
        raise Unusable(f"no_decoder:{syntax}", f"DICOM slide {path.name!r}: no decoder reads its {syntax_name(syntax)}"
                                               f" ({syntax}): {advice_for(syntax)}.") from error  # fmt: skip
    except BROKEN as error:
        raise InputError(f"DICOM slide {path.name!r} is broken or cut off: {error}.") from error


def _payloads(path: Path, slide: Slide) -> Generator[bytes, None, None]:
    """The bytes of each compressed frame, one by one from the file; empty ones where the file is not compressed."""
    with path.open("rb") as file:
        header = pydicom.dcmread(file, stop_before_pixels=True, force=True)
        if not syntax_of(header).is_compressed:
            yield from (b"" for _ in range(slide.tiles))
            return
        file.seek(12, io.SEEK_CUR)  # tag, VR and length of the pixel data; compressed files say the VR
        yield from generate_frames(file, number_of_frames=slide.tiles)


def _place(header: Dataset, frame: int, slide: Slide) -> tuple[int, int]:
    """(column, row) from 0 of a frame's first pixel: as the frame says or, tiled full, by its number.

    Source: DICOM PS3.3 C.7.6.17.3: columns run fastest, then rows, then focal planes and optical paths.
    """
    items = header.get("PerFrameFunctionalGroupsSequence") or []
    if frame < len(items) and items[frame].get("PlanePositionSlideSequence"):
        place = items[frame].PlanePositionSlideSequence[0]
        return int(place.ColumnPositionInTotalImagePixelMatrix) - 1, int(place.RowPositionInTotalImagePixelMatrix) - 1
    (width, height), (wide, high) = slide.size_px, slide.tile_px
    across, down = -(-width // wide), -(-height // high)
    return frame % across * wide, frame // across % down * high


def _cut(pixels: np.ndarray, offset: tuple[int, int], slide: Slide) -> np.ndarray:
    return pixels[: max(slide.size_px[1] - offset[1], 0), : max(slide.size_px[0] - offset[0], 0)]


def _tiff(path: Path) -> Any:
    import tifffile

    try:
        return tifffile.TiffFile(path)
    except (tifffile.TiffFileError, OSError, ValueError, struct.error) as error:
        raise InputError(f"TIFF {path.name!r} cannot be read, it is broken or cut off: {error}.") from error


def _levels(file: Any) -> list[Any]:
    """The first page and its smaller copies, the finest first."""
    first = file.pages[0]
    series = next((one for one in file.series if one.keyframe.index == first.index), None)
    pages = [level.keyframe for level in series.levels] if series is not None else [first]
    return sorted(pages, key=lambda page: -int(page.imagewidth))


def _level(pages: list[Any], level: int, path: Path) -> Any:
    if not 0 <= level < len(pages):
        raise InputError(f"TIFF {path.name!r} has {len(pages)} levels; found level {level}; allowed: 0 to {len(pages) - 1}.")
    return pages[level]


def _pitch(pages: list[Any], level: int) -> tuple[float, float] | None:
    """Pitch of a level: microns a pixel as Aperio writes them, else the resolution in inches or centimetres."""
    page = pages[0]
    scale = int(page.imagewidth) / int(pages[level].imagewidth)
    if found := re.search(r"\bMPP\s*=\s*([0-9.]+)", str(page.description or "")):
        return float(found[1]) / 1000 * scale, float(found[1]) / 1000 * scale
    unit = page.tags.get(296)
    values = [page.tags.get(code) for code in (283, 282)]
    if unit is None or int(unit.value) not in _MM_OF_UNIT or any(value is None or not value.value[0] for value in values):
        return None
    # 72 and 96 to the inch, or one to the unit, are what programs write when they know nothing.
    counts = [value.value[0] / value.value[1] for value in values]
    if all(count in (1.0, 72.0, 96.0) for count in counts):
        return None
    row, column = (_MM_OF_UNIT[int(unit.value)] / count * scale for count in counts)
    return row, column


def _tiff_tiles(path: Path, slide: Slide, level: int) -> Iterator[Tile]:
    with _tiff(path) as file:
        page = _level(_levels(file), level, path)
        if int(page.planarconfig) == 2 and int(page.samplesperpixel) > 1:
            raise Unusable("planar_tiles", f"TIFF {path.name!r} keeps each colour in tiles of its own; save it with its"
                                           " colours side by side (planar configuration 1).")  # fmt: skip
        across = -(-slide.size_px[0] // slide.tile_px[0])
        for frame, (offset, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
            place = frame % across * slide.tile_px[0], frame // across * slide.tile_px[1]
            if not count:  # a sparse file leaves empty tiles out
                continue
            file.filehandle.seek(offset)
            pixels = _tile(page, file.filehandle.read(count), frame, slide, path)
            yield Tile(_cut(pixels, place, slide), place, slide.spacing_mm, frame)


def _tile(page: Any, data: bytes, frame: int, slide: Slide, path: Path) -> np.ndarray:
    """A tile by tifffile or, where that lacks the codec, by Pillow from a TIFF of this one tile."""
    try:
        if int(page.compression) in (1, 8, 32946):  # none, deflate
            decoded = page.decode(data, frame)[0]
            array = np.asarray(decoded)[0]
            return np.ascontiguousarray(array[..., :3] if array.shape[-1] > 2 else array[..., 0])
        wide, high = slide.tile_px
        if not page.is_tiled:  # the last strip may be short
            high = min(high, slide.size_px[1] - frame * high)
        with Image.open(io.BytesIO(_tiny_tiff(page, data, (wide, high)))) as image:
            return np.asarray(image.convert("RGB") if image.mode in ("RGBA", "YCbCr", "CMYK") else image)
    except (OSError, ValueError, KeyError, TypeError, SyntaxError, ImportError, struct.error) as error:
        reason = f"tile {frame} is compressed as {page.compression.name}, which nothing here decodes"
        raise Unusable("no_decoder:tiff", f"TIFF {path.name!r}: {reason} or which is cut off; install imagecodecs and save it"
                                          f" anew, or fetch it again ({error}).") from error  # fmt: skip


def _tiny_tiff(page: Any, data: bytes, size_px: tuple[int, int]) -> bytes:
    """A TIFF file whose only strip is one tile as it lies in the file, with the tags that say how to decode it."""
    order = page.parent.byteorder
    values: dict[int, tuple[int, bytes]] = {}  # tag -> type, bytes
    tags = {code: page.tags[code].value for code in _TIFF_TAGS if code in page.tags}
    tags |= {256: size_px[0], 257: size_px[1], 278: size_px[1], 279: len(data), 273: 8}
    for code, value in tags.items():
        if code == 347:
            values[code] = (7, page.jpegtables or bytes(value))
            continue
        numbers = [int(number) for number in (value if isinstance(value, tuple) else (value,))]
        values[code] = (4, struct.pack(f"{order}{len(numbers)}I", *numbers)) if code in (256, 257, 273, 278, 279) else (
            3, struct.pack(f"{order}{len(numbers)}H", *numbers))  # fmt: skip
    padded = data + b"\0" * (len(data) % 2)
    directory, at = 8 + len(padded), 8 + len(padded) + 2 + 12 * len(values) + 4
    entries, extra = b"", b""
    for code, (kind, content) in sorted(values.items()):
        count = len(content) // {3: 2, 4: 4, 7: 1}[kind]
        field = content.ljust(4, b"\0") if len(content) <= 4 else struct.pack(order + "I", at + len(extra))
        extra += b"" if len(content) <= 4 else content + b"\0" * (len(content) % 2)
        entries += struct.pack(order + "HHI", code, kind, count) + field
    mark = b"II*\0" if order == "<" else b"MM\0*"
    head = mark + struct.pack(order + "I", directory)
    return head + padded + struct.pack(order + "H", len(values)) + entries + bytes(4) + extra
