"""Images with captions in Parquet tables, as the Hugging Face hub holds them: the image in the row, or in a file that it names.

Roles: ``rows`` (Parquet, one row an image), ``image`` (raster or DICOM files; left out where the rows hold the images).

Options:
- ``columns``: names of columns: ``image`` (the encoded image: its bytes, or a structure with ``bytes``) or instead
  ``file`` (the name of the image's file: folders do not count, and of two files of one name the second is rejected);
  ``text`` and ``id``, a name for the row, may be left out;
- ``kind``, ``language``: of the texts; default ``caption`` and ``en``;
- ``where``: a column and the texts of it that the part takes, for example ``{ source = ["brats24", "MAMA-MIA"] }``;
- ``missing_images``: ``reject`` (default: a line for each table, with their number) or ``ignore`` rows whose image is not
  there;
- ``window``: see medglip/curate/images.py.

Names for templates are ``id``, ``row`` (from 0), ``table`` (the file's name without ending), what the patterns remember, and
the columns of ``where``. A row's image is unlabelled: a caption marks nothing.
"""

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medglip.curate.cases import Case, Refused
from medglip.curate.images import read_image
from medglip.curate.layout import Found, find, listed
from medglip.curate.marks import Marks
from medglip.curate.source import Part
from medglip.errors import InputError, SourceError
from medglip.records import Picture, Reject, Text

ROLES = ("rows", "image")
OPTIONS = ("columns", "kind", "language", "where", "missing_images", "window")

_JPEG = b"\xff\xd8\xff"


def cases(part: Part, folder: Path) -> Iterator[Case | Reject]:
    """One case a row that the part takes.

    Raises:
        InputError: a table is broken or lacks a column.
        SourceError: an option is missing.
    """
    columns, where = _columns(part), part.option("where", {})
    paths = listed(folder)
    images: dict[str, list[Found]] = defaultdict(list)
    for found in find(part.files["image"], paths) if "file" in columns else ():
        images[PurePosixPath(found.path).name].append(found)
    seen: set[str] = set()
    for table in find(part.files["rows"], paths):
        gone = 0
        for number, row in enumerate(_cells(folder, table.path, columns, where)):
            if not all(str(row[name]) in map(str, texts) for name, texts in where.items()):
                continue
            fields = table.fields | {name: str(row[name]) for name in where}
            fields |= {"row": str(number), "table": PurePosixPath(table.path).stem}
            fields["id"] = str(row[columns["id"]]) if "id" in columns else ""
            if "image" in columns:
                yield Case(f"{table.path}#{number}", folder, {"rows": (table.path,)}, fields)
                continue
            name = PurePosixPath(str(row[columns["file"]]).replace("\\", "/")).name
            gone += name not in images
            yield from _named(part, Case(name, folder, {"rows": (table.path,)}, fields), images.get(name, ()), name in seen)
            seen.add(name)
        if gone and part.option("missing_images", "reject") == "reject":
            sentence = f"{gone} rows of {table.path!r} for the part {part.name!r} name images that are not there; add them."
            yield Reject(part.source, table.path, "missing_file", sentence, part.name)


def _named(part: Part, case: Case, files: Sequence[Found], again: bool) -> Iterator[Case | Reject]:
    """The case of a row that names an image, and what is wrong with its name."""
    table, row = case.one("rows"), int(case.fields["row"]) + 1
    if files and again:
        sentence = f"Row {row} of {table!r} names {case.key!r}, which another row names too; keep one."
        yield Reject(part.source, table, "duplicate_image", sentence, files[0].path)
        return
    for twin in files[1:]:
        sentence = f"{files[0].path!r} has the same name; remove one."
        yield Reject(part.source, twin.path, "duplicate_image", sentence, files[0].path)
    for image in files[:1]:
        yield replace(case, key=image.path, files={"image": (image.path,), **case.files}, fields=image.fields | case.fields)


def convert(part: Part, case: Case) -> Iterator[Picture | Reject]:
    """One picture with its caption."""
    columns, table = _columns(part), case.one("rows")
    row = _row(
        case.folder, table, int(case.fields["row"]), tuple(columns[name] for name in ("image", "text") if name in columns)
    )
    if "image" in columns:
        pixels, shot = _decoded(part, case, row[columns["image"]])
    else:
        pixels, shot = read_image(part, case.path(case.one("image")))
    text = str(row[columns["text"]] or "").strip() if "text" in columns else ""
    texts = (Text(text, part.option("kind", "caption"), part.option("language", "en")),) if text else ()
    file = case.files["image"][0] if "image" in case.files else case.key
    yield Marks(part, case, labelled=False).picture(pixels, replace(shot, file=file, texts=texts))


def _columns(part: Part) -> dict[str, str]:
    columns = dict(part.option("columns", {}))
    if ("image" in columns) == ("file" in columns) or ("file" in columns) != ("image" in part.files):
        raise SourceError(
            f"datasets/{part.source}.toml: option columns of {part.name!r} is {columns!r}; it must name image, or file"
            " together with the role image."
        )
    return columns


def _opened(folder: Path, table: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(folder / table)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"Table {table!r} cannot be read as Parquet, it is broken or cut off: {error}.") from error


def _cells(folder: Path, table: str, columns: dict[str, str], where: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What the names, ids and words of each row say, without images and captions."""
    file = _opened(folder, table)
    wanted = list(dict.fromkeys([*(columns[name] for name in ("file", "id") if name in columns), *where]))
    if missing := [name for name in (*columns.values(), *where) if name not in file.schema_arrow.names]:
        known = ", ".join(file.schema_arrow.names)
        raise InputError(
            f"Table {table!r} has no column {missing[0]!r}; its columns are {known}. Name the right one in the TOML."
        )
    for group in range(file.num_row_groups):
        if wanted:
            yield from file.read_row_group(group, columns=wanted).to_pylist()
        else:
            yield from ({} for _ in range(file.metadata.row_group(group).num_rows))


def _row(folder: Path, table: str, number: int, columns: tuple[str, ...]) -> dict[str, Any]:
    """The cells of one row; a table is read group by group."""
    file = _opened(folder, table)
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if number < rows:
            stamp = (folder / table).stat().st_mtime_ns
            return _group(folder, table, group, columns, stamp).slice(number, 1).to_pylist()[0]
        number -= rows
    raise InputError(f"Table {table!r} has fewer rows than when it was listed; leave it alone while it is read.")


@lru_cache(maxsize=2)
def _group(folder: Path, table: str, group: int, columns: tuple[str, ...], _mtime: int) -> pa.Table:
    return _opened(folder, table).read_row_group(group, columns=list(columns))


def _decoded(part: Part, case: Case, cell: Any) -> tuple[Any, Any]:
    """Pixels of an image in a cell, read as the file that it was."""
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(content, bytes) or not content:
        raise Refused("missing_image", f"{case.key!r} holds no bytes of an image; download the table with its images.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("image.jpg" if content.startswith(_JPEG) else "image.png")
        path.write_bytes(content)
        return read_image(part, path)
