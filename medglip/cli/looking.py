"""Commands about files as they come: inspect."""

from pathlib import Path
from typing import Annotated

import typer

from medglip.cli.frame import Json, app, out, print_json


@app.command()
def inspect(path: Annotated[Path, typer.Argument(metavar="FILE_OR_DIR", help="What is this?")], as_json: Json = False) -> None:
    """Say what a file or folder is: format, modality, geometry, spacing, problems.

    Example: medglip inspect series/
    """
    from medglip.imaging.inspect import inspect as look

    facts = look(path)
    if as_json:
        print_json(facts)
        return
    for fact in facts:
        out.print(f"[bold]{fact.pop('path')}[/]")
        for key, value in fact.items():
            out.print(f"  {key}: {value}", markup=False, highlight=False)
