"""Random views for training, each a function of its random generator alone, and masks as a view shows them. Knows no labels."""

from collections.abc import Sequence

import numpy as np

from medglip.model.view import View
from medglip.records.masks import Rle

STRIDE = 4  # canvas pixels a cell of a mask


def jittered(width: int, height: int, size: int, rng: np.random.Generator, may_mirror: bool) -> View:
    """A random view: zoom 0.85 to 1.25, aspect within 8 %, place, contrast and brightness; nothing turns.

    Args:
        width: Of the image.
        height: Of the image.
        size: Side of the canvas.
        rng: Decides everything.
        may_mirror: False where a mirrored picture is not one of its kind.
    """
    zoom, aspect = rng.uniform(0.85, 1.25), np.exp(rng.uniform(-0.08, 0.08))
    fit = size / max(width, height)
    scale = (fit * zoom * aspect, fit * zoom / aspect)
    slack = size - np.array([width * scale[0], height * scale[1]])  # negative where the image is larger than the canvas
    shift = slack * rng.uniform(0.2, 0.8, 2)
    return View(
        size,
        scale,
        (float(shift[0]), float(shift[1])),
        mirrored=bool(may_mirror and rng.random() < 0.5),
        contrast=float(np.exp(rng.uniform(-0.25, 0.25))),
        brightness=float(rng.uniform(-0.1, 0.1)),
    )


def masks_on_canvas(masks: Sequence[Sequence[Rle]], view: View) -> np.ndarray:
    """Masks as a view shows them, at stride 4: the covered part of each cell, exact for the view's scale and shift.

    Args:
        masks: For each of G things its masks, whose union is drawn; none gives an empty mask.
        view: Where they lie.

    Returns:
        (G, size / 4, size / 4) float32 in [0, 1].
    """
    cells = view.size // STRIDE
    drawn = np.zeros((len(masks), cells, cells), np.float32)
    for number, parts in enumerate(masks):
        if not parts:
            continue
        if len(parts) == 1:
            left, inside = _columns(parts[0])
        else:
            left, inside = 0, np.logical_or.reduce([part.decode() for part in parts])
        rows = np.flatnonzero(inside.any(axis=1))
        if len(rows) == 0:
            continue
        top = int(rows[0])
        crop = inside[top : rows[-1] + 1].astype(np.float32)
        at_rows, down = _shares(cells, top, crop.shape[0], view.scale[1], view.shift[1])
        at_columns, across = _shares(cells, left, crop.shape[1], view.scale[0], view.shift[0])
        drawn[number, at_rows, at_columns] = (down @ crop @ across.T).clip(0, 1)
    return np.ascontiguousarray(drawn[:, :, ::-1]) if view.mirrored else drawn


def _columns(mask: Rle) -> tuple[int, np.ndarray]:
    """First column of a mask that is not empty, and its columns from there to the last one (H, w) bool; w may be 0."""
    height, runs = mask.size_hw[0], mask.runs()
    ends = np.cumsum(runs)
    inside = np.flatnonzero((np.arange(len(runs)) % 2 == 1) & (runs > 0))
    if len(inside) == 0:
        return 0, np.zeros((height, 0), bool)
    first, last = int(inside[0]), int(inside[-1])
    start, stop = int(ends[first - 1]), int(ends[last])
    left, right = start // height, (stop - 1) // height + 1
    lengths = np.concatenate([[start - left * height], runs[first : last + 1], [right * height - stop]])
    return left, np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(right - left, height).T


def _shares(cells: int, first: int, count: int, scale: float, shift: float) -> tuple[slice, np.ndarray]:
    """Along one axis the cells that ``count`` pixels from ``first`` on reach, and the part (cells, count) of each covered."""
    edges = ((first + np.arange(count + 1)) * scale + shift) / STRIDE
    start, stop = (int(np.clip(edge, 0, cells)) for edge in (np.floor(edges[0]), np.ceil(edges[-1])))
    cell = np.arange(start, stop)[:, None]
    covered = np.minimum(edges[1:], cell + 1) - np.maximum(edges[:-1], cell)
    return slice(start, stop), covered.clip(0).astype(np.float32)
