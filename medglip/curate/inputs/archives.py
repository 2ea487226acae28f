"""ZIP and TAR archives, recognised by content, unpacked member by member. Knows nothing of what the members are.

Nothing that an archive says is trusted: names that lead out of it, links and devices are refused before or as they are
met, what comes out is counted, and every checksum there is gets read. A ZIP lists its members at its end, so a broken
or encrypted one is known by name and the others are kept; a TAR that is cut off does not say what is missing, so it is
refused.
"""

import bz2
import gzip
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from medglip.curate.inputs.lost import Lost, News
from medglip.curate.inputs.members import Budget, member_path, refused_by_disk, write_member
from medglip.errors import InputError

# Endings that an archive inside a folder must have: .nii.gz is no archive, .xlsx and .npz are files of their own kind.
ENDINGS = re.compile(r"\.(zip|tar|tar\.(gz|bz2|xz)|tgz|tbz2?|txz)$", re.IGNORECASE)
_SPLIT = re.compile(r"\.(z\d\d+|zip\.\d+|tar\.\d+|tar\.gz\.\d+|tgz\.\d+|part\d+)$", re.IGNORECASE)
_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08", b"PK00PK")
_COMPRESSED: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
# Formats that need a program of their own, and what to do about them.
_FOREIGN = {b"7z\xbc\xaf\x27\x1c": "7z x", b"Rar!\x1a\x07": "unrar x", b"\x28\xb5\x2f\xfd": "tar --zstd -xf"}
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, gzip.BadGzipFile, ValueError)
_BLOCK = 512


def kind_of(path: Path) -> str | None:
    """``zip`` or ``tar`` by content, None for what is no archive.

    Raises:
        InputError: it is a part of a split archive, of a kind that needs another program, or cut off.
    """
    if _SPLIT.search(path.name) or (path.suffix.lower() == ".zip" and path.with_suffix(".z01").exists()):
        raise InputError(
            f"Archive {path.name!r} is one part of a split archive; join the parts (`zip -s 0 NAME.zip --out whole.zip`, or"
            " `cat NAME.zip.* > whole.zip` where the parts are numbered) and give the whole one."
        )
    with path.open("rb") as file:
        head = file.read(_BLOCK)
    for mark, command in _FOREIGN.items():
        if head.startswith(mark):
            raise InputError(f"Archive {path.name!r} is neither ZIP nor TAR; unpack it (`{command}`) and give the folder.")
    if head.startswith(_ZIP):
        return "zip"
    opener = next((opener for mark, opener in _COMPRESSED.items() if head.startswith(mark)), None)
    try:
        if opener is not None:
            with opener(path, "rb") as stream:
                head = stream.read(_BLOCK)
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # a block of zeros: a TAR with no member
        return "tar"
    except (*_BROKEN, OSError) as error:
        if opener is not None and isinstance(error, EOFError | lzma.LZMAError | zlib.error):
            raise InputError(f"File {path.name!r} is compressed and cut off or broken; get it again.") from error
        return None
    return "tar"


def unpack(path: Path, folder: Path, kind: str, budget: Budget, news: News) -> None:
    """Write the members of an archive into a folder, as its tree.

    Args:
        path: The archive.
        folder: Where its top comes to lie; made.
        kind: What ``kind_of`` said.
        budget: How much may come out.
        news: Told of progress in bytes of the archive, and of members that cannot be read.

    Raises:
        InputError: the archive is cut off, broken, empty, encrypted as a whole, or holds a name, link or device that is
            not allowed.
        OverLimit: too much comes out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        count = (_unzip if kind == "zip" else _untar)(path, folder, budget, news)
    except OSError as error:
        raise refused_by_disk(error, path.name) from error
    if not count:
        raise InputError(f"Archive {path.name!r} holds no file; give the archive that holds the source's files.")


def listing(path: Path, kind: str) -> dict[str, int]:
    """Sizes of an archive's files by path; empty where it cannot be read to its end or holds what is not allowed."""
    try:
        if kind == "zip":
            with _opened_zip(path) as archive:
                sizes = {member_path(_name(info), path.name): info.file_size for info in archive.infolist()
                         if not _is_folder(info)}  # fmt: skip
        else:
            with _tar_headers(path) as (headers, _):
                sizes = {member_path(_tar_name(member), path.name): member.size for member in headers if member.isfile()}
    except (InputError, OSError, *_BROKEN):
        return {}
    return {name: size for name, size in sizes.items() if name is not None}


def _unzip(path: Path, folder: Path, budget: Budget, news: News) -> int:
    """Files met in a ZIP, those that were lost included."""
    with _opened_zip(path) as archive:
        members = [
            (info, where)
            for info in archive.infolist()
            if not _is_folder(info) and (where := member_path(_name(info), path.name))
        ]
        for info, where in members:
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise _not_a_file(path, where)
        if members and all(info.flag_bits & 1 for info, _ in members):
            raise InputError(
                f"Archive {path.name!r} is protected by a password; unpack it with the password and give the folder."
            )
        budget.check(sum(info.file_size for info, _ in members))
        size, done, losses = path.stat().st_size, 0, []
        for info, where in members:
            news.step(done, size, f"unpacking {path.name}")
            if lost := _unzipped(archive, info, folder / where, budget):
                losses.append(Lost(where, *lost))
            done = min(done + info.compress_size, size)
        if losses and len(losses) == len(members):
            raise InputError(
                f"Archive {path.name!r}: of its {len(members)} files none can be read; the first: {losses[0].detail}"
            )
        for loss in losses:
            news.lost(loss)
        news.step(size, size, f"unpacked {path.name}")
    return len(members)


def _unzipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: Path, budget: Budget) -> tuple[str, str] | None:
    """Write one member; reason and detail where that is not possible."""
    if info.flag_bits & 1:
        return "encrypted_member", "It is protected by a password; unpack the archive with the password and give the folder."
    try:
        with archive.open(info) as stream:
            write_member(stream, where, budget)
    except (NotImplementedError, RuntimeError):
        return "unsupported_compression", (
            f"It is compressed by method {info.compress_type}; unpack the archive with another program and give the folder."
        )
    except (*_BROKEN, OSError) as error:
        where.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno:
            raise
        return "broken_member", "It is broken in the archive; get the archive again."
    return None


@contextmanager
def _opened_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except (*_BROKEN, OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise InputError(f"Archive {path.name!r} is cut off or broken: {error}; get it again.") from error
    with archive:
        yield archive


def _is_folder(info: zipfile.ZipInfo) -> bool:
    return info.filename.endswith(("/", "\\"))


def _name(info: zipfile.ZipInfo) -> str:
    """A member's name; some programs write UTF-8 without saying so, which ``zipfile`` reads as code page 437."""
    name = info.orig_filename
    if info.flag_bits & 0x800 or name.isascii():
        return name
    try:
        return name.encode("cp437").decode("utf-8")
    except UnicodeError:
        return name


def _untar(path: Path, folder: Path, budget: Budget, news: News) -> int:
    """Files met in a TAR."""
    size, count = path.stat().st_size, 0
    with _tar_headers(path) as (headers, raw):
        for member in headers:
            where = member_path(_tar_name(member), path.name)
            if member.isdir() or where is None:
                continue
            if not member.isfile():
                raise _not_a_file(path, where)
            news.step(min(raw.tell(), size), size, f"unpacking {path.name}")
            stream = headers.archive.extractfile(member)
            assert stream is not None  # it is a file
            write_member(stream, folder / where, budget)
            count += 1
        if headers.drained(budget):
            news.lost(Lost(path.name, "data_after_end",
                           "The archive goes on after its end mark; unpack it with `tar -i` and give the folder."))  # fmt: skip
    news.step(size, size, f"unpacked {path.name}")
    return count


class _Headers:
    """Members of a TAR in the order of the file, without keeping those that have passed."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._last = last = [b""]

        class Header(tarfile.TarInfo):
            """A header that remembers the block it came from, since ``tarfile`` ends silently at a broken one."""

            @classmethod
            def frombuf(cls, buf: Any, encoding: str, errors: str) -> "Header":
                last[0] = bytes(buf)
                return super().frombuf(buf, encoding, errors)

        self.archive = tarfile.open(fileobj=stream, mode="r|", tarinfo=Header, encoding="utf-8")  # noqa: SIM115  # holds no file

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        while (member := self.archive.next()) is not None:
            self.archive.members.clear()  # type: ignore[attr-defined]  # or memory grows with the archive
            yield member
        if self._last[0] != bytes(_BLOCK):
            raise tarfile.ReadError("its end mark is missing")

    def drained(self, budget: Budget) -> bool:
        """Read what follows the end mark, for the checksum of a compressed one; whether it is more than padding."""
        more = False
        while piece := self._stream.read(1 << 20):
            budget.take(len(piece))
            more = more or any(piece)
        return more


@contextmanager
def _tar_headers(path: Path) -> Iterator[tuple[_Headers, IO[bytes]]]:
    """The members of a TAR, read once from front to back, and the file below, whose place tells how far it is."""
    with path.open("rb") as raw:
        head = raw.read(6)
        raw.seek(0)
        opener = next((opener for mark, opener in _COMPRESSED.items() if head.startswith(mark)), None)
        try:
            stream: Any = opener(raw, "rb") if opener else raw
            headers = _Headers(stream)
            yield headers, raw
        except (*_BROKEN, OSError) as error:
            if isinstance(error, OSError) and error.errno:
                raise
            raise InputError(f"Archive {path.name!r} is cut off or broken: {error}; get it again.") from error


def _tar_name(member: tarfile.TarInfo) -> str:
    """A member's name; bytes that are not UTF-8 are read as Latin-1, so that it can be written anywhere."""
    name = member.name
    try:
        name.encode("utf-8")
    except UnicodeError:
        return name.encode("utf-8", "surrogateescape").decode("latin-1")
    return name


def _not_a_file(path: Path, where: str) -> InputError:
    return InputError(
        f"Archive {path.name!r} has the member {where!r}, which is a link or a device; allowed are files and folders; do not"
        " trust it, or unpack it yourself and give the folder."
    )
