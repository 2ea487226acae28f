"""Finds the concepts that a text names, with side and negation, by the label tree's own words. No model, no images.

Used to link a question to what was searched for, to read statements out of a free-text report when it is scored, and to
take what a report denies as absent in training.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from medglip.records.labels import LabelTree
from medglip.records.record import ImageRecord, concept_of

_WORD = re.compile(r"[a-z0-9]+")
_CLAUSE_END = re.compile(r"[.;:!?\n]|\bbut\b|\bhowever\b")
_SPELLINGS = (("tumour", "tumor"), ("haem", "hem"), ("oedema", "edema"), ("oesoph", "esoph"), ("foetal", "fetal"))
_DENIALS = frozenset({"no", "without", "absent", "not", "negative", "free"})
_DOUBTS = frozenset({"possible", "possibly", "probable", "uncertain", "suspected", "undecided", "may", "might"})
_LONGEST, _SHORTEST_HEAD = 10, 4
SPOKEN = ("report", "caption", "finding")  # kinds of texts that state what an image shows; a question states nothing


@dataclass(frozen=True, slots=True)
class Mention:
    """Words of a text that name labels.

    Attributes:
        concepts: What they may mean, with the side the text gives; more than one for a shared word such as "tumor".
        polarity: ``present``, ``absent`` or ``uncertain``, by the words before them in the clause.
        words: The words.
    """

    concepts: tuple[str, ...]
    polarity: str
    words: str


class Lexicon:
    """Names, synonyms and plurals of labels, ready to be found in a text."""

    def __init__(self, label_ids: Iterable[str], tree: LabelTree) -> None:
        self._labels: dict[tuple[str, ...], set[str]] = {}
        heads: dict[tuple[str, ...], set[str]] = {}
        for label_id in sorted(set(label_ids)):
            label = tree[label_id]
            for name in (label.name, label.plural, *label.synonyms):
                for words in _forms(name):
                    self._labels.setdefault(words, set()).add(label_id)
            for words in _forms(label.name):
                if len(words[-1]) >= _SHORTEST_HEAD:
                    heads.setdefault(words[-1:], set()).add(label_id)
        # The last word of a name ("tumor" of "kidney tumor") stands for all labels that end so, unless it is a name.
        for words, ids in heads.items():
            self._labels.setdefault(words, ids)

    def mentions(self, text: str) -> tuple[Mention, ...]:
        """The mentions of a text in its order; the longest name wins where names overlap."""
        found = []
        for clause in _CLAUSE_END.split(_spelled(text)):
            words = _WORD.findall(clause)
            start = 0
            while start < len(words):
                length, ids = self._longest(words, start)
                if length:
                    concepts = {concept_of(label_id, _side(words, start, start + length)) for label_id in ids}
                    polarity = _polarity(words[:start], words[start + length :])
                    found.append(Mention(tuple(sorted(concepts)), polarity, " ".join(words[start : start + length])))
                start += max(1, length)
        return tuple(found)

    def _longest(self, words: list[str], start: int) -> tuple[int, set[str]]:
        for length in range(min(_LONGEST, len(words) - start), 0, -1):
            ids = self._labels.get(tuple(words[start : start + length]))
            if ids:
                return length, ids
        return 0, set()


@cache
def whole_lexicon(tree: LabelTree) -> Lexicon:
    """All names of a tree; made once."""
    return Lexicon((label.id for label in tree), tree)


def denied_findings(record: ImageRecord, tree: LabelTree) -> tuple[str, ...]:
    """Findings that an image's English reports, captions and stated findings deny, sorted.

    Left out is what a text or a region of the image affirms or doubts in the same or another breath, what may mean several
    labels ("no tumor" where many organs have some), and anatomy: a report that misses an organ does not say that it is gone.
    """
    said = [mention for text in record.texts if text.kind in SPOKEN and text.language.startswith("en")
            for mention in whole_lexicon(tree).mentions(text.text)]  # fmt: skip
    affirmed = {concept for mention in said if mention.polarity != "absent" for concept in mention.concepts}
    affirmed.update(region.concept for region in record.regions)
    single = {mention.concepts[0] for mention in said if mention.polarity == "absent" and len(mention.concepts) == 1}
    return tuple(sorted(
        concept for concept in single
        if tree[tree.split(concept)[0]].is_finding
        and not any(tree.covers(concept, other) or tree.covers(other, concept) for other in affirmed)
    ))  # fmt: skip


def _forms(name: str) -> set[tuple[str, ...]]:
    words = tuple(_WORD.findall(_spelled(name)))
    return {words, (*words[:-1], words[-1] + "s")} if words and len(words[-1]) > 2 else {words} - {()}


def _spelled(text: str) -> str:
    text = text.lower()
    for british, american in _SPELLINGS:
        text = text.replace(british, american)
    return text


def _side(words: list[str], start: int, end: int) -> str | None:
    """Side that directly precedes the name, or follows it as "on the left"."""
    if start and words[start - 1] in ("left", "right"):
        return words[start - 1]
    after = words[end : end + 4]
    if "on" in after:
        after = after[after.index("on") :]
        return next((word for word in after if word in ("left", "right")), None)
    return None


def _polarity(before: list[str], after: list[str]) -> str:
    if _DENIALS.intersection(before) or after[:2] in (["is", "absent"], ["are", "absent"]) or after[1:2] == ["not"]:
        return "absent"
    return "uncertain" if _DOUBTS.intersection(before) or _DOUBTS.intersection(after[:4]) else "present"
