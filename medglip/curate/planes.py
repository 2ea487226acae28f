"""Pictures kept as volume files: a MetaImage or NRRD file that holds one plane, grey or in colours. Knows no labels.

Ultrasound sets do so. The three colours are either in each pixel or, as tools of 3-D images write them, three slices.
"""

from pathlib import Path

import numpy as np

from medglip.curate.cases import Refused, Shot
from medglip.curate.images import read_image
from medglip.curate.source import Part
from medglip.errors import InputError
from medglip.imaging.intensity import encode, storage_of
from medglip.imaging.nifti import ITK_ENDINGS
from medglip.imaging.raster import read_mask_raster, read_raster


def is_plane_file(path: Path) -> bool:
    """Whether the file's name says MetaImage or NRRD."""
    return path.suffix.lower() in ITK_ENDINGS


def read_plane(path: Path) -> np.ndarray:
    """The only plane of a volume file.

    Returns:
        (H, W) or, where its colours differ, (H, W, 3); values as they are.

    Raises:
        InputError: the file is missing or broken.
        Refused: it holds more than one plane.
    """
    import SimpleITK

    try:
        array = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    except RuntimeError as error:
        raise InputError(f"Image {path.name!r} cannot be read, it is missing, broken or cut off.") from error
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    elif array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
        array = np.moveaxis(array, 0, 2)
    if array.ndim == 3 and array.shape[2] == 3:
        return np.ascontiguousarray(array[..., 0]) if (array == array[..., :1]).all() else np.ascontiguousarray(array)
    if array.ndim != 2:
        raise Refused("not_a_picture", f"{path.name!r} holds an array of {array.shape}; allowed: one plane, grey or RGB.")
    return array


def read_picture(part: Part, path: Path, frame: int | None = None) -> tuple[np.ndarray, Shot]:
    """Pixels as they will be stored, and what the file says of them: ``read_image``, and planes of volume files too."""
    if not is_plane_file(path):
        return read_image(part, path, frame)
    values = read_plane(path)
    if values.min() == values.max():
        raise Refused("constant_image", f"All pixels of {path.name!r} are {values.flat[0]}; there is nothing to see.")
    intensity = storage_of(values, "rgb" if values.ndim == 3 else "au", window=part.option("window"))
    return encode(values, intensity), Shot(frame=frame, intensity=intensity)


def read_mask(path: Path, *, numbers: bool) -> np.ndarray:
    """A mask from a raster or from a plane of a volume file.

    Args:
        path: The file.
        numbers: True for a mask whose values are numbers, so that a palette's index counts and not its colour.
    """
    if is_plane_file(path):
        return read_plane(path)
    return read_mask_raster(path) if numbers else read_raster(path)
