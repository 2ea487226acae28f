"""Images with a table of run-length codes (CSV): one row a mask, or one row an image that says it has none.

Roles: ``image`` (raster or DICOM, in any folders), ``table`` (CSV, plain or gzipped; an image may stand in one table
only), ``about`` (see medglip/curate/tables.py).

Options:
- ``columns``: names of columns: ``image`` (a file's name, with or without folder and ending, or a list of such columns of
  which each table has one), ``code`` (or a list of columns with a code each, whose names are the raw labels), ``label``
  (left out where every mask shows the same: then ``label`` is the raw label), ``size`` (two: rows and columns of the grid
  of the row's codes);
- ``quality``: a column that says how good a machine's masks are, from 0 to 1, as ``{ column = "Dice RCA (Mean)", least =
  0.7 }``; it becomes the regions' ``score``. Rows below ``least`` are left out, as ``low_quality``;
- ``label``: raw label of every mask, for tables without a label column;
- ``id``: template of what the image column holds, where it is not the file's name, for example ``"{case}_{slice}"``;
- ``order``: ``columns`` (default: pixels are counted down the first column, then the next) or ``rows``;
- ``first``: number of the first pixel, 1 (default) or 0;
- ``relative``: true where a start is counted from the end of the run before it; default false: from the first pixel;
- ``size``: ``[rows, columns]`` of the grid of the codes; an image of another size is refused; default the image's own;
- ``several``: ``each`` (default): every row is one region; ``union``: rows of one label are parts of one mask;
- ``missing_images``: ``reject`` (default) or ``ignore`` rows whose image is not there;
- ``window``: see medglip/curate/images.py.

A code is pairs of whole numbers, start and length. ``-1`` or an empty cell means that the label is not there; where a
machine marked the images, only that it found nothing, which makes nothing absent. An image that no row names is
unlabelled. Rows of one label with the very same mask are one, marked by several readers.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from medglip.curate.cases import Case, Refused, joined
from medglip.curate.images import read_image
from medglip.curate.marks import Marks
from medglip.curate.regions import region_of_mask, regions_of_mask
from medglip.curate.source import Named, Part
from medglip.curate.tables import ABOUT_OPTIONS, Table, described, is_wanted, needed, read_table, rows_of
from medglip.errors import SourceError
from medglip.records import Picture, Region, Reject

ROLES = ("image", "table", "about")
OPTIONS = ("columns", "label", "quality", "id", "order", "first", "relative", "size", "several", "missing_images", "window",
           *ABOUT_OPTIONS)  # fmt: skip

_NOTHING = ("", "-1")
_CHOICES = {"order": ("columns", "rows"), "first": (0, 1), "relative": (False, True), "several": ("each", "union"),
            "missing_images": ("reject", "ignore")}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Form:
    """How a table writes its codes; see the options above.

    Attributes:
        order: Whether pixels are counted along columns or along rows.
        first: Number of the first pixel.
        relative: Whether a start is counted from the end of the run before it.
    """

    order: Literal["columns", "rows"] = "columns"
    first: Literal[0, 1] = 1
    relative: bool = False


@dataclass(frozen=True, slots=True)
class _Row:
    """One code of a table: where it stands, its label, the code, the size of its grid and how good it is, if it says so."""

    where: str
    label: str
    code: str
    size: tuple[str, ...] = ()
    quality: str = ""


def cases(part: Part, folder: Path) -> Iterator[Case | Reject]:
    """One case an image that is there; rows that name an image that is not there are rejected, once an image.

    Raises:
        InputError: no table is there, or one is broken.
        Refused: a table lacks a column.
        SourceError: an option has a value that is not allowed.
    """
    _check_options(part)
    found = list(described(part, joined(part, folder), every=True))
    needed(part, "table", found)
    tables = sorted({file for case in found if isinstance(case, Case) for file in case.files["table"]})
    for file in tables:
        table = read_table(folder, file)
        image, _ = _image_column(part, table), _codes(part, table)
        if part.option("missing_images", "reject") == "reject":
            here = [case for case in found if isinstance(case, Case)]
            named = {number for case in here for number in rows_of(part, case, table, image)}
            for name in sorted({row[image] for number, row in enumerate(table.rows) if number not in named}):
                sentence = f"Table {file!r} names the image {name!r}, which is not there; add it, or take its rows out."
                yield Reject(part.source, file, "missing_file", sentence, name)
    yield from (case for case in found if isinstance(case, Reject) or is_wanted(part, case))


def convert(part: Part, case: Case) -> Iterator[Picture | Reject]:
    """One picture with its masks.

    Raises:
        Refused: two tables name the image, or its size is not the one that the codes are for.
    """
    pixels, shot = read_image(part, case.path(case.one("image")))
    size_hw = pixels.shape[0], pixels.shape[1]
    rows = _rows_of(part, case)
    if rows and (size := part.option("size")) and tuple(size) != size_hw:
        raise _wrong_size(case, size_hw, size)
    marks = Marks(part, case, labelled=bool(rows))
    masks: dict[Named, list[np.ndarray]] = defaultdict(list)
    empty: dict[Named, str] = {}
    scores: dict[Named, float] = {}
    for row in _good_rows(marks, rows):
        with marks.item(row.where):
            _take(marks, masks, empty, row, size_hw)
            _score(marks, scores, row)
    for named, where in empty.items():
        if named in masks:
            sentence = f"{where}: the row says that there is no {named.concept!r}, another row of the image shows one."
            marks.refuse(where, "contradiction", sentence, named)
    marks.searched.update(named.concept for named in empty)
    for named, found in masks.items():
        regions = _regions(part, named, found)
        marks.regions += [replace(region, score=scores[named]) for region in regions] if named in scores else regions
    yield from marks.rejects
    yield marks.picture(pixels, shot)


def mask_of_code(code: str, size_hw: tuple[int, int], form: Form = Form()) -> np.ndarray:
    """The mask that a run-length code stands for.

    Args:
        code: Starts and lengths in turn, whole numbers with blanks between.
        size_hw: Rows and columns of the grid.
        form: How starts are counted.

    Returns:
        bool (H, W).

    Raises:
        Refused: it is no such list, its runs overlap, or one leaves the grid.

    >>> mask_of_code("2 2 5 1", (2, 3), Form(order="rows")).astype(int).tolist()
    [[0, 1, 1], [0, 1, 0]]
    >>> mask_of_code("1 2 1 1", (2, 3), Form(first=0, relative=True)).astype(int).tolist()
    [[0, 1, 1], [1, 0, 0]]
    """
    height, width = size_hw
    pixels = height * width
    if not re.fullmatch(r"[0-9]+(\s+[0-9]+)*", code.strip()):
        raise Refused("bad_rle", f"the code {_shown(code)} is not a list of whole numbers; write start and length in turn.")
    words = [word.lstrip("0") or "0" for word in code.split()]
    if len(words) % 2:
        raise Refused("bad_rle", f"the code {_shown(code)} has {len(words)} numbers; it must have two a run.")
    if max(map(len, words)) > len(str(pixels)) + 1:
        raise Refused("bad_rle", f"a number of the code {_shown(code)} is larger than the image of {pixels} pixels.")
    starts, lengths = np.array(words, dtype=np.int64).reshape(-1, 2).T
    if form.relative:
        starts = np.cumsum(starts) + np.cumsum(lengths) - lengths
    starts = starts - form.first
    ends = starts + lengths
    order = np.argsort(starts, kind="stable")
    if lengths.min() < 1:
        raise Refused("bad_rle", f"run {int(lengths.argmin()) + 1} of the code {_shown(code)} is empty; 1 pixel is the least.")
    if starts.min() < 0 or ends.max() > pixels:
        beyond = int(np.flatnonzero((starts < 0) | (ends > pixels))[0])
        raise Refused(
            "bad_rle",
            f"run {beyond + 1} of the code {_shown(code)} takes the pixels {starts[beyond]} to {ends[beyond] - 1}, counted"
            f" from 0; the grid of {height} rows and {width} columns ends at {pixels - 1}.",
        )
    if (starts[order][1:] < ends[order][:-1]).any():
        raise Refused("bad_rle", f"runs of the code {_shown(code)} overlap; each pixel may be in one run only.")
    flat = np.zeros(pixels + 1, np.int8)
    np.add.at(flat, starts, 1)
    np.add.at(flat, ends, -1)
    inside = np.cumsum(flat[:-1], dtype=np.int8) > 0
    return inside.reshape(height, width) if form.order == "rows" else inside.reshape(width, height).T


def _shown(code: str) -> str:
    return repr(code if len(code) <= 40 else code[:40] + "...")


def _take(
    marks: Marks, masks: dict[Named, list[np.ndarray]], empty: dict[Named, str], row: _Row, size_hw: tuple[int, int]
) -> None:
    """Take in one code with its label."""
    part, where = marks.part, row.where
    raw = row.label or part.option("label", "")
    if row.code in _NOTHING and not raw:
        return  # a row without a label: nothing of all that the part looks for
    named = part.named(raw, where)
    if named is None:
        return
    with marks.item(where, named):
        if row.code in _NOTHING:
            if part.annotation != "machine":
                empty.setdefault(named, where)
            return
        if row.size and tuple(_number(row, cell) for cell in row.size) != size_hw:
            raise _wrong_size(marks.case, size_hw, [int(_number(row, cell)) for cell in row.size])
        form = Form(part.option("order", "columns"), part.option("first", 1), part.option("relative", False))
        try:
            masks[named] = [*masks.get(named, ()), mask_of_code(row.code, size_hw, form)]
        except Refused as error:
            raise Refused(error.reason, f"{where}, image {marks.case.one('image')!r}: {error}") from error


def _good_rows(marks: Marks, rows: list[_Row]) -> list[_Row]:
    """The rows that are good enough; the others are refused, each once, and leave every label in doubt."""
    quality = marks.part.option("quality", {})
    poor: set[str] = set()
    for row in {row.where: row for row in rows if "least" in quality}.values():
        with marks.item(row.where):
            if not _number(row, row.quality) >= quality["least"]:
                poor.add(row.where)
                sentence = f"{row.where}: {quality['column']} is {row.quality}; at least {quality['least']} is needed."
                marks.refuse(row.where, "low_quality", sentence)
                continue
            continue
        poor.add(row.where)
    return [row for row in rows if row.where not in poor]


def _score(marks: Marks, scores: dict[Named, float], row: _Row) -> None:
    """Keep how good the worst row of a label is."""
    named = marks.part.named(row.label or marks.part.option("label", ""), row.where) if row.quality else None
    if named is not None:
        scores[named] = min(_number(row, row.quality), scores.get(named, 1.0))


def _number(row: _Row, cell: str) -> float:
    try:
        return float(cell)
    except ValueError as error:
        raise Refused("bad_number", f"{row.where}: {cell!r} is no number.") from error


def _wrong_size(case: Case, size_hw: tuple[int, int], size: Sequence[int]) -> Refused:
    return Refused(
        "size_mismatch",
        f"Image {case.one('image')!r} has {size_hw[0]} rows and {size_hw[1]} columns, its codes are for {size[0]} and"
        f" {size[1]}; take the image in that size.",
    )


def _regions(part: Part, named: Named, masks: list[np.ndarray]) -> list[Region]:
    if part.option("several", "each") == "union":
        return regions_of_mask(part, named, np.logical_or.reduce(masks))
    regions = [region_of_mask(part, named, mask) for mask in masks]
    readers = Counter(region.mask for region in regions)
    once = {region.mask: region for region in regions}.items()
    return [replace(region, attributes={"readers": readers[mask]}) if readers[mask] > 1 else region for mask, region in once]


def _check_options(part: Part) -> None:
    where = f"datasets/{part.source}.toml"
    columns = part.option("columns", {})
    if not {"image", "code"} <= set(columns):
        raise SourceError(f"{where}: option columns is {columns!r}; it must name image and code.")
    if "label" not in columns and not part.option("label") and isinstance(columns["code"], str):
        raise SourceError(f"{where}: neither columns.label nor the option label is set; set one.")
    if "column" not in part.option("quality", {"column": ""}):
        raise SourceError(f"{where}: option quality is {part.option('quality')!r}; it must name column.")
    for name, allowed in _CHOICES.items():
        if (value := part.option(name, allowed[0])) not in allowed:
            raise SourceError(f"{where}: option {name} is {value!r}; allowed: {', '.join(map(str, allowed))}.")
    size = part.option("size", [1, 1])
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise SourceError(f"{where}: option size is {size!r}; allowed: rows and columns, two whole numbers above 0.")


def _image_column(part: Part, table: Table) -> int:
    """Position of the column that names images: of several possible ones the first that the table has."""
    names = part.option("columns")["image"]
    known = {name.casefold() for name in table.columns}
    several = [names] if isinstance(names, str) else names
    return table.at(next((name for name in several if name.casefold() in known), several[0]))


def _codes(part: Part, table: Table) -> list[tuple[int, int, str]]:
    """Columns with codes: the position of each, that of its label or -1, and the label where the column's name is it."""
    columns = part.option("columns")
    if isinstance(columns["code"], str):
        label = columns.get("label")
        return [(table.at(columns["code"]), table.at(label) if label is not None else -1, "")]
    return [(table.at(name), -1, name) for name in columns["code"]]


def _rows_of(part: Part, case: Case) -> list[_Row]:
    """The codes of the rows that name an image.

    Raises:
        Refused: they are of more than one table.
    """
    found: dict[str, list[_Row]] = {}
    columns, quality = part.option("columns"), part.option("quality", {})
    for file in case.files["table"]:
        table = read_table(case.folder, file)
        for number in rows_of(part, case, table, _image_column(part, table)):
            row = table.rows[number]
            size = tuple(row[table.at(name)] for name in columns.get("size", ()))
            good = row[table.at(quality["column"])] if quality else ""
            for code, label, raw in _codes(part, table):
                entry = _Row(f"{file} row {number + 1}", raw or (row[label] if label >= 0 else ""), row[code], size, good)
                found.setdefault(file, []).append(entry)
    if len(found) > 1:
        raise Refused(
            "ambiguous_table",
            f"The tables {sorted(found)} both name the image {case.one('image')!r}; leave one of them in the folder.",
        )
    return next(iter(found.values()), [])
