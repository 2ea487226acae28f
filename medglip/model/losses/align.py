"""What a point pays for the phrases it claims and misses. Knows no boxes and no images."""

import torch.nn.functional as F
from torch import Tensor


def sigmoid_focal(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss of each logit, same shape; targets are 0 or 1.

    Source: Lin et al., RetinaNet (arXiv 1708.02002), equation 5.
    """
    p = logits.sigmoid()
    missed = p + targets - 2 * p * targets  # 1 - p where the target is 1, p where it is 0
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return weight * missed**gamma * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def align_loss(logits: Tensor, truth: Tensor, is_judged: Tensor) -> Tensor:
    """Focal loss of all judged pairs of point and phrase, summed, over the number of true pairs (at least 1); float32 scalar.

    Args:
        logits: (R, N, P) alignment of point and phrase, of any float type.
        truth: (R, N, P) float32, 1 where the point learns a box that the phrase names, else 0.
        is_judged: (R, N, P) bool, False where the answer is not known.

    Source: GLIP (arXiv 2112.03857) section 3.1, with one column a phrase in place of one a token; the normaliser is
    that of RetinaNet (arXiv 1708.02002) section 4.1.
    """
    return (sigmoid_focal(logits.float(), truth) * is_judged).sum() / truth.sum().clamp(min=1)
