"""Image and text encoders: ``tiny`` (random, for tests) and ``lite`` (EfficientNet-Lite0 and MiniLM). No boxes here.

An image encoder is cut in two: ``frozen`` (never learns, so its output may be kept in memory) and ``forward``, which
turns that into one feature map per stride 4, 8, 16, 32. A text encoder has ``tokenize`` and gives one vector a token.
"""

import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from medglip.errors import ModelError
from medglip.model.weights import EFFICIENTNET_LITE0, MINILM_TOKENIZER, MINILM_WEIGHTS, find_weights

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


class ImageEncoder(nn.Module):
    """What the model asks of an image encoder; ``channels`` are those of its levels of stride 4, 8, 16, 32."""

    channels: tuple[int, ...]

    def frozen(self, images: Tensor) -> list[Tensor]:
        """What the part that never learns makes of images (B, 3, H, W) in [0, 1]."""
        raise NotImplementedError

    def forward(self, frozen: list[Tensor]) -> list[Tensor]:
        """Levels of stride 4, 8, 16, 32 from what ``frozen`` gave."""
        raise NotImplementedError


class TextEncoder(nn.Module):
    """What the model asks of a text encoder; ``width`` is the length of a token's vector."""

    width: int

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids (U, L) int64 and which of them are not padding (U, L) bool."""
        raise NotImplementedError

    def forward(self, tokens: Tensor, is_word: Tensor) -> Tensor:
        """(U, L) ids to (U, L, width)."""
        raise NotImplementedError


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


class TinyImageEncoder(ImageEncoder):
    """Five random strided convolutions: small enough for tests on a CPU; nothing is frozen."""

    channels = (16, 24, 32, 48)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(self._layer(*pair) for pair in pairwise((3, 16, *self.channels)))

    @staticmethod
    def _layer(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, 2, 1), nn.GroupNorm(4, outputs), nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1), nn.ReLU(inplace=True),
        )  # fmt: skip

    def frozen(self, images: Tensor) -> list[Tensor]:
        """The images (B, 3, H, W) in [0, 1], centred."""
        return [images - 0.5]

    def forward(self, frozen: list[Tensor]) -> list[Tensor]:
        """Levels of stride 4, 8, 16, 32."""
        x, levels = frozen[-1], []
        for layer in self.layers:
            x = layer(x)
            levels.append(x)
        return levels[1:]


class HashedText(TextEncoder):
    """Words as learned vectors, found by hash: no vocabulary, no file, no pretraining."""

    width = 48

    def __init__(self, buckets: int = 4096) -> None:
        super().__init__()
        self.table = nn.Embedding(buckets, self.width)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Word hashes (U, L) int64 and which of them are words (U, L) bool."""
        rows = [[zlib.crc32(word.encode()) % self.table.num_embeddings for word in text.lower().split()] for text in texts]
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        is_word = torch.zeros_like(ids, dtype=torch.bool)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row)
            is_word[number, : len(row)] = True
        return ids, is_word

    def forward(self, tokens: Tensor, is_word: Tensor) -> Tensor:
        """(U, L) ids to (U, L, width)."""
        return self.table(tokens) * is_word.unsqueeze(-1)


class Bert(nn.Module):
    """BERT's encoder in plain PyTorch, in MiniLM's shape (importing transformers takes seconds, this none).

    Source: Devlin et al., BERT (arXiv 1810.04805), section 3; names of weights as in the transformers library.
    """

    def __init__(self, width: int = 384, layers: int = 6, heads: int = 12, words: int = 30522, places: int = 512) -> None:
        super().__init__()
        self.word, self.place, self.segment = nn.Embedding(words, width), nn.Embedding(places, width), nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", 1e-12, batch_first=True) for _ in range(layers)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L) ids without padding to (B, L, width)."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.norm(self.word(tokens) + self.place(places) + self.segment.weight[0])
        for layer in self.layers:
            x = layer(x)
        return x

    def read(self, state: dict[str, Tensor]) -> None:
        """Take the weights of a published state; raises ModelError where one is missing."""
        try:
            for own, name in (("word", "word"), ("place", "position"), ("segment", "token_type")):
                getattr(self, own).weight.data.copy_(state[f"embeddings.{name}_embeddings.weight"])
            pairs: list[tuple[Any, str]] = [(self.norm, "embeddings.LayerNorm")]
            layer: Any
            for number, layer in enumerate(self.layers):
                at = f"encoder.layer.{number}"
                for kind in ("weight", "bias"):
                    parts = [state[f"{at}.attention.self.{name}.{kind}"] for name in ("query", "key", "value")]
                    getattr(layer.self_attn, f"in_proj_{kind}").data.copy_(torch.cat(parts))
                pairs += [
                    (layer.self_attn.out_proj, f"{at}.attention.output.dense"),
                    (layer.norm1, f"{at}.attention.output.LayerNorm"),
                    (layer.linear1, f"{at}.intermediate.dense"), (layer.linear2, f"{at}.output.dense"),
                    (layer.norm2, f"{at}.output.LayerNorm"),
                ]  # fmt: skip
            for module, name in pairs:
                module.weight.data.copy_(state[f"{name}.weight"])
                module.bias.data.copy_(state[f"{name}.bias"])
        except KeyError as error:
            raise ModelError(f"MiniLM: the weight file lacks {error}; fetch it again.") from error


class MiniLM(TextEncoder):
    """all-MiniLM-L6-v2, frozen; every phrase is read once and remembered. Not in the checkpoint: its hash is known.

    Its pooled vectors hardly tell left from right (cosine 0.92), so the token vectors are given and a layer that learns
    reads them.
    """

    width = 384

    def __init__(self, folder: str | None = None) -> None:
        super().__init__()

        self._tokenizer = Tokenizer.from_file(str(find_weights(MINILM_TOKENIZER, folder)))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        bert = Bert()
        bert.read(load_file(find_weights(MINILM_WEIGHTS, folder)))
        bert.eval().requires_grad_(False)
        self._bert = [bert]  # a list hides it from state_dict and from the optimiser
        self._read: dict[tuple[int, ...], Tensor] = {}

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """WordPiece ids (U, L) int64 with [CLS] and [SEP], and which of them are not padding (U, L) bool."""
        rows = [encoding.ids[:64] for encoding in self._tokenizer.encode_batch([text.lower() for text in texts])]
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        is_word = torch.zeros_like(ids, dtype=torch.bool)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row)
            is_word[number, : len(row)] = True
        return ids, is_word

    @torch.no_grad()
    def forward(self, tokens: Tensor, is_word: Tensor) -> Tensor:
        """(U, L) ids to (U, L, 384), zero at padding."""
        rows = [tuple(row[:length]) for row, length in zip(tokens.tolist(), is_word.sum(1).tolist(), strict=True)]
        for row in rows:
            if row not in self._read:
                self._read[row] = self._bert[0](torch.tensor([row]))[0]
        hidden = torch.zeros(*tokens.shape, self.width)
        for number, row in enumerate(rows):
            hidden[number, : len(row)] = self._read[row]
        return hidden.to(tokens.device)


class PhraseEncoder(nn.Module):
    """One vector a phrase: token vectors through one self-attention layer that learns, then their mean."""

    def __init__(self, text: TextEncoder, width: int, heads: int = 4) -> None:
        super().__init__()
        self.text = text
        self.narrow = nn.Linear(text.width, width)
        self.layer = nn.TransformerEncoderLayer(width, heads, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, is_word: Tensor) -> Tensor:
        """(U, L) ids to (U, width)."""
        x = self.narrow(self.text(tokens, is_word))
        x = self.layer(x, src_key_padding_mask=~is_word)
        weight = is_word.unsqueeze(-1).to(x.dtype)
        return self.norm((x * weight).sum(1) / weight.sum(1))


def build_image_encoder(name: str, pretrained: bool, train_from: int = 16, folder: str | None = None) -> ImageEncoder:
    """``tiny`` or ``efficientnet_lite0``; raises ModelError for another name."""
    if name == "tiny":
        return TinyImageEncoder()
    if name == "efficientnet_lite0":
        return EfficientNetLite0(pretrained, train_from, folder)
    raise ModelError(f"Image encoder {name!r} is unknown; allowed: tiny, efficientnet_lite0.")


def build_text_encoder(name: str, folder: str | None = None) -> TextEncoder:
    """``hashed`` or ``minilm``; raises ModelError for another name."""
    if name == "hashed":
        return HashedText()
    if name == "minilm":
        return MiniLM(folder)
    raise ModelError(f"Text encoder {name!r} is unknown; allowed: hashed, minilm.")
