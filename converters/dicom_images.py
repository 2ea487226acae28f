"""DICOM images of any folders, single and multi-frame (CR, DX, MG, XA, RF, US ...), with or without a table of boxes.

Roles: ``image`` (files among which the images are, for example ``**/*``; others are passed over), ``table`` (CSV or JSON:
one row a box, or one row an image), ``about`` (see medglip/curate/tables.py; ``about_id`` may be ``"{sop}"``
or ``"{patientid}"``).

Files are told apart by content. Objects without pixels (reports, presentation states) are rejected as ``not_a_picture``, images
of another modality than the part's as ``other_modality``. The names ``sop``, ``patientid``, ``study`` and ``series``
are the header's ids, for templates. A source without a table has images and texts only: a curator's own archive.

Options:
- ``columns``: names of columns: ``image`` (required with a table: SOP instance UID, or a file's name with or without
  folders and ending), ``box`` (four), ``label``, ``frame`` (number of the frame that the row is of), ``target`` (says
  that there is no box); without ``box`` the rows serve ``about`` and ``frame`` only;
- ``id``: template of what the image column holds where it is something else, for example ``"{patientid}"``;
- ``label``, ``format``, ``frame``, ``negative``, ``unlisted``, ``swapped_corners``: as of the converter ``box_table``;
- ``first_frame``: number of the first frame in the table; default 0;
- ``frames``: how many frames of a clip are taken, evenly spread (default 8; 0: all), beside those that rows name;
- ``other_modality``: ``reject`` (default), or ``ignore`` where another part of the source takes them;
- ``missing_images``: ``reject`` (default) or ``ignore`` rows whose image is not there;
- ``window``: see medglip/curate/images.py.

Two files of one SOP instance are one image: one that can be read is kept, the other is rejected. A row that names no frame
is of all frames of its image. Frames of a clip that no row names are unlabelled, also with ``unlisted = "negative"``, which
speaks of images. All images of a patient, or of a study without a patient's id, are one group.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from medglip.curate.boxes import add_once, box_of_numbers
from medglip.curate.cases import Case, Refused, Shot
from medglip.curate.headers import first_that_decodes, ids_of, image_header, says_dicom
from medglip.curate.layout import find, listed, without_ending
from medglip.curate.marks import Marks
from medglip.curate.regions import region_of_box
from medglip.curate.source import Part
from medglip.curate.tables import (
    ABOUT_OPTIONS,
    Table,
    described,
    is_wanted,
    needed,
    read_table,
    rows_naming,
    rows_of,
    unnamed,
)
from medglip.errors import SourceError
from medglip.imaging.dicom import DicomImage, read_dicom, read_header
from medglip.imaging.intensity import encode, storage_of
from medglip.records import Intensity, Picture, Reject

ROLES = ("image", "table", "about")
OPTIONS = ("columns", "id", "label", "format", "frame", "negative", "unlisted", "swapped_corners", "first_frame", "frames",
           "other_modality", "missing_images", "window", *ABOUT_OPTIONS)  # fmt: skip

_FRAMES = 8


def cases(part: Part, folder: Path) -> Iterator[Case | Reject]:
    """One case an image file of the part's modality.

    Raises:
        InputError: no table is there, or one is broken.
        Refused: a table lacks a column.
        SourceError: an option is missing.
    """
    columns = part.option("columns", {})
    if "table" in part.files and ("image" not in columns or len(columns.get("box", range(4))) != 4):
        raise SourceError(f"datasets/{part.source}.toml: option columns is {columns!r}; it must name image, and four of a box.")
    if "box" in columns and "label" not in columns and not part.option("label"):
        raise SourceError(f"datasets/{part.source}.toml: neither columns.label nor the option label is set; set one.")
    found = list(described(part, _images(part, folder), every=True))
    if "table" in part.files:
        needed(part, "table", found)
        if part.option("missing_images", "reject") == "reject":
            yield from unnamed(part, folder, found, "table", also="sop")
    yield from (case for case in found if isinstance(case, Reject) or is_wanted(part, case))


def convert(part: Part, case: Case) -> Iterator[Picture | Reject]:
    """One picture an image, or one a frame of a clip that is taken."""
    path = case.path(case.one("image"))
    header = read_header(path)
    count = int(header.get("NumberOfFrames") or 1)
    rows = list(_rows(part, case))
    frames = _taken(part, rows, count)
    image = read_dicom(path, frames)
    storage = storage_of(image.frames, image.unit, window=part.option("window") or image.window, inverted=image.inverted)
    for at, frame in enumerate(frames):
        mine = [row for row in rows if row[1] in (None, frame)]
        listed = bool(mine) or (count == 1 and part.option("unlisted") == "negative")
        marks = Marks(part, case, labelled=listed and "box" in part.option("columns", {}))
        values = image.frames[at]
        if values.min() == values.max():
            sentence = f"All pixels of {path.name!r} frame {frame} are {values.flat[0]}; there is nothing to see."
            yield Reject(part.source, case.one("image"), "constant_image", sentence, case.key)
            continue
        for where, _, cells in mine:
            _take(marks, where, cells, values.shape[:2])
        yield from marks.rejects
        yield marks.picture(encode(values, storage), _shot(image, storage, frame if count > 1 else None))


def _images(part: Part, folder: Path) -> Iterator[Case | Reject]:
    """The images of the part with the ids of their headers, and Rejects for DICOM files that are none."""
    paths = listed(folder)
    shared = {role: tuple(entry.path for entry in find(part.files[role], paths)) for role in part.files if role != "image"}
    dicoms = [entry for entry in find(part.files["image"], paths) if says_dicom(folder / entry.path)]
    keys = Counter(without_ending(entry.path) for entry in dicoms)
    found: list[Case | Reject] = []
    copies: dict[str, list[str]] = defaultdict(list)
    for entry in dicoms:
        key = without_ending(entry.path)
        case = Case(key if keys[key] == 1 else entry.path, folder, {"image": (entry.path,), **shared}, entry.fields)
        if one := _image(part, case):
            found.append(one)
        if isinstance(one, Case) and one.fields["sop"]:
            copies[one.fields["sop"]].append(entry.path)
    kept = {sop: first_that_decodes([folder / one for one in some]) for sop, some in copies.items() if len(some) > 1}
    for item in found:
        file = item.one("image") if isinstance(item, Case) else ""
        other = kept.get(item.fields["sop"]) if isinstance(item, Case) else None
        if isinstance(item, Reject) or other is None or other == folder / file:
            yield item
        else:
            twin = other.relative_to(folder).as_posix()
            sentence = f"{file!r} and {twin!r} have one SOPInstanceUID, so they are one DICOM object; remove one."
            yield Reject(part.source, file, "duplicate_image", sentence, item.key)


def _image(part: Part, case: Case) -> Case | Reject | None:
    """The case with the ids of its header; a Reject for what is no image of the part; None for what another part takes."""
    header = image_header(part, case.folder, case.one("image"), case.key)
    return replace(case, fields=ids_of(header) | case.fields) if isinstance(header, Dataset) else header


def _rows(part: Part, case: Case) -> Iterator[tuple[str, int | None, tuple[str, ...]]]:
    """Rows of the image: where each stands, its frame, and label, target and the four numbers of its box."""
    columns = part.option("columns", {})
    for file in case.files.get("table", ()):
        table = read_table(case.folder, file)
        for number in _numbers(part, case, table):
            row = table.rows[number]

            def cell(name: str | None, row: tuple[str, ...] = row, table: Table = table) -> str:
                return row[table.at(name)] if name is not None else ""

            where = f"{file} row {number + 1}"
            box = columns.get("box", ("",) * 4)
            numbers = tuple(cell(name) if name else "" for name in box)
            yield where, _frame(part, where, cell(columns.get("frame"))), (
                cell(columns.get("label")), cell(columns.get("target")), *numbers,
            )  # fmt: skip


def _numbers(part: Part, case: Case, table: Table) -> list[int]:
    at = table.at(part.option("columns")["image"])
    by_sop = rows_naming(table, at, case.fields["sop"], exact=True) if case.fields["sop"] and not part.option("id") else []
    return sorted({*rows_of(part, case, table, at), *by_sop})


def _frame(part: Part, where: str, cell: str) -> int | None:
    if not cell:
        return None
    try:
        return int(float(cell)) - part.option("first_frame", 0)
    except ValueError as error:
        raise Refused("no_such_frame", f"{where}: the frame {cell!r} is no whole number.") from error


def _taken(part: Part, rows: list[tuple[str, int | None, tuple[str, ...]]], count: int) -> list[int]:
    """The frames that are stored: those that rows name, and as many spread evenly over the clip.

    Raises:
        Refused: a row names a frame that is not there.
    """
    named = {frame for _, frame, _ in rows if frame is not None}
    if named and not 0 <= min(named) <= max(named) < count:
        wrong = min(named) if min(named) < 0 else max(named)
        raise Refused("no_such_frame", f"A row names frame {wrong}, counted from 0; the image has {count}.")
    wanted = part.option("frames", _FRAMES) or count
    spread = np.unique(np.linspace(0, count - 1, min(wanted, count)).round().astype(int)) if count > 1 else [0]
    return sorted(named | {int(frame) for frame in spread})


def _take(marks: Marks, where: str, cells: tuple[str, ...], size_hw: tuple[int, int]) -> None:
    part = marks.part
    label, target, *numbers = cells
    negative = {str(word).casefold() for word in part.option("negative", ())}
    if "box" not in part.option("columns", {}) or {label.casefold(), target.casefold()} & negative:
        return
    with marks.item(where):
        named = part.named(label or part.option("label", ""), where)
        if named is None:
            return
        with marks.item(where, named):
            add_once(marks.regions, region_of_box(part, named, box_of_numbers(part, where, numbers, size_hw), size_hw))


def _shot(image: DicomImage, storage: Intensity, frame: int | None) -> Shot:
    """What the header says; without a patient's id, the images of a study are kept together."""
    return Shot(
        frame=frame, intensity=storage, spacing_mm=image.spacing_mm, spacing_source=image.spacing_source,
        patient=image.patient or image.study, study=image.study, series=image.series, detail=image.detail, flags=image.flags,
    )  # fmt: skip
