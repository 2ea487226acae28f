"""Finds text in a dataset that may name a patient: identifiers, dates, names, paths. Knows nothing of labels or pixels.

A rule of thumb over strings, not a de-identification: burned-in text and free prose are out of its reach.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

_YEAR, _MONTH, _DAY = "(19|20)[0-9]{2}", "(0[1-9]|1[0-2])", "(0[1-9]|[12][0-9]|3[01])"
# Written for RE2, which Arrow uses: no look-around, so a neighbour that must not be a digit is part of the match.
PATTERNS = {
    "a DICOM UID": r"(^|[^0-9.])[0-9]+(\.[0-9]+){5,}",
    "a date": rf"(^|[^0-9]){_YEAR}({_MONTH}{_DAY}|-{_MONTH}-{_DAY})($|[^0-9])",
    "a person's name": r"[A-Za-z][A-Za-z'-]+\^[A-Za-z]",
    "an absolute path": r"(^|[\s'\"(=])(/[\w.@+-]+){2,}|(^|[^A-Za-z])[A-Za-z]:[\\/]\w|\\\\\w+\\",
}
# Columns that say where something came from. A public source's own file names may hold UIDs and dates.
_PROVENANCE = ("file", "case", "instance")
_MILD = ("a DICOM UID", "a date")
# Hashes and numbers made here.
_OWN = ("id", "image_id", "sha256", "shard", "patient", "study", "series", "group", "rle", "parents")


class Trace(NamedTuple):
    """A string that may name a patient.

    Attributes:
        row: Row of the table.
        column: Its column.
        what: Which pattern it holds.
        mild: True where a public source's own name may look so (a UID as file name).
    """

    row: int
    column: str
    what: str
    mild: bool


def columns_to_search(schema: pa.Schema) -> list[str]:
    """The columns of a table that hold text of the source."""
    return [field.name for field in schema if field.name not in _OWN and field.type in (pa.string(), pa.list_(pa.string()))]


def traces(table: pa.Table) -> Iterator[Trace]:
    """Strings of a table that may name a patient, at most one per row, column and pattern.

    Args:
        table: Columns of text, or of lists of text.
    """
    for name in columns_to_search(table.schema):
        column = table[name].combine_chunks()
        rows = pa.array(range(len(column)), pa.int64())
        if pa.types.is_list(column.type):
            rows, column = pc.list_parent_indices(column), pc.list_flatten(column)
        values = column.dictionary_encode()
        for what, pattern in PATTERNS.items():
            found = pc.match_substring_regex(values.dictionary, pattern)
            if pc.any(found).as_py():
                mild = name in _PROVENANCE and what in _MILD
                hits = rows.filter(pc.fill_null(found.take(values.indices), False))
                yield from (Trace(row, name, what, mild) for row in pc.unique(hits).to_pylist())


def absolute_paths(value: object) -> Iterator[str]:
    """Strings inside a JSON value that hold an absolute path."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from absolute_paths(key)
            yield from absolute_paths(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from absolute_paths(item)
    elif isinstance(value, str) and re.search(PATTERNS["an absolute path"], value):
        yield value
