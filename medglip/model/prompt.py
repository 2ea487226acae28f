"""Phrases of a batch as token ids, words and integer phrase indices. Knows no image; a tokenizer is handed in.

Each distinct text is read on its own, so what a phrase means cannot depend on its neighbours, and equal texts of a batch
are read once. A score belongs to a phrase (its index in the list asked), never to a token. More phrases than fit beside
each other are packed into further rows of the same image; no phrase is split or cut.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from medglip.errors import ModelError

if TYPE_CHECKING:  # a prompt is made of what a tokenizer gives and needs no encoder
    from medglip.model.encoders.interfaces import Tokens

Tokenize = Callable[[Sequence[str]], "Tokens"]


class Span(NamedTuple):
    """A phrase that is read inside its caption: the characters ``text[start:end]``.

    Attributes:
        text: The whole caption.
        start: First character of the phrase.
        end: The character after its last one.
    """

    text: str
    start: int
    end: int


class Prompt(NamedTuple):
    """The phrases asked of each image of a batch, in R rows of T words and P phrases.

    An image has a row for each part of its phrases: normally one, none where nothing is asked of it. A word is one token's
    vector; a row holds the words of each text of its phrases once, special tokens included.

    Attributes:
        texts: The U distinct texts, in the order in which they are first asked.
        tokens: (U, L) int64 token ids, padded.
        token_is_word: (U, L) bool, False at padding.
        words: (R, T) int64 into the U * L tokens flattened; 0 at padding.
        word_is_real: (R, T) bool, False at padding.
        word_text: (R, T) int64 into ``texts``; -1 at padding.
        members: (R, P, T) bool, the words of each phrase: all of its text, or those that overlap its span.
        phrase_is_asked: (R, P) bool, False at padding.
        image_of_row: (R,) int64, non-decreasing.
        places: For each image (row, column) of each phrase, in the order asked.
    """

    texts: tuple[str, ...]
    tokens: Tensor
    token_is_word: Tensor
    words: Tensor
    word_is_real: Tensor
    word_text: Tensor
    members: Tensor
    phrase_is_asked: Tensor
    image_of_row: Tensor
    places: tuple[tuple[tuple[int, int], ...], ...]

    def to(self, device: torch.device | str) -> "Prompt":
        """The same prompt on another device."""
        return Prompt(*(field.to(device) if isinstance(field, Tensor) else field for field in self))  # type: ignore[arg-type]

    def by_image(self, values: Tensor) -> list[Tensor]:
        """What was found for each phrase, in the order asked.

        Args:
            values: (R, P, ...) of all rows of the whole prompt. Of a prompt cut by ``rows``: those of all its parts, joined.

        Returns:
            For each image (P_b, ...), where P_b phrases are asked of it; gradients flow through.

        Raises:
            ModelError: the values are not of R rows and P phrases.
        """
        expected = 1 + max(place[-1][0] for place in self.places if place), self.phrase_is_asked.shape[1]
        if tuple(values.shape[:2]) != expected:
            raise ModelError(
                f"Prompt: found values of {tuple(values.shape[:2])!r} rows and phrases; allowed: {expected!r}; "
                "join the values of all parts first."
            )
        places = (torch.tensor(place, dtype=torch.long, device=values.device).reshape(-1, 2) for place in self.places)
        return [values[place[:, 0], place[:, 1]] for place in places]

    def rows(self, first: int, last: int) -> "Prompt":
        """The rows from ``first`` to before ``last`` (or to the end) alone, for thousands of phrases in parts.

        Texts and tokens stay, and ``words`` still points into them, so the texts are read once for all parts. P stays, so
        the (R, P, ...) values of the parts can be joined along the rows. ``image_of_row`` still names the images of the
        batch, and ``places`` still are those of the whole prompt, so ``by_image`` takes the joined values. T is that of
        the longest row that is left.

        >>> parts = [prompt.rows(at, at + 4) for at in range(0, len(prompt.words), 4)]  # doctest: +SKIP
        >>> prompt.by_image(torch.cat([presence_of(part) for part in parts]))  # doctest: +SKIP

        Raises:
            ModelError: there are no such rows.
        """
        if not 0 <= first < min(last, len(self.words)):
            allowed = f"0 <= first < last and first < {len(self.words)}"
            raise ModelError(f"Prompt: found rows {first!r} to {last!r}; allowed: {allowed}; ask for rows that are there.")
        most = int(self.word_is_real[first:last].sum(1).max())
        return self._replace(
            words=self.words[first:last, :most], word_is_real=self.word_is_real[first:last, :most],
            word_text=self.word_text[first:last, :most], members=self.members[first:last, :, :most],
            phrase_is_asked=self.phrase_is_asked[first:last], image_of_row=self.image_of_row[first:last],
        )  # fmt: skip


def make_prompt(phrases: Sequence[Sequence[str | Span]], tokenize: Tokenize, most_words: int = 256) -> Prompt:
    """Prompt for a batch.

    The phrases of an image are packed, in order, into rows of at most ``most_words`` words. A whole-text phrase has all
    words of its text, special tokens included; a ``Span`` has the words that overlap it. All phrases of one text that are
    in one row share its words.

    Args:
        phrases: For each image the phrases asked of it, at least one in all; lists may differ in length or be empty.
        tokenize: Texts to ``Tokens``: ids (U, L), is_word (U, L) and the characters of each token (U, L, 2).
        most_words: The most words of a row.

    Raises:
        ModelError: no phrase at all, an empty one, a span outside its text or on none of its tokens, or a phrase whose
            text has more words than a row may have.

    Source: GLIP (arXiv 2112.03857) section 3.1 reads the phrases of one image as one long text; here each is read alone,
        so neither their order nor their number changes what one of them means.
    """
    spans = [_checked(number, asked) for number, asked in enumerate(phrases)]
    texts = tuple(dict.fromkeys(span.text for asked in spans for span in asked))
    if not texts:
        raise ModelError(f"A prompt needs at least one phrase and no empty one; found none for {len(phrases)} images.")
    ids, is_word, characters = tokenize(texts)
    lengths = is_word.sum(1).tolist()
    for text, length in zip(texts, lengths, strict=True):
        if not 0 < length <= most_words:
            raise ModelError(
                f"Text {text!r}: found {length} words; allowed: 1 to {most_words}; say it shorter, or allow more words a row."
            )
    packed = _pack(spans, {text: number for number, text in enumerate(texts)}, lengths, most_words)
    words, word_text, members = _spread(packed, is_word, characters)
    if members.any(-1).sum() != len(packed.asked):
        bad = next(
            span for (row, column, *_), span in zip(packed.asked, (span for asked in spans for span in asked), strict=True)
            if not members[row, column].any()
        )  # fmt: skip
        raise ModelError(f"Phrase {bad!r}: no token of its text covers it; allowed: a span of at least one; widen it.")
    is_asked = torch.zeros(members.shape[:2], dtype=torch.bool)
    row, column = torch.tensor([place[:2] for place in packed.asked]).T
    is_asked[row, column] = True
    pairs = iter((place[0], place[1]) for place in packed.asked)
    places = tuple(tuple(next(pairs) for _ in asked) for asked in spans)
    images = torch.tensor(packed.image_of_row)
    return Prompt(texts, ids, is_word, words, word_text >= 0, word_text, members, is_asked, images, places)


_WHOLE = -1  # start and end of a phrase that is its whole text, special tokens included


def _checked(image: int, asked: Sequence[str | Span]) -> list[Span]:
    """The phrases of an image as spans; raises ModelError for one that says nothing."""
    if isinstance(asked, str | Span):
        raise ModelError(f"Image {image}: found the phrases {asked!r}; allowed: a list of them; put it into a list.")
    spans = []
    for number, phrase in enumerate(asked):
        who = f"Phrase {number} of image {image}"
        if isinstance(phrase, Span):
            if not 0 <= phrase.start < phrase.end <= len(phrase.text):
                allowed = f"0 <= start < end <= {len(phrase.text)}, the length of its text"
                raise ModelError(f"{who}: found {phrase!r}; allowed: {allowed}; correct the span.")
            said, span = phrase.text[phrase.start : phrase.end], phrase
        elif isinstance(phrase, str):
            said, span = phrase, Span(phrase, _WHOLE, _WHOLE)
        else:
            raise ModelError(f"{who}: found {phrase!r}; allowed: a text or a Span; give one of them.")
        if not said.strip():
            raise ModelError(f"A prompt needs at least one phrase and no empty one; found {phrase!r} as {who.lower()}.")
        spans.append(span)
    return spans


class _Packed(NamedTuple):
    """Which phrases and texts are in which row.

    Attributes:
        image_of_row: Number of the image of each row.
        pieces: The texts of the rows: (row, number of the text, place of its first word in the row).
        asked: The phrases: (row, column, number of the text, place of the text's first word, start, end).
    """

    image_of_row: list[int]
    pieces: list[tuple[int, int, int]]
    asked: list[tuple[int, int, int, int, int, int]]


def _pack(spans: Sequence[Sequence[Span]], number_of: dict[str, int], lengths: Sequence[int], most: int) -> _Packed:
    """Phrases into rows, in order: a new row begins where the next text does not fit."""
    packed = _Packed([], [], [])
    for image, asked in enumerate(spans):
        column, used = 0, most + 1  # so that the first phrase begins a row
        place_of: dict[int, int] = {}
        for text, start, end in asked:
            number = number_of[text]
            if number not in place_of:
                if used + lengths[number] > most:
                    packed.image_of_row.append(image)
                    place_of, column, used = {}, 0, 0
                place_of[number] = used
                packed.pieces.append((len(packed.image_of_row) - 1, number, used))
                used += lengths[number]
            packed.asked.append((len(packed.image_of_row) - 1, column, number, place_of[number], start, end))
            column += 1
    return packed


def _spread(packed: _Packed, is_word: Tensor, characters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``words`` (R, T), ``word_text`` (R, T) and ``members`` (R, P, T) of a prompt."""
    real = is_word.flatten().nonzero().squeeze(1)  # the tokens that are words, text by text
    lengths = is_word.sum(1)
    firsts = lengths.cumsum(0) - lengths

    row, text, place = torch.tensor(packed.pieces).T
    piece, nth = _each_word(lengths[text])
    shape = len(packed.image_of_row), int((place + lengths[text]).max())
    words = torch.zeros(shape, dtype=torch.long)
    word_text = torch.full(shape, -1)
    words[row[piece], place[piece] + nth] = real[firsts[text[piece]] + nth]
    word_text[row[piece], place[piece] + nth] = text[piece]

    row, column, text, place, start, end = torch.tensor(packed.asked).T
    phrase, nth = _each_word(lengths[text])
    first, last = characters.flatten(0, 1)[real[firsts[text[phrase]] + nth]].T
    overlaps = (first < end[phrase]) & (last > start[phrase])
    members = torch.zeros(shape[0], int(column.max()) + 1, shape[1], dtype=torch.bool)
    members[row[phrase], column[phrase], place[phrase] + nth] = overlaps | (start[phrase] == _WHOLE)
    return words, word_text, members


def _each_word(lengths: Tensor) -> tuple[Tensor, Tensor]:
    """For pieces of some lengths (K,): the piece of each word and which of the piece's words it is, (sum of lengths,) each."""
    piece = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    return piece, torch.arange(len(piece)) - (lengths.cumsum(0) - lengths)[piece]
