"""The public surface: names that others build on, pinned."""

import importlib
import subprocess

import pytest

import medglip


def test_public_names():
    assert set(medglip.__all__) == {
        "Grounder", "Reporter", "VQA", "__version__", "convert", "label_tree", "load_source", "open",
    }  # fmt: skip
    for name in medglip.__all__:
        assert getattr(medglip, name) is not None


@pytest.mark.parametrize(
    "room", ["records", "store", "curate", "exports", "language", "train", "evaluate", "model", "phantoms"]
)
def test_every_name_that_a_room_offers_is_there(room):
    module = importlib.import_module(f"medglip.{room}")
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_unknown_name_is_an_attribute_error():
    assert not hasattr(medglip, "nothing_of_that_name")


def test_command_line_names(medglip_command):
    listed = subprocess.run([*medglip_command, "--help"], capture_output=True, text=True, check=True).stdout
    for command in ("demo", "phantom", "sources", "inspect", "convert", "validate", "stats", "preview", "train",
                    "evaluate", "ground", "ask", "report", "labels", "split", "merge", "compact", "export", "import-coco",
                    "import-odvg"):  # fmt: skip
        assert command in listed, f"medglip --help does not list {command}"
