"""Volumes with boxes of their slices: plans in JSON whose boxes are voxel indices along the three axes of the array.

Roles::

    image = "**/Images*/{case}.nii.gz"                          # volume files
    plan = "**/benchmark_plan_detection_v{version}.json.gz"     # what is marked in them; of several in a folder, the newest

Plans are those of ``medglip/curate/box_plans.py``.

Options:

- ``only``: words for the modality: tasks of another one are left to other parts;
- ``patients``: regular expressions whose first group is, in the id of a case, the patient; the first that fits counts;
- ``partial``: folders of plans that do not mark all there is: nothing is absent from their images;
- ``missing_images``: ``reject`` (default) or ``ignore`` cases whose image is not there;
- ``derived``: as of the source's grammar: a label that is the union of raw ones, which must not be countable: the box of a
  union is the box around the boxes;
- ``planes``, ``max_slices``, ``empty_slices``, ``window``, ``index``: as of ``medglip.curate.volumes``.

A raw label is looked up with the plan's folder before it (``KiTS23 tumor``), then alone. Names for templates: ``dataset`` (the
plan's folder), ``case_id``, ``person``, ``set`` (``train`` or ``test``; ``test`` for all images of a patient of whom any task
tests one) and ``described`` (what the plan calls the image).

Boxes hold for the array that they were measured on: a volume whose shape or orientation is not that of the plan is refused,
and so is one whose mask, from which the boxes come, lay on another grid. A label that is not countable has one region a
plane, around all its boxes. What a plan marks anywhere in a volume counts as searched for in all of it.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medglip.curate.box_plans import WHOLE, Planned, VoxelBox, newest, read_plan
from medglip.curate.cases import Case, Refused, Shot
from medglip.curate.layout import find, listed, without_ending
from medglip.curate.marks import Marks
from medglip.curate.privacy.keys import keyed
from medglip.curate.regions import SPECKLE, region_of_box
from medglip.curate.source import Named, Part
from medglip.errors import InputError, SourceError
from medglip.imaging.intensity import encode, storage_of
from medglip.imaging.nifti import read_volume
from medglip.imaging.slices import Cut, choose_slices, cuts
from medglip.imaging.volume import Volume
from medglip.records import (
    Box,
    Instance,
    Keys,
    Origin,
    Picture,
    Region,
    Reject,
    VolumeRecord,
    box_of_corners_mm,
    label_tree,
    voxel_box_corners_mm,
)

ROLES = ("image", "plan")
OPTIONS = ("only", "patients", "partial", "missing_images", "derived", "planes", "max_slices", "empty_slices", "window",
           "index")  # fmt: skip

# A plane across the acquisition whose short side is below this share of the long one is a sliver (SA-Med2D-20M).
_SLIVER = 0.5
# How far the grids of a mask and its image may lie apart, in mm and as a share of a direction: what rounding to 3 digits does.
_ROUNDED = 2e-3


class Mark(NamedTuple):
    """What a plan marks.

    Attributes:
        box_kji: Half-open voxel box (k0, j0, i0, k1, j1, i1); of a slice, one voxel thick.
        axis: Array axis that its slice is cut across: 0, 1, 2 for k, j, i; ``WHOLE`` for a whole object.
        voxels: Number of voxels of a whole object, or 0 where the plan does not say.
    """

    box_kji: VoxelBox
    axis: int
    voxels: int = 0


def cases(part: Part, folder: Path) -> Iterator[Case | Reject]:
    """One case a volume that a plan names; volumes that the plans name and that are not there are rejected.

    Raises:
        InputError: there is no plan, or one is broken.
        SourceError: a derived label is countable.
    """
    if several := [one.named.label for one in part.derived if label_tree()[one.named.label].countable]:
        where = f"datasets/{part.source}.toml"
        raise SourceError(f"{where}: option derived has {several[0]!r}, which is countable; allowed: labels that are not.")
    paths = listed(folder)
    plans = newest(find(part.files["plan"], paths))
    if not plans:
        raise InputError(f"Source {part.source!r}: no file in {str(folder)!r} is a plan {part.files['plan']!r}; add it.")
    images = {found.path: found.fields for found in find(part.files["image"], paths)}
    for plan in plans:
        for image, entries in read_plan(folder, plan, tuple(part.option("patients", ()))).items():
            wanted = [entry for entry in entries if _is_wanted(part, entry)]
            if wanted and image in images:
                files: dict[str, tuple[str, ...]] = {"image": (image,), "plan": (plan,)}
                yield Case(without_ending(without_ending(image)), folder, files, {**images[image], **wanted[0].names})
            elif wanted and part.option("missing_images", "reject") == "reject":
                sentence = f"{wanted[0].where} names the image {image!r}, which is not there; add it."
                yield Reject(part.source, plan, "missing_file", sentence, image)


def convert(part: Part, case: Case) -> Iterator[Picture | VolumeRecord | Reject]:
    """The planes that are kept, with their boxes, and then the volume itself."""
    file, plan = case.one("image"), case.one("plan")
    entries = read_plan(case.folder, plan, tuple(part.option("patients", ())))[file]
    volume = read_volume(case.path(file), modality=part.modality, index=part.option("index"))
    if volume.voxels.min() == volume.voxels.max():
        raise Refused("constant_image", f"{file!r} has the value {volume.voxels.min()} everywhere; there is nothing to see.")
    marks = Marks(part, case)
    known: list[tuple[Named, Mark]] = []
    for entry in (entry for entry in entries if _is_wanted(part, entry)):
        _check_grid(entry, volume, file)
        known += _named(marks, entry)
    known = list(dict.fromkeys(known))
    objects = _objects(part, case, known, volume)
    window = part.option("window") or volume.window or ("percentile" if volume.unit == "au" else None)
    intensity = storage_of(volume.voxels, volume.unit, window=window)
    yield from marks.rejects
    if case.fields["dataset"] not in part.option("partial", ()):
        marks.searched = {named.concept for named, _ in known}
    for cut, index in _planes(part, volume, known):
        shot = Shot(
            file=file, axis=cut.axis_name, slice=index, intensity=intensity,
            affine_px_to_mm=cut.affine_px_to_mm(volume, index), spacing_mm=cut.spacing_mm(volume),
            spacing_source=None if cut.spacing_mm(volume) is None else "affine", detail={"plane": cut.plane},
            flags=(*volume.flags, "oblique") if cut.oblique else volume.flags,
        )  # fmt: skip
        here = replace(marks, regions=list(_regions(part, cut, index, volume, known, objects)))
        yield here.picture(encode(cut.take(volume.voxels, index), intensity), shot)
    yield _record(part, case, volume, objects)


def _is_wanted(part: Part, entry: Planned) -> bool:
    words = [str(word).casefold() for word in part.option("only", ())]
    return not words or entry.modality.casefold() in words


def _check_grid(entry: Planned, volume: Volume, file: str) -> None:
    """Refuse a volume that is not the array on which the boxes were measured."""
    image, mask = entry.grids
    size, turned = [int(length) for length in image["array_size"]], "".join(image["orientation"])
    here = list(reversed(volume.shape_kji))
    if size != here or (volume.orientation is not None and turned != volume.orientation):
        raise Refused(
            "geometry_mismatch",
            f"{file!r} is an array of {here} voxels that run {volume.orientation}, and {entry.where} measured one of {size}"
            f" that runs {turned}; turn the volume as the collection's loader does, or take the plan made for it.",
        )
    apart = np.abs(np.array(image["affine"], float) - np.array(mask["affine"], float)).max()
    if size != [int(length) for length in mask["array_size"]] or apart > _ROUNDED:
        raise Refused(
            "geometry_mismatch",
            f"{entry.where}: the mask from which its boxes come lies on another grid than {file!r}; leave the case out.",
        )


def _named(marks: Marks, entry: Planned) -> Iterator[tuple[Named, Mark]]:
    """The marks of a task with what their labels mean; a label that has no meaning is refused once."""
    part = marks.part
    meaning: dict[int, Named | None] = dict.fromkeys([*entry.rows[:, 0].tolist(), *(number for number, _ in entry.broken)])
    for number in meaning:
        with marks.item(entry.where):
            own = _own(entry, number)
            raw = own if own in part.labels else entry.labels.get(number, f"number {number}")
            meaning[number] = part.named(raw, entry.where)
    for number, sentence in entry.broken:
        marks.refuse(entry.where, "bad_box", f"{entry.where}: {sentence}; correct the plan.", meaning.get(number))
    unions = {number: [one.named for one in part.derived if _own(entry, number) in one.raw] for number in meaning}
    for number, *box, axis, voxels in entry.rows.tolist():
        for named in (meaning.get(number), *unions[number]):
            if named is not None:
                yield named, Mark(tuple(box), axis, voxels)


def _own(entry: Planned, number: int) -> str:
    """The raw label of a number with the plan's folder before it."""
    return f"{entry.names['dataset']} {entry.labels.get(number, f'number {number}')}"


def _planes(part: Part, volume: Volume, known: Sequence[tuple[Named, Mark]]) -> Iterator[tuple[Cut, int]]:
    """The planes to keep, direction after direction."""
    native = cuts(volume)[0].axis
    concepts = sorted({named.concept for named, _ in known})
    for cut in cuts(volume, part.option("planes")):
        height, width = volume.shape_kji[cut.row_axis], volume.shape_kji[cut.column_axis]
        if cut.axis != native and min(height, width) < _SLIVER * max(height, width):
            continue
        areas = np.zeros((len(concepts), cut.count), dtype=np.int64)
        for named, mark in known:
            if mark.axis == cut.axis:
                areas[concepts.index(named.concept), mark.box_kji[cut.axis]] += _voxels(mark.box_kji)
        for index in choose_slices(areas, part.option("max_slices"), float(part.option("empty_slices", 0.0))):
            yield cut, index


def _regions(
    part: Part, cut: Cut, index: int, volume: Volume, known: Sequence[tuple[Named, Mark]], objects: Sequence[Instance]
) -> Iterator[Region]:
    """The regions of one plane."""
    height, width = volume.shape_kji[cut.row_axis], volume.shape_kji[cut.column_axis]
    here = [(named, mark) for named, mark in known if mark.axis == cut.axis and mark.box_kji[cut.axis] == index]
    for named, marks in _grouped(here):
        box = _around(marks)
        inside = [one.id for one in objects if (one.label, one.laterality) == (named.label, named.laterality)
                  and _covers(one.box_kji, box)]  # fmt: skip
        merged = ("merged",) if len(marks) > 1 else ()
        instance = inside[0] if len(inside) == 1 else None
        yield region_of_box(part, named, _shown(cut, box, (height, width)), (height, width), None, merged, instance)


def _shown(cut: Cut, box_kji: VoxelBox, size_hw: tuple[int, int]) -> Box:
    """The rectangle of a voxel box in a plane in display order."""
    y0, y1 = box_kji[cut.row_axis], box_kji[3 + cut.row_axis]
    x0, x1 = box_kji[cut.column_axis], box_kji[3 + cut.column_axis]
    if cut.flip_rows:
        y0, y1 = size_hw[0] - y1, size_hw[0] - y0
    if cut.flip_columns:
        x0, x1 = size_hw[1] - x1, size_hw[1] - x0
    return float(x0), float(y0), float(x1), float(y1)


def _grouped(found: Sequence[tuple[Named, Mark]]) -> Iterator[tuple[Named, list[Mark]]]:
    """The marks of each region: a countable label's one by one, another's all together; no specks beside larger ones."""
    groups: dict[Named, list[Mark]] = defaultdict(list)
    for named, mark in found:
        groups[named].append(mark)
    for named, marks in groups.items():
        larger = [mark for mark in marks if _voxels(mark.box_kji) > SPECKLE] or marks
        if label_tree()[named.label].countable:
            yield from ((named, [mark]) for mark in larger)
        else:
            yield named, larger


def _objects(part: Part, case: Case, known: Sequence[tuple[Named, Mark]], volume: Volume) -> list[Instance]:
    """The 3-D objects of a volume whose voxels the plan counts."""
    found: list[Instance] = []
    for named, marks in _grouped([(named, mark) for named, mark in known if mark.axis == WHOLE and mark.voxels]):
        key, box, voxels = f"{_volume_id(part, case)}-{len(found):03d}", _around(marks), sum(mark.voxels for mark in marks)
        mm3 = None if volume.voxel_mm3 is None else voxels * volume.voxel_mm3
        corners = None if volume.affine_ijk_to_mm is None else voxel_box_corners_mm(box, volume.affine_ijk_to_mm)
        box_mm = None if corners is None else box_of_corners_mm(corners)
        found.append(Instance(key, named.label, named.laterality, box, mm3, voxels, box_mm))
    return found


def _record(part: Part, case: Case, volume: Volume, objects: Sequence[Instance]) -> VolumeRecord:
    affine = volume.affine_ijk_to_mm
    patient = part.patient.format_map(case.fields) if part.patient else None
    return VolumeRecord(
        id=_volume_id(part, case), modality=part.modality, origin=Origin(part.source, case.one("image"), case.key),
        licence=part.licence, shape_kji=volume.shape_kji, spacing_kji_mm=volume.spacing_kji_mm,
        orientation=volume.orientation,
        affine_ijk_to_mm=None if affine is None else tuple(float(number) for number in affine.ravel()),
        keys=Keys(keyed(part.patient_of or part.source, patient)), checks=volume.checks, instances=tuple(objects),
    )  # fmt: skip


def _volume_id(part: Part, case: Case) -> str:
    return hashlib.sha1("|".join((part.source, part.name, case.key)).encode()).hexdigest()[:16]


def _around(marks: Sequence[Mark]) -> VoxelBox:
    """The box around the boxes of marks."""
    k0, j0, i0 = (min(mark.box_kji[at] for mark in marks) for at in range(3))
    k1, j1, i1 = (max(mark.box_kji[at] for mark in marks) for at in range(3, 6))
    return k0, j0, i0, k1, j1, i1


def _covers(wide: VoxelBox, box: VoxelBox) -> bool:
    return all(wide[at] <= box[at] and box[3 + at] <= wide[3 + at] for at in range(3))


def _voxels(box: VoxelBox) -> int:
    return (box[3] - box[0]) * (box[4] - box[1]) * (box[5] - box[2])
