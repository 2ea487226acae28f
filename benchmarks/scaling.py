"""Data-parallel training: two processes and one, with equal batches in all, give equal losses and weights; and their speed.

Usage: scripts/bench scaling [--config lite] [--batch 8] [--steps 40] [--cases 6] [--dataset DIR] [--out FILE] [--quick]
Writes benchmarks/results/scaling.json. One thread a process on CPUs, gloo between them, both started by torchrun. A step of
two processes sees the images that one process sees, half of them each. The largest differences are of the logged losses of a
step, relative, and of the last weights, absolute. Sums in another order make small differences, which training lets grow.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from modality import make_dataset, write
from peers import machine
from safetensors.torch import load_file
from throughput import SKIPPED, logged

from medglip import store

ROOT = Path(__file__).resolve().parents[1]


def child(task: dict[str, Any]) -> None:
    """What each process under torchrun does."""
    from medglip.model import load_config
    from medglip.train import train

    torch.set_num_threads(1)
    count = int(os.environ["WORLD_SIZE"])
    config = load_config(
        task["config"],
        steps=task["steps"],
        minutes=0,
        batch=task["batch"] // count,
        devices=count,
        accelerator="cpu",
        workers=0,
    )
    config["train"]["strategy"] = "ddp" if count > 1 else "auto"
    train(config, [store.open(task["dataset"])], task["out"], show=False)


def run(task: dict[str, Any], processes: int, folder: Path) -> dict[str, Any]:
    """A training in so many processes: its curve, its speed, and where its last weights are."""
    out = folder / f"{processes}_processes"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1", f"--nproc-per-node={processes}"]
    place = ["--master-addr=127.0.0.1", f"--master-port={port}"]
    command = [*torchrun, *place, __file__, "--child", json.dumps(task | {"out": str(out)})]
    alone = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | alone)
    if done.returncode:
        raise RuntimeError(f"{processes} processes ended with {done.returncode}:\n{done.stderr[-3000:]}")
    lines = logged(out / "metrics.jsonl")
    rates = [line["images_per_second"] for line in lines[min(SKIPPED, len(lines) - 1) :]]
    return {
        "processes": processes, "batch_a_process": task["batch"] // processes, "losses": [line["loss"] for line in lines],
        "images_a_second": round(statistics.median(rates), 2), "seconds_with_start": round(time.monotonic() - begun, 1),
        "weights": str(next((out / "last").glob("*.safetensors"))),
    }  # fmt: skip


def compared(one: dict[str, Any], two: dict[str, Any]) -> dict[str, float]:
    """How far the curves and the last weights are apart."""
    losses = [abs(a - b) / max(abs(a), 1e-9) for a, b in zip(one["losses"], two["losses"], strict=True)]
    first, second = load_file(one.pop("weights")), load_file(two.pop("weights"))
    apart = [float((first[name].float() - second[name].float()).abs().max()) for name in first if first[name].numel()]
    size = [float(value.float().abs().max()) for value in first.values() if value.numel()]
    return {
        "largest_relative_difference_of_losses": max(losses), "of_the_first_step": losses[0],
        "median_relative_difference_of_losses": statistics.median(losses),
        "largest_difference_of_weights": max(apart), "largest_weight": max(size),
        "times_faster": round(two["images_a_second"] / one["images_a_second"], 3),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="lite")
    parser.add_argument("--batch", type=int, default=8, help="images of a step, of all processes together; an even number")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--cases", type=int, default=6, help="phantom cases a modality")
    parser.add_argument("--dataset", type=Path, help="a converted dataset; default: phantoms")
    parser.add_argument("--out", type=Path, help="the file of results")
    parser.add_argument("--quick", action="store_true", help="`tiny`, few steps; nothing is written without --out")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(json.loads(asked.child))
        return
    if asked.quick:
        asked.config, asked.batch, asked.steps, asked.cases = "tiny", 4, 4, 3
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        dataset = asked.dataset or make_dataset(folder, None, asked.cases)
        task = {"config": asked.config, "dataset": str(dataset), "steps": asked.steps, "batch": asked.batch}
        one, two = (run(task, processes, folder) for processes in (1, 2))
        differences = compared(one, two)
    print(json.dumps(differences, indent=1))
    if asked.out or not asked.quick:
        write(asked.out or ROOT / "benchmarks/results/scaling.json", {
            "what": __doc__.splitlines()[0], "command": " ".join(["scripts/bench scaling", *sys.argv[1:]]),
            "machine": machine("cpu"), "config": asked.config, "batch": asked.batch, "differences": differences,
            "runs": [one, two],
        })  # fmt: skip


if __name__ == "__main__":
    main()
