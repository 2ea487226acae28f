"""What plain lists beside the images say: the split or the sequence of a case, the name of a class number. Knows no pixels.

Converters take two more file roles, each one file or a few for all cases of a part:

- ``lists``: text files with a name a line, or JSON files with lists of names or numbers. A case that a list names has the
  name ``{list}`` for the templates of the source's TOML (``split = "{list}"``): the key of the list in a JSON file that
  holds several, else what the pattern remembers under ``{list}`` of the file's own name. A case that no list names has
  an empty one, and so no official split;
- ``names``: a JSON file that names class numbers: one table, or a table of tables.

Their options:

- ``list_key``: template of what a line names; default the image's file. Folder, ending, case and leading zeros of a number
  do not count;
- ``sequence_starts``: first numbers of the sequences that a row of numbered frames is made of, ascending, for a source that
  publishes them so. The name ``{sequence}`` is 1 for the first of them;
- ``sequence_of``: template of a frame's number; default ``"{case}"``;
- ``class_under``: template of the table's name in the file of role ``names``; default: the file holds one table;
- ``class_of``: template of the number that the table is asked for. What it says is the name ``{class_name}``.
"""

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from medglip.curate.cases import Case, Refused
from medglip.curate.layout import find, without_ending
from medglip.curate.source import Part
from medglip.curate.tables import filled, needed
from medglip.errors import InputError, SourceError
from medglip.records import Reject

LIST_ROLES = ("lists", "names")
LIST_OPTIONS = ("list_key", "sequence_starts", "sequence_of", "class_under", "class_of")


def told(part: Part, cases: Iterable[Case | Reject]) -> Iterator[Case | Reject]:
    """The cases with what lists and sequences say of them.

    Raises:
        InputError: a file of the part's roles ``lists`` or ``names`` is not there, or broken.
        SourceError: a list has no word for what it means.
    """
    roles = [role for role in LIST_ROLES if role in part.files]
    if roles:
        cases = list(cases)
        for role in roles:
            needed(part, role, cases)
    words: dict[str, set[str]] | None = None
    for case in cases:
        if not isinstance(case, Case):
            yield case
            continue
        try:
            if "lists" in part.files:
                words = _words(part, case) if words is None else words  # every case has the same lists
                case = _listed(part, case, words)
            if "sequence_starts" in part.options:
                case = _in_sequence(part, case)
        except Refused as error:
            yield Reject(part.source, next(iter(case.files.values()))[0], error.reason, str(error), case.key)
            continue
        yield case


def class_name(part: Part, case: Case) -> str:
    """What the file of role ``names`` calls the class number of a case.

    Raises:
        InputError: the file is missing or broken.
        Refused: it has no such table, or no such number in it.
    """
    file = case.one("names")
    table = _json(case.folder, file)
    if under := part.option("class_under"):
        key = filled(under, case)
        if not isinstance(table, dict) or not isinstance(table.get(key), dict):
            raise Refused("unknown_label", f"File {file!r} has no table {key!r}; add it, or correct the option class_under.")
        table = table[key]
    number = filled(part.option("class_of", ""), case)
    for one, other in table.items() if isinstance(table, dict) else ():
        name, value = (one, str(other)) if _is_number(str(other)) else (str(other), one)
        if _is_number(value) and _is_number(number) and int(value) == int(number):
            return name
    raise Refused("unknown_label", f"File {file!r} has no name for the class {number!r} of case {case.key!r}; add it.")


def _listed(part: Part, case: Case, words: dict[str, set[str]]) -> Case:
    key = part.option("list_key")
    found = words.get(_plain(filled(key, case) if key else case.one("image")), set())
    if len(found) > 1:
        raise Refused("ambiguous_list", f"Case {case.key!r} is in the lists {sorted(found)}; it can be in one only.")
    return replace(case, fields={**case.fields, "list": next(iter(found), "")})


def _in_sequence(part: Part, case: Case) -> Case:
    starts, text = part.option("sequence_starts"), filled(part.option("sequence_of", "{case}"), case)
    number = bisect_right(starts, int(text)) if _is_number(text) else 0
    if not number:
        raise Refused("no_sequence", f"Case {case.key!r} is frame {text!r}; allowed: numbers from {starts[0]} up.")
    return replace(case, fields={**case.fields, "sequence": str(number)})


def _words(part: Part, case: Case) -> dict[str, set[str]]:
    """What the lists name -> the words of those that name it."""
    found: dict[str, set[str]] = defaultdict(set)
    for file in case.files["lists"]:
        own = next(find(part.files["lists"], (file,))).fields.get("list")
        if file.casefold().endswith(".json"):
            content = _json(case.folder, file)
            lists = content if isinstance(content, dict) else {own: content}
        else:
            lists = {own: _text(case.folder, file).splitlines()}
        for word, names in lists.items():
            if not isinstance(names, list):
                raise InputError(f"List {file!r} holds {type(names).__name__} under {word!r}; allowed: lists of names.")
            if word is None:
                raise SourceError(
                    f"datasets/{part.source}.toml: the list {file!r} has no word for what it means; remember it in the"
                    " pattern, as in 'subgroup_{list}.txt'."
                )
            for name in names:
                if plain := _plain(str(name)):
                    found[plain].add(word.casefold())
    return found


def _plain(name: str) -> str:
    """A name without folder, ending and leading zeros, in lower case.

    >>> _plain("images/0031.jpg"), _plain(" patient0031 "), _plain("000")
    ('31', 'patient0031', '0')
    """
    plain = without_ending(name.strip().replace("\\", "/").rpartition("/")[2].casefold())
    return str(int(plain)) if _is_number(plain) else plain


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _text(folder: Path, file: str) -> str:
    try:
        return (folder / file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"List {file!r} cannot be read: {error}.") from error


def _json(folder: Path, file: str) -> Any:
    try:
        stamp = (folder / file).stat()
    except OSError as error:
        raise InputError(f"File {file!r} cannot be read: {error.strerror}.") from error
    return _parsed(folder, file, stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=8)
def _parsed(folder: Path, file: str, _mtime: int, _size: int) -> Any:
    try:
        return json.loads(_text(folder, file))
    except (ValueError, RecursionError) as error:
        raise InputError(f"File {file!r} is not JSON: {error}.") from error
