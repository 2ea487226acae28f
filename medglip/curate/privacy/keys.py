"""The key under which ids and names are hashed: where it is from, whether it is good, how a dataset knows it again.

The key is read from the file that MEDGLIP_KEY_FILE names, else from MEDGLIP_KEY. It is written nowhere and in no message.
Without one, ids are hashed under a key that everybody knows: fit for published ids, not for those of one's own patients.
Knows no records.
"""

import hashlib
import hmac
import os
import platform
import stat
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from medglip.curate.source import Source
from medglip.errors import DatasetError, InputError
from medglip.store.checks.names import EVERYBODY

FILE_VARIABLE, VARIABLE = "MEDGLIP_KEY_FILE", "MEDGLIP_KEY"
# 16 random bytes can never be tried out; a shorter text is guessed faster than it seems.
LEAST_BYTES = 16
_EVERYBODYS = b"medglip public data"
_MAKE_ONE = "make one with `(umask 077; openssl rand -hex 32 > medglip.key)`"


def read_key_file(path: str | Path) -> bytes:
    """The key in a file, without blanks and line ends around it.

    Raises:
        InputError: the file is missing, empty or too short. The sentence never says what is in it.
    """
    try:
        status = Path(path).stat()
        return _read(str(path), status.st_mtime_ns, status.st_size)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "not a name of a file"
        raise InputError(f"Key file {str(path)!r} cannot be read: {why}; {_MAKE_ONE}.") from error


@lru_cache(maxsize=4)
def _read(path: str, _mtime: int, _size: int) -> bytes:
    return _long_enough(Path(path).read_bytes(), f"Key file {path!r}")


def _long_enough(key: bytes, where: str) -> bytes:
    key = key.strip()
    if len(key) < LEAST_BYTES:
        found = f"{len(key)} bytes" if key else "nothing"
        raise InputError(f"{where}: found {found}; allowed: {LEAST_BYTES} bytes or more, of chance; {_MAKE_ONE}.")
    return key


def use_key_file(path: str | Path) -> None:
    """Hash under the key in a file from now on, in this process and in those that it starts.

    Raises:
        InputError: the file holds no good key.
    """
    read_key_file(path)
    os.environ[FILE_VARIABLE] = str(Path(path).absolute())


def key() -> bytes:
    """The key to hash under: that of MEDGLIP_KEY_FILE, else MEDGLIP_KEY, else the one that everybody knows.

    Raises:
        InputError: a key is set and is not good.
    """
    if (path := os.environ.get(FILE_VARIABLE)) is not None:
        return read_key_file(path)
    if (text := os.environ.get(VARIABLE)) is not None:
        return _long_enough(text.encode("utf-8", "surrogateescape"), f"The environment's {VARIABLE}")
    return _EVERYBODYS


def keyed(source: str, raw: str | None) -> str | None:
    """Keyed hash (HMAC-SHA256) of an id of a source, 16 hex digits; None where there is no id.

    Raises:
        InputError: a key is set and is not good.
    """
    return (
        hmac.new(key(), f"{source}|{raw}".encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()[:16] if raw else None
    )


def key_check() -> str:
    """8 hex digits by which a key is known again: a hash of a fixed sentence under it, which does not lead back to it.

    ``everybody`` where no key is set.
    """
    secret = key()
    if secret == _EVERYBODYS:
        return EVERYBODY
    return hmac.new(secret, b"medglip: which key is this?", hashlib.sha256).hexdigest()[:8]


def key_facts(source: Source) -> dict[str, str]:
    """What a part of a dataset remembers: whether the source's names are public, and the check value of the key."""
    return {"names": "public" if source.public_names else "private", "key_check": key_check()}


def check_same_key(parts: Mapping[str, Mapping[str, Any]], dataset: str) -> None:
    """Refuse to add to a dataset whose ids were hashed under another key: one patient would become two.

    Args:
        parts: The parts in the dataset's manifest.
        dataset: Its name, for the sentence.

    Raises:
        DatasetError: a part remembers another key.
        InputError: a key is set and is not good.
    """
    mine = key_check()
    for name, part in sorted(parts.items()):
        if (theirs := part.get("key_check")) not in (None, mine):
            raise DatasetError(
                f"Dataset {dataset!r}: {name!r} was hashed under {_named(theirs)}, this run has {_named(mine)}; set"
                f" {FILE_VARIABLE} to the key of before, or convert into a new dataset: one patient would become two here."
            )


def require_key(check: str) -> None:
    """Whether the key of this process is the one of another: a worker on another machine may have none.

    Args:
        check: ``key_check()`` of the process that hands out the work.

    Raises:
        InputError: it is another, or none.
    """
    if (mine := key_check()) != check:
        raise InputError(
            f"Worker on {platform.node()!r}: found {_named(mine)}; allowed: {_named(check)}; set {FILE_VARIABLE} or {VARIABLE}"
            " where the worker is started."
        )


def _named(check: str) -> str:
    return "the key that everybody knows" if check == EVERYBODY else f"a key with the check value {check!r}"


def key_warnings(source: Source) -> list[str]:
    """What a curator should know of the key before a source is converted, one sentence each; none where all is well.

    Raises:
        InputError: a key is set and is not good.
    """
    said = []
    if key() == _EVERYBODYS and not source.public_names:
        said.append(
            f'Source {source.name!r} is private (it does not say names = "public") and no key is set: whoever guesses an id or'
            f" a file name can prove the guess; {_MAKE_ONE}, name it by --key-file or {FILE_VARIABLE}, and convert into a new"
            " dataset."
        )
    path = os.environ.get(FILE_VARIABLE)
    if path is not None and os.name == "posix" and Path(path).stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        said.append(f"Key file {path!r} can be read or written by others; close it with `chmod 600 {path}`.")
    return said
