"""COCO: one ``instances_<split>.json`` a split, with masks as compressed run-length codes. Knows no captions.

Negatives are said as LVIS says them: an image without annotations stays; ``neg_category_ids`` were searched for and are
not there, ``not_exhaustive_category_ids`` are there and perhaps not all marked; of any other category nothing is known.

Source: COCO data format, https://cocodataset.org/#format-data; LVIS data format, https://www.lvisdataset.org/dataset
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from medglip import __version__
from medglip.exports.chosen import Choice, OnImage, area_px, both_sides, categories, picture_name, write_picture
from medglip.records.labels import Label, LabelTree, label_tree
from medglip.records.record import ImageRecord, Region
from medglip.store.read import Dataset
from medglip.store.schema import Document, document_of

PIXELS = "8-bit PNG: the stored pixels where these have 8 bits, else what the display window of the image shows"
# No date, so that equal datasets give equal bytes.
INFO = {
    "description": "exported by medglip", "version": __version__, "url": "", "contributor": "", "pixels": PIXELS,
    "licence": "see licences.json and the license of each image",
}  # fmt: skip
# What a record knows beyond COCO, given as it is, so that nothing but the depth of the pixels is lost on the way back.
RECORD_KEYS = ("group", "keys", "split_source", "modality_detail", "body_region", "affine_px_to_mm", "spacing_mm",
               "spacing_source", "origin", "absent", "exhaustive", "texts", "flags")  # fmt: skip
REGION_KEYS = ("laterality", "phrases", "attributes", "instance", "parents", "provenance", "flags", "score",
               "long_axis_mm", "short_axis_mm")  # fmt: skip


def write(dataset: Dataset, out: Path, choice: Choice, on_image: OnImage) -> dict[str, int]:
    """Write the chosen images as ``images/ID.png`` and one ``instances_<split>.json`` a split.

    Args:
        dataset: The dataset.
        out: Empty folder.
        choice: Which images and regions.
        on_image: Called as ``on_image(done, total)`` after each image.

    Returns:
        ``images``, ``regions``, ``masks``, ``categories``, ``negative_images`` (without a region), ``regions_too_small``.
    """
    tree, shown, total = label_tree(), categories(dataset), choice.number(dataset)
    counts = Counter(images=0, regions=0, masks=0, categories=len(shown), negative_images=0)
    images, labels = image_numbers(dataset), category_numbers(tree)
    (out / "images").mkdir()
    with ExitStack() as stack:
        files: dict[str, CocoFile] = {}
        for record in choice.records(dataset, counts):
            if record.split not in files:
                path = out / f"instances_{record.split}.json"
                files[record.split] = stack.enter_context(CocoFile(path, INFO, category_entries(shown, tree)))
            file, number = files[record.split], images[record.id]
            entries = (annotation(region, number, labels) for region in record.regions)
            file.add(
                image_entry(record, number, file, labels),
                [{"id": place, **entry} for place, entry in enumerate(entries, counts["regions"] + 1)],
            )
            write_picture(dataset, record, out / "images" / picture_name(record))
            counts.update(images=1, regions=len(record.regions), negative_images=not record.regions,
                          masks=sum(region.mask is not None for region in record.regions))  # fmt: skip
            on_image(counts["images"], total)
    return dict(counts)


class CocoFile:
    """A COCO file that is written as it grows: annotations at once, images in a file beside it until the end."""

    def __init__(self, path: Path, info: Mapping[str, Any], categories: Sequence[Document]) -> None:
        self._path, self._info, self._categories = path, info, categories
        self._licences: dict[str, int] = {}
        self._images, self._annotations = 0, 0

    def __enter__(self) -> Self:
        """Open both files."""
        self._aside = self._path.with_suffix(".images")
        self._image_file = self._aside.open("w", encoding="utf-8")
        self._file = self._path.open("w", encoding="utf-8")
        self._file.write('{"annotations": [')
        return self

    def licence(self, text: str) -> int:
        """Number of a licence in the file."""
        return self._licences.setdefault(text, len(self._licences) + 1)

    def add(self, image: Document, annotations: Sequence[Document]) -> None:
        """Add an image with its annotations."""
        self._image_file.write((",\n" if self._images else "\n") + _json(image))
        self._images += 1
        for entry in annotations:
            self._file.write((",\n" if self._annotations else "\n") + _json(entry))
            self._annotations += 1

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Add the images and all that is said once, unless something failed; close both files."""
        self._image_file.close()
        with self._file as file:
            if kind is None:
                file.write('\n],\n"images": [')
                with self._aside.open(encoding="utf-8") as aside:
                    while block := aside.read(1 << 20):
                        file.write(block)
                licences = [{"id": number, "name": text, "url": ""} for text, number in self._licences.items()]
                rest = {"categories": self._categories, "licenses": licences, "info": self._info}
                file.write("\n],\n" + ",\n".join(f'"{name}": {_json(value)}' for name, value in rest.items()) + "}\n")
        self._aside.unlink()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def image_numbers(dataset: Dataset) -> dict[str, int]:
    """COCO id of each image: its place in the dataset from 1, whatever is chosen of it."""
    return {image: number for number, image in enumerate(dataset.ids(), 1)}


def category_numbers(tree: LabelTree) -> dict[str, int]:
    """COCO id of each label: its place in the label tree from 1, the same for every dataset."""
    return {label.id: number for number, label in enumerate(tree, 1)}


def category_entries(labels: Sequence[Label], tree: LabelTree) -> list[Document]:
    """The categories of a file; the supercategory is the name of the label above, of a body region its own."""
    numbers = category_numbers(tree)
    return [
        {"id": numbers[label.id], "name": label.name, "label_id": label.id,
         "supercategory": tree[above[0]].name if (above := tree.ancestors(label.id)) else label.name}
        for label in labels
    ]  # fmt: skip


def image_entry(record: ImageRecord, number: int, file: CocoFile, numbers: Mapping[str, int]) -> Document:
    """An image as COCO and LVIS have it, and what the record knows beyond."""
    known = document_of(record)
    marked = {region.label for region in record.regions}
    absent = {concept.partition("@")[0] for concept in record.absent}
    return {
        "id": number, "file_name": picture_name(record), "width": record.width, "height": record.height,
        "license": file.licence(record.licence), "split": record.split, "modality": record.modality,
        "neg_category_ids": sorted(numbers[label] for label in absent - marked if both_sides(record.absent, label)),
        "not_exhaustive_category_ids": sorted(
            numbers[label] for label in marked if not both_sides(record.exhaustive, label)
        ),
        "medglip_id": record.id, "record": {name: known[name] for name in RECORD_KEYS},
    }  # fmt: skip


def annotation(region: Region, image: int, numbers: Mapping[str, int]) -> Document:
    """A region as COCO has it, and what it knows beyond; the caller gives it an id."""
    x0, y0, x1, y1 = region.box_xyxy
    known = document_of(region)
    mask = region.mask
    code = {"segmentation": {"size": list(mask.size_hw), "counts": mask.counts}} if mask else {}
    return {
        "image_id": image, "category_id": numbers[region.label], "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": area_px(region), "iscrowd": 0, **code, "label_id": region.label, "concept": region.concept,
        "region_id": region.id, **{name: known[name] for name in REGION_KEYS if known[name] is not None},
    }  # fmt: skip
