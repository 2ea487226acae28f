"""Boxes as tensors: areas, overlaps, suppression; all ``(x0, y0, x1, y1)`` in pixels. Knows no labels and no model."""

import torch
from torch import Tensor


def box_area(boxes: Tensor) -> Tensor:
    """Areas (...,) in square pixels of boxes (..., 4); a box turned inside out has area 0."""
    return (boxes[..., 2] - boxes[..., 0]).clamp(min=0) * (boxes[..., 3] - boxes[..., 1]).clamp(min=0)


def box_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of every pair: boxes (..., N, 4) and (..., M, 4) to (..., N, M) in [0, 1].

    >>> box_iou(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]))
    tensor([[0.3333]])
    """
    a, b = first.unsqueeze(-2), second.unsqueeze(-3)
    corners = torch.cat([torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])], -1)
    shared = box_area(corners)
    return shared / (box_area(a) + box_area(b) - shared).clamp(min=1e-7)


def paired_iou(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU, each (N,), of box i of ``first`` (N, 4) with box i of ``second`` (N, 4).

    Source: Rezatofighi et al., Generalized Intersection over Union, CVPR 2019, equation 3.
    """
    shared = box_area(torch.cat([torch.maximum(first[:, :2], second[:, :2]), torch.minimum(first[:, 2:], second[:, 2:])], -1))
    hull = box_area(
        torch.cat([torch.minimum(first[:, :2], second[:, :2]), torch.maximum(first[:, 2:], second[:, 2:])], -1)
    ).clamp(min=1e-7)
    union = (box_area(first) + box_area(second) - shared).clamp(min=1e-7)
    iou = shared / union
    return iou, iou - (hull - union) / hull


def nms_keep(boxes: Tensor, threshold: float) -> Tensor:
    """Greedy non-maximum suppression of many lists at once.

    A box stays when no box that stays before it in its list overlaps it by more than ``threshold``. All boxes are
    judged again until nothing changes, which ends in the greedy answer after as many rounds as the longest chain.

    Args:
        boxes: (..., K, 4), each list in order of falling score.
        threshold: IoU in [0, 1].

    Returns:
        (..., K) bool, True for what stays.

    Source: Zheng et al., Cluster-NMS, IEEE Trans. Cybernetics 2021, section III.
    """
    rivals = (box_iou(boxes, boxes) > threshold).triu(diagonal=1)  # [..., i, j]: i comes first and overlaps j
    keep = torch.ones(boxes.shape[:-1], dtype=torch.bool, device=boxes.device)
    for _ in range(boxes.shape[-2]):
        again = ~(rivals & keep.unsqueeze(-1)).any(dim=-2)
        if torch.equal(again, keep):
            break
        keep = again
    return keep
