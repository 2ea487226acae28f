"""Judges the elements of a MATLAB file (version 5 to 7) before SciPy sees them, whose parser crashes on unknown types.

Source: MAT-File Format, version 5: a tag of type and length before each element, 8 bytes, or 4 with up to 4 of content.
"""

import struct
import zlib
from pathlib import Path

from medglip.errors import InputError

_TYPES = frozenset({1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 14, 15, 16, 17, 18})
_NUMBERS = frozenset({1, 2, 3, 4, 5, 6, 7, 9, 12, 13})
_MATRIX, _COMPRESSED = 14, 15
_DEEPEST = 16  # cells in cells


def check_matlab(path: Path) -> None:
    """Refuse a file whose elements do not lie in each other, or are of types that are none.

    Args:
        path: An existing file; one of version 4 passes, which has no such tags.

    Raises:
        InputError: it is broken or cut off.
    """
    data = path.read_bytes()
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None or len(data) < 128:
        return
    try:
        _check(data[128:], order, 0)
    except (ValueError, struct.error, zlib.error) as error:
        raise InputError(f"MATLAB file {path.name!r} cannot be read, it is broken or cut off: {error}.") from error


def _check(data: bytes, order: str, depth: int) -> None:
    """Walk over the elements of a file or matrix.

    Raises:
        ValueError: one is longer than what holds it, nested too deep, or of no known type.
    """
    if depth > _DEEPEST:
        raise ValueError(f"its arrays are nested more than {_DEEPEST} deep")
    at = number = 0
    while at < len(data):
        (word,) = struct.unpack_from(order + "I", data, at)
        small = word >> 16
        kind, length = (word & 0xFFFF, small) if small else struct.unpack_from(order + "II", data, at)
        begin = at + (4 if small else 8)
        if kind not in _TYPES or (small and (length > 4 or kind not in _NUMBERS | {16, 17, 18})):
            raise ValueError(f"an element is of the type {kind}")
        if begin + length > len(data):
            raise ValueError(f"an element of {length} bytes does not fit into {len(data) - begin}")
        if depth and number < 3 and kind not in _NUMBERS:  # flags, sizes and name come first in a matrix
            raise ValueError(f"an array begins with an element of the type {kind}")
        inside = data[begin : begin + length]
        if kind == _COMPRESSED:
            _check(zlib.decompress(inside), order, depth)
        elif kind == _MATRIX and inside:
            _check(inside, order, depth + 1)
        at = at + 8 if small else begin + (length if kind == _COMPRESSED else -(-length // 8) * 8)
        number += 1
