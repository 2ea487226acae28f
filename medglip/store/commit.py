"""Commits: finished files enter a dataset, then its manifest is replaced, at once. Knows nothing of what the files hold.

On a local folder one commit at a time holds a lock, which ends with its process. Behind a URL there is no lock: the
manifest is replaced on the condition that nobody else did, and the commit is made anew from theirs where somebody did.
"""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from medglip.errors import DatasetError
from medglip.records.labels import label_tree
from medglip.store.manifest import CASES, COPY, NAME, OWN, Manifest, ManifestText, bytes_of, read_manifest
from medglip.store.pixels import WrittenFile
from medglip.store.place import Place
from medglip.store.schema import TABLES

_STAGING = ".writing"
_OWNER = ".owner"
_ATTEMPTS = 8
_FILE = re.compile(rf"({'|'.join((*TABLES, 'shards', CASES))})/[\w.-]+-[0-9a-f]{{12}}\.(parquet|tar|json)")

Parts = dict[str, Any]


class Committer:
    """Replaces the manifest of one dataset, again and again; remembers what it wrote last.

    Attributes:
        place: The dataset.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self._text = ManifestText()
        self._last: tuple[object, Manifest] = (None, {"parts": {}})
        self._labels: set[str] | None = None
        self._swept = False

    def manifest(self) -> Manifest:
        """The manifest as it is now; one without parts where there is no dataset yet.

        Raises:
            DatasetError: the folder holds something else, or a broken dataset.
        """
        version = self.place.version(NAME)
        if version is None:
            check_free(self.place)
            self._last = None, {"parts": {}}
        elif version != self._last[0]:
            self._last = version, read_manifest(self.place)
        return self._last[1]

    def commit(self, change: Callable[[Manifest], Parts], files: Mapping[str, WrittenFile]) -> None:
        """Take finished files into the dataset and replace its manifest; files that nothing names any more go.

        Args:
            change: Gives the new parts from the manifest as it is now; an entry that changes is a new object. It may be
                called more than once, and what it raises ends the commit.
            files: Name in the dataset -> finished file.

        Raises:
            DatasetError: the dataset cannot be written, or others keep replacing its manifest.
        """
        with writable(self.place), locked(self.place):
            moved = False
            for _ in range(_ATTEMPTS):
                before = self.manifest()
                parts = change(before)
                if not moved:
                    for name, file in files.items():
                        self.place.take(file.path, name)
                    moved = True
                if self._replace(parts):
                    self._sweep(before["parts"], parts)
                    return
        raise DatasetError(
            f"Dataset {self.place.name!r}: {_ATTEMPTS} times another writer was first; what they wrote is there; run again."
        )

    def _replace(self, parts: Parts) -> bool:
        version, _ = self._last
        manifest, content = self._text.write(parts)
        labels = set(manifest["counts"].get("labels", ()))
        if labels != self._labels:
            self.place.write("labels.json", bytes_of(_labels_document(labels)))
            self._labels = labels
        if not self.place.replace(NAME, content, version):
            self._labels = None
            return False
        self._last = self.place.version(NAME), manifest
        self.place.write(COPY, content, lasting=False)
        return True

    def _sweep(self, before: Parts, parts: Parts) -> None:
        """Remove the files that only the manifest before named and, once, those of commits that were ended early.

        The latter on a local folder only: behind a URL they may be of a writer that is about to commit.
        """
        gone = {name for part, entry in before.items() if parts.get(part) is not entry for name in entry["files"]}
        if self.place.local is not None and not self._swept:
            gone |= {name for name in self.place.names("*/*-*.*") if _FILE.fullmatch(name)}
            self._swept = True
        if gone:
            for name in gone.difference(*(entry["files"] for entry in parts.values())):
                self.place.remove(name)


def check_free(place: Place) -> None:
    """Whether a dataset may be begun in a folder.

    Raises:
        DatasetError: it is a file, or holds other files.
    """
    if place.local is None or not place.local.exists():
        return
    if not place.local.is_dir():
        raise DatasetError(f"Dataset {place.name!r}: found a file; give a folder, new or written by medglip.")
    if foreign := sorted({path.name for path in place.local.iterdir()}.difference(OWN)):
        raise DatasetError(
            f"Dataset {place.name!r}: found a folder with other files ({foreign[0]!r}) and no manifest.json; give a"
            " new folder, so that nothing of yours is mixed with the dataset."
        )


@contextmanager
def staging(place: Place, what: str) -> Iterator[Path]:
    """A fresh local folder for files that are being written, gone in the end.

    It lies inside a local dataset, so that finished files need only be renamed. What a killed process left is removed.

    Args:
        place: The dataset; its folder is made if it is not there.
        what: Begins the folder's name.

    Raises:
        DatasetError: the dataset's folder cannot be written.
    """
    if place.local is None:
        with tempfile.TemporaryDirectory(prefix="medglip-") as temporary:
            yield Path(temporary)
        return
    made = not place.local.exists()
    outer = place.local / _STAGING
    with writable(place), locked(place):
        outer.mkdir(exist_ok=True)
        _remove_abandoned(outer)
        folder = Path(tempfile.mkdtemp(prefix=f"{what}-", dir=outer))
        owner = (folder / _OWNER).open("w")
        _lock(owner, wait=True)
    try:
        yield folder
    finally:
        owner.close()
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError), locked(place):  # another writer's folder may be there, or the dataset itself
            outer.rmdir()
            if made and not (place.local / NAME).exists():
                (place.local / ".lock").unlink(missing_ok=True)
                place.local.rmdir()


def _remove_abandoned(outer: Path) -> None:
    """Folders of writers that are no more: their lock can be taken."""
    for folder in outer.iterdir():
        try:
            with (folder / _OWNER).open("r+") as owner:
                if not _lock(owner, wait=False):
                    continue
        except FileNotFoundError:
            pass
        shutil.rmtree(folder, ignore_errors=True)


def _lock(file: TextIO, *, wait: bool) -> bool:
    """Lock a file where the system has file locks; False if another holds it."""
    if sys.platform == "win32":
        return wait  # nothing is known of others there, so nothing is taken from them
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(place: Place) -> Iterator[None]:
    """One at a time in a local folder; nothing elsewhere."""
    if place.local is None or sys.platform == "win32":
        yield
        return
    with _lock_file(place.local / ".lock"):
        yield


def _lock_file(path: Path) -> TextIO:
    """The lock file, locked. It and its folder may go while this one waits, with a writer that failed; then once more."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            file = path.open("w")
            _lock(file, wait=True)
            with suppress(FileNotFoundError):
                if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                    return file
            file.close()


@contextmanager
def writable(place: Place) -> Iterator[None]:
    """What the system refuses, in one sentence.

    Raises:
        DatasetError: for any OSError.
    """
    try:
        yield
    except OSError as error:
        raise DatasetError(
            f"Dataset {place.name!r} cannot be written: {error.strerror or error}; what it held is untouched."
            " Free space or choose another folder, and run again."
        ) from error


def _labels_document(labels: set[str]) -> dict[str, Any]:
    """The nodes of the label tree that are used, with their ancestors."""
    tree = label_tree()
    used = {label for label in labels if label in tree}
    used |= {ancestor for label in used for ancestor in tree.ancestors(label)}
    return {label: asdict(tree[label]) for label in used}
