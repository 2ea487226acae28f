"""Volumes with one binary mask file a class, as TotalSegmentator writes them.

Roles::

    image = "{case}/ct.nii.gz"                         # a volume file; or, instead,
    series = "{case}/dicom/*"                          # the files of a DICOM series: one folder a case
    mask = "{case}/segmentations/{label}.nii.gz"       # required: 0 outside, one other value inside

Options: those of ``medglip.curate.volumes``, and ``label``: the class of all masks, where their names do not say it.

The raw label is the file's ``{label}``. A mask file says that its class was searched for in this volume: an empty one
is a negative, a missing one says nothing. Masks may overlap. A mask that cannot be used is rejected, the others are
converted. They are read one after another, and only the bits inside their boxes are kept.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from medglip.curate.cases import Case, Refused
from medglip.curate.layout import compiled
from medglip.curate.source import Part
from medglip.curate.volumes import OPTIONS as VOLUME_OPTIONS
from medglip.curate.volumes import Structure, pictures_of_volume, structure_of, volume_cases, volume_of
from medglip.errors import InputError, SourceError
from medglip.imaging.nifti import read_labels
from medglip.imaging.volume import GridError, Volume, on_grid_of
from medglip.records import Picture, Reject, VolumeRecord, label_tree

ROLES = ("image", "series", "mask")
OPTIONS = (*VOLUME_OPTIONS, "label")


def cases(part: Part, folder: Path) -> Iterator[Case | Reject]:
    """One case an image volume."""
    yield from volume_cases(part, folder)


def convert(part: Part, case: Case) -> Iterator[Picture | VolumeRecord | Reject]:
    """The planes of the volume with a region for each class, and the volume."""
    masks = case.files.get("mask", ())
    if not masks:
        raise Refused("unlabelled", f"{case.key!r} has no mask; add them. Without one it is no negative either.")
    volume, file = volume_of(part, case)
    structures: list[Structure] = []
    marked: set[str] = set()
    for mask_file in masks:
        try:
            structure = _structure(part, case, volume, mask_file)
            if structure and structure.named.concept in marked and not label_tree()[structure.named.label].countable:
                raise Refused("duplicate_label", f"{mask_file!r} marks {structure.named.concept!r} a second time.")
        except (GridError, Refused) as error:
            yield Reject(part.source, mask_file, error.reason, str(error), case.key)
        except SourceError as error:
            yield Reject(part.source, mask_file, "unknown_label", str(error), case.key)
        except InputError as error:
            yield Reject(part.source, mask_file, "unreadable_file", str(error), case.key)
        else:
            if structure:
                structures.append(structure)
                marked.add(structure.named.concept)
    if not structures:
        detail = f"None of the {len(masks)} masks of {case.key!r} can be used; see their rejects."
        yield Reject(part.source, file, "unlabelled", detail, case.key)
        return
    searched = sorted(marked.union(part.exhaustive))
    yield from pictures_of_volume(part, case, volume, structures, file=file, searched=searched)


def _structure(part: Part, case: Case, volume: Volume, mask_file: str) -> Structure | None:
    """What one mask file marks; None where the source skips its class."""
    match = compiled(part.files["mask"]).fullmatch(mask_file)
    raw = part.option("label") or (match["label"] if match and "label" in match.groupdict() else Path(mask_file).stem)
    named = part.named(raw, mask_file)
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
