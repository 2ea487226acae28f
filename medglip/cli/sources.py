"""Commands that need no files of yours: demo, phantom, sources."""

from pathlib import Path
from typing import Annotated, Any

import typer

from medglip.cli.frame import Json, app, err, out, print_json, print_table


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(metavar="[OUT]", help="Where everything is written.")] = Path("demo"),
    real: Annotated[Path | None, typer.Option(help="Folder of source folders: use these instead of phantoms.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Wall time of each training; default 7.5, with --real 14.")] = None,
    cases: Annotated[int, typer.Option(help="Phantom cases per modality.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of phantoms and training.")] = 0,
    fast: Annotated[
        bool, typer.Option("--fast", help="Train nothing: the model shipped with medglip, on new phantoms.")
    ] = False,
) -> None:
    """The whole job on a CPU in minutes, ending in one page: convert, train, evaluate, ground, ask, report.

    Example: medglip demo demo/; in a minute or two, without training: medglip demo demo/ --fast
    """
    from medglip.demo import run_demo

    page = run_demo(folder, real=real, minutes=minutes, cases=cases, seed=seed, fast=fast, console=err)
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
    name: Annotated[str | None, typer.Argument(help="Show this one; default: list all.")] = None,
    modality: Annotated[str | None, typer.Option(help="Only those with images of this modality: ct, mr, xray, ...")] = None,
    search: Annotated[
        str | None, typer.Option(metavar="WORD", help="Only those whose name, title or labels hold a word.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the known sources by modality, or show one: layout, licence, labels, traps.

    Example: medglip sources --modality ultrasound
    """
    from medglip.curate import load_source, source_names
    from medglip.curate.describe import facts_found, source_facts

    known = (load_source(found) for found in ([name] if name else source_names()))
    facts = facts_found([source_facts(source) for source in known], modality, search)
    if as_json:
        print_json(facts[0] if name and facts else facts)
    elif name and facts:
        _print_source(facts[0])
    else:
        _print_sources(facts)


def _print_source(facts: dict[str, Any]) -> None:
    for key, value in facts.items():
        if value:
            out.print(f"[bold]{key}[/]:", end=" " if isinstance(value, str) else "\n")
            for line in [value] if isinstance(value, str) else [f"  {line}" for line in value]:
                out.print(line, markup=False, highlight=False)


def _print_sources(facts: list[dict[str, Any]]) -> None:
    """A table a modality; sources with several stand in the last one."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for fact in sorted(facts, key=lambda fact: ("," in fact["modalities"], fact["modalities"].partition(",")[0])):
        groups.setdefault("several modalities" if "," in fact["modalities"] else fact["modalities"], []).append(fact)
    for group, rows in groups.items():
        # Terms that are no SPDX id are long; the single view has all of them.
        shown = [(row["name"], row["access"], row["licence"].partition(";")[0], row["title"]) for row in rows]
        print_table(f"{group} ({len(rows)})", ["name", "access", "licence", "title"], shown)
    err.print(f"{len(facts)} sources; `medglip sources NAME` shows one, `--modality` and `--search` find some.", markup=False)


@app.command("new-source")
def new_source(
    name: Annotated[str, typer.Argument(help="Name of the source: lower-case letters, digits and _.")],
    folder: Annotated[Path | None, typer.Argument(metavar="[INPUT]", help="Its files: what they show is filled in.")] = None,
    converter: Annotated[str | None, typer.Option(help="A file of converters/; default: what the files look like.")] = None,
    modality: Annotated[str | None, typer.Option(help="ct, mr, xray, ...; default: what the files say.")] = None,
    to: Annotated[Path | None, typer.Option(help="Where to write it; default: NAME.toml here.")] = None,
) -> None:
    """Write a commented TOML to start a source of your own from: layout, converter and raw labels are guessed from its files.

    Example: medglip new-source my_polyps ~/polyps --modality endoscopy
    """
    from medglip.curate.sketching import sketch
    from medglip.errors import InputError

    path = to or Path(f"{name}.toml")
    text, todo = sketch(name, folder, converter=converter, modality=modality)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(f"{str(path)!r} is there already; move it away, or choose another place with --to.") from None
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be written: {error.strerror}.") from error
    typer.echo(str(path))
    for line in todo:
        err.print(f"to do: {line}", markup=False)
    err.print(f"Then: medglip convert {path} {folder or 'INPUT'} DATASET --limit 5", markup=False)
