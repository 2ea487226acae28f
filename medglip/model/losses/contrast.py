"""Regions against the phrases of all images of a batch, on all processes. Knows no points and no fusion."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from medglip.model.losses.hierarchy import named_or_above, place_is_known, reach
from medglip.model.losses.target import Target, number_in_batch


def contrast_loss(region_vectors: Tensor, phrase_vectors: Tensor, same: Tensor, is_negative: Tensor, scale: Tensor) -> Tensor:
    """Mean cost of finding a region's phrases among the others, and a phrase's regions; float32 scalar.

    Each way is a cross entropy over scaled cosines. Its target is spread evenly over all positives, so that n of them
    cost log n at best. Pairs that are neither positive nor negative are in no denominator. A region or phrase without a
    positive asks nothing, but is a negative for others. 0 (with a graph) where there is no positive at all.

    Args:
        region_vectors: (M, d) of length 1, from before fusion.
        phrase_vectors: (K, d) of length 1, from before fusion.
        same: (M, K) bool, pairs that belong together.
        is_negative: (M, K) bool, pairs that do not; what is both counts as same.
        scale: () factor of the cosines, the inverse of the temperature.

    Source: GLIPv2 (arXiv 2206.05836), section 3.2, inter-image region-word contrastive loss; soft targets and both
    ways as in its public code. Unlike there, the region of box number 0 counts.
    """
    with torch.autocast(region_vectors.device.type, enabled=False):
        logits = region_vectors.float() @ phrase_vectors.float().T * scale.float()
        left_out = ~(same | is_negative)
        return (_one_way(logits, same, left_out) + _one_way(logits.T, same.T, left_out.T)) / 2


def _one_way(logits: Tensor, same: Tensor, left_out: Tensor) -> Tensor:
    """Mean cross entropy of the rows that have a positive."""
    asks = same.any(dim=1)  # the other rows may be left out as a whole, and have no finite logarithm
    logits, same, left_out = logits[asks], same[asks].float(), left_out[asks]
    chosen = (logits * same).sum(1) / same.sum(1)
    rows = logits.masked_fill(left_out, -torch.inf).logsumexp(1) - chosen
    return rows.sum() / max(1, len(rows))


def same_of(targets: Sequence[Target], region_of: Tensor) -> tuple[Tensor, Tensor]:
    """Which regions and phrases belong together, and which do not: two (M, K) bools, of all processes.

    In its own image a region belongs to the phrases that name it. It does not belong to phrases whose place is known
    and who do not name it, unless they are ancestors of one that does. In another image it belongs to phrases of one of
    its own concepts (those of the phrases that name it), and does not belong to phrases of other concepts. Of two
    concepts one may cover the other ("kidney", "left kidney"): what the ``parents`` of any image of the batch tell of
    that is used to leave such pairs out; beyond that only equality is known here. Phrases without a concept are left
    out in other images.

    Args:
        targets: R of them, one a row, padded to P phrases; their rows are taken for different images.
        region_of: (M, 2) int64 rows (row r, box g).

    Returns:
        same and is_negative, K = R P, phrases row by row; M and R are sums over the processes, P the largest.
    """
    number = number_in_batch([target.names for target in targets], region_of)
    names = gathered(torch.cat([target.names for target in targets])[number], False)
    above = gathered(torch.cat([named_or_above(target.names, target.parents) for target in targets])[number], False)
    concepts = gathered(torch.stack([_concepts(target) for target in targets]), -1)
    is_known = gathered(torch.stack([place_is_known(target.presence, target.parents) for target in targets]), False)
    related = gathered(torch.cat([_related(target) for target in targets]))
    row = gathered(region_of[:, 0] + _rows_before(len(targets), region_of.device))

    own = (row.unsqueeze(1) == torch.arange(len(concepts), device=row.device)).unsqueeze(-1)  # (M, R, 1)
    same, is_negative = _by_concept(names, concepts, row, related)
    same = torch.where(own, names.unsqueeze(1), same)
    is_negative = torch.where(own, is_known & ~above.unsqueeze(1), is_negative)
    return same.flatten(1), is_negative.flatten(1)


def gathered(tensor: Tensor, fill: float = 0) -> Tensor:
    """The tensors (n_i, ...) of all processes after one another, (sum of n_i, ...), by rank; itself where there is one process.

    Processes may differ in every side; ``fill`` pads all but the first to the largest. The gradient of this process's
    part comes back times the number of processes. So, where every process computes the same loss of what is gathered and
    gradients are then averaged, as DDP does, parameters get the gradient of that loss. Every process must call this.
    """
    spread = torch.distributed
    if not (spread.is_available() and spread.is_initialized()) or spread.get_world_size() == 1:
        return tensor
    world, rank = spread.get_world_size(), spread.get_rank()
    size = torch.tensor(tensor.shape, device=tensor.device)
    sizes = [torch.empty_like(size) for _ in range(world)]
    spread.all_gather(sizes, size)
    largest = torch.stack(sizes).amax(0)
    missing = [side for more in (largest - size).flip(0).tolist() for side in (0, more)]  # F.pad begins with the last side
    own = F.pad(tensor, missing, value=fill)
    if own.requires_grad:
        own.register_hook(lambda gradient: gradient * world)
    sent = own.detach().contiguous()
    sent = sent.to(torch.uint8) if sent.dtype == torch.bool else sent  # not every backend sends bools
    parts = [torch.empty_like(sent) for _ in range(world)]
    spread.all_gather(parts, sent)
    parts = [part.to(tensor.dtype) for part in parts]
    parts[rank] = own
    return torch.cat([part[: int(shape[0])] for part, shape in zip(parts, sizes, strict=True)])


def _rows_before(count: int, device: torch.device) -> Tensor:
    """() number of rows of the processes of lower rank, where this one has ``count``."""
    counts = gathered(torch.tensor([count], device=device))
    return counts[: torch.distributed.get_rank()].sum() if len(counts) > 1 else torch.zeros_like(counts[0])


def _concepts(target: Target) -> Tensor:
    """(P,) int64, -1 for none."""
    return torch.full_like(target.presence, -1).long() if target.concepts is None else target.concepts


def _related(target: Target) -> Tensor:
    """(H', 2) pairs of concepts of which the second covers the first."""
    if target.concepts is None or target.parents is None:
        return torch.zeros(0, 2, dtype=torch.long, device=target.presence.device)
    pairs = target.concepts[target.parents]
    return pairs[(pairs >= 0).all(dim=1)]


def _by_concept(names: Tensor, concepts: Tensor, row: Tensor, related: Tensor) -> tuple[Tensor, Tensor]:
    """Same and not same, (M, R, P) bools, by concept alone.

    Args:
        names: (M, P) bool, the phrases of its own row that name a region.
        concepts: (R, P) int64, -1 for none.
        row: (M,) int64, the row of each region.
        related: (H, 2) int64, concepts of which the second covers the first.
    """
    found, number = torch.unique(concepts, return_inverse=True)  # number: (R, P), the concept's place in found
    has = torch.zeros(len(names), len(found), device=names.device).scatter_add_(1, number[row], names.float())
    has = (has > 0) & (found >= 0)
    path = reach(torch.searchsorted(found, related), len(found))
    near = (has.float() @ (path | path.T).float()) > 0
    is_other = has.any(dim=1, keepdim=True) & (found >= 0) & ~near
    return has[:, number], is_other[:, number]
