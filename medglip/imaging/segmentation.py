"""DICOM Segmentation objects as masks on an image volume. Knows no label tree and no datasets.

Source: DICOM PS3.3 A.51 and C.8.20. Frames are placed by their positions, never by their order; where a frame has none,
by the image instance that it refers to.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array

from medglip.errors import InputError
from medglip.imaging.decoders import plugins_for, without_panics
from medglip.imaging.dicom import BROKEN, functional, read_header
from medglip.imaging.series import References
from medglip.imaging.volume import GridError, Volume

# A frame belongs to a slice within half a pixel in the plane and a quarter of the pitch across it.
_IN_PLANE, _ACROSS = 0.5, 0.25

Code = tuple[str, str, str]  # coding scheme, value, meaning


@dataclass(frozen=True, slots=True)
class Segment:
    """What a segment says of itself.

    Attributes:
        number: SegmentNumber.
        label: SegmentLabel.
        kind: SegmentedPropertyType code, or None.
        region: AnatomicRegion code, or None.
        modifier: Modifier code of either, such as the side, or None.
    """

    number: int
    label: str
    kind: Code | None = None
    region: Code | None = None
    modifier: Code | None = None


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A SEG object.

    Attributes:
        name: File name, for errors.
        header: The data set with its pixels.
        segments: In order of their numbers, without the background of a label map.
        kind: ``BINARY``, ``FRACTIONAL`` or ``LABELMAP``.
    """

    name: str
    header: Dataset
    segments: tuple[Segment, ...]
    kind: str

    @property
    def frames(self) -> int:
        """Number of frames."""
        return int(self.header.get("NumberOfFrames") or 1)


def read_segmentation(path: Path) -> Segmentation:
    """A SEG object with its segments.

    Raises:
        InputError: the file is broken or no SEG.
    """
    header = read_header(path, pixels=True)
    try:
        if header.get("Modality") != "SEG" or not header.get("SegmentSequence"):
            raise InputError(f"DICOM file {path.name!r} is {header.get('Modality')!r}; allowed: SEG with a SegmentSequence.")
        segments = [_segment(item) for item in header.SegmentSequence]
        kind = str(header.get("SegmentationType", "BINARY"))
    except BROKEN as error:
        raise InputError(f"DICOM file {path.name!r} has a broken SegmentSequence: {error}.") from error
    kept = sorted((segment for segment in segments if segment.number > 0), key=lambda segment: segment.number)
    return Segmentation(path.name, header, tuple(kept), kind)


def references_of(header: Dataset, name: str) -> References:
    """What a SEG refers to.

    Args:
        header: Its ``read_header``.
        name: Its file name, for the error.

    Raises:
        InputError: the header is broken.
    """
    try:
        items = list(header.get("ReferencedSeriesSequence") or [])
        series = {str(item.get("SeriesInstanceUID") or "") for item in items}
        instances = {
            str(instance.get("ReferencedSOPInstanceUID") or "")
            for item in items
            for instance in item.get("ReferencedInstanceSequence") or []
        }
        own = {str(header.get("FrameOfReferenceUID") or "")}
        return References(series - {""}, instances - {""}, own - {""})
    except BROKEN as error:
        raise InputError(f"DICOM file {name!r} is broken or cut off: {error}.") from error


def masks_on(segmentation: Segmentation, volume: Volume) -> Iterator[tuple[Segment, np.ndarray]]:
    """The mask of each segment on the volume's grid, one after another.

    Yields:
        The segment and (K, J, I) bool; slices without a frame are empty.

    Raises:
        GridError: the frames lie on another grid.
        InputError: frames cannot be decoded.
    """
    try:
        places = [_place(segmentation, number, volume) for number in range(segmentation.frames)]
        if segmentation.kind == "LABELMAP":
            numbers = np.zeros(volume.shape_kji, dtype=np.uint16)
            for frame, place in enumerate(places):
                if place is not None:
                    numbers[place] = _pixels(segmentation, frame)
            for segment in segmentation.segments:
                yield segment, numbers == segment.number
            return
        # 0.5 of a probability or occupancy is inside
        threshold = 0.5 * float(segmentation.header.get("MaximumFractionalValue") or 1)
        threshold = threshold if segmentation.kind == "FRACTIONAL" else 0.5
        owner = [_segment_number(segmentation.header, frame) for frame in range(segmentation.frames)]
        for segment in segmentation.segments:
            mask = np.zeros(volume.shape_kji, dtype=bool)
            for frame, place in enumerate(places):
                if owner[frame] == segment.number and place is not None:
                    mask[place] |= _pixels(segmentation, frame) >= threshold
            yield segment, mask
    except BROKEN as error:
        raise InputError(f"DICOM file {segmentation.name!r} is broken or cannot be decoded: {error}.") from error


def _segment(item: Dataset) -> Segment:
    kind_items = item.get("SegmentedPropertyTypeCodeSequence") or [Dataset()]
    region_items = item.get("AnatomicRegionSequence") or [Dataset()]
    modifiers = (
        list(kind_items[0].get("SegmentedPropertyTypeModifierCodeSequence") or [])
        + list(region_items[0].get("AnatomicRegionModifierSequence") or [])
    )  # fmt: skip
    return Segment(
        int(item.SegmentNumber), str(item.get("SegmentLabel") or ""), _code(kind_items[0]), _code(region_items[0]),
        _code(modifiers[0]) if modifiers else None,
    )  # fmt: skip


def _code(item: Dataset) -> Code | None:
    value = item.get("CodeValue") or item.get("LongCodeValue")
    return (str(item.get("CodingSchemeDesignator", "")), str(value), str(item.get("CodeMeaning", ""))) if value else None


def _segment_number(header: Dataset, frame: int) -> int | None:
    item = functional(header, "SegmentIdentificationSequence", frame)
    return None if item is None else int(item.ReferencedSegmentNumber)


def _pixels(segmentation: Segmentation, frame: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with without_panics():
            syntax = str(segmentation.header.file_meta.TransferSyntaxUID)
            return pixel_array(segmentation.header, index=frame, decoding_plugin=next(iter(plugins_for(syntax)), ""))


def _place(segmentation: Segmentation, frame: int, volume: Volume) -> int | None:
    """Slice of the volume on which a frame lies; None where it lies beyond the volume's ends."""
    header, name = segmentation.header, segmentation.name
    rows, columns = int(header.Rows), int(header.Columns)
    if (rows, columns) != volume.shape_kji[1:]:
        raise GridError(
            "size_mismatch",
            f"{name!r} has frames of {rows} x {columns}, its image slices of {volume.shape_kji[1]} x"
            f" {volume.shape_kji[2]}; they must be equal; resample the segmentation to the image.",
        )
    position = functional(header, "PlanePositionSequence", frame)
    orientation = functional(header, "PlaneOrientationSequence", frame)
    measures = functional(header, "PixelMeasuresSequence", frame)
    if position is None or orientation is None or measures is None or volume.affine_ijk_to_mm is None:
        return _referenced_slice(header, frame, volume, name)
    origin = np.array(position.ImagePositionPatient, dtype=float)
    cosines = np.array(orientation.ImageOrientationPatient, dtype=float)
    row_pitch, column_pitch = (float(pitch) for pitch in measures.PixelSpacing)
    corners = [(0, 0), (columns - 1, 0), (0, rows - 1)]
    places = [origin + c * column_pitch * cosines[:3] + r * row_pitch * cosines[3:] for c, r in corners]
    slice_at, off_slice = _nearest_slice(volume, origin)
    if slice_at is None:
        return None
    # the slice's own affine: of an uneven series, only its origins are right
    affine = volume.affine_ijk_to_mm.copy()
    if volume.origins_mm is not None:
        affine[:3, 3] = volume.origins_mm[slice_at] - slice_at * affine[:3, 2]
    found = (np.linalg.inv(affine) @ np.column_stack([np.array(places), np.ones(3)]).T)[:2].T
    off = float(np.abs(found - np.array(corners)).max())
    if off > _IN_PLANE or off_slice > _ACROSS:
        raise GridError(
            "geometry_mismatch",
            f"{name!r}, frame {frame + 1}, lies {off:.2f} pixels in the plane and {off_slice:.2f} slices across from"
            f" its image; allowed: {_IN_PLANE} and {_ACROSS}; resample the segmentation to the image.",
        )
    return slice_at


def _nearest_slice(volume: Volume, origin_mm: np.ndarray) -> tuple[int | None, float]:
    """The slice nearest to a point along the normal, and how many pitches away; None beyond the ends."""
    affine = volume.affine_ijk_to_mm
    if affine is None:
        return None, 0.0
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    normal /= np.linalg.norm(normal)
    pitch = abs(float(affine[:3, 2] @ normal))
    numbers = np.arange(volume.shape_kji[0])[:, None]
    origins = volume.origins_mm if volume.origins_mm is not None else affine[:3, 3] + numbers * affine[:3, 2]
    offsets = ((origins - origin_mm) @ normal) / pitch
    nearest = int(np.abs(offsets).argmin())
    beyond = offsets.min() > 0.5 or offsets.max() < -0.5
    # Between slices that are missing, too, a frame has no slice.
    if beyond or abs(offsets[nearest]) > 0.5:
        return None, 0.0
    return nearest, abs(float(offsets[nearest]))


def _referenced_slice(header: Dataset, frame: int, volume: Volume, name: str) -> int:
    derivation = functional(header, "DerivationImageSequence", frame)
    sources = (derivation.get("SourceImageSequence") if derivation is not None else None) or []
    for source in sources:
        uid, number = str(source.get("ReferencedSOPInstanceUID")), source.get("ReferencedFrameNumber")
        key = uid if number is None else f"{uid}#{int(number) - 1}"
        if key in volume.sop_uids:
            return volume.sop_uids.index(key)
    raise GridError(
        "geometry_mismatch",
        f"{name!r}, frame {frame + 1}, has no position and refers to no slice of its image; it cannot be placed.",
    )
