"""Commands that arrange datasets anew: merge, compact."""

from pathlib import Path
from typing import Annotated

import typer

from medglip.cli.frame import Dataset, Json, app, describe_anew, err, print_json


@app.command()
def merge(
    out: Annotated[Path, typer.Argument(help="Folder of the new dataset.")],
    datasets: Annotated[list[Path], typer.Argument(help="Folders of the datasets to join; they stay as they are.")],
    as_json: Json = False,
) -> None:
    """Join datasets into a new one; equal images and equal pixels are kept once.

    Example: medglip merge all/ busi/ chest/
    """
    from medglip.progress import bar
    from medglip.store.merge import merge as merge_datasets

    with bar(err) as progress:
        merged = merge_datasets(out, datasets, on_progress=progress.step("merge"))
    describe_anew(out)
    if as_json:
        print_json(merged._asdict())
    else:
        typer.echo(
            f"{out}: {merged.images} images, {merged.regions} regions in {merged.parts} parts;"
            f" {merged.kept_once} images were in more than one dataset"
        )
        err.print(f"Look-alikes of the datasets may be in different splits; `medglip split {out}` finds and joins them.")


@app.command()
def compact(dataset: Dataset, as_json: Json = False) -> None:
    """Join the many small parts of a dataset into few large ones; what it holds stays the same.

    Example: medglip compact chest/
    """
    from medglip.progress import bar
    from medglip.store.arrange import compact as compact_dataset

    with bar(err) as progress:
        done = compact_dataset(dataset, on_progress=progress.step("compact"))
    describe_anew(dataset)
    if as_json:
        print_json({name: dict(zip(("before", "after"), pair, strict=True)) for name, pair in done._asdict().items()})
    else:
        sizes = " -> ".join(
            f"{parts} parts, {files} files, {size / 1e6:.1f} MB" for parts, files, size in zip(*done, strict=True)
        )
        typer.echo(f"{dataset}: {sizes}")
