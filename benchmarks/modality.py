"""Ways of conditioning on the modality: none, each alone, all together; told the right, a wrong, and no modality.

Usage: scripts/bench modality [--real] [--steps N] [--seeds 0 1 2] [--ways none prompt film adapter encoder all]
                              [--config NAME] [--cases N] [--folder DIR] [--out FILE] [--jobs N] [--fresh]
Writes benchmarks/results/modality.json or modality_real.json after every run, and goes on where such a file of the same
settings stops. Every run has the same steps, so ways are compared at equal steps; seconds are beside them.

Runs of one seed begin with the same weights, apart from those of the conditioning, and see the same questions in the
same order: their differences are taken in pairs. The last averaged weights are judged; nothing is chosen on held-out
images. "Wrong" tells each image the next of the sorted modalities of the test images.
"""

import argparse
import json
import math
import multiprocessing
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from medglip.curate import convert, source_names
from medglip.demo import opened
from medglip.model import load_config
from medglip.predict import Answer, Grounder

ROOT = Path(__file__).resolve().parents[1]
WAYS: dict[str, list[str]] = {
    "none": [], "prompt": ["prompt"], "film": ["film"], "adapter": ["adapter"], "encoder": ["encoder"],
    "all": ["prompt", "film", "adapter", "encoder"],
}  # fmt: skip
TOLD = ("right", "wrong", "unknown")
FIGURES = ("ap50", "acc50", "found", "absence_auroc")
PHANTOM_SEED = 0  # of the images; seeds of the runs are those of the training
Run = dict[str, Any]


class Told(Grounder):
    """A grounder that is told another modality than the image's: ``told`` says which instead of which."""

    def __init__(self, grounder: Grounder, told: Mapping[str | None, str | None]) -> None:
        super().__init__(grounder.model, grounder.info, str(grounder.device))
        self.told = told

    def answer(
        self, images: Sequence[np.ndarray], phrases: Sequence[Sequence[str]], modalities: Sequence[str | None]
    ) -> list[Answer]:
        """As ``Grounder.answer``."""
        return super().answer(images, phrases, [self.told.get(name, name) for name in modalities])


@dataclass(frozen=True)
class Job:
    """One training with its evaluation, for a process of its own."""

    dataset: Path
    real: bool
    out: Path
    config: str
    steps: int
    way: str
    seed: int
    show: bool


class Paired(NamedTuple):
    """A mean of differences, its standard error, and the number of pairs."""

    mean: float | None
    error: float | None
    pairs: int


def make_dataset(folder: Path, real: Path | None, cases: int) -> Path:
    """The dataset, converted into ``folder`` where it is not there yet."""
    from medglip.phantoms import write_archive

    dataset, done = folder / "dataset", folder / "converted"
    if done.is_file():
        return dataset
    inputs = [(name, real / name.replace("_", "-")) for name in source_names()] if real else [("phantom", folder / "archive")]
    if real is None:
        shutil.rmtree(folder / "archive", ignore_errors=True)
        write_archive(folder / "archive", cases=cases, seed=PHANTOM_SEED)
    for name, path in inputs:
        if path.is_dir():
            print(f"converting {name}", flush=True)
            convert(name, path, dataset, workers=1 if real else 2)
    done.write_text("whole\n", encoding="utf-8")
    return dataset


def rotated(modalities: Sequence[str]) -> dict[str | None, str | None]:
    """Each modality to the next of those that are there, the last to the first."""
    names = sorted(set(modalities))
    following: dict[str | None, str | None] = {}
    following.update(zip(names, names[1:] + names[:1], strict=True))
    return following


def figures_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of an evaluation."""
    by_modality = {name: {figure: one[figure] for figure in FIGURES} for name, one in found["by_modality"].items()}
    return {figure: found[figure] for figure in FIGURES} | {"by_modality": by_modality}


def work(job: Job) -> Run:
    """Train one model and judge it, told the right, a wrong and no modality."""
    from medglip.evaluate import evaluate
    from medglip.train import train
    from medglip.train.folder import clear

    torch.set_num_threads(1)
    data = opened(job.dataset, divided=job.real)
    begun, used = time.monotonic(), time.process_time()
    clear(job.out)
    best = train(job.config, [data], job.out, show=job.show, steps=job.steps, minutes=0, seed=job.seed, modality=WAYS[job.way])
    seconds, used = time.monotonic() - begun, time.process_time() - used
    grounder = Grounder.load(best)
    run: Run = {
        "way": job.way,
        "seed": job.seed,
        "conditioning_parameters": sum(value.numel() for value in grounder.model.modality.parameters()),
        "training_seconds": round(seconds, 1),
        "training_cpu_seconds": round(used, 1),
        "machine": platform.machine(), "cores": os.cpu_count(), "device": str(grounder.device),
        "python": platform.python_version(), "torch": torch.__version__,
    }  # fmt: skip
    names = [record.modality for record in data.records("test")]
    instead: dict[str, dict[str | None, str | None]] = {"right": {}, "wrong": rotated(names), "unknown": dict.fromkeys(names)}
    for told in TOLD:
        if job.way == "none" and told != "right":  # this model does not look at what it is told
            run[told] = run["right"]
        elif told != "wrong" or len(set(names)) > 1:
            run[told] = figures_of(evaluate(Told(grounder, instead[told]), [data], split="test"))
    return run


def value_of(run: Run, figure: str, told: str = "right", modality: str | None = None) -> float | None:
    """One figure of a run, of all images or of a modality's; None where there is none."""
    figures = run.get(told, {})
    figures = figures if modality is None else figures.get("by_modality", {}).get(modality, {})
    return figures.get(figure)


def mean_of(runs: Sequence[Run], way: str, figure: str, told: str = "right", modality: str | None = None) -> float | None:
    """The mean over seeds; None where no run has the figure."""
    found = [value_of(run, figure, told, modality) for run in runs if run["way"] == way]
    known = [value for value in found if value is not None]
    return statistics.mean(known) if known else None


def paired(runs: Sequence[Run], way: str, figure: str, told: str = "right", modality: str | None = None) -> Paired:
    """A way less none, both of one seed: the mean over seeds with its standard error (None for one pair)."""
    if way == "none":
        return Paired(None, None, 0)
    of = {(run["way"], run["seed"]): value_of(run, figure, told, modality) for run in runs}
    gains = [
        value - without
        for (name, seed), value in of.items()
        if name == way and value is not None and (without := of.get(("none", seed))) is not None
    ]
    if not gains:
        return Paired(None, None, 0)
    error = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else None
    return Paired(statistics.mean(gains), error, len(gains))


def written(value: float | None) -> str:
    """A figure for a table."""
    return "–" if value is None else f"{value:.3f}"


def gained(gain: Paired) -> str:
    """A paired difference for a table: mean ± standard error."""
    if gain.mean is None:
        return "–"
    return f"{gain.mean:+.3f}" + (f" ± {gain.error:.3f}" if gain.error is not None else "")


def tables(runs: Sequence[Run]) -> str:
    """Markdown: one table of all images, then one by modality for each thing told."""
    ways = [way for way in WAYS if any(run["way"] == way for run in runs)]
    seeds = sorted({run["seed"] for run in runs})
    lines = [
        f"Means over the seeds {', '.join(map(str, seeds))}; gain: less none of the same seed, mean ± standard error.",
        "",
        "| way | AP50 | gain | told wrong | told nothing | Acc@0.5 | gain | absence AUROC | gain | parameters | CPU s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for way in ways:
        mine = [run for run in runs if run["way"] == way]
        cells = [way, written(mean_of(runs, way, "ap50")), gained(paired(runs, way, "ap50"))]
        cells += [written(mean_of(runs, way, "ap50", told)) for told in TOLD[1:]]
        for figure in ("acc50", "absence_auroc"):
            cells += [written(mean_of(runs, way, figure)), gained(paired(runs, way, figure))]
        cells += [
            f"{mine[0]['conditioning_parameters']:,}",
            f"{statistics.mean(run['training_cpu_seconds'] for run in mine):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    modalities = sorted({name for run in runs for name in run["right"]["by_modality"]})
    for told in TOLD:
        lines += ["", f"AP50 by modality, told {told} (gain over none):", "", f"| modality | {' | '.join(ways)} |"]
        lines.append("| --- |" + " --- |" * len(ways))
        for name in modalities:
            cells = [written(mean_of(runs, way, "ap50", told, name)) for way in ways]
            gains = [f" ({gained(paired(runs, way, 'ap50', told, name))})" if way != "none" else "" for way in ways]
            lines.append(f"| {name} | {' | '.join(map(''.join, zip(cells, gains, strict=True)))} |")
    return "\n".join(lines)


def result_of(settings: dict[str, Any], command: str, runs: Sequence[Run]) -> dict[str, Any]:
    """What is written: settings, every run, and the paired differences."""
    ordered = sorted(runs, key=lambda run: (list(WAYS).index(run["way"]), run["seed"]))
    gains = {
        way: {told: {figure: paired(ordered, way, figure, told)._asdict() for figure in FIGURES} for told in TOLD}
        for way in WAYS
        if way != "none" and any(run["way"] == way for run in ordered)
    }
    what = __doc__.splitlines()[0] if __doc__ else ""
    return {"what": what, "command": command, "settings": settings, "gain_over_none": gains, "runs": ordered}


def write(target: Path, result: dict[str, Any]) -> None:
    """The result as JSON; it appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.with_suffix(".new").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    os.replace(target.with_suffix(".new"), target)


def earlier_runs(target: Path, settings: dict[str, Any]) -> list[Run]:
    """The runs of a file of the same settings; ends the program where it holds others."""
    if not target.is_file():
        return []
    found = json.loads(target.read_text(encoding="utf-8"))
    if found["settings"] != settings:
        differ = [name for name in settings if found["settings"].get(name) != settings[name]]
        raise SystemExit(
            f"{target} holds runs of other settings ({', '.join(differ)}); give --out FILE, or --fresh to replace it."
        )
    return list(found["runs"])


def recipe_of(config: str, steps: int) -> dict[str, Any]:
    """The whole configuration, less what the runs differ in."""
    recipe = load_config(config, steps=steps, minutes=0)
    del recipe["model"]["modality"], recipe["train"]["seed"]
    return recipe


def run_all(jobs: Sequence[Job], side_by_side: int, runs: list[Run], target: Path, head: tuple[dict[str, Any], str]) -> None:
    """Do the jobs, each in a fresh process, and write the file after each."""
    begun, count = time.monotonic(), len(runs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(side_by_side, mp_context=context, max_tasks_per_child=1) as pool:
        futures = [pool.submit(work, job) for job in jobs]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                run = future.result()
                runs.append(run)
                write(target, result_of(*head, runs))
                left = (time.monotonic() - begun) / done * (len(jobs) - done) / 60
                which = f"{count + done} of {count + len(jobs)}: {run['way']}, seed {run['seed']}"
                found = f"AP50 {written(value_of(run, 'ap50'))}, {run['training_seconds']:.0f} s"
                print(f"{which}: {found}; about {left:.0f} min left", flush=True)
        except BaseException:
            for future in futures:
                future.cancel()  # what failed once would fail in every run
            raise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", action="store_true", help="real sources, from MEDGLIP_REAL_DATA")
    parser.add_argument("--config", help="recipe; default: lite, with --real lite_finetune")
    parser.add_argument("--steps", type=int, default=600, help="of each training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--cases", type=int, default=40, help="phantom cases a modality")
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side, one core each; 1 shows a bar")
    parser.add_argument("--folder", type=Path, help="where to leave dataset and checkpoints; default: a temporary folder")
    parser.add_argument("--out", type=Path, help="the file of results")
    parser.add_argument("--fresh", action="store_true", help="forget the runs that the file holds")
    asked = parser.parse_args()
    real = Path(os.environ.get("MEDGLIP_REAL_DATA", ROOT.parent / "shared/data")) if asked.real else None
    config = asked.config or ("lite_finetune" if asked.real else "lite")
    target = asked.out or ROOT / "benchmarks/results" / ("modality_real.json" if asked.real else "modality.json")
    settings = {"data": "real sources" if real else "synthetic phantoms", "cases": None if real else asked.cases,
                "config": config, "recipe": recipe_of(config, asked.steps)}  # fmt: skip
    data = "--real" if asked.real else f"--cases {asked.cases}"
    command = f"scripts/bench modality {data} --config {config} --steps {asked.steps} --jobs {asked.jobs}"
    command += f" --seeds {' '.join(map(str, asked.seeds))} --ways {' '.join(asked.ways)}"
    runs = [] if asked.fresh else earlier_runs(target, settings)
    there = {(run["way"], run["seed"]) for run in runs}
    # Seed by seed, so that an early stop leaves whole pairs.
    missing = [(way, seed) for seed in asked.seeds for way in asked.ways if (way, seed) not in there]
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        if missing:
            dataset = make_dataset(folder, real, asked.cases)
            if not opened(dataset, divided=asked.real).ids("test"):
                raise SystemExit("No image is held out; give more --cases.")
            jobs = [Job(dataset, asked.real, folder / f"{way}_{seed}", config, asked.steps, way, seed, asked.jobs == 1)
                    for way, seed in missing]  # fmt: skip
            run_all(jobs, asked.jobs, runs, target, (settings, command))
    print(tables(runs))


if __name__ == "__main__":
    main()
