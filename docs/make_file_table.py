"""Writes docs/reference/real-files.md: what medglip makes of every file of a folder of real samples.

Usage: python docs/make_file_table.py [FOLDER] (default: the environment variable MEDGLIP_REAL_DATA)

Every image, annotation, DICOM and volume file is tried with medglip's readers. Files of one folder with the same kind and
outcome share a row; each file that medglip refuses has a row of its own, with the reason and with what SimpleITK makes of
the same file. The agreement of series with SimpleITK and dcm2niix is that of benchmarks/series_agreement.py.
"""

import json
import os
import re
import sys
import warnings
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import SimpleITK

from medglip.errors import InputError
from medglip.imaging.inspect import inspect

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/reference/real-files.md"
AGREEMENT = ROOT / "benchmarks/results/series_agreement.json"
# Files that describe the samples and are no part of them.
_BESIDE = (".md", ".txt", ".lut", ".license")
_NAMES = ("license", "copying", "copyright", "license.pydicom", "license.pydicom-data", "index.json")


def outcome_of(path: Path) -> tuple[str, str, str]:
    """Kind, outcome and, for a refused file, the reason."""
    try:
        (facts,) = inspect(path)
    except InputError as error:
        reason = str(error).split(" (Unable to decode")[0]  # what follows are the decoders' own words
        return "", "refused", " ".join(reason.split())
    return _kind(facts), _outcome(facts), ""


def _kind(facts: dict[str, Any]) -> str:
    if facts["format"] == "DICOM":
        holds = facts.get("holds")
        return f"DICOM: {holds}" if holds else f"DICOM image, {facts['modality']}"
    if facts["format"] == "volume":
        return f"{facts['kind']} volume" + (" (4-D)" if facts["volumes"] > 1 else "")
    return (
        f"{facts['format']}: {facts['holds']}" if facts.get("holds") and facts["format"] in ("JSON", "XML") else facts["format"]
    )


def _outcome(facts: dict[str, Any]) -> str:
    parts = []
    if "unit" in facts and facts["format"] in ("DICOM", "volume"):
        parts.append(str(facts["unit"]))
    if facts.get("orientation"):
        parts.append(str(facts["orientation"]))
    if facts.get("spacing_from"):
        parts.append(f"pitch from {facts['spacing_from']}")
    told = [problem for problem in facts.get("problems", []) if problem != "spacing_unknown" or facts["format"] != "JPEG"]
    return "; ".join(parts + ([", ".join(told)] if told else [])) or "read"


def second_opinion(path: Path) -> str:
    """What SimpleITK makes of a file that medglip refuses."""
    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        last = str(error).strip().splitlines()[-1].split("sitk::ERROR:")[-1].split("ITK ERROR:")[-1]
        last = re.sub(r"\(0x[0-9a-f]+\)", "", last)  # an address, another one each time
        return f"refuses it too: {' '.join(last.replace(str(path), path.name).split())[:110]}"
    return f"reads it: {' x '.join(map(str, image.GetSize()))}"


def page(folder: Path) -> str:
    """The page, in Markdown."""
    groups: Counter[tuple[str, str, str]] = Counter()
    refused: list[tuple[str, str, str]] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.suffix.lower() in _BESIDE or path.name.lower() in _NAMES:
            continue
        kind, outcome, reason = outcome_of(path)
        if outcome == "refused":
            refused.append((str(path.relative_to(folder)), reason, second_opinion(path)))
        else:
            groups[str(path.relative_to(folder).parent), kind, outcome] += 1
    total = sum(groups.values())
    lines = [
        "# Real files", "",
        "What medglip makes of every image and annotation file of the folder of real samples that its tests read where it is"
        " there (`MEDGLIP_REAL_DATA`). Made by `docs/make_file_table.py`; run it over a folder of your own to see the same of"
        " your files.", "",
        f"{total + len(refused)} files: {total} read and explained, {len(refused)} refused.", "",
        "A word in the outcome is a flag: `medglip inspect FILE` says what it means. Units: `HU` Hounsfield units, `SUVbw`"
        " standardised uptake values, `au` numbers without a unit, `rgb` colours. Orientation: where columns, rows and slices"
        " run.", "",
        "## Refused, with the reason", "", "| file | medglip | SimpleITK |", "| --- | --- | --- |",
        *(f"| {_cell(name)} | {_cell(reason)} | {_cell(other)} |" for name, reason, other in refused), "",
        "## Read", "", "| folder | kind | outcome | files |", "| --- | --- | --- | --- |",
        *(f"| {_cell(where)} | {_cell(kind)} | {_cell(outcome)} | {count} |"
          for (where, kind, outcome), count in sorted(groups.items())), "",
        *_agreement(),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _agreement() -> list[str]:
    """The tables of benchmarks/results/series_agreement.json, where it was made."""
    if not AGREEMENT.is_file():
        return []
    found = json.loads(AGREEMENT.read_text("utf-8"))
    rows, versions = found["series"], found["versions"]
    lines = ["## Series: the same values and affines as SimpleITK and dcm2niix", "",
             f"{len(rows)} DICOM series, read by medglip, SimpleITK {versions['SimpleITK']} and dcm2niix"
             f" {versions['dcm2niix'] or '(not run)'}, laid on one grid by their affines and compared voxel by voxel"
             " (`scripts/bench series_agreement`).", "",
             "| peer | equal | another outcome | not read by medglip |", "| --- | --- | --- | --- |"]  # fmt: skip
    differences: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for peer in ("simpleitk", "dcm2niix"):
        states = Counter(row[peer]["state"] for row in rows if peer in row)
        unread = sum(peer not in row for row in rows)
        lines.append(f"| {peer} | {states['equal']} | {sum(states.values()) - states['equal']} | {unread} |")
        for row in rows:
            if peer in row and row[peer]["state"] != "equal":
                apart = row[peer].get("largest_difference")
                size = "" if apart is None else f", {apart:g} apart at most"
                differences[peer, row[peer]["state"] + size, row[peer]["reason"]].append(row["folder"])
    lines += ["", "Every difference:", "", "| peer | series | found | why |", "| --- | --- | --- | --- |"]
    for (peer, state, reason), folders in differences.items():
        names = [f"{name} ({count})" if count > 1 else name for name, count in Counter(folders).items()]
        lines.append(f"| {peer} | {_cell(', '.join(names))} | {state} | {_cell(reason)} |")
    refused = Counter((row["folder"], row["medglip"]) for row in rows if "simpleitk" not in row)
    lines += ["", *(f"- {where}: medglip gives no volume, `{reason}`." for (where, reason) in sorted(refused))]
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Write the page."""
    given = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("MEDGLIP_REAL_DATA", "")
    folder = Path(given)
    if not given or not folder.is_dir():
        sys.exit("Give the folder of samples, or set MEDGLIP_REAL_DATA to it.")
    warnings.simplefilter("ignore")
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    PAGE.write_text(page(folder), encoding="utf-8")
    print(f"{PAGE}: {len(PAGE.read_text('utf-8').splitlines())} lines")


if __name__ == "__main__":
    main()
