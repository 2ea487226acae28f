"""Commands that use a model, or show its card: ground, ask, report, card."""

import json
from pathlib import Path
from typing import Annotated

import typer

from medglip.cli.frame import Checkpoint, Image, Json, Modality, Slice, app, print_json
from medglip.errors import InputError


@app.command()
def ground(
    checkpoint: Checkpoint,
    image: Image,
    phrases: Annotated[str, typer.Argument(help='Phrases, separated by ";".')],
    modality: Modality = None,
    slice_: Slice = None,
    overlay: Annotated[Path | None, typer.Option(help="Write a PNG with the boxes drawn.")] = None,
    as_json: Json = False,
) -> None:
    """Find the regions that phrases name, or say that they are absent.

    Example: medglip ground lite scan.dcm "left kidney; liver lesion" --overlay found.png
    """
    from medglip.deliver import answers

    asked = [phrase.strip() for phrase in phrases.split(";") if phrase.strip()]
    if not asked:
        raise InputError(f"The phrases {phrases!r} hold no words; give for example 'left kidney; liver lesion'.")
    found = answers.ground(checkpoint, answers.opened(image, modality, slice_), asked, overlay)
    if as_json:
        print_json(found.to_json())
    else:
        typer.echo(found.to_text())


@app.command()
def ask(
    checkpoint: Checkpoint,
    image: Image,
    question: Annotated[str, typer.Argument(help="A question in English.")],
    modality: Modality = None,
    slice_: Slice = None,
    as_json: Json = False,
) -> None:
    """Answer a question about an image from the regions found in it, or abstain.

    Example: medglip ask lite scan.dcm "Is there a liver lesion?"
    """
    from medglip.deliver import answers

    answer = answers.ask(checkpoint, answers.opened(image, modality, slice_), question)
    if as_json:
        print_json(answer.to_json())
    else:
        typer.echo(answer.to_text())


@app.command()
def report(
    checkpoint: Checkpoint,
    image: Image,
    to: Annotated[str, typer.Option(help="text, json or html.")] = "text",
    file: Annotated[Path | None, typer.Option("--out", help="Write it there; default: print (html: IMAGE.html).")] = None,
    modality: Modality = None,
    slice_: Slice = None,
) -> None:
    """Write a report whose sentences cite the regions found (templates, said to be templates).

    Example: medglip report lite scan.dcm --to html --out report.html
    """
    from medglip.deliver import answers

    if to not in ("text", "json", "html"):
        raise InputError(f"--to is {to!r}; allowed: text, json, html.")
    typer.echo(answers.report(checkpoint, answers.opened(image, modality, slice_), to, file))


@app.command()
def card(checkpoint: Checkpoint, as_json: Json = False) -> None:
    """Print the card of a model: data, licences, figures, where it fails; --json: every concept that it knows.

    Example: medglip card lite
    """
    page, concepts = checkpoint / "README.md", checkpoint / "concepts.json"
    if not page.is_file() or not concepts.is_file():
        raise InputError(f"Checkpoint {checkpoint} has no card (README.md and concepts.json); a shipped model has one: lite.")
    if as_json:
        print_json(json.loads(concepts.read_text(encoding="utf-8")))
    else:
        typer.echo(page.read_text(encoding="utf-8"))
