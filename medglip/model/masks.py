"""Mask head: which pixels a point and its phrase mean. Knows which points and phrases only by what is handed in."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medglip.model.deform import precise
from medglip.model.pyramid import FINEST_MAP, position_features

CHANNELS = 32  # of the mask features, with which a kernel is multiplied
NEAR = 64.0  # pixels at which half of "far" is reached: the reach of the finest level in FCOS (arXiv 1904.01355), section 3.2
SHARE_LOGIT = -2.2  # log(0.1 / 0.9): at first a tenth of the image
GROUPS = 8


class MaskHead(nn.Module):
    """A mask for each pair of point and phrase: the product of one map of features with a kernel that the pair makes.

    logit(p) = F(p) . k / sqrt(M) + c . r(p) + b. F comes from the finest level and the encoder's map of stride 4; k, c and b
    from the point's vector, the phrase's vector and where the point is; r(p) says where pixel p lies from the point,
    (d, d^2) for x and for y with d = distance / (64 + |distance|). GLIPv2 cuts the features of a region out and multiplies
    them with words. Nothing is cut out here, so it is r that keeps two kidneys of equal looks apart.

    Args:
        width: Of levels, features and phrases.
        fine_channels: Of the encoder's map of stride 4.

    Source: Tian et al., CondInst (arXiv 2003.05664), section 3.1 (a kernel an instance, relative coordinates); GLIPv2
    (arXiv 2206.05836), the mask head (text decides what a mask is of).
    """

    def __init__(self, width: int, fine_channels: int) -> None:
        super().__init__()
        inner = max(GROUPS, width // 2)
        self.coarse, self.fine = nn.Conv2d(width, inner, 1), nn.Conv2d(fine_channels, inner, 1)
        self.stack = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(inner, inner, 3, padding=1), nn.GroupNorm(math.gcd(GROUPS, inner), inner), nn.ReLU())
                for _ in range(2)
            ),
            nn.Conv2d(inner, CHANNELS, 1),
        )
        self.norm = nn.LayerNorm(3 * width)
        self.kernel = nn.Sequential(nn.Linear(3 * width + 6, width), nn.GELU(), nn.Linear(width, CHANNELS + 5))
        self.bias = nn.Parameter(torch.tensor(SHARE_LOGIT))

    def forward(self, levels: list[Tensor], fine_map: Tensor, features: Tensor, phrases: Tensor, points: Tensor) -> Tensor:
        """Logits (R, K, H/4, W/4) in float32 of K pairs a row; rows and pairs do not touch each other.

        Args:
            levels: (R, width, h, w) each, the finest (stride 8) first; only that one is read.
            fine_map: (R, fine_channels, H/4, W/4), the encoder's map of stride 4.
            features: (R, K, width) of the points.
            phrases: (R, K, width), the phrase of each point.
            points: (R, K, 2) as (x, y) in pixels of the input.
        """
        height, width = fine_map.shape[-2:]
        level = F.interpolate(self.coarse(levels[0]), size=(height, width), mode="bilinear", align_corners=False)
        pixels = self.stack(level + self.fine(fine_map))  # (R, M, H/4, W/4)
        where = position_features(precise(points), (width * FINEST_MAP, height * FINEST_MAP))
        pair = self.norm(torch.cat([features, phrases, features * phrases], dim=-1))
        kernel = precise(self.kernel(torch.cat([pair, where.to(pair.dtype)], dim=-1)))
        product = (kernel[..., :CHANNELS] @ pixels.flatten(2).to(kernel.dtype)).unflatten(-1, (height, width))
        across = _apart(width, points[..., 0], kernel[..., CHANNELS : CHANNELS + 2])
        down = _apart(height, points[..., 1], kernel[..., CHANNELS + 2 : CHANNELS + 4])
        place = across.unsqueeze(-2) + down.unsqueeze(-1) + kernel[..., -1, None, None]
        return precise(product) / CHANNELS**0.5 + place + self.bias


def _apart(cells: int, start: Tensor, worth: Tensor) -> Tensor:
    """(R, K, cells): worth (R, K, 2) times (d, d^2) of each column's (row's) distance from ``start`` (R, K) in pixels."""
    places = (torch.arange(cells, device=start.device) + 0.5) * FINEST_MAP
    distance = places.to(worth.dtype) - start.to(worth.dtype).unsqueeze(-1)
    d = distance / (NEAR + distance.abs())
    return worth[..., :1] * d + worth[..., 1:] * d**2


@torch.no_grad()
def paste(logits: Tensor, boxes: Tensor, size: tuple[int, int], margin: float = 0.1) -> list[Tensor]:
    """Masks at the input's size: what is more likely in than out, and inside the box made a little larger.

    Args:
        logits: (K, h, w), over the whole input.
        boxes: (K, 4) xyxy in pixels of the input; no number may be NaN.
        size: Height and width of the input in pixels.
        margin: By how much of its own side the box grows at each of its sides; at least one cell of the logits.

    Returns:
        K of (height, width) bool.
    """
    height, width = size
    masks = []
    for logit, (x0, y0, x1, y1) in zip(logits, boxes.tolist(), strict=True):
        more_x = max(margin * (x1 - x0), width / logits.shape[-1])
        more_y = max(margin * (y1 - y0), height / logits.shape[-2])
        left, right = (min(max(side, 0), width) for side in (math.floor(x0 - more_x), math.ceil(x1 + more_x)))
        top, bottom = (min(max(side, 0), height) for side in (math.floor(y0 - more_y), math.ceil(y1 + more_y)))
        whole = F.interpolate(precise(logit)[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
        mask = torch.zeros(size, dtype=torch.bool, device=logits.device)
        mask[top:bottom, left:right] = whole[top:bottom, left:right] > 0
        masks.append(mask)
    return masks
