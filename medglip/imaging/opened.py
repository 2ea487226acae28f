"""One picture out of any file that medglip reads, ready to be looked at. Knows nothing of labels or datasets."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medglip.errors import InputError
from medglip.imaging.dicom import is_dicom, read_dicom
from medglip.imaging.intensity import display, to_stored
from medglip.imaging.nifti import is_volume_file, read_volume
from medglip.imaging.raster import ENDINGS, read_raster
from medglip.imaging.series import read_folder
from medglip.imaging.slices import cuts
from medglip.imaging.volume import Volume
from medglip.records import MODALITIES, Intensity


@dataclass(frozen=True, eq=False)
class OpenedImage:
    """One 2-D image.

    Attributes:
        name: File name, with the number of the slice or frame where there are several.
        pixels: uint8 or uint16, (H, W) or (H, W, 3), as the store would hold it.
        intensity: What the numbers mean.
        modality: One of ``MODALITIES``, or None where neither the file nor the caller says.
        affine_px_to_mm: As in ImageRecord.
        spacing_mm: (row, column) in mm, or None.
    """

    name: str
    pixels: np.ndarray
    intensity: Intensity
    modality: str | None = None
    affine_px_to_mm: tuple[float, ...] | None = None
    spacing_mm: tuple[float, float] | None = None

    @property
    def display(self) -> np.ndarray:
        """uint8, (H, W) or (H, W, 3), through the window."""
        return display(self.pixels, self.intensity)


def open_image(path: Path, *, modality: str | None = None, number: int | None = None) -> OpenedImage:
    """One picture of a raster, a DICOM file, a folder with one DICOM series, or a volume file.

    Args:
        path: The file or folder.
        modality: What the picture is; None leaves it to the file.
        number: Slice of a volume (in display order of its native plane) or frame of a clip, from 0; None for the middle.

    Raises:
        InputError: it is missing, broken or of no known format, the modality is not known, or there is no such slice.
    """
    if modality is not None and modality not in MODALITIES:
        raise InputError(f"Modality: found {modality!r}; allowed: {', '.join(MODALITIES)}; leave it out if unknown.")
    if path.is_dir():
        volume = read_folder(path)
        return _of_volume(volume, path.name, modality or ("ct" if volume.unit == "HU" else None), number)
    if not path.is_file():
        raise InputError(f"Image {str(path)!r} is not there.")
    if is_volume_file(path):
        return _of_volume(read_volume(path, modality=modality or "other"), path.name, modality, number)
    if is_dicom(path):
        return _of_dicom(path, modality, number)
    if path.suffix.lower() in ENDINGS:
        values = read_raster(path)
        pixels, intensity = to_stored(values, "rgb" if values.ndim == 3 else "au")
        return OpenedImage(path.name, pixels, intensity, modality)
    raise InputError(
        f"Image {path.name!r} is of no format that medglip reads; allowed: DICOM, NIfTI, NRRD, MHA, {', '.join(ENDINGS)}."
    )


def _of_dicom(path: Path, modality: str | None, number: int | None) -> OpenedImage:
    image = read_dicom(path)
    at = _chosen(number, len(image.frames), path.name)
    pixels, intensity = to_stored(image.frames[at], image.unit, window=image.window, inverted=image.inverted)
    name = path.name if len(image.frames) == 1 else f"{path.name} frame {at}"
    known = None if image.modality == "other" else image.modality
    return OpenedImage(name, pixels, intensity, modality or known, None, image.spacing_mm)


def _of_volume(volume: Volume, name: str, modality: str | None, number: int | None) -> OpenedImage:
    cut = cuts(volume)[0]
    at = _chosen(number, cut.count, name)
    # The window is the volume's, so that its slices are shown alike.
    pixels, intensity = to_stored(volume.voxels, volume.unit, window=volume.window, inverted=volume.inverted)
    return OpenedImage(f"{name} slice {at}", cut.take(pixels, at), intensity, modality,
                       cut.affine_px_to_mm(volume, at), cut.spacing_mm(volume))  # fmt: skip


def _chosen(number: int | None, count: int, name: str) -> int:
    if number is None:
        return count // 2
    if not 0 <= number < count:
        raise InputError(f"{name!r} has {count} slices or frames; found number {number}; allowed: 0 to {count - 1}.")
    return number
