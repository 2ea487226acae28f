"""Images with Pascal VOC files: one XML an image, boxes with 1-based corners that both lie inside.

Roles: ``image`` (raster or DICOM), ``annotation`` (XML), ``about`` (see medglip/curate/tables.py).

Options:
- ``first_pixel``: number of the first row and column in the XML; default 1;
- ``window``: see medglip/curate/images.py.

Raw labels are the names of the objects; ``truncated`` and ``difficult`` become flags of the regions.
"""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from medglip.curate.cases import Case, Refused, joined
from medglip.curate.images import read_image
from medglip.curate.marks import Marks
from medglip.curate.regions import clipped_box, region_of_box
from medglip.curate.source import Part
from medglip.curate.tables import ABOUT_OPTIONS, described
from medglip.errors import InputError
from medglip.records import Box, Picture, Reject

ROLES = ("image", "annotation", "about")
OPTIONS = ("first_pixel", "window", *ABOUT_OPTIONS)


def cases(part: Part, folder: Path) -> Iterator[Case | Reject]:
    """One case an image, with its XML."""
    return described(part, joined(part, folder))


def convert(part: Part, case: Case) -> Iterator[Picture | Reject]:
    """One picture with its boxes; without an XML it is unlabelled."""
    pixels, shot = read_image(part, case.path(case.one("image")))
    size_hw = pixels.shape[:2]
    marks = Marks(part, case, labelled=bool(case.files.get("annotation")))
    if marks.labelled:
        file = case.one("annotation")
        root = _parsed(case.path(file), file)
        _check_size(root, size_hw, file)
        for number, item in enumerate(root.iter("object"), 1):
            _take(marks, f"{file} object {number}", item, size_hw)
    yield from marks.rejects
    yield marks.picture(pixels, shot)


def _parsed(path: Path, file: str) -> ElementTree.Element:
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise InputError(f"Annotation {file!r} is broken or cut off: {error}.") from error
    if root.tag != "annotation":
        raise InputError(f"Annotation {file!r} begins with <{root.tag}>; a Pascal VOC file begins with <annotation>.")
    return root


def _check_size(root: ElementTree.Element, size_hw: tuple[int, int], file: str) -> None:
    width, height = (_number(root, f"size/{name}", file, 0) for name in ("width", "height"))
    if width and height and (height, width) != size_hw:  # some tools write 0 for "not known"
        raise Refused(
            "size_mismatch",
            f"Annotation {file!r} is for {width:g} x {height:g} pixels, its image has {size_hw[1]} x {size_hw[0]}.",
        )


def _take(marks: Marks, where: str, item: ElementTree.Element, size_hw: tuple[int, int]) -> None:
    """Take in one object."""
    part = marks.part
    with marks.item(where):
        named = part.named((item.findtext("name") or "").strip(), where)
        if named is None:
            return
        flags = tuple(flag for flag in ("truncated", "difficult") if _number(item, flag, where, 0))
        with marks.item(where, named):
            box = _box(item, where, size_hw, part.option("first_pixel", 1))
            marks.regions.append(region_of_box(part, named, box, size_hw, flags=flags))


def _box(item: ElementTree.Element, where: str, size_hw: tuple[int, int], first: int) -> Box:
    """Corners counted from ``first``, both inside, as a half-open box."""
    x0, y0, x1, y1 = (_number(item, f"bndbox/{name}", where) for name in ("xmin", "ymin", "xmax", "ymax"))
    try:
        return clipped_box((x0 - first, y0 - first, x1 - first + 1, y1 - first + 1), size_hw)
    except Refused as error:
        raise Refused(error.reason, f"{where}: {error}") from error


def _number(item: ElementTree.Element, path: str, where: str, missing: float | None = None) -> float:
    text = item.findtext(path)
    if text is None and missing is not None:
        return missing
    try:
        return float(text or "")
    except ValueError as error:
        raise Refused("bad_box", f"{where}: {path} is {text!r}; a number is needed.") from error
