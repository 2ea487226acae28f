"""The manifest of a dataset: which parts and files it has. Replacing it is the commit. Knows nothing of records."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medglip.errors import DatasetError
from medglip.store.place import Place
from medglip.store.schema import SCHEMA_VERSION, TABLES

NAME = "manifest.json"
# The same bytes once more, written after the commit, for a disk that loses the first.
COPY = "manifest.copy.json"
CASES = "cases"
# What lies in a dataset beside its manifest.
OWN = (*TABLES, "shards", CASES, "labels.json", "croissant.json", "report.html", "report_files", ".writing", ".lock",
       ".manifest.json", ".labels.json", COPY, f".{COPY}", "splits.json", ".splits.json", "problems.html",
       "problem_files", "quality.html")  # fmt: skip

Manifest = dict[str, Any]


def read_manifest(dataset: str | Path | Place) -> Manifest:
    """The manifest of a dataset.

    Raises:
        DatasetError: there is none, it is broken, or of another schema version.
    """
    place = Place(dataset)
    where = f"{place.name}/{NAME}"
    try:
        content = place.read(NAME)
    except (FileNotFoundError, NotADirectoryError) as error:
        what = "no dataset (it has no manifest.json)" if place.exists() else "no such folder"
        raise DatasetError(
            f"Dataset {place.name!r}: found {what}; give a folder that `medglip convert` wrote, or convert again."
        ) from error
    except OSError as error:
        raise DatasetError(f"{where!r} cannot be read ({error}); restore it, or convert into a new folder.") from error
    try:
        manifest = json.loads(content)
    except ValueError as error:
        raise DatasetError(f"{where!r} cannot be read ({error}); {_way_out(place)}.") from error
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if not isinstance(version, str) or version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
        raise DatasetError(
            f"{where!r}: found schema version {version!r}; this medglip reads {SCHEMA_VERSION.split('.')[0]}.x;"
            " convert the source again, or use the medglip that wrote it."
        )
    parts = manifest.get("parts")
    if not isinstance(parts, dict) or not all(
        isinstance(part, dict) and isinstance(part.get("files"), dict) and isinstance(part.get("counts"), dict)
        for part in parts.values()
    ):
        raise DatasetError(f"{where!r}: found no list of parts with their files and counts; {_way_out(place)}.")
    return manifest


def _way_out(place: Place) -> str:
    if place.exists(COPY):
        return f"copy {COPY!r}, which lies beside it, over it, and run `medglip validate`"
    return "restore it, or convert into a new folder"


def bytes_of(document: Any) -> bytes:
    """A JSON file, with sorted keys."""
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def write_json(path: Path, document: Any) -> None:
    """Write a local JSON file whole or not at all, with sorted keys."""
    Place(path.parent).write(path.name, bytes_of(document))


class ManifestText:
    """Writes manifests as ``bytes_of`` would, but a part that did not change is not written out anew.

    With thousands of parts that is what keeps the cost of one more part small.
    """

    def __init__(self) -> None:
        self._parts: dict[str, tuple[dict[str, Any], str]] = {}
        self._totals: tuple[dict[str, Any], dict[str, Any]] | None = None

    def write(self, parts: dict[str, Any]) -> tuple[Manifest, bytes]:
        """The manifest of these parts, and its bytes; an entry that is to change must be another object than before."""
        counts = self._counts(parts)
        manifest = {"schema_version": SCHEMA_VERSION, "counts": counts, "parts": parts}
        kept = {}
        for name, entry in parts.items():
            before = self._parts.get(name)
            kept[name] = before if before is not None and before[0] is entry else (entry, _nested(entry))
        self._parts, self._totals = kept, (dict(parts), counts)
        if not parts:
            return manifest, bytes_of(manifest)
        rows = ",\n".join(f"  {_text(name)}: {kept[name][1]}" for name in sorted(parts))
        sums = _text(counts).replace("\n", "\n ")
        text = f'{{\n "counts": {sums},\n "parts": {{\n{rows}\n }},\n "schema_version": {_text(SCHEMA_VERSION)}\n}}\n'
        return manifest, text.encode()

    def _counts(self, parts: dict[str, Any]) -> dict[str, Any]:
        if self._totals is not None:
            before, counts = self._totals
            if all(parts.get(name) is entry for name, entry in before.items()):
                fresh = {name: entry for name, entry in parts.items() if name not in before}
                return totals({"": {"counts": counts}, **{f"+{name}": entry for name, entry in fresh.items()}})
        return totals(parts)


def _text(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)


def _nested(entry: dict[str, Any]) -> str:
    return _text(entry).replace("\n", "\n  ")


def totals(parts: dict[str, Any]) -> dict[str, Any]:
    """Sums over the parts: numbers are added, tables of numbers key by key."""
    total: dict[str, Any] = {}
    for name in sorted({name for part in parts.values() for name in part["counts"]}):
        values = [part["counts"].get(name, 0) for part in parts.values()]
        if any(isinstance(value, dict) for value in values):
            table: Counter = Counter()
            for value in values:
                table.update(value or {})
            total[name] = dict(table)
        else:
            total[name] = sum(values)
    return total


def table_files(manifest: Manifest, table: str) -> list[str]:
    """Parquet files of a table, relative to the dataset, one a part, in the order of the parts' names."""
    parts = manifest["parts"]
    return [name for part in sorted(parts) for name in sorted(parts[part]["files"]) if name.startswith(f"{table}/")]


def cases_of(place: Place, entry: Mapping[str, Any]) -> dict[str, Any]:
    """What a part keeps of its cases; empty where it keeps nothing.

    Raises:
        DatasetError: the file is missing or broken.
    """
    found: dict[str, Any] = dict(entry.get(CASES) or {})
    for name in entry["files"]:
        if name.startswith(f"{CASES}/"):
            try:
                found |= json.loads(place.read(name))
            except (OSError, ValueError) as error:
                raise DatasetError(f"Dataset {place.name!r}: {name!r} cannot be read ({error}); restore it.") from error
    return found
