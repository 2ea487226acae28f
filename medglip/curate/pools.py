"""Runs tasks here or in processes of this machine and gives what they gave, in order. Knows no dataset.

A process that is killed takes no other case with it: its pool is made anew, and what it was at is run again. The pool's
processes end with the process that started them, whatever ends that.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from typing import Any, TypeVar

from medglip.curate.plan import Measured
from medglip.curate.stopping import LOOK_S, Look, interrupts_blocked
from medglip.curate.tasks import Outcome, Spilled, Task, refused, spilled, worked
from medglip.errors import InputError

# Tasks waiting a worker: enough that none is idle, few enough that not much waits in memory and on disk.
WINDOW = 4
# Bytes of input files a worker beyond which no more tasks are handed out than there are workers.
BYTES_AHEAD = 256 * 2**20
# A case that ends its process so often, alone in it, is refused.
TRIES = 3
_PATIENCE = 10.0

Result = TypeVar("Result")


def outcomes_here(cases: Sequence[Measured], look: Look) -> Iterator[Outcome]:
    """Outcomes of the cases, run in this process; ``look`` is called before each."""
    for case in cases:
        look()
        yield worked(case.task)


def outcomes_in_processes(cases: Sequence[Measured], workers: int, folder: Path, look: Look) -> Iterator[Outcome]:
    """Outcomes of the cases in their order, run in processes.

    Args:
        cases: What to run.
        workers: Processes.
        folder: Where outcomes wait until it is their turn.
        look: Called again and again while the processes work; may raise.

    Raises:
        InputError: no process can be started, or the input went.
    """
    waiting: deque[tuple[Measured, Future[Spilled]]] = deque()
    upcoming = iter(cases)
    pool = _Pool(workers, folder)
    try:
        while True:
            while has_room([case for case, _ in waiting], workers) and (coming := next(upcoming, None)) is not None:
                waiting.append((coming, pool.submit(coming.task)))
            if not waiting:
                return
            case, future = waiting.popleft()
            try:
                yield _awaited(future, look).taken()
            except BrokenProcessPool:  # try its case alone, so that one that kills is known, then begin again
                pool.end()
                yield _alone(case.task, folder, look)
                pool = _Pool(workers, folder)
                waiting = deque((other, kept if _is_whole(kept) else pool.submit(other.task)) for other, kept in waiting)
    finally:
        pool.end()


def has_room(waiting: Sequence[Measured], workers: int) -> bool:
    """Whether one more task may be handed out."""
    if len(waiting) < workers:
        return True
    return len(waiting) < WINDOW * workers and sum(case.bytes for case in waiting) < BYTES_AHEAD * workers


class _Worker(SpawnProcess):
    """A process whose end is for its pool to say."""

    def start(self) -> None:
        with interrupts_blocked():
            super().start()


class _Recorded(SpawnContext):
    """Starts processes and remembers them, so that they can be ended."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[SpawnProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> SpawnProcess:  # type: ignore[override]  # noqa: N802
        process = _Worker(*args, **kwargs)
        self.started.append(process)
        return process


class _Pool:
    """Worker processes."""

    def __init__(self, workers: int, folder: Path) -> None:
        self._context, self._folder = _Recorded(), str(folder)
        self._pool = ProcessPoolExecutor(workers, mp_context=self._context, initializer=_begin)

    def submit(self, task: Task) -> Future[Spilled]:
        """Hand out a task; where the pool is broken already, its future says so."""
        return self._submit(spilled, task, self._folder)

    def is_ready(self, look: Look) -> bool:
        """Whether a process can be started at all."""
        try:
            return _awaited(self._submit(os.getpid), look) > 0
        except BrokenProcessPool:
            return False

    def end(self) -> None:
        """End the processes, whatever they are at."""
        for process in self._context.started:
            process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for process in self._context.started:
            process.join(_PATIENCE)
            if process.is_alive():
                process.kill()

    def _submit(self, *call: Any) -> Future[Any]:
        try:
            return self._pool.submit(*call)
        except BrokenProcessPool as error:
            broken: Future[Any] = Future()
            broken.set_exception(error)
            return broken


def _begin() -> None:
    """In a worker: it ends when the process that started it does; where Ctrl-C could not be kept from it, it is now."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _awaited(future: Future[Result], look: Look) -> Result:
    """What a future gives, with looks while it does not."""
    while True:
        look()
        if wait([future], LOOK_S).done:
            return future.result()


def _is_whole(future: Future[Spilled]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _alone(task: Task, folder: Path, look: Look) -> Outcome:
    """Convert one case in a process of its own, some times if need be: others may have killed it for their own reasons."""
    started = False
    for _ in range(TRIES):
        pool = _Pool(1, folder)
        try:
            if not pool.is_ready(look):
                continue
            started = True
            return _awaited(pool.submit(task), look).taken()
        except BrokenProcessPool:
            continue
        finally:
            pool.end()
    if not started:
        raise InputError(
            "Workers: found no process that can be started; in a script, call convert under `if __name__ =="
            ' "__main__":`, or take one worker.'
        )
    return killed(task)


def killed(task: Task) -> Outcome:
    """The outcome of a case that ends its process whenever it is run."""
    return refused(
        task, "killed_process",
        "Its process was killed each time, also when it ran alone, perhaps for memory; convert it into a new dataset on a"
        " machine with more.",
    )  # fmt: skip
