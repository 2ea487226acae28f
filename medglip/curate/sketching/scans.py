"""What DICOM files of a folder are: images, SEG or RTSTRUCT objects, series with masks. Reads headers only."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medglip.curate.sketching.guessed import OBJECT, TODO, Guess
from medglip.curate.sketching.masks import mask_kind, some
from medglip.curate.sketching.shapes import Shape, levels, stem_of, words_of
from medglip.errors import MedglipError
from medglip.imaging.dicom import MODALITY_OF, is_dicom, read_header
from medglip.imaging.series import frames_of

_HEADERS = 200  # that are read of each form
_IN_3D = ("ct", "mr", "pet")


class Scans(NamedTuple):
    """DICOM files of a folder.

    Attributes:
        images: Form of the images, the one of most files first.
        modality: The commonest, or None.
        labels: Kind of object (``SEG``, ``RTSTRUCT``) -> the names in it.
        ids: Ids of the headers that were read: keyword -> values.
        placed: Whether one of them says where in the patient its slice lies.
    """

    images: tuple[Shape, ...]
    modality: str | None
    labels: dict[str, tuple[str, ...]]
    ids: dict[str, set[str]]
    placed: bool = False


def holds_dicom(folder: Path, shape: Shape) -> bool:
    """Whether one of a few files of this form is DICOM."""
    return any(is_dicom(folder / path) for path in some(shape))


def scans_in(folder: Path, found: Sequence[Shape]) -> Scans:
    """What the headers say; some of many files are read."""
    images: dict[int, Shape] = {}
    modalities: list[str] = []
    labels: dict[str, set[str]] = {}
    ids: dict[str, set[str]] = {"SOPInstanceUID": set(), "PatientID": set(), "StudyInstanceUID": set(),
                                "SeriesInstanceUID": set()}  # fmt: skip
    placed = False
    for at, shape in enumerate(found):
        for path in shape.paths[:: max(1, len(shape.paths) // _HEADERS)]:
            try:
                header: Any = read_header(folder / path) if is_dicom(folder / path) else {}
            except MedglipError:
                continue
            kind = str(header.get("Modality") or "")
            if kind == "SEG":
                names = (str(item.get("SegmentLabel", "")) for item in header.get("SegmentSequence") or ())
                labels.setdefault(kind, set()).update(names)
            elif kind == "RTSTRUCT":
                names = (str(item.get("ROIName", "")) for item in header.get("StructureSetROISequence") or ())
                labels.setdefault(kind, set()).update(names)
            elif kind in MODALITY_OF:
                images[at] = shape
                modalities.append(MODALITY_OF[kind])
                placed = placed or _is_placed(folder / path, header)
                for keyword, values in ids.items():
                    values.add(str(header.get(keyword, "")))
    common = max(sorted(set(modalities)), key=modalities.count) if modalities else None
    named = {kind: tuple(sorted(names - {""})) for kind, names in labels.items()}
    return Scans(tuple(images.values()), common, named, ids, placed)


def _is_placed(path: Path, header: Any) -> bool:
    """Whether a header says where in the patient a slice lies."""
    try:
        return bool(frames_of(path, header))
    except MedglipError:
        return False


def series_pattern(shape: Shape) -> str:
    """The files of a series: any file of a folder, one folder a series."""
    folder = [re.sub(r"\{(kind|split)\b", "{patient", name) for name in levels(shape.paths)]
    return "/".join([*folder, f"*{shape.ending}"])


def of_objects(scans: Scans) -> Guess | None:
    """SEG or RTSTRUCT objects with their series, where the folder holds some; files are told apart by content."""
    for kind, converter, role, image in (
        ("SEG", "dicom_seg", "seg", "image"),
        ("RTSTRUCT", "dicom_rtstruct", "contours", "series"),
    ):
        if kind in scans.labels:
            doubts: tuple[str, ...] = (
                () if scans.images else (f"files: the {kind} objects are here, the images that they mark are not",)
            )
            doubts += (
                ("a second part: the folder holds RTSTRUCTs, too",) if kind == "SEG" and "RTSTRUCT" in scans.labels else ()
            )
            files = {role: "**/*", image: "**/*"}
            return Guess(converter, files, {}, scans.labels[kind], scans.modality, doubts)
    return None


def of_masks(folder: Path, scans: Scans, marks: Shape) -> Guess:
    """A series with masks as image files, one a slice."""
    series = scans.images[0]
    words = words_of(series.paths)
    path = "/".join([*levels(series.paths), f"{{slice}}{series.ending}"])
    if "{patient}" in path and "{kind}" in path:
        path, words = path.replace("{kind}", "{series}"), {"series" if k == "kind" else k: v for k, v in words.items()}
    names = [re.sub(r"\{other(_[a-h])?\}", "{label}", name) for name in levels(marks.paths, words)]
    by_name = {stem_of(one) for one in marks.paths} & {stem_of(one) for one in series.paths}
    files = {"series": path, "mask": "/".join([*names, f"{'{slice}' if by_name else '*'}{marks.ending}"])}
    options = {} if by_name else {"match": "order"}
    doubts: tuple[str, ...] = () if by_name else ("match: no mask has the name of a slice; is their order the same?",)
    if "{label}" in names:
        at = names.index("{label}")
        return Guess("dicom_masks", files, options, tuple(sorted({one.split("/")[at] for one in marks.paths})),
                     scans.modality, doubts)  # fmt: skip
    rasters = not holds_dicom(folder, marks)
    kind, values, more = mask_kind(folder, marks) if rasters else ("", (), ("labels: the values of the masks are not known",))
    if kind == "indexed" and len(values) > 1:
        return Guess("dicom_masks", files, options, values, scans.modality, doubts + more)
    return Guess("dicom_masks", files, options | {"label": OBJECT}, (OBJECT,), scans.modality, doubts + more)


def alone(scans: Scans) -> Guess:
    """Images without any mark: volumes where they have a place in the patient, else pictures."""
    doubts: tuple[str, ...] = ("marks: no file marks the images, which are converted without regions",)
    if scans.modality in _IN_3D and scans.placed:
        return Guess("volumes", {"series": "**/*"}, {}, (), scans.modality, doubts)
    shape = scans.images[0]
    pattern = shape.pattern if len(scans.images) == 1 and "{case}" in shape.pattern else "**/*"
    return Guess("dicom_images", {"image": pattern or TODO}, {}, (), scans.modality, doubts)
