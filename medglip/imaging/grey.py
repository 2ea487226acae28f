"""Stored grey numbers as values: rescaled, padding as air, inverted. Knows neither headers nor files.

Whole numbers stay whole and narrow on the way: what a step can give is known from the extremes, so that nothing is
widened to 64 bit and looked through again.
"""

from collections.abc import Sequence

import numpy as np

Range = tuple[float, float]
Step = tuple[float, float]

AIR_HU = -1024
# What whole numbers are kept in, the preferred type aside; then floats of 32 bit.
_WHOLE = (np.dtype(np.int16), np.dtype(np.uint16), np.dtype(np.int32))


def rescaled(array: np.ndarray, steps: Sequence[Step]) -> np.ndarray:
    """Frames times their slope, plus their intercept.

    Args:
        array: (N, H, W), any numbers.
        steps: (slope, intercept) of each of the N frames.

    Returns:
        (N, H, W): the array itself where nothing changes; the narrowest of int16, uint16 and int32 where all is whole;
        else float32, computed with 64 bit.
    """
    if all(step == (1.0, 0.0) for step in steps):
        return array
    if array.dtype.kind in "iu" and all(slope.is_integer() and offset.is_integer() for slope, offset in steps):
        whole = [(int(slope), int(offset)) for slope, offset in steps]
        ends = [int(edge(frame)) * slope + offset for frame, (slope, offset) in zip(array, whole, strict=True)
                for edge in (np.min, np.max)]  # fmt: skip
        if (dtype := _type_for(min(ends), max(ends), _WHOLE[0])) is not None:
            out = np.empty(array.shape, dtype)
            for frame, (slope, offset), target in zip(array, whole, out, strict=True):
                _whole_line(frame, slope, offset, target)
            return out
    floats = np.empty(array.shape, np.float32)
    for frame, (factor, shift), target in zip(array, steps, floats, strict=True):
        target[...] = np.multiply(frame, factor, dtype=np.float64) + shift
    return floats


def padding_as_air(values: np.ndarray, array: np.ndarray, edges: tuple[int, int], most: float | None) -> np.ndarray:
    """CT values whose padding, where it is brighter than air, is as dark as the darkest value, and at least as air.

    Padding below air is clipped when it is stored.

    Args:
        values: HU of ``array``, of its shape.
        array: Stored numbers.
        edges: Lowest and highest stored number that stands for padding.
        most: The highest value that padding can have; None where that is not known.
    """
    if most is not None and most <= AIR_HU:
        return values
    padded = (array >= edges[0]) & (array <= edges[1])
    if padded.any() and not padded.all() and values[padded].max() > AIR_HU and values[~padded].min() < 0:
        return np.where(padded, np.array(min(AIR_HU, values[~padded].min()), values.dtype), values)
    return values


def inverted(values: np.ndarray, total: float) -> np.ndarray:
    """``total - values``, in the type of the values where that holds them, else in the narrowest that does."""
    if values.dtype.kind in "iu" and float(total).is_integer():
        low, high = int(total) - int(values.max()), int(total) - int(values.min())
        if (dtype := _type_for(low, high, values.dtype)) is not None:
            out = np.empty(values.shape, dtype)
            _whole_line(values, -1, int(total), out)
            return out
    floats = np.empty(values.shape, np.float32)
    for frame, target in zip(values, floats, strict=True):
        target[...] = np.subtract(total, frame, dtype=np.float64)
    return floats


def _type_for(low: int, high: int, preferred: np.dtype) -> np.dtype | None:
    """The first type that holds both ends, the preferred one first; None where only floats do."""
    for dtype in (preferred, *_WHOLE):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return dtype
    return None


def _whole_line(frame: np.ndarray, slope: int, offset: int, out: np.ndarray) -> None:
    """``frame * slope + offset`` into ``out``, whose type holds the results.

    Whatever overflows on the way comes back: integers of fixed width count modulo a power of two.
    """
    size = 8 * out.itemsize
    step, shift = (np.array(number % (1 << size), f"u{out.itemsize}").view(out.dtype)[()] for number in (slope, offset))
    narrow = frame.view(out.dtype) if frame.itemsize == out.itemsize else frame.astype(out.dtype)
    if slope != 1:
        narrow = np.multiply(narrow, step, out=out)
    np.add(narrow, shift, out=out)
