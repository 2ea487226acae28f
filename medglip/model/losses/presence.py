"""What the model pays for saying that a phrase is, or is not, in an image. Knows no boxes."""

import math

import torch.nn.functional as F
from torch import Tensor


def expected_logit(logit: Tensor, log_variance: Tensor) -> Tensor:
    """Logit of the mean of sigmoid(x) over x normal with mean ``logit`` and log variance ``log_variance``, same shape, float32.

    m / sqrt(1 + pi/8 v): the less sure, the nearer to "one half". It is written with logarithms, so that no variance
    overflows and no gradient is NaN.

    Source: MacKay, The Evidence Framework Applied to Classification Networks, Neural Computation 4 (1992), section 2
    (the probit approximation; Bishop, PRML, equation 4.153).
    """
    return logit.float() * (-0.5 * F.softplus(log_variance.float() + math.log(math.pi / 8))).exp()


def presence_loss(logit: Tensor, log_variance: Tensor, presence: Tensor) -> Tensor:
    """Mean cross entropy of the expected presence with the truth where that is known; float32 scalar, 0 where nothing is.

    A phrase that is wrong pays less when it says that it is unsure, one that is right pays more: so the variance is learned.

    Args:
        logit: (R, P) presence logit.
        log_variance: (R, P) logarithm of its variance; -inf is "sure" and gives the plain cross entropy of the logit.
        presence: (R, P) 1 there, 0 not there, -1 not known.

    Source: Kendall and Gal, What Uncertainties Do We Need (arXiv 1703.04977), section 3.3, with the expectation over
    logits in closed form (``expected_logit``) in place of samples.
    """
    known = presence >= 0
    truth = presence.clamp(min=0).float()
    judged = F.binary_cross_entropy_with_logits(expected_logit(logit, log_variance), truth, reduction="none")
    return (judged * known).sum() / known.sum().clamp(min=1)
