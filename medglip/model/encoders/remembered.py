"""Token vectors of texts that a frozen encoder has read, kept in memory. Knows no tokenizer and no network."""

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

_TOGETHER = 64  # texts read at once
MOST_TOKENS = 2**16  # about 100 MB at 384 float32 values a token, 200 MB at 768


class Remembered:
    """Reads each text once while there is room; the one unused for longest goes first.

    Texts of equal length are read together, without padding: so a text's vectors do not depend on the others (to 1e-6, for
    products of matrices are summed in another order), and a large encoder is not passed through once for each of them.

    Args:
        width: Length of a token's vector.
        most: Tokens that may be kept; the last text read always is.
    """

    def __init__(self, width: int, most: int = MOST_TOKENS) -> None:
        self.width, self.most = width, most
        self.kept: OrderedDict[tuple[int, ...], Tensor] = OrderedDict()
        self.tokens = 0

    def clear(self) -> None:
        """Forget everything: the weights have changed."""
        self.kept.clear()
        self.tokens = 0

    @torch.no_grad()
    def read(self, ids: Tensor, is_word: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
        """Vectors of (U, L) ids as (U, L, width) float32 on the device of ``ids``, zero at padding.

        Args:
            ids: (U, L) int64, padded at the end.
            is_word: (U, L) bool, False at padding.
            run: (n, l) ids without padding to (n, l, width); called without autocast, so in float32.
        """
        rows = [tuple(row[:length]) for row, length in zip(ids.tolist(), is_word.sum(1).tolist(), strict=True)]
        found = {row: self.kept[row] for row in rows if row in self.kept}
        new: dict[int, list[tuple[int, ...]]] = {}
        for row in dict.fromkeys(row for row in rows if row and row not in found):
            new.setdefault(len(row), []).append(row)
        for together in new.values():
            for first in range(0, len(together), _TOGETHER):
                some = together[first : first + _TOGETHER]
                with torch.autocast(ids.device.type, enabled=False):
                    found |= zip(some, run(torch.tensor(some, device=ids.device)).float().cpu(), strict=True)
        hidden = torch.zeros(*ids.shape, self.width)
        for number, row in enumerate(rows):
            if row:
                hidden[number, : len(row)] = found[row]
                self._keep(row, found[row])
        return hidden.to(ids.device)

    def _keep(self, row: tuple[int, ...], vector: Tensor) -> None:
        if row not in self.kept:
            self.kept[row] = vector.clone()  # of its own, so that it holds no other text's memory
            self.tokens += len(row)
        self.kept.move_to_end(row)
        while self.tokens > self.most and len(self.kept) > 1:
            oldest, _ = self.kept.popitem(last=False)
            self.tokens -= len(oldest)
