"""DICOM Segmentation objects with the CT, MR or PET series that they refer to.

Roles::

    seg = "{case}/seg/*"          # required: files among which the SEG objects are; others are passed over
    image = "{case}/image/*"      # required: files among which the images are; may be the same pattern

Options: those of ``medglip.curate.volumes``.

Files are told apart by content. Series and SEG objects find each other by the referenced series, else the referenced
instances, else the frame of reference. All SEG objects of a series go into its pictures; they may overlap. A segment's
label is that of ``[part.labels]`` for its SegmentLabel; else that of its SNOMED CT codes; else the tree's for its
SegmentLabel or the meaning of its codes.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from medglip.curate.cases import Case, Refused
from medglip.curate.referring import Referring, referring_cases
from medglip.curate.source import Named, Part
from medglip.curate.volumes import OPTIONS as VOLUME_OPTIONS
from medglip.curate.volumes import Structure, dicom_volume, pictures_of_volume, structure_of
from medglip.errors import InputError, SourceError
from medglip.imaging.segmentation import Segment, masks_on, read_segmentation, references_of
from medglip.imaging.series import series_in
from medglip.imaging.volume import GridError, Volume
from medglip.records import Laterality, Picture, Reject, VolumeRecord, label_tree

ROLES = ("seg", "image")
OPTIONS = VOLUME_OPTIONS


def cases(part: Part, folder: Path) -> Iterator[Case | Reject]:
    """One case an image series of the part's modality, with the SEG objects that refer to it."""
    yield from referring_cases(part, folder, Referring("SEG", "seg", "image", references_of))


def convert(part: Part, case: Case) -> Iterator[Picture | VolumeRecord | Reject]:
    """The planes of the series with the regions of its segments, and the volume."""
    found = series_in(case.path(path) for path in case.files["image"])
    if len(found) != 1:
        raise Refused("ambiguous_series", f"The files of {case.key!r} make {len(found)} volumes; they must make one.")
    volume = dicom_volume(part, found[0])
    structures: list[Structure] = []
    refused: list[Reject] = []
    for path in case.files["seg"]:
        try:
            for item in _structures(part, case, volume, path):
                (structures if isinstance(item, Structure) else refused).append(item)  # type: ignore[arg-type]
        except GridError as error:
            refused.append(Reject(part.source, path, error.reason, str(error), case.key))
        except InputError as error:
            refused.append(Reject(part.source, path, "unreadable_file", str(error), case.key))
    yield from refused
    if not structures:
        detail = f"No segment of {case.key!r} can be used; see its rejects."
        yield Reject(part.source, case.key, "unlabelled", detail, case.key)
        return
    file = case.files["image"][0]
    searched = () if refused else part.exhaustive  # what was refused may be any label, so none is known to be absent
    yield from pictures_of_volume(part, case, volume, structures, file=file, searched=searched)


def _structures(part: Part, case: Case, volume: Volume, path: str) -> Iterator[Structure | Reject]:
    """What the segments of one SEG mark; a Reject for each whose label is not known."""
    segmentation = read_segmentation(case.path(path))
    named: dict[int, Named | None] = {}
    for segment in segmentation.segments:
        try:
            named[segment.number] = _named(part, segment, path)
        except SourceError as error:
            yield Reject(part.source, path, "unknown_label", str(error), case.key)
    for segment, mask in masks_on(segmentation, volume):
        if (label := named.get(segment.number)) is not None:
            yield structure_of(label, mask)


def _named(part: Part, segment: Segment, path: str) -> Named | None:
    """The label of a segment; None where the source skips it.

    Raises:
        SourceError: neither the part's table nor the tree knows it, or its codes and its name contradict each other.
    """
    if segment.label in part.labels:
        return part.labels[segment.label]
    tree = label_tree()
    by_name = _resolved(tree.resolve, segment.label)
    by_code = None
    if segment.kind and segment.kind[0] == "SCT":
        region = segment.region[1] if segment.region else ""
        modifier = segment.modifier[1] if segment.modifier else ""
        by_code = _resolved(tree.resolve_codes, segment.kind[1], region, modifier)
        if by_code is None and by_name is None and region:  # the kind without its place is still true
            by_code = _resolved(tree.resolve_codes, segment.kind[1], "", modifier)
    if by_code and by_name and by_code.label == by_name.label and by_code.laterality != by_name.laterality:
        if by_code.laterality and by_name.laterality:
            raise SourceError(f"{path}: segment {segment.number} {segment.label!r} is coded {by_code.laterality}.")
        return by_code if by_code.laterality else by_name
    found = by_code or by_name or (_resolved(tree.resolve, segment.kind[2]) if segment.kind else None)
    return found or part.named(segment.label, f"{path}, segment {segment.number}, code {segment.kind}")


def _resolved(resolve: Callable[..., tuple[str, Laterality]], *words: str) -> Named | None:
    try:
        return Named(*resolve(*words))
    except SourceError:
        return None
