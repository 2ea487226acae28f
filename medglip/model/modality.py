"""Conditioning on the imaging modality in four ways: on words, levels and the encoder's maps. Knows no encoder, no truth.

Every way starts as the identity, so a model that is given conditioning answers at step 0 as it did without, bit for bit.
Index 0 is the unknown modality, with parameters of its own; modality dropout in training teaches it. The parameters of a
modality that no training image has are never moved by a gradient, and their last layer stays zero.

The parameters of all modalities lie in one tensor a layer, modality first. Every tensor so has a gradient in every step,
which data-parallel training needs, whichever modalities a batch holds.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medglip.errors import ModelError

WAYS = ("prompt", "film", "adapter", "encoder")
NECK = 16  # channels of an adapter's bottleneck
STEM = (3, 16, 24, 32)  # channels of a stem at strides 1, 2, 4, 8


def _tables(count: int, *shape: int) -> nn.Parameter:
    """Kernels of ``shape`` for all modalities, from Kaiming's normal distribution: (count, shape[0], the rest in one).

    All modalities begin with the same numbers: what later differs between them has been learned. A tensor of five axes
    would be refused by ``model.to(memory_format=torch.channels_last)``.
    """
    one = nn.init.kaiming_normal_(torch.empty(shape), nonlinearity="relu").flatten(1)
    return nn.Parameter(one.expand(count, *one.shape).clone())


def _zeros(count: int, *shape: int) -> nn.Parameter:
    """One tensor (count, *shape) of zeros for all modalities."""
    return nn.Parameter(torch.zeros(count, *shape))


class ModalityAdapter(nn.Module):
    """A bottleneck a modality beside one map: 1x1 down, depthwise 3x3, GELU, 1x1 up, added to the map.

    The last layer is zero at first. Each image is multiplied by the weights of its own modality, in one batched product
    for the whole batch. On one CPU thread, with 16 images of seven modalities, that takes half the time of running them
    modality by modality.

    Source: Houlsby et al., adapters (arXiv 1902.00751), section 2.1: bottleneck, skip connection, near-identity start;
    the depthwise convolution between, for images: Jie and Deng, Convpass (arXiv 2207.07039), section 3.

    Args:
        count: Modalities, the unknown one included.
        channels: Channels of the map.
    """

    def __init__(self, count: int, channels: int) -> None:
        super().__init__()
        self.down, self.down_bias = _tables(count, NECK, channels), _zeros(count, NECK)
        self.spread, self.spread_bias = _tables(count, NECK, 1, 3, 3), _zeros(count, NECK)
        self.up, self.up_bias = _zeros(count, channels, NECK), _zeros(count, channels)

    def forward(self, x: Tensor, modality: Tensor) -> Tensor:
        """A map (B, channels, H, W) and modality indices (B,) to a map of the same shape and dtype."""
        batch, channels, height, width = x.shape
        points = x.permute(0, 2, 3, 1).reshape(batch, height * width, channels)  # no copy where x is channels-last
        neck = torch.baddbmm(self.down_bias[modality].unsqueeze(1), points, self.down[modality].transpose(1, 2))
        # Images become groups of one convolution, so that each has its own kernels.
        grid = neck.transpose(1, 2).reshape(1, batch * NECK, height, width)
        kernels, bias = self.spread[modality].reshape(-1, 1, 3, 3), self.spread_bias[modality].flatten()
        grid = F.gelu(F.conv2d(grid, kernels, bias, padding=1, groups=batch * NECK))
        neck = grid.reshape(batch, NECK, height * width).transpose(1, 2)
        change = torch.baddbmm(self.up_bias[modality].unsqueeze(1), neck, self.up[modality].transpose(1, 2))
        return x + change.reshape(batch, height, width, channels).permute(0, 3, 1, 2).to(x.dtype)


class ModalityStems(nn.Module):
    """A small image encoder a modality, from the pixels to what is added to the maps of strides 4 and 8.

    Med-GLIP gives each modality an image encoder of its own. Here the modalities share one encoder and each adds a stem:

    - Whole encoders divide the images between them. Most modalities of a collection have few, too few to teach 3 million
      weights; the shared encoder learns from all, or is frozen and keeps what pretraining taught it.
    - What differs between modalities is mostly low-level: grey scale, noise, texture, edges. Strides 4 and 8 see that,
      and from there it goes through the pyramid to every level; the deeper maps of the shared encoder are left alone.
    - A frozen encoder's features can be kept in memory. The stems see pixels that it may have thrown away.
    - The last layers are zero at first, so that stems can be added to a trained model. Whole encoders cannot.
    - 13 thousand parameters a modality, not 3 million (EfficientNet-Lite0, maps of 24 and 40 channels).

    The images of a batch are taken modality by modality. On one CPU thread, with 16 images of seven modalities, that takes
    two thirds of the time of grouped convolutions with weights by image, and half the time of unfolding.

    Source: modality-specific image encoders: Med-GLIP (arXiv 2508.10528); form and size of the stems are our own.

    Args:
        count: Modalities, the unknown one included.
        channels: Channels of the maps of strides 4 and 8.
    """

    def __init__(self, count: int, channels: tuple[int, int]) -> None:
        super().__init__()
        pairs = list(pairwise(STEM))
        self.weight = nn.ParameterList(_tables(count, outputs, inputs, 3, 3) for inputs, outputs in pairs)
        self.bias = nn.ParameterList(_zeros(count, outputs) for _, outputs in pairs)
        ends = list(zip(STEM[2:], channels, strict=True))
        self.out = nn.ParameterList(_zeros(count, outputs, inputs) for inputs, outputs in ends)
        self.out_bias = nn.ParameterList(_zeros(count, outputs) for _, outputs in ends)

    def forward(self, images: Tensor, modality: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) in [0, 1] and indices (B,) to what is added to the maps of stride 4 and 8."""
        order = modality.argsort(stable=True)
        kinds, counts = modality[order].unique_consecutive(return_counts=True)
        parts = zip(kinds.tolist(), images[order].split(counts.tolist()), strict=True)
        found = [self._of_one(part, kind) for kind, part in parts]
        back = order.argsort()
        return [torch.cat(maps)[back] for maps in zip(*found, strict=True)]

    def _of_one(self, images: Tensor, kind: int) -> list[Tensor]:
        """The same for images of one modality."""
        x, added = images * 2 - 1, []
        for place, (weight, bias) in enumerate(zip(self.weight, self.bias, strict=True)):
            kernels = weight[kind].reshape(len(weight[kind]), -1, 3, 3)
            x = F.gelu(F.conv2d(x, kernels, bias[kind], stride=2, padding=1))
            if place:  # strides 4 and 8
                out, out_bias = self.out[place - 1][kind], self.out_bias[place - 1][kind]
                added.append(F.conv2d(x, out[:, :, None, None], out_bias))
        return added


class ModalityConditioning(nn.Module):
    """Changes the encoder's maps, the pyramid's levels and the words by what is known of the modality.

    - ``prompt``: a learned vector a modality, added to every word. The text side learns which names are likely.
      Source: Lester et al., prompt tuning (arXiv 2104.08691), here added, not put in front: no word more to attend to.
    - ``film``: scale and shift of each channel of each level. Source: Perez et al., FiLM (arXiv 1709.07871), section 2.1.
    - ``adapter``: ``ModalityAdapter`` on each of the encoder's four maps.
    - ``encoder``: ``ModalityStems``, from the pixels to the maps of strides 4 and 8.

    Args:
        modalities: Names, in the order of their indices from 1.
        width: Channels of words and levels.
        channels: Channels of the encoder's maps of strides 4, 8, 16, 32.
        levels: Number of pyramid levels.
        ways: Any of the four; empty for no conditioning.

    Attributes:
        needs_images: Whether ``on_maps`` must be given the pixels.

    Raises:
        ModelError: an unknown way.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        channels: Sequence[int],
        levels: int,
        ways: Sequence[str] = ("prompt", "film"),
    ) -> None:
        super().__init__()
        if unknown := set(ways) - set(WAYS):
            raise ModelError(
                f"Modality conditioning {sorted(unknown)!r} is unknown; allowed: {', '.join(WAYS)}; correct `modality`."
            )
        count = len(modalities) + 1
        self.place = {name: number for number, name in enumerate(modalities, start=1)}
        self.prompt = nn.Embedding(count, width) if "prompt" in ways else None
        self.film = nn.ModuleList(nn.Embedding(count, 2 * width) for _ in range(levels if "film" in ways else 0))
        self.adapter = nn.ModuleList(ModalityAdapter(count, inner) for inner in (channels if "adapter" in ways else ()))
        self.encoder = ModalityStems(count, (channels[0], channels[1])) if "encoder" in ways else None
        self.needs_images = self.encoder is not None
        for table in (self.prompt, *self.film):
            if table is not None:
                nn.init.zeros_(table.weight)

    def index(self, names: Sequence[str | None]) -> Tensor:
        """Indices (B,) int64; 0 for None and for names that are not among the modalities."""
        return torch.tensor([self.place.get(name or "", 0) for name in names], dtype=torch.long)

    def on_maps(self, maps: list[Tensor], modality: Tensor, images: Tensor | None = None) -> list[Tensor]:
        """The encoder's maps conditioned by modality indices; ways ``adapter`` and ``encoder``.

        Args:
            maps: Maps of strides 4, 8, 16, 32, each (B, channels, H, W).
            modality: (B,) int64.
            images: (B, 3, 4 * H, 4 * W) in [0, 1], H and W of the first map; read where ``needs_images``.

        Raises:
            ModelError: the images are needed and are not these.
        """
        maps = [layer(x, modality) for layer, x in zip(self.adapter, maps, strict=True)] if len(self.adapter) else list(maps)
        if self.encoder is None:
            return maps
        batch, _, height, width = maps[0].shape
        wanted = (batch, 3, 4 * height, 4 * width)
        if images is None or tuple(images.shape) != wanted:
            found = None if images is None else tuple(images.shape)
            raise ModelError(
                f"Modality conditioning 'encoder': found images {found!r}; allowed: {wanted!r}; "
                "give the pixels beside the kept features."
            )
        added = self.encoder(images, modality)
        return [x + more.to(x.dtype) for x, more in zip(maps, added, strict=False)] + maps[len(added) :]

    def on_levels(self, levels: list[Tensor], modality: Tensor) -> list[Tensor]:
        """Levels, each (B, width, H, W), conditioned by modality indices (B,); way ``film``."""
        if not self.film:
            return levels
        changed = []
        for level, table in zip(levels, self.film, strict=True):
            scale, shift = table(modality)[:, :, None, None].chunk(2, dim=1)
            changed.append((level * (1 + scale) + shift).to(level.dtype))
        return changed

    def on_words(self, words: Tensor, modality: Tensor) -> Tensor:
        """Words (R, T, width) conditioned by the modality indices (R,) of their rows; way ``prompt``."""
        return words if self.prompt is None else words + self.prompt(modality).unsqueeze(1).to(words.dtype)
