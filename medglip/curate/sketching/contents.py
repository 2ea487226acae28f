"""Which converter reads a folder: the kinds of its files, asked one after the other. Converts nothing."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medglip.curate.sketching.guessed import TODO, Guess
from medglip.curate.sketching.masks import FEW_VALUES, label_values, mask_kind
from medglip.curate.sketching.pairing import paired
from medglip.curate.sketching.scans import Scans, alone, holds_dicom, of_masks, of_objects, scans_in, series_pattern
from medglip.curate.sketching.shapes import Shape, ending_of
from medglip.curate.sketching.stacks import of_arrays
from medglip.curate.sketching.tabular import described, of_json, of_tables, of_unknown_table, of_words
from medglip.curate.sketching.written import of_texts, of_xml
from medglip.imaging.nifti import is_volume_file
from medglip.imaging.raster import ENDINGS

_ENDINGS = {
    "raster": ENDINGS, "csv": (".csv", ".tsv", ".csv.gz"), "xml": (".xml",), "json": (".json", ".jsonl", ".ndjson"),
    "text": (".txt", ".names"), "arrays": (".npy", ".npz"),
}  # fmt: skip
_NOTHING = "converter: nothing in the folder is known to be an image; see converters/ for what is read"
_UNMARKED = "marks: no file is known to mark the images, which are converted without regions"


def guess(folder: Path, found: Sequence[Shape]) -> Guess:
    """What the files of a folder seem to be; what cannot be told is ``TODO`` and among the doubts."""
    of = _kinds(folder, found)
    scans = scans_in(folder, of["dicom"]) if of["dicom"] else None
    if scans and (objects := of_objects(scans)):
        return objects
    if scans and not scans.images:
        scans = None
    if of["volume"]:
        return _of_volumes(folder, of["volume"], scans)
    plain = [shape for shape in of["raster"] if not shape.marking]
    marked = [shape for shape in of["raster"] if shape.marking]
    images = [scans.images[0]] if scans else plain or marked
    if not images:
        return of_arrays(folder, of["arrays"]) if of["arrays"] else Guess(TODO, {}, doubts=(_NOTHING,))
    found_beside = (
        of_tables(folder, images[0], of["csv"], scans)
        or of_xml(folder, images[0], of["xml"], scans)
        or of_json(folder, images[0], of["json"])
    )
    if found_beside is None:
        found_beside = (
            _of_marks(folder, of, images, scans)
            or of_words(folder, images[0], [*of["csv"], *of["json"]])
            or of_texts(folder, images[0], of["text"])
        )
    if found_beside is None:
        found_beside = _unmarked(folder, of, images[0], scans)
    return _with_others(found_beside, plain if not scans else [], scans)


def _kinds(folder: Path, found: Sequence[Shape]) -> dict[str, list[Shape]]:
    of = {kind: [shape for shape in found if ending_of(shape.paths[0]) in endings] for kind, endings in _ENDINGS.items()}
    of["volume"] = [shape for shape in found if is_volume_file(shape.paths[0])]
    known = [shape for shapes in of.values() for shape in shapes]
    of["dicom"] = [shape for shape in found if shape not in known and holds_dicom(folder, shape)]
    return of


def _of_volumes(folder: Path, volumes: Sequence[Shape], scans: Scans | None) -> Guess:
    images = [shape for shape in volumes if not shape.marking]
    labels = [shape for shape in volumes if shape.marking]
    likely = labels or [shape for shape in images if scans and _few(label_values(folder, shape))]
    if scans and not likely:
        others = ", ".join(shape.pattern for shape in images[:4])
        found = alone(scans)
        return replace(found, doubts=(*found.doubts, f"image: {others} hold many values, so they mark nothing; left out"))
    if scans:  # volumes beside a series mark it
        marks = likely[0]
        series = Shape(scans.images[0].paths, False)
        files = {"series": series_pattern(series)}
        pair = paired(Shape(tuple(sorted({path.rpartition("/")[0] + "/x" for path in series.paths})), False), marks)
        modality = scans.modality
    elif images and labels:
        marks, modality = labels[0], None
        pair = paired(images[0], marks)
        files = {"image": pair.image}
    else:
        return _unmarked_volumes(images, labels)
    doubts: tuple[str, ...] = ()
    if len(images) > 1 and not scans:
        others = ", ".join(shape.pattern for shape in images[1:5])
        doubts = (f"image: {others} fit, too; a part each, where the labels are for all of them",)
    if pair.classes:
        return Guess("binary_volumes", files | {"mask": pair.marks}, {}, pair.classes, modality, doubts)
    values = label_values(folder, marks)
    if values and not _few(values):
        doubts += (f"labels: {marks.paths[0]} and others hold many values, or negative ones; are these labels?",)
        values = ()
    return Guess("label_volumes", files | {"labels": pair.marks}, {}, values, modality, doubts)


def _few(values: Sequence[str]) -> bool:
    """Whether numbers can be labels."""
    return 0 < len(values) < FEW_VALUES and not any(value.startswith("-") for value in values)


def _unmarked_volumes(images: Sequence[Shape], labels: Sequence[Shape]) -> Guess:
    """Volume files of which none is known to mark another."""
    if not images:
        doubt = "files: every volume looks like labels"
        return Guess("label_volumes", {"image": labels[0].pattern, "labels": TODO}, {}, (), None, (doubt,))
    doubts: tuple[str, ...] = (_UNMARKED,)
    if len(images) > 1:
        others = ", ".join(shape.pattern for shape in images[1:5])
        doubts += (f"image: {others} are of another form and left out; a part each, or name the one that marks the others",)
    return Guess("volumes", {"image": images[0].pattern}, {}, (), None, doubts)


def _of_marks(folder: Path, of: dict[str, list[Shape]], images: list[Shape], scans: Scans | None) -> Guess | None:
    """Mask images, a file or more an image."""
    marked = [shape for shape in of["raster"] if shape.marking]
    if scans:
        drawn = [shape for shape in scans.images if shape.marking]
        plain = tuple(shape for shape in scans.images if not shape.marking)
        if plain and (drawn or marked):
            return of_masks(folder, scans._replace(images=plain), (drawn or marked)[0])
        return None
    if not marked or images[0].marking:
        return None
    pair = paired(images[0], marked[0])
    found = mask_kind(folder, marked[0])
    doubts = found.doubts
    if len(marked) > 1:
        others = ", ".join(shape.pattern for shape in marked[1:5])
        doubts += (f"mask: {others} look like masks, too; a pattern for all, or a part each",)
    if "{kind}" in pair.image and not pair.classes:
        doubts += ('label: label = "{kind}" takes the folder of an image for the label of its mask; is that what they mean?',)
    if "*" in pair.marks.rpartition("/")[2]:
        doubts += ("label: the names of the masks say more than those of their images; {label} for * takes it for the label",)
    files = {"image": pair.image, "mask": pair.marks}
    options: dict[str, Any] = {"kind": found.kind}
    words = pair.classes if found.kind in ("binary", "outline") else ()
    if pair.classes and not words:
        doubts += (f"label: the files are named {', '.join(pair.classes[:6])}, and their values differ, too",)
    if words:
        options["label"] = "{label}"
    thought = Guess("mask_images", files, options, words or found.labels, None, doubts)
    return described(folder, thought, images[0], of["csv"])


def _unmarked(folder: Path, of: dict[str, list[Shape]], images: Shape, scans: Scans | None) -> Guess:
    if scans:
        return alone(scans)
    if of["csv"]:
        return of_unknown_table(folder, images, of["csv"])
    doubts: tuple[str, ...] = (_UNMARKED,)
    if of["xml"] or of["json"]:
        known = ", ".join(shape.pattern for shape in (*of["xml"], *of["json"])[:4])
        doubts += (f"converter: what {known} say is of no form that is known",)
    if images.marking:
        doubts += ("files: the names of all images sound like masks",)
    return Guess("mask_images", {"image": images.pattern}, {}, (), None, doubts)


def _with_others(guess: Guess, plain: Sequence[Shape], scans: Scans | None) -> Guess:
    """The guess with the modality of its series, and a word on images of another form."""
    doubts = guess.doubts
    if len(plain) > 1:
        others = ", ".join(f"{shape.pattern} ({len(shape.paths)})" for shape in plain[1:5])
        doubts += (f"image: {others} are of another form and left out; widen the pattern, or write a part for them",)
    return replace(guess, doubts=doubts, modality=guess.modality or (scans.modality if scans else None))
