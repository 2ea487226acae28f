"""Writes a part of a dataset: tables, shards, then the manifest, whose replacement is the commit.

Files are named by their content, so a part that replaces another never touches a file of the dataset that readers still
see, and equal input gives equal names and bytes. Knows nothing of sources and formats.
"""

import hashlib
import json
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from medglip.errors import DatasetError, InputError, RecordError
from medglip.records.labels import label_tree
from medglip.records.picture import Picture
from medglip.records.record import ImageRecord, Reject, VolumeRecord, identified
from medglip.store.manifest import NAME, OWN, Manifest, read_manifest, table_files, write_json, write_manifest
from medglip.store.pixels import SHARD_BYTES, ShardWriter, WrittenFile, pixel_sha256, png_bytes
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

# Rows a row group: small enough that one record is read quickly, large enough that columns compress and scan well.
_GROUP_ROWS = {"images": 4096, "regions": 16384, "texts": 4096, "volumes": 1024, "rejects": 4096}
# Columns whose values hardly repeat: a dictionary would only cost time.
_NO_DICTIONARY = ("id", "image_id", "sha256", "rle", "x0", "y0", "x1", "y1", "width_mm", "height_mm", "tar_offset")
_RESERVED = ("counts", "files")


def write_part(
    dataset: Path, part: str, pictures: Iterable[Picture], volumes: Iterable[VolumeRecord] = (),
    rejects: Iterable[Reject] = (), info: Mapping[str, Any] | None = None, *, shard_bytes: int = SHARD_BYTES,
) -> dict[str, Any]:  # fmt: skip
    """Write one part of a dataset and commit it; a part of the same name is replaced.

    Pictures are taken one by one; ``volumes``, ``rejects`` and ``info`` are read after the last picture, so the
    iterator may fill them as it goes. Pixels that the dataset holds already are not stored again. Until the commit the
    dataset is as it was, and whatever raises leaves it so.

    Args:
        dataset: Folder of the dataset; made if it is not there.
        part: Its name: letters, digits, ``_``, ``.`` and ``-``.
        pictures: The images in the order in which they are to be listed; regions without an id are given one.
        volumes: The volumes.
        rejects: What could not be used.
        info: What the manifest shall say of the part, JSON values: ``source``, ``title``, ``licence``, ``expected`` ...
        shard_bytes: Size at which a new shard begins.

    Returns:
        Counts of the part: ``images``, ``regions``, ``texts``, ``volumes``, ``rejects`` and ``pictures_stored`` (images
        whose pixels were new), and the tables ``labels`` (regions of each label), ``modalities``, ``splits`` (images)
        and ``reject_reasons``.

    Raises:
        RecordError: pixels do not fit their record, or an id occurs twice.
        DatasetError: the folder is no dataset, cannot be written, or changed meanwhile.
        InputError: the name or ``info`` is not allowed.
    """
    dataset = Path(dataset)
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", part):
        raise InputError(f"Part of a dataset: found the name {part!r}; allowed: letters, digits, '_', '.', '-'.")
    manifest = _manifest_to_extend(dataset)
    with _staging(dataset, part) as folder:
        draft = _Draft(folder, _KnownPixels(dataset, manifest, part), shard_bytes)
        for picture in pictures:
            draft.add(picture)
        draft.close(volumes, rejects)
        return _commit(dataset, part, draft, dict(info or {}))


class _KnownPixels:
    """Pixels that the other parts of the dataset hold, by their hash."""

    def __init__(self, dataset: Path, manifest: Manifest, part: str) -> None:
        others = {name: entry for name, entry in manifest["parts"].items() if name != part}
        files = table_files({"parts": others}, "images")
        columns = ["sha256", "shard", "tar_offset", "tar_bytes"]
        tables = [pq.read_table(dataset / file, columns=columns) for file in files]
        table = pa.concat_tables(tables) if tables else SCHEMAS["images"].empty_table().select(columns)
        hashes = np.array([bytes.fromhex(value) for value in table["sha256"].to_pylist()], dtype="S32")
        # numpy strips trailing zero bytes of S32 on both sides alike, so equality is not touched
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._table = hashes[order], table.take(pa.array(order))

    def place(self, sha256: str) -> tuple[str, int, int] | None:
        """Shard, offset and size of the PNG with these pixels, or None."""
        row = int(np.searchsorted(self._hashes, np.bytes_(bytes.fromhex(sha256))))
        if row == len(self._hashes) or self._table["sha256"][row].as_py() != sha256:
            return None
        return tuple(self._table[name][row].as_py() for name in ("shard", "tar_offset", "tar_bytes"))


class _Table:
    """One Parquet file that grows by row groups."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path, self._schema, self._rows = folder / f"{name}.parquet", SCHEMAS[name], list[Row]()
        self._limit = _GROUP_ROWS[name]
        dictionary = [field.name for field in self._schema if field.name not in _NO_DICTIONARY]
        self._writer = pq.ParquetWriter(self.path, self._schema, compression="zstd", use_dictionary=dictionary)

    def add(self, rows: Iterable[Row]) -> None:
        self._rows.extend(rows)
        if len(self._rows) >= self._limit:
            self.write(pa.Table.from_pylist(self._rows, self._schema))
            self._rows.clear()

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table, row_group_size=self._limit)

    def close(self) -> None:
        if self._rows:
            self.write(pa.Table.from_pylist(self._rows, self._schema))
        self._writer.close()


class _Draft:
    """The files of a part while they are written, in a folder of their own."""

    def __init__(self, folder: Path, known: _KnownPixels, shard_bytes: int) -> None:
        self.tables = {name: _Table(folder, name) for name in TABLES}
        self.shards = ShardWriter(folder, shard_bytes)
        self.part = folder.name
        self.borrowed: set[str] = set()
        self.numbers: Counter = Counter()
        self.labels: Counter = Counter()
        self.modalities: Counter = Counter()
        self.splits: Counter = Counter()
        self.reasons: Counter = Counter()
        self._known, self._mine, self._ids = known, dict[str, tuple[str, int, int]](), set[str]()
        self._searched: set[tuple[str, ...]] = set()
        # Images of the shard that is open, whose name is its hash and so not known yet.
        self._waiting: list[pa.Table] = []
        self._rows: list[Row] = []

    def add(self, picture: Picture) -> None:
        """Add one image with its regions and texts."""
        record = _checked(picture, self._ids)
        place = self._mine.get(record.sha256) or self._known.place(record.sha256)
        if place is None:
            complete = len(self.shards.finished)
            shard, offset, size = self.shards.add(record.sha256, png_bytes(picture.pixels))
            place = self._mine[record.sha256] = str(shard), offset, size
            self.numbers["pictures_stored"] += 1
            if len(self.shards.finished) > complete:
                self._name_shards()
        elif not place[0].isdigit():
            self.borrowed.add(place[0])
        self._rows.append({**image_row(record, *place[1:]), "shard": place[0]})
        if len(self._rows) >= _GROUP_ROWS["images"]:
            self._pack()
        self.tables["regions"].add(region_rows(record))
        self.tables["texts"].add(text_rows(record))
        self._count(record)

    def close(self, volumes: Iterable[VolumeRecord], rejects: Iterable[Reject]) -> None:
        """Add the volumes and rejects and finish all files."""
        for volume in volumes:
            self.tables["volumes"].add([volume_row(volume)])
            self.numbers["volumes"] += 1
        for reject in rejects:
            self.tables["rejects"].add([reject_row(reject)])
            self.numbers["rejects"] += 1
            self.reasons[reject.reason] += 1
        self.shards.close()
        self._name_shards()
        for table in self.tables.values():
            table.close()

    def counts(self) -> dict[str, Any]:
        """Counts of the part."""
        names = ("images", "regions", "texts", "volumes", "rejects", "pictures_stored")
        return {
            **{name: self.numbers[name] for name in names},
            "labels": dict(self.labels),
            "modalities": dict(self.modalities),
            "splits": dict(self.splits),
            "reject_reasons": dict(self.reasons),
        }

    def files(self) -> dict[str, WrittenFile]:
        """Path in the dataset -> finished file, of all files of the part."""
        found = {self._shard_name(number): file for number, file in enumerate(self.shards.finished)}
        for name, table in self.tables.items():
            with table.path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[f"{name}/{self.part}-{digest[:12]}.parquet"] = WrittenFile(table.path, table.path.stat().st_size, digest)
        return found

    def ids(self) -> set[str]:
        """Ids of the images."""
        return self._ids

    def _shard_name(self, number: int) -> str:
        return f"shards/{self.part}-{number:05d}-{self.shards.finished[number].sha256[:12]}.tar"

    def _pack(self) -> None:
        """Waiting rows as an Arrow table, which takes a tenth of the memory."""
        if self._rows:
            self._waiting.append(pa.Table.from_pylist(self._rows, SCHEMAS["images"]))
            self._rows.clear()

    def _name_shards(self) -> None:
        """Write the images that wait for the names of their shards."""
        self._pack()
        for table in self._waiting:
            names = [self._shard_name(int(name)) if name.isdigit() else name for name in table["shard"].to_pylist()]
            column = table.schema.get_field_index("shard")
            named = table.set_column(column, SCHEMAS["images"].field("shard"), pa.array(names, pa.string()))
            self.tables["images"].write(named)
        self._waiting.clear()

    def _count(self, record: ImageRecord) -> None:
        self.numbers.update(images=1, regions=len(record.regions), texts=len(record.texts))
        self.labels.update(region.label for region in record.regions)
        self.modalities[record.modality] += 1
        self.splits[record.split] += 1
        for concepts in {record.absent, record.exhaustive} - self._searched:  # hardly ever new, so the sets are kept
            self._searched.add(concepts)
            self.labels.update(dict.fromkeys((concept.partition("@")[0] for concept in concepts), 0))


def _checked(picture: Picture, ids: set[str]) -> ImageRecord:
    """The record with ids for its regions, if the pixels are those that it describes."""
    record, pixels = picture
    who = f"Image {record.id!r} of {record.origin.dataset!r} ({record.origin.file!r})"
    shape = (record.height, record.width) if record.channels == 1 else (record.height, record.width, record.channels)
    if pixels.shape != shape or 8 * pixels.dtype.itemsize != record.bits:
        raise RecordError(f"{who}: found pixels {pixels.dtype} {pixels.shape}; its record says {record.bits} bit {shape}.")
    if (found := pixel_sha256(pixels)) != record.sha256:
        raise RecordError(f"{who}: found pixels of hash {found!r}; its record says {record.sha256!r}.")
    if record.id in ids:
        raise RecordError(f"{who}: found its id twice; ids must differ: derive them from file, frame and slice.")
    ids.add(record.id)
    return identified(record)


def _manifest_to_extend(dataset: Path) -> Manifest:
    if (dataset / NAME).exists():
        return read_manifest(dataset)
    if dataset.exists() and not dataset.is_dir():
        raise DatasetError(f"Dataset {str(dataset)!r}: found a file; give a folder, new or written by medglip.")
    if dataset.is_dir() and (foreign := sorted({path.name for path in dataset.iterdir()}.difference(OWN))):
        raise DatasetError(
            f"Dataset {str(dataset)!r}: found a folder with other files ({foreign[0]!r}) and no manifest.json; give a"
            " new folder, so that nothing of yours is mixed with the dataset."
        )
    return {"parts": {}}


@contextmanager
def _staging(dataset: Path, part: str) -> Iterator[Path]:
    """A fresh folder for the part's files inside the dataset (so that they can be moved); gone in the end."""
    folder = dataset / ".writing" / part
    made = not dataset.exists()
    with _writable(dataset):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for empty in (folder.parent, dataset) if made else (folder.parent,):
            if empty.is_dir() and not any(empty.iterdir()):
                empty.rmdir()


@contextmanager
def _writable(dataset: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DatasetError(
            f"Dataset {str(dataset)!r} cannot be written: {error.strerror or error}; what it held is untouched."
            " Free space or choose another folder, and run again."
        ) from error


@contextmanager
def _locked(dataset: Path) -> Iterator[None]:
    """One commit at a time, where the system has file locks; the lock ends with its process, however that ends."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with (dataset / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _commit(dataset: Path, part: str, draft: _Draft, info: dict[str, Any]) -> dict[str, Any]:
    """Move the files to their places and replace the manifest; then remove what the part no longer needs."""
    if taken := sorted(set(info).intersection(_RESERVED)):
        raise InputError(f"Part {part!r}: found {taken[0]!r} in info; the manifest keeps that name for itself.")
    try:
        json.dumps(info, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"Part {part!r}: found info that is no JSON ({error}); allowed: text, numbers, lists, tables."
        ) from error
    counts, files = draft.counts(), draft.files()
    with _writable(dataset), _locked(dataset):
        parts = read_manifest(dataset)["parts"] if (dataset / NAME).exists() else {}
        listed = {name: entry for other in parts.values() for name, entry in other["files"].items()}
        if lost := sorted(draft.borrowed.difference(listed)):
            raise DatasetError(f"Dataset {str(dataset)!r}: {lost[0]!r} went while it was written to; run again.")
        _check_ids(dataset, {name: entry for name, entry in parts.items() if name != part}, draft.ids())
        for name, file in files.items():
            (dataset / name).parent.mkdir(exist_ok=True)
            with file.path.open("rb+") as written:
                os.fsync(written.fileno())
            file.path.replace(dataset / name)
        entries = {name: {"bytes": file.size, "sha256": file.sha256} for name, file in files.items()}
        entries |= {name: listed[name] for name in draft.borrowed}
        parts[part] = {**info, "counts": counts, "files": entries}
        write_json(dataset / "labels.json", _labels_document(parts))
        write_manifest(dataset, parts)
        _sweep(dataset, part, parts, listed)
    return counts


def _check_ids(dataset: Path, others: dict[str, Any], ids: set[str]) -> None:
    mine = pa.array(sorted(ids), pa.string())
    for file in table_files({"parts": others}, "images"):
        there = pq.read_table(dataset / file, columns=["id"])["id"]
        if both := there.filter(pc.is_in(there, value_set=mine)).to_pylist():
            raise DatasetError(
                f"Dataset {str(dataset)!r}: the image {both[0]!r} is in {file!r} already; give the same name for the"
                " part to replace it, or convert into a new dataset."
            )


def _labels_document(parts: dict[str, Any]) -> dict[str, Any]:
    """The nodes of the label tree that the parts use, with their ancestors."""
    tree = label_tree()
    used = {label for part in parts.values() for label in part["counts"]["labels"] if label in tree}
    used |= {ancestor for label in used for ancestor in tree.ancestors(label)}
    return {label: asdict(tree[label]) for label in used}


def _sweep(dataset: Path, part: str, parts: dict[str, Any], before: Iterable[str]) -> None:
    """Remove the files that only the manifest before named, and those of writings of the part that were ended early."""
    own = re.compile(rf"\w+/{re.escape(part)}(-\d{{5}})?-[0-9a-f]{{12}}\.(parquet|tar)")
    there = {path.relative_to(dataset).as_posix() for path in dataset.glob(f"*/{part}-*")}
    needed = {name for entry in parts.values() for name in entry["files"]}
    for name in {*before, *filter(own.fullmatch, there)} - needed:
        (dataset / name).unlink(missing_ok=True)
