"""Volumes with one label volume: NIfTI, MGH, NRRD, MetaImage or a DICOM series, and the integer of each voxel's label.

Roles::

    image = "{case}.nii.gz"          # a volume file; or, instead,
    series = "{case}/dicom/*"        # the files of a DICOM series: one folder a case
    labels = "{case}_seg.nii.gz"     # required: integers on the image's grid
    about = "meta.csv"               # a table with a row a case; see medglip/curate/volume_tables.py
    codes = "info.csv"               # a table with a row an object, where the integers number the objects of a case; same

Options: those of ``medglip.curate.volumes``, of ``medglip.curate.volume_tables`` (tables, labelled frames of a file of
four dimensions), of ``medglip.curate.label_map`` (``derived``, ``apart``, ``sides``), and

- ``label_index``: which volume of a label file of four dimensions.
- ``unit``: what the image's numbers are where the file cannot say it: ``"SUVbw"``, ``"HU"`` or ``"au"``.
- ``oriented``: ``false`` where the file's axes are those of the scanner and not of the patient, as in eye scans: then
  planes are shown as they lie and no side is known.
- ``resample_labels``: ``"nearest"`` takes labels on another grid, each voxel of the image that of the nearest voxel of
  the labels; by default they are refused. Where the image reaches beyond them, nothing is known to be absent.

``[part.labels]`` names every integer ("1" = "liver"); 0 is background unless it is named. An integer without a name
refuses the case: its map is of another version, and then no other name can be trusted. The side is in the label, never
taken from the place but by ``sides``.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.ndimage import affine_transform

from medglip.curate.cases import Case, Refused
from medglip.curate.label_map import OPTIONS as LABEL_OPTIONS
from medglip.curate.label_map import structures_of_labels
from medglip.curate.lists import told
from medglip.curate.source import Part
from medglip.curate.volume_tables import ABOUT_OPTIONS, FRAME_OPTIONS, codes_of, described_volumes, framed, with_frame
from medglip.curate.volumes import OPTIONS as VOLUME_OPTIONS
from medglip.curate.volumes import pictures_of_volume, volume_cases, volume_of
from medglip.errors import SourceError
from medglip.imaging.nifti import read_labels
from medglip.imaging.volume import GridError, Volume, on_grid_of
from medglip.records import Picture, Reject, VolumeRecord

ROLES = ("image", "series", "labels", "about", "codes", "lists")
OPTIONS = (*VOLUME_OPTIONS, *LABEL_OPTIONS, *ABOUT_OPTIONS, *FRAME_OPTIONS, "list_key", "label_index", "unit", "oriented",
           "resample_labels", "codes")  # fmt: skip

_UNITS = ("HU", "SUVbw", "au")


def cases(part: Part, folder: Path) -> Iterator[Case | Reject]:
    """One case an image volume, or one a labelled frame of it."""
    yield from framed(part, told(part, described_volumes(part, volume_cases(part, folder))))


def convert(part: Part, case: Case) -> Iterator[Picture | VolumeRecord | Reject]:
    """The planes of the volume with a region for each label, and the volume."""
    if not case.files.get("labels"):
        raise Refused("unlabelled", f"{case.key!r} has no label volume; add it. Without one it is no negative either.")
    part = with_frame(part, case)
    volume, file = volume_of(part, case)
    volume = _as_told(part, volume)
    labels_file = case.one("labels")
    labels = read_labels(case.path(labels_file), index=part.option("label_index"))
    if part.option("oriented") is False:
        labels = replace(labels, affine_ijk_to_mm=None)
    voxels, checks = _on_grid(part, volume, labels, labels_file)
    if part.option("frames") and not voxels.any():
        raise Refused("unlabelled", f"Frame {case.fields['frame']} of {labels_file!r} has no label; it is no labelled frame.")
    structures = list(structures_of_labels(part, volume, voxels, labels_file, codes_of(part, case)))
    searched = () if "labels_cover" in checks else part.exhaustive
    yield from pictures_of_volume(part, case, volume, structures, file=file, searched=searched, checks=checks)


def _as_told(part: Part, volume: Volume) -> Volume:
    """The volume with what the source knows and its file does not say."""
    unit = part.option("unit", volume.unit)
    if unit != volume.unit and unit not in _UNITS:
        raise SourceError(f"datasets/{part.source}.toml: option unit is {unit!r}; allowed: {', '.join(_UNITS)}.")
    volume = replace(volume, unit=unit)
    if part.option("oriented") is not False:
        return volume
    flags = tuple(dict.fromkeys((*volume.flags, "orientation_unknown")))
    return replace(volume, affine_ijk_to_mm=None, flags=flags)


def _on_grid(part: Part, volume: Volume, labels: Volume, file: str) -> tuple[np.ndarray, dict[str, str]]:
    """Label voxels (K, J, I) on the image's grid, and what was found about theirs."""
    try:
        voxels, off = on_grid_of(volume, labels, file)
    except GridError as error:
        wanted = part.option("resample_labels")
        if wanted not in (None, "nearest"):
            raise SourceError(
                f"datasets/{part.source}.toml: option resample_labels is {wanted!r}; allowed: 'nearest'."
            ) from error
        if wanted is None or volume.affine_ijk_to_mm is None or labels.affine_ijk_to_mm is None:
            raise Refused(error.reason, str(error)) from error
        return _nearest(volume, labels, file)
    return voxels, {"labels_off_by_voxels": f"{off:.2f}"} if off else {}


def _nearest(volume: Volume, labels: Volume, file: str) -> tuple[np.ndarray, dict[str, str]]:
    """Labels (K, J, I) on the image's grid: of each voxel's centre, the label voxel that it lies in; and what was found."""
    to_labels = np.linalg.inv(np.asarray(labels.affine_ijk_to_mm)) @ np.asarray(volume.affine_ijk_to_mm)
    turned, shift = to_labels[:3, :3][::-1, ::-1], to_labels[2::-1, 3]  # of i, j, k; arrays are k, j, i
    voxels = affine_transform(labels.voxels, turned, shift, output_shape=volume.shape_kji, order=0, mode="grid-constant")
    if labels.voxels.any() and not voxels.any():
        raise Refused("geometry_mismatch", f"What {file!r} marks lies outside its image; give the labels of this image.")
    ends = np.meshgrid(*((0, length - 1) for length in volume.shape_kji))
    corners = np.stack(ends, axis=-1).reshape(-1, 3) @ turned.T + shift
    inside = np.abs(corners - (np.array(labels.shape_kji) - 1) / 2) <= np.array(labels.shape_kji) / 2 + 1e-3
    return voxels, {"labels_resampled": "nearest"} | ({} if inside.all() else {"labels_cover": "part"})
