"""Images with a table of boxes (CSV): one row a box, or one row an image that says it has none.

Roles: ``image`` (raster or DICOM), ``table`` (CSV, plain or gzipped; several are read one after the other), ``about``
(see medglip/curate/tables.py).

Options:
- ``columns``: names of columns: ``image`` (a file's name, with or without folder and ending), ``box`` (four), ``label``
  (left out where every box shows the same: then ``label`` is the raw label), ``target`` (left out where the label says
  that there is no box), ``reader`` (who looked: see ``readers``), ``side`` (the patient's: R, L, right, left);
- ``label``: raw label of every box, for tables without a label column;
- ``label_lists``: true where a cell of the label column is a list, ``['Mass', 'Skin Retraction']``: a region each;
- ``attributes``: name of an attribute of the region -> the column that holds it, for example ``{ birads = "grade" }``;
- ``readers``: ``consensus`` (default) or ``each``, see medglip/curate/readers.py; with a reader column only;
- ``format``: ``xywh`` (default: left, top, width, height), ``xyxy`` (left, top, right, bottom) or ``cxcywh`` (centre);
- ``frame``: ``[width, height]`` in which the boxes are given, where it is not the image's own; ``[1, 1]``: fractions;
- ``negative``: words in the label or target column that mean "nothing here", for example ``["No finding", "0"]``;
- ``unlisted``: an image that the table does not name is ``unlabelled`` (default) or ``negative``;
- ``missing_images``: ``reject`` (default) or ``ignore`` rows whose image is not there;
- ``swapped_corners``: ``fix`` puts the corners of an xyxy box in order; default refuse;
- ``window``: see medglip/curate/images.py.

Without a reader column, boxes of one label that overlap by more than 0.95 (intersection over union) are one, marked by
several readers. With one, a reader looked at every image that one of his rows names, also where he found nothing.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from medglip.curate.boxes import add_once, box_of_numbers
from medglip.curate.cases import Case, Refused, joined
from medglip.curate.images import read_image
from medglip.curate.marks import Marks
from medglip.curate.readers import Mark, reader_mode, reader_name, regions_of_readers
from medglip.curate.regions import region_of_box
from medglip.curate.source import Named, Part
from medglip.curate.tables import ABOUT_OPTIONS, Table, described, needed, read_table, stems
from medglip.errors import SourceError
from medglip.records import Laterality, Picture, Reject, label_tree

ROLES = ("image", "table", "about")
OPTIONS = ("columns", "label", "label_lists", "attributes", "readers", "format", "frame", "negative", "unlisted",
           "missing_images", "swapped_corners", "window", *ABOUT_OPTIONS)  # fmt: skip

_COLUMNS = ("image", "label", "target", "reader", "side")
_SIDES: dict[str, Laterality] = {"r": "right", "right": "right", "l": "left", "left": "left"}
# A list of words in quotes, as Python writes it; nothing of it is evaluated.
_WORD = r"""\s*(?:'[^']*'|"[^"]*")\s*"""
_LIST = re.compile(rf"\[(?:{_WORD}(?:,{_WORD})*,?\s*)?\]")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table, and where it stands.

    Attributes:
        where: File and row, for messages.
        cells: By the names that the option ``columns`` gives its columns; ``""`` where there is no such column.
        box: Four cells.
        attributes: Cells of the option ``attributes``.
    """

    where: str
    cells: dict[str, str]
    box: list[str]
    attributes: dict[str, str] = field(default_factory=dict)


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
        at = _positions(part, table)[0]
        if part.option("missing_images", "reject") == "reject":
            for name in sorted({row[at["image"]] for row in table.rows}):
                if not here.intersection(stems(name)):
                    sentence = f"Table {file!r} names the image {name!r}, which is not there; add it, or take its rows out."
                    yield Reject(part.source, file, "missing_file", sentence, name)
    yield from described(part, found)


def convert(part: Part, case: Case) -> Iterator[Picture | Reject]:
    """One picture with its boxes."""
    pixels, shot = read_image(part, case.path(case.one("image")))
    size_hw = pixels.shape[0], pixels.shape[1]
    marks = Marks(part, case, labelled=part.option("unlisted") == "negative")
    reader_mode(part)
    found: list[Mark] = []
    looked: set[str] = set()
    for row in _rows_of(part, case):
        marks.labelled = True
        looked.add(row.cells["reader"])
        found += _take(marks, row, size_hw)
    if "reader" in _columns(part):
        marks.regions = regions_of_readers(part, found, len(looked), size_hw)
    else:
        for mark in found:
            add_once(marks.regions, mark.region)
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


def _positions(part: Part, table: Table) -> tuple[dict[str, int], list[int], dict[str, int]]:
    """Positions of the columns that the source names: single ones, the four of the box, those of attributes."""
    columns, attributes = _columns(part), part.option("attributes", {})
    single = {name: table.at(columns[name]) for name in _COLUMNS if columns.get(name) is not None}
    return single, [table.at(name) for name in columns["box"]], {name: table.at(attributes[name]) for name in attributes}


@lru_cache(maxsize=8)
def _by_image(table: Table, at: int) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for number, row in enumerate(table.rows):
        rows.setdefault(stems(row[at])[0], []).append(number)
    return rows


def _rows_of(part: Part, case: Case) -> Iterator[Row]:
    """The rows that name an image, by its file's name with or without ending."""
    for file in case.files["table"]:
        table = read_table(case.folder, file)
        at, box, extra = _positions(part, table)
        names = _by_image(table, at["image"])
        for number in sorted({number for name in stems(case.one("image")) for number in names.get(name, ())}):
            row = table.rows[number]
            cells = {name: row[at[name]] if name in at else "" for name in _COLUMNS}
            attributes = {name: row[column] for name, column in extra.items() if row[column]}
            yield Row(f"{file} row {number + 1}", cells, [row[column] for column in box], attributes)


def _take(marks: Marks, row: Row, size_hw: tuple[int, int]) -> Iterator[Mark]:
    """What one row marks: a region each of its labels."""
    part = marks.part
    negative = {str(word).casefold() for word in part.option("negative", ())}
    if row.cells["target"].casefold() in negative:
        return
    with marks.item(row.where):
        for raw in _labels(part, row):
            if raw.casefold() in negative:
                continue
            with marks.item(row.where):
                named = _sided(part.named(raw or part.option("label", ""), row.where), row)
                if named is None:
                    continue
                with marks.item(row.where, named):
                    region = region_of_box(part, named, box_of_numbers(part, row.where, row.box, size_hw), size_hw)
                    region = replace(region, attributes={name: _grade(text) for name, text in row.attributes.items()})
                    yield Mark(reader_name(part, row.cells["reader"]), named, region)


def _labels(part: Part, row: Row) -> list[str]:
    """The raw labels of a row."""
    cell = row.cells["label"]
    if not part.option("label_lists"):
        return [cell]
    if not _LIST.fullmatch(cell):
        raise Refused("bad_list", f"{row.where}: the cell {cell!r} is no list of words in quotes, such as ['Mass'].")
    return [word[1:-1] for word in re.findall(_WORD.replace(r"\s*", ""), cell)]


def _sided(named: Named | None, row: Row) -> Named | None:
    """A label with the side that the row says, where it has sides and says none itself."""
    side = row.cells["side"].casefold()
    if named is None or not side or named.laterality or not label_tree()[named.label].laterality:
        return named
    if side not in _SIDES:
        raise Refused("bad_side", f"{row.where}: the side is {row.cells['side']!r}; allowed: R, L, right, left.")
    return replace(named, laterality=_SIDES[side])


def _grade(text: str) -> str:
    """A cell as an attribute; the word BI-RADS before a grade is the attribute's name, not its value."""
    return re.sub(r"bi-?rads[\s:]*", "", text, flags=re.IGNORECASE) or text
