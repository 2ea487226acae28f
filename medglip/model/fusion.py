"""Deep fusion: phrases look at the image, the image looks at the phrases. Knows no boxes.

Phrases never look at each other. Each pixel may also look at a learned "nothing", so that a prompt of phrases that are
all absent leaves it as it was.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CrossAttention(nn.Module):
    """Multi-head attention from queries (B, Q, width) to memory (B, M, width)."""

    def __init__(self, width: int, heads: int, with_nothing: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.memory = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.nothing = nn.Parameter(torch.zeros(1, 1, width)) if with_nothing else None

    def forward(self, queries: Tensor, memory: Tensor, is_real: Tensor | None = None) -> Tensor:
        """What the queries (B, Q, width) gather; ``is_real`` (B, M) bool is False where memory is padding."""
        if self.nothing is not None:
            memory = torch.cat([self.nothing.expand(len(memory), -1, -1), memory], dim=1)
            is_real = F.pad(is_real, (1, 0), value=True) if is_real is not None else None
        query = self.query(queries).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.memory(memory).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mask = is_real[:, None, None, :] if is_real is not None else None
        gathered = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(gathered.transpose(1, 2).flatten(2))


class FusionLayer(nn.Module):
    """One layer of bidirectional fusion with layer-scale on both residuals.

    Source: Li et al., GLIP (arXiv 2112.03857), section 3.2; phrases are kept apart, as in ChEX (arXiv 2404.15770).
    """

    def __init__(self, width: int, heads: int, scale: float, image_looks: bool = True) -> None:
        super().__init__()
        self.phrase_norm, self.image_norm, self.ffn_norm = (nn.LayerNorm(width) for _ in range(3))
        self.phrases_look = CrossAttention(width, heads)
        self.image_looks = CrossAttention(width, heads, with_nothing=True) if image_looks else None
        self.ffn = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.phrase_scale, self.ffn_scale = (nn.Parameter(torch.full((width,), scale)) for _ in range(2))
        self.image_scale = nn.Parameter(torch.full((width,), scale)) if image_looks else None

    def forward(self, levels: list[Tensor], phrases: Tensor, is_asked: Tensor) -> tuple[list[Tensor], Tensor]:
        """Levels (B, width, H, W) and phrases (B, P, width), each after looking at the other."""
        sizes = [level.shape[-2:] for level in levels]
        pixels = self.image_norm(torch.cat([level.flatten(2) for level in levels], dim=2).transpose(1, 2))
        # Coarse pixels are enough for a phrase to find its place: every level above 16 x 16 is averaged down to it.
        coarse = [F.avg_pool2d(level, max(1, level.shape[-1] // 16)) for level in levels]
        memory = self.image_norm(torch.cat([level.flatten(2) for level in coarse], dim=2).transpose(1, 2))
        words = self.phrase_norm(phrases)
        phrases = phrases + self.phrase_scale * self.phrases_look(words, memory)
        phrases = phrases + self.ffn_scale * self.ffn(self.ffn_norm(phrases))
        if self.image_looks is None:
            return levels, phrases
        change = (self.image_scale * self.image_looks(pixels, words, is_asked)).transpose(1, 2)
        parts = change.split([height * width for height, width in sizes], dim=2)
        levels = [level + part.unflatten(2, size) for level, part, size in zip(levels, parts, sizes, strict=True)]
        return levels, phrases
