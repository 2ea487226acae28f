"""The upper abdomen, drawn once and shown as CT or as T2-weighted MR. Knows no files.

The greys of the organs are drawn from the same ranges in both, but a find has the opposite grey: a cyst is dark in CT and
bright in MR, a tumour of the liver or a stone of the kidney is bright in CT and dark in MR. So a round spot can be named
only by who knows the modality. (Contrasts are as clear as in a good textbook, not as subtle as in a patient.)
"""

from dataclasses import dataclass

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
    outline,
    spot,
    strokes,
    window,
    without_specks,
)

SIZE = (256, 256)
_SHEET = (384, 384)
ORGANS = ("liver", "spleen", "right kidney", "left kidney", "aorta", "vertebra")
LUNGS = ("right lung", "left lung")
FINDINGS = (
    "liver cyst", "liver tumor", "right kidney cyst", "left kidney cyst", "right kidney stone", "left kidney stone",
)  # fmt: skip
PRESENT = 0.65  # of the exams show a given kind of finding; a kidney finding is on either side
_HU_OF_BLACK, _HU_OF_WHITE = -160.0, 240.0  # greys 0 and 1: the soft-tissue window
_ORDER = (
    "gallbladder", "bowel", "stomach", "gas", "liver", "vessel", "spleen", "right kidney", "left kidney", "sinus",
    "cava", "aorta", "vertebra", "canal", "rib",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Body:
    """Where the trunk is: the pixel of a point given in half-widths (x to the patient's left, y back)."""

    centre: tuple[float, float]
    half: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        return self.centre[0] + y * self.half, self.centre[1] + x * self.half

    def radii(self, x: float, y: float) -> tuple[float, float]:
        return y * self.half, x * self.half


def ct(exam: Exam, rng: Rng) -> Scene:
    """One CT of the upper abdomen and the bases of the lungs: int16 HU (K, 256, 256)."""
    slices = int(rng.integers(12, 16))
    tissue = _anatomy(rng, np.linspace(0.1, 1.0, slices) + rng.uniform(-0.04, 0.04), air=True)
    things = [*_organs(tissue, (*ORGANS, *LUNGS)), *_findings(rng, tissue), *_nodules(rng, tissue)]
    enhanced = bool(rng.random() < 0.65)
    grey = _greys(rng, enhanced, cyst=-1)
    values = np.empty((slices, *SIZE), np.int16)
    tissue_grain, noise = 0.018 * grain(rng, _SHEET, 1.2), rng.uniform(0.02, 0.03) * grain(rng, _SHEET, 0.5)
    for k in range(slices):
        plane = _painted(rng, tissue, things, grey, k)
        lung = (tissue["right lung"][k] | tissue["left lung"][k]) & (plane == 0)
        plane += (plane > 0) * window(rng, tissue_grain, SIZE)
        plane = np.where(plane == 0, -2.1, plane)
        plane[lung] = np.where(window(rng, tissue_grain, SIZE)[lung] > 0.04, 0.4, -1.7)  # vessels cut across
        plane = blurred(plane, 0.6) + window(rng, noise, SIZE)
        values[k] = np.rint(_HU_OF_BLACK + plane * (_HU_OF_WHITE - _HU_OF_BLACK)).clip(-1024, 3071)
    pixel = round(float(rng.uniform(1.25, 1.5)), 3)
    searched = (*ORGANS, *LUNGS, *FINDINGS, "lung nodule")
    return Scene("ct", "abdomen", exam, values, (float(rng.choice([7.5, 8.0, 10.0])), pixel, pixel), tuple(things),
                 searched, {"phase": "portal venous" if enhanced else "none"})  # fmt: skip


def mr(exam: Exam, rng: Rng) -> Scene:
    """One T2-weighted fat-suppressed MR of the upper abdomen: int16 (K, 256, 256), arbitrary scale, biased field."""
    slices = int(rng.integers(10, 13))
    tissue = _anatomy(rng, np.linspace(0.12, 0.72, slices) + rng.uniform(-0.04, 0.04), air=False)
    things = [*_organs(tissue, ORGANS), *_findings(rng, tissue)]
    grey = _greys(rng, bool(rng.random() < 0.65), cyst=1)
    bias, scale = np.exp(0.07 * field(rng, SIZE, 2)), rng.uniform(300, 1500)
    values = np.empty((slices, *SIZE), np.int16)
    tissue_grain, noise = 0.018 * grain(rng, _SHEET, 1.2), 0.022 * grain(rng, _SHEET)
    for k in range(slices):
        plane = _painted(rng, tissue, things, grey, k)
        plane = blurred(plane + (plane > 0) * window(rng, tissue_grain, SIZE), 0.6) * bias
        # Rician noise: the magnitude of a complex signal.
        values[k] = np.rint(scale * np.hypot(plane + window(rng, noise, SIZE), window(rng, noise, SIZE)))
    pixel = round(float(rng.uniform(1.25, 1.5)), 3)
    facts = {"sequence": "T2 FS"}
    return Scene("mr", "abdomen", exam, values, (float(rng.choice([6.0, 7.0, 8.0])), pixel, pixel), tuple(things),
                 (*ORGANS, *FINDINGS), facts)  # fmt: skip


def _greys(rng: Rng, enhanced: bool, cyst: int) -> dict[str, float]:
    """Grey of every tissue of one exam, 0 black and 1 white.

    Args:
        rng: Draws them.
        enhanced: Blood and kidneys are bright, by contrast medium or by their signal.
        cyst: 1 where cysts are brighter than their organ and solid finds darker, -1 the other way round.
    """
    low_high = {
        "fat": (0.13, 0.22), "muscle": (0.42, 0.55), "gallbladder": (0.3, 0.95), "liver": (0.5, 0.66), "canal": (0.3, 0.9),
        "bowel": (0.35, 0.7), "stomach": (0.3, 0.75), "vertebra": (0.6, 0.9), "rib": (0.6, 1.1), "lung nodule": (0.4, 0.6),
    }  # fmt: skip
    grey = {name: rng.uniform(low, high) for name, (low, high) in low_high.items()}
    grey |= {"gas": 0.0, "lung": 0.0, "sinus": grey["fat"]}
    grey["spleen"] = grey["liver"] + rng.uniform(-0.05, 0.12)
    grey["vessel"] = grey["liver"] + (0.12 if enhanced else -0.1)
    for name, bright, plain in (("kidney", 0.68, 0.55), ("aorta", 0.8, 0.48), ("cava", 0.74, 0.46)):
        grey[name] = (bright if enhanced else plain) + rng.uniform(-0.05, 0.05)
    for organ, solid, least in (("liver", "tumor", 0.22), ("kidney", "stone", 0.3)):
        for name, sign in ((f"{organ} cyst", cyst), (f"{organ} {solid}", -cyst)):
            grey[name] = max(0.05, grey[organ] + sign * rng.uniform(least, least + 0.1))
    return grey


def _anatomy(rng: Rng, heights: np.ndarray, air: bool) -> dict[str, np.ndarray]:
    """Tissues by name, bool (K, H, W); an organ holds what lies in it. Heights: 0 low kidneys, 1 dome of the liver."""
    half = SIZE[1] * rng.uniform(0.41, 0.48)
    body = _Body((SIZE[0] * rng.uniform(0.47, 0.51), SIZE[1] * rng.uniform(0.48, 0.52)), half)
    depth = rng.uniform(0.68, 0.76)
    skin, wall = outline(rng, 0.03), rng.uniform(0.86, 0.9)
    shapes = {name: outline(rng, 0.1) for name in ("liver", "lobe", "spleen", "right kidney", "left kidney", "stomach")}
    shapes |= {"gallbladder": outline(rng, 0.05), "vertebra": outline(rng, 0.05)}
    nudge = {name: rng.uniform(-0.035, 0.035, 2) for name in (*shapes, "aorta", "cava")}
    size = {name: rng.uniform(0.88, 1.14) for name in (*shapes, "aorta", "cava")}
    ribs = rng.uniform(0, np.pi, 2)
    loops = [(outline(rng, 0.2), *rng.uniform((-0.5, -0.5), (0.5, -0.05)), rng.uniform(0.08, 0.15)) for _ in range(5)]
    names = ("body", "muscle", "cavity", *_ORDER, *LUNGS)
    tissue = {name: np.zeros((len(heights), *SIZE), bool) for name in names}

    def draw(k: int, name: str, shape: Outline, place: tuple[float, float, float, float], rise: tuple[float, float]) -> None:
        """One organ in one slice: place is (x, y, radius x, radius y), rise its middle and half height."""
        inside = 1 - ((heights[k] - rise[0]) / rise[1]) ** 2
        if inside > 0.02:
            x, y, rx, ry = place
            dx, dy = nudge.get(name, (0, 0))
            scale = size.get(name, 1.0) * inside**0.4
            tissue[name][k] |= shape.mask(SIZE, body.at(x + dx, y + dy), body.radii(rx * scale, ry * scale))

    tissue["body"][:] = skin.mask(SIZE, body.centre, body.radii(1, depth))
    tissue["muscle"][:] = skin.mask(SIZE, body.at(0, 0.01), body.radii(0.95, depth * 0.95))
    tissue["cavity"][:] = skin.mask(SIZE, body.at(0, 0), body.radii(wall, depth * wall * 0.97))
    for k, height in enumerate(heights):
        draw(k, "liver", shapes["liver"], (-0.4, -0.06, 0.42, 0.46), (0.72, 0.55))
        draw(k, "liver", shapes["lobe"], (-0.02, -0.3, 0.36, 0.2), (0.72, 0.36))
        draw(k, "spleen", shapes["spleen"], (0.6, 0.13, 0.2, 0.26), (0.66, 0.34))
        draw(k, "right kidney", shapes["right kidney"], (-0.42, 0.29, 0.185, 0.17), (0.22, 0.34))
        draw(k, "left kidney", shapes["left kidney"], (0.42, 0.29, 0.185, 0.17), (0.27, 0.34))
        draw(k, "stomach", shapes["stomach"], (0.36, -0.28, 0.24, 0.2), (0.75, 0.35))
        draw(k, "gallbladder", shapes["gallbladder"], (-0.25, -0.36, 0.1, 0.09), (0.36, 0.14))
        for shape, x, y, radius in loops if height < 0.5 else ():
            draw(k, "bowel", shape, (x + 0.3 * (height - 0.25), y, radius, radius), (0.1, 0.45))
        draw(k, "aorta", ROUND, (0.08, 0.15, 0.068, 0.068), (0.5, 2))
        draw(k, "cava", ROUND, (-0.13, 0.14, 0.075, 0.055), (0.5, 2))
        draw(k, "vertebra", shapes["vertebra"], (0, 0.36, 0.155, 0.125), (0.5, 2))
        draw(k, "vertebra", ROUND, (0, 0.52, 0.12, 0.09), (0.5, 2))
        draw(k, "canal", ROUND, tuple(np.add((0, 0.51, 0.055, 0.05), (*nudge["vertebra"], 0, 0))), (0.5, 2))
        for angle in np.arange(9) * np.pi / 4.5 + ribs[0] + height * ribs[1]:
            place = (0.885 * np.cos(angle), 0.87 * depth * np.sin(angle), 0.05, 0.03)
            draw(k, "rib", ROUND, place, (0.5, 2))
        hilum = body.at(-0.2, 0)
        veins = [curve(hilum, rng.uniform(0.6, 1.7) * np.pi, 0.45 * body.half, rng.normal(0, 0.35, 4)) for _ in range(3)]
        tissue["vessel"][k] = strokes(SIZE, *((vein, np.linspace(4, 1.5, len(vein))) for vein in veins)) > 0.5
        _settle(tissue, k, body, height if air else 0.0)
    return tissue


def _settle(tissue: dict[str, np.ndarray], k: int, body: _Body, height: float) -> None:
    """Lets no two organs of one slice overlap, hollows the stomach and fills what is left of the chest with lung."""
    cavity, vessels = tissue["cavity"][k], grown(tissue["aorta"][k] | tissue["cava"][k], 1)
    tissue["vertebra"][k] &= ~vessels
    tissue["canal"][k] &= tissue["vertebra"][k]
    fixed = grown(tissue["vertebra"][k], 1) | vessels
    tissue["rib"][k] &= tissue["body"][k] & ~fixed
    taken = fixed
    for name in ("right kidney", "left kidney", "liver", "spleen", "gallbladder", "stomach", "bowel"):
        # What is left of an organ squeezed in between others is no organ.
        tissue[name][k] = without_specks(tissue[name][k] & cavity & ~taken, 120)
        taken = taken | tissue[name][k]
    for name in ("right kidney", "left kidney"):
        if (area := tissue[name][k].sum()) > 400:  # the fat of the renal sinus, towards the middle
            rows, columns = np.nonzero(tissue[name][k])
            shift = (0.28 if name.startswith("right") else -0.28) * np.sqrt(area)
            tissue["sinus"][k] |= ROUND.mask(SIZE, (rows.mean(), columns.mean() + shift), (0.13 * area**0.5, 0.16 * area**0.5))
    tissue["sinus"][k] &= tissue["right kidney"][k] | tissue["left kidney"][k]
    tissue["vessel"][k] &= tissue["liver"][k]
    if tissue["stomach"][k].any():
        top = np.flatnonzero(tissue["stomach"][k].any(axis=1))[0] + int(0.13 * body.half)
        tissue["gas"][k, :top] = tissue["stomach"][k, :top]
    if height > 0.7:
        free = cavity & ~grown(taken, 1)
        middle = round(body.centre[1])
        free[:, middle - int(0.1 * body.half) : middle + int(0.1 * body.half)] = False
        tissue["right lung"][k, :, :middle], tissue["left lung"][k, :, middle:] = free[:, :middle], free[:, middle:]
        for name in LUNGS:
            tissue[name][k] = without_specks(tissue[name][k], 150)


def _thing(name: str, mask: np.ndarray, within: str | None = None) -> Thing:
    side, _, label = name.partition(" ")
    return Thing(label, mask, side, within) if side in ("left", "right") else Thing(name, mask, None, within)


def _organs(tissue: dict[str, np.ndarray], names: tuple[str, ...]) -> list[Thing]:
    return [_thing(name, tissue[name]) for name in names if tissue[name].any()]


def _findings(rng: Rng, tissue: dict[str, np.ndarray]) -> list[Thing]:
    """Round bodies in liver and kidneys: 0 to 2 cysts and tumours of the liver, cysts and stones of either kidney."""
    found: list[Thing] = []
    taken = tissue["sinus"].copy()
    for label, radii in (("liver cyst", (6.0, 13.0)), ("liver tumor", (6.0, 13.0))):
        for _ in range(int(rng.integers(1, 3)) if rng.random() < PRESENT else 0):
            _add(rng, found, _thing(label, tissue["liver"], "liver"), taken, rng.uniform(*radii))
    taken = np.zeros_like(taken)
    for label, radii in (("kidney cyst", (5.5, 8.0)), ("kidney stone", (5.0, 6.5))):
        for side in ("right", "left"):
            if rng.random() < PRESENT:
                organ = f"{side} kidney"
                _add(rng, found, _thing(f"{side} {label}", tissue[organ], organ), taken, rng.uniform(*radii))
    return found


def _nodules(rng: Rng, tissue: dict[str, np.ndarray]) -> list[Thing]:
    found: list[Thing] = []
    taken = np.zeros_like(tissue["body"])
    for _ in range(int(rng.integers(1, 4)) if rng.random() < PRESENT + 0.1 else 0):
        organ = LUNGS[int(rng.integers(2))]
        _add(rng, found, _thing("lung nodule", tissue[organ], organ), taken, rng.uniform(5.5, 9.5))
    return found


def _add(rng: Rng, found: list[Thing], wanted: Thing, taken: np.ndarray, radius: float) -> None:
    """Puts one body of about ``radius`` px into ``wanted.mask`` over 2 to 4 slices, clear of what is taken."""
    organ = wanted.mask
    levels = np.flatnonzero(organ.any(axis=(1, 2)))
    shape, stretch = outline(rng, 0.06, 3), rng.uniform(0.9, 1.1)
    for k in rng.permutation(levels):
        place = spot(rng, organ[k] & ~grown(taken[k], 3), radius * 1.15 + 1)
        if place is None:
            continue
        mask = np.zeros_like(organ)
        for slices in ((k,), range(k + 1, k + 3), range(k - 1, k - 3, -1)):
            for level in slices:
                if not 0 <= level < len(organ):
                    break
                scale = radius * (1 - ((level - k) / 3) ** 2) ** 0.25
                cut = shape.mask(SIZE, place, (scale * stretch, scale / stretch))
                if scale < 4.7 or (cut & (~organ[level] | grown(taken[level], 3))).any():
                    break  # it neither leaves its organ, nor touches another, nor ends as a speck
                mask[level] = cut
        taken |= mask
        found.append(Thing(wanted.label, mask, wanted.side, wanted.within))
        return


def _painted(rng: Rng, tissue: dict[str, np.ndarray], things: list[Thing], grey: dict[str, float], k: int) -> np.ndarray:
    """Slice ``k`` in even greys, float32 (H, W), with the slow unevenness that living tissue has; air is 0."""
    plane = np.zeros(SIZE, np.float32)
    for name, tone in (("body", "fat"), ("muscle", "muscle"), ("cavity", "fat")):
        plane[tissue[name][k]] = grey[tone]
    for name in (*_ORDER, *LUNGS):
        plane[tissue[name][k]] = grey[name.removeprefix("right ").removeprefix("left ")]
    plane += 0.02 * field(rng, SIZE, 9) * (plane > 0)
    for thing in things:
        if thing.within:
            plane[thing.mask[k]] = grey[thing.label]
    return plane
