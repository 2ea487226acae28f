"""What each batch of a step weighs, so that batches and processes add up to one batch. Knows no model and no data set.

A term of the loss is a sum over what it judges, divided by how much that is: true pairs, points, known phrases. A step
may be made of several batches, one after another (``accumulate``) and on several processes. The mean of their means is
not the mean of all: a batch with one box would count as much as one with thirty. So each batch's term is weighed by its
part of the step's count, and gradients are those of one batch that holds all images.

Exact for ``align``, ``box``, ``quality``, ``presence``, ``hierarchy`` and ``masks``, to rounding. ``words`` is exact for
the words that were masked; which are masked is drawn batch by batch. ``contrast`` sees the images of all processes
together, but of one batch only: with ``accumulate`` it has fewer negatives, and its mean over batches is taken.

Source: the normaliser over all processes: Lin et al., RetinaNet (arXiv 1708.02002), section 4.1, as in GLIP's ATSS loss.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from medglip.model.learned import mask_points
from medglip.model.losses import Target, with_ancestors
from medglip.model.prompt import Prompt

_MEANS = ("contrast",)


def counts(
    names: Sequence[str], targets: Sequence[Target], assigned: Sequence[Tensor], prompt: Prompt, word_labels: Tensor
) -> Tensor:  # fmt: skip
    """How much each term of a batch judges, (T,) float32 in the order of ``names``.

    Args:
        names: Of terms, as ``grounding_loss`` gives them.
        targets: R of them, padded to P phrases.
        assigned: For each row (N,) int64, the box that each point learns, -1 for none.
        prompt: Of the batch, on the targets' device.
        word_labels: (U, L) int64, -100 where no word was masked.
    """
    none = torch.zeros((), dtype=torch.long, device=targets[0].presence.device)
    rows = [(target, number) for target, number in zip(targets, assigned, strict=True) if len(target.boxes)]
    points = sum(((number >= 0).sum() for _, number in rows), none)
    found = {
        "align": sum((target.names[number[number >= 0]].sum() for target, number in rows), none),
        "box": points,
        "quality": points,
        "presence": sum(((with_ancestors(target.presence, target.parents) >= 0).sum() for target in targets), none),
        "hierarchy": none + sum(len(target.parents) for target in targets if target.parents is not None),
        "contrast": none + 1,
        "words": ((word_labels.flatten()[prompt.words] >= 0) & prompt.word_is_real).sum(),
    }
    if "masks" in names:
        found["masks"] = none + sum(len(mask_points(target, number)[0]) for target, number in rows)
    return torch.stack([found[name] for name in names]).to(torch.float32)


def weigh(own: Tensor, whole: Tensor, names: Sequence[str], parts: int, world: int) -> Tensor:
    """By what a batch's terms are multiplied before ``backward``, (T,) float32; all 1 for one batch on one process.

    Gradients are added over the batches of a process and averaged over processes, as DDP and FSDP do.

    Args:
        own: (T,) counts of this batch.
        whole: (T,) sums of the counts of all batches of all processes.
        names: Of the terms.
        parts: Batches a process.
        world: Processes.
    """
    # Every process computes the same contrast, of the images of all.
    is_mean = torch.tensor([name in _MEANS for name in names], device=own.device)
    # A term is divided by at least 1, so that a batch without a true pair still pays for what it claims.
    return (own.clamp(min=1) / whole.clamp(min=1) * world).masked_fill(is_mean, 1 / parts)
