"""What XML and text files beside images are: Pascal VOC, polygons, LIDC readings, YOLO, reports. Reads no image."""

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from medglip.curate.sketching.guessed import OBJECT, TODO, Guess
from medglip.curate.sketching.masks import some
from medglip.curate.sketching.pairing import paired
from medglip.curate.sketching.scans import Scans, series_pattern
from medglip.curate.sketching.shapes import Shape

_NAMES = ("classes", "names", "obj", "labels", "predefined_classes")


def of_xml(folder: Path, images: Shape, files: Sequence[Shape], scans: Scans | None) -> Guess | None:
    """What the XML files of a folder are; None where no form of them is known."""
    for shape in files:
        trees = []
        for path in some(shape):
            try:
                trees.append(ElementTree.parse(folder / path).getroot())
            except (OSError, ElementTree.ParseError):
                continue
        tags = {tree.tag.rpartition("}")[2] for tree in trees}
        if "LidcReadMessage" in tags and scans:
            roles = {"series": series_pattern(scans.images[0]), "marks": "**/*.xml"}
            return Guess("lidc_xml", roles, {}, ("nodule",), scans.modality, (), {"nodule": "lung nodule"})
        pair = paired(images, shape)
        if tags == {"annotation"}:
            names = {item.findtext("name", "").strip() for tree in trees for item in tree.iter("object")}
            return Guess("voc", {"image": pair.image, "annotation": pair.marks}, {}, tuple(sorted(names - {""})))
        if tags and tags <= {"Annotations", "ASAP_Annotations"}:
            place, names = _places(trees)
            options = {"label_from": place} if place else {"label": OBJECT}
            files_of = {"image": pair.image, "polygons": pair.marks}
            return Guess("polygons_xml", files_of, options, tuple(sorted(names)) or (OBJECT,))
    return None


def _places(trees: Sequence[ElementTree.Element]) -> tuple[str, set[str]]:
    """Where the labels of polygons stand, and which there are."""
    layers = [layer for tree in trees for layer in tree.iter("Annotation")]
    if groups := {layer.get("PartOfGroup", "") for layer in layers} - {"", "None"}:
        return "group", groups
    aperio = [layer for layer in layers if layer.find("Regions") is not None]
    if names := {layer.get("Name", "") for layer in (aperio or layers)} - {""}:
        return "annotation", names
    first = [item for layer in aperio if (item := layer.find("Attributes/Attribute")) is not None]
    if values := {item.get("Value", "") for item in first} - {""}:
        return "value", values
    texts = {region.get("Text", "") for layer in aperio for region in layer.iter("Region")} - {""}
    if texts:
        return "text", texts
    names = {item.get("Name", "") for item in first} - {"", "Description"}
    return ("attribute", names) if names else ("", set())


def of_texts(folder: Path, images: Shape, files: Sequence[Shape]) -> Guess | None:
    """YOLO's lines of numbers, or reports; None where the text files do not go with the images."""
    for shape in files:
        named = tuple(path for path in shape.paths if path.rsplit("/", 1)[-1].rsplit(".", 1)[0].lower() in _NAMES)
        others = Shape(tuple(path for path in shape.paths if path not in named), shape.marking)
        if not others.paths:
            continue
        pair = paired(images, others)
        if pair.marks == TODO or pair.classes:
            continue
        contents = [_text(folder / path) for path in some(others)]
        lines = [line.split() for text in contents for line in text.splitlines() if line.strip()]
        if lines and all(_is_yolo(line) for line in lines):
            return _yolo(folder, pair.image, pair.marks, lines, named or _names_beside(folder, files))
        if any(re.search(r"[A-Za-z]{3,}\s+\S+", text) for text in contents):
            return Guess("text_table", {"image": pair.image, "report": pair.marks})
    return None


def _yolo(folder: Path, image: str, labels: str, lines: list[list[str]], named: tuple[str, ...]) -> Guess:
    if named:
        names = tuple(line.strip() for line in _text(folder / named[0]).splitlines() if line.strip())
        return Guess("yolo", {"image": image, "labels": labels, "names": named[0]}, {}, tuple(dict.fromkeys(names)))
    numbers = tuple(sorted({line[0] for line in lines}, key=float))
    doubt = ("names: what the numbers of the classes mean (data.yaml lists them)",)
    return Guess("yolo", {"image": image, "labels": labels}, {}, numbers, None, doubt)


def _names_beside(folder: Path, files: Sequence[Shape]) -> tuple[str, ...]:
    return tuple(path for shape in files for path in shape.paths
                 if path.rsplit("/", 1)[-1].rsplit(".", 1)[0].lower() in _NAMES)  # fmt: skip


def _is_yolo(words: list[str]) -> bool:
    if len(words) not in (5, 6) and (len(words) < 7 or len(words) % 2 == 0):
        return False
    try:
        return words[0].isdecimal() and all(-0.5 <= float(word) <= 1.5 for word in words[1:])
    except ValueError:
        return False


def _text(path: Path) -> str:
    try:
        return path.read_bytes()[:100_000].decode("utf-8", "replace")
    except OSError:
        return ""
