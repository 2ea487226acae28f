"""Volumes with one label volume: NIfTI, MGH, NRRD, MetaImage or a DICOM series, and the integer of each voxel's label.

Roles::

    image = "{case}.nii.gz"          # a volume file; or, instead,
    series = "{case}/dicom/*"        # the files of a DICOM series: one folder a case
    labels = "{case}_seg.nii.gz"     # required: integers on the image's grid

Options: those of ``medglip.curate.volumes``, and

- ``label_index``: which volume of a label file of four dimensions.
- ``derived``: a table of label = raw labels. Their union is a structure of its own beside them: "brain tumor" =
  ["1", "2", "4"] is the whole tumor. An organ that the source draws without its tumors is derived from both, and
  the raw label of what is left over is "skip" in ``[part.labels]``.
- ``apart``: labels whose connected parts are objects of their own although the label is not countable: paired organs
  in a source that does not tell the sides.

``[part.labels]`` names every integer ("1" = "liver"); 0 is background unless it is named. An integer without a name
refuses the case: its map is of another version, and then no other name can be trusted. The side is in the label, never
taken from the place.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.ndimage import find_objects

from medglip.curate.cases import SPECKLE, Case, Refused
from medglip.curate.source import Named, Part
from medglip.curate.volumes import OPTIONS as VOLUME_OPTIONS
from medglip.curate.volumes import Structure, pictures_of_volume, structure_of, volume_cases, volume_of
from medglip.errors import SourceError
from medglip.imaging.components import components_of
from medglip.imaging.nifti import read_labels
from medglip.imaging.volume import GridError, on_grid_of
from medglip.records import Picture, Reject, VolumeRecord, label_tree

ROLES = ("image", "series", "labels")
OPTIONS = (*VOLUME_OPTIONS, "label_index", "derived", "apart")


def cases(part: Part, folder: Path) -> Iterator[Case | Reject]:
    """One case an image volume."""
    yield from volume_cases(part, folder)


def convert(part: Part, case: Case) -> Iterator[Picture | VolumeRecord | Reject]:
    """The planes of the volume with a region for each label, and the volume."""
    if not case.files.get("labels"):
        raise Refused("unlabelled", f"{case.key!r} has no label volume; add it. Without one it is no negative either.")
    volume, file = volume_of(part, case)
    labels_file = case.one("labels")
    labels = read_labels(case.path(labels_file), index=part.option("label_index"))
    try:
        voxels, off = on_grid_of(volume, labels, labels_file)
    except GridError as error:
        raise Refused(error.reason, str(error)) from error
    structures = list(_structures(part, voxels, labels_file))
    checks = {"labels_off_by_voxels": f"{off:.2f}"} if off else {}
    yield from pictures_of_volume(part, case, volume, structures, file=file, searched=part.exhaustive, checks=checks)


def _structures(part: Part, voxels: np.ndarray, file: str) -> Iterator[Structure]:
    """What each integer marks that occurs and is not skipped, and then each union that the part derives of them."""
    apart = _apart(part)
    lowest = int(voxels.min())
    if lowest < 0:  # find_objects passes over them
        part.named(str(lowest), f"{file}, {np.count_nonzero(voxels == lowest)} voxels")
    if "0" in part.labels and (background := part.labels["0"]):
        yield structure_of(background, voxels == 0)
    boxes = {str(value): box for value, box in enumerate(find_objects(voxels), 1) if box is not None}
    for raw, box in boxes.items():
        mask = voxels[box] == int(raw)
        if named := part.named(raw, f"{file}, {np.count_nonzero(mask)} voxels"):
            yield from _objects(named, mask, box, voxels.shape, apart=named in apart)
    whole = tuple(slice(0, length) for length in voxels.shape)
    for derived in part.derived:
        found = [raw for raw in derived.raw if raw in boxes or (raw == "0" and lowest == 0)]
        if found:
            box = whole if "0" in found else _around([boxes[raw] for raw in found])
            mask = np.isin(voxels[box], [int(raw) for raw in found])
            yield from _objects(derived.named, mask, box, voxels.shape, apart=derived.named in apart)


def _objects(
    named: Named, mask: np.ndarray, box: tuple[slice, ...], shape_kji: tuple[int, ...], *, apart: bool
) -> Iterator[Structure]:
    """The structure of a mask in a box, or one for each of its connected parts but specks."""
    start = [edge.start for edge in box]
    if not apart:
        yield structure_of(named, mask, start, shape_kji)
        return
    numbers, found = components_of(mask)
    for component in found:
        if component.voxels > SPECKLE or component.number == 1:
            yield structure_of(named, numbers == component.number, start, shape_kji)


def _apart(part: Part) -> set[Named]:
    """The labels of the option ``apart``."""
    found = set()
    for text in part.option("apart", ()):
        named = Named(*label_tree().resolve(text))
        if named not in part.all_named:
            raise SourceError(
                f"datasets/{part.source}.toml: the option apart names {text!r}, which no label of {part.name!r} is;"
                f" allowed: {', '.join(named.concept for named in part.all_named)}."
            )
        found.add(named)
    return found


def _around(boxes: list[tuple[slice, ...]]) -> tuple[slice, ...]:
    """The box around boxes."""
    return tuple(slice(min(s.start for s in edges), max(s.stop for s in edges)) for edges in zip(*boxes, strict=True))
