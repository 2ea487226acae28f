"""Masks and boxes of one label as regions: components, specks, and the flags that size and place deserve. Reads no files."""

from collections.abc import Sequence
from dataclasses import replace

import cc3d
import numpy as np

from medglip.curate.cases import Refused
from medglip.curate.source import Named, Part
from medglip.errors import RecordError
from medglip.records import Box, Region, Rle, box_of_mask, label_tree, rle_of_crop, rle_of_mask
from medglip.records.measures import axes_mm

# Smallest region that is not flagged: 100 px, or 4 px on the short side (medical-data rules; nothing is dropped).
TINY_AREA, TINY_SIDE = 100, 4
# Components of at most this many pixels beside a larger one are traces of resampling or compression.
SPECKLE = 3


def regions_of_mask(part: Part, named: Named, mask: np.ndarray, *, apart: bool = False) -> list[Region]:
    """The regions of one label in one image.

    A countable label (lesion, nucleus, polyp) gives one region a connected component (8 neighbours), any other one region
    for all its pixels. Specks of at most 3 px beside a larger component are left out.

    Args:
        part: Where it is from.
        named: The label.
        mask: (H, W), non-zero inside.
        apart: True splits any label: paired organs in a source that does not tell the sides.

    Returns:
        Regions from top to bottom; none for an empty mask.
    """
    if not mask.any():
        return []
    components = cc3d.connected_components(np.ascontiguousarray(mask != 0).astype(np.uint8), connectivity=8)
    sizes = np.bincount(components.ravel())[1:]
    kept = np.flatnonzero(sizes > SPECKLE) + 1 if sizes.max() > SPECKLE else np.arange(1, len(sizes) + 1)
    if not (apart or label_tree()[named.label].countable):
        merged = ("merged",) if len(kept) > 1 else ()
        return [region_of_mask(part, named, np.isin(components, kept), merged)]
    windows = cc3d.statistics(components)["bounding_boxes"]  # nuclei and exudates come in thousands: look at each alone
    regions = []
    for number in kept:
        rows, columns, *_ = windows[number]
        crop = components[rows, columns] == number
        box = float(columns.start), float(rows.start), float(columns.stop), float(rows.stop)
        rle = rle_of_crop(crop, (int(columns.start), int(rows.start)), mask.shape)
        regions.append(region_of_box(part, named, box, mask.shape, rle, area=int(np.count_nonzero(crop))))
    return regions


def region_of_mask(part: Part, named: Named, mask: np.ndarray, flags: tuple[str, ...] = ()) -> Region:
    """One region from one non-empty mask (H, W)."""
    box = box_of_mask(mask)
    if box is None:
        raise RecordError(f"A mask of {named.concept!r} is empty; a region needs at least one pixel.")
    return region_of_box(part, named, box, mask.shape, rle_of_mask(mask), flags)


def region_of_box(
    part: Part, named: Named, box_xyxy: Box, size_hw: Sequence[int], rle: Rle | None = None,
    flags: tuple[str, ...] = (), instance: str | None = None, area: float | None = None,
) -> Region:  # fmt: skip
    """One region from a half-open pixel box, with the flags that its size and place deserve.

    Args:
        part: Where it is from.
        named: The label.
        box_xyxy: Inside the image.
        size_hw: Height and width of the image.
        rle: The mask, if there is one.
        flags: Further flags.
        instance: 3-D object that it is a cut of.
        area: Pixels inside, where they have been counted already.
    """
    x0, y0, x1, y1 = box_xyxy
    if area is None:
        area = rle.area if rle else (x1 - x0) * (y1 - y0)
    return Region(label=named.label, box_xyxy=box_xyxy, mask=rle, laterality=named.laterality, instance=instance,
                  provenance=part.annotation, flags=(*flags, *_placed_flags(box_xyxy, area, size_hw)))  # fmt: skip


def clipped_box(box_xyxy: Sequence[float], size_hw: Sequence[int]) -> Box:
    """The box inside the image.

    Raises:
        Refused: it is not finite, empty, or passes the border by more than 1 px or 1 % of the image.
    """
    height, width = size_hw
    x0, y0, x1, y1 = (float(value) for value in box_xyxy)
    slack_x, slack_y = max(1.0, 0.01 * width), max(1.0, 0.01 * height)
    if not np.isfinite([x0, y0, x1, y1]).all() or x1 <= x0 or y1 <= y0:
        raise Refused("bad_box", f"The box {(x0, y0, x1, y1)} is empty or not finite; x0 < x1 and y0 < y1 are needed.")
    if x0 < -slack_x or y0 < -slack_y or x1 > width + slack_x or y1 > height + slack_y:
        raise Refused("box_out_of_image", f"The box {(x0, y0, x1, y1)} leaves its image of {width} x {height} pixels.")
    box = max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
    if box[0] >= box[2] or box[1] >= box[3]:
        raise Refused("box_out_of_image", f"The box {(x0, y0, x1, y1)} lies outside {width} x {height} pixels.")
    return box


def region_of_cut(
    part: Part, named: Named, crop: np.ndarray, corner_xy: tuple[int, int], size_hw: tuple[int, int], instance: str,
    spacing_mm: tuple[float, float] | None = None,
) -> Region | None:  # fmt: skip
    """The region of one 3-D object in one plane; its cost is that of the window around the object, not of the plane.

    Specks of at most 3 px beside a larger component are left out; several components are one region, flagged ``merged``.

    Args:
        part: Where it is from.
        named: The label.
        crop: (h, w) bool, the object inside a window of the plane.
        corner_xy: Column and row of the window's first pixel in the plane.
        size_hw: Height and width of the plane.
        instance: The object.
        spacing_mm: (row, column) pitch for the axes in mm; None where it is unknown or not to be trusted.

    Returns:
        None where no pixel is inside.
    """
    rows, columns = np.flatnonzero(crop.any(axis=1)), np.flatnonzero(crop.any(axis=0))
    if not rows.size:
        return None
    y, x = int(rows[0]), int(columns[0])
    x0, y0 = corner_xy[0] + x, corner_xy[1] + y
    crop = np.ascontiguousarray(crop[y : rows[-1] + 1, x : columns[-1] + 1])
    components, count = cc3d.connected_components(crop, connectivity=8, return_N=True, binary_image=True)
    merged: tuple[str, ...] = ()
    if count > 1:
        sizes = np.bincount(components.ravel())[1:]
        kept = np.flatnonzero(sizes > SPECKLE) + 1
        if 0 < len(kept) < count:
            return region_of_cut(part, named, np.isin(components, kept), (x0, y0), size_hw, instance, spacing_mm)
        merged = ("merged",)
    box = float(x0), float(y0), float(x0 + crop.shape[1]), float(y0 + crop.shape[0])
    rle, area = rle_of_crop(crop, (x0, y0), size_hw), int(np.count_nonzero(crop))
    region = region_of_box(part, named, box, size_hw, rle, merged, instance, area)
    axes = axes_mm(crop, spacing_mm)
    return region if axes is None else replace(region, long_axis_mm=axes[0], short_axis_mm=axes[1])


def _placed_flags(box_xyxy: Box, area: float, size_hw: Sequence[int]) -> tuple[str, ...]:
    """The flags that a region's size and place deserve: ``tiny``, ``touches_border``."""
    x0, y0, x1, y1 = box_xyxy
    tiny = area < TINY_AREA or min(x1 - x0, y1 - y0) < TINY_SIDE
    border = x0 <= 0 or y0 <= 0 or x1 >= size_hw[1] or y1 >= size_hw[0]
    return ("tiny",) * tiny + ("touches_border",) * border
