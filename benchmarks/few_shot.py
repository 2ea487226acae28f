"""Few shots: AP50 of sources that a checkpoint has not seen, after fine-tuning on 0, 1, 3, 5, 10 or 100 images of each label.

Usage: scripts/bench few_shot CHECKPOINT [--sources a b] [--shots 0 1 3 5 10 100] [--ways all head prompt] [--seeds 0 1 2]
                              [--steps 100] [--batch 8] [--rate 0.1] [--jobs N] [--folder DIR] [--out FILE] [--fresh]
Writes benchmarks/results/few_shot.json after every training, and goes on where such a file of the same settings stops.

In the form of GLIP's tables (arXiv 2112.03857, section 5.2): what learns by shots, means over the sources, and mean and
standard error over seeds, which choose the shots. Without --sources: those that medglip-bench holds out, where they are there
(MEDGLIP_REAL_DATA). CHECKPOINT may be `lite`, with sources that its card does not name. A quarter of each source's patients is
tested on; shots are images of the others; of a source with fewer images than asked all are taken. Each source is learned on its
own from the checkpoint, with its recipe, at --rate times its learning rate, for --steps. 0 shots is the checkpoint as it is.
"""

import argparse
import json
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from modality import earlier_runs, write, written
from peers import machine

from medglip.demo import opened
from medglip.model.shipped import checkpoint_folder

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ("ap50", "acc50", "found", "absence_auroc")
Run = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One fine-tuning with its evaluation, for a process of its own; none where ``shots`` is 0."""

    dataset: Path
    checkpoint: Path
    source: str
    way: str
    shots: int
    seed: int
    changes: Mapping[str, Any]


def recipe(checkpoint: Path, job: Job) -> dict[str, Any]:
    """The configuration that the checkpoint was trained with, for a few shots."""
    from medglip.model.checkpoints import read_info

    config = {name: dict(section) for name, section in read_info(checkpoint).config.items()}
    plan = config["train"]
    plan |= {"steps": job.changes["steps"], "batch": job.changes["batch"], "lr": plan["lr"] * job.changes["rate"]}
    plan |= {"minutes": 0, "validations": 0, "views": 0, "workers": 0, "accelerator": "cpu", "devices": 1}
    plan |= {"shots": job.shots, "learn": job.way, "seed": job.seed, "precision": "32-true"}
    return config


def work(job: Job) -> Run:
    """Fine-tune on the shots of a source and judge on its test images."""
    from medglip.evaluate import evaluate
    from medglip.train import train

    torch.set_num_threads(1)
    data, checkpoint, begun = opened(job.dataset, divided=True), job.checkpoint, time.process_time()
    with tempfile.TemporaryDirectory() as out:
        images = 0
        if job.shots:
            checkpoint = train(recipe(checkpoint, job), [data], out, start_from=job.checkpoint, show=False)
            images = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))["trained"]["images"]
        seconds = time.process_time() - begun
        found = evaluate(checkpoint, [data], split="test")
    return {"source": job.source, "way": job.way, "shots": job.shots, "seed": job.seed, "cpu_seconds": round(seconds, 1),
            "train_images": images, **{name: found[name] for name in (*FIGURES, "images", "questions")}}  # fmt: skip


def datasets(asked: argparse.Namespace, folder: Path) -> dict[str, Path]:
    """A dataset of each source that is there and holds test images."""
    from medglip.curate import convert
    from medglip.curate.collections import load_collection

    real = Path(os.environ.get("MEDGLIP_REAL_DATA", ROOT.parent / "shared/data"))
    names = asked.sources or load_collection("medglip_bench").held_out_sources
    found = {}
    for name in names:
        place = real / name.replace("_", "-")
        if not place.is_dir():
            continue
        if not (folder / name / "manifest.json").is_file():
            convert(name, place, folder / name)
        if opened(folder / name, divided=True).ids("test"):
            found[name] = folder / name
    if not found:
        raise SystemExit(f"None of the sources is in {real}, or none has test images; name others with --sources.")
    return found


def cells(runs: Sequence[Run], way: str, shots: int, source: str | None = None) -> tuple[float | None, float | None]:
    """AP50 of some runs: a mean over sources of each seed, then mean and standard error over seeds."""
    mine = [run for run in runs if run["shots"] == shots and (run["way"] == way or shots == 0)]
    mine = [run for run in mine if source in (None, run["source"]) and run["ap50"] is not None]
    by_seed: dict[int, list[float]] = {}
    for run in mine:
        by_seed.setdefault(run["seed"], []).append(run["ap50"])
    means = [statistics.mean(values) for values in by_seed.values()]
    error = statistics.stdev(means) / math.sqrt(len(means)) if len(means) > 1 else None
    return (statistics.mean(means) if means else None), error


def tables(runs: Sequence[Run]) -> str:
    """Markdown: what learns by shots, then each source."""
    ways, shots = sorted({run["way"] for run in runs if run["shots"]}), sorted({run["shots"] for run in runs})
    sources = sorted({run["source"] for run in runs})
    lines = []
    for source in (None, *sources):
        title = f"AP50, mean of {len(sources)} sources" if source is None else source
        lines += ["", f"| {title} | {' | '.join(f'{count} shots' for count in shots)} |", "| --- |" + " --- |" * len(shots)]
        for way in ways or ["as it is"]:
            values = [cells(runs, way, count, source) for count in shots]
            told = [written(mean) + ("" if error is None else f" ± {error:.3f}") for mean, error in values]
            lines.append(f"| {way} | {' | '.join(told)} |")
    return "\n".join(lines[1:])


def missing(asked: argparse.Namespace, found: Mapping[str, Path], runs: Sequence[Run]) -> list[Job]:
    """What is left to do, seed by seed; the checkpoint as it is is judged once."""
    there = {(run["source"], run["way"], run["shots"], run["seed"]) for run in runs}
    changes = {"steps": asked.steps, "batch": asked.batch, "rate": asked.rate}
    wanted = [(source, "all", 0, 0) for source in found if 0 in asked.shots]
    wanted += [(source, way, shots, seed) for seed in asked.seeds for source in found for shots in asked.shots if shots
               for way in asked.ways]  # fmt: skip
    return [Job(found[one[0]], asked.checkpoint, *one, changes) for one in wanted if one not in there]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=checkpoint_folder, help="a checkpoint that has not seen the sources")
    parser.add_argument("--sources", nargs="+")
    parser.add_argument("--shots", type=int, nargs="+", default=[0, 1, 3, 5, 10, 100])
    parser.add_argument("--ways", nargs="+", default=["all", "head", "prompt"], help="values of train.learn")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=0.1, help="part of the recipe's learning rate")
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side, one core each")
    parser.add_argument("--folder", type=Path, help="where to leave the datasets; default: a temporary folder")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/few_shot.json", help="the file of results")
    parser.add_argument("--fresh", action="store_true", help="forget the runs that the file holds")
    asked = parser.parse_args()
    settings = {"checkpoint": asked.checkpoint.name, "steps": asked.steps, "batch": asked.batch, "rate": asked.rate}
    runs = [] if asked.fresh else earlier_runs(asked.out, settings)
    head = {"what": __doc__.splitlines()[0], "command": " ".join(["scripts/bench few_shot", *sys.argv[1:]]),
            "settings": settings, "machine": machine("cpu")}  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.folder or Path(scratch)
        jobs = missing(asked, datasets(asked, folder), runs)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(asked.jobs, mp_context=context, max_tasks_per_child=1) as pool:
            futures = [pool.submit(work, job) for job in jobs]
            try:
                for done, future in enumerate(as_completed(futures), start=1):
                    runs.append(future.result())
                    write(asked.out, head | {"runs": runs})
                    print(f"{done} of {len(jobs)}: {json.dumps(runs[-1])}", flush=True)
            except BaseException:
                for future in futures:
                    future.cancel()  # what failed once would fail in every run
                raise
    print(tables(runs))


if __name__ == "__main__":
    main()
