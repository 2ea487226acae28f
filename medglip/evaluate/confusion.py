"""Which label's region the best box of a phrase landed on. Knows cases only: no figures, no pages."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from medglip.evaluate.cases import Case

# What stands for "on no marked region" among the concepts that a box landed on.
NOWHERE = ""


class Mistake(NamedTuple):
    """A phrase whose best box lands on a region of another concept, or on none.

    Attributes:
        asked: Concept of the phrase.
        landed: Concept of the region, or ``NOWHERE``.
        questions: How often.
        share: Of the questions in which the asked concept is there.
    """

    asked: str
    landed: str
    questions: int
    share: float


class Confusion(NamedTuple):
    """Where the best boxes of shown phrases landed.

    Attributes:
        concepts: The most frequently asked ones, the most frequent first.
        counts: (L, L + 2) int: questions, by asked concept and by the concept landed on; the last two columns are a
            concept that is not listed, and no region.
        mistakes: The pairs that were confused most often, falling; ties by name.
    """

    concepts: tuple[str, ...]
    counts: np.ndarray
    mistakes: tuple[Mistake, ...]


def landing(case: Case, least: float = 0.5) -> str:
    """The concept of the region that the best box of a shown phrase landed on, or ``NOWHERE``.

    A box that overlaps a true region by ``least`` is right, whatever else it overlaps: the same rule as Acc@0.5. Of the
    other regions the one that it overlaps most is meant.
    """
    if not len(case.boxes):
        return NOWHERE
    true = len(case.truth)
    first = case.iou_any[0]
    if true and first[:true].max() >= least:
        return case.concept
    rest = first[true:]
    if len(rest) and rest.max() >= least:
        return case.other_concepts[int(rest.argmax())]
    return NOWHERE


def confusion(cases: Sequence[Case], most: int = 12, least: float = 0.5, listed: int = 20) -> Confusion:
    """Counts of where the best boxes of shown phrases landed.

    Args:
        cases: Those of absent phrases are passed over.
        most: Concepts of the matrix at most.
        least: IoU from which a box has landed on a region, in (0, 1].
        listed: Mistakes at most; landing on no region is not listed among them.
    """
    pairs = Counter((case.concept, landing(case, least)) for case in cases if case.shown)
    asked: Counter[str] = Counter()
    for (concept, _), count in pairs.items():
        asked[concept] += count
    concepts = tuple(sorted(asked, key=lambda concept: (-asked[concept], concept))[:most])
    places = {concept: place for place, concept in enumerate(concepts)}
    counts = np.zeros((len(concepts), len(concepts) + 2), int)
    for (concept, landed), count in pairs.items():
        if concept in places:
            column = len(concepts) + 1 if landed == NOWHERE else places.get(landed, len(concepts))
            counts[places[concept], column] += count
    wrong = [Mistake(concept, landed, count, count / asked[concept])
             for (concept, landed), count in pairs.items() if landed not in (NOWHERE, concept)]  # fmt: skip
    wrong.sort(key=lambda mistake: (-mistake.questions, mistake.asked, mistake.landed))
    return Confusion(concepts, counts, tuple(wrong[:listed]))
