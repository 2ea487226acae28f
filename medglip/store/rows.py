"""Tables of a dataset by columns and by row numbers. Knows no images; reads no more than is asked for."""

from bisect import bisect_right
from collections import OrderedDict
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medglip.errors import DatasetError
from medglip.store.manifest import Manifest, table_files
from medglip.store.place import Place
from medglip.store.schema import SCHEMAS, Row, completed, stored_columns

# Bytes of row groups kept in memory; a group of regions with masks is some megabytes.
_CACHED = 96 * 2**20


class Tables:
    """The tables of a dataset, read from its Parquet files.

    Args:
        place: The dataset.
        manifest: Its manifest.
    """

    def __init__(self, place: Place, manifest: Manifest) -> None:
        self._place, self._manifest = place, manifest
        self._files: dict[str, tuple[list[str], list[int]]] = {}
        self._footers: dict[str, tuple[pq.FileMetaData, list[int]]] = {}
        self._groups: OrderedDict[tuple[str, int], pa.Table] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Place and manifest: caches are built again where they are needed."""
        return {"_place": self._place, "_manifest": self._manifest}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin with nothing read."""
        self.__init__(state["_place"], state["_manifest"])  # type: ignore[misc]

    def count(self, table: str) -> int:
        """Number of rows."""
        return int(self._manifest["counts"].get(table, 0))

    def columns(self, table: str, columns: list[str], rows: int | None = None) -> pa.Table:
        """Columns of a table, of all rows or of the first ones.

        Raises:
            DatasetError: a file is missing or broken, or lacks a column.
        """
        found, wanted = [], rows
        for file in table_files(self._manifest, table):
            if wanted is not None and wanted <= 0:
                break
            with self._place.parquet(file) as opened:
                there = opened.schema_arrow.names
                stored = stored_columns(table, columns, there)
                if missing := [column for column in stored if column not in there]:
                    raise DatasetError(f"Table {file!r} has no column {missing[0]!r}; convert the source again.")
                if wanted is None:
                    read = opened.read(columns=stored)
                else:
                    batches = opened.iter_batches(batch_size=max(wanted, 1), columns=stored)
                    read = pa.Table.from_batches([next(batches)][:1]) if opened.metadata.num_rows else opened.read(stored)
                    read = read.slice(0, wanted)
                    wanted -= read.num_rows
            found.append(completed(table, read, columns))
        return pa.concat_tables(found) if found else SCHEMAS[table].empty_table().select(columns)

    def file_columns(self, table: str, number: int, columns: list[str]) -> pa.Table:
        """Columns of one of the files of ``layout``, read in this thread.

        Raises:
            DatasetError: the file is missing or broken, or has another number of rows than the manifest says.
        """
        files, starts = self.layout(table)
        with self._place.parquet(files[number]) as opened:
            stored = stored_columns(table, columns, opened.schema_arrow.names)
            found = opened.read(columns=stored, use_threads=False)
        self._check_rows(files[number], found.num_rows, starts[number + 1] - starts[number])
        return completed(table, found, columns)

    def rows(self, table: str, start: int, stop: int) -> list[Row]:
        """Rows by their numbers; whole row groups are read and the latest are kept.

        Raises:
            DatasetError: a file is missing or broken, or has another number of rows than the manifest says.
        """
        files, starts = self.layout(table)
        rows: list[Row] = []
        number = bisect_right(starts, start) - 1
        while start < stop and number < len(files):
            until = min(stop, starts[number + 1])
            rows += self._rows_of_file(files[number], start - starts[number], until - starts[number], starts, number)
            start, number = until, number + 1
        return rows

    def _rows_of_file(self, file: str, start: int, stop: int, starts: list[int], number: int) -> list[Row]:
        _, ends = self._footer(file, starts[number + 1] - starts[number])
        rows: list[Row] = []
        group = bisect_right(ends, start)
        while start < stop:
            first, until = ends[group - 1] if group else 0, min(stop, ends[group])
            rows += self._group(file, group).slice(start - first, until - start).to_pylist()
            start, group = until, group + 1
        return rows

    def layout(self, table: str) -> tuple[list[str], list[int]]:
        """Files of a table; the first row of each by the manifest's counts, and the end."""
        if table not in self._files:
            files, starts = [], [0]
            for part in sorted(self._manifest["parts"]):
                entry = self._manifest["parts"][part]
                if mine := table_files({"parts": {part: entry}}, table):
                    files += mine[:1]
                    starts.append(starts[-1] + int(entry["counts"].get(table, 0)))
            self._files[table] = files, starts
        return self._files[table]

    def _footer(self, file: str, rows: int) -> tuple[pq.FileMetaData, list[int]]:
        if file not in self._footers:
            with self._place.parquet(file) as opened:
                metadata = opened.metadata
            self._check_rows(file, metadata.num_rows, rows)
            sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            self._footers[file] = metadata, np.cumsum(sizes).tolist()
        return self._footers[file]

    def _check_rows(self, file: str, found: int, counted: int) -> None:
        if found != counted:
            raise DatasetError(
                f"Table {file!r} of {self._place.name!r} has {found} rows, the manifest counts {counted}; restore the"
                " dataset, or convert again."
            )

    def _group(self, file: str, group: int) -> pa.Table:
        key = file, group
        found = self._groups.get(key)
        if found is None:
            with self._place.parquet(file, self._footers[file][0]) as opened:
                # without threads: a forked worker has none of its parent's
                found = completed(file.partition("/")[0], opened.read_row_group(group, use_threads=False))
            with self._lock:
                self._groups[key] = found
                self._bytes += found.nbytes
                while self._bytes > _CACHED and len(self._groups) > 1:
                    self._bytes -= self._groups.popitem(last=False)[1].nbytes
        with self._lock:
            if key in self._groups:
                self._groups.move_to_end(key)
        return found
