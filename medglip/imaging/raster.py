"""Raster images (PNG, JPEG, TIFF, GIF, BMP) as arrays, images and masks. Knows no geometry, no labels.

The EXIF orientation is applied to images and masks alike. 16 bits and floats are kept. Alpha is dropped. What is too
large for one picture is refused: ``tiles`` reads it piece by piece.
"""

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from medglip.errors import InputError
from medglip.imaging.header import Bounded, Unusable

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp")
# Above this a raster is a whole slide or a mosaic, to be read as tiles (Pillow's own limit against forged sizes).
MOST_PIXELS = 178_956_970
# Deflate packs at most 1,032 bytes into one: a PNG that promises more is broken, and would fill the memory.
_PNG_RATIO = 1100
_EXIF_ORIENTATION = 0x0112
# What Pillow's and tifffile's parsers say of broken files.
_BROKEN = (OSError, EOFError, ValueError, TypeError, LookupError, SyntaxError, AttributeError, ArithmeticError, RuntimeError,
           struct.error, zlib.error)  # fmt: skip
_TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# How EXIF orientations 2 to 8 turn an array: transpose the first two axes, flip rows, flip columns.
_TURNS = {2: (0, 0, 1), 3: (0, 1, 1), 4: (0, 1, 0), 5: (1, 0, 0), 6: (1, 0, 1), 7: (1, 1, 1), 8: (1, 1, 0)}


def read_raster(path: Path, *, frame: int = 0) -> np.ndarray:
    """Pixels of an image, grey or RGB.

    Args:
        path: The file.
        frame: Page of a TIFF or frame of a GIF.

    Returns:
        (H, W) or (H, W, 3); uint8, or uint16 where the file has 16 bits; int32 or float32 where a TIFF holds these.

    Raises:
        InputError: the file is missing, cut off, too large, or no image.
    """
    if (deep := _deep_tiff(path, frame)) is not None:
        return deep
    image, deep_colour = _opened(path, frame)
    if deep_colour and image.mode in ("RGB", "RGBA", "LA"):  # Pillow would cut these to 8 bits
        return _deep_png(path, image)
    image = _turned(image)
    if image.mode in ("P", "PA"):
        colours = np.asarray(image.convert("RGB"))
        grey = bool((colours == colours[..., :1]).all())
        return np.ascontiguousarray(colours[..., 0]) if grey else colours
    if image.mode in ("1", "LA", "La"):
        return np.asarray(image.convert("L"))
    if image.mode in ("L", "RGB") or image.mode.startswith(("I", "F")):
        return _native(np.asarray(image))
    return np.asarray(image.convert("RGB"))


def read_mask_raster(path: Path, *, frame: int = 0) -> np.ndarray:
    """Numbers or colours of a mask, as the file holds them.

    Palette images give their indices, 1-bit images 0 and 1. An image whose colours are all one and whose alpha is not
    is a mask drawn in alpha: then alpha is what comes back.

    Args:
        path: The file.
        frame: Page of a TIFF or frame of a GIF.

    Returns:
        (H, W) integers or (H, W, 3) uint8.

    Raises:
        InputError: the file is missing, cut off, too large, or no image.
    """
    if (deep := _deep_tiff(path, frame)) is not None:
        return deep
    image = _turned(_opened(path, frame)[0])
    if image.mode in ("P", "L") or image.mode.startswith(("I", "F")):
        return _native(np.asarray(image))
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    if image.mode in ("LA", "RGBA", "PA"):
        array = np.asarray(image.convert("RGBA"))
        colours, alpha = array[..., :3], array[..., 3]
        if (colours == colours[0, 0]).all() and alpha.min() != alpha.max():
            return np.ascontiguousarray(alpha)
        return np.ascontiguousarray(colours[..., 0] if image.mode == "LA" else colours)
    return np.asarray(image.convert("RGB"))


def pages_of(path: Path) -> int:
    """How many pages (TIFF) or frames (GIF, APNG) an image file has.

    Raises:
        InputError: the file is missing or no image.
    """
    image = _recognised(path)
    with image:
        return int(getattr(image, "n_frames", 1))


def is_tiff(path: Path) -> bool:
    """Whether the content is TIFF or BigTIFF."""
    try:
        with path.open("rb") as file:
            return file.read(4) in _TIFF_MARKS
    except OSError:
        return False


def _recognised(path: Path) -> Image.Image:
    """The image, not yet decoded."""
    if not path.is_file():
        raise InputError(f"Image {str(path)!r} is not there.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Image.open(Bounded(path))
    except UnidentifiedImageError as error:
        raise InputError(f"{path.name!r} is not an image; allowed: {', '.join(ENDINGS)}.") from error
    except Image.DecompressionBombError as error:
        raise _too_large(path, str(error).split(" exceeds")[0]) from error
    except _BROKEN as error:
        raise InputError(f"Image {path.name!r} cannot be read, it is broken or cut off: {error}.") from error


def _too_large(path: Path, what: str) -> Unusable:
    return Unusable(
        "too_large", f"Image {path.name!r} is too large for one picture: {what}, allowed: {MOST_PIXELS} pixels; read it piece"
                     " by piece with medglip.imaging.tiles, or cut it into tiles.")  # fmt: skip


def _opened(path: Path, frame: int) -> tuple[Image.Image, bool]:
    """The decoded image, and whether the file holds 16 bits a channel."""
    image = _recognised(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if image.format == "PNG" and image.width * image.height / 8 > _PNG_RATIO * path.stat().st_size:
                raise ValueError(f"it is too short for {image.width} x {image.height} pixels")
            image.seek(frame)
            deep = ";16" in str(getattr(image, "tile", ""))
            image.load()
    except Image.DecompressionBombError as error:
        raise _too_large(path, str(error).split(" exceeds")[0]) from error
    except _BROKEN as error:
        raise InputError(f"Image {path.name!r} cannot be read, it is broken or cut off: {error}.") from error
    return image, deep


def _deep_tiff(path: Path, frame: int) -> np.ndarray | None:
    """A TIFF page of more than 8 bits, or one that Pillow does not know, in display order; None for any other file."""
    if not is_tiff(path):
        return None
    import tifffile

    try:
        with Bounded(path) as handle, tifffile.TiffFile(handle, name=path.name) as file:
            page = file.pages[frame]
            page = page if isinstance(page, tifffile.TiffPage) else page.aspage()
            if page.imagelength * page.imagewidth > MOST_PIXELS:
                raise _too_large(path, f"{page.imagewidth} x {page.imagelength} pixels")
            known = np.dtype(page.dtype).itemsize == 1 and np.dtype(page.dtype).kind == "u"
            if known or page.dtype is None:
                return None
            array, tag = page.asarray(), page.tags.get(_EXIF_ORIENTATION)
            return _upright(_grey_or_rgb(array, page, path), int(tag.value) if tag else 1)
    except IndexError as error:
        raise InputError(f"Image {path.name!r} has no page {frame}.") from error
    except _BROKEN:  # tifffile.TiffFileError is a ValueError
        return None  # Pillow may know its compression, or says what is wrong


def _grey_or_rgb(array: np.ndarray, page: object, path: Path) -> np.ndarray:
    """(H, W) or (H, W, 3) of a TIFF page: planes put last, alpha dropped, white-is-zero turned, doubles as floats."""
    if array.ndim == 3 and int(getattr(page, "planarconfig", 1)) == 2:
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3:
        array = array[..., :3] if array.shape[-1] > 2 else array[..., 0]
    if array.ndim != 2 and array.shape[-1:] != (3,):
        raise InputError(f"Image {path.name!r} has the shape {array.shape}; allowed: one grey or RGB picture a page.")
    if array.dtype.kind not in "buif":
        raise InputError(f"Image {path.name!r} holds numbers of type {array.dtype}; allowed: integers and floats.")
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    if int(getattr(page, "photometric", 1)) == 0 and array.dtype.kind == "u":
        array = np.array(2 ** int(getattr(page, "bitspersample", 16)) - 1, array.dtype) - array
    if array.dtype.kind == "f":
        return np.ascontiguousarray(array, dtype=np.float32)
    if array.dtype in (np.dtype(np.uint32), np.dtype(np.uint64), np.dtype(np.int64)):
        array = array.astype(np.int64)
        return array.astype(np.int32) if np.abs(array).max(initial=0) < 2**31 else array.astype(np.float32)
    return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False))


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """An array turned as its EXIF orientation says."""
    transpose, rows, columns = _TURNS.get(orientation, (0, 0, 0))
    array = array.swapaxes(0, 1) if transpose else array
    return np.ascontiguousarray(array[:: -1 if rows else 1, :: -1 if columns else 1])


def _turned(image: Image.Image) -> Image.Image:
    """An image turned as its EXIF orientation says; EXIF that cannot be read turns nothing, as in any viewer."""
    try:
        return ImageOps.exif_transpose(image)
    except _BROKEN:
        return image


def _deep_png(path: Path, image: Image.Image) -> np.ndarray:
    """A picture of 16 bits a channel that Pillow would cut to 8."""
    import SimpleITK

    try:
        array = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
        array = np.ascontiguousarray(array[..., :3] if array.shape[-1] > 2 else array[..., 0])
    except _BROKEN as error:
        reason = " ".join(str(error).split())[-200:]
        raise InputError(f"Image {path.name!r} cannot be read, it is broken or cut off: {reason}") from error
    try:
        return _upright(array, int(image.getexif().get(_EXIF_ORIENTATION, 1)))
    except _BROKEN:
        return array


def _native(array: np.ndarray) -> np.ndarray:
    """Native byte order, and 32-bit numbers as 16 bit where they fit."""
    if array.dtype.kind == "i" and array.size and array.min() >= 0 and array.max() <= 65535:
        return array.astype(np.uint16)
    return array.astype(array.dtype.newbyteorder("="), copy=False)
