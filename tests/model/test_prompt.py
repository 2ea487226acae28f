"""Prompts: no phrase is split or lost, words are found by characters for any tokenizer, parts are joined as asked."""

import time
from collections.abc import Callable, Sequence
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

from medglip.errors import ModelError
from medglip.model.encoders.interfaces import Tokens
from medglip.model.prompt import Prompt, Span, make_prompt

CORPUS = [
    "left kidney cyst", "cyst in the right kidney", "12 mm nodule of the upper lobe of the left lung", "pleural effusion",
    "no pneumothorax; heart of normal size", "Zyste der linken Niere, größer als 3 cm", "左肺结节", "киста почки", "naïve élan",
]  # fmt: skip
KINDS = ("wordpiece", "bpe", "unigram")


def padded(rows: Sequence[Sequence[tuple[int, int, int]]]) -> Tokens:
    """Tokens of rows of (id, first character, last character)."""
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    is_word, spans = torch.zeros_like(ids, dtype=torch.bool), torch.zeros(*ids.shape, 2, dtype=torch.long)
    for number, row in enumerate(rows):
        if row:
            table = torch.tensor(row)
            ids[number, : len(row)], is_word[number, : len(row)], spans[number, : len(row)] = table[:, 0], True, table[:, 1:]
    return Tokens(ids, is_word, spans)


def by_space(texts: Sequence[str]) -> Tokens:
    """A begin token and one token a word, whose id is the word's length."""
    rows = []
    for text in texts:
        row, at = [(99, 0, 0)], 0
        for word in text.split(" "):
            row += [(len(word), at, at + len(word))] if word else []
            at += len(word) + 1
        rows.append(row)
    return padded(rows)


@cache
def tokenizer(kind: str) -> Tokenizer:
    """A tiny tokenizer of a kind, trained on the corpus."""
    if kind == "wordpiece":
        made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
        made.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=120, special_tokens=["[UNK]", "[CLS]", "[SEP]"]))
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
    elif kind == "bpe":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        made.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False))
    else:
        made = Tokenizer(models.Unigram())
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        made.train_from_iterator(
            CORPUS, trainers.UnigramTrainer(vocab_size=90, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False)
        )
    return made


def tokenize_with(kind: str) -> Callable[[Sequence[str]], Tokens]:
    def tokenize(texts: Sequence[str]) -> Tokens:
        encodings = tokenizer(kind).encode_batch(list(texts))
        return padded([[(i, *span) for i, span in zip(one.ids, one.offsets, strict=True)] for one in encodings])

    return tokenize


def members_of(prompt: Prompt, image: int, phrase: int) -> list[int]:
    """Numbers of the phrase's tokens in the text that it belongs to."""
    row, column = prompt.places[image][phrase]
    return (prompt.words[row][prompt.members[row, column]] % prompt.tokens.shape[1]).tolist()


def test_a_row_by_hand():
    caption = "cyst in the kidney"
    prompt = make_prompt([["left lung", Span(caption, 0, 4), Span(caption, 12, 18)], ["left lung"]], by_space)
    assert prompt.texts == ("left lung", caption)
    assert prompt.tokens.tolist() == [[99, 4, 4, 0, 0], [99, 4, 2, 3, 6]]
    assert prompt.words.tolist() == [[0, 1, 2, 5, 6, 7, 8, 9], [0, 1, 2, 0, 0, 0, 0, 0]]
    assert prompt.word_text.tolist() == [[0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 0, -1, -1, -1, -1, -1]]
    assert prompt.word_is_real.tolist() == [[True] * 8, [True] * 3 + [False] * 5]
    assert prompt.members.int().tolist() == [
        [[1, 1, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 1]],
        [[1, 1, 1, 0, 0, 0, 0, 0], [0] * 8, [0] * 8],
    ]
    assert prompt.phrase_is_asked.tolist() == [[True] * 3, [True, False, False]]
    assert prompt.image_of_row.tolist() == [0, 1]
    assert prompt.places == (((0, 0), (0, 1), (0, 2)), ((1, 0),))


def test_equal_phrases_of_a_row_share_its_words():
    once, twice = make_prompt([["lung"]], by_space), make_prompt([["lung", "lung"]], by_space)
    assert twice.words.tolist() == once.words.tolist()
    assert twice.members[0, 0].tolist() == twice.members[0, 1].tolist() == once.members[0, 0].tolist()


def test_packing_by_hand():
    # two words a phrase (begin token and word), five words a row: two phrases a row
    prompt = make_prompt([["a", "bb", "ccc"], [], ["bb"]], by_space, most_words=5)
    assert prompt.image_of_row.tolist() == [0, 0, 2]
    assert prompt.places == (((0, 0), (0, 1), (1, 0)), (), ((2, 0),))
    assert prompt.word_text.tolist() == [[0, 0, 1, 1], [2, 2, -1, -1], [1, 1, -1, -1]]


WORD = st.sampled_from(["cyst", "of", "the", "kidney", "左肺结节", "größer", "почки", "12"])
TEXT = st.lists(WORD, min_size=1, max_size=6).map(" ".join)


@st.composite
def phrase(draw: st.DrawFn) -> str | Span:
    text = draw(TEXT)
    if draw(st.booleans()):
        return text
    start = draw(st.integers(0, len(text) - 1))
    end = draw(st.integers(start + 1, len(text)))
    return Span(text, start, end) if text[start:end].strip() else text


BATCH = st.lists(st.lists(phrase(), max_size=8), min_size=1, max_size=4).filter(any)


@settings(deadline=None, max_examples=60)
@given(BATCH, st.integers(7, 30))
def test_packing_keeps_every_phrase_whole_and_in_order(phrases: list[list[str | Span]], most: int):
    prompt = make_prompt(phrases, by_space, most)
    assert prompt.words.shape[1] <= most
    assert (prompt.word_text >= 0).equal(prompt.word_is_real)
    assert prompt.image_of_row.tolist() == sorted(prompt.image_of_row.tolist())
    named = [place for places in prompt.places for place in places]
    assert named == sorted(set(named))  # each once, and rows and columns in the order asked
    assert sorted(named) == [tuple(pair) for pair in prompt.phrase_is_asked.nonzero().tolist()]
    assert prompt.members.any(-1).equal(prompt.phrase_is_asked)
    whole = by_space(prompt.texts).is_word.sum(1).tolist()
    for image, (asked, places) in enumerate(zip(phrases, prompt.places, strict=True)):
        assert len(asked) == len(places)
        for one, (row, column) in zip(asked, places, strict=True):
            assert prompt.image_of_row[row] == image
            text = prompt.texts.index(one if isinstance(one, str) else one.text)
            is_mine = prompt.word_text[row] == text
            assert is_mine.sum() == whole[text]  # all words of its text, once
            assert prompt.words[row][is_mine].tolist() == (text * prompt.tokens.shape[1] + torch.arange(whole[text])).tolist()
            assert not prompt.members[row, column][~is_mine].any()
    for number in range(1, len(prompt.words)):  # a row is begun only where the next text does not fit
        if prompt.image_of_row[number] == prompt.image_of_row[number - 1]:
            first = whole[prompt.word_text[number, 0]]
            assert prompt.word_is_real[number - 1].sum() + first > most


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=30)
@given(BATCH)
def test_a_span_has_the_tokens_that_overlap_it_and_a_text_all_of_its_own(kind: str, phrases: list[list[str | Span]]):
    prompt = make_prompt(phrases, tokenize_with(kind), most_words=100)
    for image, asked in enumerate(phrases):
        for number, one in enumerate(asked):
            text = one if isinstance(one, str) else one.text
            encoding = tokenizer(kind).encode(text)
            expected = [
                at for at, (first, last) in enumerate(encoding.offsets)
                if isinstance(one, str) or set(range(first, last)) & set(range(one.start, one.end))
            ]  # fmt: skip
            assert members_of(prompt, image, number) == expected
            row, column = prompt.places[image][number]
            ids = prompt.tokens.flatten()[prompt.words[row][prompt.members[row, column]]]
            assert ids.tolist() == [encoding.ids[at] for at in expected]


@pytest.mark.parametrize("kind", KINDS)
def test_words_of_another_script_are_found(kind: str):
    text = "киста почки, 左肺结节"
    prompt = make_prompt([[Span(text, 6, 11), Span(text, 13, 17)]], tokenize_with(kind))
    offsets = tokenizer(kind).encode(text).offsets
    for number, (start, end) in enumerate([(6, 11), (13, 17)]):
        covered = {at for token in members_of(prompt, 0, number) for at in range(*offsets[token])}
        assert set(range(start, end)) <= covered
        assert covered <= set(range(start - 1, end + 1))  # at most the space before it, no neighbour


def test_a_text_is_read_in_the_same_way_whatever_is_beside_it():
    alone = make_prompt([["left kidney cyst"]], tokenize_with("wordpiece"))
    beside = make_prompt([["a"], ["pleural effusion", "left kidney cyst"]], tokenize_with("wordpiece"))
    row, column = beside.places[1][1]
    ids = beside.tokens.flatten()[beside.words[row][beside.members[row, column]]]
    assert ids.tolist() == alone.tokens.flatten()[alone.words[0]].tolist()


@settings(deadline=None, max_examples=40)
@given(BATCH, st.integers(7, 20), st.integers(1, 3))
def test_values_of_all_parts_come_back_in_the_order_asked(phrases: list[list[str | Span]], most: int, step: int):
    prompt = make_prompt(phrases, by_space, most)

    def sums(part: Prompt) -> Tensor:
        """Sum of the ids of each phrase's words, found through the words of the part."""
        ids = part.tokens.flatten()[part.words] * part.word_is_real
        return torch.einsum("rpt,rt->rp", part.members.float(), ids.float()).unsqueeze(-1)

    parts = [prompt.rows(at, at + step) for at in range(0, len(prompt.words), step)]
    for part in parts:
        assert (part.texts, part.tokens.shape) == (prompt.texts, prompt.tokens.shape)  # read once for all parts
        assert part.word_is_real.any(0).all()  # no longer than its longest row
        assert part.words.shape == part.word_is_real.shape == part.word_text.shape == part.members[:, 0].shape
    assert torch.cat([part.image_of_row for part in parts]).equal(prompt.image_of_row)
    values = torch.cat([sums(part) for part in parts])
    assert values.equal(sums(prompt))
    for of_part in (prompt, parts[-1]):
        found = of_part.by_image(values)
        for asked, one in zip(phrases, found, strict=True):
            assert one.shape == (len(asked), 1)
            for phrase_asked, value in zip(asked, one.flatten().tolist(), strict=True):
                tokens = by_space([phrase_asked if isinstance(phrase_asked, str) else phrase_asked.text])
                first, last = tokens.spans[0].T
                if isinstance(phrase_asked, Span):
                    tokens.ids[0][~((first < phrase_asked.end) & (last > phrase_asked.start))] = 0
                assert value == tokens.ids.sum()


def test_five_thousand_phrases_for_one_image_are_quick():
    phrases = [f"finding {number}" for number in range(4000)]
    phrases += [Span(phrases[number], 0, 7) for number in range(1000)]  # type: ignore[misc]
    texts = tuple(dict.fromkeys(one if isinstance(one, str) else one.text for one in phrases))
    tokens = by_space(texts)
    start = time.process_time()
    prompt = make_prompt([phrases], lambda _: tokens)
    found = prompt.by_image(torch.arange(prompt.phrase_is_asked.numel()).view(prompt.phrase_is_asked.shape))[0]
    assert time.process_time() - start < 1.0
    assert len(prompt.places[0]) == len(found) == 5000
    assert found.tolist() == sorted(set(found.tolist()))
    assert prompt.words.shape[1] <= 256


def test_to_moves_every_tensor_and_keeps_the_rest():
    prompt = make_prompt([["lung"], ["heart", "left lung"]], by_space)
    moved = prompt.to("meta")
    assert all(field.device.type == "meta" for field in moved if isinstance(field, Tensor))
    assert (moved.texts, moved.places) == (prompt.texts, prompt.places)


def test_gradients_flow_through_by_image():
    prompt = make_prompt([["lung"], ["heart", "left lung"]], by_space)
    values = torch.ones(2, 2, requires_grad=True)
    torch.cat(prompt.by_image(values)).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [[1, 0], [1, 1]]


@pytest.mark.parametrize("phrases", [[], [[]], [["lung", " "]], [[""]], [["lung"], [Span("left  lung", 4, 6)]]])
def test_a_prompt_without_words_is_refused(phrases):
    with pytest.raises(ModelError, match="at least one phrase"):
        make_prompt(phrases, by_space)


@pytest.mark.parametrize("span", [(3, 3), (5, 2), (-1, 4), (0, 10), (12, 14)])
def test_a_span_outside_its_text_is_refused(span):
    with pytest.raises(ModelError, match=r"Phrase 1 of image 0.*0 <= start < end <= 9"):
        make_prompt([["lung", Span("left lung", *span)]], by_space)


def test_a_span_on_no_token_is_refused():
    only_letters = lambda texts: padded([[(7, at, at + 1) for at, sign in enumerate(text) if sign.isalpha()] for text in texts])  # noqa: E731
    with pytest.raises(ModelError, match=r"start=1, end=2.*no token"):
        make_prompt([["ab", Span("a-b", 1, 2)]], only_letters)
    with pytest.raises(ModelError, match=r"'--'.*0 words"):
        make_prompt([["--"]], only_letters)


def test_a_text_longer_than_a_row_is_refused_and_never_cut():
    text = "one two three four"  # five words with the begin token
    assert make_prompt([[text, text]], by_space, 5).words.shape == (1, 5)
    for phrase_asked in (text, Span(text, 0, 3)):
        with pytest.raises(ModelError, match="found 5 words; allowed: 1 to 4"):
            make_prompt([["lung", phrase_asked]], by_space, 4)


@pytest.mark.parametrize("phrases", ["lung", [["lung"], "heart"], [Span("lung", 0, 4)]])
def test_phrases_that_are_in_no_list_are_refused(phrases):
    with pytest.raises(ModelError, match="a list of them"):
        make_prompt(phrases, by_space)


def test_a_phrase_of_another_kind_is_refused():
    with pytest.raises(ModelError, match="a text or a Span"):
        make_prompt([["lung", ("left lung", 0, 4)]], by_space)  # type: ignore[list-item]


def test_rows_and_values_that_are_not_there_are_refused():
    prompt = make_prompt([["a", "bb", "ccc"]], by_space, most_words=4)
    for first, last in ((0, 0), (-1, 1), (2, 3), (2, 1)):
        with pytest.raises(ModelError, match="0 <= first < last and first < 2"):
            prompt.rows(first, last)
    with pytest.raises(ModelError, match="join the values"):
        prompt.rows(0, 1).by_image(torch.zeros(1, 2))
