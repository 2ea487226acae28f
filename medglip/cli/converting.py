"""The command that makes a dataset of files: convert."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medglip.cli.frame import PART_DONE, Json, app, describe_anew, err, print_json
from medglip.errors import InputError

if TYPE_CHECKING:
    from medglip.curate import Conversion
    from medglip.progress import Bars, Step

# Rejects that are printed as they come; the others are counted.
_SHOWN = 20
_STOPPED = 130


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="A name that `medglip sources` lists, or the path of a TOML.")],
    folder: Annotated[
        str, typer.Argument(metavar="INPUT", help="The source's files: folder, ZIP/TAR, DICOMDIR, dicomweb:// or dimse://.")
    ],
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="Made, or added to; a stopped run goes on.")],
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many cases of each part.")] = None,
    engine: Annotated[str, typer.Option(help="processes, or dask: a Dask cluster.")] = "processes",
    scheduler: Annotated[str | None, typer.Option(help="Of a running Dask cluster: tcp://host:8786.")] = None,
    shard: Annotated[str | None, typer.Option(metavar="I/N", help="Write every N-th part from the I-th: job arrays.")] = None,
    scratch: Annotated[Path | None, typer.Option(help="Where archives are unpacked; kept.")] = None,
    key_file: Annotated[Path | None, typer.Option(help="The key that ids are hashed under; default: MEDGLIP_KEY_FILE.")] = None,
    as_json: Json = False,
) -> None:
    """Convert a source's files into a dataset; run it again to go on or to add.

    Example: medglip convert us_busi ~/Dataset_BUSI_with_GT busi/ --workers 8
    """
    from medglip.curate import load_source
    from medglip.curate.engine import Input
    from medglip.curate.engine import convert as convert_source
    from medglip.curate.privacy.keys import key_warnings, use_key_file
    from medglip.progress import bar

    chosen = _engine(engine, scheduler)
    if key_file is not None:
        use_key_file(key_file)
    loaded = load_source(source)
    for warning in key_warnings(loaded):
        err.print(f"medglip: {warning}", markup=False)
    with _stoppable():
        with bar(err) as progress:
            shown = _Shown(source, progress)
            try:
                given = Input(folder, scratch, shown.opening)
                result = convert_source(loaded, given, dataset, workers=workers, limit=limit, engine=chosen, shard=shard,
                                        on_case=shown)  # fmt: skip
            except KeyboardInterrupt:
                shown.stopped()
                raise typer.Exit(_STOPPED) from None
        shown.end()
        if result.complete:
            _describe(dataset)
    facts = {
        "source": result.source, "cases": result.cases, "already_there": result.skipped, "images": result.images,
        "regions": result.regions, "volumes": result.volumes, "rejects": dict(sorted(result.rejects.items())),
        "complete": result.complete, "seconds": round(result.seconds, 2),
    }  # fmt: skip
    if as_json:
        print_json(facts)
    else:
        typer.echo("  ".join(f"{key}: {value}" for key, value in facts.items()))
    if result.rejects:
        err.print(
            f"{sum(result.rejects.values())} items were rejected; {dataset}/quality.html says why, the table `rejects`"
            " lists all."
        )
        raise typer.Exit(PART_DONE)


class _Shown:
    """What is seen of a running conversion: a bar with rate and time left, and the rejects above it."""

    def __init__(self, source: str, progress: "Bars") -> None:
        self._source, self._progress = source, progress
        self._bars: dict[str, Step] = {}
        self._counts: Conversion | None = None
        self._printed, self._begin, self._before = 0, time.monotonic(), 0

    def opening(self, done: int, total: int, note: str) -> None:
        """Step while the input is unpacked or fetched."""
        self._bar("input")(done, total, note)

    def __call__(self, counts: "Conversion") -> None:
        """Step after a case, and once before the first."""
        if self._counts is None:
            self._begin, self._before = time.monotonic(), counts.done
        self._counts = counts
        for reject in counts.latest:
            self._printed += 1
            if self._printed <= _SHOWN:
                where = reject.file or reject.case or self._source
                err.print(f"rejected: {reject.reason}: {where}: {reject.detail}", markup=False)
            elif self._printed == _SHOWN + 1:
                err.print("rejected: more, which are counted below and listed in the dataset.")
        seconds = time.monotonic() - self._begin
        rate = f"{(counts.done - self._before) / seconds:.2f} cases/s  " if seconds > 1 else ""
        self._bar(self._source)(counts.done, counts.cases, f"{rate}{counts.rejects.total()} rejected")

    def stopped(self) -> None:
        """One line that says how to go on."""
        counts = self._counts
        kept = f"{counts.committed} of {counts.cases} cases are in the dataset" if counts else "nothing was written yet"
        err.print(f"medglip: stopped; {kept}; run the same command again to go on.", markup=False)

    def end(self) -> None:
        """Say how many rejects were not printed."""
        if self._printed > _SHOWN:
            err.print(f"{self._printed - _SHOWN} more rejects were not printed.")

    def _bar(self, title: str) -> "Step":
        if title not in self._bars:
            self._bars[title] = self._progress.step(title)
        return self._bars[title]


def _engine(engine: str, scheduler: str | None) -> str:
    """What ``convert`` takes as its engine."""
    if engine not in ("processes", "dask"):
        raise InputError(f"--engine: found {engine!r}; allowed: processes, dask.")
    if scheduler is None:
        return engine
    if engine != "dask" or "://" not in scheduler:
        raise InputError(
            f"--scheduler: found {scheduler!r} with --engine {engine}; allowed: an address such as tcp://host:8786 with"
            " --engine dask."
        )
    return scheduler


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM, which batch systems send before they kill, stops as Ctrl-C does."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before: Any = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _describe(dataset: Path) -> None:
    """Describe the dataset, whole; once more where another run changed it meanwhile."""
    from medglip.curate.stopping import stops_held
    from medglip.store import open as open_dataset

    described = None
    with stops_held():
        while described != (there := open_dataset(dataset).manifest):
            described = there
            describe_anew(dataset)
