"""Planes of a volume in radiological display order, and which of them to keep. Knows nothing of label names or files.

Axial: patient's right on image left, anterior up. Coronal: patient's right on image left, head up. Sagittal: anterior
on image left, head up. Planes are the array's own, turned by swapping and flipping axes to the nearest anatomical ones,
never resampled, so the affine of a stored image is exact also for an oblique volume.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from nibabel.orientations import io_orientation

from medglip.errors import InputError
from medglip.imaging.volume import Volume, spacing_of_affine

PLANES = ("axial", "coronal", "sagittal")
# For each plane: the world direction it is cut across, and those of its columns (left to right) and rows (top to
# bottom), as (axis, sign) in LPS+; columns, rows and across are a right-handed system.
_ACROSS = {"axial": (2, 1), "coronal": (1, 1), "sagittal": (0, -1)}
_COLUMNS = {"axial": (0, 1), "coronal": (0, 1), "sagittal": (1, 1)}
_ROWS = {"axial": (1, 1), "coronal": (2, -1), "sagittal": (2, -1)}
# A plane whose normal is further than this cosine from every anatomical axis is called oblique.
_OBLIQUE = 0.9
# Pitches that differ by less count as one: the volume has no native plane.
_ISOTROPIC = 1.05


@dataclass(frozen=True, eq=False)
class Cut:
    """How the planes of one volume across one array axis are turned for display.

    Attributes:
        plane: ``axial``, ``coronal``, ``sagittal``, or ``""`` where the orientation is not known.
        axis: Array axis that is cut across: 0, 1, 2 for k, j, i.
        row_axis: Array axis that runs down the image.
        column_axis: Array axis that runs across the image.
        flip_rows: Whether the rows are turned upside down.
        flip_columns: Whether the columns are turned around.
        flip_across: Whether planes with higher numbers lie on the other side than the slice offset points to.
        count: Number of planes.
        oblique: Whether the plane lies far from the anatomical one it is named after.
    """

    plane: str
    axis: int
    row_axis: int
    column_axis: int
    flip_rows: bool
    flip_columns: bool
    flip_across: bool
    count: int
    oblique: bool = False

    @property
    def axis_name(self) -> str:
        """``k``, ``j`` or ``i``."""
        return "kji"[self.axis]

    def take(self, array: np.ndarray, index: int) -> np.ndarray:
        """Plane ``index`` of a (K, J, I[, 3]) array as (H, W[, 3]) in display order; voxels and labels alike."""
        plane = self.turned(array[(slice(None),) * self.axis + (index,)])
        # Its own memory, or one plane that somebody keeps would keep the whole volume.
        return plane.copy() if plane.base is not None else plane

    def turned(self, plane: np.ndarray) -> np.ndarray:
        """A plane in array order, its two axes ascending, as (H, W[, 3]) in display order; contiguous, maybe a view."""
        if self.row_axis > self.column_axis:
            plane = plane.swapaxes(0, 1)
        plane = plane[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]
        return np.ascontiguousarray(plane)

    def affine_px_to_mm(self, volume: Volume, index: int) -> tuple[float, ...] | None:
        """(column, row, slice offset, 1) of a pixel centre of plane ``index`` to LPS+ mm, 3x4 by rows; or None."""
        if volume.affine_ijk_to_mm is None:
            return None
        affine, shape = volume.affine_ijk_to_mm, volume.shape_kji
        step = [affine[:3, 2], affine[:3, 1], affine[:3, 0]]  # along k, j, i
        first = [0.0, 0.0, 0.0]  # k, j, i of the image's first pixel
        first[self.axis] = float(index)
        row, column = step[self.row_axis], step[self.column_axis]
        if self.flip_rows:
            row, first[self.row_axis] = -row, shape[self.row_axis] - 1.0
        if self.flip_columns:
            column, first[self.column_axis] = -column, shape[self.column_axis] - 1.0
        across = -step[self.axis] if self.flip_across else step[self.axis]
        origin = affine[:3, 3] + sum(at * along for at, along in zip(first, step, strict=True))
        if volume.origins_mm is not None and self.axis == 0:
            origin = origin - affine[:3, 3] - index * step[0] + volume.origins_mm[index]
        turned = np.column_stack([column, row, across, origin]) + 0.0  # no -0.0
        return tuple(float(number) for number in turned.ravel())

    def spacing_mm(self, volume: Volume) -> tuple[float, float] | None:
        """(row, column) pitch of the stored image; None if unknown, or where it runs along unevenly spaced slices."""
        if volume.origins_mm is not None and self.axis != 0:
            return None
        spacing = volume.spacing_kji_mm
        if volume.affine_ijk_to_mm is not None:
            spacing = spacing_of_affine(volume.affine_ijk_to_mm)
        return None if spacing is None else (spacing[self.row_axis], spacing[self.column_axis])


def cuts(volume: Volume, planes: Sequence[str] | None = None) -> list[Cut]:
    """One cut for every plane asked for, or for the plane in which the volume was acquired.

    The native plane lies across the axis of largest pitch; where pitches are equal, it is the axial one. Without an
    orientation it is the array's own, rows and columns as they lie.

    Raises:
        InputError: a plane is unknown, or asked for where the orientation is not known.
    """
    if volume.affine_ijk_to_mm is None:
        if planes:
            raise InputError(f"Planes {list(planes)}: the volume says nothing of its orientation; leave `planes` out.")
        return [Cut("", 0, 1, 2, False, False, False, volume.shape_kji[0])]
    if unknown := [plane for plane in planes or () if plane not in PLANES]:
        raise InputError(f"Plane: found {unknown[0]!r}; allowed: {', '.join(PLANES)}.")
    world = _world_axes(volume)
    return [_cut(volume, plane, world) for plane in (planes or [_native_plane(volume, world)])]


def choose_slices(areas: np.ndarray, max_slices: int | None = None, empty_share: float = 0.0) -> list[int]:
    """Which planes to keep: every concept at its largest cross-section first, then spread out.

    Args:
        areas: (C, S) pixels of each concept in each plane.
        max_slices: Most planes with something in them; None for all.
        empty_share: Planes with nothing in them to keep, as a share of the others; at least one where it is above 0.

    Returns:
        Indices, ascending.
    """
    count = areas.shape[1]
    filled = np.flatnonzero(areas.any(axis=0)) if len(areas) else np.array([], dtype=int)
    limit = len(filled) if max_slices is None else min(max_slices, len(filled))
    if limit == len(filled):
        chosen = filled.tolist()
    else:
        best = _covering(areas[:, filled].astype(float), limit) if limit else []
        chosen = [int(filled[at]) for at in _spread(best, len(filled), limit)]
    empty = np.setdiff1d(np.arange(count), filled)
    share = len(chosen) or (max_slices or count)
    wanted = min(len(empty), max(1, round(empty_share * share))) if empty_share > 0 else 0
    if wanted:
        evenly = np.linspace(0, len(empty) - 1, wanted + 2)[1:-1].round().astype(int)
        chosen += [int(empty[at]) for at in evenly]
    return sorted(set(chosen))


def evenly_spread(count: int, wanted: int) -> list[int]:
    """Which frames of a clip to show where nothing marks some of them: evenly, each in the middle of its part.

    >>> evenly_spread(30, 3), evenly_spread(2, 8)
    ([5, 15, 25], [0, 1])
    """
    if wanted >= count:
        return list(range(count))
    return [int((at + 0.5) * count / wanted) for at in range(wanted)]


def _covering(areas: np.ndarray, limit: int) -> list[int]:
    """Greedy: the plane that shows most concepts near their largest, until each has been shown at 80 % of it."""
    largest = areas.max(axis=1, keepdims=True)
    shares = np.divide(areas, largest, out=np.zeros_like(areas), where=largest > 0)
    waiting = largest[:, 0] > 0
    chosen: list[int] = []
    while waiting.any() and len(chosen) < limit:
        # A concept counts where it is near its largest; otherwise a plane of many slivers would win.
        near = np.where(shares >= 0.8, shares, 0.0)[waiting].sum(axis=0)
        best = int(near.argmax())
        chosen.append(best)
        waiting &= shares[:, best] < 0.8
    return chosen


def _spread(chosen: list[int], count: int, limit: int) -> list[int]:
    """Adds planes furthest from those chosen until there are ``limit``."""
    chosen = list(chosen)
    while len(chosen) < limit:
        gaps = np.min([np.abs(np.arange(count) - at) for at in chosen] or [np.ones(count)], axis=0)
        chosen.append(int(gaps.argmax()))
    return chosen


def _world_axes(volume: Volume) -> np.ndarray:
    """For k, j, i: nearest world axis (0, 1, 2 for L, P, S) and the sign of its direction, each axis used once."""
    pairs = io_orientation(volume.affine_ijk_to_mm)
    if np.isnan(pairs).any():
        raise InputError("The volume's affine has an axis of no length; its orientation cannot be used.")
    return pairs[::-1].astype(int)


def _native_plane(volume: Volume, world: np.ndarray) -> str:
    pitch = [
        np.inf if count == 1 else step  # a single plane was acquired as it lies
        for count, step in zip(volume.shape_kji, volume.spacing_kji_mm or (1.0, 1.0, 1.0), strict=True)
    ]
    order = sorted(range(3), key=lambda axis: -pitch[axis])
    if pitch[order[0]] < _ISOTROPIC * pitch[order[1]]:
        return "axial"
    return next(plane for plane in PLANES if _ACROSS[plane][0] == world[order[0], 0])


def _cut(volume: Volume, plane: str, world: np.ndarray) -> Cut:
    at = {int(axis): (array_axis, int(sign)) for array_axis, (axis, sign) in enumerate(world)}
    across_world, across_sign = _ACROSS[plane]
    axis, across_runs = at[across_world]
    (column_world, column_sign), (row_world, row_sign) = _COLUMNS[plane], _ROWS[plane]
    (column_axis, column_runs), (row_axis, row_runs) = at[column_world], at[row_world]
    steps = volume.affine_ijk_to_mm[:3, 2::-1].T if volume.affine_ijk_to_mm is not None else np.eye(3)
    normal = np.cross(steps[column_axis], steps[row_axis])
    oblique = bool(np.abs(normal).max() / np.linalg.norm(normal) < _OBLIQUE)
    return Cut(
        plane, axis, row_axis, column_axis, row_runs != row_sign, column_runs != column_sign,
        across_runs != across_sign, volume.shape_kji[axis], oblique,
    )  # fmt: skip
