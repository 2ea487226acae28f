"""Judges a model on the images of a split: every phrase whose truth is known is asked of every image.

Figures are means over labels, then over the sources that the labels come from, where nothing else is said. ``evaluate``
returns the headline figures of ``Tally.figures`` (``ap``, ``ap50``, ``ap75``, ``ar``, ``acc50``, ``acc50_micro``, ``r1``,
``r5``, ``r10``, ``miou``, ``found``, ``recall01``, ``centre``, ``absence_auroc``, ``false_positives_per_image``), and:

- ``random``: what ``acc50`` would be by guessing (``strata.chances``);
- ``images``, ``questions``: how many;
- ``score_threshold``, ``presence_threshold``: those that would have been best here; ``thresholds``: (score, presence) of single
  modalities;
- ``by_source``, ``by_modality``, ``by_level``, ``by_concept``: of each value the headline figures, ``random``, ``questions``;
- ``by_size``: ``mm`` and ``share``, strata of the size of what is there (``strata.by_size``);
- ``zero_shot``: ``labels``, ``sources`` and ``modalities``, each ``seen`` and ``unseen`` in training (``strata.zero_shot``);
- ``coco``: COCO's twelve figures, means over labels, a label of two sources being one (``boxes.coco_figures``);
- ``phrases``: ``zero``, ``one`` and ``many`` regions, means over phrases (``phrases.figures``);
- ``absence``, ``froc``, ``masks``, ``calibration``, ``laterality`` (``swap_*`` if asked for), ``hierarchy``, ``pointing``: the
  ``figures`` of those modules;
- ``about``, where a folder is written: what was judged on what (``medglip.evaluate.folders``).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medglip.errors import DatasetError, InputError
from medglip.evaluate import absence, calibration, froc, hierarchy, laterality, masks, phrases, pointing
from medglip.evaluate.absence import best_presence_threshold
from medglip.evaluate.averages import usual_thresholds
from medglip.evaluate.boxes import Found, best_score_threshold, coco_figures
from medglip.evaluate.cases import Case, ask
from medglip.evaluate.cases import known_phrases as known_phrases  # benchmarks import it from here
from medglip.evaluate.folders import about_of, name_of, plain, write_evaluation
from medglip.evaluate.strata import by_size, chances, zero_shot
from medglip.evaluate.tally import Tally
from medglip.model.checkpoints import CheckpointInfo
from medglip.model.dense import MedGLIP
from medglip.predict import Grounder
from medglip.records.labels import LabelTree, label_tree
from medglip.records.record import SPLITS, ImageRecord

Pairs = list[tuple[Any, ImageRecord]]

ALL = "all"
_GROUPS = ("source", "modality", "level", "concept")
# Questions of each kind, present and absent, from which thresholds of a single modality are taken.
_ENOUGH = 30
_DIGITS = 4


def evaluate(
    model: str | Path | Grounder,
    datasets: Any,
    split: str = "test",
    limit: int | None = None,
    batch: int = 8,
    progress: Callable[[int, int], None] | None = None,
    out: str | Path | None = None,
    swap: int = 0,
) -> dict[str, Any]:
    """Figures of a model on a split.

    Args:
        model: A checkpoint folder, or a grounder.
        datasets: One opened dataset or several; labels, sources and modalities that the model does not know are asked too.
        split: Whose images: ``train``, ``val``, ``test``, or ``all``, which is every image.
        limit: At most so many images, spread evenly over them.
        batch: Images at once.
        progress: Called as ``progress(done, total)`` after each batch.
        out: Folder to write ``figures.json`` and ``cases.parquet`` into (``medglip.evaluate.folders``).
        swap: Ask so many of the images again, each phrase with a side alone, and with its sides swapped.

    Returns:
        The headline figures and all others, under the keys that the head of this module tells. None where undefined; figures
        have four digits after the point.

    Raises:
        InputError: there is no such split, or ``limit`` is below 1.
        DatasetError: a dataset has no image of the split, or none has an image with a known phrase.
    """
    grounder = model if isinstance(model, Grounder) else Grounder.load(model)
    tree = label_tree()
    pairs = _chosen(_several(datasets), split, limit, tree)
    cases = _answered(grounder, pairs, batch, tree, progress)
    info = getattr(grounder, "info", None)  # a peer in a comparison has none
    figures = figures_of(cases, info, tree) | {"images": len(pairs)}
    if swap:
        figures["laterality"] |= laterality.swap_test(grounder, _spread(pairs, swap), tree)
    if out is not None:
        asked = {"checkpoint": None if isinstance(model, Grounder) else str(model), "split": split, "limit": limit}
        counts = [(data, sum(one is data for one, _ in pairs)) for data in _several(datasets)]
        figures["about"] = plain(about_of(grounder, counts, asked))
        write_evaluation(out, figures, cases)
    return figures


def figures_of(cases: Sequence[Case], info: CheckpointInfo | None, tree: LabelTree) -> dict[str, Any]:
    """The figures of ``evaluate`` that cases alone tell: all but ``images`` and ``about``.

    Args:
        cases: Of any images; one at least.
        info: What the checkpoint says of itself; None where there is none.
        tree: The label tree.
    """
    shown_above = usual_thresholds if info is None else info.thresholds_of
    tally, chance = Tally(cases, shown_above), chances(cases)

    def group(part: Tally) -> dict[str, Any]:
        return {**part.figures(), "random": part.macro(chance[part.places]), "questions": len(part.cases)}

    found = {
        **group(tally), **_thresholds(tally), "thresholds": _thresholds_by_modality(tally),
        **{f"by_{name}": {value: group(part) for value, part in tally.by(name).items()} for name in _GROUPS},
        "by_size": by_size(tally, chance),
        "zero_shot": {} if info is None else zero_shot(tally, info, tree),
        "coco": coco_figures(_by_concept(cases)),
        "phrases": phrases.figures(cases, shown_above),
        "absence": absence.figures(cases, shown_above),
        "froc": froc.figures(cases),
        "masks": masks.figures(cases),
        "calibration": calibration.figures(cases),
        "laterality": laterality.figures(cases, shown_above),
        "hierarchy": hierarchy.figures(cases, shown_above),
        "pointing": pointing.figures(cases),
    }  # fmt: skip
    rounded: dict[str, Any] = _rounded(found)
    return rounded


def validator(datasets: Any, split: str = "val", limit: int | None = 64) -> Callable[[MedGLIP, CheckpointInfo], dict[str, Any]]:
    """A judge for ``train(validate=...)``: mean AP50 of a part of a split chooses the best checkpoint.

    Args:
        datasets: One opened dataset or several; those without images of the split are passed over.
        split: As in ``evaluate``.
        limit: At most so many images; None for all.

    Returns:
        A function of model and checkpoint information to ``score`` (AP50, 0 where undefined), ``ap50``, ``acc50``,
        ``absence_auroc``, ``score_threshold``, ``presence_threshold``, ``thresholds``, and ``errors``: source to concept to
        1 - AP50, of the labels that are shown.
    """

    def judge(model: MedGLIP, info: CheckpointInfo) -> dict[str, Any]:
        grounder, tree = Grounder(model, info, str(next(model.parameters()).device)), label_tree()
        several = [data for data in _several(datasets) if next(iter(_records(data, split)), None) is not None]
        tally = Tally(_answered(grounder, _chosen(several, split, limit, tree), 8, tree), info.thresholds_of)
        figures = tally.figures()
        errors: dict[str, dict[str, float]] = {}
        for (source, concept), label in tally.labels().items():
            if label["ap50"] is not None:
                errors.setdefault(source, {})[concept] = 1 - label["ap50"]
        kept = {name: figures[name] for name in ("ap50", "acc50", "absence_auroc")}
        found = {"score": figures["ap50"] or 0.0, **kept, **_thresholds(tally)}
        rounded: dict[str, Any] = _rounded({**found, "thresholds": _thresholds_by_modality(tally), "errors": errors})
        return rounded

    return judge


def _several(datasets: Any) -> list[Any]:
    return list(datasets) if isinstance(datasets, Sequence) else [datasets]


def _records(data: Any, split: str) -> Any:
    """The images of a split, or all of them."""
    if split not in (*SPLITS, ALL):
        raise InputError(f"Split: found {split!r}; allowed: {', '.join((*SPLITS, ALL))}.")
    return data.records(None if split == ALL else split)


def _chosen(several: Sequence[Any], split: str, limit: int | None, tree: LabelTree) -> Pairs:
    """The images to ask about."""
    if limit is not None and limit < 1:
        raise InputError(f"Limit of images: found {limit!r}; allowed: 1 or more, or None for all.")
    pairs: Pairs = []
    for data in several:
        found = list(_records(data, split))
        if not found:
            counts = Counter(record.split for record in data.records(None))
            there = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items())) or "no image at all"
            raise DatasetError(
                f"Dataset {name_of(data)!r} has no image of split {split!r}; it has {there}; choose one of them, or {ALL!r}."
            )
        pairs += [(data, record) for record in found if known_phrases(record, tree)]
    if not pairs:
        raise DatasetError(f"No image of split {split!r} has a known phrase; choose another split or dataset.")
    return _spread(pairs, limit)


def _spread(pairs: Pairs, limit: int | None) -> Pairs:
    """At most so many of them, spread evenly."""
    if limit is None or len(pairs) <= limit:
        return pairs
    return [pairs[place] for place in np.linspace(0, len(pairs) - 1, limit).astype(int)]


def _answered(
    grounder: Grounder, pairs: Pairs, batch: int, tree: LabelTree, progress: Callable[[int, int], None] | None = None
) -> list[Case]:
    """All cases of the images."""
    cases: list[Case] = []
    for start in range(0, len(pairs), batch):
        cases += ask(grounder, pairs[start : start + batch], tree)
        if progress:
            progress(min(start + batch, len(pairs)), len(pairs))
    return cases


def _by_concept(cases: Sequence[Case]) -> dict[str, list[Found]]:
    labels: dict[str, list[Found]] = {}
    for case in cases:
        labels.setdefault(case.concept, []).append(Found(case.boxes, case.scores, case.truth))
    return labels


def _thresholds_by_modality(tally: Tally) -> dict[str, tuple[float, float]]:
    """Least score and least presence for each modality in which both kinds of questions were asked often enough."""
    found = {}
    for modality, part in tally.by("modality").items():
        shown = sum(case.shown for case in part.cases)
        if min(shown, len(part.cases) - shown) >= _ENOUGH:
            one = _thresholds(part)
            found[modality] = (one["score_threshold"], one["presence_threshold"])
    return found


def _thresholds(tally: Tally) -> dict[str, float]:
    """The thresholds that suit these cases best."""
    right = tally.right_boxes()
    scores = np.concatenate([case.scores[: len(one)] for case, one in zip(tally.cases, right, strict=True)])
    presence = np.array([case.presence for case in tally.cases])
    truth = np.array([case.shown for case in tally.cases])
    total = sum(len(case.truth) for case in tally.cases)
    return {
        "score_threshold": round(best_score_threshold(scores, np.concatenate(right), total), _DIGITS),
        "presence_threshold": round(best_presence_threshold(presence, truth), _DIGITS),
    }


def _rounded(value: Any) -> Any:
    """The same with four digits after the point."""
    if isinstance(value, Mapping):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_rounded(one) for one in value)
    return round(float(value), _DIGITS) if isinstance(value, float | np.floating) else value
