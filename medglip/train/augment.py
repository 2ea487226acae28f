"""Random views for training, each a function of its random generator alone, and masks as a view shows them. Knows no labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from medglip.errors import ModelError
from medglip.model.view import View
from medglip.records.masks import Rle

STRIDE = 4  # canvas pixels a cell of a mask
COARSEST = 32  # canvas pixels: the model takes sides that are a multiple of it
ZOOM = (0.85, 1.25)


@dataclass(frozen=True)
class Augmentation:
    """How images are changed for training: keys of the ``train`` section. View 0 of an image is never changed.

    Attributes:
        zoom: Smallest and largest zoom; 1 fits the image to the canvas.
        sizes: Sides of the canvas in pixels to draw from; empty: that of the configuration.
        window_jitter: Most that a window's width and level change, as a share of its width; of images stored in HU with
            16 bits alone, because of others the window cannot be undone.
        intensity: How often each change of brightness, noise or colour is made.
        paste: How often a lesion of another image is pasted (``medglip.train.pasting``).

    Source: canvases of many sizes: GLIP (arXiv 2112.03857), appendix on training; YOLO9000 (arXiv 1612.08242), section 3.
    """

    zoom: tuple[float, float] = ZOOM
    sizes: tuple[int, ...] = ()
    window_jitter: float = 0.0
    intensity: float = 0.0
    paste: float = 0.0

    def __post_init__(self) -> None:
        """Check."""
        if len(self.zoom) != 2 or not 0.25 <= self.zoom[0] <= self.zoom[1] <= 4:
            raise ModelError(f"Configuration train.zoom: found {list(self.zoom)!r}; allowed: [least, most] from 0.25 to 4.")
        for size in self.sizes:
            if isinstance(size, bool) or not isinstance(size, int) or size < COARSEST or size % COARSEST:
                raise ModelError(f"Configuration train.sizes: found {size!r}; allowed: multiples of {COARSEST} pixels.")
        if not 0 <= self.window_jitter <= 0.5:
            raise ModelError(f"Configuration train.window_jitter: found {self.window_jitter!r}; allowed: 0 to 0.5.")
        for name in ("intensity", "paste"):
            if not 0 <= getattr(self, name) <= 1:
                raise ModelError(f"Configuration train.{name}: found {getattr(self, name)!r}; allowed: 0 to 1.")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Augmentation":
        """The augmentation in a ``train`` section; what an older one does not say is taken for granted."""
        given: dict[str, Any] = {name: settings[name] for name in cls.__dataclass_fields__ if name in settings}
        return cls(**given | {name: tuple(given[name]) for name in ("zoom", "sizes") if name in given})


def jittered(
    width: int, height: int, size: int, rng: np.random.Generator, may_mirror: bool, zooms: tuple[float, float] = ZOOM
) -> View:  # fmt: skip
    """A random view: zoom, aspect within 8 %, place, contrast and brightness; nothing turns.

    Views of one generator on canvases of two sizes show the same part of the image.

    Args:
        width: Of the image.
        height: Of the image.
        size: Side of the canvas.
        rng: Decides everything.
        may_mirror: False where a mirrored picture is not one of its kind.
        zooms: Least and most zoom.
    """
    zoom, aspect = rng.uniform(*zooms), np.exp(rng.uniform(-0.08, 0.08))
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


def part_shown(width: int, height: int, view: View) -> tuple[slice, slice]:
    """Rows and columns of the canvas on which an image of this size lies, as ``View.draw`` puts it there."""
    x0, y0, x1, y1 = (
        round(float(edge)) for edge in replace(view, mirrored=False).boxes_on_canvas(
            np.array([[0, 0, width, height]], np.float32))[0].clip(0, view.size)
    )  # fmt: skip
    return slice(y0, y1), slice(view.size - x1, view.size - x0) if view.mirrored else slice(x0, x1)


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
