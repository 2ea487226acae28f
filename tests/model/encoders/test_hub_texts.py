"""Text networks of the transformers library, small and random, with tokenizers of three kinds."""

import json

import pytest
import torch

from medglip.errors import ModelError
from medglip.model.encoders import build_text_encoder

NAMES = ("bert", "roberta", "t5")
TEXTS = ["heart", "Left pneumothorax, 3 mm", "naïve œdème"]


@pytest.mark.parametrize("name", NAMES)
def test_spans_name_the_characters_of_each_token(name, text_folder):
    encoder = build_text_encoder({"encoder": text_folder(name)}, pretrained=True)
    tokens = encoder.tokenize(TEXTS)
    assert not tokens.spans[~tokens.is_word].any()
    for row, text in enumerate(TEXTS):
        spans = [tuple(span) for span in tokens.spans[row].tolist() if span[1]]
        pieces = [text[first:last] for first, last in spans]
        assert all(piece == piece.strip() != "" for piece in pieces)
        covered = {place for first, last in spans for place in range(first, last)}
        assert covered == {place for place, letter in enumerate(text) if not letter.isspace()}
        assert spans == sorted(spans)
        names = encoder._tokenizer.convert_ids_to_tokens(tokens.ids[row].tolist())
        if row < 2:  # plain letters: a token's own name says what it stands for
            for each, (first, last) in zip(names, tokens.spans[row].tolist(), strict=True):
                if last and each != "▁":  # put in front of a text that does not begin with a space
                    assert each.lstrip("Ġ▁").removeprefix("##").lower() == text[first:last].lower()
    special = 1 if name == "t5" else 2
    lengths = tokens.is_word.sum(1)
    assert all(int((tokens.spans[row].sum(-1) == 0).sum()) >= special for row in range(3))
    assert lengths[1] > lengths[0]
    assert (encoder.mask_id is None) == (name == "t5")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["frozen", "full"])
def test_padding_changes_nothing(name, how, text_folder):
    encoder = build_text_encoder({"encoder": text_folder(name), "tune": how}, pretrained=True).eval()
    alone, beside = encoder.tokenize(TEXTS[:1]), encoder.tokenize(TEXTS)
    one, many = encoder(alone.ids, alone.is_word), encoder(beside.ids, beside.is_word)
    assert many.shape == (*beside.ids.shape, encoder.width)
    assert torch.allclose(many[0, : one.shape[1]], one[0], atol=1e-5)
    assert not many[~beside.is_word].any()
    assert one.std() > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_gives_its_own_weights(name, text_folder):
    from transformers import AutoModelForTextEncoding

    encoder = build_text_encoder({"encoder": text_folder(name)}, pretrained=True)
    theirs = AutoModelForTextEncoding.from_pretrained(text_folder(name)).eval()
    tokens = encoder.tokenize(TEXTS[:1])
    with torch.no_grad():
        wanted = theirs(input_ids=tokens.ids, attention_mask=tokens.is_word.long()).last_hidden_state
    assert torch.allclose(encoder(tokens.ids, tokens.is_word), wanted, atol=1e-5)
    assert encoder.embedding().shape == (encoder.vocabulary, encoder.width)
    assert torch.equal(encoder.embedding(), theirs.get_input_embeddings().weight)


def test_frozen_reads_a_text_once_and_forgets_it_with_new_weights(text_folder):
    torch.manual_seed(0)
    encoder = build_text_encoder({"encoder": text_folder("bert")}, pretrained=True).train()
    tokens = encoder.tokenize(TEXTS)
    first = encoder(tokens.ids, tokens.is_word)
    assert len(encoder._read.kept) == 3
    assert not first.requires_grad
    assert not any(value.requires_grad for value in encoder.parameters())
    assert not any(module.training for module in encoder.network.modules())
    assert torch.equal(encoder(tokens.ids, tokens.is_word), first)
    other = build_text_encoder({"encoder": text_folder("bert")}, pretrained=False)
    torch.nn.ModuleList([encoder]).load_state_dict(torch.nn.ModuleList([other]).state_dict())
    assert not torch.allclose(encoder(tokens.ids, tokens.is_word), first, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_lora_begins_as_the_frozen_network(name, text_folder):
    frozen = build_text_encoder({"encoder": text_folder(name)}, pretrained=True)
    lora = build_text_encoder({"encoder": text_folder(name), "tune": "lora", "lora_rank": 2}, pretrained=True).eval()
    tokens = lora.tokenize(TEXTS)
    words = lora(tokens.ids, tokens.is_word)
    assert torch.allclose(words, frozen(tokens.ids, tokens.is_word), atol=1e-5)
    (words * torch.rand_like(words)).sum().backward()
    learn = {parameter: value for parameter, value in lora.named_parameters() if value.requires_grad}
    assert len(learn) == 2 * 2 * 2  # A and B of query and value of two layers
    assert all(value.grad.abs().sum() > 0 for parameter, value in learn.items() if parameter.endswith("lora_b"))
    assert all(value.grad is None for value in lora.parameters() if not value.requires_grad)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_full_reaches_every_parameter(name, checkpointing, text_folder):
    section = {"encoder": text_folder(name), "tune": "full", "checkpointing": checkpointing}
    encoder = build_text_encoder(section, pretrained=True).train()
    tokens = encoder.tokenize(TEXTS)
    words = encoder(tokens.ids, tokens.is_word)
    (words * torch.rand_like(words)).sum().backward()
    assert all(value.requires_grad and value.grad is not None for value in encoder.parameters())


@pytest.mark.parametrize(("name", "most"), [("bert", 20), ("roberta", 40), ("t5", 512)])
def test_a_text_that_is_too_long_is_refused(name, most, text_folder):
    encoder = build_text_encoder({"encoder": text_folder(name), "tune": "full"}, pretrained=True).eval()
    assert encoder.most_tokens == most
    per_word = int(encoder.tokenize(["heart heart"]).is_word.sum() - encoder.tokenize(["heart"]).is_word.sum())
    extra = int(encoder.tokenize(["heart"]).is_word.sum()) - per_word
    words = (most - extra) // per_word
    longest = encoder.tokenize([" ".join(["heart"] * words)])
    assert encoder(longest.ids, longest.is_word).isfinite().all()
    with pytest.raises(ModelError, match=rf"tokens, allowed are {most}; .*'heart heart"):
        encoder.tokenize(["heart", " ".join(["heart"] * (words + 1))])


def test_no_texts_give_nothing(text_folder):
    encoder = build_text_encoder({"encoder": text_folder("bert"), "tune": "full"}, pretrained=True)
    tokens = encoder.tokenize([])
    assert encoder(tokens.ids, tokens.is_word).shape == (0, 0, 16)


def test_config_and_tokenizer_build_it_again(text_folder, tmp_path):
    encoder = build_text_encoder({"encoder": text_folder("roberta")}, pretrained=True)
    encoder.save_tokenizer(tmp_path)
    table = json.loads(json.dumps(encoder.config))
    again = build_text_encoder({"encoder": "owner/name", "config": table, "folder": str(tmp_path)}, pretrained=False)
    again.load_state_dict(encoder.state_dict())
    tokens = encoder.tokenize(TEXTS)
    assert all(torch.equal(one, other) for one, other in zip(again.tokenize(TEXTS), tokens, strict=True))
    assert torch.equal(again(tokens.ids, tokens.is_word), encoder(tokens.ids, tokens.is_word))


def test_what_does_not_fit_is_refused(text_folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    small = {"model_type": "bert", "vocab_size": 7, "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    with pytest.raises(ModelError, match="folder is missing"):
        build_text_encoder({"encoder": "config", "config": small}, pretrained=False)
    with pytest.raises(ModelError, match="the network 7"):
        build_text_encoder({"encoder": "config", "config": small, "folder": text_folder("bert")}, pretrained=False)
    with pytest.raises(ModelError, match=r"'nobody/nothing' cannot be read .*hf download nobody/nothing"):
        build_text_encoder({"encoder": "nobody/nothing"}, pretrained=True)
    with pytest.raises(ModelError, match="has a decoder"):
        build_text_encoder(
            {"encoder": "config", "config": {"model_type": "bart"}, "folder": text_folder("bert")}, pretrained=False
        )
