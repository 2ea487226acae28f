"""Runs tasks on a Dask cluster, one that is there or one of this machine, and gives what they gave, in order.

Needs the extra ``dask``. The scheduler runs the tasks of a lost worker again; it gives up on a task that lost several.
"""

import logging
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from socket import gethostname
from typing import Any

from medglip import __version__
from medglip.curate.plan import Measured
from medglip.curate.pools import TRIES, has_room, killed
from medglip.curate.privacy.keys import key_check, require_key
from medglip.curate.stopping import LOOK_S, Look, interrupts_blocked
from medglip.curate.tasks import Outcome, Task, worked
from medglip.errors import InputError, MedglipError

_CONNECT_S = 15
# How often to ask whether there is a worker at all.
_ASK_S = 10.0
# How long a finished outcome may travel.
_TRAVEL_S = 600.0
# How long a cluster of this machine may be without one: a worker that was killed is there again within seconds.
_PATIENCE_S = 60.0
# What futures raise when their scheduler is no more.
_GONE = ("FutureCancelledError", "CancelledError", "CommClosedError")


class _NoWorkersError(InputError):
    """A cluster of this machine has no workers any more."""


def outcomes_on_dask(cases: Sequence[Measured], workers: int, look: Look, address: str | None = None) -> Iterator[Outcome]:
    """Outcomes of the cases in their order, run by the workers of a Dask cluster.

    Args:
        cases: What to run; the workers must see the input folder under the same path.
        workers: Processes of a cluster on this machine, where no address is given.
        look: Called again and again while the workers work; may raise.
        address: Of a running scheduler, such as ``tcp://10.0.0.5:8786``.

    Raises:
        InputError: Dask is not installed, the scheduler cannot be reached or went, or the workers cannot run medglip.
    """
    left, lost = deque(cases), 0
    while left:
        with _client(address, workers) as client:
            try:
                for outcome in _outcomes(client, tuple(left), workers, address, look):
                    left.popleft()
                    yield outcome
            except _NoWorkersError:  # a cluster of ours lost all its workers and got none back
                lost += 1
                if lost == TRIES:
                    raise


def _outcomes(
    client: Any, cases: Sequence[Measured], workers: int, address: str | None, look: Look
) -> Iterator[Outcome]:  # fmt: skip
    waiting: deque[tuple[Measured, Any]] = deque()
    upcoming = iter(cases)
    while True:
        hands = max(workers, len(client.scheduler_info(n_workers=-1)["workers"])) if address else workers
        while has_room([case for case, _ in waiting], hands) and (coming := next(upcoming, None)) is not None:
            waiting.append((coming, _submit(client, coming)))
        if not waiting:
            return
        case, future = waiting.popleft()
        outcome = _result(client, future, look)
        if outcome is None:  # its workers were lost: try it with nothing beside it, then go on with the others
            client.cancel([other for _, other in waiting], force=True)
            outcome = _result(client, _submit(client, case), look) or killed(case.task)
            waiting = deque((other, _submit(client, other)) for other, _ in waiting)
        yield outcome


def _submit(client: Any, case: Measured) -> Any:
    return client.submit(_worked, case.task, __version__, key_check(), pure=False)


def _worked(task: Task, version: str, check: str) -> Outcome:
    """In a worker: ``worked``, if it gives there what it gives here: with this medglip, and under this key."""
    if version != __version__:
        raise InputError(
            f"Worker on {gethostname()!r}: found medglip {__version__}; allowed: {version}, as where convert runs; install it."
        )
    require_key(check)
    return worked(task)


def _result(client: Any, future: Any, look: Look) -> Outcome | None:
    """What a task gave; None where it was given up because its workers were killed."""
    from distributed.scheduler import KilledWorker

    address = client.scheduler.address if client.scheduler else "the scheduler"
    try:
        _wait(client, future, look, address)
        return future.result(timeout=_TRAVEL_S)
    except KilledWorker:
        return None
    except MedglipError:
        raise
    except Exception as error:
        lost = client.status != "running" or type(error).__name__ in _GONE
        what = "went away" if lost else "cannot run medglip"
        raise InputError(
            f"Dask scheduler {address!r} {what} ({type(error).__name__}: {str(error)[:200]}); its workers need this medglip"
            " and the input under the same path. What was committed is kept: run the same command again to go on."
        ) from error


def _wait(client: Any, future: Any, look: Look, address: str) -> None:
    """Until the task is done, well or badly.

    Raises:
        _NoWorkersError: the cluster of this machine lost its workers.
    """
    from distributed import wait

    asked, alone = time.monotonic(), 0.0
    while True:
        look()
        try:
            with client.as_current():
                wait([future], timeout=LOOK_S)
        except TimeoutError:
            if time.monotonic() - asked < _ASK_S:
                continue
            since, asked = asked, time.monotonic()
            there = client.scheduler_info(n_workers=-1)["workers"]
            if not there and not alone and client.cluster is None:
                warnings.warn(f"No worker has joined {address}; waiting for one.", stacklevel=2)
            alone = 0.0 if there else alone + asked - since
            if alone >= _PATIENCE_S and client.cluster is not None:
                raise _NoWorkersError(
                    f"Engine 'dask': the cluster of this machine has had no worker for {_PATIENCE_S:g} s; take fewer"
                    " workers, or the engine 'processes', and run again to go on."
                ) from None
        else:
            return


@contextmanager
def _client(address: str | None, workers: int) -> Iterator[Any]:
    """A client of the scheduler, or of a cluster of this machine that ends with it."""
    try:
        import dask
        from distributed import Client
    except ImportError as error:
        raise InputError(
            "Engine 'dask': Dask is not installed; run `pip install 'medglip[dask]'`, or use the engine 'processes'."
        ) from error
    if address is not None:
        try:
            client = Client(address, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise InputError(
                f"Dask scheduler: found nobody at {address!r} within {_CONNECT_S} s ({error}); allowed: an address as `dask"
                " scheduler` prints it, such as tcp://10.0.0.5:8786; start it, or leave --scheduler out."
            ) from error
        with client:
            yield client
        return
    settings = {"distributed.scheduler.allowed-failures": 1, "distributed.comm.timeouts.connect": f"{2 * _CONNECT_S}s"}
    with dask.config.set(settings), _cluster(workers) as cluster, Client(cluster, set_as_default=False) as client:
        yield client


def _cluster(workers: int) -> Any:
    """A cluster of this machine; begun again where one of its workers was killed before it had started."""
    from distributed import LocalCluster

    for left in range(TRIES - 1, -1, -1):
        try:
            with interrupts_blocked():
                return LocalCluster(
                    n_workers=workers, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None,
                    silence_logs=logging.CRITICAL,
                )  # fmt: skip
        except (OSError, RuntimeError) as error:
            if not left:
                raise InputError(
                    f"Engine 'dask': a cluster of {workers} workers cannot be started here ({error}); in a script, call convert"
                    ' under `if __name__ == "__main__":`, or take fewer workers.'
                ) from error
    return None
