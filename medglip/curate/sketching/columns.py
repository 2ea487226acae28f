"""Which column of a table is what: image, label, box, code, text. Looks at headers and cells; reads no image but its size."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from medglip.curate.layout import without_ending
from medglip.curate.tables import Table

_ROWS = 500  # that are looked at
_NAMING_ROWS = 100_000  # that are looked at for the names of images, for a folder may hold a few of many
# Headers without their separators, and the format of the box: left, top, width, height unless said.
_BOXES = {
    ("x", "y", "width", "height"): "xywh", ("x", "y", "w", "h"): "xywh", ("left", "top", "width", "height"): "xywh",
    ("xmin", "ymin", "width", "height"): "xywh", ("x0", "y0", "width", "height"): "xywh",
    ("xmin", "ymin", "xmax", "ymax"): "xyxy", ("minx", "miny", "maxx", "maxy"): "xyxy", ("x1", "y1", "x2", "y2"): "xyxy",
    ("x0", "y0", "x1", "y1"): "xyxy", ("left", "top", "right", "bottom"): "xyxy", ("xtl", "ytl", "xbr", "ybr"): "xyxy",
    ("xcenter", "ycenter", "width", "height"): "cxcywh", ("xcentre", "ycentre", "width", "height"): "cxcywh",
    ("centerx", "centery", "width", "height"): "cxcywh", ("cx", "cy", "w", "h"): "cxcywh", ("xc", "yc", "w", "h"): "cxcywh",
}  # fmt: skip
_LABELS = ("classname", "labelname", "categoryname", "findinglabel", "label", "class", "category", "finding", "findings",
           "findingcategories", "findingname", "lesiontype", "labels", "syms", "diagnosis", "type", "name")  # fmt: skip
_READERS = ("readerid", "reader", "radid", "annotator", "annotatorid", "radiologist")
_TARGETS = ("target",)
TEXTS = {"report": ("report", "findings", "impression", "reporttext", "radiologyreport", "text"), "caption": ("caption",)}
_RUNS = re.compile(r"\d+(\s+\d+)+")
_FOUR = re.compile(r"[\[(]?\s*-?[\d.]+(\s*[,; ]\s*-?[\d.]+){3}\s*[\])]?")


def plain(word: str) -> str:
    """A header in lower case without separators, units and the word for box."""
    found = re.sub(r"[^a-z0-9]", "", word.casefold())
    return re.sub(r"^(boundingbox|bbox|box|rect)(?=.)", "", found)


def cells_of(table: Table, column: str) -> list[str]:
    """Some cells of a column that are not empty."""
    at = table.columns.index(column)
    return [row[at] for row in table.rows[:_ROWS] if row[at]]


def keys_of(paths: Iterable[str]) -> set[str]:
    """What a cell may hold to name one of these files: its name, with or without folders and ending."""
    found: set[str] = set()
    for path in paths:
        parts = path.casefold().split("/")
        found.update("/".join(parts[at:]) for at in range(len(parts)))
        found.update(without_ending("/".join(parts[at:])) for at in range(len(parts)))
    return found


def naming(table: Table, names: set[str]) -> str | None:
    """The column whose cells name most of some things; None where no column names any."""

    def hits(column: str) -> float:
        at = table.columns.index(column)
        cells = [row[at] for row in table.rows[:_NAMING_ROWS] if row[at]]
        known = sum(1 for cell in cells if cell.casefold() in names or without_ending(cell.casefold()) in names)
        return known / max(1, len(cells))

    columns = [column for column in table.columns if column]
    best = max(columns, key=hits, default=None)
    return best if best is not None and hits(best) > 0 else None


def first_of(table: Table, words: Sequence[str]) -> str | None:
    """The column with the first of some headers."""
    heads = {plain(column): column for column in reversed(table.columns)} | {
        re.sub(r"[^a-z0-9]", "", column.casefold()): column for column in reversed(table.columns)
    }
    return next((heads[word] for word in words if word in heads), None)


def label_column(table: Table, taken: Iterable[str | None]) -> str | None:
    """The column of labels, if there is one that is not taken."""
    rest = Table(table.file, tuple("" if column in set(taken) else column for column in table.columns), table.rows)
    return first_of(rest, _LABELS)


def reader_column(table: Table) -> str | None:
    """The column that says who looked."""
    return first_of(table, _READERS)


def target_column(table: Table) -> str | None:
    """The column that says with 0 and 1 whether there is anything."""
    found = first_of(table, _TARGETS)
    return found if found and set(cells_of(table, found)) <= {"0", "1"} else None


def box_columns(table: Table) -> tuple[list[str], str] | None:
    """The four columns of a box, and their format."""
    heads = {plain(column): column for column in reversed(table.columns)}
    for words, order in _BOXES.items():
        if all(word in heads for word in words):
            return [heads[word] for word in words], order
    return None


def box_in_a_cell(table: Table) -> str | None:
    """The column whose cells are four numbers each."""
    for column in table.columns:
        cells = cells_of(table, column) if column else []
        if cells and all(_FOUR.fullmatch(cell) for cell in cells) and re.search("box|coord|rect", column, re.IGNORECASE):
            return column
    return None


def code_column(table: Table) -> str | None:
    """The column of run-length codes."""
    for column in table.columns:
        codes = [cell for cell in (cells_of(table, column) if column else []) if cell != "-1"]
        even = all(len(cell.split()) % 2 == 0 and _RUNS.fullmatch(cell) for cell in codes)
        if codes and even and (re.search("pixel|rle|encod|mask|segm|code", column, re.IGNORECASE) or len(codes[0].split()) > 4):
            return column
    return None


def relative_codes(table: Table, column: str) -> bool:
    """Whether starts are counted from the run before: read as counted from the first pixel, runs would overlap."""
    for cell in cells_of(table, column):
        numbers = [int(word) for word in cell.split()] if cell != "-1" else []
        starts, lengths = numbers[::2], numbers[1::2]
        if any(after < start + length for start, length, after in zip(starts, lengths, starts[1:], strict=False)):
            return True
    return False


def numbers_of(table: Table, columns: Sequence[str]) -> list[tuple[float, ...]]:
    """Rows of four numbers; others are passed over."""
    at = [table.columns.index(column) for column in columns]
    found = []
    for row in table.rows[:_ROWS]:
        try:
            found.append(tuple(float(row[one]) for one in at))
        except ValueError:
            continue
    return [numbers for numbers in found if all(number == number for number in numbers)]


def format_of(boxes: Sequence[Sequence[float]], size: tuple[int, int] | None) -> str | None:
    """``xywh`` or ``xyxy``, as far as the numbers can tell; None where both could be meant.

    Args:
        boxes: Four numbers each.
        size: Width and height of the largest image; None where it is not known.
    """
    if any(box[2] < box[0] or box[3] < box[1] for box in boxes):
        return "xywh"
    if size and any(box[0] + box[2] > size[0] or box[1] + box[3] > size[1] for box in boxes):
        return "xyxy"
    return None


def size_of(folder: Path, paths: Sequence[str]) -> tuple[int, int] | None:
    """Width and height of the largest of some raster images; None where one cannot be opened as such."""
    sizes = []
    for path in paths[:20]:
        try:
            with Image.open(folder / path) as image:
                sizes.append(image.size)
        except (OSError, ValueError, Image.DecompressionBombError):
            return None
    return (max(w for w, _ in sizes), max(h for _, h in sizes)) if sizes else None


def listed_in(table: Table, column: str) -> list[Any]:
    """Cells of a JSON table that are lists."""
    found = []
    for cell in cells_of(table, column):
        try:
            value = json.loads(cell)
        except ValueError:
            return []
        if not isinstance(value, list):
            return []
        found.append(value)
    return found


def column_where(table: Table, test: Callable[[Any], bool]) -> str | None:
    """The first column of lists, some with items, whose every item passes a test."""
    for column in table.columns:
        lists = listed_in(table, column) if column else []
        items = [item for one in lists for item in one]
        if items and all(test(item) for item in items):
            return column
    return None
