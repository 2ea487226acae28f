"""Cases of DICOM objects that mark other images (SEG, RTSTRUCT), each with the series that it refers to. Draws nothing."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from pydicom.dataset import Dataset

from medglip.curate.cases import Case
from medglip.curate.layout import find, listed
from medglip.curate.source import Part
from medglip.errors import InputError
from medglip.imaging.dicom import MODALITY_OF, is_dicom, read_header
from medglip.imaging.series import Frame, References, Series, frames_of, series_of
from medglip.records import Reject


class Referring(NamedTuple):
    """A kind of object that refers to images.

    Attributes:
        modality: Its Modality: ``SEG``, ``RTSTRUCT``.
        role: The role in ``[part.files]`` among whose files it is.
        image_role: The role among whose files the images are.
        references: What an object refers to, from its header and its file's name; may raise InputError.
    """

    modality: str
    role: str
    image_role: str
    references: Callable[[Dataset, str], References]


def referring_cases(part: Part, folder: Path, kind: Referring) -> Iterator[Case | Reject]:
    """One case an image series of the part's modality, with the objects that refer to it; files are told apart by content."""
    paths = listed(folder)
    images = {entry.path: entry for entry in find(part.files[kind.image_role], paths)}
    marking = {entry.path for entry in find(part.files[kind.role], paths)}
    frames: list[Frame] = []
    references: dict[str, References] = {}
    others: dict[str, str] = {}  # series and instances that the part does not take, and what they are
    for path in sorted(images.keys() | marking):
        if not is_dicom(folder / path):
            continue
        try:
            header = read_header(folder / path)
            mine = MODALITY_OF.get(header.get("Modality", "")) == part.modality
            placed = frames_of(folder / path, header) if path in images and mine else []
            frames += placed
            if path in images and not placed and "Rows" in header:
                uids = (str(header.get(name) or "") for name in ("SeriesInstanceUID", "SOPInstanceUID"))
                others |= dict.fromkeys(uids, f"{header.get('Modality')} image{' without a place' if mine else ''}")
            if header.get("Modality") == kind.modality and path in marking:
                references[path] = kind.references(header, path)
        except InputError as error:
            yield Reject(part.source, path, "unreadable_file", str(error))
    found = series_of(frames)
    referring: dict[int, list[str]] = defaultdict(list)
    for path, reference in references.items():
        if (at := series_referred_to(reference, found)) is None:
            yield _without_series(
                part, path, [others[uid] for uid in (*reference.series, *reference.instances) if uid in others]
            )
        else:
            referring[at].append(path)
    for at, series in enumerate(found):
        image = tuple(sorted({frame.path.relative_to(folder).as_posix() for frame in series.frames}))
        if at in referring:
            files = {kind.image_role: image, kind.role: tuple(referring[at])}
            yield Case(image[0], folder, files, images[image[0]].fields)
        else:
            detail = f"No {kind.modality} refers to the series of {image[0]!r}; add one."
            yield Reject(part.source, image[0], "unlabelled", detail)


def _without_series(part: Part, path: str, marked: list[str]) -> Reject:
    """The reject of an object whose images are not in the input, or are of a kind that the part does not take."""
    if marked:
        detail = f"What {path!r} marks is in the input, as {marked[0]}; the part takes series of {part.modality!r}."
        return Reject(part.source, path, "other_modality", detail)
    detail = f"The image series that {path!r} refers to is not in the input; add it."
    return Reject(part.source, path, "missing_image", detail)


def series_referred_to(reference: References, found: list[Series]) -> int | None:
    """Which series is meant: by its UID, else by shared instances, else, if no series is named, by the frame of reference."""
    shared = [len(reference.instances.intersection(series.sop_uids)) for series in found]
    fitting = [at for at, series in enumerate(found) if series.uid in reference.series]
    fitting = fitting or [at for at, count in enumerate(shared) if count]
    if not fitting and not reference.series:
        fitting = [at for at, series in enumerate(found) if series.frame_of_reference in reference.frames_of_reference]
    return max(fitting, key=lambda at: shared[at]) if fitting else None
