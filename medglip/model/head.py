"""Feature pyramid and dense head: what is at each point, how far its box reaches, how good it is. Knows no words."""

from collections.abc import Sequence

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


class FeaturePyramid(nn.Module):
    """Levels of stride 8, 16, 32, 64 (or 4, 8, 16, 32) of equal width, which know where in the image they are.

    The stride-4 map is always used: as a level of its own, or folded into the stride-8 level, where small lesions need
    its detail. Where something lies tells left from right and one vertebra from the next, so position is added.
    """

    def __init__(self, channels: Sequence[int], width: int, finest: int = 8) -> None:
        super().__init__()
        self.strides = (finest, 2 * finest, 4 * finest, 8 * finest)
        self.detail = nn.Conv2d(channels[0], width, 3, 2, 1) if finest == 8 else None
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in (channels if finest == 4 else channels[1:]))
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in self.lateral)
        self.coarsest = nn.Conv2d(width, width, 3, 2, 1) if finest == 8 else None
        self.position = nn.Conv2d(6, width, 1)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps of stride 4, 8, 16, 32 to four levels, each (B, width, H, W)."""
        laterals = [layer(x) for layer, x in zip(self.lateral, maps[-len(self.lateral) :], strict=True)]
        if self.detail is not None:
            laterals[0] = laterals[0] + self.detail(maps[0])
        for fine in range(len(laterals) - 2, -1, -1):
            laterals[fine] = laterals[fine] + F.interpolate(laterals[fine + 1], scale_factor=2.0, mode="nearest")
        levels = [layer(x) for layer, x in zip(self.smooth, laterals, strict=True)]
        if self.coarsest is not None:
            levels.append(self.coarsest(F.relu(levels[-1])))
        return [level + self.position(self._coordinates(level)) for level in levels]

    @staticmethod
    def _coordinates(level: Tensor) -> Tensor:
        """(1, 6, H, W): x, y in [-1, 1], their squares and their sines."""
        height, width = level.shape[-2:]
        y, x = (torch.linspace(-1, 1, side, device=level.device, dtype=level.dtype) for side in (height, width))
        y, x = y.view(1, 1, -1, 1).expand(1, 1, height, width), x.view(1, 1, 1, -1).expand(1, 1, height, width)
        return torch.cat([x, y, x * x, y * y, torch.sin(torch.pi * x), torch.sin(torch.pi * y)], dim=1)


class DenseHead(nn.Module):
    """Per point: a vector to compare with phrases, the distances to the sides of its box, and the box's quality."""

    def __init__(self, width: int, depth: int, levels: int) -> None:
        super().__init__()
        self.name_tower, self.box_tower = (self._tower(width, depth) for _ in range(2))
        self.name = nn.Conv2d(width, width, 1)
        self.box = nn.Conv2d(width, 4, 3, padding=1)
        self.quality = nn.Conv2d(width, 1, 3, padding=1)
        self.reach = nn.Parameter(torch.ones(levels))

    @staticmethod
    def _tower(width: int, depth: int) -> nn.Sequential:
        layers = [
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width), nn.ReLU(inplace=True))
            for _ in range(depth)
        ]
        return nn.Sequential(*layers)

    def forward(self, levels: list[Tensor], strides: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What each of N points says.

        Returns:
            Names (B, N, width), reaches (B, N, 4) as pixels left, top, right, bottom, quality logits (B, N), and the
            features (B, N, width) before the last layer.
        """
        names, reaches, qualities, features = [], [], [], []
        for number, (level, stride) in enumerate(zip(levels, strides, strict=True)):
            name, box = self.name_tower(level), self.box_tower(level)
            features.append(name.flatten(2))
            names.append(self.name(name).flatten(2))
            reaches.append(F.softplus(self.box(box) * self.reach[number]).flatten(2) * (2 * stride))
            qualities.append(self.quality(box).flatten(2))
        joined = [torch.cat(parts, dim=2).transpose(1, 2) for parts in (names, reaches, qualities, features)]
        return joined[0], joined[1], joined[2].squeeze(-1), joined[3]


class Alignment(nn.Module):
    """Logit of "this point shows this phrase": v . t / sqrt(d) * exp(s) + b.

    Source: GLIP (arXiv 2112.03857) section 3.1 with the scale and bias of MM-Grounding-DINO (arXiv 2401.02361).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.text = nn.Linear(width, width)
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.tensor(PRIOR_LOGIT))

    def forward(self, points: Tensor, phrases: Tensor) -> Tensor:
        """Points (B, N, width) and phrases (B, P, width) to logits (B, N, P)."""
        words = self.text(phrases).transpose(1, 2) * (self.log_scale.exp() / points.shape[-1] ** 0.5)
        return points @ words + self.bias


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
