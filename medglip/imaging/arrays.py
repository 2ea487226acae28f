"""Arrays in NumPy, SciPy and MATLAB files. Knows nothing of what they show.

Nothing is ever unpickled: a file of Python objects can run any program when it is loaded, so it is refused.
"""

import re
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from medglip.errors import InputError
from medglip.imaging.matlab_header import check_matlab

# Also what NumPy's and SciPy's parsers fall over, and what a ZIP holds that Python cannot unpack.
_BROKEN = (OSError, EOFError, LookupError, TypeError, ValueError, MemoryError, SyntaxError, NameError, AttributeError,
           ArithmeticError, RuntimeError, zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError)  # fmt: skip
_SHAPE = re.compile(r"\(?\s*\d{1,9}(?:\s*,\s*\d{1,9})*\s*,?\s*\)?")


class PickledError(InputError):
    """A file holds Python objects, which could only be loaded by running what they say."""


def read_array(path: Path, key: str | None = None) -> np.ndarray:
    """One array of a ``.npy``, ``.npz`` or ``.mat`` file.

    Args:
        path: The file. A ``.npy`` stays on disk: only what is taken of it is read.
        key: Name of the array in a ``.npz`` or ``.mat``; may be left out where there is only one.

    Raises:
        PickledError: it holds Python objects.
        InputError: it is missing or broken, or holds no array of that name.
    """
    if path.suffix.lower() == ".mat":
        return _read_matlab(path, key)
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"PK"
        array = _read_packed(path, key) if packed else np.load(path, mmap_mode="r", allow_pickle=False)
    except InputError:
        raise
    except _BROKEN as error:
        if "object" in str(error).lower() or "pickle" in str(error).lower():
            raise PickledError(
                f"Array {path.name!r} holds Python objects, and loading them could run any program; allowed: numbers and"
                " text. Write it again with a plain dtype, from a program that you trust."
            ) from error
        raise InputError(f"Array {path.name!r} cannot be read, it is missing, broken or cut off: {error}.") from error
    if array.size == 0:
        raise InputError(f"Array {path.name!r} has the shape {array.shape}; allowed: none of them 0.")
    return array


def _read_packed(path: Path, key: str | None) -> np.ndarray:
    with np.load(path, allow_pickle=False) as arrays:
        names = list(arrays.files)
        name = names[0] if key is None and len(names) == 1 else key
        if name not in names:
            raise InputError(f"Array file {path.name!r} has no {key!r}; it has {', '.join(map(repr, names))}.")
        return np.asarray(arrays[name])


def _read_matlab(path: Path, key: str | None) -> np.ndarray:
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import MatReadError

    try:
        check_matlab(path)
        names = [name for name, _, _ in whosmat(path)]
        name = names[0] if key is None and len(names) == 1 else key
        if name not in names:
            raise InputError(f"MATLAB file {path.name!r} has no {key!r}; it has {', '.join(map(repr, names))}.")
        array = loadmat(path, variable_names=[name])[name]
    except NotImplementedError as error:
        raise InputError(f"MATLAB file {path.name!r} is of version 7.3 (HDF5); allowed: up to 7. Save it so.") from error
    except (*_BROKEN, MatReadError) as error:
        raise InputError(f"MATLAB file {path.name!r} cannot be read, it is missing, broken or cut off: {error}.") from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name!r} of MATLAB file {path.name!r} is no array of numbers but {array.dtype}; allowed: numbers.")
    return array


def shape_in(text: str) -> tuple[int, ...]:
    """The shape that a text says; nothing of it is evaluated.

    Raises:
        InputError: it is none.

    >>> shape_in("(13, 512, 512, 1)")
    (13, 512, 512, 1)
    """
    if not _SHAPE.fullmatch(text.strip()):
        raise InputError(f"{text!r} is no shape; allowed: whole numbers with commas between, such as (13, 512, 512, 1).")
    return tuple(int(number) for number in re.findall(r"\d+", text))


def read_sparse_layers(path: Path, shape: tuple[int, int, int]) -> dict[int, np.ndarray]:
    """Layers of a SciPy sparse matrix (``.npz``) that is a flattened (C, H, W) mask.

    Only the cells that are not zero are ever laid out, so that a small file cannot ask for a large memory.

    Args:
        path: The file.
        shape: C, H, W: what the matrix is, read along its rows.

    Returns:
        Number of each layer that is not empty -> (H, W) bool.

    Raises:
        InputError: it is missing or broken, or has another number of cells.
    """
    from scipy.sparse import load_npz

    try:
        matrix = load_npz(path).tocoo()  # never unpickles
    except _BROKEN as error:
        raise InputError(f"Sparse array {path.name!r} cannot be read, it is missing, broken or cut off: {error}.") from error
    layers, height, width = shape
    if int(matrix.shape[0]) * int(matrix.shape[1]) != layers * height * width:
        raise InputError(
            f"Sparse array {path.name!r} is {matrix.shape[0]} x {matrix.shape[1]} cells; {layers} layers of {height} x"
            f" {width} pixels are needed."
        )
    flat = matrix.row.astype(np.int64) * matrix.shape[1] + matrix.col
    flat = flat[matrix.data != 0]
    if flat.size and (flat.min() < 0 or flat.max() >= layers * height * width):
        raise InputError(f"Sparse array {path.name!r} has cells outside its own shape; it is broken.")
    found: dict[int, np.ndarray] = {}
    numbers, inside = np.divmod(flat, height * width)
    for number in np.unique(numbers):
        layer = np.zeros(height * width, dtype=bool)
        layer[inside[numbers == number]] = True
        found[int(number)] = layer.reshape(height, width)
    return found
