"""Commands about a model: train, evaluate, ground, ask, report."""

from pathlib import Path
from typing import Annotated, Any

import typer

from medglip.cli.frame import Checkpoint, Dataset, Image, Json, Modality, Slice, app, err, print_json
from medglip.errors import InputError


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="A name in medglip/configs, or the path of a TOML.")],
    datasets: Annotated[list[Path], typer.Argument(metavar="DATASET...", help="Folders of datasets.")],
    run: Annotated[Path, typer.Option("--out", help="Folder of the run: checkpoints, metrics.jsonl, config.")],
    resume: Annotated[bool, typer.Option(help="Go on from RUN/last.")] = False,
    start: Annotated[Path | None, typer.Option("--from", help="Begin with the weights of this checkpoint.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Fit the schedule to this wall time.")] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the configuration's.")] = None,
) -> None:
    """Train a model; Ctrl-C writes a checkpoint and --resume goes on.

    Example: medglip train lite busi/ --out runs/busi --minutes 10
    """
    from medglip.evaluate import validator
    from medglip.store import open as open_dataset
    from medglip.train import train as train_model

    opened = [open_dataset(path) for path in datasets]
    judge = validator(opened) if any(dataset.ids("val") for dataset in opened) else None
    given: dict[str, Any] = {name: value for name, value in (("minutes", minutes), ("seed", seed)) if value is not None}
    best = train_model(config, opened, run, resume=resume, start_from=start, validate=judge, **given)
    typer.echo(f"checkpoint: {best}")


@app.command()
def evaluate(
    checkpoint: Checkpoint,
    dataset: Dataset,
    split: Annotated[str, typer.Option(help="train, val, test or all.")] = "test",
    as_json: Json = False,
) -> None:
    """Measure a checkpoint on a dataset: AP, AP50 by modality and level, Acc@0.5, absence AUROC.

    Example: medglip evaluate runs/busi/best busi/
    """
    from medglip.evaluate import evaluate as measure
    from medglip.predict import Grounder
    from medglip.progress import bar
    from medglip.store import open as open_dataset

    with bar(err) as progress:
        figures = measure(Grounder.load(checkpoint), open_dataset(dataset), split=split, progress=progress.step("images"))
    if as_json:
        print_json(figures)
        return
    for name, value in figures.items():
        if isinstance(value, dict):
            typer.echo(f"{name}:")
            for key, inner in value.items():
                typer.echo(f"  {key}: {_figure(inner)}")
        else:
            typer.echo(f"{name}: {_figure(value)}")


def _figure(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


@app.command()
def ground(
    checkpoint: Checkpoint,
    image: Image,
    phrases: Annotated[str, typer.Argument(help='Phrases, separated by ";".')],
    modality: Modality = None,
    slice_: Slice = None,
    overlay: Annotated[Path | None, typer.Option(help="Write a PNG with the boxes drawn.")] = None,
    as_json: Json = False,
) -> None:
    """Find the regions that phrases name, or say that they are absent.

    Example: medglip ground demo/run/best scan.dcm "left kidney; liver lesion" --overlay found.png
    """
    from medglip.deliver import answers

    asked = [phrase.strip() for phrase in phrases.split(";") if phrase.strip()]
    if not asked:
        raise InputError(f"The phrases {phrases!r} hold no words; give for example 'left kidney; liver lesion'.")
    found = answers.ground(checkpoint, answers.opened(image, modality, slice_), asked, overlay)
    if as_json:
        print_json(found.to_json())
    else:
        typer.echo(found.to_text())


@app.command()
def ask(
    checkpoint: Checkpoint,
    image: Image,
    question: Annotated[str, typer.Argument(help="A question in English.")],
    modality: Modality = None,
    slice_: Slice = None,
    as_json: Json = False,
) -> None:
    """Answer a question about an image from the regions found in it, or abstain.

    Example: medglip ask demo/run/best scan.dcm "Is there a liver lesion?"
    """
    from medglip.deliver import answers

    answer = answers.ask(checkpoint, answers.opened(image, modality, slice_), question)
    if as_json:
        print_json(answer.to_json())
    else:
        typer.echo(answer.to_text())


@app.command()
def report(
    checkpoint: Checkpoint,
    image: Image,
    to: Annotated[str, typer.Option(help="text, json or html.")] = "text",
    file: Annotated[Path | None, typer.Option("--out", help="Write it there; default: print (html: IMAGE.html).")] = None,
    modality: Modality = None,
    slice_: Slice = None,
) -> None:
    """Write a report whose sentences cite the regions found (templates, said to be templates).

    Example: medglip report demo/run/best scan.dcm --to html --out report.html
    """
    from medglip.deliver import answers

    if to not in ("text", "json", "html"):
        raise InputError(f"--to is {to!r}; allowed: text, json, html.")
    typer.echo(answers.report(checkpoint, answers.opened(image, modality, slice_), to, file))
