"""Parquet files of a dataset's tables: written by row groups, and counted. Knows no images and no parts."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from medglip.store.pixels import WrittenFile
from medglip.store.schema import SCHEMAS, Row

# Rows a row group: small enough that one record is read quickly, large enough that columns compress and scan well.
GROUP_ROWS = {"images": 4096, "regions": 16384, "texts": 4096, "volumes": 1024, "rejects": 4096}
# Columns whose values hardly repeat: a dictionary would only cost time.
_NO_DICTIONARY = ("id", "image_id", "sha256", "rle", "x0", "y0", "x1", "y1", "width_mm", "height_mm", "tar_offset")
# Ids of images are looked up by reading them all: 12 bytes an image more, and several times faster.
_PLAIN = {"images": "id"}


class TableFile:
    """One Parquet file that grows by row groups, whose bytes depend on its rows alone, not on how they were given.

    Args:
        folder: Where it is written.
        name: Name of the table.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.path, self._schema, self._limit = folder / f"{name}.parquet", SCHEMAS[name], GROUP_ROWS[name]
        self._rows: list[Row] = []
        self._tables: list[pa.Table] = []
        self._waiting = 0
        dictionary = [field.name for field in self._schema if field.name not in _NO_DICTIONARY]
        codecs = {path: "none" if path == _PLAIN.get(name) else "zstd" for path in _leaves(self._schema)}
        self._writer = pq.ParquetWriter(self.path, self._schema, compression=codecs, use_dictionary=dictionary)

    def add(self, rows: Iterable[Row]) -> None:
        """Append rows of plain values."""
        self._rows.extend(rows)
        if len(self._rows) >= self._limit:
            self._pack()

    def write(self, table: pa.Table) -> None:
        """Append an Arrow table of the schema."""
        self._pack()
        self._append(table)

    def close(self) -> WrittenFile:
        """Finish the file."""
        self._pack()
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._tables), row_group_size=self._limit)
        self._writer.close()
        with self.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return WrittenFile(self.path, self.path.stat().st_size, digest)

    def abandon(self) -> None:
        """End the writing; what the disk refuses now does not matter."""
        with suppress(OSError):
            self._writer.close()
        self._writer.is_open = False  # else pyarrow tries once more when the object goes, and complains

    def _pack(self) -> None:
        if self._rows:
            self._append(pa.Table.from_pylist(self._rows, self._schema))
            self._rows.clear()

    def _append(self, table: pa.Table) -> None:
        self._tables.append(table)
        self._waiting += table.num_rows
        if self._waiting >= self._limit:
            whole = pa.concat_tables(self._tables)
            full = self._waiting - self._waiting % self._limit
            self._writer.write_table(whole.slice(0, full), row_group_size=self._limit)
            self._tables, self._waiting = [whole.slice(full)], self._waiting - full


class Counts:
    """Counts of a part, as its manifest entry gives them."""

    def __init__(self) -> None:
        self.numbers = Counter(dict.fromkeys(("images", "regions", "texts", "volumes", "rejects", "pictures_stored"), 0))
        self.tables: dict[str, Counter] = {name: Counter() for name in ("labels", "modalities", "splits", "reject_reasons")}
        self._searched: set[tuple[str, ...]] = set()

    def searched(self, concepts: tuple[str, ...]) -> None:
        """Labels that were searched for belong to the part's vocabulary, with 0 regions if there are none."""
        if concepts not in self._searched:  # hardly ever new, so the sets are kept
            self._searched.add(concepts)
            self.tables["labels"].update(dict.fromkeys((concept.partition("@")[0] for concept in concepts), 0))

    def add(self, name: str, table: pa.Table) -> None:
        """Count the rows of a table."""
        self.numbers[name] += table.num_rows
        if name == "images":
            self.tables["modalities"].update(_number_of(table["modality"]))
            self.tables["splits"].update(_number_of(table["split"]))
            for column in ("absent", "exhaustive"):
                self.searched(tuple(pc.unique(pc.list_flatten(table[column])).to_pylist()))
        elif name == "regions":
            self.tables["labels"].update(_number_of(table["label"]))
        elif name == "rejects":
            self.tables["reject_reasons"].update(_number_of(table["reason"]))

    def document(self) -> dict[str, Any]:
        """The counts as JSON values."""
        return {**self.numbers, **{name: dict(table) for name, table in self.tables.items()}}


def _leaves(schema: pa.Schema) -> list[str]:
    """Paths of the columns in a Parquet file of a schema, nested ones too."""
    sink = pa.BufferOutputStream()
    pq.ParquetWriter(sink, schema).close()
    with pq.ParquetFile(pa.BufferReader(sink.getvalue())) as file:
        return [file.schema.column(number).path for number in range(len(file.schema))]


def _number_of(column: pa.ChunkedArray) -> dict[str, int]:
    return {item["values"]: item["counts"] for item in column.value_counts().to_pylist()}
