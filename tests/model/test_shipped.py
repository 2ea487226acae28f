"""Weights inside medglip: their names, their size, what is said where there are none."""

import hashlib
import json

import numpy as np
import pytest

from medglip.errors import ModelError
from medglip.model import shipped
from medglip.model.checkpoints import load_checkpoint
from medglip.model.shipped import checkpoint_folder, shipped_names
from medglip.predict import Grounder


@pytest.fixture
def build(tmp_path, monkeypatch):
    """A build of medglip with weights of its own."""
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def weights(folder):
    folder.mkdir(parents=True)
    for file in ("config.json", "model.safetensors"):
        (folder / file).write_bytes(b"")
    return folder


def test_a_name_is_found_and_a_checkpoint_at_that_path_wins(build):
    inside = weights(build / "weights" / "lite")
    assert shipped_names() == ("lite",)
    assert checkpoint_folder("lite") == inside
    (build / "lite").mkdir()  # a folder that happens to have that name
    assert checkpoint_folder("lite") == inside
    (build / "lite").rmdir()
    mine = weights(build / "lite")
    assert checkpoint_folder("lite").resolve() == mine.resolve()
    assert checkpoint_folder(mine) == mine


def test_a_build_without_the_weights_says_so(build):
    assert shipped_names() == ()
    with pytest.raises(ModelError, match=r"'lite' is not in this build .* scripts/train-lite"):
        checkpoint_folder("lite")
    (build / "weights" / "lite").mkdir(parents=True)  # cards only
    with pytest.raises(ModelError, match="not in this build"):
        checkpoint_folder("lite")


def test_what_is_neither_is_refused_with_the_names(build):
    weights(build / "weights" / "lite")
    with pytest.raises(ModelError, match=r"'runs/nothing': there is no such folder, .* \(lite\)"):
        checkpoint_folder("runs/nothing")
    for name in ("../weights", "Lite"):
        with pytest.raises(ModelError, match="no model of that name is shipped"):
            checkpoint_folder(name)


def test_weights_in_the_package_stay_small_and_have_their_licence():
    files = [file for file in shipped.FOLDER.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 40e6
    assert not [file for file in files if file.suffix in (".py", ".pt", ".pth", ".new")]
    for folder in (folder for folder in shipped.FOLDER.iterdir() if folder.is_dir()):
        assert "Apache License" in (folder / "LICENSE").read_text(encoding="utf-8")
        assert (folder / "NOTICE").is_file()


@pytest.mark.skipif("lite" not in shipped_names(), reason="the weights of lite are not in this build")
def test_lite_answers_and_its_cards_are_of_these_weights():
    folder = checkpoint_folder("lite")
    model, info = load_checkpoint(folder)
    answer = Grounder(model, info, "cpu").answer([np.zeros((64, 48), np.uint8)], [["left kidney"]], ["ct"])[0]
    assert 0 < answer.presence[0] < 1
    card = json.loads((folder / "concepts.json").read_text(encoding="utf-8"))
    sha256 = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert card["weights_sha256"] == sha256
    assert sha256 in (folder / "README.md").read_text(encoding="utf-8")
    assert [one["concept"] for one in card["concepts"]] == list(info.concepts)
    assert not [name for name in model.state_dict() if "bert" in name.lower()]
