"""The encoders without files, the phrase reader over them, and the names that a configuration may use."""

import zlib

import pytest
import torch

from medglip.errors import ModelError
from medglip.model.encoders import HashedText, PhraseReader, TinyImageEncoder, build_image_encoder, build_text_encoder


def test_hashed_words_have_spans_and_a_mask_of_their_own():
    text = HashedText(16)
    texts = ["  Left\tlung", "", "heart"]
    tokens = text.tokenize(texts)
    assert tokens.ids.shape == (3, 2)
    assert tokens.is_word.tolist() == [[True, True], [False, False], [True, False]]
    assert [texts[0][first:last] for first, last in tokens.spans[0].tolist()] == ["Left", "lung"]
    assert tokens.spans[1].tolist() == [[0, 0], [0, 0]]
    words = [f"word{number}" for number in range(200)]
    ids = text.tokenize([" ".join(words)]).ids[0].tolist()
    hashes = [zlib.crc32(word.encode()) % 16 for word in words]
    assert 15 in hashes  # so the next line says something
    assert ids == [min(number, 14) for number in hashes]
    assert text.mask_id == 15
    assert text.embedding().shape == (text.vocabulary, text.width)


def test_no_texts_give_no_tokens():
    tokens = HashedText().tokenize([])
    assert tokens.ids.shape == (0, 0)
    assert tokens.spans.shape == (0, 0, 2)
    assert PhraseReader(HashedText(), 8, 2)(tokens.ids, tokens.is_word).shape == (0, 0, 8)


def test_a_text_that_is_too_long_is_refused():
    text = HashedText()
    assert text.tokenize(["word " * 512]).ids.shape == (1, 512)
    with pytest.raises(ModelError, match=r"513 tokens, allowed are 512; .*'Once word word"):
        text.tokenize(["Once " + "word " * 512])


def test_tiny_maps_do_not_depend_on_the_batch():
    torch.manual_seed(0)
    encoder = TinyImageEncoder()
    images = torch.rand(3, 3, 64, 96)
    maps = encoder(encoder.frozen(images))
    assert [tuple(each.shape) for each in maps] == [
        (3, channels, 64 // stride, 96 // stride) for channels, stride in zip(encoder.channels, (4, 8, 16, 32), strict=True)
    ]
    alone = encoder(encoder.frozen(images[1:2]))
    assert all(torch.allclose(many[1:2], one, atol=1e-5) for many, one in zip(maps, alone, strict=True))


@pytest.mark.parametrize("learns", [True, False])
def test_words_do_not_depend_on_padding(learns):
    torch.manual_seed(0)
    reader = PhraseReader(HashedText(), 16, 2).train(learns)
    with torch.set_grad_enabled(learns):  # torch takes another path without gradients
        alone, beside = (reader.text.tokenize(texts) for texts in (["left lung"], ["left lung", "", "the lower pole of it"]))
        one, many = reader(alone.ids, alone.is_word), reader(beside.ids, beside.is_word)
    assert torch.allclose(many[0, :2], one[0], atol=1e-6)
    assert not many[~beside.is_word].any()
    assert many.isfinite().all()


def test_a_phrase_is_the_normed_mean_of_its_words():
    reader = PhraseReader(HashedText(), 4, 2)
    words = torch.tensor([[[1.0, 2.0, 3.0, 4.0], [3.0, 2.0, 1.0, 8.0], [9.0, 9.0, 9.0, 9.0]]])
    members = torch.tensor([[[True, True, False], [False, False, False]]])
    with torch.no_grad():
        reader.norm.bias.fill_(0.5)
    pooled = reader.pool(words, members)
    mean = torch.tensor([2.0, 2.0, 2.0, 6.0])
    wanted = (mean - 3.0) / (3.0 + 1e-5) ** 0.5 + 0.5  # variance of 2, 2, 2, 6 is 3
    assert torch.allclose(pooled[0, 0], wanted, atol=1e-6)
    assert torch.allclose(pooled[0, 1], torch.full((4,), 0.5))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(reader.pool(words, members), pooled)
        assert reader.pool(words.bfloat16(), members).dtype == torch.float32


def test_every_parameter_of_the_phrase_reader_learns():
    torch.manual_seed(0)
    reader = PhraseReader(HashedText(8), 8, 2)
    tokens = reader.text.tokenize(["left lung", "heart"])
    reader.pool(reader(tokens.ids, tokens.is_word), tokens.is_word.unsqueeze(1)).square().mul(
        torch.arange(8.0)
    ).sum().backward()
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in reader.parameters())


def test_unknown_encoders_are_refused():
    with pytest.raises(ModelError, match="'resnet' is unknown; allowed: tiny, efficientnet_lite0, a hub id"):
        build_image_encoder({"encoder": "resnet"}, pretrained=False)
    with pytest.raises(ModelError, match="'bert' is unknown; allowed: hashed, minilm, a hub id"):
        build_text_encoder({"encoder": "bert"}, pretrained=False)


def test_tiny_encoders_are_built_by_name():
    assert isinstance(build_image_encoder({"encoder": "tiny", "size": 64}, pretrained=True), TinyImageEncoder)
    assert isinstance(build_text_encoder({"encoder": "hashed"}, pretrained=True), HashedText)
