"""Draws regions on an image: thin outlines with numbered badges, and a legend beneath. Knows no model and no files.

Nothing is painted inside a box but the outlines and badges of other boxes: a reader must see the pixels that the model
saw. Badges stand outside their box and never on one another; the names are in the legend, so that none can overlap.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from medglip.errors import InputError
from medglip.records import LabelTree, Region, label_tree

# Smaller images are enlarged by a whole factor until their longer side has this many pixels.
LEAST_SIDE = 512
# Larger ones are shrunk to this.
MOST_SIDE = 1400
# Colours of predictions in turn, for a dark image (Okabe and Ito, without black; told apart with any colour vision).
PREDICTED = ("#E69F00", "#56B4E9", "#CC79A7", "#F0E442", "#D55E00", "#6FA8FF")
TRUTH = "#3DDC97"
_PAPER, _INK, _GREY, _CANVAS = "#FFFFFF", "#16202A", "#5B6770", "#0B0F14"
_LINE, _MARGIN, _FONT = 2, 26, 16

Colour = tuple[int, int, int]
Spot = tuple[int, int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True)
class Mark:
    """One region as it is drawn.

    Attributes:
        number: What its badge says.
        box: Pixels of the canvas, half-open.
        colour: Of outline and badge.
        text: Of the legend.
        dashed: True for truth.
    """

    number: int
    box: Spot
    colour: Colour
    text: str
    dashed: bool


def overlay(
    display_image: np.ndarray,
    regions: Sequence[Region],
    *,
    title: str | None = None,
    truth: Sequence[Region] = (),
    sides: tuple[str, str] | None = None,
    least_side: int = LEAST_SIDE,
    most_side: int = MOST_SIDE,
    legend: bool = True,
) -> Image.Image:
    """An RGB picture of an image with the outlines of its regions.

    Args:
        display_image: (H, W) or (H, W, 3) uint8, windowed for display.
        regions: Predictions, or truth where there is nothing else; numbered from 1 in their order.
        title: A line above the image.
        truth: A reader's marks to compare with: dashed, in one colour, numbered after the others.
        sides: Letters at the left and right edge of the image, the patient's sides (``ImageView.side_letters``).
        least_side: The longer side is enlarged by a whole factor to at least this many pixels.
        most_side: A longer one is shrunk to this; the smaller, the larger the writing in a picture shown small.
        legend: Whether to write the names beneath.

    Raises:
        InputError: pixels of another type or shape.
    """
    picture, scale = enlarged(display_image, least_side, most_side)
    marks = _marks(regions, truth, scale, label_tree())
    font, small = ImageFont.load_default(_FONT), ImageFont.load_default(_FONT - 2)
    head = _MARGIN + 6 if title else 0
    width = max(picture.width + 2 * _MARGIN, 360)
    left = (width - picture.width) // 2
    # A dark band around the image gives room for the badges of boxes that touch its border.
    above = head + _MARGIN
    below = above + picture.height + _MARGIN
    rows = _legend_rows(marks, width - 24, small) if legend and marks else []
    canvas = Image.new("RGB", (width, below + (len(rows) * 26 + 14 if rows else 0)), _PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, head, width - 1, below - 1), fill=_CANVAS)
    canvas.paste(picture, (left, above))
    if title:
        draw.text((12, head // 2), _shortened(title, width - 24, font), fill=_INK, font=font, anchor="lm")
    for mark in marks:
        _outline(draw, _moved(mark.box, left, above), mark.colour, mark.dashed)
    _badges(draw, marks, (left, above), (0, head, width, below), small)
    if sides is not None:
        for letter, x in zip(sides, (left - _MARGIN // 2, left + picture.width + _MARGIN // 2), strict=True):
            draw.text((x, above + picture.height // 2), letter, fill="#FFFFFF", font=font, anchor="mm")
    _draw_legend(draw, rows, below + 8, small)
    return canvas


def enlarged(display_image: np.ndarray, least_side: int = LEAST_SIDE, most_side: int = MOST_SIDE) -> tuple[Image.Image, float]:
    """The image as RGB, enlarged by a whole factor, ``most_side`` at most, or shrunk to that; and the factor.

    Raises:
        InputError: not uint8 (H, W) or (H, W, 3).
    """
    shape = getattr(display_image, "shape", None)
    fits = shape is not None and (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)) and min(shape) > 0
    if not fits or display_image.dtype != np.uint8:
        found = getattr(display_image, "dtype", type(display_image).__name__)
        raise InputError(f"An overlay is drawn on uint8 (H, W) or (H, W, 3); found {found} {shape}; window the image first.")
    picture = Image.fromarray(np.ascontiguousarray(display_image)).convert("RGB")
    longer = max(picture.size)
    scale = min(float(max(1, -(-least_side // longer))), most_side / longer)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(size, Image.Resampling.BICUBIC), scale


def region_text(region: Region, tree: LabelTree | None = None) -> str:
    """What a legend says of a region: its name and, for a prediction, its score."""
    tree = tree or label_tree()
    name = tree.name(region.label, region.laterality) if region.label in tree else region.label
    return name if region.score is None else f"{name} {region.score:.2f}"


def _marks(regions: Sequence[Region], truth: Sequence[Region], scale: float, tree: LabelTree) -> list[Mark]:
    marks = []
    for number, region in enumerate((*regions, *truth), start=1):
        is_truth = number > len(regions)
        colour = TRUTH if is_truth else PREDICTED[(number - 1) % len(PREDICTED)]
        x0, y0, x1, y1 = (round(edge * scale) for edge in region.box_xyxy)
        box = (x0, y0, max(x1, x0 + 1), max(y1, y0 + 1))
        text = region_text(region, tree) + (" (truth)" if is_truth else "")
        marks.append(Mark(number, box, _rgb(colour), text, dashed=is_truth))
    return marks


def _outline(draw: ImageDraw.ImageDraw, box: Spot, colour: Colour, dashed: bool) -> None:
    """A frame of ``_LINE`` pixels just outside the box; a solid one on a dark edge that keeps it visible on white."""
    x0, y0, x1, y1 = box
    frame = (x0 - _LINE, y0 - _LINE, x1 + _LINE - 1, y1 + _LINE - 1)
    if not dashed:
        draw.rectangle((frame[0] - 1, frame[1] - 1, frame[2] + 1, frame[3] + 1), outline=(0, 0, 0))
        draw.rectangle(frame, outline=colour, width=_LINE)
        return
    dash = 7
    for along, (start, end) in enumerate(((frame[0], frame[2]), (frame[1], frame[3]))):
        for step in range(int(start), int(end), 2 * dash):
            stop = min(step + dash, int(end))
            for edge in ((frame[1], frame[3] - _LINE + 1), (frame[0], frame[2] - _LINE + 1))[along]:
                part = (step, edge, stop, edge + _LINE - 1) if along == 0 else (edge, step, edge + _LINE - 1, stop)
                draw.rectangle(part, fill=colour)


def badge_spots(boxes: Sequence[Spot], bounds: Spot) -> list[Spot]:
    """Where the numbers 1, 2 ... of boxes stand: outside every box where there is room, never on one another.

    Args:
        boxes: Pixels of the canvas.
        bounds: Where badges may stand.
    """
    taken: list[Spot] = []
    for number, box in enumerate(boxes, start=1):
        width, height = badge_size(number)
        spots = [(x, y, x + width, y + height) for x, y in _beside(box, width, height)]
        free = [spot for spot in spots if _within(spot, bounds) and not any(_overlap(spot, other) for other in taken)]
        free = free or [_free(box, width, height, bounds, taken)]
        # Least covered pixels of any box, then the first in the order of preference.
        taken.append(min(free, key=lambda spot: sum(_overlap(spot, other) for other in boxes)))
    return taken


def badge_size(number: int) -> tuple[int, int]:
    """Width and height of a badge in pixels."""
    return 10 + 9 * len(str(number)), 19


def _badges(draw: ImageDraw.ImageDraw, marks: Sequence[Mark], origin: tuple[int, int], bounds: Spot, font: Font) -> None:
    boxes = [_moved(mark.box, *origin) for mark in marks]
    for mark, box, spot in zip(marks, boxes, badge_spots(boxes, bounds), strict=True):
        if not _touches(spot, box):
            draw.line((*_centre(spot), *_nearest(box, _centre(spot))), fill=mark.colour, width=1)
        draw.rounded_rectangle((spot[0], spot[1], spot[2] - 1, spot[3] - 1), radius=4, fill=mark.colour, outline=(0, 0, 0))
        draw.text(_centre(spot), str(mark.number), fill=_ink_on(mark.colour), font=font, anchor="mm")


def _beside(box: Spot, width: int, height: int) -> list[tuple[int, int]]:
    """Upper left corners of badges around a box, the best first."""
    x0, y0, x1, y1 = box
    gap = _LINE + 2
    top, bottom, left, right = y0 - gap - height, y1 + gap, x0 - gap - width, x1 + gap
    middle_x, middle_y = (x0 + x1 - width) // 2, (y0 + y1 - height) // 2
    return [
        (x0 - _LINE, top), (x1 + _LINE - width, top), (x0 - _LINE, bottom), (x1 + _LINE - width, bottom),
        (left, y0), (right, y0), (left, y1 - height), (right, y1 - height),
        (middle_x, top), (middle_x, bottom), (left, middle_y), (right, middle_y),
    ]  # fmt: skip


def _free(box: Spot, width: int, height: int, bounds: Spot, taken: Sequence[Spot]) -> Spot:
    """The free place nearest to a box, for a crowd; an occupied one where all is taken."""
    x, y = (box[0] + box[2] - width) // 2, box[1] - height
    grid = [
        (left, top, left + width, top + height)
        for top in range(bounds[1] + 1, bounds[3] - height, height + 2)
        for left in range(bounds[0] + 1, bounds[2] - width, width + 2)
    ]  # fmt: skip
    free = [spot for spot in grid if not any(_overlap(spot, other) for other in taken)]
    return min(free or grid, key=lambda spot: (spot[0] - x) ** 2 + (spot[1] - y) ** 2)


def _legend_rows(marks: Sequence[Mark], width: int, font: Font) -> list[list[tuple[Mark, int, str]]]:
    """Marks in rows of equal columns: (mark, x, text that fits its column)."""
    widest = max(font.getlength(mark.text) for mark in marks) + 52
    columns = max(1, min(4, int(width // widest)))
    room = width // columns
    entries = [
        (mark, 12 + room * (place % columns), _shortened(mark.text, room - 50, font)) for place, mark in enumerate(marks)
    ]
    return [entries[start : start + columns] for start in range(0, len(entries), columns)]


def _draw_legend(draw: ImageDraw.ImageDraw, rows: Sequence[Sequence[tuple[Mark, int, str]]], top: int,
                 font: Font) -> None:  # fmt: skip
    for row, entries in enumerate(rows):
        y = top + 26 * row
        for mark, x, text in entries:
            width, _ = badge_size(mark.number)
            draw.rounded_rectangle((x, y, x + width, y + 18), radius=4, fill=mark.colour, outline=_rgb(_GREY))
            draw.text((x + width / 2, y + 9), str(mark.number), fill=_ink_on(mark.colour), font=font, anchor="mm")
            draw.text((x + width + 8, y + 9), text, fill=_INK, font=font, anchor="lm")


def _shortened(text: str, width: float, font: Font) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..."


def _rgb(colour: str) -> Colour:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _ink_on(colour: Colour) -> Colour:
    """Black or white, whichever is read better on a colour."""
    return (0, 0, 0) if 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 130 else (255, 255, 255)


def _moved(box: Spot, x: int, y: int) -> Spot:
    return box[0] + x, box[1] + y, box[2] + x, box[3] + y


def _centre(box: Spot) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _nearest(box: Spot, point: tuple[float, float]) -> tuple[float, float]:
    return min(max(point[0], box[0]), box[2]), min(max(point[1], box[1]), box[3])


def _within(spot: Spot, bounds: Spot) -> bool:
    return spot[0] >= bounds[0] and spot[1] >= bounds[1] and spot[2] <= bounds[2] and spot[3] <= bounds[3]


def _overlap(a: Spot, b: Spot) -> int:
    """Shared pixels of two boxes."""
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def _touches(spot: Spot, box: Spot) -> bool:
    reach = _LINE + 3
    return _overlap(spot, (box[0] - reach, box[1] - reach, box[2] + reach, box[3] + reach)) > 0
