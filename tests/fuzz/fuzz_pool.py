"""Runs mutants in processes with a limit on memory and time; a process that dies or hangs is replaced, and its mutant told."""

import multiprocessing
import os
import resource
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from fuzz_seeds import Seed
from fuzz_user import Result, Watch, mutant_of, tried

# A worker ends after so many mutants, and with it what libraries have kept.
_LIFE = 1500
_FORK = multiprocessing.get_context("fork")  # the imports, which take seconds, are there already

Job = tuple[str, Seed]
OnResult = Callable[[Result, float], None]


@dataclass
class Limits:
    """What one mutant may use: seconds of wall time, and bytes beyond those that the imports take."""

    seconds: float = 20.0
    bytes: int = 2 * 2**30


@dataclass
class _Worker:
    process: multiprocessing.process.BaseProcess
    pipe: Connection
    job: Job | None = None
    since: float = 0.0
    done: int = 0


def run_all(jobs: Iterator[Job], salt: int, workers: int, limits: Limits, on_result: OnResult) -> float:
    """Try every mutant.

    Args:
        jobs: Names of mutants (``KIND:NUMBER``) with their seeds.
        salt: The seed of the run.
        workers: Number of processes.
        limits: Of one mutant.
        on_result: Called with each result and its seconds.

    Returns:
        Most bytes that a worker held in memory.
    """
    with tempfile.TemporaryDirectory(prefix="medglip-fuzz-") as scratch:
        running = [_started(Path(scratch), number, salt, limits) for number in range(workers)]
        left = True
        try:
            while left or any(worker.job for worker in running):
                for number, worker in enumerate(running):
                    if worker.job is None and left:
                        if worker.done >= _LIFE:
                            _ended(worker)
                            running[number] = worker = _started(Path(scratch), number, salt, limits)
                        left = _handed(worker, jobs)
                wait([worker.pipe for worker in running if worker.job], timeout=0.5)
                for number, worker in enumerate(running):
                    if worker.job and not _collected(worker, limits, on_result):
                        running[number] = _started(Path(scratch), number, salt, limits)
        finally:
            for worker in running:
                _ended(worker)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def _handed(worker: _Worker, jobs: Iterator[Job]) -> bool:
    job = next(jobs, None)
    if job is not None:
        worker.job, worker.since = job, time.monotonic()
        worker.pipe.send(job)
    return job is not None


def _collected(worker: _Worker, limits: Limits, on_result: OnResult) -> bool:
    """Take the worker's result, if it has one; False where the worker is gone."""
    name = worker.job[0] if worker.job else ""
    seconds = time.monotonic() - worker.since
    finding = ""
    if worker.pipe.poll():
        try:
            on_result(worker.pipe.recv(), seconds)
        except EOFError:
            worker.process.join()
            code = worker.process.exitcode or 0
            finding = f"crash: the process ended with {signal.Signals(-code).name if code < 0 else code}"
    elif seconds > limits.seconds:
        finding = f"hang: no end after {limits.seconds:g} s"
    else:
        return True
    worker.job, worker.done = None, worker.done + 1
    if not finding:
        return True
    on_result(Result(name, "", "finding", [], [finding]), seconds)
    if worker.process.is_alive():
        worker.process.kill()
    _ended(worker)
    return False


def _started(scratch: Path, number: int, salt: int, limits: Limits) -> _Worker:
    ours, theirs = _FORK.Pipe()
    process = _FORK.Process(target=_work, args=(theirs, ours, scratch / f"worker-{number}", salt, limits), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _ended(worker: _Worker) -> None:
    worker.pipe.close()
    if worker.job is not None and worker.process.is_alive():
        worker.process.kill()
    worker.process.join(5)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()


def _work(pipe: Connection, other: Connection, folder: Path, salt: int, limits: Limits) -> None:
    """A worker: its own folder is its temporary folder, its home and where it stands."""
    other.close()
    for name in ("", "run", "home", "temporary"):
        (folder / name).mkdir(exist_ok=True)
    os.chdir(folder / "home")
    os.environ["HOME"], os.environ["TMPDIR"] = str(folder / "home"), str(folder / "temporary")
    tempfile.tempdir = str(folder / "temporary")
    quiet = os.open(os.devnull, os.O_WRONLY)  # libraries in C say much about what is broken
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + limits.bytes, now + limits.bytes))
    watch = Watch(folder)
    while True:
        try:
            name, seed = pipe.recv()
        except EOFError:
            return
        content, how = mutant_of(seed, name, salt)
        where = folder / "run" / str(time.monotonic_ns())
        where.mkdir()
        result = tried(seed, name, where, content, how, watch)
        (where / "tiny.toml").unlink(missing_ok=True)
        for path in [path for place in ("home", "temporary") for path in sorted((folder / place).rglob("*"), reverse=True)]:
            result.findings.append(f"outside: {path}")
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        if result.findings:
            result.outcome = "finding"
        else:
            where.rmdir()
        pipe.send(result)
