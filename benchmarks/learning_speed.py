"""AP50 against steps and seconds of training on the same converted phantoms: ours, MM-Grounding-DINO, MONAI's RetinaNet.

Usage: scripts/bench learning_speed [--steps 240] [--trial-steps 60] [--cases 40] [--device cpu|cuda] [--seed 0] [--quick]
       scripts/bench learning_speed --time --systems ...   times the steps of systems that the file holds, and adds seconds
Writes benchmarks/results/learning_speed.json (learning_speed_cuda.json with --device cuda), after each system; systems that
the file holds under the same settings are not trained again.

The same for all: a small Swin with the same random weights at the start, 256 pixels, the same images in the same views and
order, the same phrases (RetinaNet knows no phrases: it has one class a concept of the training images), AdamW with a warm-up
and a cosine, averaged weights, the evaluation. MiniLM reads the phrases of ours (frozen, as in `lite`) and of
MM-Grounding-DINO (learns at a tenth of the rate, as in its recipe), with the same weights. The learning rate of each is the
best of the same three, by AP50 on validation images after `--trial-steps`. Clipping of gradients is each system's own.

MM-Grounding-DINO runs with transformers' loss as it is, with auxiliary losses of its layers: `mm_grounding_dino` takes a batch
at once; `mm_grounding_dino_singly` takes its images one by one and adds up gradients, so that the defect of that loss in
batches (see benchmarks/peers.py) cannot do harm; it takes the rate of `mm_grounding_dino`. `mm_grounding_dino_mended` has that
loss without two of its defects. Seconds are those of a step, timed in rounds over all systems (median), times the steps:
learning alone, since loading is the same for all.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from learners import CLIP, DECAY, PLAN, RATES, SETTINGS, SIZE, SYSTEMS, build, classes, groups, judged, names_of, train
from peers import MOST_TOKENS, machine, parameters

from medglip import store
from medglip.curate import convert
from medglip.phantoms import write_archive
from medglip.records.labels import label_tree
from medglip.train.samples import Samples
from medglip.train.schedule import batches

ROOT = Path(__file__).resolve().parents[1]


def dataset(folder: Path, cases: int, seed: int) -> Any:
    """Phantoms of all modalities, converted; few of them fall into one split."""
    archive = write_archive(folder / "archive", cases=cases, seed=seed)
    convert("phantom", archive, folder / "dataset", workers=2)
    return store.open(folder / "dataset")


class Start(NamedTuple):
    """What every system begins with: data, questions, names of the concepts."""

    data: Any
    samples: Samples
    names: dict[str, str]


def started(asked: argparse.Namespace, folder: Path) -> Start:
    """The same start for all systems."""
    data = dataset(folder, asked.cases, asked.seed)
    return Start(data, Samples([data], "train", label_tree(), PLAN | {"seed": asked.seed}, SIZE), names_of(data))


def learned(name: str, asked: argparse.Namespace, start: Start, known: dict[str, Any]) -> dict[str, Any]:
    """The best rate of a system on validation images, its curve on test images, its size; ``known``: results so far."""
    make = partial(build, name, asked.device, start.samples, start.names, asked.seed)
    val, test = ("train", "train") if asked.quick else ("val", "test")
    twin = known.get(name.removesuffix("_singly"), {})
    trials = {float(rate): value for rate, value in twin.get("val_ap50_by_rate", {}).items()}
    for rate in RATES if asked.trial_steps and not trials else ():
        judge = judged(start.data, val, asked.limit)
        trials[rate] = train(make(), start.samples, rate, CLIP[name], [asked.trial_steps], judge)[-1]["ap50"] or 0.0
        print(f"{name}: rate {rate:g} gives AP50 {trials[rate]:.3f} after {asked.trial_steps} steps", flush=True)
    best = max(trials, key=lambda rate: trials[rate]) if trials else RATES[1]
    marks = sorted({max(1, round(asked.steps * part / asked.marks)) for part in range(1, asked.marks + 1)})
    learner = make()
    curve = train(learner, start.samples, best, CLIP[name], marks, judged(start.data, test, asked.limit))
    print(f"{name}: {[(point['step'], point['ap50']) for point in curve]}", flush=True)
    return {"rate": best, "val_ap50_by_rate": trials, "parameters": parameters(learner.model), "curve": curve}


def step_seconds(asked: argparse.Namespace, start: Start, rounds: int = 5) -> dict[str, list[float]]:
    """Seconds of a step of each system, the mean of two after a first, in ``rounds`` rounds over all systems in turn."""
    found: dict[str, list[float]] = {}
    some = [questions for questions, _ in zip(batches(start.samples, PLAN, 0, 0, 1), range(3), strict=False)]
    for _ in range(1 if asked.quick else rounds):
        for name in asked.systems.split(","):
            learner = build(name, asked.device, start.samples, start.names, asked.seed)
            optimizer = torch.optim.AdamW(groups(learner.model, RATES[0]), weight_decay=DECAY)
            learner.model.train()
            for number, questions in enumerate(some):
                if number == 1:
                    begun = time.perf_counter()
                learner.learn(questions)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                if asked.device == "cuda":
                    torch.cuda.synchronize()
            found.setdefault(name, []).append(round((time.perf_counter() - begun) / (len(some) - 1), 4))
        print({name: seconds[-1] for name, seconds in found.items()}, flush=True)
    return found


def add_seconds(result: dict[str, Any], found: dict[str, list[float]], device: str) -> None:
    """Put the seconds of a step, and of every point of the curves, into a result."""
    result["timed"] = {"machine": machine(device), "seconds_a_step": found}
    for name, seconds in found.items():
        one = result["systems"][name]
        one["seconds_a_step"] = statistics.median(seconds)
        ratios = [mine / base for mine, base in zip(seconds, found["ours"], strict=True)]
        one["step_beside_ours"] = {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
        for point in one["curve"]:
            point["seconds"] = round(point["step"] * one["seconds_a_step"], 1)


def write(target: Path, result: dict[str, Any]) -> None:
    """The result as JSON."""
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def parsed() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--trial-steps", type=int, default=60, help="steps with each of three rates; 0 takes the middle one")
    parser.add_argument("--marks", type=int, default=6, help="how often the test images are judged on the way")
    parser.add_argument("--cases", type=int, default=40, help="phantom cases a modality")
    parser.add_argument("--limit", type=int, default=48, help="at most so many images are judged")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--time", action="store_true", help="time the steps for the curves of the file")
    parser.add_argument("--quick", action="store_true", help="two steps on few phantoms; nothing is written")
    asked = parser.parse_args()
    if asked.quick:
        asked.steps, asked.trial_steps, asked.marks, asked.cases, asked.limit = 2, 0, 1, 3, 8
    return asked


def main() -> None:
    asked = parsed()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or min(2, os.cpu_count() or 1)))
    options = f"--steps {asked.steps} --trial-steps {asked.trial_steps} --marks {asked.marks} --cases {asked.cases}"
    command = f"scripts/bench learning_speed {options} --device {asked.device} --seed {asked.seed}"
    settings = json.loads(json.dumps({"command": command, **SETTINGS, "rates_tried": RATES, "most_tokens": MOST_TOKENS}))
    target = ROOT / "benchmarks/results" / ("learning_speed.json" if asked.device == "cpu" else "learning_speed_cuda.json")
    result: dict[str, Any] = json.loads(target.read_text()) if target.is_file() and not asked.quick else {}
    if not asked.time and result.get("settings") != settings:
        result = {"what": __doc__.splitlines()[0], "settings": settings, "systems": {}}
    with tempfile.TemporaryDirectory() as scratch:
        start = started(asked, Path(scratch))
        if asked.time or asked.quick:
            found = step_seconds(asked, start)
        for name in () if asked.time else asked.systems.split(","):
            if name not in result["systems"]:
                result["systems"][name] = learned(name, asked, start, result["systems"])
                result |= {"machine": machine(asked.device), "training_images": len(start.samples),
                           "classes_of_retinanet": len(classes(start.samples))}  # fmt: skip
                if not asked.quick:
                    write(target, result)
    if asked.time or asked.quick:
        add_seconds(result, found, asked.device)
    if not asked.quick:
        write(target, result)
        print(f"written to {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
