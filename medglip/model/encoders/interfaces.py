"""What the model asks of an image encoder and of a text encoder. Holds no weights and no network.

An image encoder is cut in two: ``frozen`` (never learns, so its output may be kept in memory) and ``forward``, which
turns that into one feature map per stride 4, 8, 16, 32. A text encoder has ``tokenize`` and gives one vector a token.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from medglip.errors import ModelError


class Tokens(NamedTuple):
    """The tokens of U texts, the longest of which has L.

    Attributes:
        ids: (U, L) int64, padded at the end.
        is_word: (U, L) bool, False at padding; special tokens such as [CLS] are True.
        spans: (U, L, 2) int64, [first, last) character of each token in its text as it was given, without white space
            at the ends; (0, 0) for special tokens and padding.
    """

    ids: Tensor
    is_word: Tensor
    spans: Tensor


class ImageEncoder(nn.Module):
    """Images to feature maps; ``channels`` are those of its maps of stride 4, 8, 16, 32."""

    channels: tuple[int, ...]

    def frozen(self, images: Tensor) -> list[Tensor]:
        """What the part that never learns makes of images (B, 3, H, W) in [0, 1]; may be kept in memory."""
        raise NotImplementedError

    def forward(self, frozen: list[Tensor]) -> list[Tensor]:
        """Maps of stride 4, 8, 16, 32, each (B, C, H / stride, W / stride), from what ``frozen`` gave."""
        raise NotImplementedError


class TextEncoder(nn.Module):
    """Texts to one vector a token.

    Attributes:
        width: Length of a token's vector.
        most_tokens: Most tokens of a text, special ones included; a longer text is refused, never cut.
        mask_id: Id of the token that stands for a hidden word, or None where there is none.
        vocabulary: Number of ids.
    """

    width: int
    most_tokens: int
    mask_id: int | None
    vocabulary: int

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Tokens of U texts; raises ModelError where one has more than ``most_tokens``."""
        raise NotImplementedError

    def forward(self, ids: Tensor, is_word: Tensor) -> Tensor:
        """(U, L) ids to (U, L, width), zero at padding. A text's vectors depend on that text alone."""
        raise NotImplementedError

    def embedding(self) -> Tensor | None:
        """(vocabulary, width) vectors of the ids before any layer, for a tied output layer; None where there are none."""
        return None


def padded_tokens(
    who: str,
    texts: Sequence[str],
    rows: Sequence[tuple[Sequence[int], Sequence[tuple[int, int]]]],
    most: int,
    padding: int = 0,
) -> Tokens:
    """Tokens of texts whose ids and spans are known.

    Args:
        who: Name of the encoder, for the message.
        texts: The U texts.
        rows: Ids and spans of each text; spans may begin or end with white space, which is cut off.
        most: Most tokens of a text.
        padding: Id at padding.

    Raises:
        ModelError: a text has more than ``most`` tokens.
    """
    longest = max((len(ids) for ids, _ in rows), default=0)
    all_ids = torch.full((len(rows), longest), padding, dtype=torch.long)
    is_word = torch.zeros(len(rows), longest, dtype=torch.bool)
    all_spans = torch.zeros(len(rows), longest, 2, dtype=torch.long)
    for number, (text, (ids, spans)) in enumerate(zip(texts, rows, strict=True)):
        if len(ids) > most:
            raise ModelError(
                f"Text encoder {who}: a text has {len(ids)} tokens, allowed are {most}; shorten or split the text that "
                f"begins {' '.join(text[:200].split()[:8])!r}."
            )
        if not ids:
            continue
        all_ids[number, : len(ids)] = torch.tensor(ids)
        is_word[number, : len(ids)] = True
        all_spans[number, : len(ids)] = torch.tensor([trimmed(text, *span) for span in spans])
    return Tokens(all_ids, is_word, all_spans)


def trimmed(text: str, first: int, last: int) -> tuple[int, int]:
    """A span without the white space at its ends; (0, 0) where nothing is left.

    >>> trimmed("left lung", 4, 9)
    (5, 9)
    """
    part = text[first:last]
    kept = part.strip()
    if not kept:
        return 0, 0
    first += len(part) - len(part.lstrip())
    return first, first + len(kept)
