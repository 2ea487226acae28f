"""Feature pyramid: an encoder's maps as levels of equal width that know where they are. Knows no words and no boxes."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medglip.errors import ModelError

FINEST_MAP = 4  # pixels between the cells of an encoder's first map


def grid_points(levels: Sequence[Tensor], strides: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Centres (N, 2) as (x, y) and strides (N,), in pixels, of all points of levels (B, C, H, W), row by row.

    A level that was rounded up to whole cells keeps its stride: its last points may lie on or past the image's edge.
    """
    points, steps = [], []
    for level, stride in zip(levels, strides, strict=True):
        height, width = level.shape[-2:]
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        points.append((torch.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride)
        steps.append(torch.full((height * width,), float(stride)))
    return torch.cat(points).to(levels[0].device), torch.cat(steps).to(levels[0].device)


def position_features(points: Tensor, size: tuple[float, float]) -> Tensor:
    """(..., 6) of points (..., 2) as (x, y) in an image of (width, height): x, y in [-1, 1], their squares, their sines."""
    place = points / torch.tensor(size, device=points.device, dtype=points.dtype) * 2 - 1
    return torch.cat([place, place**2, torch.sin(torch.pi * place)], dim=-1)


class FeaturePyramid(nn.Module):
    """Levels of stride 8, 16, 32, 64 (and 128) and of equal width, which know where in the image they are.

    The stride-4 map is folded into the stride-8 level, where small lesions need its detail. Where something lies tells
    left from right and one vertebra from the next, so position is added.

    Args:
        channels: Of the encoder's maps of stride 4, 8, 16, 32.
        width: Channels of every level.
        levels: 4, or 5 for a level of stride 128 as in GLIP.

    Attributes:
        strides: Pixels between the cells of each level, the finest first.

    Raises:
        ModelError: another number of levels.

    Source: Lin et al., FPN (arXiv 1612.03144), section 3; the strided levels of RetinaNet (arXiv 1708.02002), section 4.
    """

    def __init__(self, channels: Sequence[int], width: int, levels: int = 4) -> None:
        super().__init__()
        if levels not in (4, 5):
            raise ModelError(f"Feature pyramid: found {levels!r} levels; allowed: 4 or 5; set `levels` to one of them.")
        self.strides = tuple(8 * 2**level for level in range(levels))
        self.detail = nn.Conv2d(channels[0], width, 3, 2, 1)
        self.lateral = nn.ModuleList(nn.Conv2d(inputs, width, 1) for inputs in channels[1:])
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in self.lateral)
        self.coarsest = nn.Conv2d(width, width, 3, 2, 1)  # of the encoder's maps: stride 64
        self.position = nn.Conv2d(6, width, 1)
        self.beyond = nn.ModuleList(nn.Conv2d(width, width, 3, 2, 1) for _ in range(levels - 4))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps of stride 4, 8, 16, 32 of an image whose sides are divisible by 32 to levels (B, width, H, W).

        Sides of the levels beyond stride 32 are rounded up to whole cells.
        """
        laterals = [layer(x) for layer, x in zip(self.lateral, maps[1:], strict=True)]
        laterals[0] = laterals[0] + self.detail(maps[0])
        for fine in (1, 0):
            laterals[fine] = laterals[fine] + F.interpolate(laterals[fine + 1], scale_factor=2.0, mode="nearest")
        levels = [layer(x) for layer, x in zip(self.smooth, laterals, strict=True)]
        for layer in (self.coarsest, *self.beyond):
            levels.append(layer(F.relu(levels[-1])))
        height, width = (side * FINEST_MAP for side in maps[0].shape[-2:])
        wheres = [self._where(level, (width / step, height / step)) for level, step in zip(levels, self.strides, strict=True)]
        return [level + self.position(where) for level, where in zip(levels, wheres, strict=True)]

    @staticmethod
    def _where(level: Tensor, size: tuple[float, float]) -> Tensor:
        """(1, 6, H, W) position features of a level's cells in an image of ``size`` (width, height) in cells."""
        points, _ = grid_points([level], [1])
        features = position_features(points, size).to(level.dtype)
        return features.T.reshape(1, -1, *level.shape[-2:])
