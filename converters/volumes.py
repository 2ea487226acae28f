"""CT, MR and PET volumes that nobody marked: DICOM series of any folders, or volume files. Images without regions.

Roles::

    series = "**/*"                  # files among which DICOM series are; others are passed over; or, instead,
    image = "{case}.nii.gz"          # a NIfTI, MGH, NRRD or MetaImage file a case
    about = "meta.csv"               # a table with a row a case; see medglip/curate/volume_tables.py

Files of the role ``series`` are told apart by content: each DICOM series of the part's modality is a case, wherever its files
lie, and each volume of a series that holds several (echoes, b-values, times, directions). The names ``patientid``, ``study``
and ``series`` are the header's ids, for templates, as are the names of a pattern that are the same for all its files. Objects
without pixels, images of another modality, and images that do not say where in the patient they lie (``no_place``: clips,
projections; the converter ``dicom_images`` takes them) are rejected. Two files of one SOP instance are one image: one
that can be read is kept, the other is rejected. A series of one slice is one image.

Nothing is known to be absent from these images, so ``exhaustive`` is not allowed, and there are no labels. They serve texts,
exploration, and pseudo-labels.

Options: those of the role ``about``, of ``medglip.curate.volumes`` but ``empty_slices``, and

- ``max_slices``: planes of each direction, spread evenly over those that show more than one value; all of these by default;
- ``index``: which volume of a file of four dimensions, or of a series that holds several at the same places: 0 is the first.
  By default such a file is rejected, and such a series gives all of them;
- ``other_modality``: ``reject`` (default), or ``ignore`` where another part of the source takes them;
- ``without_place``: ``reject`` (default), or ``ignore`` where another part takes the images that do not say where they lie;
- ``unit``: what the numbers of a volume file are where it cannot say it: ``"SUVbw"``, ``"HU"`` or ``"au"``;
- ``texts``: texts to make, as of ``medglip.curate.tables``, for example ``[{ kind = "report", text = "{report}" }]``.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator
from dataclasses import replace
from pathlib import Path

from medglip.curate.cases import Case, Refused, joined
from medglip.curate.headers import first_that_decodes, ids_of, image_header, says_dicom
from medglip.curate.layout import find, listed
from medglip.curate.source import Part
from medglip.curate.tables import texts_of
from medglip.curate.volume_tables import ABOUT_OPTIONS, described_volumes
from medglip.curate.volumes import OPTIONS as VOLUME_OPTIONS
from medglip.curate.volumes import dicom_volume, pictures_of_volume
from medglip.errors import InputError, SourceError
from medglip.imaging.nifti import read_volume
from medglip.imaging.series import Frame, Series, frames_of, series_in, series_of
from medglip.imaging.volume import Volume
from medglip.records import Picture, Reject, VolumeRecord

ROLES = ("series", "image", "about")
OPTIONS = (*(name for name in VOLUME_OPTIONS if name != "empty_slices"), *ABOUT_OPTIONS, "other_modality", "without_place",
           "unit", "texts")  # fmt: skip

_UNITS = ("HU", "SUVbw", "au")
# Which of the volumes that the files of a case make up it is.
_AT = "volume_at"


def cases(part: Part, folder: Path) -> Iterator[Case | Reject]:
    """One case a volume.

    Raises:
        SourceError: both roles are named, or none, or the part says that labels are marked wherever they are.
    """
    if ("series" in part.files) == ("image" in part.files):
        raise SourceError(
            f"datasets/{part.source}.toml: {part.name!r} has the roles {sorted(part.files)}; name series or image."
        )
    if part.exhaustive:
        raise SourceError(f"datasets/{part.source}.toml: {part.name!r} marks nothing; take its exhaustive out.")
    found = _series_cases(part, folder) if "series" in part.files else joined(part, folder)
    yield from described_volumes(part, found)


def convert(part: Part, case: Case) -> Iterator[Picture | VolumeRecord]:
    """Planes of the volume, and the volume."""
    file = case.files["series"][0] if "series" in case.files else case.one("image")
    texts = texts_of(part, case)
    for item in pictures_of_volume(part, case, _volume(part, case, file), None, file=file, searched=()):
        if isinstance(item, Picture):
            yield item._replace(record=replace(item.record, texts=item.record.texts + texts))
        else:
            yield item


def _volume(part: Part, case: Case, file: str) -> Volume:
    if "series" in case.files:
        found = series_in(case.path(path) for path in case.files["series"])
        at = int(case.fields[_AT])
        if at >= len(found):
            raise Refused("ambiguous_series", f"The files of {case.key!r} make other volumes than before; do not change them.")
        return dicom_volume(part, found[at])
    volume = read_volume(case.path(file), modality=part.modality, index=part.option("index"))
    unit = part.option("unit", volume.unit)
    if unit != volume.unit and unit not in _UNITS:
        raise SourceError(f"datasets/{part.source}.toml: option unit is {unit!r}; allowed: {', '.join(_UNITS)}.")
    return replace(volume, unit=unit)


def _series_cases(part: Part, folder: Path) -> Iterator[Case | Reject]:
    """The volumes of all DICOM series among the files, and Rejects for DICOM files that belong to none."""
    paths = listed(folder)
    shared = {role: tuple(one.path for one in find(pattern, paths)) for role, pattern in part.files.items() if role != "series"}
    fields: dict[str, dict[str, str]] = {}
    frames: dict[Path, list[Frame]] = {}
    for entry in find(part.files["series"], paths):
        if not says_dicom(folder / entry.path):
            continue
        header = image_header(part, folder, entry.path)
        if header is None or isinstance(header, Reject):
            yield from [header] if header else []
            continue
        try:
            placed = frames_of(folder / entry.path, header)
        except InputError as error:
            yield Reject(part.source, entry.path, "unreadable_file", str(error))
            continue
        if placed:
            frames[folder / entry.path] = placed
            fields[entry.path] = ids_of(header) | entry.fields
        elif part.option("without_place") != "ignore":
            sentence = f"DICOM file {entry.path!r} does not say where in the patient its slices lie, so it is part of no volume"
            yield Reject(part.source, entry.path, "no_place", f"{sentence}; the converter dicom_images takes it as pictures.")
    copies: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(frames):
        copies[fields[path.relative_to(folder).as_posix()]["sop"] or str(path)].append(path)
    kept = sorted(first_that_decodes(some) if len(some) > 1 else some[0] for some in copies.values())
    found = series_of(frame for path in kept for frame in frames[path])
    yield from _repeated(part, folder, frames, found)
    for key, files, at in _volumes(part, folder, frames, found):
        first = fields[files[0]]
        common = {name: text for name, text in first.items() if all(fields[file].get(name) == text for file in files)}
        yield Case(key, folder, {"series": files, **shared}, {**common, _AT: str(at)})


def _repeated(part: Part, folder: Path, frames: dict[Path, list[Frame]], found: list[Series]) -> Iterator[Reject]:
    """A Reject for each file of which no frame is used, because another one has its SOP instance."""
    kept = {frame.sop_uid: frame.path for series in found for frame in series.frames}
    used = set(kept.values())
    for path in sorted(frames.keys() - used):
        file, other = (one.relative_to(folder).as_posix() for one in (path, kept[frames[path][0].sop_uid]))
        sentence = f"{file!r} and {other!r} have one SOPInstanceUID, so they are one DICOM object; remove one."
        yield Reject(part.source, file, "duplicate_image", sentence)


def _volumes(
    part: Part, folder: Path, frames: dict[Path, list[Frame]], found: list[Series]
) -> Iterator[tuple[str, tuple[str, ...], int]]:
    """Key and files of each volume that is taken, and which of the volumes that these files make up it is."""
    apart: Counter[Hashable] = Counter()
    taken: list[tuple[tuple[Path, ...], Series]] = []
    for series in found:
        first = series.frames[0]
        places = (first.group, series.apart and series.apart[0], tuple(first.orientation.round(3)), len(series.frames))
        if part.option("index") in (None, apart[places]):
            taken.append((tuple(sorted({frame.path for frame in series.frames})), series))
        apart[places] += series.apart is not None
    begun = Counter(paths[0] for paths, _ in taken)
    number: Counter[Path] = Counter()
    made: dict[tuple[Path, ...], list[tuple[str, ...]]] = {}  # the frames of each volume that some files make up
    for paths, series in taken:
        if paths not in made:
            made[paths] = [_uids(one) for one in series_of(frame for path in paths for frame in frames[path])]
        files = tuple(path.relative_to(folder).as_posix() for path in paths)
        key = files[0] if begun[paths[0]] == 1 else f"{files[0]}#{number[paths[0]]}"
        number[paths[0]] += 1
        yield key, files, made[paths].index(_uids(series))


def _uids(series: Series) -> tuple[str, ...]:
    return tuple(frame.sop_uid for frame in series.frames)
