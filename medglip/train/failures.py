"""What goes wrong in training and what is left behind: no numbers, no memory, no disk, a signal. Knows no model.

| what | left behind |
| --- | --- |
| a loss or gradient that is not finite | ``failed.pt``, the state before the step, and ``failed_batch.json`` |
| out of memory | the last state |
| the disk is full while a checkpoint is written | the last good checkpoint and state |
| Ctrl-C, SIGTERM | a checkpoint and a state of the last whole step; exit code 130 or 143 |
"""

import errno
import json
import math
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from medglip.errors import ModelError

_SPACE = ("no space left", "disk quota exceeded", "os error 28", "file too large")
_MEMORY = ("not enough memory", "defaultcpuallocator", "can't allocate memory", "out of memory", "cannot allocate memory")


class Stopping:
    """Remembers that Ctrl-C was pressed or SIGTERM came, until the step is done; a second Ctrl-C stops at once.

    Elsewhere than in the main thread, where Python allows no handlers, signals do what they always do.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}
        self._process = os.getpid()

    def __enter__(self) -> "Stopping":
        """Listen."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) != signal.SIG_IGN:  # as of what a shell runs in the background, on Ctrl-C
                    self._before[number] = signal.signal(number, self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _heard(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._process:  # a worker of the loader: Ctrl-C is for its parent, SIGTERM ends it
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        if self.signal == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    def stop(self, number: int, step: int) -> None:
        """End the run as its signal asks.

        Args:
            number: The signal; of another process where several train together.
            step: Steps that were saved.

        Raises:
            KeyboardInterrupt: after SIGINT; the command line ends with exit code 130.
            SystemExit: after SIGTERM, with exit code 143.
        """
        if number == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt(f"interrupted after step {step}")


def check_finite(terms: Mapping[str, float], norm: float, step: int, images: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Nothing where a step's losses and the norm of its gradients are finite.

    Args:
        terms: The losses of the step, summed up over batches and processes.
        norm: Of the gradients before clipping.
        step: Number of the step, from 1.
        images: Of the step: ``id``, ``source`` and ``view`` of each.
        out: Where ``failed_batch.json`` goes.

    Raises:
        ModelError: one of them is not; which, in which step, and of which images.
    """
    wrong = {name: value for name, value in {**terms, "gradient norm": norm}.items() if not math.isfinite(value)}
    if not wrong:
        return
    told = {"step": step, "losses": {name: repr(value) for name, value in terms.items()}, "gradient_norm": repr(norm),
            "images": list(images)}  # fmt: skip
    (out / "failed_batch.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    ids = [str(image["id"]) for image in images]
    shown = ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
    raise ModelError(
        f"Training stopped in step {step}: {', '.join(f'{name} is {value}' for name, value in wrong.items())}, of the images "
        f"{shown}. The batch is in {out / 'failed_batch.json'}, the state before the step in {out / 'failed.pt'}. Lower lr, "
        "use precision 32-true, or look at those images."
    )


@contextmanager
def memory(plan: Mapping[str, Any], side: int) -> Iterator[None]:
    """What runs out of memory inside says what to lower.

    Args:
        plan: The ``train`` section.
        side: Of the canvas in pixels.

    Raises:
        ModelError: in place of torch's error.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        is_memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not is_memory and not any(words in str(error).lower() for words in _MEMORY):
            raise
        first = (str(error).splitlines() or ["no memory"])[0]
        raise ModelError(
            f"Out of memory in training with batch {plan['batch']}, size {side} and phrases {plan['phrases']} ({first[:200]}). "
            f"Lower batch and raise accumulate by the same factor (now {plan.get('accumulate', 1)}), which changes no result; "
            "set checkpointing = true in [model]; or lower size or phrases. Then resume, or begin anew where size or phrases "
            "changed."
        ) from error


@contextmanager
def saving(out: Path) -> Iterator[None]:
    """What cannot be written inside leaves what was there, and says so.

    Files are written beside the old ones and renamed when they are whole; what was begun is removed.

    Raises:
        ModelError: the disk is full, or a file cannot be written.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _is_writing(error):
            raise
        for begun in (*out.glob("*.new"), *out.glob("*/*.new")):
            begun.unlink(missing_ok=True)
        is_full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or any(
            words in str(error).lower() for words in _SPACE
        )
        found = "the disk is full" if is_full else f"it cannot be written ({error})"
        good = [name for name in ("best", "last", "state.pt") if (out / name).exists()]
        raise ModelError(
            f"Checkpoint in {str(out)!r}: {found}. The last good files are untouched ({', '.join(good) or 'none yet'}); "
            "make room there and go on with --resume."
        ) from error


def is_whole(checkpoint: Path) -> bool:
    """Whether the weights of a checkpoint have the length that their header says; nothing else of them is read."""
    try:
        with safe_open(checkpoint / "model.safetensors", "pt"):
            return (checkpoint / "config.json").is_file()
    except (SafetensorError, OSError):
        return False


def _is_writing(error: RuntimeError) -> bool:
    """Whether torch says so of a file; its writer hides what the system said."""
    return any(words in str(error).lower() for words in ("pytorchstreamwriter", "file write failed", "unexpected pos"))
