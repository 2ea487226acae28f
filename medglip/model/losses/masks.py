"""What a mask pays for its shape: Dice and focal loss of MONAI. Knows no boxes and no phrases."""

import torch
from torch import Tensor


def mask_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean over the masks of Dice + focal loss; float32 scalar, 0 (with a graph) where there is no mask.

    Each mask counts alike whatever its size. Three choices make MONAI's loss right for small and soft masks:

    - Dice is taken of squares (``squared_pred``). Of plain sums, MONAI's Dice is lowest at a hard answer even where the
      truth is soft, as masks at stride 4 are on their borders and tiny lesions are everywhere.
    - A mask with no truth in it pays the focal loss alone. Its Dice is 1 - e / (sum of p^2 + e) with e = 1e-5, thus
      about 1 for any answer but the surest "nothing", and has no useful gradient.
    - One Dice a mask (``batch=False``): pooled over masks, large organs would hide the small ones.

    Args:
        logits: (K, h, w) of any float type; K may be 0.
        masks: (K, h, w) in [0, 1], all of them known.

    Source: Milletari et al., V-Net (arXiv 1606.04797), section 3; Lin et al., RetinaNet (arXiv 1708.02002), equation 4
    with gamma 2; together in monai.losses.DiceFocalLoss.
    """
    if len(logits) == 0:
        return logits.float().sum()
    from monai.losses import DiceFocalLoss  # takes seconds

    told, truth = logits.float().unsqueeze(1), masks.float().unsqueeze(1)
    is_empty = ~(truth > 0).flatten(1).any(dim=1)
    total = torch.zeros((), device=logits.device)
    for chosen, dice in ((~is_empty, 1.0), (is_empty, 0.0)):
        if bool(chosen.any()):
            loss = DiceFocalLoss(sigmoid=True, squared_pred=True, batch=False, reduction="mean", lambda_dice=dice)
            total = total + loss(told[chosen], truth[chosen]) * chosen.sum()
    return total / len(logits)
