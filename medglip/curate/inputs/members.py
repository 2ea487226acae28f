"""Members of an archive: which names are safe, and how much may come out. Knows nothing of the archives' formats."""

import re
import shutil
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from medglip.errors import InputError

# What archives and desktops leave behind beside the data; the same as in medglip.curate.layout.
_DEBRIS = re.compile(r"(^|/)(\._[^/]*|__MACOSX(/.*)?|\.DS_Store|Thumbs\.db|desktop\.ini)$", re.IGNORECASE)
_DRIVE = re.compile(r"[A-Za-z]:")
_CHUNK = 1 << 20
# Left free on the disk, so that the dataset can still be written.
_RESERVE = 512 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an archive may become.

    Attributes:
        total_bytes: At most so many bytes; None for what the disk has free, less a reserve.
        ratio: At most so many times the archive's own size. Empty label volumes reach some hundreds, archives made to
            fill a disk a thousand and more.
        ratio_from_bytes: Below this size the ratio does not matter.
        nested: Archives inside archives are opened so many levels deep.
    """

    total_bytes: int | None = None
    ratio: float = 500.0
    ratio_from_bytes: int = 1 << 30
    nested: int = 3


class OverLimit(InputError):
    """An archive, with what is nested in it, becomes larger than allowed."""


class Budget:
    """Counts the bytes that come out of one archive and what is nested in it."""

    def __init__(self, limits: Limits, name: str, size: int, folder: Path) -> None:
        free = shutil.disk_usage(folder).free - _RESERVE
        self._most = free if limits.total_bytes is None else min(limits.total_bytes, free)
        self._ratio = max(limits.ratio_from_bytes, limits.ratio * size)
        self._name, self._size, self._used = name, size, 0

    def check(self, more: int = 0) -> None:
        """Refuse if ``more`` bytes would be too many.

        Raises:
            OverLimit: they would.
        """
        total = self._used + more
        if total > self._ratio:
            raise OverLimit(
                f"Archive {self._name!r} of {self._size} bytes becomes more than {int(self._ratio)} bytes, as archives made"
                " to fill a disk do; if it is sound, unpack it yourself and give the folder."
            )
        if total > self._most:
            raise OverLimit(
                f"Archive {self._name!r} needs at least {total} bytes unpacked; {max(self._most, 0)} are allowed or free"
                " there; give a scratch folder on a larger disk."
            )

    def take(self, count: int) -> None:
        """Count bytes that came out.

        Raises:
            OverLimit: they are too many.
        """
        self._used += count
        self.check()


def member_path(name: str, archive: str) -> str | None:
    r"""The path of a member relative to the archive's top, with ``/`` and in NFC; None for debris and for the top itself.

    Args:
        name: As the archive says it; ``\`` separates too, as some programs write it.
        archive: The archive's name, for the message.

    Raises:
        InputError: the path is absolute, has a drive letter, or leads out of the archive.

    >>> member_path("./a//b.png", "x.zip"), member_path("__MACOSX/a/._b.png", "x.zip")
    ('a/b.png', None)
    """
    text = unicodedata.normalize("NFC", name.replace("\\", "/"))
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if text.startswith("/") or _DRIVE.match(text) or ".." in parts or "\0" in text:
        raise InputError(
            f"Archive {archive!r} has the member {name!r}, which leads out of it; allowed are relative paths; do not trust it,"
            " or unpack it yourself and give the folder."
        )
    path = "/".join(parts)
    return None if not path or _DEBRIS.search(path) else path


def write_member(stream: IO[bytes], path: Path, budget: Budget) -> None:
    """Copy a member to a file piece by piece; one of the same name gives way, as it does for ``unzip -o`` and ``tar``.

    Raises:
        OverLimit: it is too large.
        OSError: the member is broken (no ``errno``), or the disk is full or refuses the name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        while piece := stream.read(_CHUNK):
            budget.take(len(piece))
            file.write(piece)


def refused_by_disk(error: OSError, name: str) -> InputError:
    """What to raise where the disk refuses."""
    return InputError(
        f"Archive {name!r} cannot be unpacked: {error.strerror or error}; give a scratch folder on a disk that has room and"
        " takes its file names."
    )
