"""Frames of DICOM files with their place in the patient: what series are made of. Knows no pixels and no labels."""

import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom.dataset import Dataset

from medglip.errors import InputError
from medglip.imaging.header import BROKEN, functional, no_image_of
from medglip.imaging.mosaic import is_mosaic, mosaic_places
from medglip.imaging.plain import Plain, plain_of

# Attributes that may tell frames at one place apart, in the order in which they are tried, with their enhanced names.
SPLITTERS = {
    "EchoTime": "EffectiveEchoTime",
    "DiffusionBValue": "DiffusionBValue",
    "DiffusionGradientOrientation": "DiffusionGradientOrientation",
    "TemporalPositionIdentifier": "TemporalPositionIndex",
    "AcquisitionNumber": "FrameAcquisitionNumber",
    "TriggerTime": "NominalCardiacTriggerDelayTime",
    "AcquisitionTime": "FrameAcquisitionDateTime",
    "ContentTime": "FrameReferenceDateTime",
}
_TAG_GROUPS = ("MREchoSequence", "MRDiffusionSequence", "FrameContentSequence", "CardiacSynchronizationSequence",
               "TemporalPositionSequence")  # fmt: skip
# b-values that makers write into private elements: GE, Siemens, Philips.
_PRIVATE_B = ((0x0043, 0x1039), (0x0019, 0x100C), (0x2001, 0x1003))
_FRAME_TYPES = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence", "XAXRFFrameTypeSequence")
_GROUP_IDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality")


class Group(NamedTuple):
    """What frames of one volume have in common, beside their direction and pitch.

    ``image_type`` is the ImageType without LOCALIZER: magnitude and phase, or original and projection, of one series are
    two volumes. ``stack`` is the StackID of an enhanced multi-frame file.
    """

    study: str
    series: str
    reference: str
    modality: str
    rows: int
    columns: int
    localizer: bool
    image_type: str = ""
    stack: str = ""


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a DICOM file with its place.

    Attributes:
        path: The file.
        number: Frame of a multi-frame file, from 0; None for a single-frame file.
        sop_uid: SOPInstanceUID, with ``#number`` for a multi-frame file.
        orientation: (6,) row and column direction cosines, LPS+.
        position_mm: (3,) centre of the first pixel, LPS+ mm.
        spacing_mm: (row, column) pitch, or None.
        thickness_mm: Of the slice, or None.
        tags: What may tell it apart from a frame at the same place.
        group: What it has in common with the other frames of its volume.
        instance: InstanceNumber, or that of the frame in its file; 0 where the file does not say.
        plain: Where its pixels lie, where they can be read by that alone.
    """

    path: Path
    number: int | None
    sop_uid: str
    orientation: np.ndarray
    position_mm: np.ndarray
    spacing_mm: tuple[float, float] | None
    thickness_mm: float | None
    tags: dict[str, str]
    group: Group
    instance: int = 0
    plain: Plain | None = None

    @cached_property
    def normal(self) -> np.ndarray:
        """Unit vector across the slice."""
        across = np.cross(self.orientation[:3], self.orientation[3:])
        return across / np.linalg.norm(across)


def frames_of(path: Path, header: Dataset) -> list[Frame]:
    """Frames of a file that have a place; none for a projection, a clip, or an object that is no image.

    Args:
        path: The file.
        header: Its ``read_header``.

    Raises:
        InputError: the header is broken.
    """
    if no_image_of(header) or "Rows" not in header:
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd values are judged here, and a warning would print them
            return _frames(path, header)
    except BROKEN as error:
        raise InputError(f"DICOM file {path.name!r} has a broken header: {error}.") from error


def _frames(path: Path, header: Dataset) -> list[Frame]:
    """Frames of a file that have a place; none for a cine clip or a projection."""
    mosaic = mosaic_places(header) if is_mosaic(header) else None
    count = len(mosaic) if mosaic is not None else int(header.get("NumberOfFrames") or 1)
    several = "NumberOfFrames" in header and (count > 1 or "PerFrameFunctionalGroupsSequence" in header)
    multi = mosaic is not None or several
    uid = str(header.get("SOPInstanceUID") or path.name)
    found = []
    for number in range(count if multi else 1):
        position = _from(header, number, "PlanePositionSequence", "ImagePositionPatient", 3)
        position = position if mosaic is None else mosaic[number]
        orientation = _from(header, number, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
        if position is None or orientation is None or not np.linalg.norm(np.cross(orientation[:3], orientation[3:])):
            continue
        spacing = _from(header, number, "PixelMeasuresSequence", "PixelSpacing", 2)
        measures = functional(header, "PixelMeasuresSequence", number) or header
        thickness = float(measures.get("SpacingBetweenSlices") or measures.get("SliceThickness") or 0.0)
        found.append(Frame(
            path, number if multi else None, f"{uid}#{number}" if multi else uid, orientation, position,
            (float(spacing[0]), float(spacing[1])) if spacing is not None and spacing.min() > 0 else None,
            abs(thickness) or None, _tags(header, number), _group(header, number, 0 if mosaic is None else count),
            number + 1 if multi else int(header.get("InstanceNumber") or 0), None if multi else plain_of(header),
        ))  # fmt: skip
    if several and count > 1 and len({tuple(np.round(frame.position_mm, 3)) for frame in found}) == 1:
        # A clip in one place: its frames are moments, not slices.
        return []
    return found


def _group(header: Dataset, number: int, tiles: int) -> Group:
    """What a frame has in common with those of its volume; ``tiles`` is the number of tiles of a mosaic, else 0."""
    study, series, reference, modality = (str(header.get(name) or "") for name in _GROUP_IDS)
    kinds = [item.get("FrameType") for sequence in _FRAME_TYPES if (item := functional(header, sequence, number))]
    words = [str(word) for word in next((kind for kind in kinds if kind), None) or header.get("ImageType") or ()]
    content = functional(header, "FrameContentSequence", number)
    across = int(np.ceil(np.sqrt(tiles))) if tiles else 1
    return Group(
        study, series, reference, modality, int(header.Rows) // across, int(header.Columns) // across,
        "LOCALIZER" in words, "/".join(word for word in words if word != "LOCALIZER"),
        str(content.get("StackID") or "") if content else "",
    )  # fmt: skip


def _from(header: Dataset, number: int, sequence: str, keyword: str, length: int) -> np.ndarray | None:
    """Numbers of a frame's functional group, else of the header itself; None where they are missing or not finite."""
    item = functional(header, sequence, number)
    value = item.get(keyword) if item is not None else header.get(keyword)
    if value is None or len(value) != length:
        return None
    numbers = np.array([float(part) for part in value])
    return numbers if np.isfinite(numbers).all() else None


def _tags(header: Dataset, number: int) -> dict[str, str]:
    """What may tell a frame apart: from its functional groups, else from the header."""
    groups = {sequence: functional(header, sequence, number) for sequence in _TAG_GROUPS}
    places = [group for group in groups.values() if group is not None] + [header]
    diffusion = groups["MRDiffusionSequence"]
    if diffusion is not None and diffusion.get("DiffusionGradientDirectionSequence"):
        places.insert(0, diffusion.DiffusionGradientDirectionSequence[0])
    found = {}
    for keyword, enhanced in SPLITTERS.items():
        values = (place.get(name) for place in places for name in (enhanced, keyword))
        found[keyword] = next((str(value) for value in values if value is not None), "")
    if not found["DiffusionBValue"]:
        private = (header.get(tag) for tag in _PRIVATE_B)
        found["DiffusionBValue"] = next((str(element.value) for element in private if element is not None), "")
    return found
