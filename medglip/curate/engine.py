"""Converts a source's files into a dataset: finds the cases, runs the converter over them, writes part after part.

Cases are taken in the order of their keys and written in parts of fixed size; each part is committed before the next
begins. So a run that was ended goes on where it stopped, and gives the same bytes as an undisturbed one with any number
of workers. Knows nothing of formats.
"""

import hashlib
import importlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType

from medglip import store
from medglip.curate.cases import Case, Refused
from medglip.curate.grammar import load_source
from medglip.curate.source import Part, Source
from medglip.errors import DatasetError, InputError, MedglipError, SourceError
from medglip.records import Picture, Reject, VolumeRecord
from medglip.store.manifest import NAME
from medglip.store.place import Place

# Cases a part: what an interrupted run loses at most.
CASES_PER_PART = 256
# Tasks waiting a worker: enough that none is idle, few enough that memory stays bounded.
WINDOW = 4

Item = Picture | VolumeRecord | Reject


@dataclass(slots=True)
class Conversion:
    """What a conversion did.

    Attributes:
        source: Name of the source.
        cases: Cases found in the input.
        skipped: Of these, already in the dataset.
        done: Of these, in the dataset or rejected so far.
        images: Images written.
        regions: Regions written.
        volumes: Volumes written.
        rejects: Number of rejected items by reason.
        seconds: Wall time.
    """

    source: str
    cases: int = 0
    skipped: int = 0
    done: int = 0
    images: int = 0
    regions: int = 0
    volumes: int = 0
    rejects: Counter = field(default_factory=Counter)
    seconds: float = 0.0


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
    def fingerprint(self) -> str:
        """Changes when a file of the case is added, removed or of another size."""
        sizes = [(path, self.case.path(path).stat().st_size) for paths in self.case.files.values() for path in paths]
        return hashlib.sha1(repr(sorted(sizes)).encode()).hexdigest()[:16]


def convert(
    source: str | Path | Source, folder: Path, dataset: Path, *, workers: int = 1, limit: int | None = None,
    on_case: Callable[[Conversion], None] | None = None,
) -> Conversion:  # fmt: skip
    """Convert a folder of a source into a dataset, new or added to.

    Args:
        source: Name in ``datasets/``, path of a TOML, or a loaded source.
        folder: The source's files; never written to.
        dataset: The dataset; made if it is not there. Cases that it already holds are skipped.
        workers: Processes.
        limit: Convert at most this many cases of each part.
        on_case: Called after each case with the counts so far.

    Returns:
        What was done; ``rejects`` counts what could not be used, the dataset lists it.

    Raises:
        SourceError: the source's description is wrong.
        InputError: the folder is not there, is empty, or holds nothing of the source.
        DatasetError: the dataset cannot be added to.
    """
    begin = time.monotonic()
    source = source if isinstance(source, Source) else load_source(source)
    tasks, rejects = found_tasks(source, Path(folder), limit)
    done = _cases_done(Path(dataset), source)
    result = Conversion(source.name, cases=len(tasks))
    fresh: list[Task] = []
    for task in tasks:
        fingerprint, images = done.get(task.key, (None, 0))
        if fingerprint is None or (fingerprint != task.fingerprint and not images):
            fresh.append(task)
        elif fingerprint == task.fingerprint:
            result.skipped, result.done = result.skipped + 1, result.done + 1
        else:
            rejects.append(_changed(task))
    listed = _listed_rejects(Path(dataset), source) if done else set()
    rejects = [reject for reject in rejects if (reject.file, reject.reason) not in listed]
    results = _results(fresh, workers)
    writer = store.Writer(dataset)
    for start in range(0, max(len(fresh), 1 if rejects else 0), CASES_PER_PART):
        batch = fresh[start : start + CASES_PER_PART]
        _write(writer, source, batch, results, rejects, result, on_case)
        rejects = []
    result.seconds = time.monotonic() - begin
    return result


def found_tasks(source: Source, folder: Path, limit: int | None = None) -> tuple[list[Task], list[Reject]]:
    """Every case of a source in a folder, ordered by key, and the files that belong to none.

    Raises:
        InputError: the folder holds nothing of the source.
        Refused: a file that all its cases need cannot be used.
    """
    tasks: dict[str, Task] = {}
    rejects: list[Reject] = []
    failures: list[MedglipError] = []
    for part in source.parts:
        converter = load_converter(part)
        mine: list[Task] = []
        try:
            entries = list(converter.cases(part, folder))
        except (
            InputError,
            Refused,
        ) as error:  # its table lacks a column, say; the other parts can be read all the same
            failures.append(error)
            reason = error.reason if isinstance(error, Refused) else "unreadable_file"
            rejects.append(Reject(source.name, "", reason, str(error), part.name))
            continue
        for entry in entries:
            if isinstance(entry, Reject):
                rejects.append(entry)
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
    return [tasks[key] for key in sorted(tasks)], rejects


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


def _cases_done(dataset: Path, source: Source) -> dict[str, tuple[str, int]]:
    """Key -> (fingerprint, images written) of the source's cases in the dataset."""
    if not Place(dataset).exists(NAME):
        return {}
    done: dict[str, tuple[str, int]] = {}
    opened = store.open(dataset)
    for name, part in opened.manifest["parts"].items():
        if part["source"] != source.name:
            continue
        if part["source_digest"] != source.digest:
            raise DatasetError(
                f"Dataset {str(dataset)!r} holds cases of {source.name!r} that were converted by another version of its"
                " TOML; convert into a new dataset."
            )
        done.update({key: (fingerprint, images) for key, (fingerprint, images) in opened.cases(name).items()})
    return done


def _listed_rejects(dataset: Path, source: Source) -> set[tuple[str, str]]:
    table = store.open(dataset).rejects
    mine = table[table["dataset"] == source.name]
    return set(zip(mine["file"], mine["reason"], strict=True))


def _changed(task: Task) -> Reject:
    return Reject(
        task.part.source, next(iter(task.case.files.values()))[0], "changed_case",
        f"Case {task.key!r} is in the dataset already, from files of other sizes; convert into a new dataset.", task.key,
    )  # fmt: skip


def _write(
    writer: store.Writer, source: Source, batch: Sequence[Task], results: Iterator[list[Item]], rejects: Sequence[Reject],
    result: Conversion, on_case: Callable[[Conversion], None] | None,
) -> None:  # fmt: skip
    """Convert one batch of cases and commit it as a part."""
    volumes: list[VolumeRecord] = []
    refused = list(rejects)
    cases: dict[str, tuple[str, int]] = {}
    result.rejects.update(reject.reason for reject in rejects)
    before = result.volumes

    def pictures() -> Iterator[Picture]:
        for task in batch:
            items = next(results)
            images = [item for item in items if isinstance(item, Picture)]
            volumes.extend(item for item in items if isinstance(item, VolumeRecord))
            new = [item for item in items if isinstance(item, Reject)]
            refused.extend(new)
            cases[task.key] = (task.fingerprint, len(images))
            result.images += len(images)
            result.regions += sum(len(image.record.regions) for image in images)
            result.volumes = len(volumes) + before
            result.done += 1
            result.rejects.update(reject.reason for reject in new)
            yield from images
            if on_case:
                on_case(result)

    digest = hashlib.sha1("\n".join(task.key for task in batch).encode()).hexdigest()[:12]
    info = {
        "source": source.name, "title": source.title, "licence": source.licence, "citation": source.citation,
        "page": source.page, "access": source.access, "lineage": list(source.lineage), "source_digest": source.digest,
        "expected": source.expected, "matrix": source.matrix, "cases": cases,
    }  # fmt: skip
    writer.write(f"{source.name}-{digest}", pictures(), volumes, refused, info)


def _results(tasks: Sequence[Task], workers: int) -> Iterator[list[Item]]:
    """What each case gave, in the order of the tasks."""
    if workers <= 1 or len(tasks) < 2:
        for task in tasks:
            yield run(task)
        return
    waiting: deque[tuple[Task, Future[list[Item]]]] = deque()
    upcoming = iter(tasks)
    pool = _pool(workers)
    try:
        while True:
            while len(waiting) < WINDOW * workers and (coming := next(upcoming, None)) is not None:
                waiting.append((coming, pool.submit(run, coming)))
            if not waiting:
                return
            task, future = waiting.popleft()
            try:
                yield future.result()
            except BrokenProcessPool:  # a worker was killed: try its case alone, then begin again with the others
                pool.shutdown(wait=False, cancel_futures=True)
                yield _alone(task)
                pool = _pool(workers)
                waiting = deque((other, pool.submit(run, other)) for other, _ in waiting)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"))


def _alone(task: Task) -> list[Item]:
    """Convert one case in a process of its own, so that a case that kills its process is known by name."""
    with _pool(1) as pool:
        try:
            return pool.submit(run, task).result()
        except BrokenProcessPool:
            return [_refusal(task, "killed_process", "Its process was killed, perhaps for memory; try it with fewer workers.")]


def run(task: Task) -> list[Item]:
    """Convert one case; whatever goes wrong with it becomes a Reject."""
    try:
        return list(load_converter(task.part).convert(task.part, task.case))
    except Refused as error:
        return [_refusal(task, error.reason, str(error))]
    except SourceError as error:
        return [_refusal(task, "unknown_label", str(error))]
    except InputError as error:
        return [_refusal(task, "unreadable_file", str(error))]
    except MedglipError as error:
        return [_refusal(task, "invalid_record", str(error))]
    except Exception as error:  # one broken file of a thousand must not end the run
        return [_refusal(task, "failed", f"{type(error).__name__}: {error}")]


def _refusal(task: Task, reason: str, detail: str) -> Reject:
    return Reject(task.part.source, next(iter(task.case.files.values()), ("",))[0], reason, detail, task.key)
