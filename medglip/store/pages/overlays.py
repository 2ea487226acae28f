"""An image with its regions as a small picture and SVG shapes over it. Knows nothing of pages and files.

Labels are numbers in badges that keep clear of each other; the words stand in a legend beside the picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from medglip.records.labels import LabelTree
from medglip.records.masks import Rle
from medglip.records.record import ImageRecord, Region

THUMBNAIL = 320
# Bright enough on dark tissue, dark enough on white skin with the black line under each; far apart in hue.
COLOURS = (
    "#ffd60a", "#22c8ff", "#ff6bb0", "#7be34f", "#ff9533", "#b79bff", "#2ee6c0", "#ff6a5e", "#d7f25c", "#8ab4ff",
    "#f0a6ff", "#e0b98a",
)  # fmt: skip
# Regions drawn in one picture; of more (nuclei) the largest are drawn and the others counted.
DRAWN = 120
_BADGE = 8.5  # radius, px
_BADGES = 6  # regions of a concept that are all numbered; of more, half as many are
_STEP = 2.0  # between the points of an outline, px


class Shape(NamedTuple):
    """One region, drawn: all in pixels of the picture."""

    colour: str
    x: float
    y: float
    width: float
    height: float
    outline: str
    title: str


class Badge(NamedTuple):
    """A number on a region: centre in pixels of the picture."""

    colour: str
    x: float
    y: float
    number: int


class Entry(NamedTuple):
    """A line of the legend."""

    colour: str
    number: int
    name: str
    regions: int
    size: str


@dataclass(frozen=True, slots=True)
class Overlay:
    """A picture and what is drawn over it.

    Attributes:
        picture: uint8 (H, W) or (H, W, 3), at most ``THUMBNAIL`` on its longer side.
        shapes: The regions, largest first.
        badges: One a concept and region, where there is room.
        legend: One a concept.
        letters: Where the left, right, top and bottom edges of the picture point to in the patient: R, L, A, P, S, I,
            or "" where it is not known.
        hidden: Number of regions that are not drawn.
    """

    picture: np.ndarray
    shapes: tuple[Shape, ...]
    badges: tuple[Badge, ...]
    legend: tuple[Entry, ...]
    letters: tuple[str, str, str, str]
    hidden: int

    @property
    def width(self) -> int:
        """Columns of the picture."""
        return self.picture.shape[1]

    @property
    def height(self) -> int:
        """Rows of the picture."""
        return self.picture.shape[0]


def overlay(record: ImageRecord, pixels: np.ndarray, tree: LabelTree) -> Overlay:
    """The picture of a record with its regions.

    Args:
        record: The image.
        pixels: To look at: uint8 (H, W) or (H, W, 3).
        tree: Gives the names.
    """
    picture, scale = _thumbnail(record, pixels)
    concepts = list(dict.fromkeys(region.concept for region in record.regions))
    regions = sorted(record.regions, key=lambda region: -_area(region))
    shapes, marks = [], []
    for region in regions[:DRAWN]:
        number = concepts.index(region.concept) + 1
        colour = COLOURS[(number - 1) % len(COLOURS)]
        x0, y0, x1, y1 = (side * scale[axis % 2] for axis, side in enumerate(region.box_xyxy))
        path = outline(region.mask, region.box_xyxy, scale) if region.mask else ""
        title = f"{number} {name_of(region.concept, tree)}: {_size(region, record.spacing_mm)}"
        shapes.append(Shape(colour, round(x0, 1), round(y0, 1), round(x1 - x0, 1), round(y1 - y0, 1), path, title))
        marks.append((number, colour, (x0, y0, x1, y1)))
    letters = edge_letters(record)
    badges = _badges(marks, picture.shape[1], picture.shape[0], letters)
    return Overlay(picture, tuple(shapes), badges, _legend(record, concepts, tree), letters, max(0, len(regions) - DRAWN))


def name_of(concept: str, tree: LabelTree) -> str:
    """Words for a concept; its id where the tree does not know it."""
    return tree.concept_name(concept) if concept.partition("@")[0] in tree else concept


def edge_letters(record: ImageRecord) -> tuple[str, str, str, str]:
    """Where the left, right, top and bottom edges of an image point to in the patient, or "" for unknown.

    By the affine where there is one; else a frontal radiograph of the trunk is taken to be shown as is the custom, as
    if the patient faced the reader.
    """
    if record.affine_px_to_mm is not None:
        rows = np.reshape(record.affine_px_to_mm, (3, 4))
        columns, down = _letter(rows[:, 0]), _letter(rows[:, 1])
        return _OPPOSITE[columns], columns, _OPPOSITE[down], down
    view = record.modality_detail.get("view", "").lower()
    frontal = view in ("pa", "ap", "ap supine", "frontal", "ap erect")
    if record.modality == "xray" and frontal and record.body_region in ("thorax", "abdomen", "pelvis"):
        return "R", "L", "", ""
    return "", "", "", ""


_OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}


def _letter(direction_lps: np.ndarray) -> str:
    axis = int(np.argmax(np.abs(direction_lps)))
    return ("LPS" if direction_lps[axis] > 0 else "RAI")[axis]


def _thumbnail(record: ImageRecord, pixels: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """The picture with square pixels, and (x, y) pixels of it per pixel of the image."""
    row_mm, column_mm = record.spacing_mm or (1.0, 1.0)
    width, height = record.width * column_mm, record.height * row_mm
    largest = THUMBNAIL / max(width, height)
    size = max(1, round(width * largest)), max(1, round(height * largest))
    small = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(small), (size[0] / record.width, size[1] / record.height)


def _area(region: Region) -> float:
    x0, y0, x1, y1 = region.box_xyxy
    return (x1 - x0) * (y1 - y0)


def _size(region: Region, spacing_mm: tuple[float, float] | None) -> str:
    x0, y0, x1, y1 = region.box_xyxy
    if spacing_mm is None:
        return f"{x1 - x0:.0f} × {y1 - y0:.0f} px"
    width, height = (x1 - x0) * spacing_mm[1], (y1 - y0) * spacing_mm[0]
    return f"{width:.0f} × {height:.0f} mm" if min(width, height) >= 10 else f"{width:.1f} × {height:.1f} mm"


def _legend(record: ImageRecord, concepts: Sequence[str], tree: LabelTree) -> tuple[Entry, ...]:
    """Name, number of regions, and size of the largest, of each concept."""
    entries = []
    for at, concept in enumerate(concepts):
        same = [region for region in record.regions if region.concept == concept]
        size = _size(max(same, key=_area), record.spacing_mm)
        entries.append(Entry(COLOURS[at % len(COLOURS)], at + 1, name_of(concept, tree), len(same), size))
    return tuple(entries)


def outline(mask: Rle, box: Sequence[float], scale: tuple[float, float]) -> str:
    """SVG path around a mask. The mask is traced in full size inside its box, so that small ones keep their form.

    Args:
        mask: The mask.
        box: ``(x0, y0, x1, y1)`` around it, in pixels of the image.
        scale: (x, y) pixels of the picture per pixel of the image.
    """
    from skimage.measure import find_contours

    x0, y0 = int(box[0]), int(box[1])
    inside = np.pad(mask.decode()[y0 : int(np.ceil(box[3])), x0 : int(np.ceil(box[2]))], 1)
    path = []
    for contour in find_contours(inside.astype(np.uint8), 0.5):
        # + 0.5: from pixel centres to edges; - 1: the padding
        points = (contour[:, ::-1] - 0.5 + (x0, y0)) * scale
        along = np.concatenate([[0], np.hypot(*np.diff(points, axis=0).T).cumsum()])
        _, kept = np.unique(along // _STEP, return_index=True)
        if len(kept) > 2:
            path.append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points[kept]) + "Z")
    return "".join(path)


def _badges(
    marks: Sequence[tuple[int, str, tuple[float, ...]]], width: int, height: int, letters: Sequence[str]
) -> tuple[Badge, ...]:
    """Badges beside their boxes, none over another, the largest region of each concept first.

    Of a concept with many regions only some have a badge: the colour says the rest.
    """
    taken = [
        place
        for letter, place in zip(
            letters, [(8, height / 2), (width - 8, height / 2), (width / 2, 8), (width / 2, height - 8)], strict=True
        )
        if letter
    ]
    badges = []
    seen: dict[int, int] = {}
    ranked = []
    for number, colour, box in marks:
        ranked.append((seen.get(number, 0), number, colour, box))
        seen[number] = seen.get(number, 0) + 1
    for rank, number, colour, (x0, y0, x1, y1) in sorted(ranked):
        if seen[number] > _BADGES and rank >= _BADGES // 2:
            continue
        r = _BADGE
        beside = [(x, y) for y in (y0 - r, y1 + r) for x in (x0, x1)] + [
            (x, y) for x in (x0 - r, x1 + r) for y in (y0 + r, (y0 + y1) / 2, y1 - r)
        ]
        inside = [(x, y) for y in (y0 + r, (y0 + y1) / 2, y1 - r) for x in (x0 + r, (x0 + x1) / 2, x1 - r)]
        room = x1 - x0 > 4 * r and y1 - y0 > 4 * r  # a badge inside must not hide what it names
        for x, y in beside + (inside if room else []):
            fits = r <= x <= width - r and r <= y <= height - r
            if fits and all(np.hypot(x - other[0], y - other[1]) >= 2 * r + 1 for other in taken):
                taken.append((x, y))
                badges.append(Badge(colour, round(x, 1), round(y, 1), number))
                break
    return tuple(badges)
