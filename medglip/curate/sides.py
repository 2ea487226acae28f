"""The side of paired organs where a source does not tell it: by the patient's midline, never by the image's halves.

Knows no files. A side is only said where it is sure: an object in the middle, or on both sides, keeps none.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from medglip.curate.cases import Refused
from medglip.curate.regions import SPECKLE
from medglip.curate.source import Named
from medglip.imaging.components import components_of
from medglip.imaging.volume import Volume
from medglip.records import Laterality

# Hounsfield units above which a voxel is body, and the share of the brightness above the background for other images.
_BODY_HU, _BODY_SHARE = -500.0, 0.1
# An object whose centre is nearer to the midline (mm), or of which more than this share lies beyond it, keeps no side.
_MIDDLE_MM, _BEYOND = 10.0, 0.1
Box = tuple[slice, ...]


def sided(named: Named, mask: np.ndarray, box: Box, volume: Volume, file: str) -> Iterator[tuple[Named, np.ndarray]]:
    """A label's mask, split into what lies on the patient's left, on the right, and on neither side for sure.

    Args:
        named: The label, without a side.
        mask: (k, j, i) bool, not empty.
        box: Where the mask lies in the volume, in the order k, j, i.
        volume: The image.
        file: The label file, for the message.

    Yields:
        The label with a side and all of its mask on that side, and each object without a sure side alone; masks are of
        the same shape, and none is empty.

    Raises:
        Refused: the file does not say where the patient's left is.
    """
    if volume.affine_ijk_to_mm is None:
        raise Refused(
            "orientation_unknown",
            f"{named.concept!r} of {file!r} is to be split into left and right, but the image does not say where the"
            " patient's left is; correct its header, or leave the option sides out.",
        )
    numbers, found = components_of(mask)
    voxels, leftward, left = _placed(numbers, len(found), volume, box)
    sides: dict[Laterality, list[int]] = {"left": [], "right": []}
    unsure: list[int] = []
    for component in found:
        if component.voxels > SPECKLE or component.number == 1:
            at = component.number
            beyond = min(left[at], voxels[at] - left[at]) / voxels[at]
            sure = abs(leftward[at]) >= _MIDDLE_MM * voxels[at] and beyond <= _BEYOND
            (sides["left" if leftward[at] > 0 else "right"] if sure else unsure).append(at)
    for side, members in sides.items():
        if members:
            wanted = np.zeros(len(found) + 1, dtype=bool)
            wanted[members] = True
            yield replace(named, laterality=side), wanted[numbers]
    for at in unsure:
        yield named, numbers == at


def _placed(numbers: np.ndarray, count: int, volume: Volume, box: Box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each object: its voxels, the sum of their distances (mm) to the left of the midline, how many lie left of it."""
    middle = midline_mm(volume, box)
    sums = np.zeros((3, count + 1))
    for k, plane in enumerate(numbers):  # plane by plane: the places of all voxels of two lungs would fill the memory
        rows, columns = np.nonzero(plane)
        at = plane[rows, columns].astype(np.int64)
        leftward = _x_mm(volume, (np.full_like(rows, k), rows, columns), box) - middle  # LPS: x runs to the patient's left
        for total, weights in zip(sums, (None, leftward, leftward > 0), strict=True):
            total += np.bincount(at, weights=weights, minlength=count + 1)
    return sums[0], sums[1], sums[2]


def midline_mm(volume: Volume, box: Box) -> float:
    """Where the patient's midline is along the axis from right to left (LPS+ x): the middle of the body's mass.

    Args:
        volume: The image; its affine is known.
        box: Only the planes across the patient's axis through this box are looked at: arms and head lie elsewhere.
    """
    affine = np.asarray(volume.affine_ijk_to_mm)
    upright = 2 - int(np.abs(affine[2, :3]).argmax())  # array axis that runs nearest to head and feet
    window = [slice(None)] * 3
    window[upright] = box[upright]
    steps = [max(1, length // 64) for length in volume.shape_kji]  # the middle of a body needs no single voxels
    steps[upright] = max(1, (box[upright].stop - box[upright].start) // 16)
    thin = tuple(slice(part.start, part.stop, step) for part, step in zip(window, steps, strict=True))
    values = volume.voxels[thin]
    if values.ndim == 4:
        values = values.mean(axis=3)
    floor, bright = float(values.min()), float(np.percentile(values, 99.5))
    level = _BODY_HU if volume.unit == "HU" else floor + _BODY_SHARE * (bright - floor)
    body = values > level
    inside = np.nonzero(body if body.any() else np.ones_like(body))
    spread = tuple(at * step for at, step in zip(inside, steps, strict=True))
    start = tuple(slice(part.start or 0, None) for part in thin)
    return float(_x_mm(volume, spread, start).mean())


def _x_mm(volume: Volume, inside: tuple[np.ndarray, ...], box: Box) -> np.ndarray:
    """LPS+ x of voxels (k, j, i) counted from the start of a box."""
    affine = np.asarray(volume.affine_ijk_to_mm)
    k, j, i = (at + edge.start for at, edge in zip(inside, box, strict=True))
    return affine[0, 0] * i + affine[0, 1] * j + affine[0, 2] * k + affine[0, 3]
