"""A head in T1-weighted MR after contrast medium: ventricles, thalami and, in half of them, a tumour. Knows no files."""

import numpy as np

from medglip.phantoms.scene import Exam, Scene, Thing
from medglip.phantoms.shapes import (
    ROUND,
    Outline,
    Rng,
    blurred,
    field,
    grain,
    grown,
    outline,
    spot,
    whole,
    window,
    without_specks,
)

SIZE = (240, 240)
_SHEET = (360, 360)
ANATOMY = ("brain", "right lateral ventricle", "left lateral ventricle", "right thalamus", "left thalamus")
TUMOUR = ("brain tumor", "tumor core", "enhancing tumor core")
PRESENT = 0.65
_T1 = {"scalp": 0.95, "skull": 0.08, "fluid": 0.16, "grey": 0.46, "white": 0.66, "thalamus": 0.5, "oedema": 0.36,
       "enhancing": 1.05, "necrosis": 0.2, "vessel": 1.0}  # fmt: skip


def mr(exam: Exam, rng: Rng) -> Scene:
    """One head: int16 (K, 240, 240), arbitrary scale, biased field."""
    slices = int(rng.integers(9, 13))
    heights = np.linspace(0.26, 0.82, slices) + rng.uniform(-0.03, 0.03)
    tissue = _anatomy(rng, heights)
    things = [_thing(name, tissue[name]) for name in ANATOMY if tissue[name].any()]
    if rng.random() < PRESENT:
        things += _tumour(rng, tissue)
    scale, bias = rng.uniform(200, 2000), np.exp(0.13 * field(rng, SIZE, 2))
    tissue_grain, noise = 1 + 0.04 * grain(rng, _SHEET, 1.5), 0.02 * grain(rng, _SHEET)
    folds, grey = _folds(rng), {name: value + rng.normal(0, 0.015) for name, value in _T1.items()}
    values = np.empty((slices, *SIZE), np.int16)
    for k in range(slices):
        plane = _painted(rng, {name: mask[k] for name, mask in tissue.items()}, things, k, grey, window(rng, folds, SIZE))
        plane = blurred(plane * window(rng, tissue_grain, SIZE), 0.7) * bias
        values[k] = np.rint(scale * np.hypot(plane + window(rng, noise, SIZE), window(rng, noise, SIZE)))
    spacing = (float(rng.choice([5.0, 6.0, 7.0])), 0.9375, 0.9375)
    return Scene("mr", "brain", exam, values, spacing, tuple(things), (*ANATOMY, *TUMOUR), {"sequence": "T1 CE"})


def _thing(name: str, mask: np.ndarray, within: str | None = None) -> Thing:
    side, _, label = name.partition(" ")
    if side in ("left", "right"):
        return Thing(label, mask, side, "brain")
    return Thing(name, mask, None, within)


def _anatomy(rng: Rng, heights: np.ndarray) -> dict[str, np.ndarray]:
    """Tissues by name, bool (K, H, W). Heights: 0 the base of the skull, 1 the vertex."""
    long, wide = 240 * rng.uniform(0.39, 0.45), 240 * rng.uniform(0.31, 0.36)
    centre = (240 * rng.uniform(0.48, 0.52), 240 * rng.uniform(0.48, 0.52))
    head, spread, swell = outline(rng, 0.04), rng.uniform(0.85, 1.25), rng.uniform(0.85, 1.15)
    horn, lump = outline(rng, 0.08), outline(rng, 0.08)
    names = ("head", "skull", "inside", *ANATOMY, "right half", "left half", "falx")
    tissue = {name: np.zeros((len(heights), *SIZE), bool) for name in names}

    def put(k: int, name: str, shape: Outline, at: tuple[float, float], radii: tuple[float, float], turn: float = 0) -> None:
        place = centre[0] + at[0] * long, centre[1] + at[1] * wide
        tissue[name][k] |= shape.mask(SIZE, place, (radii[0] * long, radii[1] * wide), turn)

    for k, height in enumerate(heights):
        round_ = np.sqrt(max(0.1, 1 - ((height - 0.42) / 0.62) ** 2))  # the head narrows towards base and vertex
        put(k, "head", head, (0, 0), (round_, round_))
        put(k, "skull", head, (0, 0), (0.93 * round_, 0.92 * round_))
        put(k, "inside", head, (0, 0), (0.86 * round_, 0.84 * round_))
        put(k, "brain", head, (0, 0), (0.83 * round_, 0.81 * round_))
        open_ = 1 - ((height - 0.58) / 0.2) ** 2
        for name, sign in (("right", -1), ("left", 1)):
            if open_ > 0.1:
                slim = spread * 0.09 * open_**0.5
                put(k, f"{name} lateral ventricle", horn, (-0.16, sign * 0.17), (0.27, slim), -0.3 * sign)
                put(k, f"{name} lateral ventricle", horn, (0.22, sign * 0.25), (0.25, slim * 0.95), 0.42 * sign)
            if abs(height - 0.48) < 0.12:
                put(k, f"{name} thalamus", lump, (0.08, sign * 0.145), (0.145 * swell, 0.125 * swell), -0.35 * sign)
        middle = round(centre[1])
        for name, half in (("right", slice(None, middle - 1)), ("left", slice(middle + 1, None))):
            side = np.zeros(SIZE, bool)
            side[:, half] = True
            tissue[f"{name} thalamus"][k] &= side & tissue["brain"][k]
            ventricle = tissue[f"{name} lateral ventricle"][k] & side & tissue["brain"][k]
            tissue[f"{name} lateral ventricle"][k] = without_specks(ventricle & ~grown(tissue[f"{name} thalamus"][k], 1), 25)
            tissue[f"{name} half"][k] = tissue["brain"][k] & side
        tissue["falx"][k, :, middle - 1 : middle + 1] = tissue["inside"][k, :, middle - 1 : middle + 1]
        tissue["falx"][k] &= ~grown(tissue["right thalamus"][k] | tissue["left thalamus"][k], 2)
    return tissue


def _tumour(rng: Rng, tissue: dict[str, np.ndarray]) -> list[Thing]:
    """One tumour: oedema round a core, in the core necrosis within an enhancing rim; three nested things."""
    side = ("right", "left")[int(rng.integers(2))]
    deep = grown_all(tissue, (f"{side} lateral ventricle", f"{side} thalamus", "falx"))
    room = tissue[f"{side} half"] & ~deep
    radius = rng.uniform(15, 27)
    edge, core, rind = outline(rng, 0.16), outline(rng, 0.12), outline(rng, 0.12)
    share, hollow_share = rng.uniform(0.52, 0.74), rng.uniform(0.66, 0.8)
    lean = rng.uniform(0, 2 * np.pi)  # the rim is thick on this side and open on the other
    aside = 0.42 * radius * share * np.array([np.sin(lean), np.cos(lean)])
    offset = rng.uniform(-0.16, 0.16, 2) * radius
    masks = {name: np.zeros_like(room) for name in TUMOUR}
    for _ in range(12):
        k = int(rng.integers(1, len(room) - 1))
        place = spot(rng, room[k], min(radius * 0.75, 17))
        if place is not None:
            break
    else:
        return []
    inner = place + offset
    for level in range(max(0, k - 3), min(len(room), k + 4)):
        scale = radius * np.sqrt(1 - ((level - k) / 4) ** 2)
        body = whole(edge.mask(SIZE, place, (scale, scale)) & room[level])
        heart = whole(core.mask(SIZE, tuple(inner), (scale * share, scale * share)) & body)
        if scale * share < 6 or heart.sum() < 80:
            continue
        hollow = rind.mask(SIZE, tuple(inner + aside), (scale * share * hollow_share,) * 2) & heart
        masks["brain tumor"][level], masks["tumor core"][level] = body, heart
        masks["enhancing tumor core"][level] = heart & ~hollow
    if not masks["enhancing tumor core"].any():
        return []
    parents = ("brain", "brain tumor", "tumor core")
    return [Thing(name, masks[name], None, parent) for name, parent in zip(TUMOUR, parents, strict=True)]


def grown_all(tissue: dict[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray:
    """The named tissues together, 2 px wider, slice by slice."""
    together = np.logical_or.reduce([tissue[name] for name in names])
    return np.stack([grown(plane, 2) for plane in together])


def _folds(rng: Rng) -> np.ndarray:
    """How close to a sulcus each place is, larger than a slice: float32, the ridges of a random field."""
    waves = grain(rng, _SHEET, 5.0)
    return np.abs(waves)


def _painted(
    rng: Rng, tissue: dict[str, np.ndarray], things: list[Thing], k: int, grey: dict[str, float], folds: np.ndarray
) -> np.ndarray:
    """One slice in even greys, float32 (H, W)."""
    plane = np.full(SIZE, 0.0, np.float32)
    for name, tone in (("head", "scalp"), ("skull", "skull"), ("inside", "fluid"), ("brain", "grey")):
        plane[tissue[name]] = grey[tone]
    rows, columns = np.nonzero(tissue["brain"])
    middle, reach = (rows.mean(), columns.mean()), (np.ptp(rows) / 2, np.ptp(columns) / 2)
    deep = ROUND.mask(SIZE, middle, (0.78 * reach[0], 0.76 * reach[1])) | (folds > 0.75)
    core = ROUND.mask(SIZE, middle, (0.95 * reach[0], 0.94 * reach[1]))
    plane[tissue["brain"] & deep & core] = grey["white"]
    plane[tissue["brain"] & ~ROUND.mask(SIZE, middle, (0.84 * reach[0], 0.83 * reach[1])) & (folds < 0.14)] = grey["fluid"]
    plane[tissue["falx"]] = 0.5 * (grey["grey"] + grey["fluid"])
    for side in ("right", "left"):
        plane[tissue[f"{side} thalamus"]] = grey["thalamus"]
        plane[tissue[f"{side} lateral ventricle"]] = grey["fluid"]
    tones = {"brain tumor": "oedema", "tumor core": "necrosis", "enhancing tumor core": "enhancing"}
    for thing in things:
        if thing.label in tones:
            plane[thing.mask[k]] = grey[tones[thing.label]]
    return plane + 0.02 * field(rng, SIZE, 8) * tissue["brain"]
