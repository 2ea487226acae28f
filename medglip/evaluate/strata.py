"""Figures apart by size, beside random guessing, and by what the checkpoint saw in training. Knows cases and tallies only."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from medglip.evaluate.boxes import areas
from medglip.evaluate.cases import Case
from medglip.evaluate.phrases import NAMES
from medglip.evaluate.tally import Tally
from medglip.model.checkpoints import CheckpointInfo
from medglip.records.labels import LabelTree

# Upper ends, which belong to the next stratum: equivalent diameter in mm, share of the image in per cent.
SIZES_MM = (5.0, 10.0, 20.0, 50.0)
SHARES = (0.1, 1.0, 5.0, 20.0)
UNKNOWN = "unknown"
_STEPS = 64


def names_of(edges: Sequence[float]) -> tuple[str, ...]:
    """What to call the strata between edges.

    >>> names_of((5, 10, 20))
    ('<5', '5-10', '10-20', '>20')
    """
    return (f"<{edges[0]:g}", *(f"{low:g}-{high:g}" for low, high in pairwise(edges)), f">{edges[-1]:g}")


def diameter_mm(case: Case) -> float:
    """Diameter in mm of the circle of the same area, mean area of the regions of a phrase; NaN without a spacing or a region.

    The area is the mask's; where only a box is known, that of the ellipse inside it.
    """
    if case.spacing_xy_mm is None or not case.shown:
        return float("nan")
    pixels = [np.pi / 4 * area if mask is None else mask.area
              for area, mask in zip(areas(case.truth), case.true_masks, strict=True)]  # fmt: skip
    return float(2 * np.sqrt(np.mean(pixels) * np.prod(case.spacing_xy_mm) / np.pi))


def share_of_image(case: Case) -> float:
    """Area of a true box in per cent of the image's, mean over the phrase's boxes; NaN where it is absent."""
    return float(100 * areas(case.truth).mean() / np.prod(case.size_wh)) if case.shown else float("nan")


def chance_of_overlap(truth: np.ndarray, guess_wh: np.ndarray, size_wh: np.ndarray, least: float = 0.5) -> np.ndarray:
    """How probably a box of a given size, put anywhere inside the image with equal probability, overlaps a true one.

    Boxes overlap by ``least`` where they share ``least / (1 + least)`` of the sum of their areas. For each column the rows that
    do are an interval, so its length is exact; over columns it is summed at 64 places.

    Args:
        truth: (M, 4) xyxy pixels, inside their images.
        guess_wh: (M, 2) width and height of the guess in pixels, at most the image's.
        size_wh: (M, 2) of the image.
        least: The least IoU.

    Returns:
        (M,) in [0, 1].
    """
    truth, low, high = truth.astype(float), truth[:, :2].astype(float), truth[:, 2:].astype(float)
    room = np.maximum(size_wh - guess_wh, 0.0)
    needed = least / (1 + least) * (areas(truth) + guess_wh.prod(axis=1))
    most = np.minimum(high - low, guess_wh)
    first, width, across = _places(low[:, 0], high[:, 0], guess_wh[:, 0], room[:, 0], needed / most[:, 1])
    x = first[:, None] + width[:, None] * (np.arange(_STEPS) + 0.5) / _STEPS
    shared = np.minimum(x + guess_wh[:, :1], high[:, :1]) - np.maximum(x, low[:, :1])
    rows = needed[:, None] / np.maximum(shared, 1e-9)
    _, _, down = _places(low[:, 1:], high[:, 1:], guess_wh[:, 1:], room[:, 1:], rows)
    return across * down.mean(axis=1)


def _places(
    low: np.ndarray, high: np.ndarray, guess: np.ndarray, room: np.ndarray, needed: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where a stretch of length ``guess`` from 0 to ``room`` shares ``needed`` with (low, high): first, length, probability."""
    possible = needed <= np.minimum(high - low, guess) + 1e-9
    first, last = np.maximum(low + needed - guess, 0.0), np.minimum(high - needed, room)
    length = np.where(possible, np.maximum(last - first, 0.0), 0.0)
    fixed = room < 1e-9  # there is one place only
    share = np.where(fixed, possible & (last >= first - 1e-9), length / np.where(fixed, 1.0, room))
    return first, length, share


def chances(cases: Sequence[Case]) -> np.ndarray:
    """(N,) how probably a random box would be right about each phrase; NaN where it is absent.

    The box is as wide and as high, as shares of the image, as the true boxes of that label in that source are on average, so
    it knows more than nothing: a model that finds no more than it has learned sizes. Of several true boxes the chances are
    added, at most to 1.
    """
    sizes: dict[tuple[str, str], list[np.ndarray]] = {}
    for case in cases:
        if case.shown:
            sizes.setdefault((case.source, case.concept), []).append((case.truth[:, 2:] - case.truth[:, :2]) / case.size_wh)
    means = {label: np.concatenate(some).astype(float).mean(axis=0) for label, some in sizes.items()}
    counts = np.array([len(case.truth) for case in cases], int)
    if not counts.any():
        return np.full(len(cases), np.nan)
    owner = np.repeat(np.arange(len(cases)), counts)
    images = np.array([case.size_wh for case in cases], float)
    guesses = np.array([means.get((case.source, case.concept), np.zeros(2)) for case in cases]) * images
    found = chance_of_overlap(np.concatenate([case.truth for case in cases]), guesses[owner], images[owner])
    return np.where(counts > 0, np.bincount(owner, found, len(cases)).clip(0, 1), np.nan)


def by_size(tally: Tally, chance: np.ndarray) -> dict[str, dict[str, dict[str, float | None]]]:
    """Phrases that are there, by the size of their regions, each stratum that has one; means over labels, then sources.

    Args:
        tally: Of all cases.
        chance: (N,) from ``chances``.

    Returns:
        ``mm``: strata of the equivalent diameter, ``unknown`` without a spacing; ``share``: of the share of the image in per
        cent. Each holds ``phrases``, ``phrases.NAMES`` and ``random``, what guessing would reach of ``acc50``.
    """
    shown = np.array([case.shown for case in tally.cases], bool)
    result: dict[str, dict[str, dict[str, float | None]]] = {}
    for kind, size, edges in (("mm", diameter_mm, SIZES_MM), ("share", share_of_image, SHARES)):
        sizes = np.array([size(case) for case in tally.cases], float)
        stratum = np.where(np.isnan(sizes), len(edges) + 1, np.searchsorted(edges, sizes, side="right"))
        result[kind] = {}
        for place, name in enumerate((*names_of(edges), UNKNOWN)):
            if not (chosen := (stratum == place) & shown).any():
                continue
            part = tally.part(chosen)
            result[kind][name] = {
                "phrases": int(chosen.sum()),
                **{figure: part.macro(part.values[:, column]) for column, figure in enumerate(NAMES)},
                "random": part.macro(chance[chosen]),
            }
    return result


def seen(concept: str, trained: Iterable[str], tree: LabelTree) -> bool:
    """Whether a concept was among the trained ones, or covers one of them: "lesion" is seen where "tumor" was.

    A narrower one than what was trained is not seen: of "left lung" nothing was learned from "lung".
    """
    return any(concept == other or (other.partition("@")[0] in tree and tree.covers(concept, other)) for other in trained)


def zero_shot(tally: Tally, info: CheckpointInfo, tree: LabelTree) -> dict[str, dict[str, dict[str, Any]]]:
    """Figures apart for what the checkpoint saw in training and what it did not.

    Returns:
        ``labels``, ``sources`` and ``modalities``, each with ``seen`` and ``unseen`` where there are such cases:
        ``Tally.figures`` and ``questions``. What the checkpoint does not say of its training is left out.
    """
    known = {concept: seen(concept, info.concepts, tree) for concept in {case.concept for case in tally.cases}}
    parts = {"labels": [known[case.concept] for case in tally.cases],
             "modalities": [case.modality in info.modalities for case in tally.cases]}  # fmt: skip
    if "sources" in info.trained:
        parts["sources"] = [case.source in info.trained["sources"] for case in tally.cases]
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for kind, flags in parts.items():
        is_seen = np.array(flags, bool)
        result[kind] = {name: {**tally.part(chosen).figures(), "questions": int(chosen.sum())}
                        for name, chosen in (("seen", is_seen), ("unseen", ~is_seen)) if chosen.any()}  # fmt: skip
    return result
