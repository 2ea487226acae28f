"""Opens a dataset: tables as pandas frames, queries by SQL, records and pixels one by one. Writes nothing.

Opening reads the manifest alone; of the tables only those columns and row groups are read that are asked for. Nothing
cached is pickled, so a Dataset can be handed to the workers of a data loader, forked or spawned.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from medglip.errors import DatasetError, InputError
from medglip.imaging.intensity import display
from medglip.records.record import SPLITS, ImageRecord, Intensity, VolumeRecord
from medglip.store.frames import Frame, to_pandas
from medglip.store.index import ImageIndex
from medglip.store.known import Stored
from medglip.store.manifest import cases_of, read_manifest
from medglip.store.pixels import pixels_of_png
from medglip.store.place import Place
from medglip.store.rows import Tables
from medglip.store.sampling import shuffled
from medglip.store.schema import SCHEMAS, TABLES, Document, Row, image_document, image_of, volume_document, volume_of
from medglip.store.sql import connected

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def open_dataset(path: str | Path, *, storage_options: Mapping[str, Any] | None = None) -> "Dataset":
    """The dataset in a folder or behind an fsspec URL.

    Args:
        path: Folder, or URL such as ``s3://bucket/dataset``.
        storage_options: For the file system of a URL, for example ``{"anon": True}``.

    Raises:
        DatasetError: there is no dataset, a broken one, or one of another schema version.
    """
    return Dataset(path, storage_options=storage_options)


class Dataset:
    """A grounding dataset on disk or behind a URL: images, regions, texts, volumes and rejects.

    Attributes:
        place: Where it lies.
        manifest: What it consists of: schema version, counts, and for each part its source, counts and files.
    """

    def __init__(self, path: str | Path | Place, *, storage_options: Mapping[str, Any] | None = None) -> None:
        self.place = Place(path, storage_options)
        self.manifest: dict[str, Any] = read_manifest(self.place)
        self._tables = Tables(self.place, self.manifest)

    @property
    def path(self) -> Path:
        """Its folder.

        Raises:
            DatasetError: it lies behind a URL.
        """
        if self.place.local is None:
            raise DatasetError(
                f"Dataset {self.place.name!r} is no folder of this machine, which is needed here; copy it first."
            )
        return self.place.local

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
        return to_pandas(self.arrow(name, columns or _without_masks(name)))

    def arrow(self, name: str, columns: list[str]) -> pa.Table:
        """Columns of a table as Arrow, in the order of the dataset.

        Raises:
            DatasetError: a file of the table is missing or broken.
        """
        return self._tables.columns(name, columns)

    @cached_property
    def images(self) -> Frame:
        """One row an image; read by column."""
        return self._frame("images")

    @cached_property
    def regions(self) -> Frame:
        """One row a region, without its mask; read by column."""
        return self._frame("regions")

    @cached_property
    def texts(self) -> Frame:
        """One row a text; read by column."""
        return self._frame("texts")

    @cached_property
    def volumes(self) -> Frame:
        """One row a volume; read by column."""
        return self._frame("volumes")

    @cached_property
    def rejects(self) -> Frame:
        """One row for what was not converted, and why; read by column."""
        return self._frame("rejects")

    def query(self, sql: str) -> pd.DataFrame:
        """The answer to an SQL query over the views images, regions, texts, volumes and rejects.

        >>> dataset.query("SELECT label, count(*) AS n FROM regions GROUP BY label")  # doctest: +SKIP

        Raises:
            InputError: DuckDB refuses the query.
        """
        import duckdb

        wanted = tuple(table for table in TABLES if table in sql.lower())
        with connected({"": (self.place, self.manifest)}, wanted) as connection:
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
        return f"Dataset({self.place.name!r}: {len(self)} images, {counts.get('regions', 0)} regions)"

    def ids(self, split: str | None = None) -> list[str]:
        """Ids of the images, of all or of one split, in the order of the dataset.

        Raises:
            InputError: there is no such split.
        """
        return self._index.ids(_checked_split(split))

    def shuffled(
        self, split: str | None = None, *, seed: int = 0, epoch: int = 0, rank: int = 0, world: int = 1,
        worker: int = 0, workers: int = 1,
    ) -> np.ndarray:  # fmt: skip
        """Positions of all images or of one split in a random order, the share of one worker of one rank.

        However many ranks and workers there are, together they visit each image once, in an order that depends on seed
        and epoch alone (``medglip.store.sampling.shuffled``).

        Returns:
            int64 (n,), for ``record`` and ``pixels``.

        Raises:
            InputError: there is no such split, or a number is not allowed.
        """
        positions = self._index.positions(_checked_split(split))
        return shuffled(positions, seed=seed, epoch=epoch, rank=rank, world=world, worker=worker, workers=workers)

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
        return map(image_of, self._documents_at(self._index.positions(_checked_split(split))))

    def documents(self) -> Iterator[Document]:
        """All images as JSON documents (``schemas/record.schema.json``), unchecked, in the order of the dataset."""
        return self._documents_at(self._index.positions())

    def volume_records(self) -> Iterator[VolumeRecord]:
        """All volumes in the order of the dataset."""
        return map(volume_of, self.volume_documents())

    def volume_documents(self) -> Iterator[Document]:
        """All volumes as JSON documents, unchecked, in the order of the dataset."""
        return map(volume_document, self._tables.rows("volumes", 0, self._tables.count("volumes")))

    def pixels(self, image: str | int) -> np.ndarray:
        """Pixels as stored: uint8 (H, W) or (H, W, 3), or uint16 (H, W).

        Args:
            image: Id or position.

        Raises:
            InputError: there is no such image.
            DatasetError: its shard is missing or broken.
        """
        stored = self.stored(image)
        png = self.place.read_range(*stored)
        return pixels_of_png(png, f"Image {image!r} in {stored.shard!r} of {self.place.name!r}")

    def stored(self, image: str | int) -> Stored:
        """Where the PNG of an image lies: its shard, first byte and bytes.

        Args:
            image: Id or position.

        Raises:
            InputError: there is no such image.
        """
        return self._index.stored(self._position(image))

    def display(self, image: str | int, window: str | tuple[float, float] | None = None) -> np.ndarray:
        """Pixels to look at: uint8 (H, W) or (H, W, 3), windowed as the image's record says.

        Args:
            image: Id or position.
            window: Another window: its name, (low, high), or ``"three"`` (``medglip.imaging.intensity.display``).
        """
        row = self._tables.rows("images", position := self._position(image), position + 1)[0]
        shown = row["window_low"], row["window_high"]
        meaning = Intensity(row["unit"], row["slope"], row["intercept"], shown, row["inverted"])
        return display(self.pixels(position), meaning, window)

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

    def cases(self, part: str) -> dict[str, Any]:
        """What the dataset keeps of the cases of a part, by key; ``medglip convert`` knows by it what is done.

        Raises:
            InputError: there is no such part.
            DatasetError: the file is missing or broken.
        """
        if part not in self.manifest["parts"]:
            raise InputError(f"Part: found {part!r}; {self!r} has no such part; see Dataset.manifest['parts'].")
        return cases_of(self.place, self.manifest["parts"][part])

    # ---- inside

    def __getstate__(self) -> dict[str, Any]:
        """Place and manifest: caches are built again where they are needed."""
        return {"place": self.place, "manifest": self.manifest, "_tables": self._tables}

    @cached_property
    def _index(self) -> ImageIndex:
        return ImageIndex(self._tables, self.place.name)

    def _frame(self, name: str) -> Frame:
        def read(columns: list[str], rows: int | None) -> pa.Table:
            return self._tables.columns(name, columns, rows)

        return Frame(read, _without_masks(name), self._tables.count(name))

    def _position(self, image: str | int) -> int:
        if isinstance(image, str):
            if (position := self._index.position(image)) < 0:
                raise InputError(f"Image: found the id {image!r}; {self!r} has no such image; see Dataset.ids().")
            return position
        if not -len(self) <= image < len(self):
            raise InputError(f"Image: found position {image}; allowed: 0 to {len(self) - 1} in {self!r}.")
        return int(image) % len(self)

    def _documents_at(self, positions: np.ndarray, step: int = 256) -> Iterator[Document]:
        """Documents of images in ascending order; neighbours are read together."""
        for chunk in np.split(positions, np.arange(step, len(positions), step)) if len(positions) else ():
            for run in np.split(chunk, np.flatnonzero(np.diff(chunk) > 1) + 1):
                yield from self._documents_between(int(run[0]), int(run[-1]) + 1)

    def _documents_between(self, start: int, stop: int) -> list[Document]:
        children: dict[str, list[Row]] = {}
        for name in ("regions", "texts"):
            first, last = self._index.end(name, start - 1), self._index.end(name, stop - 1)
            children[name] = self._tables.rows(name, first, last)
        documents, used = [], {"regions": 0, "texts": 0}
        for row in self._tables.rows("images", start, stop):
            mine = {}
            for name in children:
                mine[name] = children[name][used[name] : used[name] + row[f"n_{name}"]]
                used[name] += row[f"n_{name}"]
                owners = [child["image_id"] for child in mine[name]]
                if owners != [row["id"]] * row[f"n_{name}"]:
                    raise DatasetError(
                        f"Dataset {self.place.name!r}: the {name} of the image {row['id']!r} are not in their place;"
                        " restore the dataset, or convert again."
                    )
            documents.append(image_document(row, mine["regions"], mine["texts"]))
        return documents


def _without_masks(name: str) -> list[str]:
    return [column for column in SCHEMAS[name].names if column != "rle"]


def _checked_split(split: str | None) -> str | None:
    if split is not None and split not in SPLITS:
        raise InputError(f"Split: found {split!r}; allowed: {', '.join(SPLITS)}.")
    return split
