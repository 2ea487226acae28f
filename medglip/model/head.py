"""Dense head: what is at each point, how far its box reaches, how good it is, which phrase it shows. Knows no encoder."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medglip.errors import ModelError
from medglip.model.deform import precise
from medglip.model.dynamic import DynamicBlock
from medglip.model.fusion import CrossAttention, coarse_cells
from medglip.model.pyramid import FeaturePyramid

PRIOR_LOGIT = -4.595  # log(0.01 / 0.99): at first every point says "no" with 99 % (RetinaNet; MM-Grounding-DINO)
SURE = -4.0  # log variance of a presence logit at first: a standard deviation of 0.14


class DenseHead(nn.Module):
    """Per point: a vector to compare with phrases, the distances to the sides of its box, and the box's quality.

    The finest level speaks twice: once a cell, and once for each quarter of a cell, so that a lesion of ten pixels has
    points of its own (stride 4) at the price of a 1x1 convolution.

    Args:
        width: Of the levels.
        depth: Layers of the towers.
        levels: How many levels.
        kind: ``conv``: names and boxes have a tower of convolutions each. ``dynamic``: both read one tower of
            ``DynamicBlock``s, which look across levels, as in GLIP.

    Raises:
        ModelError: another kind.
    """

    def __init__(self, width: int, depth: int, levels: int, kind: str = "conv") -> None:
        super().__init__()
        if kind == "conv":
            self.name_tower, self.box_tower = (self._tower(width, depth) for _ in range(2))
        elif kind == "dynamic":
            self.tower = nn.ModuleList(DynamicBlock(width) for _ in range(depth))
        else:
            raise ModelError(f"Dense head: found kind {kind!r}; allowed: 'conv' or 'dynamic'; set `head` to one of them.")
        self.kind = kind
        self.name = nn.Conv2d(width, width, 1)
        self.box = nn.Conv2d(width, 4, 3, padding=1)
        self.quality = nn.Conv2d(width, 1, 3, padding=1)
        self.fine_name, self.fine_box, self.fine_quality = (nn.Conv2d(width, 4 * count, 1) for count in (width, 4, 1))
        self.reach = nn.Parameter(torch.ones(levels + 1))

    @staticmethod
    def _tower(width: int, depth: int) -> nn.Sequential:
        layers = [
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width), nn.ReLU(inplace=True))
            for _ in range(depth)
        ]
        return nn.Sequential(*layers)

    def forward(self, levels: list[Tensor], strides: Sequence[int]) -> "PointMaps":
        """Maps of what the points say, the finest (stride ``strides[0] / 2``) first."""
        maps = PointMaps([], [], [], [], [])
        for (name, box), stride in zip(self._towers(levels), strides, strict=True):
            if not maps.strides:
                fine = (self.fine_name(name), self.fine_box(box), self.fine_quality(box))
                names, boxes, qualities = (F.pixel_shuffle(x, 2) for x in fine)
                features = F.interpolate(name, scale_factor=2.0, mode="nearest")
                self._add(maps, names, boxes, qualities, features, stride // 2)
            self._add(maps, self.name(name), self.box(box), self.quality(box), name, stride)
        return maps

    def _towers(self, levels: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """For each level the maps that names and boxes are read from, (B, width, H, W) both."""
        if self.kind == "conv":
            return [(self.name_tower(level), self.box_tower(level)) for level in levels]
        for block in self.tower:
            levels = block(levels)
        return [(level, level) for level in levels]

    def _add(self, maps: "PointMaps", name: Tensor, box: Tensor, quality: Tensor, feature: Tensor, stride: int) -> None:
        maps.reaches.append(F.softplus(box * self.reach[len(maps.strides)]) * (2 * stride))
        maps.names.append(name)
        maps.qualities.append(quality)
        maps.features.append(feature)
        maps.strides.append(stride)


class PointMaps(NamedTuple):
    """What the points of each level say: maps (B, C, H, W), and the levels' strides.

    Attributes:
        names: ``width`` channels, to compare with phrases.
        reaches: 4 channels, pixels from the point to left, top, right, bottom.
        qualities: 1 channel, logit of the box's IoU.
        features: ``width`` channels, the last before the names.
        strides: Pixels between points.
    """

    names: list[Tensor]
    reaches: list[Tensor]
    qualities: list[Tensor]
    features: list[Tensor]
    strides: list[int]

    def joined(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Names (B, N, width), reaches (B, N, 4), qualities (B, N), features (B, N, width), level by level, row by row."""
        parts = (self.names, self.reaches, self.qualities, self.features)
        names, reaches, qualities, features = (torch.cat([x.flatten(2) for x in part], 2).transpose(1, 2) for part in parts)
        return names, reaches, qualities.squeeze(-1), features


class Alignment(nn.Module):
    """Logit of "this point shows this phrase": v . t / sqrt(d) * exp(s) + b, and where in the image the phrase belongs.

    The last term is a product of the phrase with the point's position. It starts at nothing and is the short way from
    the word "left" to a side of the image, which the features alone take many steps to find.

    Source: GLIP (arXiv 2112.03857) section 3.1 with the scale and bias of MM-Grounding-DINO (arXiv 2401.02361).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.text = nn.Linear(width, width)
        self.place = nn.Linear(width, 6)
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.tensor(PRIOR_LOGIT))
        nn.init.zeros_(self.place.weight)
        nn.init.zeros_(self.place.bias)

    def forward(self, points: Tensor, phrases: Tensor, where: Tensor) -> Tensor:
        """Points (B, N, width), phrases (B, P, width) and position features (N, 6) to logits (B, N, P)."""
        words = self.text(phrases).transpose(1, 2) * (self.log_scale.exp() / points.shape[-1] ** 0.5)
        return points @ words + where.to(points.dtype) @ self.place(phrases).transpose(1, 2) + self.bias


class Presence(nn.Module):
    """Logit of "this phrase is somewhere in this image" and how unsure it is, from the phrase that has looked at it.

    The logit is read as the mean of a Gaussian, whose variance the same features predict: noise in image or wording that
    more training would not remove. Phrases do not touch each other.

    Source: Kendall and Gal (arXiv 1703.04977), section 2 (a Gaussian over logits); ProLIP (arXiv 2410.18857),
    "uncertainty token" (a variance predicted for a text).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.look = CrossAttention(width, heads)
        self.judge = nn.Sequential(nn.LayerNorm(3 * width), nn.Linear(3 * width, width), nn.GELU(), nn.Linear(width, 1))
        self.trust = nn.Parameter(torch.tensor(0.5))
        self.spread = nn.Linear(width, 1)
        nn.init.zeros_(self.spread.weight)
        nn.init.constant_(self.spread.bias, SURE)

    def forward(self, levels: list[Tensor], phrases: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Presence logits (R, P) and the logarithms of their variances (R, P).

        Args:
            levels: (R, width, H, W) each.
            phrases: (R, P, width).
            logits: (R, N, P), alignment of points and phrases.
        """
        seen = self.look(phrases, coarse_cells(levels))
        thought = self.judge[:-1](torch.cat([phrases, seen, phrases * seen], dim=-1))
        judged, spread = self.judge[-1](thought).squeeze(-1), self.spread(thought).squeeze(-1)
        return judged + self.trust * (logits.amax(dim=1) - PRIOR_LOGIT / 2), precise(spread)


def expected_sigmoid(logit: Tensor, log_variance: Tensor) -> Tensor:
    """Mean of the sigmoid of a Gaussian with mean ``logit`` and variance ``exp(log_variance)``, of one shape, in [0, 1].

    An approximation, within 0.02 of the truth. The less sure, the nearer to a half; which side of it never changes.

    Source: MacKay, The evidence framework applied to classification networks, Neural Computation 4(5), 1992.

    >>> expected_sigmoid(torch.tensor([2.0, 2.0]), torch.tensor([-20.0, 2.0]))
    tensor([0.8808, 0.7335])
    """
    return torch.sigmoid(precise(logit) / torch.sqrt(1 + torch.pi / 8 * precise(log_variance).exp()))


class GroundingHead(nn.Module):
    """The four parts that turn maps and phrases into boxes and scores."""

    def __init__(self, pyramid: FeaturePyramid, dense: DenseHead, align: Alignment, presence: Presence) -> None:
        super().__init__()
        self.pyramid, self.dense, self.align, self.presence = pyramid, dense, align, presence
