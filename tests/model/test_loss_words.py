import math

import pytest
import torch

from medglip.errors import ModelError
from medglip.model.losses.words import masked_words, word_loss

MASK, VOCABULARY = 3, 1000


def words(texts=400, length=12, seed=0, share=0.15, maskable=None):
    tokens = torch.randint(10, VOCABULARY, (texts, length), generator=torch.Generator().manual_seed(7))
    is_word = torch.arange(length) < torch.randint(3, length + 1, (texts, 1), generator=torch.Generator().manual_seed(8))
    if maskable is None:
        maskable = is_word & (torch.arange(length) > 0)  # not the first, special one
    masked, labels = masked_words(tokens, is_word, maskable, MASK, VOCABULARY, torch.Generator().manual_seed(seed), share)
    return tokens, is_word & maskable, masked, labels


@pytest.mark.parametrize("share", [0.15, 0.5, 1.0])
def test_the_share_is_exact_and_only_of_maskable_words(share):
    _, maskable, _, labels = words(share=share)
    asked = labels != -100
    assert int(asked.sum()) == round(share * int(maskable.sum()))
    assert not (asked & ~maskable).any()


def test_labels_are_the_true_words_and_the_rest_stays():
    tokens, _, masked, labels = words()
    asked = labels != -100
    assert torch.equal(labels[asked], tokens[asked])
    assert torch.equal(masked[~asked], tokens[~asked])


def test_of_the_words_asked_80_percent_are_masked_10_random_10_kept():
    tokens, _, masked, labels = words(texts=4000)
    asked = labels != -100
    count = int(asked.sum())  # some 3500: a share of 10 % has a standard deviation of 0.5 %
    is_mask, is_kept = (masked[asked] == MASK).sum() / count, (masked[asked] == tokens[asked]).sum() / count
    assert abs(is_mask - 0.8) < 0.03
    assert abs(is_kept - 0.1) < 0.02
    others = masked[asked & (masked != MASK) & (masked != tokens)]
    assert others.min() >= 0
    assert others.max() < VOCABULARY
    assert len(others.unique()) > 100


def test_one_word_is_asked_where_there_is_any():
    maskable = torch.zeros(400, 12, dtype=torch.bool)
    maskable[5, 1] = True
    _, _, masked, labels = words(maskable=maskable)
    assert (labels != -100).nonzero().tolist() == [[5, 1]]
    tokens, _, masked, labels = words(maskable=torch.zeros(400, 12, dtype=torch.bool))
    assert (labels == -100).all()
    assert torch.equal(masked, tokens)


def test_padding_is_never_asked():
    _, maskable, _, labels = words(maskable=torch.ones(400, 12, dtype=torch.bool), share=1.0)
    assert torch.equal(labels != -100, maskable)
    assert not maskable.all()


def test_chance_comes_from_the_generator_alone():
    torch.manual_seed(0)
    _, _, first, _ = words(seed=1)
    torch.manual_seed(1)
    _, _, again, _ = words(seed=1)
    _, _, other, _ = words(seed=2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_tokenizer_without_a_mask_is_an_error():
    ones = torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(ModelError, match="mask_id is None"):
        masked_words(torch.ones(1, 2).long(), ones, ones, None, 5, torch.Generator())


def test_word_loss_by_hand():
    """Logits (ln 2, 0, 0): probability of word 0 is 2/4. Logits 0 of three words: 1/3. The third is not asked."""
    logits = torch.tensor([[math.log(2), 0, 0], [0, 0, 0], [9, 0, 0]])
    assert torch.isclose(word_loss(logits, torch.tensor([0, 2, -100])), torch.tensor((math.log(2) + math.log(3)) / 2))


@pytest.mark.parametrize("count", [0, 3])
def test_no_word_asked_costs_nothing_and_keeps_the_graph(count):
    logits = torch.randn(count, 5, requires_grad=True)
    loss = word_loss(logits, torch.full((count,), -100))
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()
