"""Images with masks as image files: binary, one colour a class, one number a class, one number an object, or outlines.

Roles: ``image`` (raster or DICOM), ``mask`` (raster; any number an image, matched by the names that both patterns
remember), ``about`` (see medglip/curate/tables.py). Without a mask role the images come with their texts only. A mask
pattern that remembers ``{frame}`` means a frame of a multi-frame image, unless the image's pattern remembers it too, which
then has a file a frame; frames without a mask are left out.

Options:
- ``kind``: ``binary`` (default), ``colour``, ``indexed``, ``instances`` (every number is one object) or ``outline`` (a
  thin closed line, which is filled);
- ``label``: template of the raw label of binary, instances and outline masks, or a list of templates of which the first
  known to ``[part.labels]`` counts; default ``"255"``. It may name what the image's and the mask's patterns remember;
- ``spaces``: characters that stand for a space in a raw label, for example ``"+_"``; default none;
- ``threshold``: least value inside a binary mask or on an outline, of 255; default 128;
- ``several``: ``union`` (default): masks of one label are parts of one mask; ``each``: every file is one object;
- ``apart``: raw labels whose connected parts are regions of their own although the label is not countable: paired
  organs in a source that does not tell the sides;
- ``resize_mask``: ``nearest`` scales a mask of another size, where the aspect ratios agree within 1 %; default refuse;
- ``missing_mask``: ``unlabelled`` (default), or ``negative`` where the source writes no file for an empty mask;
- ``first_frame``: number of the first frame in file names; default 0;
- ``window``: see medglip/curate/images.py.

Raw labels of colour masks are ``"255,0,0"``, of indexed masks ``"7"``. Black and 0 are background unless listed.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage
from skimage.morphology import convex_hull_image

from medglip.curate.cases import Case, Refused, joined, region_of_mask, regions_of_mask
from medglip.curate.images import lossy, read_image, sized_mask
from medglip.curate.layout import find
from medglip.curate.marks import Marks
from medglip.curate.source import Named, Part
from medglip.curate.tables import ABOUT_OPTIONS, described, filled
from medglip.errors import SourceError
from medglip.imaging.colours import classes_of_colours
from medglip.imaging.raster import read_mask_raster, read_raster
from medglip.records import Picture, Region, Reject

ROLES = ("image", "mask", "about")
OPTIONS = ("kind", "label", "spaces", "threshold", "several", "apart", "resize_mask", "missing_mask", "first_frame",
           "window", *ABOUT_OPTIONS)  # fmt: skip

# A mask whose inside is more of the image than this, and touches all four borders, may be inverted.
_INVERTED = 0.95
# Values that are neither clearly inside nor clearly outside, and the share of the inside that is worth a flag.
_AMBIGUOUS, _SOFT = (16, 223), 0.1


def cases(part: Part, folder: Path) -> Iterator[Case | Reject]:
    """One case an image, with its masks."""
    return described(part, joined(part, folder))


def convert(part: Part, case: Case) -> Iterator[Picture | Reject]:
    """One picture an image or, where masks name frames, one a frame."""
    image = case.one("image")
    for frame, files in sorted(_by_frame(part, case).items(), key=lambda entry: entry[0] or 0):
        pixels, shot = read_image(part, case.path(image), frame)
        marks = Marks(part, case, labelled=bool(files) or part.option("missing_mask") == "negative")
        masks: dict[Named, np.ndarray] = {}
        for file in files:
            with marks.item(file):
                _read(marks, masks, file, pixels.shape[:2])
        marks.regions += [region for named, mask in masks.items() for region in _regions(part, named, mask)]
        if files and not marks.regions and len(marks.rejects) >= len(files):
            raise Refused(marks.rejects[0].reason, marks.rejects[0].detail)
        yield from marks.rejects
        yield marks.picture(pixels, shot)


def _by_frame(part: Part, case: Case) -> dict[int | None, list[str]]:
    files: dict[int | None, list[str]] = {}
    for file in case.files.get("mask", ()):
        frame = None if "frame" in case.fields else _names(part, case, file).get("frame")
        files.setdefault(int(frame) - part.option("first_frame", 0) if frame else None, []).append(file)
    return files or {None: []}


def _names(part: Part, case: Case, file: str) -> dict[str, str]:
    """What the names of the image and of one of its masks say."""
    return {**case.fields, **next(find(part.files["mask"], (file,))).fields}


def _read(marks: Marks, masks: dict[Named, np.ndarray], file: str, size_hw: tuple[int, int]) -> None:
    """Take in one mask file: add to the mask of each of its labels, or make one region an object."""
    part, path = marks.part, marks.case.path(file)
    kind = part.option("kind", "binary")
    readers = {"binary": _binary, "outline": _binary, "colour": _colour, "indexed": _indexed, "instances": _instances}
    if kind not in readers:
        raise SourceError(f"datasets/{part.source}.toml: option kind is {kind!r}; allowed: {', '.join(readers)}.")
    array = read_mask_raster(path) if kind in ("indexed", "instances") else read_raster(path)
    if kind == "binary" and array.min() == array.max():
        array = read_mask_raster(path)  # perhaps drawn in the alpha channel
    for named, mask in readers[kind](marks, file, sized_mask(part, array, size_hw, file)):
        if named and mask.any() and (kind == "instances" or part.option("several") == "each"):
            marks.regions.append(region_of_mask(part, named, mask))
        elif named and mask.any():
            masks[named] = masks[named] | mask if named in masks else mask
        elif named and kind not in ("colour", "indexed"):
            marks.searched.add(named.concept)  # a file for this label, and nothing in it


def _regions(part: Part, named: Named, mask: np.ndarray) -> list[Region]:
    if part.option("kind") != "outline":
        apart = any(part.named(raw, "option apart") == named for raw in part.option("apart", ()))
        return regions_of_mask(part, named, mask, apart=apart)
    inside = ndimage.binary_fill_holes(ndimage.binary_closing(mask, np.ones((3, 3))) | mask)
    if inside.sum() >= 2 * mask.sum():
        return [region_of_mask(part, named, inside)]
    # The line is open: worn by compression, or cut by the border of the image.
    return [region_of_mask(part, named, convex_hull_image(mask), flags=("uncertain",))]


def _binary(marks: Marks, file: str, array: np.ndarray) -> Iterator[tuple[Named | None, np.ndarray]]:
    named = _label(marks, file)
    values = array.max(axis=2) if array.ndim == 3 else array
    exact = not lossy(marks.case.path(file))
    top = 1 if exact and values.max() == 1 else 255 if values.dtype == np.uint8 else max(255, int(values.max()))
    threshold = marks.part.option("threshold", 128) * top / 255
    mask = values >= threshold
    brightest = int(values.max())
    if not mask.any() and brightest > (0 if exact else _AMBIGUOUS[0]):
        raise Refused(
            "unknown_label",
            f"Mask {file!r} holds no value from {threshold:g} up, but {np.count_nonzero(values)} pixels with values up"
            f' to {brightest}; set the option threshold, or kind = "indexed" with these values as labels.',
        )
    unclear = np.count_nonzero((values * (255 / top) >= _AMBIGUOUS[0]) & (values * (255 / top) <= _AMBIGUOUS[1]))
    if mask.any() and unclear > _SOFT * mask.sum() and marks.part.option("kind") != "outline":
        marks.flags += ("soft_mask",)
    if mask.mean() > _INVERTED and all(edge.any() for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1])):
        marks.flags += ("maybe_inverted",)
    yield named, mask


def _colour(marks: Marks, file: str, array: np.ndarray) -> Iterator[tuple[Named | None, np.ndarray]]:
    rgb = np.stack([array] * 3, axis=2) if array.ndim == 2 else array
    known = {tuple(int(number) for number in raw.split(",")): raw for raw in marks.part.labels}
    known = {(0, 0, 0): "", **known}
    classes, unknown = classes_of_colours(rgb.astype(np.uint8, copy=False), np.array(list(known)))
    for colour, pixels, nearest in unknown:
        marks.refuse(file, "unknown_label", _unknown(file, "colour", colour, pixels, nearest))
    for number, raw in enumerate(known.values()):
        if raw:
            yield marks.part.named(raw, file), classes == number


def _indexed(marks: Marks, file: str, array: np.ndarray) -> Iterator[tuple[Named | None, np.ndarray]]:
    numbers = _numbers(array, file)
    known = {int(raw) for raw in marks.part.labels}
    for value, pixels in zip(*np.unique(numbers, return_counts=True), strict=True):
        if value not in known and value != 0:
            nearest = min(known, key=lambda other: abs(other - int(value)))
            marks.refuse(file, "unknown_label", _unknown(file, "value", int(value), int(pixels), nearest))
    for value in sorted(known):
        yield marks.part.named(str(value), file), numbers == value


def _instances(marks: Marks, file: str, array: np.ndarray) -> Iterator[tuple[Named | None, np.ndarray]]:
    numbers, named = _numbers(array, file), _label(marks, file)
    found = np.unique(numbers[numbers != 0])
    yield from ((named, numbers == value) for value in found)
    if not found.size:
        yield named, np.zeros(numbers.shape, bool)


def _numbers(array: np.ndarray, file: str) -> np.ndarray:
    if array.ndim == 3 and (array != array[..., :1]).any():
        raise Refused("colour_mask", f'Mask {file!r} has colours where numbers are needed; say kind = "colour".')
    return array[..., 0] if array.ndim == 3 else array


def _label(marks: Marks, file: str) -> Named | None:
    """The label of a mask that shows one thing."""
    part = marks.part
    templates = part.option("label", "255")
    case = Case(marks.case.key, marks.case.folder, {}, _names(part, marks.case, file))
    blanks = str.maketrans(dict.fromkeys(part.option("spaces", ""), " "))
    raws = [filled(text, case).translate(blanks) for text in ([templates] if isinstance(templates, str) else templates)]
    return part.named(next((raw for raw in raws if raw in part.labels), raws[-1]), file)


def _unknown(file: str, what: str, found: object, pixels: int, nearest: object) -> str:
    return (
        f"Mask {file!r} has {pixels} pixels of the {what} {found!r}, which has no entry in [part.labels];"
        f' nearest known: {nearest!r}. Add the entry, or "skip" to leave it out.'
    )
