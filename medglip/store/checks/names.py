"""Checks that nothing in a dataset names a patient: tables, ledgers, manifest, what lies beside pixels. Changes nothing."""

import re
import tarfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from medglip.errors import DatasetError
from medglip.store.checks.image_table import batches
from medglip.store.checks.privacy import PATTERNS, traces
from medglip.store.checks.problems import Problem, Problems
from medglip.store.manifest import cases_of
from medglip.store.pixels import TAR_BLOCK
from medglip.store.place import Place
from medglip.store.read import Dataset
from medglip.store.schema import TABLES

# What stands for a name that is hidden: the part's name perhaps, hashes, endings that tell a format, a place in the file.
_HASHED = r"(file|case)-[0-9a-f]{16}(\.[a-z0-9]{1,7}){0,2}"
HIDDEN = rf"([^:/\\]+:)?({_HASHED}( {_HASHED})*(,? [A-Za-z]+ [0-9]+)?)?"
_HIDDEN_INSTANCE = r"[0-9a-f]{16}"
# What a part remembers instead of a key's check value where no key was set, so that ids can be tried by anybody.
EVERYBODY = "everybody"
_NAMES_IN = {"images": ("file", "case"), "volumes": ("file", "case"), "rejects": ("file", "case"), "regions": ("instance",)}
_ANY = "|".join(f"(?:{pattern})" for pattern in PATTERNS.values())
# In a manifest stand citations and pages, which have dates, numbers and addresses of their own.
_IN_MANIFEST = ("a DICOM UID", "a person's name", "a patient's name or number", "an absolute path")
# Of a public source's case keys: its published ids may be numbers and dates.
_IN_LEDGER = ("a DICOM UID", "a person's name", "a patient's name or number", "an e-mail address", "an absolute path")
_HASHES = ("files", "counts", "cases", "matrix", "source_digest", "key_check", "page", "citation")
# Chunks of a PNG that the picture needs; all others may hold words, times or a camera's notes.
_PICTURE_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_PNG_HEAD, _CHUNK_HEAD, _CHUNK_END = 8, 8, 4


def private_sources(manifest: dict[str, Any]) -> set[str]:
    """Sources of a dataset whose names of files and cases must not stand in it."""
    return {str(part.get("source")) for part in manifest["parts"].values() if part.get("names") == "private"}


def check_names(dataset: Dataset) -> Problems:
    """Private sources: hashes where names would be. All sources: ledgers and manifest without a patient's name."""
    private = private_sources(dataset.manifest)
    yield from _keys(dataset, private)
    for table, columns in _NAMES_IN.items() if private else ():
        for name, first, batch in batches(dataset, table, ["dataset", *columns, *(["detail"] if table == "rejects" else [])]):
            mine = pc.is_in(batch.column("dataset"), value_set=pa.array(sorted(private), pa.string()))
            for column in columns:
                form = _HIDDEN_INSTANCE if column == "instance" else HIDDEN
                for row in _rows(pc.and_(mine, _unlike(batch.column(column), form))):
                    what = "It is no hashed name, and the source is private; convert it again."
                    yield Problem("error", f"{name} row {first + row}, column {column!r}", what, "privacy")
            if table == "rejects":
                for row in _rows(pc.and_(mine, pc.match_substring_regex(batch.column("detail"), _ANY))):
                    what = "The sentence holds what looks like a patient's, and the source is private; convert it again."
                    yield Problem("error", f"{name} row {first + row}, column 'detail'", what, "privacy")
    for name, part in sorted(dataset.manifest["parts"].items()):
        yield from _ledger(dataset, name, part)
    for where, what in _named_in(dataset.manifest["parts"], "parts"):
        yield Problem(
            "error", f"manifest.json, {where}", f"It holds what looks like {what}; change the source's TOML.", "privacy"
        )


def named_patients(dataset: Dataset) -> Problems:
    """All that the check on privacy finds in the tables, ledgers and manifest of a dataset; no pixels are read."""
    yield from check_names(dataset)
    for table in TABLES:
        for name, first, batch in batches(dataset, table):
            for trace in traces(pa.Table.from_batches([batch])):
                if not trace.mild:
                    what = f"The text holds what looks like {trace.what}."
                    yield Problem("error", f"{name} row {first + trace.row}, column {trace.column!r}", what, "privacy")


def check_shards(place: Place, manifest: dict[str, Any]) -> Problems:
    """Shards hold PNGs with hashes for names and nothing else, and the PNGs hold a picture and nothing else."""
    shards = sorted({name for part in manifest["parts"].values() for name in part["files"] if name.endswith(".tar")})
    for shard in shards:
        try:
            for number, (member, offset) in enumerate(_members(place, shard)):
                where = f"{shard} member {number}"
                if not re.fullmatch(r"[0-9a-f]{64}\.png", member.name) or not member.isreg():
                    yield Problem("error", where, "It is no PNG named by a hash; convert the source again.", "privacy")
                    continue
                if member.uname or member.gname or member.mtime:
                    yield Problem("error", where, "Its entry says when and by whom it was made; convert again.", "privacy")
                for chunk in _other_chunks(place, shard, offset, member.size):
                    what = f"The PNG holds a chunk {chunk!r} beside the picture, which may say anything; convert again."
                    yield Problem("error", where, what, "privacy")
        except (DatasetError, tarfile.HeaderError, OSError) as error:
            yield Problem("error", shard, f"Its members cannot be read ({error}); restore the shard.", "pixels")


def _keys(dataset: Dataset, private: set[str]) -> Problems:
    """A note for private sources whose hashes anybody can try."""
    known = {part.get("source") for part in dataset.manifest["parts"].values() if part.get("key_check") == EVERYBODY}
    for source in sorted(private & {str(name) for name in known}):
        what = (
            "The source is private, and its ids and names are hashed under the key that everybody knows: a guessed id can be"
            " proved. Set MEDGLIP_KEY_FILE and convert into a new dataset before it goes to anybody."
        )
        yield Problem("note", f"source {source}", what, "privacy")


def _ledger(dataset: Dataset, name: str, part: dict[str, Any]) -> Problems:
    """What a part keeps of its cases."""
    hidden = part.get("names") == "private"
    for number, key in enumerate(sorted(cases_of(dataset.place, part))):
        if hidden and not re.fullmatch(HIDDEN, key):
            what = "A case is kept under its own name, and the source is private; convert it again."
            yield Problem("error", f"cases of {name}, number {number}", what, "privacy")
        elif what := next((what for what in _IN_LEDGER if re.search(PATTERNS[what], key)), ""):
            yield Problem("error", f"cases of {name}, number {number}", f"Its key holds what looks like {what}.", "privacy")


def _named_in(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """Place and kind of strings inside a JSON value that may name a patient; never the strings."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in _HASHES:
                yield from _named_in(item, f"{where}/{key}")
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _named_in(item, where)
    elif isinstance(value, str):
        yield from ((where, what) for what in _IN_MANIFEST if re.search(PATTERNS[what], value))


def _unlike(column: pa.Array, form: str) -> pa.Array:
    return pc.fill_null(pc.invert(pc.match_substring_regex(column, f"^({form})$")), False)


def _rows(chosen: pa.Array) -> list[int]:
    return np.flatnonzero(pc.fill_null(chosen, False).to_numpy(zero_copy_only=False)).tolist()


def _members(place: Place, shard: str) -> Iterator[tuple[tarfile.TarInfo, int]]:
    """The members of a tar in order, with the offset of their content; only headers are read."""
    at, end = 0, place.size(shard)
    while at + TAR_BLOCK <= end:
        block = place.read_range(shard, at, TAR_BLOCK)
        if not block.strip(b"\0"):
            return
        member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        yield member, at + TAR_BLOCK
        at += TAR_BLOCK + -(-member.size // TAR_BLOCK) * TAR_BLOCK


def _other_chunks(place: Place, shard: str, offset: int, size: int) -> Iterator[str]:
    """Names of chunks of a PNG that a picture does not need."""
    at = offset + _PNG_HEAD
    while at + _CHUNK_HEAD + _CHUNK_END <= offset + size:
        head = place.read_range(shard, at, _CHUNK_HEAD)
        if head[4:] not in _PICTURE_CHUNKS:
            yield head[4:].decode("latin-1")
        at += _CHUNK_HEAD + int.from_bytes(head[:4], "big") + _CHUNK_END
        if head[4:] == b"IEND":
            if at < offset + size:
                yield "(bytes after the end)"
            return
