"""Images and marks that come in from a file of another format, as a part of a dataset. Knows no format."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
from pycocotools import mask as coco_mask

from medglip.errors import InputError, MedglipError, RecordError, SourceError
from medglip.exports.chosen import OnImage
from medglip.imaging.intensity import display, to_stored
from medglip.imaging.raster import read_raster
from medglip.records.labels import label_tree
from medglip.records.masks import Rle, rle_of_mask
from medglip.records.phrases import region_phrases
from medglip.records.picture import Picture
from medglip.records.record import MODALITIES, SPLITS, Box, ImageRecord, Phrase, Region, Reject, Text, concept_of
from medglip.records.segmentations import mask_of_runs, rle_of_polygons
from medglip.store.checks.runs import measure
from medglip.store.pixels import perceptual_hash, pixel_sha256
from medglip.store.schema import Document, document_of, image_of, region_of
from medglip.store.write import write_part

Named = tuple[str, str | None]  # label, side
# Smallest region that is not flagged: as for converters.
_TINY_AREA, _TINY_SIDE = 100, 4


class Unusable(MedglipError):
    """An image or mark that cannot be taken in; ``reason`` is the short code that the rejects list."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Given:
    """What the file does not say by itself.

    Attributes:
        source: Name under which the images are listed: letters, digits, ``_``, ``.`` and ``-``.
        licence: SPDX id or text; of the images whose entry in the file names none.
        modality: One of ``MODALITIES``; of the images whose entry names none.
        split: Split of all images; None for what their entries say, else ``unassigned``.
        exhaustive: True where the file marks its categories wherever they are: an image without a category is then a
            negative of it. Otherwise nothing is known of what is not marked.
        skip_unknown: True leaves out marks whose label is not in the label tree.
        citation: How to cite the source.
    """

    source: str
    licence: str
    modality: str | None = None
    split: str | None = None
    exhaustive: bool = False
    skip_unknown: bool = False
    citation: str = ""

    def __post_init__(self) -> None:
        """Check."""
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", self.source):
            raise InputError(f"Import, source: found {self.source!r}; allowed: letters, digits, '_', '.', '-'.")
        if not self.licence.strip():
            raise InputError("Import, licence: found no text; allowed: an SPDX id or a sentence; say where it may go.")
        for name, value, allowed in (("modality", self.modality, MODALITIES), ("split", self.split, SPLITS)):
            if value is not None and value not in allowed:
                raise InputError(f"Import, {name}: found {value!r}; allowed: {', '.join(allowed)}.")


@dataclass(frozen=True)
class Mark:
    """One mark of an image as the file has it.

    Attributes:
        where: Names it in a reject.
        named: Label and side.
        box_xyxy: Box in pixels, or None where only a mask is given.
        segmentation: COCO polygons or run-length code, or None.
        known: Fields of a region that the file gives as medglip writes them.
        phrases: Words that the file has for it.
        id: What the file's texts and other marks call it.
        flags: Flags that the file gives reason for.
    """

    where: str
    named: Named
    box_xyxy: Sequence[float] | None
    segmentation: Any = None
    known: Document = field(default_factory=dict)
    phrases: tuple[str, ...] = ()
    id: str = ""
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One image as the file has it.

    Attributes:
        file: Path below the folder of images.
        size_wh: Width and height, or None where the file does not say.
        marks: Its marks.
        texts: Texts whose spans name marks by their id.
        absent: Concepts that it was searched for and that are not there.
        searched: Concepts that are marked wherever they are.
        doubtful: Concepts of marks that were refused already; None among them stands for all.
        known: ``split``, ``modality``, ``licence`` and fields of a record that the file gives as medglip writes them.
    """

    file: str
    size_wh: tuple[int, int] | None
    marks: tuple[Mark, ...] = ()
    texts: tuple[Text, ...] = ()
    absent: tuple[str, ...] = ()
    searched: tuple[str, ...] = ()
    doubtful: frozenset[str | None] = frozenset()
    known: Document = field(default_factory=dict)


def named_labels(raw: Iterable[str], file: str, given: Given) -> tuple[dict[str, Named], list[Reject]]:
    """Label and side of each raw label, and the rejects of those that are skipped.

    Raises:
        InputError: the label tree does not have one of them, and unknown ones are not to be skipped.
    """
    tree = label_tree()
    known: dict[str, Named] = {}
    unknown: dict[str, str] = {}
    for text in dict.fromkeys(raw):
        try:
            known[text] = tree.resolve(text)
        except SourceError as error:
            unknown[text] = str(error).partition(";")[0]
    if unknown and not given.skip_unknown:
        raise InputError(
            f"File {file!r}: {len(unknown)} of its labels cannot be used. {'. '.join(unknown.values())}. Rename them, or leave"
            " their marks out with --skip-unknown (then they are listed as rejects)."
        )
    return known, [Reject(given.source, file, "unknown_label", f"{why}; its marks were left out.", text)
                   for text, why in unknown.items()]  # fmt: skip


def write_entries(
    file: Path, images: Path, dataset: Path, entries: Sequence[Entry], rejects: list[Reject], given: Given,
    on_image: OnImage | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write the images of a file as one part of a dataset; the same file again replaces its part.

    Args:
        file: The file that the entries are from; its bytes name the part.
        images: Folder of the images.
        dataset: The dataset, new or added to.
        entries: The images.
        rejects: What could not be used so far.
        given: What the file does not say.
        on_image: Called as ``on_image(done, total)`` after each image.

    Returns:
        ``images``, ``regions``, ``texts`` and ``rejects`` (number of each reason).

    Raises:
        InputError: not one image can be used, or the modality of one is not known.
        DatasetError: the dataset cannot be added to.
    """
    if given.modality is None and (mute := [entry.file for entry in entries if not entry.known.get("modality")]):
        raise InputError(
            f"File {file.name!r} does not say the modality of {len(mute)} images, for example {mute[0]!r}; give it with"
            f" --modality; allowed: {', '.join(MODALITIES)}."
        )
    digest = hashlib.sha1(file.read_bytes()).hexdigest()[:12]
    info = {
        "source": given.source, "title": f"{given.source}, from {file.name}", "licence": given.licence,
        "citation": given.citation, "page": "", "access": "", "lineage": [], "source_digest": digest, "expected": {},
        "matrix": _matrix(entries, given), "cases": {},
    }  # fmt: skip

    def pictures() -> Iterator[Picture]:
        taken = 0
        for done, entry in enumerate(entries, 1):
            try:
                picture = _picture(images, file.name, entry, rejects, given)
            except MedglipError as error:
                reason = getattr(error, "reason", "unreadable_file" if isinstance(error, InputError) else "invalid_record")
                rejects.append(Reject(given.source, file.name, reason, str(error), entry.file))
            else:
                taken += 1
                yield picture
            if on_image:
                on_image(done, len(entries))
        if not taken:
            why = f" The first: {rejects[0].detail}" if rejects else ""
            raise InputError(f"File {file.name!r}: none of its {len(entries)} images could be taken in.{why}")

    counts = write_part(dataset, f"{given.source}-{digest}", pictures(), (), rejects, info)
    return {
        **{name: counts[name] for name in ("images", "regions", "texts")},
        "rejects": dict(sorted(Counter(reject.reason for reject in rejects).items())),
    }


def _matrix(entries: Sequence[Entry], given: Given) -> dict[str, list[dict[str, list[str]]]]:
    """What is marked wherever it is, by modality; of the field of the images nothing is known."""
    searched: dict[str, set[str]] = {}
    for entry in entries:
        mine = searched.setdefault(str(entry.known.get("modality") or given.modality), set())
        mine.update(entry.searched if given.exhaustive else ())
    return {modality: [{"exhaustive": sorted(concepts)} if concepts else {}] for modality, concepts in sorted(searched.items())}


def _picture(images: Path, file: str, entry: Entry, rejects: list[Reject], given: Given) -> Picture:
    pixels, intensity = _pixels(images, entry)
    height, width = pixels.shape[:2]
    if entry.size_wh and entry.size_wh != (width, height):
        raise Unusable(
            "size_mismatch",
            f"The image {entry.file!r} has {width} x {height} pixels, {file!r} says {entry.size_wh[0]} x {entry.size_wh[1]};"
            " give the images that it was made for.",
        )
    sha = pixel_sha256(pixels)
    image_id = hashlib.sha1(f"{given.source}|{entry.file}|{sha}".encode()).hexdigest()[:16]
    regions, ids = list[Region](), dict[str, str]()
    doubtful = set(entry.doubtful)
    for mark in entry.marks:
        try:
            region = _region(mark, (height, width), f"{image_id}-{len(regions):03d}")
        except MedglipError as error:
            doubtful.add(concept_of(*mark.named))
            reason = getattr(error, "reason", "invalid_record")
            rejects.append(Reject(given.source, file, reason, f"{mark.where}: {error}", entry.file))
        else:
            ids[mark.id or region.id] = region.id
            regions.append(region)
    regions = [replace(region, parents=tuple(ids[old] for old in region.parents if old in ids)) for region in regions]
    record = _record(entry, regions, ids, doubtful, given)
    stored = {
        "id": image_id, "sha256": sha, "perceptual_hash": perceptual_hash(display(pixels, intensity)),
        "width": width, "height": height, "channels": 1 if pixels.ndim == 2 else 3, "bits": 8 * pixels.dtype.itemsize,
        "intensity": document_of(intensity),
    }  # fmt: skip
    return Picture(_checked(entry.file, {**record, **stored}), pixels)


def _checked(file: str, document: Document) -> ImageRecord:
    try:
        return image_of(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unusable(
            "invalid_record",
            f"The image {file!r} has fields that medglip does not read ({error!r}); they must be as its export writes"
            " them; leave them out.",
        ) from error


def _pixels(images: Path, entry: Entry) -> tuple[np.ndarray, Any]:
    place = PurePosixPath(entry.file.replace("\\", "/"))
    if place.is_absolute() or ".." in place.parts:
        raise Unusable("bad_path", f"The image {entry.file!r} is not named below the folder of images; name it from there.")
    if not (images / place).is_file():
        raise Unusable("missing_file", f"The image {entry.file!r} is not in the folder of images; add it, or take it out.")
    values = read_raster(images / place)
    return to_stored(values, "rgb" if values.ndim == 3 else "au")


def _record(entry: Entry, regions: Sequence[Region], ids: dict[str, str], doubtful: set[str | None], given: Given) -> Document:
    """The document of a record, less what its pixels say."""
    tree, known = label_tree(), entry.known
    shown = {region.concept for region in regions}

    def contradicted(concept: str) -> bool:
        return any(tree.covers(concept, other) or tree.covers(other, concept) for other in shown)

    sure = [] if None in doubtful else [concept for concept in entry.searched if concept not in doubtful]
    absent = [] if None in doubtful else [c for c in entry.absent if c not in doubtful and not contradicted(c)]
    found = [tree.body_region(region.label) for region in regions]
    main = max(sorted(set(found)), key=found.count) if found else None
    lossy = ["lossy"] if entry.file.lower().endswith((".jpg", ".jpeg")) else []
    split = given.split or known.get("split") or "unassigned"
    texts = [replace(text, spans=tuple(
        replace(span, regions=kept) for span in text.spans if (kept := tuple(ids[old] for old in span.regions if old in ids))
    )) for text in entry.texts]  # fmt: skip
    old = known.get("origin") or {}
    case = f"{old.get('dataset')}:{old.get('case')}" if old else entry.file.rpartition(".")[0] or entry.file
    return {
        "modality": known.get("modality") or given.modality, "licence": known.get("licence") or given.licence, "split": split,
        "split_source": "none" if split == "unassigned" else known.get("split_source", "official"),
        "origin": {"dataset": given.source, "file": entry.file, "case": case}
        | {name: old.get(name) for name in ("frame", "axis", "slice")},
        "group": known.get("group") or hashlib.sha1(f"{given.source}|{entry.file}".encode()).hexdigest()[:16],
        "keys": known.get("keys") or {}, "modality_detail": known.get("modality_detail") or {},
        "body_region": known.get("body_region", main),
        **{name: known.get(name) for name in ("affine_px_to_mm", "spacing_mm", "spacing_source")},
        "absent": absent, "exhaustive": sure, "flags": known.get("flags", lossy),
        "texts": [asdict(text) for text in texts], "regions": [document_of(region) for region in regions],
    }  # fmt: skip


def _region(mark: Mark, size_hw: tuple[int, int], region_id: str) -> Region:
    label, side = mark.named
    mask = rle_of_segmentation(mark.segmentation, size_hw)
    box = clipped_box(mark.box_xyxy, size_hw) if mark.box_xyxy is not None else None
    if mask is not None:
        x, y, w, h = coco_mask.toBbox({"size": list(size_hw), "counts": mask.counts.encode("ascii")}).tolist()
        tight = (x, y, x + w, y + h)
        # the reader's box, where it goes with the mask
        own = box is not None and mark.known and max(abs(a - b) for a, b in zip(box, tight, strict=True)) <= 1
        box = box if own else tight
    if box is None:
        raise Unusable("bad_box", "It has neither a box nor a mask with a pixel; one of them is needed.")
    plain = Region(label, box, mask, side, id=region_id, flags=mark.flags)  # type: ignore[arg-type]
    try:
        region = region_of({**document_of(plain), **mark.known})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unusable("invalid_record", f"It has fields that medglip does not read ({error!r}); leave them out.") from error
    if "phrases" not in mark.known:
        made = region_phrases(region, label_tree())
        said = {phrase.text.casefold() for phrase in made}
        extra = tuple(Phrase(text, "report") for text in mark.phrases if text.casefold() not in said)
        region = replace(region, phrases=made + extra)
    return region if "flags" in mark.known else replace(region, flags=_flags(region, size_hw))


def _flags(region: Region, size_hw: tuple[int, int]) -> tuple[str, ...]:
    x0, y0, x1, y1 = region.box_xyxy
    area = region.mask.area if region.mask else (x1 - x0) * (y1 - y0)
    tiny = area < _TINY_AREA or min(x1 - x0, y1 - y0) < _TINY_SIDE
    touches = x0 <= 0 or y0 <= 0 or x1 >= size_hw[1] or y1 >= size_hw[0]
    return region.flags + ("tiny",) * tiny + ("touches_border",) * touches


def clipped_box(box_xyxy: Sequence[float], size_hw: tuple[int, int]) -> Box:
    """The box inside the image.

    Raises:
        Unusable: it is no box, empty, or passes the border by more than 1 px or 1 % of the image.
    """
    height, width = size_hw
    try:
        x0, y0, x1, y1 = (float(value) for value in box_xyxy)
    except (TypeError, ValueError) as error:
        raise Unusable("bad_box", f"Its box is {box_xyxy!r}; four numbers are needed.") from error
    if not np.isfinite([x0, y0, x1, y1]).all() or x1 <= x0 or y1 <= y0:
        raise Unusable("bad_box", f"Its box {(x0, y0, x1, y1)} is empty or not finite; x0 < x1 and y0 < y1 are needed.")
    slack_x, slack_y = max(1.0, 0.01 * width), max(1.0, 0.01 * height)
    box = max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
    outside = x0 < -slack_x or y0 < -slack_y or x1 > width + slack_x or y1 > height + slack_y
    if outside or box[0] >= box[2] or box[1] >= box[3]:
        raise Unusable("box_out_of_image", f"Its box {(x0, y0, x1, y1)} leaves its image of {width} x {height} pixels.")
    return box


def rle_of_segmentation(code: Any, size_hw: tuple[int, int]) -> Rle | None:
    """COCO polygons or run-length code as a mask; None where there is none, or nothing inside.

    Raises:
        Unusable: it does not decode, or is of another size.
    """
    if not code:
        return None
    height, width = size_hw
    try:
        if isinstance(code, dict):
            if tuple(code["size"]) != size_hw:
                raise Unusable("bad_mask", f"Its mask has the size {code['size']}, its image {list(size_hw)} (height, width).")
            if isinstance(code["counts"], list):
                text = rle_of_mask(mask_of_runs(code)).counts
            else:
                text = code["counts"].decode("ascii") if isinstance(code["counts"], bytes) else str(code["counts"])
        elif (drawn := rle_of_polygons([ring for ring in code if len(ring) % 2 == 0], size_hw)) is None:
            return None
        else:
            text = drawn.counts
    except (TypeError, ValueError, KeyError, RecordError) as error:
        raise Unusable("bad_mask", f"Its segmentation does not decode: {error}.") from error
    measured = measure(pa.array([text]), np.array([height]), np.array([width]))
    if not measured.good[0]:
        raise Unusable("bad_mask", "Its run-length code does not fill its image; write the mask again.")
    return Rle(size_hw, text) if measured.area[0] else None
