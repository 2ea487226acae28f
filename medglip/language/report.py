"""Reports made from scenes by templates: each sentence cites the regions that it speaks of. Knows no pixels, no torch.

The sentences are templates and are called so. A positive sentence cites at least one region; a negative one is written
only for concepts that the scene lists as absent; what is between is said to be uncertain; nothing is called normal.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from medglip.language.bands import Bands
from medglip.language.grammar import is_are, is_counted, is_finding, listed, noun, sentence, subject
from medglip.language.observe import FOLDER, observe
from medglip.language.questions import MODALITY_NAMES
from medglip.language.scene import Finding, Scene
from medglip.language.view import ImageView
from medglip.language.vocabulary import Vocabulary
from medglip.language.wording import size_in_words, where_in_words
from medglip.records import LabelTree, label_tree

if TYPE_CHECKING:
    from medglip.predict import Grounder

SCHEMA = "medglip.report/1"
NOTICE = "Template report from model predictions, for research only; not a diagnosis."
Polarity = Literal["present", "absent", "uncertain", "note"]
# Uncertain concepts at or above this confidence are called possible, those below undecided.
_POSSIBLE = 0.3
# Absent anatomy named in a sentence at most; the rest is counted, and listed in the JSON.
_MOST_NAMED = 8


@dataclass(frozen=True, slots=True)
class Sentence:
    """One statement of a report.

    Attributes:
        text: English.
        region_ids: Regions of the scene that it speaks of; at least one where ``polarity`` is present.
        polarity: ``present``, ``absent``, ``uncertain``, or ``note`` (a remark about the picture).
        concepts: What it speaks of.
        confidence: The least confidence of its parts, in [0, 1]; of the statement, so high for a sure denial.
        section: ``findings`` or ``impression``.
        kind: How it came about; always ``template`` here.
    """

    text: str
    region_ids: tuple[str, ...] = ()
    polarity: Polarity = "note"
    concepts: tuple[str, ...] = ()
    confidence: float = 1.0
    section: Literal["findings", "impression"] = "findings"
    kind: str = "template"


@dataclass(frozen=True, slots=True)
class Report:
    """Sentences about one scene."""

    sentences: tuple[Sentence, ...]
    scene: Scene = field(repr=False)
    technique: str = ""

    def section(self, name: str) -> tuple[Sentence, ...]:
        """The sentences of ``findings`` or ``impression``."""
        return tuple(item for item in self.sentences if item.section == name)

    def to_text(self) -> str:
        """The report as plain text; numbers in brackets are those of the regions it cites."""
        numbers = {region_id: n for n, region_id in enumerate(self.cited(), start=1)}
        lines = ["Technique", f"  {self.technique}", "", "Findings"]
        lines += [f"  {item.text}{_brackets(item, numbers)}" for item in self.section("findings")]
        lines += ["", "Impression"]
        lines += [f"  {item.text}{_brackets(item, numbers)}" for item in self.section("impression")]
        return "\n".join([*lines, "", NOTICE])

    def cited(self) -> tuple[str, ...]:
        """Ids of all cited regions, in the order of first mention: the numbers on the picture."""
        return tuple(dict.fromkeys(region_id for item in self.sentences for region_id in item.region_ids))

    def to_json(self) -> dict[str, Any]:
        """Plain values with a stable schema (``medglip.report/1``); boxes in pixels of the stored image."""
        cited = set(self.cited())
        return {
            "schema": SCHEMA,
            "image_id": self.scene.image_id,
            "modality": self.scene.view.modality,
            "size_wh": [self.scene.view.width, self.scene.view.height],
            "technique": self.technique,
            "sentences": [asdict(item) for item in self.sentences],
            "regions": [
                {"id": r.id, "concept": r.concept, "box_xyxy": list(r.box_xyxy), "score": r.score}
                for r in self.scene.regions if r.id in cited
            ],
            "searched": [asdict(item) for item in self.scene.searched],
            "notice": NOTICE,
        }  # fmt: skip

    def to_radfact(self) -> list[dict[str, Any]]:
        """Findings as RadFact reads them: text, and boxes in [0, 1] of the image or None.

        Source: microsoft/RadFact, ``grounded_reporting_examples.json``.
        """
        width, height = self.scene.view.width, self.scene.view.height
        phrases = []
        for item in self.section("findings"):
            boxes = [self.scene.region(region_id).box_xyxy for region_id in item.region_ids]
            plain = [
                {"x_min": x0 / width, "y_min": y0 / height, "x_max": x1 / width, "y_max": y1 / height}
                for x0, y0, x1, y1 in boxes
            ]
            if item.polarity != "note":
                phrases.append({"text": item.text, "boxes": plain or None})
        return phrases


def report(scene: Scene, tree: LabelTree | None = None) -> Report:
    """The report of a scene, by body region from head to foot, findings before the anatomy that surrounds them."""
    tree = tree or label_tree()
    lines: list[Sentence] = []
    for region in _body_regions(scene, tree):
        here = [finding for finding in scene.findings if _region_of(finding.concept, tree) == region]
        lines += [_positive(finding, tree) for finding in here if finding.kind == "finding"]
        lines += _anatomy([finding for finding in here if finding.kind == "anatomy"], tree)
        lines += _uncertain([f for f in scene.uncertain if _region_of(f.concept, tree) == region], tree)
        lines += _negative(scene, region, tree)
    if not lines:
        lines.append(Sentence("Nothing that was searched for can be asserted or denied."))
    return Report(tuple(lines + _impression(scene, tree)), scene, _technique(scene))


def _positive(finding: Finding, tree: LabelTree) -> Sentence:
    text = f"{subject(finding.concept, tree, finding.count)} {is_are(finding.concept, tree, finding.count)} seen"
    text += where_in_words(finding, tree) + size_in_words(finding)
    return Sentence(sentence(text), finding.region_ids, "present", (finding.concept,), finding.confidence)


def _anatomy(findings: list[Finding], tree: LabelTree) -> list[Sentence]:
    if not findings:
        return []
    words = _anatomy_words({finding.concept: finding.count for finding in findings}, tree)
    many = len(words) > 1 or words[0].startswith("both ") or is_are(findings[0].concept, tree, findings[0].count) == "are"
    regions = tuple(region_id for finding in findings for region_id in finding.region_ids)
    confidence = min(finding.confidence for finding in findings)
    concepts = tuple(finding.concept for finding in findings)
    return [Sentence(sentence(f"{listed(words)} {'are' if many else 'is'} seen"), regions, "present", concepts, confidence)]


def _anatomy_words(counts: dict[str, int], tree: LabelTree, article: str = "both") -> list[str]:
    """Anatomical concepts as subjects, with 0 for "platelets"; left and right of one organ are "both kidneys"."""
    split = {concept: tree.split(concept) for concept in counts}
    pairs = {label for label, side in split.values() if side == "left" and (label, "right") in split.values()}
    words = []
    for concept, (label, _) in split.items():
        if is_counted(concept, tree) and counts[concept] == 0:
            words.append(noun(concept, tree, 0))
        elif label in pairs and not is_counted(concept, tree):
            words.append(f"{article} {tree[label].plural}")
        else:
            words.append(subject(concept, tree, counts[concept]))
    return list(dict.fromkeys(words))


def _uncertain(findings: list[Finding], tree: LabelTree) -> list[Sentence]:
    """A sentence for each possible finding, one for all undecided ones; undecided anatomy is left to the JSON."""
    lines, undecided = [], []
    for finding in findings:
        if finding.kind == "anatomy":
            continue
        if finding.confidence < _POSSIBLE:
            undecided.append(finding)
            continue
        text = f"possible {noun(finding.concept, tree)}; the model is uncertain"
        lines.append(Sentence(sentence(text), finding.region_ids, "uncertain", (finding.concept,), finding.confidence))
    if undecided:
        concepts = tuple(finding.concept for finding in undecided)
        doubts = listed([f"any {name}" for name in _joined_sides(list(concepts), tree)], "or")
        text = f"whether there is {doubts} could not be decided"
        least = min(finding.confidence for finding in undecided)
        lines.append(Sentence(sentence(text), (), "uncertain", concepts, least))
    return lines


def _negative(scene: Scene, region: str, tree: LabelTree) -> list[Sentence]:
    """Denials of one body region: one sentence for findings, one for anatomy outside the image."""
    here = {item.concept: item.probability for item in scene.absent if _region_of(item.concept, tree) == region}
    # "No effusion" already denies a left one.
    concepts = [c for c in here if not any(other != c and tree.covers(other, c) for other in here)]
    findings = [concept for concept in concepts if is_finding(concept, tree)]
    anatomy = [concept for concept in concepts if not is_finding(concept, tree)]
    lines = []
    if findings:
        words = _joined_sides(findings, tree)
        plural = len(words) == 1 and is_are(findings[0], tree) == "are"
        lines.append((f"no {listed(words, 'or')} {'are' if plural else 'is'} seen", findings))
    if anatomy:
        words = _anatomy_words(dict.fromkeys(anatomy, 0), tree, article="the")
        more = [f"{len(words) - _MOST_NAMED} other structures"] if len(words) > _MOST_NAMED + 1 else []
        shown = words[:_MOST_NAMED] + more if more else words
        lines.append((f"not seen in this image: {listed(shown)}", anatomy))
    return [
        Sentence(sentence(text), (), "absent", tuple(denied), round(min(1.0 - here[c] for c in denied), 4))
        for text, denied in lines
    ]  # fmt: skip


def _joined_sides(concepts: list[str], tree: LabelTree) -> list[str]:
    """Names of concepts; left and right of one label are one name without a side."""
    split = [tree.split(concept) for concept in concepts]
    both = {label for label, side in split if side == "left" and (label, "right") in split}
    return list(dict.fromkeys(tree[label].name if label in both else tree.name(label, side) for label, side in split))


def _impression(scene: Scene, tree: LabelTree) -> list[Sentence]:
    lines = []
    for finding in scene.findings:
        if finding.kind == "finding":
            text = sentence(subject(finding.concept, tree, finding.count) + where_in_words(finding, tree))
            lines.append(Sentence(text, finding.region_ids, "present", (finding.concept,), finding.confidence, "impression"))
    possible = [f for f in scene.uncertain if f.kind == "finding" and f.confidence >= _POSSIBLE]
    if possible:
        text = sentence(f"uncertain: {listed([noun(f.concept, tree) for f in possible])}")
        concepts = tuple(f.concept for f in possible)
        cited = tuple(region_id for f in possible for region_id in f.region_ids)
        lines.append(Sentence(text, cited, "uncertain", concepts, min(f.confidence for f in possible), "impression"))
    if not lines:
        denied = [item for item in scene.absent if is_finding(item.concept, tree)]
        text = "No finding is asserted; see above for what was searched for." if denied else "No finding was searched for."
        searched = any(is_finding(item.concept, tree) for item in scene.searched)
        text = "No finding is asserted." if searched and not denied else text
        lines.append(Sentence(text, section="impression"))
    return lines


def _technique(scene: Scene) -> str:
    view = scene.view
    name = MODALITY_NAMES.get(view.modality or "", "image of unknown modality")
    parts = [name, view.plane and f"{view.plane} plane", view.detail.get("sequence"), view.detail.get("view")]
    if view.spacing_mm is None:
        parts.append("pixel spacing unknown, so no sizes are given")
    elif view.spacing_source == "ImagerPixelSpacing":
        parts.append("sizes are at the detector, not corrected for magnification")
    return sentence(", ".join(filter(None, parts)))


def _body_regions(scene: Scene, tree: LabelTree) -> list[str]:
    """Body regions that the scene speaks of, from head to foot."""
    order = ("head_neck", "thorax", "abdomen", "pelvis", "musculoskeletal", "systemic")
    stated = [item.concept for item in (*scene.findings, *scene.uncertain)] + [item.concept for item in scene.absent]
    said = {_region_of(concept, tree) for concept in stated}
    return [region for region in order if region in said] + sorted(said.difference(order))


def _region_of(concept: str, tree: LabelTree) -> str:
    return tree.body_region(tree.split(concept)[0])


def _brackets(item: Sentence, numbers: dict[str, int]) -> str:
    return f" [{', '.join(str(numbers[region_id]) for region_id in item.region_ids)}]" if item.region_ids else ""


class Reporter:
    """Writes reports of images.

    Args:
        grounder: The model that looks at the image.
        vocabulary: What to search for.
        bands: When to assert, hedge and deny.

    Example:
        ``Reporter.load("run/best").report(pixels, modality="ct").to_text()``
    """

    def __init__(self, grounder: "Grounder", vocabulary: Vocabulary, bands: Bands) -> None:
        self.grounder, self.vocabulary, self.bands = grounder, vocabulary, bands

    @classmethod
    def load(cls, checkpoint: str | Path, grounder: "Grounder | None" = None) -> "Reporter":
        """From a checkpoint folder, or from the shipped model of that name (``lite``).

        Raises:
            ModelError: its language part is missing or damaged.
        """
        from medglip.model.shipped import checkpoint_folder  # brings torch

        folder = checkpoint_folder(checkpoint) / FOLDER
        vocabulary, bands = Vocabulary.load(folder), Bands.load(folder)
        if grounder is None:
            from medglip.predict import Grounder

            grounder = Grounder.load(checkpoint)
        return cls(grounder, vocabulary, bands)

    def scene(self, image: np.ndarray, modality: str | None = None, view: ImageView | None = None) -> Scene:
        """What the image shows; arguments as in ``report``."""
        view = view or ImageView(width=image.shape[1], height=image.shape[0], modality=modality)
        return observe(self.grounder, image, view, self.vocabulary).scene(self.bands)

    def report(self, image: np.ndarray, modality: str | None = None, view: ImageView | None = None) -> Report:
        """The report of an image.

        Args:
            image: (H, W) or (H, W, 3) uint8, windowed for display.
            modality: One of the record's modalities, or None where it is not known.
            view: Facts of the picture, where more than its modality is known; sizes need its spacing.

        Raises:
            InputError: an image or modality that the grounder refuses.
        """
        return report(self.scene(image, modality, view))
