"""Where each image of a dataset is: its position, split, PNG, and rows in the other tables, as arrays. Reads no records.

A million images take some tens of megabytes; each array is read when it is first needed.
"""

from bisect import bisect_right
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from medglip.errors import DatasetError
from medglip.records.record import SPLITS
from medglip.store.known import Stored
from medglip.store.rows import Tables

# Lookups by id that scan the ids before they are sorted: one costs some milliseconds a million images, sorting a second.
_SCANS = 8
# Files of which the ids are read at once.
_READERS = 4


class _Places(NamedTuple):
    shards: list[str]
    shard: np.ndarray
    offset: np.ndarray
    size: np.ndarray


class ImageIndex:
    """Finds the images of a dataset.

    Args:
        tables: The tables of the dataset.
        name: Path or URL of the dataset, for messages.
    """

    def __init__(self, tables: Tables, name: str) -> None:
        self._tables, self._name, self._scans = tables, name, 0
        self._ends: dict[int, dict[str, np.ndarray]] = {}
        self._read_ids: dict[int, pa.Array] = {}

    def ids(self, split: str | None = None) -> list[str]:
        """Ids of all images or of one split, in the order of the dataset."""
        ids = pa.chunked_array(self._ids, pa.string())
        return (ids if split is None else ids.take(pa.array(self.positions(split)))).to_pylist()

    def positions(self, split: str | None = None) -> np.ndarray:
        """Positions of all images or of one split, int64 (n,)."""
        if split is None:
            return np.arange(self._tables.count("images"))
        return np.flatnonzero(self._splits == SPLITS.index(split))

    def position(self, image: str) -> int:
        """Position of an image by its id; -1 if there is none."""
        if self._scans < _SCANS:
            self._scans += 1
            return self._scanned(image)
        keys, order = self._sorted
        wanted = image.encode()
        at = int(np.searchsorted(keys, wanted))
        return int(order[at]) if at < len(keys) and keys[at] == wanted else -1

    def stored(self, position: int) -> Stored:
        """Where the PNG of an image lies."""
        places = self._places
        return Stored(places.shards[places.shard[position]], int(places.offset[position]), int(places.size[position]))

    def end(self, name: str, position: int) -> int:
        """Regions or texts of the images up to a position, this one included: where the rows of the next one begin.

        Args:
            name: ``regions`` or ``texts``.
            position: Of an image; -1 is before the first.
        """
        if position < 0:
            return 0
        starts = self._tables.layout("images")[1]
        file = bisect_right(starts, position) - 1
        if file not in self._ends:
            table = self._tables.file_columns("images", file, ["n_regions", "n_texts"])
            self._ends[file] = {
                name: np.cumsum(table[f"n_{name}"].to_numpy().astype(np.int64)) for name in ("regions", "texts")
            }
        return self._tables.layout(name)[1][file] + int(self._ends[file][name][position - starts[file]])

    def _scanned(self, image: str) -> int:
        """Position of an image, looked for file by file, some at once; those after it are not read."""
        files, starts = self._tables.layout("images")
        with ThreadPoolExecutor(_READERS) as pool:
            for first in range(0, len(files), _READERS):
                numbers = range(first, min(first + _READERS, len(files)))
                for number, ids in zip(numbers, pool.map(self._ids_of, numbers), strict=True):
                    if (at := _find(ids, image)) >= 0:
                        return starts[number] + at
        return -1

    def _ids_of(self, file: int) -> pa.Array:
        """Ids of the images of a file."""
        if file not in self._read_ids:
            chunks = self._tables.file_columns("images", file, ["id"])["id"].chunks
            self._read_ids[file] = pa.concat_arrays(chunks) if chunks else pa.array([], pa.string())
        return self._read_ids[file]

    @property
    def _ids(self) -> list[pa.Array]:
        """Ids of the images, file by file."""
        return [self._ids_of(number) for number in range(len(self._tables.layout("images")[0]))]

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        keys = np.array([image.encode() for ids in self._ids for image in ids.to_pylist()], dtype=np.bytes_)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        if len(keys) and (keys[1:] == keys[:-1]).any():
            raise DatasetError(f"Dataset {self._name!r}: two images have one id; run `medglip validate`.")
        return keys, order.astype(np.int64)

    @cached_property
    def _splits(self) -> np.ndarray:
        return pc.index_in(self._read(["split"])["split"], value_set=pa.array(SPLITS)).to_numpy()

    @cached_property
    def _places(self) -> _Places:
        table = self._read(["shard", "tar_offset", "tar_bytes"])
        shards = table["shard"].dictionary_encode().combine_chunks()
        column = shards if isinstance(shards, pa.Array) else shards.chunk(0)
        return _Places(
            column.dictionary.to_pylist(),
            column.indices.to_numpy(),
            table["tar_offset"].to_numpy(),
            table["tar_bytes"].to_numpy(),
        )

    def _read(self, columns: list[str]) -> pa.Table:
        table = self._tables.columns("images", columns)
        if table.num_rows != (counted := self._tables.count("images")):
            raise DatasetError(
                f"Dataset {self._name!r}: found {table.num_rows} images, its manifest counts {counted}; restore the dataset, or"
                " convert again."
            )
        return table


def _find(ids: pa.Array, image: str) -> int:
    """Where an id is in an array of ids; -1 if it is not there."""
    wanted, count = image.encode(), len(ids)
    ends = np.frombuffer(ids.buffers()[1], np.int32, count + 1, ids.offset * 4) if count else np.zeros(1, np.int32)
    if len(wanted) and (np.diff(ends) == len(wanted)).all():  # all of one length, as hashes are: compared as they lie
        same = np.frombuffer(ids.buffers()[2], f"V{len(wanted)}", count, int(ends[0])) if count else np.empty(0, "V1")
        found = np.flatnonzero(same == np.void(wanted))
        return int(found[0]) if len(found) else -1
    return int(pc.index(ids, pa.scalar(image, pa.string())).as_py())
