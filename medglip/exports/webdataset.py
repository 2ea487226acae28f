"""A dataset as WebDataset shards: tars in which each image is KEY.png and its record KEY.json. Reads no shards.

The PNG is the stored one, 8 or 16 bit; the JSON is the record's document (``schemas/record.schema.json``), so nothing is
lost. Equal datasets give equal bytes: members carry no time and no owner, and their order is the dataset's.
"""

import hashlib
import json
import re
import tarfile
from collections import Counter
from pathlib import Path

from medglip.errors import InputError
from medglip.exports.chosen import Choice, OnImage
from medglip.exports.stored import with_pngs
from medglip.records.record import ImageRecord
from medglip.store.manifest import bytes_of
from medglip.store.read import Dataset
from medglip.store.schema import document_of

# What WebDataset's readers can stream and shuffle well; a limit of the advice, not of the format.
SHARD_BYTES = 10**9
_BLOCK, _RECORD = 512, 10240

Place = tuple[str, str]  # split, group


def write(dataset: Dataset, out: Path, choice: Choice, on_image: OnImage, *, shard_bytes: int = SHARD_BYTES) -> dict[str, int]:
    """Write OUT/SPLIT/SPLIT-NNNNNN.tar and OUT/SPLIT/shards.json, which lists them.

    Images of one group (a patient, as a rule) never lie in two shards, unless the group alone is larger than a shard.
    The records are read twice: first their sizes are added up by group, then they are written.

    Args:
        dataset: What to export.
        out: Empty folder.
        choice: Which images and regions.
        on_image: Called with the number of images done and their total.
        shard_bytes: Largest size of a shard.

    Returns:
        ``images``, ``regions``, ``texts``, ``shards``, ``groups_over_shards`` (groups larger than a shard) and
        ``regions_too_small``.

    Raises:
        InputError: nothing is chosen, or an image's id cannot be a key.
    """
    total = choice.number(dataset)
    sizes: dict[Place, int] = {}
    for record, png in with_pngs(dataset, choice.records(dataset)):
        place = record.split, record.group or record.id
        sizes[place] = sizes.get(place, 0) + _stored_size(len(png)) + _stored_size(len(_document(record)))
    if not sizes:
        raise InputError(f"Export to webdataset: found no image of {dataset!r} to write; choose another split.")
    shards = _Shards(out, sizes, shard_bytes)
    counts: Counter = Counter(dict.fromkeys(("images", "regions", "texts"), 0))
    for record, png in with_pngs(dataset, choice.records(dataset, counts)):
        shards.add(record, png)
        counts.update(images=1, regions=len(record.regions), texts=len(record.texts))
        on_image(counts["images"], total)
    shards.close()
    too_large = sum(size > shard_bytes for size in sizes.values())
    return {**counts, "shards": len(shards.images), "groups_over_shards": too_large}


def _document(record: ImageRecord) -> bytes:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", record.id):
        raise InputError(
            f"Image {record.id!r}: found an id that is no WebDataset key; allowed: letters, digits, '_' and '-' (the part"
            " after a dot would be taken for an extension); run `medglip validate` and convert again."
        )
    return json.dumps(document_of(record), ensure_ascii=False, sort_keys=True, allow_nan=False).encode()


def _stored_size(size: int) -> int:
    """Bytes that a member takes in a tar: its header, and its content filled up to a block."""
    return _BLOCK + -(-size // _BLOCK) * _BLOCK


class _Shards:
    """Tars that grow at their ends, side by side, because the images of a group need not be neighbours.

    No file stays open, so that their number has no limit.
    """

    def __init__(self, out: Path, sizes: dict[Place, int], limit: int) -> None:
        self._out = out
        self._shard_of = planned(sizes, limit - _RECORD)
        self._limit = limit - _RECORD
        self._filled: Counter = Counter()
        self._further: dict[Path, Path] = {}
        self._number: Counter = Counter(place[0] for place in set(self._shard_of.values()))
        self.images: Counter = Counter()

    def add(self, record: ImageRecord, png: bytes) -> None:
        """Append an image to the shard of its group."""
        split, number = self._shard_of[record.split, record.group or record.id]
        document = _document(record)
        first = self._out / split / f"{split}-{number:06d}.tar"
        path = self._further.get(first, first)
        size = _stored_size(len(png)) + _stored_size(len(document))
        if self._filled[path] and self._filled[path] + size > self._limit:  # only where one group is larger than a shard
            path = self._further[first] = self._out / split / f"{split}-{self._number[split]:06d}.tar"
            self._number[split] += 1
        path.parent.mkdir(exist_ok=True)
        with path.open("ab") as file:
            for extension, content in (("png", png), ("json", document)):
                member = tarfile.TarInfo(f"{record.id}.{extension}")
                member.size, member.mode, member.mtime = len(content), 0o644, 0
                file.write(member.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % _BLOCK))
        self._filled[path] += size
        self.images[path] += 1

    def close(self) -> None:
        """End all tars, and list those of each split with their sizes and hashes."""
        lists: dict[Path, list[dict[str, str | int]]] = {}
        for path in sorted(self.images):
            end = 2 * _BLOCK + -(self._filled[path] + 2 * _BLOCK) % _RECORD
            with path.open("ab") as file:
                file.write(bytes(end))
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            entry = {"url": path.name, "nsamples": self.images[path], "filesize": path.stat().st_size, "sha256": digest}
            lists.setdefault(path.parent, []).append(entry)
        for folder, shards in lists.items():
            (folder / "shards.json").write_bytes(bytes_of({"name": folder.name, "shardlist": shards}))


def planned(sizes: dict[Place, int], limit: int) -> dict[Place, tuple[str, int]]:
    """Split and number of the shard of each group: groups in their order, a new shard where one would not fit."""
    shard_of: dict[Place, tuple[str, int]] = {}
    last: dict[str, tuple[int, int]] = {}
    for (split, group), size in sizes.items():
        number, filled = last.get(split, (0, 0))
        if filled and filled + size > limit:
            number, filled = number + 1, 0
        shard_of[split, group] = split, number
        last[split] = number, filled + size
    return shard_of
