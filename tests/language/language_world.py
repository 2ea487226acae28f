"""A small world of truth records, and a grounder that sees it through noise: what the language tests work on."""

import random
from dataclasses import replace

import numpy as np

from medglip.language.observe import observation_of_record
from medglip.predict import Answer
from medglip.records import ImageRecord, Keys, Origin, Region, identified, label_tree

AXIAL = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
LIVER, SPLEEN, KIDNEY = "abdomen.liver", "abdomen.spleen", "abdomen.kidney"
KIDNEY_TUMOR, LIVER_LESION = "abdomen.kidney.tumor", "abdomen.liver.lesion"
LUNG, NODULE, EFFUSION = "thorax.lung", "thorax.lung.nodule", "thorax.pleura.effusion"


def region(label, box, side=None, **more) -> Region:
    return Region(label=label, box_xyxy=tuple(map(float, box)), laterality=side, **more)


def record(regions=(), absent=(), modality="ct", image_id="image", split="train", **more) -> ImageRecord:
    facts = {
        "exhaustive": tuple({r.concept for r in regions} | set(absent)),
        "affine_px_to_mm": AXIAL,
        "spacing_mm": (1.0, 1.0),
    }
    made = ImageRecord(
        id=image_id, sha256="0" * 64, width=128, height=128, channels=1, bits=8, modality=modality, licence="CC0-1.0",
        origin=Origin("world", "file", "case"), split=split, keys=Keys(patient=image_id), regions=tuple(regions),
        absent=tuple(absent), **{**facts, **more},
    )  # fmt: skip
    return identified(made)


def _box(rng, centre, size):
    w, h = (size * rng.uniform(0.8, 1.25) for _ in range(2))
    x, y = (c + rng.uniform(-5, 5) for c in centre)
    return max(0, x - w / 2), max(0, y - h / 2), min(128, x + w / 2), min(128, y + h / 2)


def _inside(rng, outer, size):
    x = rng.uniform(outer[0], outer[2] - size)
    y = rng.uniform(outer[1], outer[3] - size)
    return x, y, x + size, y + size


def _abdomen(rng, image_id, split):
    places = {
        (LIVER, None): ((35, 55), 50),
        (SPLEEN, None): ((100, 55), 28),
        (KIDNEY, "right"): ((45, 95), 22),
        (KIDNEY, "left"): ((88, 95), 22),
    }
    regions, absent = [], []
    for (label, side), (centre, size) in places.items():
        if rng.random() < 0.75:
            regions.append(region(label, _box(rng, centre, size), side, id=f"{image_id}-{label}-{side}"))
        else:
            absent.append(f"{label}@{side}" if side else label)
    for label, host in ((KIDNEY_TUMOR, KIDNEY), (LIVER_LESION, LIVER)):
        hosts = [r for r in regions if r.label == host]
        chosen = rng.choice(hosts) if hosts and rng.random() < 0.6 else None
        sides = ("left", "right") if label == KIDNEY_TUMOR else (None,)
        for side in sides:
            if chosen is None or chosen.laterality != side:
                absent.append(f"{label}@{side}" if side else label)
        for _ in range(rng.choice((1, 1, 2, 3)) if chosen else 0):
            regions.append(region(label, _inside(rng, chosen.box_xyxy, 7), chosen.laterality, parents=(chosen.id,)))
    return record(regions, absent, "ct", image_id, split)


def _chest(rng, image_id, split):
    lungs = [region(LUNG, _box(rng, (x, 60), 45), side, id=f"{image_id}-{side}") for x, side in ((35, "right"), (93, "left"))]
    regions, absent = list(lungs), []
    for label, chance, most, size in ((NODULE, 0.6, 4, 8), (EFFUSION, 0.5, 1, 18)):
        count = rng.randint(1, most) if rng.random() < chance else 0
        for _ in range(count):
            host = rng.choice(lungs)
            regions.append(region(label, _inside(rng, host.box_xyxy, size), host.laterality, parents=(host.id,)))
        absent += [
            f"{label}@{s}" for s in ("left", "right") if not any(r.label == label and r.laterality == s for r in regions)
        ]
    return record(regions, absent, "xray", image_id, split, affine_px_to_mm=None, spacing_mm=None, body_region="thorax")


def world(images=120, seed=0) -> list[ImageRecord]:
    """Records of two modalities; every fifth patient is for validation, every fifth for the test."""
    rng = random.Random(seed)
    splits = ("train", "train", "train", "val", "test")
    makers = (_abdomen, _chest)
    return [makers[n % 2](rng, f"{seed:08x}{n:08x}", splits[(n // 2) % 5]) for n in range(images)]


def noisy(truth: ImageRecord, seed=0, miss=0.1, extra=0.1):
    """What a fair grounder might say of a record: shifted boxes, misses, false alarms, soft presences."""
    rng = np.random.default_rng([seed, int(truth.id, 16) % 2**32])
    seen = observation_of_record(truth)
    regions, presence = [], {}
    for concept, there in seen.presence.items():
        hit = there and rng.random() > miss
        presence[concept] = float(np.clip(rng.normal(0.85 if hit else 0.12, 0.08), 0.01, 0.99))
        mine = [r for r in truth.regions if r.concept == concept] if hit else []
        for true in mine:
            x0, y0, x1, y1 = np.asarray(true.box_xyxy) + rng.normal(0, 0.6, 4)
            box = max(x0, 0), max(y0, 0), max(x1, x0 + 1, 1), max(y1, y0 + 1, 1)
            regions.append(replace(true, id="", box_xyxy=tuple(map(float, box)), parents=(), mask=None, provenance="predicted",
                                   score=float(np.clip(rng.normal(0.7, 0.1), 0.3, 0.99))))  # fmt: skip
        if rng.random() < extra:
            x, y = rng.uniform(5, 100, 2)
            label, side = label_tree().split(concept)
            regions.append(
                region(label, (x, y, x + 12, y + 12), side, score=float(rng.uniform(0.05, 0.3)), provenance="predicted")
            )
    regions.sort(key=lambda r: -r.score)
    named = tuple(replace(r, id=f"R{n}") for n, r in enumerate(regions, start=1))
    return replace(seen, regions=named, presence=presence)


class Text:
    """Words as fixed random vectors."""

    width = 32

    def tokenize(self, texts):
        import torch

        rows = [text.lower().replace("?", " ?").split() for text in texts]
        ids = torch.tensor([[sum(map(ord, word)) * 31 % 997 for word in row] for row in rows])
        return ids, torch.ones_like(ids, dtype=torch.bool), torch.zeros(*ids.shape, 2, dtype=torch.long)

    def parameters(self):
        return iter(())

    def __call__(self, ids, is_word):
        import torch

        table = torch.randn(997, self.width, generator=torch.Generator().manual_seed(0))
        return table[ids]


class Grounder:
    """Finds one box a phrase in the middle of the image, with the presence that ``chances`` says."""

    def __init__(self, chances=None, score=0.8):
        from types import SimpleNamespace

        self.model = SimpleNamespace(text_encoder=SimpleNamespace(text=Text()))
        self.chances, self.score = chances or {}, score

    def answer(self, images, phrases, modalities):
        out = []
        for image, asked in zip(images, phrases, strict=True):
            h, w = image.shape[:2]
            box = np.array([[w / 4, h / 4, w / 2, h / 2]], np.float32)
            presence = np.array([self.chances.get(phrase, 0.02) for phrase in asked], np.float32)
            boxes = np.repeat(box[None], len(asked), 0)
            scores = (self.score * presence)[:, None]
            features, words = np.zeros((len(asked), 1, 4), np.float32), np.zeros((len(asked), 4), np.float32)
            out.append(Answer(boxes, scores, presence, features, words, np.zeros(len(asked), np.float32), {}))
        return out
