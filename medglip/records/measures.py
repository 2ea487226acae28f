"""How large a mask is in the patient: long axis, short axis and area. No labels; without a spacing, no sizes."""

import numpy as np

from medglip.errors import RecordError
from medglip.records.masks import Rle

# More than any pixel's number.
_NONE = np.iinfo(np.int64).max
# Pairs whose distances differ by less than this share are equally long: their lengths differ by rounding only.
_EQUAL = 1e-9


def axes_mm(mask: np.ndarray, spacing_mm: tuple[float, float] | None) -> tuple[float, float] | None:
    """Long and short axis of a mask in its image plane, as for RECIST.

    The long axis is the largest distance between two points of the outline; the short axis is the extent of the outline
    at right angles to it; of several equally long axes, the one with the longest short axis counts. The outline runs
    through the middles of the pixels' sides, half way from the last centre inside to the first one outside: one pixel
    is one pitch long, a line of k pixels k pitches. Drawn ellipses of 3 to 80 pixels are measured within 1 pixel along
    and 1.5 across; through the centres or the corners of pixels, small ones are off by nearly 2. Parts that do not
    touch are measured as one.

    Args:
        mask: (H, W), non-zero inside.
        spacing_mm: (row, column) pixel pitch in mm; None if unknown.

    Returns:
        (long, short) in mm, long >= short > 0; None where the spacing is unknown or the mask is empty.

    Raises:
        RecordError: the mask is not two-dimensional, or the spacing is not two numbers above 0.

    Source: Eisenhauer et al. 2009 (RECIST 1.1), longest diameter and longest perpendicular in the plane of the scan. The
    outline is that of PyRadiomics (shape2D, Maximum 2D diameter) and of scikit-image (``find_contours`` at 0.5).

    >>> axes_mm(np.ones((1, 5)), (0.5, 0.5))
    (2.5, 0.5)
    >>> axes_mm(np.ones((1, 5)), None) is None
    True
    """
    if mask.ndim != 2:
        raise RecordError(f"A mask must be (H, W); got an array of shape {mask.shape}.")
    if spacing_mm is None:
        return None
    inside = mask != 0
    rows = np.flatnonzero(inside.any(axis=1))
    if rows.size == 0:
        return None
    inside = inside[rows]
    return _axes(rows, inside.argmax(axis=1), mask.shape[1] - 1 - inside[:, ::-1].argmax(axis=1), _checked(spacing_mm))


def axes_of_rle(rle: Rle, spacing_mm: tuple[float, float] | None) -> tuple[float, float] | None:
    """``axes_mm`` of a run-length code, from the ends of its runs: no pixel is decoded, whatever the image's size.

    >>> from medglip.records.masks import rle_of_crop
    >>> axes_of_rle(rle_of_crop(np.ones((3, 1)), (4000, 4000), (8000, 8000)), (0.5, 0.25))
    (1.5, 0.25)
    """
    if spacing_mm is None:
        return None
    row_mm, column_mm = _checked(spacing_mm)
    return _axes(*_column_ends(rle), (column_mm, row_mm))


def area_mm2(mask: np.ndarray | Rle, spacing_mm: tuple[float, float] | None) -> float | None:
    """Area of a mask: its pixels times the area of one; None where the spacing is unknown.

    Args:
        mask: (H, W), non-zero inside, or its run-length code.
        spacing_mm: (row, column) pixel pitch in mm; None if unknown.

    >>> area_mm2(np.ones((4, 5)), (0.5, 2.0))
    20.0
    """
    if spacing_mm is None:
        return None
    row_mm, column_mm = _checked(spacing_mm)
    return float((mask.area if isinstance(mask, Rle) else np.count_nonzero(mask)) * row_mm * column_mm)


def _checked(spacing_mm: tuple[float, float]) -> tuple[float, float]:
    row_mm, column_mm = (float(pitch) for pitch in spacing_mm)
    if not (0 < row_mm < np.inf and 0 < column_mm < np.inf):
        raise RecordError(
            f"spacing_mm: found {spacing_mm!r}; allowed: (row, column) above 0 in mm, or None; leave it None if unknown."
        )
    return row_mm, column_mm


def _axes(lines: np.ndarray, first: np.ndarray, last: np.ndarray, pitch_mm: tuple[float, float]) -> tuple[float, float] | None:
    """Axes of the pixels between ``first`` and ``last`` of each line: of each row, or of each column.

    Args:
        lines: (N,) numbers of the lines, ascending.
        first: (N,) first pixel of each line.
        last: (N,) last pixel of each line.
        pitch_mm: From line to line, and from pixel to pixel along a line.
    """
    if lines.size == 0:
        return None
    near, far = _half_outline(lines, first), _half_outline(lines, -last)
    corners = np.concatenate([near, far * (1, -1)]) * (pitch_mm[0] / 2, pitch_mm[1] / 2)
    gaps = corners[:, None] - corners
    squares = np.square(gaps).sum(axis=2)
    longest = np.sqrt(squares.max())
    along = gaps[squares >= squares.max() * (1 - _EQUAL)] / longest  # (M, 2) directions of the longest axes
    across = corners @ (along[:, ::-1] * (1, -1)).T
    return float(longest), float(min(longest, np.ptp(across, axis=0).max()))  # rounding may make it longer


def _half_outline(lines: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """(M, 2) line and pixel, in half pixels, of the convex hull's lower side around the middles of pixels' sides."""
    start = lines[0]
    at = 2 * (lines - start) + 1
    lowest = np.full(at[-1] + 2, _NONE)
    for side in (at - 1, at + 1):
        lowest[side] = np.minimum(lowest[side], 2 * ends)
    lowest[at] = 2 * ends - 1
    line = np.flatnonzero(lowest < _NONE)
    end = lowest[line]
    while True:  # a point that is not below the line between its neighbours is no corner, whichever others go with it
        run, rise = line[1:] - line[:-1], end[1:] - end[:-1]
        corner = np.ones(len(line), bool)
        corner[1:-1] = run[:-1] * rise[1:] > run[1:] * rise[:-1]
        if corner.all():
            return np.column_stack([line + 2 * start - 1, end])
        line, end = line[corner], end[corner]


def _column_ends(rle: Rle) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns with pixels inside, and pixels in them whose convex hull is that of the mask: the lowest and the highest."""
    height = rle.size_hw[0]
    runs = rle.runs()
    edges = np.cumsum(runs)[: len(runs) // 2 * 2].reshape(-1, 2)
    start, stop = edges[edges[:, 0] < edges[:, 1]].T
    # A run that goes on into further columns touches their ends.
    first, last = start // height, (stop - 1) // height
    long = last > first
    first, last = first[long] * height, last[long] * height
    points = np.sort(np.concatenate([start, stop - 1, first + height - 1, first + height, last - 1, last]))
    columns, rows = np.divmod(points, height)
    begins = np.flatnonzero(np.diff(columns, prepend=-1))
    ends = np.append(begins[1:], len(points)) - 1 if len(points) else begins
    return columns[begins], rows[begins], rows[ends]
