"""The folder of a run: its lock, what it was started with, its log. Knows no model and no step.

| file | holds |
| --- | --- |
| ``config.toml`` | the configuration, whole |
| ``run.json`` | versions, hash of each dataset, seed, command line, processes, start and every resumption |
| ``metrics.jsonl`` | a line a step, and a line a validation |
| ``best/``, ``last/`` | checkpoints |
| ``state.pt``, ``state.prev.pt`` | what ``resume`` needs |
| ``tensorboard/`` | the same figures for TensorBoard, where asked for |
| ``lock`` | while a process trains here |
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medglip.errors import ModelError
from medglip.model.config import Config

OWN = ("config.toml", "run.json", "metrics.jsonl", "best", "last", "state.pt", "state.prev.pt", "tensorboard",
       "failed.pt", "failed_batch.json")  # fmt: skip
# What may change on resume: how long, how often judged, and where it runs. All else would be another curve. ``batch`` and
# ``accumulate`` may change where images a step stay the same.
MAY_CHANGE = ("steps", "minutes", "validations", "patience", "workers", "devices", "accelerator", "strategy", "compile",
              "tensorboard")  # fmt: skip
_TOGETHER = ("batch", "accumulate")


def facts_of(config: Config, datasets: Sequence[Any], replay: Sequence[Any], world: int) -> dict[str, Any]:
    """What ``run.json`` says of a run that begins now.

    Args:
        config: The whole configuration.
        datasets: Their manifests are hashed; in the order given, which the order of images depends on.
        replay: The same for the data that is mixed in.
        world: Processes.
    """
    plan = config["train"]
    return {
        "medglip": importlib.metadata.version("medglip"), "torch": importlib.metadata.version("torch"),
        "python": platform.python_version(), "platform": platform.platform(), "host": socket.gethostname(),
        "git": _commit(), "command": sys.argv, "seed": plan["seed"], "started": _now(), "resumed": [],
        "world_size": world, "images_a_step": plan["batch"] * plan.get("accumulate", 1) * world,
        "datasets": [_data_facts(data) for data in datasets], "replay": [_data_facts(data) for data in replay],
    }  # fmt: skip


def check(folder: Path, config: Config, facts: Mapping[str, Any], resume: bool) -> None:
    """Nothing where a run may begin in a folder, or go on as what it was.

    Raises:
        ModelError: it may not begin, as the folder holds a run already; or it may not go on: there is no run, its files are
            damaged, or its configuration or data are not those given.
    """
    if not resume:
        if held := [name for name in OWN if (folder / name).exists()]:
            raise ModelError(
                f"Run folder {str(folder)!r} already holds a run ({', '.join(held[:4])}); go on with it (--resume), give "
                "another folder, or replace it (--fresh)."
            )
        return
    if not (folder / "state.pt").is_file() and not (folder / "state.prev.pt").is_file():
        raise ModelError(f"Nothing to resume: {folder / 'state.pt'} is not there; train without resume first.")
    if (path := folder / "config.toml").is_file():
        try:
            old = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ModelError(f"{path} is damaged: {error}; restore it, or begin anew with --fresh.") from error
        if different := changed_keys(old, config):
            raise ModelError(
                f"Run {str(folder)!r} cannot go on with another configuration: {'; '.join(different)}. Allowed to change: "
                f"{', '.join(MAY_CHANGE)}. Resume with the old values, or train into another folder."
            )
    before = _facts_there(folder)
    for name in ("datasets", "replay"):
        _same_data(folder, name, before.get(name), facts[name])
    if before.get("images_a_step") not in (None, facts["images_a_step"]):
        raise ModelError(
            f"Run {str(folder)!r} learned from {before['images_a_step']} images a step, and would now from "
            f"{facts['images_a_step']} (batch × accumulate × processes); choose batch and accumulate so that it stays the same."
        )


def describe(folder: Path, config: Config, facts: Mapping[str, Any], resume: bool) -> None:
    """Write ``config.toml`` and ``run.json``; a run that goes on keeps what it was started with and adds that it did."""
    folder.mkdir(parents=True, exist_ok=True)
    told = dict(facts)
    if resume:
        again = ("world_size", "command", "host", "torch", "medglip", "git")
        told |= _facts_there(folder)
        told["resumed"] = [*told.get("resumed", []), {"at": facts["started"], **{name: facts[name] for name in again}}]
    for name, text in (("config.toml", to_toml(config)), ("run.json", json.dumps(told, indent=1) + "\n")):
        (folder / f"{name}.new").write_text(text, encoding="utf-8")
        os.replace(folder / f"{name}.new", folder / name)


def forget_after(folder: Path, step: int) -> None:
    """Take what was logged after a step out of ``metrics.jsonl``; a last line that was cut short goes too."""
    path = folder / "metrics.jsonl"
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []:
        with suppress(ValueError, KeyError):
            if line.endswith("\n") and json.loads(line)["step"] <= step:
                kept.append(line)
    path.write_text("".join(kept), encoding="utf-8")


def clear(folder: Path) -> None:
    """Remove the run in a folder, and nothing else that lies there.

    Raises:
        ModelError: a process is training in it.
    """
    if not folder.is_dir():
        return
    with locked(folder):
        for name in [*OWN, *(path.name for path in folder.glob("state.rank*.pt"))]:
            path = folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Keys of a configuration that differ and must not, each as "section.key: old, now new".

    A key that only one of them has is left out: it was added by another version of medglip, whose default changes nothing.
    """
    found = []
    for section in sorted(old.keys() & new.keys()):
        before, now = old[section], json.loads(json.dumps(new[section]))
        for key in sorted(before.keys() & now.keys()):
            if before[key] != now[key] and key not in MAY_CHANGE and key not in _TOGETHER:
                found.append(f"{section}.{key} was {before[key]!r} and is now {now[key]!r}")
    return found


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else trains in the folder meanwhile.

    The lock is a file that names a process. That of a process that is gone, on this host, is taken over. What happened on
    another host cannot be seen from here.

    Raises:
        ModelError: another process trains in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lock"
    mine = json.dumps({"host": socket.gethostname(), "process": os.getpid(), "born": _born(os.getpid()), "since": _now()})
    while not _created(path, mine):
        holder = path.read_text(encoding="utf-8") if path.is_file() else ""
        if not _is_stale(holder):
            raise ModelError(f"Run folder {str(folder)!r} is in use{_who(holder)}; wait for it, or give another folder. If "
                             f"that process is gone, remove {str(path)!r}.")  # fmt: skip
        # Whoever renames it first takes it; the other finds the new one.
        aside = path.with_name(f"lock.{os.getpid()}")
        with suppress(FileNotFoundError):
            os.replace(path, aside)
            if aside.read_text(encoding="utf-8") != holder:  # another took it in between
                os.replace(aside, path)
            aside.unlink(missing_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):
            if path.read_text(encoding="utf-8") == mine:
                path.unlink()


class Log:
    """``metrics.jsonl``, and TensorBoard where asked for.

    Raises:
        ModelError: TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, tensorboard: bool = False) -> None:
        self.path = folder / "metrics.jsonl"
        self.board: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise ModelError(
                    f"tensorboard = true needs the package tensorboard ({error}): pip install tensorboard, or set it false; "
                    "metrics.jsonl has the same figures."
                ) from error
            self.board = SummaryWriter(str(folder / "tensorboard"))

    def write(self, line: Mapping[str, Any]) -> None:
        """Add a line; ``step`` is its place on TensorBoard's axis."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self.board is not None:
            for name, value in line.items():
                if name != "step" and isinstance(value, int | float):
                    self.board.add_scalar(name.replace("val_", "val/", 1), value, line["step"])

    def close(self) -> None:
        """Flush what TensorBoard has not written yet."""
        if self.board is not None:
            self.board.close()


def to_toml(config: Mapping[str, Mapping[str, Any]]) -> str:
    """A configuration as TOML, section by section.

    >>> print(to_toml({"train": {"lr": 0.1, "sizes": [64], "table": {"a": True}}}), end="")
    [train]
    lr = 0.1
    sizes = [64]
    table = {a = true}
    """
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key} = {_value(value)}\n" for key, value in section.items() if value is not None)
        for name, section in config.items()
    )


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {_value(inner)}" for key, inner in value.items() if inner is not None) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(inner) for inner in value) + "]"
    return json.dumps(value, ensure_ascii=False) if not isinstance(value, Path) else json.dumps(str(value))


def _key(key: Any) -> str:
    plain = str(key).replace("_", "").replace("-", "")
    return str(key) if plain.isascii() and plain.isalnum() else json.dumps(str(key))


def _facts_there(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    if not path.is_file():  # of a run that was started before there was this file
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is damaged: {error}; restore it, or begin anew with --fresh.") from error
    return found if isinstance(found, dict) else {}


def _same_data(folder: Path, name: str, before: Sequence[Mapping[str, Any]] | None, now: Sequence[Mapping[str, Any]]) -> None:
    if before is None or [one["manifest"] for one in before] == [one["manifest"] for one in now]:
        return
    told = [", ".join(f"{one['name']} ({one['manifest'][:8]})" for one in some) or "none" for some in (before, now)]
    raise ModelError(
        f"Run {str(folder)!r} cannot go on with other data: {name} were {told[0]} and are now {told[1]}, by the hash of their "
        "manifests. Give the same datasets in the same order, or train into another folder with --from."
    )


def _data_facts(data: Any) -> dict[str, Any]:
    text = json.dumps(data.manifest, sort_keys=True, default=str)
    name = str(getattr(getattr(data, "place", None), "name", type(data).__name__))
    return {"name": name, "manifest": hashlib.sha256(text.encode()).hexdigest()}


def _commit() -> str | None:
    """The git commit of medglip's own files, None where they are installed without one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    with suppress(OSError, subprocess.SubprocessError):
        asked = ["git", "-C", str(root), "rev-parse", "HEAD"]
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    return None


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")


def _created(path: Path, text: str) -> bool:
    """Whether the file was not there, and now holds the text."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def _is_stale(holder: str) -> bool:
    """Whether the process of a lock is gone: of this host, and no process, or another one, has its number."""
    try:
        told = json.loads(holder)
        host, process, born = told["host"], int(told["process"]), told["born"]
    except (ValueError, KeyError, TypeError):
        return False  # being written right now, or of something else
    if host != socket.gethostname() or sys.platform == "win32":
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return born is not None and _born(process) not in (None, born)


def _born(process: int) -> int | None:
    """When a process began, in ticks since the machine did; -1 if it ended, None where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        return -1 if fields[0] in "ZX" else int(fields[19])
    return None


def _who(holder: str) -> str:
    with suppress(ValueError, KeyError, TypeError):
        told = json.loads(holder)
        return f" by process {told['process']} on {told['host']} since {told['since']}"
    return ""
