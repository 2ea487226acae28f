"""What only training needs of the model: parts for contrast, masks and masked words, and what they give. No loss here.

A part is built where its loss has a weight; ``Extras`` runs them inside the model's forward, so that gradients are shared
between processes as those of every other part.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from medglip.errors import ModelError
from medglip.model.assign import assign
from medglip.model.encoders import TextEncoder
from medglip.model.losses import Target
from medglip.model.masks import MaskHead
from medglip.model.regions import RegionPooler

# Points of one image whose masks are learned in a step: enough for all its boxes, few enough for memory.
_MASKS = 24
_SHARED = 64  # length of the vectors that regions and words share; GLIP's SHALLOW_CONTRASTIVE_HIDDEN_DIM


class Learned(NamedTuple):
    """What the losses need beside the answers.

    Attributes:
        assigned: For each row (N,) int64, the box that each point learns, -1 for none.
        mask_logits: (K, H/4, W/4) of some points that learn a box with a known mask; None without a mask head.
        mask_of: (K, 2) int64, row and box of each.
        region_vectors: (M, d) of all true boxes before fusion, of length 1; None without contrast.
        region_of: (M, 2) int64, row and box of each.
        phrase_vectors: (R, P, d) of the phrases before fusion, of length 1; None without contrast.
        contrast_scale: () by which their products are multiplied; None without contrast.
        word_logits: (V, vocabulary) of the masked words; None without them.
        word_labels: (V,) int64, the words that were there; None without them.
    """

    assigned: list[Tensor]
    mask_logits: Tensor | None = None
    mask_of: Tensor | None = None
    region_vectors: Tensor | None = None
    region_of: Tensor | None = None
    phrase_vectors: Tensor | None = None
    contrast_scale: Tensor | None = None
    word_logits: Tensor | None = None
    word_labels: Tensor | None = None


class WordHead(nn.Module):
    """Guesses masked words from fused ones; its last layer is the text encoder's own table of words.

    Source: Devlin et al., BERT (arXiv 1810.04805), section 3.1; on fused words as in GLIPv2 (arXiv 2206.05836).
    """

    def __init__(self, width: int, text: TextEncoder) -> None:
        super().__init__()
        table = text.embedding()
        if table is None or text.mask_id is None:
            raise ModelError("Loss 'words' needs a text encoder with a mask token; allowed: minilm, hashed, or a BERT.")
        self.change = nn.Sequential(nn.Linear(width, table.shape[1]), nn.GELU(), nn.LayerNorm(table.shape[1]))
        self.bias = nn.Parameter(torch.zeros(text.vocabulary))

    def forward(self, words: Tensor, table: Tensor) -> Tensor:
        """Fused words (V, width) and the encoder's table (vocabulary, d) to logits (V, vocabulary)."""
        return self.change(words) @ table.detach().to(words.dtype).T + self.bias


class Extras(nn.Module):
    """The parts of the losses that have a weight.

    Args:
        width: Of the model.
        fine_channels: Of the image encoder's map of stride 4.
        text: The text encoder.
        weights: Of the losses, by name.
    """

    def __init__(self, width: int, fine_channels: int, text: TextEncoder, weights: Mapping[str, float]) -> None:
        super().__init__()
        contrast = weights.get("contrast", 0) > 0
        self.regions = RegionPooler(width, _SHARED) if contrast else None
        self.phrases = nn.Linear(width, _SHARED) if contrast else None
        self.log_scale = nn.Parameter(torch.tensor(2.0)) if contrast else None
        self.masks = MaskHead(width, fine_channels) if weights.get("masks", 0) > 0 else None
        self.words = WordHead(width, text) if weights.get("words", 0) > 0 else None

    def forward(
        self, before: Mapping[str, Any], after: Mapping[str, Any], targets: Sequence[Target], strides: Sequence[int],
        word_labels: Tensor | None, table: Tensor | None,
    ) -> Learned:  # fmt: skip
        """What the losses need.

        Args:
            before: ``levels`` and ``phrases`` (R, P, width) before fusion.
            after: ``levels``, ``fine``, ``words``, ``phrases``, ``features``, ``points`` and ``strides`` after it.
            targets: One a row.
            strides: Of the levels.
            word_labels: (R, T) int64, -100 where no word was masked; None where none was.
            table: The text encoder's vectors of words.
        """
        assigned = [assign(after["points"], after["strides"], target.boxes) for target in targets]
        found: dict[str, Any] = {}
        if self.regions is not None and self.phrases is not None and self.log_scale is not None:
            boxes, is_box = _padded([target.boxes for target in targets])
            found["region_vectors"] = self.regions(before["levels"], strides, boxes)[is_box]
            found["region_of"] = is_box.nonzero()
            found["phrase_vectors"] = nn.functional.normalize(self.phrases(before["phrases"]).float(), dim=-1)
            found["contrast_scale"] = self.log_scale.clamp(max=4.6).exp()
        if self.masks is not None:
            found |= self._masks(after, targets, assigned)
        if self.words is not None:
            labels = word_labels if word_labels is not None else after["words"].new_full(after["words"].shape[:2], -100).long()
            chosen = labels >= 0
            found["word_logits"] = self.words(after["words"][chosen], table)
            found["word_labels"] = labels[chosen]
        return Learned(assigned, **found)

    def _masks(self, after: Mapping[str, Any], targets: Sequence[Target], assigned: Sequence[Tensor]) -> dict[str, Tensor]:
        """Masks of some of the points that learn a box whose mask is known, asked by the first phrase that names it."""
        chosen = [mask_points(target, number) for target, number in zip(targets, assigned, strict=True)]
        points, is_point = _padded([points for points, _, _ in chosen])
        phrases, _ = _padded([phrases for _, phrases, _ in chosen])
        rows = torch.arange(len(targets), device=points.device).unsqueeze(1)
        logits = self.masks(after["levels"], after["fine"], after["features"][rows, points], after["phrases"][rows, phrases],
                            after["points"][points])[is_point]  # type: ignore[misc]  # fmt: skip
        boxes, _ = _padded([boxes for _, _, boxes in chosen])
        row = is_point.nonzero()[:, 0]
        return {"mask_logits": logits, "mask_of": torch.stack([row, boxes[is_point]], dim=1)}


def mask_points(target: Target, assigned: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Points (K,), a phrase that names the box of each (K,), and the boxes (K,); K at most ``_MASKS``."""
    nobody = torch.zeros(0, dtype=torch.long, device=assigned.device)
    if target.masks is None or not len(target.boxes):
        return nobody, nobody, nobody
    is_known = torch.ones_like(target.names[:, 0]) if target.mask_is_known is None else target.mask_is_known
    may = torch.cat([is_known & target.names.any(dim=1), is_known.new_zeros(1)])
    points = may[assigned].nonzero().squeeze(1)  # -1 takes the last, which is no
    if len(points) > _MASKS:
        points = points[torch.linspace(0, len(points) - 1, _MASKS, device=points.device).round().long()]
    boxes = assigned[points]
    return points, target.names[boxes].int().argmax(dim=1), boxes


def _padded(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Parts (K_r, ...) as one tensor (R, K, ...), zeros at padding, and which rows are real (R, K) bool."""
    most = max(map(len, parts))
    whole = parts[0].new_zeros(len(parts), most, *parts[0].shape[1:])
    is_real = torch.zeros(len(parts), most, dtype=torch.bool, device=whole.device)
    for row, part in enumerate(parts):
        whole[row, : len(part)], is_real[row, : len(part)] = part, True
    return whole, is_real
