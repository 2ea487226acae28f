"""Copy-paste of lesions: which lesion may lie where in which image, and the pixels and facts afterwards.

Where a lesion goes is decided by records alone, so that the truth is known without pixels. Knows no model and no view.

Source: Simple Copy-Paste (arXiv 2012.07177), here with what medicine asks for: the same source, modality and organ, the
same scale in mm, and only where such a lesion can be.
"""

from collections.abc import Sequence
from math import ceil, sqrt
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from medglip.records.labels import LabelTree
from medglip.records.masks import box_of_mask, rle_of_crop
from medglip.records.record import ImageRecord, identified
from medglip.train.asking import LONGEST, Known
from medglip.train.vocabulary import Vocabulary, sides_said

SMALLEST, LARGEST = 16, 0.25  # pixels; share of the image's pixels
TRIES, PLACES = 4, 12  # lesions that are tried, and places of each
STRETCH = 2.0  # a lesion whose pixels must be stretched by more is another picture
# Pictures that their organ fills. Sections and projections have air around the body, and other organs beside.
FILLED = ("ultrasound", "endoscopy", "dermoscopy", "fundus", "histopathology", "microscopy", "oct")
FAR, NEAR = 0.2, 0.05  # how far a lesion moves in such a picture, as a share of it: in an organ, in a part of one
_BRIGHTER = 48.0  # grey levels by which it follows its new surroundings at most
_DOUBTS = {"merged", "uncertain", "touches_border"}


Edges = tuple[float, float, float, float]  # (x0, y0, x1, y1) pixels


class Lesion(NamedTuple):
    """A finding that can be shown elsewhere.

    Attributes:
        region: Its number in its image.
        concept: What it is.
        organ: The organ that its site is or is a part of.
        home: Label of the marked region of that organ that holds it; empty where none does.
        reach: How far it may move in a picture that its organ fills, as a share of the picture.
        box: (x0, y0, x1, y1) pixels of its image, whole numbers around its mask.
        words: Phrases that are true of it wherever it is.
        sizes: Phrases that are true of it where its size in mm is kept.
    """

    region: int
    concept: str
    organ: str
    home: str
    reach: float
    box: tuple[int, int, int, int]
    words: tuple[str, ...]
    sizes: tuple[str, ...]


class Picture(NamedTuple):
    """What pasting reads of an image: what is known, masks included, (width, height), (row, column) mm a pixel, lesions."""

    known: Known
    size: tuple[int, int]
    spacing: tuple[float, float] | None
    lesions: tuple[Lesion, ...]


class Graft(NamedTuple):
    """A lesion in its new place.

    Attributes:
        donor: Number of the image that it is from.
        lesion: The lesion.
        window: (x0, y0, x1, y1) of its mask in the image that it is from.
        mask: (h, w) bool, its pixels in the new image, none of its four borders empty.
        corner: Column and row of the mask's first pixel in the new image.
        phrases: Texts that mean it there.
    """

    donor: int
    lesion: Lesion
    window: Edges
    mask: np.ndarray
    corner: tuple[int, int]
    phrases: tuple[str, ...]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(x0, y0, x1, y1) of the mask in the new image."""
        (x0, y0), (height, width) = self.corner, self.mask.shape
        return x0, y0, x0 + width, y0 + height


def organ_of(label: str, tree: LabelTree) -> str:
    """The organ that a label is, is a part of or lies in; its body region where it is of no organ."""
    while tree[label].level not in ("organ", "body_region"):
        label = tree[label].part_of or tree[label].site[0]
    return label


def lesions_of(record: ImageRecord, tree: LabelTree) -> tuple[Lesion, ...]:
    """The findings of an image that can be shown elsewhere.

    Each has a mask and a site in an organ or in the skin, is whole and sure, is neither tiny nor most of the image, and
    shares its box with no other finding, which would come along unmarked.
    """
    record = identified(record)
    findings = [number for number, region in enumerate(record.regions) if tree[region.label].is_finding]
    anatomy = {region.id: region.label for region in record.regions if not tree[region.label].is_finding}
    boxes = np.array([record.regions[number].box_xyxy for number in findings], np.float32).reshape(-1, 4)
    found = []
    for place, number in enumerate(findings):
        region = record.regions[number]
        label = tree[region.label]
        if label.level != "finding" or not label.site or region.mask is None or _DOUBTS.intersection(region.flags):
            continue
        if region.provenance == "predicted":
            continue
        organ = organ_of(label.site[0], tree)
        nowhere = tree[organ].level == "body_region" or tree.body_region(organ) == "systemic"
        if sides_said(label.name) or region.laterality == "bilateral" or (nowhere and organ != "systemic.skin"):
            continue
        x0, y0, x1, y1 = np.floor(region.box_xyxy[:2]).tolist() + np.ceil(region.box_xyxy[2:]).tolist()
        is_whole = x0 > 0 and y0 > 0 and x1 < record.width and y1 < record.height
        beside = _apart(boxes[place], np.delete(boxes, place, axis=0)).all()
        if is_whole and beside and SMALLEST <= region.mask.area <= LARGEST * record.width * record.height:
            told = {kind: tuple(p.text for p in region.phrases if p.kind == kind and len(p.text) <= LONGEST and " in the "
                                not in p.text and not sides_said(p.text)) for kind in ("attribute", "size")}  # fmt: skip
            box = int(x0), int(y0), int(x1), int(y1)
            homes = [anatomy[one] for one in region.parents if one in anatomy and organ_of(anatomy[one], tree) == organ]
            reach = FAR if label.site[0] == organ else NEAR
            found.append(Lesion(number, region.concept, organ, homes[0] if homes else "", reach, box, *told.values()))
    return tuple(found)


class Pasting:
    """Finds a lesion of another image that can lie in an image, and a place for it.

    Args:
        pictures: All images, in the order of their numbers.
        words: Their concepts.
    """

    def __init__(self, pictures: Sequence[Picture], words: Vocabulary) -> None:
        self.pictures, self.words, tree = pictures, words, words.tree
        self.donors: dict[tuple[str, str, str], list[tuple[int, Lesion]]] = {}
        self._organ = {label: organ_of(label, tree) for label in {c.partition("@")[0] for c in words.concepts}}
        self._organs: dict[tuple[str, str], set[str]] = {}  # that the images of a source and modality show
        for number, picture in enumerate(pictures):
            group = picture.known.source, picture.known.modality
            self._organs.setdefault(group, set()).update(self._shown(picture.known))
            for lesion in picture.lesions:
                self.donors.setdefault((*group, lesion.organ), []).append((number, lesion))

    def graft(self, number: int, rng: np.random.Generator) -> Graft | None:
        """A lesion of another image with its place in image ``number``; None where none of those tried can lie there.

        It lies inside a region like the one that holds it in its own image, on the same side where it has one. Where none
        is marked, it lies near its own place, in a picture that its organ fills: of those modalities that are such
        pictures, one that shows something of the organ, or whose source shows no other organ. It overlaps no finding.
        """
        known = self.pictures[number].known
        group = known.source, known.modality
        organs = self._organs[group] if len(self._organs[group]) == 1 else self._shown(known)
        pools = [self.donors[*group, organ] for organ in sorted(organs) if (*group, organ) in self.donors]
        for _ in range(TRIES if pools else 0):
            pool = pools[rng.integers(len(pools))]
            donor, lesion = pool[rng.integers(len(pool))]
            cut = None if donor == number else self._cut(donor, lesion, number)
            if cut is None:
                continue
            window, mask, is_sized = cut
            corner = self._place(number, donor, lesion, mask, rng)
            if corner is not None:
                return Graft(donor, lesion, window, mask, corner, (*lesion.words, *(lesion.sizes if is_sized else ())))
        return None

    def _shown(self, known: Known) -> set[str]:
        return {self._organ[concept.partition("@")[0]] for concept in known.concepts}

    def _cut(self, donor: int, lesion: Lesion, number: int) -> tuple[Edges, np.ndarray, bool] | None:
        """A lesion's window, its mask (h, w) at the scale of another image, whether its size in mm is kept; or None."""
        x0, y0, x1, y1 = lesion.box
        code = self.pictures[donor].known.masks[lesion.region]
        mask = np.zeros((0, 0), bool) if code is None else code.decode()[y0:y1, x0:x1]
        mine, theirs = self.pictures[donor].spacing, self.pictures[number].spacing
        if mine is not None and theirs is not None:
            down, across = mine[0] / theirs[0], mine[1] / theirs[1]
            if max(down, across, 1 / down, 1 / across) > STRETCH:
                return None
            shape = max(1, round(mask.shape[1] * across)), max(1, round(mask.shape[0] * down))
            drawn = Image.fromarray(mask.astype(np.uint8) * 255).resize(shape, Image.Resampling.BILINEAR)
            mask = np.asarray(drawn) > 127
        tight = box_of_mask(mask)
        if tight is None or mask.sum() < SMALLEST:
            return None
        left, top, right, bottom = map(int, tight)
        across, down = (x1 - x0) / mask.shape[1], (y1 - y0) / mask.shape[0]
        window = x0 + left * across, y0 + top * down, x0 + right * across, y0 + bottom * down
        return window, mask[top:bottom, left:right], mine is not None and theirs is not None

    def _place(
        self, number: int, donor: int, lesion: Lesion, mask: np.ndarray, rng: np.random.Generator
    ) -> tuple[int, int] | None:  # fmt: skip
        """Column and row of the mask's corner, or None."""
        size, known, tree = np.array(self.pictures[number].size), self.pictures[number].known, self.words.tree
        side, shape, margin = lesion.concept.partition("@")[2], np.array(mask.shape[::-1]), margin_of(mask)
        least, most, inside = np.array([margin, margin]), size - shape - margin, None
        if lesion.home:
            wanted = f"{lesion.home}@{side}" if side else lesion.home
            homes = [n for n, concept in enumerate(known.concepts) if tree.covers(wanted, concept)]
            if not homes:
                return None
            inside = homes[rng.integers(len(homes))]
            least = np.maximum(least, np.ceil(known.boxes[inside, :2]).astype(int))
            most = np.minimum(most, np.floor(known.boxes[inside, 2:]).astype(int) - shape)
        elif side or known.modality not in FILLED:
            return None
        else:
            centre = (np.array(lesion.box[:2]) + lesion.box[2:]) / 2 / self.pictures[donor].size * size
            first, reach = centre - shape / 2, lesion.reach * size
            least = np.maximum(least, np.ceil(first - reach).astype(int))
            most = np.minimum(most, np.floor(first + reach).astype(int))
        if (most < least).any():
            return None
        code = None if inside is None else known.masks[inside]
        home = np.ones(size[::-1], bool) if code is None else code.decode()  # a box alone is in ``least`` and ``most``
        others = [n for n, concept in enumerate(known.concepts) if tree[concept.partition("@")[0]].is_finding]
        for _ in range(PLACES):
            x, y = (int(value) for value in rng.integers(least, most + 1))
            fits = bool(home[y : y + mask.shape[0], x : x + mask.shape[1]][mask].all())
            if fits and _is_free(known, others, (x, y), mask):
                return x, y
        return None


def _is_free(known: Known, others: list[int], corner: tuple[int, int], mask: np.ndarray) -> bool:
    """True where a mask with its feathered edge overlaps none of the regions: by their masks, or by the box of one without."""
    margin, (x, y) = margin_of(mask), corner
    box = np.array([x - margin, y - margin, x + mask.shape[1] + margin, y + mask.shape[0] + margin])
    near = [other for other in others if not _apart(box, known.boxes[other : other + 1])[0]]
    touched = feathered(mask, margin) > 0
    for other in near:
        code = known.masks[other]
        if code is None or (code.decode()[box[1] : box[3], box[0] : box[2]] & touched).any():
            return False
    return True


def grafted(known: Known, graft: Graft, size: tuple[int, int], words: Vocabulary) -> Known:
    """What is known of an image with a pasted lesion: its box, mask and phrases are the last region's.

    Dropped is what may be wrong now: absent concepts that the lesion shows; captions; and, of regions of the same kind,
    phrases that mean one of them.

    Args:
        known: Of the image, masks included.
        graft: The lesion.
        size: (width, height) of the image.
        words: The concepts.
    """
    concept = graft.lesion.concept
    number, shown = words.number[concept], words.numbers(known.concepts)
    is_kin = words.covers[number, shown] | words.covers[shown, number]
    phrases = tuple(() if kin else own for kin, own in zip(is_kin, known.phrases, strict=True))
    box = np.array([graft.box], np.float32)
    return known._replace(
        boxes=np.concatenate([known.boxes, box]), concepts=(*known.concepts, concept), phrases=(*phrases, graft.phrases),
        absent=tuple(one for one in known.absent if not words.covers[words.number[one], number]), captions=(),
        masks=(*known.masks, rle_of_crop(graft.mask, graft.corner, (size[1], size[0]))), predicted=(*known.predicted, False),
    )  # fmt: skip


def pasted(pixels: np.ndarray, donor: np.ndarray, graft: Graft, follow: bool) -> np.ndarray:
    """The image with the lesion: opaque on its mask, fading out around it.

    Args:
        pixels: (H, W) or (H, W, 3) uint8; not changed.
        donor: The image that the lesion is from, (h, w) or (h, w, 3) uint8.
        graft: The lesion and its place.
        follow: Let its brightness follow that of its new surroundings; not where grey values are a measure, as in CT.
    """
    margin = margin_of(graft.mask)
    alpha = feathered(graft.mask, margin)
    crop = _with_margin(donor, graft, margin)
    if crop.ndim != pixels.ndim:
        crop = np.repeat(crop[:, :, None], 3, axis=2) if pixels.ndim == 3 else crop.mean(axis=2)
    x0, y0, x1, y1 = graft.box
    at = slice(y0 - margin, y1 + margin), slice(x0 - margin, x1 + margin)
    there = pixels[at].astype(np.float32)
    ring = (alpha > 0) & ~np.pad(graft.mask, margin)
    if follow and ring.any():
        crop = crop + (there[ring].mean(axis=0) - crop[ring].mean(axis=0)).clip(-_BRIGHTER, _BRIGHTER)
    weight = alpha[:, :, None] if pixels.ndim == 3 else alpha
    changed = pixels.copy()
    changed[at] = np.rint(there + weight * (crop.clip(0, 255) - there)).astype(np.uint8)
    return changed


def feathered(mask: np.ndarray, margin: int) -> np.ndarray:
    """(h + 2 margin, w + 2 margin) float32: 1 well inside the mask (h, w), falling to 0 within ``margin`` pixels around."""
    padded = Image.fromarray(np.pad(mask, margin).astype(np.uint8) * 255)
    blurred = np.asarray(padded.filter(ImageFilter.GaussianBlur(margin / 3)), np.float32) / 255
    return (2 * blurred).clip(0, 1)


def margin_of(mask: np.ndarray) -> int:
    """Pixels over which a lesion fades out: 3, 6 or 9 by its size."""
    return 3 * int(np.clip(ceil(0.05 * sqrt(mask.sum())), 1, 3))


def _with_margin(donor: np.ndarray, graft: Graft, margin: int) -> np.ndarray:
    """The lesion's pixels, float32, with as many around it, at the scale of its new image; borders are repeated."""
    height, width = graft.mask.shape
    x0, y0, x1, y1 = graft.window
    rows = (y0 + (np.arange(-margin, height + margin) + 0.5) * ((y1 - y0) / height)).astype(int)
    columns = (x0 + (np.arange(-margin, width + margin) + 0.5) * ((x1 - x0) / width)).astype(int)
    return donor[np.ix_(rows.clip(0, donor.shape[0] - 1), columns.clip(0, donor.shape[1] - 1))].astype(np.float32)


def _apart(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(N,) bool: which of the boxes (N, 4) share no area with a box."""
    return ((np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])) <= 0).any(axis=1)
