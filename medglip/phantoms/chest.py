"""A frontal chest radiograph with its everyday findings. Knows no files."""

import numpy as np

from medglip.phantoms.scene import Exam, Scene, Thing
from medglip.phantoms.shapes import ROUND, Rng, blurred, curve, field, grain, grown, outline, spot, strokes, whole

SIZE = (256, 256)
ANATOMY = ("right lung", "left lung", "heart")
FINDINGS = ("lung nodule", "consolidation", "right pleural effusion", "left pleural effusion", "right pneumothorax",
            "left pneumothorax")  # fmt: skip
HEALTHY = 0.15  # of the radiographs show no finding at all
_Masks = dict[str, np.ndarray]


def xray(exam: Exam, rng: Rng) -> Scene:
    """One radiograph, frontal: uint16 (256, 256), 12 bits, bone bright, the patient's right on the left."""
    tissue = _anatomy(rng)
    things = [Thing("lung", tissue["right lung"], "right"), Thing("lung", tissue["left lung"], "left"),
              Thing("heart", tissue["heart"])]  # fmt: skip
    found = [] if rng.random() < HEALTHY else _findings(rng, tissue)
    plane = _attenuation(rng, tissue)
    for thing in found:
        plane = _shaded(rng, plane, thing)
    plane = _equipment(rng, blurred(plane, 0.8), tissue)
    plane = plane * (1 + 0.05 * field(rng, SIZE, 2)) + 0.012 * grain(rng, SIZE, 0.6)
    low, gain = rng.uniform(150, 500), rng.uniform(2600, 3400)
    values = np.rint(low + gain * plane).clip(0, 4095).astype(np.uint16)
    pixel = round(float(rng.uniform(1.3, 1.6)), 3)
    view = ("PA", "AP")[int(rng.random() < 0.4)]
    return Scene("xray", "chest", exam, values, (pixel, pixel), (*things, *found), (*ANATOMY, *FINDINGS), {"view": view})


def _anatomy(rng: Rng) -> _Masks:
    half = 256 * rng.uniform(0.44, 0.49)
    cy, cx = 256 * rng.uniform(0.47, 0.5), 256 * rng.uniform(0.48, 0.52)

    def at(x: float, y: float) -> tuple[float, float]:
        return cy + y * half, cx + x * half

    tall, apex = rng.uniform(0.68, 0.78), outline(rng, 0.05)
    trunk = outline(rng, 0.03).mask(SIZE, at(0, 0.25), (1.25 * half, half))
    tissue = {"body": trunk | ROUND.mask(SIZE, at(0, -0.95), (0.35 * half, 0.3 * half))}
    size, lie = rng.uniform(0.88, 1.2), rng.uniform(0.08, 0.16)
    tissue["heart"] = outline(rng, 0.05).mask(SIZE, at(lie, 0.32), (0.3 * half * size, 0.33 * half * size), 0.25)
    tissue["heart"] |= ROUND.mask(SIZE, at(0.03, -0.02), (0.34 * half, 0.13 * half))
    below = np.zeros(SIZE, bool)
    for name, sign, lift in (("right lung", -1, 0.05), ("left lung", 1, 0.0)):
        lung = apex.mask(SIZE, at(sign * 0.43, -0.02), (tall * half, 0.36 * half), -0.1 * sign)
        dome = ROUND.mask(SIZE, at(sign * 0.46, 0.98 - lift + rng.uniform(-0.05, 0.05)), (0.5 * half, 0.62 * half))
        below |= dome
        half_side = np.zeros(SIZE, bool)
        middle = round(cx + sign * 0.12 * half)
        half_side[:, slice(None, middle) if sign < 0 else slice(middle, None)] = True
        tissue[name] = lung & half_side & ~dome & ~tissue["heart"]
    tissue["heart"] &= ~below
    tissue["below"] = below
    spine = np.zeros(SIZE, bool)
    spine[:, int(cx - 0.1 * half) : int(cx + 0.1 * half)] = True
    tissue["spine"] = spine & tissue["body"]
    tissue["frame"] = np.array([cy, cx, half])
    return tissue


def _attenuation(rng: Rng, tissue: _Masks) -> np.ndarray:
    """What the rays meet before any finding: float32 (H, W), about 0 (air) to 1 (bone)."""
    cy, cx, half = tissue["frame"]
    plane = np.where(tissue["body"], 0.58, 0.02).astype(np.float32) + 0.04 * field(rng, SIZE, 3) * tissue["body"]
    plane[tissue["below"]] += 0.22
    for name in ("right lung", "left lung"):
        lung = tissue[name]
        plane[lung] = 0.22
        plane += lung * 0.035 * grain(rng, SIZE, 2.0)
        root = cy - 0.02 * half, cx + (-0.16 if name == "right lung" else 0.16) * half
        outwards = np.pi if name == "right lung" else 0.0
        vessels = [curve(root, outwards + rng.uniform(-1.2, 1.2), rng.uniform(0.3, 0.55) * half, rng.normal(0, 0.3, 4))
                   for _ in range(9)]  # fmt: skip
        plane += lung * 0.11 * strokes(SIZE, *((vessel, np.linspace(4.5, 1, len(vessel))) for vessel in vessels))
    plane = blurred(plane, 1.6)
    plane[tissue["heart"]] = 0.68
    plane[tissue["spine"]] += 0.13
    bones = []
    for sign, start in ((-1, np.pi + 0.3), (1, -0.3)):
        for number in range(9):  # ribs: from the spine outwards and down
            root = cy + half * (-0.68 + 0.17 * number), cx + sign * 0.1 * half
            bones.append((curve(root, start, 0.85 * half, sign * np.linspace(0, 0.55, 5)), 7.0))
        bones.append((curve((cy - 0.62 * half, cx + sign * 0.08 * half), start, 0.6 * half, np.zeros(3)), 8.0))
    plane += 0.08 * strokes(SIZE, *bones) * tissue["body"]
    return plane


def _findings(rng: Rng, tissue: _Masks) -> list[Thing]:
    found: list[Thing] = []
    free = {side: tissue[f"{side} lung"].copy() for side in ("right", "left")}
    for label, share in (("pleural effusion", 0.35), ("pneumothorax", 0.4)):
        for side in ("right", "left"):
            if rng.random() < share:
                mask = (_effusion if label == "pleural effusion" else _pneumothorax)(rng, tissue[f"{side} lung"], side)
                mask = whole(mask & free[side])
                if mask.sum() > 150:
                    found.append(Thing(label, mask, side, f"{side} lung"))
                    free[side] &= ~grown(mask, 4)
    for label, radii, count in (("consolidation", (16, 26), 1), ("lung nodule", (6.0, 11.0), 3)):
        for _ in range(int(rng.integers(1, count + 1)) if rng.random() < 0.55 else 0):
            side = ("right", "left")[int(rng.integers(2))]
            radius = rng.uniform(*radii)
            place = spot(rng, free[side], radius * (1.2 if label == "lung nodule" else 0.6))
            if place is not None:
                ripple = 0.06 if label == "lung nodule" else 0.25
                mask = outline(rng, ripple).mask(SIZE, place, (radius, radius * rng.uniform(0.85, 1.15)))
                mask = whole(mask & free[side])
                found.append(Thing(label, mask, None, f"{side} lung"))
                free[side] &= ~grown(mask, 4)
    return found


def _effusion(rng: Rng, lung: np.ndarray, side: str) -> np.ndarray:
    """Fluid at the base of a lung, its upper border rising towards the chest wall."""
    rows, columns = np.flatnonzero(lung.any(axis=1)), np.flatnonzero(lung.any(axis=0))
    level = rows[-1] - rng.uniform(0.2, 0.45) * np.ptp(rows)
    across = np.linspace(0, 1, columns.size) if side == "left" else np.linspace(1, 0, columns.size)
    border = np.full(SIZE[1], level + 0.12 * np.ptp(rows))
    border[columns] -= 0.34 * np.ptp(rows) * across**2.5
    return lung & (np.arange(SIZE[0])[:, None] > border)


def _pneumothorax(rng: Rng, lung: np.ndarray, side: str) -> np.ndarray:
    """Air between the chest wall and a lung that has shrunk away from it, over the apex and the outer side."""
    rows, columns = np.flatnonzero(lung.any(axis=1)), np.flatnonzero(lung.any(axis=0))
    gap = rng.uniform(0.2, 0.36) * np.ptp(columns)
    shifted = np.roll(lung, (int(gap * 1.1), int(gap) * (-1 if side == "left" else 1)), axis=(0, 1))
    high = np.arange(SIZE[0])[:, None] < rows[0] + rng.uniform(0.5, 0.8) * np.ptp(rows)
    return lung & ~shifted & high


def _shaded(rng: Rng, plane: np.ndarray, thing: Thing) -> np.ndarray:
    cover = blurred(thing.mask, 1.0)
    if thing.label == "lung nodule":
        return plane + rng.uniform(0.2, 0.28) * cover
    if thing.label == "consolidation":
        return plane + blurred(thing.mask, 2.5) * (0.24 + 0.06 * grain(rng, SIZE, 2.5))
    if thing.label == "pleural effusion":
        return plane * (1 - cover) + cover * (0.66 + 0.02 * field(rng, SIZE, 4))
    edge = thing.mask & ~(blurred(thing.mask, 1.0) > 0.85)  # the visceral pleura as a thin line
    return plane * (1 - cover) + cover * (0.09 + 0.3 * np.maximum(plane - 0.25, 0)) + 0.07 * edge


def _equipment(rng: Rng, plane: np.ndarray, tissue: _Masks) -> np.ndarray:
    """Electrodes and leads on the skin, in half of the pictures: round like nodules, but hollow and sharp."""
    if rng.random() < 0.5:
        return plane
    for _ in range(int(rng.integers(1, 4))):
        place = spot(rng, tissue["body"], 12)
        if place is None:
            break
        disc = ROUND.mask(SIZE, place, (7, 7)) & ~ROUND.mask(SIZE, place, (4.5, 4.5)) | ROUND.mask(SIZE, place, (1.8, 1.8))
        lead = curve(place, rng.uniform(0, np.pi), 150, rng.normal(0, 0.5, 5))
        plane = np.maximum(plane, 0.92 * disc)
        plane = plane + 0.14 * strokes(SIZE, (lead, 1.0))
    return plane
