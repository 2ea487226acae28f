"""What a user runs on a broken file: inspect, open, convert; and what of it must not happen. Knows no processes."""

import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_mutations import GUARD, mutated
from fuzz_seeds import Seed

from medglip.curate import load_source
from medglip.curate.engine import found_tasks, run
from medglip.curate.inputs import beginning, opened_input
from medglip.errors import MedglipError
from medglip.imaging.inspect import inspect
from medglip.imaging.opened import open_image
from medglip.records import Reject

# Words of libraries that could not get the memory that they asked for.
_NO_MEMORY = re.compile(
    r"MemoryError|Unable to allocate|bad_alloc|allocate memory|Cannot allocate|out of memory", re.IGNORECASE
)
_WRITES = {"os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "shutil.move", "os.chmod"}


@dataclass
class Result:
    """What became of one mutant.

    Attributes:
        name: ``KIND:NUMBER``; makes it again.
        how: Names of the mutations.
        outcome: ``converted``, ``rejected`` or ``finding``.
        reasons: Reason codes of what was rejected.
        findings: What must not happen, each as ``WHAT: DETAIL``.
        wrapped: Types of exceptions that inspect put into a sentence without knowing them.
    """

    name: str
    how: str
    outcome: str = "rejected"
    reasons: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    wrapped: list[str] = field(default_factory=list)


class Watch:
    """Tells of every write outside a folder, and of every connection, that Python code makes in this process.

    An audit hook cannot be taken away, so there is one watch in a process, of workers only.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.seen = str(folder), []
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and isinstance(path, str) and not self._mine(path):
                self.seen.append(f"outside: {event} {path!r}")
        elif event in _WRITES:
            paths = [path for path in arguments[:2] if isinstance(path, str)]
            if event in ("os.symlink", "os.link"):
                paths = paths[1:]
            self.seen += [f"outside: {event} {path!r}" for path in paths if "/" in path and not self._mine(path)]
        elif event in ("socket.connect", "subprocess.Popen", "os.system", "os.exec"):
            self.seen.append(f"outside: {event} {arguments[-1]!r}")

    def _mine(self, path: str) -> bool:
        return path.startswith("/dev/") or os.path.abspath(path).startswith(self.folder)


def mutant_of(seed: Seed, name: str, salt: int) -> tuple[bytes, str]:
    """The broken file of a mutant, and how it was broken; equal for equal names and salts."""
    rng = np.random.default_rng([salt, *name.encode()])
    return mutated(seed.files[seed.target], seed.family, rng)


def tried(seed: Seed, name: str, folder: Path, content: bytes, how: str, watch: Watch | None = None) -> Result:
    """Write a mutant, do with it what users do, and say what became of it. The folder is empty again afterwards."""
    result = Result(name, how)
    inside = folder / "in"
    try:
        for path, whole in seed.files.items():
            (inside / path).parent.mkdir(parents=True, exist_ok=True)
            (inside / path).write_bytes(content if path == seed.target else whole)
        toml = seed.toml if seed.family != "toml" else content.decode("utf-8", "surrogateescape")
        (folder / "tiny.toml").write_bytes(toml.encode("utf-8", "surrogateescape"))
        before = _tree(folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _looked_at(inside / seed.target, result)
            items = _done(lambda: _converted(seed, folder), "convert", result) or []
        _judge(items, result)
        extra = sorted((_tree(folder) ^ before) | {str(path) for path in (Path(f"/tmp/{GUARD}"),) if path.exists()})
        result.findings += [f"outside: {path}" for path in extra if not path.startswith("scratch")]
    finally:
        if watch:
            result.findings += watch.seen
            watch.seen.clear()
        shutil.rmtree(folder / "in", ignore_errors=True)
        shutil.rmtree(folder / "scratch", ignore_errors=True)
    if result.findings:
        result.outcome = "finding"
    return result


def _looked_at(path: Path, result: Result) -> None:
    _done(lambda: inspect(path), "inspect", result)
    _done(lambda: open_image(path).display, "open", result)


def _converted(seed: Seed, folder: Path) -> list[Any]:
    source = load_source(folder / "tiny.toml")
    given = folder / "in" / seed.given
    lost: list[Any] = []
    scratch = folder / "scratch" if seed.given else None
    with opened_input(given, scratch, on_lost=lost.append) as opened:
        top = beginning(opened, [pattern for part in source.parts for pattern in part.files.values()])
        tasks, rejects = found_tasks(source, top)
        rejects += [Reject(source.name, one.file, one.reason, one.detail) for one in lost]
        return [*rejects, *(item for task in tasks for item in run(task))]


def _done(step: Callable[[], Any], what: str, result: Result) -> Any:
    """What the step gives, or None; anything but a medglip error is a finding."""
    try:
        return step()
    except MedglipError as error:
        text = f"{what}: {error}"
        if _NO_MEMORY.search(text):
            result.findings.append(f"memory: {text[:300]}")
        if wrapped := re.search(r"cannot be read: (\w+(?:Error|Exception|Warning|Exit)): ", text):
            result.wrapped.append(wrapped[1])
        if what == "convert":
            result.reasons.append(getattr(error, "reason", type(error).__name__))
    except MemoryError as error:
        result.findings.append(f"memory: {what}: MemoryError: {str(error)[:300]}")
    except Exception as error:
        result.findings.append(f"exception: {what}: {type(error).__name__}: {str(error)[:300]}")
    return None


def _judge(items: list[Any], result: Result) -> None:
    rejects = [item for item in items if isinstance(item, Reject)]
    result.reasons += [reject.reason for reject in rejects]
    for reject in rejects:
        if _NO_MEMORY.search(reject.detail):
            result.findings.append(f"memory: convert: {reject.reason}: {reject.detail[:300]}")
        elif reject.reason == "failed":
            result.findings.append(f"failed: {reject.detail[:300]}")
    if len(items) > len(rejects):
        result.outcome = "converted"


def _tree(folder: Path) -> set[str]:
    """Every path in a folder with its size, relative; and what lies beside it."""
    found = set()
    for where, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(where, name)
            found.add(f"{os.path.relpath(path, folder)} ({os.lstat(path).st_size} bytes)")
    return found | {f"beside {name}" for name in os.listdir(folder.parent) if not name.startswith("worker-")}
