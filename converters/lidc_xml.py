"""Chest CT series with LIDC-IDRI readings: one XML a series, with the nodules that up to four readers drew on it.

Roles::

    series = "{patient}/{study}/{series}/*.dcm"   # required: a folder a series; those of another modality are passed over
    marks = "**/*.xml"                            # required: the readings, wherever they lie

Options: those of ``medglip.curate.volumes``, and

- ``readers``: ``consensus`` (default) or ``each``, see medglip/curate/readers.py;
- ``tolerance_mm``: greatest distance between outlines of one nodule; default the pitch of the slices.

A reading and a series find each other by SeriesInstanceUID, an outline and its slice by SOP UID, else by z position. The
raw label is ``nodule``. An outline runs along the first pixels OUTSIDE the nodule: they are not part of it. One with
inclusion FALSE is a hole. Readers number nodules on their own: outlines of several readers are one nodule where they come
near each other, and its mask is where half of the readers who drew it agree.

Nodules below 3 mm have a point and no outline, so they give no region; on slices within 3 mm of one, and where a reader
drew what the consensus left out, an image without a nodule does not count as a true negative. Marks of non-nodules are
counted in the volume's checks. Attributes: ``readers``, ``agreement``; the nine ratings, as words (``malignancy``) where
readers agree on one or their median is one, and as the median (``malignancy_rating``) where they have an order;
``ratings``, what each reader gave, in the order of ``RATINGS`` (medglip/imaging/readings.py); ``nodule``, its number in
the series.

Outlines on slices that are not in the series are counted in the volume's checks.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from medglip.curate.cases import Case, Refused
from medglip.curate.layout import find, listed
from medglip.curate.readers import Cluster, agreement, clusters, consensus, doubted, point_distances, reader_mode
from medglip.curate.regions import SPECKLE
from medglip.curate.source import Named, Part
from medglip.curate.volumes import OPTIONS as VOLUME_OPTIONS
from medglip.curate.volumes import Structure, pictures_of_volume, structure_of, volume_cases, volume_of
from medglip.errors import InputError
from medglip.imaging.components import components_of
from medglip.imaging.dicom import MODALITY_OF, read_header
from medglip.imaging.readings import RATINGS, Nodule, Outline, Reading, inside_of, read_reading, series_uid_of
from medglip.imaging.volume import Volume
from medglip.records import Picture, Reject, VolumeRecord, label_tree
from medglip.records.phrases import phrased

ROLES = ("series", "marks")
OPTIONS = ("readers", "tolerance_mm", *VOLUME_OPTIONS)

_WITHOUT_ORDER = ("internalStructure", "calcification")
_READERS = 4
_SMALL_MM = 3.0  # nodules below this have a point only
_HALF = 0.5 + 1e-3


@dataclass(frozen=True, eq=False)
class Drawn:
    """A nodule of one reader on the volume's grid.

    Attributes:
        nodule: What it is.
        start_kji: Where its mask begins.
        mask: (K, J, I) bool.
        points_mm: (N, 3) points of its outlines, along the columns, the rows and the normal.
    """

    nodule: Nodule
    start_kji: tuple[int, int, int]
    mask: np.ndarray
    points_mm: np.ndarray


def cases(part: Part, folder: Path) -> Iterator[Case | Reject]:
    """One case a series of the part's modality, with its readings."""
    reader_mode(part)
    readings: dict[str, list[str]] = defaultdict(list)
    for entry in find(part.files["marks"], listed(folder)):
        try:
            if uid := series_uid_of(folder / entry.path):
                readings[uid].append(entry.path)
        except InputError as error:
            yield Reject(part.source, entry.path, "unreadable_file", str(error))
    for case in volume_cases(replace(part, files={"series": part.files["series"]}), folder):
        if isinstance(case, Reject):
            yield case
            continue
        first = case.files["series"][0]
        try:
            header = read_header(case.path(first))
        except InputError as error:
            yield Reject(part.source, first, "unreadable_file", str(error), case.key)
            continue
        marks = readings.pop(str(header.get("SeriesInstanceUID")), [])
        if MODALITY_OF.get(header.get("Modality", "")) != part.modality:
            continue
        if marks:
            yield replace(case, files=case.files | {"marks": tuple(marks)})
        else:
            yield Reject(part.source, first, "unlabelled", f"No XML reads the series of {first!r}; add it.", case.key)
    for path in sorted(path for paths in readings.values() for path in paths):
        yield Reject(part.source, path, "missing_image", f"The series that {path!r} reads is not in the input; add it.")


def convert(part: Part, case: Case) -> Iterator[Picture | VolumeRecord | Reject]:
    """The planes of the series with the regions of its nodules, and the volume."""
    if len(case.files["marks"]) > 1:
        raise Refused("ambiguous_file", f"The files {list(case.files['marks'])} all read one series; keep one of them.")
    file = case.one("marks")
    named = part.named("nodule", file)
    if named is None:
        raise Refused("unlabelled", "The source skips the raw label 'nodule', and there is no other.")
    reading = read_reading(case.path(file))
    volume, image = volume_of(part, case)
    doubtful: set[int] = set()
    drawn: list[Drawn] = []
    for number, nodule in enumerate(reading.nodules, 1):
        try:
            if nodule.small:
                doubtful |= _near(volume, nodule)
            else:
                drawn.append(_drawn(volume, nodule))
        except Refused as error:
            doubtful |= _near(volume, nodule)
            yield Reject(part.source, file, error.reason, f"{file}, mark {number}: {error}", case.key)
    structures, about = _structures(part, volume, named, drawn, reading, doubtful)
    checks = {
        "nodules_below_3_mm": sum(nodule.small for nodule in reading.nodules), "non_nodules": reading.non_nodules,
        "outlines_off_slices": sum(_slice_of(volume, one) is None for nodule in reading.nodules for one in nodule.outlines),
    }  # fmt: skip
    said = {name: str(count) for name, count in checks.items() if count}
    structures = structures or [structure_of(named, np.zeros((1, 1, 1), bool), shape_kji=volume.shape_kji)]
    items = list(pictures_of_volume(part, case, volume, structures, file=image, searched=part.exhaustive, checks=said))
    instances = [one.id for item in items if isinstance(item, VolumeRecord) for one in item.instances]
    known = dict(zip(instances, about, strict=True))
    for item in items:
        yield _told(item, known, doubtful, named) if isinstance(item, Picture) else item


def _slice_of(volume: Volume, outline: Outline) -> int | None:
    """The slice of an outline: by its SOP UID, else the nearest within half the pitch; None where there is none."""
    uids = [uid.split("#")[0] for uid in volume.sop_uids]
    if outline.sop_uid in uids:
        return uids.index(outline.sop_uid)
    if outline.z_mm is None or volume.affine_ijk_to_mm is None:
        return None
    away = np.abs(_z_of_slices(volume) - outline.z_mm)
    return int(away.argmin()) if away.min() <= _HALF * _pitch(volume) else None


def _z_of_slices(volume: Volume) -> np.ndarray:
    """(K,) z of the first voxel of each slice, LPS mm."""
    if volume.origins_mm is not None:
        return volume.origins_mm[:, 2]
    affine = np.asarray(volume.affine_ijk_to_mm)
    return affine[2, 3] + np.arange(volume.shape_kji[0]) * affine[2, 2]


def _pitch(volume: Volume) -> float:
    return volume.spacing_kji_mm[0] if volume.spacing_kji_mm else 1.0


def _near(volume: Volume, nodule: Nodule) -> set[int]:
    """Slices on which a nodule that gives no region may be seen."""
    on = {at for outline in nodule.outlines if (at := _slice_of(volume, outline)) is not None}
    reach = int(_SMALL_MM // _pitch(volume))
    return {k for at in on for k in range(max(at - reach, 0), min(at + reach + 1, volume.shape_kji[0]))}


def _drawn(volume: Volume, nodule: Nodule) -> Drawn:
    """A nodule on the grid.

    Raises:
        Refused: it has no slice, leaves the image, or no pixel is inside.
    """
    kept = [(at, one) for one in nodule.outlines if len(one.points) and (at := _slice_of(volume, one)) is not None]
    if not kept:
        raise Refused("off_slices", f"None of its {len(nodule.outlines)} outlines lies on a slice of the series.")
    points = np.concatenate([outline.points for _, outline in kept])
    slices = [at for at, _ in kept]
    (x0, y0), (x1, y1), k0 = points.min(axis=0), points.max(axis=0), min(slices)
    _, rows, columns = volume.shape_kji
    if x0 < 0 or y0 < 0 or x1 >= columns or y1 >= rows:
        raise Refused("outside_image", f"Its outlines leave the image of {columns} x {rows} pixels.")
    mask = np.zeros((max(slices) + 1 - k0, y1 + 1 - y0, x1 + 1 - x0), dtype=bool)
    for at, outline in sorted(kept, key=lambda entry: entry[1].hole):  # holes last
        inside, (x, y) = inside_of(outline.points)
        plane = mask[at - k0, y - y0 : y - y0 + inside.shape[0], x - x0 : x - x0 + inside.shape[1]]
        if outline.hole:
            plane &= ~inside
            plane[outline.points[:, 1] - y, outline.points[:, 0] - x] = False  # as pylidc has it
        else:
            plane |= inside
    if not mask.any():
        raise Refused("no_pixel", "No pixel lies inside its outlines.")
    pitch, down, across = volume.spacing_kji_mm or (1.0, 1.0, 1.0)
    lines = [(outline.points * (across, down), at * pitch) for at, outline in kept if not outline.hole]
    points_mm = np.concatenate([np.column_stack([flat, np.full(len(flat), z)]) for flat, z in lines])
    return Drawn(nodule, (k0, int(y0), int(x0)), mask, points_mm)


def _structures(
    part: Part, volume: Volume, named: Named, drawn: Sequence[Drawn], reading: Reading, doubtful: set[int]
) -> tuple[list[Structure], list[tuple[dict, tuple[str, ...]]]]:
    """The objects of the volume, each in one piece, with attributes and flags; adds to the doubtful slices."""
    structures: list[Structure] = []
    about: list[tuple[dict, tuple[str, ...]]] = []

    def add(mask: np.ndarray, start: Sequence[int], attributes: dict, flags: tuple[str, ...]) -> None:
        numbers, found = components_of(mask)
        for piece in found:
            if piece.voxels > SPECKLE or piece.number == 1:
                structures.append(structure_of(named, numbers == piece.number, start, volume.shape_kji))
                about.append((attributes, flags))

    tolerance = float(part.option("tolerance_mm", _pitch(volume)))
    distances = point_distances([one.points_mm for one in drawn])
    groups = clusters(distances, [one.nodule.reader for one in drawn], tolerance, max(_READERS, reading.readers))
    for number, group in enumerate(groups, 1):
        members = [drawn[at] for at in group.members]
        common, flags = _common(members, group, reading)
        common["nodule"] = number
        if reader_mode(part) == "each":
            for one in members:
                said = {"reader": one.nodule.reader, **_rated([one.nodule]), **common}
                add(one.mask, one.start_kji, said, flags)
            continue
        start, masks = _together(members)
        agreed = consensus(masks)
        drawn_on, agreed_on = (np.any(mask, axis=(1, 2)) for mask in (np.logical_or.reduce(masks), agreed))
        doubtful |= {start[0] + int(k) for k in np.flatnonzero(drawn_on & ~agreed_on)}
        ratings = {"ratings": "; ".join(map(_written, members))}
        add(agreed, start, _rated([one.nodule for one in members]) | common | ratings, flags)
    return structures, about


def _common(members: Sequence[Drawn], group: Cluster, reading: Reading) -> tuple[dict, tuple[str, ...]]:
    readers = len({one.nodule.reader for one in members})
    return agreement(readers, reading.readers), doubted(readers, reading.readers, ambiguous=group.ambiguous)


def _together(members: Sequence[Drawn]) -> tuple[tuple[int, int, int], list[np.ndarray]]:
    """The masks of several readers in the box that holds all of them, and where it begins."""
    starts = np.array([one.start_kji for one in members])
    stops = starts + [one.mask.shape for one in members]
    first, shape = starts.min(axis=0), stops.max(axis=0) - starts.min(axis=0)
    masks = []
    for one, start, stop in zip(members, starts - first, stops - first, strict=True):
        mask = np.zeros(shape, dtype=bool)
        mask[start[0] : stop[0], start[1] : stop[1], start[2] : stop[2]] = one.mask
        masks.append(mask)
    return (int(first[0]), int(first[1]), int(first[2])), masks


def _rated(nodules: Sequence[Nodule]) -> dict:
    """The ratings of a nodule: the word that most readers chose, or the median of those that have an order."""
    said: dict[str, str | float] = {}
    for name, words in RATINGS.items():
        values = [nodule.ratings[name] for nodule in nodules if name in nodule.ratings]
        key = "internal_structure" if name == "internalStructure" else name
        if not values:
            continue
        if name in _WITHOUT_ORDER:
            (value, most), *others = Counter(values).most_common()
            if not any(count == most for _, count in others):
                said[key] = words[value - 1]
            continue
        middle = float(median(values))
        said[f"{key}_rating"] = middle
        if middle.is_integer():
            said[key] = words[int(middle) - 1]
    return said


def _written(one: Drawn) -> str:
    return f"{one.nodule.reader}: " + " ".join(str(one.nodule.ratings.get(name, "-")) for name in RATINGS)


def _told(item: Picture, known: dict, doubtful: set[int], named: Named) -> Picture:
    """A picture whose regions say what readers said, and that claims no absence where that is in doubt."""
    record = item.record
    regions = []
    for region in record.regions:
        attributes, flags = known[region.instance]
        regions.append(replace(region, attributes=region.attributes | attributes, flags=region.flags + flags))
    record = replace(record, regions=tuple(regions))
    if record.origin.slice in doubtful if record.origin.axis == "k" else doubtful:
        tree = label_tree()
        sure = {
            concept: not (tree.covers(concept, named.concept) or tree.covers(named.concept, concept))
            for concept in record.exhaustive
        }
        record = replace(
            record, exhaustive=tuple(concept for concept in record.exhaustive if sure[concept]),
            absent=tuple(concept for concept in record.absent if sure.get(concept, True)),
        )  # fmt: skip
    return Picture(phrased(record, label_tree()), item.pixels)
