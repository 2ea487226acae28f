"""A dataset as nnU-Net v2 raw data: PNG images, PNG label maps, dataset.json and splits. Knows nothing of boxes and phrases.

A pixel without a label is background to nnU-Net, so an image goes in only where every exported label is marked wherever
it is. One nnU-Net dataset is written for each source, modality and number of channels, and for each set of labels where
a source marks some images for other labels than others.

Source: nnU-Net v2, documentation/dataset_format.md, manual_data_splits.md and explanation_normalization.md
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medglip.errors import InputError
from medglip.exports.chosen import Choice, OnImage
from medglip.exports.facts import SourceFacts, each_once, sources_of
from medglip.exports.stored import with_pngs
from medglip.records.labels import label_tree
from medglip.records.record import ImageRecord, Region
from medglip.store.manifest import bytes_of
from medglip.store.pixels import png_bytes
from medglip.store.read import Dataset

# Lower numbers are those of public data sets.
FIRST_ID, LAST_ID = 501, 999
FOLDS = 5
# A label map is 8 bit, 0 is background, and 255 stays free.
MOST_LABELS = 254
_COUNTED = ("images", "regions", "datasets", "images_not_exhaustive", "images_with_boxes_only", "images_without_training",
            "regions_without_mask", "regions_of_other_labels", "regions_overlapped", "regions_hidden")  # fmt: skip

Key = tuple[str, str, int]  # source, modality, channels


class Seen(NamedTuple):
    """What decides whether an image is exported, and with which labels.

    Attributes:
        id: The image.
        key: Its source, modality and channels.
        known: Concepts that are marked in it wherever they are, or known not to be there.
        marked: (concept, whether it has a mask) of its regions.
        split: Its split.
        group: Its group.
        scale: Unit, slope and intercept of its intensities.
    """

    id: str
    key: Key
    known: frozenset[str]
    marked: frozenset[tuple[str, bool]]
    split: str
    group: str
    scale: tuple[str, float, float]


@dataclass(frozen=True, slots=True)
class Target:
    """One nnU-Net dataset.

    Attributes:
        number: Its three digits.
        name: The words behind them.
        key: Source, modality and channels of its images.
        labels: Its concepts; the first has the value 1.
        images: Its images.
    """

    number: int
    name: str
    key: Key
    labels: tuple[str, ...]
    images: tuple[Seen, ...]

    @property
    def folder(self) -> str:
        """``Dataset501_busi_ultrasound``."""
        return f"Dataset{self.number:03d}_{self.name}"


def write(dataset: Dataset, out: Path, choice: Choice, on_image: OnImage) -> dict[str, int]:
    """Write OUT/DatasetNNN_SOURCE_MODALITY/, as they lie in a folder ``nnUNet_raw``.

    Each has ``imagesTr``, ``labelsTr`` (train, validation and unassigned images), ``imagesTs``, ``labelsTs`` (test),
    ``dataset.json`` and ``splits_final.json``, which nnU-Net looks for in ``nnUNet_preprocessed/DatasetNNN_...``. The
    images are the stored PNGs. Where regions overlap, the smaller lies above the larger. The records are read twice:
    first to see which images can be taught from, then to write them.

    Args:
        dataset: What to export.
        out: Empty folder.
        choice: Which images and regions. A label of which a region is left out is no longer exhaustive in its image.
        on_image: Called with the number of images done and their total.

    Returns:
        ``images``, ``regions`` and ``datasets`` written. Left out: ``images_not_exhaustive`` (a label of their dataset may
        be there unmarked), ``images_with_boxes_only`` (one of its regions has no mask), ``images_without_training`` (no
        marked training image for their labels), ``regions_without_mask``, ``regions_of_other_labels`` (of images that
        are written), ``regions_too_small``. Written but changed: ``regions_overlapped`` (lost pixels to a smaller one of
        another label), ``regions_hidden`` (all of their pixels).

    Raises:
        InputError: no image can be taught from, or there are too many labels or datasets.
    """
    counts: Counter = Counter(dict.fromkeys(_COUNTED, 0))
    kept: dict[Any, Any] = {}
    targets = planned((_seen(record, counts, kept) for record in choice.records(dataset)), counts)
    if not targets:
        raise InputError(
            f"Export to nnunet: found no image of {dataset!r} to train on ({counts['images_not_exhaustive']} without labels"
            f" that are marked wherever they are, {counts['images_with_boxes_only']} with boxes only,"
            f" {counts['images_without_training']} for tests only); nnU-Net takes unmarked pixels for background. Say in the"
            " source's TOML what is exhaustive, or export boxes with `--to coco`."
        )
    sources = {source.name: source for source in sources_of(dataset)}
    for target in targets:
        _begin(out / target.folder, target, sources[target.key[0]])
    target_of = {image.id: target for target in targets for image in target.images}
    total = choice.number(dataset)
    for done, (record, png) in enumerate(with_pngs(dataset, choice.records(dataset, counts)), 1):
        if (mine := target_of.get(record.id)) is not None:
            _write_image(out / mine.folder, mine, record, png, counts)
        on_image(done, total)
    return {**counts, "datasets": len(targets)}


def _seen(record: ImageRecord, counts: Counter, kept: dict[Any, Any]) -> Seen:
    """What is remembered of an image; of equal sets only the first is kept, or millions of images would fill the memory."""
    counts["regions_without_mask"] += sum(region.mask is None for region in record.regions)
    intensity = record.intensity
    known = frozenset((*record.exhaustive, *record.absent))
    marked = frozenset((region.concept, region.mask is not None) for region in record.regions)
    key = record.origin.dataset, record.modality, record.channels
    scale = intensity.unit, intensity.slope, intensity.intercept
    return Seen(
        record.id, kept.setdefault(key, key), kept.setdefault(known, known), kept.setdefault(marked, marked), record.split,
        record.group or record.id, kept.setdefault(scale, scale),
    )  # fmt: skip


def planned(images: Iterable[Seen], counts: Counter) -> list[Target]:
    """The nnU-Net datasets that can be made of some images.

    Args:
        images: The images.
        counts: The images that are left out are added here.

    Raises:
        InputError: there are more labels or datasets than nnU-Net has numbers for.
    """
    by_key: defaultdict[Key, list[Seen]] = defaultdict(list)
    for image in images:
        by_key[image.key].append(image)
    found: list[tuple[Key, tuple[str, ...], list[Seen]]] = []
    for key, mine in sorted(by_key.items()):
        for family, chosen in _families(mine, counts):
            train = [image for image in chosen if image.split != "test"]
            if any(mask and class_of(concept, family) for image in train for concept, mask in image.marked):
                found.append((key, tuple(sorted(family)), chosen))
            else:
                counts["images_without_training"] += len(chosen)
    if len(found) > LAST_ID - FIRST_ID + 1:
        raise InputError(
            f"Export to nnunet: found {len(found)} combinations of source, modality and labels; allowed: at most"
            f" {LAST_ID - FIRST_ID + 1}, nnU-Net's numbers; export a split, or fewer sources."
        )
    keys = Counter(key for key, _, _ in found)
    used: Counter = Counter()
    targets = []
    for number, (key, labels, chosen) in enumerate(found, FIRST_ID):
        source, modality, channels = key
        used[key] += 1
        both = (source, modality, 4 - channels) in keys
        words = [source, modality, *(["rgb"] if both and channels == 3 else []), *([str(used[key])] if keys[key] > 1 else [])]
        targets.append(Target(number, "_".join(words), key, labels, tuple(chosen)))
    return targets


def _families(images: Sequence[Seen], counts: Counter) -> list[tuple[frozenset[str], list[Seen]]]:
    """Sets of labels with the images in which all of them are marked wherever they are; each image at most once.

    The set that teaches most goes first: number of labels times number of images. An image that lacks some labels of a
    set that was taken, and knows no others, is left out: it would make a second, poorer dataset of the same kind.
    """
    masked = {class_of(concept, image.known) for image in images for concept, mask in image.marked if mask}
    sets: defaultdict[frozenset[str], list[Seen]] = defaultdict(list)
    for image in images:
        usable = image.known & masked
        if usable:
            sets[usable].append(image)
        else:
            boxes = any(not mask and class_of(concept, image.known) for concept, mask in image.marked)
            counts["images_with_boxes_only" if boxes else "images_not_exhaustive"] += 1
    families = []
    while sets:
        covered = {labels: sum(len(mine) for known, mine in sets.items() if labels <= known) for labels in sets}
        best = max(sets, key=lambda labels: (len(labels) * covered[labels], sorted(labels)))
        if len(best) > MOST_LABELS:
            raise InputError(
                f"Export to nnunet: found {len(best)} labels in one source; allowed: at most {MOST_LABELS}, the values of an"
                " 8-bit label map; export fewer sources or another format."
            )
        chosen = []
        for known in [known for known in sets if best <= known or known < best]:
            for image in sets.pop(known):
                if best <= known and (reason := _reason_against(image, best)) is None:
                    chosen.append(image)
                else:
                    counts[reason if best <= known and reason else "images_not_exhaustive"] += 1
        if chosen:
            families.append((best, chosen))
    return families


def _reason_against(image: Seen, labels: frozenset[str]) -> str | None:
    """Why pixels of an exported label would be background in an image's label map, or None where none would be."""
    for concept, mask in image.marked:
        if class_of(concept, labels) is None:
            if _may_be(concept, labels):
                return "images_not_exhaustive"
        elif not mask:
            return "images_with_boxes_only"
    return None


@lru_cache(maxsize=2**16)
def class_of(concept: str, labels: frozenset[str]) -> str | None:
    """What a region counts as: the most specific of some concepts that it answers to, or None.

    >>> class_of("abdomen.kidney@left", frozenset({"abdomen.kidney", "abdomen.liver"}))
    'abdomen.kidney'
    """
    tree = label_tree()
    if concept in labels or concept.partition("@")[0] not in tree:
        return concept if concept in labels else None
    found = [name for name in sorted(labels) if name.partition("@")[0] in tree and tree.covers(name, concept)]
    return next((name for name in found if not any(tree.covers(name, other) for other in found if other != name)), None)


@lru_cache(maxsize=2**16)
def _may_be(concept: str, labels: frozenset[str]) -> bool:
    """Whether a region could be one of some concepts: a kidney of unknown side is perhaps the left one."""
    tree = label_tree()
    if concept.partition("@")[0] not in tree:
        return False
    return any(name.partition("@")[0] in tree and tree.covers(concept, name) for name in labels)


def _begin(folder: Path, target: Target, source: SourceFacts) -> None:
    """The folders and JSON files of an nnU-Net dataset."""
    train = [image for image in target.images if image.split != "test"]
    for name in ("imagesTr", "labelsTr", *(("imagesTs", "labelsTs") if len(train) < len(target.images) else ())):
        (folder / name).mkdir(parents=True)
    (folder / "dataset.json").write_bytes(bytes_of(_description(target, source, len(train))))
    if splits := _splits(train):
        (folder / "splits_final.json").write_bytes(bytes_of(splits))


def _description(target: Target, source: SourceFacts, number: int) -> dict[str, Any]:
    tree = label_tree()
    names = [tree.concept_name(name) if name.partition("@")[0] in tree else name for name in target.labels]
    values = range(1, len(names) + 1)
    return {
        "channel_names": _channel_names(target),
        "labels": {"background": 0, **dict(zip(_unlike(names, target.labels), values, strict=True))},
        "numTraining": number,
        "file_ending": ".png",
        "overwrite_image_reader_writer": "NaturalImage2DIO",
        "name": target.name,
        "description": f"{source.title}: {target.key[1]} images, written by `medglip export --to nnunet`.",
        "reference": "; ".join(each_once([source.citation, source.page])),
        "licence": "; ".join(source.licences),
        "concepts": dict(zip(target.labels, values, strict=True)),
    }


def _unlike(names: Sequence[str], concepts: Sequence[str]) -> list[str]:
    """The names, or the concept where two have one name."""
    several = Counter(names)
    return [name if several[name] == 1 and name != "background" else c for name, c in zip(names, concepts, strict=True)]


def _channel_names(target: Target) -> dict[str, str]:
    """Names of the channels, which decide how nnU-Net scales intensities.

    ``CT`` means one scale for all images, so it is said only where equal numbers are equal Hounsfield units.
    """
    _, modality, channels = target.key
    if channels == 3:
        return {"0": "R", "1": "G", "2": "B"}
    scales = {image.scale for image in target.images}
    if modality == "ct" and not (len(scales) == 1 and next(iter(scales))[0] == "HU"):
        return {"0": "CT of several scales"}
    return {"0": modality.upper()}


def _splits(images: Sequence[Seen]) -> list[dict[str, list[str]]]:
    """nnU-Net's folds: one where the dataset has validation images, else up to five; a group is never split apart.

    None are given where all images are of one group.
    """
    validation = [image.id for image in images if image.split == "val"]
    if 0 < len(validation) < len(images):
        return [{"train": [image.id for image in images if image.split != "val"], "val": validation}]
    groups = sorted({image.group for image in images}, key=lambda group: hashlib.sha256(group.encode()).hexdigest())
    folds = min(FOLDS, len(groups))
    fold_of = {group: number % folds for number, group in enumerate(groups)} if folds > 1 else {}
    return [
        {
            "train": [image.id for image in images if fold_of[image.group] != fold],
            "val": [image.id for image in images if fold_of[image.group] == fold],
        }
        for fold in sorted(set(fold_of.values()))
    ]


def _write_image(folder: Path, target: Target, record: ImageRecord, png: bytes, counts: Counter) -> None:
    part = "Ts" if record.split == "test" else "Tr"
    (folder / f"images{part}" / f"{record.id}_0000.png").write_bytes(png)
    (folder / f"labels{part}" / f"{record.id}.png").write_bytes(png_bytes(label_map(record, target.labels, counts)))
    counts["images"] += 1


def label_map(record: ImageRecord, labels: Sequence[str], counts: Counter) -> np.ndarray:
    """The regions of an image as one map.

    Args:
        record: The image.
        labels: Concepts; the first has the value 1.
        counts: ``regions``, ``regions_of_other_labels``, ``regions_overlapped`` and ``regions_hidden`` are added here.

    Returns:
        uint8 (H, W); 0 is background. The smaller of two regions lies above the larger.
    """
    painted = np.zeros((record.height, record.width), np.uint8)
    values, concepts = {name: value for value, name in enumerate(labels, 1)}, frozenset(labels)
    mine: list[tuple[int, Region]] = []
    for region in record.regions:
        name = class_of(region.concept, concepts)
        if name is not None and region.mask is not None:
            mine.append((values[name], region))
        else:
            counts["regions_of_other_labels"] += region.mask is not None
    areas = [region.mask.area for _, region in mine if region.mask]
    for place in sorted(range(len(mine)), key=lambda place: -areas[place]):
        value, region = mine[place]
        if region.mask:
            painted[region.mask.decode()] = value
    counts["regions"] += len(mine)
    if sum(areas) > np.count_nonzero(painted):
        for value, region in mine:
            kept = painted[region.mask.decode()] == value if region.mask else np.ones(1)
            counts["regions_overlapped"] += not kept.all()
            counts["regions_hidden"] += not kept.any()
    return painted
