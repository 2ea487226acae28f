import math

import pytest
import torch

from medglip.model.losses import consistency, with_ancestors
from medglip.model.losses.hierarchy import hierarchy_loss, named_or_above, place_is_known, reach

CHAIN = torch.tensor([[0, 1], [1, 2], [2, 3]])  # 0 is part of 1, 1 of 2, 2 of 3; 4 stands alone
NO_PAIRS = torch.zeros(0, 2, dtype=torch.long)


def logit(*probabilities):
    return torch.tensor(probabilities).logit()


def test_ancestors_are_lifted_through_all_generations():
    presence = torch.tensor([1.0, -1, 0, -1, 0])
    assert with_ancestors(presence, CHAIN).tolist() == [1, 1, 1, 1, 0]
    assert with_ancestors(presence, CHAIN.flip(0)).tolist() == [1, 1, 1, 1, 0]
    assert presence.tolist() == [1, -1, 0, -1, 0]  # the one given stays


def test_only_what_is_there_says_something_about_ancestors():
    assert with_ancestors(torch.tensor([0.0, -1, 1, 0, -1]), CHAIN).tolist() == [0, -1, 1, 1, -1]
    for none in (None, NO_PAIRS):
        assert with_ancestors(torch.tensor([1.0, 0, -1]), none).tolist() == [1, 0, -1]


@pytest.mark.parametrize("length", [1, 2, 3, 5, 9, 17])
def test_reach_covers_the_longest_chain(length):
    parents = torch.stack([torch.arange(length - 1), torch.arange(1, length)], dim=1)
    assert torch.equal(reach(parents, length), torch.ones(length, length).triu() > 0)


def test_reach_ends_in_a_circle():
    assert reach(torch.tensor([[0, 1], [1, 0]]), 3).tolist() == [[True, True, False], [True, True, False], [False, False, True]]


def test_names_and_what_is_above_them():
    names = torch.tensor([[False, True, False, False, False], [False, False, False, False, True]])
    assert named_or_above(names, CHAIN).tolist() == [[False, True, True, True, False], [False, False, False, False, True]]
    assert torch.equal(named_or_above(names, None), names)


def test_places_of_lifted_and_unknown_phrases_are_not_known():
    assert place_is_known(torch.tensor([1.0, -1, 0, 1, 0]), CHAIN).tolist() == [True, False, False, True, True]
    assert place_is_known(torch.tensor([1.0, -1, 0]), None).tolist() == [True, False, True]


def test_loss_by_hand():
    """p = (0.5, 0.4, 0.1). ln 0.5/0.4 = 0.2231: 0.0249. ln 0.4/0.1 = 1.3863: 0.8863. ln 0.1/0.5 < 0: 0."""
    pairs = torch.tensor([[0, 1], [1, 2], [2, 0]])
    expected = (math.log(0.5 / 0.4) ** 2 / 2 + math.log(4) - 0.5 + 0) / 3
    assert torch.isclose(hierarchy_loss(logit(0.5, 0.4, 0.1), pairs), torch.tensor(expected))


def test_pairs_in_order_cost_nothing_and_pull_at_nothing():
    logits = logit(0.2, 0.5, 0.5).requires_grad_()
    loss = hierarchy_loss(logits, torch.tensor([[0, 1], [1, 2]]))
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()


def test_a_broken_pair_is_pulled_together_by_at_most_1():
    for child, parent in ((0.6, 0.4), (0.99, 0.01), (1.0, 1e-30)):
        logits = torch.tensor([math.log(child) - math.log(max(1 - child, 1e-30)), math.log(parent)]).requires_grad_()
        hierarchy_loss(logits, torch.tensor([[0, 1]])).backward()
        assert 1 >= logits.grad[0] >= 0
        assert -1 <= logits.grad[1] < -0.1  # does not fade


def test_no_pairs_cost_nothing_and_keep_the_graph():
    logits = torch.randn(3, requires_grad=True)
    loss = hierarchy_loss(logits, NO_PAIRS)
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()


def test_consistency_by_hand():
    """0.5 <= 0.6 holds, 0.6 <= 0.1 does not, 0.1 <= 0.1 holds: 2 of 3."""
    assert torch.isclose(consistency(torch.tensor([0.5, 0.6, 0.1, 0.1]), CHAIN), torch.tensor(2 / 3))
    assert consistency(torch.rand(3), NO_PAIRS) == 1


def test_descent_makes_pairs_consistent():
    logits = logit(0.9, 0.5, 0.3, 0.2, 0.5).requires_grad_()
    before = consistency(logits.detach(), CHAIN)
    for _ in range(300):
        (gradient,) = torch.autograd.grad(hierarchy_loss(logits, CHAIN), logits)
        logits = (logits - gradient).detach().requires_grad_()
    likely = logits.detach().sigmoid()
    assert before == 0
    assert (likely[:3] - likely[1:4]).max() < 0.02
