"""A dataset divided anew into training and test images, for sources too small for a split by hash. Writes nothing."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from medglip.records.record import ImageRecord
from medglip.store.read import Dataset


class Divided:
    """A dataset in which part of each source's groups are held out, by rank instead of by chance.

    A split by hash gives every group its place whatever else is there, which is right for a data set that grows; of a
    source of five patients it may hold out none. Here the groups of each source and modality are put in the order of their
    hash, and the first share of them, at least one of two, is the test split; where there are five or more the next share
    is for validation, and all others are for training.

    Args:
        dataset: What to divide.
        test: Share of the groups to hold out, in (0, 1).
        val: Share of the groups to choose thresholds on, in [0, 1).
    """

    def __init__(self, dataset: Dataset, test: float = 0.25, val: float = 0.1) -> None:
        self.dataset = dataset
        self.manifest = dataset.manifest
        self._split = _splits(dataset, test, val)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.dataset)

    def ids(self, split: str | None = None) -> list[str]:
        """Ids of all images or of one split (``train``, ``val``, ``test``), in the order of the dataset."""
        return [image for image in self.dataset.ids() if split in (None, self._split[image])]

    def records(self, split: str | None = None) -> Iterator[ImageRecord]:
        """All images or those of one split; each record's ``split`` is the new one."""
        for record in self.dataset.records():
            if split in (None, self._split[record.id]):
                yield replace(record, split=self._split[record.id], split_source="hash")

    def record(self, image: str) -> ImageRecord:
        """The image of that id."""
        return replace(self.dataset.record(image), split=self._split[image], split_source="hash")

    def pixels(self, image: str) -> np.ndarray:
        """Pixels as stored."""
        return self.dataset.pixels(image)

    def display(self, image: str) -> np.ndarray:
        """Windowed uint8 pixels."""
        return self.dataset.display(image)


def _splits(dataset: Dataset, test: float, val: float) -> dict[str, str]:
    images = dataset.table("images", ["id", "dataset", "modality", "group"])
    place: dict[str, str] = {}
    for _, rows in images.groupby(["dataset", "modality"], sort=True):
        groups = sorted(set(rows["group"]), key=lambda group: hashlib.sha256(group.encode()).digest())
        tested = max(1, round(test * len(groups))) if len(groups) > 1 else 0
        judged = max(1, round(val * len(groups))) if val and len(groups) > 4 else 0
        for rank, group in enumerate(groups):
            place.setdefault(group, "test" if rank < tested else "val" if rank < tested + judged else "train")
    return dict(zip(images["id"], images["group"].map(place), strict=True))
