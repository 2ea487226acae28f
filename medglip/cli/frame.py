"""What all commands share: the application, the two consoles, common options, tables and JSON."""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from medglip import __version__
from medglip.errors import MedglipError

app = typer.Typer(
    name="medglip",
    help="Medical images in, a grounding dataset and a modality-conditioned GLIP model out.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# Piped into a file or a program, a table is as wide as its words, so that ids stay whole.
out = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 200)
err = Console(stderr=True, soft_wrap=True, highlight=False)

PART_DONE = 3
WIDE = 9  # columns; a wider table is printed as lines


def _checkpoint(given: str) -> Path:
    """The folder of a checkpoint, or of the shipped model of that name."""
    from medglip.model.shipped import checkpoint_folder

    return checkpoint_folder(given)


Json = Annotated[bool, typer.Option("--json", help="Print JSON, for a program to read.")]
Modality = Annotated[str | None, typer.Option(help="ct, mr, xray, ...; default: what the file says, else unknown.")]
_CHECKPOINT = "Folder of a checkpoint, such as RUN/best, or lite: shipped."
Checkpoint = Annotated[Path, typer.Argument(parser=_checkpoint, metavar="CHECKPOINT", help=_CHECKPOINT)]
Dataset = Annotated[Path, typer.Argument(help="Folder of a dataset.")]
Image = Annotated[Path, typer.Argument(help="PNG, JPEG, TIFF or DICOM file; NIfTI with --slice.")]
Slice = Annotated[int | None, typer.Option("--slice", help="Slice or frame, from 0; default: the middle one.")]


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def print_table(title: str, columns: list[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table; each row as lines of its own where there are too many columns for a terminal."""
    shown = [["" if value is None or value != value else str(value) for value in row] for row in rows]
    if len(columns) > WIDE:
        out.print(f"[italic]{title}[/]")
        for row in shown:
            for column, value in zip(columns, row, strict=True):
                if value:
                    out.print(f"  {column.replace('_', ' ')}: {value}", markup=False, highlight=False)
        return
    heads = (Column(column.replace("_", " "), overflow="fold") for column in columns)
    table = Table(*heads, title=title, title_justify="left")
    for row in shown:
        table.add_row(*row)
    out.print(table)


def describe_anew(dataset: Path) -> None:
    """Write ``croissant.json``, which names the files with their hashes, and ``quality.html`` in a dataset that was changed."""
    from medglip.exports.croissant import describe
    from medglip.store import open as open_dataset
    from medglip.store.pages.quality import write_quality

    opened = open_dataset(dataset)
    describe(opened)
    if opened.place.local is not None:
        write_quality(opened)


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
    except (KeyboardInterrupt, RuntimeError) as error:
        if isinstance(error, RuntimeError) and str(error) != "Query interrupted":  # so DuckDB answers Ctrl-C
            raise
        err.print("medglip: stopped; run the same command again to go on where it can.")
        sys.exit(130)
