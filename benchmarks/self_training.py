"""Self-training: what a teacher's boxes on images that nobody marked add, beside training without them and with the true ones.

Usage: scripts/bench self_training [--dataset DIR | --cases 40] [--share 0.25] [--steps 300] [--config lite] [--threshold 0.5]
                                   [--seeds 0 1 2] [--folder DIR] [--out FILE] [--fresh] [--quick]
Writes benchmarks/results/self_training.json after each seed, and goes on where such a file of the same settings stops.

In the form of GLIP's table of data (arXiv 2112.03857, table 5), on our data: --share of the training patients (phantoms by
default) are marked, of the others only the pixels and the texts are kept. Rows: `gold`, the marked ones, whose model is the
teacher; `gold + pseudo`, with the boxes that the teacher found on the others, learned anew; `gold + true`, with what is really
there. All have the same steps, seed and recipe and are judged on the same test patients.
"""

import argparse
import math
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from modality import earlier_runs, make_dataset, write, written
from peers import machine

from medglip import store
from medglip.curate.views import View
from medglip.records import ImageRecord
from medglip.records.picture import Picture
from medglip.store.write import Writer

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ("ap50", "acc50", "found", "absence_auroc")
ROWS = ("gold", "gold + pseudo", "gold + true")
Run = dict[str, Any]


def marked(dataset: store.Dataset, share: float, seed: int) -> frozenset[str]:
    """Ids of the images of a share of the training groups, at least one."""
    group_of = {record.id: record.group or record.id for record in dataset.records("train")}
    groups = sorted(set(group_of.values()))
    chosen = np.random.default_rng((seed, 0)).permutation(len(groups))[: max(1, round(share * len(groups)))]
    gold = {groups[number] for number in chosen}
    return frozenset(image for image, group in group_of.items() if group in gold)


def bare(dataset: store.Dataset, gold: frozenset[str], out: Path) -> store.Dataset:
    """The other training images as a dataset of their own: nothing is marked in it, nothing said to be searched for."""

    def pictures(records: Iterator[ImageRecord]) -> Iterator[Picture]:
        for record in records:
            if record.split == "train" and record.id not in gold:
                texts = tuple(replace(text, spans=()) for text in record.texts)
                plain = replace(record, regions=(), absent=(), exhaustive=(), texts=texts)
                yield Picture(plain, dataset.pixels(record.id))

    writer, records = Writer(out), dataset.records()
    for part, entry in sorted(dataset.manifest["parts"].items()):
        info = {name: value for name, value in entry.items() if name not in ("counts", "files", "cases")}
        facts = entry.get("matrix", {}).items()
        info["matrix"] = {modality: [{**one, "exhaustive": []} for one in several] for modality, several in facts}
        writer.write(part, pictures(islice(records, entry["counts"].get("images", 0))), (), (), info)
    return store.open(out)


def seed_run(asked: argparse.Namespace, dataset: Path, folder: Path, seed: int) -> Run:
    """All rows of one seed."""
    from medglip.deliver.pseudo_label import Lesson, checkpoint_id, pseudo_label
    from medglip.evaluate import evaluate
    from medglip.predict import Grounder
    from medglip.train import train

    data = store.open(dataset)
    gold = marked(data, asked.share, seed)
    some = View(data, lambda record: record if record.id in gold else None)
    result: Run = {"seed": seed, "gold_images": len(gold), "all_images": len(data.ids("train"))}

    def learned(name: str, datasets: Sequence[Any]) -> Path:
        begun = time.process_time()
        out = folder / name.replace(" ", "_")
        changes: dict[str, Any] = {"steps": asked.steps, "minutes": 0, "validations": 0, "seed": seed, "accelerator": "cpu"}
        best = train(asked.config, list(datasets), out, show=False, **changes)
        seconds = time.process_time() - begun
        found = evaluate(best, [data], split="train" if asked.quick else "test", limit=8 if asked.quick else None)
        result[name] = {"cpu_seconds": round(seconds, 1), **{figure: found[figure] for figure in FIGURES}}
        print(f"seed {seed}, {name}: AP50 {written(found['ap50'])}", flush=True)
        return best

    teacher = learned("gold", [some])
    lesson = Lesson(checkpoint_id(teacher), asked.threshold, labels=True)
    told = pseudo_label(Grounder.load(teacher), bare(data, gold, folder / "bare"), folder / "pseudo", lesson)
    result["pseudo_labels"] = {name: told[name] for name in ("images", "asked", "kept", "boxes")}
    learned("gold + pseudo", [some, store.open(folder / "pseudo")])
    learned("gold + true", [data])
    return result


def table(runs: Sequence[Run]) -> str:
    """Markdown: means over seeds, and AP50 less `gold` of the same seed with its standard error."""
    lines = ["| data | AP50 | less gold | Acc@0.5 | found | absence AUROC |", "| --- | --- | --- | --- | --- | --- |"]
    for name in ROWS:
        cells = [name]
        for figure in FIGURES:
            values = [run[name][figure] for run in runs if run[name][figure] is not None]
            cells.append(written(statistics.mean(values) if values else None))
        pairs = [(run[name]["ap50"], run["gold"]["ap50"]) for run in runs]
        gains = [mine - theirs for mine, theirs in pairs if mine is not None and theirs is not None]
        gain = "–" if name == "gold" or not gains else f"{statistics.mean(gains):+.3f}"
        if gain != "–" and len(gains) > 1:
            gain += f" ± {statistics.stdev(gains) / math.sqrt(len(gains)):.3f}"
        lines.append(f"| {' | '.join([*cells[:2], gain, *cells[2:]])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, help="a converted dataset with splits of its own; default: phantoms")
    parser.add_argument("--cases", type=int, default=40, help="phantom cases a modality")
    parser.add_argument("--share", type=float, default=0.25, help="of the training patients that are marked")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--config", default="lite")
    parser.add_argument("--threshold", type=float, default=0.5, help="least score of a teacher's box")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=0, help="0: as torch has it")
    parser.add_argument("--folder", type=Path, help="where to leave the phantoms; default: a temporary folder")
    parser.add_argument("--out", type=Path, help="the file of results")
    parser.add_argument("--fresh", action="store_true", help="forget the runs that the file holds")
    parser.add_argument("--quick", action="store_true", help="`tiny`, few steps; nothing is written without --out")
    asked = parser.parse_args()
    if asked.quick:
        asked.config, asked.steps, asked.cases, asked.seeds, asked.threshold, asked.threads = "tiny", 4, 3, [0], 0.01, 1
    if asked.threads:
        torch.set_num_threads(asked.threads)
    target = asked.out or ROOT / "benchmarks/results/self_training.json"
    settings = {"data": str(asked.dataset.name) if asked.dataset else f"phantoms, {asked.cases} cases", "share": asked.share,
                "steps": asked.steps, "config": asked.config, "threshold": asked.threshold}  # fmt: skip
    runs = [] if asked.fresh or asked.quick else earlier_runs(target, settings)
    head = {"what": __doc__.splitlines()[0], "command": " ".join(["scripts/bench self_training", *sys.argv[1:]]),
            "settings": settings, "machine": machine("cpu"), "cores": os.cpu_count()}  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        dataset = asked.dataset or make_dataset(asked.folder or Path(scratch), None, asked.cases)
        for seed in [seed for seed in asked.seeds if seed not in {run["seed"] for run in runs}]:
            folder = Path(scratch) / f"seed_{seed}"
            folder.mkdir()
            runs.append(seed_run(asked, dataset, folder, seed))
            shutil.rmtree(folder)
            if asked.out or not asked.quick:
                write(target, head | {"runs": runs})
    print(table(runs))


if __name__ == "__main__":
    main()
