"""Images with questions and answers: lists in JSON files, JSON lines or tables (CSV).

Roles: ``image`` (raster or DICOM), ``questions`` (one row a question), ``about`` (see medglip/curate/tables.py; it may be
the same file: then its columns name the modality, the organ and the split of the image).

Options:
- ``columns``: names of keys or columns: ``image`` (a file's name, with or without folders and ending), ``question``,
  ``answer``, ``language`` (left out where all are in one); ``turns`` instead of question and answer: a list of ``{from,
  value}`` in turn from ``human`` (or ``user``) and another, as chat models are trained with; the mark ``<image>`` is left
  out;
- ``language``: of questions without a language of their own; default ``en``;
- ``languages``: take these only, for example ``["en"]``; default all;
- ``id``: template of what the image column holds, where it is not the file's name;
- ``each``: name of a list in the objects of a JSON file; every object in it is a question;
- ``missing_images``: ``reject`` (default) or ``ignore`` questions whose image is not there;
- ``window``: see medglip/curate/images.py.

A pair is one text of kind ``question`` with its answer; runs of white space are one blank. A question without an answer
is refused. The name ``asked_in`` is the file (its name without ending) that asks about the image, for
``split = "{asked_in}"``; it is empty where several files do, for then their split would tear the image apart.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from medglip.curate.cases import Case, Refused, joined
from medglip.curate.images import read_image
from medglip.curate.marks import Marks
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
from medglip.records import Picture, Reject, Text

ROLES = ("image", "questions", "about")
OPTIONS = ("columns", "language", "languages", "id", "each", "missing_images", "window", *ABOUT_OPTIONS)

_ASKING = ("human", "user")


def cases(part: Part, folder: Path) -> Iterator[Case | Reject]:
    """One case an image; questions about an image that is not there are rejected, once an image.

    Raises:
        InputError: no file of questions is there, or one is broken.
        Refused: one lacks a column.
        SourceError: an option is missing.
    """
    columns = part.option("columns", {})
    if not ({"image", "question", "answer"} <= set(columns) or {"image", "turns"} <= set(columns)):
        where = f"datasets/{part.source}.toml"
        raise SourceError(f"{where}: option columns is {columns!r}; it must name image, question, answer; or image, turns.")
    found = list(described(part, joined(part, folder), every=True))
    needed(part, "questions", found)
    if part.option("missing_images", "reject") == "reject":
        yield from unnamed(part, folder, found, "questions")
    for case in found:
        if isinstance(case, Reject):
            yield case
        elif is_wanted(part, case):
            yield replace(case, fields={**case.fields, "asked_in": _asked_in(part, case)})


def convert(part: Part, case: Case) -> Iterator[Picture | Reject]:
    """One picture with its questions and answers; nobody marked it, so nothing in it is absent."""
    pixels, shot = read_image(part, case.path(case.one("image")))
    marks = Marks(part, case, labelled=False)
    texts: dict[Text, None] = {}
    for file in case.files["questions"]:
        for number in _numbers(part, case, file):
            table, where = read_table(case.folder, file, part.option("each", "")), f"{file} row {number + 1}"
            language = _language(part, table, number)
            if language not in part.option("languages", [language]):
                continue
            for question, answer in _pairs(part, table, number):
                with marks.item(where):
                    texts[_text(where, question, answer, language)] = None
    yield from marks.rejects
    yield marks.picture(pixels, replace(shot, texts=tuple(texts)))


def _numbers(part: Part, case: Case, file: str) -> list[int]:
    table = read_table(case.folder, file, part.option("each", ""))
    return rows_of(part, case, table, table.at(part.option("columns")["image"]))


def _asked_in(part: Part, case: Case) -> str:
    files = [file for file in case.files["questions"] if _numbers(part, case, file)]
    return PurePosixPath(files[0]).name.split(".")[0] if len(files) == 1 else ""


def _language(part: Part, table: Table, number: int) -> str:
    columns = part.option("columns")
    said = table.rows[number][table.at(columns["language"])] if "language" in columns else ""
    return (said or part.option("language", "en")).casefold()


def _pairs(part: Part, table: Table, number: int) -> Iterator[tuple[str, str]]:
    """Questions and answers of a row."""
    columns, row = part.option("columns"), table.rows[number]
    if "turns" not in columns:
        yield row[table.at(columns["question"])], row[table.at(columns["answer"])]
        return
    asked: str | None = None
    for turn in listed_cell(row[table.at(columns["turns"])]):
        who, said = (str(turn.get(key) or "") for key in ("from", "value")) if isinstance(turn, dict) else ("", "")
        if who.casefold() in _ASKING:
            if asked is not None:
                yield asked, ""
            asked = said.replace("<image>", " ")
        elif asked is not None:
            yield asked, said
            asked = None
    if asked is not None:
        yield asked, ""


def _text(where: str, question: str, answer: str, language: str) -> Text:
    if not question.strip() or not answer.strip():
        missing = "answer" if question.strip() else "question"
        raise Refused("missing_answer", f"{where}: the {missing} is empty; a pair needs both. Complete it, or take it out.")
    return Text(" ".join(question.split()), "question", language, answer=" ".join(answer.split()))
