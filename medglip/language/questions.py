"""Question-answer pairs made by templates from truth records alone. Knows no model; never invents a negative.

Every pair says ``kind="template"``. "No" and "0" come only from what the record was searched for; a question that the
record cannot answer gets "cannot tell". Pairs that could be answered without looking are thinned out: within one
question no answer is more frequent than the second most frequent one, and a question with a single answer is dropped.
"""

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

from medglip.language.grammar import is_counted, is_finding, is_plural_name, noun
from medglip.language.places import area_px
from medglip.language.scene import holder_of
from medglip.records import ImageRecord, LabelTree, Region, label_tree

CANNOT_TELL = "cannot tell"
TOPICS = ("presence", "side", "count", "where", "larger", "modality", "unanswerable")
MODALITY_NAMES = {
    "ct": "CT", "mr": "MR", "xray": "X-ray", "ultrasound": "ultrasound", "endoscopy": "endoscopy",
    "dermoscopy": "dermoscopy", "fundus": "fundus photography", "histopathology": "histopathology",
    "microscopy": "microscopy", "pet": "PET", "mammography": "mammography", "oct": "OCT", "other": "other",
}  # fmt: skip
# Surface forms; the last of each is kept for the test split, so that accuracy is not accuracy on known strings.
FORMS = {
    "presence": ("Is there any {name}?", "Does this image show any {name}?", "Can you see any {name} in this image?",
                 "Is any {name} visible here?"),
    "anatomy": ("Is the {name} in this image?", "Does this image show the {name}?", "Can you see the {name} here?",
                "Is the {name} visible?"),
    "side": ("On which side is {the}?", "Is {the} on the left or on the right?",
             "Which side of the patient is {the} on?"),
    "count": ("How many {many} are there?", "How many {many} does this image show?", "What is the number of {many}?"),
    "where": ("Which structure contains {the}?", "Where is {the} located?", "In which structure does {the} lie?"),
    "larger": ("Which is larger, {the} or {other}?", "Which one is bigger: {the} or {other}?",
               "Of {the} and {other}, which is the larger one?"),
    "compare": ("Is {the} larger than {other}?", "Is {the} bigger than {other} here?",
                "Does {the} take up more of the image than {other}?"),
    "modality": ("Which modality is this?", "What kind of image is this?", "How was this image acquired?"),
    "beyond": ("How old is the patient?", "Has it grown since the last examination?", "Which treatment is best?",
               "Is the patient in pain?", "What will the biopsy show?", "Which drug was given before?"),
}  # fmt: skip
# Areas must differ by this factor for a fair comparison.
_CLEARLY_LARGER = 1.2
_MOST = 4
# Share of the images that are asked for their modality, for something they do not know, for what no picture shows:
# easy questions, which would flatter the accuracy.
_SHARE_MODALITY, _SHARE_FOREIGN, _SHARE_BEYOND = 0.3, 0.6, 0.15


@dataclass(frozen=True, slots=True)
class QuestionAnswer:
    """One question about one image, its answer, and the regions that prove it.

    Attributes:
        id: Stable over runs: hash of image, question and answer.
        image_id: Id of the record.
        question: English.
        answer: One of a closed set: yes, no, left, right, both sides, 0-4, names, modalities, cannot tell.
        topic: One of ``TOPICS``.
        concepts: What it asks about, in the order of the question.
        evidence: Ids of the regions that answer it; empty for negatives.
        split: The record's own.
        kind: How the pair came about; always ``template`` here.
    """

    id: str
    image_id: str
    question: str
    answer: str
    topic: str
    concepts: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    split: str = "unassigned"
    kind: str = "template"

    def to_json(self) -> dict[str, object]:
        """Plain values for a line of JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Draft:
    """A question before its words are chosen. ``subject`` names what is balanced: the question without its form."""

    record: ImageRecord
    form: str
    topic: str
    answer: str
    subject: str
    words: dict[str, str]
    concepts: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()


def question_set(
    records: Iterable[ImageRecord], seed: int = 0, per_image: int = 8, tree: LabelTree | None = None
) -> tuple[QuestionAnswer, ...]:
    """Balanced questions over many records, in the order of the records.

    Args:
        records: Truth; regions need ids.
        seed: Chooses among equals; the same seed gives the same questions.
        per_image: At most so many a record.
        tree: The label tree.
    """
    tree = tree or label_tree()
    records = list(records)
    searched = sorted({concept for record in records for concept in _known(record)})
    by_split: dict[str, list[_Draft]] = defaultdict(list)
    for record in records:
        drafts = list(_drafts(record, searched, random.Random(f"{seed}:{record.id}"), tree))
        by_split[record.split].extend(drafts)
    kept: dict[str, list[_Draft]] = defaultdict(list)
    for split, drafts in sorted(by_split.items()):
        for draft in _balanced(drafts, random.Random(f"{seed}:{split}")):
            kept[draft.record.id].append(draft)
    return tuple(pair for record in records for pair in _worded(_varied(kept[record.id], per_image), seed))


def questions_of(record: ImageRecord, seed: int = 0, tree: LabelTree | None = None) -> tuple[QuestionAnswer, ...]:
    """All questions that one record answers (and those it cannot), neither balanced nor thinned out."""
    tree = tree or label_tree()
    rng = random.Random(f"{seed}:{record.id}")
    return tuple(_worded(list(_drafts(record, sorted(_known(record)), rng, tree)), seed))


def _drafts(record: ImageRecord, searched: Sequence[str], rng: random.Random, tree: LabelTree) -> Iterator[_Draft]:
    yield from _presence(record, tree)
    yield from _sides(record, tree)
    yield from _counts(record, tree)
    yield from _wheres(record, tree)
    yield from _sizes(record, rng, tree)
    if rng.random() < _SHARE_MODALITY:
        yield _Draft(record, "modality", "modality", MODALITY_NAMES[record.modality], "modality", {})
    yield from _unanswerable(record, searched, rng, tree)


def _presence(record: ImageRecord, tree: LabelTree) -> Iterator[_Draft]:
    for concept in sorted(_with_general(_known(record), tree)):
        shown = _showing(record, concept, tree)
        if shown or _is_absent(record, concept, tree):
            yield _asked(record, concept, "yes" if shown else "no", "presence", shown, tree)


def _asked(record: ImageRecord, concept: str, answer: str, topic: str, shown: Sequence[Region],
           tree: LabelTree) -> _Draft:  # fmt: skip
    label, side = tree.split(concept)
    # "The" is for anatomy that an image has once: not for nodules or vertebrae, nor for a kidney of either side.
    once = not is_finding(concept, tree) and not is_counted(concept, tree) and (side or not tree[label].laterality)
    words = {"name": noun(concept, tree)}
    form = "anatomy" if once else "presence"
    return _Draft(record, form, topic, answer, f"presence {concept}", words, (concept,), tuple(shown))


def _sides(record: ImageRecord, tree: LabelTree) -> Iterator[_Draft]:
    for label in sorted({region.label for region in record.regions if tree[region.label].laterality}):
        shown = [region for region in record.regions if region.label == label]
        sides = {region.laterality for region in shown}
        other = {"left": "right", "right": "left"}
        if not sides <= {"left", "right"} or is_plural_name(label, tree):
            continue
        # One side is the answer only where the other was looked for.
        if len(sides) == 1 and not _searched(record, f"{label}@{other[str(next(iter(sides)))]}", tree):
            continue
        answer = "both sides" if len(sides) == 2 else str(next(iter(sides)))
        words = {"the": f"the {tree[label].name}"}
        yield _Draft(record, "side", "side", answer, f"side {label}", words, (label,), tuple(shown))


def _counts(record: ImageRecord, tree: LabelTree) -> Iterator[_Draft]:
    for concept in sorted(_with_general(_known(record), tree)):
        shown = _showing(record, concept, tree)
        counted = _is_absent(record, concept, tree) if not shown else _searched(record, concept, tree)
        if is_counted(concept, tree) and not is_plural_name(concept, tree) and counted and len(shown) <= _MOST:
            if any("merged" in region.flags for region in shown):
                continue
            words = {"many": noun(concept, tree, 2)}
            yield _Draft(record, "count", "count", str(len(shown)), f"count {concept}", words, (concept,), tuple(shown))


def _wheres(record: ImageRecord, tree: LabelTree) -> Iterator[_Draft]:
    findings = Counter(region.label for region in record.regions if is_finding(region.concept, tree))
    for region in record.regions:
        holder = holder_of(region, record.regions, tree) if findings[region.label] == 1 else None
        if holder is not None:
            answer, words = tree.concept_name(holder.concept), {"the": f"the {noun(region.label, tree)}"}
            subject, shown = f"where {region.label}", (region, holder)
            yield _Draft(record, "where", "where", answer, subject, words, (region.label,), shown)


def _sizes(record: ImageRecord, rng: random.Random, tree: LabelTree) -> Iterator[_Draft]:
    counts = Counter(region.concept for region in record.regions)
    single = [r for r in record.regions if counts[r.concept] == 1 and not is_plural_name(r.concept, tree)]
    # A label is not compared with its own part, nor with its own whole.
    above = {label: tree.ancestors(label) for label in {region.label for region in single}}
    pairs = [(a, b) for a, b in combinations(single, 2) if a.label not in above[b.label] and b.label not in above[a.label]]
    for first, second in rng.sample(pairs, min(10, len(pairs))):
        a, b = (first, second) if rng.random() < 0.5 else (second, first)
        if max(area_px(a), area_px(b)) < _CLEARLY_LARGER * min(area_px(a), area_px(b)):
            continue
        larger = a if area_px(a) > area_px(b) else b
        words = {"the": f"the {noun(a.concept, tree)}", "other": f"the {noun(b.concept, tree)}"}
        pair = " ".join(sorted((a.concept, b.concept)))
        concepts = (a.concept, b.concept)
        if rng.random() < 0.5:
            answer = tree.concept_name(larger.concept)
            yield _Draft(record, "larger", "larger", answer, f"larger {pair}", words, concepts, (larger,))
        else:
            answer = "yes" if larger is a else "no"
            yield _Draft(record, "compare", "larger", answer, f"compare {concepts}", words, concepts, (a, b))


def _unanswerable(record: ImageRecord, searched: Sequence[str], rng: random.Random, tree: LabelTree) -> Iterator[_Draft]:
    """Concepts that this record says nothing of, and questions that no picture answers."""
    foreign = _foreign(record, searched, tree)
    if foreign and rng.random() < _SHARE_FOREIGN:
        yield _asked(record, rng.choice(foreign), CANNOT_TELL, "unanswerable", (), tree)
    if rng.random() < _SHARE_BEYOND:
        yield _Draft(record, "beyond", "unanswerable", CANNOT_TELL, "beyond", {})


def _known(record: ImageRecord) -> set[str]:
    return {region.concept for region in record.regions} | set(record.absent)


def _with_general(concepts: Iterable[str], tree: LabelTree) -> set[str]:
    concepts = set(concepts)
    return concepts | {tree.split(concept)[0] for concept in concepts}


def _showing(record: ImageRecord, concept: str, tree: LabelTree) -> list[Region]:
    return [r for r in record.regions if r.concept == concept or tree.covers(concept, r.concept)]


def _is_absent(record: ImageRecord, concept: str, tree: LabelTree) -> bool:
    """Only what the record itself calls absent: the concept, a general one that covers it, or both of its sides."""
    absent = set(record.absent)
    label, side = tree.split(concept)
    both = side is None and {f"{label}@left", f"{label}@right"} <= absent
    return not _showing(record, concept, tree) and (concept in absent or label in absent or both)


def _searched(record: ImageRecord, concept: str, tree: LabelTree) -> bool:
    """Whether the record marks every region of the concept."""
    label, _ = tree.split(concept)
    if {concept, label} & (set(record.exhaustive) | set(record.absent)):
        return True
    return {f"{label}@left", f"{label}@right"} <= set(record.exhaustive) | set(record.absent)


def _foreign(record: ImageRecord, searched: Sequence[str], tree: LabelTree) -> list[str]:
    """Concepts that the record says nothing of: not shown, not searched for, no relative of what is."""
    labels = {tree.split(concept)[0] for concept in _known(record) | set(record.exhaustive)}
    near = labels.union(*(tree.ancestors(label) for label in labels))
    others = [concept for concept in searched if tree.split(concept)[0] not in near]
    return [concept for concept in others if labels.isdisjoint(tree.ancestors(tree.split(concept)[0]))]


def _balanced(drafts: Sequence[_Draft], rng: random.Random) -> list[_Draft]:
    """Within each subject, no answer more often than the second most frequent; a single answer is dropped."""
    groups: dict[str, dict[str, list[_Draft]]] = defaultdict(lambda: defaultdict(list))
    for draft in drafts:
        groups[draft.subject][draft.answer].append(draft)
    kept = groups.pop("beyond", {}).get(CANNOT_TELL, [])
    for _, answers in sorted(groups.items()):
        if len(answers) > 1:
            most = sorted(map(len, answers.values()))[-2]
            for _, same in sorted(answers.items()):
                kept = kept + (same if len(same) <= most else rng.sample(same, most))
    return kept


def _varied(drafts: Sequence[_Draft], most: int) -> list[_Draft]:
    """At most so many, taken in turn from each topic."""
    by_topic: dict[str, list[_Draft]] = defaultdict(list)
    for draft in sorted(drafts, key=lambda d: _digest(d.record.id, d.subject, d.answer)):
        by_topic[draft.topic].append(draft)
    turns = [(turn, TOPICS.index(topic), draft) for topic, many in by_topic.items() for turn, draft in enumerate(many)]
    return [draft for _, _, draft in sorted(turns, key=lambda item: item[:2])[:most]]


def _worded(drafts: Sequence[_Draft], seed: int) -> Iterator[QuestionAnswer]:
    for draft in drafts:
        record = draft.record
        forms = FORMS[draft.form] if record.split == "test" else FORMS[draft.form][:-1]
        rng = random.Random(f"{seed}:{record.id}:{draft.subject}:{draft.answer}")
        question = rng.choice(forms).format(**draft.words)
        yield QuestionAnswer(
            id=_digest(record.id, question, draft.answer), image_id=record.id, question=question,
            answer=draft.answer, topic=draft.topic, concepts=draft.concepts,
            evidence=tuple(region.id for region in draft.regions if region.id), split=record.split,
        )  # fmt: skip


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
