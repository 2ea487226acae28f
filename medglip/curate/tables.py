"""Tables as people write them (CSV, JSON, lists of names), and what they say of each image. Knows no boxes and no pixels.

Converters take a file role ``about``: a table with one row an image. Its columns become names for the templates of the
source's TOML (``patient = "{patientid}"``): in lower case, with ``_`` for all but letters and digits. Its options:

- ``about_key``: column that names the image's file, with or without folders and ending (required with a table);
- ``about_id``: template of what that column holds, where it is not the file's name, for example ``"{study}"``;
- ``about_empty``: cells with this text count as empty, for example ``["n/A"]``;
- ``about_missing``: ``reject`` (default) an image without a row, or ``ignore``: what its templates ask for is then empty;
- ``where``: the part takes only images whose row says so, for example ``{ modality = "CT" }``;
- ``texts``: texts to make, for example ``[{ kind = "report", text = "{clinical_notes}" }]``;
- ``licence``: template of the image's own licence, for example ``"{license}"``; empty: the source's.

A ``.txt`` file of the role is a list of images, one a line. The name ``listed_in`` is the list (its file's name without
ending) in which the image stands: ``split = "{listed_in}"``. It is empty where no list has it, or more than one.

A column of images holds names with or without folders and ending. Where the table, or the source, has one name in several
folders, the folders must agree as far as both say them.
"""

import csv
import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Any

from medglip.curate.cases import Case, Refused
from medglip.curate.layout import without_ending
from medglip.curate.source import Part
from medglip.errors import InputError
from medglip.records import Reject, Text

ABOUT_OPTIONS = ("about_key", "about_id", "about_empty", "about_missing", "where", "texts", "licence")
LISTED_IN = "listed_in"
_TWIN = "twin"  # marks an image whose name another image of the part has too
_DELIMITERS = (",", ";", "\t")
_JSON = (".json", ".jsonl", ".ndjson")


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of a CSV or JSON file.

    Attributes:
        file: Path relative to the input folder, for messages.
        columns: Names in the header, without blanks around them; unnamed columns are ``""``.
        rows: Cells in the order of the columns, as many as there are columns. Lists and objects of a JSON file are JSON
            text, true and false are ``true`` and ``false``, null is empty.
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


def read_table(folder: Path, file: str, each: str = "") -> Table:
    """A CSV file, plain or gzipped: BOM, CRLF, quotes, semicolons or tabs, blank lines and ragged rows are all read.

    A file named ``.json`` or ``.jsonl`` is a list of objects, or one object a line; each is a row. An object of objects or
    of lists of objects is read as these, with its names in the column ``key``.

    Args:
        folder: The input folder.
        file: Path relative to it.
        each: Name of a list in the objects of a JSON file: every object in it is a row, with what is said around it.

    Raises:
        InputError: it is missing, broken or empty.
    """
    path = folder / file
    try:
        stamp = path.stat()
    except OSError as error:
        raise InputError(f"Table {file!r} cannot be read: {error.strerror}.") from error
    return _read(path, file, each, stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=8)
def _read(path: Path, file: str, each: str, _mtime: int, _size: int) -> Table:
    text = _text(path, file)
    if file.casefold().removesuffix(".gz").endswith(_JSON):
        return _read_json(text, file, each)
    lines = text.splitlines(keepends=True)
    header = next((line for line in lines if line.strip()), "")
    delimiter = max(_DELIMITERS, key=header.count)
    try:
        csv.field_size_limit(2**31 - 1)  # a run-length code may be megabytes long
        rows = [row for row in csv.reader(lines, delimiter=delimiter) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise InputError(f"Table {file!r} is not a CSV file: {error}.") from error
    if not rows:
        raise InputError(f"Table {file!r} is empty; it needs a header and rows.")
    columns = tuple(cell.strip() for cell in rows[0])
    cut = (tuple(cell.strip() for cell in row[: len(columns)]) for row in rows[1:])
    return Table(file, columns, tuple(row + ("",) * (len(columns) - len(row)) for row in cut))


def _text(path: Path, file: str) -> str:
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"Table {file!r} cannot be read, it is broken or cut off: {error}.") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _read_json(text: str, file: str, each: str) -> Table:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        try:
            data = [json.loads(line) for line in text.splitlines() if line.strip()]
        except (ValueError, RecursionError):
            raise InputError(f"Table {file!r} is not JSON: {error}.") from error
    objects = list(_objects(data))
    if each and all(isinstance(one, dict) for one in objects):
        objects = [{**one, each: None, **child} if isinstance(child, dict) else child
                   for one in objects for child in one.get(each) or ()]  # fmt: skip
    if not objects or not all(isinstance(one, dict) for one in objects):
        found = next((one for one in objects if not isinstance(one, dict)), "nothing")
        raise InputError(f"Table {file!r} holds {found!r}{f' in {each!r}' if each else ''}; it needs an object a row.")
    columns = tuple(dict.fromkeys(name for one in objects for name in one if not each or name != each))
    return Table(file, columns, tuple(tuple(_cell(one.get(name)) for name in columns) for one in objects))


def _objects(data: Any) -> Iterator[Any]:
    """What should be the objects that are rows; those of an object have its names in the column ``key``."""
    if isinstance(data, list):
        yield from data
    elif isinstance(data, dict) and all(isinstance(value, dict | list) for value in data.values()):
        for key, value in data.items():
            yield from ({"key": key, **one} if isinstance(one, dict) else one
                        for one in (value if isinstance(value, list) else [value]))  # fmt: skip
    else:
        yield data


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool | list | dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value).strip()


def listed_cell(cell: str) -> list[Any]:
    """What a cell lists: the entries of a JSON list, nothing for an empty cell, else the cell itself.

    >>> listed_cell('["a", "b"]'), listed_cell("a"), listed_cell("")
    (['a', 'b'], ['a'], [])
    """
    if not cell:
        return []
    if cell.startswith("["):
        try:
            found = json.loads(cell)
        except (ValueError, RecursionError):
            return [cell]
        return found if isinstance(found, list) else [cell]
    return [cell]


def stems(name: str) -> tuple[str, str]:
    """A file's name without folder, with and without its ending, in lower case."""
    path = PurePosixPath(name.strip().replace("\\", "/").casefold())
    return path.name, without_ending(path.name)


def rows_naming(table: Table, at: int, image: str, *, exact: bool = False) -> list[int]:
    """Numbers of the rows whose cell names an image.

    Args:
        table: The table.
        at: Position of the column; a cell names one image, or several in a JSON list.
        image: The image's path or id. Names agree with or without ending, upper and lower case alike. Where the table has
            the name in several folders, the folders must agree as far as both say them: ``p1/a.png`` names
            ``images/p1/a.png``, and ``p2/a.png`` does not.
        exact: True: they must agree in any case, for the source has several images of the name.
    """
    folders = _folders(image)
    found = {number: said for name in stems(image) for number, said in _naming(table, at).get(name, ())}
    if not exact and len(set(found.values())) <= 1:
        return sorted(found)
    return sorted(number for number, said in found.items() if all(one == two for one, two in zip(said, folders, strict=False)))


def rows_of(part: Part, case: Case, table: Table, at: int) -> list[int]:
    """Numbers of the rows that name the image of a case: by what the option ``id`` says, else by its path."""
    return rows_naming(table, at, image_id(part, case), exact=bool(part.option("id")) or _TWIN in case.fields)


def _folders(name: str) -> tuple[str, ...]:
    """Folders of a path, the innermost first."""
    return tuple(reversed(name.strip().replace("\\", "/").casefold().split("/")[:-1]))


@lru_cache(maxsize=16)
def _naming(table: Table, at: int) -> dict[str, list[tuple[int, tuple[str, ...]]]]:
    """Row number and folders by image name, with and without ending."""
    index: dict[str, list[tuple[int, tuple[str, ...]]]] = {}
    for number, row in enumerate(table.rows):
        for one in listed_cell(row[at]):
            whole = re.sub(r"^(\d+)\.0$", r"\1", str(one))  # a number that went through a table of floats
            for name in dict.fromkeys(stems(whole)):
                index.setdefault(name, []).append((number, _folders(whole)))
    return index


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


def described(part: Part, cases: Iterable[Case | Reject], *, every: bool = False) -> Iterator[Case | Reject]:
    """The cases with what the table ``about`` says of them; only those of the part's ``where``, unless ``every``.

    Raises:
        InputError: the table is not there, or broken.
        Refused: it lacks a column.
    """
    found = list(_twins_marked(cases))
    if "about" not in part.files:
        yield from found
        return
    optional = part.option("about_missing") == "ignore"
    if not optional:
        needed(part, "about", found)
    blank = dict.fromkeys(_asked(part), "") if optional else {}
    for case in found:
        if isinstance(case, Reject):
            yield case
            continue
        row = _row_of(part, case)
        if row is None and not optional:
            yield Reject(part.source, case.one("image"), "missing_row",
                         f"No row of {list(case.files['about'])} names this image; add one.", case.key)  # fmt: skip
            continue
        known = replace(case, fields={**blank, **(row or {}), **_listing(case), **case.fields})
        if every or is_wanted(part, known):
            yield known


def _twins_marked(cases: Iterable[Case | Reject]) -> Iterator[Case | Reject]:
    found = list(cases)
    names = Counter(stems(case.files["image"][0])[1] for case in found if isinstance(case, Case))
    for case in found:
        twin = isinstance(case, Case) and names[stems(case.files["image"][0])[1]] > 1
        yield replace(case, fields={**case.fields, _TWIN: "yes"}) if isinstance(case, Case) and twin else case


def is_wanted(part: Part, case: Case) -> bool:
    """Whether a case is one of the part's ``where``."""
    wanted = {name: str(value).casefold() for name, value in part.option("where", {}).items()}
    return all(case.fields.get(name, "").casefold() == value for name, value in wanted.items())


def unnamed(part: Part, folder: Path, cases: Iterable[Case | Reject], role: str, also: str = "") -> Iterator[Reject]:
    """Rejects for the rows of the tables of a role that name no image of the cases, once a name.

    Args:
        part: Its option ``columns.image`` is the column, ``id`` what it holds, ``each`` as of ``read_table``.
        folder: The input folder.
        cases: All cases, also those of other parts.
        role: The tables' role.
        also: Name of a field of the cases that a table may use as well.
    """
    here = [case for case in cases if isinstance(case, Case)]
    for file in sorted({file for case in here for file in case.files.get(role, ())}):
        table = read_table(folder, file, part.option("each", ""))
        at = table.at(part.option("columns")["image"])
        named = {number for case in here for number in rows_of(part, case, table, at)}
        named |= {number for case in here if also for number in rows_naming(table, at, case.fields[also], exact=True)}
        for name in sorted({row[at] for number, row in enumerate(table.rows) if number not in named}):
            sentence = f"Table {file!r} names the image {name!r}, which is not there; add it, or take its rows out."
            yield Reject(part.source, file, "missing_file", sentence, name)


def image_id(part: Part, case: Case) -> str:
    """What a table calls the image of a case: by the option ``id``, else its path."""
    return filled(part.option("id"), case) if part.option("id") else case.one("image")


def _asked(part: Part) -> set[str]:
    """The names that the part's templates ask for."""
    templates = [part.patient, part.group, part.split, part.text, *part.detail.values(), part.option("licence"),
                 part.option("id"), *(entry["text"] for entry in part.option("texts", ()))]  # fmt: skip
    return {name for template in templates if template for _, name, _, _ in Formatter().parse(template) if name}


def _tables(case: Case) -> list[str]:
    return [file for file in case.files.get("about", ()) if not file.casefold().endswith(".txt")]


def _row_of(part: Part, case: Case) -> dict[str, str] | None:
    """What the tables say of an image; nothing where there are only lists, None where no row names it."""
    tables = _tables(case)
    name = filled(part.option("about_id"), case) if part.option("about_id") else case.one("image")
    for file in tables:
        table = read_table(case.folder, file)
        exact = bool(part.option("about_id")) or _TWIN in case.fields
        for number in rows_naming(table, table.at(part.option("about_key", "")), name, exact=exact)[:1]:
            return _fields(part, table, number)
    return None if tables or not case.files.get("about") else {}


def _listing(case: Case) -> dict[str, str]:
    """The name ``listed_in``, where lists are there."""
    files = tuple(file for file in case.files.get("about", ()) if file.casefold().endswith(".txt"))
    if not files:
        return {}
    table = _lists(case.folder, files, tuple((case.folder / file).stat().st_mtime_ns for file in files))
    naming = {table.rows[number][1] for number in rows_naming(table, 0, case.one("image"), exact=_TWIN in case.fields)}
    return {LISTED_IN: naming.pop() if len(naming) == 1 else ""}


@lru_cache(maxsize=8)
def _lists(folder: Path, files: tuple[str, ...], _mtimes: tuple[int, ...]) -> Table:
    """All lists as one table: the name of an image, and the list that it stands in."""
    rows = [(line.strip(), PurePosixPath(file).stem) for file in files for line in _text(folder / file, file).splitlines()]
    return Table(files[0], ("name", "list"), tuple(row for row in rows if row[0]))


def _fields(part: Part, table: Table, number: int) -> dict[str, str]:
    empty = {str(word).casefold() for word in part.option("about_empty", ())}
    return {name: "" if cell.casefold() in empty else cell for name, cell in named_cells(table, number).items()}


def named_cells(table: Table, number: int) -> dict[str, str]:
    """The cells of a row by their columns, as templates name them."""
    return {name: cell for name, cell in zip(table.names, table.rows[number], strict=True) if name}


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
