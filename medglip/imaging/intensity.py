"""What pixel numbers mean, how they are stored (8 or 16 bit) and how they are shown (windows). Knows no files."""

import numpy as np

from medglip.errors import InputError
from medglip.records.record import Intensity

Window = tuple[float, float]

# Low and high Hounsfield unit shown as black and white (a window "40/400" is centre 40, width 400: -160 to 240).
WINDOWS: dict[str, Window] = {
    "soft_tissue": (-160.0, 240.0),
    "lung": (-1350.0, 150.0),
    "mediastinum": (-160.0, 240.0),
    "bone": (-500.0, 1300.0),
    "brain": (0.0, 80.0),
    "subdural": (-65.0, 215.0),
    "abdomen": (-150.0, 250.0),
    "liver": (-25.0, 230.0),
    "pancreas": (-100.0, 200.0),
    "colon": (-68.0, 187.0),
    "pelvis": (-55.0, 200.0),
}
SUV_WINDOW: Window = (0.0, 10.0)
HU_OF_STORED_ZERO = -1024.0  # air; lower values are padding of the scanner and are clipped
_STEPS = 65535


def percentile_window(values: np.ndarray, low: float = 0.5, high: float = 99.5) -> Window:
    """Window between two percentiles of the foreground; of a whole volume, so that its slices are shown alike.

    Foreground is what lies above a twentieth of the brightest tissue: air and its noise would drag both ends down.

    Args:
        values: Any shape, finite.
        low: Percentile shown as black.
        high: Percentile shown as white.
    """
    sample = values.reshape(-1)[:: max(1, values.size // 4_000_000)]  # every n-th voxel: percentiles of a large volume
    floor, bright = float(sample.min()), float(np.percentile(sample, 99.9))
    foreground = sample[sample > floor + 0.05 * (bright - floor)]
    if foreground.size == 0:
        foreground = sample
    bottom, top = (float(value) for value in np.percentile(foreground, [low, high]))
    if top <= bottom:
        bottom, top = float(values.min()), float(values.max())
    return (bottom, top) if top > bottom else (bottom, bottom + 1.0)


def window_of(values: np.ndarray, unit: str, window: str | Window | None = None) -> Window:
    """The window to show ``values`` with.

    Args:
        values: Pixels or voxels in ``unit``.
        unit: ``HU``, ``SUVbw``, ``au`` or ``rgb``.
        window: ``(low, high)``, a name in ``WINDOWS``, ``"percentile"``, or None: soft tissue for HU, 0 to 10
            for SUV, the whole range of 8-bit and colour pixels, percentiles of the foreground otherwise.

    Raises:
        InputError: the name is not known, or low is not below high.
    """
    if isinstance(window, str) and window != "percentile":
        if window not in WINDOWS:
            raise InputError(f"Window: found {window!r}; allowed: percentile, {', '.join(WINDOWS)}, or [low, high].")
        return WINDOWS[window]
    if window is not None and not isinstance(window, str):
        bottom, top = float(window[0]), float(window[1])
        if not bottom < top:
            raise InputError(f"Window: found ({bottom}, {top}); allowed: low below high; swap them.")
        return bottom, top
    if window is None and unit == "HU":
        return WINDOWS["soft_tissue"]
    if window is None and unit == "SUVbw":
        return SUV_WINDOW
    if window is None and (unit == "rgb" or values.dtype == np.uint8):
        return 0.0, float(np.iinfo(values.dtype).max) if values.dtype.kind == "u" else 255.0
    return percentile_window(values)


def storage_of(
    values: np.ndarray, unit: str = "au", *, window: str | Window | None = None, inverted: bool = False
) -> Intensity:
    """How to store ``values``: unit, slope, intercept and window, the same for all slices of a volume.

    Integers that fit 16 bits are kept exactly (slope 1); others are spread over 65,536 steps between their extremes.

    Args:
        values: The whole image or volume, in ``unit``.
        unit: ``HU``, ``SUVbw``, ``au`` or ``rgb``.
        window: As in ``window_of``.
        inverted: True where the source was MONOCHROME1 and ``values`` have been inverted.
    """
    shown = window_of(values, unit, window)
    if unit == "HU":
        return Intensity("HU", 1.0, HU_OF_STORED_ZERO, shown, inverted)
    if unit == "rgb" and values.dtype != np.uint8:  # colours are stored with 8 bits
        return Intensity("rgb", (shown[1] - shown[0]) / 255.0, shown[0], shown, inverted)
    bottom, top = float(values.min()), float(values.max())
    if values.dtype in (np.uint8, np.uint16):
        slope, intercept = 1.0, 0.0
    elif values.dtype.kind in "iub" and top - bottom <= _STEPS:
        slope, intercept = 1.0, min(bottom, 0.0) if top - min(bottom, 0.0) <= _STEPS else bottom
    else:
        slope, intercept = max((top - bottom) / _STEPS, 1e-12), bottom
    return Intensity(unit, slope, intercept, shown, inverted)


def encode(values: np.ndarray, intensity: Intensity) -> np.ndarray:
    """``values`` as stored numbers: uint8 for colours and for uint8 values, else uint16; rounded and clipped.

    Args:
        values: (H, W), (H, W, 3) or a volume, in ``intensity.unit``.
        intensity: From ``storage_of``.
    """
    steps = 255 if intensity.unit == "rgb" else _STEPS
    plain = intensity.slope == 1.0 and intensity.intercept == 0.0
    if plain and values.dtype in (np.uint8, np.uint16):
        return values
    stored = (np.asarray(values, dtype=np.float64) - intensity.intercept) / intensity.slope
    return np.clip(np.rint(stored), 0, steps).astype(np.uint8 if steps == 255 else np.uint16)


def to_stored(
    values: np.ndarray, unit: str = "au", *, window: str | Window | None = None, inverted: bool = False
) -> tuple[np.ndarray, Intensity]:
    """``values`` as stored numbers, and what these mean; see ``storage_of`` and ``encode``."""
    intensity = storage_of(values, unit, window=window, inverted=inverted)
    return encode(values, intensity), intensity


def display(stored: np.ndarray, intensity: Intensity) -> np.ndarray:
    """What to look at: the window mapped to 0..255, rounded and clipped.

    Args:
        stored: uint8 or uint16, (H, W) or (H, W, 3).
        intensity: What the stored numbers mean.

    Returns:
        uint8 of the same shape.

    Raises:
        InputError: the array is not unsigned 8 or 16 bit.

    >>> display(np.array([[0, 1024, 65535]], np.uint16), Intensity("HU", 1.0, -1024.0, (-160.0, 240.0))).tolist()
    [[0, 102, 255]]
    """
    if stored.dtype not in (np.uint8, np.uint16):
        raise InputError(f"display: found pixels of type {stored.dtype}; allowed: uint8, uint16 from the store.")
    if stored.dtype == np.uint8 and intensity == Intensity(intensity.unit, inverted=intensity.inverted):
        return stored
    low, high = intensity.window
    levels = np.arange(np.iinfo(stored.dtype).max + 1) * intensity.slope + intensity.intercept
    return np.rint(np.clip((levels - low) / (high - low), 0.0, 1.0) * 255.0).astype(np.uint8)[stored]
