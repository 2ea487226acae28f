r"""Path patterns: which files of a folder belong to a source, and what their names say. Knows nothing of what is in them.

A pattern is a path relative to the input folder, with ``/``, in which

- ``{name}`` stands for some characters of one folder or file name, remembered under that name;
- ``{name:regex}`` does so where they fit the regular expression, for example ``{slice:\d+}``;
- ``*`` stands for any characters of one name, and ``**/`` for any number of folders, also none;
- everything else stands for itself, upper or lower case alike.

A name that occurs twice in a pattern must stand for the same text both times.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from medglip.errors import InputError, SourceError

# What archives and desktops leave behind beside the data.
_DEBRIS = re.compile(r"(^|/)(\._.*|__MACOSX(/.*)?|\.DS_Store|Thumbs\.db|desktop\.ini)$", re.IGNORECASE)
_ENDING = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,7}$")
_TOKEN = re.compile(r"\*\*/|\*|\{(?P<name>[a-z_]+)(?::(?P<rule>(?:[^{}]|\{\d+(?:,\d*)?\})+))?\}")


@dataclass(frozen=True, slots=True)
class Found:
    """One file that fits a pattern: its path relative to the folder, with ``/``, and what its name says."""

    path: str
    fields: dict[str, str]


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    r"""Regular expression of a pattern.

    Raises:
        SourceError: the pattern is not well formed.

    >>> compiled("images/{case}_{slice:\\d+}.png").fullmatch("images/p1_07.png").groupdict()
    {'case': 'p1', 'slice': '07'}
    """
    parts: list[str] = []
    at, seen = 0, set()
    for token in _TOKEN.finditer(pattern):
        parts.append(re.escape(pattern[at : token.start()]))
        at = token.end()
        name, rule = token["name"], token["rule"]
        if name is None:
            parts.append("(?:[^/]+/)*" if token[0] == "**/" else "[^/]*")
        elif name in seen:
            parts.append(f"(?P={name})")
        else:
            seen.add(name)
            parts.append(f"(?P<{name}>{rule or '[^/]+?'})")
    parts.append(re.escape(pattern[at:]))
    try:
        return re.compile("".join(parts), re.IGNORECASE)
    except re.error as error:
        raise SourceError(f"The pattern {pattern!r} is not well formed: {error}; see medglip/curate/layout.py.") from error


def listed(folder: Path) -> tuple[str, ...]:
    """Paths of all files under a folder, relative, with ``/``, sorted; debris of archives and desktops left out.

    Raises:
        InputError: it is not a folder, or holds no file.
    """
    if not folder.is_dir():
        raise InputError(f"Input {str(folder)!r} is not a folder; give the folder that holds the source's files.")
    root = str(folder)
    paths = (
        os.path.relpath(os.path.join(where, name), root).replace(os.sep, "/")
        for where, _, names in os.walk(root)
        for name in names
    )
    kept = tuple(sorted(path for path in paths if not _DEBRIS.search(path)))
    if not kept:
        raise InputError(f"Input folder {root!r} holds no file; give the folder that holds the source's files.")
    return kept


def without_ending(name: str) -> str:
    """A file's name without what tells its format; the last number of a UID is no ending.

    >>> without_ending("images/a.png"), without_ending("1.2.840.113")
    ('images/a', '1.2.840.113')
    """
    return _ENDING.sub("", name)


def find(pattern: str, paths: tuple[str, ...]) -> Iterator[Found]:
    """Those of ``paths`` that fit, in their order."""
    fits = compiled(pattern).fullmatch
    for path in paths:
        if match := fits(path):
            yield Found(path, {name: text or "" for name, text in match.groupdict().items()})
