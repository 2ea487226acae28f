"""The reference pages are those that the code makes, and the code they are made from agrees with itself."""

import importlib.util
import json
from pathlib import Path

import pytest

from medglip.shelf import shelf
from medglip.store.schema import SCHEMAS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs/make_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_those_that_the_code_makes(maker):
    for path, text in maker.pages().items():
        assert path.read_text(encoding="utf-8") == text + "\n", f"{path.name} is out of date; run scripts/docs"


def test_every_field_of_the_schema_says_what_it_is(maker):
    parts = json.loads((shelf("schemas") / "record.schema.json").read_text("utf-8"))["$defs"]
    for name, part in parts.items():
        for field, kind in part.get("properties", {}).items():
            assert kind.get("description") or maker._referred(parts, kind).get("description"), f"{name}.{field}"


def test_every_column_says_what_it_is_and_no_description_is_left_over(maker):
    parts = json.loads((shelf("schemas") / "record.schema.json").read_text("utf-8"))["$defs"]
    for table, homes in maker.TABLES.items():
        for field in SCHEMAS[table]:
            assert maker._meaning(parts, field.name, homes), f"{table}.{field.name}"
    columns = {field.name for schema in SCHEMAS.values() for field in schema}
    assert set(maker.COLUMNS) <= columns
    assert set(maker.TABLES) == set(SCHEMAS)
