"""Deep fusion: words look at the image, the image looks at the words, words look at each other. Knows no boxes.

A word is one vector of the prompt: a token, or a whole phrase where a model fuses phrases. Each pixel may also look at a
learned "nothing", so that a prompt of phrases that are all absent leaves it as it was.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Words look at a picture of at most so many cells a side and level: enough to find a place, at a bounded price.
_COARSE = 16


class CrossAttention(nn.Module):
    """Multi-head attention from queries (B, Q, width) to memory (B, M, width)."""

    def __init__(self, width: int, heads: int, with_nothing: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.memory = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.nothing = nn.Parameter(torch.zeros(1, 1, width)) if with_nothing else None

    def forward(self, queries: Tensor, memory: Tensor, may_look: Tensor | None = None) -> Tensor:
        """What the queries (B, Q, width) gather.

        Args:
            queries: Who looks.
            memory: At what, (B, M, width).
            may_look: (B, M) or (B, Q, M) bool, False where a query must not look; None allows all.
        """
        if may_look is not None and may_look.ndim == 2:
            may_look = may_look.unsqueeze(1)
        if self.nothing is not None:
            memory = torch.cat([self.nothing.expand(len(memory), -1, -1).to(memory.dtype), memory], dim=1)
            may_look = F.pad(may_look, (1, 0), value=True) if may_look is not None else None
        query = self.query(queries).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.memory(memory).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mask = may_look.unsqueeze(1) if may_look is not None else None
        gathered = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(gathered.transpose(1, 2).flatten(2))


class FusionLayer(nn.Module):
    """One layer of bidirectional fusion with layer-scale on both residuals.

    Source: Li et al., GLIP (arXiv 2112.03857), section 3.2; the residual is added to what came in and not, as in the code
    of GLIP, to what its norm makes of it.
    """

    def __init__(self, width: int, heads: int, scale: float, image_looks: bool = True) -> None:
        super().__init__()
        self.phrase_norm, self.image_norm, self.ffn_norm = (nn.LayerNorm(width) for _ in range(3))
        self.phrases_look = CrossAttention(width, heads)
        self.image_looks = CrossAttention(width, heads, with_nothing=True) if image_looks else None
        self.ffn = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.phrase_scale, self.ffn_scale = (nn.Parameter(torch.full((width,), scale)) for _ in range(2))
        self.image_scale = nn.Parameter(torch.full((width,), scale)) if image_looks else None

    def forward(self, levels: list[Tensor], words: Tensor, is_real: Tensor) -> tuple[list[Tensor], Tensor]:
        """Levels (R, width, H, W) and words (R, T, width), each after looking at the other; ``is_real`` (R, T) bool."""
        sizes = [level.shape[-2:] for level in levels]
        memory = self.image_norm(coarse_cells(levels))
        looking = self.phrase_norm(words)
        words = words + self.phrase_scale * self.phrases_look(looking, memory)
        words = words + self.ffn_scale * self.ffn(self.ffn_norm(words))
        if self.image_looks is None:
            return levels, words
        pixels = self.image_norm(torch.cat([level.flatten(2) for level in levels], dim=2).transpose(1, 2))
        change = (self.image_scale * self.image_looks(pixels, looking, is_real)).transpose(1, 2)
        parts = change.split([height * width for height, width in sizes], dim=2)
        levels = [level + part.unflatten(2, size) for level, part, size in zip(levels, parts, sizes, strict=True)]
        return levels, words


class TextLayer(nn.Module):
    """Self-attention among words, between two layers of fusion, with layer-scale.

    It has no positions (those are the text encoder's), so the order of phrases changes nothing but the order of results.

    Source: GLIP (arXiv 2112.03857), equation 6: a BERT layer of its own after each fusion.
    """

    def __init__(self, width: int, heads: int, scale: float) -> None:
        super().__init__()
        self.norm, self.ffn_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.look = CrossAttention(width, heads)
        self.ffn = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.look_scale, self.ffn_scale = (nn.Parameter(torch.full((width,), scale)) for _ in range(2))

    def forward(self, words: Tensor, may_look: Tensor) -> Tensor:
        """Words (R, T, width) after looking at those that ``may_look`` (R, T, T) bool allows."""
        looking = self.norm(words)
        words = words + self.look_scale * self.look(looking, looking, may_look)
        return words + self.ffn_scale * self.ffn(self.ffn_norm(words))


def coarse_cells(levels: list[Tensor]) -> Tensor:
    """All levels (R, width, H, W), those above 16 cells a side averaged down to it, as cells (R, M, width)."""
    sizes = [(min(level.shape[-2], _COARSE), min(level.shape[-1], _COARSE)) for level in levels]
    coarse = [F.adaptive_avg_pool2d(level, size) for level, size in zip(levels, sizes, strict=True)]
    return torch.cat([level.flatten(2) for level in coarse], dim=2).transpose(1, 2)


def may_look(group: Tensor, is_real: Tensor, isolate: bool) -> Tensor:
    """(R, T, T) bool: which word may look at which; always at itself, so that padding stays finite.

    Args:
        group: (R, T) int64, the text (or phrase) that a word is of.
        is_real: (R, T) bool.
        isolate: Words look at words of their own text only, so that a phrase's score does not depend on its neighbours.
    """
    allowed = is_real.unsqueeze(1).expand(-1, is_real.shape[1], -1)
    if isolate:
        allowed = allowed & (group.unsqueeze(1) == group.unsqueeze(2))
    return allowed | torch.eye(is_real.shape[1], dtype=torch.bool, device=is_real.device)
