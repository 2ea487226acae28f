"""Tables (CSV) as people write them, and what they say of each image. Knows no boxes and no pixels.

Converters take a file role ``about``: a table with one row an image. Its columns become names for the templates of the
source's TOML (``patient = "{patientid}"``): in lower case, with ``_`` for all but letters and digits. Its options:

- ``about_key``: column that names the image's file, with or without folder and ending (required with the role);
- ``about_empty``: cells with this text count as empty, for example ``["n/A"]``;
- ``where``: the part takes only images whose row says so, for example ``{ modality = "CT" }``;
- ``texts``: texts to make, for example ``[{ kind = "report", text = "{clinical_notes}" }]``;
- ``licence``: template of the image's own licence, for example ``"{license}"``; empty: the source's.
"""

import csv
import gzip
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath

from medglip.curate.cases import Case, Refused
from medglip.curate.layout import without_ending
from medglip.curate.source import Part
from medglip.errors import InputError
from medglip.records import Reject, Text

ABOUT_OPTIONS = ("about_key", "about_empty", "where", "texts", "licence")
_DELIMITERS = (",", ";", "\t")


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of a CSV file.

    Attributes:
        file: Path relative to the input folder, for messages.
        columns: Names in the header, without blanks around them; unnamed columns are ``""``.
        rows: Cells in the order of the columns, as many as there are columns.
    """

    file: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def at(self, column: str) -> int:
        """Position of a column; upper and lower case alike.

        Raises:
            Refused: there is no such column.
        """
        names = [name.casefold() for name in self.columns]
        if column.strip().casefold() not in names:
            known = ", ".join(repr(name) for name in self.columns if name)
            raise Refused(
                "missing_column",
                f"Table {self.file!r} has no column {column!r}; its columns are {known}. Add the column, or name the"
                " right one in the source's TOML.",
            )
        return names.index(column.strip().casefold())

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Columns as templates name them."""
        return tuple(re.sub(r"[^a-z0-9]+", "_", name.casefold()).strip("_") for name in self.columns)


def read_table(folder: Path, file: str) -> Table:
    """A CSV file, plain or gzipped: BOM, CRLF, quotes, semicolons or tabs, blank lines and ragged rows are all read.

    Raises:
        InputError: it is missing, broken or empty.
    """
    path = folder / file
    try:
        stamp = path.stat()
    except OSError as error:
        raise InputError(f"Table {file!r} cannot be read: {error.strerror}.") from error
    return _read(path, file, stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=8)
def _read(path: Path, file: str, _mtime: int, _size: int) -> Table:
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError) as error:
        raise InputError(f"Table {file!r} cannot be read, it is broken or cut off: {error}.") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    lines = text.splitlines(keepends=True)
    if not any(line.strip() for line in lines):
        raise InputError(f"Table {file!r} is empty; it needs a header and rows.")
    header = next(line for line in lines if line.strip())
    delimiter = max(_DELIMITERS, key=header.count)
    try:
        csv.field_size_limit(2**31 - 1)  # a run-length code may be megabytes long
        rows = [row for row in csv.reader(lines, delimiter=delimiter) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise InputError(f"Table {file!r} is not a CSV file: {error}.") from error
    columns = tuple(cell.strip() for cell in rows[0])
    cut = (tuple(cell.strip() for cell in row[: len(columns)]) for row in rows[1:])
    return Table(file, columns, tuple(row + ("",) * (len(columns) - len(row)) for row in cut))


def stems(name: str) -> tuple[str, str]:
    """A file's name without folder, with and without its ending, in lower case."""
    path = PurePosixPath(name.strip().replace("\\", "/").casefold())
    return path.name, without_ending(path.name)


def needed(part: Part, role: str, found: Iterable[Case | Reject]) -> None:
    """Check that the file of a role, which all cases share, is there.

    Raises:
        InputError: no case has it.
    """
    cases = [entry for entry in found if isinstance(entry, Case)]
    if cases and not any(case.files.get(role) for case in cases):
        raise InputError(
            f"Source {part.source!r}: {len(cases)} images are in {str(cases[0].folder)!r}, but no file is their {role}"
            f" {part.files[role]!r}; add it."
        )


def described(part: Part, cases: Iterable[Case | Reject]) -> Iterator[Case | Reject]:
    """The cases with what the table ``about`` says of them; only those of the part's ``where``.

    Raises:
        InputError: the table is not there, or broken.
        Refused: it lacks a column.
    """
    if "about" not in part.files:
        yield from cases
        return
    found = list(cases)
    needed(part, "about", found)
    wanted = {name: str(value) for name, value in part.option("where", {}).items()}
    for case in found:
        if isinstance(case, Reject):
            yield case
            continue
        row = _row_of(part, case)
        if row is None:
            yield Reject(part.source, case.one("image"), "missing_row",
                         f"No row of {list(case.files['about'])} names this image; add one.", case.key)  # fmt: skip
        elif all(row.get(name, "").casefold() == value.casefold() for name, value in wanted.items()):
            yield replace(case, fields={**row, **case.fields})


def _row_of(part: Part, case: Case) -> dict[str, str] | None:
    key = part.option("about_key", "")
    for file in case.files["about"]:
        table = read_table(case.folder, file)
        index = _index(table, table.at(key))
        for name in stems(case.one("image")):
            if name in index:
                return _fields(part, table, index[name])
    return None


@lru_cache(maxsize=8)
def _index(table: Table, at: int) -> dict[str, int]:
    """Row number by image name, with and without ending; the first row of a name counts."""
    index: dict[str, int] = {}
    for number, row in enumerate(table.rows):
        for name in stems(row[at]):
            index.setdefault(name, number)
    return index


def _fields(part: Part, table: Table, number: int) -> dict[str, str]:
    empty = {str(word).casefold() for word in part.option("about_empty", ())}
    cells = zip(table.names, table.rows[number], strict=True)
    return {name: "" if cell.casefold() in empty else cell for name, cell in cells if name}


def filled(template: str, case: Case) -> str:
    """A template with the names of the case.

    Raises:
        Refused: the case lacks a name.
    """
    try:
        return template.format_map(case.fields).strip()
    except KeyError as error:
        sentence = f"The template {template!r} names {error}, which case {case.key!r} lacks."
        raise Refused("missing_field", sentence) from error


def texts_of(part: Part, case: Case) -> tuple[Text, ...]:
    """The texts that the part's option ``texts`` asks for, without those that are empty."""
    texts = ((entry.get("kind", "report"), filled(entry["text"], case)) for entry in part.option("texts", ()))
    return tuple(Text(text, kind) for kind, text in texts if text)
