"""What stands in a dataset for each file and case of a private source: for who has the files and the key. Writes nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from medglip.curate.cases import Case
from medglip.curate.inputs import beginning, opened_input
from medglip.curate.layout import listed
from medglip.curate.privacy.hiding import hidden_file, hidden_key
from medglip.curate.source import Part, Source
from medglip.curate.tasks import load_converter
from medglip.errors import InputError, MedglipError
from medglip.records import Reject


class HiddenName(NamedTuple):
    """A name and what is stored for it.

    Attributes:
        kind: ``file`` or ``case``.
        stored: What the dataset holds.
        name: What the source calls it: a path relative to the input folder, or the key of a case.
    """

    kind: str
    stored: str
    name: str


def hidden_names(source: Source, given: str | Path) -> list[HiddenName]:
    """Every file of an input and every case of a source in it, under the key that is set, each once.

    Args:
        source: The source.
        given: The source's files, as ``medglip convert`` takes them.

    Raises:
        InputError: the input is not there or empty, or the key is not good.
    """
    found: dict[HiddenName, None] = {}
    with _opened(source, given) as folder:
        for path in listed(folder):
            # a sentence may name a file without its folder
            for name in (path, PurePosixPath(path).name):
                found[HiddenName("file", hidden_file(source, name), path)] = None
        for part, entry in _entries(source, folder):
            if isinstance(entry, Reject):
                found[HiddenName("file", hidden_file(part, entry.file), entry.file)] = None
            key = entry.key if isinstance(entry, Case) else entry.case
            found[HiddenName("case", hidden_key(part, key), key)] = None
    return [name for name in found if name.name]


@contextmanager
def _opened(source: Source, given: str | Path) -> Iterator[Path]:
    """The local folder in which the source's paths begin, as a conversion finds it."""
    with opened_input(given) as opened:
        yield beginning(opened, [pattern for part in source.parts for pattern in part.files.values()])


def rejects_in_clear(source: Source, given: str | Path, stored: str) -> list[Reject]:
    """What is wrong with a case, in full sentences with its names: it is read once more. For the curator's eyes only.

    Args:
        source: The source.
        given: The source's files, as ``medglip convert`` takes them.
        stored: What the dataset holds for the case, or for a file that belongs to no case.

    Raises:
        InputError: no case and no file of the input has that name under the key that is set.
    """
    stored = stored.rpartition(":")[2]
    found: list[Reject] = []
    known = False
    with _opened(source, given) as folder:
        for part, entry in _entries(source, folder):
            if isinstance(entry, Reject):
                if stored in (hidden_file(part, entry.file), hidden_key(part, entry.case)):
                    known, found = True, [*found, entry]
            elif stored == hidden_key(part, entry.key) or stored in (
                hidden_file(part, path) for paths in entry.files.values() for path in paths
            ):
                known, found = True, [*found, *_rejects_of(part, entry)]
    if not known:
        raise InputError(
            f"{stored!r}: no case and no file of {str(given)!r} is stored so; give the folder and the key of the conversion."
        )
    return found


def _entries(source: Source, folder: Path) -> Iterator[tuple[Part, Case | Reject]]:
    for part in source.parts:
        try:
            for entry in load_converter(part).cases(part, folder):
                yield part, entry
        except MedglipError as error:  # its table is broken, say; the other parts can be read all the same
            yield part, Reject(part.source, "", "unreadable_file", str(error), part.name)


def _rejects_of(part: Part, case: Case) -> list[Reject]:
    """What the converter refuses of a case."""
    found: list[Reject] = []
    try:
        for item in load_converter(part).convert(part, case):
            if isinstance(item, Reject):
                found.append(item)
    except Exception as error:  # as in a conversion: whatever a broken file brings about
        first = next(iter(case.files.values()), ("",))[0]
        found.append(Reject(part.source, first, getattr(error, "reason", type(error).__name__), str(error), case.key))
    return found
