"""What the model is punished for: alignment (focal), boxes (GIoU), box quality and presence. Knows no dataset.

A target speaks of phrases by their index in the prompt. What is not known to be true or false costs nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from medglip.model.assign import assign
from medglip.model.boxes import paired_iou
from medglip.model.dense import GroundingOutput


@dataclass(frozen=True)
class Target:
    """The truth about one image in pixels of the model's input.

    Attributes:
        boxes: (G, 4) xyxy; G may be 0; equal boxes are one box with several names.
        names: (G, P) bool, whether phrase p names box g.
        unsure_boxes: (I, 4) places where phrases may be right although no box is kept there (cut off by the crop).
        unsure_names: (I, P) bool, the phrases so concerned.
        presence: (P,) 1 there, 0 not there, -1 not known or padding.
    """

    boxes: Tensor
    names: Tensor
    unsure_boxes: Tensor
    unsure_names: Tensor
    presence: Tensor


def sigmoid_focal(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss of each logit, same shape; targets are 0 or 1.

    Source: Lin et al., RetinaNet (arXiv 1708.02002), equation 5.
    """
    p = logits.sigmoid()
    missed = p + targets - 2 * p * targets  # 1 - p where the target is 1, p where it is 0
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return weight * missed**gamma * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def grounding_loss(output: GroundingOutput, targets: Sequence[Target], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """Weighted losses of a batch: ``align``, ``box``, ``quality``, ``presence`` and their sum ``loss``.

    Args:
        output: Of B images.
        targets: B of them, phrases padded to P.
        weights: Of the four terms, by name.
    """
    truth = torch.zeros_like(output.logits)
    counts = torch.zeros_like(output.logits)  # 1 where the logit is judged
    predicted, wanted, quality = [], [], []
    for image, target in enumerate(targets):
        number = assign(output.points, output.strides, target.boxes)
        learns = number >= 0
        if bool(learns.any()):
            truth[image, learns] = target.names[number[learns]].to(truth.dtype)
            predicted.append(output.boxes[image, learns])
            wanted.append(target.boxes[number[learns]])
            quality.append(output.quality[image, learns])
        unsure = (_inside(output.points, target.unsure_boxes).to(truth.dtype) @ target.unsure_names.to(truth.dtype)) > 0
        counts[image] = ((target.presence >= 0).unsqueeze(0) & ~(unsure & (truth[image] == 0))).to(counts.dtype)

    positives = truth.sum().clamp(min=1)
    terms = {"align": (sigmoid_focal(output.logits, truth) * counts).sum() / positives}
    if predicted:
        iou, giou = paired_iou(torch.cat(predicted), torch.cat(wanted))
        terms["box"] = (1 - giou).mean()
        terms["quality"] = F.binary_cross_entropy_with_logits(torch.cat(quality), iou.detach().clamp(0, 1))
    else:  # a batch of empty images: keep the graph whole, so that every parameter has a (zero) gradient
        terms["box"], terms["quality"] = output.boxes.sum() * 0, output.quality.sum() * 0
    presence = torch.stack([target.presence for target in targets])
    known = presence >= 0
    judged = F.binary_cross_entropy_with_logits(output.presence, presence.clamp(min=0).to(truth.dtype), reduction="none")
    terms["presence"] = (judged * known).sum() / known.sum().clamp(min=1)
    terms = {name: term * weights[name] for name, term in terms.items()}
    return {"loss": torch.stack(list(terms.values())).sum(), **terms}


def _inside(points: Tensor, boxes: Tensor) -> Tensor:
    """(N, I) bool, whether point n lies in box i."""
    place = points.unsqueeze(1)
    return ((place >= boxes[:, :2]) & (place < boxes[:, 2:])).all(dim=-1)
