"""Records for the tests of training: a dataset in memory of bright squares on grey, and records of any facts."""

import numpy as np

from medglip.records.labels import label_tree
from medglip.records.masks import rle_of_crop
from medglip.records.record import ImageRecord, Origin, Phrase, Region, Span, Text

TREE = label_tree()
LIVER, KIDNEY, TUMOR = "abdomen.liver", "abdomen.kidney", "abdomen.kidney.tumor"
CYST, STONE, SPLEEN = "abdomen.kidney.cyst", "abdomen.kidney.stone", "abdomen.spleen"
POOL = (
    LIVER,
    KIDNEY,
    TUMOR,
    CYST,
    STONE,
    SPLEEN,
    "abdomen.liver.tumor",
    "systemic.lesion",
    "thorax.lung",
    "thorax.breast.cyst",
)
CONCEPTS = (LIVER, f"{KIDNEY}@left", f"{KIDNEY}@right")


class Scenes:
    """``count`` images with what training reads of a dataset; ``rich`` ones have masks and a caption."""

    def __init__(
        self, count: int, split: str = "train", seed: int = 0, modality: str = "ct", rich: bool = False
    ) -> None:  # fmt: skip
        facts = {"exhaustive": list(CONCEPTS), "field": ["abdomen"]}
        self.manifest = {"parts": {"all": {"source": "scenes", "matrix": {modality: [facts]}}}}
        self.pixels: dict[str, np.ndarray] = {}
        self.rich = rich
        self.kept = [self._scene(number, split, np.random.default_rng((seed, number)), modality) for number in range(count)]

    def _scene(self, number, split, rng, modality):
        image = rng.integers(40, 70, (96, 96), dtype=np.uint8)
        regions = []
        for label, side, x0, level in ((LIVER, None, 6, 140), (KIDNEY, "right", 8, 230), (KIDNEY, "left", 60, 230)):
            if rng.random() < 0.7:
                x, y = x0 + int(rng.integers(0, 8)), (8 if label == LIVER else 56) + int(rng.integers(0, 8))
                width, height = (40, 30) if label == LIVER else (20, 24)
                image[y : y + height, x : x + width] = level
                size = (Phrase("24 mm kidney", "size"),) if label == KIDNEY and side == "left" else ()
                mask = rle_of_crop(np.ones((height, width)), (x, y), (96, 96)) if self.rich else None
                name = f"{number:016x}-{len(regions):03d}"
                box = (x, y, x + width, y + height)
                regions.append(Region(label, box, mask, laterality=side, phrases=size, id=name))
        here = {region.concept for region in regions}
        name = f"{number:016x}"
        self.pixels[name] = image
        origin = Origin("scenes", f"{number}.png", str(number))
        absent = tuple(concept for concept in CONCEPTS if concept not in here)
        return ImageRecord(
            name, "0" * 64, 96, 96, 1, 8, modality, origin, "CC0-1.0", body_region="abdomen", split=split,
            regions=tuple(regions), absent=absent, exhaustive=CONCEPTS, texts=self._texts(regions),
        )  # fmt: skip

    def _texts(self, regions):
        """A caption in which each region is a bright place."""
        if not self.rich or not regions:
            return ()
        words = [f"bright place {number}" for number in range(len(regions))]
        text = f"{', '.join(words)}."
        spans = (Span(text.index(word), text.index(word) + len(word), (r.id,)) for word, r in zip(words, regions, strict=True))
        return (Text(text, "caption", spans=tuple(spans)),)

    def records(self, split=None):
        return (record for record in self.kept if split in (None, record.split))

    def display(self, name):
        return self.pixels[name]


def record(regions=(), absent=(), exhaustive=(), texts=(), modality="ultrasound"):
    return ImageRecord(
        "0" * 16, "0" * 64, 96, 96, 1, 8, modality, Origin("made_up", "1.png", "1"), "MIT",
        regions=tuple(regions), absent=tuple(absent), exhaustive=tuple(exhaustive), texts=tuple(texts),
    )  # fmt: skip


def region(label, side=None, box=(10, 10, 40, 40), **more):
    return Region(label, box, laterality=side, **more)


def random_record(rng):
    """Any facts that a record admits, wider and narrower ones of one concept beside each other."""
    found = []
    for label in rng.choice(POOL, rng.integers(0, 5)):
        x, y = rng.integers(0, 60, 2)
        side = rng.choice([None, "left", "right", "bilateral"]) if TREE[str(label)].laterality else None
        words = (Phrase(f"{side or 'one'} {label} of {rng.integers(9)} mm", "size"),)
        found.append(region(str(label), side, (x, y, x + int(rng.integers(5, 36)), y + 30), phrases=words))
    shown = {one.concept for one in found}
    every = [f"{label}{at}" for label in POOL for at in (("", "@left", "@right") if TREE[label].laterality else ("",))]
    every.append("thorax.heart.left_ventricle")
    absent = [str(c) for c in rng.choice(every, 6, replace=False) if c not in shown]
    return record(found, absent, [str(c) for c in rng.choice(every, rng.integers(0, 8), replace=False)])
