"""Random outlines, places and textures from which every phantom is drawn. Knows no anatomy and no labels."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from skimage.filters import gaussian
from skimage.measure import label

Rng = np.random.Generator
Point = tuple[float, float]  # (y, x) in pixels


@dataclass(frozen=True, slots=True)
class Outline:
    """A closed curve round a centre: radius 1 with ripples. One outline at several sizes draws a body in slices."""

    radius: np.ndarray  # (360,), one a degree

    def mask(self, size_hw: tuple[int, int], centre: Point, radii: Point, turn: float = 0.0) -> np.ndarray:
        """Its inside as bool (H, W).

        Args:
            size_hw: Height and width of the picture.
            centre: (y, x) in pixels.
            radii: (y, x) in pixels before turning.
            turn: Radians, from +y towards +x.
        """
        height, width = size_hw
        reach = max(radii) * float(self.radius.max()) + 1
        y0, y1 = max(0, int(centre[0] - reach)), min(height, int(centre[0] + reach) + 2)
        x0, x1 = max(0, int(centre[1] - reach)), min(width, int(centre[1] + reach) + 2)
        found = np.zeros(size_hw, bool)
        if y0 >= y1 or x0 >= x1 or min(radii) <= 0:
            return found
        dy, dx = np.arange(y0, y1)[:, None] - centre[0], np.arange(x0, x1) - centre[1]
        cos, sin = np.cos(turn), np.sin(turn)
        u, v = (dy * cos + dx * sin) / radii[0], (dx * cos - dy * sin) / radii[1]
        degree = np.degrees(np.arctan2(v, u)).astype(np.int32) % 360
        found[y0:y1, x0:x1] = u * u + v * v <= self.radius[degree] ** 2
        return found


def outline(rng: Rng, ripple: float = 0.1, waves: int = 4) -> Outline:
    """A random outline: ``waves`` harmonics from the second on, each of about ``ripple`` / harmonic."""
    angle = np.radians(np.arange(360))
    radius = np.ones(360)
    for number in range(2, 2 + waves):
        radius += ripple / number * rng.normal() * np.cos(number * angle + rng.uniform(0, 2 * np.pi))
    return Outline(np.clip(radius, 0.6, 1.4))


ROUND = Outline(np.ones(360))


def field(rng: Rng, size_hw: tuple[int, int], cells: int = 5) -> np.ndarray:
    """A slow random field, float32 (H, W), mean about 0 and deviation about 1; ``cells`` humps across."""
    coarse = rng.standard_normal((cells + 2, cells + 2), dtype=np.float32)
    return np.asarray(Image.fromarray(coarse).resize((size_hw[1], size_hw[0]), Image.Resampling.BICUBIC)) * 1.3


def grain(rng: Rng, size_hw: tuple[int, int], sigma: float | Point = 0.0) -> np.ndarray:
    """Fine random texture, float32 (H, W), mean 0 and deviation 1, correlated over ``sigma`` pixels."""
    noise = rng.standard_normal(size_hw, dtype=np.float32)
    if np.any(np.asarray(sigma) > 0):
        noise = blurred(noise, sigma)
        noise /= noise.std()
    return noise


def window(rng: Rng, sheet: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """A random window of a larger texture (H', W'), maybe mirrored: a new texture at no cost."""
    y, x = (int(rng.integers(large - small + 1)) for large, small in zip(sheet.shape, size_hw, strict=True))
    flip = slice(None, None, -1 if rng.random() < 0.5 else 1)
    return sheet[y : y + size_hw[0], x : x + size_hw[1]][flip]


def blurred(image: np.ndarray, sigma: float | Point) -> np.ndarray:
    """Gaussian blur of (H, W) or, channel by channel, (H, W, 3); float32. Of a mask, only round what is inside."""
    if image.dtype != bool:
        return gaussian(image.astype(np.float32), sigma, truncate=3.0, channel_axis=-1 if image.ndim == 3 else None)
    soft = np.zeros(image.shape, np.float32)
    if crop := _crop(image, int(3 * float(np.max(sigma))) + 2):
        soft[crop] = gaussian(image[crop].astype(np.float32), sigma, truncate=3.0)
    return soft


def spot(rng: Rng, room: np.ndarray, clearance: float) -> tuple[int, int] | None:
    """A random pixel of a mask with a disc of radius ``clearance`` inside the mask; None if none was found soon."""
    places = np.flatnonzero(room)
    if places.size == 0:
        return None
    r = int(np.ceil(clearance))
    disc = np.hypot(*np.ogrid[-r : r + 1, -r : r + 1]) <= clearance
    for place in places[rng.integers(places.size, size=300)]:
        y, x = divmod(int(place), room.shape[1])
        round_it = room[max(0, y - r) : y + r + 1, max(0, x - r) : x + r + 1]
        if round_it.shape == disc.shape and round_it[disc].all():
            return y, x
    return None


def whole(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a mask (H, W)."""
    parts = label(mask, connectivity=2)
    return mask if parts.max() < 2 else parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))


def without_specks(mask: np.ndarray, least: int) -> np.ndarray:
    """A mask (H, W) without its connected parts of fewer than ``least`` pixels."""
    cleaned = np.zeros_like(mask)
    if crop := _crop(mask, 0):
        parts = label(mask[crop], connectivity=2)
        kept = np.bincount(parts.ravel()) >= least
        kept[0] = False
        cleaned[crop] = kept[parts]
    return cleaned


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    """A mask (H, W) widened by so many pixels to every side (squarely)."""
    for _ in range(pixels):
        wide = mask.copy()
        wide[1:] |= mask[:-1]
        wide[:-1] |= mask[1:]
        mask = wide.copy()
        mask[:, 1:] |= wide[:, :-1]
        mask[:, :-1] |= wide[:, 1:]
    return mask


def strokes(size_hw: tuple[int, int], *lines: tuple[np.ndarray, float | np.ndarray]) -> np.ndarray:
    """Curves drawn with a round pen: float32 (H, W), 1 on them, 0 beside them, soft at the edge.

    Args:
        size_hw: Height and width of the picture.
        lines: Points (N, 2) of (y, x) with the pen's width in pixels: one for all points, or one each.
    """
    fine = 4  # drawn four times as large, then averaged
    sheet = Image.new("L", (size_hw[1] * fine, size_hw[0] * fine))
    pen = ImageDraw.Draw(sheet)
    for points, width in lines:
        at = (np.asarray(points)[:, ::-1] + 0.5) * fine
        widths = np.broadcast_to(np.asarray(width, float) * fine, len(at))
        for (x0, y0), (x1, y1), wide in zip(at[:-1], at[1:], widths[1:], strict=True):
            pen.line((x0, y0, x1, y1), 255, max(1, round(wide)))
            if wide > 2 * fine:
                pen.ellipse((x1 - wide / 2, y1 - wide / 2, x1 + wide / 2, y1 + wide / 2), 255)
    return np.asarray(sheet.reduce(fine), np.float32) / 255


def curve(start: Point, angle: float, length: float, bend: np.ndarray) -> np.ndarray:
    """Points (N, 2) of (y, x), three pixels apart, from ``start``; ``bend``: changes of direction on the way, radians."""
    steps = max(3, round(length / 3))
    turn = angle + np.interp(np.linspace(0, 1, steps), np.linspace(0, 1, len(bend)), np.cumsum(bend))
    return np.stack([start[0] + 3 * np.cumsum(np.sin(turn)), start[1] + 3 * np.cumsum(np.cos(turn))], axis=1)


def laid(image: np.ndarray, cover: np.ndarray, colour: tuple[float, ...] | np.ndarray) -> np.ndarray:
    """``image`` (H, W, 3) under paint.

    Args:
        image: float32, 0 to 255; not changed.
        cover: (H, W), 0 to 1: how much of the paint one sees.
        colour: Three numbers, or (H, W, 3).
    """
    painted = image.copy()
    if crop := _crop(cover > 0, 0):
        alpha, tint = cover[crop][..., None].astype(np.float32), np.asarray(colour, np.float32)
        painted[crop] += alpha * ((tint if tint.ndim == 1 else tint[crop]) - painted[crop])
    return painted


def _crop(mask: np.ndarray, margin: int) -> tuple[slice, slice] | None:
    """Rows and columns that hold all of a mask (H, W), with a margin; None where it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return None
    y, x = max(0, int(rows[0]) - margin), max(0, int(columns[0]) - margin)
    return slice(y, int(rows[-1]) + 1 + margin), slice(x, int(columns[-1]) + 1 + margin)
