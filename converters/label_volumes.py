"""Volumes with one label volume: NIfTI, MGH, NRRD, MetaImage or a DICOM series, and the integer of each voxel's label.

Roles::

    image = "{case}.nii.gz"          # a volume file; or, instead,
    series = "{case}/dicom/*"        # the files of a DICOM series: one folder a case
    labels = "{case}_seg.nii.gz"     # required: integers on the image's grid

Options: those of ``medglip.curate.volumes``, and ``label_index``: which volume of a label file of four dimensions.

``[part.labels]`` names every integer ("1" = "liver"); 0 is background unless it is named. An integer without a name
refuses the case: its map is of another version, and then no other name can be trusted. The side is in the label, never
taken from the place.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.ndimage import find_objects

from medglip.curate.cases import Case, Refused
from medglip.curate.source import Part
from medglip.curate.volumes import OPTIONS as VOLUME_OPTIONS
from medglip.curate.volumes import Structure, pictures_of_volume, structure_of, volume_cases, volume_of
from medglip.imaging.nifti import read_labels
from medglip.imaging.volume import GridError, on_grid_of
from medglip.records import Picture, Reject, VolumeRecord

ROLES = ("image", "series", "labels")
OPTIONS = (*VOLUME_OPTIONS, "label_index")


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
    """What each integer marks that occurs and is not skipped."""
    lowest = int(voxels.min())
    if lowest < 0:  # find_objects passes over them
        part.named(str(lowest), f"{file}, {np.count_nonzero(voxels == lowest)} voxels")
    if "0" in part.labels and (background := part.labels["0"]):
        yield structure_of(background, voxels == 0)
    for value, box in enumerate(find_objects(voxels), 1):
        if box is None:
            continue
        mask = voxels[box] == value
        if named := part.named(str(value), f"{file}, {np.count_nonzero(mask)} voxels"):
            yield structure_of(named, mask, [edge.start for edge in box], voxels.shape)
