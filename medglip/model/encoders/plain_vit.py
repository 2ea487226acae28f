"""Four scales from a plain vision transformer, which has one. Knows no network of its own.

Source: Li et al., Exploring Plain Vision Transformer Backbones for Object Detection (ViTDet, arXiv 2203.16527), section 3:
the simple feature pyramid (deconvolutions for strides 4 and 8, the map itself, max-pooling for 32). As in Ranftl et al.
(DPT, arXiv 2103.13413), section 3, the four scales come from four layers at equal distances, not from the last alone.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medglip.errors import ModelError

STRIDE = 16  # of the transformer's own map, whatever its patches


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map (B, C, H, W), in float32."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (the name in nn.LayerNorm)
        """The same shape."""
        return super().forward(input.permute(0, 2, 3, 1).float()).permute(0, 3, 1, 2).to(input.dtype)


class PlainPyramid(nn.Module):
    """Maps of stride 4, 8, 16, 32 from four layers' maps of stride 16; the layers in it learn.

    Args:
        width: Channels of the transformer, a multiple of 4; the maps have width / 4, width / 2, width and width.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        if width % 4:
            raise ModelError(
                f"Image encoder: a plain transformer of width {width!r} cannot be made a pyramid; allowed: multiples of 4."
            )
        half, quarter = width // 2, width // 4
        self.channels = (quarter, half, width, width)
        self.to_4 = nn.Sequential(
            nn.ConvTranspose2d(width, half, 2, 2), ChannelNorm(half), nn.GELU(), nn.ConvTranspose2d(half, quarter, 2, 2)
        )
        self.to_8 = nn.ConvTranspose2d(width, half, 2, 2)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Four maps (B, width, H / 16, W / 16), the earliest layer first, to strides 4, 8, 16, 32."""
        first, second, third, last = maps
        return [self.to_4(first), self.to_8(second), third, F.max_pool2d(last, 2)]


def for_patches(pixels: Tensor, patch: int) -> Tensor:
    """Pixels resized so that patches of ``patch`` pixels give a map of stride 16 of the input: H * patch / 16.

    Args:
        pixels: (B, 3, H, W), sides divisible by 32.
        patch: Side of a patch in pixels; at 16 nothing changes.
    """
    if patch == STRIDE:
        return pixels
    size = [side // STRIDE * patch for side in pixels.shape[-2:]]
    with torch.autocast(pixels.device.type, enabled=False):
        return F.interpolate(pixels.float(), size, mode="bilinear", align_corners=False)


def four_layers(stages: Sequence[str]) -> list[str]:
    """Names of four layers at equal distances, the last among them.

    Args:
        stages: Names of the network's input and layers, in order.

    Raises:
        ModelError: it has fewer than four layers.
    """
    layers = len(stages) - 1
    if layers < 4:
        raise ModelError(
            f"Image encoder: a plain transformer of {layers!r} layers has no four maps; allowed: 4 layers or more."
        )
    return [stages[layers * number // 4] for number in (1, 2, 3, 4)]
