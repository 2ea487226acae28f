"""Quality at equal budget: ours, ours without one part at a time, MM-Grounding-DINO (its loss as it is and mended), RetinaNet.

Usage: scripts/bench quality [--steps 600] [--trial-steps 60] [--seeds 0 1 2] [--systems a b] [--jobs N] [--draws 300]
                             [--data collection|sources|phantoms] [--rule rank|hash] [--dataset DIR] [--cases 40]
                             [--folder DIR] [--out FILE] [--fresh] [--quick]
Writes benchmarks/results/quality.json (quality_DATA.json for other data) after every training, and goes on where a file of the
same settings stops. `collection` is medglip-bench: those of its sources that are there (MEDGLIP_REAL_DATA), with sources and
labels that no system may train on; `rank` holds out a quarter of each source's patients, `hash` takes the dataset's own
splits. `sources` are all sources that are there, a quarter of each one's patients held out.

The same for all: EfficientNet-Lite0 with ImageNet weights, MiniLM (not RetinaNet, which has one class a concept), 256 pixels,
the same images in the same views and order, the same phrases, the same steps, averaged weights, the same questions of the test
images. The learning rate of ours, of each MM-Grounding-DINO and of RetinaNet is the best of the same three, by AP50 on
validation images after --trial-steps with seed 0; parts of ours are left out at the rate of ours. Nothing is chosen on test
images. `zero shot` is of sources and labels that training did not see (of a collection only).

`ours` is `lite` at the peers' width whose encoder learns, with hierarchy 1 and contrast 0.5 in its loss. `without_modality`: no
conditioning; `without_hierarchy` and `without_contrast`: that weight 0; `without_fusion`: no fusion layer, image and phrases
meet in the scores alone; `image_does_not_look`: phrases look at the image, which does not look back.

Differences are of one seed, less `ours`: mean and standard error over seeds, and a percentile interval over patients, who
are drawn anew within their sources, and seeds, drawn with them.
"""

import argparse
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from learners import CLIP, ENCODER_RATE, LITE0_FROM, PLAN, RATES, SETTINGS, SIZE, build, judged, names_of, train
from modality import earlier_runs, make_dataset, write, written
from peers import machine, parameters

from medglip.demo import opened
from medglip.predict import Grounder

ROOT = Path(__file__).resolve().parents[1]
COLLECTION = "medglip_bench"
FULL = {"hierarchy": 1.0, "contrast": 0.5}
OURS: dict[str, dict[str, Any]] = {
    "ours": {}, "without_modality": {"modality": []}, "without_hierarchy": {"hierarchy": 0.0},
    "without_contrast": {"contrast": 0.0}, "without_fusion": {"fusion_layers": 0},
    "image_does_not_look": {"image_looks": False},
}  # fmt: skip
SYSTEMS = (*OURS, "mm_grounding_dino", "mm_grounding_dino_mended", "retinanet")
FIGURES = ("ap50", "ap", "acc50", "found", "absence_auroc")
Run = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One training with its evaluation, for a process of its own; a trial of a rate where ``trial``."""

    dataset: Path
    data: str
    rule: str
    cases: Path
    system: str
    seed: int
    rate: float
    steps: int
    limit: int
    trial: bool


def family(system: str) -> str:
    """Whose learning rate a system has."""
    return "ours" if system in OURS else system


def views(job: Job) -> tuple[Any, Any, Any]:
    """What is trained on, what is tested on, and what of it training cannot know; None where it can know all."""
    from medglip.curate import collections
    from medglip.store import open as open_dataset

    if job.data != "collection":
        data = opened(job.dataset, divided=job.rule == "rank")
        return data, data, None
    collection = replace(collections.load_collection(COLLECTION), rule=job.rule)
    data = collections.divided(open_dataset(job.dataset), collection)
    kinds = (collections.training_view, collections.evaluation_view, collections.zero_shot_view)
    learned, tested, unseen = (kind(data, collection) for kind in kinds)
    return learned, tested, unseen


def work(job: Job) -> Run:
    """Train one system and judge it."""
    from medglip.evaluate import evaluate
    from medglip.records.labels import label_tree
    from medglip.train.samples import Samples

    torch.set_num_threads(1)
    learned, tested, unseen = views(job)
    samples = Samples([learned], "train", label_tree(), PLAN | {"seed": job.seed}, SIZE)
    name = family(job.system)
    changes = FULL | OURS[job.system] if name == "ours" else None
    learner = build(name, "cpu", samples, names_of(learned) | names_of(tested), job.seed, changes, pretrained=True)

    def judge(grounder: Grounder) -> Run:
        found = evaluate(grounder, [tested], split="test", out=job.cases)
        by_modality = {kind: {name: one.get(name) for name in FIGURES} for kind, one in found["by_modality"].items()}
        result = {name: found[name] for name in (*FIGURES, "images", "questions")} | {"by_modality": by_modality}
        if unseen is not None and unseen.ids("test"):
            new = evaluate(grounder, [unseen], split="test")
            result["zero_shot"] = {name: new[name] for name in (*FIGURES, "images", "questions")}
        return result

    begun = time.process_time()
    judges = judged(learned, "val", job.limit) if job.trial else judge
    found = train(learner, samples, job.rate, CLIP[name], [job.steps], judges)
    return {
        "system": job.system, "seed": job.seed, "rate": job.rate, "trial": job.trial, **found[-1],
        "cpu_seconds": round(time.process_time() - begun, 1), "parameters": parameters(learner.model),
    }  # fmt: skip


def run_all(jobs: Sequence[Job], side_by_side: int, runs: list[Run], keep: Any) -> None:
    """Do the jobs, each in a fresh process, and keep each when it is done."""
    begun = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(side_by_side, mp_context=context, max_tasks_per_child=1) as pool:
        futures = [pool.submit(work, job) for job in jobs]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                run = future.result()
                runs.append(run)
                keep(runs)
                left = (time.monotonic() - begun) / done * (len(jobs) - done) / 60
                which = f"{run['system']}, seed {run['seed']}, rate {run['rate']}"
                print(f"{done} of {len(jobs)}: {which}: AP50 {written(run['ap50'])}; about {left:.0f} min left", flush=True)
        except BaseException:
            for future in futures:
                future.cancel()  # what failed once would fail in every run
            raise


def best_rates(runs: Sequence[Run]) -> dict[str, float]:
    """Family to the rate with the best AP50 of its trials; the lower rate of equals."""
    found: dict[str, dict[float, float]] = {}
    for run in runs:
        if run["trial"]:
            found.setdefault(run["system"], {})[run["rate"]] = run["ap50"] or 0.0
    return {name: max(sorted(by_rate), key=lambda rate: by_rate[rate]) for name, by_rate in found.items()}


def gains(runs: Sequence[Run], system: str, figure: str, modality: str | None = None) -> dict[str, Any]:
    """A system less ours, of equal seeds: mean, standard error (None of one seed) and the number of seeds."""

    def value(run: Run) -> float | None:
        return (run if modality is None else run["by_modality"].get(modality, {})).get(figure)

    of = {(run["system"], run["seed"]): value(run) for run in runs if not run["trial"]}
    seeds = sorted({seed for _, seed in of})
    pairs = [(of.get((system, seed)), of.get(("ours", seed))) for seed in seeds]
    known = [theirs - ours for theirs, ours in pairs if theirs is not None and ours is not None]
    if not known:
        return {"mean": None, "error": None, "seeds": 0}
    error = statistics.stdev(known) / math.sqrt(len(known)) if len(known) > 1 else None
    return {"mean": statistics.mean(known), "error": error, "seeds": len(known)}


def intervals(folder: Path, runs: Sequence[Run], draws: int) -> dict[str, dict[str, list[float]]]:
    """System to figure to the ends of a 95 % interval of its difference to ours, of seeds whose cases are there.

    Every run is of the same cases in the same order, so one draw of patients is the same for all of them.

    Raises:
        ValueError: runs were asked other questions.
    """
    from medglip.evaluate.bootstrap import Patients
    from medglip.evaluate.cases import read_cases
    from medglip.evaluate.tally import Tally

    of: dict[tuple[str, int], np.ndarray] = {}
    asked, weights = None, []
    for run in runs:
        path = folder / f"{run['system']}_{run['seed']}" / "cases.parquet"
        if run["trial"] or not draws or not path.is_file():
            continue
        cases = read_cases(path)
        questions = [(case.image, case.concept) for case in cases]
        if asked is None:
            rng, patients = np.random.default_rng(0), Patients(cases)
            if patients.count < 2:  # nothing to draw from
                return {}
            asked, weights = questions, [patients.draw(rng) for _ in range(draws)]
        if asked != questions:
            raise ValueError(f"{path} holds other questions than the runs before it; give --fresh and another --folder.")
        tally = Tally(cases)
        drawn = [tally.figures(weight) for weight in weights]
        rows = [[one.get(name) for name in FIGURES] for one in drawn]
        of[run["system"], run["seed"]] = np.array(rows, float)  # None becomes nan
    result: dict[str, dict[str, list[float]]] = {}
    for system in sorted({name for name, _ in of} - {"ours"}):
        seeds = [seed for name, seed in of if name == system and ("ours", seed) in of]
        if not seeds:
            continue
        differences = np.stack([of[system, seed] - of["ours", seed] for seed in seeds])  # (seeds, draws, figures)
        chosen = np.random.default_rng(1).integers(0, len(seeds), (draws, len(seeds)))
        means = np.stack([differences[chosen[draw], draw].mean(axis=0) for draw in range(draws)])
        ends = {name: means[:, column] for column, name in enumerate(FIGURES)}
        result[system] = {
            name: [round(float(end), 4) for end in np.nanquantile(values, (0.025, 0.975))]
            for name, values in ends.items()
            if np.isfinite(values).mean() >= 0.5
        }
    return result


def tables(runs: Sequence[Run], ends: dict[str, dict[str, list[float]]]) -> str:
    """Markdown: all images, then AP50 by modality."""
    done = [run for run in runs if not run["trial"]]
    systems = [name for name in SYSTEMS if any(run["system"] == name for run in done)]
    lines = [
        "| system | AP50 | less ours | 95 %, patients and seeds | Acc@0.5 | found | absence AUROC | zero-shot AP50 | s a step |"
    ]
    lines.append("| --- |" + " --- |" * 8)

    def mean(system: str, figure: str, modality: str | None = None) -> float | None:
        mine = [run for run in done if run["system"] == system]
        if modality is not None:
            mine = [
                run.get("zero_shot", {}) if modality == "zero shot" else run["by_modality"].get(modality, {}) for run in mine
            ]
        known = [one[figure] for one in mine if one.get(figure) is not None]
        return statistics.mean(known) if known else None

    for name in systems:
        mine = [run for run in done if run["system"] == name]
        less = gains(runs, name, "ap50")
        difference = "–" if name == "ours" or less["mean"] is None else f"{less['mean']:+.3f}"
        difference += f" ± {less['error']:.3f}" if name != "ours" and less["error"] is not None else ""
        low_high = ends.get(name, {}).get("ap50")
        cells = [name, written(mean(name, "ap50")), difference]
        cells.append("–" if low_high is None else f"{low_high[0]:+.3f} to {low_high[1]:+.3f}")
        cells += [written(mean(name, figure)) for figure in ("acc50", "found", "absence_auroc")]
        cells += [
            written(mean(name, "ap50", "zero shot")),
            f"{statistics.mean(run['seconds'] / run['step'] for run in mine):.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"| AP50 by modality | {' | '.join(systems)} |", "| --- |" + " --- |" * len(systems)]
    for kind in sorted({kind for run in done for kind in run["by_modality"]}):
        lines.append(f"| {kind} | {' | '.join(written(mean(name, 'ap50', kind)) for name in systems)} |")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600, help="of each training")
    parser.add_argument("--trial-steps", type=int, default=60, help="steps with each of three rates; 0 takes the middle one")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side, one core each")
    parser.add_argument("--draws", type=int, default=300, help="draws of patients for intervals; 0: none")
    parser.add_argument("--limit", type=int, default=48, help="at most so many validation images judge a trial")
    parser.add_argument("--data", choices=("collection", "sources", "phantoms"), default="collection")
    parser.add_argument("--rule", choices=("rank", "hash"), default="rank", help="what is held out of each source")
    parser.add_argument("--dataset", type=Path, help="where that is converted already")
    parser.add_argument("--cases", type=int, default=40, help="phantom cases a modality")
    parser.add_argument("--folder", type=Path, help="where to leave dataset and answers; default: a temporary folder")
    parser.add_argument("--out", type=Path, help="the file of results")
    parser.add_argument("--fresh", action="store_true", help="forget the runs that the file holds")
    parser.add_argument("--quick", action="store_true", help="two steps on a few phantoms; nothing is written without --out")
    asked = parser.parse_args()
    if asked.quick:
        asked.steps, asked.trial_steps, asked.seeds, asked.cases, asked.draws = 2, 0, asked.seeds[:1], 3, 5
        asked.data = "phantoms"
    return asked


def converted(asked: argparse.Namespace, folder: Path) -> Path:
    """The dataset, converted into the folder where it is not there yet."""
    from medglip.curate.collections import convert_collection

    real = Path(os.environ.get("MEDGLIP_REAL_DATA", ROOT.parent / "shared/data"))
    if asked.dataset:
        return asked.dataset
    if asked.data != "collection":
        return make_dataset(folder, None if asked.data == "phantoms" else real, asked.cases)
    if not (folder / "collected").is_file():
        convert_collection(COLLECTION, real, folder / "dataset")
        (folder / "collected").write_text("whole\n", encoding="utf-8")
    return folder / "dataset"


def main() -> None:
    asked = arguments()
    name = "quality.json" if asked.data == "collection" else f"quality_{asked.data}.json"
    target = asked.out or ROOT / "benchmarks/results" / name
    settings = {"data": asked.data, "rule": asked.rule, "cases": asked.cases if asked.data == "phantoms" else None,
                "steps": asked.steps, "full": FULL, "trial_steps": asked.trial_steps, "limit": asked.limit,
                "rates": list(RATES), "encoder": f"efficientnet_lite0 from block {LITE0_FROM}, at {ENCODER_RATE} of the rate",
                **{name: value for name, value in SETTINGS.items() if name != "swin"}}  # fmt: skip
    runs = [] if asked.fresh or asked.quick else earlier_runs(target, settings)
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        ends: dict[str, dict[str, list[float]]] = {}

        def keep(some: Sequence[Run]) -> None:
            differences = {
                name: {figure: gains(some, name, figure) for figure in FIGURES} for name in SYSTEMS if name != "ours"
            }
            if asked.quick and not asked.out:
                return
            command = " ".join(["scripts/bench quality", *sys.argv[1:]])
            write(target, {"what": __doc__.splitlines()[0], "command": command, "settings": settings, "machine": machine("cpu"),
                           "less_ours": differences, "intervals_95": ends, "runs": list(some)})  # fmt: skip

        run_missing(asked, converted(asked, folder), folder, runs, keep)
        ends = intervals(folder, runs, asked.draws)
        keep(runs)
        print(tables(runs, ends))


def run_missing(asked: argparse.Namespace, dataset: Path, folder: Path, runs: list[Run], keep: Any) -> None:
    """Trials first, then the runs, seed by seed, so that an early stop leaves whole pairs."""
    there = {(run["system"], run["seed"], run["rate"] if run["trial"] else None) for run in runs}

    def job(system: str, seed: int, rate: float, trial: bool) -> Job:
        steps = asked.trial_steps if trial else asked.steps
        return Job(dataset, asked.data, asked.rule, folder / f"{system}_{seed}", system, seed, rate, steps, asked.limit, trial)

    families = sorted({family(name) for name in asked.systems}) if asked.trial_steps else []
    trials = [job(name, 0, rate, True) for name in families for rate in RATES if (name, 0, rate) not in there]
    run_all(trials, asked.jobs, runs, keep)
    rates = best_rates(runs)
    missing = [
        job(name, seed, rates.get(family(name), RATES[1]), False)
        for seed in asked.seeds
        for name in asked.systems
        if (name, seed, None) not in there
    ]
    run_all(missing, asked.jobs, runs, keep)


if __name__ == "__main__":
    main()
