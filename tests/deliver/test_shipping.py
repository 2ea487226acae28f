"""Checkpoints made ready to travel: half the bytes, the same answers, nothing of the training."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from medglip.deliver.shipping import ship
from medglip.errors import ModelError
from medglip.model import shipped
from medglip.model.checkpoints import CheckpointInfo, load_checkpoint, save_checkpoint
from medglip.model.config import load_config
from medglip.model.dense import build_model
from medglip.predict import Grounder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """An untrained tiny model with what a training run leaves beside it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run") / "best"
    config = load_config("tiny")
    model = build_model(config)
    info = CheckpointInfo(config, ("abdomen.liver",), ("ct",), thresholds={"ct": (0.2, 0.4)}, trained={"steps": 7})
    save_checkpoint(folder, model, model.state_dict(), info)
    (folder / "state.pt").write_bytes(b"optimiser")
    (folder / "language").mkdir()
    (folder / "language" / "bands.json").write_text("{}")
    return folder


def test_shipped_weights_answer_as_before(checkpoint, tmp_path):
    folder = ship(checkpoint, tmp_path / "lite")
    half, whole = load_file(folder / "model.safetensors"), load_file(checkpoint / "model.safetensors")
    assert {value.dtype for value in half.values() if value.is_floating_point()} == {torch.float16}
    assert (folder / "model.safetensors").stat().st_size < 0.6 * (checkpoint / "model.safetensors").stat().st_size
    model, info = load_checkpoint(folder)
    assert {value.dtype for value in model.state_dict().values() if value.is_floating_point()} == {torch.float32}
    assert info == load_checkpoint(checkpoint)[1]
    for name, value in model.state_dict().items():
        assert torch.allclose(value, whole[name], rtol=1e-3, atol=1e-6), name
    image = np.random.default_rng(0).integers(0, 255, (40, 60), np.uint8)
    one, other = (Grounder.load(path, "cpu").answer([image], [["liver", "heart"]], ["ct"])[0] for path in (checkpoint, folder))
    assert np.allclose(one.presence, other.presence, atol=1e-2)


def test_only_what_loading_needs_travels(checkpoint, tmp_path):
    folder = ship(checkpoint, tmp_path / "lite")
    ship(checkpoint, folder)  # a second time replaces it
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in folder.rglob("*") if path.is_file())
    assert files == {"model.safetensors", "config.json", "LICENSE", "NOTICE", "language/bands.json"}


def test_a_shipped_folder_is_found_by_its_name(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    monkeypatch.chdir(tmp_path)
    ship(checkpoint, tmp_path / "inside")
    monkeypatch.setitem(shipped.MODELS, "lite", "inside")
    assert load_checkpoint(shipped.checkpoint_folder("lite"))[1].concepts == ("abdomen.liver",)


def test_a_weight_too_large_for_float16_is_named(checkpoint, tmp_path):
    model, info = load_checkpoint(checkpoint)
    state = dict(model.state_dict())
    name = next(iter(state))
    state[name] = torch.full_like(state[name], 1e6)
    save_checkpoint(tmp_path / "large", model, state, info)
    with pytest.raises(ModelError, match="float16 cannot hold"):
        ship(tmp_path / "large", tmp_path / "lite")
    assert not (tmp_path / "lite" / "model.safetensors").exists()


def test_a_text_encoder_that_must_be_downloaded_is_refused(checkpoint, tmp_path):
    model, info = load_checkpoint(checkpoint)
    for text in ({"encoder": "minilm"}, {"encoder": "minilm", "weights": "published"}):
        info.config["text"] = text
        save_checkpoint(tmp_path / "published", model, model.state_dict(), info)
        with pytest.raises(ModelError, match=r"found weights = 'published'; .* needs no download"):
            ship(tmp_path / "published", tmp_path / "lite")


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"needs config\.json"):
        ship(tmp_path, tmp_path / "lite")
