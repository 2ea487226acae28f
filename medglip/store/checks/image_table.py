"""Tables read batch by batch, and what checks must know of all images at once. Checks nothing itself."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from medglip.store.manifest import table_files
from medglip.store.read import Dataset
from medglip.store.schema import completed

_BATCH = 65536
_LISTS_APART = "\x1f"  # no concept holds it


def batches(dataset: Dataset, table: str, columns: list[str] | None = None) -> Iterator[tuple[str, int, pa.RecordBatch]]:
    """A table piece by piece: name of the file, row of the piece in it, rows. At most one piece is in memory.

    Raises:
        DatasetError: a file cannot be read; the sentence names it.
    """
    for name in table_files(dataset.manifest, table):
        first = 0
        with dataset.place.parquet(name) as file:
            for batch in file.iter_batches(_BATCH, columns=columns):
                yield name, first, _completed(table, batch) if columns is None else batch
                first += batch.num_rows


def _completed(table: str, batch: pa.RecordBatch) -> pa.RecordBatch:
    rows = completed(table, pa.Table.from_batches([batch])).combine_chunks()
    return rows.to_batches()[0] if batch.num_rows and rows.num_columns > batch.num_columns else batch


def rows_of(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows of a frame as named tuples."""
    return frame.itertuples(index=False)


@dataclass(frozen=True)
class Images:
    """Of every image what its regions and texts are held against, one entry an image, in the order of the dataset.

    Attributes:
        ids: Their ids.
        columns: Further columns of the table, as Arrow arrays.
        absent: Number of the image's list in ``absent_lists``.
        absent_lists: The different lists of absent concepts.
    """

    ids: pa.Array
    columns: dict[str, pa.Array]
    absent: np.ndarray
    absent_lists: list[list[str]]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.ids)

    def number(self, column: str) -> np.ndarray:
        """A column of numbers; unknown is NaN."""
        return self.columns[column].to_numpy(zero_copy_only=False)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Height and width, int64 (N, 2)."""
        return np.stack([self.number("height"), self.number("width")], axis=1).astype(np.int64)

    def owners(self, image_ids: pa.Array) -> np.ndarray:
        """For each row of another table the place of its image, or -1 where there is none."""
        words = image_ids.dictionary_encode()
        places = pc.fill_null(pc.index_in(words.dictionary, value_set=self.ids), -1).to_numpy()
        return places[words.indices.to_numpy()] if len(words) else np.zeros(0, np.int64)


_OF_IMAGES = ["dataset", "modality", "split", "height", "width", "row_mm", "column_mm", "n_regions", "n_texts"]


def read_images(dataset: Dataset) -> Images:
    """What the checks must know of all images: some hundred bytes an image."""
    read = [batch for _, _, batch in batches(dataset, "images", ["id", "absent", *_OF_IMAGES])]
    if not read:
        return Images(pa.array([], pa.string()), {name: pa.array([], pa.string()) for name in _OF_IMAGES}, np.zeros(0, int), [])
    joined = [pc.binary_join(batch.column("absent"), _LISTS_APART) for batch in read]
    words = pa.chunked_array(joined).combine_chunks().dictionary_encode()
    table = pa.Table.from_batches(read).drop_columns(["absent"]).combine_chunks()
    lists = [text.split(_LISTS_APART) if text else [] for text in words.dictionary.to_pylist()]
    columns = {name: _one(table[name]) for name in _OF_IMAGES}
    return Images(_one(table["id"]), columns, words.indices.to_numpy(), lists)


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
