"""Views of a dataset: images whose licence lets weights be passed on, and images without held-out labels. Writes nothing."""

import copy
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np

from medglip.records.labels import LabelTree, label_tree
from medglip.records.licences import allows_derived_weights
from medglip.records.phrases import concept_phrases
from medglip.records.record import ImageRecord, Region, Text

_ABBREVIATION = 3  # letters at most
Change = Callable[[ImageRecord], ImageRecord | None]


class Viewed(Protocol):
    """What a view is made of: an open dataset, a divided one, or another view."""

    manifest: dict[str, Any]

    def records(self, split: str | None = None) -> Iterator[ImageRecord]:
        """The images of a split, or all."""

    def display(self, image: str) -> np.ndarray:
        """Windowed uint8 pixels."""

    def pixels(self, image: str) -> np.ndarray:
        """Pixels as stored."""


class View:
    """The images of a dataset that are kept, as they are seen; training and evaluation take it as they take a dataset.

    Args:
        data: The dataset.
        change: Of each image what is seen of it, or None where it is left out; of the top level of a module, so that a view
            can be handed to other processes.
        manifest: Instead of the dataset's own.
        moves: ``change`` may put an image into another split.

    Attributes:
        manifest: Parts and facts of the dataset; its counts are those of the whole dataset.
    """

    def __init__(self, data: Viewed, change: Change, manifest: dict[str, Any] | None = None, moves: bool = False) -> None:
        self.data, self._change, self._moves = data, change, moves
        self.manifest = data.manifest if manifest is None else manifest

    def __len__(self) -> int:
        """Number of images."""
        return len(self._split)

    def records(self, split: str | None = None) -> Iterator[ImageRecord]:
        """The images that are kept, of a split or all, in the order of the dataset."""
        for record in self.data.records(None if self._moves else split):
            seen = self._change(record)
            if seen is not None and split in (None, seen.split):
                yield seen

    def ids(self, split: str | None = None) -> list[str]:
        """Their ids."""
        return [image for image, own in self._split.items() if split in (None, own)]

    def display(self, image: str) -> np.ndarray:
        """Windowed uint8 pixels of an image."""
        return self.data.display(image)

    def pixels(self, image: str) -> np.ndarray:
        """Pixels as stored."""
        return self.data.pixels(image)

    @cached_property
    def _split(self) -> dict[str, str]:
        return {record.id: record.split for record in self.records()}


def redistributable(data: Viewed, sources: Collection[str] | None = None) -> View:
    """Only the images whose own licence lets weights that were trained on them be passed on.

    Args:
        data: The dataset.
        sources: Only images of these sources; None for all.
    """
    return View(data, partial(_if_open, sources=None if sources is None else frozenset(sources)))


def _if_open(record: ImageRecord, sources: frozenset[str] | None) -> ImageRecord | None:
    right = allows_derived_weights(record.licence) and (sources is None or record.origin.dataset in sources)
    return record if right else None


class HeldOut:
    """Labels that training must not hear of: themselves and all kinds of them.

    Args:
        labels: Ids of the label tree.
        tree: The label tree.
    """

    def __init__(self, labels: Collection[str], tree: LabelTree | None = None) -> None:
        self.tree = tree or label_tree()
        self.kinds = frozenset(label.id for label in self.tree if any(self.tree.covers(held, label.id) for held in labels))
        words = {phrase.text.lower() for kind in self.kinds for phrase in concept_phrases(kind, self.tree)}
        words |= {self.tree[kind].plural.lower() for kind in self.kinds} - {""}
        longest = sorted(words, key=len, reverse=True)
        # Short words are abbreviations, and words of their own in other languages ("LA"): only in capitals they count.
        ways = [f"(?i:{re.escape(word)})" if len(word) > _ABBREVIATION else re.escape(word.upper()) for word in longest]
        self._said = re.compile(rf"\b(?:{'|'.join(ways)})\b") if ways else None

    def holds(self, concept: str) -> bool:
        """Whether a concept, with or without a side, is held out."""
        return concept.partition("@")[0] in self.kinds

    def says(self, text: str) -> bool:
        """Whether a text names one of them."""
        return self._said is not None and self._said.search(text) is not None

    def without(self, record: ImageRecord) -> ImageRecord:
        """The image as if nobody had looked for them: no region, no absence, no text that names one.

        A wider concept that a dropped region would have answered is no longer marked wherever it is, as its regions are not
        all there any more.
        """
        dropped = [region for region in record.regions if self.holds(region.concept)]
        kept = {region.id for region in record.regions} - {region.id for region in dropped}
        covers = self.tree.covers
        exhaustive = tuple(
            concept for concept in record.exhaustive
            if not self.holds(concept) and not any(covers(concept, region.concept) for region in dropped)
        )  # fmt: skip
        return replace(
            record,
            regions=tuple(self._silent(region, kept) for region in record.regions if not self.holds(region.concept)),
            absent=tuple(concept for concept in record.absent if not self.holds(concept)),
            exhaustive=exhaustive,
            texts=tuple(text for text in record.texts if not self._tells(text, kept)),
        )

    def only(self, record: ImageRecord) -> ImageRecord:
        """The image with what is known of them and of nothing else."""
        regions = tuple(replace(region, parents=()) for region in record.regions if self.holds(region.concept))
        absent, exhaustive = (tuple(filter(self.holds, concepts)) for concepts in (record.absent, record.exhaustive))
        return replace(record, regions=regions, absent=absent, exhaustive=exhaustive, texts=())

    def manifest_without(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """A manifest whose facts of the source x label matrix do not say that they are marked wherever they are."""
        changed = copy.deepcopy(dict(manifest))
        for part in changed["parts"].values():
            for facts in (facts for several in part.get("matrix", {}).values() for facts in several):
                if "exhaustive" in facts:
                    facts["exhaustive"] = [concept for concept in facts["exhaustive"] if not self.holds(concept)]
        return changed

    def _silent(self, region: Region, kept: set[str]) -> Region:
        phrases = tuple(phrase for phrase in region.phrases if not self.says(phrase.text))
        return replace(region, phrases=phrases, parents=tuple(parent for parent in region.parents if parent in kept))

    def _tells(self, text: Text, kept: set[str]) -> bool:
        cited = {region for span in text.spans for region in span.regions}
        return not cited <= kept or self.says(text.text) or self.says(text.answer)
