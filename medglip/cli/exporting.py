"""Commands from and to other formats: export, import-coco, import-odvg."""

from pathlib import Path
from typing import Annotated, Any

import typer

from medglip.cli.frame import PART_DONE, Dataset, Json, app, describe_anew, err, print_json

Into = Annotated[Path, typer.Argument(metavar="DATASET", help="Made, or added to.")]
Images = Annotated[Path, typer.Option(help="Folder in which the names of the images begin.")]
Licence = Annotated[str, typer.Option(help="SPDX id or text; of the images whose entry names none.")]
GivenModality = Annotated[str | None, typer.Option(help="ct, mr, xray, ...; of the images whose entry names none.")]
Source = Annotated[str | None, typer.Option(help="Name to list the images under; default: the file's.")]
Split = Annotated[str | None, typer.Option(help="train, val, test; default: what the file says, else unassigned.")]
Exhaustive = Annotated[bool, typer.Option("--exhaustive", help="Every label is marked wherever it is: others are absent.")]
SkipUnknown = Annotated[bool, typer.Option("--skip-unknown", help="Leave out labels that the label tree lacks; list them.")]


@app.command()
def export(
    dataset: Dataset,
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="New or empty folder.")],
    to: Annotated[str, typer.Option(help="coco, odvg, mdetr, yolo, hf, webdataset, croissant or nnunet.")],
    split: Annotated[str | None, typer.Option(help="Only this split: train, val, test, unassigned.")] = None,
    min_side: Annotated[float, typer.Option(help="Leave out regions with a shorter side, in pixels.")] = 0.0,
    min_area: Annotated[float, typer.Option(help="Leave out regions with fewer pixels.")] = 0.0,
    polygons: Annotated[bool, typer.Option("--polygons", help="yolo: outlines (lossy) instead of boxes.")] = False,
    public: Annotated[bool, typer.Option("--public", help="To be given to everybody: refuse what must not be.")] = False,
    flagged: Annotated[str, typer.Option(help="Images with burned_in_risk or face_risk: keep or leave-out.")] = "",
    as_json: Json = False,
) -> None:
    """Write a dataset, or a part of it, in another format, with the licences of its sources.

    Example: medglip export busi/ busi_coco/ --to coco --split train
    """
    from medglip.errors import InputError
    from medglip.exports import Choice, Public
    from medglip.exports import export as export_dataset
    from medglip.exports.public import RISKS
    from medglip.progress import bar
    from medglip.store import open as open_dataset

    opened = open_dataset(dataset)
    if flagged not in ("", "keep", "leave-out"):
        raise InputError(f"Export --flagged: found {flagged!r}; allowed: keep, leave-out.")
    choice = Choice(split, min_side, min_area, RISKS if flagged == "leave-out" else ())
    given = Public(flagged == "keep", lambda notice: err.print(notice, markup=False)) if public else None
    with bar(err) as progress:
        step = progress.step(to)
        counts = export_dataset(opened, folder, to, choice=choice, on_image=step, polygons=polygons, public=given)
    _say({"format": to, "out": str(folder), **counts}, as_json)


@app.command(name="import-coco")
def import_coco(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="COCO file, JSON.")],
    dataset: Into,
    images: Images,
    licence: Licence,
    modality: GivenModality = None,
    source: Source = None,
    split: Split = None,
    exhaustive: Exhaustive = False,
    skip_unknown: SkipUnknown = False,
    as_json: Json = False,
) -> None:
    """Make a dataset of a COCO file and its images, or add them to one.

    Example: medglip import-coco instances_train.json polyps/ --images images/ --licence CC-BY-4.0 --modality endoscopy
    """
    from medglip.exports.from_coco import import_coco as import_file
    from medglip.exports.incoming import Given
    from medglip.progress import bar

    given = Given(source or file.stem, licence, modality, split, exhaustive, skip_unknown)
    with bar(err) as progress:
        facts = import_file(file, dataset, images, given, progress.step(given.source))
    _imported(dataset, given.source, facts, as_json)


@app.command(name="import-odvg")
def import_odvg(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="ODVG file, JSON lines.")],
    dataset: Into,
    images: Images,
    licence: Licence,
    modality: GivenModality = None,
    source: Source = None,
    split: Split = None,
    exhaustive: Exhaustive = False,
    skip_unknown: SkipUnknown = False,
    label_map: Annotated[Path | None, typer.Option(help="Default: label_map.json beside FILE.")] = None,
    as_json: Json = False,
) -> None:
    """Make a dataset of an ODVG file (Open-GroundingDINO, MM-Grounding-DINO) and its images, or add them to one.

    Example: medglip import-odvg train.jsonl polyps/ --images images/ --licence CC-BY-4.0 --modality endoscopy
    """
    from medglip.exports.from_odvg import import_odvg as import_file
    from medglip.exports.incoming import Given
    from medglip.progress import bar

    given = Given(source or file.stem, licence, modality, split, exhaustive, skip_unknown)
    with bar(err) as progress:
        facts = import_file(file, dataset, images, given, label_map=label_map, on_image=progress.step(given.source))
    _imported(dataset, given.source, facts, as_json)


def _imported(dataset: Path, source: str, facts: dict[str, Any], as_json: bool) -> None:
    describe_anew(dataset)
    _say({"source": source, **facts}, as_json)
    if facts["rejects"]:
        number = sum(facts["rejects"].values())
        err.print(f"{number} items were rejected; `medglip stats {dataset}` lists them with their reasons.")
        raise typer.Exit(PART_DONE)


def _say(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(facts)
    else:
        typer.echo("  ".join(f"{key.replace('_', ' ')}: {value}" for key, value in facts.items()))
