"""The command for who holds the key of a private source: names."""

from pathlib import Path
from typing import Annotated

import typer

from medglip.cli.frame import Json, app, out, print_json, print_table

KeyFile = Annotated[Path | None, typer.Option(help="File with the key; default: that of MEDGLIP_KEY_FILE, else MEDGLIP_KEY.")]


@app.command()
def names(
    given: Annotated[str, typer.Argument(metavar="INPUT", help="The source's files, as for convert.")],
    source: Annotated[str, typer.Argument(help="Name of the source, or the path of its TOML.")],
    find: Annotated[list[str] | None, typer.Option(help="Only this stored name; may be given more than once.")] = None,
    why: Annotated[str | None, typer.Option(help="Read this case again and say in clear what is wrong with it.")] = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """List which file or case a private source's stored name stands for; nothing is written.

    Example: medglip names archive/ ward.toml --find file-3fa9c1d0b2e4a675.dcm
    """
    from medglip.curate import load_source
    from medglip.curate.privacy.keys import use_key_file
    from medglip.curate.privacy.names import hidden_names, rejects_in_clear
    from medglip.errors import InputError

    if key_file is not None:
        use_key_file(key_file)
    loaded = load_source(source)
    if why is not None:
        rejects = rejects_in_clear(loaded, given, why)
        if as_json:
            print_json([{"file": reject.file, "reason": reject.reason, "detail": reject.detail} for reject in rejects])
            return
        for reject in rejects:
            out.print(f"{reject.file}: {reject.reason}: {reject.detail}", markup=False, highlight=False)
        if not rejects:
            out.print("It can be converted.")
        return
    # a stored name may be followed by a place in the file, or preceded by the part's name
    wanted = {name.rpartition(":")[2].split(" ")[0] for name in find or ()}
    rows = [row for row in hidden_names(loaded, given) if not wanted or row.stored.rpartition(":")[2] in wanted]
    if wanted and not rows:
        raise InputError(
            f"{min(wanted)!r}: no file and no case of {given!r} is stored so; give the folder and the key of the conversion."
        )
    if as_json:
        print_json([row._asdict() for row in rows])
    else:
        print_table(f"Names of {loaded.name} (not for others)", ["kind", "stored", "name"], rows)
