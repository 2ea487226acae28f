"""Commands about datasets on disk: validate, stats, quality, diff, preview."""

import json
from pathlib import Path
from typing import Annotated

import typer

from medglip.cli.frame import PART_DONE, Dataset, Json, app, err, out, print_json, print_table

# Tables of `medglip stats` with a row for each label, bin or pair: in --json, too long for a terminal.
_LONG = ("label_counts", "box_sizes", "positions")
_ROWS = 20


@app.command()
def validate(
    dataset: Dataset,
    fix_report: Annotated[bool, typer.Option("--fix-report", help="Write DATASET/problems.html: the problems, drawn.")] = False,
    no_pixels: Annotated[bool, typer.Option("--no-pixels", help="Open no image and hash no shard: much faster.")] = False,
    documents: Annotated[bool, typer.Option("--documents", help="Also check each record as a JSON document (slow).")] = False,
    as_json: Json = False,
) -> None:
    """Check a dataset: files, schema, masks, labels, splits, privacy, pixels; exit 0 only if clean (notes are allowed).

    Example: medglip validate busi/ --fix-report
    """
    from medglip.store.checks.problems import LISTED, capped, errors
    from medglip.store.checks.validate import validate as validate_dataset

    listed = 100_000 if fix_report else LISTED
    problems = validate_dataset(dataset, check_pixels=not no_pixels, documents=documents, listed=listed)
    wrong = errors(problems)
    if as_json:
        print_json([{"level": p.level, "check": p.check, "where": p.where, "what": p.what, "image": p.image,
                     "region": p.region} for p in problems])  # fmt: skip
    else:
        for problem in capped(problems) if fix_report else problems:
            out.print(f"{problem.level}: {problem.where}: {problem.what}", markup=False, highlight=False)
        typer.echo(f"{dataset}: {'clean' if not wrong else '1 error' if wrong == 1 else f'{wrong} errors'}")
    if fix_report and not dataset.is_dir():
        err.print(f"The problem pages are written to a local folder only; copy {dataset} to one to see them.", markup=False)
    elif fix_report:
        from medglip.store.pages.fix_report import write_fix_report

        page = write_fix_report(dataset, problems)
        typer.echo(f"{page}: look at it in a browser", err=as_json)
    if wrong:
        raise typer.Exit(2)


@app.command()
def stats(dataset: Dataset, as_json: Json = False) -> None:
    """Tables of what a dataset holds: sources, modalities, labels, splits, sizes, spacings, rejects (--json: all of them).

    Example: medglip stats busi/
    """
    from medglip.store import open as open_dataset
    from medglip.store.pages.statistics import statistics

    tables = statistics(open_dataset(dataset))
    if as_json:
        print_json({name: json.loads(frame.to_json(orient="records")) for name, frame in tables.items()})
        return
    for name, frame in tables.items():
        if name in _LONG or frame.empty:
            continue
        title = name.replace("_", " ")
        rows = frame if name in ("sources", "labels") else frame.head(_ROWS)
        if len(rows) < len(frame):
            title += f" ({len(rows)} of {len(frame)}; --json has all)"
        print_table(title, list(frame.columns), rows.itertuples(index=False))


@app.command()
def quality(dataset: Dataset, as_json: Json = False) -> None:
    """Write DATASET/quality.html: what each conversion took in and gave, what it refused and why, flags, licences.

    Example: medglip quality busi/
    """
    from medglip.store import open as open_dataset
    from medglip.store.pages.quality import quality as facts
    from medglip.store.pages.quality import write_quality

    opened = open_dataset(dataset)
    if as_json:
        print_json(facts(opened))
    else:
        typer.echo(write_quality(opened))


@app.command()
def diff(
    before: Annotated[Path, typer.Argument(metavar="A", help="Folder of a dataset.")],
    after: Annotated[Path, typer.Argument(metavar="B", help="Folder of another, such as a later conversion.")],
    as_json: Json = False,
) -> None:
    """What differs between two datasets: sources, images, regions, texts, splits, rejects; exit 3 where something does.

    Example: medglip diff busi-v1/ busi-v2/
    """
    from medglip.store import open as open_dataset
    from medglip.store.diff import diff as difference

    tables = difference(open_dataset(before), open_dataset(after))
    found = {name: frame for name, frame in tables.items() if not frame.empty}
    if as_json:
        print_json({name: json.loads(frame.to_json(orient="records")) for name, frame in tables.items()})
    else:
        for name, frame in found.items():
            print_table(name.replace("_", " "), list(frame.columns), frame.itertuples(index=False))
        if not found:
            typer.echo(f"{before} and {after} hold the same.")
    if found:
        raise typer.Exit(PART_DONE)


@app.command()
def preview(
    dataset: Dataset,
    images: Annotated[int, typer.Option(min=1, help="Overlays per source and modality at most.")] = 24,
) -> None:
    """Write DATASET/report.html: counts, charts, and images with their regions drawn; large datasets get a page a source.

    Example: medglip preview busi/
    """
    from medglip.store.pages.preview import preview as write_preview

    typer.echo(write_preview(dataset, per_source=images))
