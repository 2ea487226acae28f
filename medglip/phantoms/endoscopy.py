"""Colonoscopy: folds of mucosa round a dark lumen, with polyps, ulcers and an instrument. Knows no files."""

import numpy as np

from medglip.phantoms.scene import Exam, Scene, Thing
from medglip.phantoms.shapes import ROUND, Rng, blurred, curve, field, grain, grown, laid, outline, spot, strokes

SIZE = (256, 256)
FINDINGS = ("colorectal polyp", "gastrointestinal ulcer", "surgical instrument")
# What lies on the mucosa: share of the frames that have it, most of it in a frame, radii in pixels. Stool is no finding.
_MARKS = (("colorectal polyp", 0.6, 3, (8, 25)), ("gastrointestinal ulcer", 0.45, 2, (8, 18)), ("stool", 0.4, 3, (6, 15)))


def endoscopy(exam: Exam, rng: Rng) -> Scene:
    """One frame of a colonoscopy: uint8 (256, 256, 3)."""
    view = _view(rng)
    lumen = (256 * rng.uniform(0.3, 0.7), 256 * rng.uniform(0.3, 0.7))
    tone = np.array([rng.uniform(195, 225), rng.uniform(105, 140), rng.uniform(85, 115)], np.float32)
    image = _mucosa(rng, lumen, tone)
    room = view & ~ROUND.mask(SIZE, lumen, (30, 30))
    things: list[Thing] = []
    if rng.random() < 0.4:
        image, mask = _instrument(rng, image, view)
        room &= ~grown(mask, 5)
        things.append(Thing("surgical instrument", mask))
    for name, present, most, radii in _MARKS:
        for _ in range(int(rng.integers(1, most + 1)) if rng.random() < present else 0):
            radius = rng.uniform(*radii)
            place = spot(rng, room, radius * 1.1)
            if place is None:
                continue
            shape, turn = outline(rng, 0.07 if name == "colorectal polyp" else 0.18), rng.uniform(0, np.pi)
            mask = shape.mask(SIZE, place, (radius, radius * rng.uniform(0.75, 1.2)), turn) & view
            room &= ~grown(mask, 5)
            if name == "colorectal polyp":
                image = _polyp(rng, image, mask, (*place, radius), tone)
            elif name == "gastrointestinal ulcer":
                image = _ulcer(rng, image, mask)
            else:  # looks like an ulcer without a rim, and is no finding
                image = laid(image, blurred(mask, 1.2), (165, 130, 50) + 14 * grain(rng, SIZE, 1.5)[..., None])
                continue
            things.append(Thing(name, mask))
    return Scene("endoscopy", "colon", exam, _finished(rng, image, view), None, tuple(things), FINDINGS)


def _view(rng: Rng) -> np.ndarray:
    """The lit field of view: an octagon in a black frame."""
    y, x = np.abs(np.arange(256) - 127.5)[:, None], np.abs(np.arange(256) - 127.5)
    reach, corner = rng.uniform(118, 126), rng.uniform(185, 205)
    return (y < reach) & (x < reach) & (x + y < corner)


def _mucosa(rng: Rng, lumen: tuple[float, float], tone: np.ndarray) -> np.ndarray:
    y, x = np.arange(256)[:, None] - lumen[0], np.arange(256) - lumen[1]
    distance = np.hypot(y, x)
    ring = distance + 13 * field(rng, SIZE, 4)
    light = 0.42 + 0.6 * (1 - np.exp(-distance / rng.uniform(55, 85)))
    light += 0.13 * np.sin(ring / rng.uniform(7, 12)) * np.exp(-distance / 140)
    light += 0.06 * field(rng, SIZE, 5) + 0.02 * grain(rng, SIZE, 1.0)
    image = light[..., None].astype(np.float32) * tone
    hole = np.exp(-((distance / rng.uniform(22, 34)) ** 2))
    image = laid(image, 0.85 * hole, (30, 12, 10))
    vessels = []
    for _ in range(7):
        start, angle, length = tuple(rng.uniform(0, 256, 2)), rng.uniform(0, 2 * np.pi), rng.uniform(60, 140)
        vessels.append((curve(start, angle, length, rng.normal(0, 0.5, 6)), 1.6))
    return laid(image, 0.35 * strokes(SIZE, *vessels), (140, 40, 40))


def _polyp(rng: Rng, image: np.ndarray, mask: np.ndarray, circle: tuple[int, int, float], tone: np.ndarray) -> np.ndarray:
    """A dome of mucosa, a little redder, lit from one side, with a shadow beside it."""
    y, x, radius = circle
    soft = blurred(mask, 0.8)
    shadow = np.roll(blurred(mask, 3.0), (int(radius / 4), int(radius / 5)), (0, 1)) * (1 - soft)
    image = image * (1 - 0.45 * shadow[..., None])
    dome = blurred(mask, radius / 2.5)
    slope = np.gradient(dome)
    shade = 0.62 + 0.45 * dome - 2.2 * (slope[0] + slope[1]) + 0.04 * grain(rng, SIZE, 1.2)
    colour = tone * np.array([rng.uniform(0.98, 1.1), rng.uniform(0.7, 0.95), rng.uniform(0.7, 0.95)], np.float32)
    image = laid(image, soft, shade[..., None] * colour)
    gleam = ROUND.mask(SIZE, (y - radius * 0.3, x - radius * 0.3), (radius * 0.12 + 1, radius * 0.2 + 1))
    return laid(image, blurred(gleam, 0.8), (255, 250, 245))


def _ulcer(rng: Rng, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A hollow with a whitish base and a red rim."""
    rim = blurred(grown(mask, 3), 2.0)
    image = laid(image, 0.75 * rim, (140, 25, 30))
    base = (222, 212, 176) + 14 * grain(rng, SIZE, 1.5)[..., None]
    return laid(image, blurred(mask, 0.9), base)


def _instrument(rng: Rng, image: np.ndarray, view: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A forceps that reaches in from below or from a side; findings are placed beside it."""
    tip = rng.uniform(80, 176, 2)
    root = ((250.0, rng.uniform(50, 206)), (rng.uniform(90, 220), 4.0), (rng.uniform(90, 220), 251.0))[int(rng.integers(3))]
    shaft = np.linspace(root, tip, 40)
    along = (shaft[-1] - shaft[0]) / np.hypot(*(shaft[-1] - shaft[0]))
    across, jaw, wide = np.array([-along[1], along[0]]), rng.uniform(5, 9), rng.uniform(12, 17)
    jaws = [(np.stack([tip, tip + 9 * along + sign * jaw * across, tip + 19 * along + sign * 0.6 * jaw * across]), 4.5)
            for sign in (-1, 1)]  # fmt: skip
    ink = strokes(SIZE, (shaft, wide), *jaws)
    y, x = np.arange(256)[:, None] - root[0], np.arange(256) - root[1]
    sheen = 150 + 70 * np.cos((y * across[0] + x * across[1]) / wide * 3.0) + 8 * grain(rng, SIZE, 0.8)
    return laid(image, ink, sheen[..., None] * np.array([1.0, 1.02, 1.06], np.float32)), (ink > 0.5) & view


def _finished(rng: Rng, image: np.ndarray, view: np.ndarray) -> np.ndarray:
    """Gleams of wet mucosa, fall-off of the light, noise and the black frame."""
    for _ in range(int(rng.integers(2, 9))):
        place = rng.uniform(20, 236, 2)
        gleam = ROUND.mask(SIZE, tuple(place), tuple(rng.uniform(1, 3.5, 2)), rng.uniform(0, np.pi))
        image = laid(image, blurred(gleam, 0.7), (255, 252, 248))
    y, x = np.arange(256)[:, None] - 127.5, np.arange(256) - 127.5
    image = image * (1.05 - 0.35 * (np.hypot(y, x) / 150) ** 2)[..., None] + 5 * grain(rng, SIZE, 0.6)[..., None]
    return np.where(view[..., None], image.clip(0, 255), 6).astype(np.uint8)
