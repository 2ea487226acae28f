"""The whole loss of a batch: every term of this room, weighted. Knows no model beyond what it puts out, and no data set."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medglip.errors import ModelError
from medglip.model.assign import assign
from medglip.model.losses.align import align_loss
from medglip.model.losses.boxes import giou_loss, quality_loss
from medglip.model.losses.contrast import contrast_loss, gathered, same_of
from medglip.model.losses.hierarchy import hierarchy_loss, named_or_above, place_is_known, with_ancestors
from medglip.model.losses.masks import mask_loss
from medglip.model.losses.presence import expected_logit, presence_loss
from medglip.model.losses.target import Target, number_in_batch
from medglip.model.losses.words import word_loss

if TYPE_CHECKING:
    from medglip.model.dense import GroundingOutput

ALWAYS = ("align", "box", "quality", "presence")


def grounding_loss(
    output: "GroundingOutput", targets: Sequence[Target], weights: Mapping[str, float], quality_target: str = "iou"
) -> dict[str, Tensor]:
    """Weighted terms of a batch and their sum ``loss``: float32 scalars, also under autocast.

    ``align``, ``box``, ``quality`` and ``presence`` are always there. ``hierarchy``, ``contrast``, ``words`` and
    ``masks`` are computed, and in the answer, where their weight is above 0. One that has nothing to judge in this batch
    is a zero that keeps the graph whole, so that every parameter has a (zero) gradient.

    Args:
        output: Of R rows.
        targets: R of them, one a row, phrases padded to P, on the output's device.
        weights: By the names above; the first four must be there.
        quality_target: What the quality logit says of a box: ``iou`` or ``centerness``.

    Raises:
        ModelError: a weight is missing, or its name is not known; ``quality_target`` is not known.
    """
    unknown, missing = sorted(set(weights) - {*ALWAYS, *_OPTIONAL}), [name for name in ALWAYS if name not in weights]
    if unknown or missing:
        raise ModelError(
            f"Weights of the loss: {unknown!r} are not known and {missing!r} are missing; there are "
            f"{', '.join((*ALWAYS, *_OPTIONAL))}, of which the first {len(ALWAYS)} must be given. Correct the [loss] section."
        )
    with torch.autocast(output.logits.device.type, enabled=False):
        terms = _points(output, targets, quality_target)
        presence = torch.stack([with_ancestors(target.presence, target.parents) for target in targets])
        terms["presence"] = presence_loss(output.presence, output.uncertainty, presence)
        for name, term in _OPTIONAL.items():
            if weights.get(name, 0) > 0:
                terms[name] = term(output, targets)
        terms = {name: term * weights[name] for name, term in terms.items()}
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}


def _points(output: "GroundingOutput", targets: Sequence[Target], quality_target: str) -> dict[str, Tensor]:
    """What points pay: ``align``, ``box``, ``quality``."""
    truth = torch.zeros_like(output.logits, dtype=torch.float32)
    is_judged = torch.zeros_like(output.logits, dtype=torch.bool)
    predicted, wanted, quality, places = [], [], [], []
    for row, target in enumerate(targets):
        given = None if output.learned is None else output.learned.assigned[row]
        number = assign(output.points, output.strides, target.boxes) if given is None else given
        learns = (number >= 0).nonzero().squeeze(-1)
        judged = place_is_known(target.presence, target.parents).unsqueeze(0)
        if len(target.unsure_boxes):
            unsure = (_inside(output.points, target.unsure_boxes).float() @ target.unsure_names.float()) > 0
            judged = judged & ~unsure  # a phrase that names the point's own box is judged again below
        is_judged[row] = judged
        if len(target.boxes):
            box = number[learns]  # empty only where the caller's assignment gives these boxes no point
            named, above = target.names[box], named_or_above(target.names, target.parents)[box]
            truth[row, learns] = named.float()
            # An ancestor of the box's name is no error here: not judged, where the box does not name it itself.
            is_judged[row, learns] = (is_judged[row, learns] & ~above) | (named & (target.presence >= 0))
            predicted.append(output.boxes[row, learns])
            wanted.append(target.boxes[box])
            quality.append(output.quality[row, learns])
            places.append(output.points[learns])

    terms = {"align": align_loss(output.logits, truth, is_judged)}
    if sum(map(len, predicted)):
        boxes, truths = torch.cat(predicted), torch.cat(wanted)
        terms["box"] = giou_loss(boxes, truths)
        terms["quality"] = quality_loss(torch.cat(quality), boxes, truths, torch.cat(places), quality_target)
    else:
        terms["box"], terms["quality"] = _nothing(output.boxes), _nothing(output.quality)
    return terms


def _hierarchy(output: "GroundingOutput", targets: Sequence[Target]) -> Tensor:
    """The pairs of all rows together."""
    logits = expected_logit(output.presence, output.uncertainty)
    pairs = [target.parents + row * logits.shape[1] for row, target in enumerate(targets) if target.parents is not None]
    pairs.append(torch.zeros(0, 2, dtype=torch.long, device=logits.device))
    return hierarchy_loss(logits.flatten(), torch.cat(pairs))


def _contrast(output: "GroundingOutput", targets: Sequence[Target]) -> Tensor:
    """Every region that learns against every phrase. All processes come here together, also those without a region."""
    learned = output.learned
    if learned is None:
        return _nothing(output.logits)
    regions, of, phrases, scale = learned.region_vectors, learned.region_of, learned.phrase_vectors, learned.contrast_scale
    if regions is None or of is None or phrases is None or scale is None:
        return _nothing(output.logits)
    same, is_negative = same_of(targets, of)
    return contrast_loss(gathered(regions), gathered(phrases).flatten(0, 1), same, is_negative, scale)


def _words(output: "GroundingOutput", targets: Sequence[Target]) -> Tensor:
    """Words guessed."""
    learned = output.learned
    if learned is None or learned.word_logits is None or learned.word_labels is None:
        return _nothing(output.logits)
    return word_loss(learned.word_logits, learned.word_labels)


def _masks(output: "GroundingOutput", targets: Sequence[Target]) -> Tensor:
    """Masks of boxes whose true mask is known."""
    learned = output.learned
    if learned is None or learned.mask_logits is None or learned.mask_of is None:
        return _nothing(output.logits)
    logits, of = learned.mask_logits, learned.mask_of
    known = [_known_masks(target) for target in targets]
    keep = torch.cat(known)[number_in_batch(known, of)]
    if not bool(keep.any()):
        return _nothing(logits)
    none = torch.zeros(0, *logits.shape[1:], device=of.device)
    truths = [none if target.masks is None else target.masks for target in targets]
    return mask_loss(logits[keep], torch.cat(truths)[number_in_batch(truths, of[keep])])


def _known_masks(target: Target) -> Tensor:
    """(G,) bool, the boxes whose mask is known."""
    if target.masks is not None and target.mask_is_known is not None:
        return target.mask_is_known
    return torch.full_like(target.boxes[:, 0], target.masks is not None, dtype=torch.bool)


def _nothing(values: Tensor) -> Tensor:
    """A zero that keeps the graph whole: what made ``values`` has a (zero) gradient."""
    return values.float().sum() * 0


def _inside(points: Tensor, boxes: Tensor) -> Tensor:
    """(N, I) bool, whether point n lies in box i."""
    place = points.unsqueeze(1)
    return ((place >= boxes[:, :2]) & (place < boxes[:, 2:])).all(dim=-1)


_OPTIONAL: dict[str, Callable[["GroundingOutput", Sequence[Target]], Tensor]] = {
    "hierarchy": _hierarchy,
    "contrast": _contrast,
    "words": _words,
    "masks": _masks,
}
