"""The command that makes a dataset of files: convert."""

from pathlib import Path
from typing import Annotated

import typer

from medglip.cli.frame import PART_DONE, Json, app, describe_anew, err, print_json


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
    describe_anew(dataset)
    facts = {
        "source": result.source, "cases": result.cases, "already_there": result.skipped, "images": result.images,
        "regions": result.regions, "volumes": result.volumes, "rejects": dict(sorted(result.rejects.items())),
        "seconds": round(result.seconds, 2),
    }  # fmt: skip
    if as_json:
        print_json(facts)
    else:
        typer.echo("  ".join(f"{key}: {value}" for key, value in facts.items()))
    if result.rejects:
        err.print(
            f"{sum(result.rejects.values())} items were rejected; `medglip stats {dataset}` lists them with their reasons."
        )
        raise typer.Exit(PART_DONE)
