"""ODVG: one JSON line an image with its boxes by label and by phrase, for Open-GroundingDINO and MM-Grounding-DINO.

``<split>.jsonl`` has every image; read it with ``label_map.json`` for detection. ``<split>_grounded.jsonl`` has the images
with at least one region; read it without a label map for phrases: Open-GroundingDINO fails at an image without one.

Source: github.com/longzw1997/Open-GroundingDino ``data_format.md`` and ``datasets/odvg.py``;
github.com/open-mmlab/mmdetection ``mmdet/datasets/odvg.py``, which also needs ``tokens_positive``.
"""

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from medglip.exports.chosen import Choice, OnImage, categories, picture_name, write_picture
from medglip.exports.mdetr import grounded_text
from medglip.records.labels import Label, LabelTree, label_tree
from medglip.records.record import ImageRecord, Text
from medglip.store.read import Dataset
from medglip.store.schema import Document


def write(dataset: Dataset, out: Path, choice: Choice, on_image: OnImage) -> dict[str, int]:
    """Write the chosen images as ``images/ID.png``, their lines and the label map.

    Args:
        dataset: The dataset.
        out: Empty folder.
        choice: Which images and regions.
        on_image: Called as ``on_image(done, total)`` after each image.

    Returns:
        ``images``, ``regions``, ``labels``, ``negative_images`` (only in the file for detection), ``regions_too_small``.
    """
    tree, shown, total = label_tree(), categories(dataset), choice.number(dataset)
    counts = Counter(images=0, regions=0, labels=len(shown), negative_images=0)
    labels = {label.id: number for number, label in enumerate(shown)}
    (out / "images").mkdir()
    _write_label_map(out / "label_map.json", shown)
    with ExitStack() as stack:
        files: dict[str, TextIO] = {}
        for record in choice.records(dataset, counts):
            names = (
                (f"{record.split}.jsonl", f"{record.split}_grounded.jsonl") if record.regions else (f"{record.split}.jsonl",)
            )
            written = json.dumps(line(record, labels, tree), ensure_ascii=False, allow_nan=False)
            for name in names:
                if name not in files:
                    files[name] = stack.enter_context((out / name).open("w", encoding="utf-8"))
                files[name].write(f"{written}\n")
            write_picture(dataset, record, out / "images" / picture_name(record))
            counts.update(images=1, regions=len(record.regions), negative_images=not record.regions)
            on_image(counts["images"], total)
    return dict(counts)


def line(record: ImageRecord, labels: Mapping[str, int], tree: LabelTree) -> Document:
    """The line of an image: sizes in pixels, boxes as (x0, y0, x1, y1), one entry a box and phrase."""
    caption = grounded_text(record, tree)
    answer = {"answer": caption.answer} if caption.answer else {}
    instances = [
        {"bbox": list(region.box_xyxy), "label": labels[region.label], "category": tree[region.label].name,
         "label_id": region.label, "laterality": region.laterality, "region_id": region.id,
         "phrases": [{"text": phrase.text, "kind": phrase.kind} for phrase in region.phrases]}
        for region in record.regions
    ]  # fmt: skip
    return {
        "filename": picture_name(record), "height": record.height, "width": record.width,
        "detection": {"instances": instances},
        "grounding": {"caption": caption.text, "regions": _grounded(record, caption), "caption_kind": caption.kind,
                      **answer},
        "absent": list(record.absent), "exhaustive": list(record.exhaustive),
        "modality": record.modality, "split": record.split, "group": record.group, "licence": record.licence,
    }  # fmt: skip


def _grounded(record: ImageRecord, caption: Text) -> list[Document]:
    """One entry for each phrase and each box that it names; a phrase said twice has two spans."""
    boxes = {region.id: list(region.box_xyxy) for region in record.regions}
    said: dict[tuple[str, str], list[list[int]]] = {}
    for span in sorted(caption.spans, key=lambda span: span.start):
        for region in span.regions:
            said.setdefault((caption.text[span.start : span.end], region), []).append([span.start, span.end])
    return [
        {"bbox": boxes[region], "phrase": phrase, "tokens_positive": spans, "region_id": region}
        for (phrase, region), spans in said.items()
        if region in boxes
    ]


def _write_label_map(path: Path, labels: list[Label]) -> None:
    names = {str(number): label.name for number, label in enumerate(labels)}
    path.write_text(json.dumps(names, ensure_ascii=False) + "\n", encoding="utf-8")
