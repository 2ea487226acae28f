"""Explains files that are no pictures: tables, JSON, XML, arrays, archives, text. Prints no cell of a table."""

import csv
import gzip
import io
import json
import tarfile
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

import numpy as np

from medglip.errors import InputError
from medglip.imaging.explain import Facts, counted, listed, problem_words

TABLE_ENDINGS = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
VIDEO_ENDINGS = (".mp4", ".avi", ".mov", ".mpg", ".mpeg", ".mkv", ".webm")
# A file above this is not read whole only to be explained.
_MOST_BYTES = 2 << 30
_BOX_COLUMNS = (("x", "y", "w", "h"), ("x", "y", "width", "height"), ("xmin", "ymin", "xmax", "ymax"),
                ("x_min", "y_min", "x_max", "y_max"), ("x1", "y1", "x2", "y2"), ("left", "top", "right", "bottom"))  # fmt: skip
_RLE_COLUMNS = ("encodedpixels", "rle", "mask_rle", "segmentation")
_LABEL_COLUMNS = ("label", "labels", "class", "class_name", "finding", "finding label", "target", "category", "dx", "split")
_BOMB = 100
_FEW_KEYS = 12


def inspect_table(path: Path) -> Facts:
    """A CSV or TSV: its columns, rows and what they look like.

    Raises:
        InputError: it is no text, or empty.
    """
    text = _text(path)
    problems = ["byte_order_mark"] if text.startswith("\ufeff") else []
    text = text.lstrip("\ufeff")
    if not text.strip():
        raise InputError(f"Table {path.name!r} is empty.")
    delimiter = "\t" if ".tsv" in path.name.lower() else max(",;\t|", key=text.split("\n", 1)[0].count)
    rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    columns, body = [name.strip() for name in rows[0]], [row for row in rows[1:] if row]
    if any(len(row) != len(columns) for row in body):
        problems.append("ragged_rows")
    labels = {}
    for at, name in enumerate(columns):
        if name.lower() in _LABEL_COLUMNS:
            found = Counter(row[at] for row in body if at < len(row))
            if len(found) <= 40:
                labels[name] = dict(found.most_common())
    holds = _holds(columns)
    words = [f"A table of {counted(len(body), 'row')} and {counted(len(columns), 'column')}: {listed(columns, 20)}.",
             f"It looks like {holds}.", *(f"Column {name!r}: {listed([f'{k} ({v})' for k, v in found.items()])}."
                                          for name, found in labels.items()), *problem_words(problems)]  # fmt: skip
    return {"path": str(path), "format": "table", "rows": len(body), "columns": columns, "delimiter": delimiter,
            "holds": holds, "labels": labels, "problems": problems, "words": words}  # fmt: skip


def _holds(columns: list[str]) -> str:
    names = {name.lower().strip("[] ") for name in columns}
    joined = {part for name in names for part in name.replace("bbox", "").strip(" [").split(" ")}
    for box in _BOX_COLUMNS:
        if set(box) <= names or set(box) <= joined:
            return f"boxes ({', '.join(box)}), for the converter box_table"
    if names & set(_RLE_COLUMNS):
        return "masks as run lengths, for the converter rle_table"
    return "facts about cases or images (labels, texts, splits), which a source may name in its `tables`"


def inspect_json(path: Path) -> Facts:
    """A JSON or JSON-lines file: COCO, grounding lines, questions, or what else its keys say.

    Raises:
        InputError: it is no JSON.
    """
    text = _text(path)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        try:
            content = [json.loads(line) for line in text.splitlines() if line.strip()]
        except json.JSONDecodeError:
            raise InputError(f"{path.name!r} is no JSON: {error}.") from error
    facts: Facts = {"path": str(path), "format": "JSON"}
    if isinstance(content, dict) and isinstance(content.get("images"), list) and isinstance(content.get("annotations"), list):
        return facts | _coco(content)
    if isinstance(content, list):
        keys = sorted({key for item in content if isinstance(item, dict) for key in item})
        kind = "questions and answers" if {"question", "answer"} <= set(keys) else (
            "lines of a grounding set (ODVG)" if "grounding" in keys or "detection" in keys else "a list")  # fmt: skip
        words = [f"JSON: {kind} of {counted(len(content), 'item')}"
                 + (f" with the keys {listed(keys, 20)}." if keys else ".")]  # fmt: skip
        return facts | {"holds": kind, "items": len(content), "keys": keys, "words": words}
    keys = sorted(content) if isinstance(content, dict) else []
    # Many keys are no names of fields but of files or cases, which may be those of patients.
    shown = keys if len(keys) <= _FEW_KEYS else []
    words = [f"JSON: an object with {counted(len(keys), 'key')}" + (f": {listed(shown)}." if shown else ".")]
    return facts | {"holds": "an object", "items": len(keys), "keys": shown, "words": words}


def _coco(content: dict) -> Facts:
    images = {item.get("id"): item for item in content["images"] if isinstance(item, dict)}
    marks = [item for item in content["annotations"] if isinstance(item, dict)]
    names = {item.get("id"): str(item.get("name")) for item in content.get("categories") or [] if isinstance(item, dict)}
    by_name = Counter(names.get(mark.get("category_id"), "unknown category") for mark in marks)
    shapes = Counter(_shape(mark) for mark in marks)
    problems = ["unknown_image"] if any(mark.get("image_id") not in images for mark in marks) else []
    if any(not _inside(mark.get("bbox"), images.get(mark.get("image_id"), {})) for mark in marks):
        problems.append("box_outside")
    words = [f"COCO: {counted(len(images), 'image')}, {counted(len(marks), 'annotation')} ({_counts(shapes)}),"
             f" {len({mark.get('image_id') for mark in marks})} of the images are annotated.",
             f"Categories: {_counts(by_name)}.", "Convert it with the converter coco.", *problem_words(problems)]  # fmt: skip
    return {"holds": "COCO", "images": len(images), "annotations": len(marks), "shapes": dict(shapes),
            "categories": dict(by_name.most_common()), "problems": problems, "words": words}  # fmt: skip


def _shape(mark: dict) -> str:
    outline = mark.get("segmentation")
    if isinstance(outline, dict):
        return "run lengths"
    return "polygons" if outline else "boxes only"


def _inside(box: Any, image: dict) -> bool:
    if not isinstance(box, list) or len(box) != 4:
        return box is None or box == []
    x, y, width, height = (float(number) for number in box)
    right, bottom = float(image.get("width") or np.inf), float(image.get("height") or np.inf)
    return width > 0 and height > 0 and x >= -1 and y >= -1 and x + width <= right + 1 and y + height <= bottom + 1


def inspect_xml(path: Path) -> Facts:
    """An XML file: Pascal VOC, Aperio, LIDC, or what its root says.

    Raises:
        InputError: it is no XML.
    """
    try:
        root = ElementTree.fromstring(_text(path).lstrip("\ufeff").encode())
    except ElementTree.ParseError as error:
        raise InputError(f"{path.name!r} is no XML: {error}.") from error
    tags = Counter(element.tag.rsplit("}", 1)[-1] for element in root.iter())
    facts: Facts = {"path": str(path), "format": "XML", "root": root.tag.rsplit("}", 1)[-1]}
    if facts["root"] == "annotation" and tags["object"] + tags["size"]:
        names = Counter(item.findtext("name") or "no name" for item in root.iter("object"))
        size = " x ".join(root.findtext(f"size/{side}") or "?" for side in ("width", "height"))
        words = [f"Pascal VOC: {counted(tags['object'], 'box', 'boxes')} in an image of {size} pixels: {_counts(names)}.",
                 "Convert it with the converter voc."]  # fmt: skip
        return facts | {"holds": "Pascal VOC", "size": size, "labels": dict(names), "words": words}
    if facts["root"] == "Annotations" and tags["Vertex"]:
        groups = [item.get("Name") or "no name" for item in root.iter("Annotation")]
        words = [f"Aperio: {counted(tags['Region'], 'outline')} with {tags['Vertex']} corners in"
                 f" {counted(len(groups), 'layer')} ({listed(groups)}), {_number(root, 'MicronsPerPixel')} microns a pixel.",
                 "Convert it with the converter polygons_xml."]  # fmt: skip
        return facts | {"holds": "Aperio", "outlines": tags["Region"], "layers": groups, "words": words}
    if facts["root"] == "LidcReadMessage":
        nouns = {"readingSession": "reader", "unblindedReadNodule": "nodule mark", "nonNodule": "non-nodule", "roi": "outline"}
        told = listed([counted(tags[tag], name) for tag, name in nouns.items()])
        words = [f"LIDC-IDRI: {told}.", "Convert it with its CT (converter lidc_xml)."]
        return facts | {"holds": "LIDC-IDRI", "readers": tags["readingSession"], "words": words}
    common = dict(tags.most_common(12))
    return facts | {
        "holds": "XML",
        "tags": common,
        "words": [f"XML with the root {facts['root']!r}: {_counts(Counter(common))}."],
    }


def _number(root: ElementTree.Element, name: str) -> str:
    return str(root.get(name) or "an unknown number of")


def inspect_array(path: Path) -> Facts:
    """NPY or NPZ: shapes and types, without reading the numbers.

    Raises:
        InputError: it is broken, or holds Python objects, which are not opened: they could run code.
    """
    arrays: dict[str, tuple[tuple[int, ...], str]] = {}
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            arrays[""] = (loaded.shape, str(loaded.dtype))
        else:
            with loaded:
                arrays = {name: (loaded[name].shape, str(loaded[name].dtype)) for name in loaded.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"Array file {path.name!r} is broken or holds Python objects, which medglip does not open: {error}."
        ) from error
    shown = [f"{name or 'one array'}: {' x '.join(map(str, shape))} of {kind}" for name, (shape, kind) in arrays.items()]
    words = [f"NumPy: {listed(shown)}.", "Convert stacks of pictures and masks with the converter npy_stacks."]
    return {"path": str(path), "format": "NumPy", "arrays": {name: f"{shape} {kind}" for name, (shape, kind) in arrays.items()},
            "words": words}  # fmt: skip


def inspect_archive(path: Path) -> Facts:
    """ZIP or TAR: what is in it by kind, without unpacking.

    Raises:
        InputError: it is broken.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                members = [(item.filename, item.file_size) for item in archive.infolist() if not item.is_dir()]
        else:
            with tarfile.open(path) as packed:
                members = [(item.name, item.size) for item in packed if item.isfile()]
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, ValueError) as error:
        raise InputError(f"Archive {path.name!r} is broken or cut off: {error}.") from error
    size = sum(length for _, length in members)
    unsafe = [name for name, _ in members if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]
    problems = ["unsafe_members"] if unsafe else []
    problems += ["huge_when_unpacked"] if size > _BOMB * max(path.stat().st_size, 1) else []
    endings = Counter("".join(PurePosixPath(name).suffixes[-2:]).lower() or "no ending" for name, _ in members)
    tops = Counter(PurePosixPath(name).parts[0] for name, _ in members if PurePosixPath(name).parts)
    words = [f"An archive of {counted(len(members), 'file')}, {size / 1e6:.1f} MB unpacked: {_counts(endings)}.",
             f"At its top: {listed(sorted(tops))}.", *problem_words(problems)]  # fmt: skip
    return {"path": str(path), "format": "archive", "files": len(members), "bytes_unpacked": size,
            "by_ending": dict(endings.most_common()), "top": sorted(tops)[:40], "problems": problems,
            "words": words}  # fmt: skip


def inspect_text(path: Path) -> Facts | None:
    """Plain text, or None where it is none."""
    try:
        with path.open("rb") as file:
            head = file.read(65536)
        head.decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    if b"\0" in head or not head:
        return None
    lines = head.count(b"\n") + 1
    more = "at least " if len(head) == 65536 else ""
    return {"path": str(path), "format": "text", "lines": lines,
            "words": [f"Plain text of {more}{counted(lines, 'line')}. medglip does not read it."]}  # fmt: skip


def _text(path: Path) -> str:
    if path.stat().st_size > _MOST_BYTES:
        raise InputError(
            f"{path.name!r} has {path.stat().st_size / 1e9:.1f} GB; allowed to explain: {_MOST_BYTES / 1e9:.1f} GB."
        )
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        data = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
    except (OSError, EOFError) as error:
        raise InputError(f"{path.name!r} cannot be read: {error}.") from error


def _counts(found: Counter[str]) -> str:
    return listed([f"{name} ({count})" for name, count in found.most_common()]) or "none"
