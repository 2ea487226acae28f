"""Images with a table of boxes (CSV): one row a box, or one row an image that says it has none.

Roles: ``image`` (raster or DICOM), ``table`` (CSV, plain or gzipped; several are read one after the other), ``about``
(see medglip/curate/tables.py).

Options:
- ``columns``: names of columns: ``image`` (a file's name, with or without folder and ending), ``box`` (four), ``label``
  (left out where every box shows the same: then ``label`` is the raw label), ``target`` (left out where the label says
  that there is no box);
- ``label``: raw label of every box, for tables without a label column;
- ``format``: ``xywh`` (default: left, top, width, height), ``xyxy`` (left, top, right, bottom) or ``cxcywh`` (centre);
- ``frame``: ``[width, height]`` in which the boxes are given, where it is not the image's own; ``[1, 1]``: fractions;
- ``negative``: words in the label or target column that mean "nothing here", for example ``["No finding", "0"]``;
- ``unlisted``: an image that the table does not name is ``unlabelled`` (default) or ``negative``;
- ``missing_images``: ``reject`` (default) or ``ignore`` rows whose image is not there;
- ``swapped_corners``: ``fix`` puts the corners of an xyxy box in order; default refuse;
- ``window``: see medglip/curate/images.py.

Boxes of one label that overlap by more than 0.95 (intersection over union) are one, marked by several readers.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from medglip.curate.cases import Case, Refused, clipped_box, joined, region_of_box
from medglip.curate.images import read_image
from medglip.curate.marks import Marks
from medglip.curate.source import Part
from medglip.curate.tables import ABOUT_OPTIONS, Table, described, needed, read_table, stems
from medglip.errors import SourceError
from medglip.records import Box, Picture, Region, Reject

ROLES = ("image", "table", "about")
OPTIONS = ("columns", "label", "format", "frame", "negative", "unlisted", "missing_images", "swapped_corners", "window",
           *ABOUT_OPTIONS)  # fmt: skip

_FORMATS = ("xywh", "xyxy", "cxcywh")
_SAME_BOX = 0.95


def cases(part: Part, folder: Path) -> Iterator[Case | Reject]:
    """One case an image that is there; rows that name an image that is not there are rejected, once an image.

    Raises:
        InputError: no table is there, or one is broken.
        Refused: a table lacks a column.
    """
    found = list(joined(part, folder))
    needed(part, "table", found)
    tables = sorted({file for case in found if isinstance(case, Case) for file in case.files["table"]})
    here = {name for case in found if isinstance(case, Case) for name in stems(case.one("image"))}
    for file in tables:
        table = read_table(folder, file)
        _positions(part, table)
        if part.option("missing_images", "reject") == "reject":
            image = table.at(_columns(part)["image"])
            for name in sorted({row[image] for row in table.rows}):
                if not here.intersection(stems(name)):
                    sentence = f"Table {file!r} names the image {name!r}, which is not there; add it, or take its rows out."
                    yield Reject(part.source, file, "missing_file", sentence, name)
    yield from described(part, found)


def convert(part: Part, case: Case) -> Iterator[Picture | Reject]:
    """One picture with its boxes."""
    pixels, shot = read_image(part, case.path(case.one("image")))
    marks = Marks(part, case, labelled=part.option("unlisted") == "negative")
    for file in case.files["table"]:
        table = read_table(case.folder, file)
        positions = _positions(part, table)
        for number in _rows_of(table, positions[0], case.one("image")):
            marks.labelled = True
            row = table.rows[number]
            _take(marks, f"{file} row {number + 1}", [row[at] if at >= 0 else "" for at in positions], pixels.shape[:2])
    yield from marks.rejects
    yield marks.picture(pixels, shot)


def _columns(part: Part) -> dict:
    columns = part.option("columns", {})
    if "image" not in columns or len(columns.get("box", ())) != 4:
        raise SourceError(
            f"datasets/{part.source}.toml: option columns is {columns!r}; it must name image (one) and box (four)."
        )
    if "label" not in columns and not part.option("label"):
        raise SourceError(f"datasets/{part.source}.toml: neither columns.label nor the option label is set; set one.")
    return columns


def _positions(part: Part, table: Table) -> list[int]:
    """Positions of image, label, target and the four numbers of the box; -1 where the source has no such column."""
    columns = _columns(part)
    names = [columns["image"], columns.get("label"), columns.get("target"), *columns["box"]]
    return [table.at(name) if name is not None else -1 for name in names]


@lru_cache(maxsize=8)
def _by_image(table: Table, at: int) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for number, row in enumerate(table.rows):
        rows.setdefault(stems(row[at])[0], []).append(number)
    return rows


def _rows_of(table: Table, at: int, image: str) -> list[int]:
    """Numbers of the rows that name an image, by its file's name with or without ending."""
    return sorted({number for name in stems(image) for number in _by_image(table, at).get(name, ())})


def _take(marks: Marks, where: str, cells: list[str], size_hw: tuple[int, int]) -> None:
    """Take in one row: image, label, target and four numbers."""
    part = marks.part
    negative = {str(word).casefold() for word in part.option("negative", ())}
    _, label, target, *numbers = cells
    if {label.casefold(), target.casefold()} & negative:
        return
    named = None
    with marks.item(where):
        named = part.named(label or part.option("label", ""), where)
        if named is None:
            return
        with marks.item(where, named):
            region = region_of_box(part, named, _box(part, where, numbers, size_hw), size_hw)
            _add(marks.regions, region)


def _box(part: Part, where: str, numbers: list[str], size_hw: tuple[int, int]) -> Box:
    """Four cells as a half-open box in pixels of the image."""
    form = part.option("format", "xywh")
    if form not in _FORMATS:
        raise SourceError(f"datasets/{part.source}.toml: option format is {form!r}; allowed: {', '.join(_FORMATS)}.")
    try:
        a, b, c, d = (float(number) for number in numbers)
    except ValueError as error:
        raise Refused("bad_box", f"{where}: the box {numbers!r} is not four numbers.") from error
    x0, y0, x1, y1 = {"xywh": (a, b, a + c, b + d), "xyxy": (a, b, c, d),
                      "cxcywh": (a - c / 2, b - d / 2, a + c / 2, b + d / 2)}[form]  # fmt: skip
    if part.option("swapped_corners") == "fix":
        x0, x1, y0, y1 = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
    height, width = size_hw
    frame = part.option("frame", (width, height))
    across, down = width / frame[0], height / frame[1]
    try:
        return clipped_box((x0 * across, y0 * down, x1 * across, y1 * down), size_hw)
    except Refused as error:
        raise Refused(error.reason, f"{where}: {error}") from error


def _add(regions: list[Region], region: Region) -> None:
    """Add a region, or count it as another reader's mark of one that is there."""
    for at, other in enumerate(regions):
        if other.concept == region.concept and _overlap(other.box_xyxy, region.box_xyxy) > _SAME_BOX:
            readers = int(other.attributes.get("readers", 1)) + 1
            regions[at] = replace(other, attributes={**other.attributes, "readers": readers})
            return
    regions.append(region)


def _overlap(one: Box, two: Box) -> float:
    """Intersection over union."""
    across = min(one[2], two[2]) - max(one[0], two[0])
    down = min(one[3], two[3]) - max(one[1], two[1])
    shared = max(across, 0.0) * max(down, 0.0)
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (one, two)]
    return shared / (sum(areas) - shared)
