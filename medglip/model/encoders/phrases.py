"""One vector a word, and one a phrase from those of its words; both learn. Knows no tokenizer and no images."""

import torch
from torch import Tensor, nn

from medglip.model.encoders.interfaces import TextEncoder


class PhraseReader(nn.Module):
    """Word vectors through one self-attention layer that learns; after fusion, a phrase is the mean of its words.

    Args:
        text: Gives one vector a token.
        width: Width W of the model.
        heads: Attention heads; a divisor of ``width``.
    """

    def __init__(self, text: TextEncoder, width: int, heads: int = 4) -> None:
        super().__init__()
        self.text = text
        self.narrow = nn.Linear(text.width, width)
        self.layer = nn.TransformerEncoderLayer(width, heads, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, ids: Tensor, is_word: Tensor) -> Tensor:
        """Word vectors of U texts, each read on its own.

        Args:
            ids: (U, L) int64, padded at the end.
            is_word: (U, L) bool, False at padding.

        Returns:
            (U, L, W), zero at padding.
        """
        x = self.narrow(self.text(ids, is_word))
        if not ids.numel():
            return x
        # A text without any token would leave its softmax nothing to look at, which is NaN.
        hidden = ~is_word & is_word.any(1, keepdim=True)
        return self.layer(x, src_key_padding_mask=hidden) * is_word.unsqueeze(-1)

    def pool(self, words: Tensor, members: Tensor) -> Tensor:
        """Phrase vectors, in float32: the mean of a phrase's words, then a LayerNorm.

        Args:
            words: (R, T, W) word vectors, finite at padding too.
            members: (R, P, T) bool, the words of each phrase; a phrase without any gets the norm's bias.

        Returns:
            (R, P, W) float32.
        """
        with torch.autocast(words.device.type, enabled=False):
            weight = members.float()
            mean = (weight @ words.float()) / weight.sum(-1, keepdim=True).clamp(min=1)
            return nn.functional.layer_norm(
                mean, mean.shape[-1:], self.norm.weight.float(), self.norm.bias.float(), self.norm.eps
            )
