"""The command line: a thin command for each job. Knows how to read options and print, and leaves the work to the rooms.

Exit codes: 0 all done; 1 an error of the program; 2 wrong use or input; 3 done in part (some inputs rejected, listed).
"""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from medglip import __version__
from medglip.errors import InputError, MedglipError

app = typer.Typer(
    name="medglip",
    help="Medical images in, a grounding dataset and a modality-conditioned GLIP model out.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True, highlight=False)

PART_DONE = 3
WIDE = 9  # columns; a wider table is printed as lines

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for a program to read.")]
Modality = Annotated[str | None, typer.Option(help="ct, mr, xray, ...; default: what the file says, else unknown.")]
Checkpoint = Annotated[Path, typer.Argument(help="Folder of a checkpoint, for example RUN/best.")]
Dataset = Annotated[Path, typer.Argument(help="Folder of a dataset.")]
Image = Annotated[Path, typer.Argument(help="PNG, JPEG, TIFF or DICOM file; NIfTI with --slice.")]
Slice = Annotated[int | None, typer.Option("--slice", help="Slice or frame, from 0; default: the middle one.")]


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False, default=str))


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(metavar="[OUT]", help="Where everything is written.")] = Path("demo"),
    real: Annotated[Path | None, typer.Option(help="Folder of source folders: use these instead of phantoms.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Wall time of each training; default 6, with --real 14.")] = None,
    cases: Annotated[int, typer.Option(help="Phantom cases per modality.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of phantoms and training.")] = 0,
) -> None:
    """The whole job on a CPU in minutes, ending in one page: convert, train, evaluate, ground, ask, report.

    Example: medglip demo demo/
    """
    from medglip.demo import run_demo

    page = run_demo(folder, real=real, minutes=minutes, cases=cases, seed=seed, console=err)
    typer.echo(f"page: {page}\nsummary: {page.parent / 'summary.json'}\ncheckpoint: {page.parent / 'run' / 'best'}")


@app.command()
def phantom(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Where the archive is written.")],
    cases: Annotated[int, typer.Option(help="Cases per modality.")] = 10,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal bytes.")] = 0,
) -> None:
    """Write a synthetic archive of seven modalities in native formats: DICOM, NIfTI, PNG, CSV, COCO.

    Example: medglip phantom archive/ --cases 20
    """
    from medglip.phantoms import write_archive
    from medglip.progress import bar

    with bar(err) as progress:
        path = write_archive(folder, cases=cases, seed=seed, progress=progress.step("phantoms"))
    typer.echo(f"{path}: convert it with `medglip convert phantom {path} DATASET`")


@app.command()
def sources(
    name: Annotated[str | None, typer.Argument(help="Show this one; default: list all.")] = None, as_json: Json = False
) -> None:
    """List the known sources, or show one: layout, licence, labels, traps.

    Example: medglip sources us_busi
    """
    from medglip.curate import load_source, source_names
    from medglip.curate.describe import source_facts

    facts = [source_facts(load_source(found)) for found in ([name] if name else source_names())]
    if as_json:
        _print_json(facts[0] if name else facts)
    elif name:
        for key, value in facts[0].items():
            out.print(f"[bold]{key}[/]: {value}" if not isinstance(value, list) else f"[bold]{key}[/]:")
            for line in value if isinstance(value, list) else ():
                out.print(f"  {line}", markup=False, highlight=False)
    else:
        table = Table("name", "modality", "licence", "title")
        for fact in facts:
            table.add_row(fact["name"], fact["modalities"], fact["licence"], fact["title"])
        out.print(table)


@app.command()
def inspect(path: Annotated[Path, typer.Argument(metavar="FILE_OR_DIR", help="What is this?")], as_json: Json = False) -> None:
    """Say what a file or folder is: format, modality, geometry, spacing, problems.

    Example: medglip inspect series/
    """
    from medglip.imaging.inspect import inspect as look

    facts = look(path)
    if as_json:
        _print_json(facts)
        return
    for fact in facts:
        out.print(f"[bold]{fact.pop('path')}[/]")
        for key, value in fact.items():
            out.print(f"  {key}: {value}", markup=False, highlight=False)


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="A name that `medglip sources` lists, or the path of a TOML.")],
    folder: Annotated[Path, typer.Argument(metavar="INPUT", help="The source's files.")],
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="Made, or added to; a stopped run goes on.")],
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many cases of each part.")] = None,
    as_json: Json = False,
) -> None:
    """Convert a source's files into a dataset; run it again to go on or to add.

    Example: medglip convert us_busi ~/Dataset_BUSI_with_GT busi/
    """
    from medglip.curate import Conversion
    from medglip.curate import convert as convert_source
    from medglip.progress import bar

    with bar(err) as progress:
        step = progress.step(source)

        def on_case(counts: Conversion) -> None:
            step(counts.done, counts.cases, f"{counts.rejects.total()} rejected")

        result = convert_source(source, folder, dataset, workers=workers, limit=limit, on_case=on_case)
    facts = {
        "source": result.source, "cases": result.cases, "already_there": result.skipped, "images": result.images,
        "regions": result.regions, "volumes": result.volumes, "rejects": dict(sorted(result.rejects.items())),
        "seconds": round(result.seconds, 2),
    }  # fmt: skip
    if as_json:
        _print_json(facts)
    else:
        typer.echo("  ".join(f"{key}: {value}" for key, value in facts.items()))
    if result.rejects:
        err.print(
            f"{sum(result.rejects.values())} items were rejected; `medglip stats {dataset}` lists them with their reasons."
        )
        raise typer.Exit(PART_DONE)


@app.command()
def validate(dataset: Dataset, as_json: Json = False) -> None:
    """Check a dataset: schema, files, meaning; exit 0 only if clean.

    Example: medglip validate busi/
    """
    from medglip.store.validate import validate as validate_dataset

    problems = validate_dataset(dataset)
    errors = [problem for problem in problems if problem.level == "error"]
    if as_json:
        _print_json([{"level": p.level, "where": p.where, "what": p.what} for p in problems])
    else:
        for problem in problems:
            out.print(f"{problem.level}: {problem.where}: {problem.what}", markup=False, highlight=False)
        typer.echo(f"{dataset}: {'clean' if not errors else f'{len(errors)} errors'}")
    if errors:
        raise typer.Exit(2)


@app.command()
def stats(dataset: Dataset, as_json: Json = False) -> None:
    """Tables of what a dataset holds: sources, modalities, labels, splits, rejects.

    Example: medglip stats busi/
    """
    from medglip.store import open as open_dataset
    from medglip.store.statistics import statistics

    tables = statistics(open_dataset(dataset))
    if as_json:
        _print_json({name: json.loads(frame.to_json(orient="records")) for name, frame in tables.items()})
        return
    for name, frame in tables.items():
        _print_table(name.replace("_", " "), list(frame.columns), frame.itertuples(index=False))


def _print_table(title: str, columns: list[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table; each row as lines of its own where there are too many columns for a terminal."""
    shown = [["" if value is None or value != value else str(value) for value in row] for row in rows]
    if len(columns) > WIDE:
        out.print(f"[italic]{title}[/]")
        for row in shown:
            for column, value in zip(columns, row, strict=True):
                if value:
                    out.print(f"  {column.replace('_', ' ')}: {value}", markup=False, highlight=False)
        return
    table = Table(*(column.replace("_", " ") for column in columns), title=title, title_justify="left")
    for row in shown:
        table.add_row(*row)
    out.print(table)


@app.command()
def preview(
    dataset: Dataset,
    images: Annotated[int, typer.Option(min=1, help="Overlays per source at most.")] = 24,
) -> None:
    """Write DATASET/report.html: counts, and images with their regions drawn.

    Example: medglip preview busi/
    """
    from medglip.store.preview import preview as write_preview

    typer.echo(write_preview(dataset, per_source=images))


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
        _print_json(figures)
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
        _print_json(found.to_json())
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
        _print_json(answer.to_json())
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


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point: what medglip refuses is one sentence on stderr; any other error keeps its traceback."""
    try:
        app()
    except MedglipError as error:
        err.print(f"medglip: {error}", markup=False)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        err.print("medglip: stopped; run the same command again to go on where it can.")
        sys.exit(130)
