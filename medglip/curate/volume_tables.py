"""What tables (CSV) say of volumes: facts of a case, its labelled frames, the meaning of its numbers. Knows no voxels.

Converters of volumes take a file role ``about``: a table with one row a case. Its columns become names for the templates
of the source's TOML, in lower case, with ``_`` for all but letters and digits. Options:

- ``about_key``: column that names the case (required with the role);
- ``about_is``: template of what stands there; default ``"{case}"``;
- ``about_empty``: cells with this text count as empty, for example ``["n/A"]``;
- ``where``: the part takes only cases whose row says so, for example ``{ vendor = "Siemens" }``;
- ``frames``: templates of the frames of an image of four dimensions that are labelled, for example ``["{ed}", "{es}"]``:
  each is a case of its own, which remembers its number from 0 as ``{frame}``;
- ``first_frame``: what the source calls the first of them; default 0.

The role ``codes`` is a table with one row a label value of a case, for values that number the objects of one case.
``codes = { case = "public_id", is = "RibFrac{case}", value = "label_id", label = "label_code" }`` names its columns: the
case's with a template of what stands there, the value's and the raw label's.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import PurePosixPath

from medglip.curate.cases import Case, Refused
from medglip.curate.source import Part
from medglip.curate.tables import Table, filled, needed, read_table
from medglip.errors import SourceError
from medglip.records import Reject

ABOUT_ROLES = ("about",)
ABOUT_OPTIONS = ("about_key", "about_is", "about_empty", "where")
FRAME_OPTIONS = ("frames", "first_frame")
_CODES = ("case", "is", "value", "label")
_WHOLE = re.compile(r"(-?\d+)(?:\.0*)?")  # spreadsheets write the frame 7 as 7.0


def described_volumes(part: Part, cases: Iterable[Case | Reject]) -> Iterator[Case | Reject]:
    """The cases with what the table ``about`` says of them; only those of the part's ``where``.

    Raises:
        InputError: the table is not there, or broken.
        Refused: it lacks a column, or a case lacks a name of the template.
    """
    if "about" not in part.files:
        yield from cases
        return
    found = list(cases)
    needed(part, "about", found)
    key, words = part.option("about_key", ""), part.option("about_is", "{case}")
    wanted = {name: str(value).casefold() for name, value in part.option("where", {}).items()}
    for case in found:
        if isinstance(case, Reject):
            yield case
            continue
        row = _row_of(part, case, key, filled(words, case).casefold())
        if row is None:
            file = next(iter(case.files.values()))[0]
            sentence = f"No row of {list(case.files['about'])} names {filled(words, case)!r} as its {key!r}; add one."
            yield Reject(part.source, file, "missing_row", sentence, case.key)
        elif all(row.get(name, "").casefold() == value for name, value in wanted.items()):
            yield replace(case, fields={**row, **case.fields})


def framed(part: Part, cases: Iterable[Case | Reject]) -> Iterator[Case | Reject]:
    """One case a labelled frame where the part names frames; else the cases as they are."""
    templates = part.option("frames", ())
    for case in cases:
        if isinstance(case, Reject) or not templates:
            yield case
            continue
        done: set[int] = set()
        for template in templates:
            text = filled(template, case)
            match = _WHOLE.fullmatch(text)
            number = int(match[1]) - int(part.option("first_frame", 0)) if match else -1
            if number < 0:
                sentence = f"The frame {template!r} of {case.key!r} is {text!r}; allowed: a number; correct the table."
                yield Reject(part.source, next(iter(case.files.values()))[0], "missing_field", sentence, case.key)
            elif number not in done:
                done.add(number)
                yield replace(case, key=f"{case.key}#{number}", fields={**case.fields, "frame": str(number)})


def with_frame(part: Part, case: Case) -> Part:
    """The part, whose options say which volume of image and labels to read where the case is one of their frames."""
    if not part.option("frames"):
        return part
    index = int(case.fields["frame"])
    return replace(part, options={**part.options, "index": index, "label_index": index})


def codes_of(part: Part, case: Case) -> dict[str, str] | None:
    """Raw label of each label value of a case, both as text; None where the values are the raw labels.

    Raises:
        SourceError: the option is not complete.
        Refused: the table is not there or lacks a column.
    """
    if "codes" not in part.files:
        return None
    columns = part.option("codes", {})
    if missing := [name for name in _CODES if name not in columns]:
        raise SourceError(
            f"datasets/{part.source}.toml: the option codes of {part.name!r} lacks {missing[0]!r}; needed:"
            f" {', '.join(_CODES)}; see medglip/curate/volume_tables.py."
        )
    files = case.files.get("codes", ())
    if not files:
        raise Refused("missing_file", f"{case.key!r} has no table {part.files['codes']!r} that says what its values are.")
    words = filled(columns["is"], case).casefold()
    found: dict[str, str] = {}
    for file in files:
        table = read_table(case.folder, file)
        value, label = table.at(columns["value"]), table.at(columns["label"])
        for number in _rows(table, table.at(columns["case"])).get(words, ()):
            row = table.rows[number]
            found[_whole(row[value])] = _whole(row[label])
    return found


def _whole(cell: str) -> str:
    match = _WHOLE.fullmatch(cell)
    return match[1] if match else cell


def _row_of(part: Part, case: Case, key: str, words: str) -> dict[str, str] | None:
    empty = {str(word).casefold() for word in part.option("about_empty", ())}
    for file in case.files["about"]:
        table = read_table(case.folder, file)
        if numbers := _rows(table, table.at(key)).get(words):
            cells = zip(table.names, table.rows[numbers[0]], strict=True)
            return {name: "" if cell.casefold() in empty else cell for name, cell in cells if name}
    return None


@lru_cache(maxsize=8)
def _rows(table: Table, at: int) -> dict[str, list[int]]:
    """Numbers of the rows by what stands in a column, with or without folders, in lower case."""
    rows: dict[str, list[int]] = {}
    for number, row in enumerate(table.rows):
        cell = row[at].strip().casefold().replace("\\", "/")
        for name in dict.fromkeys((cell, PurePosixPath(cell).name)):
            rows.setdefault(name, []).append(number)
    return rows
