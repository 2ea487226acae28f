"""Ctrl-C and SIGTERM while a dataset is written: they wait for a moment at which nothing is half done.

An interrupt in the midst of other people's code can be swallowed (Python prints "Exception ignored" where it falls into a
``__del__``) or leave a lock behind that somebody waits for.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any

# Called where a run may end: returns, or raises what the signal raises.
Look = Callable[[], None]
# How long a wait may be before it looks.
LOOK_S = 0.2


@contextmanager
def stops_held() -> Iterator[Look]:
    """Hold Ctrl-C and SIGTERM back, if anything handles them, until ``look()`` is called; a second one is not held.

    Yields:
        ``look``: hands the signal that came, if one did, to the handler that was there before, which raises.
    """
    came: list[int] = []
    before: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def hold(number: int, frame: FrameType | None) -> None:
        if came:
            before[number](number, frame)
        came.append(number)

    def look() -> None:
        if came:
            before[came[0]](came.pop(0), None)

    if threading.current_thread() is threading.main_thread():
        for one in (signal.SIGINT, signal.SIGTERM):
            if callable(handler := signal.getsignal(one)):
                before[one] = handler
    try:
        for held in before:
            signal.signal(held, hold)
        yield look
    finally:
        for held, handler in before.items():
            signal.signal(held, handler)


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Processes and threads that are started meanwhile never get Ctrl-C, of which a terminal tells a whole group."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # starting it with the first process would unblock
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
