"""Opens a dataset: tables as pandas frames, queries by SQL, records and pixels one by one. Writes nothing.

No file stays open and nothing cached is pickled, so a Dataset can be handed to the workers of a data loader, forked or
spawned.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from medglip.errors import DatasetError, InputError
from medglip.imaging.intensity import display
from medglip.records.record import SPLITS, ImageRecord, Intensity, VolumeRecord
from medglip.store.manifest import read_manifest, table_files
from medglip.store.pixels import pixels_of_png, read_bytes
from medglip.store.schema import SCHEMAS, TABLES, Document, Row, image_document, image_of, volume_document, volume_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Row groups kept in memory; a group of regions with masks is some megabytes.
_CACHED_GROUPS = 24


def open_dataset(path: str | Path) -> "Dataset":
    """The dataset in a folder.

    Raises:
        DatasetError: the folder holds no dataset, a broken one, or one of another schema version.
    """
    return Dataset(path)


class Dataset:
    """A grounding dataset on disk: images, regions, texts, volumes and rejects.

    Attributes:
        path: Its folder.
        manifest: What it consists of: schema version, counts, and for each part its source, counts and files.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest: dict[str, Any] = read_manifest(self.path)
        self._groups: OrderedDict[tuple[str, int], pa.Table] = OrderedDict()
        self._layout: dict[str, _RowGroups] = {}

    # ---- tables

    def table(self, name: str, columns: list[str] | None = None) -> pd.DataFrame:
        """A table, or some of its columns, in the order of the dataset; lists stay Arrow lists.

        Args:
            name: ``images``, ``regions``, ``texts``, ``volumes`` or ``rejects``.
            columns: Columns to read; all by default, less the masks (``rle``).

        Raises:
            InputError: there is no such table or column.
        """
        if name not in TABLES:
            raise InputError(f"Dataset table: found {name!r}; allowed: {', '.join(TABLES)}.")
        allowed = SCHEMAS[name].names
        if unknown := [column for column in columns or () if column not in allowed]:
            raise InputError(f"Table {name!r}: found the column {unknown[0]!r}; allowed: {', '.join(allowed)}.")
        wanted = columns or [column for column in allowed if column != "rle"]
        return self._arrow(name, wanted).to_pandas(types_mapper=_list_type)

    @cached_property
    def images(self) -> pd.DataFrame:
        """One row an image."""
        return self.table("images")

    @cached_property
    def regions(self) -> pd.DataFrame:
        """One row a region, without its mask."""
        return self.table("regions")

    @cached_property
    def texts(self) -> pd.DataFrame:
        """One row a text."""
        return self.table("texts")

    @cached_property
    def volumes(self) -> pd.DataFrame:
        """One row a volume."""
        return self.table("volumes")

    @cached_property
    def rejects(self) -> pd.DataFrame:
        """One row for what was not converted, and why."""
        return self.table("rejects")

    def query(self, sql: str) -> pd.DataFrame:
        """The answer to an SQL query over the views images, regions, texts, volumes and rejects.

        >>> dataset.query("SELECT label, count(*) AS n FROM regions GROUP BY label")  # doctest: +SKIP

        Raises:
            InputError: DuckDB refuses the query.
        """
        import duckdb

        with duckdb.connect() as connection:
            for name in (table for table in TABLES if table in sql.lower()):
                files = ", ".join(f"'{str(path).replace(chr(39), chr(39) * 2)}'" for path in self._files(name))
                if files:
                    connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet([{files}])")
                else:
                    connection.register(name, SCHEMAS[name].empty_table())
            try:
                return connection.execute(sql).df()
            except duckdb.Error as error:
                raise InputError(f"Query {sql!r}: {error}") from error

    # ---- images, one by one

    def __len__(self) -> int:
        """Number of images."""
        return int(self.manifest["counts"].get("images", 0))

    def __repr__(self) -> str:
        """Path and counts."""
        counts = self.manifest["counts"]
        return f"Dataset({str(self.path)!r}: {len(self)} images, {counts.get('regions', 0)} regions)"

    def ids(self, split: str | None = None) -> list[str]:
        """Ids of the images, of all or of one split, in the order of the dataset.

        Raises:
            InputError: there is no such split.
        """
        index = self._index
        if split is None:
            return index["id"].tolist()
        if split not in SPLITS:
            raise InputError(f"Split: found {split!r}; allowed: {', '.join(SPLITS)}.")
        return index.loc[index["split"] == split, "id"].tolist()

    def record(self, image: str | int) -> ImageRecord:
        """An image by id or position, with all its regions, masks and texts.

        Raises:
            InputError: there is no such image.
            RecordError: the dataset holds a value that is not allowed; ``medglip validate`` lists them all.
        """
        position = self._position(image)
        return image_of(self._documents_between(position, position + 1)[0])

    def records(self, split: str | None = None) -> Iterator[ImageRecord]:
        """All images, or those of one split, in the order of the dataset; some hundred are in memory at a time."""
        wanted = set(self.ids(split)) if split else None
        for document in self.documents():
            if wanted is None or document["id"] in wanted:
                yield image_of(document)

    def documents(self) -> Iterator[Document]:
        """All images as JSON documents (``schemas/record.schema.json``), unchecked, in the order of the dataset."""
        total, step = len(self._index), 256
        for start in range(0, total, step):
            yield from self._documents_between(start, min(start + step, total))

    def volume_records(self) -> Iterator[VolumeRecord]:
        """All volumes in the order of the dataset."""
        return map(volume_of, self.volume_documents())

    def volume_documents(self) -> Iterator[Document]:
        """All volumes as JSON documents, unchecked, in the order of the dataset."""
        return map(volume_document, self._rows("volumes", 0, self._row_groups("volumes").starts[-1]))

    def pixels(self, image: str | int) -> np.ndarray:
        """Pixels as stored: uint8 (H, W) or (H, W, 3), or uint16 (H, W).

        Args:
            image: Id or position.

        Raises:
            InputError: there is no such image.
            DatasetError: its shard is missing or broken.
        """
        row = self._index.iloc[self._position(image)]
        png = read_bytes(self.path / row["shard"], int(row["tar_offset"]), int(row["tar_bytes"]))
        return pixels_of_png(png, f"Image {row['id']!r} in {row['shard']!r}")

    def display(self, image: str | int) -> np.ndarray:
        """Pixels to look at: uint8 (H, W) or (H, W, 3), windowed as the image's record says.

        Args:
            image: Id or position.
        """
        row = self._rows("images", position := self._position(image), position + 1)[0]
        window = row["window_low"], row["window_high"]
        meaning = Intensity(row["unit"], row["slope"], row["intercept"], window, row["inverted"])
        return display(self.pixels(position), meaning)

    def show(self, image: str | int) -> "Figure":
        """A figure of the image with its regions: outline, box and the first phrase of each.

        Args:
            image: Id or position.
        """
        from matplotlib import pyplot

        record = self.record(image)
        figure, axes = pyplot.subplots(figsize=(7, 7 * min(2.0, max(0.5, record.height / record.width))))
        axes.imshow(self.display(image), cmap="gray", vmin=0, vmax=255, extent=(0, record.width, record.height, 0))
        concepts = list(dict.fromkeys(region.concept for region in record.regions))
        for region in record.regions:
            colour = f"C{concepts.index(region.concept) % 10}"
            x0, y0, x1, y1 = region.box_xyxy
            axes.add_patch(pyplot.Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=1.5))
            if region.mask is not None:
                columns, rows = np.arange(record.width) + 0.5, np.arange(record.height) + 0.5
                axes.contour(columns, rows, region.mask.decode(), levels=[0.5], colors=[colour], linewidths=1)
        for number, concept in enumerate(concepts):
            same = [region for region in record.regions if region.concept == concept]
            name = same[0].phrases[0].text if same[0].phrases else concept
            axes.plot([], [], color=f"C{number % 10}", label=f"{name} ({len(same)})" if len(same) > 1 else name)
        if concepts:
            axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
        axes.set(title=f"{record.origin.dataset}  {record.id}  {record.modality}", xticks=[], yticks=[])
        pyplot.close(figure)  # the caller shows it; a notebook would show it twice
        return figure

    # ---- inside

    def __getstate__(self) -> dict[str, Any]:
        """Path and manifest: caches are built again where they are needed."""
        return {"path": self.path, "manifest": self.manifest, "_groups": OrderedDict(), "_layout": {}}

    @cached_property
    def _index(self) -> pd.DataFrame:
        """What is needed to find any image: its id, split, place and number of regions and texts."""
        columns = ["id", "split", "shard", "tar_offset", "tar_bytes", "n_regions", "n_texts"]
        return self._arrow("images", columns).to_pandas(strings_to_categorical=False)

    @cached_property
    def _by_id(self) -> dict[str, int]:
        positions = {image: position for position, image in enumerate(self._index["id"])}
        if len(positions) != len(self._index):
            raise DatasetError(f"Dataset {str(self.path)!r}: two images have one id; run `medglip validate`.")
        return positions

    @cached_property
    def _ends(self) -> dict[str, np.ndarray]:
        """For regions and texts: the row after the last one of each image, images in the order of the dataset."""
        return {name: np.cumsum(self._index[f"n_{name}"].to_numpy(np.int64)) for name in ("regions", "texts")}

    def _position(self, image: str | int) -> int:
        if isinstance(image, str):
            if image not in self._by_id:
                raise InputError(f"Image: found the id {image!r}; {self!r} has no such image; see Dataset.ids().")
            return self._by_id[image]
        if not -len(self) <= image < len(self):
            raise InputError(f"Image: found position {image}; allowed: 0 to {len(self) - 1} in {self!r}.")
        return int(image) % len(self)

    def _documents_between(self, start: int, stop: int) -> list[Document]:
        children: dict[str, list[Row]] = {}
        for name, ends in self._ends.items():
            first = int(ends[start - 1]) if start else 0
            children[name] = self._rows(name, first, int(ends[stop - 1]))
        documents, used = [], {"regions": 0, "texts": 0}
        for row in self._rows("images", start, stop):
            mine = {}
            for name in children:
                mine[name] = children[name][used[name] : used[name] + row[f"n_{name}"]]
                used[name] += row[f"n_{name}"]
                owners = [child["image_id"] for child in mine[name]]
                if owners != [row["id"]] * row[f"n_{name}"]:
                    raise DatasetError(
                        f"Dataset {str(self.path)!r}: the {name} of the image {row['id']!r} are not in their place;"
                        " restore the dataset, or convert again."
                    )
            documents.append(image_document(row, mine["regions"], mine["texts"]))
        return documents

    def _files(self, table: str) -> list[Path]:
        return [self.path / file for file in table_files(self.manifest, table)]

    def _arrow(self, table: str, columns: list[str]) -> pa.Table:
        tables = [_read(path, columns) for path in self._files(table)]
        return pa.concat_tables(tables) if tables else SCHEMAS[table].empty_table().select(columns)

    def _row_groups(self, table: str) -> "_RowGroups":
        if table not in self._layout:
            places: list[tuple[Path, int]] = []
            starts = [0]
            for path in self._files(table):
                metadata = _opened(path).metadata
                for group in range(metadata.num_row_groups):
                    places.append((path, group))
                    starts.append(starts[-1] + metadata.row_group(group).num_rows)
            self._layout[table] = _RowGroups(places, starts)
        return self._layout[table]

    def _rows(self, table: str, start: int, stop: int) -> list[Row]:
        """Rows of a table; whole row groups are read and the latest are kept."""
        places, starts = self._row_groups(table)
        rows: list[Row] = []
        number = bisect_right(starts, start) - 1
        while start < stop and number < len(places):
            until = min(stop, starts[number + 1])
            group = self._group(table, number, *places[number])
            rows += group.slice(start - starts[number], until - start).to_pylist()
            start, number = until, number + 1
        return rows

    def _group(self, table: str, number: int, path: Path, group: int) -> pa.Table:
        key = table, number
        if key not in self._groups:
            # without threads: a forked worker has none of its parent's
            self._groups[key] = _opened(path).read_row_group(group, use_threads=False)
            if len(self._groups) > _CACHED_GROUPS:
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        return self._groups[key]


class _RowGroups(NamedTuple):
    """File and number of each row group of a table; the first row of each, and the end."""

    places: list[tuple[Path, int]]
    starts: list[int]


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"Table {str(path)!r} cannot be read ({error}); restore it, or convert again.") from error


def _read(path: Path, columns: list[str]) -> pa.Table:
    with _opened(path) as file:
        if missing := [column for column in columns if column not in file.schema_arrow.names]:
            raise DatasetError(f"Table {str(path)!r} has no column {missing[0]!r}; convert the source again.")
        return file.read(columns=columns)


def _list_type(kind: pa.DataType) -> pd.ArrowDtype | None:
    return pd.ArrowDtype(kind) if pa.types.is_list(kind) else None
