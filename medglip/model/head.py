"""Feature pyramid and dense head: what is at each point, how far its box reaches, how good it is. Knows no words."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medglip.model.fusion import CrossAttention

PRIOR_LOGIT = -4.595  # log(0.01 / 0.99): at first every point says "no" with 99 % (RetinaNet; MM-Grounding-DINO)


def grid_points(levels: Sequence[Tensor], strides: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Centres (N, 2) as (x, y) and strides (N,), in pixels, of all points of levels (B, C, H, W), row by row."""
    points, steps = [], []
    for level, stride in zip(levels, strides, strict=True):
        height, width = level.shape[-2:]
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        points.append((torch.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride)
        steps.append(torch.full((height * width,), float(stride)))
    return torch.cat(points).to(levels[0].device), torch.cat(steps).to(levels[0].device)


def position_features(points: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, 6) of points (N, 2) as (x, y) in an image of (width, height): x and y in [-1, 1], their squares, their sines."""
    place = points / torch.tensor(size, device=points.device, dtype=points.dtype) * 2 - 1
    return torch.cat([place, place**2, torch.sin(torch.pi * place)], dim=-1)


class FeaturePyramid(nn.Module):
    """Levels of stride 8, 16, 32, 64 and of equal width, which know where in the image they are.

    The stride-4 map is folded into the stride-8 level, where small lesions need its detail. Where something lies tells
    left from right and one vertebra from the next, so position is added.
    """

    strides = (8, 16, 32, 64)

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.detail = nn.Conv2d(channels[0], width, 3, 2, 1)
        self.lateral = nn.ModuleList(nn.Conv2d(inputs, width, 1) for inputs in channels[1:])
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in self.lateral)
        self.coarsest = nn.Conv2d(width, width, 3, 2, 1)
        self.position = nn.Conv2d(6, width, 1)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps of stride 4, 8, 16, 32 to four levels, each (B, width, H, W)."""
        laterals = [layer(x) for layer, x in zip(self.lateral, maps[1:], strict=True)]
        laterals[0] = laterals[0] + self.detail(maps[0])
        for fine in (1, 0):
            laterals[fine] = laterals[fine] + F.interpolate(laterals[fine + 1], scale_factor=2.0, mode="nearest")
        levels = [layer(x) for layer, x in zip(self.smooth, laterals, strict=True)]
        levels.append(self.coarsest(F.relu(levels[-1])))
        return [level + self.position(self._where(level)) for level in levels]

    @staticmethod
    def _where(level: Tensor) -> Tensor:
        """(1, 6, H, W) position features of a level's cells."""
        points, _ = grid_points([level], [1])
        height, width = level.shape[-2:]
        features = position_features(points, (width, height)).to(level.dtype)
        return features.T.reshape(1, -1, height, width)


class DenseHead(nn.Module):
    """Per point: a vector to compare with phrases, the distances to the sides of its box, and the box's quality.

    The finest level speaks twice: once a cell, and once for each quarter of a cell, so that a lesion of ten pixels has
    points of its own (stride 4) at the price of a 1x1 convolution.
    """

    def __init__(self, width: int, depth: int, levels: int) -> None:
        super().__init__()
        self.name_tower, self.box_tower = (self._tower(width, depth) for _ in range(2))
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
        for level, stride in zip(levels, strides, strict=True):
            name, box = self.name_tower(level), self.box_tower(level)
            if not maps.strides:
                fine = (self.fine_name(name), self.fine_box(box), self.fine_quality(box))
                names, boxes, qualities = (F.pixel_shuffle(x, 2) for x in fine)
                features = F.interpolate(name, scale_factor=2.0, mode="nearest")
                self._add(maps, names, boxes, qualities, features, stride // 2)
            self._add(maps, self.name(name), self.box(box), self.quality(box), name, stride)
        return maps

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
    """Logit of "this phrase is somewhere in this image", from the phrase that has looked at it and its best point."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.look = CrossAttention(width, heads)
        self.judge = nn.Sequential(nn.LayerNorm(3 * width), nn.Linear(3 * width, width), nn.GELU(), nn.Linear(width, 1))
        self.trust = nn.Parameter(torch.tensor(0.5))

    def forward(self, levels: list[Tensor], phrases: Tensor, logits: Tensor) -> Tensor:
        """Levels (B, width, H, W), phrases (B, P, width), alignment logits (B, N, P) to presence logits (B, P)."""
        coarse = [F.avg_pool2d(level, max(1, level.shape[-1] // 16)) for level in levels]
        seen = self.look(phrases, torch.cat([level.flatten(2) for level in coarse], dim=2).transpose(1, 2))
        judged = self.judge(torch.cat([phrases, seen, phrases * seen], dim=-1)).squeeze(-1)
        return judged + self.trust * (logits.amax(dim=1) - PRIOR_LOGIT / 2)


class GroundingHead(nn.Module):
    """The four parts that turn maps and phrases into boxes and scores."""

    def __init__(self, pyramid: FeaturePyramid, dense: DenseHead, align: Alignment, presence: Presence) -> None:
        super().__init__()
        self.pyramid, self.dense, self.align, self.presence = pyramid, dense, align, presence
