"""Masked language modelling: which words are hidden, and what guessing them wrong costs. Knows no tokenizer, no images."""

import torch
import torch.nn.functional as F
from torch import Tensor

from medglip.errors import ModelError

NOT_ASKED = -100  # label of a word that is not to be guessed


def masked_words(
    prompt_tokens: Tensor, is_word: Tensor, maskable: Tensor, mask_id: int | None, vocabulary: int,
    generator: torch.Generator, share: float = 0.15,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The tokens with some words hidden, and the words to guess.

    A share of all maskable words of the batch is asked, rounded, and at least one where there is any. Of those asked,
    80 % become the mask, 10 % a random word, 10 % stay. The share is of the batch and not of each text: a phrase of one
    word would else be hidden in every step, and could not be grounded.

    Args:
        prompt_tokens: (U, L) int64; left as they are.
        is_word: (U, L) bool, False at padding.
        maskable: (U, L) bool, which words may be hidden. Special tokens are words too: the caller leaves them out here.
        mask_id: The tokenizer's mask token.
        vocabulary: Number of tokens; random words are drawn from [0, vocabulary).
        generator: Where chance comes from, on any device; the same state gives the same words.
        share: Part of the maskable words, in (0, 1].

    Returns:
        Tokens (U, L), and labels (U, L) int64: the true token where one is asked, -100 elsewhere.

    Raises:
        ModelError: the tokenizer has no mask token.

    Source: Devlin et al., BERT (arXiv 1810.04805), section 3.1 and appendix A.1; in grounding: GLIPv2 (arXiv 2206.05836),
    section 3.2.
    """
    if mask_id is None:
        raise ModelError(
            "Words cannot be masked: mask_id is None, the text encoder has no mask token; set the words loss to 0."
        )
    device, origin = prompt_tokens.device, generator.device
    where = (maskable & is_word).flatten().nonzero().squeeze(-1)
    count = min(len(where), max(1, round(share * len(where))))
    asked = where[torch.randperm(len(where), generator=generator, device=origin)[:count].to(device)]
    fate = torch.rand(count, generator=generator, device=origin).to(device)
    others = torch.randint(vocabulary, (count,), generator=generator, device=origin).to(device)

    tokens, labels = prompt_tokens.flatten().clone(), torch.full_like(prompt_tokens, NOT_ASKED).flatten()
    true = tokens[asked]
    labels[asked] = true
    tokens[asked] = torch.where(fate < 0.8, mask_id, torch.where(fate < 0.9, others, true))
    return tokens.reshape(prompt_tokens.shape), labels.reshape(prompt_tokens.shape)


def word_loss(word_logits: Tensor, word_labels: Tensor) -> Tensor:
    """Mean cross entropy, in nats, of the words asked; float32 scalar, 0 (with a graph) where none is.

    Args:
        word_logits: (V, vocabulary) of any float type; V may be 0.
        word_labels: (V,) int64 true tokens; -100 is not asked.

    Source: BERT (arXiv 1810.04805), section 3.1.
    """
    total = F.cross_entropy(word_logits.float(), word_labels, reduction="sum", ignore_index=NOT_ASKED)
    return total / (word_labels != NOT_ASKED).sum().clamp(min=1)
