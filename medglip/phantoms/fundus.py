"""A colour photograph of the back of the eye, with the marks of diabetic retinopathy. Knows no files."""

import numpy as np

from medglip.phantoms.scene import Exam, Scene, Thing
from medglip.phantoms.shapes import ROUND, Rng, blurred, curve, field, grain, grown, laid, outline, spot, strokes

SIZE = (256, 256)
ANATOMY = ("optic disc", "optic cup", "macula")
FINDINGS = ("hard exudate", "soft exudate", "microaneurysm", "retinal hemorrhage")
# Finding: share of the eyes that have it, most of it in an eye, radii in pixels, colour, how much it covers, blur.
_MARKS = {
    "retinal hemorrhage": (0.45, 4, (7, 13), (98, 14, 10), 0.85, 1.3),
    "soft exudate": (0.4, 3, (7, 12), (240, 218, 172), 0.75, 2.2),
    "hard exudate": (0.5, 6, (5, 9), (252, 226, 92), 0.95, 0.7),
    "microaneurysm": (0.5, 5, (4.7, 5.6), (128, 12, 14), 0.9, 0.7),
}


def fundus(exam: Exam, rng: Rng) -> Scene:
    """One eye: uint8 (256, 256, 3); in a right eye the optic disc is on the right of the picture."""
    right = exam.seed[3] % 2 == 0
    nasal = 1 if right else -1
    seen = ROUND.mask(SIZE, (127.5, 127.5), (rng.uniform(117, 125), 121))
    disc_at = 128 + rng.uniform(-12, 8), 128 + nasal * rng.uniform(56, 70)
    disc_radius = rng.uniform(17, 23)
    macula_at = disc_at[0] + rng.uniform(2, 12), disc_at[1] - nasal * rng.uniform(92, 104)
    image, vessels = _retina(rng, disc_at, nasal, macula_at)
    disc = outline(rng, 0.03).mask(SIZE, disc_at, (disc_radius, 0.92 * disc_radius))
    inner = rng.uniform(0.32, 0.68) * disc_radius
    cup = outline(rng, 0.05).mask(SIZE, (disc_at[0], disc_at[1] - 0.1 * nasal * disc_radius), (inner, 0.92 * inner)) & disc
    image = laid(image, 0.9 * blurred(disc, 1.5), (244, 186, 110))
    image = laid(image, 0.85 * blurred(cup, 1.5), (255, 234, 188))
    image = laid(image, 0.55 * vessels * blurred(disc, 1.0), (150, 34, 22))
    radius = rng.uniform(17, 21)
    macula = ROUND.mask(SIZE, macula_at, (radius, radius))
    things = [Thing("optic disc", disc), Thing("optic cup", cup, None, "optic disc"), Thing("macula", macula)]
    room = seen & ~grown(disc, 5) & ~grown(macula, 3) & ROUND.mask(SIZE, (127.5, 127.5), (110, 110))
    sick, texture = rng.random() < 0.8, 10 * grain(rng, SIZE, 1.5)[..., None]
    for name, (share, most, radii, colour, cover, blur) in _MARKS.items():
        for _ in range(int(rng.integers(1, most + 1)) if sick and rng.random() < share / 0.8 else 0):
            size, ripple = rng.uniform(*radii), 0.02 if name == "microaneurysm" else 0.16
            place = spot(rng, room, size + 2)
            if place is None:
                continue
            mask = outline(rng, ripple).mask(SIZE, place, (size, size * rng.uniform(0.85, 1.2)), rng.uniform(0, np.pi))
            image = laid(image, cover * blurred(mask, blur), np.asarray(colour) + texture)
            room &= ~grown(mask, 6)
            things.append(Thing(name, mask))
    return Scene("fundus", "retina", exam, _finished(rng, image, seen), None, tuple(things), (*ANATOMY, *FINDINGS),
                 {"eye": "right" if right else "left"})  # fmt: skip


def _retina(
    rng: Rng, disc_at: tuple[float, float], nasal: int, macula_at: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Retina with vessels and the dark of the macula, uint8 range; and the vessels' ink (H, W)."""
    tone = np.array([rng.uniform(190, 225), rng.uniform(88, 116), rng.uniform(38, 60)], np.float32)
    image = tone * (1 + 0.06 * field(rng, SIZE, 4) + 0.02 * grain(rng, SIZE, 1.2))[..., None]
    y, x = np.arange(256)[:, None] - macula_at[0], np.arange(256) - macula_at[1]
    image = laid(image, 0.62 * np.exp(-((np.hypot(y, x) / 16) ** 2)), (110, 36, 16))
    lines = []
    towards = np.pi if nasal > 0 else 0.0
    for up in (-1, 1):
        for bow, width in ((0.5, 4.5), (0.75, 3.6), (1.15, 3.0), (2.3, 2.4)):
            start = towards + up * nasal * (bow + rng.normal(0, 0.08)) * 1.25
            bend = -up * nasal * np.array([0.0, 0.22, 0.25, 0.22, 0.18]) * (1.3 - bow * 0.5) + rng.normal(0, 0.1, 5)
            main = curve(disc_at, start, rng.uniform(120, 190), bend)
            lines.append((main, np.linspace(width, 1.2, len(main))))
            for at in rng.integers(6, len(main) - 6, 2):
                aside = np.arctan2(*(main[at + 1] - main[at])) + rng.choice((-0.7, 0.7))
                twig = curve(tuple(main[at]), aside, rng.uniform(25, 60), rng.normal(0, 0.25, 4))
                lines.append((twig, np.linspace(0.45 * width, 0.9, len(twig))))
    ink = strokes(SIZE, *lines)
    clear = 1 - np.exp(-((np.hypot(y, x) / 22) ** 4))  # no vessel crosses the fovea
    return laid(image, 0.75 * ink * clear, (122, 24, 14)), ink


def _finished(rng: Rng, image: np.ndarray, seen: np.ndarray) -> np.ndarray:
    y, x = np.arange(256)[:, None] - rng.uniform(100, 156), np.arange(256) - rng.uniform(100, 156)
    image = (
        image * (1.12 - 0.42 * (np.hypot(y, x) / 128) ** 2).clip(0.3, None)[..., None] + 3 * grain(rng, SIZE, 0.6)[..., None]
    )
    return (image.clip(0, 255) * blurred(seen, 0.8)[..., None]).astype(np.uint8)
