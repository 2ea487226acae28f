"""Images with reports, captions or sentences: in tables (CSV, JSON, JSON lines) or text files, with boxes where rows have them.

Roles: ``image`` (raster or DICOM), ``table`` (rows: a report of one or several images, or a sentence of one image),
``report`` (text files, matched by the names that both patterns remember; several images may share one), ``about`` (see
medglip/curate/tables.py).

Options:
- ``columns``: names of columns: ``image`` (a file's name, with or without folders and ending; required with a table; a
  JSON list names several images); for sentences with boxes also ``label`` (a label, or a JSON list with one), ``box``
  (four) or ``boxes`` (each with a JSON list of boxes; a second column is a second reader's), ``size`` (width and height
  of the image that the boxes of the row are for);
- ``id``: template of what the image column holds, where it is not the file's name, for example ``"{study}"``;
- ``each``: name of a list in the objects of a JSON table; every object in it is a row;
- ``rows``: texts of each row, for example ``[{ kind = "report", columns = ["findings", "impression"] }]``; several
  columns are headed by their names, empty ones are left out. ``language`` (default ``en``) may be a template:
  ``"{lang}"``;
- ``sentences``: columns with one sentence a row, for example ``[{ column = "sentence_en", language = "en" }]``;
- ``joined``: true makes the sentences of an image one text, in their order; default false: each is a text of its own;
- ``negative``: words in the label column that mean "nothing here", for example ``["Normal"]``;
- ``report_kind``, ``report_language``: of the text files; default ``report`` and ``en``;
- ``format``, ``frame``, ``swapped_corners``: as of the converter ``box_table``; ``format`` is ``xywh`` by default;
- ``unlisted``: ``keep`` (default) an image without a row and without a report, or ``ignore`` it: it is none of the source,
  which speaks of some images of a larger one;
- ``missing_images``: ``reject`` (default) or ``ignore`` rows whose image is not there;
- ``window``: see medglip/curate/images.py.

The boxes of a row are what its sentence speaks of: the sentence is a span of its text, and a phrase of these regions.
Where two readers drew boxes for a sentence, the first reader's are the regions, with the attributes ``readers`` and
``agreement`` (the best overlap with a box of the other). Boxes of a row with several labels are refused, for nobody says
which is which; its sentence stays.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medglip.curate.boxes import box_of_numbers
from medglip.curate.cases import Case, Refused, joined
from medglip.curate.images import read_image
from medglip.curate.marks import Marks
from medglip.curate.readers import SAME_BOX, overlap
from medglip.curate.regions import region_of_box
from medglip.curate.source import Named, Part
from medglip.curate.tables import (
    ABOUT_OPTIONS,
    Table,
    described,
    is_wanted,
    listed_cell,
    named_cells,
    needed,
    read_table,
    rows_of,
    unnamed,
)
from medglip.errors import InputError, SourceError
from medglip.records import Picture, Region, Reject, Span, Text, label_tree
from medglip.records.phrases import phrased

ROLES = ("image", "table", "report", "about")
OPTIONS = ("columns", "id", "each", "rows", "sentences", "joined", "negative", "report_kind", "report_language", "format",
           "frame", "swapped_corners", "unlisted", "missing_images", "window", *ABOUT_OPTIONS)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of a table: where it stands, its cells by column, and by the names of templates."""

    where: str
    table: Table
    number: int

    def cell(self, column: str) -> str:
        return self.table.rows[self.number][self.table.at(column)]


@dataclass
class _Said:
    """Sentences of one column in their order, each with the positions of the regions that it speaks of."""

    kind: str
    language: str
    sentences: dict[str, list[int]] = field(default_factory=dict)


def cases(part: Part, folder: Path) -> Iterator[Case | Reject]:
    """One case an image; rows that name an image that is not there are rejected, once an image.

    Raises:
        InputError: no table is there, or one is broken.
        Refused: a table lacks a column.
        SourceError: an option is missing.
    """
    _check(part)
    found = list(described(part, joined(part, folder), every=True))
    if "table" in part.files:
        needed(part, "table", found)
        if part.option("missing_images", "reject") == "reject":
            yield from unnamed(part, folder, found, "table")
    for case in found:
        if isinstance(case, Reject) or (is_wanted(part, case) and _is_taken(part, case)):
            yield case


def convert(part: Part, case: Case) -> Iterator[Picture | Reject]:
    """One picture with its texts, and with the regions that its sentences speak of."""
    pixels, shot = read_image(part, case.path(case.one("image")))
    rows = list(_rows(part, case))
    marks = Marks(part, case, labelled=bool(rows))
    said: dict[str, _Said] = {}
    texts: list[Text] = []
    for row in rows:
        at = _boxes(marks, row, pixels.shape[:2])
        texts += _texts(part, row)
        for entry in part.option("sentences", ()):
            sentence = " ".join(row.cell(entry["column"]).split())
            if sentence:
                column = said.setdefault(entry["column"], _Said(entry.get("kind", "report"), _language(entry, row)))
                regions = column.sentences.setdefault(sentence, [])
                regions += [number for number in at if number not in regions]
    texts += _files(part, case)
    yield from marks.rejects
    yield _with_texts(part, marks.picture(pixels, shot), texts, list(said.values()))


def _check(part: Part) -> None:
    where, columns = f"datasets/{part.source}.toml", part.option("columns", {})
    if not {"table", "report", "about"}.intersection(part.files):
        raise SourceError(f"{where}: no role table, report or about is set; a text must come from somewhere.")
    if "table" in part.files and "image" not in columns:
        raise SourceError(f"{where}: option columns is {columns!r}; with a table it must name image.")
    if ("box" in columns or "boxes" in columns) and "label" not in columns:
        raise SourceError(f"{where}: option columns is {columns!r}; with boxes it must name label.")
    if len(columns.get("box", range(4))) != 4:
        raise SourceError(f"{where}: option columns.box is {columns['box']!r}; it must name four columns.")


def _rows(part: Part, case: Case) -> Iterator[_Row]:
    """The rows that name the image of the case."""
    for file in case.files.get("table", ()):
        table = read_table(case.folder, file, part.option("each", ""))
        for number in rows_of(part, case, table, table.at(part.option("columns")["image"])):
            yield _Row(f"{file} row {number + 1}", table, number)


def _is_taken(part: Part, case: Case) -> bool:
    return part.option("unlisted") != "ignore" or bool(case.files.get("report")) or next(_rows(part, case), None) is not None


def _texts(part: Part, row: _Row) -> Iterator[Text]:
    for entry in part.option("rows", ()):
        columns = entry["columns"]
        cells = [(name, row.cell(name)) for name in columns]
        parts = [cell if len(columns) == 1 else f"{name[:1].upper()}{name[1:]}: {cell}" for name, cell in cells if cell]
        if parts:
            yield Text("\n".join(parts), entry.get("kind", "report"), _language(entry, row))


def _language(entry: dict[str, Any], row: _Row) -> str:
    template = entry.get("language", "en")
    try:
        return template.format_map(named_cells(row.table, row.number)).strip() or "en"
    except KeyError as error:
        raise Refused("missing_field", f"The template {template!r} names {error}, which {row.where} lacks.") from error


def _files(part: Part, case: Case) -> Iterator[Text]:
    for file in case.files.get("report", ()):
        try:
            content = case.path(file).read_bytes()
        except OSError as error:
            raise InputError(f"Report {file!r} cannot be read: {error.strerror}.") from error
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("latin-1")
        text = "\n".join(line.rstrip() for line in text.splitlines()).strip()
        if text:
            yield Text(text, part.option("report_kind", "report"), part.option("report_language", "en"))


def _boxes(marks: Marks, row: _Row, size_hw: tuple[int, int]) -> list[int]:
    """Take in the boxes of a row; the positions of their regions."""
    part, columns = marks.part, marks.part.option("columns", {})
    sets = _sets(part, row)
    first = next((boxes for boxes in sets if boxes), [])
    if not first:
        return []
    named = None
    with marks.item(row.where):
        named = _named(part, row)
    if named is None:
        return []
    with marks.item(row.where, named):
        frame = _frame(row, columns.get("size", ()), size_hw)
        others = [box_of_numbers(part, row.where, box, size_hw, frame) for boxes in sets for box in boxes if boxes is not first]
        at: list[int] = []
        for box in first:
            with marks.item(row.where, named):
                region = region_of_box(part, named, box_of_numbers(part, row.where, box, size_hw, frame), size_hw)
                at.append(_add(marks.regions, region, others))
        return at
    return []


def _frame(row: _Row, columns: Sequence[str], size_hw: tuple[int, int]) -> tuple[float, float] | None:
    """Width and height that the boxes of a row are for, where it says so."""
    if not columns:
        return None
    cells = [row.cell(name) for name in columns]
    try:
        width, height = (float(cell) for cell in cells)
    except ValueError as error:
        raise Refused("size_mismatch", f"{row.where}: the size {cells!r} is no width and height.") from error
    if not (width > 0 < height and abs((size_hw[1] / size_hw[0]) / (width / height) - 1) <= 0.01):
        raise Refused(
            "size_mismatch",
            f"{row.where}: its boxes are for an image of {width:g} x {height:g} pixels, this one has"
            f" {size_hw[1]} x {size_hw[0]}; their aspect ratios must agree within 1 %.",
        )
    return width, height


def _sets(part: Part, row: _Row) -> list[list[Any]]:
    """The boxes of each reader, each four numbers or their text."""
    columns = part.option("columns", {})
    if "boxes" in columns:
        found = [listed_cell(row.cell(name)) for name in columns["boxes"]]
        return [[boxes] if boxes and not isinstance(boxes[0], list) else boxes for boxes in found]  # a box, or several
    cells = [row.cell(name) for name in columns.get("box", ())]
    return [[cells]] if any(cells) else []


def _named(part: Part, row: _Row) -> Named | None:
    """The one label of a row with boxes; None where the source skips it."""
    negative = {str(word).casefold() for word in part.option("negative", ())}
    words = [str(word) for word in listed_cell(row.cell(part.option("columns")["label"]))]
    if not words:
        raise Refused("unknown_label", f"{row.where} has boxes and no label; add it, or take them out.")
    if said := negative.intersection(word.casefold() for word in words):
        raise Refused("contradiction", f"{row.where} has boxes and the label {sorted(said)[0]!r}, which means: nothing here.")
    found = {part.named(word, row.where) for word in words}
    if len(found - {None}) > 1:
        raise Refused(
            "ambiguous_label",
            f"{row.where} has boxes and the labels {words!r}; it must have one, for nobody says which box shows which."
            " The sentence is kept without them.",
        )
    return next(iter(found - {None}), None)


def _add(regions: list[Region], region: Region, others: list[Any]) -> int:
    """Add a region of the first reader, with what the second reader thought of it."""
    if others:
        agreement = round(max(overlap(region.box_xyxy, other) for other in others), 3)
        region = replace(region, attributes={"readers": 2, "agreement": agreement})
    for at, known in enumerate(regions):  # two sentences about one place
        if known.concept == region.concept and overlap(known.box_xyxy, region.box_xyxy) > SAME_BOX:
            return at
    regions.append(region)
    return len(regions) - 1


def _with_texts(part: Part, result: Picture, texts: list[Text], said: list[_Said]) -> Picture:
    """The picture with texts; spans name the ids that its regions got when they were put together."""
    record = result.record
    ids = [region.id for region in record.regions]
    for column in said:
        if part.option("joined"):
            texts.append(_joined(column, ids))
            continue
        for sentence, at in column.sentences.items():
            spans = (Span(0, len(sentence), tuple(ids[number] for number in at)),) if at else ()
            texts.append(Text(sentence, column.kind, column.language, spans))
    if not texts:
        return result
    return result._replace(record=phrased(replace(record, texts=record.texts + tuple(texts)), label_tree()))


def _joined(column: _Said, ids: list[str]) -> Text:
    text, spans = "", []
    for sentence, at in column.sentences.items():
        start = len(text) + bool(text)
        text = f"{text} {sentence}" if text else sentence
        if at:
            spans.append(Span(start, len(text), tuple(ids[number] for number in at)))
        text += "" if sentence[-1] in ".!?" else "."
    return Text(text, column.kind, column.language, tuple(spans))
