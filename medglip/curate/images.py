"""One picture of a case, whatever its file: raster or DICOM. Knows nothing of regions."""

from pathlib import Path

import numpy as np

from medglip.curate.cases import Refused, Shot
from medglip.curate.source import Part
from medglip.imaging.dicom import is_dicom, read_dicom
from medglip.imaging.intensity import Window, encode, storage_of
from medglip.imaging.raster import read_raster
from medglip.records import Intensity

_LOSSY = (".jpg", ".jpeg", ".jfif")


def read_image(part: Part, path: Path, frame: int | None = None) -> tuple[np.ndarray, Shot]:
    """Pixels as they will be stored, and what the file says of them.

    Args:
        part: Where it is from; its option ``window`` (a name, or ``[low, high]``) says what to show.
        path: A raster or a DICOM file; told apart by content.
        frame: Frame of a multi-frame file, from 0; None for a file that must have one.

    Raises:
        InputError: the file is missing or broken.
        Refused: it has more than one frame and none was asked for, lacks the frame, or is of one colour throughout.
    """
    window = part.option("window")
    if not is_dicom(path):
        values = read_raster(path, frame=frame or 0)
        pixels, intensity = _stored(values, window)
        shot = Shot(frame=frame, intensity=intensity, flags=("lossy",) if lossy(path) else ())
    else:
        image = read_dicom(path)
        if (frame is None and len(image.frames) > 1) or (frame or 0) >= len(image.frames):
            wanted = "the case says no frame" if frame is None else f"frame {frame} was asked for"
            raise Refused("no_such_frame", f"{path.name!r} has {len(image.frames)} frames and {wanted}.")
        storage = storage_of(image.frames, image.unit, window=window or image.window, inverted=image.inverted)
        pixels = encode(image.frames[frame or 0], storage)
        shot = Shot(
            frame=frame, intensity=storage, spacing_mm=image.spacing_mm, spacing_source=image.spacing_source,
            patient=image.patient, study=image.study, series=image.series, detail=image.detail, flags=image.flags,
        )  # fmt: skip
    if pixels.min() == pixels.max():
        raise Refused("constant_image", f"All pixels of {path.name!r} are {pixels.flat[0]}; there is nothing to see.")
    return pixels, shot


def lossy(path: Path) -> bool:
    """Whether the file's name says JPEG, so that its pixels are near to what they were, not equal."""
    return path.suffix.lower() in _LOSSY


def sized_mask(part: Part, mask: np.ndarray, size_hw: tuple[int, int], file: str) -> np.ndarray:
    """A mask on the grid of its image.

    Args:
        part: Where it is from; its option ``resize_mask = "nearest"`` allows another size.
        mask: (H, W) or (H, W, 3).
        size_hw: Height and width of the image.
        file: The mask's file, for the message.

    Raises:
        Refused: the sizes differ and the option does not allow it, or their aspect ratios differ by more than 1 %.
    """
    (height, width), (rows, columns) = size_hw, mask.shape[:2]
    if (height, width) == (rows, columns):
        return mask
    same_shape = abs((columns / rows) / (width / height) - 1) <= 0.01
    if part.option("resize_mask") != "nearest" or not same_shape:
        raise Refused(
            "size_mismatch",
            f"Mask {file!r} is {columns} x {rows} pixels, its image {width} x {height}; they must agree, or, with the"
            ' option resize_mask = "nearest", their aspect ratios within 1 %.',
        )
    return resized_nearest(mask, size_hw)


def resized_nearest(mask: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """A mask (h, w[, 3]) on another grid (H, W[, 3]); every pixel takes the value at its centre."""
    down, across = (((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size_hw, mask.shape[:2], strict=True))
    return mask[down][:, across]


def _stored(values: np.ndarray, window: str | Window | None) -> tuple[np.ndarray, Intensity]:
    intensity = storage_of(values, "rgb" if values.ndim == 3 else "au", window=window)
    return encode(values, intensity), intensity
