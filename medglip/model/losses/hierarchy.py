"""What follows from "where the child is, its parent is": for targets, for the loss, as a measure. Knows no boxes.

``parents`` is (H, 2) int64, rows (child phrase, parent phrase), here and everywhere.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def reach(parents: Tensor, count: int) -> Tensor:
    """(count, count) bool: [a, b] is True where b is a itself, its parent, its parent's parent and so on.

    >>> reach(torch.tensor([[0, 1], [1, 2]]), 3)[0]
    tensor([True, True, True])
    """
    path = torch.eye(count, device=parents.device)
    path[parents[:, 0], parents[:, 1]] = 1
    for _ in range(max(1, count - 1).bit_length()):  # paths of length 1, 2, 4, ... until the longest that can be
        path = (path @ path).clamp(max=1)
    return path > 0


def named_or_above(names: Tensor, parents: Tensor | None) -> Tensor:
    """(G, P) bool: the phrases that name box g, (G, P) bool, and all their ancestors."""
    if parents is None or len(parents) == 0:
        return names
    return (names.float() @ reach(parents, names.shape[-1]).float()) > 0


def with_ancestors(presence: Tensor, parents: Tensor | None) -> Tensor:
    """The same presence (P,), 1 / 0 / -1, with every ancestor of a phrase that is there made 1.

    So an ancestor of a true label is never a negative. What is absent or not known says nothing about its ancestors.
    No parents (None, or H = 0) change nothing.

    >>> with_ancestors(torch.tensor([1.0, -1.0, 0.0]), torch.tensor([[0, 1]]))
    tensor([1., 1., 0.])
    """
    if parents is None or len(parents) == 0:
        return presence
    lifted = named_or_above((presence == 1).unsqueeze(0), parents)[0]
    return torch.where(lifted, torch.ones_like(presence), presence)


def place_is_known(presence: Tensor, parents: Tensor | None) -> Tensor:
    """(P,) bool: the phrases of which "not named here" means "not here".

    These are the phrases of known presence (P,), 1 / 0 / -1, without those that only their children show to be there:
    nobody said where.
    """
    return (presence >= 0) & (with_ancestors(presence, parents) == presence)


def hierarchy_loss(presence_logits: Tensor, parents: Tensor) -> Tensor:
    """Mean over the pairs of what a child pays for being more present than its parent; float32 scalar, 0 without pairs.

    d = log p(child) - log p(parent) is minus the logarithm of the implication child -> parent under the product logic,
    min(1, p(parent) / p(child)). A pair pays Huber's d^2 / 2 up to d = 1 and d - 1/2 beyond, and nothing where d <= 0.

    Of the known forms this one pays exactly where the order is broken: -log(1 - p(child) (1 - p(parent))) also pulls
    pairs apart that are in order, and so would spoil the calibration of presence. It is smooth, its gradient in each
    logit is at most 1, and it does not fade where a sure child meets a sure "no" of its parent, as p(child) - p(parent) does.

    Args:
        presence_logits: (P,) or any longer list of logits.
        parents: (H, 2) int64 numbers in that list.

    Source: the constraint: Giunchiglia and Lukasiewicz, C-HMCNN (arXiv 2010.10151), section 2; the implication (Goguen)
    and its logarithm: van Krieken et al., Analyzing Differentiable Fuzzy Logic Operators (arXiv 2002.06100).
    """
    likely = F.logsigmoid(presence_logits.float())
    excess = (likely[parents[:, 0]] - likely[parents[:, 1]]).clamp(min=0)
    paid = torch.where(excess < 1, excess**2 / 2, excess - 0.5)
    return paid.sum() / max(1, len(parents)) + likely.sum() * 0  # the last: a gradient, of 0, for what has no pair


def consistency(presence: Tensor, parents: Tensor) -> Tensor:
    """Share, in [0, 1], of pairs whose child is not more present than its parent; 1 where there are no pairs.

    Args:
        presence: (P,) probabilities, or logits: only their order counts.
        parents: (H, 2) int64.
    """
    if len(parents) == 0:
        return torch.ones((), device=presence.device)
    return (presence[parents[:, 0]] <= presence[parents[:, 1]]).float().mean()
