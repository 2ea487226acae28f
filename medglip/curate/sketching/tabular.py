"""What CSV and JSON files beside images are: boxes, codes, texts, questions, COCO. Reads the tables, no image."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medglip.curate.cases import Refused
from medglip.curate.sketching.columns import (
    TEXTS,
    box_columns,
    box_in_a_cell,
    cells_of,
    code_column,
    column_where,
    first_of,
    format_of,
    keys_of,
    label_column,
    listed_in,
    naming,
    numbers_of,
    reader_column,
    relative_codes,
    size_of,
    target_column,
)  # fmt: skip
from medglip.curate.sketching.guessed import OBJECT, TODO, Guess
from medglip.curate.sketching.masks import FEW_VALUES
from medglip.curate.sketching.scans import Scans
from medglip.curate.sketching.shapes import Shape, levels
from medglip.curate.tables import Table, read_table
from medglip.errors import InputError

_UNSURE_FORMAT = "format: xywh (left, top, width, height) or xyxy (left, top, right, bottom)? The numbers fit both"


def of_tables(folder: Path, images: Shape, tables: Sequence[Shape], scans: Scans | None) -> Guess | None:
    """The first table that marks images; None where none does."""
    for path in [path for shape in tables for path in shape.paths[:6]]:
        try:
            table = read_table(folder, path)
        except (InputError, Refused):
            continue
        for rule in (_codes, _key_slices, _boxes):
            if found := rule(folder, images, table):
                return found if scans is None or rule is not _boxes else _by_header(found, table, scans)
    return None


def of_words(folder: Path, images: Shape, tables: Sequence[Shape]) -> Guess | None:
    """Questions or texts in tables or JSON files; None where no file holds any."""
    for path in [path for shape in tables for path in shape.paths[:6]]:
        try:
            table = read_table(folder, path)
        except (InputError, Refused):
            continue
        for rule in (_turns, _questions, _texts):
            if found := rule(folder, images, table):
                return found
    return None


def described(folder: Path, guess: Guess, images: Shape, tables: Sequence[Shape]) -> Guess:
    """The guess with the table that has a row an image in the role ``about``, if there is one."""
    for path in [path for shape in tables for path in shape.paths[:6]]:
        try:
            table = read_table(folder, path)
        except (InputError, Refused):
            continue
        if not (key := naming(table, keys_of(images.paths))):
            continue
        options = guess.options | {"about_key": key}
        if texts := _texts(folder, images, table):
            row = texts.options["rows"][0]
            heads = [table.names[table.columns.index(column)] for column in row["columns"]]
            options["texts"] = [{"kind": row["kind"], "text": " ".join(f"{{{head}}}" for head in heads)}]
        names = ", ".join(f"{{{name}}}" for name in table.names if name)
        doubts = (*guess.doubts, f"about: {path} says {names} of each image; does one name the patient, or the official split?")
        return replace(guess, files=guess.files | {"about": path}, options=options, doubts=doubts)
    return guess


def of_unknown_table(folder: Path, images: Shape, tables: Sequence[Shape]) -> Guess:
    """A table that says nothing that is known: images with it as ``about``."""
    path = tables[0].paths[0]
    files = {"image": images.pattern, "about": path}
    try:
        table = read_table(folder, path)
    except (InputError, Refused) as error:
        return Guess(TODO, {"image": images.pattern}, {}, (), None, (f"the table {path!r} cannot be read: {error}",))
    options = {"about_key": naming(table, keys_of(images.paths)) or TODO}
    columns = ", ".join(filter(None, table.columns))
    doubts = (
        f"converter: {path!r} holds neither boxes nor codes nor texts that are known; its columns are {columns};"
        " without marks the images are converted without regions",
    )
    return Guess("mask_images", files, options, (), None, doubts)


def of_json(folder: Path, images: Shape, files: Sequence[Shape]) -> Guess | None:
    """COCO or lists of boxes; None where no file is any of these."""
    for shape in files:
        for path in shape.paths[:6]:
            if (names := _coco_names(folder / path)) is not None:
                pattern = path if len(shape.paths) == 1 else re.sub(r"\{[^{}]*\}", "*", shape.pattern)
                return Guess("coco", {"image": images.pattern, "annotations": pattern}, {}, names)
            try:
                table = read_table(folder, path)
            except (InputError, Refused):
                continue
            for rule in (_lists, _boxes):
                if found := rule(folder, images, table):
                    return found
    return None


def _named(table: Table, images: Shape) -> str:
    return naming(table, keys_of(images.paths)) or TODO


def _values(table: Table, column: str | None) -> tuple[str, ...]:
    if column is None:
        return (OBJECT,)
    at = table.columns.index(column)
    return tuple(sorted({row[at] for row in table.rows} - {""}))[:FEW_VALUES]


def _codes(folder: Path, images: Shape, table: Table) -> Guess | None:
    if not (code := code_column(table)):
        return None
    image = _named(table, images)
    label = label_column(table, (code, image))
    options: dict[str, Any] = {"columns": {"image": image, "code": code} | ({"label": label} if label else {})}
    if not label:
        options["label"] = OBJECT
    if relative_codes(table, code):
        options["relative"] = True
    doubts = ('order: pixels are counted down the columns; say order = "rows" if a preview shows torn masks',)
    return Guess("rle_table", {"image": images.pattern, "table": table.file}, options, _values(table, label), None, doubts)


def _boxes(folder: Path, images: Shape, table: Table) -> Guess | None:
    if not (found := box_columns(table)):
        return _box_in_a_cell(images, table)
    box, order = found
    image, target = _named(table, images), target_column(table)
    label = label_column(table, (image, target, *box))
    columns: dict[str, Any] = {"image": image, "box": box}
    options: dict[str, Any] = {"columns": columns}
    for name, column in (("label", label), ("target", target), ("reader", reader_column(table))):
        if column:
            columns[name] = column
    if not label:
        options["label"] = OBJECT
    numbers = numbers_of(table, box)
    doubts: tuple[str, ...] = ()
    if numbers and max(max(row) for row in numbers) <= 1 and any(0 < value < 1 for row in numbers for value in row):
        options["frame"] = [1, 1]
    elif order == "xywh" and format_of(numbers, size_of(folder, images.paths)) == "xyxy":
        doubts = ("format: the boxes leave their images as left, top, width and height; are they centres (cxcywh), or of"
                  " another size (frame)?",)  # fmt: skip
    if order != "xywh":
        options["format"] = order
    raws = _values(table, label)
    if negative := ("0",) if target else _without_box(table, label, box):
        options["negative"] = list(negative)
        raws = tuple(raw for raw in raws if raw not in negative)
    return Guess("box_table", {"image": images.pattern, "table": table.file}, options, raws, None, doubts)


def _box_in_a_cell(images: Shape, table: Table) -> Guess | None:
    if not (cell := box_in_a_cell(table)) or table.file.endswith("json"):
        return None
    doubt = f"columns: the boxes stand in one column, {cell!r}; the converter needs four, so split it first"
    columns = {"image": _named(table, images), "box": TODO}
    return Guess("box_table", {"image": images.pattern, "table": table.file}, {"columns": columns}, (), None, (doubt,))


def _without_box(table: Table, label: str | None, box: Sequence[str]) -> tuple[str, ...]:
    """Labels of which no row has a box."""
    if not label:
        return ()
    at, corners = table.columns.index(label), [table.columns.index(column) for column in box]
    boxed = {row[at] for row in table.rows if any(row[corner] for corner in corners)}
    return tuple(sorted({row[at] for row in table.rows} - boxed - {""}))


def _by_header(guess: Guess, table: Table, scans: Scans) -> Guess:
    """A table that names DICOM images by what their headers say instead of their files' names."""
    columns = guess.options["columns"]
    if columns["image"] != TODO:
        return guess
    for keyword, template in (("SOPInstanceUID", "{sop}"), ("PatientID", "{patientid}"), ("StudyInstanceUID", "{study}"),
                              ("SeriesInstanceUID", "{series}")):  # fmt: skip
        if column := naming(table, {value.casefold() for value in scans.ids[keyword] - {""}}):
            kept = {name: value for name, value in columns.items() if name != "reader"} | {"image": column}
            options = guess.options | {"columns": kept} | ({} if keyword == "SOPInstanceUID" else {"id": template})
            doubts = guess.doubts + (() if keyword == "SOPInstanceUID" else
                                     (f"id: {column!r} holds the {keyword}; is there one image of each?",))  # fmt: skip
            files = {"image": "**/*", "table": guess.files["table"]}
            return Guess("dicom_images", files, options, guess.labels, scans.modality, doubts)
    return guess


def _key_slices(folder: Path, images: Shape, table: Table) -> Guess | None:
    """Single slices of 16 bit, named by folder and number, with a box in one cell."""
    if not (box := box_in_a_cell(table)) or not first_of(table, ("keysliceindex", "dicomwindows", "coarselesiontype")):
        return None
    folders = levels(images.paths)
    image = naming(table, {path.replace("/", "_").casefold() for path in images.paths}
                   | {"_".join(path.split("/")[-2:]).casefold() for path in images.paths})  # fmt: skip
    columns = {"image": image or TODO, "box": box, "label": first_of(table, ("coarselesiontype", "label", "type")) or TODO}
    for name, word in (("spacing", "spacingmmpx"), ("window", "dicomwindows"), ("noisy", "possiblynoisy")):
        if column := first_of(table, (word,)):
            columns[name] = column
    pattern, named = "/".join([*folders, f"{{case}}{images.ending}"]), f"{{case}}{images.ending}"
    if folders and folders[-1].startswith("{"):
        named = f"{folders[-1]}_{{case}}{images.ending}"
    label = columns["label"]
    raws = _values(table, label) if label != TODO else ()
    return Guess("key_slices", {"image": pattern, "table": table.file}, {"columns": columns, "named": named}, raws, "ct")


def _questions(folder: Path, images: Shape, table: Table) -> Guess | None:
    question, answer = first_of(table, ("question",)), first_of(table, ("answer", "answers"))
    if not question or not answer:
        return None
    columns = {"image": _named(table, images), "question": question, "answer": answer}
    if language := first_of(table, ("qlang", "lang", "language")):
        columns["language"] = language
    return Guess("qa_json", {"image": images.pattern, "questions": table.file}, {"columns": columns})


def _turns(folder: Path, images: Shape, table: Table) -> Guess | None:
    turns = column_where(table, lambda item: isinstance(item, dict) and {"from", "value"} <= item.keys())
    if not turns:
        return None
    columns = {"image": _named(table, images), "turns": turns}
    return Guess("qa_json", {"image": images.pattern, "questions": table.file}, {"columns": columns})


def _texts(folder: Path, images: Shape, table: Table) -> Guess | None:
    image = _named(table, images)
    for kind, words in TEXTS.items():
        columns = list(dict.fromkeys(column for word in words if (column := first_of(table, (word,))) and column != image))
        long = [column for column in columns if any(" " in cell for cell in cells_of(table, column))]
        if long:
            options = {"columns": {"image": image}, "rows": [{"kind": kind, "columns": long}]}
            return Guess("text_table", {"image": images.pattern, "table": table.file}, options)
    return None


def _lists(folder: Path, images: Shape, table: Table) -> Guess | None:
    """Rows that are images, with lists of labels, boxes and polygons."""
    box = column_where(table, lambda item: isinstance(item, list) and len(item) == 4 and all(map(_is_number, item)))
    polygon = column_where(table, _is_polygon)
    label = column_where(table, lambda item: isinstance(item, str))
    if not label or not (box or polygon):
        return None
    columns = {"image": _named(table, images), "label": label}
    options: dict[str, Any] = {"columns": columns}
    doubts: tuple[str, ...] = ()
    if box:
        columns["box"] = box
        boxes = [item for cell in listed_in(table, box) for item in cell]
        order = format_of(boxes, size_of(folder, images.paths))
        options["format"] = order or TODO
        doubts = () if order else (_UNSURE_FORMAT,)
    if polygon:
        columns["polygon"] = polygon
    raws = tuple(sorted({item for cell in listed_in(table, label) for item in cell}))[:FEW_VALUES]
    return Guess("box_json", {"image": images.pattern, "annotations": table.file}, options, raws, None, doubts)


def _is_polygon(item: Any) -> bool:
    if not isinstance(item, list) or len(item) < 3:
        return False
    return all(isinstance(point, list) and len(point) == 2 for point in item) or (len(item) > 5 and all(map(_is_number, item)))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _coco_names(path: Path) -> tuple[str, ...] | None:
    """Names of the categories of a COCO file; None where it is none."""
    try:
        content = json.loads(path.read_bytes())
        return tuple(sorted({str(category["name"]) for category in content["categories"]})) if "images" in content else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
