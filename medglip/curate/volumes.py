"""What converters of volumes share: which files are a volume, how a volume with its structures becomes pictures.

Options that every converter of volumes takes::

    planes = ["axial", "coronal"]   # default: the plane of acquisition
    max_slices = 20                 # most planes of each direction: each concept at its largest first, then spread out
    empty_slices = 0.2              # planes without anything, as a share of the others
    window = "lung"                 # name in medglip.imaging.intensity.WINDOWS, "percentile", or [low, high]
    index = 0                       # which volume of an image file of four dimensions
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from medglip.curate.cases import Case, Refused, Shot, joined, picture
from medglip.curate.layout import Found, find, listed
from medglip.curate.privacy.keys import keyed
from medglip.curate.regions import SPECKLE, region_of_cut
from medglip.curate.source import Named, Part
from medglip.imaging.components import box_of_voxels, components_of
from medglip.imaging.dicom import MODALITY_OF
from medglip.imaging.intensity import encode, storage_of
from medglip.imaging.nifti import read_volume
from medglip.imaging.series import Series, read_series, series_in
from medglip.imaging.slices import PLANES, Cut, choose_slices, cuts, evenly_spread
from medglip.imaging.volume import Volume
from medglip.records import (
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

OPTIONS = ("planes", "max_slices", "empty_slices", "window", "index")
# A plane across the acquisition whose short side is below this share of the long one is a sliver (SA-Med2D-20M).
_SLIVER = 0.5
# Pitches that differ by less count as one.
_EQUAL = 1.05


@dataclass(frozen=True, eq=False)
class Structure:
    """One label's voxels in a volume, small in memory: the bits inside their box.

    Attributes:
        named: The label.
        box_kji: Half-open voxel box; None where the label has no voxel.
        bits: The mask inside the box, 8 voxels a byte.
        profiles: Voxels in each plane across k, j and i.
        single: True where it is one object however many pieces it has, because the source numbers its objects.
    """

    named: Named
    box_kji: tuple[int, int, int, int, int, int] | None
    bits: np.ndarray
    profiles: tuple[np.ndarray, np.ndarray, np.ndarray]
    single: bool = False

    @property
    def mask(self) -> np.ndarray:
        """Bool, of the box's shape."""
        k0, j0, i0, k1, j1, i1 = self.box_kji or (0,) * 6
        shape = (k1 - k0, j1 - j0, i1 - i0)
        return np.unpackbits(self.bits, count=int(np.prod(shape))).reshape(shape).astype(bool)


def structure_of(named: Named, mask: np.ndarray, start_kji: Sequence[int] = (0, 0, 0),
                 shape_kji: Sequence[int] | None = None) -> Structure:  # fmt: skip
    """The structure of a mask; an empty mask is one too: it was searched for and is not there.

    Args:
        named: The label.
        mask: (K, J, I) bool, of the whole volume or of a part that holds all of the label.
        start_kji: Where the part begins.
        shape_kji: Shape of the whole volume; None where the mask is the whole.
    """
    profiles = [np.zeros(length, dtype=np.int64) for length in (shape_kji or mask.shape)]
    box = box_of_voxels(mask)
    k0, j0, i0, k1, j1, i1 = box or (0,) * 6
    inside = mask[k0:k1, j0:j1, i0:i1]
    begin = [edge + offset for edge, offset in zip((k0, j0, i0), start_kji, strict=True)]
    end = [at + length for at, length in zip(begin, inside.shape, strict=True)]
    for axis in range(3):
        profiles[axis][begin[axis] : end[axis]] = np.count_nonzero(inside, axis=tuple({0, 1, 2} - {axis}))
    placed = None if box is None else (*begin, *end)
    return Structure(named, placed, np.packbits(inside), (profiles[0], profiles[1], profiles[2]))


def volume_cases(part: Part, folder: Path) -> Iterator[Case | Reject]:
    """Cases whose image is one file (role ``image``) or a folder of DICOM files (role ``series``)."""
    if "series" not in part.files:
        yield from joined(part, folder)
        return
    paths = listed(folder)
    others = {role: list(find(pattern, paths)) for role, pattern in part.files.items() if role != "series"}
    groups: dict[str, list[Found]] = defaultdict(list)
    for entry in find(part.files["series"], paths):
        groups[str(PurePosixPath(entry.path).parent)].append(entry)
    used: set[str] = set()
    for key, entries in groups.items():
        # A name that differs between the slices, such as the slice's number, says nothing of the case.
        fields = {name: text for name, text in entries[0].fields.items() if all(e.fields[name] == text for e in entries)}
        files = {"series": tuple(entry.path for entry in entries)}
        for role, found in others.items():
            files[role] = tuple(entry.path for entry in found if _agree(fields, entry.fields))
            used.update(files[role])
        yield Case(key, folder, files, fields)
    for role, found in others.items():
        for entry in found:
            if entry.path not in used:
                yield Reject(part.source, entry.path, "orphan", f"This {role} belongs to no series; add it or remove this.")


def _agree(fields: dict[str, str], others: dict[str, str]) -> bool:
    return all(fields[name].lower() == others[name].lower() for name in fields.keys() & others.keys())


def volume_of(part: Part, case: Case) -> tuple[Volume, str]:
    """The case's image volume, and the file to name for it.

    Raises:
        Refused: there is none, more than one, or of another modality.
        InputError: it is broken.
    """
    if "series" not in case.files:
        file = case.one("image")
        return read_volume(case.path(file), modality=part.modality, index=part.option("index")), file
    found = series_in(case.path(path) for path in case.files["series"])
    if len(found) != 1:
        raise Refused(
            "ambiguous_series",
            f"The {len(case.files['series'])} DICOM files of {case.key!r} make {len(found)} volumes; allowed: one.",
        )
    return dicom_volume(part, found[0]), case.files["series"][0]


def dicom_volume(part: Part, series: Series) -> Volume:
    """Voxels of a DICOM series, which must be of the part's modality."""
    if (modality := MODALITY_OF.get(series.modality, "other")) != part.modality:
        raise Refused("other_modality", f"The series is {modality!r} ({series.modality}), the part {part.modality!r}.")
    return read_series(series)


def pictures_of_volume(
    part: Part, case: Case, volume: Volume, structures: Sequence[Structure] | None, *, file: str, searched: Sequence[str],
    checks: dict[str, str] | None = None,
) -> Iterator[Picture | VolumeRecord]:  # fmt: skip
    """The planes that are kept, with their regions, and then the volume itself.

    Args:
        part: Where it is from; its options choose the planes.
        case: The case.
        volume: The image.
        structures: What is marked in it; an empty one counts as searched for and not there. None where nobody marked it:
            then planes are spread evenly over those that show more than one value.
        file: What to name as the image's file.
        searched: Concepts marked wherever they are in this volume.
        checks: What was found about the masks.

    Raises:
        Refused: the image has one value only.
    """
    if volume.voxels.min() == volume.voxels.max():
        raise Refused("constant_image", f"{file!r} has the value {volume.voxels.min()} everywhere; there is nothing to see.")
    window = part.option("window") or volume.window or ("percentile" if volume.unit == "au" else None)
    intensity = storage_of(volume.voxels, volume.unit, window=window, inverted=volume.inverted)
    volume_id = hashlib.sha1("|".join((part.source, part.name, case.key, file)).encode()).hexdigest()[:16]
    planes = _planes(part, volume, structures)
    regions: dict[tuple[int, int], list[Region]] = defaultdict(list)
    instances: list[Instance] = []
    for structure in structures or ():
        for inside, box in _objects(structure):
            instance = _instance(f"{volume_id}-{len(instances):03d}", structure.named, inside, box, volume)
            instances.append(instance)
            for cut, index in planes:
                if box[cut.axis] <= index < box[3 + cut.axis]:
                    crop, corner, size_hw = _cut_of(inside, box, volume, cut, index)
                    region = region_of_cut(part, structure.named, crop, corner, size_hw, instance.id, cut.spacing_mm(volume))
                    regions[cut.axis, index] += [region] if region else []
    for cut, index in planes:
        shot = Shot(
            file=file, frame=int(case.fields["frame"]) if part.option("frames") else None, axis=cut.axis_name, slice=index,
            intensity=intensity,
            affine_px_to_mm=cut.affine_px_to_mm(volume, index), spacing_mm=cut.spacing_mm(volume),
            spacing_source=_spacing_source(volume, cut), patient=volume.patient, study=volume.study, series=volume.series,
            detail=volume.detail | ({"plane": cut.plane} if cut.plane else {}), searched=tuple(searched),
            flags=(*volume.flags, "oblique") if cut.oblique else volume.flags,
        )  # fmt: skip
        pixels = encode(cut.take(volume.voxels, index), intensity)
        yield picture(part, case, pixels, regions[cut.axis, index], shot)
    affine = volume.affine_ijk_to_mm
    yield VolumeRecord(
        id=volume_id, modality=part.modality, origin=Origin(part.source, file, case.key), licence=part.licence,
        shape_kji=volume.shape_kji, spacing_kji_mm=volume.spacing_kji_mm, orientation=volume.orientation,
        affine_ijk_to_mm=None if affine is None else tuple(float(number) for number in affine.ravel()),
        keys=Keys(*(keyed(part.patient_of or part.source, raw) for raw in (volume.patient, volume.study, volume.series))),
        checks=volume.checks | (checks or {}), instances=tuple(instances),
    )  # fmt: skip


def _planes(part: Part, volume: Volume, structures: Sequence[Structure] | None) -> list[tuple[Cut, int]]:
    """The planes to keep, direction after direction."""
    planes = part.option("planes")
    native = _native(volume)
    found = []
    concepts = sorted({structure.named.concept for structure in structures or ()})
    for cut in cuts(volume, planes) if planes else [native]:
        if cut.axis != native.axis and _is_sliver(volume, cut):
            continue
        if structures is None:
            found += [(cut, index) for index in _spread(volume, cut, part.option("max_slices"))]
            continue
        areas = np.zeros((len(concepts), cut.count), dtype=np.int64)
        for structure in structures:
            areas[concepts.index(structure.named.concept)] += structure.profiles[cut.axis]
        chosen = choose_slices(areas, part.option("max_slices"), float(part.option("empty_slices", 0.0)))
        found += [(cut, index) for index in chosen]
    return found


def _native(volume: Volume) -> Cut:
    """The plane of acquisition: that of ``cuts``; where it is a sliver, that of the DICOM images, or one of equal pitch.

    A few slices as thick as their pixels are wide leave no doubt of it, though all pitches are equal.
    """
    native, pitch = cuts(volume)[0], volume.spacing_kji_mm
    if volume.affine_ijk_to_mm is None or pitch is None or not _is_sliver(volume, native):
        return native
    others = cuts(volume, PLANES)
    if volume.sop_uids:
        return next(cut for cut in others if cut.axis == 0)
    return min((native, *others), key=lambda cut: cut.count if pitch[cut.axis] * _EQUAL > pitch[native.axis] else native.count)


def _is_sliver(volume: Volume, cut: Cut) -> bool:
    height, width = (volume.shape_kji[axis] for axis in (cut.row_axis, cut.column_axis))
    return min(height, width) < _SLIVER * max(height, width)


def _spread(volume: Volume, cut: Cut, wanted: int | None) -> list[int]:
    """Planes evenly spread over those that show more than one value."""
    within = tuple(axis for axis in range(volume.voxels.ndim) if axis != cut.axis)
    shown = np.flatnonzero(volume.voxels.min(axis=within) != volume.voxels.max(axis=within))
    return [int(shown[at]) for at in evenly_spread(len(shown), len(shown) if wanted is None else wanted)]


def _objects(structure: Structure) -> Iterator[tuple[np.ndarray, tuple[int, int, int, int, int, int]]]:
    """Mask and box of each object of a structure: its connected parts where its label is countable, else all of it."""
    if structure.box_kji is None:
        return
    mask = structure.mask
    if structure.single or not label_tree()[structure.named.label].countable:
        yield mask, structure.box_kji
        return
    numbers, found = components_of(mask)
    start = structure.box_kji[:3] * 2
    for component in found:
        if component.voxels > SPECKLE or component.number == 1:
            k0, j0, i0, k1, j1, i1 = component.box_kji
            box = tuple(edge + offset for edge, offset in zip(component.box_kji, start, strict=True))
            yield numbers[k0:k1, j0:j1, i0:i1] == component.number, box  # type: ignore[misc]


def _instance(key: str, named: Named, inside: np.ndarray, box: tuple[int, ...], volume: Volume) -> Instance:
    voxels, voxel_mm3 = int(np.count_nonzero(inside)), volume.voxel_mm3
    size = None if voxel_mm3 is None else voxels * voxel_mm3
    corners = None if volume.affine_ijk_to_mm is None else voxel_box_corners_mm(box, volume.affine_ijk_to_mm)
    box_mm = None if corners is None else box_of_corners_mm(corners)
    return Instance(key, named.label, named.laterality, box, size, voxels, box_mm)  # type: ignore[arg-type]


def _cut_of(
    inside: np.ndarray, box: tuple[int, ...], volume: Volume, cut: Cut, index: int
) -> tuple[np.ndarray, tuple[int, int], tuple[int, int]]:
    """The window (h, w) of an object in a plane that meets it, in display order; its corner (x, y); the plane's (H, W)."""
    crop = cut.turned(inside[(slice(None),) * cut.axis + (index - box[cut.axis],)])
    height, width = volume.shape_kji[cut.row_axis], volume.shape_kji[cut.column_axis]
    y = height - box[3 + cut.row_axis] if cut.flip_rows else box[cut.row_axis]
    x = width - box[3 + cut.column_axis] if cut.flip_columns else box[cut.column_axis]
    return crop, (x, y), (height, width)


def _spacing_source(volume: Volume, cut: Cut) -> str | None:
    if cut.spacing_mm(volume) is None:
        return None
    return "PixelSpacing" if volume.sop_uids else "affine" if volume.affine_ijk_to_mm is not None else "header"
