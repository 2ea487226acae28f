"""Token vectors of texts that a frozen encoder has read, kept in memory. Knows no tokenizer and no network."""

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

MOST_TOKENS = 2**16  # about 100 MB at 384 float32 values a token, 200 MB at 768


class Remembered:
    """Reads each text once while there is room; the one unused for longest goes first.

    Every text is read alone, so its vectors are the same to the last bit in any batch, and after any resumption.

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
            run: (1, l) ids without padding to (1, l, width); called without autocast, so in float32.
        """
        rows = [tuple(row[:length]) for row, length in zip(ids.tolist(), is_word.sum(1).tolist(), strict=True)]
        hidden = torch.zeros(*ids.shape, self.width)
        for number, row in enumerate(rows):
            if not row:
                continue
            if row in self.kept:
                self.kept.move_to_end(row)
            else:
                with torch.autocast(ids.device.type, enabled=False):
                    self._keep(row, run(torch.tensor([row], device=ids.device))[0].float().cpu())
            hidden[number, : len(row)] = self.kept[row]
        return hidden.to(ids.device)

    def _keep(self, row: tuple[int, ...], vector: Tensor) -> None:
        self.kept[row] = vector
        self.tokens += len(row)
        while self.tokens > self.most and len(self.kept) > 1:
            oldest, _ = self.kept.popitem(last=False)
            self.tokens -= len(oldest)
