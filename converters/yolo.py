"""Images with YOLO's text files: a class and a box or an outline a line, in fractions of the image.

Roles: ``image`` (raster or DICOM), ``labels`` (text files, matched by the names that both patterns remember), ``names`` (a
text file with the name of a class a line, class 0 first), ``about`` (see medglip/curate/tables.py).

Options:
- ``names``: names of the classes, class 0 first, instead of the role: as ``data.yaml`` lists them;
- ``missing_labels``: an image without a text file is ``unlabelled`` (default) or ``negative``;
- ``window``: see medglip/curate/images.py.

Raw labels are the names of the classes, or their numbers where no names are given. A line of five numbers is a box (class,
centre, size), one of seven or more an outline (class, then x and y of each corner). A line of six is a model's box with
its confidence: it is refused, for a source's marks are not predictions. An empty file says that there is nothing.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from medglip.curate.cases import Case, Refused, joined
from medglip.curate.images import read_image
from medglip.curate.marks import Marks
from medglip.curate.regions import clipped_box, region_of_box, region_of_mask
from medglip.curate.source import Named, Part
from medglip.curate.tables import ABOUT_OPTIONS, described, needed
from medglip.errors import InputError
from medglip.records import Picture, Region, Reject

ROLES = ("image", "labels", "names", "about")
OPTIONS = ("names", "missing_labels", "window", *ABOUT_OPTIONS)


def cases(part: Part, folder: Path) -> Iterator[Case | Reject]:
    """One case an image, with its text file.

    Raises:
        InputError: the file of names is not there.
    """
    found = list(described(part, joined(part, folder)))
    if "names" in part.files:
        needed(part, "names", found)
    yield from found


def convert(part: Part, case: Case) -> Iterator[Picture | Reject]:
    """One picture with its regions."""
    pixels, shot = read_image(part, case.path(case.one("image")))
    files = case.files.get("labels", ())
    marks = Marks(part, case, labelled=bool(files) or part.option("missing_labels") == "negative")
    names = _names(part, case)
    for file in files:
        for number, line in enumerate(_lines(case, file), 1):
            words = line.split()
            where = f"{file} line {number}"
            with marks.item(where):
                named = part.named(_name(words[0], names, where), where) if words else None
                if named is not None:
                    with marks.item(where, named):
                        marks.regions.append(_region(part, named, words[1:], where, pixels.shape[:2]))
    yield from marks.rejects
    yield marks.picture(pixels, shot)


def _names(part: Part, case: Case) -> list[str]:
    if case.files.get("names"):
        return "\n".join(line.strip() for line in _lines(case, case.one("names"))).rstrip().split("\n")
    return [str(name) for name in part.option("names", ())]


def _lines(case: Case, file: str) -> list[str]:
    try:
        return case.path(file).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Text file {file!r} cannot be read: {error}.") from error


def _name(word: str, names: list[str], where: str) -> str:
    """The raw label of a class number."""
    number = int(word) if word.isdecimal() and len(word) < 10 else -1
    if number < 0 or (names and number >= len(names)):
        known = f"0 to {len(names) - 1}" if names else "whole numbers from 0"
        raise Refused("unknown_label", f"{where}: the class is {word!r}; allowed: {known}.")
    return names[number] if names else word


def _region(part: Part, named: Named, words: list[str], where: str, size_hw: tuple[int, ...]) -> Region:
    height, width = size_hw[0], size_hw[1]
    try:
        numbers = [float(word) for word in words]
    except ValueError as error:
        raise Refused("bad_box", f"{where}: {words[:6]!r} are not numbers.") from error
    if len(numbers) == 4:
        cx, cy, w, h = numbers
        box = (cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height
        return region_of_box(part, named, clipped_box(box, (height, width)), (height, width))
    if len(numbers) < 6 or len(numbers) % 2:
        raise Refused(
            "bad_box", f"{where}: {len(numbers)} numbers follow the class; allowed: 4 of a box, or x and y of 3 corners."
        )
    corners = np.array(numbers).reshape(-1, 2) * (width, height)
    clipped_box((*corners.min(axis=0), *corners.max(axis=0)), (height, width))  # leaves the image, or has no inside
    packed = coco_mask.merge(coco_mask.frPyObjects([corners.ravel().tolist()], height, width))
    mask = np.asarray(coco_mask.decode(packed)) > 0
    if not mask.any():
        raise Refused("bad_mask", f"{where}: the outline has no pixel inside.")
    return region_of_mask(part, named, mask)
