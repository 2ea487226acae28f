"""From datasets to questions: an image, phrases that are in it, phrases that are not, and where. Knows no model.

What a phrase's truth is: a region shows it (the label tree's ``covers``), or the record says that it is absent, or no
image of its source can show it (``medglip.store.matrix``). Everything else is unknown and is not asked.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from medglip.errors import DatasetError
from medglip.model.losses import Target
from medglip.model.view import View, fitted
from medglip.records.labels import LabelTree
from medglip.records.phrases import concept_phrases
from medglip.records.record import ImageRecord
from medglip.store.matrix import Matrix, matrix_of
from medglip.train.augment import jittered

# A mirrored image of these shows nothing that a reader would call wrong; organs of the trunk and the head do.
MIRRORED = ("ultrasound", "endoscopy", "dermoscopy", "histopathology", "microscopy", "fundus")
SPECIFIC = ("size", "relation", "attribute", "report")  # kinds of phrases that mean one region, not its whole label
KEPT = 0.5  # a box is kept when at least this part of it is on the canvas


class GroundingData(Protocol):
    """What training and evaluation read of a dataset (``medglip.store.Dataset`` has it)."""

    manifest: dict[str, Any]

    def records(self, split: str | None = None) -> Iterator[ImageRecord]:
        """The images of a split, or all."""

    def display(self, id: str) -> np.ndarray:  # noqa: A002  (the name in the store)
        """Windowed uint8 (H, W) or (H, W, 3)."""


class Item(NamedTuple):
    """What training keeps of one image: no pixels, no masks."""

    data: GroundingData
    id: str
    source: str
    modality: str
    matrix: Matrix
    size: tuple[int, int]
    boxes: np.ndarray
    concepts: tuple[str, ...]
    phrases: tuple[tuple[str, ...], ...]
    absent: tuple[str, ...]
    may_mirror: bool


class Question(NamedTuple):
    """One image asked about phrases: ``image`` (3, S, S) uint8 or None where features are kept, and the truth."""

    key: tuple[int, int]
    image: Tensor | None
    phrases: tuple[str, ...]
    target: Target
    modality: str | None


@dataclass
class Vocabulary:
    """The concepts of the training images: how they can be called, and which are seen in which modality."""

    tree: LabelTree
    seen_in: dict[str, set[str]]

    def __post_init__(self) -> None:
        self.wordings: dict[str, tuple[str, ...]] = {}
        self._covers: dict[tuple[str, str], bool] = {}

    def covers(self, general: str, specific: str) -> bool:
        """Whether a region of ``specific`` answers ``general``; remembered."""
        pair = (general, specific)
        if pair not in self._covers:
            self._covers[pair] = self.tree.covers(general, specific)
        return self._covers[pair]

    def wording(self, concept: str, rng: np.random.Generator) -> str:
        """The concept's name, half of the time, or another of its wordings."""
        if concept not in self.wordings:
            found = concept_phrases(concept, self.tree)
            self.wordings[concept] = tuple(dict.fromkeys(phrase.text for phrase in found))
        texts = self.wordings[concept]
        return texts[0] if len(texts) == 1 or rng.random() < 0.5 else texts[rng.integers(1, len(texts))]

    def elsewhere(self, item: Item) -> list[str]:
        """Concepts of other images that no image of this one's source and modality can show."""
        return [c for c in self.seen_in if item.matrix.state(item.source, item.modality, c) == "impossible"]


class Samples:
    """The images of a split as questions; every question is a function of (seed, image, epoch).

    Args:
        datasets: Where the images are.
        split: ``train``, ``val`` or ``test``.
        tree: The label tree.
        settings: The ``train`` section of a configuration.
        size: Side of the canvas in pixels.

    Raises:
        DatasetError: no image of the split has a region or an absent concept.
    """

    def __init__(
        self, datasets: Sequence[GroundingData], split: str, tree: LabelTree, settings: dict[str, Any], size: int
    ) -> None:
        self.settings, self.size, self.seed = settings, size, int(settings["seed"])
        self._drawn: dict[int, np.ndarray] = {}
        self._room = settings["cache_mb"] * 2**18  # a quarter of what features may take
        matrices = [matrix_of(data) for data in datasets]
        self.items = [
            _item(data, record, matrix)
            for data, matrix in zip(datasets, matrices, strict=True)
            for record in data.records(split)
        ]
        self.items = [item for item in self.items if item.concepts or item.absent]
        if not self.items:
            raise DatasetError(f"No image of split {split!r} has a region or an absent label in the datasets given.")
        seen_in: dict[str, set[str]] = {}
        for item in self.items:
            for concept in item.concepts:
                seen_in.setdefault(concept, set()).add(item.modality)
        self.words = Vocabulary(tree, seen_in)

    def __len__(self) -> int:
        return len(self.items)

    def order(self, epoch: int) -> np.ndarray:
        """Image numbers of one epoch, shuffled; a source's share grows with the square root of its images."""
        rng = np.random.default_rng((self.seed, 1, epoch))
        counts = Counter(item.source for item in self.items)
        share = np.array([counts[item.source] ** -0.5 for item in self.items])
        visits = share / share.sum() * len(self.items)
        repeats = np.floor(visits + rng.random(len(visits))).astype(int)
        return rng.permutation(np.repeat(np.arange(len(self.items)), repeats))

    def view(self, number: int, view: int) -> View:
        """View ``view`` of an image; 0 is the whole image as evaluation sees it."""
        item = self.items[number]
        if view == 0:
            return fitted(*item.size, self.size)
        return jittered(*item.size, self.size, np.random.default_rng((self.seed, 2, number, view)), item.may_mirror)

    def image(self, number: int, view: int) -> Tensor:
        """(3, S, S) uint8."""
        item, how = self.items[number], self.view(number, view)
        pixels = self._pixels(number)
        shrunk = pixels.shape[1] / item.size[0], pixels.shape[0] / item.size[1]
        how = replace(how, scale=(how.scale[0] / shrunk[0], how.scale[1] / shrunk[1]))
        return torch.from_numpy(how.draw(pixels))

    def _pixels(self, number: int) -> np.ndarray:
        """The image, shrunk by a whole factor where it is far larger than the canvas; remembered while there is room."""
        if number not in self._drawn:
            item = self.items[number]
            pixels = item.data.display(item.id)
            factor = int(min(item.size) // (2 * self.size))  # twice the canvas is left, so that zooming in finds detail
            if factor > 1:
                pixels = np.asarray(Image.fromarray(pixels).reduce(factor))
            if self.settings["views"] == 0 or pixels.nbytes > self._room:
                return pixels
            self._drawn[number], self._room = pixels, self._room - pixels.nbytes
        return self._drawn[number]

    def question(self, number: int, epoch: int, with_image: bool = True) -> Question:
        """The question about an image in an epoch; without its pixels where the caller may have their features."""
        views = self.settings["views"]
        view = epoch % views if views else epoch
        rng = np.random.default_rng((self.seed, 3, number, epoch))
        item = self.items[number]
        phrases, target = self._ask(item, self.view(number, view), rng)
        if not phrases:  # all its regions were cut off and it has no absent label: ask about the whole image
            view = 0
            phrases, target = self._ask(item, self.view(number, view), rng)
        modality = None if rng.random() < self.settings["modality_dropout"] else item.modality
        image = self.image(number, view) if with_image else None
        return Question((number, view), image, phrases, target, modality)

    def _ask(self, item: Item, view: View, rng: np.random.Generator) -> tuple[tuple[str, ...], Target]:
        """Phrases and truth."""
        boxes = view.boxes_on_canvas(item.boxes)
        clipped = boxes.clip(0, self.size)
        part = _area(clipped) / np.maximum(_area(boxes), 1e-6)
        kept = part >= KEPT
        unsure = ~kept & (part > 0)
        asked = self._phrases(item, kept, rng)  # text -> which regions it names; None where it is not there at all
        names = np.zeros((len(boxes), len(asked)), bool)
        presence = torch.zeros(len(asked))
        for column, named in enumerate(asked.values()):
            if named is not None:
                names[:, column] = named
                presence[column] = 1
        merged_boxes, merged_names = _merge(clipped[kept], names[kept])
        target = Target(
            torch.from_numpy(merged_boxes), torch.from_numpy(merged_names),
            torch.from_numpy(clipped[unsure]), torch.from_numpy(names[unsure]), presence,
        )  # fmt: skip
        return tuple(asked), target

    def _phrases(self, item: Item, kept: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray | None]:
        """The phrases to ask, in random order."""
        limit = self.settings["phrases"]
        asked: dict[str, np.ndarray | None] = {}
        here = list(dict.fromkeys(concept for concept, is_kept in zip(item.concepts, kept, strict=True) if is_kept))
        for concept in rng.permutation(here)[: max(1, limit * 2 // 3)]:
            general = concept.partition("@")[0] if rng.random() < 0.25 else concept
            named = np.array([self.words.covers(general, other) for other in item.concepts])
            asked[self.words.wording(general, rng)] = named
        numbers = [number for number in np.flatnonzero(kept) if item.phrases[number]]
        if numbers and rng.random() < self.settings["specific"]:
            text = str(rng.choice(item.phrases[rng.choice(numbers)]))
            asked[text] = np.array([text in texts for texts in item.phrases])
        free = limit - len(asked)
        far = list(rng.permutation(self.words.elsewhere(item))[: min(self.settings["far_negatives"], free // 3)])
        near = list(rng.permutation(item.absent)[: free - len(far)])
        for concept in near + far:
            if not any(self.words.covers(concept, other) for other in item.concepts):
                asked.setdefault(self.words.wording(concept, rng), None)
        texts = list(asked)
        return {texts[place]: asked[texts[place]] for place in rng.permutation(len(texts))}


def _item(data: GroundingData, record: ImageRecord, matrix: Matrix) -> Item:
    specific = tuple(tuple(phrase.text for phrase in region.phrases if phrase.kind in SPECIFIC) for region in record.regions)
    concepts = tuple(region.concept for region in record.regions)
    has_sides = any("@" in concept for concept in (*concepts, *record.absent))
    return Item(
        data, record.id, record.origin.dataset, record.modality, matrix, (record.width, record.height),
        np.array([region.box_xyxy for region in record.regions], np.float32).reshape(-1, 4), concepts, specific,
        record.absent, record.modality in MIRRORED and not has_sides,
    )  # fmt: skip


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1)


def _merge(boxes: np.ndarray, names: np.ndarray, same: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
    """Boxes that are as good as equal (IoU of ``same``) become one box with all their names."""
    keep: list[int] = []
    names = names.copy()
    for number, box in enumerate(boxes):
        if keep:
            others = boxes[keep]
            shared = _area(np.hstack([np.maximum(others[:, :2], box[:2]), np.minimum(others[:, 2:], box[2:])]))
            iou = shared / (_area(others) + _area(box[None]) - shared)
            if iou.max() >= same:
                names[keep[int(iou.argmax())]] |= names[number]
                continue
        keep.append(number)
    return boxes[keep], names[keep]


def pad_target(target: Target, phrases: int, device: torch.device | str) -> Target:
    """The same truth for a prompt of ``phrases`` phrases, the added ones unknown, on a device."""
    more = phrases - len(target.presence)
    pad = torch.nn.functional.pad
    return Target(
        target.boxes.to(device), pad(target.names, (0, more)).to(device),
        target.unsure_boxes.to(device), pad(target.unsure_names, (0, more)).to(device),
        pad(target.presence, (0, more), value=-1.0).to(device),
    )  # fmt: skip
