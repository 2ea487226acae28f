"""The commands `sources` and `new-source`."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medglip.cli import app
from medglip.curate import source_names
from medglip.curate.describe import facts_found
from medglip.errors import InputError

RUN = CliRunner()
FACTS = [
    {"name": "a", "title": "Chest films", "modalities": "xray", "labels": ["1 -> pneumonia"]},
    {"name": "b", "title": "Bodies", "modalities": "ct, pet", "labels": ["2 -> liver"]},
]


@pytest.mark.parametrize(
    ("modality", "word", "names"),
    [
        (None, None, "ab"),
        ("pet", None, "b"),
        (None, "CHEST", "a"),
        (None, "liver", "b"),
        ("xray", "liver", ""),
        ("ct", "", "b"),
    ],
)
def test_sources_are_found_by_modality_and_word(modality: str | None, word: str | None, names: str) -> None:
    assert "".join(fact["name"] for fact in facts_found(FACTS, modality, word)) == names


def test_a_modality_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="allowed: ct, mr"):
        facts_found(FACTS, "catscan")


def test_the_json_has_every_source_and_the_list_names_each_once() -> None:
    facts = json.loads(RUN.invoke(app, ["sources", "--json"]).stdout)
    assert [fact["name"] for fact in facts] == list(source_names())
    listed = RUN.invoke(app, ["sources"]).stdout
    assert all(f" {name} " in listed for name in source_names())


def test_a_modality_and_a_word_shorten_the_list() -> None:
    found = RUN.invoke(app, ["sources", "--modality", "ultrasound", "--search", "breast"]).stdout
    assert "us_busi" in found
    assert "us_hc18_fetal_head" not in found
    assert "mammo_vindr" not in found


def test_one_source_is_shown_with_its_patterns_as_they_are() -> None:
    shown = RUN.invoke(app, ["sources", "us_busi"]).stdout
    assert r"{case:[a-z]+ ?\(\d+\)}" in shown  # brackets are no markup
    assert "780 images" in shown
    assert json.loads(RUN.invoke(app, ["sources", "us_busi", "--json"]).stdout)["name"] == "us_busi"


def test_new_source_writes_a_file_once_and_says_what_is_left(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(1, 250, (20, 20)).astype(np.uint8)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        Image.fromarray(image if folder == "images" else (image > 99).astype(np.uint8) * 255).save(tmp_path / folder / "a.png")
    to = tmp_path / "mine.toml"
    command = ["new-source", "mine", str(tmp_path), "--modality", "endoscopy", "--to", str(to)]
    done = RUN.invoke(app, command)
    assert done.exit_code == 0
    assert "to do: licence" in done.output
    part = tomllib.loads(to.read_text())["part"][0]
    assert part["files"] == {"image": "images/{case}.png", "mask": "masks/{case}.png"}
    before = to.read_text()
    assert isinstance(RUN.invoke(app, command).exception, InputError)  # never over one's own work
    assert to.read_text() == before
