"""Commands that judge: evaluate a checkpoint, compare evaluations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from medglip.cli.frame import Checkpoint, Json, app, err, print_json, print_table

Draws = Annotated[int, typer.Option(min=1, help="Draws of patients for the intervals.")]
Seed = Annotated[int, typer.Option(help="Of the draws.")]


@app.command()
def evaluate(
    checkpoint: Checkpoint,
    datasets: Annotated[list[Path], typer.Argument(metavar="DATASET...", help="Folders of datasets.")],
    split: Annotated[str, typer.Option(help="train, val, test or all.")] = "test",
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the evaluation; default: evaluation-SPLIT beside the checkpoint; of lite: here."),
    ] = None,
    draws: Draws = 1000,
    seed: Seed = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many images, spread over the split.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 8,
    swap: Annotated[int, typer.Option(min=0, help="Ask so many images again with left and right swapped.")] = 0,
    page: Annotated[bool, typer.Option(help="Write the page with curves, confusions and pictures.")] = True,
    as_json: Json = False,
) -> None:
    """Measure a checkpoint: AP, Acc@0.5, absence AUROC ... with intervals, and a page with curves and the worst cases.

    Example: medglip evaluate runs/busi/best busi/

    medglip evaluate lite busi/ --split all
    """
    from medglip.evaluate import evaluate as measure
    from medglip.evaluate.bootstrap import every_interval
    from medglip.evaluate.folders import add_figures, read_evaluation
    from medglip.progress import bar
    from medglip.store import open as open_dataset

    opened = [open_dataset(dataset) for dataset in datasets]
    where = folder if folder is not None else _beside(checkpoint, split)
    with bar(err) as progress:
        measure(str(checkpoint), opened, split=split, limit=limit, batch=batch, progress=progress.step("images"),
                out=where, swap=swap)  # fmt: skip
    add_figures(where, every_interval(read_evaluation(where).tally(), draws, seed))
    figures = read_evaluation(where).figures
    if page:
        from medglip.deliver.evaluation_page import evaluation_page

        where = evaluation_page(where, opened)
    if as_json:
        print_json(figures)
        return
    _print_figures(figures)
    typer.echo(f"evaluation: {where}")


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN_A RUN_B...", help="Folders of evaluations, or of their runs.")],
    page: Annotated[Path | None, typer.Option("--out", help="Write a page there, for example page.html.")] = None,
    draws: Draws = 1000,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Compare evaluations: figures with intervals, and differences from the first run on the same patients.

    Example: medglip compare runs/plain runs/modality --out comparison.html
    """
    from medglip.evaluate.compare import compare as compared

    facts = compared(runs, draws, seed)
    if page is not None:
        from medglip.deliver.comparison_page import comparison_page

        comparison_page(facts, page)
    if as_json:
        print_json(facts)
        return
    _print_comparison(facts)
    if page is not None:
        typer.echo(f"page: {page}")


def _beside(checkpoint: Path, split: str) -> Path:
    """Where an evaluation goes when nobody says: into the checkpoint's run; here, for a model that medglip brings along."""
    from medglip.model.shipped import FOLDER

    folder = checkpoint.resolve()
    name = f"evaluation-{split}" if folder.name == "best" else f"evaluation-{split}-{folder.name}"
    return Path(name) if folder.parent == FOLDER.resolve() else folder.parent / name


def _print_figures(figures: Mapping[str, Any]) -> None:
    from medglip.evaluate.definitions import HEADLINE, SHORT

    ends = figures["intervals"]
    rows = [(one.title, _figure(figures[name]), _interval(ends.get(name))) for name, one in HEADLINE.items()]
    told = figures["bootstrap"]
    title = f"{figures['images']} images, {figures['questions']} questions; {100 * told['level']:.0f} % intervals over patients"
    print_table(title, ["figure", "value", "interval"], rows)
    columns = [HEADLINE[name].title for name in SHORT]
    for kind in ("modality", "source"):
        groups = figures[f"by_{kind}"]
        if len(groups) > 1:
            inner = figures[f"intervals_by_{kind}"]
            rows = [(value, one["questions"], *(_both(one[name], inner[value][name]) for name in SHORT))
                    for value, one in groups.items()]  # fmt: skip
            print_table(f"by {kind}", [kind, "questions", *columns], rows)


def _print_comparison(facts: Mapping[str, Any]) -> None:
    from medglip.evaluate.definitions import HEADLINE, SHORT

    for warning in facts["warnings"]:
        err.print(f"medglip: {warning}", markup=False)
    first = facts["runs"][0]
    for run, pair in zip(facts["runs"][1:], facts["differences"], strict=True):
        title = f"{pair['b']} less {pair['a']}: {pair['patients']} patients, {pair['questions']} questions"
        if pair["reason"]:
            typer.echo(f"{title}. {pair['reason']}")
            continue
        rows = [(one.title, _both(first["figures"][name], first["intervals"][name]),
                 _both(run["figures"][name], run["intervals"][name]), *_difference(pair["figures"].get(name)))
                for name, one in HEADLINE.items()]  # fmt: skip
        print_table(title, ["figure", pair["a"], pair["b"], "difference", "interval", "p"], rows)
        for kind in ("modality", "source"):
            groups = pair[f"by_{kind}"]
            if len(groups) > 1:
                rows = [(value, one["patients"], *(one["reason"] or _short(one["figures"].get(name)) for name in SHORT))
                        for value, one in groups.items()]  # fmt: skip
                columns = [HEADLINE[name].title for name in SHORT]
                print_table(f"difference by {kind} (* its interval leaves out 0)", [kind, "patients", *columns], rows)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _interval(ends: Sequence[float] | None) -> str:
    return "" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"


def _both(value: float | None, ends: Sequence[float] | None) -> str:
    return _figure(value) if ends is None else f"{_figure(value)} ({ends[0]:.2f}-{ends[1]:.2f})"


def _difference(one: Mapping[str, Any] | None) -> tuple[str, str, str]:
    if one is None:
        return "", "", ""
    return f"{one['difference']:+.3f}", f"{one['low']:+.3f} to {one['high']:+.3f}", f"{one['p']:.3f}"


def _short(one: Mapping[str, Any] | None) -> str:
    return "" if one is None else f"{one['difference']:+.3f}{'' if one['verdict'] == 'unclear' else '*'}"
