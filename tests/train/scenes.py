"""A dataset in memory for the tests of training: bright squares and discs on grey, two labels with sides."""

import numpy as np

from medglip.records.record import ImageRecord, Origin, Phrase, Region

LIVER, KIDNEY, TUMOR = "abdomen.liver", "abdomen.kidney", "abdomen.kidney.tumor"
CONCEPTS = (LIVER, f"{KIDNEY}@left", f"{KIDNEY}@right")


class Scenes:
    """``count`` images with what training reads of a dataset."""

    def __init__(self, count: int, split: str = "train", seed: int = 0, modality: str = "ct") -> None:
        facts = {"exhaustive": list(CONCEPTS), "field": ["abdomen"]}
        self.manifest = {"parts": {"all": {"source": "scenes", "matrix": {modality: [facts]}}}}
        self.pixels: dict[str, np.ndarray] = {}
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
                regions.append(Region(label, (x, y, x + width, y + height), laterality=side, phrases=size))
        here = {region.concept for region in regions}
        name = f"{number:016x}"
        self.pixels[name] = image
        origin = Origin("scenes", f"{number}.png", str(number))
        absent = tuple(concept for concept in CONCEPTS if concept not in here)
        return ImageRecord(
            name, "0" * 64, 96, 96, 1, 8, modality, origin, "CC0-1.0", body_region="abdomen", split=split,
            regions=tuple(regions), absent=absent, exhaustive=CONCEPTS,
        )  # fmt: skip

    def records(self, split=None):
        return (record for record in self.kept if split in (None, record.split))

    def display(self, name):
        return self.pixels[name]
