"""LIDC-IDRI readings: the XML files in which readers of chest CT outlined nodules. Knows no label tree and no datasets.

An outline runs along the first pixels outside the nodule, so they are not part of it; a reader's numbers of nodules are
his own. Coordinates are whole pixels, counted from 0.

Sources: the LIDC-IDRI XML schema; pylidc (``Annotation.boolean_mask`` takes the points of outlines out of the mask, and
``Annotation`` has the words of the ratings).
"""

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from medglip.errors import InputError
from medglip.imaging.contours import filled

# Words of each rating, from 1 up.
RATINGS: dict[str, tuple[str, ...]] = {
    "subtlety": ("extremely subtle", "moderately subtle", "fairly subtle", "moderately obvious", "obvious"),
    "internalStructure": ("soft tissue", "fluid", "fat", "air"),
    "calcification": ("popcorn", "laminated", "solid", "non-central", "central", "absent"),
    "sphericity": ("linear", "ovoid/linear", "ovoid", "ovoid/round", "round"),
    "margin": ("poorly defined", "near poorly defined", "medium margin", "near sharp", "sharp"),
    "lobulation": ("no lobulation", "nearly no lobulation", "medium lobulation", "near marked lobulation",
                   "marked lobulation"),
    "spiculation": ("no spiculation", "nearly no spiculation", "medium spiculation", "near marked spiculation",
                    "marked spiculation"),
    "texture": ("non-solid/GGO", "non-solid/mixed", "part solid/mixed", "solid/mixed", "solid"),
    "malignancy": ("highly unlikely", "moderately unlikely", "indeterminate", "moderately suspicious", "highly suspicious"),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Outline:
    """One closed line, or a lone point, on one slice.

    Attributes:
        sop_uid: Of the slice.
        z_mm: Its position, or None.
        hole: True where what it encloses is not part of the nodule.
        points: (N, 2) whole numbers, (column, row), from 0.
    """

    sop_uid: str
    z_mm: float | None
    hole: bool
    points: np.ndarray


@dataclass(frozen=True, eq=False)
class Nodule:
    """What one reader marked: its outlines, and its ratings where he gave any."""

    reader: str
    outlines: tuple[Outline, ...]
    ratings: dict[str, int]

    @property
    def small(self) -> bool:
        """Whether it is a point only."""
        return all(len(np.unique(outline.points, axis=0)) < 3 for outline in self.outlines)


@dataclass(frozen=True, eq=False)
class Reading:
    """One XML file: its nodules, how many readers looked, and how many marks of non-nodules they made."""

    nodules: tuple[Nodule, ...]
    readers: int
    non_nodules: int


def series_uid_of(path: Path) -> str:
    """The series that a CT reading is of; empty for a reading of an X-ray.

    Raises:
        InputError: the file is broken, or no reading.
    """
    try:
        for event, element in ElementTree.iterparse(path, events=("start", "end")):
            tag = element.tag.rpartition("}")[2]
            if tag == "IdriReadMessage":
                return ""
            if event == "end" and tag.lower() == "seriesinstanceuid":
                return (element.text or "").strip()
    except (OSError, ElementTree.ParseError) as error:
        raise InputError(f"Reading {path.name!r} is broken or cut off: {error}.") from error
    raise InputError(f"Reading {path.name!r} names no series; allowed: LidcReadMessage with a SeriesInstanceUid.")


def read_reading(path: Path) -> Reading:
    """The marks of an LIDC-IDRI XML.

    Raises:
        InputError: it is broken.
    """
    try:
        sessions = list(ElementTree.parse(path).getroot().iterfind("{*}readingSession"))
        nodules = [
            Nodule(str(reader), tuple(map(_outline, item.iterfind("{*}roi"))), _ratings(item))
            for reader, session in enumerate(sessions, 1)
            for item in session.iterfind("{*}unblindedReadNodule")
        ]
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise InputError(f"Reading {path.name!r} is broken or cut off: {error}.") from error
    others = sum(len(session.findall("{*}nonNodule")) for session in sessions)
    return Reading(tuple(nodule for nodule in nodules if nodule.outlines), len(sessions), others)


def inside_of(points: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """What an outline encloses without the pixels that it runs through.

    Args:
        points: (N, 2) whole numbers, (column, row); the last is joined to the first.

    Returns:
        (h, w) bool, and column and row of its first pixel.

    >>> inside_of(np.array([[4, 2], [6, 2], [6, 4], [4, 4]]))[0].astype(int).tolist()
    [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    """
    corner = points.min(axis=0)
    at = points - corner
    width, height = at.max(axis=0) + 1
    mask = filled(at, (int(height), int(width)))
    steps = np.roll(at, -1, axis=0) - at
    for (x, y), (dx, dy) in zip(at, steps, strict=True):
        count = int(np.gcd(dx, dy))
        along = np.arange(max(count, 1))[:, None] * np.array([dx, dy]) // max(count, 1)
        mask[y + along[:, 1], x + along[:, 0]] = False
    return mask, (int(corner[0]), int(corner[1]))


def _outline(roi: ElementTree.Element) -> Outline:
    points = [(int(edge.findtext("{*}xCoord", "")), int(edge.findtext("{*}yCoord", ""))) for edge in roi.iterfind("{*}edgeMap")]
    z = roi.findtext("{*}imageZposition", "").strip()
    hole = roi.findtext("{*}inclusion", "TRUE").strip().upper() == "FALSE"
    array = np.array(points, dtype=np.int64).reshape(-1, 2)
    return Outline(roi.findtext("{*}imageSOP_UID", "").strip(), float(z) if z else None, hole, array)


def _ratings(item: ElementTree.Element) -> dict[str, int]:
    """The ratings that are in their range; some readers left them out, or gave 0."""
    found = {name: (item.findtext(f"{{*}}characteristics/{{*}}{name}") or "").strip() for name in RATINGS}
    return {name: int(text) for name, text in found.items() if text.isdigit() and 1 <= int(text) <= len(RATINGS[name])}
