"""Phrases of a batch as token ids with integer phrase indices. Knows no image; a tokenizer is handed in.

Each phrase is read on its own, so its score cannot depend on the words of its neighbours, and equal phrases of a batch
are read once. A score belongs to a phrase (index in the list asked), never to a token.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from medglip.errors import ModelError

Tokenize = Callable[[Sequence[str]], tuple[Tensor, Tensor]]


class Prompt(NamedTuple):
    """The phrases asked of each image of a batch.

    Attributes:
        texts: The U distinct phrases.
        tokens: (U, L) int64 token ids, padded at the end.
        token_is_word: (U, L) bool, False at padding.
        place: (B, P) int64 into ``texts``: phrase p of image b; 0 at padding.
        phrase_is_asked: (B, P) bool, False at padding.
    """

    texts: tuple[str, ...]
    tokens: Tensor
    token_is_word: Tensor
    place: Tensor
    phrase_is_asked: Tensor

    def to(self, device: torch.device | str) -> "Prompt":
        """The same prompt on another device."""
        return self._replace(
            tokens=self.tokens.to(device),
            token_is_word=self.token_is_word.to(device),
            place=self.place.to(device),
            phrase_is_asked=self.phrase_is_asked.to(device),
        )


def make_prompt(phrases: Sequence[Sequence[str]], tokenize: Tokenize) -> Prompt:
    """Prompt for a batch.

    Args:
        phrases: For each image the phrases asked of it, at least one in all; lists may differ in length.
        tokenize: Texts to (ids (U, L) int64, is_word (U, L) bool).

    Raises:
        ModelError: no phrase at all, or an empty one.
    """
    texts = tuple(dict.fromkeys(text for asked in phrases for text in asked))
    if not texts or not all(text.strip() for text in texts):
        raise ModelError(f"A prompt needs at least one phrase and no empty one; found {list(map(list, phrases))!r}.")
    number_of = {text: number for number, text in enumerate(texts)}
    place = torch.zeros(len(phrases), max(len(asked) for asked in phrases), dtype=torch.long)
    is_asked = torch.zeros_like(place, dtype=torch.bool)
    for row, asked in enumerate(phrases):
        place[row, : len(asked)] = torch.tensor([number_of[text] for text in asked], dtype=torch.long)
        is_asked[row, : len(asked)] = True
    tokens, is_word = tokenize(texts)
    return Prompt(texts, tokens, is_word, place, is_asked)
