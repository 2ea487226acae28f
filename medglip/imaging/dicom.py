"""One DICOM file: its pixels as values with pitch, ids and warnings. Knows nothing of series, labels or datasets.

The steps are in rooms of their own: ``header`` (what it is), ``pixels`` (the pixel chain), ``pitch``, ``suv``,
``codestream`` and ``decoders``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medglip.errors import InputError
from medglip.imaging.header import (
    BROKEN,
    MODALITY_OF,
    NO_IMAGE,
    Unusable,
    detail_of,
    functional,
    ids_of,
    is_dicom,
    read_header,
)
from medglip.imaging.mosaic import is_mosaic, tiles_of_mosaic
from medglip.imaging.pitch import spacing_of
from medglip.imaging.pixels import MOST_BYTES, Range, values_of
from medglip.imaging.suv import suv_factor

__all__ = [
    "BROKEN",
    "MODALITY_OF",
    "NO_IMAGE",
    "DicomImage",
    "Unusable",
    "functional",
    "is_dicom",
    "read_dicom",
    "read_header",
    "spacing_of",
    "suv_factor",
]


@dataclass(frozen=True, eq=False)
class DicomImage:
    """Frames of one DICOM file.

    Attributes:
        frames: (N, H, W) or (N, H, W, 3), values in ``unit``.
        unit: ``HU``, ``SUVbw``, ``au`` or ``rgb``.
        modality: One of ``medglip.records.MODALITIES``.
        window: (low, high) that the header asks for, or None.
        inverted: True where the file is MONOCHROME1 and the values have been inverted.
        spacing_mm: (row, column) pitch, or None.
        spacing_source: Where the pitch is from, or None.
        sop_uid, patient, study, series: The source's ids as they are; hash them before they are written anywhere.
        detail: What the header says of the acquisition, for ``modality_detail``.
        flags: ``lossy``, ``burned_in_risk``, ``spacing_uncalibrated``, ``not_hu``, ``suv_unavailable``, ``overlay_plane``,
            ``overlay_in_pixels``, ``bits_mismatch``, ``ybr_tagged_rgb``, ``mended_jpeg``,
            ``mosaic``.
    """

    frames: np.ndarray
    unit: str
    modality: str
    window: Range | None = None
    inverted: bool = False
    spacing_mm: tuple[float, float] | None = None
    spacing_source: str | None = None
    sop_uid: str | None = None
    patient: str | None = None
    study: str | None = None
    series: str | None = None
    detail: dict[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


def read_dicom(path: Path, frames: Sequence[int] | None = None) -> DicomImage:
    """Pixels of one file as values, with spacing and ids.

    Args:
        path: The file.
        frames: Which frames of a multi-frame file, from 0; None for all.

    Raises:
        InputError: the file is broken. Its subclass Unusable, with a reason: it holds no pixels (``no_image``,
            ``no_pixels``), too many (``too_large``), its compression has no decoder (``no_decoder:<uid>``), or it decodes
            to nothing (``broken_pixels``).
    """
    if path.is_file() and path.stat().st_size > MOST_BYTES:
        size = f"{path.stat().st_size / 1e9:.1f} GB"
        raise Unusable("too_large", f"DICOM file {path.name!r} has {size}; read a slide with medglip.imaging.tiles.")
    header = read_header(path, pixels=True)
    try:
        values, unit, window, inverted, flags = values_of(header, path.name, frames)
        if is_mosaic(header) and len(values) == 1:
            values, flags = tiles_of_mosaic(values[0], header), (*flags, "mosaic")
        spacing, spacing_source, calibrated = spacing_of(header)
        return DicomImage(
            frames=values, unit=unit, modality=MODALITY_OF.get(header.get("Modality", ""), "other"), window=window,
            inverted=inverted, spacing_mm=spacing, spacing_source=spacing_source, **ids_of(header),
            detail=detail_of(header), sop_uid=header.get("SOPInstanceUID"),
            flags=flags if calibrated else (*flags, "spacing_uncalibrated"),
        )  # fmt: skip
    except Unusable:
        raise
    except BROKEN as error:
        raise InputError(f"DICOM file {path.name!r} is broken or cut off: {error}.") from error
