"""Encoders of the transformers library: any backbone for images, any text encoder with a fast tokenizer.

A section of the configuration names one by ``encoder``: a hub id (``microsoft/swin-tiny-patch4-window7-224``) or a
folder; or ``"config"``, which builds what the table ``config`` describes (``config = {model_type = "swin", embed_dim =
96}``) with random weights and no network. With another name, a table ``config`` stands in for the published one.

Keys: ``encoder``; ``config``; ``folder``, a local copy whose files are read instead; ``tune``, ``frozen`` (default),
``lora`` or ``full``; ``lora_rank`` (8); ``checkpointing`` (false). Knows no boxes, no prompt, no fusion.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medglip.errors import ModelError
from medglip.model.encoders.hub import (
    IMAGENET,
    INLINE,
    pixel_statistics,
    plain_config,
    read_config,
    read_network,
    read_tokenizer,
    use_checkpointing,
)
from medglip.model.encoders.interfaces import ImageEncoder, TextEncoder, Tokens, padded_tokens
from medglip.model.encoders.plain_vit import PlainPyramid, for_patches, four_layers
from medglip.model.encoders.remembered import Remembered
from medglip.model.encoders.tuning import tune

PROBE = 64  # pixels: side of the image that shows what a backbone gives
RELATIVE = 512  # most tokens of a network without learned positions: T5 was trained with so many


class HubImageEncoder(ImageEncoder):
    """A backbone of the transformers library, as maps of stride 4, 8, 16, 32; an image never depends on its batch.

    BatchNorm always uses the statistics that it came with. Where nothing is tuned, dropout and drop-path are off always,
    and ``frozen`` gives the backbone's maps; else it gives the images, and ``forward`` runs the backbone.

    Args:
        network: What ``AutoBackbone`` built, with four outputs.
        statistics: Mean and standard deviation of RGB in [0, 1] that it was trained with. In the checkpoint.
        how: ``frozen``, ``lora`` or ``full``.
        rank: Rank of LoRA.
        checkpointing: Compute activations again in the backward pass instead of keeping them.

    Raises:
        ModelError: its maps are not of four strides 4, 8, 16, 32, or it cannot be tuned in this way.
    """

    def __init__(
        self,
        network: Any,
        statistics: tuple[Sequence[float], Sequence[float]] = IMAGENET,
        how: str = "frozen",
        rank: int = 8,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.network, self.how = network, how
        self.mean: Tensor
        self.std: Tensor
        for name, values in zip(("mean", "std"), statistics, strict=True):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1))
        self.patch = None if _is_hierarchical(network.config) else int(network.config.patch_size)
        self.pyramid = None if self.patch is None else PlainPyramid(network.channels[-1])
        self.channels = tuple(network.channels) if self.pyramid is None else self.pyramid.channels
        images = torch.zeros(1, 3, PROBE, PROBE)
        self._check(images)
        tune(network, how, rank, lambda: self._maps(images))
        if checkpointing and how != "frozen":
            use_checkpointing("Image encoder", network)

    @property
    def config(self) -> dict[str, Any]:
        """The network's configuration as plain values: with it as ``config``, no network is needed to build it again."""
        return plain_config(self.network)

    def frozen(self, images: Tensor) -> list[Tensor]:
        """The backbone's maps of images (B, 3, H, W) in [0, 1], or the images themselves where it learns.

        Raises:
            ModelError: a side is not divisible by 32.
        """
        if images.shape[-2] % 32 or images.shape[-1] % 32:
            raise ModelError(f"Image encoder: images have sides {tuple(images.shape[-2:])!r}; allowed: multiples of 32.")
        if self.how != "frozen":
            return [images]
        with torch.no_grad():
            return self._maps(images)

    def forward(self, frozen: list[Tensor]) -> list[Tensor]:
        """Maps of stride 4, 8, 16, 32 from what ``frozen`` gave."""
        return self._scaled(frozen if self.how == "frozen" else self._maps(frozen[0]))

    def train(self, mode: bool = True) -> "HubImageEncoder":
        """As in nn.Module, but BatchNorm, and all of a network that is not tuned, stay in evaluation mode."""
        super().train(mode)
        if self.how == "frozen":
            self.network.eval()
        for module in self.network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    @torch.no_grad()
    def _check(self, images: Tensor) -> None:
        """Raises ModelError where the maps of small images are not of the four strides."""
        who = f"Image encoder: {type(self.network).__name__}"
        try:
            sides = [tuple(each.shape[1:]) for each in self._scaled(self._maps(images))]
        except (RuntimeError, ValueError) as error:
            raise ModelError(
                f"{who} takes no images of {PROBE} x {PROBE} pixels ({error}); choose another backbone."
            ) from error
        wanted = [
            (width, PROBE // stride, PROBE // stride) for width, stride in zip(self.channels, (4, 8, 16, 32), strict=True)
        ]
        if sides != wanted:
            raise ModelError(
                f"{who} gives maps (C, H, W) {sides!r} of {PROBE} pixels; allowed are strides 4, 8, 16, 32; choose another "
                "backbone or configuration."
            )

    def _maps(self, images: Tensor) -> list[Tensor]:
        pixels = (images - self.mean) / self.std
        return list(self.network(pixels if self.patch is None else for_patches(pixels, self.patch)).feature_maps)

    def _scaled(self, maps: list[Tensor]) -> list[Tensor]:
        return maps if self.pyramid is None else self.pyramid(maps)


class HubTextEncoder(TextEncoder):
    """A text encoder of the transformers library with its own tokenizer.

    Where nothing is tuned it stays in evaluation mode and each text is read once and remembered.

    Args:
        network: What ``AutoModelForTextEncoding`` or ``AutoModel`` built.
        tokenizer: Its fast tokenizer.
        how: ``frozen``, ``lora`` or ``full``.
        rank: Rank of LoRA.
        checkpointing: Compute activations again in the backward pass instead of keeping them.

    Raises:
        ModelError: tokenizer and network do not fit, or it cannot be tuned in this way.
    """

    def __init__(self, network: Any, tokenizer: Any, how: str = "frozen", rank: int = 8, checkpointing: bool = False) -> None:
        super().__init__()
        self.network, self.how = network, how
        self._tokenizer = tokenizer
        self.width = int(network.config.hidden_size)
        self.vocabulary = int(network.get_input_embeddings().num_embeddings)
        self.most_tokens = _most_tokens(network, tokenizer)
        self.mask_id = tokenizer.mask_token_id
        if len(tokenizer) > self.vocabulary:
            raise ModelError(
                f"Text encoder: the tokenizer has {len(tokenizer)} ids, the network {self.vocabulary}; use the tokenizer that "
                "came with the network."
            )
        if getattr(network, "pooler", None) is not None:
            network.pooler = None  # one vector a text, which nothing here reads
        tune(network, how, rank, lambda: [self._run(torch.zeros(1, 2, dtype=torch.long))])
        if checkpointing and how != "frozen":
            use_checkpointing("Text encoder", network)
        self._read = Remembered(self.width)
        self.register_load_state_dict_post_hook(_forget)

    @property
    def config(self) -> dict[str, Any]:
        """The network's configuration as plain values: with it as ``config``, no network is needed to build it again."""
        return plain_config(self.network)

    def save_tokenizer(self, folder: Path) -> None:
        """Write the tokenizer's files, for use as ``folder``."""
        self._tokenizer.save_pretrained(str(folder))

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Tokens with the special ones of the network; raises ModelError for a text that is too long."""
        if not texts:
            return padded_tokens("'hub'", texts, [], self.most_tokens)
        found = self._tokenizer(
            list(texts),
            return_offsets_mapping=True,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            verbose=False,
        )
        rows = list(zip(found["input_ids"], found["offset_mapping"], strict=True))
        padding = self._tokenizer.pad_token_id
        return padded_tokens(repr(self._tokenizer.name_or_path), texts, rows, self.most_tokens, padding or 0)

    def forward(self, ids: Tensor, is_word: Tensor) -> Tensor:
        """(U, L) ids to (U, L, width), zero at padding."""
        if self.how == "frozen" or not ids.numel():
            return self._read.read(ids, is_word, self._run)
        return self._run(ids, is_word).masked_fill(~is_word.unsqueeze(-1), 0.0)

    def train(self, mode: bool = True) -> "HubTextEncoder":
        """As in nn.Module, but a network that is not tuned stays in evaluation mode."""
        super().train(mode)
        if self.how == "frozen":
            self.network.eval()
        return self

    def embedding(self) -> Tensor | None:
        """(vocabulary, width) vectors of the ids, or None where they have another width than the tokens' vectors."""
        table = self.network.get_input_embeddings().weight
        return table if table.shape[1] == self.width else None

    def _run(self, ids: Tensor, is_word: Tensor | None = None) -> Tensor:
        mask = torch.ones_like(ids) if is_word is None else is_word.long()
        return self.network(input_ids=ids, attention_mask=mask).last_hidden_state


def hub_image_encoder(section: Mapping[str, Any], pretrained: bool) -> HubImageEncoder:
    """The backbone that a section describes; see the module. Without ``pretrained``, its weights are random.

    Raises:
        ModelError: it is not there, cannot be read, or does not fit.
    """
    from transformers import AutoBackbone

    location, inline = _place(section)
    config = read_config("Image encoder", location, section.get("config"))
    stages = list(getattr(config, "stage_names", None) or ())
    if not stages:
        raise ModelError(
            f"Image encoder: {config.model_type!r} is no backbone; allowed: swin, convnext, dinov2, resnet and others."
        )
    if _is_hierarchical(config) and len(config.depths) != 4:
        raise ModelError(f"Image encoder: depths are {config.depths!r}; allowed are four stages.")
    config.out_features = stages[-4:] if _is_hierarchical(config) else four_layers(stages)
    network = read_network("Image encoder", AutoBackbone, location, config, pretrained and not inline)
    statistics = pixel_statistics("Image encoder", location) if pretrained and not inline else IMAGENET
    return HubImageEncoder(network, statistics, **_tuning(section))


def hub_text_encoder(section: Mapping[str, Any], pretrained: bool) -> HubTextEncoder:
    """The text encoder that a section describes; see the module. With ``encoder = "config"``, ``folder`` has its tokenizer.

    Raises:
        ModelError: it is not there, cannot be read, or does not fit.
    """
    from transformers import AutoModel, AutoModelForTextEncoding
    from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES

    location, inline = _place(section)
    if inline and not section.get("folder"):
        raise ModelError("Text encoder 'config': folder is missing; give the folder of its tokenizer.")
    config = read_config("Text encoder", location, section.get("config"))
    config = getattr(config, "text_config", config)  # CLIP has one for each of its two halves
    encodes = config.model_type in MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES
    if getattr(config, "is_encoder_decoder", False) and not encodes:
        raise ModelError(f"Text encoder: {config.model_type!r} has a decoder; allowed: bert, roberta, clip, t5 and others.")
    automatic = AutoModelForTextEncoding if encodes else AutoModel
    network = read_network("Text encoder", automatic, location, config, pretrained and not inline)
    return HubTextEncoder(network, read_tokenizer("Text encoder", location), **_tuning(section))


def _place(section: Mapping[str, Any]) -> tuple[str, bool]:
    """Where the files are, and whether there is only the section's own table."""
    inline = section["encoder"] == INLINE
    if inline and not isinstance(section.get("config"), Mapping):
        raise ModelError("Encoder 'config': the table config is missing; give one with model_type.")
    return str(section.get("folder") or section["encoder"]), inline


def _tuning(section: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "how": section.get("tune", "frozen"), "rank": section.get("lora_rank", 8),
        "checkpointing": bool(section.get("checkpointing", False)),
    }  # fmt: skip


def _is_hierarchical(config: Any) -> bool:
    """Whether a backbone has stages of several strides (Swin, ConvNeXt, ResNet), not one (a plain transformer)."""
    return isinstance(getattr(config, "depths", None), list | tuple)


def _forget(encoder: nn.Module, _: Any) -> None:
    """New weights were read: what the old ones said of a text is void."""
    encoder._read.clear()  # type: ignore[union-attr, operator]


def _most_tokens(network: Any, tokenizer: Any) -> int:
    """Most tokens of a text: what the learned positions and the tokenizer allow."""
    most = int(tokenizer.model_max_length)  # 10^30 where it does not say
    positions = int(getattr(network.config, "max_position_embeddings", 0) or RELATIVE)
    for name, module in network.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            positions = module.num_embeddings - module.padding_idx - 1  # RoBERTa counts positions from there
    return min(most, positions)
