"""Merges datasets into a new one: equal pixels and equal images once. Knows no sources, decodes no pixels."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from medglip.errors import DatasetError, InputError
from medglip.store.arrange import Progress, Rewriting, column_of, repeated
from medglip.store.commit import Committer, staging
from medglip.store.manifest import CASES, NAME, Manifest
from medglip.store.pixels import SHARD_BYTES
from medglip.store.place import Place
from medglip.store.read import Dataset
from medglip.store.schema import SCHEMAS, document_of

# The column by which rows of a table belong to an image.
_OWNER = {"images": "id", "regions": "image_id", "texts": "image_id"}


class Merged(NamedTuple):
    """What a merge did.

    Attributes:
        images: Images of the new dataset.
        regions: Regions of the new dataset.
        parts: Parts of the new dataset.
        kept_once: Images that more than one dataset held.
    """

    images: int
    regions: int
    parts: int
    kept_once: int


def merge(
    out: str | Path | Place, datasets: Sequence[str | Path | Place], *, shard_bytes: int = SHARD_BYTES,
    on_progress: Progress | None = None,
) -> Merged:  # fmt: skip
    """Join datasets into a new one.

    Every part keeps the facts of its source, its rejects and its cases. Pixels are stored once. An image (by its id) that
    several datasets hold with the same content is kept once, in the first of them; so are volumes and rejects.

    Args:
        out: Folder or URL of the new dataset.
        datasets: What to join, in order; they stay as they are.
        shard_bytes: Size at which a new shard begins.
        on_progress: Called with the images written and their total.

    Raises:
        InputError: nothing to join.
        DatasetError: an input is broken, two of them differ about an image or a volume, or ``out`` is there already.
    """
    if not datasets:
        raise InputError("Merge: found no dataset to join; give at least one.")
    committer = Committer(Place(out))
    if committer.place.exists(NAME):
        raise DatasetError(
            f"Dataset {committer.place.name!r} is there already; give a new folder, and list the dataset as an input."
        )
    empty = committer.manifest()
    opened = [Dataset(path) for path in datasets]
    seen = _Seen(opened)
    sources = [(number, part) for number, dataset in enumerate(opened) for part in sorted(dataset.manifest["parts"])]
    hashes = (
        column_of(opened[number].place, opened[number].manifest["parts"][part], ["sha256"])["sha256"].unique()
        for number, part in sources
    )
    work = Rewriting(committer.place, repeated(hashes), shard_bytes, sum(map(len, opened)), on_progress)
    parts: dict[str, Any] = {}
    with staging(committer.place, "merging") as folder:
        for place, (number, part) in enumerate(sources):
            dataset = opened[number]
            entry = dataset.manifest["parts"][part]
            name = _free_name(part, parts)
            written = work.write(folder / str(place), name, [(dataset.place, entry)], seen.filter_of(number))
            if name == part or not _adds_nothing(written, parts[part]):
                parts[name] = written

        def change(manifest: Manifest) -> dict[str, Any]:
            if manifest["parts"] != empty["parts"]:
                raise DatasetError(f"Dataset {committer.place.name!r}: another program wrote it meanwhile; give a new folder.")
            return parts

        named = {name for entry in parts.values() for name in entry["files"]}
        committer.commit(change, {name: file for name, file in work.files.items() if name in named})
    counts = committer.manifest()["counts"]
    return Merged(counts.get("images", 0), counts.get("regions", 0), len(parts), seen.kept_once)


class _Seen:
    """Which rows of each dataset are taken: those that no dataset before it has."""

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        self._datasets = datasets
        columns = [_column(dataset, "images", "id").unique() for dataset in datasets]
        twice = repeated(columns)
        self.kept_once = len(twice)
        self._first: dict[str, int] = {}
        self._dropped: list[set[str]] = []
        for number, ids in enumerate(columns):
            mine = set(ids.filter(pc.is_in(ids, value_set=pa.array(sorted(twice), pa.string()))).to_pylist())
            dropped = {image for image in mine if image in self._first}
            for image in dropped:
                self._compare(image, self._first[image], number)
            self._first |= dict.fromkeys(mine - dropped, number)
            self._dropped.append(dropped)
        self._volumes: dict[str, tuple[int, Any]] = {}
        self._rejects: dict[tuple[Any, ...], int] = {}

    def filter_of(self, number: int) -> Callable[[str, pa.Table], pa.Table]:
        """What takes the rows of a dataset that are new."""
        dropped = pa.array(sorted(self._dropped[number]), pa.string())

        def new_rows(name: str, table: pa.Table) -> pa.Table:
            if name in _OWNER:
                return table.filter(pc.invert(pc.is_in(table[_OWNER[name]], value_set=dropped))) if len(dropped) else table
            rows = table.to_pylist()
            new = self._new_volume if name == "volumes" else self._new_reject
            return pa.Table.from_pylist([row for row in rows if new(row, number)], SCHEMAS[name])

        return new_rows

    def _compare(self, image: str, first: int, second: int) -> None:
        one, two = (self._datasets[number] for number in (first, second))
        before, after = document_of(one.record(image)), document_of(two.record(image))
        if different := sorted(name for name in before if before[name] != after[name]):
            raise DatasetError(
                f"Image {image!r}: {one.place.name!r} and {two.place.name!r} differ in its {', '.join(different)}; convert the"
                " source anew in one of them, or leave it out."
            )

    def _new_volume(self, row: dict[str, Any], number: int) -> bool:
        first, before = self._volumes.setdefault(row["id"], (number, row))
        if before != row:
            raise DatasetError(
                f"Volume {row['id']!r}: {self._datasets[first].place.name!r} and {self._datasets[number].place.name!r} differ"
                " about it; convert the source anew in one of them, or leave it out."
            )
        return before is row

    def _new_reject(self, row: dict[str, Any], number: int) -> bool:
        return self._rejects.setdefault(tuple(row.values()), number) == number


def _column(dataset: Dataset, table: str, name: str) -> pa.ChunkedArray:
    return dataset.arrow(table, [name])[name]


def _free_name(part: str, parts: dict[str, Any]) -> str:
    name, number = part, 1
    while name in parts:
        number += 1
        name = f"{part}-{number}"
    return name


def _adds_nothing(entry: dict[str, Any], before: dict[str, Any]) -> bool:
    """Whether a part is empty and knows no other cases than the one before of its name."""
    counts = entry["counts"]
    cases = [{file["sha256"] for name, file in one["files"].items() if name.startswith(f"{CASES}/")} for one in (entry, before)]
    return not any(counts.get(name) for name in ("images", "volumes", "rejects")) and cases[0] == cases[1]
