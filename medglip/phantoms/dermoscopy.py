"""Dermoscopy: a pigmented lesion with its sub-structures, at times a small neighbour, on hairy skin. Knows no files."""

import numpy as np

from medglip.phantoms.scene import Exam, Scene, Thing
from medglip.phantoms.shapes import (
    ROUND,
    Outline,
    Rng,
    blurred,
    curve,
    field,
    grain,
    grown,
    laid,
    outline,
    spot,
    strokes,
)

SIZE = (256, 256)
LESIONS = ("melanocytic nevus", "melanoma", "basal cell carcinoma", "vascular skin lesion")
PARTS = ("pigment network", "pigment globules")
_Colour = tuple[float, float, float]
# Colours of the lesion and of the patches in it, ripple of its border.
_LOOK: dict[str, tuple[_Colour, tuple[_Colour, ...], float]] = {
    "melanocytic nevus": ((138, 92, 62), ((120, 78, 52),), 0.05),
    "melanoma": ((112, 72, 52), ((52, 38, 36), (92, 96, 118), (150, 92, 66)), 0.28),
    "basal cell carcinoma": ((205, 142, 128), ((120, 118, 138), (214, 172, 160)), 0.14),
}


def dermoscopy(exam: Exam, rng: Rng) -> Scene:
    """One picture of a skin lesion: uint8 (256, 256, 3)."""
    skin = np.array([rng.uniform(205, 232), rng.uniform(160, 186), rng.uniform(135, 160)], np.float32)
    image = skin * (1 + 0.03 * field(rng, SIZE, 4) + 0.015 * grain(rng, SIZE, 1.0))[..., None]
    name = str(rng.choice(LESIONS[:3], p=(0.4, 0.34, 0.26)))
    radius, centre = rng.uniform(32, 70), rng.uniform(108, 148, 2)
    shape = outline(rng, _LOOK[name][2], 5)
    body = shape.mask(SIZE, tuple(centre), (radius, radius * rng.uniform(0.75, 1.2)), rng.uniform(0, np.pi))
    things = [Thing(name, body)]
    image = _lesion(rng, image, body, name)
    if name != "basal cell carcinoma":
        if rng.random() < 0.62:
            image, mask = _network(rng, image, body, shape, tuple(centre), radius)
            things.append(Thing("pigment network", mask, None, name))
        if rng.random() < 0.55:
            free = body & ~grown(things[-1].mask, 3) if len(things) > 1 else body
            image, globules = _globules(rng, image, free)
            if globules.any():
                things.append(Thing("pigment globules", globules, None, name))
    room = ROUND.mask(SIZE, (127.5, 127.5), (118, 118)) & ~grown(body, 8)
    for _ in range(int(rng.integers(1, 3)) if rng.random() < 0.45 else 0):
        image, new = _neighbour(rng, image, room)
        if new:
            things.append(new)
            room &= ~grown(new.mask, 8)
    return Scene("dermoscopy", "skin", exam, _finished(rng, image), None, tuple(things), (*LESIONS, *PARTS))


def _lesion(rng: Rng, image: np.ndarray, body: np.ndarray, name: str) -> np.ndarray:
    ground, patches, _ = _LOOK[name]
    image = laid(image, 0.93 * blurred(body, 2.2 if name == "melanocytic nevus" else 1.5), ground)
    for colour in patches:
        patch = blurred(body, 2.0) * (field(rng, SIZE, 6) > 0.35)
        image = laid(image, 0.85 * blurred(patch, 1.5), colour)
    if name == "basal cell carcinoma":  # branching vessels
        rows, columns = np.nonzero(body)
        picks = rng.integers(0, rows.size, 6)
        vessels = [
            (curve((rows[i], columns[i]), rng.uniform(0, 2 * np.pi), rng.uniform(15, 40), rng.normal(0, 0.6, 5)), 1.8)
            for i in picks
        ]
        image = laid(image, 0.8 * strokes(SIZE, *vessels) * body, (168, 40, 44))
    return image * (1 + 0.04 * grain(rng, SIZE, 1.5) * body)[..., None]


def _network(
    rng: Rng, image: np.ndarray, body: np.ndarray, shape: Outline, centre: tuple[float, float], radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """A honeycomb of dark lines over one side of the lesion."""
    lean = rng.uniform(0, 2 * np.pi)
    aside = centre[0] + 0.35 * radius * np.sin(lean), centre[1] + 0.35 * radius * np.cos(lean)
    mask = body & outline(rng, 0.1).mask(SIZE, aside, (0.6 * radius, 0.6 * radius))
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 2.0 * np.stack([field(rng, SIZE, 8), field(rng, SIZE, 8)])
    pitch, turn = rng.uniform(6.5, 8.5), rng.uniform(0, np.pi)
    waves = [np.cos(2 * np.pi * (x * np.cos(turn + a) + y * np.sin(turn + a)) / pitch) for a in (0, np.pi / 3, 2 * np.pi / 3)]
    mesh = np.clip(0.75 - (sum(waves) + 1.5) / 3, 0, 1)
    image = laid(image, 0.45 * blurred(mask, 1.0), (172, 122, 86))
    return laid(image, blurred(mask, 1.0) * mesh, (62, 40, 30)), mask


def _globules(rng: Rng, image: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A cluster of round dark clods; the mask is the clods."""
    mask = np.zeros(SIZE, bool)
    middle = spot(rng, free, 10)
    if middle is None:
        return image, mask
    room = free & ROUND.mask(SIZE, middle, (20, 20))
    for _ in range(int(rng.integers(5, 10))):
        place, size = spot(rng, room, 3), rng.uniform(2.4, 3.8)
        if place is None:
            break
        clod = ROUND.mask(SIZE, place, (size, size)) & free
        mask |= clod
        room &= ~grown(clod, 3)
    return laid(image, 0.95 * blurred(mask, 0.7), (40, 26, 24)), mask


def _neighbour(rng: Rng, image: np.ndarray, room: np.ndarray) -> tuple[np.ndarray, Thing | None]:
    """A small angioma, or a small nevus, beside the lesion."""
    radius = rng.uniform(5.5, 12)
    place = spot(rng, room, radius * 1.1)
    if place is None:
        return image, None
    mask = outline(rng, 0.06).mask(SIZE, place, (radius, radius * rng.uniform(0.85, 1.15)))
    if rng.random() < 0.72:
        return laid(image, 0.92 * blurred(mask, 1.0), (176, 34, 48)), Thing("vascular skin lesion", mask)
    return laid(image, 0.92 * blurred(mask, 1.3), (140, 94, 64)), Thing("melanocytic nevus", mask)


def _finished(rng: Rng, image: np.ndarray) -> np.ndarray:
    """Hairs, bubbles of the gel, at times a scale, dark corners and noise."""
    hairs = []
    for _ in range(int(rng.integers(0, 12))):
        points = curve(tuple(rng.uniform(-20, 276, 2)), rng.uniform(0, 2 * np.pi), rng.uniform(90, 240), rng.normal(0, 0.25, 5))
        hairs.append((points, rng.uniform(1.0, 2.2)))
    image = laid(image, 0.85 * strokes(SIZE, *hairs), (46, 34, 30))
    for _ in range(int(rng.integers(0, 6))):
        place, size = tuple(rng.uniform(0, 256, 2)), rng.uniform(4, 9)
        ring = ROUND.mask(SIZE, place, (size, size)) & ~ROUND.mask(SIZE, place, (size - 1.5, size - 1.5))
        image = laid(image, 0.5 * blurred(ring, 0.6), (250, 245, 240))
    if rng.random() < 0.25:
        image[244:254, 20:236:9] = 40
    if rng.random() < 0.5:
        y, x = np.arange(256)[:, None] - 127.5, np.arange(256) - 127.5
        image = image * (1 / (1 + np.exp((np.hypot(y, x) - rng.uniform(132, 150)) / 5)))[..., None]
    return (image + 3.5 * grain(rng, SIZE, 0.5)[..., None]).clip(0, 255).astype(np.uint8)
