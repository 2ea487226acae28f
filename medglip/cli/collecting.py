"""The command that makes one dataset of the sources of a collection: collect."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medglip.cli.frame import PART_DONE, Json, app, describe_anew, err, print_json

if TYPE_CHECKING:
    from medglip.curate import Conversion
    from medglip.progress import Bars, Step


@app.command()
def collect(
    name: Annotated[str, typer.Argument(help="Of datasets/collections: medglip-bench, lite-training; or a TOML's path.")],
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Holds a folder a source, such as us-busi for us_busi.")],
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="Made, or added to; a stopped run goes on.")],
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    as_json: Json = False,
) -> None:
    """Convert all sources of a collection that are there into one dataset, divided so that shared images stay together.

    Example: medglip collect medglip-bench ~/sources bench/ --workers 8
    """
    from medglip.curate.collections import convert_collection, load_collection
    from medglip.progress import bar

    collection = load_collection(name)
    with bar(err) as progress:
        done = convert_collection(collection, root, dataset, workers=workers, on_source=_Shown(progress))
    describe_anew(dataset)
    facts = [
        {"source": source, "cases": one.cases, "images": one.images, "regions": one.regions, "rejects": one.rejects.total(),
         "held_out": source in collection.held_out_sources}
        for source, one in done.items()
    ]  # fmt: skip
    if as_json:
        print_json({"collection": collection.name, "sources": facts})
    else:
        for fact in facts:
            typer.echo("  ".join(f"{key}: {value}" for key, value in fact.items()))
        missing = len(collection.all_sources) - len(done)
        typer.echo(f"{len(done)} of {len(collection.all_sources)} sources of {collection.name}; {missing} are not in {root}")
    if any(one.rejects for one in done.values()):
        err.print(f"Some items were rejected; {dataset}/quality.html says why.")
        raise typer.Exit(PART_DONE)


class _Shown:
    """A bar a source."""

    def __init__(self, progress: "Bars") -> None:
        self._progress, self._bars = progress, dict[str, "Step"]()

    def __call__(self, source: str, counts: "Conversion") -> None:
        """Step after a case, and once before the first."""
        if source not in self._bars:
            self._bars[source] = self._progress.step(source)
        self._bars[source](counts.done, counts.cases, f"{counts.rejects.total()} rejected")
