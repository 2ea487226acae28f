"""What an image may show and nobody marked in it: named by its texts, or left open by its source. Knows no model, no pixels.

Negation: a mention is denied where ``medglip.records.mentions`` finds "no", "without", "absent", "not", "negative" or
"free" before it in its clause, or "is absent" after it; denied and doubted mentions are not asked about, and a concept that
one text names and another denies is not either.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from medglip.records import ImageRecord, LabelTree
from medglip.records.mentions import Lexicon, Mention
from medglip.records.record import Text
from medglip.store.matrix import Matrix

KINDS = ("report", "caption", "finding")  # of texts: a template says nothing new, a question nothing at all
_CLAUSE = re.compile(r"[^.;:!?\n]+")
_WORD = re.compile(r"[A-Za-z0-9]+")


@dataclass(frozen=True)
class Asked:
    """A phrase that the teacher is asked.

    Attributes:
        concept: ``label`` or ``label@side``.
        name: The words that are asked: the label tree's.
        words: What the image's texts call it.
        places: (number of the text, first, last) characters of these words, where they name no other region yet.
    """

    concept: str
    name: str
    words: tuple[str, ...] = ()
    places: tuple[tuple[int, int, int], ...] = ()


class Unmarked:
    """Finds what to ask of a record.

    Args:
        tree: The label tree.
        matrix: What each source marks, may show and cannot show.
        concepts: Asked of every image that may show them; () asks for what texts name alone.
    """

    def __init__(self, tree: LabelTree, matrix: Matrix, concepts: Sequence[str] = ()) -> None:
        self.tree, self.matrix, self.concepts = tree, matrix, tuple(concepts)

    def __call__(self, record: ImageRecord) -> tuple[list[Asked], Counter]:
        """What to ask, each concept once, and what was left out: how often, by reason.

        The reasons: ``denied`` and ``uncertain`` (by the text), ``marked`` (the record has a region of it), ``negative``
        (the record or its source says that it is not there), ``ambiguous`` (the words may mean several concepts).
        """
        left_out: Counter = Counter()
        named: dict[str, list[tuple[int, int, int]]] = {}
        denied: set[str] = set()
        for number, text in enumerate(record.texts):
            if text.kind not in KINDS or not text.language.startswith("en"):
                continue
            for mention, first, last in self.found(text):
                if mention.polarity != "present":
                    left_out["denied" if mention.polarity == "absent" else "uncertain"] += 1
                    denied.update(mention.concepts if mention.polarity == "absent" else ())
                    continue
                concept, reason = self._meant(mention, record)
                if concept is None:
                    left_out[reason] += 1
                else:
                    named.setdefault(concept, []).append((number, first, last))
        for concept in [one for one in named if any(self.tree.covers(wide, one) for wide in denied)]:
            left_out["denied"] += len(named.pop(concept))
        asked = [self._asked(concept, places, record) for concept, places in named.items()]
        for concept in self.concepts:
            is_told = concept in named or any(self.tree.covers(wide, concept) for wide in denied)
            state = self.matrix.state(record.origin.dataset, record.modality, concept)
            if state == "possible" and not is_told and self._open(concept, record) is None:
                asked.append(Asked(concept, self.tree.concept_name(concept)))
        return asked, left_out

    def found(self, text: Text) -> list[tuple[Mention, int, int]]:
        """Mentions of a text in its order, each with its characters; (0, 0) where these cannot be told."""
        found = []
        for clause in _CLAUSE.finditer(text.text):
            words = list(_WORD.finditer(clause[0]))
            at = 0
            for mention in self._lexicon.mentions(clause[0]):
                length = len(mention.words.split())
                start = next((n for n in range(at, len(words) - length + 1) if self._is(words[n : n + length], mention)), None)
                if start is None:
                    found.append((mention, 0, 0))
                    continue
                at = start + length
                side = {concept.partition("@")[2] for concept in mention.concepts}
                if start and words[start - 1][0].lower() in side:
                    start -= 1
                found.append((mention, clause.start() + words[start].start(), clause.start() + words[at - 1].end()))
        return found

    def _is(self, words: Sequence[re.Match[str]], mention: Mention) -> bool:
        """Whether these words are read as the mention's."""
        read = self._lexicon.mentions(" ".join(word[0] for word in words))
        return len(read) == 1 and read[0].words == mention.words

    @cached_property
    def _lexicon(self) -> Lexicon:
        return Lexicon((label.id for label in self.tree), self.tree)

    def _meant(self, mention: Mention, record: ImageRecord) -> tuple[str | None, str]:
        """The one concept that a mention means in this image, or None and why not."""
        labels = ((concept, concept.partition("@")[0]) for concept in mention.concepts)
        concepts = dict.fromkeys(concept if self.tree[label].laterality else label for concept, label in labels)
        reasons = {concept: self._open(concept, record) for concept in concepts}
        if "marked" in reasons.values():
            return None, "marked"
        left = [concept for concept, reason in reasons.items() if reason is None]
        widest = [one for one in left if all(self.tree.covers(one, other) for other in left)]
        if not widest:
            return None, "ambiguous" if left else "negative"
        return widest[0], ""

    def _open(self, concept: str, record: ImageRecord) -> str | None:
        """None where the image may show a concept that is not marked in it, else why not."""
        covers = self.tree.covers
        if any(covers(concept, region.concept) or covers(region.concept, concept) for region in record.regions):
            return "marked"
        return "negative" if self.matrix.is_negative(record, concept) else None

    def _asked(self, concept: str, places: Sequence[tuple[int, int, int]], record: ImageRecord) -> Asked:
        told = [(number, first, last) for number, first, last in places if last > first]
        words = tuple(dict.fromkeys(record.texts[number].text[first:last] for number, first, last in told))
        free = [
            (number, first, last)
            for number, first, last in told
            if all(span.end <= first or last <= span.start for span in record.texts[number].spans)
        ]
        return Asked(concept, self.tree.concept_name(concept), words, tuple(free))
