"""MDETR and GLIP: COCO-like JSON with a caption an image and, for each box, the characters that name it. Knows no masks.

Offsets are half-open and count Unicode characters, as Python does. Regions that one phrase names are one span with
several boxes.

Source: annotations of MDETR (Kamath et al., arXiv 2104.12763) as github.com/ashkamath/mdetr ``datasets/coco.py`` and
github.com/microsoft/GLIP ``maskrcnn_benchmark/data/datasets/modulated_coco.py`` read them.
"""

import re
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from medglip.exports.chosen import Choice, OnImage, area_px, picture_name, write_picture
from medglip.exports.coco import INFO, CocoFile, image_numbers
from medglip.records.captions import caption_of
from medglip.records.labels import LabelTree, label_tree
from medglip.records.record import ImageRecord, Text
from medglip.store.read import Dataset
from medglip.store.schema import Document

# What a box is follows from the words, so there is one category, as in the published files.
CATEGORIES = [{"supercategory": "object", "id": 1, "name": "object"}]


def write(dataset: Dataset, out: Path, choice: Choice, on_image: OnImage) -> dict[str, int]:
    """Write the chosen images as ``images/ID.png`` and one ``mdetr_<split>.json`` a split.

    Args:
        dataset: The dataset.
        out: Empty folder.
        choice: Which images and regions.
        on_image: Called as ``on_image(done, total)`` after each image.

    Returns:
        ``images``, ``regions``, ``stored_captions`` and ``template_captions``, ``negative_images`` (captions without a
        box), ``regions_too_small``.
    """
    tree, total = label_tree(), choice.number(dataset)
    counts = Counter(images=0, regions=0, stored_captions=0, template_captions=0, negative_images=0)
    numbers = image_numbers(dataset)
    (out / "images").mkdir()
    with ExitStack() as stack:
        files: dict[str, CocoFile] = {}
        for record in choice.records(dataset, counts):
            if record.split not in files:
                file = CocoFile(out / f"mdetr_{record.split}.json", INFO, CATEGORIES)
                files[record.split] = stack.enter_context(file)
            file, number, caption = files[record.split], numbers[record.id], grounded_text(record, tree)
            entries = annotations(record, caption)
            file.add(
                {**image_entry(record, caption, number), "license": file.licence(record.licence)},
                [{"id": place, "image_id": number, **entry} for place, entry in enumerate(entries, counts["regions"] + 1)],
            )
            write_picture(dataset, record, out / "images" / picture_name(record))
            counts.update(images=1, regions=len(entries), negative_images=not entries)
            counts["template_captions" if caption.kind == "template" else "stored_captions"] += 1
            on_image(counts["images"], total)
    return dict(counts)


def grounded_text(record: ImageRecord, tree: LabelTree) -> Text:
    """The first stored text that names every region of the image; a template where there is none."""
    ids = {region.id for region in record.regions}
    for text in record.texts:
        if ids and ids.issubset(region for span in text.spans for region in span.regions):
            return text
    return caption_of(record, tree)


def spans_of(caption: Text, region: str) -> list[list[int]]:
    """``[[start, end], ...]`` of the characters that name a region, in order."""
    return sorted([span.start, span.end] for span in caption.spans if region in span.regions)


def image_entry(record: ImageRecord, caption: Text, number: int) -> Document:
    """An image with its caption, what it asks of a phrase-grounding evaluation, and the words that name no box."""
    said = sorted({(span.start, span.end) for span in caption.spans})
    words = (match.span() for match in re.finditer(r"\w+(?:[-']\w+)*", caption.text))
    free = [[start, end] for start, end in words if not any(start < stop and begin < end for begin, stop in said)]
    return {
        "id": number, "file_name": picture_name(record), "width": record.width, "height": record.height,
        "original_img_id": number, "original_id": record.id, "sentence_id": 0, "dataset_name": record.origin.dataset,
        "caption": caption.text, "caption_kind": caption.kind, **({"answer": caption.answer} if caption.answer else {}),
        "tokens_negative": free, "tokens_positive_eval": [[list(span)] for span in said],
        "modality": record.modality, "split": record.split,
    }  # fmt: skip


def annotations(record: ImageRecord, caption: Text) -> list[Document]:
    """The boxes of an image with the characters that name them; the caller gives them ids."""
    entries = []
    for region in record.regions:
        x0, y0, x1, y1 = region.box_xyxy
        entries.append({
            "category_id": 1, "bbox": [x0, y0, x1 - x0, y1 - y0], "area": area_px(region), "iscrowd": 0, "isfinal": 1,
            "tokens_positive": spans_of(caption, region.id), "label_id": region.label, "concept": region.concept,
            "region_id": region.id,
        })  # fmt: skip
    return entries
