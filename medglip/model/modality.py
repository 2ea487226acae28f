"""Conditioning on the imaging modality: a soft prompt on the phrases, FiLM on the feature maps. Knows no pixels.

Both start as the identity, so a model that is given conditioning answers at step 0 as it did without. Index 0 is the
unknown modality; modality dropout in training teaches it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medglip.errors import ModelError

WAYS = ("prompt", "film")


class ModalityConditioning(nn.Module):
    """Changes phrases and pyramid levels by what is known of the modality.

    Args:
        modalities: Names, in the order of their indices from 1.
        width: Channels of phrases and levels.
        levels: Number of pyramid levels.
        ways: Any of ``prompt`` (a learned vector a modality, added to each phrase) and ``film`` (scale and shift of
            each channel of each level; Perez et al. 2018); empty for no conditioning.

    Raises:
        ModelError: an unknown way.
    """

    def __init__(self, modalities: Sequence[str], width: int, levels: int, ways: Sequence[str] = WAYS) -> None:
        super().__init__()
        if unknown := set(ways) - set(WAYS):
            raise ModelError(f"Modality conditioning {sorted(unknown)!r} is unknown; allowed: {', '.join(WAYS)}.")
        self.place = {name: number for number, name in enumerate(modalities, start=1)}
        self.prompt = nn.Embedding(len(modalities) + 1, width) if "prompt" in ways else None
        self.film = nn.ModuleList(nn.Embedding(len(modalities) + 1, 2 * width) for _ in range(levels if "film" in ways else 0))
        for table in (self.prompt, *self.film):
            if table is not None:
                nn.init.zeros_(table.weight)

    def index(self, names: Sequence[str | None]) -> Tensor:
        """Indices (B,) int64; 0 for None and for names that were not in training."""
        return torch.tensor([self.place.get(name or "", 0) for name in names], dtype=torch.long)

    def on_phrases(self, phrases: Tensor, modality: Tensor) -> Tensor:
        """Phrases (B, P, width) conditioned by modality indices (B,)."""
        return phrases if self.prompt is None else phrases + self.prompt(modality).unsqueeze(1)

    def on_levels(self, levels: list[Tensor], modality: Tensor) -> list[Tensor]:
        """Levels, each (B, width, H, W), conditioned by modality indices (B,)."""
        if not self.film:
            return levels
        changed = []
        for level, table in zip(levels, self.film, strict=True):
            scale, shift = table(modality)[:, :, None, None].chunk(2, dim=1)
            changed.append(level * (1 + scale) + shift)
        return changed
