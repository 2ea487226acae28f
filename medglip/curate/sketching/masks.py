"""What mask files hold: binary, colours, numbers or outlines, and their raw labels. Reads a few files, converts nothing."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from medglip.curate.sketching.shapes import Shape
from medglip.errors import MedglipError
from medglip.imaging.colours import NEAR
from medglip.imaging.nifti import read_labels
from medglip.imaging.raster import read_mask_raster

# Files that are looked into: labels that only later ones show come up in the conversion, with their file and nearest names.
_LOOKED_AT = 12
_PIXELS = 40_000_000  # after so many, no further mask is looked into
_BLOCKS = 400
FEW_VALUES = 64
_RARE = 0.0005  # share of all pixels below which a colour is not taken for one that was drawn
_COMPRESSED = 8  # more values than these, white among them, and a mask was compressed or scaled
_LOSSY, _WHITE = (".jpg", ".jpeg"), 240  # compression leaves numbers beside those that were drawn
_FILLED = 4  # an outline encloses so many times its own pixels


class Kind(NamedTuple):
    """Kind of mask as the converter ``mask_images`` names it, its raw labels, and what is not sure."""

    kind: str
    labels: tuple[str, ...]
    doubts: tuple[str, ...] = ()


def some(shape: Shape) -> tuple[str, ...]:
    """A few files, from the first to the last."""
    return shape.paths[:: max(1, len(shape.paths) // _LOOKED_AT)][:_LOOKED_AT]


def label_values(folder: Path, shape: Shape) -> tuple[str, ...]:
    """Numbers in label volumes, but 0."""
    values: set[int] = set()
    for path in some(shape)[:4]:
        try:
            values.update(np.unique(read_labels(folder / path).voxels).tolist())
        except MedglipError:
            continue
    return tuple(str(value) for value in sorted(values) if value)[:FEW_VALUES]


def mask_kind(folder: Path, shape: Shape) -> Kind:
    """Kind of mask images, and their raw labels."""
    colours: Counter[tuple[int, ...]] = Counter()
    numbers: set[int] = set()
    outlines = read = pixels = 0
    for path in some(shape):
        if pixels > _PIXELS:
            break
        try:
            mask = read_mask_raster(folder / path)
        except MedglipError:
            continue
        read += 1
        pixels += mask.shape[0] * mask.shape[1]
        if mask.ndim == 3 and (mask != mask[..., :1]).any():
            packed = mask.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
            shades, counts = np.unique(packed, return_counts=True)
            colours.update({(shade >> 16, shade >> 8 & 255, shade & 255): int(n)
                            for shade, n in zip(shades.tolist(), counts, strict=True)})  # fmt: skip
        else:
            plane = mask if mask.ndim == 2 else mask[..., 0]
            numbers.update(np.unique(plane).tolist())
            outlines += _is_outline(plane)
    if not read:
        return Kind("binary", ("255",), ("none of the masks that were tried can be read",))
    if colours:
        return _of_colours(colours)
    if 2 * outlines > read:
        return Kind(
            "outline", ("255",), ("kind: the masks look like outlines, which are filled; say binary if they are lines",)
        )
    if shape.ending in _LOSSY and max(numbers) >= _WHITE:
        return Kind("binary", ("255",))
    return _of_numbers(sorted(numbers - {0}))


def _of_numbers(inside: list[int]) -> Kind:
    if not inside:
        return Kind("binary", ("255",), ("kind: the masks that were tried are empty",))
    if set(inside) <= {1, 255} or (len(inside) > _COMPRESSED and 255 in inside):
        return Kind("binary", ("255",))
    if len(inside) > FEW_VALUES:
        return Kind(
            "instances", ("255",), ("kind: many numbers; say instances if each is one object, indexed if each is a class",)
        )
    consecutive = inside == list(range(1, len(inside) + 1)) and len(inside) > _COMPRESSED
    doubt = ("kind: consecutive numbers; say instances if each is one object and not a class",) if consecutive else ()
    return Kind("indexed", tuple(map(str, inside)), doubt)


def _is_outline(plane: np.ndarray) -> bool:
    """Whether a mask encloses far more than it covers; a large one is looked at in blocks."""
    step = -(-max(plane.shape) // _BLOCKS)
    rows, columns = (-(-size // step) for size in plane.shape)
    padded = np.zeros((rows * step, columns * step), bool)
    padded[: plane.shape[0], : plane.shape[1]] = plane > 0
    mask = padded.reshape(rows, step, columns, step).any(axis=(1, 3))
    return bool(mask.any() and ndimage.binary_fill_holes(mask).sum() > _FILLED * mask.sum())


def _of_colours(colours: Counter[tuple[int, ...]]) -> Kind:
    kept: list[tuple[int, ...]] = [(0, 0, 0)]
    for shade, count in colours.most_common():  # shades near a commoner one are what compression made of it
        if len(kept) > FEW_VALUES or count < _RARE * colours.total():
            break
        if min(float(np.linalg.norm(np.subtract(shade, other))) for other in kept) > NEAR:
            kept.append(shade)
    if [min(shade) for shade in kept[1:]] == [max(shade) for shade in kept[1:]]:
        return Kind("binary", ("255",))  # white, perhaps by way of greys
    doubt = () if len(kept) <= FEW_VALUES else ("labels: the masks have too many colours for classes; are these masks?",)
    return Kind("colour", tuple(",".join(map(str, shade)) for shade in sorted(kept[1:])), doubt)
