"""DICOM RTSTRUCT contours with the CT, MR or PET series that they were drawn on.

Roles::

    contours = "{case}/rt/*"      # required: files among which the RTSTRUCTs are; others are passed over
    series = "{case}/ct/*"        # required: files among which the images are; may be the same pattern

Options: those of ``medglip.curate.volumes``.

Files are told apart by content. Series and RTSTRUCTs find each other by the referenced series, else the referenced
instances, else the frame of reference. A ROI's label is that of ``[part.labels]`` for its name, whatever its case and
separators; with ``labels_by_name``, else the tree's; else either without a number at the end ("GTV-1").

A ROI without contours is a label without a region: absent where the source is ``exhaustive`` for it, and only there, for
planning systems list ROIs that nobody drew. A label counts as searched for only where its contours tell: not if one of
its ROIs could not be placed, is not closed, or leaves out slices between its first and its last. Beside a ROI whose name
is not known, none does: it may be any of them under another name; map it, or skip it in the table.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from medglip.curate.cases import Case, Refused
from medglip.curate.referring import Referring, referring_cases
from medglip.curate.source import Named, Part
from medglip.curate.volumes import OPTIONS as VOLUME_OPTIONS
from medglip.curate.volumes import Structure, dicom_volume, pictures_of_volume, structure_of
from medglip.errors import InputError, SourceError
from medglip.imaging.contours import SKIPPED, Drawn, Roi, mask_of_roi, read_contours, references_of
from medglip.imaging.series import series_in
from medglip.imaging.volume import GridError, Volume
from medglip.records import Picture, Reject, VolumeRecord, label_tree
from medglip.records.spelling import words_of

ROLES = ("contours", "series")
OPTIONS = VOLUME_OPTIONS
# A number at the end of a ROI's name counts it: GTV-1, GTV2, node 03. Longer ones are doses, shorter names are vertebrae.
_COUNTED = re.compile(r"(.{3,}?)[\s_-]*\d{1,2}")
# Contours passed over for these reasons may hide some of the label.
_HIDING = ("not_closed", "broken_points", "across_slices")


def cases(part: Part, folder: Path) -> Iterator[Case | Reject]:
    """One case an image series of the part's modality, with the RTSTRUCTs that refer to it."""
    yield from referring_cases(part, folder, Referring("RTSTRUCT", "contours", "series", references_of))


def convert(part: Part, case: Case) -> Iterator[Picture | VolumeRecord | Reject]:
    """The planes of the series with the regions of its ROIs, and the volume."""
    found = series_in(case.path(path) for path in case.files["series"])
    if len(found) != 1:
        raise Refused("ambiguous_series", f"The files of {case.key!r} make {len(found)} volumes; they must make one.")
    volume = dicom_volume(part, found[0])
    structures: list[Structure] = []
    skipped: Counter[str] = Counter()
    unsure: set[str] = set()
    named_all = True
    for path in case.files["contours"]:
        before = {structure.named.concept for structure in structures}
        for roi, named in _named_rois(part, case, path):
            if isinstance(named, Reject):
                named_all = False
                yield named
                continue
            item = _structure(part, case, volume, path, (roi, named), before)
            if isinstance(item, Reject):
                unsure |= {named.concept} - before
                yield item
                continue
            structure, drawn = item
            skipped += drawn.skipped
            if any(drawn.skipped[reason] for reason in _HIDING) or _has_gaps(structure):
                unsure.add(named.concept)
            structures.append(structure)
    if not structures:
        detail = f"No ROI of {case.key!r} can be used; see its rejects."
        yield Reject(part.source, case.key, "unlabelled", detail, case.key)
        return
    tree = label_tree()
    searched = [c for c in part.exhaustive if named_all and not any(tree.covers(c, u) or tree.covers(u, c) for u in unsure)]
    checks = {f"contours_{reason}": str(skipped[reason]) for reason in SKIPPED if skipped[reason]}
    file = case.files["series"][0]
    yield from pictures_of_volume(part, case, volume, structures, file=file, searched=searched, checks=checks)


def _named_rois(part: Part, case: Case, path: str) -> Iterator[tuple[Roi, Named | Reject]]:
    """The ROIs of a file with their labels, less those that the source skips; a Reject for what has none."""
    try:
        rois = read_contours(case.path(path))
    except InputError as error:
        yield Roi(0, "", None, ()), Reject(part.source, path, "unreadable_file", str(error), case.key)
        return
    for roi in rois:
        try:
            named = _named(part, roi, path)
        except SourceError as error:
            yield roi, Reject(part.source, path, "unknown_label", str(error), case.key)
            continue
        if named is not None:
            yield roi, named


def _structure(
    part: Part, case: Case, volume: Volume, path: str, roi_named: tuple[Roi, Named], before: set[str]
) -> tuple[Structure, Drawn] | Reject:
    """What a ROI marks, and how it was drawn; a Reject where it cannot be placed or another file has its label."""
    roi, named = roi_named
    if named.concept in before:
        detail = f"{path!r} draws {named.concept!r} again, after another RTSTRUCT of its series; keep one of them."
        return Reject(part.source, path, "duplicate_label", detail, case.key)
    try:
        drawn = mask_of_roi(roi, volume)
    except GridError as error:
        return Reject(part.source, path, error.reason, f"{path}: {error}", case.key)
    if not drawn.mask.any() and any(drawn.skipped[reason] for reason in _HIDING):
        why = "; ".join(f"{drawn.skipped[reason]} {SKIPPED[reason]}" for reason in SKIPPED if drawn.skipped[reason])
        detail = f"{path}: none of the {len(roi.contours)} contours of ROI {roi.name!r} can be filled: {why}."
        return Reject(part.source, path, "not_filled", detail, case.key)
    return structure_of(named, drawn.mask), drawn


def _has_gaps(structure: Structure) -> bool:
    """Whether slices between the first and the last of an organ are empty: contours on every other slice."""
    if structure.box_kji is None or label_tree()[structure.named.label].countable:
        return False
    return not bool(np.all(structure.profiles[0][structure.box_kji[0] : structure.box_kji[3]]))


def _named(part: Part, roi: Roi, path: str) -> Named | None:
    """The label of a ROI; None where the source skips it.

    Raises:
        SourceError: neither the part's table nor, with ``labels_by_name``, the tree knows it.
    """
    table = {tuple(words_of(raw)): named for raw, named in reversed(part.labels.items())}
    counted = _COUNTED.fullmatch(roi.name)
    for name in (roi.name, *([counted[1]] if counted else [])):
        if name in part.labels:
            return part.labels[name]
        if (key := tuple(words_of(name))) in table:
            return table[key]
        if part.by_name and (found := _in_tree(name)):
            return found
    return part.named(roi.name, f"{path}, ROI {roi.number} {roi.name!r}")


def _in_tree(name: str) -> Named | None:
    try:
        return Named(*label_tree().resolve(name))
    except SourceError:
        return None
