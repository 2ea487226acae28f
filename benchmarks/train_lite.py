"""Trains the weights inside medglip: converts the collection lite_training, trains, judges on test patients, writes cards.

A run that was stopped goes on where it was. Everything is written under --work; only the last two steps touch --ship: the
weights, and the cards with the figures that were measured with those very weights.
"""

import argparse
import json
import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch

from medglip import __version__, store
from medglip.curate.collections import Collection, convert_collection, divided, evaluation_view, load_collection, training_view
from medglip.curate.views import View, Viewed
from medglip.deliver.card import count, judged_apart, write_cards
from medglip.deliver.shipping import ship
from medglip.evaluate import evaluate, validator
from medglip.evaluate.folders import read_evaluation
from medglip.language import train_vqa
from medglip.model.checkpoints import load_checkpoint, save_checkpoint
from medglip.model.shipped import FOLDER, MODELS
from medglip.phantoms import write_archive
from medglip.predict import Grounder
from medglip.records import ImageRecord
from medglip.train import train

NAME, COLLECTION, RECIPE = "lite", "lite_training", "lite_shipped"
MOST_MB = 40
PHANTOM_SEED = 1000  # not 0, which others take: the weights have seen none of their phantoms


def gathered(work: Path, real: Path | None, collection: Collection, cases: int, only: Sequence[str]) -> Path:
    """A folder of links to the sources' folders, the phantoms among them, which are written if they are not there."""
    root = work / "sources"
    root.mkdir(parents=True, exist_ok=True)
    archive = work / "archive"
    if cases and not (archive / "README.txt").is_file():  # written last
        shutil.rmtree(archive, ignore_errors=True)
        write_archive(archive, cases=cases, seed=PHANTOM_SEED)
    wanted = {"phantom": archive} if cases else {}
    for name in collection.sources if real else ():
        folder = (real or work) / name.replace("_", "-")
        if folder.is_dir() and name != "phantom" and (not only or name in only):
            wanted[name] = folder
    for link in root.iterdir():
        link.unlink()
    for name, folder in wanted.items():
        (root / name.replace("_", "-")).symlink_to(folder.resolve())
    return root


def converted(work: Path, root: Path, collection: Collection) -> store.Dataset:
    """The dataset of all sources in ``root``, divided so that shared images stay together."""
    stamp, names = work / "converted.json", sorted(path.name for path in root.iterdir())
    if not stamp.is_file() or json.loads(stamp.read_text(encoding="utf-8")) != names:
        done = convert_collection(collection, root, work / "dataset")
        for name, result in done.items():
            print(f"{name}: {result.images} images, {result.rejects.total()} rejected", flush=True)
        stamp.write_text(json.dumps(names) + "\n", encoding="utf-8")
    return store.open(work / "dataset")


def thresholds_set(best: Path, data: Viewed) -> None:
    """Choose the checkpoint's thresholds on all validation images."""
    model, info = load_checkpoint(best)
    found = validator([data], limit=None)(model, info)
    kept = {name: found[name] for name in ("score_threshold", "presence_threshold", "thresholds")}
    save_checkpoint(best, model, model.state_dict(), replace(info, **kept))


def a_third(record: ImageRecord) -> ImageRecord | None:
    """The record, or None of two in three: to look at all images for all phrases takes longer than it teaches."""
    return record if int(record.id[:8], 16) % 3 == 0 else None


def answers_taught(best: Path, data: Viewed, seed: int) -> dict[str, Any]:
    """Teach the checkpoint to answer and to report, once; its figures on test images."""
    figures = best / "language.json"
    if not figures.is_file():
        measured = train_vqa(Grounder.load(best), [View(data, a_third)], best, seed=seed)
        figures.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    found: dict[str, Any] = json.loads(figures.read_text(encoding="utf-8"))
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=35, help="Wall time of the training.")
    parser.add_argument("--cases", type=int, default=40, help="Phantom cases per modality; 0 for none.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=1000, help="Of patients, for the intervals.")
    parser.add_argument("--work", type=Path, default=Path("runs/lite"), help="Where data and run are kept.")
    parser.add_argument("--ship", type=Path, default=FOLDER / MODELS[NAME], help="Where weights and cards are written.")
    parser.add_argument("--real", type=Path, default=os.environ.get("MEDGLIP_REAL_DATA"), help="Folder of source folders.")
    parser.add_argument("--only", nargs="*", default=(), help="Only these real sources: for trying it out.")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    collection = load_collection(COLLECTION)
    root = gathered(options.work, options.real, collection, options.cases, options.only)
    data = divided(converted(options.work, root, collection), collection)
    learned, tested = training_view(data, collection), evaluation_view(data, collection)

    run = options.work / "run"
    judge = validator([learned]) if learned.ids("val") else None
    begun = (run / "state.pt").is_file() or (run / "state.prev.pt").is_file()
    if not begun:
        shutil.rmtree(run, ignore_errors=True)  # stopped before there was anything to go on from
    best = train(RECIPE, [learned], run, resume=begun, validate=judge, minutes=options.minutes, seed=options.seed)
    if judge is not None:
        thresholds_set(best, learned)
    language = answers_taught(best, learned, options.seed)
    ship(best, options.ship)
    grounder = Grounder.load(options.ship)
    evaluate(grounder, [tested], split="test", out=options.work / "test")
    tally = read_evaluation(options.work / "test").tally()
    shown = judged_apart(tally, language, options.draws, options.seed)

    about = {
        "command": f"scripts/train-lite --minutes {options.minutes:g} --cases {options.cases} --seed {options.seed}",
        "recipe": RECIPE, "medglip": __version__, "python": platform.python_version(), "torch": torch.__version__,
        "numpy": np.__version__, "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }  # fmt: skip
    counts = count(learned.records("train"))
    write_cards(options.ship, NAME, grounder.info, collection, counts, shown, about)
    for kind, figures in (("real", shown.real), ("synthetic", shown.synthetic)):
        named = ("ap50", "acc50", "found", "absence_auroc", "images", "questions")
        print(json.dumps({"test images": kind, **{name: figures.get(name) for name in named}}))
    print_sizes(options.ship)


def print_sizes(shipped: Path) -> None:
    """Say how large the weights in the package are, and refuse more than allowed."""
    sizes = {folder: sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
             for folder in (shipped, FOLDER / "minilm")}  # fmt: skip
    print("\n".join(f"{folder}: {size:.1f} MB" for folder, size in sizes.items()))
    if sum(sizes.values()) > MOST_MB:
        raise SystemExit(f"The weights take {sum(sizes.values()):.1f} MB; {MOST_MB} are allowed.")


if __name__ == "__main__":
    main()
