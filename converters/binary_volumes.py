"""Volumes with one binary mask file a class, as TotalSegmentator writes them.

Roles::

    image = "{case}/ct.nii.gz"                         # a volume file; or, instead,
    series = "{case}/dicom/*"                          # the files of a DICOM series: one folder a case
    mask = "{case}/segmentations/{label}.nii.gz"       # required: 0 outside, one other value inside
    about = "meta.csv"                                 # a table with a row a case; see medglip/curate/volume_tables.py

Options: those of ``medglip.curate.volumes``, those of the role ``about``, and

- ``label``: the class of all masks, where their names do not say it.
- ``derived``: a table of label = raw labels. Their union is a structure of its own beside them: "left lung" =
  ["lung_upper_lobe_left", "lung_lower_lobe_left"]. It is made where all their masks can be used, and where no mask
  has the label already.

The raw label is the file's ``{label}``. A mask file says that its class was searched for in this volume: an empty one
is a negative, a missing one says nothing. Masks may overlap. A mask that cannot be used is rejected, the others are
converted. They are read one after another, and only the bits inside their boxes are kept.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from medglip.curate.cases import Case, Refused
from medglip.curate.layout import compiled
from medglip.curate.source import Derived, Part
from medglip.curate.volume_tables import ABOUT_OPTIONS, described_volumes
from medglip.curate.volumes import OPTIONS as VOLUME_OPTIONS
from medglip.curate.volumes import Structure, pictures_of_volume, structure_of, volume_cases, volume_of
from medglip.errors import InputError, MedglipError, SourceError
from medglip.imaging.nifti import read_labels
from medglip.imaging.volume import GridError, Volume, on_grid_of
from medglip.records import Picture, Reject, VolumeRecord, label_tree

ROLES = ("image", "series", "mask", "about")
OPTIONS = (*VOLUME_OPTIONS, *ABOUT_OPTIONS, "label", "derived")


def cases(part: Part, folder: Path) -> Iterator[Case | Reject]:
    """One case an image volume."""
    yield from described_volumes(part, volume_cases(part, folder))


def convert(part: Part, case: Case) -> Iterator[Picture | VolumeRecord | Reject]:
    """The planes of the volume with a region for each class, and the volume."""
    masks = case.files.get("mask", ())
    if not masks:
        raise Refused("unlabelled", f"{case.key!r} has no mask; add them. Without one it is no negative either.")
    volume, file = volume_of(part, case)
    structures: list[Structure] = []
    parts: dict[str, list[Structure]] = {}  # by raw label, with those that are skipped on their own
    marked: set[str] = set()
    for mask_file in masks:
        raw = _raw_label(part, mask_file)
        try:
            structure, alone = _structure(part, case, volume, mask_file, raw), bool(part.named(raw, mask_file))
            if structure and alone and structure.named.concept in marked and not label_tree()[structure.named.label].countable:
                raise Refused("duplicate_label", f"{mask_file!r} marks {structure.named.concept!r} a second time.")
        except (GridError, Refused, SourceError, InputError) as error:
            yield Reject(part.source, mask_file, _reason(error), str(error), case.key)
        else:
            if structure:
                parts.setdefault(raw, []).append(structure)
            if structure and alone:
                structures.append(structure)
                marked.add(structure.named.concept)
    made = [one for one in part.derived if one.named.concept not in marked and all(raw in parts for raw in one.raw)]
    structures += [_union(one, parts, volume.shape_kji) for one in made]
    if not structures:
        detail = f"None of the {len(masks)} masks of {case.key!r} can be used; see their rejects."
        yield Reject(part.source, file, "unlabelled", detail, case.key)
        return
    searched = _searched(part, marked.union(one.named.concept for one in made))
    yield from pictures_of_volume(part, case, volume, structures, file=file, searched=searched)


def _reason(error: MedglipError) -> str:
    """The short code for what is wrong with a mask."""
    if isinstance(error, GridError | Refused):
        return error.reason
    return "unknown_label" if isinstance(error, SourceError) else "unreadable_file"


def _raw_label(part: Part, mask_file: str) -> str:
    """The raw label of a mask file."""
    match = compiled(part.files["mask"]).fullmatch(mask_file)
    named = match["label"] if match and "label" in match.groupdict() else Path(mask_file).stem
    return str(part.option("label") or named)


def _searched(part: Part, found: set[str]) -> list[str]:
    """Concepts that were searched for: those found, and what the source always marks but unions that could not be made."""
    return sorted(found.union(set(part.exhaustive) - {one.named.concept for one in part.derived}))


def _union(derived: Derived, parts: dict[str, list[Structure]], shape_kji: tuple[int, int, int]) -> Structure:
    """The structure of all parts of a derived label."""
    whole = np.zeros(shape_kji, dtype=bool)
    for structure in (one for raw in derived.raw for one in parts[raw]):
        if structure.box_kji:
            k0, j0, i0, k1, j1, i1 = structure.box_kji
            whole[k0:k1, j0:j1, i0:i1] |= structure.mask
    return structure_of(derived.named, whole)


def _structure(part: Part, case: Case, volume: Volume, mask_file: str, raw: str) -> Structure | None:
    """What one mask file marks; None where the source skips its class and derives nothing of it."""
    named = part.named(raw, mask_file) or next((one.named for one in part.derived if raw in one.raw), None)
    if named is None:
        return None
    voxels, _ = on_grid_of(volume, read_labels(case.path(mask_file)), mask_file)
    inside = np.unique(voxels[voxels != 0])
    if inside.size > 1:
        raise Refused(
            "not_binary",
            f"{mask_file!r} holds the values {inside[:4].tolist()}; a binary mask holds 0 and one other;"
            " read it with the converter label_volumes.",
        )
    return structure_of(named, voxels != 0)
