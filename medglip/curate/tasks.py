"""Tasks: the cases of a source with what reads them, and what running one gives. Knows no processes and no dataset."""

import hashlib
import importlib
import pickle
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from medglip.curate.cases import Case, Refused
from medglip.curate.privacy.hiding import hidden, hidden_key
from medglip.curate.privacy.keys import keyed
from medglip.curate.source import Part, Source
from medglip.errors import InputError, MedglipError, SourceError
from medglip.records import Picture, Reject, VolumeRecord
from medglip.store.prepared import Prepared, Preparing

# What a worker says of an outcome that it left in a file: a pipe takes so much (PIPE_BUF of POSIX is 4,096 on Linux) whole
# or not at all, so that a worker that is killed never leaves half a message, for whose other half its reader would wait.
SAID_BYTES = 2048

Item = Picture | VolumeRecord | Reject
# What a part says of a file that is for another part.
_NOT_MINE = ("not_a_picture", "other_modality")


@dataclass(frozen=True, slots=True)
class Task:
    """One case with the part that says how to read it."""

    part: Part
    case: Case

    @property
    def key(self) -> str:
        """Unique in the source."""
        return f"{self.part.name}:{self.case.key}"

    @property
    def ledger_key(self) -> str:
        """The key under which a dataset keeps the case; of a private source it tells no name."""
        return hidden_key(self.part, self.key)

    @property
    def files(self) -> list[str]:
        """Its files, relative, sorted."""
        return sorted(path for paths in self.case.files.values() for path in paths)

    def refusal(self, reason: str, detail: str) -> Reject:
        """The reject of the whole case."""
        file = next(iter(self.case.files.values()), ("",))[0]
        return Reject(self.part.source, file, reason, detail, self.key)


@dataclass(slots=True)
class Outcome:
    """What running a task gave, as it may be stored.

    Attributes:
        pictures: Images, ready to be written; None where there are none.
        volumes: Volumes.
        rejects: What could not be used.
        said: The same rejects with the true names of files, for the terminal.
    """

    pictures: Prepared | None
    volumes: list[VolumeRecord]
    rejects: list[Reject]
    said: list[Reject]

    @property
    def images(self) -> int:
        """Number of images."""
        return self.pictures.images.num_rows if self.pictures else 0

    @property
    def regions(self) -> int:
        """Number of regions."""
        return self.pictures.regions.num_rows if self.pictures else 0


@dataclass(frozen=True, slots=True)
class Spilled:
    """An outcome that waits in a file; true names stay out of it, for a killed run leaves it behind.

    Attributes:
        path: The file.
        said: The first rejects with the true names of files, as many as ``SAID_BYTES`` hold.
    """

    path: Path
    said: list[Reject]

    def taken(self) -> Outcome:
        """The outcome; the file goes."""
        with self.path.open("rb") as file:
            outcome = pickle.load(file)
        self.path.unlink()
        return replace(outcome, said=self.said + outcome.rejects[len(self.said) :])


class NoInputError(InputError):
    """The input folder is not there (any more), where a case is to be read; nothing is said of the case."""


def found_tasks(source: Source, folder: Path, limit: int | None = None) -> tuple[list[Task], list[Reject]]:
    """Every case of a source in a folder, ordered by key, and the files that belong to none, with their true names.

    Raises:
        InputError: the folder holds nothing of the source.
        Refused: a file that all its cases need cannot be used.
    """
    tasks, rejects = found_of_parts(source, folder, limit)
    return tasks, [reject for _, reject in rejects]


def found_of_parts(source: Source, folder: Path, limit: int | None = None) -> tuple[list[Task], list[tuple[Part, Reject]]]:
    """As ``found_tasks``, each reject with the part whose converter gave it."""
    tasks: dict[str, Task] = {}
    rejects: list[tuple[Part, Reject]] = []
    failures: list[MedglipError] = []
    for part in source.parts:
        converter = load_converter(part)
        mine: list[Task] = []
        try:
            entries = list(converter.cases(part, folder))
        except (InputError, Refused) as error:  # its table lacks a column, say; the other parts can be read all the same
            failures.append(error)
            reason = error.reason if isinstance(error, Refused) else "unreadable_file"
            rejects.append((part, Reject(source.name, "", reason, str(error), part.name)))
            continue
        for entry in entries:
            if isinstance(entry, Reject):
                rejects.append((part, entry))
            elif limit is None or len(mine) < limit:
                mine.append(Task(part, entry))
        for task in mine:
            if task.key in tasks:
                raise SourceError(f"datasets/{source.name}.toml: two cases have the key {task.key!r}; name the parts.")
            tasks[task.key] = task
    if failures and not tasks:
        raise failures[0]
    if not tasks:
        patterns = sorted({pattern for part in source.parts for pattern in part.files.values()})
        raise InputError(
            f"Input folder {str(folder)!r} holds nothing of the source {source.name!r}, which looks for"
            f" {', '.join(map(repr, patterns[:4]))}; give the folder in which these paths begin."
        )
    return [tasks[key] for key in sorted(tasks)], _said_once(tasks, rejects)


def _said_once(tasks: dict[str, Task], rejects: list[tuple[Part, Reject]]) -> list[tuple[Part, Reject]]:
    """The rejects less what several parts say of one file, and what is nothing for one part and a case of another."""
    taken = {file for task in tasks.values() for file in task.files}
    known = {reject.file for _, reject in rejects if reject.reason not in _NOT_MINE}
    once: dict[tuple[str, str, str], tuple[Part, Reject]] = {}
    for part, reject in rejects:
        if reject.reason in _NOT_MINE and (reject.file in taken or reject.file in known):
            continue
        once.setdefault((reject.file, reject.reason, reject.detail), (part, reject))
    return list(once.values())


def load_converter(part: Part) -> ModuleType:
    """The converter that a part names, checked to know the part's roles and options.

    Raises:
        SourceError: there is no such converter, or it does not know a role or option.
    """
    try:
        converter = importlib.import_module(f"medglip.converters.{part.converter}")
    except ModuleNotFoundError as error:
        if error.name != f"medglip.converters.{part.converter}":
            raise
        raise SourceError(
            f"datasets/{part.source}.toml: there is no converter {part.converter!r}; converters/ lists them."
        ) from error
    for given, allowed, what in (
        (part.files, converter.ROLES, "file role"),
        (part.options, converter.OPTIONS, "option"),
    ):
        if extra := sorted(set(given) - set(allowed)):
            raise SourceError(
                f"datasets/{part.source}.toml: the converter {part.converter!r} has no {what} {extra[0]!r};"
                f" allowed: {', '.join(allowed)}."
            )
    return converter


def run(task: Task) -> list[Item]:
    """Convert one case; whatever goes wrong with it becomes a Reject. Names are hidden where the source is private."""
    return [hidden(task.part, item) for item in _items(task, lambda item: item)]


def worked(task: Task) -> Outcome:
    """Convert one case as ``run`` does, and make PNGs of its pixels, one by one, so that no volume of them piles up.

    Raises:
        NoInputError: the input folder is not there.
    """
    if not task.case.folder.is_dir():
        raise NoInputError(
            f"Input folder {str(task.case.folder)!r} is not there where {task.key!r} is to be read (another machine, or a"
            " disk that went); make it readable under that path, and run again."
        )
    taken = Preparing()

    def finished(item: Item) -> Item | None:
        if not isinstance(item, Picture):
            return item
        taken.add(hidden(task.part, item))
        return None

    items = _items(task, finished)
    said = [item for item in items if isinstance(item, Reject)]
    volumes = [hidden(task.part, item) for item in items if isinstance(item, VolumeRecord)]
    whole = None in items  # else its pictures, if there were any, went with the rest of a case that failed
    return Outcome(taken.end() if whole else None, volumes, [hidden(task.part, reject) for reject in said], said)


def refused(task: Task, reason: str, detail: str) -> Outcome:
    """The outcome of a case that could not be run."""
    reject = task.refusal(reason, detail)
    return Outcome(None, [], [hidden(task.part, reject)], [reject])


def spilled(task: Task, folder: str) -> Spilled:
    """As ``worked``; the outcome is left in a file of the folder, so that many do not fill the memory of who takes them."""
    outcome = worked(task)
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".outcome", delete=False) as file:
        pickle.dump(replace(outcome, said=[]), file, protocol=pickle.HIGHEST_PROTOCOL)
    said = list(outcome.said)
    while len(pickle.dumps(said)) > SAID_BYTES:
        said = said[: len(said) // 2]
    return Spilled(Path(file.name), said)


def _items(task: Task, finish: Callable[[Any], Any]) -> list[Any]:
    """What the converter gives, each item finished as it comes; one Reject instead of all of it where it fails."""
    try:
        return [finish(item) for item in load_converter(task.part).convert(task.part, task.case)]
    except Refused as error:
        return [task.refusal(error.reason, str(error))]
    except SourceError as error:
        return [task.refusal("unknown_label", str(error))]
    except InputError as error:
        return [task.refusal(getattr(error, "reason", "unreadable_file"), str(error))]
    except MedglipError as error:
        return [task.refusal("invalid_record", str(error))]
    except MemoryError:
        return [task.refusal("too_large", "It does not fit into memory; convert it alone, or on a larger machine.")]
    except Exception as error:  # one broken file of a thousand must not end the run
        return [task.refusal("failed", f"{type(error).__name__}: {error}")]


def fingerprint(part: Part, sizes: list[tuple[str, int]]) -> str:
    """Changes when a file of a case is added, removed or of another size; of a private source nobody guesses names by it.

    Args:
        part: Where the case is from.
        sizes: Path and bytes of each file, sorted.
    """
    told = repr(sizes)
    return hashlib.sha1(told.encode()).hexdigest()[:16] if part.public_names else keyed(part.source, told) or ""
