"""Random views for training, each a function of its random generator alone: it can be made again. Knows no labels."""

import numpy as np

from medglip.model.view import View


def jittered(width: int, height: int, size: int, rng: np.random.Generator, may_mirror: bool) -> View:
    """A random view: zoom 0.85 to 1.25, aspect within 8 %, place, contrast and brightness; nothing turns.

    Args:
        width: Of the image.
        height: Of the image.
        size: Side of the canvas.
        rng: Decides everything.
        may_mirror: False where left and right mean something.
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
