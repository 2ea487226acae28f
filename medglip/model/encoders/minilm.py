"""MiniLM in plain PyTorch: the text encoder of ``lite``, frozen. Knows no images; never imports transformers."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from medglip.errors import ModelError
from medglip.model.encoders.interfaces import TextEncoder, Tokens, padded_tokens
from medglip.model.encoders.packing import unpack
from medglip.model.encoders.remembered import Remembered
from medglip.model.shipped import MINILM
from medglip.model.weights import MINILM_TOKENIZER, MINILM_WEIGHTS, find_weights

PACKED = MINILM / "minilm-int8.safetensors"  # made by benchmarks/pack_minilm.py
PACKED_SHA256 = "829188f15fd8b6a9e4b799cb74dd9aef43455b15db6a86a16ae8450077de2ad2"


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
    """all-MiniLM-L6-v2, frozen; every text is read once and remembered. Not in the checkpoint: its hash is known.

    Its pooled vectors hardly tell left from right (cosine 0.92), so the token vectors are given and a layer that learns
    reads them.

    Args:
        folder: A local folder with the published files.
        weights: ``published``: the files of the hub, of ``folder`` or of the embedded packages; ``packed``: the 8-bit copy
            inside medglip, which needs neither network nor package.

    Raises:
        ModelError: the files are not there or not the ones expected, or no weights go by that name.
    """

    width = 384

    def __init__(self, folder: str | None = None, weights: str = "published") -> None:
        super().__init__()
        self._tokenizer, state = _packed() if _is_packed(folder, weights) else _published(folder)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        bert = Bert()
        bert.read(state)
        bert.eval().requires_grad_(False)
        self._bert = [bert]  # a list hides it from state_dict and from the optimiser
        self._read = Remembered(self.width)
        self.most_tokens = bert.place.num_embeddings
        self.vocabulary = bert.word.num_embeddings
        self.mask_id = self._tokenizer.token_to_id("[MASK]")

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """WordPiece tokens with [CLS] and [SEP], whatever the case; raises ModelError for more than 512 of a text."""
        encodings = self._tokenizer.encode_batch(list(texts))
        rows = [(encoding.ids, encoding.offsets) for encoding in encodings]
        return padded_tokens("'minilm'", texts, rows, self.most_tokens)

    def forward(self, ids: Tensor, is_word: Tensor) -> Tensor:
        """(U, L) ids to (U, L, 384) float32, zero at padding."""
        return self._read.read(ids, is_word, self._bert[0])

    def embedding(self) -> Tensor:
        """(30522, 384) vectors of the ids; they do not learn."""
        return self._bert[0].word.weight

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "MiniLM":
        self._bert[0]._apply(fn, recurse)  # hidden, but it moves to a device with the rest
        return super()._apply(fn, recurse)


def _is_packed(folder: str | None, weights: str) -> bool:
    if weights not in ("published", "packed"):
        raise ModelError(f"Text encoder 'minilm': weights are {weights!r}; allowed: published, packed.")
    if weights == "packed" and folder:
        raise ModelError(f"Text encoder 'minilm': weights = 'packed' has its own folder, found {folder!r} too; leave one out.")
    return weights == "packed"


def _published(folder: str | None) -> tuple[Tokenizer, dict[str, Tensor]]:
    """The published tokenizer and weights."""
    tokenizer = Tokenizer.from_file(str(find_weights(MINILM_TOKENIZER, folder)))
    return tokenizer, load_file(find_weights(MINILM_WEIGHTS, folder))


def _packed() -> tuple[Tokenizer, dict[str, Tensor]]:
    """The same tokenizer and the weights as they are inside medglip, unpacked."""
    tokenizer = Tokenizer.from_buffer(_checked(MINILM / MINILM_TOKENIZER.name, MINILM_TOKENIZER.sha256))
    return tokenizer, unpack(load(_checked(PACKED, PACKED_SHA256)))


def _checked(path: Path, sha256: str) -> bytes:
    """The bytes of a file inside medglip."""
    if not path.is_file():
        raise ModelError(f"Weights {path} are not in this build of medglip; install medglip again, or use the published ones.")
    content = path.read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise ModelError(f"Weights {path}: SHA-256 is {found}, expected {sha256}; install medglip again.")
    return content
