"""Writes parts of a dataset: tables, shards, then the manifest, whose replacement is the commit.

Files are named by their content, so a part that replaces another never touches a file of the dataset that readers still
see, and equal input gives equal names and bytes. Knows nothing of sources and formats.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from medglip.errors import DatasetError, InputError
from medglip.records.picture import Picture
from medglip.records.record import Reject, VolumeRecord
from medglip.store.commit import Committer, Parts, staging, writable
from medglip.store.draft import Draft
from medglip.store.known import KnownImages
from medglip.store.manifest import COPY, NAME, Manifest
from medglip.store.pixels import SHARD_BYTES
from medglip.store.place import Place
from medglip.store.prepared import Prepared

_RESERVED = ("counts", "files")
# What a writer that was killed may leave behind; a file is written under such a name before it takes its own.
_LEFT = (".writing", f".{NAME}", f".{COPY}", ".labels.json")


def write_part(
    dataset: str | Path, part: str, pictures: Iterable[Picture], volumes: Iterable[VolumeRecord] = (),
    rejects: Iterable[Reject] = (), info: Mapping[str, Any] | None = None, *, shard_bytes: int = SHARD_BYTES,
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write one part of a dataset and commit it, as ``Writer.write`` does; for several parts keep one ``Writer``.

    Args:
        dataset: Folder or fsspec URL of the dataset; made if it is not there.
        part: As for ``Writer.write``, as are ``pictures``, ``volumes``, ``rejects`` and ``info``.
        pictures: The images.
        volumes: The volumes.
        rejects: What could not be used.
        info: What the manifest shall say of the part.
        shard_bytes: Size at which a new shard begins.
        storage_options: For the file system of a URL.

    Returns:
        Counts of the part.
    """
    writer = Writer(dataset, shard_bytes=shard_bytes, storage_options=storage_options)
    return writer.write(part, pictures, volumes, rejects, info)


class Writer:
    """Writes parts of one dataset, one after the other, and keeps what it knows of the dataset between them.

    So the cost of a part does not grow with the number of those before it. Other writers may commit meanwhile.

    Args:
        dataset: Folder of the dataset, or an fsspec URL such as ``s3://bucket/dataset``; made if it is not there.
        shard_bytes: Size at which a new shard begins.
        storage_options: For the file system of a URL.

    Raises:
        DatasetError: the folder is no dataset, or a broken one.
    """

    def __init__(
        self, dataset: str | Path | Place, *, shard_bytes: int = SHARD_BYTES, storage_options: Mapping[str, Any] | None = None
    ) -> None:
        self._place = Place(dataset, storage_options)
        self._shard_bytes = shard_bytes
        self._committer = Committer(self._place)
        self._known = KnownImages(self._place)
        self._lending: KnownImages | None = None
        self._committer.manifest()

    def write(
        self, part: str, pictures: Iterable[Picture | Prepared], volumes: Iterable[VolumeRecord] = (),
        rejects: Iterable[Reject] = (), info: Mapping[str, Any] | None = None, *,
        lends: Callable[[str], bool] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Write one part and commit it; a part of the same name is replaced.

        Pictures are taken one by one; ``volumes``, ``rejects`` and ``info`` are read after the last picture, so the
        iterator may fill them as it goes. Pixels that the dataset holds already are not stored again. Until the commit
        the dataset is as it was, and whatever raises leaves it so.

        Args:
            part: Its name: letters, digits, ``_``, ``.`` and ``-``.
            pictures: The images in the order in which they are to be listed, regions without an id are given one; or
                several at once that ``prepared`` has made rows and PNGs of.
            volumes: The volumes.
            rejects: What could not be used.
            info: What the manifest shall say of the part, JSON values: ``source``, ``title``, ``licence``, ``expected``
                ... ``cases``, a table by case that may be long, gets a file of its own (``Dataset.cases``).
            lends: Says of a part, by its name, whether pixels that it holds need not be stored again; default: all do.
                Parts that are written at once, by several processes, do not lend to each other; ``settle`` joins them.

        Returns:
            Counts of the part: ``images``, ``regions``, ``texts``, ``volumes``, ``rejects``, ``pictures_stored`` (images
            whose pixels were new) and ``cases`` where ``info`` has them, and the tables ``labels`` (regions of each
            label), ``modalities``, ``splits`` (images) and ``reject_reasons``.

        Raises:
            RecordError: pixels do not fit their record, or an id occurs twice.
            DatasetError: the dataset cannot be written, or holds one of the images in another part.
            InputError: the name or ``info`` is not allowed.
        """
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", part):
            raise InputError(f"Part of a dataset: found the name {part!r}; allowed: letters, digits, '_', '.', '-'.")
        manifest = self._committer.manifest()
        self._known.follow(manifest)
        known = self._known if lends is None or all(map(lends, manifest["parts"])) else self._lent(manifest, lends)
        with staging(self._place, part) as folder:
            with writable(self._place):
                draft = Draft(folder, part, lambda sha256: known.pixels(sha256, but=part), self._shard_bytes)
            with draft:
                for picture in pictures:
                    with writable(self._place):
                        draft.add(picture) if isinstance(picture, Picture) else draft.add_prepared(picture)
                with writable(self._place):
                    draft.close(volumes, rejects)
                return self._commit(part, draft, dict(info or {}))

    def tidy(self) -> None:
        """Remove what a writer that was killed left in a local dataset, and finish what it had begun after its commit."""
        manifest, folder = self._committer.manifest(), self._place.local
        if folder is None or not manifest["parts"]:
            return
        copied = (folder / COPY).read_bytes() if (folder / COPY).exists() else b""
        if copied == (folder / NAME).read_bytes() and not any((folder / name).exists() for name in _LEFT):
            return
        with staging(self._place, "tidy"):
            self._committer.commit(lambda found: found["parts"], {})

    def _lent(self, manifest: Manifest, lends: Callable[[str], bool]) -> KnownImages:
        """The images of the parts that lend."""
        if self._lending is None:
            self._lending = KnownImages(self._place)
        self._lending.follow({"parts": {name: entry for name, entry in manifest["parts"].items() if lends(name)}})
        return self._lending

    def _commit(self, part: str, draft: Draft, info: dict[str, Any]) -> dict[str, Any]:
        _check_info(part, info)
        cases = info.pop("cases", None)
        with writable(self._place):
            files = draft.files(cases)
        counts = draft.counts.document()

        def change(manifest: Manifest) -> Parts:
            self._known.follow(manifest)
            listed = _files_of(manifest) if draft.borrowed else {}
            if lost := sorted(draft.borrowed.difference(listed)):
                raise DatasetError(f"Dataset {self._place.name!r}: {lost[0]!r} went while it was written to; run again.")
            for image in draft.ids:
                if file := self._known.holder(image, but=part):
                    raise DatasetError(
                        f"Dataset {self._place.name!r}: the image {image!r} is in {file!r} already; give the same name for"
                        " the part to replace it, or convert into a new dataset."
                    )
            entries = {name: {"bytes": file.size, "sha256": file.sha256} for name, file in files.items()}
            entries |= {name: listed[name] for name in sorted(draft.borrowed)}
            return {**manifest["parts"], part: {**info, "counts": counts, "files": entries}}

        self._committer.commit(change, files)
        return counts


def _files_of(manifest: Manifest) -> dict[str, Any]:
    return {name: entry for part in manifest["parts"].values() for name, entry in part["files"].items()}


def _check_info(part: str, info: Mapping[str, Any]) -> None:
    if taken := [name for name in _RESERVED if name in info]:
        raise InputError(f"Part {part!r}: found {taken[0]!r} in info; the manifest keeps that name for itself.")
    try:
        json.dumps(info, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"Part {part!r}: found info that is no JSON ({error}); allowed: text, numbers, lists, tables."
        ) from error
