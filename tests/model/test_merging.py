"""Weights between two checkpoints: by hand, and what may not be merged."""

from dataclasses import replace

import pytest
import torch

from medglip.errors import ModelError
from medglip.model import build_model, load_config
from medglip.model.checkpoints import CheckpointInfo, load_checkpoint, save_checkpoint
from medglip.model.merging import merge


def saved(folder, seed, info=None, **choices):
    torch.manual_seed(seed)
    config = load_config("tiny", **choices)
    model = build_model(config)
    save_checkpoint(folder, model, model.state_dict(), replace(info or CheckpointInfo({}), config=config))
    return folder


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    one = CheckpointInfo({}, ("a", "b"), ("ct",), 0.2, 0.4, {"ct": (0.1, 0.2)}, {"steps": 5, "sources": ["x", "y"]})
    two = CheckpointInfo({}, ("b", "c"), ("mr",), 0.3, 0.6, {"mr": (0.5, 0.7)}, {"steps": 9, "sources": ["y", "z"]})
    return saved(folder / "one", 1, one), saved(folder / "two", 2, two)


@pytest.mark.parametrize("share", [0, 0.25, 1.0])
def test_every_weight_lies_between_the_two(pair, share):
    states = [load_checkpoint(folder)[0].state_dict() for folder in pair]
    model, _ = merge(*pair, share)
    assert not model.training
    for name, value in model.state_dict().items():
        wanted = (1 - share) * states[0][name] + share * states[1][name]
        assert torch.allclose(value, wanted, atol=1e-7), name
        assert share not in (0, 1) or torch.equal(value, states[int(share)][name])


def test_a_checkpoint_merged_with_itself_is_itself(pair):
    state = load_checkpoint(pair[0])[0].state_dict()
    assert all(torch.equal(value, state[name]) for name, value in merge(pair[0], pair[0], 0.3)[0].state_dict().items())


def test_whole_numbers_are_the_seconds(pair, monkeypatch):
    def load(folder):
        model, info = load_checkpoint(folder)
        model.register_buffer("steps", torch.tensor(10 if folder == pair[0] else 20))
        return model, info

    monkeypatch.setattr("medglip.model.merging.load_checkpoint", load)
    merged = merge(*pair, 0.5)[0].state_dict()["steps"]
    assert merged.item() == 20
    assert merged.dtype == torch.int64


def test_what_is_said_of_the_two_is_joined(pair, tmp_path):
    model, info = merge(*pair, 0.25)
    assert info.concepts == ("a", "b", "c")
    assert info.modalities == ("ct", "mr")
    assert (info.score_threshold, info.presence_threshold, info.thresholds) == (0.3, 0.6, {"mr": (0.5, 0.7)})
    assert info.trained["sources"] == ["x", "y", "z"]
    merged = info.trained["merged"]
    assert (merged["share"], merged["first"]["steps"], merged["second"]["steps"]) == (0.25, 5, 9)
    assert "second" in merged["thresholds"]
    save_checkpoint(tmp_path, model, model.state_dict(), info)
    again, read = load_checkpoint(tmp_path)
    assert read == info
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_other_losses_of_the_same_parts_and_other_training_are_no_hindrance(pair, tmp_path):
    other = saved(tmp_path, 3, steps=7, align=0.5)
    assert merge(pair[0], other, 0.5)[1].config["train"]["steps"] == 7


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"width": 48}, r"model.width = \d+ in the first and 48 in the second"),
        ({"fuse": "words"}, "model.fuse = 'phrases' in the first and 'words' in the second"),
        ({"masks": 1.0}, "'extras.masks.*' as 'nothing' in the first"),
        ({"size": 96}, "image.size = "),
    ],
)
def test_other_models_are_refused_by_what_differs(pair, tmp_path, choices, message):
    with pytest.raises(ModelError, match=message):
        merge(pair[0], saved(tmp_path, 3, **choices), 0.5)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan"), "half", True])
def test_a_bad_share_is_one_sentence(pair, share):
    with pytest.raises(ModelError, match=r"found share .*; allowed: 0 "):
        merge(*pair, share)


def test_no_checkpoint_is_one_sentence(pair, tmp_path):
    with pytest.raises(ModelError, match=r"needs config.json"):
        merge(pair[0], tmp_path, 0.5)
