"""Raster images (PNG, JPEG, TIFF, GIF, BMP) as arrays, images and masks. Knows no geometry, no labels.

The EXIF orientation is applied to images and masks alike. 16 bits are kept. Alpha is dropped.
"""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from medglip.errors import InputError

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp")
_EXIF_ORIENTATION = 0x0112


def read_raster(path: Path, *, frame: int = 0) -> np.ndarray:
    """Pixels of an image, grey or RGB.

    Args:
        path: The file.
        frame: Page of a TIFF or frame of a GIF.

    Returns:
        (H, W) or (H, W, 3); uint8, or uint16 where the file has 16 bits; int32 or float32 where a TIFF holds these.

    Raises:
        InputError: the file is missing, cut off, or no image.
    """
    image, deep = _opened(path, frame)
    if deep and image.mode in ("RGB", "RGBA", "LA"):  # Pillow would cut these to 8 bits
        return _deep_colour(path, image)
    image = ImageOps.exif_transpose(image)
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
        InputError: the file is missing, cut off, or no image.
    """
    image = ImageOps.exif_transpose(_opened(path, frame)[0])
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


def _opened(path: Path, frame: int) -> tuple[Image.Image, bool]:
    """The loaded image, and whether the file holds 16 bits a channel."""
    if not path.is_file():
        raise InputError(f"Image {str(path)!r} is not there.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
            image.seek(frame)
            deep = ";16" in str(image.tile)
            image.load()
    except UnidentifiedImageError as error:
        raise InputError(f"{path.name!r} is not an image; allowed: {', '.join(ENDINGS)}.") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"Image {path.name!r} is too large for one picture: {error}; cut it into tiles.") from error
    except (OSError, EOFError, ValueError, SyntaxError) as error:
        raise InputError(f"Image {path.name!r} cannot be read, it is broken or cut off: {error}.") from error
    return image, deep


def _deep_colour(path: Path, image: Image.Image) -> np.ndarray:
    import SimpleITK

    if image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
        raise InputError(f"Image {path.name!r} has 16-bit colours and is turned by EXIF; allowed: upright; save it so.")
    array = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    return np.ascontiguousarray(array[..., :3] if array.shape[-1] > 2 else array[..., 0])


def _native(array: np.ndarray) -> np.ndarray:
    """Native byte order, and 32-bit numbers as 16 bit where they fit."""
    if array.dtype.kind == "i" and array.size and array.min() >= 0 and array.max() <= 65535:
        return array.astype(np.uint16)
    return array.astype(array.dtype.newbyteorder("="), copy=False)
