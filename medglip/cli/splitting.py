"""The command that divides a dataset into training, validation and test images: split."""

import json
from typing import Annotated

import typer

from medglip.cli.frame import Dataset, Json, app, describe_anew, err, out, print_json, print_table

_LISTED = 20  # rows of a long table


@app.command()
def split(
    dataset: Dataset,
    salt: Annotated[str | None, typer.Option(help="Another text, another division; default: as last time.")] = None,
    shares: Annotated[
        tuple[float, float, float] | None,
        typer.Option(metavar="TRAIN VAL TEST", help="For example 80 10 10; default: as last time."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    as_json: Json = False,
) -> None:
    """Divide a dataset anew: patients, twins and shared images stay together, official splits stand.

    Example: medglip split both/ --dry-run
    """
    from medglip.progress import bar
    from medglip.store import open as open_dataset
    from medglip.store.groups.splits import apply, assign_splits, remembered

    opened = open_dataset(dataset)
    last = remembered(opened.place)
    with bar(err) as progress:
        plan = assign_splits(
            opened,
            last["salt"] if salt is None else salt,
            last["shares"] if shares is None else shares,
            on_progress=progress.step("look-alikes"),
        )
    if not dry_run:
        apply(opened, plan)
        describe_anew(dataset)
    moves = plan.changed.groupby(["dataset", "before", "after"]).size().rename("images").reset_index()
    poor = plan.quality[plan.quality["without_patient"] > 0]
    tables = {
        "splits": plan.sizes, "changed": moves, "merged_groups": plan.merged, "official_conflicts": plan.conflicts,
        "near_duplicates": plan.near, "no_patient_id": poor, "left_out": plan.left_out,
    }  # fmt: skip
    if as_json:
        frames = {name: json.loads(frame.to_json(orient="records")) for name, frame in tables.items()}
        print_json({"written": not dry_run, "salt": plan.salt, "shares": plan.shares, **frames})
        return
    for name, frame in tables.items():
        if len(frame):
            print_table(name.replace("_", " "), list(frame.columns), frame.head(_LISTED).itertuples(index=False))
            if len(frame) > _LISTED:
                out.print(f"  and {len(frame) - _LISTED} more; --json lists all")
    done = "nothing was written" if dry_run else "written" if len(plan.changed) or len(plan.merged) else "nothing to change"
    typer.echo(f"{dataset}: {len(plan.changed)} images change their split; {len(plan.merged)} groups are joined; {done}")
