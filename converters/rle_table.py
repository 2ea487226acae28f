"""Images with a table of run-length codes (CSV): one row a mask, or one row an image that says it has none.

Roles: ``image`` (raster or DICOM, in any folders), ``table`` (CSV, plain or gzipped; an image may stand in one table
only), ``about`` (see medglip/curate/tables.py).

Options:
- ``columns``: names of columns: ``image`` (a file's name, with or without folder and ending), ``code``, ``label`` (left
  out where every mask shows the same: then ``label`` is the raw label);
- ``label``: raw label of every mask, for tables without a label column;
- ``id``: template of what the image column holds, where it is not the file's name, for example ``"{case}_{slice}"``;
- ``order``: ``columns`` (default: pixels are counted down the first column, then the next) or ``rows``;
- ``first``: number of the first pixel, 1 (default) or 0;
- ``relative``: true where a start is counted from the end of the run before it; default false: from the first pixel;
- ``size``: ``[rows, columns]`` of the grid of the codes; an image of another size is refused; default the image's own;
- ``several``: ``each`` (default): every row is one region; ``union``: rows of one label are parts of one mask;
- ``missing_images``: ``reject`` (default) or ``ignore`` rows whose image is not there;
- ``window``: see medglip/curate/images.py.

A code is pairs of whole numbers, start and length. ``-1`` or an empty cell means that the label is not there. An image
that no row names is unlabelled. Rows of one label with the very same mask are one, marked by several readers.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from medglip.curate.cases import Case, Refused, joined, region_of_mask, regions_of_mask
from medglip.curate.images import read_image
from medglip.curate.marks import Marks
from medglip.curate.source import Named, Part
from medglip.curate.tables import ABOUT_OPTIONS, Table, described, filled, needed, read_table
from medglip.errors import SourceError
from medglip.records import Picture, Region, Reject

ROLES = ("image", "table", "about")
OPTIONS = ("columns", "label", "id", "order", "first", "relative", "size", "several", "missing_images", "window",
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


def cases(part: Part, folder: Path) -> Iterator[Case | Reject]:
    """One case an image that is there; rows that name an image that is not there are rejected, once an image.

    Raises:
        InputError: no table is there, or one is broken.
        Refused: a table lacks a column.
        SourceError: an option has a value that is not allowed.
    """
    _check_options(part)
    found = list(joined(part, folder))
    needed(part, "table", found)
    tables = sorted({file for case in found if isinstance(case, Case) for file in case.files["table"]})
    here = {name for case in found if isinstance(case, Case) for name in _names(part, case)}
    for file in tables:
        table = read_table(folder, file)
        image = _positions(part, table)[0]
        if part.option("missing_images", "reject") == "reject":
            for name in sorted({row[image] for row in table.rows}):
                if _name(name) not in here:
                    sentence = f"Table {file!r} names the image {name!r}, which is not there; add it, or take its rows out."
                    yield Reject(part.source, file, "missing_file", sentence, name)
    yield from described(part, found)


def convert(part: Part, case: Case) -> Iterator[Picture | Reject]:
    """One picture with its masks.

    Raises:
        Refused: two tables name the image, or its size is not the one that the codes are for.
    """
    pixels, shot = read_image(part, case.path(case.one("image")))
    size_hw = pixels.shape[0], pixels.shape[1]
    rows = _rows_of(part, case)
    if rows and (size := part.option("size")) and tuple(size) != size_hw:
        raise Refused(
            "size_mismatch",
            f"Image {case.one('image')!r} has {size_hw[0]} rows and {size_hw[1]} columns, its codes are for {size[0]} and"
            f" {size[1]}; take the image in that size.",
        )
    marks = Marks(part, case, labelled=bool(rows))
    masks: dict[Named, list[np.ndarray]] = defaultdict(list)
    empty: dict[Named, str] = {}
    for where, label, code in rows:
        with marks.item(where):
            _take(marks, masks, empty, where, (label, code), size_hw)
    for named, where in empty.items():
        if named in masks:
            sentence = f"{where}: the row says that there is no {named.concept!r}, another row of the image shows one."
            marks.refuse(where, "contradiction", sentence, named)
    marks.searched.update(named.concept for named in empty)
    marks.regions += [region for named, found in masks.items() for region in _regions(part, named, found)]
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
    marks: Marks, masks: dict[Named, list[np.ndarray]], empty: dict[Named, str], where: str, cells: tuple[str, str],
    size_hw: tuple[int, int],
) -> None:  # fmt: skip
    """Take in one row: its label and its code."""
    part, (label, code) = marks.part, cells
    raw = label or part.option("label", "")
    if code in _NOTHING and not raw:
        return  # a row without a label: nothing of all that the part looks for
    named = part.named(raw, where)
    if named is None:
        return
    if code in _NOTHING:
        empty.setdefault(named, where)
        return
    form = Form(part.option("order", "columns"), part.option("first", 1), part.option("relative", False))
    with marks.item(where, named):
        try:
            masks[named] = [*masks.get(named, ()), mask_of_code(code, size_hw, form)]
        except Refused as error:
            raise Refused(error.reason, f"{where}, image {marks.case.one('image')!r}: {error}") from error


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
    if "label" not in columns and not part.option("label"):
        raise SourceError(f"{where}: neither columns.label nor the option label is set; set one.")
    for name, allowed in _CHOICES.items():
        if (value := part.option(name, allowed[0])) not in allowed:
            raise SourceError(f"{where}: option {name} is {value!r}; allowed: {', '.join(map(str, allowed))}.")
    size = part.option("size", [1, 1])
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise SourceError(f"{where}: option size is {size!r}; allowed: rows and columns, two whole numbers above 0.")


def _positions(part: Part, table: Table) -> tuple[int, int, int]:
    """Positions of image, code and label; -1 where the source has no label column."""
    columns = part.option("columns")
    label = columns.get("label")
    return table.at(columns["image"]), table.at(columns["code"]), table.at(label) if label is not None else -1


def _name(text: str) -> str:
    """A file's name without folder, in lower case; dots stay, an id may be full of them."""
    return PurePosixPath(text.strip().replace("\\", "/").casefold()).name


def _names(part: Part, case: Case) -> tuple[str, ...]:
    """What a table may call an image: by the option ``id``, or the file's name with and without its ending."""
    if template := part.option("id"):
        return (filled(template, case).casefold(),)
    name = _name(case.one("image"))
    return name, re.sub(r"\.[a-z][a-z0-9]*$", "", name)


@lru_cache(maxsize=8)
def _by_image(table: Table, at: int) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for number, row in enumerate(table.rows):
        rows.setdefault(_name(row[at]), []).append(number)
    return rows


def _rows_of(part: Part, case: Case) -> list[tuple[str, str, str]]:
    """The rows that name an image: where each stands, its label and its code.

    Raises:
        Refused: they are of more than one table.
    """
    found: dict[str, list[tuple[str, str, str]]] = {}
    for file in case.files["table"]:
        table = read_table(case.folder, file)
        image, code, label = _positions(part, table)
        index = _by_image(table, image)
        for number in sorted({number for name in _names(part, case) for number in index.get(name, ())}):
            row = table.rows[number]
            entry = f"{file} row {number + 1}", row[label] if label >= 0 else "", row[code]
            found.setdefault(file, []).append(entry)
    if len(found) > 1:
        raise Refused(
            "ambiguous_table",
            f"The tables {sorted(found)} both name the image {case.one('image')!r}; leave one of them in the folder.",
        )
    return next(iter(found.values()), [])
