"""Images a second of training on a CPU, the share of the time that waits for data, and memory, by recipe and loader workers.

Usage: scripts/bench throughput [--configs lite lite_finetune] [--workers 0 1 2] [--steps 60] [--data phantoms real]
                                [--cases 12] [--folder DIR] [--out FILE] [--quick]
Writes benchmarks/results/throughput.json after each run. Each run is a fresh process of `medglip.train.train` without
validation. Waiting is the time between the end of a step and the arrival of the next batch, as the run logs it
(metrics.jsonl); the first steps, in which workers start, are left out. With kept features (`views` above 0) a step itself reads
the images whose features are not known yet, so the second half of such a run is given apart. Memory is the most that the
process held, and the largest of its workers, which share part of it.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from model_speed import held_mib
from peers import machine

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = 5  # first steps


def logged(log: Path) -> list[dict[str, Any]]:
    """The lines of a run's log that are of a step."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if "images_per_second" in line]


def waiting(lines: Sequence[dict[str, Any]], batch: int) -> dict[str, float]:
    """Rate and waiting of some steps.

    Returns:
        ``images_a_second`` with waiting, ``step_images_a_second`` without, ``waiting_share`` of the time, in [0, 1].
    """
    taken = sum(batch / line["images_per_second"] for line in lines)
    waited = sum(line["waiting"] for line in lines)
    count = batch * len(lines)
    return {
        "images_a_second": round(count / max(taken, 1e-6), 2),
        "step_images_a_second": round(count / max(taken - waited, 1e-6), 2),
        "waiting_share": round(waited / max(taken, 1e-6), 4),
    }


def child(task: dict[str, Any]) -> None:
    """One training, in a process of its own; prints JSON."""
    from medglip.demo import opened
    from medglip.model import load_config
    from medglip.train import train

    if task["threads"]:
        torch.set_num_threads(task["threads"])
    data = opened(Path(task["dataset"]), divided=task["divided"])
    config = load_config(task["config"], steps=task["steps"], minutes=0, workers=task["workers"], accelerator="cpu")
    with tempfile.TemporaryDirectory() as out:
        train(config, [data], out, show=False)
        lines = logged(Path(out) / "metrics.jsonl")
    batch, first = config["train"]["batch"], min(SKIPPED, len(lines) - 1)
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(json.dumps({
        **waiting(lines[first:], batch), "second_half": waiting(lines[(first + len(lines)) // 2 :], batch),
        "median_step_s": round(statistics.median(batch / line["images_per_second"] for line in lines), 4), "batch": batch,
        "peak_mib": round(held_mib("VmHWM")), "largest_worker_mib": round(worker) if task["workers"] else 0,
    }))  # fmt: skip


def run(task: dict[str, Any]) -> dict[str, Any]:
    """Figures of one training."""
    done = subprocess.run([sys.executable, __file__, "--child", json.dumps(task)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{task} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return {name: task[name] for name in ("data", "config", "workers", "steps")} | json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    from modality import make_dataset, write  # not at the top: others read logs with this file, and have no sources to convert

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=["lite", "lite_finetune"])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--data", nargs="+", choices=("phantoms", "real"), default=["phantoms", "real"])
    parser.add_argument("--cases", type=int, default=12, help="phantom cases a modality")
    parser.add_argument("--threads", type=int, default=0, help="of the training process; 0: as torch has it")
    parser.add_argument("--folder", type=Path, help="where to leave the datasets; default: a temporary folder")
    parser.add_argument("--out", type=Path, help="the file of results")
    parser.add_argument(
        "--quick", action="store_true", help="`tiny`, few steps on few phantoms; nothing is written without --out"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(json.loads(asked.child))
        return
    if asked.quick:
        asked.configs, asked.workers, asked.steps, asked.data, asked.cases = ["tiny"], [0, 1], 8, ["phantoms"], 3
    real = Path(os.environ.get("MEDGLIP_REAL_DATA", ROOT.parent / "shared/data"))
    result: dict[str, Any] = {
        "what": __doc__.splitlines()[0], "command": " ".join(["scripts/bench throughput", *sys.argv[1:]]),
        "machine": machine("cpu"), "cases": asked.cases, "threads": asked.threads or torch.get_num_threads(), "runs": [],
    }  # fmt: skip
    target = asked.out or ROOT / "benchmarks/results/throughput.json"
    with tempfile.TemporaryDirectory() as scratch:
        for data in asked.data:
            folder = (asked.folder or Path(scratch)) / data
            folder.mkdir(parents=True, exist_ok=True)
            dataset = make_dataset(folder, real if data == "real" else None, asked.cases)
            for config in asked.configs:
                for workers in asked.workers:
                    task = {"data": data, "dataset": str(dataset), "divided": data == "real", "config": config,
                            "workers": workers, "steps": asked.steps, "threads": asked.threads}  # fmt: skip
                    result["runs"].append(run(task))
                    print(json.dumps(result["runs"][-1]), flush=True)
                    if asked.out or not asked.quick:
                        write(target, result)


if __name__ == "__main__":
    main()
