"""What is inside a box: RoIAlign over levels, and one vector a box that was pointed at. Knows no words and no scores."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medglip.model.deform import bilinear_corners, precise, weighted_rows
from medglip.model.fusion import CrossAttention

CANONICAL = 224.0  # a box of this side is read on the level of stride 16 (FPN, equation 1)
SAMPLES = 2  # a cell and a side
WHOLE = 4  # cells a side, at most, that stand for the whole image
WAVES = 4  # frequencies of a box's coordinates: 1, 2, 4, 8 half turns an image


def roi_features(levels: list[Tensor], strides: Sequence[int], boxes: Tensor, out: int = 7) -> Tensor:
    """RoIAlign of boxes, each on one level: (R, K, C, out, out) in float32.

    A cell is the mean of 2 x 2 bilinear values inside it. Pixels are half-open as everywhere here: x1 is one past the last
    column, and the centre of pixel 0 is at 0.5. Places beyond the centres of the outermost cells read those cells. A box
    without area reads its one place.

    Args:
        levels: (R, C, H, W) each.
        strides: Of the levels in pixels, the finest first, each twice the one before.
        boxes: (R, K, 4) xyxy in pixels of the input; K may be 0.
        out: Cells a side.

    Source: He et al., Mask R-CNN (arXiv 1703.06870), section 3; Lin et al., FPN (arXiv 1612.03144), equation 1.
    """
    rows, count, channels = *boxes.shape[:2], levels[0].shape[1]
    boxes, device = precise(boxes), boxes.device
    corner, side = boxes[..., :2], (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    octave = torch.log2(side.prod(dim=-1).sqrt().clamp(min=1.0) / CANONICAL) + 4  # 4: stride 2^4
    number = (octave.floor() - round(math.log2(strides[0]))).clamp(0, len(levels) - 1).long()

    heights, widths = (torch.tensor([level.shape[axis] for level in levels], device=device) for axis in (-2, -1))
    starts = (heights * widths).cumsum(0) - heights * widths
    height, width, start = (sizes[number][..., None, None] for sizes in (heights, widths, starts))
    stride = torch.tensor(strides, device=device, dtype=boxes.dtype)[number]
    share = (torch.arange(out * SAMPLES, device=device, dtype=boxes.dtype) + 0.5) / (out * SAMPLES)
    places = (corner.unsqueeze(-1) + side.unsqueeze(-1) * share) / stride[..., None, None] - 0.5  # (R, K, 2, out * SAMPLES)
    y, x = places[:, :, 1].unsqueeze(-1), places[:, :, 0].unsqueeze(-2)
    y, x = torch.minimum(y.clamp(min=0), height - 1), torch.minimum(x.clamp(min=0), width - 1)
    y, x = torch.broadcast_tensors(y, x)
    cells, weights = bilinear_corners(y, x, height, width)  # (R, K, out * SAMPLES, out * SAMPLES, 4)

    table = precise(torch.cat([level.flatten(2) for level in levels], dim=2).transpose(1, 2))
    first = torch.arange(rows, device=device).view(-1, 1, 1, 1) * table.shape[1] + start
    cells, weights = (
        value.unflatten(3, (out, SAMPLES)).unflatten(2, (out, SAMPLES)).transpose(3, 4).flatten(4).flatten(0, 3)
        for value in (cells + first.unsqueeze(-1), weights / SAMPLES**2)
    )
    read = weighted_rows(table.flatten(0, 1), cells, weights)
    return read.view(rows, count, out, out, channels).permute(0, 1, 4, 2, 3)


def box_features(boxes: Tensor, size: tuple[float, float]) -> Tensor:
    """(..., 36) of boxes (..., 4) in an image of (width, height): corners in [-1, 1], their sines and cosines."""
    corners = boxes / torch.tensor([*size, *size], device=boxes.device, dtype=boxes.dtype) * 2 - 1
    turns = torch.cat([corners * (torch.pi / 2 * 2**wave) for wave in range(WAVES)], dim=-1)
    return torch.cat([corners, turns.sin(), turns.cos()], dim=-1)


class RegionPooler(nn.Module):
    """One vector a box: a query made of the box's place looks at what is in the box and at the image at large.

    The image is read once and then serves any number of boxes. Boxes do not see each other.

    Args:
        width: Of the levels.
        out_dim: Of the vectors.
        heads: Of the attention; divides ``width``.
        out: Cells a side that are read from a box.

    Source: Chen et al., CLOC (arXiv 2410.02746), "promptable embeddings": a small prompter turns the embedding of the image
    and a box into the embedding of the region. Own choice: it looks at the cells of the box first, at few of the image.
    """

    def __init__(self, width: int, out_dim: int, heads: int = 4, out: int = 7) -> None:
        super().__init__()
        self.out = out
        self.box = nn.Sequential(nn.Linear(4 * (1 + 2 * WAVES), width), nn.GELU(), nn.Linear(width, width))
        self.cell = nn.Parameter(torch.randn(out * out, width) * 0.02)
        self.whole = nn.Parameter(torch.randn(width) * 0.02)
        self.memory_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.look = CrossAttention(width, heads)
        self.project = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, out_dim))

    def forward(self, levels: list[Tensor], strides: Sequence[int], boxes: Tensor) -> Tensor:
        """Vectors (R, K, out_dim) of length 1 in float32, of boxes (R, K, 4) xyxy in pixels on levels (R, width, H, W)."""
        rows, count = boxes.shape[:2]
        height, width = (side * strides[0] for side in levels[0].shape[-2:])
        inside = roi_features(levels, strides, boxes, self.out).flatten(3).transpose(2, 3) + self.cell
        coarse = F.adaptive_avg_pool2d(levels[-1], (min(WHOLE, levels[-1].shape[-2]), min(WHOLE, levels[-1].shape[-1])))
        around = (coarse.flatten(2).transpose(1, 2) + self.whole).unsqueeze(1).expand(-1, count, -1, -1)
        memory = self.memory_norm(torch.cat([inside, around.to(inside.dtype)], dim=2)).flatten(0, 1)  # (R * K, 49 + 16, W)
        query = self.box(box_features(precise(boxes), (width, height))).flatten(0, 1).unsqueeze(1)
        seen = (query + self.look(query, memory)).squeeze(1)
        return F.normalize(precise(self.project(self.norm(seen))), dim=-1).unflatten(0, (rows, count))
