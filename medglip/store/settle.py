"""Makes parts that were written at once as if they had been written one after the other. Decodes no pixels.

Processes that write parts of one dataset at the same time do not know each other's pixels, so pixels of two such parts
are stored twice. Settling keeps them where the first of the parts has them, and writes the others anew.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from medglip.errors import DatasetError
from medglip.store.arrange import column_of, repeated
from medglip.store.commit import Committer, Parts, staging, writable
from medglip.store.draft import Draft
from medglip.store.known import Stored
from medglip.store.manifest import Manifest, cases_of, table_files
from medglip.store.pixels import SHARD_BYTES, WrittenFile, check_png
from medglip.store.place import Place
from medglip.store.schema import TABLES, completed

_ATTEMPTS = 5


def settle(dataset: str | Path | Place, parts: Sequence[str], *, shard_bytes: int = SHARD_BYTES) -> int:
    """Store pixels that several parts hold once, in the first of them; as if each part had known those before it.

    All changes are one commit. Parts that hold no pixels of another one are not touched, so a second call does nothing.

    Args:
        dataset: Folder or URL of the dataset.
        parts: Names of the parts, in the order in which they would have been written. Pixels that the dataset's other
            parts hold are left there.
        shard_bytes: Size at which a new shard begins.

    Returns:
        The number of parts that were written anew.

    Raises:
        DatasetError: the dataset is broken, cannot be written, or others keep changing it.
    """
    committer = Committer(Place(dataset))
    for _ in range(_ATTEMPTS):
        before = committer.manifest()
        work = _Settling(committer.place, before, parts, shard_bytes)
        if not work.needed():
            return 0
        with staging(committer.place, "settling") as folder:
            fresh = work.written(folder)
            if not fresh:
                return 0
            try:
                committer.commit(_change(before, fresh), work.files)
            except _Changed:  # another process was first; what it did is looked at
                continue
            return len(fresh)
    raise DatasetError(f"Dataset {committer.place.name!r}: others kept changing it while pixels were joined; run again.")


class _Changed(Exception):
    """The dataset is no more as it was read."""


def _change(before: Manifest, fresh: Parts) -> Callable[[Manifest], Parts]:
    def change(manifest: Manifest) -> Parts:
        if manifest["parts"] != before["parts"]:
            raise _Changed
        return {**manifest["parts"], **fresh}

    return change


class _Settling:
    """One attempt: which pixels are held more than once, and the parts that are written anew for it."""

    def __init__(self, place: Place, manifest: Manifest, parts: Sequence[str], shard_bytes: int) -> None:
        self.files: dict[str, WrittenFile] = {}
        self._place, self._entries, self._shard_bytes = place, manifest["parts"], shard_bytes
        self._parts = [part for part in parts if part in self._entries]
        self._places: dict[str, Stored] = {}
        self._several: pa.Array = pa.array([], pa.string())

    def needed(self) -> bool:
        """Whether any pixels are held by several parts in different places."""
        names = [*(name for name in self._entries if name not in set(self._parts)), *self._parts]
        several = repeated(column_of(self._place, self._entries[name], ["sha256"])["sha256"].unique() for name in names)
        self._several = pa.array(sorted(several), pa.string())
        for name in names[: len(names) - len(self._parts)]:
            self._learn(self._rows(name))
        return bool(several)

    def written(self, folder: Path) -> Parts:
        """Entries of the parts that had to be written anew."""
        fresh: Parts = {}
        for number, part in enumerate(self._parts):
            rows = self._rows(part)
            if all(self._places.get(sha256, stored) == stored for sha256, stored in rows):
                self._learn(rows)
            else:
                fresh[part] = self._write(folder / str(number), part, fresh)
        return fresh

    def _rows(self, part: str) -> list[tuple[str, Stored]]:
        """Hash and place of those pixels of a part that others hold too."""
        table = column_of(self._place, self._entries[part], ["sha256", "shard", "tar_offset", "tar_bytes"])
        table = table.filter(pc.is_in(table["sha256"], value_set=self._several))
        hashes, *places = (table[name].to_pylist() for name in table.column_names)
        return list(zip(hashes, map(Stored, *places), strict=True))

    def _learn(self, rows: list[tuple[str, Stored]]) -> None:
        for sha256, stored in rows:
            self._places.setdefault(sha256, stored)

    def _write(self, folder: Path, part: str, fresh: Parts) -> dict[str, Any]:
        entry, place = self._entries[part], self._place
        with writable(place), Draft(folder, part, self._places.get, self._shard_bytes) as draft:
            for name, table in self._tables(entry):
                if name == "images":
                    draft.add_images(table, self._reader(table))
                elif table.num_rows:
                    draft.add_rows(name, table)
            draft.close()
            files = draft.files(cases_of(place, entry))
        several = set(self._several.to_pylist())
        self._learn([(sha256, stored) for sha256, stored in draft.stored().items() if sha256 in several])
        self.files |= files
        listed = {name: one for other in {**self._entries, **fresh}.values() for name, one in other["files"].items()}
        entries = {name: {"bytes": file.size, "sha256": file.sha256} for name, file in files.items()}
        entries |= {name: listed[name] for name in sorted(draft.borrowed)}
        info = {key: value for key, value in entry.items() if key not in ("counts", "files")}
        return {**info, "counts": draft.counts.document(), "files": entries}

    def _tables(self, entry: dict[str, Any]) -> Iterator[tuple[str, pa.Table]]:
        for name in TABLES:
            for file in table_files({"parts": {"": entry}}, name):
                with self._place.parquet(file) as opened:
                    yield name, completed(name, opened.read())

    def _reader(self, images: pa.Table) -> Callable[[int], bytes]:
        shards, offsets, sizes = (images[name].to_pylist() for name in ("shard", "tar_offset", "tar_bytes"))

        def png(row: int) -> bytes:
            found = self._place.read_range(shards[row], offsets[row], sizes[row])
            check_png(found, f"Image {images['id'][row].as_py()!r} in {shards[row]!r} of {self._place.name!r}")
            return found

        return png
