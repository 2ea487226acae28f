"""Single slices of CT series as 16-bit images, with a table of boxes (CSV): one row a box, only the slices that it names.

Roles: ``image`` (16-bit raster, Hounsfield units plus an offset), ``table`` (CSV).

Options:
- ``columns``: names of columns: ``image`` (name of the image), ``box`` (one cell of four numbers: left, top, right, bottom),
  ``label`` (raw label); and, where the table has them, ``spacing`` (one cell that begins with the pitch of columns and
  rows in mm), ``window`` (one cell: low, high) and ``noisy`` (``1``: the mark is doubtful, and its region is flagged);
- ``named``: template of the image's name in the table, from what the image's pattern remembers, for example
  ``"{series}_{slice}.png"``;
- ``offset``: what was added to the Hounsfield units; default 32768;
- ``missing_images``: ``reject`` (default) or ``ignore`` rows whose image is not there.

Every column is a name for the templates of the source's TOML, in lower case, with ``_`` for all but letters and digits
(``patient = "{patient_index}"``); of several rows of an image the first counts. Images that no row names are neighbours of
those that are marked: they are neither converted nor negatives.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from medglip.curate.cases import Case, Refused, Shot, joined
from medglip.curate.marks import Marks
from medglip.curate.regions import clipped_box, region_of_box
from medglip.curate.source import Part
from medglip.curate.tables import Table, filled, needed, read_table
from medglip.errors import InputError, SourceError
from medglip.imaging.intensity import encode, storage_of
from medglip.imaging.raster import read_raster
from medglip.records import Picture, Reject

ROLES = ("image", "table")
OPTIONS = ("columns", "named", "offset", "missing_images")

_NEEDED = ("image", "box", "label")
_WITHOUT_ENDING = ".png"


def cases(part: Part, folder: Path) -> Iterator[Case | Reject]:
    """One case an image that the table names; rows whose image is not there are rejected, once an image.

    Raises:
        InputError: the table is not there, or broken.
        Refused: it lacks a column.
        SourceError: the options lack one.
    """
    found = list(joined(part, folder))
    needed(part, "table", found)
    columns = _columns(part)
    here: set[str] = set()
    tables: dict[str, Table] = {}
    for case in found:
        if isinstance(case, Reject):
            yield case
            continue
        file = case.one("table")
        table = tables[file] = tables.get(file) or read_table(folder, file)
        name = _name(filled(part.option("named", "{case}"), case))
        if rows := _rows(table, table.at(columns["image"])).get(name):
            here.add(name)
            cells = {key: cell for key, cell in zip(table.names, table.rows[rows[0]], strict=True) if key}
            yield replace(case, fields={**cells, **case.fields})
    if part.option("missing_images", "reject") == "reject":
        for file, table in tables.items():
            for name in sorted(_rows(table, table.at(columns["image"])).keys() - here):
                sentence = f"Table {file!r} names the image {name!r}, which is not there; add it, or take its rows out."
                yield Reject(part.source, file, "missing_file", sentence, name)


def convert(part: Part, case: Case) -> Iterator[Picture | Reject]:
    """One picture with its boxes."""
    file, columns = case.one("table"), _columns(part)
    table = read_table(case.folder, file)
    name = _name(filled(part.option("named", "{case}"), case))
    numbers = _rows(table, table.at(columns["image"]))[name]
    first = table.rows[numbers[0]]
    pixels, shot = _slice(part, case, _cell(table, first, columns, "window"), f"{file} row {numbers[0] + 1}")
    if spacing := _cell(table, first, columns, "spacing"):
        across, down, *_ = _numbers(spacing, f"{file} row {numbers[0] + 1}")
        shot = replace(shot, spacing_mm=(down, across), spacing_source="source")
    marks = Marks(part, case)
    for number in numbers:
        where, row = f"{file} row {number + 1}", table.rows[number]
        with marks.item(where):
            named = part.named(row[table.at(columns["label"])], where)
            if named is None:
                continue
            with marks.item(where, named):
                corners = _numbers(row[table.at(columns["box"])], where)
                if len(corners) != 4:
                    raise Refused("bad_box", f"{where}: the box {row[table.at(columns['box'])]!r} is not four numbers.")
                box = clipped_box(corners, pixels.shape[:2])
                noisy = _cell(table, row, columns, "noisy") == "1"
                marks.regions.append(region_of_box(part, named, box, pixels.shape, None, ("uncertain",) * noisy))
    if not marks.regions:
        raise Refused(marks.rejects[0].reason if marks.rejects else "unlabelled", f"No row of {name!r} can be used.")
    yield from marks.rejects
    yield marks.picture(pixels, shot)


def _columns(part: Part) -> dict[str, str]:
    columns = part.option("columns", {})
    if missing := [name for name in _NEEDED if name not in columns]:
        raise SourceError(
            f"datasets/{part.source}.toml: the option columns of {part.name!r} lacks {missing[0]!r}; needed:"
            f" {', '.join(_NEEDED)}."
        )
    return dict(columns)


def _slice(part: Part, case: Case, window: str, where: str) -> tuple[np.ndarray, Shot]:
    """Pixels as they will be stored, and what they mean."""
    file = case.one("image")
    values = read_raster(case.path(file))
    if values.dtype != np.uint16 or values.ndim != 2:
        raise InputError(f"{file!r} holds {values.dtype} of shape {values.shape}; allowed: 16-bit greys.")
    hounsfield = values.astype(np.int32) - int(part.option("offset", 32768))
    if hounsfield.min() == hounsfield.max():
        raise Refused("constant_image", f"All pixels of {file!r} are {values.flat[0]}; there is nothing to see.")
    shown = _numbers(window, where) if window else None
    intensity = storage_of(hounsfield, "HU", window=(shown[0], shown[1]) if shown else None)
    return encode(hounsfield, intensity), Shot(file=file, intensity=intensity, detail={"plane": "axial"})


def _cell(table: Table, row: tuple[str, ...], columns: dict[str, str], name: str) -> str:
    return row[table.at(columns[name])] if name in columns else ""


def _numbers(cell: str, where: str) -> list[float]:
    try:
        found = [float(word) for word in cell.replace(";", ",").split(",")]
    except ValueError:
        found = []
    if len(found) < 2:
        raise Refused("bad_cell", f"{where}: the cell {cell!r} is not a list of numbers.")
    return found


def _name(text: str) -> str:
    return text.strip().casefold().removesuffix(_WITHOUT_ENDING)


@lru_cache(maxsize=4)
def _rows(table: Table, at: int) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for number, row in enumerate(table.rows):
        rows.setdefault(_name(row[at]), []).append(number)
    return rows
