"""What of a dataset goes into an export, and how its pictures and categories are given there. Knows no format."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path

import numpy as np
import pandas as pd

from medglip.errors import DatasetError, InputError
from medglip.records.labels import Label, LabelTree, label_tree
from medglip.records.record import ImageRecord, Region, Text
from medglip.store.pixels import png_bytes
from medglip.store.read import Dataset

OnImage = Callable[[int, int], None]


@dataclass(frozen=True)
class Choice:
    """Which images and regions are exported.

    Attributes:
        split: Only this split; None for all.
        min_side_px: Regions whose box has a shorter side than this are left out.
        min_area_px: Regions with fewer pixels (of the mask; of the box where there is no mask) are left out.
        without_flags: Images with any of these flags are left out.
    """

    split: str | None = None
    min_side_px: float = 0.0
    min_area_px: float = 0.0
    without_flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check."""
        for name in ("min_side_px", "min_area_px"):
            value = getattr(self, name)
            if not (isfinite(value) and value >= 0):
                raise InputError(f"Export {name}: found {value!r}; allowed: a number of pixels, 0 or more.")

    def number(self, dataset: Dataset) -> int:
        """Number of images that are exported."""
        return len(self.images(dataset)) if self.without_flags else len(dataset.ids(self.split))

    def images(self, dataset: Dataset) -> pd.DataFrame:
        """The images that are exported, in their order, with what decides who may have them.

        Returns:
            Columns ``id``, ``dataset``, ``licence`` and ``flags``.
        """
        table = dataset.table("images", ["id", "dataset", "licence", "split", "flags"])
        chosen = table if self.split is None else table[table["split"] == self.split]
        flagged = [bool(set(self.without_flags).intersection(flags)) for flags in chosen["flags"]]
        return chosen[~np.array(flagged, bool)].drop(columns="split")

    def records(self, dataset: Dataset, left_out: Counter[str] | None = None) -> Iterator[ImageRecord]:
        """The images in the order of the dataset, without the regions that are too small.

        An image stays when all its regions are left out. The concept of a region that is left out is no longer among
        the image's ``exhaustive`` ones, because the image now shows it without a region.

        Args:
            dataset: The dataset.
            left_out: Counts ``regions_too_small`` and ``images_flagged`` as the images are taken, or None.
        """
        tree = label_tree()
        for record in dataset.records(self.split):
            if self.without_flags and not set(self.without_flags).isdisjoint(record.flags):
                if left_out is not None:
                    left_out["images_flagged"] += 1
                continue
            kept = tuple(region for region in record.regions if self.takes(region))
            if len(kept) == len(record.regions):
                yield record
                continue
            if left_out is not None:
                left_out["regions_too_small"] += len(record.regions) - len(kept)
            yield _without(record, kept, tree)

    def takes(self, region: Region) -> bool:
        """True where the region is large enough."""
        x0, y0, x1, y1 = region.box_xyxy
        if min(x1 - x0, y1 - y0) < self.min_side_px:
            return False
        return self.min_area_px <= 0 or area_px(region) >= self.min_area_px


def area_px(region: Region) -> float:
    """Pixels of a region's mask, or of its box where it has none."""
    x0, y0, x1, y1 = region.box_xyxy
    return float(region.mask.area) if region.mask else (x1 - x0) * (y1 - y0)


def categories(dataset: Dataset) -> list[Label]:
    """Labels that the dataset shows or was searched for, in the order of the label tree, whatever is chosen of it.

    Raises:
        DatasetError: the dataset has a label that the tree of this installation lacks.
    """
    tree, used = label_tree(), set(dataset.manifest["counts"].get("labels", {}))
    if unknown := sorted(label for label in used if label not in tree):
        raise DatasetError(
            f"{dataset!r}: found the label {unknown[0]!r}, which is not in schemas/labels.toml; allowed: its ids; use the"
            " medglip that wrote the dataset, or convert again."
        )
    return [label for label in tree if label.id in used]


def picture_name(record: ImageRecord) -> str:
    """File name of an image in an export."""
    return f"{record.id}.png"


def write_picture(dataset: Dataset, record: ImageRecord, path: Path) -> None:
    """Write an image as an 8-bit PNG: the stored pixels where they have 8 bits, else what the image's window shows."""
    pixels = dataset.pixels(record.id) if record.bits == 8 else dataset.display(record.id)
    path.write_bytes(png_bytes(pixels))


def both_sides(concepts: tuple[str, ...], label: str) -> bool:
    """True where concepts speak of a label as a whole: by itself, or by its left and its right."""
    return label in concepts or {f"{label}@left", f"{label}@right"}.issubset(concepts)


def _without(record: ImageRecord, kept: tuple[Region, ...], tree: LabelTree) -> ImageRecord:
    """The record with some of its regions only, and nothing in it that speaks of the others."""
    ids = {region.id for region in kept}
    gone = {region.concept for region in record.regions if region.id not in ids}
    sure = [c for c in record.exhaustive if not any(tree.covers(c, g) or tree.covers(g, c) for g in gone)]
    regions = tuple(replace(region, parents=tuple(p for p in region.parents if p in ids)) for region in kept)
    texts = tuple(_known_spans(text, ids) for text in record.texts)
    return replace(record, regions=regions, exhaustive=tuple(sure), texts=texts)


def _known_spans(text: Text, ids: set[str]) -> Text:
    spans = ((span, tuple(region for region in span.regions if region in ids)) for span in text.spans)
    return replace(text, spans=tuple(replace(span, regions=regions) for span, regions in spans if regions))
