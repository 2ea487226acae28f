"""Masks as COCO run-length codes: encode, decode, box and area. Knows nothing of labels or files."""

from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from medglip.errors import RecordError

_LONGEST = 7  # characters of a run: 35 bits, more than the pixels of any image


@dataclass(frozen=True, slots=True)
class Rle:
    """One binary mask as a compressed COCO run-length code (column-major).

    Attributes:
        size_hw: Height and width of the mask in pixels.
        counts: COCO's compressed run lengths, as ASCII text.
    """

    size_hw: tuple[int, int]
    counts: str

    def decode(self) -> np.ndarray:
        """The mask as bool (H, W).

        Raises:
            RecordError: ``counts`` is no run-length code of that size.
        """
        runs = self.runs()
        inside = np.arange(len(runs)) % 2 == 1
        return np.repeat(inside, runs).reshape(self.size_hw[1], self.size_hw[0]).T

    def runs(self) -> np.ndarray:
        """Lengths (N,) int64 of the runs outside, inside, outside ... of the mask, column by column.

        Read here and not by pycocotools, which trusts its input: a code that was cut off would end the process.

        Raises:
            RecordError: ``counts`` is no run-length code of that size.

        Source: ``rleFrString`` of COCO's maskApi.c: digits of 5 bits, lowest first, 32 for "more follow", 16 in the last
        for a negative number; from the fourth on, a number is the difference to the run two before.
        """
        digits = np.frombuffer(self.counts.encode("ascii", "replace"), np.uint8).astype(np.int64) - 48
        if digits.size and digits.min() >= 0 and digits.max() < 64 and not digits[-1] & 32:
            last = np.flatnonzero((digits & 32) == 0)
            first = np.append(0, last[:-1] + 1)
            count = last - first + 1
            if count.max() <= _LONGEST:
                place = np.arange(len(digits)) - np.repeat(first, count)
                runs = np.add.reduceat((digits & 31) << (5 * place), first)
                runs -= np.where(digits[last] & 16, 1 << (5 * count), 0)
                runs[1::2], runs[2::2] = np.cumsum(runs[1::2]), np.cumsum(runs[2::2])
                if runs.min() >= 0 and runs.sum() == self.size_hw[0] * self.size_hw[1]:
                    return runs
        raise RecordError(f"A mask of size {self.size_hw} does not decode: its runs do not fill it; write the dataset again.")

    @property
    def area(self) -> int:
        """Number of pixels inside; raises as ``decode`` does."""
        return int(self.runs()[1::2].sum())


def rle_of_mask(mask: np.ndarray) -> Rle:
    """Run-length code of a mask.

    Args:
        mask: (H, W), bool or any number; non-zero is inside.

    Raises:
        RecordError: the array is not two-dimensional.
    """
    if mask.ndim != 2:
        raise RecordError(f"A mask must be (H, W); got an array of shape {mask.shape}.")
    code = coco_mask.encode(np.asfortranarray(mask != 0, dtype=np.uint8))
    return Rle(size_hw=(int(mask.shape[0]), int(mask.shape[1])), counts=code["counts"].decode("ascii"))


def rle_of_crop(crop: np.ndarray, corner_xy: tuple[int, int], size_hw: tuple[int, int]) -> Rle:
    """Run-length code of a mask that is known to lie in a small window of a large image: its cost is the window's.

    Args:
        crop: (h, w), non-zero inside.
        corner_xy: Column and row of the crop's first pixel in the image.
        size_hw: Height and width of the image.

    >>> rle_of_crop(np.ones((2, 1)), (3, 1), (4, 5)) == rle_of_mask(np.pad(np.ones((2, 1)), ((1, 1), (3, 1))))
    True
    """
    height, width = size_hw
    (x0, y0), (rows, columns) = corner_xy, crop.shape
    if x0 < 0 or y0 < 0 or x0 + columns > width or y0 + rows > height:
        raise RecordError(f"A crop of {crop.shape} at {corner_xy} does not lie in an image of {size_hw}.")
    lines = np.zeros((columns + 2, height), bool)  # columns of the image, one empty column on each side
    lines[1:-1, y0 : y0 + rows] = crop.T != 0
    changes = np.flatnonzero(np.diff(lines.ravel())) + 1 + (x0 - 1) * height
    runs = np.diff(np.concatenate([[0], changes, [height * width]])).tolist()
    code = coco_mask.frPyObjects({"size": [height, width], "counts": runs if runs[-1] else runs[:-1]}, height, width)
    return Rle(size_hw=(int(height), int(width)), counts=code["counts"].decode("ascii"))


def box_of_mask(mask: np.ndarray) -> tuple[float, float, float, float] | None:
    """Tightest half-open box ``(x0, y0, x1, y1)`` around the non-zero pixels of (H, W); None where there are none.

    >>> box_of_mask(np.array([[0, 0, 0], [0, 1, 1]]))
    (1.0, 1.0, 3.0, 2.0)
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
