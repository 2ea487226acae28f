"""Commands that need no files of yours: demo, phantom, sources."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from medglip.cli.frame import Json, app, err, out, print_json


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(metavar="[OUT]", help="Where everything is written.")] = Path("demo"),
    real: Annotated[Path | None, typer.Option(help="Folder of source folders: use these instead of phantoms.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Wall time of each training; default 7.5, with --real 14.")] = None,
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
        print_json(facts[0] if name else facts)
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
