"""Random cases for the tests of evaluation."""

import numpy as np

from medglip.evaluate.cases import Case

HEART, LUNG, NODULE = "thorax.heart", "thorax.lung", "thorax.lung.nodule"
LEVELS = {HEART: "organ", LUNG: "organ", NODULE: "finding"}


def boxes_of(rng, count, side=200.0):
    low = rng.uniform(0, 0.7 * side, (count, 2))
    return np.hstack([low, low + rng.uniform(0.03 * side, 0.3 * side, (count, 2))]).astype(np.float32)


def case_of(rng, image="1", **given):
    """A case whose boxes are copies of the true ones, moved, and some noise."""
    truth = given.pop("truth", boxes_of(rng, int(rng.integers(0, 4)) if rng.random() < 0.7 else 0))
    copies = np.repeat(truth, int(rng.integers(0, 3)), axis=0)
    copies = copies + rng.normal(0, 4, copies.shape)
    boxes = np.vstack([copies, boxes_of(rng, int(rng.integers(0, 6)))]).astype(np.float32)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    scores = np.sort(rng.random(len(boxes)))[::-1].astype(np.float32)
    others = boxes_of(rng, int(rng.integers(0, 3)))
    concept = given.pop("concept", HEART)
    facts = {
        "patient": f"films/{image}", "source": "films", "modality": "xray", "level": LEVELS[concept.partition("@")[0]],
        "phrase": concept, "size_wh": (200, 200), "spacing_xy_mm": None,
        "presence": float(rng.integers(0, 9)) / 8, "spread": 0.5, "boxes": boxes[rng.permutation(len(boxes))],
        "scores": scores, "others": others, "other_concepts": (LUNG,) * len(others),
        "true_masks": (None,) * len(truth),
    }  # fmt: skip
    return Case(image=image, concept=concept, truth=truth, **facts | given)


def random_cases(seed, images=12):
    """Every concept asked of every image, of two sources and modalities."""
    rng = np.random.default_rng(seed)
    sources = {"films": "xray", "scans": "ct"}
    return [case_of(rng, f"{source}{number}", concept=concept, source=source, modality=modality, patient=f"{source}/{number}")
            for source, modality in sources.items() for number in range(images) for concept in LEVELS
            if rng.random() < 0.9]  # fmt: skip
