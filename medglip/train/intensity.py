"""Other brightness, noise and colour for training: nothing moves. Knows no labels and no geometry but the padding's."""

from typing import Any

import numpy as np

from medglip.imaging.intensity import Window

# What a camera sees in colours that light and staining change; greys of the others stay greys.
COLOURED = ("endoscopy", "dermoscopy", "fundus", "histopathology")
_SPECKLE = 0.2  # largest standard deviation of the factor
_GAIN, _SATURATION = 0.1, 0.25


def jittered_window(window: Window, share: float, rng: np.random.Generator) -> Window:
    """Another (low, high) near ``window``: its width changed, and its level moved, by up to ``share`` of the width.

    Of two grey values the higher one stays the higher one, or both are black or white.

    >>> jittered_window((-160.0, 240.0), 0.0, np.random.default_rng(0))
    (-160.0, 240.0)
    """
    low, high = window
    width = (high - low) * (1 + share * rng.uniform(-1, 1))
    level = (low + high) / 2 + (high - low) * share * rng.uniform(-1, 1)
    return level - width / 2, level + width / 2


class Intensity:
    """Changes each with its own chance: noise, smoothing, gamma, histogram; and what its modality alone has.

    MR has a bias field, ultrasound speckle, pictures of COLOURED another balance of colours. All but the last two are
    MONAI's, whose import takes seconds: it happens here, once, before workers are forked.

    Args:
        chance: Of each change, 0 to 1.
    """

    def __init__(self, chance: float) -> None:
        from monai.transforms.intensity.array import (
            RandAdjustContrast,
            RandBiasField,
            RandGaussianNoise,
            RandGaussianSmooth,
            RandHistogramShift,
        )

        self.chance = chance
        # Each is called only where the image's own generator says so, so that it then always acts.
        self._bias = RandBiasField(prob=1.0, coeff_range=(-0.1, 0.1))
        self._of_all = (
            RandAdjustContrast(prob=1.0, gamma=(0.7, 1.5)),
            RandHistogramShift(prob=1.0, num_control_points=(8, 12)),
            RandGaussianSmooth(prob=1.0, sigma_x=(0.25, 1.0), sigma_y=(0.25, 1.0)),
            RandGaussianNoise(prob=1.0, std=0.05),
        )

    def __call__(self, canvas: np.ndarray, modality: str, rng: np.random.Generator, inside: tuple[slice, slice]) -> np.ndarray:
        """The canvas changed.

        Args:
            canvas: (3, S, S) uint8.
            modality: Of the image.
            rng: Decides everything.
            inside: Rows and columns where the image lies; the padding around it stays black.

        Returns:
            (3, S, S) uint8; grey where ``canvas`` is.
        """
        seen = canvas[:, *inside]
        is_grey = bool((seen[0] == seen[1]).all() and (seen[0] == seen[2]).all())
        values = (seen[:1] if is_grey else seen).astype(np.float32) / 255
        before = values
        if modality in COLOURED and not is_grey and rng.random() < self.chance:
            values = _other_colours(values, rng)
        for change in (*((self._bias,) if modality == "mr" else ()), *self._of_all):
            if rng.random() < self.chance:
                values = _applied(change, values, int(rng.integers(2**31)))
        if modality == "ultrasound" and rng.random() < self.chance:
            grain = rng.standard_normal(values.shape[1:], np.float32) * np.float32(rng.uniform(0, _SPECKLE))
            values = values * (1 + grain)
        if values is before or seen.size == 0:
            return canvas
        changed = canvas.copy()
        changed[:, *inside] = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
        return changed


def _applied(change: Any, values: np.ndarray, seed: int) -> np.ndarray:
    change.set_random_state(seed=seed)
    return np.asarray(change(values), np.float32)


def _other_colours(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Other gains of red, green and blue, and another saturation, as other light or staining gives."""
    gains = (1 + rng.uniform(-_GAIN, _GAIN, (3, 1, 1))).astype(np.float32)
    saturation = np.float32(1 + rng.uniform(-_SATURATION, _SATURATION))
    grey = values.mean(axis=0, keepdims=True)
    return ((values - grey) * saturation + grey).clip(0, 1) * gains
