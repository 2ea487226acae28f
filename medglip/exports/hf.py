"""A dataset as a Hugging Face dataset: Parquet files with the images inside, one set of files a split, and a card.

``image`` is the stored PNG, 8 or 16 bit, byte for byte, so what decodes is what medglip stored. A 16-bit image has a
``preview`` beside it, 8 bit through its display window, because a browser shows CT as stored nearly black. Knows
nothing of the hub: nothing is uploaded.
"""

import importlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medglip.errors import InputError
from medglip.exports.card import Tally, card_of
from medglip.exports.chosen import Choice, OnImage
from medglip.exports.stored import with_pngs
from medglip.imaging.intensity import display
from medglip.records.labels import LabelTree, label_tree
from medglip.records.record import ImageRecord, Region
from medglip.store.pixels import pixels_of_png, png_bytes
from medglip.store.read import Dataset

# The hub's viewer reads a page of 100 rows at a time, and large files slow it down.
GROUP_ROWS = 100
FILE_BYTES = 500 * 10**6
# How the hub calls our splits; `val` would do, but `validation` is what its scripts ask for.
SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test", "unassigned": "unassigned"}

_STRINGS = pa.list_(pa.string())
_NUMBERS = pa.list_(pa.float64())
_IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})

_OBJECT = pa.struct({
    "id": pa.string(), "label": pa.string(), "name": pa.string(), "laterality": pa.string(),
    # xyxy in pixels of the stored image, half-open: x1 is one past the last column
    "bbox": _NUMBERS,
    "phrases": _STRINGS, "phrase_kinds": _STRINGS,
    # COCO's compressed run-length code, column-major: size is (height, width)
    "mask": pa.struct({"size": pa.list_(pa.int32()), "counts": pa.string()}),
    "area_px": pa.int64(), "long_axis_mm": pa.float64(), "short_axis_mm": pa.float64(), "instance": pa.string(),
    "parents": _STRINGS, "attributes": pa.string(), "score": pa.float64(), "provenance": pa.string(), "flags": _STRINGS,
})  # fmt: skip
_TEXT = pa.struct({
    "text": pa.string(), "kind": pa.string(), "language": pa.string(),
    "spans": pa.list_(pa.struct({"start": pa.int32(), "end": pa.int32(), "regions": _STRINGS})),
    # of a text of kind question; empty in others
    "answer": pa.string(),
})  # fmt: skip
_COLUMNS = {
    "image": _IMAGE, "preview": _IMAGE, "id": pa.string(), "objects": pa.list_(_OBJECT), "texts": pa.list_(_TEXT),
    "absent": _STRINGS, "exhaustive": _STRINGS, "width": pa.int32(), "height": pa.int32(), "channels": pa.int32(),
    "bits": pa.int32(), "modality": pa.string(), "modality_detail": pa.string(), "body_region": pa.string(),
    "spacing_mm": _NUMBERS, "spacing_source": pa.string(), "affine_px_to_mm": _NUMBERS,
    "intensity": pa.struct({
        "unit": pa.string(), "slope": pa.float64(), "intercept": pa.float64(), "window": _NUMBERS, "inverted": pa.bool_(),
    }),
    "source": pa.string(), "case": pa.string(), "licence": pa.string(), "split": pa.string(), "split_source": pa.string(),
    "group": pa.string(), "patient": pa.string(), "sha256": pa.string(), "perceptual_hash": pa.string(), "flags": _STRINGS,
}  # fmt: skip


def write(dataset: Dataset, out: Path, choice: Choice, on_image: OnImage, *, file_bytes: int = FILE_BYTES) -> dict[str, int]:
    """Write OUT/data/SPLIT-NNNNN-of-NNNNN.parquet and OUT/README.md; ``datasets.load_dataset(OUT)`` reads them.

    Args:
        dataset: What to export.
        out: Empty folder.
        choice: Which images and regions.
        on_image: Called with the number of images done and their total.
        file_bytes: Size of image data at which a new file begins.

    Returns:
        ``images``, ``regions``, ``texts``, ``previews`` (of 16-bit images), ``files`` and ``regions_too_small``.

    Raises:
        InputError: nothing is chosen.
        ModuleNotFoundError: ``huggingface_hub`` is not installed.
    """
    importlib.import_module("huggingface_hub")  # writes the card in the end: if it is missing, that is said at once
    (out / "data").mkdir()
    tree, total = label_tree(), choice.number(dataset)
    splits: dict[str, _Split] = {}
    tally = Tally()
    counts: Counter = Counter(dict.fromkeys(("images", "regions", "texts", "previews"), 0))
    for record, png in with_pngs(dataset, choice.records(dataset, counts)):
        split = splits.setdefault(record.split, _Split(out / "data", SPLIT_NAMES[record.split], file_bytes))
        split.add(_row(record, png, tree))
        tally.add(record, split.name)
        counts.update(images=1, regions=len(record.regions), texts=len(record.texts), previews=record.bits == 16)
        on_image(counts["images"], total)
    if not splits:
        raise InputError(f"Export to hf: found no image of {dataset!r} to write; choose another split.")
    files = [file for split in splits.values() for file in split.close()]
    (out / "README.md").write_text(card_of(dataset, tally), encoding="utf-8")
    return {**counts, "files": len(files)}


def schema() -> pa.Schema:
    """Columns of the Parquet files, with the features that tell Hugging Face's readers which of them are images."""
    features = {name: _feature(kind) for name, kind in _COLUMNS.items()}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema(list(_COLUMNS.items()), metadata=metadata)


def _feature(kind: pa.DataType) -> Any:
    """A column's type as Hugging Face writes it.

    The older spellings (``Sequence``, and brackets around the fields of a nested row) are taken: every release reads them.
    """
    if kind == _IMAGE:
        return {"_type": "Image"}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    if pa.types.is_list(kind):
        inner = _feature(kind.value_type)
        return [inner] if pa.types.is_struct(kind.value_type) else {"feature": inner, "_type": "Sequence"}
    return {"dtype": {"double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}


def _row(record: ImageRecord, png: bytes, tree: LabelTree) -> dict[str, Any]:
    plain = ("id", "width", "height", "channels", "bits", "modality", "body_region", "spacing_source", "licence", "split",
             "split_source", "group", "sha256", "perceptual_hash")  # fmt: skip
    lists = ("absent", "exhaustive", "spacing_mm", "affine_px_to_mm", "flags")
    intensity = record.intensity
    return {
        **{name: getattr(record, name) for name in (*plain, *lists)},
        "image": {"bytes": png, "path": f"{record.id}.png"},
        "preview": _preview(record, png),
        "objects": [_object(region, tree) for region in record.regions],
        "texts": [
            {
                "text": text.text, "kind": text.kind, "language": text.language,
                "spans": [{"start": span.start, "end": span.end, "regions": span.regions} for span in text.spans],
                "answer": text.answer,
            }
            for text in record.texts
        ],
        "modality_detail": json.dumps(record.modality_detail, sort_keys=True, ensure_ascii=False),
        "intensity": {
            "unit": intensity.unit, "slope": intensity.slope, "intercept": intensity.intercept,
            "window": intensity.window, "inverted": intensity.inverted,
        },
        "source": record.origin.dataset, "case": record.origin.case, "patient": record.keys.patient,
    }  # fmt: skip


def _preview(record: ImageRecord, png: bytes) -> dict[str, Any] | None:
    if record.bits == 8:
        return None
    shown = display(pixels_of_png(png, f"Image {record.id!r}"), record.intensity)
    return {"bytes": png_bytes(shown), "path": f"{record.id}-preview.png"}


def _object(region: Region, tree: LabelTree) -> dict[str, Any]:
    plain = (
        "id",
        "label",
        "laterality",
        "long_axis_mm",
        "short_axis_mm",
        "instance",
        "parents",
        "score",
        "provenance",
        "flags",
    )
    return {
        **{name: getattr(region, name) for name in plain},
        "name": tree.concept_name(region.concept) if region.label in tree else region.label,
        "bbox": region.box_xyxy,
        "phrases": [phrase.text for phrase in region.phrases],
        "phrase_kinds": [phrase.kind for phrase in region.phrases],
        "mask": region.mask and {"size": region.mask.size_hw, "counts": region.mask.counts},
        "area_px": region.mask and region.mask.area,
        "attributes": json.dumps(region.attributes, sort_keys=True, ensure_ascii=False),
    }


class _Split:
    """The Parquet files of one split while they grow; how many they are, and so their names, is known at the end."""

    def __init__(self, folder: Path, name: str, limit: int) -> None:
        self.name = name
        self._folder, self._limit = folder, limit
        self._schema = schema()
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0
        self._drafts: list[Path] = []
        self._writer: pq.ParquetWriter | None = None

    def add(self, row: dict[str, Any]) -> None:
        """Append an image."""
        self._rows.append(row)
        self._bytes += len(row["image"]["bytes"]) + len((row["preview"] or {}).get("bytes", b""))
        if len(self._rows) >= GROUP_ROWS or self._bytes >= self._limit:
            self._flush()
        if self._bytes >= self._limit:
            self._end_file()

    def close(self) -> list[Path]:
        """Finish the files and give them their names."""
        self._flush()
        self._end_file()
        names = [f"{self.name}-{number:05d}-of-{len(self._drafts):05d}.parquet" for number in range(len(self._drafts))]
        return [draft.rename(self._folder / name) for draft, name in zip(self._drafts, names, strict=True)]

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._writer is None:
            self._drafts.append(self._folder / f"{self.name}-{len(self._drafts):05d}.draft")
            # PNGs are compressed already and never repeat
            self._writer = pq.ParquetWriter(
                self._drafts[-1], self._schema, compression="zstd", use_dictionary=["modality", "source", "licence", "split"],
                write_page_index=True,
            )  # fmt: skip
        self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._rows.clear()

    def _end_file(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._bytes = None, 0
