"""Images with polygons in XML, of Aperio ImageScope or of ASAP; the first tag of a file tells which.

Roles: ``image`` (raster or DICOM), ``polygons`` (XML), ``about`` (see medglip/curate/tables.py).

Options:
- ``label_from``: where the raw label of a polygon stands. Aperio: ``annotation`` (Name of its Annotation), ``attribute``
  (Name of that Annotation's first Attribute), ``value`` (Value of that Attribute) or ``text`` (Text of its Region). ASAP:
  ``group`` (PartOfGroup) or ``annotation`` (Name). Not said, or nothing there: ``label``;
- ``label``: raw label of polygons that name none;
- ``holes``: groups of ASAP whose polygons are cut out of all others, for example ``["_2", "Exclusion"]``;
- ``origin``: what the point (0, 0) is: ``corner`` (default) of the first pixel, as both programs have it, or its ``centre``;
- ``window``: see medglip/curate/images.py.

Every polygon is one region, and a pixel is inside where its centre is. A Region of Aperio with NegativeROA is cut out of
the polygons of its Annotation. Rectangles and ellipses are read, splines as polygons of their points. Dots, arrows and
rulers enclose nothing: they are refused, and leave their label in doubt. An image without an XML is unlabelled.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from medglip.curate.cases import Case, Refused, joined
from medglip.curate.images import read_image
from medglip.curate.marks import Marks
from medglip.curate.regions import region_of_box
from medglip.curate.source import Part
from medglip.curate.tables import ABOUT_OPTIONS, described
from medglip.errors import InputError, SourceError
from medglip.imaging.contours import filled
from medglip.records import Picture, Region, Reject, rle_of_crop
from medglip.records.masks import box_of_mask

ROLES = ("image", "polygons", "about")
OPTIONS = ("label_from", "label", "holes", "origin", "window", *ABOUT_OPTIONS)

_ORIGINS = {"corner": 0.5, "centre": 0.0}
_PLACES = ("annotation", "attribute", "value", "text", "group")
# Type of an Aperio Region; 3 is an arrow, 4 and 5 are rulers.
_APERIO_SHAPES = {"0": "polygon", "1": "box", "2": "ellipse"}
_ASAP_SHAPES = {"polygon": "polygon", "rectangle": "box", "spline": "polygon"}
_ELLIPSE_POINTS = 180


@dataclass(frozen=True, eq=False)
class Polygon:
    """One drawing of a file.

    Attributes:
        where: File and number, for messages.
        raw: Its raw label.
        shape: ``polygon``, ``box`` or ``ellipse`` (both by corners of their box); None for what encloses nothing.
        points: Coordinates as they are written.
        hole: Whether it is cut out of others.
        layer: Number of the Annotation whose polygons it is cut out of.
    """

    where: str
    raw: str
    shape: str | None
    points: list[tuple[str, str]]
    hole: bool = False
    layer: int = 0


def cases(part: Part, folder: Path) -> Iterator[Case | Reject]:
    """One case an image, with its XML.

    Raises:
        SourceError: an option has a value that is not allowed.
    """
    for name, allowed in (("label_from", _PLACES), ("origin", tuple(_ORIGINS))):
        if (value := part.option(name, allowed[0])) not in allowed:
            raise SourceError(f"datasets/{part.source}.toml: option {name} is {value!r}; allowed: {', '.join(allowed)}.")
    return described(part, joined(part, folder))


def convert(part: Part, case: Case) -> Iterator[Picture | Reject]:
    """One picture with a region for each polygon."""
    pixels, shot = read_image(part, case.path(case.one("image")))
    size_hw = pixels.shape[0], pixels.shape[1]
    marks = Marks(part, case, labelled=bool(case.files.get("polygons")))
    if marks.labelled:
        file = case.one("polygons")
        polygons = read_polygons(part, case.path(file), file)
        holes = list(_holes(marks, polygons))
        for polygon in polygons:
            if not polygon.hole:
                _take(marks, polygon, [corners for layer, corners in holes if layer == polygon.layer], size_hw)
    yield from marks.rejects
    yield marks.picture(pixels, shot)


def read_polygons(part: Part, path: Path, file: str) -> list[Polygon]:
    """The drawings of an XML file, in its order.

    Args:
        part: Where it is from; its options say where labels stand.
        path: The file.
        file: Its name in messages.

    Raises:
        InputError: it is broken, or of another kind.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise InputError(f"Annotation {file!r} is broken or cut off: {error}.") from error
    kinds = {"Annotations": _aperio, "ASAP_Annotations": _asap}
    if root.tag not in kinds:
        raise InputError(f"Annotation {file!r} begins with <{root.tag}>; allowed: {', '.join(f'<{tag}>' for tag in kinds)}.")
    return list(kinds[root.tag](part, root, file))


def _aperio(part: Part, root: ElementTree.Element, file: str) -> Iterator[Polygon]:
    number = 0
    for layer, annotation in enumerate(root.iter("Annotation")):
        attribute = annotation.find("Attributes/Attribute")
        words = {"annotation": annotation.get("Name"), "attribute": None, "value": None}
        if attribute is not None:
            words |= {"attribute": attribute.get("Name"), "value": attribute.get("Value")}
        for region in annotation.iterfind("Regions/Region"):
            number += 1
            points = [(vertex.get("X", ""), vertex.get("Y", "")) for vertex in region.iterfind("Vertices/Vertex")]
            raw = _raw(part, words | {"text": region.get("Text")})
            shape = _APERIO_SHAPES.get(region.get("Type", "0"))
            yield Polygon(f"{file} region {number}", raw, shape, points, region.get("NegativeROA", "0") == "1", layer)


def _asap(part: Part, root: ElementTree.Element, file: str) -> Iterator[Polygon]:
    holes = part.option("holes", ())
    for number, annotation in enumerate(root.iterfind("Annotations/Annotation"), 1):
        found = sorted(annotation.iterfind("Coordinates/Coordinate"), key=_order)
        points = [(point.get("X", ""), point.get("Y", "")) for point in found]
        group = annotation.get("PartOfGroup")
        raw = _raw(part, {"group": group, "annotation": annotation.get("Name")})
        shape = _ASAP_SHAPES.get(annotation.get("Type", "").lower())
        yield Polygon(f"{file} annotation {number}", raw, shape, points, group in holes)


def _order(point: ElementTree.Element) -> int:
    """Which of its outline's points it is; 0, which keeps the order of the file, where that is no number."""
    text = point.get("Order") or "0"
    return int(text) if text.isdecimal() and len(text) < 10 else 0


def _raw(part: Part, words: dict[str, str | None]) -> str:
    place = part.option("label_from")
    return ((words.get(place) or "").strip() if place else "") or part.option("label", "")


def _holes(marks: Marks, polygons: list[Polygon]) -> Iterator[tuple[int, np.ndarray]]:
    """Layer and corners of each hole; one that cannot be read leaves every label in doubt."""
    for polygon in polygons:
        if polygon.hole:
            with marks.item(polygon.where):
                yield polygon.layer, _corners(marks.part, polygon)


def _take(marks: Marks, polygon: Polygon, holes: list[np.ndarray], size_hw: tuple[int, int]) -> None:
    with marks.item(polygon.where):
        named = marks.part.named(polygon.raw, polygon.where)
        if named is None:
            return
        with marks.item(polygon.where, named):
            crop, (x0, y0) = _drawn(polygon, _corners(marks.part, polygon), holes, size_hw)
            height, width = crop.shape
            box = float(x0), float(y0), float(x0 + width), float(y0 + height)
            region: Region = region_of_box(marks.part, named, box, size_hw, rle_of_crop(crop, (x0, y0), size_hw))
            marks.regions.append(region)


def _corners(part: Part, polygon: Polygon) -> np.ndarray:
    """(N, 2) corners, (column, row), pixel centres being whole numbers.

    Raises:
        Refused: it encloses nothing, or a coordinate is no number.
    """
    if polygon.shape is None:
        raise Refused("no_area", f"{polygon.where}: it is a dot, an arrow or a ruler, which encloses nothing.")
    try:
        corners = np.array(polygon.points, dtype=float).reshape(-1, 2)
    except ValueError as error:
        raise Refused("bad_polygon", f"{polygon.where}: a coordinate is no number: {error}.") from error
    if not np.isfinite(corners).all():
        raise Refused("bad_polygon", f"{polygon.where}: a coordinate is not finite.")
    least = 3 if polygon.shape == "polygon" else 2
    if len(np.unique(corners, axis=0)) < least:
        raise Refused("no_area", f"{polygon.where}: it has {len(corners)} points, not {least} different ones or more.")
    corners = corners - _ORIGINS[part.option("origin", "corner")]
    (x0, y0), (x1, y1) = corners.min(axis=0), corners.max(axis=0)
    if polygon.shape == "box" and len(corners) == 2:
        return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    if polygon.shape == "ellipse":
        turn = np.linspace(0.0, 2.0 * np.pi, _ELLIPSE_POINTS, endpoint=False)
        middle, half = np.array([x0 + x1, y0 + y1]) / 2, np.array([x1 - x0, y1 - y0]) / 2
        return middle + half * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    return corners


def _drawn(
    polygon: Polygon, corners: np.ndarray, holes: list[np.ndarray], size_hw: tuple[int, int]
) -> tuple[np.ndarray, tuple[int, int]]:
    """The tight mask of a polygon less its holes, and where its first pixel is: (column, row).

    Raises:
        Refused: no pixel of the image is in it.
    """
    height, width = size_hw
    x0, y0 = (int(np.clip(np.floor(edge), 0, size)) for edge, size in zip(corners.min(axis=0), (width, height), strict=True))
    x1, y1 = (int(np.clip(np.ceil(edge) + 1, 0, size)) for edge, size in zip(corners.max(axis=0), (width, height), strict=True))
    if x0 >= x1 or y0 >= y1:
        raise Refused("outside_image", f"{polygon.where}: it lies outside its image of {width} x {height} pixels.")
    mask = filled(corners - (x0, y0), (y1 - y0, x1 - x0))
    for hole in holes:
        if (hole.max(axis=0) >= (x0, y0)).all() and (hole.min(axis=0) <= (x1, y1)).all():
            mask &= ~filled(hole - (x0, y0), mask.shape)
    box = box_of_mask(mask)
    if box is None:
        raise Refused("no_pixel", f"{polygon.where}: it encloses no pixel centre of the image, or holes cover all of it.")
    left, top, right, bottom = (int(edge) for edge in box)
    return mask[top:bottom, left:right], (x0 + left, y0 + top)
