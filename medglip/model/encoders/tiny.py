"""The ``tiny`` encoders: random convolutions and hashed words, for tests on a CPU. No file, no pretraining."""

import re
import zlib
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from medglip.model.encoders.interfaces import ImageEncoder, TextEncoder, Tokens, padded_tokens


class TinyImageEncoder(ImageEncoder):
    """Five random strided convolutions; nothing is frozen."""

    channels = (16, 24, 32, 48)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(self._layer(*pair) for pair in pairwise((3, 16, *self.channels)))

    @staticmethod
    def _layer(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, 2, 1), nn.GroupNorm(4, outputs), nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1), nn.ReLU(inplace=True),
        )  # fmt: skip

    def frozen(self, images: Tensor) -> list[Tensor]:
        """The images (B, 3, H, W) in [0, 1], centred."""
        return [images - 0.5]

    def forward(self, frozen: list[Tensor]) -> list[Tensor]:
        """Maps of stride 4, 8, 16, 32."""
        x, levels = frozen[-1], []
        for layer in self.layers:
            x = layer(x)
            levels.append(x)
        return levels[1:]


class HashedText(TextEncoder):
    """Words as learned vectors, found by hash: no vocabulary, no file, no pretraining.

    The last bucket is kept for the mask; a word whose hash is there shares the bucket before it.
    """

    width = 48
    most_tokens = 512

    def __init__(self, buckets: int = 4096) -> None:
        super().__init__()
        self.table = nn.Embedding(buckets, self.width)
        self.vocabulary = buckets
        self.mask_id = buckets - 1

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """One token a word between white space, whatever its case; no special tokens."""
        words = [list(re.finditer(r"\S+", text)) for text in texts]
        rows = [([self._bucket(word[0]) for word in row], [word.span() for word in row]) for row in words]
        return padded_tokens("'hashed'", texts, rows, self.most_tokens)

    def _bucket(self, word: str) -> int:
        return min(zlib.crc32(word.lower().encode()) % self.vocabulary, self.vocabulary - 2)

    def forward(self, ids: Tensor, is_word: Tensor) -> Tensor:
        """(U, L) ids to (U, L, 48), zero at padding."""
        return self.table(ids) * is_word.unsqueeze(-1)

    def embedding(self) -> Tensor:
        """(buckets, 48), the table that learns."""
        return self.table.weight
