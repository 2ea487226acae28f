"""What training asks of an image, and the truth of each phrase. Knows no pixels and no model.

A phrase is there where a region shows it (the label tree's ``covers``). It is not there where the record says so, where
its source searched the image for it in vain, or where no image of the source can show it (``medglip.store.matrix``).
Everything else is unknown and is not asked. A finding that a report denies ("no pleural effusion") is not there either, by
``medglip.records.mentions``. A box that a model marked names what it names, and denies nothing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch

from medglip.errors import ModelError
from medglip.model.losses import Target
from medglip.model.prompt import Span
from medglip.model.view import View
from medglip.records.labels import label_tree
from medglip.records.masks import Rle
from medglip.records.mentions import denied_findings
from medglip.records.record import ImageRecord, identified
from medglip.store.matrix import Matrix
from medglip.train.augment import masks_on_canvas
from medglip.train.vocabulary import Vocabulary, opposite, sides_said

SPECIFIC = ("size", "relation", "attribute", "report")  # kinds of phrases that mean one region, not its whole label
CAPTIONS = ("report", "caption", "finding", "template")  # kinds of texts that speak of the image
KEPT = 0.5  # a box is kept when at least this part of it is on the canvas
WIDER = 0.25  # how often a concept is asked without its side, or as what it is a kind of
PRESENT = 2 / 3  # of the phrases at most: the rest is for what is not there
# Characters of a text: a token has at least one, so that it fits any text encoder whole. Longer captions are asked by the
# sentences around a span.
LONGEST = 240
_ROWS = 128  # boxes that are compared with all others at a time: a histology tile has thousands
_SENTENCE_END = re.compile(r"[.!?]\s+|\n")


@dataclass(frozen=True)
class Recipe:
    """What is asked how often: keys of the ``train`` section. Shares and probabilities are in [0, 1].

    Attributes:
        phrases: Most phrases of an image, of all kinds.
        far_negatives: Most phrases that no image of the source can show, such as those of other modalities.
        specific: How often a phrase of one region is asked ("12 mm cyst").
        negatives: Most phrases that are not there; 0: as many as ``phrases`` leaves room for. GLIP: 85.
        fill: How often the room for negatives is filled; else their number is uniform from 1 on. GLIP: 0.5.
        sides: Share of the negatives that are the other side of what is there.
        hard: Share of the negatives that lie in the same organ, or else body region, as what is there.
        captions: How often phrases of a caption are asked, read inside it.
        lineage: How often a concept is worded with what it is a part or kind of.
        definitions: How often it is worded by its definition.
        masks: Whether masks are drawn.

    Source: GLIP (arXiv 2112.03857), section 3 and its released RANDOM_SAMPLE_NEG and CONTROL_PROB.
    """

    phrases: int
    far_negatives: int
    specific: float
    negatives: int = 0
    fill: float = 0.5
    sides: float = 0.25
    hard: float = 0.25
    captions: float = 0.25
    lineage: float = 0.1
    definitions: float = 0.0
    masks: bool = False

    def __post_init__(self) -> None:
        """Check."""
        shares = {name: getattr(self, name) for name in ("specific", "fill", "sides", "hard", "captions")}
        shares |= {"sides + hard": self.sides + self.hard, "lineage + definitions": self.lineage + self.definitions}
        shares |= {"lineage": self.lineage, "sides": self.sides}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ModelError(f"Configuration train.{name}: found {share!r}; allowed: 0 to 1.")
        if self.phrases < 1 or self.negatives < 0 or self.far_negatives < 0:
            raise ModelError(
                f"Configuration train: found phrases = {self.phrases!r}, negatives = {self.negatives!r}, far_negatives = "
                f"{self.far_negatives!r}; allowed: at least 1 phrase, and no number below 0."
            )

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Recipe":
        """The recipe in a ``train`` section; what an older one does not say is taken for granted."""
        return cls(**{field.name: settings[field.name] for field in fields(cls) if field.name in settings})


class Caption(NamedTuple):
    """A text about an image, with (first, last, numbers of the regions) of each part that names regions."""

    text: str
    spans: tuple[tuple[int, int, tuple[int, ...]], ...]


class Known(NamedTuple):
    """What is known of one image, G regions: boxes (G, 4) in its pixels, concepts, phrases, masks, and who marked it."""

    source: str
    modality: str
    matrix: Matrix
    boxes: np.ndarray
    concepts: tuple[str, ...]
    phrases: tuple[tuple[str, ...], ...]
    absent: tuple[str, ...]
    exhaustive: tuple[str, ...]
    captions: tuple[Caption, ...] = ()
    masks: tuple[Rle | None, ...] = ()
    predicted: tuple[bool, ...] = ()


def known_of(record: ImageRecord, matrix: Matrix, with_masks: bool = False) -> Known:
    """What a record says."""
    record = identified(record)
    place = {region.id: number for number, region in enumerate(record.regions)}
    captions = []
    for text in record.texts:
        spans = [(s.start, s.end, tuple(place[one] for one in s.regions if one in place)) for s in text.spans]
        spans = [span for span in spans if span[2] and text.text[span[0] : span[1]].strip()]
        if spans and text.kind in CAPTIONS:
            captions.append(Caption(text.text, tuple(spans)))
    denied = denied_findings(record, label_tree()) if record.texts else ()
    return Known(
        record.origin.dataset, record.modality, matrix,
        np.array([region.box_xyxy for region in record.regions], np.float32).reshape(-1, 4),
        tuple(region.concept for region in record.regions),
        tuple(tuple(p.text for p in r.phrases if p.kind in SPECIFIC and len(p.text) <= LONGEST) for r in record.regions),
        tuple(dict.fromkeys([*record.absent, *denied])), record.exhaustive, tuple(captions),
        tuple(region.mask for region in record.regions) if with_masks else (),
        tuple(region.provenance == "predicted" for region in record.regions),
    )  # fmt: skip


def mirrored(known: Known) -> Known:
    """What is known of the mirrored picture: sides of concepts are swapped, words that speak of a side are dropped.

    Boxes and masks stay those of the image; the view turns them.
    """
    return known._replace(
        concepts=tuple(map(opposite, known.concepts)),
        absent=tuple(map(opposite, known.absent)),
        exhaustive=tuple(map(opposite, known.exhaustive)),
        phrases=tuple(tuple(text for text in texts if not sides_said(text)) for texts in known.phrases),
        captions=tuple(caption for caption in known.captions if not sides_said(caption.text)),
    )


class _Phrase(NamedTuple):
    """A phrase: its concept's number or -1, and which regions it names, None where it is not there."""

    text: str | Span
    concept: int
    named: np.ndarray | None


class Asking:
    """Asks about images by a recipe; what is asked is a function of the random generator alone.

    Args:
        words: The concepts of all images.
        recipe: How often what.
    """

    def __init__(self, words: Vocabulary, recipe: Recipe) -> None:
        self.words, self.recipe = words, recipe

    def __call__(self, known: Known, view: View, rng: np.random.Generator) -> tuple[tuple[str | Span, ...], Target]:
        """Phrases in random order, and the truth on a view's canvas."""
        known = mirrored(known) if view.mirrored else known
        boxes = view.boxes_on_canvas(known.boxes)
        clipped = boxes.clip(0, view.size)
        part = _area(clipped) / np.maximum(_area(boxes), 1e-6)
        kept = part >= KEPT
        asked = self._asked(known, kept, view.mirrored, rng)
        asked = [asked[place] for place in rng.permutation(len(asked))]
        names = np.zeros((len(boxes), len(asked)), bool)
        for column, phrase in enumerate(asked):
            if phrase.named is not None:
                names[:, column] = phrase.named
        unsure = ~kept & (part > 0)
        merged_boxes, merged_names, box_of = merge(clipped[kept], names[kept])
        guessed = np.ones(len(merged_boxes), bool)
        guessed[box_of[~np.array(known.predicted or (False,) * len(boxes), bool)[kept]]] = False
        is_there = np.array([phrase.named is not None for phrase in asked], bool)
        doubted = np.concatenate([clipped[unsure], merged_boxes[guessed]])
        doubted_names = np.concatenate([names[unsure], ~merged_names[guessed] & is_there])
        masks, mask_is_known = self._masks(known, np.flatnonzero(kept), box_of, view)
        concepts = np.array([phrase.concept for phrase in asked], np.int64)
        target = Target(
            torch.from_numpy(merged_boxes), torch.from_numpy(merged_names),
            torch.from_numpy(doubted), torch.from_numpy(doubted_names),
            torch.from_numpy(is_there.astype(np.float32)),
            torch.from_numpy(concepts), torch.from_numpy(self.words.parents(concepts)), masks, mask_is_known,
        )  # fmt: skip
        return tuple(phrase.text for phrase in asked), target

    def _asked(self, known: Known, kept: np.ndarray, is_mirrored: bool, rng: np.random.Generator) -> list[_Phrase]:
        """What is there, then what means one region, then words of a caption, then what is not there; each text once."""
        recipe = self.recipe
        found: dict[str | Span, _Phrase] = {}
        shown = self.words.numbers(known.concepts)
        for concept in self._present(known, shown[kept], rng):
            named = self.words.covers[concept, shown]
            phrase = _Phrase(self._worded(concept, is_mirrored, rng), int(concept), named)
            found.setdefault(phrase.text, phrase)
        numbers = [number for number in np.flatnonzero(kept) if known.phrases[number]]
        if numbers and rng.random() < recipe.specific:
            texts = known.phrases[numbers[rng.integers(len(numbers))]]
            text = texts[rng.integers(len(texts))]
            found.setdefault(text, _Phrase(text, -1, np.array([text in own for own in known.phrases])))
        captions = [caption for caption in known.captions if any(kept[list(span[2])].any() for span in caption.spans)]
        if captions and rng.random() < recipe.captions:
            caption = captions[rng.integers(len(captions))]
            for phrase in _in_caption(caption, kept, recipe.phrases - len(found), rng):
                found.setdefault(phrase.text, phrase)
        denied = self._denied(known, recipe.phrases - len(found), is_mirrored, rng)
        texts_there = {text for own in known.phrases for text in own}
        for concept in denied:
            phrase = _Phrase(self._worded(concept, is_mirrored, rng), int(concept), None)
            if phrase.text not in texts_there:
                found.setdefault(phrase.text, phrase)
        return list(found.values())

    def _present(self, known: Known, shown: np.ndarray, rng: np.random.Generator) -> list[int]:
        """Concepts that kept regions show, in random order, each once; some without their side or as a wider kind."""
        words = self.words
        searched = words.searched(known.exhaustive)
        asked: dict[int, None] = {}
        for concept in rng.permutation(np.unique(shown))[: max(1, int(self.recipe.phrases * PRESENT))]:
            if rng.random() < WIDER:
                # A wider kind only where all of its kind is marked; else unmarked ones would be punished.
                fits = [wide for wide in words.wider[concept] if searched[wide] or wide == words.unsided[concept]]
                concept = fits[rng.integers(len(fits))] if fits else concept
            asked[int(concept)] = None
        return list(asked)

    def absent(self, known: Known) -> tuple[np.ndarray, np.ndarray]:
        """What the record says is not there, and what cannot be there: two (V,) bool arrays.

        Together they are ``Matrix.is_negative`` of all concepts at once.
        """
        words = self.words
        shown = words.numbers(known.concepts)
        is_there = words.covers[:, shown].any(axis=1)
        said = words.covers[words.numbers(known.absent)].any(axis=0)
        searched = words.searched(known.exhaustive) & ~words.covers[shown].any(axis=0)
        impossible = words.impossible(known.matrix, known.source, known.modality)
        return (said | searched) & ~is_there, impossible & ~is_there

    def _denied(self, known: Known, room: int, is_mirrored: bool, rng: np.random.Generator) -> np.ndarray:
        """Numbers of concepts that are known not to be there: hard ones first, then any, then far ones."""
        words, recipe = self.words, self.recipe
        limit = min(room, recipe.negatives or room)
        if limit < 1:
            return np.empty(0, np.int64)
        count = limit if rng.random() < recipe.fill else int(rng.integers(1, limit + 1))
        near, impossible = self.absent(known)
        far = impossible & words.is_seen & ~near
        if is_mirrored:
            near, far = near & ~words.names_side, far & ~words.names_side
        # Far ones are a third at most, or more where nothing else is known.
        many_far = min(recipe.far_negatives, max(count // 3, count - int(near.sum())), int(far.sum()))
        left = count - many_far
        shown = np.unique(words.numbers(known.concepts))
        other = words.opposite[shown]
        chosen = _drawn(_among(other[other >= 0], near), round(recipe.sides * left), rng)
        near = near & ~_members(chosen, near)
        in_region = near & np.isin(words.body_region, words.body_region[shown])
        in_organ = in_region & (np.isin(words.home, words.home[shown]))
        hard = round(recipe.hard * left)
        organ = _drawn(np.flatnonzero(in_organ), hard, rng)
        region = _drawn(np.flatnonzero(in_region & ~in_organ), hard - len(organ), rng)
        chosen = np.concatenate([chosen, organ, region])
        rest = _drawn(np.flatnonzero(near & ~_members(chosen, near)), left - len(chosen), rng)
        return np.concatenate([chosen, rest, _drawn(np.flatnonzero(far), many_far, rng)])

    def _worded(self, concept: int, is_mirrored: bool, rng: np.random.Generator) -> str:
        name, draw = self.words.concepts[concept], rng.random()
        if draw < self.recipe.definitions:
            return self.words.told(name, "definition", is_mirrored)
        if draw < self.recipe.definitions + self.recipe.lineage:
            return self.words.told(name, "lineage", is_mirrored)
        return self.words.wording(name, rng, is_mirrored)

    def _masks(
        self, known: Known, kept: np.ndarray, box_of: np.ndarray, view: View
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Masks (G, S/4, S/4) of merged boxes, each the union of its regions', and whether all of these are known."""
        if not self.recipe.masks:
            return None, None
        count = int(box_of.max(initial=-1)) + 1
        is_known = np.ones(count, bool)
        codes: list[list[Rle]] = [[] for _ in range(count)]
        for region, box in zip(kept, box_of, strict=True):
            mask = known.masks[region]
            if mask is None:
                is_known[box] = False
            else:
                codes[box].append(mask)
        drawn = masks_on_canvas([own if sure else [] for own, sure in zip(codes, is_known, strict=True)], view)
        return torch.from_numpy(drawn), torch.from_numpy(is_known)


def _in_caption(caption: Caption, kept: np.ndarray, room: int, rng: np.random.Generator) -> list[_Phrase]:
    """The parts of a caption, or of the sentences around one of them, that name regions on the canvas."""
    told = [span for span in caption.spans if kept[list(span[2])].any() and span[1] - span[0] <= LONGEST]
    if not told or room < 1:
        return []
    chosen = told[rng.integers(len(told))]
    first, last = excerpt(caption.text, *chosen[:2])
    text = caption.text[first:last]
    named: dict[Span, np.ndarray] = {}
    for start, end, regions in (chosen, *told):
        if first <= start and end <= last:
            span = Span(text, start - first, end - first)
            named.setdefault(span, np.zeros(len(kept), bool))[list(regions)] = True
    return [_Phrase(span, -1, regions) for span, regions in list(named.items())[:room]]


def excerpt(text: str, start: int, end: int, most: int = LONGEST) -> tuple[int, int]:
    """First and last character of the whole sentences around ``text[start:end]`` that ``most`` characters hold.

    Sentences after it come first, then those before it. Of a single sentence that is too long, the whole words around.

    >>> text = "No mass. A cyst is seen. The liver is normal."
    >>> text[slice(*excerpt(text, 11, 15, most=20))], text[slice(*excerpt(text, 11, 15, most=38))]
    ('A cyst is seen.', 'A cyst is seen. The liver is normal.')
    """
    ends = [0, *(found.end() for found in _SENTENCE_END.finditer(text)), len(text)]
    first, last = max(one for one in ends if one <= start), min(one for one in ends if one >= end)
    for one in ends:
        last = one if last < one <= first + most else last
    for one in reversed(ends):
        first = one if last - most <= one < first else first
    if last - first > most:
        before = max(first, start - (most - (end - start)) // 2)
        after = min(last, before + most)
        first = next((at for at in range(before, start) if at == 0 or text[at - 1].isspace()), start)
        last = next((at for at in range(after, end, -1) if at == len(text) or text[at].isspace()), end)
    first += len(text[first:start]) - len(text[first:start].lstrip())
    return first, last - (len(text[end:last]) - len(text[end:last].rstrip()))


def merge(boxes: np.ndarray, names: np.ndarray, same: float = 0.9) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes that are as good as equal (IoU of ``same``) become one box with all their names.

    Returns:
        Boxes (G, 4), names (G, P), and for each box given the number of the box that it became part of.
    """
    keep: list[int] = []
    names, box_of = names.copy(), np.zeros(len(boxes), np.int64)
    for number in range(len(boxes)):
        if number % _ROWS == 0:
            iou = _iou(boxes[number : number + _ROWS], boxes)
        nearest = int(iou[number % _ROWS, keep].argmax()) if keep else 0
        if keep and iou[number % _ROWS, keep[nearest]] >= same:
            box_of[number] = nearest
            names[keep[nearest]] |= names[number]
        else:
            box_of[number] = len(keep)
            keep.append(number)
    return boxes[keep], names[keep], box_of


def _iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    corner = np.maximum(boxes[:, None, :2], others[None, :, :2])
    shared = (np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - corner).clip(0).prod(axis=2)
    return shared / (_area(boxes)[:, None] + _area(others) - shared)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1)


def _among(numbers: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    return numbers[allowed[numbers]]


def _members(numbers: np.ndarray, like: np.ndarray) -> np.ndarray:
    found = np.zeros_like(like)
    found[numbers] = True
    return found


def _drawn(numbers: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """At most ``count`` of the numbers, in random order."""
    return rng.permutation(numbers)[: max(0, count)]
