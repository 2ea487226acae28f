"""Arranges datasets anew: tables changed, small parts joined, datasets merged. Knows no sources, decodes no pixels.

Each function writes new files beside the old ones and commits them by one replacement of the manifest; whatever ends it
before leaves the dataset as it was.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from medglip.errors import DatasetError, InputError
from medglip.store.commit import Committer, Parts, staging, writable
from medglip.store.draft import Draft
from medglip.store.known import Stored
from medglip.store.manifest import CASES, Manifest, cases_of, read_manifest, table_files
from medglip.store.pixels import SHARD_BYTES, WrittenFile, check_png
from medglip.store.place import Place
from medglip.store.schema import SCHEMAS, TABLES, completed
from medglip.store.tables import Counts, TableFile

# Images a joined part: its tables are then some hundred megabytes at most, and read at once while it is rewritten.
PART_IMAGES = 200_000
# Part of a shard that may belong to no image before it is written anew.
_WASTE = 0.1

Progress = Callable[[int, int], None]


class Arranged(NamedTuple):
    """What a dataset consisted of before and after.

    Attributes:
        parts: Parts before and after.
        files: Files before and after.
        bytes: Bytes of these files before and after.
    """

    parts: tuple[int, int]
    files: tuple[int, int]
    bytes: tuple[int, int]


def rewrite_tables(dataset: str | Path | Place, change: Callable[[str, pa.Table], pa.Table]) -> None:
    """Change tables of a dataset, all at one commit; counts follow, pixels stay.

    Args:
        dataset: Folder or URL of the dataset.
        change: Is given the name of a table (``images``, ``regions``, ...) and the rows of one part, and returns rows of
            the same columns; the same object, or an equal one, where nothing is to change.

    Raises:
        InputError: ``change`` returns other columns.
        DatasetError: the dataset is broken, cannot be written, or changed meanwhile.
    """
    place = Place(dataset)
    committer = Committer(place)
    before = _there(committer)
    files: dict[str, WrittenFile] = {}
    parts: Parts = {}
    with staging(place, "rewriting") as folder:
        for part, entry in before["parts"].items():
            counts, entries = Counts(), dict(entry["files"])
            for name, file, table in _tables_of(place, entry):
                after = _checked(name, change(name, table))
                counts.add(name, after)
                if after is not table and not after.equals(table):
                    with writable(place):
                        (folder / part).mkdir(exist_ok=True)
                        writer = TableFile(folder / part, name)
                        writer.write(after)
                        written = writer.close()
                    fresh = f"{name}/{part}-{written.sha256[:12]}.parquet"
                    files[fresh] = written
                    del entries[file]
                    entries[fresh] = {"bytes": written.size, "sha256": written.sha256}
            kept = {name: number for name, number in entry["counts"].items() if name in ("pictures_stored", "cases")}
            parts[part] = {**entry, "counts": counts.document() | kept, "files": entries}
        committer.commit(_if_unchanged(before, parts, place), files)


def compact(
    dataset: str | Path | Place, *, shard_bytes: int = SHARD_BYTES, part_images: int = PART_IMAGES,
    on_progress: Progress | None = None,
) -> Arranged:  # fmt: skip
    """Join the small parts of a dataset; its records, pixels, rejects and cases stay.

    Parts of one source, with the same facts, are joined in the order of their first cases. Shards are filled up to
    ``shard_bytes`` and hold no pixels without an image. A part that has its size already is left as it is, so a second
    run does nothing. Needs free space for the parts that are rewritten, until the commit.

    Args:
        dataset: Folder or URL of the dataset.
        shard_bytes: Size at which a new shard begins.
        part_images: Images at which a new part begins.
        on_progress: Called with the images rewritten and their total.

    Raises:
        DatasetError: the dataset is broken, cannot be written, or changed meanwhile.
    """
    place = Place(dataset)
    committer = Committer(place)
    before = _there(committer)
    plan = _joined(place, before, part_images)
    wanted = [part for members in plan.values() for part in members]
    work = Rewriting(
        place, _several(place, before, wanted), shard_bytes, sum(_images(before, part) for part in wanted), on_progress
    )
    parts = {part: entry for part, entry in before["parts"].items() if part not in wanted}
    if plan:
        with staging(place, "compacting") as folder:
            for number, (name, members) in enumerate(plan.items()):
                parts[name] = work.write(folder / str(number), name, [(place, before["parts"][part]) for part in members])
            committer.commit(_if_unchanged(before, parts, place), work.files)
    return Arranged(*zip(_sizes(before["parts"]), _sizes(parts), strict=True))


class Rewriting:
    """New parts being written from the tables and pixels of old ones."""

    def __init__(self, place: Place, several: set[str], shard_bytes: int, total: int, on_progress: Progress | None) -> None:
        self.files: dict[str, WrittenFile] = {}
        self._place, self._several, self._shard_bytes = place, several, shard_bytes
        self._found: dict[str, Stored] = {}
        self._done, self._total, self._on_progress = 0, total, on_progress

    def write(
        self, folder: Path, part: str, members: Iterable[tuple[Place, dict[str, Any]]],
        change: Callable[[str, pa.Table], pa.Table] = lambda _, table: table,
    ) -> dict[str, Any]:  # fmt: skip
        """Write one part from the rows and pixels of others; its entry for the manifest."""
        cases: dict[str, Any] = {}
        info: dict[str, Any] = {}
        with writable(self._place), Draft(folder, part, self._found.get, self._shard_bytes) as draft:
            for place, entry in members:
                info = {key: value for key, value in entry.items() if key not in ("counts", "files")}
                cases |= cases_of(place, entry)
                for name, _, table in _tables_of(place, entry):
                    rows = change(name, table)
                    if name == "images":
                        draft.add_images(rows, self._reader(place, rows))
                    else:
                        draft.add_rows(name, rows)
            draft.close()
            files = draft.files(cases)
        self._found |= {sha256: stored for sha256, stored in draft.stored().items() if sha256 in self._several}
        entries = {name: {"bytes": file.size, "sha256": file.sha256} for name, file in files.items()}
        known = {name: {"bytes": file.size, "sha256": file.sha256} for name, file in self.files.items()}
        entries |= {name: known[name] for name in sorted(draft.borrowed)}
        self.files |= files
        return {**info, "counts": draft.counts.document(), "files": entries}

    def _reader(self, place: Place, images: pa.Table) -> Callable[[int], bytes]:
        shards, offsets, sizes = (images[name].to_pylist() for name in ("shard", "tar_offset", "tar_bytes"))
        ids = images["id"]

        def png(row: int) -> bytes:
            found = place.read_range(shards[row], offsets[row], sizes[row])
            check_png(found, f"Image {ids[row].as_py()!r} in {shards[row]!r} of {place.name!r}")
            self._done += 1
            if self._on_progress:
                self._on_progress(self._done, self._total)
            return found

        return png


def _there(committer: Committer) -> Manifest:
    manifest = committer.manifest()
    return manifest if manifest["parts"] else read_manifest(committer.place)


def _if_unchanged(before: Manifest, parts: Parts, place: Place) -> Callable[[Manifest], Parts]:
    def change(manifest: Manifest) -> Parts:
        if manifest is not before:
            raise DatasetError(
                f"Dataset {place.name!r} was changed by another program meanwhile; it is as that left it; run again."
            )
        return parts

    return change


def _tables_of(place: Place, entry: Mapping[str, Any]) -> Iterator[tuple[str, str, pa.Table]]:
    """Name, file and rows of each table of a part; the images first."""
    for name in TABLES:
        for file in table_files({"parts": {"": entry}}, name):
            with place.parquet(file) as opened:
                table = completed(name, opened.read())
            yield name, file, _checked(name, table)


def _checked(name: str, table: pa.Table) -> pa.Table:
    if not table.schema.equals(SCHEMAS[name]):
        raise InputError(
            f"Table {name!r}: found the columns {table.schema.names}; allowed: the columns and types of"
            " medglip.store.schema.SCHEMAS; cast the table to them."
        )
    return table


def _images(manifest: Manifest, part: str) -> int:
    return int(manifest["parts"][part]["counts"].get("images", 0))


def _sizes(parts: Parts) -> tuple[int, int, int]:
    files = {name: file["bytes"] for entry in parts.values() for name, file in entry["files"].items()}
    return len(parts), len(files), sum(files.values())


def column_of(place: Place, entry: Mapping[str, Any], names: list[str]) -> pa.Table:
    """Columns of the images of a part."""
    tables = []
    for file in table_files({"parts": {"": entry}}, "images"):
        with place.parquet(file) as opened:
            tables.append(opened.read(columns=names))
    return pa.concat_tables(tables) if tables else SCHEMAS["images"].empty_table().select(names)


def _several(place: Place, manifest: Manifest, parts: Iterable[str]) -> set[str]:
    """Hashes of pixels that more than one of the parts uses."""
    return repeated(column_of(place, manifest["parts"][part], ["sha256"])["sha256"].unique() for part in parts)


def repeated(columns: Iterable[pa.Array]) -> set[str]:
    """Values that are in more than one column, each of which has each value once."""
    chunks = [column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column for column in columns]
    counts = pa.chunked_array(chunks, pa.string()).value_counts()
    return set(counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist())


def _joined(place: Place, manifest: Manifest, part_images: int) -> dict[str, list[str]]:
    """Name of each new part -> the old ones that it is made of; parts that stay as they are are left out."""
    parts = manifest["parts"]
    groups: dict[str, list[tuple[str, str]]] = {}
    for part in sorted(parts):
        facts = {key: value for key, value in parts[part].items() if key not in ("counts", "files", CASES)}
        first = column_of(place, parts[part], ["case"])["case"]
        groups.setdefault(json.dumps(facts, sort_keys=True), []).append((pc.min(first).as_py() or "", part))
    bins: list[list[str]] = []
    for key in sorted(groups):
        room = -1
        for _, part in sorted(groups[key]):
            images = _images(manifest, part)
            if images > room:
                bins.append([])
                room = part_images
            bins[-1].append(part)
            room -= images
    stale = {part for members in bins if len(members) > 1 for part in members} | _wasteful(place, manifest)
    while linked := {  # parts that lie in the shards of a stale part go with it, else those shards would have to stay
        part for part in parts
        if part not in stale and any(parts[part]["files"].keys() & parts[other]["files"].keys() for other in stale)
    }:  # fmt: skip
        stale |= linked
    taken = {part for members in bins if not stale.intersection(members) for part in members}
    plan: dict[str, list[str]] = {}
    for members in (members for members in bins if stale.intersection(members)):
        stem, number = str(parts[members[0]].get("source") or "part"), 0
        while (name := f"{stem}-{number:05d}") in taken:
            number += 1
        taken.add(name)
        plan[name] = members
    return plan


def _wasteful(place: Place, manifest: Manifest) -> set[str]:
    """Parts with a shard of which much belongs to no image."""
    used: dict[str, int] = {}
    tables = [column_of(place, entry, ["shard", "tar_offset", "tar_bytes"]) for entry in manifest["parts"].values()]
    if not tables:
        return set()
    rows = pa.concat_tables(tables).group_by(["shard", "tar_offset"]).aggregate([("tar_bytes", "max")])
    for row in rows.group_by("shard").aggregate([("tar_bytes_max", "sum"), ("tar_offset", "count")]).to_pylist():
        # a member takes a header and is filled up to whole blocks of 512 bytes
        used[row["shard"]] = row["tar_bytes_max_sum"] + 768 * row["tar_offset_count"]
    return {
        part
        for part, entry in manifest["parts"].items()
        for name, file in entry["files"].items()
        if name.startswith("shards/") and used.get(name, 0) < (1 - _WASTE) * file["bytes"] - 20_480
    }
