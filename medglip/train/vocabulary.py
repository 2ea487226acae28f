"""The concepts of the training images: what they are called, which are wider, opposite or near. Knows no image.

A concept is ``label`` or ``label@left|right``. Every concept has a number, its place in the sorted vocabulary, so that
questions about many concepts are answered by arrays.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from medglip.records.definitions import augmented
from medglip.records.labels import LabelTree
from medglip.records.phrases import concept_phrases
from medglip.store.matrix import Matrix

NAMED = 0.5  # how often a concept is called by its name and not by another of its wordings

# Words that a mirrored picture makes wrong, in the languages of the sources. OD and OS are the eyes of an eye clinic.
_SIDE_WORD = re.compile(
    r"\b(?:(?P<left>left\w*|lt|l|sinist\w*|os|links\w*|linke\w*|gauches?|izquierd\w*|esquerd\w*)"
    r"|(?P<right>right\w*|rt|r|d[ei]xt\w*|od|rechts\w*|rechte\w*|droite?s?|derech\w*|direit\w*|destr\w*)"
    r"|o['\u2019]?\s?clock|(?:anti|counter)?-?clockwise)\b|(?P<zuo>左)|(?P<you>右)",
    re.IGNORECASE,
)
_KINDS = {"left": "left", "right": "right", "zuo": "left", "you": "right"}


@lru_cache(maxsize=65536)
def sides_said(text: str) -> frozenset[str]:
    """Which sides a text speaks of: ``left``, ``right`` and ``turn`` (hours of a clock face).

    >>> sorted(sides_said("12 mm cyst in the Left kidney, at 3 o'clock"))
    ['left', 'turn']
    """
    return frozenset(_KINDS.get(found.lastgroup or "", "turn") for found in _SIDE_WORD.finditer(text))


def opposite(concept: str) -> str:
    """The concept on the other side; without a side, the same.

    >>> opposite("abdomen.kidney@left"), opposite("abdomen.liver")
    ('abdomen.kidney@right', 'abdomen.liver')
    """
    label, _, side = concept.partition("@")
    return f"{label}@{'right' if side == 'left' else 'left'}" if side else concept


class Vocabulary:
    """Concepts with numbers, and what the label tree says of each pair.

    Args:
        tree: The label tree.
        seen_in: Concepts of regions, each with the modalities in which it is seen.
        searched: More concepts: absent ones, and those that sources mark wherever they are.

    Attributes:
        concepts: The V concepts, sorted: those given, the same without a side, on the other side, and the wider kinds.
        number: Place of each in ``concepts``.
        covers: (V, V) bool: a region of the second answers the first.
        wider: For each the numbers of the wider ones, itself left out.
        opposite: (V,) int64: the same on the other side, -1 without a side.
        unsided: (V,) int64: the same without a side; of a concept without one, itself.
        home: (V,) int64: equal numbers lie in the same organ or are parts of the same whole.
        body_region: (V,) int64: equal numbers lie in the same body region.
        is_seen: (V,) bool: a region of the training images shows it.
        names_side: (V,) bool: the label's own name has a side, as "left ventricle" has; its side cannot be swapped.
    """

    def __init__(self, tree: LabelTree, seen_in: Mapping[str, set[str]], searched: Iterable[str] = ()) -> None:
        self.tree, self.seen_in = tree, dict(seen_in)
        given = {*self.seen_in, *searched}
        kinds = {label: _kinds(label, tree) for label in {concept.partition("@")[0] for concept in given}}
        every = given.union(map(opposite, given), *kinds.values())
        self.concepts = tuple(sorted(every))
        self.number = {concept: number for number, concept in enumerate(self.concepts)}
        count = len(self.concepts)
        self.covers = np.zeros((count, count), bool)
        self.opposite = np.full(count, -1)
        self.unsided = np.arange(count)
        self.is_seen = np.array([concept in self.seen_in for concept in self.concepts], bool)
        homes, regions = [], []
        for concept, number in self.number.items():
            label, at, side = concept.partition("@")
            wide = _kinds(label, tree)
            for general in (*wide, *(f"{kind}@{side}" for kind in wide if at)):
                if general in self.number:
                    self.covers[self.number[general], number] = True
            if at:
                self.opposite[number] = self.number[opposite(concept)]
                self.unsided[number] = self.number[label]
            homes.append(tree[label].part_of or (tree[label].site or (tree[label].is_a or label,))[0])
            regions.append(tree.body_region(label))
        self.wider = tuple([w for w in np.flatnonzero(row).tolist() if w != n] for n, row in enumerate(self.covers.T))
        self.home = np.unique(np.array(homes, dtype=str), return_inverse=True)[1]
        self.body_region = np.unique(np.array(regions, dtype=str), return_inverse=True)[1]
        self.names_side = np.array([bool(sides_said(tree[c.partition("@")[0]].name)) for c in self.concepts], bool)
        self._wordings: dict[tuple[str, bool], tuple[str, ...]] = {}
        self._told: dict[tuple[str, str], str] = {}
        self._impossible: dict[tuple[Matrix, str, str], np.ndarray] = {}
        self._searched: dict[tuple[str, ...], np.ndarray] = {}

    def numbers(self, concepts: Sequence[str]) -> np.ndarray:
        """(N,) int64 of N concepts of the vocabulary."""
        return np.fromiter((self.number[concept] for concept in concepts), np.int64, len(concepts))

    def searched(self, exhaustive: tuple[str, ...]) -> np.ndarray:
        """(V,) bool: who searches for ``exhaustive`` has searched for it: under its own or a wider name, or on both sides."""
        if exhaustive not in self._searched:
            found = self.covers[self.numbers(exhaustive)].any(axis=0)
            left = np.flatnonzero(self.opposite >= 0)
            both = left[found[left] & found[self.opposite[left]]]
            found[self.unsided[both]] = True
            self._searched[exhaustive] = found
        return self._searched[exhaustive]

    def impossible(self, matrix: Matrix, source: str, modality: str) -> np.ndarray:
        """(V,) bool: no image of this source and modality can show it."""
        key = matrix, source, modality
        if key not in self._impossible:
            states = [matrix.state(source, modality, concept) for concept in self.concepts]
            self._impossible[key] = np.array([state == "impossible" for state in states], bool)
        return self._impossible[key]

    def parents(self, numbers: np.ndarray) -> np.ndarray:
        """(H, 2) int64 places (child, parent) in ``numbers`` (P,): where the child is, the parent is; -1 is no concept."""
        pairs = self.covers[np.ix_(numbers, numbers)] & (numbers[:, None] != numbers) & (numbers >= 0) & (numbers[:, None] >= 0)
        parent, child = np.nonzero(pairs)
        return np.stack([child, parent], axis=1)

    def wordings(self, concept: str, mirrored: bool = False) -> tuple[str, ...]:
        """The texts that mean a concept, its name first; of a mirrored picture, those that say no side but its own."""
        key = concept, mirrored
        if key not in self._wordings:
            texts = tuple(dict.fromkeys(phrase.text for phrase in concept_phrases(concept, self.tree)))
            if mirrored:
                texts = tuple(text for text in texts if _says_only(text, concept)) or texts[:1]
            self._wordings[key] = texts
        return self._wordings[key]

    def wording(self, concept: str, rng: np.random.Generator, mirrored: bool = False) -> str:
        """The concept's name, half of the time, or another of its wordings."""
        texts = self.wordings(concept, mirrored)
        return texts[0] if len(texts) == 1 or rng.random() < NAMED else texts[rng.integers(1, len(texts))]

    def told(self, concept: str, way: str, mirrored: bool = False) -> str:
        """The concept with its ``lineage`` or its ``definition``; its name where a mirrored picture makes that wrong."""
        key = concept, way
        if key not in self._told:
            self._told[key] = augmented(concept, self.tree, way)
        text = self._told[key]
        return self.wordings(concept, True)[0] if mirrored and not _says_only(text, concept) else text


def _kinds(label: str, tree: LabelTree) -> tuple[str, ...]:
    """The label and all that it is a kind of."""
    return (label, *(above for above in tree.ancestors(label) if tree.covers(above, label)))


def _says_only(text: str, concept: str) -> bool:
    side = concept.partition("@")[2]
    return sides_said(text) <= ({side} if side else set())
