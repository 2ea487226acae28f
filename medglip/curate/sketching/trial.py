"""Tries a sketch on its folder: how many cases its patterns find, and what belongs to none. Converts nothing."""

import re
import tempfile
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

from medglip.curate.cases import Refused
from medglip.curate.grammar import load_source
from medglip.curate.layout import find, listed
from medglip.curate.sketching.guessed import TODO
from medglip.curate.tasks import found_tasks
from medglip.errors import MedglipError

_SHOWN = 3
_MOST_HEADERS = 20_000  # files of a folder beyond which the headers of all of them take minutes


def tried(text: str, folder: Path) -> tuple[str, tuple[str, ...]]:
    """What the patterns of a sketch find.

    Args:
        text: The TOML, with its to-dos.
        folder: The source's files.

    Returns:
        One line, and what is wrong, a sentence each. A sketch without patterns is not tried.
    """
    data = tomllib.loads(text)
    part = data["part"][0]
    if TODO in (part["converter"], *part["files"].values()) or TODO in str(part.get("options", {})):
        return "It was not tried: patterns, or options, are left to do.", ()
    paths = listed(folder)
    if len(paths) > _MOST_HEADERS and (part["converter"].startswith("dicom_") or "series" in part["files"]):
        return f"It was not tried: the headers of {len(paths)} files would have to be read.", ()
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / f"{data['name']}.toml"
        path.write_text(_filled(text), encoding="utf-8")
        try:
            tasks, rejects = found_tasks(load_source(path), folder)
        except (MedglipError, Refused) as error:
            return f"It was tried and refused: {error}", (f"files and options: {error}",)
    marks = [role for role in part["files"] if role not in ("image", "series", "about")]
    unmarked = sum(1 for task in tasks if marks and not any(task.case.files.get(role) for role in marks))
    fitting = {entry.path for pattern in part["files"].values() for entry in find(pattern, paths)}
    line = f"It finds {len(tasks)} cases"
    wrong = []
    if unmarked:
        line += f", {unmarked} of them without a mark"
        if 2 * unmarked > len(tasks):
            wrong.append(f"files: {unmarked} of {len(tasks)} cases have no file of the role {' or '.join(marks)}")
    for reason, number in Counter(reject.reason for reject in rejects).most_common(_SHOWN):
        first = next(reject for reject in rejects if reject.reason == reason)
        wrong.append(f"{reason}: {number} files or cases, such as {first.file or first.case!r}: {first.detail}")
    line += f"; {len(rejects)} files or cases cannot be used, {len(paths) - len(fitting)} other files fit no pattern."
    return line, tuple(wrong)


def _filled(text: str) -> str:
    """The TOML as it loads: what is left to do is filled in with anything."""
    unknown = f'modality = "{TODO}"' in text  # labels that no picture of some modality can show are refused
    lines, labels = [], False
    for line in text.splitlines():
        key = line.partition(" = ")[0]
        fill: dict[str, Any] = {"title": '"x"', "licence": '"x"', "modality": '"ct"'}
        if key in fill and (f'"{TODO}"' in line or ' = ""' in line):
            line = f"{key} = {fill[key]}"
        elif f'= "{TODO}"' in line:
            line = line.replace(f'= "{TODO}"', '= "skip"')
        elif labels and unknown and " = " in line and not line.startswith("#"):
            line = re.sub(r' = "[^"]*"', ' = "skip"', line)
        labels = labels or line.startswith("[part.labels]")
        lines.append(line)
    return "\n".join(lines) + "\n"
