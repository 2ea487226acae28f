"""Which class each pixel of a coloured mask means, also where JPEG or resampling blurred it. Knows no labels."""

from collections import Counter
from typing import NamedTuple

import numpy as np
from scipy import ndimage

# Colours at most this far (Euclidean, of 441) from a class are its own, changed by compression.
NEAR = 48.0
# Shades within a 3 x 3 block of an area that was drawn in one colour differ by less; at the edge of two colours they
# differ by more.
EVEN = 24


class Unknown(NamedTuple):
    """A colour that was drawn but is not in the table: its commonest shade, its pixels, the nearest colour known."""

    colour: tuple[int, ...]
    pixels: int
    nearest: tuple[int, ...]


def classes_of_colours(image: np.ndarray, colours: np.ndarray) -> tuple[np.ndarray, list[Unknown]]:
    """Class of each pixel: that of the nearest colour or, half-way between two, that of the nearest clear pixel.

    Args:
        image: (H, W, 3) uint8.
        colours: (N, 3) integers, all different; the first is the background.

    Returns:
        (H, W) uint8 positions in ``colours``, background where the colour is unknown; and the unknown colours, the
        commonest first. An edge between two classes is not an unknown colour.

    >>> classes_of_colours(np.array([[[0, 0, 0], [250, 3, 0]]], np.uint8), np.array([[0, 0, 0], [255, 0, 0]]))
    (array([[0, 1]], dtype=uint8), [])
    """
    shades, at = _shades(image)
    table = np.asarray(colours, dtype=np.float32)
    rgb = np.stack([shades >> 16, (shades >> 8) & 255, shades & 255], axis=1)
    distances = np.linalg.norm(rgb[:, None] - table[None], axis=2)
    nearest, distance = distances.argmin(axis=1), distances.min(axis=1)
    apart = np.linalg.norm(table[:, None] - table[None], axis=2)
    half = apart[apart > 0].min() / 2
    classes = nearest.astype(np.uint8)[at]
    between = (distance > half)[at]
    if len(table) > 2 and between.any() and not between.all():
        clear = ndimage.distance_transform_edt(between, return_distances=False, return_indices=True)
        classes = np.where(between, classes[tuple(clear)], classes)
    # In a mask of few colours nothing was blurred: a colour that is merely near is another one.
    near = 0.0 if len(shades) <= 2 * len(table) else min(NEAR, half)
    areas = _drawn(image, (distance > near)[at])
    classes[areas > 0] = 0
    found: Counter[int] = Counter()
    for area in range(1, int(areas.max()) + 1):
        inside = at[areas == area]
        found[int(np.bincount(inside).argmax())] += inside.size
    known = table.astype(int).tolist()
    unknown = [Unknown(tuple(rgb[s].tolist()), n, tuple(known[nearest[s]])) for s, n in found.most_common()]
    return classes, unknown


def _shades(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different colours of (H, W, 3) as 24-bit numbers, ascending, and the position of each pixel's among them."""
    packed = (image[..., 0].astype(np.int32) << 16) | (image[..., 1].astype(np.int32) << 8) | image[..., 2]
    present = np.zeros(1 << 24, bool)  # a table of all colours: many times faster than sorting a large image
    present[packed.ravel()] = True
    shades = np.flatnonzero(present)
    positions = np.empty(1 << 24, np.int32)
    positions[shades] = np.arange(len(shades))
    return shades, positions[packed]


def _drawn(image: np.ndarray, far: np.ndarray) -> np.ndarray:
    """Numbered areas of ``far`` (H, W) that hold a 3 x 3 block of one colour; 0 elsewhere."""
    if not far.any():
        return np.zeros(far.shape, np.int32)
    core = ndimage.binary_erosion(far, np.ones((3, 3)))  # never at the border: every neighbour is inside
    rows, columns = np.nonzero(core)
    if not rows.size:
        return np.zeros(far.shape, np.int32)
    around = np.stack([image[rows + y, columns + x] for y in (-1, 0, 1) for x in (-1, 0, 1)]).astype(np.int16)
    core[rows, columns] = np.ptp(around, axis=0).max(axis=1) < EVEN
    numbers, _ = ndimage.label(far, np.ones((3, 3)))
    kept = np.unique(numbers[core])
    renumbered = np.zeros(numbers.max() + 1, np.int32)
    renumbered[kept] = np.arange(1, len(kept) + 1)
    return renumbered[numbers]
