import math

import pytest
import torch

from medglip.model.losses.masks import mask_loss

SURE = 20.0  # logit of a sure "yes"


def disc(radius, size=16):
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return (((x - 8) ** 2 + (y - 8) ** 2) <= radius**2).float().unsqueeze(0)


def test_by_hand():
    """Truth (1, 0), logits 0. Squares: Dice = 1 - 2 (1/2) / (1 + 1/4 + 1/4) = 1/3. Focal: (1/2)^2 ln 2 each."""
    loss = mask_loss(torch.zeros(1, 1, 2), torch.tensor([[[1.0, 0.0]]]))
    assert torch.isclose(loss, torch.tensor(1 / 3 + math.log(2) / 4), atol=1e-4)


@pytest.mark.parametrize("radius", [0, 2, 7])
def test_the_right_mask_costs_nothing_and_the_wrong_one_much(radius):
    mask = disc(radius)
    assert mask_loss((2 * mask - 1) * SURE, mask) < 1e-4
    assert mask_loss((1 - 2 * mask) * SURE, mask) > 1


def test_an_empty_mask_answered_with_nothing_costs_nothing():
    empty = torch.zeros(1, 16, 16)
    costs = [float(mask_loss(torch.full((1, 16, 16), logit), empty)) for logit in (-SURE, -4.595, 0.0, 4.595)]
    assert costs[0] < 1e-6
    assert costs[1] < 1e-4  # MONAI's Dice alone would be 1 here
    assert costs == sorted(costs)
    assert costs[3] > 1


def test_an_empty_mask_pulls_a_false_answer_down():
    logits = torch.full((1, 16, 16), 3.0, requires_grad=True)
    mask_loss(logits, torch.zeros(1, 16, 16)).backward()
    assert (logits.grad > 1e-3 / 256).all()


def test_a_soft_mask_is_best_answered_softly():
    """Truth 1/2 and 1: of all answers for the soft cell, Dice and focal are least near its own softness."""
    mask = torch.tensor([[[0.5, 1.0]]])
    answers = torch.linspace(0.05, 0.95, 19).logit()
    costs = [float(mask_loss(torch.tensor([[[answer, SURE]]]), mask)) for answer in answers]
    assert abs(answers[costs.index(min(costs))].sigmoid() - 0.5) < 0.051


def test_masks_count_alike_whatever_their_size_and_neighbours():
    masks = torch.cat([disc(1), disc(7), torch.zeros(1, 16, 16)])
    logits = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0))
    single = [mask_loss(logits[k : k + 1], masks[k : k + 1]) for k in range(3)]
    assert torch.isclose(mask_loss(logits, masks), sum(single) / 3)


def test_no_mask_costs_nothing_and_keeps_the_graph():
    logits = torch.randn(0, 4, 4, requires_grad=True)
    loss = mask_loss(logits, torch.zeros(0, 4, 4))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None


def test_extreme_logits_have_finite_gradients():
    for truth in (torch.zeros(1, 4, 4), torch.ones(1, 4, 4)):
        logits = torch.tensor([-300.0, 300.0]).repeat(8).reshape(1, 4, 4).requires_grad_()
        loss = mask_loss(logits, truth)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(logits.grad).all()


def test_half_precision_is_judged_in_single():
    logits, mask = torch.randn(2, 16, 16).bfloat16(), torch.cat([disc(3), disc(5)])
    loss = mask_loss(logits, mask)
    assert loss.dtype == torch.float32
    assert torch.isclose(loss, mask_loss(logits.float(), mask))
