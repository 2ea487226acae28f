"""Dynamic head block: attention over scales, places and channels of a list of levels. Knows no words and no boxes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medglip.model.deform import TAPS, DeformConv, precise

GROUPS = 8  # of every GroupNorm in this room
NEIGHBOURS = ((0, 1.0), (-1, 2.0), (1, 0.5))  # level looked at, relative to the own one, and its cells a cell of the own one


class DynamicReLU(nn.Module):
    """max(a1 x + b1, a2 x + b2), the four numbers of each channel chosen by the mean of the map; a ReLU at 0.

    Source: Chen et al., Dynamic ReLU (arXiv 2003.10027), DY-ReLU-B, in the form of the official DyHead and GLIP code.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.squeeze, self.choose = nn.Linear(width, max(1, width // 4)), nn.Linear(max(1, width // 4), 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, H, W) to the same shape."""
        chosen = precise(F.hardsigmoid(self.choose(F.relu(self.squeeze(precise(x).mean(dim=(2, 3))))))) - 0.5
        a1, b1, a2, b2 = (part[..., None, None] for part in chosen.chunk(4, dim=1))
        return torch.maximum(x * (2 * a1 + 1) + b1, x * (2 * a2) + b2)


class DynamicBlock(nn.Module):
    """One block of the dynamic head: each level reads itself and its two neighbours where its own offsets tell it to.

    Spatial attention: three deformable convolutions, each with GroupNorm. All three use the offsets and the mask
    computed from the level that is being made, at that level's resolution. The official GLIP code runs the coarser neighbour at
    its own resolution with the offsets of the finer level, four times too many, of which its kernel reads a meaningless prefix
    (microsoft/GLIP issue 52); here the coarser level is read bilinearly at the finer level's places, so offsets fit.

    Scale attention: the mean of the branches, each times a hard sigmoid of its mean. Unlike the official code there is no ReLU
    before the sigmoid: it would keep a branch from falling below a half, and its weights from learning once negative.

    Task attention: ``DynamicReLU``. There is no residual. At first offsets are 0 and the mask is a half.

    Source: Dai et al., Dynamic Head (arXiv 2106.08322), equations 2 to 5; GLIP (arXiv 2112.03857), section 3.2.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.offset = nn.Conv2d(width, 3 * TAPS, 3, padding=1)
        for value in self.offset.parameters():
            nn.init.zeros_(value)
        self.convs = nn.ModuleList(DeformConv(width, width) for _ in NEIGHBOURS)  # itself, the finer, the coarser level
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, width) for _ in NEIGHBOURS)
        self.weigh = nn.Linear(width, 1)
        self.activation = DynamicReLU(width)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """Levels (B, width, H, W), the finest first, each half as large (rounded up) as the one before; same shapes back.

        All levels read the block's input. The result depends on the input alone, so the block can be recomputed in the
        backward pass (``torch.utils.checkpoint``).
        """
        return [self.activation(self._mixed(levels, own)) for own in range(len(levels))]

    def _mixed(self, levels: list[Tensor], own: int) -> Tensor:
        """Scale-weighted mean of what the branches of one level read."""
        with torch.autocast(levels[own].device.type, enabled=False):  # bf16 would shift the places by tenths of a cell
            raw = self.offset(levels[own].to(self.offset.weight.dtype))
        offset, mask = raw[:, : 2 * TAPS], raw[:, 2 * TAPS :].sigmoid()
        branches = []
        for (apart, step), conv, norm in zip(NEIGHBOURS, self.convs, self.norms, strict=True):
            if 0 <= own + apart < len(levels):
                read = norm(conv(levels[own + apart], offset, mask, step))
                worth = F.hardsigmoid(self.weigh(precise(read).mean(dim=(2, 3))))
                branches.append(read * worth[..., None, None])
        return torch.stack(branches).mean(dim=0)
