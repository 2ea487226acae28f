"""Images with masks as image files: binary, one colour a class, one number a class, one number an object, or outlines.

Roles: ``image`` (raster, DICOM, or a plane in a volume file), ``mask`` (the same; any number an image, matched by the names
that both patterns remember), ``about`` (see medglip/curate/tables.py), ``lists`` and ``names`` (medglip/curate/lists.py).
Without a mask role the images come with their texts only, unless ``beside`` says where their masks are. A mask pattern that
remembers ``{frame}`` means a frame of a multi-frame image, unless the image's pattern remembers it too, which then has a
file a frame; frames without a mask are left out.

Options:
- ``kind``: ``binary`` (default), ``colour``, ``indexed``, ``instances`` (every number is one object) or ``outline`` (a
  thin closed line, which is filled);
- ``label``: template of the raw label of binary, instances and outline masks, or a list of templates of which the first
  known to ``[part.labels]`` counts; default ``"255"``. It may name what the image's and the mask's patterns remember, and
  ``{class_name}``, which the file of role ``names`` gives;
- ``spaces``: characters that stand for a space in a raw label, for example ``"+_"``; default none;
- ``skip``: raw labels to leave out, with ``*`` for any characters, for example ``["union_*"]``;
- ``derived``: a table of label = raw labels. Their union is a region of its own beside them: of the rings of a mask, disc =
  ["cup", "rim"]. Not with instances, nor with ``several = "each"``;
- ``beside``: ``right`` or ``left``: the file of the image holds the mask too, in this half;
- ``inverted``: ``true``: binary masks are black inside; or only some: a table of a name that the patterns remember = its
  texts in their names, for example ``{ dataset = ["ichallenge_adam_task2"] }``;
- ``threshold``: least value inside a binary mask or on an outline, of 255; default 128;
- ``several``: ``union`` (default): masks of one label are parts of one mask; ``each``: every file is one object;
- ``apart``: raw labels whose connected parts are regions of their own although the label is not countable: paired
  organs in a source that does not tell the sides;
- ``resize_mask``: ``nearest`` scales a mask of another size, where the aspect ratios agree within 1 %; default refuse;
- ``missing_mask``: ``unlabelled`` (default), or ``negative`` where the source writes no file for an empty mask;
- ``first_frame``: number of the first frame in file names; default 0;
- ``window``: see medglip/curate/images.py;
- ``raw``: images without a header: ``{ shape = [rows, columns], dtype = ">u2", bits = 12, inverted = true }``, the type as
  numpy writes it, the bits that are used, and whether black and white are exchanged.

Raw labels of colour masks are ``"255,0,0"``, of indexed masks ``"7"``. Black and 0 are background unless listed. Where a
binary mask has values between, as compression and resampling leave them, ``modality_detail`` says how many:
``ambiguous_mask_pixels`` is their number over that of the pixels inside.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from scipy import ndimage
from skimage.morphology import convex_hull_image

from medglip.curate.cases import Case, Refused, joined
from medglip.curate.images import lossy, sized_mask
from medglip.curate.layout import find
from medglip.curate.lists import LIST_OPTIONS, LIST_ROLES, class_name, told
from medglip.curate.marks import Marks
from medglip.curate.planes import read_mask, read_picture
from medglip.curate.regions import region_of_mask, regions_of_mask
from medglip.curate.source import Named, Part
from medglip.curate.tables import ABOUT_OPTIONS, described, filled
from medglip.errors import SourceError
from medglip.imaging.colours import classes_of_colours
from medglip.records import Picture, Region, Reject

ROLES = ("image", "mask", "about", *LIST_ROLES)
OPTIONS = ("kind", "label", "spaces", "skip", "derived", "beside", "inverted", "threshold", "several", "apart", "resize_mask",
           "missing_mask", "first_frame", "window", "raw", *LIST_OPTIONS, *ABOUT_OPTIONS)  # fmt: skip

# A mask whose inside is more of the image than this, and touches all four borders, may be inverted.
_INVERTED = 0.95
# Values that are neither clearly inside nor clearly outside, and the share of the inside that is worth a flag.
_AMBIGUOUS, _SOFT = (16, 223), 0.1
# JPEG moves each channel of an even area by at most this.
_JPEG_NOISE = 8


def cases(part: Part, folder: Path) -> Iterator[Case | Reject]:
    """One case an image, with its masks."""
    return told(part, described(part, joined(part, folder)))


@dataclass
class _Masks:
    """What the mask files of one picture show, by raw label; how many of their pixels are inside, and how many unclear."""

    marks: Marks
    by_raw: dict[str, np.ndarray] = field(default_factory=dict)
    inside: int = 0
    unclear: int = 0

    @property
    def part(self) -> Part:
        return self.marks.part


def convert(part: Part, case: Case) -> Iterator[Picture | Reject]:
    """One picture an image or, where masks name frames, one a frame."""
    image = case.one("image")
    for frame, files in sorted(_by_frame(part, case).items(), key=lambda entry: entry[0] or 0):
        pixels, shot = read_picture(part, case.path(image), frame)
        arrays: dict[str, np.ndarray | None] = dict.fromkeys(files)
        if "beside" in part.options:
            pixels, arrays[image] = _halves(part, image, pixels)
        marks = Marks(part, case, labelled=bool(arrays) or part.option("missing_mask") == "negative")
        masks = _Masks(marks)
        for file, array in arrays.items():
            with marks.item(file):
                _read(masks, file, pixels.shape[:2], array)
        for named, mask in _by_label(masks).items():
            marks.regions += _regions(part, named, mask)
        if arrays and not marks.regions and len(marks.rejects) >= len(arrays):
            raise Refused(marks.rejects[0].reason, marks.rejects[0].detail)
        if masks.unclear:
            share = f"{masks.unclear / max(masks.inside, 1):.3f}"
            shot = replace(shot, detail=shot.detail | {"ambiguous_mask_pixels": share})
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
    return {**case.fields, **next(find(part.files["mask"], (file,))).fields} if "mask" in part.files else case.fields


def _halves(part: Part, file: str, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The picture and the mask of a file that shows them side by side."""
    half, odd = divmod(pixels.shape[1], 2)
    side = part.option("beside")
    if side not in ("left", "right"):
        raise SourceError(f"datasets/{part.source}.toml: option beside is {side!r}; allowed: left, right.")
    if odd:
        raise Refused("size_mismatch", f"Image {file!r} is {pixels.shape[1]} pixels wide; two halves need an even number.")
    left, right = np.ascontiguousarray(pixels[:, :half]), np.ascontiguousarray(pixels[:, half:])
    return (left, right) if side == "right" else (right, left)


def _read(masks: _Masks, file: str, size_hw: tuple[int, int], array: np.ndarray | None) -> None:
    """Take in one mask: add to the mask of each of its labels, or make one region an object."""
    marks, part = masks.marks, masks.part
    kind = part.option("kind", "binary")
    readers = {"binary": _binary, "outline": _binary, "colour": _colour, "indexed": _indexed, "instances": _instances}
    if kind not in readers:
        raise SourceError(f"datasets/{part.source}.toml: option kind is {kind!r}; allowed: {', '.join(readers)}.")
    if array is None:
        path = marks.case.path(file)
        array = read_mask(path, numbers=kind in ("indexed", "instances"))
        if kind == "binary" and array.min() == array.max():
            array = read_mask(path, numbers=True)  # perhaps drawn in the alpha channel
    each = kind == "instances" or part.option("several") == "each"
    for raw, mask in readers[kind](masks, file, sized_mask(part, array, size_hw, file)):
        named = part.named(raw, file)
        if mask.any() and not each:
            masks.by_raw[raw] = masks.by_raw[raw] | mask if raw in masks.by_raw else mask
        elif named and mask.any():
            marks.regions.append(region_of_mask(part, named, mask))
        elif named and kind not in ("colour", "indexed"):
            marks.searched.add(named.concept)  # a file for this label, and nothing in it


def _by_label(masks: _Masks) -> dict[Named, np.ndarray]:
    """The masks of the part's labels, those derived of others last."""
    part = masks.part
    found: dict[Named, np.ndarray] = {}
    if part.derived and (part.option("kind") == "instances" or part.option("several") == "each"):
        raise SourceError(f"datasets/{part.source}.toml: option derived makes unions of masks; allowed: not of single objects.")
    for raw, mask in masks.by_raw.items():
        if named := part.named(raw, masks.marks.case.key):
            found[named] = found[named] | mask if named in found else mask
    for derived in part.derived:
        if together := [masks.by_raw[raw] for raw in derived.raw if raw in masks.by_raw]:
            found[derived.named] = np.logical_or.reduce(together)
    return found


def _regions(part: Part, named: Named, mask: np.ndarray) -> list[Region]:
    if part.option("kind") != "outline":
        apart = any(part.named(raw, "option apart") == named for raw in part.option("apart", ()))
        return regions_of_mask(part, named, mask, apart=apart)
    inside = ndimage.binary_fill_holes(ndimage.binary_closing(mask, np.ones((3, 3))) | mask)
    if inside.sum() >= 2 * mask.sum():
        return [region_of_mask(part, named, inside)]
    # The line is open: worn by compression, or cut by the border of the image.
    return [region_of_mask(part, named, convex_hull_image(mask), flags=("uncertain",))]


def _binary(masks: _Masks, file: str, array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    marks, part = masks.marks, masks.part
    raw = _label(masks, file)
    if raw is None:
        return
    values = array.max(axis=2) if array.ndim == 3 else array
    exact = not lossy(marks.case.path(file))
    top = 1 if exact and values.max() == 1 else 255 if values.dtype == np.uint8 else max(255, int(values.max()))
    threshold = part.option("threshold", 128) * top / 255
    mask = values >= threshold
    brightest = int(values.max())
    if not mask.any() and brightest > (0 if exact else _AMBIGUOUS[0]):
        raise Refused(
            "unknown_label",
            f"Mask {file!r} holds no value from {threshold:g} up, but {np.count_nonzero(values)} pixels with values up"
            f' to {brightest}; set the option threshold, or kind = "indexed" with these values as labels.',
        )
    if _black_inside(masks, file):
        mask = ~mask
    unclear = np.count_nonzero((values * (255 / top) >= _AMBIGUOUS[0]) & (values * (255 / top) <= _AMBIGUOUS[1]))
    masks.inside, masks.unclear = masks.inside + int(mask.sum()), masks.unclear + int(unclear)
    if mask.any() and unclear > _SOFT * mask.sum() and part.option("kind") != "outline":
        marks.flags += ("soft_mask",)
    if mask.mean() > _INVERTED and all(edge.any() for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1])):
        marks.flags += ("maybe_inverted",)
    yield raw, mask


def _black_inside(masks: _Masks, file: str) -> bool:
    """Whether the option ``inverted`` names this mask."""
    inverted = masks.part.option("inverted", False)
    if not isinstance(inverted, dict):
        return bool(inverted)
    names = _names(masks.part, masks.marks.case, file)
    return any(names.get(name) in texts for name, texts in inverted.items())


def _colour(masks: _Masks, file: str, array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    rgb = np.stack([array] * 3, axis=2) if array.ndim == 2 else array
    known = {tuple(int(number) for number in raw.split(",")): raw for raw in masks.part.labels}
    known = {(0, 0, 0): "", **known}
    rgb = rgb.astype(np.uint8)
    if lossy(masks.marks.case.path(file)):  # a mask of few even areas: no blur tells that its colours are approximate
        for colour in known:
            bounds = ((max(c - _JPEG_NOISE, 0), min(c + _JPEG_NOISE, 255)) for c in colour)
            inside = [(rgb[..., at] >= low) & (rgb[..., at] <= high) for at, (low, high) in enumerate(bounds)]
            rgb[np.logical_and.reduce(inside)] = colour
    classes, unknown = classes_of_colours(rgb, np.array(list(known)))
    for colour, pixels, nearest in unknown:
        masks.marks.refuse(file, "unknown_label", _unknown(file, "colour", colour, pixels, nearest))
    yield from ((raw, classes == number) for number, raw in enumerate(known.values()) if raw)


def _indexed(masks: _Masks, file: str, array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    numbers = _numbers(array, file)
    known = {int(raw) for raw in masks.part.labels}
    for value, pixels in zip(*np.unique(numbers, return_counts=True), strict=True):
        if value not in known and value != 0:
            nearest = min(known, key=lambda other: abs(other - int(value)))
            masks.marks.refuse(file, "unknown_label", _unknown(file, "value", int(value), int(pixels), nearest))
    yield from ((str(value), numbers == value) for value in sorted(known))


def _instances(masks: _Masks, file: str, array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    numbers, raw = _numbers(array, file), _label(masks, file)
    if raw is None:
        return
    found = np.unique(numbers[numbers != 0])
    yield from ((raw, numbers == value) for value in found)
    if not found.size:
        yield raw, np.zeros(numbers.shape, bool)


def _numbers(array: np.ndarray, file: str) -> np.ndarray:
    if array.ndim == 3 and (array != array[..., :1]).any():
        raise Refused("colour_mask", f'Mask {file!r} has colours where numbers are needed; say kind = "colour".')
    return array[..., 0] if array.ndim == 3 else array


def _label(masks: _Masks, file: str) -> str | None:
    """The raw label of a mask that shows one thing; None where the part skips it."""
    part, case = masks.part, masks.marks.case
    templates = part.option("label", "255")
    case = replace(case, fields=_names(part, case, file))
    if "names" in part.files:
        case = replace(case, fields={**case.fields, "class_name": class_name(part, case)})
    blanks = str.maketrans(dict.fromkeys(part.option("spaces", ""), " "))
    raws = [filled(text, case).translate(blanks) for text in ([templates] if isinstance(templates, str) else templates)]
    raw = next((raw for raw in raws if raw in part.labels), raws[-1])
    return None if any(fnmatchcase(raw, pattern) for pattern in part.option("skip", ())) else raw


def _unknown(file: str, what: str, found: object, pixels: int, nearest: object) -> str:
    return (
        f"Mask {file!r} has {pixels} pixels of the {what} {found!r}, which has no entry in [part.labels];"
        f' nearest known: {nearest!r}. Add the entry, or "skip" to leave it out.'
    )
