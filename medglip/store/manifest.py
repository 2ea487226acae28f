"""The manifest of a dataset: which parts and files it has. Replacing it is the commit. Knows nothing of records."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from medglip.errors import DatasetError
from medglip.store.schema import SCHEMA_VERSION, TABLES

NAME = "manifest.json"
# What lies in a dataset beside its manifest.
OWN = (*TABLES, "shards", "labels.json", "croissant.json", "report.html", "report_files", ".writing", ".lock",
       ".manifest.json", ".labels.json")  # fmt: skip

Manifest = dict[str, Any]


def read_manifest(dataset: Path) -> Manifest:
    """The manifest of a dataset.

    Raises:
        DatasetError: there is none, it is broken, or of another schema version.
    """
    path = dataset / NAME
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        what = "no such folder" if not dataset.exists() else "no dataset (it has no manifest.json)"
        raise DatasetError(
            f"Dataset {str(dataset)!r}: found {what}; give a folder that `medglip convert` wrote, or convert again."
        ) from error
    except (OSError, ValueError) as error:
        raise DatasetError(f"{str(path)!r} cannot be read ({error}); restore it, or convert into a new folder.") from error
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if not isinstance(version, str) or version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
        raise DatasetError(
            f"{str(path)!r}: found schema version {version!r}; this medglip reads {SCHEMA_VERSION.split('.')[0]}.x;"
            " convert the source again, or use the medglip that wrote it."
        )
    parts = manifest.get("parts")
    if not isinstance(parts, dict) or not all(
        isinstance(part, dict) and isinstance(part.get("files"), dict) and isinstance(part.get("counts"), dict)
        for part in parts.values()
    ):
        raise DatasetError(f"{str(path)!r}: found no list of parts with their files and counts; restore it, or convert again.")
    return manifest


def write_manifest(dataset: Path, parts: dict[str, Any]) -> Manifest:
    """Commit: the dataset consists of these parts from now on."""
    manifest = {"schema_version": SCHEMA_VERSION, "counts": totals(parts), "parts": parts}
    write_json(dataset / NAME, manifest)
    return manifest


def write_json(path: Path, document: Any) -> None:
    """Write a JSON file whole or not at all, with sorted keys."""
    draft = path.with_name(f".{path.name}")
    with draft.open("w", encoding="utf-8") as file:
        json.dump(document, file, indent=1, sort_keys=True, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


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
