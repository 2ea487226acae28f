"""Images of a dataset with their PNGs as they are stored, one after the other. Knows no export format."""

from collections.abc import Iterable, Iterator
from typing import Any

from medglip.errors import DatasetError
from medglip.records.record import ImageRecord
from medglip.store.manifest import table_files
from medglip.store.read import Dataset

_PLACE = ["id", "shard", "tar_offset", "tar_bytes"]


def with_pngs(dataset: Dataset, records: Iterable[ImageRecord]) -> Iterator[tuple[ImageRecord, bytes]]:
    """Each record with the bytes of its PNG, which are neither decoded nor encoded again.

    Args:
        dataset: Where the records come from.
        records: Images of the dataset, all or some, in its order. So one walk through the table of images finds them
            all, and nothing grows with the number of images.

    Raises:
        DatasetError: a record is not of the dataset or out of its order, or its shard is missing.
    """
    rows = _rows(dataset)
    for record in records:
        for row in rows:
            if row["id"] == record.id:
                yield record, dataset.place.read_range(row["shard"], row["tar_offset"], row["tar_bytes"])
                break
        else:
            raise DatasetError(
                f"Image {record.id!r}: not found in {dataset!r} after the images before it; give records of this dataset in"
                " its order."
            )


def _rows(dataset: Dataset) -> Iterator[dict[str, Any]]:
    for name in table_files(dataset.manifest, "images"):
        with dataset.place.parquet(name) as file:
            for batch in file.iter_batches(columns=_PLACE):
                yield from batch.to_pylist()
