"""Words that name a concept or a region, made from the label tree. Knows no images; the sides are the patient's."""

from collections.abc import Iterator

import numpy as np

from medglip.records.labels import Label, LabelTree
from medglip.records.record import Phrase, Region

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
    return _each_once(_sided(label, side, tree) if side else _plain(label, tree))


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
    label = tree[region.label]
    phrases = [*_plain(label, tree)]
    if region.laterality in ("left", "right"):
        phrases += _sided(label, region.laterality, tree)
    elif region.laterality == "bilateral":
        phrases.append(Phrase(tree.name(label.id, "bilateral"), "laterality"))
    noun = _bare_name(label, tree) or label.name
    place = f" in the {tree.name(parent.label, parent.laterality)}" if parent else ""
    size_mm = diameter_mm(region, spacing_mm) if label.countable and label.is_finding else None
    if size_mm is not None and round(size_mm) >= 1:
        names = [label.name, noun, noun + place] if place else [label.name, noun]
        phrases += [Phrase(f"{round(size_mm)} mm {name}", "size") for name in names]
    if place:
        phrases.append(Phrase(noun + place, "relation"))
    return _each_once(iter(phrases))


def diameter_mm(region: Region, spacing_mm: tuple[float, float] | None) -> float | None:
    """Longest diameter of a region in its image, in mm; None where it cannot be trusted.

    What the source measured (attribute ``diameter_mm``) comes first; then the longest extent of the mask over all
    directions, pixels taken as squares; then the longer side of the box.

    Args:
        region: The region.
        spacing_mm: (row, column) pixel pitch in mm, or None.

    >>> diameter_mm(Region("systemic.lesion", (0.0, 0.0, 4.0, 2.0)), (0.5, 0.5))
    2.0
    """
    measured = region.attributes.get("diameter_mm")
    if isinstance(measured, int | float) and measured > 0:
        return float(measured)
    if spacing_mm is None or {"touches_border", "merged"}.intersection(region.flags):
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


def _each_once(phrases: Iterator[Phrase]) -> tuple[Phrase, ...]:
    kept: dict[str, Phrase] = {}
    for phrase in phrases:
        kept.setdefault(phrase.text.lower(), phrase)
    return tuple(kept.values())
