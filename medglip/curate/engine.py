"""Converts a source's files into a dataset: finds the cases, runs the converter over them, writes part after part.

Cases are taken in the order of their keys and written in parts that follow from the input alone; each part is committed
before the next begins. So a run that was ended goes on where it stopped, and gives the same bytes as an undisturbed one
with any number of workers, on any engine, and in any number of shards. Knows nothing of formats.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from medglip import store
from medglip.curate.grammar import load_source
from medglip.curate.plan import Measured, Shard, cases_done, is_changed, listed_rejects, made_plan, measured
from medglip.curate.pools import outcomes_here, outcomes_in_processes
from medglip.curate.privacy.hiding import hidden
from medglip.curate.privacy.keys import check_same_key, key_facts
from medglip.curate.source import Part, Source
from medglip.curate.stopping import Look, stops_held
from medglip.curate.tasks import Outcome, Task, found_of_parts, found_tasks, load_converter, run
from medglip.errors import InputError
from medglip.records import Reject, VolumeRecord
from medglip.store.commit import staging
from medglip.store.manifest import NAME
from medglip.store.place import Place
from medglip.store.prepared import Prepared
from medglip.store.settle import settle

__all__ = ["Conversion", "Input", "Task", "convert", "found_tasks", "load_converter", "run"]

_ADDRESS = re.compile(r"[a-z]+://\S+")


@dataclass(slots=True)
class Conversion:
    """What a conversion did.

    Attributes:
        source: Name of the source.
        cases: Cases found in the input; of a shard, those of its parts.
        skipped: Of these, already in the dataset.
        done: Of these, in the dataset or rejected so far.
        committed: Of these, in the dataset for good: what a run that is ended now has not to do again.
        images: Images written.
        regions: Regions written.
        volumes: Volumes written.
        rejects: Number of rejected items by reason.
        latest: What was rejected of the last case, with the true names of files.
        complete: Whether the dataset holds all that the input has, of all shards.
        seconds: Wall time.
    """

    source: str
    cases: int = 0
    skipped: int = 0
    done: int = 0
    committed: int = 0
    images: int = 0
    regions: int = 0
    volumes: int = 0
    rejects: Counter = field(default_factory=Counter)
    latest: tuple[Reject, ...] = ()
    complete: bool = False
    seconds: float = 0.0


OnCase = Callable[[Conversion], None]


@dataclass(frozen=True, slots=True)
class Input:
    """An input with how it is to be opened; see ``medglip.curate.inputs.opened_input``.

    Attributes:
        given: Path or address.
        scratch: Folder for what is unpacked or fetched, kept; None for a temporary one.
        on_step: Called as ``on_step(done, total, note)`` while it is opened.
    """

    given: str | Path
    scratch: Path | None = None
    on_step: Callable[[int, int, str], None] | None = None


def convert(
    source: str | Path | Source, folder: str | Path | Input, dataset: str | Path, *, workers: int = 1,
    limit: int | None = None, engine: str = "processes", shard: str | None = None, on_case: OnCase | None = None,
) -> Conversion:  # fmt: skip
    """Convert the files of a source into a dataset, new or added to.

    Args:
        source: Name in ``datasets/``, path of a TOML, or a loaded source.
        folder: The source's files: a folder, an archive, a DICOMDIR or an address, as ``curate.inputs.opened_input``
            takes them; never written to. An ``Input`` also says where to unpack.
        dataset: The dataset; made if it is not there. Cases that it already holds are skipped.
        workers: Processes.
        limit: Convert at most this many cases of each part.
        engine: ``processes`` of this machine, ``dask`` for a Dask cluster of this machine, or the address of a Dask
            scheduler (``tcp://host:8786``), whose workers see the input under the same path.
        shard: ``i/n``: write every n-th part of the dataset, from the i-th on; the n runs, at once or one after the other,
            give what one run gives.
        on_case: Called after each case with the counts so far.

    Returns:
        What was done; ``rejects`` counts what could not be used, the dataset lists it.

    Raises:
        SourceError: the source's description is wrong.
        InputError: the input is not there, is empty, or holds nothing of the source; or the engine cannot be used.
        DatasetError: the dataset cannot be added to.
    """
    begin = time.monotonic()
    source = source if isinstance(source, Source) else load_source(source)
    mine = Shard.of_text(shard) if shard else Shard(1, 1)
    if engine not in ("processes", "dask") and not _ADDRESS.fullmatch(engine):
        raise InputError(f"Engine: found {engine!r}; allowed: processes, dask, or a scheduler's address (tcp://host:8786).")
    from medglip.curate.inputs import Lost, beginning, opened_input  # the network's libraries, for those who convert

    lost: list[Lost] = []
    given = folder if isinstance(folder, Input) else Input(folder)
    with opened_input(given.given, given.scratch, given.on_step, on_lost=lost.append) as opened:
        patterns = [pattern for part in source.parts for pattern in part.files.values()]
        top = beginning(opened, patterns, packed=Path(given.given).is_file())
        tasks, rejects = found_of_parts(source, top, limit)
        rejects += [(source.parts[0], Reject(source.name, one.file, one.reason, one.detail)) for one in lost]
        job = _Job(source, Path(dataset), mine, tasks, rejects)
        result = job.run(engine, workers, on_case)
    result.seconds = time.monotonic() - begin
    return result


class _Job:
    """One run over the cases of a source: what is to be done, and the writing of it."""

    def __init__(
        self, source: Source, dataset: Path, shard: Shard, tasks: Sequence[Task], rejects: Sequence[tuple[Part, Reject]]
    ) -> None:
        self.source, self.dataset, self.shard = source, dataset, shard
        self.writer = store.Writer(dataset)
        if Place(dataset).exists(NAME):
            check_same_key(store.open(dataset).manifest["parts"], str(dataset))
        self.writer.tidy()
        cases, done = measured(tasks), cases_done(dataset, source)
        rejects = [*rejects, *((case.task.part, _changed(case.task)) for case in cases if is_changed(case, done))]
        listed = listed_rejects(dataset, source) if done else set()
        pairs = [(hidden(part, reject), reject) for part, reject in rejects]
        pairs = [(stored, true) for stored, true in pairs if (stored.file, stored.reason) not in listed]
        self.plan = made_plan(source.name, cases, done, [stored for stored, _ in pairs])
        self.fresh = [number for number in self.plan.fresh if shard.takes(number)]
        # They go with the first part; where that is there already, the input has changed since, with the next one.
        first = 0 if 0 in self.plan.fresh or shard.of > 1 else next(iter(self.fresh), 0)
        if first not in self.fresh:
            pairs = []
        self.rejects = {first: [stored for stored, _ in pairs]}
        self.result = Conversion(source.name, cases=len(cases), latest=tuple(true for _, true in pairs))
        self.result.rejects.update(stored.reason for stored, _ in pairs)
        if shard.of > 1:
            self.result.cases = sum(len(part) for number, part in enumerate(self.plan.parts) if shard.takes(number))
        self.result.skipped = self.result.cases - sum(len(self.plan.parts[number]) for number in self.fresh)
        self.result.done = self.result.committed = self.result.skipped

    def run(self, engine: str, workers: int, on_case: OnCase | None) -> Conversion:
        """Convert and write the parts of this run."""
        if Place(self.dataset).exists(NAME):
            for plan in self.plan.finished:  # a run that wrote the last part of it may have been ended just then
                self._settle(plan)
        if on_case and self.fresh:
            on_case(self.result)
        cases = [case for number in self.fresh for case in self.plan.parts[number]]
        with stops_held() as look:
            with closing(_outcomes(cases, engine, workers, self.dataset, look)) as results:
                for number in self.fresh:
                    self._write(number, results, on_case)
                    self.result.committed += len(self.plan.parts[number])
            self._finish()
            look()
        return self.result

    def _write(self, number: int, results: Iterator[Outcome], on_case: OnCase | None) -> None:
        """Convert the cases of one part and commit it."""
        result, part = self.result, self.plan.parts[number]
        volumes: list[VolumeRecord] = []
        refused = list(self.rejects.get(number, ()))
        cases: dict[str, tuple[str, int]] = {}

        def pictures() -> Iterator[Prepared]:
            for case in part:
                outcome = next(results)
                volumes.extend(outcome.volumes)
                refused.extend(outcome.rejects)
                cases[case.key] = (case.fingerprint, outcome.images)
                result.images += outcome.images
                result.regions += outcome.regions
                result.volumes += len(outcome.volumes)
                result.done += 1
                result.rejects.update(reject.reason for reject in outcome.rejects)
                result.latest = tuple(outcome.said)
                if outcome.pictures:
                    yield outcome.pictures
                if on_case:
                    on_case(result)

        source = self.source
        info = {
            "source": source.name, "title": source.title, "licence": source.licence, "citation": source.citation,
            "page": source.page, "access": source.access, "lineage": list(source.lineage), "source_digest": source.digest,
            "expected": source.expected, "matrix": source.matrix, "cases": cases, **key_facts(source),
        }  # fmt: skip
        self.writer.write(
            self.plan.name(number), pictures(), volumes, refused, info, lends=lambda name: self._lends(name, number)
        )

    def _lends(self, name: str, to: int) -> bool:
        """Whether a part of the dataset is there whoever writes: of its own plan, in one run, those before it are."""
        number = self.plan.number(name)
        return number is None or (self.shard.of == 1 and number < to)

    def _finish(self) -> None:
        """Bring the parts of all shards together, where this was the last."""
        there = set(store.open(self.dataset).manifest["parts"]) if Place(self.dataset).exists(NAME) else set()
        self.result.complete = there.issuperset(self.plan.names)
        begun = len(self.fresh) < len(self.plan.parts)  # others wrote parts of it, or an earlier run
        if self.result.complete and begun and self.plan.parts:
            self._settle(self.plan.id)

    def _settle(self, plan: str) -> None:
        first = f"{self.source.name}-{plan}-"
        settle(self.dataset, sorted(name for name in store.open(self.dataset).manifest["parts"] if name.startswith(first)))


def _outcomes(
    cases: Sequence[Measured], engine: str, workers: int, dataset: Path, look: Look
) -> Generator[Outcome, None, None]:  # fmt: skip
    """What each case gave, in order."""
    if not cases:
        return
    if engine != "processes":
        from medglip.curate.cluster import outcomes_on_dask

        yield from outcomes_on_dask(cases, workers, look, None if engine == "dask" else engine)
    elif workers <= 1 or len(cases) < 2:
        yield from outcomes_here(cases, look)
    else:
        with staging(Place(dataset), "outcomes") as folder:
            yield from outcomes_in_processes(cases, workers, folder, look)


def _changed(task: Task) -> Reject:
    detail = f"Case {task.key!r} is in the dataset already, from files of other sizes; convert into a new dataset."
    return task.refusal("changed_case", detail)
