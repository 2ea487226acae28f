"""Which points learn which box: adaptive training sample selection. Knows no phrases and no loss.

Source: Zhang et al., ATSS (arXiv 1912.02424), algorithm 1, with one square anchor a point.
"""

import torch
from torch import Tensor

from medglip.model.boxes import box_area, box_iou

ANCHOR_SCALE = 4.0  # side of a point's anchor in strides: 16, 32, 64, 128, 256 pixels at strides 4 to 64


def assign(points: Tensor, strides: Tensor, boxes: Tensor, candidates: int = 9) -> Tensor:
    """Number of the box that each point learns, or -1.

    On each level the ``candidates`` points nearest to a box's centre are looked at; those inside the box whose anchors
    overlap it at least by mean plus standard deviation of all candidates learn it. A point wanted by several boxes
    takes the smallest (ATSS: the one it overlaps most), so that a lesion is not lost in its organ. A box that gets no
    point (tiny ones lie between the points) takes the nearest of the finest level that is nobody's only one, the
    smallest box first to choose.

    Args:
        points: (N, 2) x, y in pixels, level by level.
        strides: (N,) pixels.
        boxes: (G, 4) xyxy in pixels; G may be 0.
        candidates: Points a level.

    Returns:
        (N,) int64.
    """
    assigned = torch.full((len(points),), -1, dtype=torch.long, device=points.device)
    if len(boxes) == 0:
        return assigned
    half = strides.unsqueeze(-1) * (ANCHOR_SCALE / 2)
    overlap = box_iou(torch.cat([points - half, points + half], dim=-1), boxes)  # (N, G)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    distance = torch.cdist(points, centres)

    picked = []
    start = 0
    for length in torch.unique_consecutive(strides, return_counts=True)[1].tolist():
        nearest = distance[start : start + length].topk(min(candidates, length), dim=0, largest=False).indices
        picked.append(nearest + start)
        start += length
    candidate = torch.cat(picked)  # (C, G)
    fit = overlap.gather(0, candidate)
    threshold = fit.mean(dim=0) + fit.std(dim=0)
    place = points[candidate]  # (C, G, 2)
    inside = ((place > boxes[:, :2]) & (place < boxes[:, 2:])).all(dim=-1)
    wanted = torch.zeros_like(overlap).scatter_(0, candidate, ((fit >= threshold) & inside).to(overlap.dtype)) > 0
    area, box = box_area(boxes).expand(len(points), -1).where(wanted, torch.inf).min(dim=1)
    assigned[area < torch.inf] = box[area < torch.inf]

    learners = torch.bincount(assigned[assigned >= 0], minlength=len(boxes)).tolist()
    left_out = sorted((number for number, count in enumerate(learners) if count == 0), key=box_area(boxes).tolist().__getitem__)
    finest = int((strides == strides.min()).sum())
    for number in left_out:
        near = distance[:finest, number].topk(min(len(boxes) + 8, finest), largest=False).indices.tolist()
        owners: list[int] = assigned[near].tolist()
        # Not the only point of another box, unless all points around are such.
        spot = next((at for at, owner in enumerate(owners) if owner < 0 or learners[owner] > 1), 0)
        if owners[spot] >= 0:
            learners[owners[spot]] -= 1
        assigned[near[spot]], learners[number] = number, 1
    return assigned
