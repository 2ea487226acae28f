"""Ultrasound clips: liver and right kidney through a convex probe, or a breast through a linear one. Knows no files.

Fluid is dark and brightens what lies behind it; a stone is bright and casts a shadow; a tumour of the liver is bright, one
of the breast dark. The scan moves with the breath, and finds enter and leave its plane.
"""

from dataclasses import dataclass

import numpy as np

from medglip.phantoms.scene import Exam, Scene, Thing
from medglip.phantoms.shapes import Outline, Rng, blurred, curve, field, grain, grown, outline, spot, strokes, window

SIZE = (256, 256)
FRAMES = 6
LIVER = ("liver", "right kidney", "liver cyst", "liver tumor", "right kidney cyst", "right kidney stone")
BREAST = ("breast tumor", "breast cyst")
PRESENT = 0.55
_SHEET = (384, 384)
# Grey of the tissue in [0, 1], and what stays of the echoes behind it.
_ECHO = {
    "liver cyst": (0.04, 1.35), "liver tumor": (0.78, 1.0), "right kidney cyst": (0.04, 1.35),
    "right kidney stone": (0.97, 0.2), "breast cyst": (0.05, 1.4), "breast tumor": (0.17, 0.72),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Probe:
    """The field of view: which beam and what depth each pixel has, and which pixels are seen at all."""

    beam: np.ndarray  # int (H, W)
    depth: np.ndarray  # float (H, W), pixels from the probe
    seen: np.ndarray  # bool (H, W)

    def behind(self, mask: np.ndarray) -> np.ndarray:
        """Everything deeper than the mask in the beams that cross it."""
        far = np.full(int(self.beam.max()) + 1, -1.0)
        np.maximum.at(far, self.beam[mask], self.depth[mask])
        reach = far[self.beam]
        return (reach >= 0) & (self.depth > reach)


@dataclass(frozen=True, slots=True)
class _Find:
    """A find in its clip: largest in frame ``peak``, gone ``lasts`` frames from it."""

    name: str
    shape: Outline
    place: tuple[int, int]
    radii: tuple[float, float]
    peak: float
    lasts: float
    within: str | None

    def mask(self, frame: int, shift: tuple[float, float], room: np.ndarray) -> np.ndarray:
        scale = np.sqrt(max(0.0, 1 - ((frame - self.peak) / self.lasts) ** 2))
        if scale < 0.78:
            return np.zeros(SIZE, bool)
        centre = self.place[0] + shift[0], self.place[1] + shift[1]
        return self.shape.mask(SIZE, centre, (self.radii[0] * scale, self.radii[1] * scale)) & room


def liver(exam: Exam, rng: Rng) -> Scene:
    """A clip of liver and right kidney: uint8 (6, 256, 256)."""
    probe = _convex(rng)
    shapes = {"liver": outline(rng, 0.08), "kidney": outline(rng, 0.05)}
    places = {
        "liver": (rng.uniform(112, 126), rng.uniform(96, 112)),
        "kidney": (rng.uniform(160, 178), rng.uniform(160, 178)),
    }
    sizes = {"liver": (rng.uniform(70, 84), rng.uniform(80, 96)), "kidney": (rng.uniform(30, 36), rng.uniform(44, 54))}
    tilt, veins = rng.uniform(-0.35, 0.1), [_vein(rng) for _ in range(3)]

    def organs(shift: tuple[float, float]) -> dict[str, np.ndarray]:
        at = {name: (y + shift[0], x + shift[1]) for name, (y, x) in places.items()}
        kidney = shapes["kidney"].mask(SIZE, at["kidney"], sizes["kidney"], tilt)
        sinus = shapes["kidney"].mask(SIZE, at["kidney"], (0.36 * sizes["kidney"][0], 0.55 * sizes["kidney"][1]), tilt)
        body = shapes["liver"].mask(SIZE, at["liver"], sizes["liver"], 0.3) & ~grown(kidney, 1)
        vessel = strokes(SIZE, *((vein + np.array(shift), width) for vein, width in veins)) > 0.5
        return {
            "liver": body & probe.seen,
            "right kidney": kidney & probe.seen,
            "sinus": sinus & probe.seen,
            "vessel": vessel & body,
        }

    still = organs((0.0, 0.0))
    finds: list[_Find] = []
    taken = np.zeros(SIZE, bool)
    for name, within, radii in (("liver cyst", "liver", (7, 14)), ("liver tumor", "liver", (7, 14)),
                                ("right kidney cyst", "right kidney", (6.5, 9)),
                                ("right kidney stone", "right kidney", (6, 7.5))):  # fmt: skip
        for _ in range(int(rng.integers(1, 3)) if rng.random() < PRESENT else 0):
            finds += _find(rng, name, within, still[within] & probe.seen & ~taken, rng.uniform(*radii))
            if finds:
                taken |= grown(finds[-1].mask(round(finds[-1].peak), (0, 0), probe.seen), 5)
    frames, masks = [], {name: np.zeros((FRAMES, *SIZE), bool) for name in ("liver", "right kidney")}
    cuts = [np.zeros((FRAMES, *SIZE), bool) for _ in finds]
    texture, way = _speckle(rng), _breath(rng)
    for number, shift in enumerate(way):
        tissue = organs(shift)
        echo = np.full(SIZE, 0.37, np.float32) + 0.05 * field(rng, SIZE, 6)
        for name, tone in (("liver", 0.47), ("vessel", 0.08), ("right kidney", 0.22), ("sinus", 0.6)):
            echo[tissue[name]] = tone
        echo += 0.025 * field(rng, SIZE, 8)
        echo = np.maximum(echo, 0.8 * (grown(tissue["liver"], 2) & ~tissue["liver"] & (probe.depth > 120)))
        for name, mask in masks.items():
            mask[number] = tissue[name]
        for find, cut in zip(finds, cuts, strict=True):
            cut[number] = find.mask(number, shift, tissue[find.within or "liver"])
        echo = _with_finds(echo, probe, [(find.name, cut[number]) for find, cut in zip(finds, cuts, strict=True)])
        frames.append(_frame(rng, echo, probe, texture))
    things = [_thing(name, mask) for name, mask in masks.items()]
    things += [_thing(find.name, cut, find.within) for find, cut in zip(finds, cuts, strict=True) if cut.any()]
    pixel = round(float(rng.uniform(0.55, 0.7)), 3)
    return Scene("ultrasound", "liver", exam, np.stack(frames), (pixel, pixel), tuple(things), LIVER, {"probe": "convex"})


def breast(exam: Exam, rng: Rng) -> Scene:
    """A clip of one breast: uint8 (6, 256, 256)."""
    probe = _linear(rng)
    finds: list[_Find] = []
    room = probe.seen & (probe.depth > 45) & (probe.depth < 175)
    for name, radii, ripple in (("breast tumor", (11, 26), 0.25), ("breast cyst", (7, 18), 0.05)):
        for _ in range(int(rng.integers(1, 3 if name == "breast cyst" else 2)) if rng.random() < PRESENT else 0):
            new = _find(rng, name, None, room, rng.uniform(*radii), ripple)
            finds += new
            for find in new:
                room &= ~grown(find.mask(round(find.peak), (0, 0), probe.seen), 6)
    layers = [22 + 3 * field(rng, SIZE, 2)[0], 75 + 18 * field(rng, SIZE, 2)[0], 190 + 10 * field(rng, SIZE, 2)[0]]
    starts = rng.uniform((25, 0), (85, 200), (10, 2))
    septa = [(curve(tuple(at), rng.uniform(-0.4, 0.4), rng.uniform(30, 90), rng.normal(0, 0.3, 3)), 1.6) for at in starts]
    cuts = [np.zeros((FRAMES, *SIZE), bool) for _ in finds]
    texture, frames = _speckle(rng), []
    for number, shift in enumerate(_breath(rng)):
        rows = np.arange(SIZE[0])[:, None] - shift[0] * 0.5
        echo = np.full(SIZE, 0.62, np.float32)
        for border, tone in zip(layers, (0.32, 0.5, 0.36), strict=True):
            echo[rows > border] = tone
        echo += 0.07 * field(rng, SIZE, 10) + 0.22 * strokes(
            SIZE, *((points + np.array(shift), wide) for points, wide in septa)
        )
        echo += (rows > layers[2]) * 0.07 * np.sin(rows / 2.2)
        for find, cut in zip(finds, cuts, strict=True):
            cut[number] = find.mask(number, shift, probe.seen)
        echo = _with_finds(echo, probe, [(find.name, cut[number]) for find, cut in zip(finds, cuts, strict=True)])
        frames.append(_frame(rng, echo, probe, texture))
    things = tuple(_thing(find.name, cut) for find, cut in zip(finds, cuts, strict=True) if cut.any())
    pixel = round(float(rng.uniform(0.15, 0.2)), 3)
    return Scene("ultrasound", "breast", exam, np.stack(frames), (pixel, pixel), things, BREAST, {"probe": "linear"})


def _thing(name: str, mask: np.ndarray, within: str | None = None) -> Thing:
    if name.startswith("right "):
        return Thing(name.removeprefix("right "), mask, "right", within)
    return Thing(name, mask, None, within)


def _convex(rng: Rng) -> _Probe:
    apex, inner, spread = rng.uniform(-55, -35), rng.uniform(50, 65), np.radians(rng.uniform(33, 38))
    dy, dx = np.arange(SIZE[0])[:, None] - apex, np.arange(SIZE[1]) - 127.5
    radius, angle = np.hypot(dy, dx), np.arctan2(dx, dy)
    seen = (radius > inner) & (radius < 246 - apex) & (np.abs(angle) < spread)
    return _Probe(((angle + np.pi / 2) / np.radians(0.4)).astype(int), radius - inner, seen)


def _linear(rng: Rng) -> _Probe:
    edge, bottom = int(rng.integers(8, 24)), int(rng.integers(232, 250))
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    seen = (rows > 8) & (rows < bottom) & (columns >= edge) & (columns < SIZE[1] - edge)
    return _Probe(columns, rows - 8.0, seen)


def _vein(rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    points = curve(
        (rng.uniform(80, 140), rng.uniform(70, 120)),
        rng.uniform(0, 2 * np.pi),
        rng.uniform(40, 80),
        rng.normal(0, 0.3, 4),
    )
    return points, np.linspace(rng.uniform(4, 6.5), 2, len(points))


def _breath(rng: Rng) -> list[tuple[float, float]]:
    phase = rng.uniform(0, 2 * np.pi)
    return [(4 * np.sin(phase + 0.9 * n), 6 * np.cos(phase + 0.7 * n)) for n in range(FRAMES)]


def _find(rng: Rng, name: str, within: str | None, room: np.ndarray, radius: float, ripple: float = 0.06) -> list[_Find]:
    stretch = rng.uniform(0.85, 1.15)
    place = spot(rng, room, radius * 1.2 + 2)
    if place is None:
        return []
    return [_Find(name, outline(rng, ripple), place, (radius * stretch, radius / stretch), rng.uniform(-1, FRAMES),
                  rng.uniform(4.5, 9), within)]  # fmt: skip


def _speckle(rng: Rng) -> np.ndarray:
    """Log-compressed fully developed speckle, coarser across the beams than along them; larger than a frame."""
    sigma = 0.7, rng.uniform(1.1, 1.6)
    magnitude = np.hypot(grain(rng, _SHEET, sigma), grain(rng, _SHEET, sigma))
    return np.log(magnitude + 0.05).astype(np.float32)


def _with_finds(echo: np.ndarray, probe: _Probe, finds: list[tuple[str, np.ndarray]]) -> np.ndarray:
    for name, mask in finds:
        if mask.any():
            tone, after = _ECHO[name]
            echo = np.where(mask, tone, echo)
            echo = echo * (1 + (after - 1) * blurred(probe.behind(mask), 1.0))
    return echo


def _frame(rng: Rng, echo: np.ndarray, probe: _Probe, texture: np.ndarray) -> np.ndarray:
    """What the screen shows: speckle, loss with depth, black outside the field of view, a depth scale beside it."""
    fading = 1.08 - 0.35 * (probe.depth / 256).clip(0, 1)
    grey = blurred(echo, 0.8) * fading + 0.085 * window(rng, texture, SIZE) * (0.35 + echo)
    frame = np.where(probe.seen, (grey * 255).clip(4, 255), 0).astype(np.uint8)
    frame[10:250:24, -4:] = 200
    return frame
