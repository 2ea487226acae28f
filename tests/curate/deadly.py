"""Tasks that end their worker process, for tests; where there is no worker, they are harmless."""

import multiprocessing
import os
import signal
from pathlib import Path, PosixPath

from medglip.curate.plan import Measured
from medglip.curate.tasks import Task


class DeadlyFolder(PosixPath):
    """An input folder at which a worker process dies as soon as it looks for it."""

    def is_dir(self) -> bool:
        if multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().is_dir()


class OnceDeadlyFolder(PosixPath):
    """As ``DeadlyFolder``, but only the first one that looks dies."""

    def is_dir(self) -> bool:
        marker = Path(f"{self}.died")
        if multiprocessing.parent_process() is not None and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().is_dir()


def with_folder(case: Measured, folder: Path) -> Measured:
    """The same case in another input folder."""
    from dataclasses import replace

    return replace(case, task=Task(case.task.part, replace(case.task.case, folder=folder)))
