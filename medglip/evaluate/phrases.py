"""Accuracy of the best box of a phrase that is there. Knows no average precision and no absence."""

import numpy as np


def best_box_hits(iou: np.ndarray, least: float = 0.5) -> bool:
    """Whether the first of the boxes (K, G), by falling score, overlaps one of the true boxes by ``least``."""
    return bool(iou.size) and bool(iou[0].max() >= least)
