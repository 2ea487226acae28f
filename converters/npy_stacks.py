"""Pictures and masks as arrays: stacks in ``.npy``, volumes in ``.npz``, class layers in sparse ``.npz``, maps in ``.mat``.

Roles: ``image`` (``.npy``, ``.npz``, raster or DICOM), ``mask`` (``.npy``, ``.npz``, ``.mat``), ``types`` (``.npy``, one
text a picture of a stack), ``rows`` (CSV, one row a picture of a stack, in its order), ``names`` (JSON with the names of
raw labels), ``about`` (see medglip/curate/tables.py).

A ``.npy`` is read where it lies, one picture after the other: each is a case. Python objects are never loaded.

Options:
- ``axes``, ``mask_axes``: the order of the axes, of ``n`` (pictures), ``h``, ``w`` and ``c`` (colours of images, classes
  of masks), for example ``nhwc``; default ``hw`` or ``hwc`` for single pictures;
- ``kind``: ``indexed`` (default: a number a class), ``instances`` (a number an object), ``layers`` (a layer a class) or
  ``instance_layers`` (a layer a class, in which every number is an object);
- ``sparse``: true where the mask is a SciPy sparse matrix of flattened layers whose shape, layers first, its pattern
  remembers as ``{shape}``: ``label/{case}.{shape}.npz``;
- ``image_key``, ``mask_key``: names of the arrays in files of several;
- ``label``: raw label of objects that have no class;
- ``class_map_key``: the array with the class of each pixel: an object's class is the one of most of its pixels;
- ``class_key``, ``id_key``: the array with the class of each object, and the one with the objects' numbers;
- ``first_label``: number of the first layer in ``[part.labels]`` or ``names``; default 0;
- ``only``: words for modalities: cases whose ``names`` says another ``modality`` are left to other parts;
- ``volume``: true where a file is a volume, slices first; then also the options of ``medglip.curate.volumes``, and
  ``spacing_key``: the array with its spacing in mm, as x, y, z;
- ``window``: see medglip/curate/images.py. Colours that are not whole numbers from 0 to 255 need it.

A type is the name ``{type}`` in templates, the columns of ``rows`` and the picture's number ``{index}`` are names too.
Raw labels are numbers, or, with ``names``, what the file calls them in ``labels``. A layer or number that has no entry is
refused. The background is 0, but for layers, where it is a layer: write ``"5" = "skip"``.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.ndimage import find_objects

from medglip.curate.cases import Case, Refused, Shot, joined
from medglip.curate.images import read_image
from medglip.curate.layout import find
from medglip.curate.marks import Marks, reason_of
from medglip.curate.regions import region_of_box, regions_of_mask
from medglip.curate.source import Named, Part
from medglip.curate.tables import ABOUT_OPTIONS, described, read_table
from medglip.curate.volumes import OPTIONS as VOLUME_OPTIONS
from medglip.curate.volumes import pictures_of_volume, structure_of
from medglip.errors import InputError, SourceError
from medglip.imaging.arrays import PickledError, read_array, read_sparse_layers, shape_in
from medglip.imaging.intensity import encode, storage_of
from medglip.imaging.volume import Volume
from medglip.records import Picture, Region, Reject, VolumeRecord, rle_of_crop

ROLES = ("image", "mask", "types", "rows", "names", "about")
OPTIONS = tuple(dict.fromkeys((
    "axes", "mask_axes", "kind", "sparse", "image_key", "mask_key", "label", "class_map_key", "class_key", "id_key",
    "first_label", "only", "volume", "spacing_key", "window", *VOLUME_OPTIONS, *ABOUT_OPTIONS,
)))  # fmt: skip

_KINDS = ("indexed", "instances", "layers", "instance_layers")
_ARRAYS = (".npy", ".npz")


class Shown(NamedTuple):
    """What a mask shows of one label.

    Attributes:
        raw: The raw label.
        mask: (H, W) of the picture, or of the window of one object.
        corner_xy: Column and row of the window's first pixel; None: the mask is the picture's, its parts are the objects.
    """

    raw: str
    mask: np.ndarray
    corner_xy: tuple[int, int] | None = None


def cases(part: Part, folder: Path) -> Iterator[Case | Reject]:
    """One case a picture of a ``.npy`` stack; else one a file.

    Raises:
        SourceError: an option has a value that is not allowed.
    """
    _check_options(part)
    told: set[str] = set()
    for case in described(part, joined(part, folder)):
        if isinstance(case, Reject):
            yield case
            continue
        try:
            if (wanted := part.option("only")) and not set(wanted).intersection(_named_in(case)[1]):
                continue
        except (InputError, Refused) as error:
            file = (case.files.get("names") or (case.one("image"),))[0]
            if file not in told:
                yield Reject(part.source, file, reason_of(error), str(error), case.key)
            told.add(file)
            continue
        try:
            yield from _pictures(part, case)
        except (InputError, Refused):
            yield case  # converting it says the same, and lists it


def convert(part: Part, case: Case) -> Iterator[Picture | VolumeRecord | Reject]:
    """One picture with its regions, or the planes of a volume."""
    if part.option("volume"):
        yield from _of_volume(part, case)
        return
    if "n" in part.option("axes", "") and "index" not in case.fields:
        _pictures(part, case)  # it could not be parted into pictures: raises why
    pixels, shot = _image(part, case)
    marks = Marks(part, case, labelled=bool(case.files.get("mask")))
    if marks.labelled:
        file = case.one("mask")
        size_hw = pixels.shape[0], pixels.shape[1]
        for shown in _layers(part, case, file, size_hw):
            with marks.item(file):
                if named := part.named(shown.raw, file):
                    marks.regions += _regions(part, named, shown, size_hw)
    yield from marks.rejects
    yield marks.picture(pixels, shot)


def _regions(part: Part, named: Named, shown: Shown, size_hw: tuple[int, int]) -> list[Region]:
    if shown.corner_xy is None:
        return regions_of_mask(part, named, shown.mask)
    (x0, y0), (height, width) = shown.corner_xy, shown.mask.shape
    box = float(x0), float(y0), float(x0 + width), float(y0 + height)
    return [region_of_box(part, named, box, size_hw, rle_of_crop(shown.mask, shown.corner_xy, size_hw))]


def _check_options(part: Part) -> None:
    where = f"datasets/{part.source}.toml"
    if (kind := part.option("kind", "indexed")) not in _KINDS:
        raise SourceError(f"{where}: option kind is {kind!r}; allowed: {', '.join(_KINDS)}.")
    for name in ("axes", "mask_axes"):
        axes = part.option(name, "hw")
        if len(set(axes)) != len(axes) or not {"h", "w"} <= set(axes) <= set("nhwc"):
            raise SourceError(f"{where}: option {name} is {axes!r}; allowed: h and w once each, and n or c, such as 'nhwc'.")


def _array(path: Path, key: str | None) -> np.ndarray:
    try:
        return read_array(path, key)
    except PickledError as error:
        raise Refused("pickled_array", str(error)) from error


def _pictures(part: Part, case: Case) -> list[Case]:
    """A case for each picture of a stack; of a single picture, the case itself.

    Raises:
        Refused: the stack holds Python objects, or a file beside it speaks of another number of pictures.
        InputError: a file is broken.
    """
    if "n" not in part.option("axes", ""):
        return [case]
    array = _array(case.path(case.one("image")), part.option("image_key"))
    _check_axes(array, part.option("axes"), case.one("image"))
    count = array.shape[part.option("axes").index("n")]
    told = _fields_of(case, count)
    return [replace(case, key=f"{case.key}#{n:06d}", fields=case.fields | fields) for n, fields in enumerate(told)]


def _fields_of(case: Case, count: int) -> list[dict[str, str]]:
    """What is said of each picture of a stack.

    Raises:
        Refused: a file beside the stack speaks of another number of pictures.
    """
    told = [{"index": str(index)} for index in range(count)]
    for role in ("types", "rows"):
        if not case.files.get(role):
            continue
        file = case.one(role)
        if role == "types":
            said = [{"type": str(word)} for word in _array(case.path(file), None).ravel()]
        else:
            table = read_table(case.folder, file)
            said = [{name: cell for name, cell in zip(table.names, row, strict=True) if name} for row in table.rows]
        if len(said) != count:
            raise Refused(
                "size_mismatch", f"{file!r} speaks of {len(said)} pictures, its stack {case.one('image')!r} has {count}."
            )
        told = [one | other for one, other in zip(told, said, strict=True)]
    return told


def _check_axes(array: np.ndarray, axes: str, file: str) -> None:
    if array.ndim != len(axes):
        raise Refused("size_mismatch", f"Array {file!r} has {array.ndim} axes {array.shape}, not {len(axes)}: {axes!r}.")


def _plane(array: np.ndarray, axes: str, index: int | None, file: str) -> np.ndarray:
    """One picture of an array: (H, W) or (H, W, C)."""
    _check_axes(array, axes, file)
    if "n" in axes and index is not None:
        if index >= array.shape[axes.index("n")]:
            raise Refused("size_mismatch", f"Array {file!r} has {array.shape[axes.index('n')]} pictures; no {index} is asked.")
        array = array.take(index, axis=axes.index("n")) if not isinstance(array, np.memmap) else _taken(array, axes, index)
        axes = axes.replace("n", "")
    return np.asarray(array).transpose([axes.index(axis) for axis in "hwc" if axis in axes])


def _taken(array: np.ndarray, axes: str, index: int) -> np.ndarray:
    """A picture of a file: a view, so that no more than that is read."""
    return array[tuple(index if axis == "n" else slice(None) for axis in axes)]


def _image(part: Part, case: Case) -> tuple[np.ndarray, Shot]:
    """Pixels as they will be stored, and what is known of them."""
    file = case.one("image")
    if Path(file).suffix.lower() not in _ARRAYS:
        return read_image(part, case.path(file))
    index = int(case.fields["index"]) if "index" in case.fields else None
    array = _array(case.path(file), part.option("image_key"))
    values = _plane(array, part.option("axes", "hw" if array.ndim == 2 else "hwc"), index, file)
    values = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    if values.ndim == 3 and values.shape[2] != 3:
        raise Refused("bad_pixels", f"Picture {file!r} has {values.shape[2]} colours; allowed: 1 or 3.")
    if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
        raise Refused("bad_pixels", f"Picture {file!r} of {values.dtype} is no array of finite numbers.")
    if values.min() == values.max():
        raise Refused("constant_image", f"All pixels of {case.key!r} are {values.flat[0]}; there is nothing to see.")
    window = part.option("window")
    if values.dtype != np.uint8 and window is None and values.min() >= 0 and values.max() <= 255:
        whole = np.rint(values).astype(np.uint8)
        values = whole if np.array_equal(whole, values) and values.max() > 1 else values
    if values.ndim == 3 and values.dtype != np.uint8 and window is None:
        raise Refused(
            "bad_pixels",
            f"Colours of {case.key!r} lie between {values.min():g} and {values.max():g} and are no whole numbers up to 255;"
            " set the option window to what black and white are, for example [0, 1].",
        )
    storage = storage_of(values, "rgb" if values.ndim == 3 else "au", window=window)
    return encode(values, storage), Shot(frame=index, intensity=storage)


def _layers(part: Part, case: Case, file: str, size_hw: tuple[int, int]) -> Iterator[Shown]:
    """Raw label and mask of what a mask file shows in one picture."""
    kind = part.option("kind", "indexed")
    names = _named_in(case)[0] if case.files.get("names") else {}
    first = part.option("first_label", 0)
    if part.option("sparse"):
        for number, mask in _sparse(part, case, file, size_hw).items():
            yield Shown(names.get(str(number + first), str(number + first)), mask)
        return
    index = int(case.fields["index"]) if "index" in case.fields else None
    array = _array(case.path(file), part.option("mask_key"))
    layered = kind in ("layers", "instance_layers")
    plane = _numbers(_plane(array, part.option("mask_axes", "hwc" if layered else "hw"), index, file), file)
    if plane.shape[:2] != size_hw:
        raise Refused("size_mismatch", f"Mask {file!r} has {plane.shape[:2]} rows and columns, its image {size_hw}.")
    if kind == "instances":
        yield from _objects(part, case, file, plane)
    elif kind == "indexed":
        for value in np.unique(plane[plane != 0]).tolist():
            yield Shown(names.get(str(value), str(value)), plane == value)
    else:
        for number in range(plane.shape[2]):
            raw, layer = names.get(str(number + first), str(number + first)), plane[..., number]
            single = kind == "instance_layers" and part.named(raw, file) is not None
            if single:
                yield from (Shown(raw, mask, corner) for _, mask, corner in _numbered(layer))
            else:
                yield Shown(raw, layer != 0)


def _sparse(part: Part, case: Case, file: str, size_hw: tuple[int, int]) -> dict[int, np.ndarray]:
    """Layers of a sparse mask whose shape its name says."""
    fields = next(find(part.files["mask"], (file,))).fields
    if "shape" not in fields:
        raise SourceError(f"datasets/{part.source}.toml: the mask's pattern remembers no {{shape}}, which sparse needs.")
    shape = shape_in(fields["shape"])
    if len(shape) == 4 and shape[3] == 1:
        shape = shape[:3]
    if len(shape) != 3 or shape[1:] != size_hw:
        raise Refused(
            "size_mismatch",
            f"Mask {file!r} says the shape {shape}; its image needs (layers, {size_hw[0]}, {size_hw[1]}).",
        )
    return read_sparse_layers(case.path(file), (shape[0], shape[1], shape[2]))


def _objects(part: Part, case: Case, file: str, plane: np.ndarray) -> Iterator[Shown]:
    """Each object of a map, with the raw label of its class."""
    path = case.path(file)
    classes: dict[int, int] = {}
    kinds = None
    if key := part.option("class_map_key"):
        kinds = _numbers(_array(path, key), file)
        if kinds.shape != plane.shape:
            raise Refused("size_mismatch", f"{key!r} of {file!r} has the shape {kinds.shape}, its objects {plane.shape}.")
    elif key := part.option("class_key"):
        found = _numbers(_array(path, key), file).ravel()
        ids = _array(path, part.option("id_key")) if part.option("id_key") else np.unique(plane[plane != 0])
        if len(found) != ids.size:
            raise Refused("size_mismatch", f"{file!r} has {len(found)} classes for {ids.size} objects.")
        classes = dict(zip(_numbers(ids, file).ravel().tolist(), found.tolist(), strict=True))
    for number, mask, (x0, y0) in _numbered(plane):
        raw = str(classes.get(number, "")) if classes else part.option("label", "")
        if kinds is not None:
            inside, counts = np.unique(kinds[y0 : y0 + mask.shape[0], x0 : x0 + mask.shape[1]][mask], return_counts=True)
            raw = str(inside[counts.argmax()])
        yield Shown(raw, mask, (x0, y0))


def _numbered(plane: np.ndarray) -> Iterator[tuple[int, np.ndarray, tuple[int, int]]]:
    """Number, tight mask and first column and row of each object; there may be thousands, so each is looked at alone."""
    numbers, places = np.unique(plane, return_inverse=True)
    places = places.reshape(plane.shape) + 1
    for number, window in zip(numbers.tolist(), find_objects(places), strict=True):
        if number:
            rows, columns = window
            yield number, plane[window] == number, (int(columns.start), int(rows.start))


def _numbers(array: np.ndarray, file: str) -> np.ndarray:
    """An array of whole numbers as such.

    Raises:
        Refused: it holds others.
    """
    if array.dtype.kind in "biu":
        return array
    whole = np.rint(array)
    if array.dtype.kind != "f" or not np.isfinite(array).all() or np.abs(whole - array).max(initial=0.0) > 1e-3:
        raise Refused("non_integer_labels", f"Mask {file!r} of {array.dtype} holds numbers that are not whole.")
    return whole.astype(np.int64)


def _named_in(case: Case) -> tuple[dict[str, str], tuple[str, ...]]:
    """Raw labels by their numbers, and the modalities, that the case's JSON says."""
    path = case.path(case.one("names"))
    return _read_names(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _read_names(path: Path, _stamp: int) -> tuple[dict[str, str], tuple[str, ...]]:
    try:
        data = json.loads(path.read_bytes())
        labels = {str(number): str(name) for number, name in data["labels"].items()}
        return labels, tuple(str(name).casefold() for name in data.get("modality", {}).values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"Names {path.name!r} cannot be read: {type(error).__name__}: {error}; needed: labels.") from error


def _of_volume(part: Part, case: Case) -> Iterator[Picture | VolumeRecord | Reject]:
    """The planes of a volume in a ``.npz``, with a region for each number of its mask."""
    image, file = case.one("image"), (case.files.get("mask") or case.files["image"])[0]
    voxels, labels = _array(case.path(image), part.option("image_key")), _array(case.path(file), part.option("mask_key"))
    labels = _numbers(labels, file)
    if voxels.ndim != 3 or voxels.shape != labels.shape:
        raise Refused("size_mismatch", f"{file!r} has the shape {labels.shape}, its image {voxels.shape}; K, J, I are needed.")
    spacing = None
    if key := part.option("spacing_key"):
        x, y, z = (float(step) for step in _array(case.path(image), key).ravel())
        spacing = (z, y, x) if min(x, y, z) > 0 else None
    window = (0.0, 255.0) if voxels.dtype == np.uint8 else None  # the windowing is in the numbers already
    volume = Volume(voxels, spacing_kji_mm=spacing, window=window, flags=("orientation_unknown",))
    structures = []
    for value in np.unique(labels[labels != 0]).tolist():
        if named := part.named(str(value), f"{file}, value {value}"):
            structures.append(structure_of(named, labels == value))
    yield from pictures_of_volume(part, case, volume, structures, file=image, searched=part.exhaustive)
