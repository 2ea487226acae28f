"""Writes docs/reference/ from the code: pages of the schema, the command line and the files. `scripts/docs` runs it.

A test compares the pages with what this makes, so that neither can drift from the code.
"""

import ast
import importlib
import json
import re
import textwrap
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import typer

from medglip.cli import app
from medglip.curate import Source, load_source, source_names
from medglip.records.reasons import FLAGS, REASONS
from medglip.shelf import shelf
from medglip.store.schema import SCHEMA_VERSION, SCHEMAS

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs/reference"
FOLDERS = ("scripts", "datasets", "converters", "medglip", "benchmarks")
_SENTENCE_END = re.compile(r"\. ")
RECORDS = ("image", "region", "mask", "phrase", "text", "span", "intensity", "origin", "keys", "volume", "instance")
TABLES = {
    "images": ("image", "origin", "keys", "intensity"), "regions": ("region", "origin", "image"),
    "texts": ("text", "origin", "image"), "volumes": ("volume", "origin", "keys"), "rejects": ("origin",),
}  # fmt: skip
# Columns that no document has under the same name.
COLUMNS = {
    "shard": "Path of the tar in the dataset.", "tar_offset": "First byte of the PNG in the tar.",
    "tar_bytes": "Bytes of the PNG.",
    "window_low": "Shown as black, in the unit.", "window_high": "Shown as white, in the unit.",
    "row_mm": "Pitch of the rows; null if unknown.", "column_mm": "Pitch of the columns; null if unknown.",
    "n_regions": "Rows of this image in regions.", "n_texts": "Rows of this image in texts.",
    "image_id": "Id of the image.", "concept": "label, or label@side.",
    "x0": "Left edge of the box, pixels.", "y0": "Upper edge.", "x1": "Right edge: one past the last column.",
    "y1": "Lower edge: one past the last row.", "width_mm": "Of the box; null where the spacing is unknown.",
    "height_mm": "Of the box; null where the spacing is unknown.", "area_px": "Pixels of the mask; null without a mask.",
    "phrase_kinds": "Kind of each phrase.", "rle": "The mask's counts; null where only a box is known.",
    "shape_k": "Slices.", "shape_j": "Rows.", "shape_i": "Columns.", "k_mm": "Pitch of the slices; null if unknown.",
    "j_mm": "Pitch of the rows; null if unknown.", "i_mm": "Pitch of the columns; null if unknown.",
    "reason": "Short code, the same for the same cause.", "detail": "What was found, what is allowed, what to do.",
}  # fmt: skip
# What a converter makes regions or texts of.
KINDS = {
    "binary_volumes": "masks in 3-D", "box_json": "boxes, polygons", "box_table": "boxes", "coco": "boxes, masks",
    "dicom_images": "boxes", "dicom_masks": "masks in 3-D", "dicom_rtstruct": "contours", "dicom_seg": "masks in 3-D",
    "key_slices": "boxes", "label_volumes": "masks in 3-D", "lidc_xml": "contours", "mask_images": "masks",
    "npy_stacks": "masks", "polygons_xml": "polygons", "qa_json": "questions", "rle_table": "masks", "slice_boxes": "boxes",
    "text_table": "texts", "voc": "boxes", "volumes": "images", "yolo": "boxes, polygons",
}  # fmt: skip
# Modules whose options several converters take.
SHARED = ("volumes", "volume_tables", "label_map", "tables", "images", "lists", "readers")


def schema_page() -> str:
    """The page of records and tables, in Markdown."""
    schema = json.loads((shelf("schemas") / "record.schema.json").read_text("utf-8"))
    lines = [
        "# The schema", "",
        f"Version {SCHEMA_VERSION}. Made from `schemas/record.schema.json` and the Arrow schemas by `scripts/docs`.", "",
        schema["description"], "", "## Records", "",
        "`Dataset.record(i)` gives them as frozen dataclasses, `Dataset.documents()` as these JSON documents.", "",
    ]  # fmt: skip
    for name in RECORDS:
        lines += [f"### {name}", "", schema["$defs"][name]["description"], "", *_fields(schema["$defs"], name), ""]
    lines += ["## Tables", "", "Parquet files `TABLE/PART-HASH.parquet`; `Dataset.query` has a view of each table.", ""]
    for table, homes in TABLES.items():
        lines += [f"### {table}", "", *_columns(schema["$defs"], SCHEMAS[table], homes), ""]
    return "\n".join(lines)


def cli_page() -> str:
    """The page of the command line, in Markdown: what ``--help`` says."""
    lines = ["# The command line", "", "Made from the commands by `scripts/docs`; do not edit.", "",
             "Exit codes: 0 all done; 1 an error of the program; 2 wrong use or input; 3 done in part.", ""]  # fmt: skip
    group = typer.main.get_command(app)
    for name, command in group.commands.items():
        lines += [f"## medglip {name}", "", *_help(command), ""]
        rows = [_option(parameter) for parameter in command.params if parameter.name != "help"]
        if rows:
            lines += ["| argument | what |", "| --- | --- |", *rows, ""]
    return "\n".join(lines)


def files_page() -> str:
    """The page of the tree, in Markdown: every file with the first sentence that it says of itself."""
    lines = ["# The files", "", "A phrase for each, from its first line; made by `scripts/docs`.", ""]
    for folder in FOLDERS:
        found = sorted(path for ending in ("*.py", "*.toml", "*.sh") for path in (ROOT / folder).rglob(ending))
        found += sorted(path for path in (ROOT / folder).glob("*") if path.is_file() and not path.suffix)
        rows = [(path, said) for path in found if (said := _said(path))]
        lines += [f"## {folder}/", "", "| file | what |", "| --- | --- |"]
        lines += [f"| `{path.relative_to(ROOT / folder)}` | {said} |" for path, said in rows] + [""]
    return "\n".join(lines)


def sources_page() -> str:
    """The page of the sources, in Markdown: a table a modality, then a section each with traps and lineage."""
    sources = [load_source(name) for name in source_names()]
    groups: dict[str, list[Source]] = {}
    for source in sorted(sources, key=lambda one: (len(one.modalities) > 1, one.modalities[0])):
        groups.setdefault(source.modalities[0] if len(source.modalities) == 1 else "several modalities", []).append(source)
    lines = [
        "# The sources", "",
        f"{len(sources)} sources, made from `datasets/*.toml` by `scripts/docs`; do not edit. `medglip sources NAME` shows one"
        " with its layout and labels, [converters.md](converters.md) the formats,"
        " [the guide](../guide/add-a-source.md) how to add one.", "",
        "*Expected* is what the publisher counts. *Checked on*: `real sample` means that a test converts files of the published"
        " set where it finds them ([real-files.md](real-files.md)); `generated fixture` means that tests convert only files"
        " generated in its layout, so read its first conversion with care. The terms of a licence are those of its page,"
        " whatever stands here.", "",
    ]  # fmt: skip
    for group, members in groups.items():
        lines += [f"## {group}", "", "| source | kind | licence | access | converter | expected | checked on |",
                  "| --- | --- | --- | --- | --- | --- | --- |", *map(_source_row, members), ""]  # fmt: skip
    lines += ["## Traps and lineage", ""]
    for source in sources:
        lines += _source_section(source)
    return "\n".join(lines)


def _source_row(source: Source) -> str:
    used = list(dict.fromkeys(part.converter for part in source.parts))
    kinds = list(dict.fromkeys(kind for one in used for kind in KINDS.get(one, one.replace("_", " ")).split(", ")))
    made = "" if source.annotation == "human" else f" ({source.annotation})"
    cells = (f"[{source.name}](#{source.name})", ", ".join(kinds) + made, source.licence, source.access,
             ", ".join(f"[{one}](converters.md#{one})" for one in used),
             ", ".join(f"{count} {what}" for what, count in source.expected.items()), _checked_on(source.name))  # fmt: skip
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _source_section(source: Source) -> Iterator[str]:
    yield f"### {source.name}"
    yield ""
    title = source.title.rstrip(".")
    yield _cell(f"{title}. [Page]({source.page})." if source.page else f"{title}.")
    yield ""
    if source.lineage:
        yield f"- Shares images with {', '.join(f'[{one}](#{one})' for one in source.lineage)}."
    yield from (f"- {_cell(trap)}" for trap in source.known_defects)
    if source.lineage or source.known_defects:
        yield ""


def _checked_on(name: str) -> str:
    """``real sample`` where the page of real files has a folder of that name, else whether a test names the source."""
    files = FOLDER / "real-files.md"
    folder = re.escape(name.replace("_", "-"))
    if files.is_file() and re.search(rf"^\| {folder}[ /]", files.read_text("utf-8"), re.MULTILINE):
        return "real sample"
    return "generated fixture" if name in _named_in_tests() else "nothing yet"


@cache
def _named_in_tests() -> frozenset[str]:
    """Words in quotes in the tests."""
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    return frozenset(word for text in texts for word in re.findall(r"[\"']([a-z0-9_]+)[\"']", text))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def converters_page() -> str:
    """The page of the converters, in Markdown: their own words, their options, the sources that use them."""
    used: dict[str, list[str]] = {}
    for name in source_names():
        for converter in dict.fromkeys(part.converter for part in load_source(name).parts):
            used.setdefault(converter, []).append(name)
    lines = ["# The converters", "", "One file a format in `converters/`; made from their words by `scripts/docs`.",
             "A source names one in each `[[part]]`, roles in `[part.files]`, options in `[part.options]`.", ""]  # fmt: skip
    for path in sorted((ROOT / "converters").glob("[a-z]*.py")):
        module = importlib.import_module(f"medglip.converters.{path.stem}")
        sources = ", ".join(f"[{name}](sources.md#{name})" for name in used.get(path.stem, ()))
        roles, options = (", ".join(f"`{name}`" for name in names) for names in (module.ROLES, module.OPTIONS))
        lines += [f"## {path.stem}", "", *_markdown(module.__doc__ or "")]
        lines += [f"All roles: {roles}. All options: {options}.", "", f"Sources: {sources or 'none yet'}.", ""]
    lines += ["## What converters share", ""]
    for name in SHARED:
        module = importlib.import_module(f"medglip.curate.{name}")
        lines += [f"### medglip.curate.{name}", "", *_markdown(module.__doc__ or "")]
    return "\n".join(lines)


def _markdown(words: str) -> Iterator[str]:
    """A docstring as Markdown: literal blocks are fenced, names are code."""
    code = False
    for block in textwrap.dedent(words).strip().split("\n\n"):
        if code:
            yield from ("```toml", *textwrap.dedent(block).splitlines(), "```", "")
        else:
            text = block.replace("``", "`").replace("::", ":") if block.endswith("::") else block.replace("``", "`")
            yield from (*re.sub(r"(?m)^(.*):\n- ", r"\1:\n\n- ", text).splitlines(), "")
        code = not code and block.endswith("::")


def reasons_page() -> str:
    """The page of reasons and flags, in Markdown."""
    lines = ["# Reasons and flags", "", "Made from `medglip/records/reasons.py` by `scripts/docs`; do not edit.", "",
             "## Reasons", "", "Why a file, a case or a mark was not converted: column `reason` of the table `rejects`.",
             "Nothing is dropped without one. What stands after a colon is its detail.", "",
             "| reason | what it means |", "| --- | --- |"]  # fmt: skip
    lines += [f"| `{code}` | {_cell(text)} |" for code, text in REASONS.items()]
    lines += ["", "## Flags", "", "What to know of an image, a volume or a region that was converted: column `flags`.", "",
              "| flag | what it means |", "| --- | --- |"]  # fmt: skip
    return "\n".join([*lines, *(f"| `{flag}` | {_cell(text)} |" for flag, text in FLAGS.items()), ""])


def _said(path: Path) -> str:
    """What a file says of itself: its docstring's first sentence, a source's title, a comment at its top."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        words = ast.get_docstring(ast.parse(text)) or ""
    elif path.parent.name == "datasets":
        words = tomllib.loads(text)["title"]
    else:
        words = next((line.lstrip("# ") for line in text.splitlines() if line.startswith("# ")), "")
    return _SENTENCE_END.split(" ".join(words.partition("\n\n")[0].split()))[0].rstrip(".").replace("|", "\\|")


def _fields(parts: dict[str, Any], name: str) -> Iterator[str]:
    yield "| field | type | what |"
    yield "| --- | --- | --- |"
    for field, kind in parts[name]["properties"].items():
        what = kind.get("description") or _referred(parts, kind).get("description", "")
        yield f"| `{field}` | {_type(kind)} | {what} |"


def _columns(parts: dict[str, Any], schema: pa.Schema, homes: tuple[str, ...]) -> Iterator[str]:
    yield "| column | type | null | what |"
    yield "| --- | --- | --- | --- |"
    for field in schema:
        null = "yes" if field.nullable else ""
        yield f"| `{field.name}` | {_arrow_type(field.type)} | {null} | {_meaning(parts, field.name, homes)} |"


def _meaning(parts: dict[str, Any], column: str, homes: tuple[str, ...]) -> str:
    """What a column says; raises KeyError for one that is described nowhere."""
    for home in homes:
        if column in parts[home]["properties"]:
            kind = parts[home]["properties"][column]
            return kind.get("description") or _referred(parts, kind).get("description", "")
    return COLUMNS[column]


def _arrow_type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list of {_arrow_type(kind.value_type)}"
    if pa.types.is_struct(kind):
        return "{" + ", ".join(f"{field.name}: {_arrow_type(field.type)}" for field in kind) + "}"
    return str(kind)


def _referred(parts: dict[str, Any], kind: dict[str, Any]) -> dict[str, Any]:
    return parts[kind["$ref"].rpartition("/")[2]] if "$ref" in kind else {}


def _type(kind: dict[str, Any]) -> str:
    """A JSON type in words: ``string``, ``number or null``, ``list of region`` ..."""
    if "$ref" in kind:
        return kind["$ref"].rpartition("/")[2]
    if "enum" in kind:
        return ", ".join(f"`{json.dumps(word)}`" for word in kind["enum"])
    if "anyOf" in kind:
        return " or ".join(_type(one) for one in kind["anyOf"])
    types = kind["type"] if isinstance(kind["type"], list) else [kind["type"]]
    words = [f"list of {_type(kind['items'])}" if one == "array" else one for one in types]
    return " or ".join(words)


def _help(command: Any) -> list[str]:
    """The command's words; the example as code."""
    text, _, example = (command.help or "").partition("Example:")
    lines = [" ".join(text.split())]
    return [*lines, "", "```bash", " ".join(example.split()), "```"] if example else lines


def _option(parameter: Any) -> str:
    is_option = parameter.param_type_name == "option"
    name = ", ".join(parameter.opts) if is_option else (parameter.metavar or parameter.name.upper())
    what = " ".join((getattr(parameter, "help", "") or "").split()).replace("|", "\\|")
    return f"| `{name}` | {what} |"


def pages() -> dict[Path, str]:
    """All pages by path."""
    made = {"schema": schema_page, "cli": cli_page, "files": files_page, "sources": sources_page,
            "converters": converters_page, "reasons": reasons_page}  # fmt: skip
    return {FOLDER / f"{name}.md": page() for name, page in made.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path, text in pages().items():
        path.write_text(text + "\n", encoding="utf-8")
        print(f"written: {path.relative_to(FOLDER.parent.parent)}")
