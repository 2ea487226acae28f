"""A COCO file with its images as a dataset; one that medglip exported comes back as it was. Knows no other format.

Read beyond COCO: the negatives of LVIS (``neg_category_ids``, ``not_exhaustive_category_ids``) and what
``medglip/exports/coco.py`` adds. 16-bit images were exported as 8-bit pictures and stay these.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medglip.errors import InputError, RecordError
from medglip.exports.chosen import OnImage
from medglip.exports.coco import RECORD_KEYS, REGION_KEYS
from medglip.exports.incoming import Entry, Given, Mark, Named, named_labels, write_entries
from medglip.records.labels import label_tree
from medglip.records.record import LATERALITIES, Reject, Span, Text, concept_of

Item = dict[str, Any]


def import_coco(file: Path, dataset: Path, images: Path, given: Given, on_image: OnImage | None = None) -> dict[str, Any]:
    """Write a COCO file and its images into a dataset, new or added to; the same file again replaces its images.

    Labels are ids, names or synonyms of the label tree. What is wrong with one image or annotation is listed in the
    dataset's rejects; a concept whose mark was refused counts neither as absent nor as marked wherever it is.

    Args:
        file: The JSON file.
        dataset: Folder of the dataset.
        images: Folder in which the names of the images begin.
        given: What the file does not say.
        on_image: Called as ``on_image(done, total)`` after each image.

    Returns:
        ``images``, ``regions``, ``texts`` and ``rejects`` (number of each reason).

    Raises:
        InputError: the file is no COCO file, an id occurs twice, a category is not in the label tree, or no image can
            be used.
    """
    coco = _read(Path(file))
    used = {item.get("category_id") for item in coco.annotations}
    for name in ("neg_category_ids", "not_exhaustive_category_ids"):
        used.update(number for entry in coco.images for number in entry.get(name) or ())
    raw = {number: _raw(category) for number, category in coco.categories.items() if given.exhaustive or number in used}
    labels, rejects = named_labels(raw.values(), coco.file, given)
    named = {number: labels[text] for number, text in raw.items() if text in labels}
    entries = list(_entries(coco, named, set(raw) - set(named), rejects, given))
    return write_entries(Path(file), Path(images), Path(dataset), entries, rejects, given, on_image)


@dataclass(frozen=True)
class _Coco:
    """The lists of a file; categories and licences by id."""

    file: str
    images: list[Item]
    annotations: list[Item]
    categories: dict[Any, Item]
    licences: dict[Any, str]


def _read(path: Path) -> _Coco:
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"COCO file {str(path)!r} cannot be read: {error.strerror}; give the path of a JSON file.") from error
    except ValueError as error:
        raise InputError(f"COCO file {path.name!r} is not JSON: {error}.") from error
    try:
        images, annotations = list(data["images"]), list(data["annotations"])
        for what, items, keys in (("image", images, ("id", "file_name")), ("annotation", annotations, ("image_id",))):
            for item in items:
                if missing := [key for key in keys if key not in item]:
                    raise InputError(f"COCO file {path.name!r}: an {what} lacks {missing[0]!r}; found {str(item)[:120]}.")
        categories = {entry["id"]: entry for entry in data["categories"] if entry["name"]}
        licences = {entry["id"]: str(entry.get("name") or "") for entry in data.get("licenses") or ()}
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"COCO file {path.name!r} lacks {error}; it needs images (id, file_name), annotations (image_id, category_id)"
            " and categories (id, name)."
        ) from error
    for what, ids in (("images", [item["id"] for item in images]), ("categories", [e["id"] for e in data["categories"]])):
        twice = [number for number, times in Counter(map(str, ids)).items() if times > 1]
        if twice:
            raise InputError(f"COCO file {path.name!r}: found the id {twice[0]} twice among its {what}; make the ids differ.")
    return _Coco(path.name, images, annotations, categories, licences)


def _raw(category: Item) -> str:
    """What to look up in the label tree."""
    label = category.get("label_id")
    return str(label if label in label_tree() else category["name"])


def _entries(coco: _Coco, named: dict[Any, Named], skipped: set[Any], rejects: list[Reject], given: Given) -> Iterable[Entry]:
    """The images of a file; what is refused before pixels are looked at is added to the rejects."""
    marks: dict[Any, list[Item]] = defaultdict(list)
    known = {entry["id"] for entry in coco.images}
    for number, item in enumerate(coco.annotations, 1):
        if item["image_id"] in known:
            marks[item["image_id"]].append({"id": number, **item})
        else:
            what = f"Annotation {item.get('id', number)}: no image has the id {item['image_id']!r}."
            rejects.append(Reject(given.source, coco.file, "unknown_image", what))
    files: set[str] = set()
    concepts = [concept_of(*one) for one in named.values()]
    for entry in coco.images:
        name = str(entry["file_name"])
        if name in files:
            what = f"The image {name!r} is listed twice; only the first entry was taken: join their annotations."
            rejects.append(Reject(given.source, coco.file, "duplicate_image", what, name))
            continue
        files.add(name)
        taken, doubtful = [], set[str | None]()
        for item in marks[entry["id"]]:
            where = f"annotation {item['id']}"
            if item.get("category_id") in named:
                taken.append(_mark(where, item, named[item["category_id"]]))
            elif item.get("category_id") not in skipped:
                what = f"{where} of {name!r}: no category has the id {item.get('category_id')!r}."
                rejects.append(Reject(given.source, coco.file, "unknown_label", what, name))
                doubtful.add(None)
        yield _entry(entry, taken, frozenset(doubtful), named, concepts if given.exhaustive else None, coco)


def _mark(where: str, item: Item, named: Named) -> Mark:
    label, side = named
    if item.get("label_id") in label_tree():
        label, side = item["label_id"], None
    if item.get("laterality") in LATERALITIES:
        side = item["laterality"]
    # only files of medglip's own give regions an id; elsewhere a key of the same name may mean anything
    known = {name: item[name] for name in REGION_KEYS if name in item} if "region_id" in item else {}
    flags = ("merged",) if item.get("iscrowd") else ()
    box = item.get("bbox")
    if isinstance(box, list) and len(box) == 4 and all(isinstance(value, int | float) for value in box):
        box = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
    return Mark(where, (label, side), box or None, item.get("segmentation"), known, (), str(item.get("region_id", "")), flags)


def _entry(
    entry: Item, marks: list[Mark], doubtful: frozenset[str | None], named: dict[Any, Named],
    concepts: list[str] | None, coco: _Coco,
) -> Entry:  # fmt: skip
    own = entry.get("record") if isinstance(entry.get("record"), dict) else None
    known = {name: own[name] for name in RECORD_KEYS if name in own} if own else {}
    known |= {name: entry[name] for name in ("split", "modality") if isinstance(entry.get(name), str)}
    if licence := coco.licences.get(entry.get("license")):
        known["licence"] = licence
    size = entry.get("width"), entry.get("height")
    if own:
        absent, searched = tuple(own.get("absent") or ()), tuple(own.get("exhaustive") or ())
    else:
        negative = [concept_of(*named[number]) for number in entry.get("neg_category_ids") or () if number in named]
        unsure = {concept_of(*named[n]) for n in entry.get("not_exhaustive_category_ids") or () if n in named}
        searched = tuple(concept for concept in concepts or () if concept not in unsure)
        absent = tuple(dict.fromkeys([*negative, *searched]))
    texts = _texts(own.get("texts") or ()) if own else ()
    return Entry(str(entry["file_name"]), size if all(size) else None, tuple(marks), texts, absent,  # type: ignore[arg-type]
                 searched, doubtful, known)  # fmt: skip


def _texts(documents: Iterable[Item]) -> tuple[Text, ...]:
    try:
        return tuple(
            Text(item["text"], item["kind"], item["language"],
                 tuple(Span(span["start"], span["end"], tuple(span["regions"])) for span in item["spans"]),
                 item.get("answer") or "")
            for item in documents
        )  # fmt: skip
    except (KeyError, TypeError, AttributeError, RecordError) as error:
        raise InputError(f"A text in the file is not as medglip writes it ({error!r}); take the key 'texts' out.") from error
