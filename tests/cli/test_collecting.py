"""The command `collect`."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medglip import store
from medglip.cli import collecting
from medglip.errors import InputError, SourceError


@pytest.fixture
def run():
    return lambda *words: CliRunner().invoke(collecting.app, ["collect", *map(str, words)])


@pytest.fixture
def root(tmp_path):
    """Two sources of a collection and one of none."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "root" / "us-busi" / "benign"
    folder.mkdir(parents=True)
    (tmp_path / "root" / "derm-ham10000").mkdir()
    for number in (1, 2):
        Image.fromarray(rng.integers(0, 255, (40, 50), np.uint8)).save(folder / f"benign ({number}).png")
        mask = np.zeros((40, 50 if number == 1 else 49), np.uint8)
        mask[5:20, 5:20] = 255
        Image.fromarray(mask).save(folder / f"benign ({number})_mask.png")
    return tmp_path / "root"


def test_the_sources_that_are_there_become_one_dataset(run, root, tmp_path):
    done = run("lite-training", root, tmp_path / "dataset", "--json")
    assert done.exit_code == 3, done.output  # one mask is of another size than its image
    said = json.loads(done.stdout)
    assert said["collection"] == "lite_training"
    assert [(one["source"], one["rejects"], one["held_out"]) for one in said["sources"]] == [("us_busi", 1, False)]
    dataset = store.open(tmp_path / "dataset")
    assert len(dataset) == said["sources"][0]["images"] > 0
    assert (tmp_path / "dataset" / "splits.json").is_file()
    assert (tmp_path / "dataset" / "croissant.json").is_file()
    again = run("lite-training", root, tmp_path / "dataset")
    assert len(store.open(tmp_path / "dataset")) == len(dataset)
    assert "1 of 21 sources of lite_training; 20 are not in" in again.stdout


def test_wrong_names_are_refused(run, tmp_path):
    assert isinstance(run("no-such", tmp_path, tmp_path / "dataset").exception, SourceError)
    assert isinstance(run("medglip-bench", tmp_path, tmp_path / "dataset").exception, InputError)
    assert not (tmp_path / "dataset").exists()
