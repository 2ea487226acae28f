"""Marks of several readers: which of them mean one thing, and what they agree on. Knows no file format.

A converter whose source has several readers takes the option ``readers``:

- ``consensus`` (default): one region a thing. Its attributes say how many readers marked it (``readers``), what share
  that is of those who looked (``agreement``), and what each of them marked (``reader_boxes``, or what the converter says);
- ``each``: one region a reader's mark, with ``reader``, the number of the thing that it is a mark of (``consensus``), and
  that thing's ``readers`` and ``agreement``.

A dataset holds one or the other, never both, so that nothing is shown twice in training; for both, convert twice. A thing
that fewer than half of the readers marked has the flag ``uncertain``, and so has one whose marks may be of two things.

Sources: weighted boxes fusion: Solovyev R, Wang W, Gabruseva T, Image and Vision Computing 107:104117, 2021. Clusters and
the 50 % consensus: Hancock MC, Magnan JF, J Med Imaging 3(4):044504, 2016, and its package pylidc
(``Scan.cluster_annotations``, ``utils.consensus``).
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace
from math import fsum
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from medglip.curate.privacy.keys import keyed
from medglip.curate.regions import region_of_box
from medglip.curate.source import Named, Part
from medglip.errors import RecordError, SourceError
from medglip.records import Box, Region

# Boxes of one reader that overlap by more than this are one mark, entered twice.
SAME_BOX = 0.95
# Boxes of several readers that overlap by more than this are of one thing (Solovyev et al.; VinDr's evaluation).
SAME_THING = 0.5
# pylidc: the tolerance shrinks by this factor while a cluster has too many marks, and no further than to this.
_SHRINK, _LEAST_MM = 0.9, 0.1
_HALF = 0.5


class Fused(NamedTuple):
    """Boxes of several readers that are of one thing.

    Attributes:
        box_xyxy: Their mean.
        members: Their numbers, ascending.
        readers: How many readers marked it.
    """

    box_xyxy: Box
    members: tuple[int, ...]
    readers: int


class Cluster(NamedTuple):
    """Marks that are of one thing.

    Attributes:
        members: Their numbers, ascending.
        ambiguous: True where it has too many marks, or two of one reader: it may be two things that touch.
    """

    members: tuple[int, ...]
    ambiguous: bool


class Mark(NamedTuple):
    """One reader's region, and the label that it was made with."""

    reader: str
    named: Named
    region: Region


def overlap(one: Box, two: Box) -> float:
    """Intersection over union of two boxes.

    >>> overlap((0, 0, 2, 2), (1, 0, 3, 2))
    0.3333333333333333
    """
    across = min(one[2], two[2]) - max(one[0], two[0])
    down = min(one[3], two[3]) - max(one[1], two[1])
    shared = max(across, 0.0) * max(down, 0.0)
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (one, two)]
    return shared / (sum(areas) - shared)


def fused_boxes(boxes: Sequence[Box], readers: Sequence[Hashable], iou: float = SAME_THING) -> list[Fused]:
    """Weighted boxes fusion of boxes of one label in one image.

    Readers give no confidence, so all boxes weigh the same; the box that overlaps most with those of other readers comes
    first, as the most confident one does in the paper. The order in which the boxes are given does not matter.

    Args:
        boxes: (x0, y0, x1, y1), pixels.
        readers: Who drew each.
        iou: Boxes that overlap more are one thing.

    Returns:
        From top to bottom, then from left to right.

    >>> fused_boxes([(0, 0, 10, 10), (2, 0, 12, 10), (50, 0, 60, 10)], ["a", "b", "a"])[0]
    Fused(box_xyxy=(1.0, 0.0, 11.0, 10.0), members=(0, 1), readers=2)
    """
    support = [
        fsum(overlap(box, other) for other, who in zip(boxes, readers, strict=True) if who != reader)
        for box, reader in zip(boxes, readers, strict=True)
    ]
    groups: list[list[int]] = []
    means: list[Box] = []
    for number in sorted(range(len(boxes)), key=lambda n: (-support[n], tuple(boxes[n]), str(readers[n]))):
        shared = [overlap(boxes[number], mean) for mean in means]
        at = int(np.argmax(shared)) if shared else -1
        if at < 0 or shared[at] <= iou:
            groups.append([number])
            means.append(_mean([boxes[number]]))
        else:
            groups[at].append(number)
            means[at] = _mean([boxes[member] for member in groups[at]])
    found = [
        Fused(mean, tuple(sorted(group)), len({readers[member] for member in group}))
        for mean, group in zip(means, groups, strict=True)
    ]
    return sorted(found, key=lambda one: (one.box_xyxy[1], one.box_xyxy[0], one.box_xyxy))


def clusters(distances_mm: np.ndarray, readers: Sequence[Hashable], tolerance_mm: float, most: int) -> list[Cluster]:
    """Marks that are of one thing: those joined by steps of at most the tolerance.

    While a cluster has more marks than there are readers, all are found again with nine tenths of the tolerance, down to
    0.1 mm: pylidc's rule for nodules that lie close together.

    Args:
        distances_mm: (N, N), between marks.
        readers: Who made each.
        tolerance_mm: Greatest distance between marks of one thing; pylidc takes the slice thickness.
        most: Number of readers who looked.

    Returns:
        By their first member.
    """
    numbers = _joined(distances_mm, tolerance_mm)
    while numbers.size and np.bincount(numbers).max() > most and tolerance_mm * _SHRINK >= _LEAST_MM:
        tolerance_mm *= _SHRINK
        numbers = _joined(distances_mm, tolerance_mm)
    groups: dict[int, list[int]] = defaultdict(list)
    for member, number in enumerate(numbers.tolist()):
        groups[number].append(member)
    found = []
    for members in groups.values():
        twice = max(Counter(readers[member] for member in members).values()) > 1
        found.append(Cluster(tuple(members), twice or len(members) > most))
    return sorted(found)


def point_distances(points_mm: Sequence[np.ndarray]) -> np.ndarray:
    """(N, N) smallest distance between the points of every two marks, in mm.

    Args:
        points_mm: Points of each mark's outline, (P, D) each.
    """
    distances = np.zeros((len(points_mm), len(points_mm)))
    trees = [cKDTree(points) for points in points_mm]
    for one, points in enumerate(points_mm):
        for two in range(one):
            distances[one, two] = distances[two, one] = trees[two].query(points)[0].min()
    return distances


def consensus(masks: Sequence[np.ndarray], level: float = _HALF) -> np.ndarray:
    """Where at least this share of the masks agrees.

    Args:
        masks: Bool, of one shape; one a reader.
        level: 0.5: half of the readers or more, as pylidc's ``consensus(clevel=0.5)``.

    Raises:
        RecordError: there is no mask, or the level is not in (0, 1].

    >>> consensus([np.array([1, 1, 0]), np.array([1, 0, 0])]).tolist(), consensus([np.array([1, 0])] * 3).tolist()
    ([True, True, False], [True, False])
    """
    if not masks or not 0.0 < level <= 1.0:
        raise RecordError(f"A consensus of {len(masks)} masks at {level!r} was asked for; give one or more, and (0, 1].")
    counts = np.zeros(masks[0].shape, dtype=np.int32)
    for mask in masks:
        counts += mask != 0
    return counts >= level * len(masks) - 1e-9


def agreement(readers: int, asked: int) -> dict[str, str | float | int | bool]:
    """The attributes of a thing that some of the readers who looked have marked."""
    return {"readers": readers, "agreement": round(readers / max(asked, readers), 3)}


def doubted(readers: int, asked: int, *, ambiguous: bool = False) -> tuple[str, ...]:
    """The flag of a thing that most readers did not mark, or whose marks may be of two things."""
    return ("uncertain",) if ambiguous or readers < _HALF * asked else ()


def reader_name(part: Part, raw: str) -> str:
    """What a reader is called in a record: as the source does where its names are public, else a keyed hash."""
    return raw if part.public_names else keyed(part.source, f"reader {raw}") or ""


def reader_mode(part: Part) -> str:
    """The part's option ``readers``.

    Raises:
        SourceError: it is neither ``consensus`` nor ``each``.
    """
    mode = part.option("readers", "consensus")
    if mode not in ("consensus", "each"):
        raise SourceError(f"datasets/{part.source}.toml: option readers is {mode!r}; allowed: consensus, each.")
    return mode


def regions_of_readers(part: Part, marks: Sequence[Mark], asked: int, size_hw: Sequence[int]) -> list[Region]:
    """The regions of one image that several readers marked with boxes, by the part's option ``readers``.

    Args:
        part: Where they are from.
        marks: Every reader's boxes.
        asked: Number of readers who looked at the image.
        size_hw: Height and width of the image.
    """
    mode = reader_mode(part)
    regions: list[Region] = []
    things = 0
    for named in sorted({mark.named for mark in marks}, key=lambda named: named.concept):
        mine = _once([mark for mark in marks if mark.named == named])
        for thing in fused_boxes([mark.region.box_xyxy for mark in mine], [mark.reader for mark in mine]):
            things += 1
            members = sorted((mine[n] for n in thing.members), key=lambda mark: (mark.reader, mark.region.box_xyxy))
            said, flags = agreement(thing.readers, asked), doubted(thing.readers, asked)
            if mode == "each":
                regions += [_of_reader(mark, said | {"consensus": things}, flags) for mark in members]
                continue
            said |= _shared(members) | {"reader_boxes": "; ".join(map(_written, members))}
            regions.append(replace(region_of_box(part, named, thing.box_xyxy, size_hw, flags=flags), attributes=said))
    return regions


def _once(marks: Sequence[Mark]) -> list[Mark]:
    """Without boxes that a reader entered twice."""
    kept: list[Mark] = []
    for mark in sorted(marks, key=lambda mark: (mark.reader, mark.region.box_xyxy)):
        twins = (other for other in kept if other.reader == mark.reader)
        if not any(overlap(other.region.box_xyxy, mark.region.box_xyxy) > SAME_BOX for other in twins):
            kept.append(mark)
    return kept


def _of_reader(mark: Mark, about: dict, flags: tuple[str, ...]) -> Region:
    attributes = {**mark.region.attributes, "reader": mark.reader, **about}
    return replace(mark.region, attributes=attributes, flags=mark.region.flags + flags)


def _shared(marks: Sequence[Mark]) -> dict:
    """The attributes that all marks have alike."""
    first, *rest = [mark.region.attributes for mark in marks]
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in rest)}


def _written(mark: Mark) -> str:
    return " ".join([mark.reader, *(f"{edge:.1f}" for edge in mark.region.box_xyxy)])


def _mean(boxes: Sequence[Box]) -> Box:
    """Mean of boxes; of equal ones, exactly that, and in any order the same."""
    edges = []
    for column in zip(*boxes, strict=True):
        least = min(column)
        edges.append(float(least + fsum(edge - least for edge in column) / len(column)))
    return edges[0], edges[1], edges[2], edges[3]


def _joined(distances_mm: np.ndarray, tolerance_mm: float) -> np.ndarray:
    """Number of the cluster of each mark."""
    if not len(distances_mm):
        return np.zeros(0, dtype=int)
    return connected_components(csr_array(distances_mm <= tolerance_mm), directed=False)[1]
