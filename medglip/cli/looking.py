"""Commands about files as they come, and about what this machine can read: inspect, doctor."""

from pathlib import Path
from typing import Annotated

import typer

from medglip.cli.frame import PART_DONE, Json, app, out, print_json, print_table


@app.command()
def inspect(path: Annotated[Path, typer.Argument(metavar="FILE_OR_DIR", help="What is this?")], as_json: Json = False) -> None:
    """Say what a file or folder is: format, modality, geometry, spacing, problems.

    Exit code 2 where the file cannot be read, 3 where some files of a folder cannot.

    Example: medglip inspect series/
    """
    from medglip.imaging.inspect import inspect as look

    facts = look(path)
    if as_json:
        print_json(facts)
    else:
        for fact in facts:
            shown = dict(fact)
            out.print(f"{shown.pop('path')}", style="bold", markup=False, highlight=False)
            for sentence in shown.pop("words", []):
                out.print(f"  {sentence}", markup=False, highlight=False)
            for key, value in shown.items():
                if value not in (None, [], {}):
                    out.print(f"    {key}: {value}", markup=False, highlight=False, style="dim")
    if any(fact["format"] == "unreadable" for fact in facts):
        raise typer.Exit(PART_DONE)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine can read: decoders of each DICOM transfer syntax (tried on a real frame), packages, versions.

    Exit code 3 where a decoder that medglip needs is missing or wrong.

    Example: medglip doctor
    """
    from medglip.imaging.decoders import probed, versions

    decoders, packages = probed(), versions()
    if as_json:
        listed = [{"package": name, "version": version, "use": use} for name, version, use in packages]
        print_json({"transfer_syntaxes": [decoder._asdict() for decoder in decoders], "packages": listed})
    else:
        rows = [(one.name, one.uid, one.state, ", ".join(one.by) or one.advice) for one in decoders]
        print_table("DICOM transfer syntaxes: works = a frame came back whole, ready = decoder there, no writer to try it",
                    ["transfer_syntax", "uid", "state", "by_or_advice"], rows)  # fmt: skip
        print_table(
            "Packages", ["package", "version", "use"], [(name, found or "not there", use) for name, found, use in packages]
        )
    bad = any(one.state in ("missing", "wrong", "fails") for one in decoders)
    if bad or any(found is None and use == "always" for _, found, use in packages):
        raise typer.Exit(PART_DONE)
