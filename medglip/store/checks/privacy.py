"""Finds text in a dataset that may name a patient: identifiers, dates, names, paths. Knows nothing of labels or pixels.

A rule of thumb over strings, not a de-identification: burned-in text and free prose are out of its reach.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from medglip.store.checks.problems import Problem

_YEAR, _MONTH, _DAY = "(19|20)[0-9]{2}", "(0[1-9]|1[0-2])", "(0[1-9]|[12][0-9]|3[01])"
_LETTER = "[A-Za-z\u00c0-\U0010ffff]"  # of any script; neither of the two engines has a sign for it that the other knows
_SHORT_MONTH, _SHORT_DAY = "(0?[1-9]|1[0-2])", "(0?[1-9]|[12][0-9]|3[01])"
_WORD_MONTH = "(?i:jan|feb|m[aä]r|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz])[a-zä]{0,7}"
# Written for RE2, which Arrow uses: no look-around, so a neighbour that must not be a digit is part of the match.
PATTERNS = {
    "a DICOM UID": r"(^|[^0-9.])[0-9]+(\.[0-9]+){5,}",
    "a date": (
        rf"(^|[^0-9])({_YEAR}({_MONTH}{_DAY}|[-/]{_SHORT_MONTH}[-/]{_SHORT_DAY})|{_SHORT_DAY}[./-]{_SHORT_MONTH}[./-]{_YEAR}"
        rf"|{_SHORT_MONTH}/{_SHORT_DAY}/{_YEAR}|{_SHORT_DAY}[. -]{{0,2}}{_WORD_MONTH}[., -]{{1,2}}{_YEAR})($|[^0-9])"
        rf"|(^|[^A-Za-z]){_WORD_MONTH} {_SHORT_DAY}(st|nd|rd|th)?,? {_YEAR}($|[^0-9])"
    ),
    "a person's name": rf"{_LETTER}['-]?{_LETTER}{{1,64}}\^+{_LETTER}",
    "a name with a title": r"(^|[^A-Za-z])(Mr|Mrs|Ms|Dr|Prof|Herr|Frau|Mme)\.? [A-Z][a-z]+",
    "a patient's name or number": (
        r"(?i:(patient'?s?[ _]?(name|id|no|number|birth[ _]?date|address)|\(0010,[ ]?[0-9a-f]{4}\)"
        r"|(^|[^a-z])(mrn|ssn|dob|date of birth|birth[ _]?date|(hospital|medical record) (no|number)|accession( number)?))"
        r"['\"]?\s*[:=#]\s*['\"]?\w|(^|[^a-z])(mrn|ssn) [a-z]?[0-9]{3})"
    ),
    "a social security or telephone number": (
        r"(^|[^0-9A-Za-z.-])([0-9]{3}-[0-9]{2}-[0-9]{4}|\+[0-9]{1,3}[ /-]?\(?[0-9]{2,5}\)?([ /-]?[0-9]{2,5}){2,4})"
        r"($|[^0-9A-Za-z.-]|\.($|[^0-9]))"
    ),
    "an e-mail address": r"[A-Za-z0-9][A-Za-z0-9._%+-]{0,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}",
    "an absolute path": r"(^|[\s'\"(=])(/[\w.@+-]+){2,}|(^|[^A-Za-z])[A-Za-z]:[\\/]\w|\\\\\w+\\",
    "a number like those of hospitals' patients": r"(^|[^0-9A-Za-z._-])[0-9]{7,10}($|[^0-9A-Za-z._-]|\.($|[^0-9]))",
}
# Columns that say where something came from. A public source's own file names may hold UIDs, dates and numbers.
_PROVENANCE = ("file", "case", "instance", "detail")
_MILD = ("a DICOM UID", "a date")
_TITLED = "a name with a title"  # in texts that were published, mostly who wrote them
_NUMBER = "a number like those of hospitals' patients"
# Prose; elsewhere a long number is more often a size or the source's own count.
_PROSE = ("text", "answer", "phrases")
# Hashes and numbers made here, and words of medglip's own lists.
_OWN = ("id", "image_id", "sha256", "perceptual_hash", "shard", "patient", "study", "series", "group", "rle", "parents",
        "concept", "label", "laterality", "phrase_kinds", "provenance", "split", "split_source", "modality", "unit", "axis",
        "kind", "body_region", "orientation")  # fmt: skip
# One look at a text tells whether to look closer; hardly any does.
_ANY = "|".join(f"(?:{pattern})" for pattern in PATTERNS.values())


class Trace(NamedTuple):
    """A string that may name a patient.

    Attributes:
        row: Row of the table.
        column: Its column.
        what: Which pattern it holds.
        mild: True where a public source's own name may look so (a UID as file name), or an author's.
    """

    row: int
    column: str
    what: str
    mild: bool

    def problem(self, where: str, rows: pa.RecordBatch) -> Problem:
        """What to say of it: never the text itself, which would spread it.

        Args:
            where: File and row.
            rows: The rows that were searched, for the ids of image and region.
        """
        names = rows.schema.names
        region = rows.column("id")[self.row].as_py() if "image_id" in names and "id" in names else ""
        image = rows.column("image_id" if "image_id" in names else "id")[self.row].as_py() if "shape_k" not in names else ""
        what = f"The text holds what looks like {self.what}; a dataset must not name patients."
        return Problem("note" if self.mild else "error", f"{where}, column {self.column!r}", what, "privacy", image, region)


def columns_to_search(schema: pa.Schema) -> list[str]:
    """The columns of a table that hold text of the source."""
    return [field.name for field in schema if field.name not in _OWN and _is_text(field.type)]


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or (pa.types.is_list(kind) and pa.types.is_string(kind.value_type))


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
        suspect = pc.fill_null(pc.match_substring_regex(values.dictionary, _ANY), False)
        if not pc.any(suspect).as_py():
            continue
        for what, pattern in PATTERNS.items():
            mild = what == _TITLED or (name in _PROVENANCE and what in _MILD)
            if what == _NUMBER:
                if name in _PROVENANCE:
                    continue
                mild = name not in _PROSE
            found = pc.and_kleene(suspect, pc.match_substring_regex(values.dictionary, pattern))
            if pc.any(found).as_py():
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
