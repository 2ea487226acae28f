"""The columns of a dataset's tables, and records as rows and as JSON documents. Knows no files and no pixels.

Five tables: ``images`` (one row an image, with the place of its PNG), ``regions`` and ``texts`` (in the order of their
images), ``volumes`` and ``rejects``. A *document* is a record as plain JSON: what ``schemas/record.schema.json``
describes.
"""

import json
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from medglip.errors import RecordError
from medglip.records.masks import Rle
from medglip.records.record import (
    ImageRecord,
    Instance,
    Intensity,
    Keys,
    Origin,
    Phrase,
    Region,
    Reject,
    Span,
    Text,
    VolumeRecord,
)

SCHEMA_VERSION = "2.1"

Row = dict[str, Any]
Document = dict[str, Any]

_STRINGS = pa.list_(pa.string())
_NUMBERS = pa.list_(pa.float64())


def _schema(required: dict[str, pa.DataType], optional: dict[str, pa.DataType]) -> pa.Schema:
    fields = [pa.field(name, kind, nullable=False) for name, kind in required.items()]
    return pa.schema(fields + [pa.field(name, kind) for name, kind in optional.items()])


# Origin and Keys, flat. In SQL, "case" and "group" need their quotation marks: they are words of the language.
_ORIGIN = {"dataset": pa.string(), "file": pa.string(), "case": pa.string()}
_ORIGIN_OPTIONAL = {"frame": pa.int32(), "axis": pa.string(), "slice": pa.int32()}
_KEYS = {"patient": pa.string(), "study": pa.string(), "series": pa.string()}

SCHEMAS: dict[str, pa.Schema] = {
    "images": _schema(
        {
            "id": pa.string(), "sha256": pa.string(), "perceptual_hash": pa.string(),
            # where the PNG lies: path in the dataset, first byte, bytes
            "shard": pa.string(), "tar_offset": pa.int64(), "tar_bytes": pa.int64(),
            "width": pa.int32(), "height": pa.int32(), "channels": pa.int8(), "bits": pa.int8(),
            "modality": pa.string(), "modality_detail": pa.string(), **_ORIGIN, "licence": pa.string(),
            "unit": pa.string(), "slope": pa.float64(), "intercept": pa.float64(),
            "window_low": pa.float64(), "window_high": pa.float64(), "inverted": pa.bool_(),
            "group": pa.string(), "split": pa.string(), "split_source": pa.string(),
            "absent": _STRINGS, "exhaustive": _STRINGS, "flags": _STRINGS,
            "n_regions": pa.int32(), "n_texts": pa.int32(),
        },
        {
            **_ORIGIN_OPTIONAL, **_KEYS, "body_region": pa.string(), "affine_px_to_mm": _NUMBERS,
            "row_mm": pa.float64(), "column_mm": pa.float64(), "spacing_source": pa.string(),
        },
    ),
    # dataset, modality, split, concept, width_mm, height_mm and area_px follow from other columns; they are here so
    # that the common questions need no join and no mask
    "regions": _schema(
        {
            "id": pa.string(), "image_id": pa.string(), "dataset": pa.string(), "modality": pa.string(),
            "split": pa.string(), "label": pa.string(), "concept": pa.string(),
            "x0": pa.float64(), "y0": pa.float64(), "x1": pa.float64(), "y1": pa.float64(),
            "phrases": _STRINGS, "phrase_kinds": _STRINGS, "attributes": pa.string(), "parents": _STRINGS,
            "provenance": pa.string(), "flags": _STRINGS,
        },
        {
            "laterality": pa.string(), "width_mm": pa.float64(), "height_mm": pa.float64(), "area_px": pa.int64(),
            "instance": pa.string(), "score": pa.float64(), "rle": pa.string(),
            "long_axis_mm": pa.float64(), "short_axis_mm": pa.float64(),
        },
    ),
    "texts": _schema(
        {
            "image_id": pa.string(), "dataset": pa.string(), "modality": pa.string(), "split": pa.string(),
            "text": pa.string(), "kind": pa.string(), "language": pa.string(),
            "spans": pa.list_(
                pa.struct({"start": pa.int32(), "end": pa.int32(), "regions": pa.list_(pa.string())})
            ),
            "answer": pa.string(),
        },
        {},
    ),
    "volumes": _schema(
        {
            "id": pa.string(), "modality": pa.string(), **_ORIGIN, "licence": pa.string(), "shape_k": pa.int32(),
            "shape_j": pa.int32(), "shape_i": pa.int32(), "checks": pa.string(),
            "instances": pa.list_(
                pa.struct(
                    {
                        "id": pa.string(), "label": pa.string(), "laterality": pa.string(),
                        "box_kji": pa.list_(pa.int32()), "volume_mm3": pa.float64(), "voxels": pa.int64(),
                        "box_mm": _NUMBERS,
                    }
                )
            ),
        },
        {
            **_ORIGIN_OPTIONAL, **_KEYS, "affine_ijk_to_mm": _NUMBERS, "k_mm": pa.float64(), "j_mm": pa.float64(),
            "i_mm": pa.float64(), "orientation": pa.string(),
        },
    ),
    "rejects": _schema({**_ORIGIN, "reason": pa.string(), "detail": pa.string()}, {}),
}  # fmt: skip

TABLES = tuple(SCHEMAS)

# Columns that a minor version added at the end of a table -> what they hold where the file is older (2.1: answer).
ADDED: dict[str, dict[str, str]] = {"texts": {"answer": ""}}


def stored_columns(table: str, columns: list[str], found: list[str]) -> list[str]:
    """What to read of a file for ``completed`` to give these columns: not those that the file is too old to have.

    Args:
        table: Name of the table.
        columns: The columns that are wanted.
        found: The columns of the file.
    """
    late = ADDED.get(table, {})
    kept = [column for column in columns if column in found or column not in late]
    return kept or found[:1]  # without any column the number of rows would be lost


def completed(table: str, rows: pa.Table, columns: list[str] | None = None) -> pa.Table:
    """Rows of a file with the columns that it is too old to have.

    Args:
        table: Name of the table.
        rows: What ``stored_columns`` said to read, or the whole file.
        columns: The columns that are wanted; all by default.
    """
    late = {
        column: value for column, value in ADDED.get(table, {}).items()
        if column not in rows.column_names and (columns is None or column in columns)
    }  # fmt: skip
    for column, value in late.items():
        field = SCHEMAS[table].field(column)
        rows = rows.append_column(field, pa.chunked_array([pa.repeat(pa.scalar(value, field.type), rows.num_rows)]))
    return rows.select(columns) if late and columns is not None else rows


def _json(who: str, values: dict) -> str:
    try:
        return json.dumps(values, sort_keys=True, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RecordError(
            f"{who}: found {values!r} ({error}); allowed: text, finite numbers and bool of plain Python; convert them."
        ) from error


def _origin_document(row: Row) -> Document:
    return {name: row[name] for name in (*_ORIGIN, *_ORIGIN_OPTIONAL)}


def image_row(record: ImageRecord, offset: int, size: int) -> Row:
    """The row of an image in the table ``images``, less ``shard``, which is known once the shard is complete.

    Args:
        record: The image.
        offset: First byte of its PNG in its shard.
        size: Bytes of the PNG.
    """
    plain = ("id", "sha256", "perceptual_hash", "width", "height", "channels", "bits", "modality", "licence", "group", "split",
             "split_source", "body_region", "spacing_source")  # fmt: skip
    lists = ("absent", "exhaustive", "flags", "affine_px_to_mm")
    row, column = record.spacing_mm or (None, None)
    low, high = record.intensity.window
    return {
        **{name: getattr(record, name) for name in (*plain, *lists)},
        **asdict(record.origin), **asdict(record.keys),
        "tar_offset": offset, "tar_bytes": size,
        "modality_detail": _json(f"Image {record.id!r} modality_detail", record.modality_detail),
        "unit": record.intensity.unit, "slope": record.intensity.slope, "intercept": record.intensity.intercept,
        "window_low": low, "window_high": high, "inverted": record.intensity.inverted,
        "row_mm": row, "column_mm": column, "n_regions": len(record.regions), "n_texts": len(record.texts),
    }  # fmt: skip


def region_rows(record: ImageRecord) -> list[Row]:
    """The rows of an image's regions in the table ``regions``."""
    plain = ("id", "label", "concept", "laterality", "parents", "provenance", "flags", "instance", "score",
             "long_axis_mm", "short_axis_mm")  # fmt: skip
    row_mm, column_mm = record.spacing_mm or (None, None)
    rows = []
    for region in record.regions:
        x0, y0, x1, y1 = region.box_xyxy
        rows.append({
            **{name: getattr(region, name) for name in plain},
            "image_id": record.id, "dataset": record.origin.dataset, "modality": record.modality, "split": record.split,
            "x0": x0, "y0": y0, "x1": x1, "y1": y1,
            "width_mm": None if column_mm is None else (x1 - x0) * column_mm,
            "height_mm": None if row_mm is None else (y1 - y0) * row_mm,
            "phrases": [phrase.text for phrase in region.phrases],
            "phrase_kinds": [phrase.kind for phrase in region.phrases],
            "attributes": _json(f"Region {region.id!r} attributes", region.attributes),
            "area_px": region.mask and region.mask.area, "rle": region.mask and region.mask.counts,
        })  # fmt: skip
    return rows


def text_rows(record: ImageRecord) -> list[Row]:
    """The rows of an image's texts in the table ``texts``."""
    shared = {
        "image_id": record.id, "dataset": record.origin.dataset, "modality": record.modality, "split": record.split,
    }  # fmt: skip
    return [{**shared, **asdict(text)} for text in record.texts]


def image_document(image: Row, regions: list[Row], texts: list[Row]) -> Document:
    """The JSON document of an image from its rows."""
    plain = ("id", "sha256", "perceptual_hash", "width", "height", "channels", "bits", "modality", "licence", "group", "split",
             "split_source", "body_region", "spacing_source", "absent", "exhaustive", "flags",
             "affine_px_to_mm")  # fmt: skip
    return {
        **{name: image[name] for name in plain},
        "origin": _origin_document(image),
        "modality_detail": json.loads(image["modality_detail"]),
        "spacing_mm": None if image["row_mm"] is None else [image["row_mm"], image["column_mm"]],
        "intensity": {
            **{name: image[name] for name in ("unit", "slope", "intercept", "inverted")},
            "window": [image["window_low"], image["window_high"]],
        },
        "keys": {name: image[name] for name in _KEYS},
        "regions": [_region_document(row, [image["height"], image["width"]]) for row in regions],
        "texts": [{name: row[name] for name in ("text", "kind", "language", "spans", "answer")} for row in texts],
    }


def _region_document(row: Row, size_hw: list[int]) -> Document:
    plain = ("id", "label", "laterality", "instance", "parents", "score", "provenance", "flags",
             "long_axis_mm", "short_axis_mm")  # fmt: skip
    return {
        **{name: row[name] for name in plain},
        "box_xyxy": [row[name] for name in ("x0", "y0", "x1", "y1")],
        "mask": None if row["rle"] is None else {"size_hw": size_hw, "counts": row["rle"]},
        "phrases": [{"text": text, "kind": kind} for text, kind in zip(row["phrases"], row["phrase_kinds"], strict=True)],
        "attributes": json.loads(row["attributes"]),
    }


def document_of(record: ImageRecord | VolumeRecord | Region) -> Document:
    """A record as plain JSON values; ``schemas/record.schema.json`` describes it."""
    return _listed(asdict(record))


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _listed(item) for name, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, (list, tuple)) else value


def _tuple(values: Any) -> Any:
    return None if values is None else tuple(values)


def region_of(document: Document) -> Region:
    """The region of a JSON document.

    Raises:
        RecordError: a value is not allowed.
    """
    mask = document["mask"]
    return Region(**{
        **document,
        "box_xyxy": tuple(document["box_xyxy"]),
        "mask": mask and Rle(tuple(mask["size_hw"]), mask["counts"]),
        "phrases": tuple(Phrase(**phrase) for phrase in document["phrases"]),
        "parents": tuple(document["parents"]),
        "flags": tuple(document["flags"]),
    })  # fmt: skip


def image_of(document: Document) -> ImageRecord:
    """The image of a JSON document.

    Raises:
        RecordError: a value is not allowed.
    """
    intensity = document["intensity"]
    return ImageRecord(**{
        **document,
        "origin": Origin(**document["origin"]),
        "affine_px_to_mm": _tuple(document["affine_px_to_mm"]),
        "spacing_mm": _tuple(document["spacing_mm"]),
        "intensity": Intensity(**{**intensity, "window": tuple(intensity["window"])}),
        "keys": Keys(**document["keys"]),
        "regions": tuple(region_of(region) for region in document["regions"]),
        "absent": tuple(document["absent"]),
        "exhaustive": tuple(document["exhaustive"]),
        "texts": tuple(_text_of(text) for text in document["texts"]),
        "flags": tuple(document["flags"]),
    })  # fmt: skip


def _text_of(document: Document) -> Text:
    spans = tuple(Span(span["start"], span["end"], tuple(span["regions"])) for span in document["spans"])
    return Text(**{**document, "spans": spans})


def volume_row(record: VolumeRecord) -> Row:
    """The row of a volume in the table ``volumes``."""
    plain = ("id", "modality", "licence", "affine_ijk_to_mm", "orientation")
    spacing = record.spacing_kji_mm or (None, None, None)
    return {
        **{name: getattr(record, name) for name in plain},
        **asdict(record.origin),
        **asdict(record.keys),
        **dict(zip(("shape_k", "shape_j", "shape_i"), record.shape_kji, strict=True)),
        **dict(zip(("k_mm", "j_mm", "i_mm"), spacing, strict=True)),
        "checks": _json(f"Volume {record.id!r} checks", record.checks),
        "instances": [asdict(instance) for instance in record.instances],
    }


def volume_document(row: Row) -> Document:
    """The JSON document of a volume from its row."""
    plain = ("id", "modality", "licence", "orientation", "affine_ijk_to_mm", "instances")
    return {
        **{name: row[name] for name in plain},
        "origin": _origin_document(row),
        "keys": {name: row[name] for name in _KEYS},
        "shape_kji": [row["shape_k"], row["shape_j"], row["shape_i"]],
        "spacing_kji_mm": None if row["k_mm"] is None else [row["k_mm"], row["j_mm"], row["i_mm"]],
        "checks": json.loads(row["checks"]),
    }


def volume_of(document: Document) -> VolumeRecord:
    """The volume of a JSON document."""
    return VolumeRecord(**{
        **document,
        "origin": Origin(**document["origin"]),
        "keys": Keys(**document["keys"]),
        "shape_kji": tuple(document["shape_kji"]),
        "affine_ijk_to_mm": _tuple(document["affine_ijk_to_mm"]),
        "spacing_kji_mm": _tuple(document["spacing_kji_mm"]),
        "instances": tuple(
            Instance(**{**one, "box_kji": tuple(one["box_kji"]), "box_mm": _tuple(one["box_mm"])})
            for one in document["instances"]
        ),
    })  # fmt: skip


def reject_row(reject: Reject) -> Row:
    """The row of a reject in the table ``rejects``."""
    return asdict(reject)
