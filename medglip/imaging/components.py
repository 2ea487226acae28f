"""Connected components: the single objects of a 3-D mask. Knows nothing of labels' names or files."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import cc3d
import numpy as np
from scipy.ndimage import find_objects


class Component(NamedTuple):
    """One connected object.

    Attributes:
        number: From 1, in the order in which the objects come.
        voxels: Its size.
        box_kji: ``(k0, j0, i0, k1, j1, i1)`` voxel edges, half-open.
    """

    number: int
    voxels: int
    box_kji: tuple[int, int, int, int, int, int]


def components_of(mask: np.ndarray, connectivity: Literal[6, 18, 26] = 26) -> tuple[np.ndarray, list[Component]]:
    """Objects of a mask, the largest first; equal ones in array order.

    Args:
        mask: (K, J, I), non-zero inside.
        connectivity: 26, 18 or 6 neighbours.

    Returns:
        (K, J, I) unsigned integers, 0 outside and the object's number inside; and the objects.

    >>> numbers, found = components_of(np.array([[[1, 0, 1, 1]]]))
    >>> numbers.tolist(), [c.voxels for c in found]
    ([[[2, 0, 1, 1]]], [2, 1])
    """
    labels, count = cc3d.connected_components(
        np.ascontiguousarray(mask if mask.dtype == bool else mask != 0),
        connectivity=connectivity,
        return_N=True,
        binary_image=True,
    )
    if not count:
        return labels, []
    # cc3d.statistics and bincount look at every voxel of the background too; the objects fill little of it.
    boxes = find_objects(labels.astype(np.int32, copy=False) if labels.itemsize < 4 else labels.view(np.int32))
    sizes = [int(np.count_nonzero(labels[box] == number)) for number, box in enumerate(boxes, 1)]
    order = sorted(range(1, count + 1), key=lambda number: (-sizes[number - 1], number))
    found = []
    for number, old in enumerate(order, 1):
        k, j, i = boxes[old - 1]
        found.append(Component(number, sizes[old - 1], (k.start, j.start, i.start, k.stop, j.stop, i.stop)))
    if order != list(range(1, count + 1)):
        renumber = np.zeros(count + 1, dtype=labels.dtype)
        renumber[order] = np.arange(1, count + 1)
        labels = renumber[labels]
    return labels, found


def box_of_voxels(mask: np.ndarray) -> tuple[int, int, int, int, int, int] | None:
    """Tightest half-open voxel box around the non-zero voxels of (K, J, I); None where there are none."""
    edges = list(_edges(mask))
    if any(edge is None for edge in edges):
        return None
    (k0, k1), (j0, j1), (i0, i1) = (edge for edge in edges if edge)
    return k0, j0, i0, k1, j1, i1


def _edges(mask: np.ndarray) -> Iterator[tuple[int, int] | None]:
    for axis in range(3):
        filled = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        yield (int(filled[0]), int(filled[-1]) + 1) if filled.size else None
