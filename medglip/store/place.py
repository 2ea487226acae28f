"""Where a dataset lies: a folder of this machine, or one behind an fsspec URL. Knows names and bytes, no records.

A local folder is read and written through the system; a URL (``s3://bucket/dataset``, ``memory://dataset``) through the
fsspec file system of its protocol, with ranged reads. Nothing stays open and nothing of a process is pickled.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medglip.errors import DatasetError, InputError
from medglip.store.pixels import read_bytes

# pathlib makes `s3:/bucket` of `s3://bucket`; one letter is a drive of Windows.
_PIECE = 8 * 2**20
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,2}(.*)", re.DOTALL)
# One request, whatever the size: a condition does not hold for an upload in pieces.
_ONE_PUT = 2**31
_REFUSED = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
_NO_CONDITIONS = ("NotImplemented", "501")


class Place:
    """The folder of a dataset.

    Attributes:
        local: The folder, if it is one of this machine.
        name: Path or URL, for messages.
    """

    local: Path | None
    name: str
    _options: dict[str, Any]

    def __init__(self, path: "str | Path | Place", storage_options: Mapping[str, Any] | None = None) -> None:
        if isinstance(path, Place):
            found, remote = _URL.fullmatch(path.name), path.local is None
            storage_options = storage_options or path._options
        else:
            found = _URL.fullmatch(str(path))
            remote = found is not None and found[1] != "file" and not Path(path).exists()
        if storage_options and not remote:
            raise InputError(f"Storage options: found {sorted(storage_options)} for {str(path)!r}; allowed: for a URL only.")
        text = path.name if isinstance(path, Place) else str(path)
        self._options = dict(storage_options or {})
        self.local = None if remote else Path(re.sub("^file:/+", "/", text))
        self.name = f"{found[1]}://{found[2].rstrip('/')}" if found and remote else str(self.local)
        self._system: tuple[int, Any, str] | None = None

    def __repr__(self) -> str:
        """Path or URL, without the storage options, which may hold secrets."""
        return f"Place({self.name!r})"

    def __getstate__(self) -> dict[str, Any]:
        """All but the file system, which belongs to a process."""
        return {**self.__dict__, "_system": None}

    @property
    def system(self) -> Any:
        """The fsspec file system of a URL."""
        return self._connected()[1]

    def at(self, name: str = "") -> str:
        """A file as its file system calls it."""
        if self.local is not None:
            return str(self.local / name)
        root = self._connected()[2]
        return f"{root}/{name}" if name else root

    def sql_name(self, name: str) -> str:
        """A file as DuckDB calls it, once the file system is registered."""
        return self.at(name) if self.local is not None else str(self.system.unstrip_protocol(self.at(name)))

    def _connected(self) -> tuple[int, Any, str]:
        if self._system is None or self._system[0] != os.getpid():  # a file system does not outlive a fork
            try:
                from fsspec.core import url_to_fs

                system, root = url_to_fs(self.name, **self._options)
            except (ImportError, ValueError) as error:
                raise InputError(
                    f"Dataset {self.name!r}: no file system for this URL ({error}); install it (`pip install s3fs` for"
                    " s3://), or give a folder."
                ) from error
            self._system = os.getpid(), system, root.rstrip("/")
        return self._system

    # ---- reading

    def exists(self, name: str = "") -> bool:
        """Whether a file, or the folder itself, is there."""
        if self.local is not None:
            return (self.local / name).exists()
        with self._told("looked at"):
            self.system.invalidate_cache()
            return bool(self.system.exists(self.at(name)))

    def read(self, name: str) -> bytes:
        """All bytes of a file.

        Raises:
            FileNotFoundError: it is not there.
            OSError: it cannot be read (a local one).
            DatasetError: the store behind the URL refuses.
        """
        if self.local is not None:
            return (self.local / name).read_bytes()
        with self._told("read"):
            return bytes(self.system.cat_file(self.at(name)))

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """``size`` bytes of a shard from ``offset``.

        Raises:
            DatasetError: the file is missing or shorter.
        """
        if self.local is not None:
            return read_bytes(self.local / name, offset, size)
        try:
            with self._told("read"):
                found = bytes(self.system.cat_file(self.at(name), start=offset, end=offset + size))
        except FileNotFoundError as error:
            raise DatasetError(f"Shard {self._full(name)!r} cannot be read: no such file; restore it.") from error
        if len(found) != size:
            raise DatasetError(
                f"Shard {self._full(name)!r} ends before byte {offset + size}, found {len(found)} of {size} bytes; restore it."
            )
        return found

    def size(self, name: str) -> int:
        """Bytes of a file.

        Raises:
            FileNotFoundError: it is not there.
            DatasetError: the store behind the URL refuses.
        """
        if self.local is not None:
            return (self.local / name).stat().st_size
        with self._told("looked at"):
            return int(self.system.size(self.at(name)))

    def sha256(self, name: str) -> str:
        """Hash of a file's bytes, read piece by piece; raises as ``size`` does."""
        if self.local is not None:
            with (self.local / name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        with self._told("read"), self.system.open(self.at(name), "rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
        return digest.hexdigest()

    @contextmanager
    def parquet(
        self, name: str, metadata: pq.FileMetaData | None = None, dictionaries: Sequence[str] = ()
    ) -> Iterator[pq.ParquetFile]:
        """An opened table.

        Args:
            name: The file.
            metadata: Its footer, where it was read before.
            dictionaries: Columns of text to be read as dictionaries.

        Raises:
            DatasetError: it is missing or broken.
        """
        try:
            if self.local is not None:
                with pq.ParquetFile(self.local / name, metadata=metadata, read_dictionary=list(dictionaries)) as file:
                    yield file
                return
            # without a cache, which would read megabytes ahead of every column
            with self._told("read"), self.system.open(self.at(name), "rb", cache_type="none") as source:
                yield pq.ParquetFile(source, metadata=metadata, read_dictionary=list(dictionaries), pre_buffer=True)
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(f"Table {self._full(name)!r} cannot be read ({error}); restore it, or convert again.") from error

    def names(self, pattern: str) -> list[str]:
        """Files that match a pattern such as ``*/part-*``, relative to the folder."""
        if self.local is not None:
            return sorted(path.relative_to(self.local).as_posix() for path in self.local.glob(pattern))
        with self._told("listed"):
            self.system.invalidate_cache()
            root = self.at()
            return sorted(found[len(root) + 1 :] for found in self.system.glob(f"{root}/{pattern}"))

    # ---- writing

    def take(self, source: Path, name: str) -> None:
        """Move a finished local file into the folder."""
        if self.local is None:
            with self._told("written"):
                self.system.put_file(str(source), self.at(name))
            return
        (self.local / name).parent.mkdir(exist_ok=True)
        with source.open("rb+") as written:
            os.fsync(written.fileno())
        source.replace(self.local / name)

    def write(self, name: str, data: bytes, *, lasting: bool = True) -> None:
        """Write a file whole or not at all.

        Args:
            name: The file.
            data: Its bytes.
            lasting: Wait until the disk has it.
        """
        if self.local is None:
            with self._told("written"):
                self.system.pipe_file(self.at(name), data)
            return
        path = self.local / name
        draft = path.with_name(f".{path.name}")
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        draft.replace(path)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        if self.local is not None:
            (self.local / name).unlink(missing_ok=True)
            return
        with self._told("written"):
            try:
                self.system.rm_file(self.at(name))
            except FileNotFoundError:
                return

    def version(self, name: str) -> object:
        """Something that changes whenever a file is replaced; None where there is none."""
        try:
            if self.local is not None:
                found = (self.local / name).stat()
                return found.st_ino, found.st_mtime_ns, found.st_size
            with self._told("read"):
                self.system.invalidate_cache()
                if self._conditions:
                    return self.system.info(self.at(name))["ETag"]
                return hashlib.sha256(self.system.cat_file(self.at(name))).hexdigest()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def replace(self, name: str, data: bytes, version: object) -> bool:
        """Write a file if it still is of that version; False if somebody else replaced it first.

        S3 checks and writes at once. A store without conditional writes is asked for the version again just before the
        write, so two writers within the same moment may still hide each other's commit there: let one write at a time.
        On a local folder the caller holds the lock.
        """
        if self.local is not None or not self._conditions:
            if self.version(name) != version:
                return False
            self.write(name, data)
            return True
        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        try:
            self.system.pipe_file(self.at(name), data, chunksize=_ONE_PUT, **condition)
        except OSError as error:
            code = str(getattr(error.__cause__, "response", {}).get("Error", {}).get("Code", ""))
            if code in _REFUSED or isinstance(error, FileExistsError | FileNotFoundError):
                return False
            if code in _NO_CONDITIONS and self.version(name) == version:
                self.write(name, data)
                return True
            raise DatasetError(
                f"Dataset {self.name!r} cannot be written ({error}); check the rights, and run again."
            ) from error
        return True

    @property
    def _conditions(self) -> bool:
        """Whether the store can write on a condition."""
        protocol = self.system.protocol
        return "s3" in ((protocol,) if isinstance(protocol, str) else protocol)

    def _full(self, name: str) -> str:
        return str(self.local / name) if self.local is not None else f"{self.name}/{name}"

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """What the store behind a URL raises, in one sentence; stores do not agree on a class of errors."""
        try:
            yield
        except (FileNotFoundError, DatasetError, InputError, GeneratorExit):
            raise
        except Exception as error:
            raise DatasetError(
                f"Dataset {self.name!r} cannot be {what} ({type(error).__name__}: {error}); check the URL, the rights and"
                " the storage options."
            ) from error
