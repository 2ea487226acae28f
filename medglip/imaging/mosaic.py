"""Siemens mosaics: the slices of one MR volume side by side in a single frame, taken apart. Knows no files or series.

Source: the description of the mosaic format in nibabel's documentation ("The Siemens mosaic format"); the number of
slices and their normal stand in the private CSA header.
"""

import warnings
from typing import Any

import numpy as np
from pydicom.dataset import Dataset


def is_mosaic(header: Dataset) -> bool:
    """Whether a frame is a mosaic whose number of slices is known and fits its size."""
    if "MOSAIC" not in (header.get("ImageType") or ()) or (count := _count(header)) < 2:
        return False
    across = int(np.ceil(np.sqrt(count)))
    return int(header.get("Rows") or 1) % across == int(header.get("Columns") or 1) % across == 0


def tiles_of_mosaic(frame: np.ndarray, header: Dataset) -> np.ndarray:
    """The slices of a mosaic.

    Args:
        frame: (H, W).
        header: Its data set.

    Returns:
        (N, H / n, W / n), n tiles a row.
    """
    count = _count(header)
    across = int(np.ceil(np.sqrt(count)))
    height, width = frame.shape[0] // across, frame.shape[1] // across
    tiles = frame.reshape(across, height, across, width).swapaxes(1, 2).reshape(-1, height, width)
    return np.ascontiguousarray(tiles[:count])


def mosaic_places(header: Dataset) -> np.ndarray:
    """Centre of the first pixel of each slice, (N, 3) LPS+ mm.

    ImagePositionPatient is that of the corner that a slice as large as the whole mosaic would have.
    """
    count = _count(header)
    across = int(np.ceil(np.sqrt(count)))
    orientation = np.array([float(part) for part in header.ImageOrientationPatient])
    row, column = orientation[:3], orientation[3:]
    pitch = [float(part) for part in header.PixelSpacing]
    full = np.array([int(header.Columns), int(header.Rows)], dtype=float)
    shift = (full - full / across) / 2  # pixels along the row and down the column
    first = np.array([float(part) for part in header.ImagePositionPatient])
    first = first + row * pitch[1] * shift[0] + column * pitch[0] * shift[1]
    step = float(header.get("SpacingBetweenSlices") or header.SliceThickness)
    return first + np.arange(count)[:, None] * step * _normal(header, np.cross(row, column))


def _normal(header: Dataset, across: np.ndarray) -> np.ndarray:
    """The direction in which slices follow each other: as the CSA header says, else across rows and columns."""
    reader, csa = _csa(header)
    normal = reader.get_slice_normal(csa) if csa else None
    return across if normal is None else np.sign(np.dot(normal, across) or 1.0) * across


def _count(header: Dataset) -> int:
    private = header.get((0x0019, 0x100A))
    try:
        if private is not None:
            value = private.value
            return int.from_bytes(value, "little") if isinstance(value, bytes) else int(value)
        reader, csa = _csa(header)
        return int(reader.get_n_mosaic(csa) or 0) if csa else 0
    except (TypeError, ValueError):
        return 0


def _csa(header: Dataset) -> tuple[Any, dict | None]:
    """Nibabel's reader of Siemens' private header, and what it reads, None where there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nibabel warns of its DICOM readers as a whole; this one is tested here
        from nibabel.nicom import csareader
    try:
        return csareader, csareader.get_csa_header(header, "image")
    except (csareader.CSAReadError, ValueError, KeyError, IndexError):
        return csareader, None
