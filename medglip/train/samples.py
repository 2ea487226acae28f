"""From datasets to questions: images, views, their order, and the question about each. Knows no model.

What is asked of an image and what is true is decided in ``medglip.train.asking``.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from medglip.errors import DatasetError
from medglip.model.losses import Target
from medglip.model.prompt import Span
from medglip.model.view import View, fitted
from medglip.records.labels import LabelTree
from medglip.records.record import ImageRecord
from medglip.store.matrix import matrix_of
from medglip.train.asking import Asking, Known, Recipe, known_of
from medglip.train.augment import jittered
from medglip.train.vocabulary import Vocabulary

# A mirrored image of these is one of its kind, with left and right swapped; of the trunk and the head it is not.
MIRRORED = ("ultrasound", "endoscopy", "dermoscopy", "histopathology", "microscopy", "fundus")


class GroundingData(Protocol):
    """What training and evaluation read of a dataset (``medglip.store.Dataset`` has it)."""

    manifest: dict[str, Any]

    def records(self, split: str | None = None) -> Iterator[ImageRecord]:
        """The images of a split, or all."""

    def display(self, id: str) -> np.ndarray:  # noqa: A002  (the name in the store)
        """Windowed uint8 (H, W) or (H, W, 3)."""


class Item(NamedTuple):
    """What training keeps of one image: where it is, its (width, height) and what is known of it; no pixels."""

    data: GroundingData
    id: str
    size: tuple[int, int]
    known: Known

    @property
    def source(self) -> str:
        """Name of the source."""
        return self.known.source

    @property
    def modality(self) -> str:
        """One of ``medglip.records.MODALITIES``."""
        return self.known.modality


class Question(NamedTuple):
    """One image asked about phrases: ``image`` (3, S, S) uint8 or None where features are kept, and the truth.

    A phrase is a text, or a part of a caption.
    """

    key: tuple[int, int]
    image: Tensor | None
    phrases: tuple[str | Span, ...]
    target: Target
    modality: str | None


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
        ModelError: the settings ask for what cannot be.
    """

    def __init__(
        self, datasets: Sequence[GroundingData], split: str, tree: LabelTree, settings: dict[str, Any], size: int
    ) -> None:
        self.settings, self.size, self.seed = settings, size, int(settings["seed"])
        self._drawn: dict[int, np.ndarray] = {}
        self._room = settings["cache_mb"] * 2**18  # a quarter of what features may take
        recipe = Recipe.of(settings)
        self.items = [
            Item(data, record.id, (record.width, record.height), known_of(record, matrix, recipe.masks))
            for data, matrix in ((data, matrix_of(data)) for data in datasets)
            for record in data.records(split)
        ]
        self.items = [item for item in self.items if item.known.concepts or item.known.absent]
        if not self.items:
            raise DatasetError(f"No image of split {split!r} has a region or an absent label in the datasets given.")
        seen_in: dict[str, set[str]] = {}
        searched: set[str] = set()
        for item in self.items:
            for concept in item.known.concepts:
                seen_in.setdefault(concept, set()).add(item.modality)
            searched.update(item.known.absent, item.known.exhaustive)
        self.words = Vocabulary(tree, seen_in, searched)
        self.ask = Asking(self.words, recipe)

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
        rng = np.random.default_rng((self.seed, 2, number, view))
        # What is called by a side of its own, as the left ventricle is, has no other side to be swapped with.
        swappable = not self.words.names_side[self.words.numbers(item.known.concepts)].any()
        return jittered(*item.size, self.size, rng, item.modality in MIRRORED and swappable)

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
        phrases, target = self.ask(item.known, self.view(number, view), rng)
        if not phrases:  # all its regions were cut off and it has no absent label: ask about the whole image
            view = 0
            phrases, target = self.ask(item.known, self.view(number, view), rng)
        modality = None if rng.random() < self.settings["modality_dropout"] else item.modality
        image = self.image(number, view) if with_image else None
        return Question((number, view), image, phrases, target, modality)


def pad_target(target: Target, phrases: int, device: torch.device | str) -> Target:
    """The same truth for a prompt of ``phrases`` phrases, the added ones unknown, on a device."""
    more = phrases - len(target.presence)
    pad = torch.nn.functional.pad
    given = (target.parents, target.masks, target.mask_is_known)
    parents, masks, mask_is_known = (None if value is None else value.to(device) for value in given)
    return Target(
        target.boxes.to(device), pad(target.names, (0, more)).to(device),
        target.unsure_boxes.to(device), pad(target.unsure_names, (0, more)).to(device),
        pad(target.presence, (0, more), value=-1.0).to(device),
        None if target.concepts is None else pad(target.concepts, (0, more), value=-1).to(device),
        parents, masks, mask_is_known,
    )  # fmt: skip
