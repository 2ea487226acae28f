"""MiniLM in plain PyTorch: the text encoder of ``lite``, frozen. Knows no images; never imports transformers."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from medglip.errors import ModelError
from medglip.model.encoders.interfaces import TextEncoder, Tokens, padded_tokens
from medglip.model.encoders.remembered import Remembered
from medglip.model.weights import MINILM_TOKENIZER, MINILM_WEIGHTS, find_weights


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
