"""The files of one part while they are written: tables, shards, and names by content. Commits nothing."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from medglip.errors import RecordError
from medglip.records.picture import Picture
from medglip.records.record import ImageRecord, Reject, VolumeRecord
from medglip.store.known import Stored
from medglip.store.manifest import CASES
from medglip.store.pixels import SHARD_BYTES, ShardWriter, WrittenFile, png_bytes
from medglip.store.prepared import Prepared, checked
from medglip.store.schema import (
    SCHEMAS,
    TABLES,
    Row,
    image_row,
    region_rows,
    reject_row,
    text_rows,
    volume_row,
)
from medglip.store.tables import GROUP_ROWS, Counts, TableFile

# Finds pixels that the dataset holds already, by their hash.
Find = Callable[[str], Stored | None]


class Draft:
    """The files of a part while they are written, in a folder of their own.

    Args:
        folder: Where they are written.
        part: Name of the part.
        find: Says where other parts hold pixels, or None.
        shard_bytes: Size at which a new shard begins.

    Attributes:
        counts: What was written so far.
        borrowed: Shards of other parts that images of this part lie in.
        ids: Ids of the images.
    """

    def __init__(self, folder: Path, part: str, find: Find, shard_bytes: int = SHARD_BYTES) -> None:
        folder.mkdir(exist_ok=True)
        self.counts, self.borrowed, self.ids = Counts(), set[str](), set[str]()
        self._folder, self._part, self._find = folder, part, find
        self._tables = {name: TableFile(folder, name) for name in TABLES}
        self._shards = ShardWriter(folder, shard_bytes)
        self._mine: dict[str, Stored] = {}
        # Images of the shard that is open, whose name is its hash and so not known yet.
        self._waiting: list[pa.Table] = []
        self._rows: list[Row] = []

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Let go of the files where something was raised."""
        if error is not None:
            for table in self._tables.values():
                table.abandon()

    def add(self, picture: Picture) -> None:
        """Add one image with its regions and texts.

        Raises:
            RecordError: the pixels are not those that the record describes, or its id was there before.
        """
        record = checked(picture)
        self._new_ids([record.id], record.origin.dataset, record.origin.file)
        stored = self.store(record.sha256, lambda: png_bytes(picture.pixels))
        self._rows.append({**image_row(record, stored.offset, stored.size), "shard": stored.shard})
        if len(self._rows) >= GROUP_ROWS["images"]:
            self._pack()
        self._tables["regions"].add(region_rows(record))
        self._tables["texts"].add(text_rows(record))
        self._count(record)

    def add_prepared(self, pictures: Prepared) -> None:
        """Add images that are rows and PNGs already.

        Raises:
            RecordError: an id was there before.
        """
        images = pictures.images
        if images.num_rows:
            self._new_ids(images["id"].to_pylist(), images["dataset"][0].as_py(), images["file"][0].as_py())
        self.add_images(images, pictures.pngs.__getitem__)
        for name, rows in (("regions", pictures.regions), ("texts", pictures.texts)):
            self.add_rows(name, rows)

    def store(self, sha256: str, png: Callable[[], bytes]) -> Stored:
        """Where the pixels of a hash lie; ``png`` is asked for them if they lie nowhere yet."""
        stored = self._mine.get(sha256) or self._find(sha256)
        if stored is None:
            complete = len(self._shards.finished)
            extent = self._shards.add(sha256, png())
            if len(self._shards.finished) > complete:
                self._name_shards()
            stored = self._mine[sha256] = Stored(str(extent.shard), extent.offset, extent.size)
            self.counts.numbers["pictures_stored"] += 1
        elif not stored.shard.isdigit():
            self.borrowed.add(stored.shard)
        return stored

    def add_images(self, images: pa.Table, png: Callable[[int], bytes]) -> None:
        """Add rows of the table ``images``, whose pixels are stored anew.

        Args:
            images: The rows.
            png: Gives the PNG of a row by its number.
        """
        self._pack()
        for start in range(0, images.num_rows, GROUP_ROWS["images"]):
            rows = images.slice(start, GROUP_ROWS["images"])
            places: list[Stored] = []
            first = 0
            for number, sha256 in enumerate(rows["sha256"].to_pylist()):
                complete = len(self._shards.finished)
                stored = self.store(sha256, lambda row=start + number: png(row))  # type: ignore[misc]
                if len(self._shards.finished) > complete:  # the rows so far lie in the shard that was just named
                    self._wait(rows.slice(first, number - first), places)
                    self._name_shards()
                    first, places = number, []
                places.append(stored)
            self._wait(rows.slice(first), places)
        self.ids.update(images["id"].to_pylist())
        self.counts.add("images", images)

    def add_rows(self, name: str, table: pa.Table) -> None:
        """Add rows of a table other than ``images``."""
        self._tables[name].write(table)
        self.counts.add(name, table)

    def close(self, volumes: Iterable[VolumeRecord] = (), rejects: Iterable[Reject] = ()) -> None:
        """Add the volumes and rejects and finish the shards."""
        for volume in volumes:
            self._tables["volumes"].add([volume_row(volume)])
            self.counts.numbers["volumes"] += 1
        for reject in rejects:
            self._tables["rejects"].add([reject_row(reject)])
            self.counts.numbers["rejects"] += 1
            self.counts.tables["reject_reasons"][reject.reason] += 1
        self._shards.close()
        self._name_shards()

    def files(self, cases: Mapping[str, Any] | None = None) -> dict[str, WrittenFile]:
        """Finish all files: path in the dataset -> file.

        Args:
            cases: What is to be kept of the cases of the part, JSON values.
        """
        found = {self._shard_name(number): file for number, file in enumerate(self._shards.finished)}
        for name, table in self._tables.items():
            file = table.close()
            found[f"{name}/{self._part}-{file.sha256[:12]}.parquet"] = file
        if cases:
            name, file = cases_file(self._folder, self._part, cases)
            found[name] = file
            self.counts.numbers["cases"] = len(cases)
        return found

    def stored(self) -> Mapping[str, Stored]:
        """Hash -> place of the pixels that this part stores; complete once the draft is closed."""
        return {sha256: place._replace(shard=self._shard_name(int(place.shard))) for sha256, place in self._mine.items()}

    def _shard_name(self, number: int) -> str:
        return f"shards/{self._part}-{number:05d}-{self._shards.finished[number].sha256[:12]}.tar"

    def _pack(self) -> None:
        """Waiting rows as an Arrow table, which takes a tenth of the memory."""
        if self._rows:
            self._waiting.append(pa.Table.from_pylist(self._rows, SCHEMAS["images"]))
            self._rows.clear()

    def _wait(self, rows: pa.Table, places: list[Stored]) -> None:
        """Keep rows, with the places of their pixels, until the shard that is open has its name."""
        columns = zip(("shard", "tar_offset", "tar_bytes"), zip(*places, strict=True), strict=True) if places else ()
        for name, values in columns:
            field = SCHEMAS["images"].field(name)
            rows = rows.set_column(rows.schema.get_field_index(name), field, pa.array(values, field.type))
        self._waiting.append(rows)

    def _name_shards(self) -> None:
        """Write the images that wait for the names of their shards."""
        self._pack()
        for table in self._waiting:
            names = [self._shard_name(int(name)) if name.isdigit() else name for name in table["shard"].to_pylist()]
            column = table.schema.get_field_index("shard")
            named = table.set_column(column, SCHEMAS["images"].field("shard"), pa.array(names, pa.string()))
            self._tables["images"].write(named)
        self._waiting.clear()

    def _new_ids(self, ids: list[str], dataset: str, file: str) -> None:
        for image in ids:
            if image in self.ids:
                raise RecordError(
                    f"Image {image!r} of {dataset!r} ({file!r}): found its id twice; ids must differ: derive them from file,"
                    " frame and slice."
                )
            self.ids.add(image)

    def _count(self, record: ImageRecord) -> None:
        self.counts.numbers.update(images=1, regions=len(record.regions), texts=len(record.texts))
        self.counts.tables["labels"].update(region.label for region in record.regions)
        self.counts.tables["modalities"][record.modality] += 1
        self.counts.tables["splits"][record.split] += 1
        self.counts.searched(record.absent)
        self.counts.searched(record.exhaustive)


def cases_file(folder: Path, part: str, cases: Mapping[str, Any]) -> tuple[str, WrittenFile]:
    """Write the file of a part's cases: its name in the dataset, and the file."""
    content = json.dumps(cases, sort_keys=True, ensure_ascii=False, indent=0).encode()
    digest, path = hashlib.sha256(content).hexdigest(), folder / "cases.json"
    path.write_bytes(content)
    return f"{CASES}/{part}-{digest[:12]}.json", WrittenFile(path, len(content), digest)
