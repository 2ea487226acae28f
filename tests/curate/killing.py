"""Kills processes of a conversion at random moments, lets it go on, and compares the bytes with an undisturbed run's.

Usage: scripts/kill-test [--rounds 12] [--seed S] [--cases 200] [--engines processes,dask] [--workers 1,8]

Each round starts `medglip convert` on a generated source, kills (SIGKILL) a worker or the process that writes, up to three
times, and runs it to its end. Only processes that the round started are ended, by their ids.
"""

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

TOML = """
name = "toy"
title = "Toy"
licence = "CC0-1.0"
names = "public"
[[part]]
converter = "mask_images"
modality = "ultrasound"
patient = "{patient}"
exhaustive = "all"
[part.files]
image = "images/{patient}_{n}.png"
mask = "masks/{patient}_{n}.png"
[part.options]
kind = "binary"
label = "tumor"
[part.labels]
"tumor" = "breast tumor"
"""
# Parts of a few cases, so that there are several. Tests that a shell runs in the background inherit a Ctrl-C that is ignored.
DRIVER = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)
import medglip.curate.plan as plan
plan.CASES_PER_PART = {cases_per_part}
sys.argv = ["medglip", "convert", *{arguments!r}]
from medglip.cli import main
main()
"""
CASES_PER_PART = 5
ENDED = (0, 3)  # all done, or done but for the broken case, which a run before may have listed


def write_source(folder: Path, cases: int, seed: int = 0) -> Path:
    """A source of so many generated images with masks; some have the same pixels, one is broken. Gives its TOML."""
    rng = np.random.default_rng(seed)
    for name in ("images", "masks"):
        (folder / "in" / name).mkdir(parents=True)
    pictures = [rng.integers(0, 255, (64, 80), dtype=np.uint8) for _ in range(max(cases * 2 // 3, 1))]
    for case in range(cases):
        mask = np.zeros((64, 80), np.uint8)
        mask[5 + case % 7 : 25, 10:30] = 255
        name = f"p{case:03d}_1.png"
        Image.fromarray(pictures[case * 7 % len(pictures)]).save(folder / "in" / "images" / name)
        Image.fromarray(mask).save(folder / "in" / "masks" / name)
    (folder / "in" / "images" / "p001_1.png").write_bytes(b"no PNG")
    (folder / "toy.toml").write_text(TOML, "utf-8")
    return folder / "toy.toml"


def bytes_of(dataset: Path) -> dict[str, str]:
    """Hash of every file of a dataset, also of hidden ones."""
    return {
        str(path.relative_to(dataset)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(dataset.rglob("*"))
        if path.is_file()
    }


def started(source: Path, dataset: Path, *options: str, cases_per_part: int = CASES_PER_PART) -> subprocess.Popen:
    """A conversion in a process group of its own."""
    arguments = [str(source), str(source.parent / "in"), str(dataset), *options]
    code = DRIVER.format(arguments=arguments, cases_per_part=cases_per_part)
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def workers_of(driver: subprocess.Popen) -> list[psutil.Process]:
    """Worker processes that a conversion started."""
    try:
        children = psutil.Process(driver.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [child for child in children if _is_worker(child)]


def _is_worker(process: psutil.Process) -> bool:
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return "spawn_main" in command and "resource_tracker" not in command


def killed_run(
    source: Path, dataset: Path, options: Sequence[str], kills: Sequence[tuple[str, float]], patience_s: float = 240.0
) -> list[str]:
    """Run a conversion to its end, killing on the way; what was really killed.

    Args:
        source: The TOML of ``write_source``.
        dataset: Where to.
        options: Of the command.
        kills: Who (``worker`` or ``driver``) and how many seconds after the last start or kill.
        patience_s: How long a run may take.
    """
    done = []
    waiting = list(kills)
    driver = started(source, dataset, *options)
    begin = time.monotonic()
    while True:
        if waiting and driver.poll() is None and time.monotonic() - begin >= waiting[0][1]:
            who, _ = waiting[0]
            victims = [driver.pid] if who == "driver" else [process.pid for process in workers_of(driver)]
            if victims:  # else none has started yet
                waiting.pop(0)
                os.kill(random.Random(len(waiting)).choice(victims), signal.SIGKILL)
                done.append(who)
                begin = time.monotonic()
        elif driver.poll() is not None:
            _, errors = driver.communicate()
            if driver.returncode == -signal.SIGKILL:  # it was the driver: go on
                driver = started(source, dataset, *options)
                begin = time.monotonic()
            elif driver.returncode in ENDED:
                return done
            else:
                raise RuntimeError(f"the conversion ended with {driver.returncode}: {errors[-2000:]}")
        elif time.monotonic() - begin > patience_s:
            driver.kill()
            raise RuntimeError(f"the conversion did not end within {patience_s} s")
        time.sleep(0.02)


def differences(one: Path, two: Path) -> list[str]:
    """Files in which two datasets differ."""
    before, after = bytes_of(one), bytes_of(two)
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12, help="for each engine and number of workers")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--engines", default="processes,dask")
    parser.add_argument("--workers", default="1,8")
    asked = parser.parse_args()
    seed = asked.seed if asked.seed is not None else random.SystemRandom().randrange(10**6)
    rng = random.Random(seed)
    print(f"seed {seed}, {asked.cases} cases in parts of {CASES_PER_PART}")
    print(f"{'engine':10} {'workers':>7} {'round':>5}  {'killed':26} {'seconds':>7}  result")
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="medglip-kill-") as scratch:
        source = write_source(Path(scratch), asked.cases)
        killed_run(source, Path(scratch) / "whole", ["--workers", "1"], [])
        for engine in asked.engines.split(","):
            for workers in asked.workers.split(","):
                options = ["--engine", engine, "--workers", workers]
                begin = time.monotonic()
                killed_run(source, Path(scratch) / "timed", options, [])
                length = time.monotonic() - begin
                wrong += bool(differences(Path(scratch) / "whole", Path(scratch) / "timed"))
                _remove(Path(scratch) / "timed")
                for number in range(asked.rounds):
                    wrong += _round(Path(scratch), source, engine, workers, number, length, rng)
    print("every round gave the bytes of the undisturbed run" if not wrong else f"{wrong} rounds DIFFER")
    return 1 if wrong else 0


def _round(
    scratch: Path, source: Path, engine: str, workers: str, number: int, length: float, rng: random.Random
) -> bool:  # fmt: skip
    """One round; whether its bytes differ."""
    begin = time.monotonic()
    who = ("worker", "driver") if workers != "1" or engine == "dask" else ("driver",)
    kills = [(rng.choice(who), rng.uniform(0.2, 0.9) * length) for _ in range(rng.randint(1, 3))]
    done = killed_run(source, scratch / "killed", ["--engine", engine, "--workers", workers], kills)
    found = differences(scratch / "whole", scratch / "killed")
    said, seconds = ", ".join(done) or "nobody: it had ended", time.monotonic() - begin
    print(f"{engine:10} {workers:>7} {number:>5}  {said:26} {seconds:7.1f}  {found or 'same bytes'}", flush=True)
    _remove(scratch / "killed")
    return bool(found)


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
