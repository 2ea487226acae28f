"""The command that trains a model. What it does is in ``medglip.train``."""

import json
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from medglip.cli.frame import app
from medglip.errors import InputError


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="A name in medglip/configs, or the path of a TOML.")],
    datasets: Annotated[list[Path], typer.Argument(metavar="DATASET...", help="Folders of datasets.")],
    run: Annotated[Path, typer.Option("--out", help="Folder of the run: checkpoints, metrics.jsonl, config.toml, run.json.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in RUN stopped.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Replace the run that RUN holds.")] = False,
    start: Annotated[Path | None, typer.Option("--from", help="Checkpoint to begin with, or lite: shipped.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Fit the schedule to this wall time.")] = None,
    steps: Annotated[int | None, typer.Option(help="End after so many steps.")] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the configuration's.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Another value of a key; may be repeated.")
    ] = None,
    replay: Annotated[
        list[Path] | None, typer.Option(metavar="DATASET", help="Dataset of an earlier training, mixed in; may be repeated.")
    ] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write RUN/tensorboard.")] = False,
) -> None:
    """Train a model; Ctrl-C and SIGTERM write a checkpoint, and --resume goes on.

    Example: medglip train lite busi/ --out runs/busi --minutes 10

    medglip train lite busi/ kvasir/ --out runs/both --set batch=4 --set accumulate=4 --set 'modality=["film"]'

    medglip train lite_shipped busi/ --out runs/from_lite --from lite --minutes 5

    medglip train lite busi/ --out runs/busi --resume

    torchrun --nproc-per-node 2 -m medglip train swin_tiny busi/ --out runs/busi
    """
    from medglip.evaluate import validator
    from medglip.store import open as open_dataset
    from medglip.train import train as train_model
    from medglip.train.folder import clear

    if resume and fresh:
        raise InputError("--resume goes on with a run and --fresh replaces it; give one of the two.")
    given: dict[str, Any] = {
        name: value for name, value in (("minutes", minutes), ("steps", steps), ("seed", seed)) if value is not None
    }
    given |= changed(changes or (), [*given, *(["tensorboard"] if tensorboard else [])])
    given |= {"tensorboard": True} if tensorboard else {}
    opened, mixed = ([open_dataset(path) for path in paths] for paths in (datasets, replay or []))
    judge = validator(opened) if any(dataset.ids("val") for dataset in opened) else None
    is_first = int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0  # of the processes that torchrun started
    if fresh and is_first:
        clear(run)
    best = train_model(config, opened, run, resume=resume, start_from=start, validate=judge, replay=mixed, **given)
    if is_first:
        typer.echo(ending(best, run, datasets))


def changed(words: Sequence[str], given: Sequence[str] = ()) -> dict[str, Any]:
    """What ``--set`` asks for: ``KEY=VALUE``, the value as in TOML; what is no TOML is a string.

    Args:
        words: As typed.
        given: Keys that another option has given already.

    Raises:
        InputError: there is no ``=``, or a key is given twice.

    >>> changed(["batch=4", "precision=bf16-mixed", "modality=['film']"])
    {'batch': 4, 'precision': 'bf16-mixed', 'modality': ['film']}
    """
    found: dict[str, Any] = {}
    for word in words:
        key, is_there, value = word.partition("=")
        key = key.strip()
        if not is_there or not key.isidentifier():
            raise InputError(f"--set {word!r} is not KEY=VALUE; give for example --set batch=4.")
        if key in found or key in given:
            raise InputError(f"--set {word!r}: {key} is given twice; give it once.")
        try:
            found[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[key] = value.strip()
    return found


def ending(best: Path, run: Path, datasets: Sequence[Path]) -> str:
    """What is said at the end: the checkpoint, its figures, what to type next."""
    lines = [f"checkpoint: {best}"]
    if figures := _figures(best, run):
        lines.append("  ".join(f"{name} {value:.3f}" for name, value in figures.items()) + "  (on the images of split val)")
    lines.append(f"next: medglip evaluate {best} {datasets[0]} --split test")
    return "\n".join(lines)


def _figures(best: Path, run: Path) -> dict[str, float]:
    """Of the last validation before the checkpoint was written."""
    step = json.loads((best / "config.json").read_text(encoding="utf-8"))["trained"]["steps"]
    told = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    judged = [line for line in told if "val_score" in line and line["step"] <= step]
    wanted = ("ap50", "acc50", "absence_auroc")
    line = judged[-1] if judged else {}
    return {name: line[f"val_{name}"] for name in wanted if isinstance(line.get(f"val_{name}"), int | float)}
