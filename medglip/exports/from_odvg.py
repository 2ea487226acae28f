"""An ODVG file (one JSON line an image) with its images as a dataset. Knows no other format.

Boxes come from ``detection`` by label, or from ``grounding`` by phrase where there is no detection; a caption becomes a
text whose spans name the boxes. Masks, spacing and patients are not in the format.

Source: github.com/longzw1997/Open-GroundingDino ``data_format.md``; github.com/open-mmlab/mmdetection
``mmdet/datasets/odvg.py``, where a phrase may have several boxes.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medglip.errors import InputError
from medglip.exports.chosen import OnImage
from medglip.exports.incoming import Entry, Given, Mark, Named, named_labels, write_entries
from medglip.records.labels import label_tree
from medglip.records.record import LATERALITIES, TEXT_KINDS, Reject, Span, Text, concept_of

Item = dict[str, Any]


def import_odvg(
    file: Path, dataset: Path, images: Path, given: Given, *, label_map: Path | None = None,
    on_image: OnImage | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write an ODVG file and its images into a dataset, new or added to; the same file again replaces its images.

    Args:
        file: The JSON lines.
        dataset: Folder of the dataset.
        images: Folder in which the names of the images begin.
        given: What the file does not say. ``exhaustive`` speaks of all labels of the label map, else of the file.
        label_map: Names by number, for lines without ``category``; ``label_map.json`` beside the file where it is there.
        on_image: Called as ``on_image(done, total)`` after each image.

    Returns:
        ``images``, ``regions``, ``texts`` and ``rejects`` (number of each reason).

    Raises:
        InputError: the file is no ODVG file, a label is not in the label tree, or no image can be used.
    """
    file = Path(file)
    names = _label_names(file, label_map)
    lines = list(_lines(file))
    raw = [_raw(item, names) for line in lines for item in _boxes(line)]
    if given.exhaustive:
        raw += list(names.values())
    labels, rejects = named_labels([text for text in raw if text], file.name, given)
    concepts = tuple(dict.fromkeys(concept_of(*one) for one in labels.values())) if given.exhaustive else ()
    entries: list[Entry] = []
    seen: set[str] = set()
    for line in lines:
        name = str(line["filename"])
        if name in seen:
            what = f"The image {name!r} is listed twice; only the first line was taken: join them."
            rejects.append(Reject(given.source, file.name, "duplicate_image", what, name))
            continue
        seen.add(name)
        entries.append(_entry(line, names, labels, concepts, (file.name, given, rejects)))
    return write_entries(file, Path(images), Path(dataset), entries, rejects, given, on_image)


def _label_names(file: Path, label_map: Path | None) -> dict[str, str]:
    path = label_map or file.with_name("label_map.json")
    if label_map is None and not path.is_file():
        return {}
    try:
        return {str(number): str(name) for number, name in json.loads(path.read_text("utf-8")).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f'Label map {str(path)!r} cannot be read ({error}); it is {{"0": "kidney", "1": ...}}.') from error


def _lines(file: Path) -> Iterator[Item]:
    """The lines of a file, each with a name and with lists where lists belong."""
    try:
        texts = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"ODVG file {str(file)!r} cannot be read: {error}; give the path of a .jsonl file.") from error
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            good = isinstance(line["filename"], str) and ("detection" in line or "grounding" in line)
            good = good and all(isinstance(item, dict) and "bbox" in item for item in _boxes(line, all_of_them=True))
        except (ValueError, KeyError, TypeError, AttributeError):
            good = False
        if not good:
            raise InputError(
                f"ODVG file {file.name!r}, line {number}: found {text[:80]!r}; allowed: a JSON object with filename and"
                " detection (instances with bbox, label or category) or grounding (caption, regions with bbox, phrase)."
            )
        yield line


def _boxes(line: Item, *, all_of_them: bool = False) -> list[Item]:
    """What is marked: the instances of the detection; where there is none, the regions of the grounding, box by box."""
    instances = (line.get("detection") or {}).get("instances") or []
    if instances and not all_of_them:
        return instances
    return [*instances, *_phrases(line)]


def _phrases(line: Item) -> list[Item]:
    """The regions of the grounding, one entry a box."""
    found = []
    for item in (line.get("grounding") or {}).get("regions") or []:
        boxes = item["bbox"] if item["bbox"] and isinstance(item["bbox"][0], list) else [item["bbox"]]
        phrase = " ".join(item["phrase"]) if isinstance(item["phrase"], list) else str(item["phrase"])
        found += [{**item, "bbox": box, "phrase": phrase} for box in boxes]
    return found


def _raw(item: Item, names: dict[str, str]) -> str:
    """What to look up in the label tree; empty where the box has no name."""
    if item.get("label_id") in label_tree():
        return item["label_id"]
    return str(item.get("category") or names.get(str(item.get("label")), "") or item.get("phrase", ""))


def _entry(
    line: Item, names: dict[str, str], labels: dict[str, Named], concepts: tuple[str, ...],
    into: tuple[str, Given, list[Reject]],
) -> Entry:  # fmt: skip
    file, given, rejects = into
    marks: list[Mark] = []
    doubtful: set[str | None] = set()
    said = _phrases(line)
    for number, item in enumerate(_boxes(line), 1):
        raw, where = _raw(item, names), f"box {number}"
        if raw in labels:
            label, side = labels[raw]
            side = item["laterality"] if item.get("laterality") in LATERALITIES else side
            key = str(item.get("region_id") or number)
            known = {"phrases": item["phrases"]} if "region_id" in item and "phrases" in item else {}
            phrases = tuple(dict.fromkeys(other["phrase"] for other in said if _same(item, other)))
            marks.append(Mark(where, (label, side), item["bbox"], None, known, phrases, key))
        elif not raw:
            what = f"{where}: it has neither a category nor a label of the label map; add one."
            rejects.append(Reject(given.source, file, "unknown_label", what, line["filename"]))
            doubtful.add(None)
    own = "absent" in line and "exhaustive" in line
    known = {name: line[name] for name in ("split", "modality", "licence", "group") if isinstance(line.get(name), str)}
    size = line.get("width"), line.get("height")
    return Entry(
        line["filename"], size if all(size) else None, tuple(marks), _caption(line, marks, said),  # type: ignore[arg-type]
        tuple(line["absent"]) if own else concepts, tuple(line["exhaustive"]) if own else concepts,
        frozenset(doubtful), known,
    )  # fmt: skip


def _same(one: Item, other: Item) -> bool:
    """True where two entries are the same box."""
    if "region_id" in one and "region_id" in other:
        return one["region_id"] == other["region_id"]
    return one["bbox"] == other["bbox"]


def _caption(line: Item, marks: list[Mark], said: list[Item]) -> tuple[Text, ...]:
    """The caption, with the characters that name the marks."""
    grounding = line.get("grounding") or {}
    caption = grounding.get("caption")
    if not isinstance(caption, str) or not caption.strip():
        return ()
    found: dict[tuple[int, int], list[str]] = {}
    for item in said:
        keys = [mark.id for mark in marks
                if _same({"bbox": mark.box_xyxy, **({"region_id": mark.id} if "region_id" in item else {})}, item)]  # fmt: skip
        start = caption.casefold().find(item["phrase"].casefold())
        spans = item.get("tokens_positive") or ([[start, start + len(item["phrase"])]] if start >= 0 else [])
        for begin, end in spans:
            if 0 <= begin < end <= len(caption):
                found.setdefault((begin, end), []).extend(key for key in keys if key not in found.get((begin, end), ()))
    kind, answer = grounding.get("caption_kind"), str(grounding.get("answer") or "")
    if kind not in TEXT_KINDS or (kind == "question" and not answer.strip()):
        kind = "caption"
    spans = tuple(Span(*place, tuple(keys)) for place, keys in sorted(found.items()) if keys)
    return (Text(caption, kind, spans=spans, answer=answer if kind == "question" else ""),)
