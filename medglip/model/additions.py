"""What tuning adds to a trained model, and how a checkpoint's model gets it again. Knows no training and no files.

Two keys of a configuration say what was added, so that ``build_model`` builds it: ``lora_rank`` in ``model`` (LoRA on the
fusion's projections and on MiniLM's attention; encoders of the transformers library say ``tune = "lora"`` themselves) and
``tuned_phrases`` in ``text`` (offsets on the word vectors of these phrases).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medglip.errors import ModelError
from medglip.model.encoders import MiniLM, PhraseReader, TextEncoder
from medglip.model.encoders.tuning import AttentionLora, LoraLinear, add_lora

ADDED = (("model", "lora_rank"), ("text", "tuned_phrases"))  # the keys, by section
FUSION = ("query", "memory", "out")  # of every attention between image and words, and among words


class PhraseOffsets(nn.Module):
    """Vectors that are added to the words of some texts, one for each word; zero at first. All other texts stay as they are.

    A text is known by its tokens, so that what a tokenizer does not tell apart (upper and lower case) is one text.

    Args:
        width: Of a word's vector.
        texts: Tokens of each text, special ones included; one given twice counts once.

    Source: GLIP (arXiv 2112.03857), section 5.2, prompt tuning; ``language_prompt_v2`` of its code adds one vector a place
    of the prompt to the language backbone's output. Here it belongs to a phrase, so that the order of phrases means nothing.
    """

    def __init__(self, width: int, texts: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.first: dict[tuple[int, ...], int] = {}
        total = 0
        for text in dict.fromkeys(texts):
            self.first[text] = total
            total += len(text)
        self.table = nn.Parameter(torch.zeros(total, width))

    def forward(self, hidden: Tensor, ids: Tensor, is_word: Tensor) -> Tensor:
        """Vectors (U, L, width) of ids (U, L), ``is_word`` (U, L), with the offsets of the texts that have any."""
        rows = [tuple(row[:length]) for row, length in zip(ids.tolist(), is_word.sum(1).tolist(), strict=True)]
        index = torch.zeros(ids.shape, dtype=torch.long)
        for number, row in enumerate(rows):
            if row in self.first:
                index[number, : len(row)] = torch.arange(len(row)) + self.first[row] + 1
        index = index.to(hidden.device)
        added = F.embedding(index, F.pad(self.table, (0, 0, 1, 0)))  # row 0 is nothing, and keeps the graph whole
        return torch.where((index > 0).unsqueeze(-1), hidden + added.to(hidden.dtype), hidden)


class TextAdditions(nn.Module):
    """What is added to a text encoder: it runs after it, by a hook, so that no encoder needs to know of it.

    Attributes:
        lora: Reads MiniLM anew with its additions; None without.
        offsets: Added to the words last; None without.
    """

    def __init__(self, text: TextEncoder) -> None:
        super().__init__()
        self.lora: AttentionLora | None = None
        self.offsets: PhraseOffsets | None = None
        text.register_forward_hook(self._after)

    def _after(self, text: nn.Module, given: tuple[Tensor, Tensor], hidden: Tensor) -> Tensor:
        if self.lora is not None and given[0].numel():
            hidden = self.lora(text._bert[0], *given)  # type: ignore[index]  # MiniLM hides its network in a list
        return hidden if self.offsets is None else self.offsets(hidden, *given)


def rebuild(model: Any, config: Mapping[str, Mapping[str, Any]]) -> Any:
    """Add what a configuration says was added to its model, and give the model back; nothing that is there already.

    Args:
        model: A ``MedGLIP``, changed in place.
        config: Its configuration.

    Raises:
        ModelError: the rank or a phrase is not allowed.
    """
    if rank := config["model"].get("lora_rank", 0):
        add_low_rank(model, rank)
    if phrases := config["text"].get("tuned_phrases"):
        add_offsets(model.text_encoder, phrases)
    return model


def add_low_rank(model: Any, rank: int) -> None:
    """LoRA on the fusion's projections, and on MiniLM's attention where that is the text encoder.

    Raises:
        ModelError: the rank is not a whole number from 1, or there are neither.
    """
    layers = [layer for layer in model.fusion.modules() if isinstance(layer, nn.Linear)]
    if layers and not any(isinstance(layer, LoraLinear) for layer in layers):
        add_lora(model.fusion, rank, FUSION)
    text = model.text_encoder.text
    if isinstance(text, MiniLM):
        additions = _additions(model.text_encoder)
        if additions.lora is None:
            additions.lora = AttentionLora(text._bert[0], rank)


def add_offsets(reader: PhraseReader, phrases: Sequence[str]) -> None:
    """Offsets for phrases; those that are there keep what they have learned.

    Raises:
        ModelError: no phrase, or one that is too long.
    """
    if not phrases:
        raise ModelError("Prompt tuning: found no phrase to tune; train on images with regions of known concepts.")
    tokens = reader.text.tokenize(list(phrases))
    texts = [tuple(row[:length]) for row, length in zip(tokens.ids.tolist(), tokens.is_word.sum(1).tolist(), strict=True)]
    additions = _additions(reader)
    old = additions.offsets
    kept = list(old.first) if old is not None else []
    new = PhraseOffsets(reader.text.width, [*kept, *texts]).to(reader.narrow.weight.device)
    if old is not None:
        with torch.no_grad():
            new.table[: len(old.table)] = old.table
    additions.offsets = new


def _additions(reader: PhraseReader) -> TextAdditions:
    found = getattr(reader, "additions", None)
    if found is None:
        found = reader.additions = TextAdditions(reader.text)
    return found
