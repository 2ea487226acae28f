"""Images with JSON files (or tables) whose rows are images: lists of labels, boxes and polygons of equal length.

Roles: ``image`` (raster or DICOM), ``annotations`` (a list of objects, JSON lines, or CSV with JSON cells; one row an
image), ``about`` (see medglip/curate/tables.py).

Options:
- ``columns``: names of keys: ``image`` (a file's name, with or without folders and ending), ``label`` (the labels), ``box``
  (a box each), ``polygon`` (a ring of ``[x, y]`` each, or of ``x, y, x, y``); ``box`` or ``polygon`` may be left out;
- ``id``: template of what the image column holds, where it is not the file's name;
- ``each``: name of a list in the objects; every object in it is an image;
- ``format``, ``frame``, ``swapped_corners``: of the boxes, as of the converter ``box_table``; ``frame`` holds for polygons
  too;
- ``missing_images``: ``reject`` (default) or ``ignore`` rows whose image is not there;
- ``window``: see medglip/curate/images.py.

An item with a polygon is its mask, and its box is that of the mask; without one it is its box. An image with empty lists
was searched and shows nothing; one that no row names is unlabelled. The name ``annotated_in`` is the file (its name
without ending) that names the image, for ``split = "{annotated_in}"``.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from medglip.curate.boxes import add_once, box_of_numbers
from medglip.curate.cases import Case, Refused, joined
from medglip.curate.images import read_image
from medglip.curate.marks import Marks
from medglip.curate.regions import region_of_box, region_of_mask
from medglip.curate.source import Part
from medglip.curate.tables import (
    ABOUT_OPTIONS,
    Table,
    described,
    is_wanted,
    listed_cell,
    needed,
    read_table,
    rows_of,
    unnamed,
)
from medglip.errors import SourceError
from medglip.records import Picture, Reject

ROLES = ("image", "annotations", "about")
OPTIONS = ("columns", "id", "each", "format", "frame", "swapped_corners", "missing_images", "window", *ABOUT_OPTIONS)


def cases(part: Part, folder: Path) -> Iterator[Case | Reject]:
    """One case an image; rows that name an image that is not there are rejected.

    Raises:
        InputError: no file of annotations is there, or one is broken.
        Refused: one lacks a column.
        SourceError: an option is missing.
    """
    columns = part.option("columns", {})
    if not {"image", "label"} <= set(columns) or not {"box", "polygon"} & set(columns):
        where = f"datasets/{part.source}.toml"
        raise SourceError(f"{where}: option columns is {columns!r}; it must name image, label, and box or polygon.")
    found = list(described(part, joined(part, folder), every=True))
    needed(part, "annotations", found)
    if part.option("missing_images", "reject") == "reject":
        yield from unnamed(part, folder, found, "annotations")
    for case in found:
        if isinstance(case, Reject):
            yield case
        elif is_wanted(part, case):
            files = [file for file in case.files["annotations"] if _numbers(part, case, _table(part, case, file))]
            name = PurePosixPath(files[0]).name.split(".")[0] if len(files) == 1 else ""
            yield replace(case, fields={**case.fields, "annotated_in": name})


def convert(part: Part, case: Case) -> Iterator[Picture | Reject]:
    """One picture with its regions."""
    pixels, shot = read_image(part, case.path(case.one("image")))
    marks = Marks(part, case, labelled=False)
    for file in case.files["annotations"]:
        table = _table(part, case, file)
        for number in _numbers(part, case, table):
            marks.labelled = True
            with marks.item(f"{file} row {number + 1}"):
                _take(marks, f"{file} row {number + 1}", table, table.rows[number], pixels.shape[:2])
    yield from marks.rejects
    yield marks.picture(pixels, shot)


def _table(part: Part, case: Case, file: str) -> Table:
    return read_table(case.folder, file, part.option("each", ""))


def _numbers(part: Part, case: Case, table: Table) -> list[int]:
    return rows_of(part, case, table, table.at(part.option("columns")["image"]))


def _take(marks: Marks, where: str, table: Table, row: tuple[str, ...], size_hw: tuple[int, int]) -> None:
    """Take in the items of one image."""
    part, columns = marks.part, marks.part.option("columns")
    lists = {name: listed_cell(row[table.at(columns[name])]) for name in ("label", "box", "polygon") if name in columns}
    lengths = {name: len(items) for name, items in lists.items() if items or name == "label"}
    if len(set(lengths.values())) > 1:
        raise Refused("bad_list", f"{where}: its lists have {lengths} items; they must have as many, one an object.")
    for at, raw in enumerate(lists["label"]):
        item = f"{where} item {at + 1}"
        box, ring = ((lists.get(name) or [None] * (at + 1))[at] for name in ("box", "polygon"))
        with marks.item(item):
            named = part.named(str(raw), item)
            if named is None:
                continue
            with marks.item(item, named):
                mask = _mask(part, item, ring, size_hw) if ring else None
                if mask is not None and mask.any():
                    marks.regions.append(region_of_mask(part, named, mask))
                elif isinstance(box, list):
                    add_once(marks.regions, region_of_box(part, named, box_of_numbers(part, item, box, size_hw), size_hw))
                else:
                    raise Refused("bad_box", f"{item}: it has neither a polygon with an inside nor a box; add one.")


def _mask(part: Part, where: str, ring: Any, size_hw: tuple[int, int]) -> np.ndarray | None:
    """The inside of a ring; None where it has fewer than three corners."""
    height, width = size_hw
    frame = part.option("frame", (width, height))
    try:
        corners = np.asarray(ring, float).reshape(-1, 2) * (width / frame[0], height / frame[1])
    except (TypeError, ValueError) as error:
        raise Refused("bad_mask", f"{where}: the polygon is no list of points: {error}.") from error
    if len(corners) < 3 or not np.isfinite(corners).all():
        return None
    slack = max(1.0, 0.01 * max(size_hw))
    if corners.min() < -slack or (corners > np.array([width, height]) + slack).any():
        raise Refused("box_out_of_image", f"{where}: the polygon leaves its image of {width} x {height} pixels.")
    packed = coco_mask.merge(coco_mask.frPyObjects([corners.ravel().tolist()], height, width))
    return np.asarray(coco_mask.decode(packed)) > 0
