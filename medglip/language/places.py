"""Where a region lies and how large it is, in words and millimetres. Knows boxes, masks and affines, no labels."""

from collections.abc import Sequence

import numpy as np

from medglip.records import Box, Region, axes_of_rle

# Words toward the first and the last column, and toward the first and the last row, of an image of unknown orientation.
IMAGE_AXES = (("image-left", "image-right"), ("upper", "lower"))
# Words toward the negative and the positive end of the three LPS+ axes.
_PATIENT_AXES = (("right", "left"), ("anterior", "posterior"), ("lower", "upper"))
# Planes by the patient axis that the image does not show.
_PLANES = ("sagittal", "coronal", "axial")
# An image axis within about 25 degrees of a patient axis takes its words; a more oblique one keeps the image's.
_ALONG = 0.9
# A region whose centre lies in the outer two fifths of its frame is said to be on that side.
_OUTER = 0.4

Axes = tuple[tuple[str, str], tuple[str, str]]


def patient_axes(affine_px_to_mm: Sequence[float] | None) -> tuple[Axes, str | None]:
    """Words for the two image axes, and the plane: axial, coronal, sagittal, or None.

    Args:
        affine_px_to_mm: 12 numbers, rows of a 3x4 matrix from (column, row, slice, 1) to LPS+ mm, or None.

    Returns:
        Words toward (first column, last column) and (first row, last row), and the plane.

    >>> patient_axes((0.7, 0, 0, 0, 0, 0.7, 0, 0, 0, 0, 1, 0))
    ((('right', 'left'), ('anterior', 'posterior')), 'axial')
    """
    if affine_px_to_mm is None:
        return IMAGE_AXES, None
    matrix = np.asarray(affine_px_to_mm, dtype=float).reshape(3, 4)
    words, shown = list(IMAGE_AXES), set()
    for column in (0, 1):
        direction = matrix[:, column] / (np.linalg.norm(matrix[:, column]) or 1.0)
        axis = int(np.abs(direction).argmax())
        if abs(direction[axis]) >= _ALONG:
            low, high = _PATIENT_AXES[axis]
            words[column] = (low, high) if direction[axis] > 0 else (high, low)
            shown.add(axis)
    hidden = {0, 1, 2} - shown
    return (words[0], words[1]), _PLANES[hidden.pop()] if len(hidden) == 1 else None


def place_words(box: Box, frame: Box, axes: Axes) -> tuple[str, ...]:
    """In which part of a frame a box lies: up to two words, the vertical one first; empty in the middle.

    A box that fills most of the frame along an axis has no place along it.

    >>> place_words((70, 5, 90, 25), (0, 0, 100, 100), IMAGE_AXES)
    ('upper', 'image-right')
    """
    words = []
    for low, axis in ((1, 1), (0, 0)):
        start, end = frame[low], frame[low + 2]
        if box[low + 2] - box[low] > 0.6 * (end - start):
            continue
        centre = ((box[low] + box[low + 2]) / 2 - start) / (end - start)
        if centre < _OUTER:
            words.append(axes[axis][0])
        elif centre > 1 - _OUTER:
            words.append(axes[axis][1])
    return tuple(words)


def long_axis_mm(region: Region, spacing_mm: tuple[float, float] | None) -> tuple[float, str] | None:
    """Longest extent in mm and what it was measured on, ``mask`` or ``box``; None where the spacing is unknown.

    Args:
        region: What to measure: its mask (``medglip.records.axes_mm``), without one the longer side of its box.
        spacing_mm: (row, column) pixel pitch in mm, or None.
    """
    if spacing_mm is None:
        return None
    if region.mask is None:
        x0, y0, x1, y1 = region.box_xyxy
        return max((x1 - x0) * spacing_mm[1], (y1 - y0) * spacing_mm[0]), "box"
    axes = axes_of_rle(region.mask, spacing_mm)
    return None if axes is None else (axes[0], "mask")


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes.

    >>> box_iou((0, 0, 2, 2), (1, 0, 3, 2))
    0.3333333333333333
    """
    shared = _intersection(a, b)
    return shared / (box_area(a) + box_area(b) - shared)


def share_inside(inner: Region, outer: Region) -> float:
    """Share of ``inner`` that lies in ``outer``: of the masks where both have one, else of the boxes."""
    if inner.mask is not None and outer.mask is not None and inner.mask.size_hw == outer.mask.size_hw:
        pixels = inner.mask.decode()
        return float((pixels & outer.mask.decode()).sum() / max(1, pixels.sum()))
    return _intersection(inner.box_xyxy, outer.box_xyxy) / box_area(inner.box_xyxy)


def area_px(region: Region) -> float:
    """Area in pixels: of the mask where there is one, else of the box."""
    return float(region.mask.area) if region.mask is not None else box_area(region.box_xyxy)


def box_area(box: Box) -> float:
    """Area in pixels."""
    return (box[2] - box[0]) * (box[3] - box[1])


def _intersection(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)
