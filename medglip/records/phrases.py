"""Words that name a concept or a region, made from the label tree. Knows no pixels; the sides are the patient's."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from medglip.records.containment import parents_of, shares_inside
from medglip.records.labels import Label, LabelTree
from medglip.records.record import ImageRecord, Phrase, Region, identified

_MODALITY_WORDS = {
    "ct": "CT", "mr": "MRI", "xray": "X-ray", "ultrasound": "ultrasound", "endoscopy": "endoscopy",
    "dermoscopy": "dermoscopy", "fundus": "fundus photography", "histopathology": "histopathology",
    "microscopy": "microscopy", "pet": "PET", "mammography": "mammography", "oct": "OCT",
}  # fmt: skip
_PICTURES = {
    "endoscopy": "an endoscopic image", "dermoscopy": "a dermoscopic image", "fundus": "a fundus photograph",
    "histopathology": "a histopathology image", "microscopy": "a microscopy image", "mammography": "a mammogram",
    "oct": "an OCT image",
}  # fmt: skip
_PLANES = ("axial", "coronal", "sagittal")
# Attributes of sources that can be spoken: with a value as it is, and with a value that is itself an adjective.
_GRADES = {"birads": "BI-RADS {} {}", "grade": "grade {} {}", "stage": "stage {} {}"}
_ADJECTIVES = ("shape", "margin", "texture", "density", "composition", "echogenicity", "severity")
_BESIDE = 0.1  # share of a region inside another up to which it does not lie in it
_SENTENCE_END = re.compile(r"[.!?]\s+")
_ANGLES = np.linspace(0.0, np.pi, 180, endpoint=False)


def concept_phrases(concept: str, tree: LabelTree) -> tuple[Phrase, ...]:
    """Phrases that mean this concept and no other, the best first.

    Args:
        concept: ``label`` or ``label@left|right``. With a side, every phrase says the side.
        tree: The label tree.

    Returns:
        Name, synonyms, adjective form ("renal tumor"), side and site forms ("tumor of the kidney"), each text once.

    Raises:
        SourceError: the tree has no such concept.

    >>> from medglip.records.labels import label_tree
    >>> [phrase.text for phrase in concept_phrases("abdomen.kidney.cyst@left", label_tree())][:3]
    ['left kidney cyst', 'left simple cyst of the kidney', 'left renal cyst']
    """
    label_id, side = tree.split(concept)
    label = tree[label_id]
    return _each_once(list(_sided(label, side, tree) if side else _plain(label, tree)))


def region_phrases(
    region: Region, tree: LabelTree, spacing_mm: tuple[float, float] | None = None, parent: Region | None = None
) -> tuple[Phrase, ...]:
    """Phrases that are true of a region: those of its label with and without the side, its size, and what contains it.

    Another region of the image may share some of them: "kidney" is true of both kidneys.

    Args:
        region: The region.
        tree: The label tree.
        spacing_mm: (row, column) pixel pitch in mm; None where it is not trusted, then no size is said.
        parent: The region that contains it, or None.

    Returns:
        Phrases, each text once. The size is said of countable findings only, and not where the region touches the
        border of the image or is several in one.

    >>> from medglip.records.labels import label_tree
    >>> kidney = Region("abdomen.kidney", (10.0, 10.0, 60.0, 90.0), laterality="left")
    >>> cyst = Region("abdomen.kidney.cyst", (20.0, 30.0, 30.0, 40.0), laterality="left")
    >>> [phrase.text for phrase in region_phrases(cyst, label_tree(), (1.2, 1.2), kidney)][-2:]
    ['12 mm cyst', '12 mm cyst in the left kidney']
    """
    claims = _claims(region, tree, diameter_mm(region, spacing_mm), parent)
    return _each_once([*_named(region, tree), *(Phrase(claim.text, claim.kind) for claim in claims)])


def phrased(record: ImageRecord, tree: LabelTree) -> ImageRecord:
    """The record with ids, parents and phrases of its regions.

    Beside ``region_phrases``: the picture ("liver in abdominal CT"), and the words and sentences of reports whose spans
    name the region. A size, relation or attribute is said of all regions of the image that it fits, and of none where it is
    not known whether one fits.

    Args:
        record: An image; parents and phrases that its regions have are made anew, but phrases of kind ``machine`` stay.
        tree: The label tree.
    """
    record = identified(record)
    regions = record.regions
    parents = parents_of(regions, tree)
    inside = [{regions[number].concept for number in numbers} for numbers in parents]
    spacing = None if "spacing_uncalibrated" in record.flags else record.spacing_mm
    sizes = [diameter_mm(region, spacing) for region in regions]
    claims: dict[str, _Claim] = {}
    for region, size_mm, numbers in zip(regions, sizes, parents, strict=True):
        place = regions[numbers[0]] if numbers and tree[region.label].is_finding else None
        claims |= {claim.text.lower(): claim for claim in _claims(region, tree, size_mm, place)}
    told: list[list[Phrase]] = [list(_named(region, tree)) for region in regions]
    for claim in claims.values():
        fits = [_fits(claim, number, regions, sizes, inside, tree) for number in range(len(regions))]
        for phrases, fit in zip(told, fits, strict=True):
            if fit and None not in fits:
                phrases.append(Phrase(claim.text, claim.kind))
    for region, phrases in zip(regions, told, strict=True):
        phrases += [*_in_picture(region, record, tree), *_reported(region, record)]
        phrases += [phrase for phrase in region.phrases if phrase.kind == "machine"]
    return replace(record, regions=tuple(
        replace(region, parents=tuple(regions[n].id for n in numbers), phrases=_each_once(phrases))
        for region, numbers, phrases in zip(regions, parents, told, strict=True)
    ))  # fmt: skip


def diameter_mm(region: Region, spacing_mm: tuple[float, float] | None) -> float | None:
    """Longest diameter of a region in its image, in mm; None where it cannot be trusted.

    What the source measured (attribute ``diameter_mm``) comes first; then the region's ``long_axis_mm``; then the longest
    extent of the mask over all directions, pixels taken as squares; then the longer side of the box.

    Args:
        region: The region.
        spacing_mm: (row, column) pixel pitch in mm, or None.

    >>> diameter_mm(Region("systemic.lesion", (0.0, 0.0, 4.0, 2.0)), (0.5, 0.5))
    2.0
    """
    measured = region.attributes.get("diameter_mm")
    if isinstance(measured, int | float) and measured > 0:
        return float(measured)
    if {"touches_border", "merged"}.intersection(region.flags):
        return None
    if region.long_axis_mm is not None:
        return region.long_axis_mm
    if spacing_mm is None:
        return None
    row_mm, column_mm = spacing_mm
    mask = region.mask.decode() if region.mask else None
    if mask is None or not mask.any():
        x0, y0, x1, y1 = region.box_xyxy
        return max((x1 - x0) * column_mm, (y1 - y0) * row_mm)
    rows = np.flatnonzero(mask.any(axis=1))
    first, last = mask[rows].argmax(axis=1), mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)
    # The ends of each row span the convex hull, so no other pixel can be farther out.
    y_mm, x_mm = np.tile(rows, 2) * row_mm, np.concatenate([first, last]) * column_mm
    along = np.outer(np.cos(_ANGLES), x_mm) + np.outer(np.sin(_ANGLES), y_mm)
    pixel_mm = np.abs(np.cos(_ANGLES)) * column_mm + np.abs(np.sin(_ANGLES)) * row_mm
    return float((np.ptp(along, axis=1) + pixel_mm).max())


def _plain(label: Label, tree: LabelTree) -> Iterator[Phrase]:
    yield Phrase(label.name, "name")
    for synonym in label.synonyms:
        yield Phrase(synonym, "synonym")
    site = _site_of(label, tree)
    if site is None:
        return
    bare = _bare_name(label, tree)
    if bare and site.adjective:
        yield Phrase(f"{site.adjective} {bare}", "adjective")
    for preposition in ("of", "in") if bare else ("in",):
        yield Phrase(f"{bare or label.name} {preposition} the {site.name}", "site")


def _sided(label: Label, side: str, tree: LabelTree) -> Iterator[Phrase]:
    for name in (label.name, *label.synonyms):
        yield Phrase(f"{side} {name}", "laterality")
    site, bare = _site_of(label, tree), _bare_name(label, tree)
    if site and site.adjective and bare:
        yield Phrase(f"{side} {site.adjective} {bare}", "adjective")
    if label.is_finding:
        yield Phrase(f"{side}-sided {label.name}", "laterality")
    yield Phrase(f"{label.name} on the {side} side", "laterality")
    if site:
        place = f"{side} {site.name}" if site.laterality else f"{side} side of the {site.name}"
        yield Phrase(f"{bare or label.name} {'in' if site.laterality else 'on'} the {place}", "site")


def _site_of(label: Label, tree: LabelTree) -> Label | None:
    """Where a finding is, if that is worth saying: it has a fixed site, and its name does not say it already."""
    if not label.site or label.site[0] == "systemic" or label.coarse == "image sign":
        return None
    site = tree[label.site[0]]
    said = set(label.name.lower().split()).intersection(f"{site.name} {site.adjective}".lower().split())
    return site if _bare_name(label, tree) or not said else None


def _bare_name(label: Label, tree: LabelTree) -> str:
    """``tumor`` of ``kidney tumor``, ``effusion`` of ``pleural effusion``; empty where no site comes first."""
    for site_id in label.site:
        site = tree[site_id]
        for word in (site.name, site.adjective, *site.synonyms):
            if word and label.name.lower().startswith(f"{word.lower()} "):
                return label.name[len(word) + 1 :]
    return ""


@dataclass(frozen=True, slots=True)
class _Claim:
    """A phrase that says more than the label, and what must be true of a region that it fits."""

    text: str
    kind: str
    noun: str
    size: int | None = None
    place: str | None = None
    attribute: tuple[str, object] | None = None


def _claims(region: Region, tree: LabelTree, size_mm: float | None, parent: Region | None) -> list[_Claim]:
    label = tree[region.label]
    noun = _bare_name(label, tree) or label.name
    place = f" in the {tree.name(parent.label, parent.laterality)}" if parent else ""
    where = parent.concept if parent else None
    claims = []
    if size_mm is not None and round(size_mm) >= 1 and label.countable and label.is_finding:
        size = round(size_mm)
        claims += [_Claim(f"{size} mm {name}", "size", name, size) for name in dict.fromkeys([label.name, noun])]
        if place:
            claims.append(_Claim(f"{size} mm {noun}{place}", "size", noun, size, where))
    if place:
        claims.append(_Claim(noun + place, "relation", noun, place=where))
    for key, value in region.attributes.items():
        text = ""
        if key in _GRADES and isinstance(value, str | int) and str(value).strip():
            text = _GRADES[key].format(value, label.name)
        elif key in _ADJECTIVES and isinstance(value, str) and value.replace("-", "").isalpha():
            text = f"{value.lower()} {label.name}"
        if text:
            claims.append(_Claim(text, "attribute", label.name, attribute=(key, value)))
    return claims


def _fits(
    claim: _Claim, number: int, regions: Sequence[Region], sizes: Sequence[float | None], inside: Sequence[set[str]],
    tree: LabelTree,
) -> bool | None:  # fmt: skip
    """Whether a claim is true of a region; None where that is not known."""
    region = regions[number]
    if not any(name == claim.noun or name.endswith(f" {claim.noun}") for name in _names(region.label, tree)):
        return False
    size, doubts = sizes[number], False
    if claim.size is not None:
        if size is not None and round(size) != claim.size:
            return False
        doubts |= size is None
    if claim.attribute is not None:
        key, value = claim.attribute
        if region.attributes.get(key, value) != value:
            return False
        doubts |= key not in region.attributes
    if claim.place is not None and not any(tree.covers(claim.place, holder) for holder in inside[number]):
        places = [one for one in regions if one is not region and tree.covers(claim.place, one.concept)]
        if shares_inside([region], places).max(initial=0.0) <= _BESIDE:
            return False
        doubts = True  # partly in it
    return None if doubts else True


@lru_cache(maxsize=4096)
def _names(label_id: str, tree: LabelTree) -> tuple[str, ...]:
    """The names of a label and of all that it is a kind of."""
    kinds = [above for above in tree.ancestors(label_id) if tree.covers(above, label_id)]
    return tuple(tree[one].name for one in (label_id, *kinds))


def _named(region: Region, tree: LabelTree) -> Iterator[Phrase]:
    """Phrases of the label, with and without the side."""
    label = tree[region.label]
    yield from _plain(label, tree)
    if region.laterality in ("left", "right"):
        yield from _sided(label, region.laterality, tree)
    elif region.laterality == "bilateral":
        yield Phrase(tree.name(label.id, "bilateral"), "laterality")


def _in_picture(region: Region, record: ImageRecord, tree: LabelTree) -> Iterator[Phrase]:
    """Name and picture: "liver in CT", "liver in abdominal CT"; "polyp in endoscopy", "polyp in an endoscopic image"."""
    words = _MODALITY_WORDS.get(record.modality)
    if words is None:
        return
    name = tree.name(region.label, region.laterality)
    yield Phrase(f"{name} in {words}", "site")
    if record.modality in _PICTURES:
        yield Phrase(f"{name} in {_PICTURES[record.modality]}", "site")
    elif record.body_region not in (None, "systemic"):
        place = tree[record.body_region]
        picture = f"{place.adjective} {words}" if place.adjective else f"{words} of the {place.name}"
        yield Phrase(f"{name} in {picture}", "site")
    elif (plane := record.modality_detail.get("plane")) in _PLANES:
        yield Phrase(f"{name} in {plane} {words}", "site")


def _reported(region: Region, record: ImageRecord) -> Iterator[Phrase]:
    """What reports call the region: the words of a span, and its sentence where that speaks of nothing else."""
    for text in record.texts:
        mine = [span for span in text.spans if region.id in span.regions and text.kind != "template"]
        for span in mine:
            yield Phrase(text.text[span.start : span.end], "report")
            ends = [found.end() for found in _SENTENCE_END.finditer(text.text)]
            start = max([end for end in ends if end <= span.start], default=0)
            stop = min([end for end in ends if end >= span.end], default=len(text.text))
            around = [other for other in text.spans if start < other.end and other.start < stop]
            if all(set(other.regions) == set(span.regions) for other in around):
                yield Phrase(text.text[start:stop].strip(), "report")


def _each_once(phrases: Sequence[Phrase]) -> tuple[Phrase, ...]:
    kept: dict[str, Phrase] = {}
    for phrase in phrases:
        kept.setdefault(phrase.text.lower(), phrase)
    return tuple(kept.values())
