"""From datasets to questions: images, views, their order, and the question about each. Knows no model.

What is asked of an image and what is true is decided in ``medglip.train.asking``, which image comes when in
``medglip.train.sampling``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from medglip.errors import DatasetError
from medglip.imaging.intensity import Window
from medglip.model.losses import Target
from medglip.model.prompt import Span
from medglip.model.view import View, fitted
from medglip.records.labels import LabelTree
from medglip.records.record import ImageRecord
from medglip.store.matrix import matrix_of
from medglip.train.asking import Asking, Known, Recipe, known_of
from medglip.train.augment import Augmentation, jittered, part_shown
from medglip.train.intensity import Intensity, jittered_window
from medglip.train.pasting import Graft, Lesion, Pasting, Picture, grafted, lesions_of, pasted
from medglip.train.sampling import Balance, Errors, Visits, few_shot
from medglip.train.vocabulary import Vocabulary

# A mirrored image of these is one of its kind, with left and right swapped; of the trunk and the head it is not.
MIRRORED = ("ultrasound", "endoscopy", "dermoscopy", "histopathology", "microscopy", "fundus")
MEASURED = ("ct", "pet")  # their grey values are a measure, so that what is pasted keeps its own


class GroundingData(Protocol):
    """What training and evaluation read of a dataset (``medglip.store.Dataset`` has it)."""

    manifest: dict[str, Any]

    def records(self, split: str | None = None) -> Iterator[ImageRecord]:
        """The images of a split, or all."""

    def display(self, id: str, /) -> np.ndarray:  # noqa: A002  (the name in the store)
        """Windowed uint8 (H, W) or (H, W, 3)."""


class Windowed(Protocol):
    """A dataset of images with 16 bits in HU: these are shown through any window."""

    def display(self, id: str, window: Window | None, /) -> np.ndarray:  # noqa: A002
        """Uint8 (H, W) through (low, high) in HU, or through the record's window."""


class Item(NamedTuple):
    """What training keeps of one image; no pixels.

    Attributes:
        data: Where it is.
        id: Its name there.
        size: (width, height).
        known: What is known of it.
        spacing: (row, column) mm a pixel; None where that is not calibrated.
        window: (low, high) in HU of an image stored in HU with 16 bits; None of any other.
        lesions: What of it can be pasted.
    """

    data: GroundingData
    id: str
    size: tuple[int, int]
    known: Known
    spacing: tuple[float, float] | None = None
    window: Window | None = None
    lesions: tuple[Lesion, ...] = ()

    @property
    def source(self) -> str:
        """Name of the source."""
        return self.known.source

    @property
    def modality(self) -> str:
        """One of ``medglip.records.MODALITIES``."""
        return self.known.modality


class Key(NamedTuple):
    """Which pixels: the number of the image, its view, the side of the canvas in pixels."""

    number: int
    view: int
    canvas: int


class Question(NamedTuple):
    """One image asked about phrases: ``image`` (3, S, S) uint8 or None where features are kept, and the truth.

    A phrase is a text, or a part of a caption.
    """

    key: Key
    image: Tensor | None
    phrases: tuple[str | Span, ...]
    target: Target
    modality: str | None


class Samples:
    """The images of a split as questions; every question is a function of (seed, image, epoch, canvas).

    Args:
        datasets: Where the images are.
        split: ``train``, ``val`` or ``test``.
        tree: The label tree.
        settings: The ``train`` section of a configuration.
        size: Side of the canvas in pixels where ``sizes`` names none.
        replay: Datasets of an earlier training, visited as the share ``replay`` of the settings says.

    Attributes:
        items: The images, those replayed last.
        words: Their concepts.
        trained: What a checkpoint should say of them, plain values.

    Raises:
        DatasetError: no image of the split has a region or an absent concept.
        ModelError: the settings ask for what cannot be.
    """

    def __init__(
        self, datasets: Sequence[GroundingData], split: str, tree: LabelTree, settings: dict[str, Any], size: int,
        replay: Sequence[GroundingData] = (),
    ) -> None:  # fmt: skip
        self.settings, self.size, self.seed = settings, size, int(settings["seed"])
        self._drawn: dict[int, np.ndarray] = {}
        self._room = settings["cache_mb"] * 2**18  # a quarter of what features may take
        recipe, balance, self.augment = Recipe.of(settings), Balance.of(settings), Augmentation.of(settings)
        self._largest = max(self.augment.sizes, default=size)
        own = self._items(datasets, split, tree, recipe)
        again = self._items(replay, split, tree, recipe)
        if not own:
            raise DatasetError(f"No image of split {split!r} has a region or an absent label in the datasets given.")
        found = len(own)
        if balance.shots:
            own = [own[number] for number in few_shot([item.known for item in own], balance.shots, self.seed)]
        self.items = own + again
        seen_in: dict[str, set[str]] = {}
        searched: set[str] = set()
        for item in self.items:
            for concept in item.known.concepts:
                seen_in.setdefault(concept, set()).add(item.modality)
            searched.update(item.known.absent, item.known.exhaustive)
        self.words = Vocabulary(tree, seen_in, searched)
        self.ask = Asking(self.words, recipe)
        self.visits = Visits([item.known for item in self.items], balance, self.words, self.seed, len(again))
        pictures = [Picture(item.known, item.size, item.spacing, item.lesions) for item in self.items]
        self._pasting = Pasting(pictures, self.words) if self.augment.paste else None
        self._intensity = Intensity(self.augment.intensity) if self.augment.intensity else None
        self.trained = {"images": len(own), "sources": sorted({item.source for item in own})}
        if balance.shots:
            self.trained |= {"shots": balance.shots, "images_before_shots": found}
        if again:
            self.trained |= {"replayed": len(again), "replayed_sources": sorted({item.source for item in again})}

    def __len__(self) -> int:
        return len(self.items)

    def _items(
        self, datasets: Sequence[GroundingData], split: str, tree: LabelTree, recipe: Recipe
    ) -> list[Item]:  # fmt: skip
        items = []
        for data, matrix in ((data, matrix_of(data)) for data in datasets):
            for record in data.records(split):
                known = known_of(record, matrix, recipe.masks or self.augment.paste > 0)
                if known.concepts or known.absent:
                    spacing = None if "spacing_uncalibrated" in record.flags else record.spacing_mm
                    window = record.intensity.window if record.intensity.unit == "HU" and record.bits == 16 else None
                    lesions = lesions_of(record, tree) if self.augment.paste else ()
                    items.append(Item(data, record.id, (record.width, record.height), known, spacing, window, lesions))
        return items

    def order(self, epoch: int, step: int = 0) -> np.ndarray:
        """Image numbers of one epoch that begins at a step, shuffled (``medglip.train.sampling.Visits.order``)."""
        return self.visits.order(epoch, step)

    def canvas(self, step: int, epoch: int) -> int:
        """Side of the canvas of a batch, in pixels.

        Drawn for each step; with fixed views, whose features are kept, it belongs to the view, and ``epoch`` says which.
        """
        sizes, views = self.augment.sizes, self.settings["views"]
        if not sizes:
            return self.size
        if views:
            return sizes[(self.seed + epoch % views) % len(sizes)]
        return sizes[np.random.default_rng((self.seed, 5, step)).integers(len(sizes))]

    def batches(self, size: int, first: int = 0) -> Iterator[list[Key]]:
        """(image, epoch, canvas) of each step from ``first`` on, ``size`` at a time, without end; for ``question``."""
        for step, places in enumerate(self.visits.batches(size, first), first):
            canvas = self.canvas(step, places[0][1])
            yield [Key(number, epoch, canvas) for number, epoch in places]

    def reweigh(self, step: int, errors: Errors) -> None:
        """Let errors, 0 to 1 by source and concept, count from a step on; ``batches`` must be begun again from it."""
        self.visits.reweigh(step, errors)

    def state(self) -> dict[str, Any]:
        """What ``restore`` needs to give the same order, plain values."""
        return self.visits.state()

    def restore(self, state: dict[str, Any]) -> None:
        """The order as it was when ``state`` was taken; an empty one is that of the beginning."""
        self.visits.restore(state)

    def view(self, number: int, view: int, canvas: int = 0) -> View:
        """View ``view`` of an image; 0 is the whole image as evaluation sees it. ``canvas`` 0 is the usual size."""
        item, canvas = self.items[number], canvas or self.size
        if view == 0:
            return fitted(*item.size, canvas)
        rng = np.random.default_rng((self.seed, 2, number, view))
        # What is called by a side of its own, as the left ventricle is, has no other side to be swapped with.
        swappable = not self.words.names_side[self.words.numbers(item.known.concepts)].any()
        return jittered(*item.size, canvas, rng, item.modality in MIRRORED and swappable, self.augment.zoom)

    def image(self, number: int, view: int, canvas: int = 0) -> Tensor:
        """(3, S, S) uint8."""
        return self._image(number, view, canvas, self._graft(number, view))

    def question(self, number: int, epoch: int, with_image: bool = True, canvas: int = 0) -> Question:
        """The question about an image in an epoch; without its pixels where the caller may have their features."""
        views, canvas = self.settings["views"], canvas or self.size
        view = epoch % views if views else epoch
        rng = np.random.default_rng((self.seed, 3, number, epoch))
        item, graft = self.items[number], self._graft(number, view)
        known = item.known if graft is None else grafted(item.known, graft, item.size, self.words)
        phrases, target = self.ask(known, self.view(number, view, canvas), rng)
        if not phrases:  # all its regions were cut off and it has no absent label: ask about the whole image
            view, graft = 0, None
            phrases, target = self.ask(item.known, self.view(number, view, canvas), rng)
        modality = None if rng.random() < self.settings["modality_dropout"] else item.modality
        image = self._image(number, view, canvas, graft) if with_image else None
        return Question(Key(number, view, canvas), image, phrases, target, modality)

    def _graft(self, number: int, view: int) -> Graft | None:
        """What is pasted into a view of an image; nothing into view 0."""
        rng = np.random.default_rng((self.seed, 6, number, view))
        if self._pasting is None or view == 0 or rng.random() >= self.augment.paste:
            return None
        return self._pasting.graft(number, rng)

    def _image(self, number: int, view: int, canvas: int, graft: Graft | None) -> Tensor:
        item, how = self.items[number], self.view(number, view, canvas)
        pixels = self._pixels(number, view, graft)
        shrunk = pixels.shape[1] / item.size[0], pixels.shape[0] / item.size[1]
        drawn = replace(how, scale=(how.scale[0] / shrunk[0], how.scale[1] / shrunk[1])).draw(pixels)
        if self._intensity is not None and view:
            rng = np.random.default_rng((self.seed, 8, number, view))
            drawn = self._intensity(drawn, item.modality, rng, part_shown(*item.size, how))
        return torch.from_numpy(drawn)

    def _pixels(self, number: int, view: int, graft: Graft | None) -> np.ndarray:
        """The image, shrunk by a whole factor where it is far larger than the canvas; remembered while there is room."""
        item = self.items[number]
        window = item.window if self.augment.window_jitter and view else None
        if window is not None:
            rng = np.random.default_rng((self.seed, 7, number, view))
            window = jittered_window(window, self.augment.window_jitter, rng)
        is_plain = window is None and graft is None
        if is_plain and number in self._drawn:
            return self._drawn[number]
        pixels = _shown(item, window)
        if graft is not None:
            follow = item.modality not in MEASURED
            pixels = pasted(pixels, _shown(self.items[graft.donor], window), graft, follow)
        factor = int(min(item.size) // (2 * self._largest))  # twice the canvas is left, so that zooming in finds detail
        if factor > 1:
            pixels = np.asarray(Image.fromarray(pixels).reduce(factor))
        if is_plain and self.settings["views"] and pixels.nbytes <= self._room:
            self._drawn[number], self._room = pixels, self._room - pixels.nbytes
        return pixels


def _shown(item: Item, window: Window | None) -> np.ndarray:
    """An image as its record says, or through a window where it has one."""
    if window is None or item.window is None:
        return item.data.display(item.id)
    return cast(Windowed, item.data).display(item.id, window)


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
