"""Which regions of an image lie inside which, as the label tree allows it. Knows no images and no words."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from pycocotools import mask as coco_mask

from medglip.records.labels import LabelTree
from medglip.records.masks import Rle
from medglip.records.record import Region

INSIDE = 0.9  # share of a region that must lie in another for that to be its parent (medical-data rules)


def parents_of(regions: Sequence[Region], tree: LabelTree) -> list[tuple[int, ...]]:
    """Of each region, the numbers of those that contain it, the smallest first.

    A parent holds ``INSIDE`` of the region, is not smaller, and is on no other side. The label tree has a say: the parent
    is what the region is a part of or located in, or a part or kind of that ("upper lobe" for a finding of the lung). A
    general finding, whose place may be anywhere, has anatomy as its parent where both have masks: boxes of neighbours
    overlap. Of a left and a right organ that both seem to hold it, neither is a parent.

    Args:
        regions: Of one image.
        tree: The label tree.
    """
    by_label: dict[str, list[int]] = {}
    for number, region in enumerate(regions):
        by_label.setdefault(region.label, []).append(number)
    found: list[list[int]] = [[] for _ in regions]
    for inner, numbers in by_label.items():
        for outer, holders in by_label.items():
            how = _may_hold(outer, inner, tree)
            if how is None:
                continue
            shares = shares_inside([regions[n] for n in numbers], [regions[n] for n in holders])
            for row, column in np.argwhere(shares >= INSIDE):
                one, other = numbers[row], holders[column]
                if how == "masks" and not (regions[one].mask and regions[other].mask):
                    continue
                if _one_side(regions[one], regions[other]) and size_px(regions[other]) >= size_px(regions[one]):
                    found[one].append(other)
    sure = [_without_both_sides(numbers, regions) for numbers in found]
    return [tuple(sorted(numbers, key=lambda n: (size_px(regions[n]), n))) for numbers in sure]


def shares_inside(inner: Sequence[Region], outer: Sequence[Region]) -> np.ndarray:
    """(len(inner), len(outer)) share of each inner region in each outer one: of masks where both have one, else of boxes."""
    boxes, others = _boxes(inner), _boxes(outer)
    low, high = np.maximum(boxes[:, None, :2], others[:, :2]), np.minimum(boxes[:, None, 2:], others[:, 2:])
    shares = (high - low).clip(0).prod(axis=2) / (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)[:, None]
    touching = shares > 0
    rows = {n: _code(region.mask) for n, region in enumerate(inner) if region.mask and touching[n].any()}
    columns = {n: _code(region.mask) for n, region in enumerate(outer) if region.mask and touching[:, n].any()}
    if rows and columns:
        exact = coco_mask.iou(list(rows.values()), list(columns.values()), [1] * len(columns))
        shares[np.ix_(list(rows), list(columns))] = np.asarray(exact).reshape(len(rows), len(columns))
    return shares


def size_px(region: Region) -> float:
    """Pixels of a region: of its mask, else of its box."""
    if region.mask:
        return float(region.mask.area)
    x0, y0, x1, y1 = region.box_xyxy
    return (x1 - x0) * (y1 - y0)


@lru_cache(maxsize=65536)
def _may_hold(outer: str, inner: str, tree: LabelTree) -> str | None:
    """``any`` or ``masks``: whether the tree lets a region of ``outer`` contain one of ``inner``, and from what; else None."""
    if outer == inner:
        return None
    label, holder = tree[inner], tree[outer]
    direct = [above for above in (label.part_of, *label.site) if above]
    if outer in _places(direct, tree):
        return "any"
    if holder.is_finding or not label.is_finding:
        return None
    if any(tree.covers(place, outer) or place in _places([outer], tree) for place in direct if place != "systemic"):
        return "any"
    anywhere = label.site[:1] == ("systemic",) and label.coarse not in ("device", "image sign")
    return "masks" if anywhere and holder.level in ("organ", "substructure") else None


def _places(labels: Iterable[str], tree: LabelTree) -> set[str]:
    """Labels, and what they are parts of or located in."""
    found: set[str] = set()
    queue = list(labels)
    while queue:
        here = tree[queue.pop()]
        if here.id not in found:
            found.add(here.id)
            queue += [above for above in (here.part_of, *here.site) if above]
    return found


def _without_both_sides(numbers: list[int], regions: Sequence[Region]) -> list[int]:
    """Without organs of which both sides seem to hold the region, as boxes that overlap do: which one does is not known."""
    sides: dict[str, set[str | None]] = {}
    for number in numbers:
        sides.setdefault(regions[number].label, set()).add(regions[number].laterality)
    return [number for number in numbers if not {"left", "right"} <= sides[regions[number].label]]


def _one_side(one: Region, other: Region) -> bool:
    sides = {one.laterality, other.laterality}
    return not {"left", "right"} <= sides


def _boxes(regions: Sequence[Region]) -> np.ndarray:
    return np.array([region.box_xyxy for region in regions], float).reshape(-1, 4)


def _code(mask: Rle) -> dict:
    return {"size": list(mask.size_hw), "counts": mask.counts.encode("ascii")}
