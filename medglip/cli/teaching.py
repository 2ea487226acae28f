"""Commands that make new training material and new weights of old ones: pseudo-label, merge-weights."""

from pathlib import Path
from typing import Annotated, Any

import typer

from medglip.cli.frame import Checkpoint, Dataset, Json, app, describe_anew, err, print_json, print_table
from medglip.errors import InputError


@app.command(name="pseudo-label")
def pseudo_label(
    checkpoint: Checkpoint,
    dataset: Dataset,
    new: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the new dataset.")],
    threshold: Annotated[float, typer.Option(help="Keep boxes of a score above this, 0 to 1.")] = 0.5,
    split: Annotated[str, typer.Option(help="Ask about train, val, test, unassigned or all; the rest is copied.")] = "train",
    labels: Annotated[
        bool, typer.Option("--labels", help="Also ask for all that the model knows, may be there and nobody marked.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew where OUT was written by this command.")] = False,
    as_json: Json = False,
) -> None:
    """Self-training: boxes of a trained model for what texts name and nobody marked, as a new dataset to train on.

    A box has the provenance "predicted", its score, and the phrase and the checkpoint that it came from. What a text denies is
    not asked. Stopped, the same command goes on after the last whole part.

    Example: medglip pseudo-label runs/teacher/best reports/ reports_boxed/ --threshold 0.5
    """
    from medglip.deliver.pseudo_label import Lesson, checkpoint_id
    from medglip.deliver.pseudo_label import pseudo_label as write_labels
    from medglip.predict import Grounder
    from medglip.progress import bar
    from medglip.store import open as open_dataset

    opened, teacher = open_dataset(dataset), Grounder.load(checkpoint)
    lesson = Lesson(checkpoint_id(checkpoint), threshold, split, labels)
    with bar(err) as progress:
        found = write_labels(teacher, opened, new, lesson, overwrite=overwrite, progress=progress.step("images"))
    describe_anew(new)
    if as_json:
        print_json(found)
        return
    columns = ["images", "asked", "kept", "boxes"]
    rows = [[name, *(table[column] for column in columns)] for name, table in sorted(found["modalities"].items())]
    print_table("phrases asked", ["modality", *columns], [*rows, ["all", *(found[column] for column in columns)]])
    left_out = ", ".join(f"{count} {reason}" for reason, count in sorted(found["left_out"].items())) or "nothing"
    typer.echo(f"{new}: {found['boxes']} boxes for {found['kept']} of {found['asked']} phrases; left out: {left_out}")


@app.command(name="merge-weights")
def merge_weights(
    first: Annotated[Path, typer.Argument(metavar="A", help="Folder of a checkpoint, such as the one before fine-tuning.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Folder of another of the same configuration.")],
    new: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the new checkpoint.")],
    share: Annotated[float, typer.Option(help="Part of B in every weight, 0 to 1.")] = 0.5,
    as_json: Json = False,
) -> None:
    """Weights between those of two checkpoints (WiSE-FT): keep what fine-tuning taught and what it forgot.

    The thresholds are those of B; evaluate the new checkpoint to see whether they fit.

    Example: medglip merge-weights runs/lite/best runs/busi/best runs/between --share 0.5
    """
    from medglip.model.checkpoints import save_checkpoint
    from medglip.model.merging import merge

    if new.exists() and any(new.iterdir()):
        raise InputError(f"Checkpoint {str(new)!r}: found files there; give a new folder.")
    model, info = merge(first, second, share)
    save_checkpoint(new, model, model.state_dict(), info)
    said: dict[str, Any] = {"checkpoint": str(new), "share": share, "concepts": len(info.concepts),
                            "modalities": list(info.modalities)}  # fmt: skip
    if as_json:
        print_json(said)
    else:
        typer.echo(f"checkpoint: {new} ({1 - share:g} of {first}, {share:g} of {second})")
