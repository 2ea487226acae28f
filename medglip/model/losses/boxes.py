"""What a point pays for the box it draws and for what it says of that box. Knows no phrases."""

import torch
import torch.nn.functional as F
from torch import Tensor

from medglip.errors import ModelError
from medglip.model.boxes import paired_iou

QUALITY_TARGETS = ("iou", "centerness")


def giou_loss(predicted: Tensor, wanted: Tensor) -> Tensor:
    """Mean of 1 - GIoU, in [0, 2], of boxes (M, 4) xyxy in pixels with their truths (M, 4); M is at least 1.

    Every point counts alike. FCOS and GLIP weigh points by their centerness, but a tiny lesion's only point may lie
    outside its box: it would weigh nothing, and the lesion's box would never be learned.

    Source: Rezatofighi et al., Generalized Intersection over Union, CVPR 2019, algorithm 1.
    """
    return (1 - paired_iou(predicted.float(), wanted.float())[1]).mean()


def centerness_target(points: Tensor, boxes: Tensor) -> Tensor:
    """How central point i (M, 2) is in box i (M, 4): (M,) in [0, 1], 1 in the middle, 0 on the edge and outside.

    Source: Tian et al., FCOS (arXiv 1904.01355), equation 3.

    >>> centerness_target(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0, 4, 4]]))
    tensor([0.5774])
    """
    reach = torch.stack([points - boxes[:, :2], boxes[:, 2:] - points], dim=-1).float().clamp(min=0)  # (M, 2, 2): side last
    return (reach.amin(-1) / reach.amax(-1).clamp(min=1e-7)).prod(-1).sqrt()


def quality_loss(quality: Tensor, predicted: Tensor, wanted: Tensor, points: Tensor, target: str = "iou") -> Tensor:
    """Cross entropy of the quality logits with what they should say; float32 scalar.

    Args:
        quality: (M,) logits, M at least 1.
        predicted: (M, 4) boxes drawn by the points, xyxy in pixels; no gradient goes to them.
        wanted: (M, 4) their truths.
        points: (M, 2) the points, x and y in pixels.
        target: ``iou``: the IoU of the drawn box with its truth; ``centerness``: how central the point is in its truth.

    Raises:
        ModelError: ``target`` is neither.

    Source: ``centerness``: FCOS (arXiv 1904.01355) section 3.2, used by GLIP; ``iou``: Wu et al., IoU-aware
    Single-stage Object Detector (arXiv 1912.05992), equation 2.
    """
    if target == "iou":
        truth = paired_iou(predicted.detach().float(), wanted.float())[0].clamp(0, 1)
    elif target == "centerness":
        truth = centerness_target(points, wanted)
    else:
        raise ModelError(f"Box quality cannot be {target!r}: it is one of {', '.join(QUALITY_TARGETS)}; set quality_target so.")
    return F.binary_cross_entropy_with_logits(quality.float(), truth)
