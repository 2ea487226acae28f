"""Area, box and size of many run-length coded masks at once, without drawing one. Knows no tables and no images.

COCO's own decoder leaves memory unset where the runs are too short for the image, and reads on where a number has no
end, so every code is read here first; only whole ones are handed to it.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pycocotools import mask as coco_mask

# Seven characters hold 35 bits: more than the pixels of any image.
_LONGEST = 7
_ENDLESS = -(1 << 40)  # stands for a longer one: below any run, so that its code is refused
# Bytes of code that are read at a time, so that what is made of them stays in the processor's cache.
_PIECE = 1 << 20
# pycocotools 2.0.11 takes at most 255 masks a call.
_CALL = 250


class Measured(NamedTuple):
    """What the codes of many masks say, one entry a mask.

    Attributes:
        good: bool; False where the text is no run-length code, or does not fill its image exactly.
        area: int64, pixels inside; 0 where not good.
        box_xyxy: float64 (N, 4), half-open; zeros where the mask is empty or not good.
    """

    good: np.ndarray
    area: np.ndarray
    box_xyxy: np.ndarray


def measure(codes: pa.Array, height: np.ndarray, width: np.ndarray) -> Measured:
    """Area and box of masks from their codes.

    Args:
        codes: COCO's compressed counts: strings, none null.
        height: Rows of each mask's image, int (N,).
        width: Columns of each mask's image, int (N,).
    """
    text, starts = _bytes_of(codes)
    count = len(starts) - 1
    total, area = np.full(count, -1, np.int64), np.zeros(count, np.int64)
    first = 0
    while first < count:
        until = max(first + 1, int(np.searchsorted(starts, starts[first] + _PIECE, "right")) - 1)
        piece = text[starts[first] : starts[until]]
        _sum_runs(piece, starts[first : until + 1] - starts[first], total[first:until], area[first:until])
        first = until
    size = np.stack([np.asarray(height, np.int64), np.asarray(width, np.int64)], axis=1)
    good = total == size[:, 0] * size[:, 1]
    area[~good] = 0
    boxes = np.zeros((count, 4))
    boxes[good] = _boxes(codes.filter(pa.array(good)), size[good])
    boxes[area == 0] = 0
    return Measured(good, area, boxes)


def _bytes_of(codes: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """All characters one after the other, and where each string starts (and the last ends)."""
    codes = codes.cast(pa.large_string())
    _, offsets, data = codes.buffers()
    starts = np.frombuffer(offsets, np.int64)[codes.offset : codes.offset + len(codes) + 1]
    text = np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8)
    return text[starts[0] : starts[-1]], starts - starts[0]


def _sum_runs(text: np.ndarray, starts: np.ndarray, total: np.ndarray, area: np.ndarray) -> None:
    """Sums of all runs and of the runs of ones, into the last two; a total stays -1 where the code is broken.

    Source: pycocotools ``rleFrString``: base 32 from the character "0", bit 5 says that more follows, bit 4 of the last
    is the sign, and from the fourth run on the difference to the run before the last is written.
    """
    digits = text - np.uint8(48)
    whole = _whole(digits, starts)
    if not whole.all():
        digits = digits[np.repeat(whole, np.diff(starts))]
        starts = np.concatenate([[0], np.cumsum(np.diff(starts)[whole])])
    if len(starts) == 1:
        return
    values, begin, count = _numbers(digits, starts)
    # Two chains a code: run i is run i - 2 plus number i, so the sums over every second number give all runs, less
    # the sum before the code. Where a code begins decides which half its chain of ones is in.
    sums = np.empty(len(values) + 2, np.int64)
    sums[:2] = 0
    np.cumsum(values[0::2], out=sums[2::2])
    np.cumsum(values[1::2], out=sums[3::2])
    opening = values[begin]
    zeros, zeros_fall = _chain(sums, begin + 2, (count + 1) // 2, sums[begin + 2])
    ones, ones_fall = _chain(sums, begin + 3, count // 2, sums[begin + 1])
    sound = (opening >= 0) & ~zeros_fall & ~ones_fall
    total[whole] = np.where(sound, zeros + opening + ones, -1)
    area[whole] = ones


def _chain(sums: np.ndarray, first: np.ndarray, length: np.ndarray, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the runs of one chain of each code, and whether one of them is negative."""
    total, falls = np.zeros(len(first), np.int64), np.zeros(len(first), bool)
    for half in (0, 1):
        mine = np.flatnonzero((first % 2 == half) & (length > 0))
        if not len(mine):
            continue
        column, at = sums[half::2], first[mine] // 2
        bounds = np.stack([at, at + length[mine]], axis=1).ravel()
        bounds = bounds[:-1] if bounds[-1] == len(column) else bounds
        total[mine] = np.add.reduceat(column, bounds)[::2] - length[mine] * base[mine]
        falls[mine] = np.minimum.reduceat(column, bounds)[::2] < base[mine]
    return total, falls


def _whole(digits: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """True for each code that is not empty, of the right characters, and ends with a number's last."""
    whole = np.diff(starts) > 0
    filled = np.flatnonzero(whole)
    whole[filled] = (digits[starts[filled + 1] - 1] & 32) == 0
    if digits.size and digits.max() > 63:
        whole[np.searchsorted(starts, np.flatnonzero(digits > 63), "right") - 1] = False
    return whole


def _numbers(digits: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All numbers of whole codes, the place of each code's first, and how many each has."""
    stop = np.flatnonzero((digits & 32) == 0)
    last = digits[stop]
    values = (last & 15).astype(np.int64)
    values -= last & 16
    # from the last digit, the highest, to the first; before the first byte stands the last one, which ends a number
    longer = np.flatnonzero(digits[stop - 1] & 32)
    for place in range(1, _LONGEST + 1):
        if not len(longer):
            break
        at = stop[longer] - place
        values[longer] = values[longer] * 32 + (digits[at] & 31) if place < _LONGEST else _ENDLESS
        longer = longer[digits[at - 1] & 32 != 0]
    until = np.searchsorted(stop, starts[1:] - 1, "right")
    begin = np.concatenate([[0], until[:-1]])
    return values, begin, until - begin


def _boxes(codes: pa.Array, size_hw: np.ndarray) -> np.ndarray:
    """Half-open boxes, float64 (N, 4), of masks that are known to be sound."""
    boxes = np.zeros((len(codes), 4))
    for first in range(0, len(codes), _CALL):
        texts, sizes = codes[first : first + _CALL].to_pylist(), size_hw[first : first + _CALL].tolist()
        boxes[first : first + _CALL] = coco_mask.toBbox(
            [{"size": size, "counts": text} for text, size in zip(texts, sizes, strict=True)]
        )
    boxes[:, 2:] += boxes[:, :2]
    return boxes
