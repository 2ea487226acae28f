"""Cases by hand for the tests of figures, comparisons and pages."""

import numpy as np

from medglip.evaluate.cases import Case

LIVER, SPLEEN, LEFT, RIGHT = "abdomen.liver", "abdomen.spleen", "abdomen.kidney@left", "abdomen.kidney@right"
BOX, OTHER, FAR = (4.0, 4, 24, 24), (30.0, 4, 50, 24), (4.0, 40, 20, 60)


def made(image="i0", patient="p0", concept=LIVER, boxes=((*BOX, 0.9),), truth=(BOX,), others=(), **more):
    """A case; ``boxes`` are (x0, y0, x1, y1, score) by falling score, ``others`` (concept, box)."""
    found = np.array(boxes, np.float32).reshape(-1, 5)
    source = more.pop("source", "scenes")
    return Case(**{
        "image": image, "patient": f"{source}/{patient}", "source": source, "modality": "ct", "level": "organ",
        "concept": concept, "phrase": concept, "size_wh": (64, 64), "spacing_xy_mm": None, "boxes": found[:, :4],
        "scores": found[:, 4], "presence": 0.9 if truth else 0.1, "spread": 0.2,
        "truth": np.array(truth, np.float32).reshape(-1, 4),
        "others": np.array([box for _, box in others], np.float32).reshape(-1, 4),
        "other_concepts": tuple(name for name, _ in others), **more,
    })  # fmt: skip


def hit_or_miss(hits, source="scenes", first=0):
    """One case a patient whose best box is right where ``hits`` says so: acc50 is the mean of ``hits``."""
    return [made(f"{source}{number}", f"p{number}", boxes=((*(BOX if hit else FAR), 0.9),), source=source)
            for number, hit in enumerate(hits, start=first)]  # fmt: skip


def mixed_cases(seed=0, patients=6, skill=1.5):
    """Two sources, two modalities, three concepts, shown and absent, of random quality."""
    rng, cases = np.random.default_rng(seed), []
    for number in range(patients):
        source, modality = (("scenes", "ct"), ("films", "xray"))[number % 2]
        for concept, level in ((LIVER, "organ"), (LEFT, "organ"), (f"{LIVER}.tumor", "finding")):
            shown = rng.random() < 0.6
            spots = np.array([BOX, OTHER, FAR])[rng.permutation(3)]
            scores = np.sort(rng.random(2))[::-1]
            near = rng.random() < 0.3 + 0.2 * skill
            boxes = tuple((*(BOX if near and place == 0 else spots[place]), scores[place]) for place in range(2))
            cases.append(made(f"{source}-{number}", f"p{number}", concept, boxes, (BOX,) if shown else (),
                              ((RIGHT, OTHER), (SPLEEN, FAR)), source=source, modality=modality, level=level,
                              presence=float(rng.random() * 0.5 + 0.5 * shown)))  # fmt: skip
    return cases
