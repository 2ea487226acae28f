"""The model card (Markdown) and the concept card (JSON) that come with weights: data, licences, figures, limits. Runs no model.

Every number in them was counted on the training images or measured on test images; where there is none, the card says so.
Source: Mitchell et al., Model Cards for Model Reporting (arXiv 1810.03993), section 4, for what a card tells.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medglip.curate.collections import Collection, source_verdict
from medglip.curate.grammar import load_source
from medglip.deliver.shipping import WEIGHTS
from medglip.evaluate.bootstrap import every_interval
from medglip.evaluate.tally import Tally
from medglip.model.checkpoints import CheckpointInfo
from medglip.records.labels import label_tree
from medglip.records.record import ImageRecord

MODEL_CARD, CONCEPT_CARD = "README.md", "concepts.json"
# Figure -> what it is, in the order of the card.
_FIGURES = {
    "ap50": "average precision at IoU 0.5",
    "ap": "average precision, IoU 0.5 to 0.95",
    "acc50": "the best box of a phrase that is there has IoU 0.5 or more",
    "found": "that box lies on some marked region, whatever its name",
    "absence_auroc": "presence of images that show a label against images that do not",
    "false_positives_per_image": "boxes shown that are on nothing of that name, an image",
}
_PARTED = ("ap50", "acc50", "absence_auroc")
# Figure of answers and reports -> what it is.
_LANGUAGE = {
    "vqa_accuracy": "answers right, from the boxes found",
    "vqa_accuracy_with_truth_boxes": "from the marked boxes",
    "vqa_accuracy_without_boxes": "by a head that sees the question alone",
    "vqa_majority": "by the most frequent answer",
    "report_precision": "statements of reports that are true",
    "report_recall": "findings that reports tell",
}
SYNTHETIC = "phantom"  # the source of synthetic images
_WELL, _BADLY, _NAMED = 0.5, 0.1, 30  # AP50 from which a label is found, below which it is missed; labels named a source
_LIMITS = """- Trained on few images, of which the synthetic ones look like drawings. Images of other scanners, hospitals and
  populations than those above were not tested.
- Images are shrunk to {size} pixels: what is smaller than a few of those pixels is not found.
- It looks at one slice or frame at a time and knows no volume and no history.
- Scores and presence are not probabilities of disease. "Absent" means that the model found nothing, not that nothing is there.
- Asked for all that it knows, as answers and reports do, it may name structures of another part of the body than the one shown.
- Words that it was not trained on are read by a small text encoder and may give boxes that mean nothing.
- Some sources give no patient ids (of those above, see `known_defects` in `datasets/NAME.toml`): their test images may show
  patients of the training images, and their figures are too good then.
- Real sources differ from each other in more than their modality; some of what it knows may be the look of a source.
- Where the marks of a source were made by a model, its figures say how well that model is imitated."""
_NOT_FOR = """It is not a medical device. It was not tested in a clinic, and no authority has looked at it. Do not use it for
diagnosis, treatment, triage, screening, or any other decision about a patient, nor to tell who somebody is. It is for
research and teaching: to try medglip without training, and to begin a training of your own with."""
_OPEN_ONLY = """ Sources whose licence forbids commercial use or changed copies, binds them to its own terms, or was checked by
nobody are left out; that file says which of those at hand, and why."""


class Judged(NamedTuple):
    """How a model did on test images.

    Attributes:
        real: Figures of real images: those of ``Tally.figures``, ``images``, ``questions``, ``by_modality`` and ``by_source``,
            and what ``every_interval`` gives; empty where there are none.
        synthetic: The same of synthetic images.
        labels: (source, concept) to ``ap50`` and ``absence_auroc`` (``Tally.labels``).
        language: Figures of answers and reports (``train_vqa``); empty where there are none.
    """

    real: Mapping[str, Any]
    synthetic: Mapping[str, Any]
    labels: Mapping[tuple[str, str], Mapping[str, float | None]]
    language: Mapping[str, Any]


@dataclass
class Counted:
    """Training images and regions of one concept or source.

    Attributes:
        images: How many images show it.
        regions: How many regions.
        groups: Keys of patients, or of what else is never split apart.
        sources: Names of sources.
        licences: Licences of the images.
        modalities: Of the images.
    """

    images: int = 0
    regions: int = 0
    groups: set[str] = field(default_factory=set)
    sources: set[str] = field(default_factory=set)
    licences: set[str] = field(default_factory=set)
    modalities: set[str] = field(default_factory=set)

    def add(self, record: ImageRecord, regions: int) -> None:
        """Count an image with so many regions of it."""
        self.images += 1
        self.regions += regions
        self.groups.add(record.group or record.id)
        self.sources.add(record.origin.dataset)
        self.licences.add(record.licence)
        self.modalities.add(record.modality)


@dataclass(frozen=True)
class Counts:
    """What was trained on: of each concept, and of each source."""

    concepts: dict[str, Counted]
    sources: dict[str, Counted]


def count(records: Iterable[ImageRecord]) -> Counts:
    """Count the training images."""
    concepts: dict[str, Counted] = defaultdict(Counted)
    sources: dict[str, Counted] = defaultdict(Counted)
    for record in records:
        sources[record.origin.dataset].add(record, len(record.regions))
        for concept, number in Counter(region.concept for region in record.regions).items():
            concepts[concept].add(record, number)
    return Counts(dict(concepts), dict(sources))


def judged_apart(tally: Tally, language: Mapping[str, Any], draws: int = 1000, seed: int = 0) -> Judged:
    """The figures of a card, of real and of synthetic test images apart.

    Args:
        tally: Of the answers to all test questions.
        language: As in ``Judged``.
        draws: Of patients, for intervals.
        seed: Of the draws.
    """
    synthetic = np.array([case.source == SYNTHETIC for case in tally.cases], bool)
    figures = [_figures_of(tally.part(chosen), draws, seed) for chosen in (~synthetic, synthetic)]
    return Judged(figures[0], figures[1], tally.labels(), language)


def _figures_of(tally: Tally, draws: int, seed: int) -> dict[str, Any]:
    """The figures of some cases, their parts and intervals; none of none."""
    if not tally.cases:
        return {}
    return {
        **tally.figures(),
        **{f"by_{name}": {value: part.figures() | {"questions": len(part.cases)} for value, part in tally.by(name).items()}
           for name in ("modality", "source")},
        "images": len({case.image for case in tally.cases}), "questions": len(tally.cases),
        **every_interval(tally, draws, seed),
    }  # fmt: skip


def concept_card(
    info: CheckpointInfo, counts: Counts, labels: Mapping[tuple[str, str], Mapping[str, float | None]]
) -> dict[str, Any]:
    """What the model was trained to find, for a program to read.

    Args:
        info: Of the checkpoint; its ``concepts`` are listed.
        counts: From ``count``.
        labels: (source, concept) to ``ap50`` and ``absence_auroc`` on test images (``Tally.labels``).

    Returns:
        ``concepts``: of each ``concept``, ``label``, ``side``, ``name``, ``code`` (scheme, value, meaning; None where the tree
        has none), ``n_train`` (regions), ``n_train_images``, ``sources``, ``licences``, ``modalities``, ``ap50`` and
        ``presence_auroc``: means over the test sources, None where no test image could tell; ``ap50_by_source``.
    """
    return {"format": 1, "concepts": [_concept(concept, counts, labels) for concept in info.concepts]}


def model_card(
    name: str, info: CheckpointInfo, collection: Collection, counts: Counts, judged: Judged,
    about: Mapping[str, str], sha256: str,
) -> str:  # fmt: skip
    """The card for people.

    Args:
        name: Of the model.
        info: Of its checkpoint.
        collection: What it was trained on.
        counts: From ``count``.
        judged: How it did on test images.
        about: More facts, such as ``command``, ``machine`` and versions, name to text.
        sha256: Of the weight file.
    """
    parts = [
        f"# {name}",
        f"Finds in a medical image what a phrase names, or says that it is absent. It knows {len(info.concepts)} concepts in"
        f" {len(info.modalities)} modalities ({', '.join(info.modalities)}); `{CONCEPT_CARD}` lists them with their figures.",
        f'```bash\nmedglip ground {name} scan.png "left kidney; liver" --modality ct\n```',
        "## What it must not be used for",
        _NOT_FOR,
        "## Data, licences and credits",
        f"{collection.title} (`datasets/collections/{collection.name}.toml`), the patients in `train`."
        + (_OPEN_ONLY if collection.redistributable else ""),
        _table(("source", "images", "patients or groups", "regions", "licence"), _source_rows(counts)),
        "\n".join(_credits(counts)),
        "The image encoder began with the ImageNet weights of EfficientNet-Lite0 (Apache-2.0); the text encoder is"
        " all-MiniLM-L6-v2 (Apache-2.0), not changed by training and not in these weights.",
        *_figures("real", judged.real),
        *_figures("synthetic", judged.synthetic),
        "## Where it works and where it fails",
        _failures(info, judged, counts),
        *_language(judged.language),
        "## Limits",
        _LIMITS.format(size=info.config["image"]["size"]),
        "## Training",
        _table(("fact", "value"), _training_rows(info, about, sha256)),
    ]
    return "\n\n".join(parts) + "\n"


def write_cards(folder: Path, name: str, info: CheckpointInfo, collection: Collection, counts: Counts,
                judged: Judged, about: Mapping[str, str]) -> None:  # fmt: skip
    """Write both cards into the folder of shipped weights.

    Args:
        folder: With ``model.safetensors``.
        name: As in ``model_card``; ``info``, ``collection``, ``counts`` and ``about`` too.
        info: See there.
        collection: See there.
        counts: See there.
        judged: How it did on test images.
        about: See there.
    """
    with (folder / WEIGHTS).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    text = model_card(name, info, collection, counts, judged, about, sha256)
    (folder / MODEL_CARD).write_text(text, encoding="utf-8")
    card = concept_card(info, counts, judged.labels) | {"model": name, "weights_sha256": sha256}
    (folder / CONCEPT_CARD).write_text(json.dumps(card, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _concept(concept: str, counts: Counts, labels: Mapping[tuple[str, str], Mapping[str, float | None]]) -> dict[str, Any]:
    tree = label_tree()
    label, side = tree.split(concept)
    code = tree[label].codes.get("type")
    seen = counts.concepts.get(concept, Counted())
    mine = [values for (_, other), values in labels.items() if other == concept]
    return {
        "concept": concept, "label": label, "side": side, "name": tree.concept_name(concept),
        "code": dict(zip(("scheme", "value", "meaning"), code, strict=True)) if code else None,
        "n_train": seen.regions, "n_train_images": seen.images, "sources": sorted(seen.sources),
        "licences": sorted(seen.licences), "modalities": sorted(seen.modalities), "ap50": _mean(mine, "ap50"),
        "presence_auroc": _mean(mine, "absence_auroc"), "test_sources": sorted(s for s, other in labels if other == concept),
        "ap50_by_source": {source: round(value, 4) for (source, other), one in sorted(labels.items())
                           if other == concept and (value := one.get("ap50")) is not None},
    }  # fmt: skip


def _mean(several: Sequence[Mapping[str, float | None]], name: str) -> float | None:
    values = [value for one in several if (value := one.get(name)) is not None]
    return round(sum(values) / len(values), 4) if values else None


def _source_rows(counts: Counts) -> list[tuple[Any, ...]]:
    return [
        (name, one.images, len(one.groups), one.regions, "; ".join(sorted(one.licences)))
        for name, one in sorted(counts.sources.items())
    ]


def _credits(counts: Counts) -> list[str]:
    """A line a source: title, citation, page, and what else is known of its licence."""
    lines = []
    for name in sorted(counts.sources):
        source = load_source(name)
        said = [f"- **{name}**: {source.title}.", source.citation, f"<{source.page}>" if source.page else ""]
        verdict = source_verdict(source)
        said.append("" if verdict.allowed else f"Its licence {verdict.reason}.")
        said.append("The marks were made by a model." if source.annotation == "machine" else "")
        lines.append(" ".join(part for part in said if part))
    return lines


def _figures(kind: str, figures: Mapping[str, Any]) -> list[str]:
    """Tables of figures with intervals: of all images of a kind, of each modality and of each source."""
    if not figures:
        return [f"## Figures on {kind} images", f"No {kind} image was tested."]
    every = figures.get("intervals") or {}
    rows = [(f"`{name}`", _with_interval(figures.get(name), every.get(name)), meaning) for name, meaning in _FIGURES.items()]
    drawn = figures.get("bootstrap")
    said = (
        f"In brackets: {100 * drawn['level']:.0f} % intervals from {drawn['draws']} draws of whole patients; of few patients"
        " they are too narrow, and of one there are none."
        if drawn
        else "No intervals were worked out."
    )
    return [
        f"## Figures on {kind} images",
        f"On {figures['images']} {kind} images of patients that training never saw, {figures['questions']} questions. Means"
        f" over labels, then over sources. {said}",
        _table(("figure", "value", "is"), rows),
        _parted("modality", figures),
        *([_parted("source", figures)] if len(figures.get("by_source") or {}) > 1 else []),
    ]  # fmt: skip


def _failures(info: CheckpointInfo, judged: Judged, counts: Counts) -> str:
    """Which real labels are found and which are missed, and which modalities no real test image is of."""
    real = {key: ap50 for key, one in judged.labels.items() if key[0] != SYNTHETIC and (ap50 := one.get("ap50")) is not None}
    untested = sorted(set(info.modalities) - set(judged.real.get("by_modality") or {}))
    unlearned = sorted({source for source, _ in real} - set(counts.sources))
    lines = [
        f"Of {len(real)} labels of real test images, {sum(v >= _WELL for v in real.values())} have an AP50 of {_WELL} or more"
        f" and {sum(v < _BADLY for v in real.values())} one below {_BADLY}: it misses them.",
        *([f"No real test image is of {', '.join(untested)}: figures there are of drawings alone."] if untested else []),
        *([f"No training image is of {', '.join(unlearned)}."] if unlearned else []),
    ]
    tree, rows = label_tree(), []
    for source in sorted({source for source, _ in real}):
        mine = sorted((value, tree.concept_name(concept)) for (name, concept), value in real.items() if name == source)
        found = [f"{name} {value:.2f}" for value, name in reversed(mine) if value >= _WELL]
        missed = [name for value, name in mine if value < _BADLY]
        rows.append((source, len(mine), _few(found), _few(missed)))
    heads = ("source", "labels", f"found, with AP50 ({_WELL} or more)", f"missed (AP50 below {_BADLY})")
    return "\n\n".join([" ".join(lines), _table(heads, rows)])


def _few(names: Sequence[str]) -> str:
    """Names in a cell; how many more there are where they are many."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more or "none"


def _language(figures: Mapping[str, Any]) -> list[str]:
    """How good answers and reports are; nothing where it is not known."""
    rows = [(f"`{name}`", f"{figures[name]:.3f}", meaning) for name, meaning in _LANGUAGE.items() if name in figures]
    said = (
        f"On {figures.get('vqa_questions', {}).get('test', 0)} questions made of templates about test images, most of them"
        " synthetic, and on the reports of these images."
    )
    return ["## Answers and reports", said, _table(("figure", "value", "is"), rows)] if rows else []


def _parted(name: str, figures: Mapping[str, Any]) -> str:
    """A row a modality or source."""
    by, ends = figures.get(f"by_{name}") or {}, figures.get(f"intervals_by_{name}") or {}
    rows = [
        (value, one.get("questions", "not known"),
         *(_with_interval(one.get(figure), (ends.get(value) or {}).get(figure)) for figure in _PARTED))
        for value, one in sorted(by.items())
    ]  # fmt: skip
    return _table((name, "questions", *_PARTED), rows)


def _with_interval(value: float | None, ends: Sequence[float] | None) -> str:
    if value is None:
        return "not known"
    return f"{value:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else f"{value:.3f}"


def _training_rows(info: CheckpointInfo, about: Mapping[str, str], sha256: str) -> list[tuple[str, Any]]:
    trained = {key: value for key, value in info.trained.items() if isinstance(value, int | float | str)}
    rows = [(key, f"`{value}`" if key == "command" else value) for key, value in {**about, **trained}.items()]
    size, encoder, seed = info.config["image"]["size"], info.config["image"]["encoder"], info.config["train"]["seed"]
    return [*rows, ("seed", seed), ("image encoder", f"{encoder}, {size} pixels"), ("SHA-256 of the weights", f"`{sha256}`")]


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |" for line in lines)
