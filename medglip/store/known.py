"""What a writer knows of the images that a dataset holds: their ids, and the places of their pixels. Writes nothing.

A million images take about 120 MB: sorted arrays of fixed-size keys, beside the few that came last. Adding n images in
parts of any size takes n log n steps in all.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from medglip.store.manifest import Manifest, table_files
from medglip.store.place import Place

_RECENT = 32_768


class Stored(NamedTuple):
    """Where a PNG lies: path of its shard in the dataset, first byte, bytes."""

    shard: str
    offset: int
    size: int


class KnownImages:
    """Ids and pixels of the images in the parts of a dataset, kept up to date with its manifest.

    Args:
        place: The dataset.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._followed: dict[str, Any] = {}
        self._files: dict[str, str] = {}
        self._numbers: dict[str, int] = {}
        self._shards: list[str] = []
        self._shard_numbers: dict[str, int] = {}
        self._ids = _Sorted(16, 1)
        self._pixels = _Sorted(32, 4)

    def follow(self, manifest: Manifest) -> None:
        """Take in the parts that are new in the manifest, forget those that are gone or replaced."""
        parts = manifest["parts"]
        if parts is self._followed:
            return
        fresh = {part: entry for part, entry in parts.items() if self._followed.get(part) is not entry}
        now = {part: next(iter(table_files({"parts": {part: entry}}, "images")), "") for part, entry in fresh.items()}
        gone = [part for part, file in self._files.items() if part not in parts or now.get(part, file) != file]
        if gone:
            numbers = [self._numbers[part] for part in gone]
            self._ids.forget(numbers)
            self._pixels.forget(numbers)
        for part in gone:
            del self._files[part]
        for part, file in now.items():
            if file and part not in self._files:
                self._load(part, file)
        self._followed = parts

    def pixels(self, sha256: str, but: str) -> Stored | None:
        """Place of the PNG with these pixels in any part but one, or None."""
        skipped = self._numbers.get(but) if but in self._files else None
        for part, shard, offset, size in self._pixels.find(bytes.fromhex(sha256)):
            if part != skipped:
                return Stored(self._shards[shard], offset, size)
        return None

    def holder(self, image: str, but: str) -> str | None:
        """Table of a part other than one that holds an image of this id, or None."""
        for (number,) in self._ids.find(_key(image)):
            for part, file in self._files.items():
                if self._numbers[part] == number and part != but:
                    return file
        return None

    def _load(self, part: str, file: str) -> None:
        with self._place.parquet(file) as opened:
            table = opened.read(columns=["id", "sha256", "shard", "tar_offset", "tar_bytes"], use_threads=False)
        number = self._numbers[part] = max(self._numbers.values(), default=-1) + 1
        self._files[part] = file
        shards = []
        for shard in table["shard"].to_pylist():
            if shard not in self._shard_numbers:
                self._shard_numbers[shard] = len(self._shards)
                self._shards.append(shard)
            shards.append(self._shard_numbers[shard])
        numbers = np.full(len(shards), number, np.int64)
        places = [numbers, np.array(shards, np.int64), _numbers(table, "tar_offset"), _numbers(table, "tar_bytes")]
        self._ids.add(map(_key, table["id"].to_pylist()), numbers[:, None])
        self._pixels.add(map(bytes.fromhex, table["sha256"].to_pylist()), np.stack(places, axis=1))


def _key(image: str) -> bytes:
    return blake2b(image.encode(), digest_size=16).digest()


def _numbers(table: pa.Table, column: str) -> np.ndarray:
    return table[column].to_numpy().astype(np.int64)


class _Sorted:
    """Rows of integers found by keys of fixed size; a key may have several. The part's number is the first integer.

    numpy cuts zero bytes off the end of a key, on both sides alike, so equality is not touched.
    """

    def __init__(self, width: int, columns: int) -> None:
        self._keys, self._values = np.empty(0, f"S{width}"), np.empty((0, columns), np.int64)
        self._recent: dict[bytes, list[tuple[int, ...]]] = {}
        self._count = 0

    def add(self, keys: Iterable[bytes], values: np.ndarray) -> None:
        if len(values) > _RECENT:
            self._merge(np.array(list(keys), self._keys.dtype), values)
            return
        for key, row in zip(keys, values.tolist(), strict=True):
            self._recent.setdefault(key, []).append(tuple(row))
        self._count += len(values)
        if self._count > max(_RECENT, len(self._keys) // 4):
            fresh = [(key, row) for key, rows in self._recent.items() for row in rows]
            self._recent, self._count = {}, 0
            self._merge(np.array([key for key, _ in fresh], self._keys.dtype), np.array([row for _, row in fresh], np.int64))

    def find(self, key: bytes) -> list[tuple[int, ...]]:
        wanted = self._keys.dtype.type(key)
        first = int(np.searchsorted(self._keys, wanted))
        rows = list(self._recent.get(key, ()))
        while first < len(self._keys) and self._keys[first] == wanted:
            rows.append(tuple(self._values[first].tolist()))
            first += 1
        return rows

    def forget(self, parts: list[int]) -> None:
        kept = ~np.isin(self._values[:, 0], parts)
        self._keys, self._values = self._keys[kept], self._values[kept]
        for key in list(self._recent):
            rows = [row for row in self._recent[key] if row[0] not in parts]
            self._count -= len(self._recent[key]) - len(rows)
            if rows:
                self._recent[key] = rows
            else:
                del self._recent[key]

    def _merge(self, keys: np.ndarray, values: np.ndarray) -> None:
        keys, values = np.concatenate([self._keys, keys]), np.concatenate([self._values, values])
        order = np.argsort(keys, kind="stable")
        self._keys, self._values = keys[order], values[order]
