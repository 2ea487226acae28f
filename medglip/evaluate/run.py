"""Judges a model on the images of a split: every phrase whose truth is known is asked of every image.

A label counts for an image when the image shows it, or its record says that it does not; what is not known is not
asked. Figures are means over labels, then over the sources that the labels come from.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medglip.errors import DatasetError
from medglip.evaluate.absence import auroc, best_presence_threshold
from medglip.evaluate.boxes import average_precision, best_score_threshold, box_iou, match
from medglip.evaluate.phrases import best_box_hits
from medglip.model.checkpoints import CheckpointInfo
from medglip.model.dense import MedGLIP
from medglip.predict import Grounder
from medglip.records.labels import LabelTree, label_tree
from medglip.records.record import ImageRecord

# Questions of each kind, present and absent, from which thresholds of a single modality are taken.
_ENOUGH = 30


class Case(NamedTuple):
    """One phrase asked of one image, and what came of it."""

    source: str
    modality: str
    level: str
    concept: str
    scores: np.ndarray
    iou: np.ndarray
    iou_any: np.ndarray
    presence: float


def evaluate(
    model: str | Path | Grounder,
    datasets: Any,
    split: str = "test",
    limit: int | None = None,
    batch: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Figures of a model on a split.

    Args:
        model: A checkpoint folder, or a grounder.
        datasets: One opened dataset or several.
        split: Whose images.
        limit: At most so many images, spread evenly over the split.
        batch: Images at once.
        progress: Called as ``progress(done, total)`` after each batch.

    Returns:
        ``ap`` (IoU 0.5 to 0.95), ``ap50``, ``acc50`` (best box of a phrase that is there hits, mean over labels),
        ``acc50_micro`` (mean over questions), ``found`` (that box hits any marked box, named right or not),
        ``absence_auroc`` (within a label: images that show it against images that do not), each a mean over sources;
        the same for each ``by_source``, ``by_modality``, ``by_level``; ``images``, ``questions``;
        and the thresholds that would have been best here, of all and (``thresholds``) of single modalities. None where
        undefined.

    Raises:
        DatasetError: the split has no image with a known phrase.
    """
    grounder = model if isinstance(model, Grounder) else Grounder.load(model)
    tree = label_tree()
    several = datasets if isinstance(datasets, Sequence) else [datasets]
    pairs = [(data, record) for data in several for record in data.records(split) if known_phrases(record, tree)]
    if not pairs:
        raise DatasetError(f"No image of split {split!r} has a known phrase; choose another split or dataset.")
    if limit is not None and len(pairs) > limit:
        pairs = [pairs[place] for place in np.linspace(0, len(pairs) - 1, limit).astype(int)]
    cases: list[Case] = []
    for start in range(0, len(pairs), batch):
        cases += _ask(grounder, pairs[start : start + batch], tree)
        if progress:
            progress(min(start + batch, len(pairs)), len(pairs))
    return {**_figures(cases), "images": len(pairs), "questions": len(cases), **_thresholds(cases),
            "thresholds": _thresholds_by_modality(cases),
            **{f"by_{name}": {value: _figures([case for case in cases if getattr(case, name) == value])
                              for value in sorted({getattr(case, name) for case in cases})}
               for name in ("source", "modality", "level")}}  # fmt: skip


def validator(datasets: Any, split: str = "val", limit: int | None = 64) -> Callable[[MedGLIP, CheckpointInfo], dict[str, Any]]:
    """A judge for ``train(validate=...)``: mean AP50 of a part of a split chooses the best checkpoint."""

    def judge(model: MedGLIP, info: CheckpointInfo) -> dict[str, Any]:
        device = next(model.parameters()).device
        found = evaluate(Grounder(model, info, str(device)), datasets, split, limit)
        kept = ("ap50", "acc50", "absence_auroc", "score_threshold", "presence_threshold", "thresholds")
        return {"score": found["ap50"] or 0.0, **{name: found[name] for name in kept}}

    return judge


def known_phrases(record: ImageRecord, tree: LabelTree) -> dict[str, bool]:
    """Concepts whose truth is known for an image: True where it shows them.

    Of a concept that is marked wherever it is and that no region shows nothing is known where a region of a wider concept
    may be it: a lung without a side may be the left one.
    """
    shown = [region.concept for region in record.regions]
    known = dict.fromkeys(record.absent, False)
    for concept in record.exhaustive:
        if any(tree.covers(concept, other) for other in shown):
            known[concept] = True
        elif not any(tree.covers(other, concept) for other in shown):
            known[concept] = False
    return known | dict.fromkeys(shown, True)


def _ask(grounder: Grounder, pairs: Sequence[tuple[Any, ImageRecord]], tree: LabelTree) -> Iterator[Case]:
    """All cases of a batch of images."""
    asked = [list(known_phrases(record, tree)) for _, record in pairs]
    images = [data.display(record.id) for data, record in pairs]
    texts = [[tree.concept_name(concept) for concept in concepts] for concepts in asked]
    answers = grounder.answer(images, texts, [record.modality for _, record in pairs])
    for (_, record), concepts, answer in zip(pairs, asked, answers, strict=True):
        every = np.array([region.box_xyxy for region in record.regions], np.float32).reshape(-1, 4)
        for place, concept in enumerate(concepts):
            kept = answer.scores[place] > 0
            iou = box_iou(answer.boxes[place][kept], every)
            mine = [number for number, region in enumerate(record.regions) if tree.covers(concept, region.concept)]
            yield Case(record.origin.dataset, record.modality, tree[tree.split(concept)[0]].level, concept,
                       answer.scores[place][kept], iou[:, mine], iou, float(answer.presence[place]))  # fmt: skip


def _figures(cases: Sequence[Case]) -> dict[str, float | None]:
    """The figures of some cases."""
    labels: dict[tuple[str, str], list[Case]] = defaultdict(list)
    for case in cases:
        labels[case.source, case.concept].append(case)
    sums: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (source, _), some in labels.items():
        shown = [case for case in some if case.iou.shape[1]]
        precision = average_precision([case.scores for case in some], [case.iou for case in some])
        truth = np.array([case.iou.shape[1] > 0 for case in some])
        one = {
            "ap": precision.mean(),
            "ap50": precision[0],
            "absence_auroc": auroc(np.array([case.presence for case in some]), truth),
        }
        if shown:
            one["acc50"] = np.mean([best_box_hits(case.iou) for case in shown])
            one["found"] = np.mean([best_box_hits(case.iou_any) for case in shown])
        for name, value in one.items():
            if not np.isnan(value):
                sums[name][source].append(float(value))
    result: dict[str, float | None] = {}
    for name in ("ap", "ap50", "acc50", "found", "absence_auroc"):
        means = [float(np.mean(values)) for values in sums[name].values()]
        result[name] = round(float(np.mean(means)), 4) if means else None
    hits = [best_box_hits(case.iou) for case in cases if case.iou.shape[1]]
    result["acc50_micro"] = round(float(np.mean(hits)), 4) if hits else None
    return result


def _thresholds_by_modality(cases: Sequence[Case]) -> dict[str, tuple[float, float]]:
    """Least score and least presence for each modality in which both kinds of questions were asked often enough."""
    found = {}
    for modality in sorted({case.modality for case in cases}):
        some = [case for case in cases if case.modality == modality]
        shown = sum(case.iou.shape[1] > 0 for case in some)
        if min(shown, len(some) - shown) >= _ENOUGH:
            one = _thresholds(some)
            found[modality] = (one["score_threshold"], one["presence_threshold"])
    return found


def _thresholds(cases: Sequence[Case]) -> dict[str, float]:
    """The thresholds that suit these cases best."""
    scores = np.concatenate([case.scores for case in cases])
    right = np.concatenate([match(case.iou, 0.5) for case in cases])
    presence = np.array([case.presence for case in cases])
    truth = np.array([case.iou.shape[1] > 0 for case in cases])
    total = sum(case.iou.shape[1] for case in cases)
    return {
        "score_threshold": round(best_score_threshold(scores, right, total), 4),
        "presence_threshold": round(best_presence_threshold(presence, truth), 4),
    }
