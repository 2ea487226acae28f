"""DICOM RTSTRUCT contours as masks on an image volume. Knows no label tree and no datasets.

A pixel is inside where its centre is: pixel (row r, column c) is the point (c, r), so that it spans c - 0.5 to c + 0.5. A
centre on a left or upper edge is inside, on a right or lower edge outside; contours that share an edge neither overlap
nor leave a gap, and a rectangle on pixel borders comes out exactly. Contours of one plane are joined by the even-odd rule
(exclusive or): a contour in another is a hole, and the two sides of a keyhole's cut cancel out.

Source: DICOM PS3.3 C.8.8.5 and C.8.8.6.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from medglip.errors import InputError
from medglip.imaging.dicom import BROKEN, read_header
from medglip.imaging.series import References
from medglip.imaging.volume import GridError, Volume

# A contour belongs to the nearest slice within half the pitch; the rest is the rounding of decimal strings.
_HALF = 0.5 + 1e-3
# Points of one contour, and contours of one plane, lie within this share of the pitch.
_ONE_PLANE = 0.1
# Decimals of a pixel that are kept: decimal strings are no more exact, and an edge on pixel centres must stay there.
_DECIMALS = 4
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
# Why contours are passed over, as ``Drawn.skipped`` counts them.
SKIPPED = {
    "not_closed": "POINT or OPEN_PLANAR: it encloses nothing",
    "too_few_points": "fewer than three different points",
    "broken_points": "coordinates that are not finite or no triples",
    "across_slices": "its points lie on several slices: it was drawn in another plane",
    "off_slices": "farther than half a pitch from every slice",
    "second_plane": "another plane of contours lies nearer to the same slice",
    "repeated": "the same points as another contour of its plane",
    "no_pixel": "it encloses no pixel centre of the image",
}


@dataclass(frozen=True, eq=False)
class Contour:
    """One contour.

    Attributes:
        kind: ``CLOSED_PLANAR``, ``OPEN_PLANAR``, ``POINT`` ...
        points_mm: (N, 3) float64, LPS+ mm; (0, 3) where the file's numbers are no points.
        broken: True where they are none.
    """

    kind: str
    points_mm: np.ndarray
    broken: bool = False


@dataclass(frozen=True, eq=False)
class Roi:
    """A region of interest of a structure set.

    Attributes:
        number: ROINumber.
        name: ROIName, as it is written.
        frame_of_reference: UID of the space that its points lie in, or None.
        contours: In the file's order; none where the reader drew nothing.
    """

    number: int
    name: str
    frame_of_reference: str | None
    contours: tuple[Contour, ...]


@dataclass(frozen=True, eq=False)
class Drawn:
    """A ROI on a volume.

    Attributes:
        mask: (K, J, I) bool.
        skipped: Number of contours passed over, by the reasons of ``SKIPPED``.
    """

    mask: np.ndarray
    skipped: Counter[str]


def read_contours(path: Path) -> tuple[Roi, ...]:
    """The ROIs of an RTSTRUCT in order of their numbers.

    Raises:
        InputError: the file is broken or no RTSTRUCT.
    """
    header = read_header(path)
    try:
        if header.get("Modality") != "RTSTRUCT" or not header.get("StructureSetROISequence"):
            raise InputError(
                f"DICOM file {path.name!r} is {header.get('Modality')!r}; allowed: RTSTRUCT with a StructureSetROISequence."
            )
        drawn: dict[int, list[Contour]] = defaultdict(list)
        for item in header.get("ROIContourSequence") or []:
            drawn[int(item.ReferencedROINumber)] += [_contour(one) for one in item.get("ContourSequence") or []]
        spaces = references_of(header, path.name).frames_of_reference
        only = next(iter(spaces)) if len(spaces) == 1 else None
        rois = [
            Roi(
                int(item.ROINumber), str(item.get("ROIName") or "").strip(),
                str(item.get("ReferencedFrameOfReferenceUID") or "") or only, tuple(drawn[int(item.ROINumber)]),
            )
            for item in header.StructureSetROISequence
        ]  # fmt: skip
    except BROKEN as error:
        raise InputError(f"DICOM file {path.name!r} is broken or cut off: {error}.") from error
    return tuple(sorted(rois, key=lambda roi: roi.number))


def references_of(header: Dataset, name: str) -> References:
    """What an RTSTRUCT refers to.

    Args:
        header: Its ``read_header``.
        name: Its file name, for the error.

    Raises:
        InputError: the header is broken.
    """
    try:
        spaces = list(header.get("ReferencedFrameOfReferenceSequence") or [])
        series = [
            item
            for space in spaces
            for study in space.get("RTReferencedStudySequence") or []
            for item in study.get("RTReferencedSeriesSequence") or []
        ]
        images = [image for item in series for image in item.get("ContourImageSequence") or []]
        rois = list(header.get("StructureSetROISequence") or [])
        own = _uids(spaces, "FrameOfReferenceUID") | _uids(rois, "ReferencedFrameOfReferenceUID")
        return References(_uids(series, "SeriesInstanceUID"), _uids(images, "ReferencedSOPInstanceUID"), own)
    except BROKEN as error:
        raise InputError(f"DICOM file {name!r} is broken or cut off: {error}.") from error


def mask_of_roi(roi: Roi, volume: Volume) -> Drawn:
    """The mask of a ROI on a volume's grid, and how many contours were passed over.

    Each plane of contours goes to the nearest slice within half the pitch; a slice takes the nearest plane only. The
    pitch of a lone slice of unknown thickness counts as 1 mm.

    Raises:
        GridError: the ROI lies in another frame of reference, or the volume has no place.
    """
    if volume.affine_ijk_to_mm is None:
        raise GridError("geometry_mismatch", f"ROI {roi.name!r} cannot be placed: its image has no position or spacing.")
    if roi.frame_of_reference and volume.frame_of_reference and roi.frame_of_reference != volume.frame_of_reference:
        raise GridError(
            "geometry_mismatch",
            f"ROI {roi.name!r} lies in the frame of reference {roi.frame_of_reference!r}, its image in"
            f" {volume.frame_of_reference!r}; they must be the same; register the images, or add the one it was drawn on.",
        )
    skipped: Counter[str] = Counter()
    mask = np.zeros(volume.shape_kji, dtype=bool)
    for slice_at, placed in _by_slice(roi, volume, skipped).items():
        nearest = min((away for away, _ in placed), key=abs)
        seen: set[bytes] = set()
        for away, points in placed:
            if abs(away - nearest) > _ONE_PLANE:
                skipped["second_plane"] += 1
                continue
            corners = _corners(points, volume, slice_at)
            if (key := corners.tobytes()) in seen:  # with itself, exclusive or would leave nothing
                skipped["repeated"] += 1
                continue
            seen.add(key)
            if not _toggle(mask[slice_at], corners):
                skipped["no_pixel"] += 1
    return Drawn(mask, skipped)


def filled(corners_xy: np.ndarray, shape_hw: tuple[int, int]) -> np.ndarray:
    """The pixels whose centres a polygon encloses, by the even-odd rule and the rule for edges above.

    Args:
        corners_xy: (N, 2) corners in pixels, (column, row); the last is joined to the first; may pass the border.
        shape_hw: Rows and columns.

    Returns:
        (H, W) bool.

    >>> filled(np.array([[0.5, -0.5], [2.5, -0.5], [2.5, 0.5], [0.5, 0.5]]), (2, 4)).astype(int).tolist()
    [[0, 1, 1, 0], [0, 0, 0, 0]]
    """
    mask = np.zeros(shape_hw, dtype=bool)
    _toggle(mask, np.asarray(corners_xy, dtype=float))
    return mask


def _contour(item: Dataset) -> Contour:
    kind = str(item.get("ContourGeometricType") or "")
    numbers = np.atleast_1d(np.array(item.get("ContourData") or [], dtype=float))
    if numbers.size % 3 or not np.isfinite(numbers).all():
        return Contour(kind, np.zeros((0, 3)), broken=True)
    return Contour(kind, numbers.reshape(-1, 3))


def _uids(items: list[Dataset], keyword: str) -> set[str]:
    return {str(uid) for item in items if (uid := item.get(keyword))}


def _by_slice(roi: Roi, volume: Volume, skipped: Counter[str]) -> dict[int, list[tuple[float, np.ndarray]]]:
    """Closed contours by the nearest slice: how far from it, in pitches along the normal, and their points."""
    affine = volume.affine_ijk_to_mm
    found: dict[int, list[tuple[float, np.ndarray]]] = defaultdict(list)
    if affine is None:
        return found
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    normal /= np.linalg.norm(normal)
    pitch = abs(float(affine[:3, 2] @ normal))
    slices = _origins(volume, affine) @ normal / pitch
    for contour in roi.contours:
        along = contour.points_mm @ normal / pitch
        if contour.broken:
            skipped["broken_points"] += 1
        elif contour.kind not in _CLOSED:
            skipped["not_closed"] += 1
        elif len(np.unique(contour.points_mm, axis=0)) < 3:
            skipped["too_few_points"] += 1
        elif np.ptp(along) > 2 * _ONE_PLANE:
            skipped["across_slices"] += 1
        else:
            away = np.round(float(along.mean()) - slices, 3)
            nearest = int(np.abs(away).argmin())  # halfway, the first of the two
            if abs(away[nearest]) > _HALF:
                skipped["off_slices"] += 1
            else:
                found[nearest].append((float(away[nearest]), contour.points_mm))
    return found


def _origins(volume: Volume, affine: np.ndarray) -> np.ndarray:
    """(K, 3) centre of the first voxel of each slice; of an uneven series, its own."""
    if volume.origins_mm is not None:
        return volume.origins_mm
    return affine[:3, 3] + np.arange(volume.shape_kji[0])[:, None] * affine[:3, 2]


def _corners(points_mm: np.ndarray, volume: Volume, slice_at: int) -> np.ndarray:
    """(N, 2) points in pixels of a slice, (column, row), projected onto it along its normal."""
    affine = np.asarray(volume.affine_ijk_to_mm)
    offsets = points_mm - _origins(volume, affine)[slice_at]
    return np.round(offsets @ np.linalg.pinv(affine[:3, :2]).T, _DECIMALS) + 0.0  # no minus zero


def _toggle(mask: np.ndarray, corners_xy: np.ndarray) -> bool:
    """Turn over the pixels of a mask that a polygon encloses; whether there are any.

    Each edge crosses some rows; every pixel from the crossing rightwards changes sides.
    """
    height, width = mask.shape
    x0, y0 = corners_xy.T
    x1, y1 = np.roll(corners_xy, -1, axis=0).T
    top, bottom = (np.clip(np.ceil(ends(y0, y1)), 0, height).astype(int) for ends in (np.minimum, np.maximum))
    counts = bottom - top
    if not counts.any():
        return False
    edge = np.repeat(np.arange(len(counts)), counts)
    rows = top[edge] + np.arange(edge.size) - np.repeat(np.cumsum(counts) - counts, counts)
    crossing = x0[edge] + (rows - y0[edge]) / (y1 - y0)[edge] * (x1 - x0)[edge]
    columns = np.clip(np.ceil(np.round(crossing, _DECIMALS + 2)), 0, width).astype(int)
    first, last = int(rows.min()), int(rows.max()) + 1
    turns = np.zeros((last - first, width + 1), dtype=np.int32)
    np.add.at(turns, (rows - first, columns), 1)
    inside = np.cumsum(turns[:, :width], axis=1) % 2 == 1
    mask[first:last] ^= inside
    return bool(inside.any())
