"""The vectorised rules find whatever the published schema finds."""

import json
from collections.abc import Iterator

import jsonschema_rs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medglip import store
from medglip.shelf import shelf
from medglip.store.checks.rules import PLACES, faults, nodes
from medglip.store.schema import SCHEMAS, image_document, volume_document

SCHEMA = json.loads((shelf("schemas") / "record.schema.json").read_text("utf-8"))
# Values that break some rule of some place, by the kind of column.
WRONG = {
    "text": ["", " ", "\u00a0\u2003", "x-ray", "G" * 16, "0" * 15, "a.B", "liver ", "with\nline", "é", "dix", "unicorn", "LPX",
             "a@port", "-en", "1", "{}", "question"],
    "number": [0, -1, 1, 2, 3, 5, 16, 17, -0.5, 1.5],
    "json": ["{", "[]", "1", '{"a": null}', '{"a": [1]}', '{"a": NaN}', '{"a": {"b": 1}}', '{"a": true}', '{"a": 1.5}',
             '{"a": "b"}', '{"a": 1e5, "ü": "\\u00fc\\""}', '{"a": 01}'],
}  # fmt: skip
JSON_COLUMNS = ("modality_detail", "attributes", "checks")


@pytest.fixture(scope="module")
def rows(template) -> dict[str, list[dict]]:
    dataset = store.open(template)
    return {table: pq.read_table(template / f"{table}").to_pylist() for table in PLACES if len(dataset.table(table))}


def changed_values(kind: pa.DataType, value: object, name: str) -> Iterator[object]:
    """Values of the same Arrow type that may break a rule."""
    if pa.types.is_string(kind):
        yield from WRONG["json" if name in JSON_COLUMNS else "text"]
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        yield from (number if pa.types.is_floating(kind) else int(number) for number in WRONG["number"])
    elif pa.types.is_list(kind):
        items = list(value or [])
        yield from ([], items[:1], items[:-1], [*items, *items])
        sample = (
            items[0]
            if items
            else ([] if pa.types.is_list(kind.value_type) else {} if pa.types.is_struct(kind.value_type) else None)
        )
        if items or not pa.types.is_struct(kind.value_type):
            yield from ([*items[:1], wrong] for wrong in changed_values(kind.value_type, sample, name))
    elif pa.types.is_struct(kind):
        for field in kind:
            yield from (
                {**value, field.name: wrong} for wrong in [None, *changed_values(field.type, value[field.name], field.name)]
            )
    if not pa.types.is_struct(kind):
        yield None


def planted() -> Iterator[tuple[str, str]]:
    for table, places in PLACES.items():
        yield from ((table, column) for column in places)


@pytest.fixture(scope="module")
def spanned(rows) -> dict[str, list[dict]]:
    """The rows, in which a text has a span and a volume a box in mm."""
    rows["texts"][0]["spans"] = [{"start": 0, "end": 4, "regions": ["a"]}]
    rows["volumes"][0]["instances"][0]["box_mm"] = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    return rows


CHECKERS = {
    "volumes": jsonschema_rs.validator_for({**SCHEMA, "$ref": "#/$defs/volume"}),
    "others": jsonschema_rs.validator_for(SCHEMA),
}


def refused_by_schema(table: str, row: dict, rows: dict[str, list[dict]]) -> bool:
    if table == "volumes":
        document = volume_document(row)
    else:
        image = row if table == "images" else rows["images"][1]
        document = image_document(image, [row] if table == "regions" else [], [row] if table == "texts" else [])
    return not CHECKERS.get(table, CHECKERS["others"]).is_valid(document)


@pytest.mark.parametrize(("table", "column"), list(planted()))
def test_what_the_schema_refuses_the_rules_refuse(spanned, table, column):
    original = spanned[table][1 if table == "images" else 0]
    kind = SCHEMAS[table].field(column).type
    assert not list(faults(table, batch_of(table, original)))
    found = 0
    for value in changed_values(kind, original[column], column):
        row = {**original, column: value}
        if column == "phrases":
            row["phrase_kinds"] = ["name"] * len(value or [])
        if column == "phrase_kinds":
            row["phrases"] = ["liver"] * len(value or [])
        try:
            refused = refused_by_schema(table, row, spanned)
        except (ValueError, TypeError):  # the row cannot even be put together
            refused = True
        ours = list(faults(table, batch_of(table, row)))
        found += refused
        assert bool(ours) or not refused, (value, "the schema refuses it, the rules do not")
        own = column in ("long_axis_mm", "short_axis_mm") or (value is None and column.endswith("_mm"))
        assert refused or not ours or own, (value, ours, "the rules refuse it, the schema does not")
    free = {"group", "case", "spacing_source", "instance", "intercept", "window_low", "window_high", "inverted"}
    assert found or column in free


def batch_of(table: str, row: dict) -> pa.RecordBatch:
    """One row, with types that allow nulls, as a faulty file might hold them."""
    schema = pa.schema([pa.field(field.name, field.type) for field in SCHEMAS[table]])
    return pa.RecordBatch.from_pylist([row], schema)


def leaves(schema: dict, place: str) -> Iterator[str]:
    """Every place of the schema at which a rule stands."""
    if "$ref" in schema:
        yield from leaves(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], place)
    elif "anyOf" in schema:
        yield from leaves(schema["anyOf"][0], place)
    elif "properties" in schema:
        for name, below in schema["properties"].items():
            yield from leaves(below, f"{place}/{name}")
    elif schema.get("items", {}).get("$ref") in (
        "#/$defs/region",
        "#/$defs/text",
        "#/$defs/phrase",
        "#/$defs/span",
        "#/$defs/instance",
    ):
        yield from leaves(schema["items"], f"{place}/*")
    else:
        yield place


def test_every_place_of_the_schema_has_a_column():
    covered = {place.replace("*.", "*/") for table in PLACES if table != "volumes" for place in PLACES[table].values()}
    volume = set(PLACES["volumes"].values())
    for start, known in (("image", covered), ("volume", volume)):
        for place in (leaf.removeprefix("/") for leaf in leaves(SCHEMA["$defs"][start], "")):
            held = any(place == one or one.startswith(f"{place}/") or place.startswith(f"{one}/") for one in known)
            assert held or place == "regions/*/mask/size_hw", f"{start}: no column holds {place}"  # the size is the image's


def test_every_word_of_the_schema_is_understood():
    known = {"type", "enum", "pattern", "minLength", "minimum", "maximum", "exclusiveMinimum", "minItems", "maxItems", "items",
             "properties", "required", "additionalProperties", "description", "nullable"}  # fmt: skip

    def words(schema: dict) -> Iterator[str]:
        yield from schema
        if "items" in schema:
            yield from words(schema["items"])
        for below in schema.get("properties", {}).values():
            yield from words(below)

    for table in PLACES:
        for column, node in nodes(table).items():
            assert set(words(node.schema)) <= known, (table, column)


def test_dictionaries_are_checked_by_their_words(spanned):
    batch = batch_of("images", spanned["images"][1])
    at = batch.schema.get_field_index("modality")
    for word, good in (("ct", True), ("x-ray", False)):
        column = pa.array([word]).dictionary_encode()
        changed = pa.RecordBatch.from_arrays(
            [column if n == at else array for n, array in enumerate(batch.columns)], names=batch.schema.names
        )
        assert bool(list(faults("images", changed))) != good
