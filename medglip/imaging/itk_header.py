"""Judges the header of an NRRD or MetaImage file before SimpleITK sees it, whose parsers crash on broken ones.

Knows the lines that say how much there is; everything else is left to SimpleITK.
"""

import math
import re
from pathlib import Path

from medglip.errors import InputError
from medglip.imaging.header import MOST_PACKED

# MetaIO and NrrdIO copy lines into buffers of fixed length.
_LONGEST_LINE = 1000
_MOST_HEADER = 64 * 1024
_MOST_AXES = 8
_META_BYTES = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "LONG": 4, "ULONG": 4, "LONG_LONG": 8,
               "ULONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}  # fmt: skip
_NRRD_BYTES = {1: ("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"),
               2: ("short", "short int", "signed short", "signed short int", "int16", "int16_t", "ushort", "unsigned short",
                   "unsigned short int", "uint16", "uint16_t"),
               4: ("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t", "float"),
               8: ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t",
                   "ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t", "double")}  # fmt: skip


def check_itk_header(path: Path) -> None:
    """Refuse a header that SimpleITK cannot be trusted with.

    Args:
        path: An existing file named .nrrd, .nhdr, .mha or .mhd.

    Raises:
        InputError: it is of another kind, a line is endless, or types, axes and sizes do not make an image of this file.
    """
    with path.open("rb") as file:
        head = file.read(_MOST_HEADER)
    nrrd = path.suffix.lower() in (".nrrd", ".nhdr")
    lines = _lines(head, nrrd, path.name)
    fields: dict[str, str] = {}
    for line in lines:
        name, sign, value = line.partition(":" if nrrd else "=")
        if sign and not line.startswith("#"):
            fields.setdefault(name.strip().lower(), value.strip())
    sizes, size_of = _nrrd(fields, path.name) if nrrd else _meta(fields, path.name)
    inside = path.suffix.lower() in (".nrrd", ".mha") and "bz" not in fields.get("encoding", "")
    promised = math.prod(sizes) * size_of
    if inside and promised > path.stat().st_size * MOST_PACKED:
        raise _broken(path.name, f"it promises {promised} bytes, and the file has {path.stat().st_size}")


def _lines(head: bytes, nrrd: bool, name: str) -> list[str]:
    """The lines of the header.

    Raises:
        InputError: it has no end, or a line of it is too long.
    """
    lines: list[str] = []
    for raw in head.split(b"\n"):
        if len(raw) > _LONGEST_LINE:
            raise _broken(name, f"a line of it has more than {_LONGEST_LINE} characters")
        line = raw.decode("latin-1").strip("\r")
        if nrrd and not line:
            return lines
        lines.append(line)
        if not nrrd and line.replace(" ", "").lower().startswith("elementdatafile="):
            return lines
    if not nrrd or len(head) == _MOST_HEADER:
        raise _broken(name, "it has no end")
    return lines


def _nrrd(fields: dict[str, str], name: str) -> tuple[list[int], int]:
    axes = _axes(fields.get("dimension", ""), name)
    kind = " ".join(fields.get("type", "").lower().split())
    size_of = next((size for size, names in _NRRD_BYTES.items() if kind in names), 0)
    if not size_of:
        raise _broken(name, f"its type is {kind[:40]!r}; allowed: a type of whole numbers or floats")
    return _numbers(fields.get("sizes", ""), axes, "sizes", name), size_of


def _meta(fields: dict[str, str], name: str) -> tuple[list[int], int]:
    axes = _axes(fields.get("ndims", ""), name)
    kind = re.sub(r"^MET_|_ARRAY$", "", fields.get("elementtype", "").upper())
    if kind not in _META_BYTES:
        raise _broken(name, f"its ElementType is {kind[:40]!r}; allowed: {', '.join(_META_BYTES)}")
    parts = _numbers(fields.get("elementnumberofchannels", "1"), 1, "ElementNumberOfChannels", name)[0]
    for word, count in (("transformmatrix", axes * axes), ("offset", axes), ("position", axes), ("elementspacing", axes)):
        if word in fields and not _are_finite(fields[word].split(), count):
            raise _broken(name, f"its {word} is {fields[word][:60]!r}; allowed: {count} numbers")
    return _numbers(fields.get("dimsize", ""), axes, "DimSize", name), _META_BYTES[kind] * parts


def _axes(text: str, name: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= _MOST_AXES:
        raise _broken(name, f"its number of axes is {text[:40]!r}; allowed: 1 to {_MOST_AXES}")
    return int(text)


def _numbers(text: str, count: int, what: str, name: str) -> list[int]:
    parts = text.split()
    if len(parts) != count or not all(part.isascii() and part.isdigit() and int(part[:19]) > 0 for part in parts):
        raise _broken(name, f"its {what} is {text[:60]!r}; allowed: {count} whole numbers above 0")
    return [int(part) for part in parts]


def _are_finite(parts: list[str], count: int) -> bool:
    try:
        return len(parts) == count and all(math.isfinite(float(part)) for part in parts)
    except ValueError:
        return False


def _broken(name: str, why: str) -> InputError:
    return InputError(f"Volume {name!r} cannot be read, its header is broken: {why}.")
