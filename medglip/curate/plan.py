"""Which cases make which part of a dataset, from the input and what the dataset holds. Reads no file but for its size.

A plan divides the cases that are to be converted into parts. It follows from the input alone: from the keys, files and
sizes of the cases, never from the number of workers, from shards, or from what other processes have done of it. A part
is named by its plan and its number, so whoever meets parts of a plan in the dataset can make the same plan again.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medglip import store
from medglip.curate.source import Source
from medglip.curate.tasks import Task, fingerprint
from medglip.errors import DatasetError, InputError
from medglip.records import Reject
from medglip.store.manifest import NAME
from medglip.store.place import Place

# Cases and bytes of input files at which a part ends: what an interrupted run loses at most.
CASES_PER_PART = 256
BYTES_PER_PART = 2 * 2**30
_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Measured:
    """A task with what is known of its files.

    Attributes:
        task: The task.
        key: Key of the case in a dataset.
        fingerprint: Of names and sizes of its files.
        bytes: Their size; a file that several cases share counts with its share.
    """

    task: Task
    key: str
    fingerprint: str
    bytes: int

    @property
    def number(self) -> int:
        """Hash of key and fingerprint."""
        return _number_of(self.key, self.fingerprint)


@dataclass(frozen=True, slots=True)
class Done:
    """A case that a dataset holds.

    Attributes:
        part: The part that it is in.
        fingerprint: Of its files, as they were.
        images: Images that it gave.
    """

    part: str
    fingerprint: str
    images: int


@dataclass(frozen=True, slots=True)
class Shard:
    """Which parts one of several runs writes: of all parts every ``of``-th, from part ``number`` on (1 to ``of``)."""

    number: int
    of: int

    @staticmethod
    def of_text(text: str) -> "Shard":
        """A shard written as ``i/n``.

        Raises:
            InputError: it is not two whole numbers with 1 <= i <= n.
        """
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise InputError(f"Shard: found {text!r}; allowed: i/n with i from 1 to n, such as 3/8; give one of these.")
        return Shard(int(found[1]), int(found[2]))

    def takes(self, number: int) -> bool:
        """Whether it writes the part of a number, from 0."""
        return number % self.of == self.number - 1


@dataclass(frozen=True, slots=True)
class Plan:
    """The parts that are to be written.

    Attributes:
        source: Name of the source.
        id: 12 hex digits that follow from the cases.
        parts: The cases of each part.
        fresh: Numbers of the parts that are not in the dataset.
        finished: Plans of which the dataset has every part: their ids.
    """

    source: str
    id: str
    parts: tuple[tuple[Measured, ...], ...]
    fresh: tuple[int, ...]
    finished: tuple[str, ...]

    def name(self, number: int) -> str:
        """Name of a part."""
        return f"{self.source}-{self.id}-{number:05d}"

    @property
    def names(self) -> list[str]:
        """Names of all parts."""
        return [self.name(number) for number in range(len(self.parts))]

    def number(self, part: str) -> int | None:
        """Number of a part of the dataset, None where it is of no part of this plan."""
        plan, number = part_of(self.source, part)
        return number if plan == self.id else None


def part_of(source: str, name: str) -> tuple[str | None, int]:
    """Plan and number by the name of a part; None where it has another name (it was joined with others, say)."""
    found = re.fullmatch(rf"{re.escape(source)}-([0-9a-f]{{{_DIGITS}}})-(\d{{5,}})", name)
    return (found[1], int(found[2])) if found else (None, 0)


def measured(tasks: Sequence[Task]) -> list[Measured]:
    """The tasks with the sizes of their files; each file is looked at once."""
    users = Counter(path for task in tasks for path in set(task.files))
    sizes: dict[Path, int] = {}
    found = []
    for task in tasks:
        listed = []
        for file in task.files:
            path = task.case.path(file)
            if path not in sizes:
                sizes[path] = _size(path)
            listed.append((file, sizes[path]))
        share = sum(max(size, 0) // users[file] for file, size in dict(listed).items())
        found.append(Measured(task, task.ledger_key, fingerprint(task.part, listed), share))
    return found


def made_plan(source: str, cases: Sequence[Measured], done: dict[str, Done], rejects: Iterable[Reject] = ()) -> Plan:
    """The plan for the cases that a dataset lacks; the one that it was begun with, where it is in the midst of one.

    Args:
        source: Name of the source.
        cases: All cases of the input, in order.
        done: The cases of the dataset.
        rejects: What the input holds beside the cases and the dataset does not list yet; goes with the first part.
    """
    fresh, mine = 0, Counter[str]()
    for case in cases:
        before = _before(case, done)
        if before is None:
            fresh += case.number
        elif plan := part_of(source, before.part)[0]:
            mine[plan] += case.number
    finished = tuple(sorted(plan for plan, total in mine.items() if _text(total) == plan))
    begun = [plan for plan, total in mine.items() if plan not in finished and _text(fresh + total) == plan]
    for plan in begun:
        found = _continued(source, plan, cases, done, finished)
        if found is not None:
            return found
    left = [case for case in cases if _before(case, done) is None]
    parts = cut(left)
    extra = [_number_of(*map(str, (reject.file, reject.reason, reject.detail))) for reject in rejects]
    if extra and not parts:
        parts, fresh = ((),), sum(extra)
    return Plan(source, _text(fresh), parts, tuple(range(len(parts))), finished)


def cut(cases: Iterable[Measured]) -> tuple[tuple[Measured, ...], ...]:
    """The cases in parts: each ends with the case that makes its number or its bytes full."""
    parts: list[tuple[Measured, ...]] = []
    part: list[Measured] = []
    size = 0
    for case in cases:
        part.append(case)
        size += case.bytes
        if len(part) >= CASES_PER_PART or size >= BYTES_PER_PART:
            parts.append(tuple(part))
            part, size = [], 0
    return (*parts, tuple(part)) if part else tuple(parts)


def cases_done(dataset: Path, source: Source) -> dict[str, Done]:
    """The source's cases in a dataset, by key.

    Raises:
        DatasetError: they were converted by another version of the source, or the dataset is broken.
    """
    if not Place(dataset).exists(NAME):
        return {}
    done: dict[str, Done] = {}
    opened = store.open(dataset)
    for name, part in opened.manifest["parts"].items():
        if part["source"] != source.name:
            continue
        if part["source_digest"] != source.digest:
            raise DatasetError(
                f"Dataset {str(dataset)!r} holds cases of {source.name!r} that were converted by another version of its"
                " TOML; convert into a new dataset."
            )
        done.update({key: Done(name, mark, images) for key, (mark, images) in opened.cases(name).items()})
    return done


def listed_rejects(dataset: Path, source: Source) -> set[tuple[str, str]]:
    """File and reason of the source's rejects that a dataset lists."""
    table = store.open(dataset).rejects
    mine = table[table["dataset"] == source.name]
    return set(zip(mine["file"], mine["reason"], strict=True))


def is_changed(case: Measured, done: dict[str, Done]) -> bool:
    """Whether images of the case are in the dataset, from files of other sizes."""
    before = done.get(case.key)
    return before is not None and before.images > 0 and before.fingerprint != case.fingerprint


def _before(case: Measured, done: dict[str, Done]) -> Done | None:
    """What the dataset holds of a case; None where it is to be converted, be it once more: it gave nothing before."""
    before = done.get(case.key)
    return None if before is None or (before.fingerprint != case.fingerprint and not before.images) else before


def _continued(
    source: str, plan: str, cases: Sequence[Measured], done: dict[str, Done], finished: tuple[str, ...]
) -> Plan | None:
    """A plan that was begun; None where the parts in the dataset are not those that it would have."""

    def is_mine(before: Done | None) -> bool:
        return before is None or part_of(source, before.part)[0] == plan

    parts = cut(case for case in cases if is_mine(_before(case, done)))
    whole = Plan(source, plan, parts, (), finished)
    fresh = []
    for number, part in enumerate(parts):
        homes = {before.part if (before := _before(case, done)) else None for case in part}
        if homes == {None}:
            fresh.append(number)
        elif homes != {whole.name(number)}:
            return None
    return Plan(source, plan, parts, tuple(fresh), finished)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # it went since it was listed; its case will be refused, with the reason
        return -1


def _number_of(*texts: str) -> int:
    return int.from_bytes(hashlib.sha1(repr(texts).encode()).digest()[: _DIGITS // 2], "big")


def _text(number: int) -> str:
    return f"{number % 16**_DIGITS:0{_DIGITS}x}"
