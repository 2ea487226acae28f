"""EfficientNet-Lite0 in plain PyTorch: the image encoder of ``lite``. Knows no boxes and no text."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medglip.model.encoders.interfaces import ImageEncoder
from medglip.model.weights import EFFICIENTNET_LITE0, find_weights

# (output channels, expansion, kernel, stride, repeats). Source: EfficientNet-Lite0, tensorflow/tpu efficientnet/lite.
LITE0_STAGES = (
    (16, 1, 3, 1, 1), (24, 6, 3, 2, 2), (40, 6, 5, 2, 2), (80, 6, 3, 2, 3),
    (112, 6, 5, 1, 3), (192, 6, 5, 2, 4), (320, 6, 3, 1, 1),
)  # fmt: skip
LITE0_LEVELS = {2: 24, 4: 40, 10: 112, 15: 320}  # last block of each stride 4, 8, 16, 32 -> its channels


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding, which is one-sided at stride 2 (even sizes only)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, 0 if stride > 1 else kernel // 2, groups=groups)
        total = kernel - stride
        self.edges = (total // 2, total - total // 2) * 2

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (the name in nn.Conv2d)
        """(B, C, H, W) to (B, O, H / stride, W / stride)."""
        return super().forward(F.pad(input, self.edges) if self.stride[0] > 1 else input)


class MBConv(nn.Module):
    """Inverted residual block without squeeze-and-excitation."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [SameConv(inputs, hidden, 1), nn.ReLU6(inplace=True)] if expansion > 1 else []
        depthwise = SameConv(hidden, hidden, kernel, stride, groups=hidden)
        self.body = nn.Sequential(*expand, depthwise, nn.ReLU6(inplace=True), SameConv(hidden, outputs, 1))
        self.adds_input = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H / stride, W / stride)."""
        return x + self.body(x) if self.adds_input else self.body(x)


class EfficientNetLite0(ImageEncoder):
    """EfficientNet-Lite0 with every BatchNorm folded into its convolution: an image never depends on its batch.

    Args:
        pretrained: Read the ImageNet weights; False leaves random ones (a checkpoint will be read over them).
        train_from: First of the 16 blocks that learns; 16 freezes all, 0 all but the stem.
        folder: Local folder with the weight file.
    """

    channels = tuple(LITE0_LEVELS.values())

    def __init__(self, pretrained: bool = True, train_from: int = 16, folder: str | None = None) -> None:
        super().__init__()
        self.train_from = train_from
        self.stem = nn.Sequential(SameConv(3, 32, 3, 2), nn.ReLU6(inplace=True))
        self.blocks = nn.ModuleList()
        width = 32
        for outputs, expansion, kernel, stride, repeats in LITE0_STAGES:
            for repeat in range(repeats):
                self.blocks.append(MBConv(width, outputs, expansion, kernel, stride if repeat == 0 else 1))
                width = outputs
        if pretrained:
            self._read(torch.load(find_weights(EFFICIENTNET_LITE0, folder), weights_only=True, map_location="cpu"))
        self.stem.requires_grad_(False)
        self.blocks[:train_from].requires_grad_(False)

    @torch.no_grad()
    def frozen(self, images: Tensor) -> list[Tensor]:
        """Of images (B, 3, H, W) in [0, 1] the levels that the frozen blocks reach, and their last output."""
        x = self.stem((images * 255 - 127) / 128)  # the scaling it was trained with
        kept = []
        for number, block in enumerate(self.blocks[: self.train_from]):
            x = block(x)
            if number in LITE0_LEVELS or number == self.train_from - 1:
                kept.append(x)
        return kept or [x]

    def forward(self, frozen: list[Tensor]) -> list[Tensor]:
        """Levels of stride 4, 8, 16, 32 (24, 40, 112, 320 channels) from what ``frozen`` gave."""
        levels = frozen[: sum(number < self.train_from for number in LITE0_LEVELS)]
        x = frozen[-1]
        for number in range(self.train_from, len(self.blocks)):
            x = self.blocks[number](x)
            if number in LITE0_LEVELS:
                levels = [*levels, x]
        return levels

    def _read(self, state: dict[str, Tensor]) -> None:
        """Fold each pair of convolution and BatchNorm of the published state into our convolution."""
        convolutions = [module for module in self.modules() if isinstance(module, SameConv)]
        names = [name[: -len(".weight")] for name in state if "conv" in name and name.endswith(".weight")]
        norms = [name[: -len(".running_mean")] for name in state if name.endswith(".running_mean")]
        for convolution, name, norm in zip(convolutions, names, norms, strict=False):  # the last pair is the head's
            scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + 1e-3).sqrt()
            convolution.weight.data.copy_(state[f"{name}.weight"] * scale[:, None, None, None])
            convolution.bias.data.copy_(  # type: ignore[union-attr]
                state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
            )
