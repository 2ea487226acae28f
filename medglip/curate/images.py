"""One picture of a case, whatever its file: raster or DICOM. Knows nothing of regions."""

from pathlib import Path

import numpy as np

from medglip.curate.cases import Refused, Shot
from medglip.curate.source import Part
from medglip.errors import InputError, SourceError
from medglip.imaging.dicom import Unusable, is_dicom, read_dicom, read_header
from medglip.imaging.intensity import Window, encode, storage_of
from medglip.imaging.raster import pages_of, read_raster
from medglip.imaging.slices import evenly_spread
from medglip.records import Intensity

_FRAMES = 8
_LOSSY = (".jpg", ".jpeg", ".jfif")


def read_image(part: Part, path: Path, frame: int | None = None) -> tuple[np.ndarray, Shot]:
    """Pixels as they will be stored, and what the file says of them.

    Args:
        part: Where it is from; its option ``window`` (a name, or ``[low, high]``) says what to show. With the option ``raw``
            the file has no header, and the option says how its numbers lie: ``shape`` (rows, columns), ``dtype`` (as numpy
            writes it, for example ``">u2"``), ``bits`` that are used and, where black and white are exchanged,
            ``inverted = true``.
        path: A raster or a DICOM file; told apart by content.
        frame: Frame of a multi-frame file, from 0; None for a file that must have one.

    Raises:
        InputError: the file is missing or broken.
        Refused: it has more than one frame and none was asked for, lacks the frame, or is of one colour throughout; it holds
            no pixels, or nothing decodes them (``no_decoder:<uid>``).
    """
    window = part.option("window")
    if "raw" in part.options:
        values, inverted = _headerless(part, path)
        intensity = storage_of(values, "au", window=window, inverted=inverted)
        pixels, shot = encode(values, intensity), Shot(frame=frame, intensity=intensity)
    elif not is_dicom(path):
        values = read_raster(path, frame=frame or 0)
        pixels, intensity = _stored(values, window)
        shot = Shot(frame=frame, intensity=intensity, flags=("lossy",) if lossy(path) else ())
    else:
        try:
            image = read_dicom(path)
        except Unusable as error:  # understood, and of no use here: the rejects name the cause, not "unreadable"
            raise Refused(error.reason, str(error)) from error
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


def frames_to_show(part: Part, path: Path) -> list[int]:
    """Which frames of a clip to convert where the source marks none: its option ``frames`` says how many, evenly spread.

    Args:
        part: Where it is from; its option ``frames`` is 8 where it is left out.
        path: A DICOM file, a TIFF of several pages or a GIF.

    Returns:
        Numbers from 0; ``[0]`` for a file of one frame.

    Raises:
        InputError: the file is missing or broken.
    """
    count = int(read_header(path).get("NumberOfFrames") or 1) if is_dicom(path) else pages_of(path)
    return evenly_spread(count, int(part.option("frames", _FRAMES)))


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


def _headerless(part: Part, path: Path) -> tuple[np.ndarray, bool]:
    """Pixels (H, W) of a file without a header, bright as they are shown, and whether they had to be inverted.

    Raises:
        InputError: the file is missing, or has another length or larger numbers than the option says.
        SourceError: the option lacks something.
    """
    raw = part.option("raw")
    try:
        (rows, columns), kind, bits = raw["shape"], np.dtype(raw["dtype"]), int(raw["bits"])
    except (KeyError, TypeError, ValueError) as error:
        where = f"datasets/{part.source}.toml"
        raise SourceError(f"{where}: option raw is {raw!r}; it must say shape, dtype and bits: {error}.") from error
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"Image {path.name!r} cannot be read: {error.strerror}.") from error
    if len(content) != rows * columns * kind.itemsize:
        raise InputError(
            f"Image {path.name!r} has {len(content)} bytes; {rows} x {columns} numbers without a header have"
            f" {rows * columns * kind.itemsize}. It is cut off, or has a header."
        )
    values = np.frombuffer(content, kind).reshape(rows, columns).astype(kind.newbyteorder("="))
    if values.max() >= 2**bits:
        raise InputError(f"Image {path.name!r} holds {values.max()}; with {bits} bits at most {2**bits - 1} is allowed.")
    inverted = bool(raw.get("inverted", False))
    return ((2**bits - 1) - values if inverted else values), inverted
