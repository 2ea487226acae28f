"""Where a pixel is in the patient, and what happens to places when an image is cut, turned or resized. No files.

Two coordinates of a pixel: edge coordinates, those of boxes, in which pixel 0 covers [0, 1), and centre coordinates,
those of affines, in which its centre is 0. A point at edge coordinate x is at centre coordinate x - 0.5. All that goes in
and comes out here is in edge coordinates; affines are asked at centres, as DICOM and NIfTI define them.

Source: DICOM PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1 (pixel centre to patient, LPS+ mm).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from medglip.errors import RecordError

# An affine whose directions span less than this share of a right-angled one cannot be inverted to 0.01 mm.
_FLAT = 1e-9


def px_to_mm(points_xy: ArrayLike, affine_px_to_mm: ArrayLike) -> np.ndarray:
    """Places of image points in the patient.

    Args:
        points_xy: (..., 2) column and row, edge coordinates, pixels; not rounded.
        affine_px_to_mm: 12 numbers, rows of a 3x4; (column, row, slice offset, 1) of a pixel CENTRE to LPS+ mm.

    Returns:
        (..., 3) float64, LPS+ mm.

    Raises:
        RecordError: the affine is not 12 finite numbers, or its columns and rows do not span a plane.

    >>> px_to_mm((0.5, 0.5), (0.7, 0, 0, -100, 0, 0.7, 0, -90, 0, 0, 5, 33)).tolist()  # the centre of the first pixel
    [-100.0, -90.0, 33.0]
    """
    affine, _ = _plane(affine_px_to_mm)
    return (np.asarray(points_xy, float) - 0.5) @ affine[:, :2].T + affine[:, 3]


def mm_to_px(points_mm: ArrayLike, affine_px_to_mm: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Image points nearest to places in the patient, and how far the places lie from the image plane.

    Args:
        points_mm: (..., 3) LPS+ mm.
        affine_px_to_mm: As for ``px_to_mm``.

    Returns:
        (..., 2) column and row, edge coordinates, pixels, also outside of the image; and (...) signed distance from the
        plane in mm, positive on the side that the slice offset points to.

    Raises:
        RecordError: as for ``px_to_mm``.

    >>> points, distance = mm_to_px((-99.3, -90, 35), (0.7, 0, 0, -100, 0, 0.7, 0, -90, 0, 0, 5, 33))
    >>> points.round(9).tolist(), float(distance)
    ([1.5, 0.5], 2.0)
    """
    affine, normal = _plane(affine_px_to_mm)
    from_origin = np.asarray(points_mm, float) - affine[:, 3]
    return from_origin @ np.linalg.pinv(affine[:, :2]).T + 0.5, from_origin @ normal


def box_corners_mm(box_xyxy: ArrayLike, affine_px_to_mm: ArrayLike) -> np.ndarray:
    """Corners of an image box in the patient: (4, 3) LPS+ mm; first row first, then around the box.

    >>> box_corners_mm((0, 0, 2, 1), (1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0))[:, :2].tolist()
    [[-0.5, -0.5], [1.5, -0.5], [1.5, 0.5], [-0.5, 0.5]]
    """
    x0, y0, x1, y1 = np.asarray(box_xyxy, float)
    return px_to_mm([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], affine_px_to_mm)


def voxel_to_mm(points_kji: ArrayLike, affine_ijk_to_mm: ArrayLike) -> np.ndarray:
    """Places of volume points in the patient.

    Args:
        points_kji: (..., 3) slice, row and column, edge coordinates: voxel 0 covers [0, 1) along each axis.
        affine_ijk_to_mm: 16 numbers, rows of a 4x4; (i, j, k, 1) of a voxel CENTRE to LPS+ mm.

    Returns:
        (..., 3) float64, LPS+ mm.

    Raises:
        RecordError: the affine is not 16 finite numbers, or its axes do not span space.

    >>> voxel_to_mm((1.5, 0.5, 0.5), np.diag([0.7, 0.7, 5, 1])).tolist()
    [0.0, 0.0, 5.0]
    """
    affine = _space(affine_ijk_to_mm)
    return (np.asarray(points_kji, float)[..., ::-1] - 0.5) @ affine[:, :3].T + affine[:, 3]


def mm_to_voxel(points_mm: ArrayLike, affine_ijk_to_mm: ArrayLike) -> np.ndarray:
    """Volume points of places in the patient: (..., 3) kji edge coordinates, the inverse of ``voxel_to_mm``.

    The number of the voxel that holds a place is the floor.

    >>> mm_to_voxel((0, 0, 5), np.diag([0.7, 0.7, 5, 1])).tolist()
    [1.5, 0.5, 0.5]
    """
    affine = _space(affine_ijk_to_mm)
    from_origin = np.asarray(points_mm, float) - affine[:, 3]
    return (from_origin @ np.linalg.inv(affine[:, :3]).T)[..., ::-1] + 0.5


def voxel_box_corners_mm(box_kji: ArrayLike, affine_ijk_to_mm: ArrayLike) -> np.ndarray:
    """Corners of a half-open voxel box ``(k0, j0, i0, k1, j1, i1)`` in the patient: (8, 3) LPS+ mm, i fastest.

    >>> corners = voxel_box_corners_mm((0, 0, 0, 1, 2, 3), np.diag([1, 1, 5, 1]))
    >>> corners[0].tolist(), corners[-1].tolist()
    ([-0.5, -0.5, -2.5], [2.5, 1.5, 2.5])
    """
    low, high = np.asarray(box_kji, float).reshape(2, 3)
    return voxel_to_mm(np.where(np.array(list(np.ndindex(2, 2, 2))) > 0, high, low), affine_ijk_to_mm)


def box_of_corners_mm(corners_mm: ArrayLike) -> tuple[float, float, float, float, float, float]:
    """Tightest box ``(x0, y0, z0, x1, y1, z1)`` along the patient's axes around (N, 3) places, LPS+ mm.

    >>> box_of_corners_mm([(1, 5, 0), (3, 2, 0)])
    (1.0, 2.0, 0.0, 3.0, 5.0, 0.0)
    """
    corners = np.asarray(corners_mm, float)
    x0, y0, z0, x1, y1, z1 = np.concatenate([corners.min(axis=0), corners.max(axis=0)]).tolist()
    return x0, y0, z0, x1, y1, z1


@dataclass(frozen=True, eq=False)
class Transform:
    """From the pixels of an image to those of the image made of it by cutting, padding, resizing, flipping and turning.

    Start with ``identity`` and go on: each step gives a new transform, applied after the earlier ones. Points and boxes
    follow exactly, and so do masks until something is resized. The side of a region is the patient's, and so is an
    affine's: no step touches them, not even a flip. A flipped picture of the left kidney is one of the left kidney.

    Attributes:
        source_hw: Height and width of the image that goes in.
        target_hw: Height and width of the image that comes out.
        matrix: 2x3 float64; (x, y, 1) of the source to (x, y) of the target, edge coordinates.
        shown_xyxy: Box of the target that shows the source; the rest is padding.

    >>> turned = Transform.identity((4, 6)).crop(1, 0, 6, 4).rotate90()
    >>> turned.target_hw, turned.boxes((1, 0, 3, 2)).tolist()
    ((5, 4), [0.0, 3.0, 2.0, 5.0])
    """

    source_hw: tuple[int, int]
    target_hw: tuple[int, int]
    matrix: np.ndarray
    shown_xyxy: tuple[float, float, float, float]

    def __post_init__(self) -> None:
        """Check."""
        whole = all(isinstance(side, int | np.integer) for side in (*self.source_hw, *self.target_hw))
        if not whole or min(*self.source_hw, *self.target_hw) < 1:
            raise RecordError(
                f"Transform: found images of {self.source_hw} and {self.target_hw} (height, width); allowed: whole numbers"
                " from 1; ask for a larger image."
            )

    @classmethod
    def identity(cls, size_hw: tuple[int, int]) -> "Transform":
        """The transform that leaves an image of this height and width as it is."""
        height, width = size_hw
        return cls((height, width), (height, width), np.eye(2, 3), (0.0, 0.0, float(width), float(height)))

    def crop(self, x0: int, y0: int, x1: int, y1: int) -> "Transform":
        """Keep columns x0 to x1 and rows y0 to y1, half-open, which must lie in the image."""
        height, width = self.target_hw
        _check_whole("crop", x0, y0, x1, y1)
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            raise RecordError(
                f"Transform.crop: found {(x0, y0, x1, y1)}; allowed: x0 < x1 and y0 < y1 inside {width} x {height} pixels;"
                " pad first where more is wanted."
            )
        return self._then([[1, 0, -x0], [0, 1, -y0]], (y1 - y0, x1 - x0))

    def pad(self, left: int = 0, top: int = 0, right: int = 0, bottom: int = 0) -> "Transform":
        """Add columns and rows around the image."""
        height, width = self.target_hw
        _check_whole("pad", left, top, right, bottom)
        if min(left, top, right, bottom) < 0:
            raise RecordError(
                f"Transform.pad: found {(left, top, right, bottom)} (left, top, right, bottom); allowed: numbers from 0;"
                " use crop to take pixels away."
            )
        return self._then([[1, 0, left], [0, 1, top]], (top + height + bottom, left + width + right))

    def resize(self, width: int, height: int) -> "Transform":
        """Stretch the whole image to this width and height."""
        old_height, old_width = self.target_hw
        return self._then([[width / old_width, 0, 0], [0, height / old_height, 0]], (height, width))

    def flip_horizontal(self) -> "Transform":
        """Swap the image's left and right. The patient's left and right stay what they are."""
        height, width = self.target_hw
        return self._then([[-1, 0, width], [0, 1, 0]], (height, width))

    def flip_vertical(self) -> "Transform":
        """Turn the image upside down."""
        height, width = self.target_hw
        return self._then([[1, 0, 0], [0, -1, height]], (height, width))

    def rotate90(self, turns: int = 1) -> "Transform":
        """Turn the image counter-clockwise, as ``np.rot90`` does, by so many quarter turns; negative for clockwise."""
        _check_whole("rotate90", turns)
        turned = self
        for _ in range(turns % 4):
            height, width = turned.target_hw
            turned = turned._then([[0, 1, 0], [-1, 0, width]], (width, height))
        return turned

    def inverse(self) -> "Transform":
        """The transform back, from target to source; what was cut away comes back as padding."""
        back = np.linalg.inv(self.matrix[:, :2])
        matrix = np.column_stack([back, -back @ self.matrix[:, 2]]) + 0.0  # no -0.0
        return Transform(self.target_hw, self.source_hw, matrix, _clipped(_mapped(matrix, self.shown_xyxy), self.source_hw))

    def points(self, points_xy: ArrayLike) -> np.ndarray:
        """Where (..., 2) points of the source are in the target: float64 edge coordinates, also outside of it."""
        return np.asarray(points_xy, float) @ self.matrix[:, :2].T + self.matrix[:, 2]

    def boxes(self, boxes_xyxy: ArrayLike) -> np.ndarray:
        """Where (..., 4) boxes of the source are in the target, x0 < x1 and y0 < y1; not clipped to the target."""
        return _mapped(self.matrix, boxes_xyxy)

    def affine(self, affine_px_to_mm: ArrayLike | None) -> tuple[float, ...] | None:
        """``affine_px_to_mm`` of the target from that of the source: a point keeps its place in mm. None stays None."""
        if affine_px_to_mm is None:
            return None
        affine, _ = _plane(affine_px_to_mm)
        back = self.inverse().matrix
        first = back @ (0.5, 0.5, 1.0) - 0.5  # centre of the target's first pixel, in centre coordinates of the source
        rows = np.column_stack([affine[:, :2] @ back[:, :2], affine[:, 2], affine[:, :2] @ first + affine[:, 3]])
        return tuple((rows + 0.0).ravel().tolist())

    def spacing(self, spacing_mm: tuple[float, float] | None) -> tuple[float, float] | None:
        """(row, column) pitch of the target in mm from that of the source. None stays None.

        >>> Transform.identity((4, 6)).resize(3, 4).rotate90().spacing((0.5, 1.0))
        (2.0, 0.5)
        """
        if spacing_mm is None:
            return None
        column_mm, row_mm = np.abs(self.inverse().matrix[:, :2]).T @ np.array(spacing_mm[::-1])
        return float(row_mm), float(column_mm)

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """Mask of the target, bool (H, W), from that of the source, (H, W), non-zero inside; padding is outside."""
        return self.pixels(np.asarray(mask) != 0)

    def pixels(self, array: np.ndarray, fill: float = 0) -> np.ndarray:
        """Pixels of the target, each taken as it is from the source: exact unless something was resized.

        A resized image shows the nearest pixel: right for masks and label images, coarse for grey values. Several
        resizes are done as one.

        Args:
            array: (H, W) or (H, W, C) of ``source_hw``.
            fill: Value of the padding.

        Raises:
            RecordError: the array is not of ``source_hw``.
        """
        if array.shape[:2] != self.source_hw:
            raise RecordError(
                f"Transform: found an array of shape {array.shape}; allowed: height and width {self.source_hw};"
                " make the transform for this image."
            )
        x0, y0, x1, y1 = self.shown_xyxy
        columns, rows = _pixels_in(x0, x1), _pixels_in(y0, y1)
        back = self.inverse().matrix
        swapped = self.matrix[0, 0] == 0
        # Each axis of the target runs along one axis of the source, so a row of indices along each says it all.
        from_x, from_y = (rows, columns) if swapped else (columns, rows)
        x = _source_index(back[0, int(swapped)], from_x, back[0, 2], self.source_hw[1])
        y = _source_index(back[1, int(not swapped)], from_y, back[1, 2], self.source_hw[0])
        seen = array[np.ix_(y, x)]
        made = np.full(self.target_hw + array.shape[2:], fill, array.dtype)
        made[np.ix_(rows, columns)] = seen.swapaxes(0, 1) if swapped else seen
        return made

    def _then(self, step: list[list[float]], target_hw: tuple[int, int]) -> "Transform":
        """One more step: (x, y, 1) of this target to (x, y) of the next."""
        matrix = np.array(step, float)
        whole = matrix[:, :2] @ self.matrix + 0.0  # no -0.0
        whole[:, 2] += matrix[:, 2]
        return Transform(self.source_hw, target_hw, whole, _clipped(_mapped(matrix, self.shown_xyxy), target_hw))


def _mapped(matrix: np.ndarray, boxes_xyxy: ArrayLike) -> np.ndarray:
    boxes = np.asarray(boxes_xyxy, float)
    a = boxes[..., :2] @ matrix[:, :2].T + matrix[:, 2]
    b = boxes[..., 2:] @ matrix[:, :2].T + matrix[:, 2]
    return np.concatenate([np.minimum(a, b), np.maximum(a, b)], axis=-1)


def _clipped(box_xyxy: np.ndarray, size_hw: tuple[int, int]) -> tuple[float, float, float, float]:
    height, width = size_hw
    x0, y0, x1, y1 = np.clip(box_xyxy, 0.0, (width, height, width, height)).tolist()
    return x0, y0, x1, y1


def _pixels_in(low: float, high: float) -> np.ndarray:
    """Pixels whose centres lie in [low, high)."""
    return np.arange(np.ceil(low - 0.5), np.ceil(high - 0.5)).astype(int)


def _source_index(scale: float, target: np.ndarray, offset: float, count: int) -> np.ndarray:
    """Pixels of the source that hold the centres of these pixels of the target, along one axis."""
    return np.clip(np.floor(scale * (target + 0.5) + offset).astype(int), 0, count - 1)


def _check_whole(step: str, *numbers: int) -> None:
    if not all(isinstance(number, int | np.integer) for number in numbers):
        raise RecordError(
            f"Transform.{step}: found {numbers}; allowed: whole numbers, so that pixels stay as they are; round them."
        )


def _plane(affine_px_to_mm: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The affine as (3, 4) and the unit normal of its plane, on the side of the slice offset."""
    affine = np.asarray(affine_px_to_mm, float)
    if affine.size != 12 or not np.isfinite(affine).all():
        raise RecordError(f"affine_px_to_mm: found {affine_px_to_mm!r}; allowed: 12 finite numbers, three rows of four.")
    affine = affine.reshape(3, 4)
    normal = np.cross(affine[:, 0], affine[:, 1])
    length = np.linalg.norm(normal)
    if length <= _FLAT * np.linalg.norm(affine[:, 0]) * np.linalg.norm(affine[:, 1]):
        raise RecordError(
            f"affine_px_to_mm: found columns along {affine[:, 0].tolist()} and rows along {affine[:, 1].tolist()} mm;"
            " allowed: two directions that span a plane; leave the affine None where it is not known."
        )
    return affine, normal / (-length if normal @ affine[:, 2] < 0 else length)


def _space(affine_ijk_to_mm: ArrayLike) -> np.ndarray:
    """The affine's first three rows, (3, 4)."""
    affine = np.asarray(affine_ijk_to_mm, float)
    if affine.size != 16 or not np.isfinite(affine).all():
        raise RecordError(f"affine_ijk_to_mm: found {affine_ijk_to_mm!r}; allowed: 16 finite numbers, four rows of four.")
    affine = affine.reshape(4, 4)[:3]
    if abs(np.linalg.det(affine[:, :3])) <= _FLAT * np.prod(np.linalg.norm(affine[:, :3], axis=0)):
        raise RecordError(
            f"affine_ijk_to_mm: found axes {affine[:, :3].T.tolist()} mm; allowed: three directions that span space;"
            " leave the affine None where it is not known."
        )
    return affine
