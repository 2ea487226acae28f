"""What pixel numbers mean, how they are stored (8 or 16 bit) and how they are shown (windows). Knows no files."""

from functools import lru_cache

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
# Bone and lung, soft tissue and brain at once, as red, green and blue (widths and centres 2250/-100, 350/40, 80/40).
THREE_WINDOWS: tuple[Window, Window, Window] = ((-1225.0, 1025.0), (-135.0, 215.0), (0.0, 80.0))
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
    target = np.dtype(np.uint8 if steps == 255 else np.uint16)
    if intensity.slope == 1.0 and (shifted := _shifted(np.asarray(values), intensity.intercept, steps, target)) is not None:
        return shifted
    stored = (np.asarray(values, dtype=np.float64) - intensity.intercept) / intensity.slope
    return np.clip(np.rint(stored), 0, steps).astype(target)


def _shifted(values: np.ndarray, intercept: float, steps: int, target: np.dtype) -> np.ndarray | None:
    """Whole numbers less a whole intercept, clipped, without 64 bit on the way; None where these are no whole numbers."""
    if values.dtype.kind not in "iu" or not float(intercept).is_integer():
        return None
    bottom, top = int(intercept), int(intercept) + steps
    least, most = int(np.iinfo(values.dtype).min), int(np.iinfo(values.dtype).max)
    if bottom > most or top < least:
        return None
    clipped = np.clip(values, max(bottom, least), min(top, most))
    # Unsigned numbers count modulo a power of two: what the type cuts off comes back.
    clipped = clipped.view(target) if clipped.dtype.itemsize == target.itemsize else clipped.astype(target)
    return np.subtract(clipped, target.type(bottom % (1 << 8 * target.itemsize)), out=clipped)


def to_stored(
    values: np.ndarray, unit: str = "au", *, window: str | Window | None = None, inverted: bool = False
) -> tuple[np.ndarray, Intensity]:
    """``values`` as stored numbers, and what these mean; see ``storage_of`` and ``encode``."""
    intensity = storage_of(values, unit, window=window, inverted=inverted)
    return encode(values, intensity), intensity


def display(stored: np.ndarray, intensity: Intensity, window: str | Window | None = None) -> np.ndarray:
    """What to look at: the window mapped to 0..255, rounded and clipped.

    Stored pixels keep all their bits whatever is shown of them, so that one image can be looked at through many windows.

    Args:
        stored: uint8 or uint16, (H, W) or (H, W, 3).
        intensity: What the stored numbers mean.
        window: Another one than ``intensity.window``: ``(low, high)``, a name in ``WINDOWS``, or ``"three"`` for
            three windows of a CT as colours; see ``three_windows``.

    Returns:
        uint8 of the same shape; (H, W, 3) for ``"three"``.

    Raises:
        InputError: the array is not unsigned 8 or 16 bit, or there is no such window.

    >>> display(np.array([[0, 1024, 65535]], np.uint16), Intensity("HU", 1.0, -1024.0, (-160.0, 240.0))).tolist()
    [[0, 102, 255]]
    """
    if stored.dtype not in (np.uint8, np.uint16):
        raise InputError(f"display: found pixels of type {stored.dtype}; allowed: uint8, uint16 from the store.")
    if window == "three":
        return three_windows(stored, intensity)
    if window is None and stored.dtype == np.uint8 and intensity == Intensity(intensity.unit, inverted=intensity.inverted):
        return stored
    if window == "percentile":
        window = percentile_window(stored * intensity.slope + intensity.intercept)
    low, high = intensity.window if window is None else window_of(stored, intensity.unit, window)
    return _levels(int(np.iinfo(stored.dtype).max) + 1, intensity.slope, intensity.intercept, low, high).take(stored)


@lru_cache(maxsize=64)  # at most 4 MiB; the slices of a volume share one
def _levels(count: int, slope: float, intercept: float, low: float, high: float) -> np.ndarray:
    """What each stored number is shown as, (count,) uint8; not to be written to."""
    values = np.arange(count) * slope + intercept
    levels = np.rint(np.clip((values - low) / (high - low), 0.0, 1.0) * 255.0).astype(np.uint8)
    levels.flags.writeable = False
    return levels


def three_windows(stored: np.ndarray, intensity: Intensity) -> np.ndarray:
    """A CT slice through three windows at once, as red, green and blue: bone and lung, soft tissue, brain.

    Args:
        stored: uint16, (H, W), from the store.
        intensity: What the stored numbers mean; its unit must be ``HU``.

    Returns:
        (H, W, 3) uint8.

    Raises:
        InputError: the image is not in Hounsfield units.

    >>> three_windows(np.array([[1064]], np.uint16), Intensity("HU", 1.0, -1024.0, (-160.0, 240.0))).tolist()
    [[[143, 128, 128]]]
    """
    if intensity.unit != "HU" or stored.ndim != 2:
        raise InputError(f"Three windows: found a {stored.ndim}-D image in {intensity.unit!r}; allowed: one slice of CT in HU.")
    return np.stack([display(stored, intensity, window) for window in THREE_WINDOWS], axis=-1)
