"""The published schema of a record as rules over whole columns of the tables. Knows no files and no labels.

The rules are read from ``schemas/record.schema.json`` itself, so they cannot say anything else than the schema does; here
stands only which column holds which place of a document.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from medglip.shelf import shelf

_ORIGIN = {name: f"origin/{name}" for name in ("dataset", "file", "case", "frame", "axis", "slice")}
_KEYS = {name: f"keys/{name}" for name in ("patient", "study", "series")}


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


# Column of a table -> its place in the document of an image (or of a volume).
PLACES: dict[str, dict[str, str]] = {
    "images": {
        **_same("id", "sha256", "perceptual_hash", "width", "height", "channels", "bits", "modality", "modality_detail",
                "licence", "group", "split", "split_source", "absent", "exhaustive", "flags", "body_region",
                "affine_px_to_mm", "spacing_source"),
        **_ORIGIN, **_KEYS, "row_mm": "spacing_mm/0", "column_mm": "spacing_mm/1",
        "window_low": "intensity/window/0", "window_high": "intensity/window/1",
        **{name: f"intensity/{name}" for name in ("unit", "slope", "intercept", "inverted")},
    },
    "regions": {
        **{name: f"regions/*/{name}" for name in (
            "id", "label", "laterality", "attributes", "instance", "parents", "score", "provenance", "flags",
            "long_axis_mm", "short_axis_mm")},
        **{name: f"regions/*/box_xyxy/{at}" for at, name in enumerate(("x0", "y0", "x1", "y1"))},
        "rle": "regions/*/mask/counts", "phrases": "regions/*/phrases/*.text", "phrase_kinds": "regions/*/phrases/*.kind",
    },
    "texts": {name: f"texts/*/{name}" for name in ("text", "kind", "language", "spans", "answer")},
    "volumes": {
        **_same("id", "modality", "licence", "affine_ijk_to_mm", "orientation", "checks", "instances"),
        **_ORIGIN, **_KEYS,
        **{name: f"shape_kji/{at}" for at, name in enumerate(("shape_k", "shape_j", "shape_i"))},
        **{name: f"spacing_kji_mm/{at}" for at, name in enumerate(("k_mm", "j_mm", "i_mm"))},
    },
}  # fmt: skip
# Columns of which all are given, or none: parts of one list, or of one pair.
TOGETHER: dict[str, list[tuple[str, ...]]] = {
    "images": [("row_mm", "column_mm")],
    "volumes": [("k_mm", "j_mm", "i_mm")],
    "regions": [("long_axis_mm", "short_axis_mm")],
}

# White space of any alphabet; RE2's \S means ASCII's alone.
_NOT_SPACE = r"[^\s\v\x{1c}-\x{1f}\x{85}\p{Z}\x{feff}]"
# What a JSON text of plain values looks like; only what does not look so is parsed.
_JSON_STRING = r'"(?:[^"\\\x{00}-\x{1f}]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*"'
_JSON_VALUE = {
    "string": _JSON_STRING,
    "number": r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,2})?",
    "boolean": "true|false",
}


class Fault(NamedTuple):
    """Rows that break one rule.

    Attributes:
        rows: Rows of the batch, int64, ascending.
        place: Where in the document, for example ``regions/*/label``.
        found: The value of each row.
        allowed: What the rule allows.
    """

    rows: np.ndarray
    place: str
    found: pa.Array
    allowed: str


@dataclass(frozen=True, slots=True)
class Node:
    """One place of the schema: its rules, and whether it may be null."""

    place: str
    schema: dict[str, Any]
    nullable: bool


def faults(table: str, batch: pa.RecordBatch) -> Iterator[Fault]:
    """What in some rows of a table breaks the schema.

    Args:
        table: ``images``, ``regions``, ``texts`` or ``volumes``.
        batch: Rows with the columns of that table; columns that are not there are not checked.
    """
    names = batch.schema.names
    for column, node in nodes(table).items():
        if column in names:
            yield from _check(batch.column(column), node)
    for columns in TOGETHER.get(table, []):
        if set(columns) <= set(names):
            missing = np.stack([_mask(pc.is_null(batch.column(name))) for name in columns])
            yield from _fault(
                batch.column(columns[0]),
                np.asarray(missing.any(0) & ~missing.all(0)),
                "/".join(columns),
                "all of them, or none",
            )
    if {"phrases", "phrase_kinds"} <= set(names):
        lengths = [pc.fill_null(pc.list_value_length(batch.column(name)), 0) for name in ("phrases", "phrase_kinds")]
        yield from _fault(
            batch.column("phrase_kinds"), _mask(pc.not_equal(*lengths)), "regions/*/phrases/*.kind", "one kind a phrase"
        )
    if table == "texts" and {"kind", "answer"} <= set(names):
        yield from _check_answers(batch)


def _check_answers(batch: pa.RecordBatch) -> Iterator[Fault]:
    """A question has an answer, and no other text has one."""
    kind, answer = batch.column("kind"), batch.column("answer")
    asked, given = _mask(pc.equal(kind, "question")), _mask(pc.greater(pc.utf8_length(answer), 0))
    said = _mask(pc.match_substring_regex(answer, _re2(r"\S")))
    yield from _fault(answer, asked & ~said, "texts/*/answer", "text with words, because its kind is question")
    yield from _fault(answer, ~asked & given, "texts/*/answer", "empty text, because its kind is not question")


@cache
def nodes(table: str) -> dict[str, Node]:
    """The rules of each column of a table."""
    root = json.loads((shelf("schemas") / "record.schema.json").read_text("utf-8"))
    start = root["$defs"]["volume" if table == "volumes" else "image"]
    return {column: _resolved(root, start, place) for column, place in PLACES[table].items()}


def _resolved(root: dict, schema: dict, place: str) -> Node:
    """The node at a place: names lead into objects, ``*`` and numbers into lists; ``*.name`` takes one field of a list."""
    schema, nullable = _plain(root, schema)
    wrapped = None
    for step in place.split("/"):
        if step.startswith("*."):  # a list of objects, of which the column holds the list of one field
            wrapped, step = {key: schema[key] for key in ("minItems", "maxItems") if key in schema}, step[2:]
            schema, _ = _plain(root, schema["items"])
        child = schema["items"] if step == "*" or step.isdigit() else schema["properties"][step]
        schema, also = _plain(root, child)
        nullable = (nullable or also) and step != "*"
    if wrapped is not None:
        schema = {"type": "array", "items": schema, **wrapped}
    return Node(place, _inlined(root, schema), nullable)


def _plain(root: dict, schema: dict) -> tuple[dict, bool]:
    """A schema without reference and without null, and whether null was allowed."""
    nullable = False
    while "$ref" in schema or "anyOf" in schema:
        if "$ref" in schema:
            schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
        else:
            [schema] = [one for one in schema["anyOf"] if one.get("type") != "null"]
            nullable = True
    kinds = schema.get("type", "")
    if isinstance(kinds, list) and "null" in kinds:
        left = [kind for kind in kinds if kind != "null"]
        schema, nullable = {**schema, "type": left[0] if len(left) == 1 else left}, True
    if None in schema.get("enum", ()):
        schema, nullable = {**schema, "enum": [value for value in schema["enum"] if value is not None]}, True
    return schema, nullable


def _inlined(root: dict, schema: dict) -> dict:
    """The schema with what it refers to below it, each with the key ``nullable``."""
    result = dict(schema)
    if "items" in schema:
        below, nullable = _plain(root, schema["items"])
        result["items"] = {**_inlined(root, below), "nullable": nullable}
    if "properties" in schema:
        plain = {name: _plain(root, child) for name, child in schema["properties"].items()}
        result["properties"] = {name: {**_inlined(root, below), "nullable": null} for name, (below, null) in plain.items()}
    return result


def _mask(values: pa.Array) -> np.ndarray:
    """Bool array of a condition; null counts as False."""
    return pc.fill_null(values, False).to_numpy(zero_copy_only=False)


def _fault(array: pa.Array, bad: np.ndarray, place: str, allowed: str) -> Iterator[Fault]:
    if bad.any():
        rows = np.flatnonzero(bad)
        yield Fault(rows, place, array.take(pa.array(rows)), allowed)


def _check(array: pa.Array, node: Node) -> Iterator[Fault]:
    """What breaks the rules of one node."""
    schema, kind = node.schema, array.type
    if array.null_count and not node.nullable:
        yield from _fault(array, _mask(pc.is_null(array)), node.place, "a value")
    if pa.types.is_dictionary(kind):
        yield from _spread(array, node)
    elif pa.types.is_list(kind):
        yield from _check_list(array, node)
    elif pa.types.is_struct(kind):
        for name, below in schema["properties"].items():
            yield from _check(pc.struct_field(array, name), Node(f"{node.place}/{name}", below, below["nullable"]))
    elif schema.get("type") == "object":
        yield from _fault(
            array, _not_plain_json(array, schema["additionalProperties"]["type"]), node.place, "a JSON object of plain values"
        )
    elif "enum" in schema:
        good = pc.or_kleene(pc.is_in(array, pa.array(schema["enum"], kind)), pc.is_null(array))
        yield from _fault(array, ~_mask(good), node.place, ", ".join(map(str, schema["enum"])))
    elif pa.types.is_string(kind):
        yield from _check_text(array, node)
    elif not pa.types.is_boolean(kind):
        yield from _check_number(array, node)


def _spread(array: pa.DictionaryArray, node: Node) -> Iterator[Fault]:
    """Check each word of a dictionary once."""
    nullable = Node(node.place, node.schema, True)
    for fault in _check(array.dictionary, nullable):
        bad = _mask(pc.is_in(array.indices, pa.array(fault.rows, array.indices.type)))
        yield from _fault(array, bad, fault.place, fault.allowed)


def _check_list(array: pa.ListArray, node: Node) -> Iterator[Fault]:
    length = pc.list_value_length(array)
    for word, compare, allowed in (("minItems", pc.less, "at least"), ("maxItems", pc.greater, "at most")):
        if word in node.schema:
            limit = node.schema[word]
            yield from _fault(array, _mask(compare(length, limit)), node.place, f"{allowed} {limit} of them")
    values, items = pc.list_flatten(array), node.schema["items"]
    if pa.types.is_string(values.type):
        values = values.dictionary_encode()
    below = None
    place = node.place if "*." in node.place else f"{node.place}/*"
    for fault in _check(values, Node(place, items, items["nullable"])):
        below = pc.list_parent_indices(array).to_numpy() if below is None else below
        rows, at = np.unique(below[fault.rows], return_index=True)
        yield Fault(rows, fault.place, fault.found.take(pa.array(at)), fault.allowed)


def _check_text(array: pa.Array, node: Node) -> Iterator[Fault]:
    schema = node.schema
    if "minLength" in schema:
        yield from _fault(
            array, _mask(pc.less(pc.utf8_length(array), schema["minLength"])), node.place, "text that is not empty"
        )
    if "pattern" in schema:
        pattern = _re2(schema["pattern"])
        good = pc.or_kleene(pc.match_substring_regex(array, pattern), pc.is_null(array))
        allowed = "text with words" if schema["pattern"] == r"\S" else f"text like {schema['pattern']}"
        yield from _fault(array, ~_mask(good), node.place, allowed)


def _re2(pattern: str) -> str:
    r"""A pattern of JSON Schema for Arrow's engine, to which \S and \x21 mean something narrower or nothing."""
    return re.sub(r"\\x([0-9a-f]{2})", r"\\x{\1}", pattern.replace(r"\S", _NOT_SPACE))


def _check_number(array: pa.Array, node: Node) -> Iterator[Fault]:
    if pa.types.is_floating(array.type):
        yield from _fault(array, ~_mask(pc.fill_null(pc.is_finite(array), True)), node.place, "a finite number")
    for word, compare, allowed in (
        ("minimum", pc.less, "at least"), ("maximum", pc.greater, "at most"), ("exclusiveMinimum", pc.less_equal, "more than"),
    ):  # fmt: skip
        if word in node.schema:
            limit = node.schema[word]
            yield from _fault(array, _mask(compare(array, pa.scalar(limit, array.type))), node.place, f"{allowed} {limit}")


def _not_plain_json(array: pa.Array, kinds: str | list[str]) -> np.ndarray:
    """True for each text that is no JSON object whose values are of these types."""
    kinds = [kinds] if isinstance(kinds, str) else kinds
    entry = rf"{_JSON_STRING}: ?(?:{'|'.join(_JSON_VALUE[kind] for kind in kinds)})"
    good = _mask(pc.match_substring_regex(array, rf"^\{{(?:{entry}(?:, ?{entry})*)?\}}$"))
    good |= _mask(pc.is_null(array))
    types: dict[str, tuple[type, ...]] = {"string": (str,), "number": (int, float), "boolean": (bool,)}
    allowed = tuple(kind for name in kinds for kind in types[name])
    for row in np.flatnonzero(~good):
        good[row] = _is_plain(array[int(row)].as_py(), allowed)
    return ~good


def _is_plain(text: str, allowed: tuple[type, ...]) -> bool:
    try:
        values = json.loads(text, parse_constant=_refuse)
    except ValueError:
        return False
    return isinstance(values, dict) and all(type(value) in allowed for value in values.values())


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no JSON")
