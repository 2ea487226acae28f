"""Images with COCO files (JSON): boxes, polygons and run-length codes.

Roles: ``image`` (raster or DICOM), ``annotations`` (one or more JSON files), ``about`` (see medglip/curate/tables.py).

Options:
- ``prefer``: parts of the names of annotation files, the best first: an image that several files annotate is read from
  the best one only; without it all of them are read;
- ``rescale``: true scales annotations made for another size of the image, where the aspect ratios agree within 1 %;
  default refuse;
- ``unannotated``: an image that a file names without any annotation is ``negative`` (default: it was searched and has
  none) or ``unlabelled`` (nobody annotated it);
- ``missing_images``: ``reject`` (default) or ``ignore`` images that a file names and that are not there;
- ``window``: see medglip/curate/images.py.

Raw labels are the names of the categories.
"""

import json
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from medglip.curate.cases import Case, Refused, joined
from medglip.curate.images import read_image, resized_nearest
from medglip.curate.marks import Marks
from medglip.curate.regions import clipped_box, region_of_box, region_of_mask
from medglip.curate.source import Part
from medglip.curate.tables import ABOUT_OPTIONS, described, needed, stems
from medglip.errors import InputError, RecordError
from medglip.records import Picture, Reject
from medglip.records.segmentations import mask_of_runs, rle_of_polygons

ROLES = ("image", "annotations", "about")
OPTIONS = ("prefer", "rescale", "unannotated", "missing_images", "window", *ABOUT_OPTIONS)


@dataclass(frozen=True, eq=False)
class _Coco:
    """One file: images by the names of their files, annotations by image, categories by id."""

    file: str
    images: dict[str, list[dict[str, Any]]]
    marks: dict[Any, list[dict[str, Any]]]
    names: dict[Any, str]


def cases(part: Part, folder: Path) -> Iterator[Case | Reject]:
    """One case an image that is there; images that a file names and that are not there are rejected.

    Raises:
        InputError: no annotation file is there, or one is broken.
    """
    found = list(joined(part, folder))
    needed(part, "annotations", found)
    here = {name for case in found if isinstance(case, Case) for name in stems(case.one("image"))[:1]}
    if part.option("missing_images", "reject") == "reject":
        for file in sorted({file for case in found if isinstance(case, Case) for file in case.files["annotations"]}):
            for name, entries in sorted(_read(folder / file, file).images.items()):
                if name not in here:
                    image = entries[0]["file_name"]
                    sentence = f"COCO file {file!r} names the image {image!r}, which is not there; add it, or take it out."
                    yield Reject(part.source, file, "missing_file", sentence, image)
    yield from described(part, found)


def convert(part: Part, case: Case) -> Iterator[Picture | Reject]:
    """One picture with its regions; an image that no file names is unlabelled."""
    image = case.one("image")
    pixels, shot = read_image(part, case.path(image))
    named_in = [(coco, entry) for file in case.files["annotations"]
                for coco in [_read(case.path(file), file)] for entry in _entries(coco, image)]  # fmt: skip
    if part.option("unannotated") == "unlabelled":
        named_in = [(coco, entry) for coco, entry in named_in if coco.marks.get(entry["id"])]
    prefer = part.option("prefer", ())
    if prefer:
        rank = [next((at for at, word in enumerate(prefer) if word in coco.file), len(prefer)) for coco, _ in named_in]
        named_in = [pair for pair, at in zip(named_in, rank, strict=True) if at == min(rank)]
    marks = Marks(part, case, labelled=bool(named_in))
    for coco, entry in named_in:
        scale = _scale(part, coco.file, entry, pixels.shape[:2])
        for number, item in enumerate(coco.marks.get(entry["id"], ()), 1):
            _take(marks, f"{coco.file} {entry['file_name']} annotation {item.get('id', number)}",
                  item, coco.names, (pixels.shape[:2], scale))  # fmt: skip
    yield from marks.rejects
    yield marks.picture(pixels, shot)


def _read(path: Path, file: str) -> _Coco:
    try:
        stamp = path.stat()
    except OSError as error:
        raise InputError(f"COCO file {file!r} cannot be read: {error.strerror}.") from error
    return _parsed(path, file, stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=8)
def _parsed(path: Path, file: str, _mtime: int, _size: int) -> _Coco:
    try:
        data = json.loads(path.read_bytes())
        images: dict[str, list[dict[str, Any]]] = {}
        for entry in data["images"]:
            hash(entry["id"])  # else a TypeError, as of any other wrong entry
            name = str(entry["file_name"])
            images.setdefault(stems(name)[0], []).append({"id": entry["id"], **entry, "file_name": name})
        marks: dict[Any, list[dict[str, Any]]] = {}
        for item in data["annotations"]:
            marks.setdefault(item["image_id"], []).append(item)
        return _Coco(file, images, marks, {entry["id"]: str(entry["name"]) for entry in data["categories"]})
    except (ValueError, RecursionError) as error:
        raise InputError(f"COCO file {file!r} is not JSON: {error}.") from error
    except (KeyError, TypeError) as error:
        raise InputError(
            f"COCO file {file!r} lacks {error}; it needs images (id, file_name), annotations (image_id, category_id)"
            " and categories (id, name)."
        ) from error


def _entries(coco: _Coco, image: str) -> list[dict[str, Any]]:
    """The entry of an image: of those with its file name, the one whose folders agree the farthest."""
    parts = image.casefold().split("/")
    found = coco.images.get(stems(image)[0], [])

    def depth(entry: dict[str, Any]) -> int:
        theirs = entry["file_name"].replace("\\", "/").casefold().split("/")
        agree = [ours == other for ours, other in zip(reversed(parts), reversed(theirs), strict=False)]
        return agree.index(False) if False in agree else len(agree)

    deepest = max(map(depth, found), default=0)
    return [entry for entry in found if depth(entry) == deepest][:1]


def _scale(part: Part, file: str, entry: dict[str, Any], size_hw: tuple[int, int]) -> tuple[float, float]:
    """Pixels of the image for one of the annotation's, across and down."""
    height, width = size_hw
    theirs = entry.get("width") or width, entry.get("height") or height
    if not all(isinstance(length, int | float) and length > 0 for length in theirs):
        raise Refused("size_mismatch", f"{file!r}: width and height of {entry['file_name']!r} are {theirs}; allowed: numbers.")
    across, down = width / theirs[0], height / theirs[1]
    if (across, down) != (1.0, 1.0) and not (part.option("rescale") and abs(across / down - 1) <= 0.01):
        raise Refused(
            "size_mismatch",
            f"{file!r} was made for {entry['file_name']!r} of {theirs[0]} x {theirs[1]} pixels, the image has"
            f" {width} x {height}; they must agree or, with the option rescale, their aspect ratios within 1 %.",
        )
    return across, down


def _take(marks: Marks, where: str, item: dict[str, Any], names: dict[Any, str], frame: tuple) -> None:
    """Take in one annotation; ``frame`` is the image's (height, width) and the scale (across, down)."""
    part, (size_hw, scale) = marks.part, frame
    with marks.item(where):
        if not isinstance(item.get("category_id"), Hashable) or item.get("category_id") not in names:
            raise Refused("unknown_label", f"{where}: no category has the id {item.get('category_id')!r}.")
        named = part.named(names[item["category_id"]], where)
        if named is None:
            return
        flags = ("merged",) if item.get("iscrowd") else ()
        with marks.item(where, named):
            mask = _mask(item.get("segmentation"), where, size_hw, scale)
            if mask is not None:
                marks.regions.append(region_of_mask(part, named, mask, flags=flags))
                return
            try:
                x, y, w, h = (float(number) for number in item.get("bbox") or [np.nan] * 4)
            except (TypeError, ValueError) as error:
                raise Refused("bad_box", f"{where}: bbox is {item['bbox']!r}; allowed: four numbers.") from error
            box = (x * scale[0], y * scale[1], (x + w) * scale[0], (y + h) * scale[1])
            marks.regions.append(region_of_box(part, named, clipped_box(box, size_hw), size_hw, flags=flags))


def _mask(code: Any, where: str, size_hw: tuple[int, int], scale: tuple[float, float]) -> np.ndarray | None:
    """Polygons or a run-length code as a mask (H, W); None where there are none, or nothing inside them."""
    if not code:
        return None
    try:
        if isinstance(code, dict):
            # Where it was made for another size, _scale has allowed that.
            mask = resized_nearest(mask_of_runs(code).astype(np.uint8), size_hw)
        else:
            rings = [np.asarray(ring, float).reshape(-1, 2) * scale for ring in code]
            rle = rle_of_polygons(rings, size_hw)
            mask = rle.decode() if rle else np.zeros(size_hw, np.uint8)
    except (TypeError, ValueError, OverflowError, RecordError) as error:
        raise Refused("bad_mask", f"{where}: the segmentation does not decode: {error}.") from error
    return mask if mask.any() else None
