"""Segmentations as COCO files hold them, polygons and run-length codes, as masks. Trusts none of them; knows no files.

pycocotools trusts what it is given: a code that does not fit its size, or a corner that lies far outside, ends the process or
never ends. So both are looked at here first.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from medglip.errors import RecordError
from medglip.records.masks import Rle

# Pixels of the largest mask that is decoded: a quarter of a gigabyte.
_MOST_PIXELS = 2**28
# How far outside, in lengths of the image, a corner may lie: a polygon is drawn step by step along its edges.
_FARTHEST = 100


def mask_of_runs(code: Mapping[str, Any]) -> np.ndarray:
    """The mask (H, W) bool of a run-length code with ``size`` and ``counts``, plain (a list) or packed (a text).

    Raises:
        RecordError: it does not fit its size.

    >>> mask_of_runs({"size": [2, 2], "counts": [1, 2, 1]}).astype(int).tolist()
    [[0, 1], [1, 0]]
    """
    try:
        height, width = (int(length) for length in code["size"])
        counts = code["counts"]
        runs = np.array(counts, dtype=np.int64) if isinstance(counts, list) else None
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise RecordError(f"A run-length code needs size (height, width) and counts; found {str(code)[:80]!r}.") from error
    if min(height, width) < 1 or height * width > _MOST_PIXELS:
        raise RecordError(f"The size of a run-length code is {[height, width]}; allowed: 1 to {_MOST_PIXELS} pixels.")
    if runs is None:
        text = counts.decode("ascii", "replace") if isinstance(counts, bytes) else str(counts)
        return Rle((height, width), text).decode()
    if runs.ndim != 1 or runs.min(initial=0) < 0 or runs.max(initial=0) > _MOST_PIXELS or runs.sum() != height * width:
        raise RecordError(f"The runs of a run-length code do not fill {height} x {width} pixels.")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def rle_of_polygons(rings: Sequence[Sequence[float] | np.ndarray], size_hw: tuple[int, int]) -> Rle | None:
    """The union of polygons as a run-length code, drawn as COCO draws them; None where no ring has three corners.

    Args:
        rings: Each x, y, x, y ... in pixels of the image.
        size_hw: Height and width of the image.

    Raises:
        RecordError: a ring is no list of pairs, or a corner lies far outside.
    """
    try:
        points = [np.asarray(ring, float).reshape(-1, 2) for ring in rings]
    except (TypeError, ValueError) as error:
        raise RecordError(f"A polygon is a list of x, y, x, y ...: {error}.") from error
    points = [ring for ring in points if len(ring) >= 3 and np.isfinite(ring).all()]
    if not points:
        return None
    height, width = size_hw
    if (farthest := max(float(np.abs(ring).max()) for ring in points)) > _FARTHEST * max(size_hw):
        raise RecordError(f"A corner lies at {farthest:g}, in an image of {width} x {height} pixels.")
    code = coco_mask.merge(coco_mask.frPyObjects([ring.ravel().tolist() for ring in points], height, width))
    return Rle((height, width), code["counts"].decode("ascii"))
