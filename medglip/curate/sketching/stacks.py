"""What array files (.npy, .npz) hold: pictures, masks, or both; the order of their axes. Loads no Python objects."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medglip.curate.sketching.guessed import TODO, Guess
from medglip.curate.sketching.masks import FEW_VALUES
from medglip.curate.sketching.pairing import paired
from medglip.curate.sketching.shapes import Shape

_COLOURS = (3, 4)
_LOOKED_AT = 64  # pictures of a stack whose mask values are read


def of_arrays(folder: Path, found: Sequence[Shape]) -> Guess:
    """Pictures with the masks that mark them, as far as names and shapes of the arrays tell."""
    plain = [shape for shape in found if not shape.marking and "type" not in shape.paths[0].rsplit("/", 1)[-1].lower()]
    marked = [shape for shape in found if shape.marking]
    images = (plain or marked)[0]
    if images.ending == ".npz":
        return _of_archives(folder, images)
    names = [path for path in images.paths if "type" not in path.rsplit("/", 1)[-1].lower()]
    images = Shape(tuple(names) or images.paths, images.marking)
    try:
        picture = np.load(folder / images.paths[0], mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        doubt = f"files: {images.paths[0]!r} cannot be read as an array of numbers: {error}"
        return Guess("npy_stacks", {"image": _own(images)}, {}, (), None, (doubt,))
    axes, doubts = _axes(picture)
    options = {"axes": axes}
    if not plain or not marked or marked[0].ending != ".npy":
        doubts += ("files: no array is known to mark the others, which are converted without regions",)
        return Guess("npy_stacks", {"image": _own(images)}, options, (), None, doubts)
    pair = paired(images, marked[0])
    one = len(images.paths) == len(marked[0].paths) == 1
    files = {"image": _own(images), "mask": marked[0].paths[0]} if one else {"image": pair.image, "mask": pair.marks}
    types = [path for shape in found for path in shape.paths if path.rsplit("/", 1)[-1].lower().startswith("type")]
    if one and len(types) == 1 and "n" in axes:
        files["types"] = types[0]
    try:
        mask = np.load(folder / marked[0].paths[0], mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        return Guess("npy_stacks", files, options, (), None, (*doubts, f"files: the masks cannot be read: {error}"))
    more, labels, unsure = _marks(mask, axes)
    return Guess("npy_stacks", files, options | more, labels, None, doubts + unsure)


def _own(shape: Shape) -> str:
    return shape.paths[0] if len(shape.paths) == 1 else shape.pattern


def _axes(array: np.ndarray) -> tuple[str, tuple[str, ...]]:
    """Order of the axes of pictures, and what is not sure."""
    if array.ndim == 4:
        return (
            ("nhwc", ()) if array.shape[3] in (1, *_COLOURS) else ("nchw", () if array.shape[1] in (1, 3) else _unsure(array))
        )
    if array.ndim == 3 and array.shape[2] not in (1, *_COLOURS):
        return "nhw", ("axes: nhw is pictures of one colour; a volume needs volume = true",)
    return {2: ("hw", ()), 3: ("hwc", ())}.get(array.ndim, ("hw", _unsure(array)))


def _unsure(array: np.ndarray) -> tuple[str, ...]:
    return (f"axes: an array of the shape {array.shape}",)


def _marks(mask: np.ndarray, axes: str) -> tuple[dict[str, str], tuple[str, ...], tuple[str, ...]]:
    """Options and raw labels of masks beside pictures with such axes, and what is not sure."""
    plain = axes.replace("c", "")
    values = np.unique(mask[:_LOOKED_AT]) if "n" in axes else np.unique(mask)
    whole = values.dtype.kind in "biu" or bool(np.isfinite(values).all() and (values == np.round(values)).all())
    if mask.ndim == len(plain):
        labels = tuple(str(int(value)) for value in values if value)[:FEW_VALUES] if whole else ()
        doubts = (
            () if whole and len(values) <= FEW_VALUES else ("kind: numbers of classes (indexed) or of objects (instances)?",)
        )
        return {"mask_axes": plain}, labels, doubts
    if mask.ndim != len(plain) + 1:
        return {}, (), (f"mask_axes: an array of the shape {mask.shape}",)
    order = plain + "c" if mask.shape[-1] <= FEW_VALUES else plain.replace("h", "ch")
    layers = mask.shape[order.index("c")]
    kind = "instance_layers" if len(values) and values.max() > 1 and values.max() != 255 else "layers"
    doubts = ("labels: each number is a layer; is one of them the background?",)
    return {"mask_axes": order, "kind": kind}, tuple(map(str, range(layers)))[:FEW_VALUES], doubts


def _of_archives(folder: Path, images: Shape) -> Guess:
    """Files of several arrays: which is the picture, which the mask."""
    pattern = images.pattern
    try:
        with np.load(folder / images.paths[0], allow_pickle=False) as archive:
            shown = {name: archive[name].shape for name in archive.files}
            image = next((name for name in shown if name.lower().startswith(("im", "x", "data", "vol"))), None)
            mask = next((name for name in shown if name.lower().startswith(("label", "mask", "gt", "seg", "y"))), None)
            labels = np.unique(archive[mask]).tolist() if mask else []
    except (OSError, ValueError, KeyError) as error:
        doubt = f"files: {images.paths[0]!r} cannot be read as arrays of numbers: {error}"
        return Guess("npy_stacks", {"image": pattern}, {}, (), None, (doubt,))
    told = ", ".join(f"{name} {shape}" for name, shape in shown.items())
    doubts: tuple[str, ...] = () if image and mask else (f"image_key and mask_key: the arrays are {told}",)
    options: dict[str, object] = {"image_key": image or TODO}
    files = {"image": pattern}
    if mask:
        options["mask_key"], files["mask"] = mask, pattern
    if image and len(shown[image]) == 3 and shown[image][2] not in _COLOURS:
        options["volume"] = True
        doubts += (f"volume: {image} has the shape {shown[image]}; are these slices?",)
    return Guess("npy_stacks", files, options, tuple(str(value) for value in labels if value)[:FEW_VALUES], None, doubts)
