"""A DICOM series with masks as image files (raster or DICOM), one a slice: binary ones in a folder a class, or grey values.

Roles::

    series = "{case}/PATIENT_DICOM/{slice}"             # required: the files of a series, one folder a case
    mask = "{case}/MASKS_DICOM/{label}/{slice}"         # required: one file a slice (of a class)
    about = "meta.csv"                                  # a table with a row a case; see medglip/curate/volume_tables.py

Options: those of ``medglip.curate.volumes``, of the role ``about``, and

- ``match``: ``name`` (default): mask and slice have one name but for the ending; ``order``: the n-th mask by name is that
  of the n-th file by name. Numbers in names count as numbers: ``image_10`` comes after ``image_9``.
- ``label``: the class of all masks, where they are binary and neither folder nor name says it.
- ``tolerance``: how far a grey may lie from one that is named and still be it; default 0.
- ``one_series``: ``true`` where every file of the series has study, series and frame of reference of its own, as careless
  de-identification leaves them: the files of a folder are taken for one series all the same.
- ``derived``, ``apart``, ``sides``: see medglip/curate/label_map.py; for grey masks.

A binary mask is not 0 inside; its raw label is ``{label}`` of its pattern, and each folder is a structure of its own. A
folder with masks for some slices only is rejected, the others are converted; they may overlap. Without ``{label}``, the
greys are the raw labels ("63" = "liver"), and then every slice needs its mask. 0 is background.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from medglip.curate.cases import Case, Refused
from medglip.curate.label_map import OPTIONS as LABEL_OPTIONS
from medglip.curate.label_map import structures_of_labels
from medglip.curate.layout import find, without_ending
from medglip.curate.marks import reason_of
from medglip.curate.source import Part
from medglip.curate.volume_tables import ABOUT_OPTIONS, described_volumes
from medglip.curate.volumes import OPTIONS as VOLUME_OPTIONS
from medglip.curate.volumes import Structure, dicom_volume, pictures_of_volume, structure_of, volume_cases
from medglip.errors import MedglipError, SourceError
from medglip.imaging.dicom import is_dicom, read_dicom, read_header
from medglip.imaging.raster import read_mask_raster
from medglip.imaging.series import Series, frames_of, series_of
from medglip.imaging.volume import Volume
from medglip.records import Picture, Reject, VolumeRecord

ROLES = ("series", "mask", "about")
OPTIONS = (*VOLUME_OPTIONS, *LABEL_OPTIONS, *ABOUT_OPTIONS, "match", "label", "tolerance", "one_series")

_MATCHES = ("name", "order")


def cases(part: Part, folder: Path) -> Iterator[Case | Reject]:
    """One case a folder of DICOM files, with the masks whose names agree."""
    yield from described_volumes(part, volume_cases(part, folder))


def convert(part: Part, case: Case) -> Iterator[Picture | VolumeRecord | Reject]:
    """The planes of the series with the regions of its masks, and the volume."""
    classes = _classes(part, case)
    if not classes:
        raise Refused("unlabelled", f"{case.key!r} has no mask; add them. Without one it is no negative either.")
    series = _series(part, case)
    volume = dicom_volume(part, series)
    order = _slices(part, case, series, volume)
    file = case.files["series"][0]
    searched: tuple[str, ...] = part.exhaustive
    structures: list[Structure] = []
    for (raw, _), files in classes.items():
        if raw is None:
            greys = _named_greys(part, _filled(files, part, case, volume, order, "the greys"))
            structures += structures_of_labels(part, volume, greys, files[0])
        else:
            try:
                structures += _structure(part, case, volume, order, raw, files)
            except MedglipError as error:
                yield Reject(part.source, files[0], reason_of(error), str(error), case.key)
                searched = ()  # what was refused may be any label
    if not structures and not searched:
        detail = f"None of the {len(classes)} classes of {case.key!r} can be used; see their rejects."
        yield Reject(part.source, file, "unlabelled", detail, case.key)
        return
    searched = tuple(sorted({*searched, *(one.named.concept for one in structures)}))
    yield from pictures_of_volume(part, case, volume, structures, file=file, searched=searched)


def _classes(part: Part, case: Case) -> dict[tuple[str | None, str], list[str]]:
    """The mask files of each raw label and folder; those of the label None are grey."""
    found: dict[tuple[str | None, str], list[str]] = defaultdict(list)
    for file in case.files.get("mask", ()):
        fields = next(find(part.files["mask"], (file,))).fields
        found[part.option("label") or fields.get("label"), str(PurePosixPath(file).parent)].append(file)
    return found


def _series(part: Part, case: Case) -> Series:
    """The one series that the files of a case make up."""
    paths = sorted(case.path(path) for path in case.files["series"])
    frames = [frame for path in paths for frame in frames_of(path, read_header(path))]
    if frames and part.option("one_series"):
        first = frames[0].group
        same = [frame.group._replace(study=first.study, series=first.series, reference=first.reference) for frame in frames]
        frames = [replace(frame, group=group) for frame, group in zip(frames, same, strict=True)]
    found = series_of(frames)
    if len(found) != 1:
        raise Refused(
            "ambiguous_series",
            f"The {len(paths)} files of {case.key!r} make {len(found)} volumes; allowed: one. Where each file has a"
            " SeriesInstanceUID of its own, say one_series = true.",
        )
    return found[0]


def _slices(part: Part, case: Case, series: Series, volume: Volume) -> dict[str, int]:
    """Which slice of the volume each file of the series is, in the order of the files' names."""
    match = part.option("match", "name")
    if match not in _MATCHES:
        raise SourceError(f"datasets/{part.source}.toml: option match is {match!r}; allowed: {', '.join(_MATCHES)}.")
    at = {uid: index for index, uid in enumerate(volume.sop_uids)}
    slices = {frame.path: at[frame.sop_uid] for frame in series.frames if frame.sop_uid in at}
    files = sorted(case.files["series"], key=_natural)
    return {file: slices[case.path(file)] for file in files if case.path(file) in slices}


def _filled(files: list[str], part: Part, case: Case, volume: Volume, order: dict[str, int], what: str) -> np.ndarray:
    """The masks of one class, or all grey ones, as (K, J, I) integers.

    Raises:
        Refused: a slice has no mask or two, a mask has no slice, colours, or another size.
    """
    if part.option("match", "name") == "order":
        pairs = list(zip(sorted(files, key=_natural), order.values(), strict=False))
        fits = len(files) == len(order)
    else:
        by_name = {_stem(file): index for file, index in order.items()}
        pairs = [(file, by_name[_stem(file)]) for file in files if _stem(file) in by_name]
        fits = len(pairs) == len(files) and sorted(index for _, index in pairs) == sorted(order.values())
    if not fits:
        raise Refused(
            "missing_mask",
            f"{len(files)} masks of {what} in {case.key!r} fit {len({index for _, index in pairs})} of {len(order)} slices;"
            " every slice needs one. Add what is missing.",
        )
    voxels = np.zeros(volume.shape_kji, np.int32)
    for file, index in pairs:
        path = case.path(file)
        mask = read_dicom(path).frames[0] if is_dicom(path) else read_mask_raster(path)
        if mask.shape != volume.shape_kji[1:]:
            size = " x ".join(str(length) for length in mask.shape)
            raise Refused("size_mismatch", f"Mask {file!r} is {size}, its slice {volume.shape_kji[1:]} rows and columns.")
        voxels[index] = mask
    return voxels


def _structure(
    part: Part, case: Case, volume: Volume, order: dict[str, int], raw: str, files: list[str]
) -> Iterator[Structure]:
    """What the binary masks of one class mark; nothing where the source skips it."""
    if named := part.named(raw, files[0]):
        yield structure_of(named, _filled(files, part, case, volume, order, repr(raw)) != 0)


def _named_greys(part: Part, greys: np.ndarray) -> np.ndarray:
    """Greys near to one that is named become it."""
    tolerance = int(part.option("tolerance", 0))
    known = np.array(sorted({0, *(int(raw) for raw in part.labels)}))
    result = greys.copy()
    for value in np.setdiff1d(np.unique(greys), known):
        nearest = known[np.abs(known - value).argmin()]
        if abs(int(nearest) - int(value)) <= tolerance:
            result[greys == value] = nearest
    return result


def _stem(file: str) -> str:
    return without_ending(PurePosixPath(file).name).casefold()


def _natural(file: str) -> list[tuple[int, str]]:
    """Sorts numbers in names as numbers."""
    return [(int(word), "") if word.isdigit() else (-1, word) for word in re.split(r"(\d+)", _stem(file))]
