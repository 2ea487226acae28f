"""DICOM series as volumes: frames grouped, sorted by position and checked. Knows nothing of labels or datasets.

One SeriesInstanceUID is not one volume: frames are split by size and orientation, and, where several lie at one place,
by the attribute that tells them apart (echo, b-value, time). Slices are never invented: where some are missing, the
volume keeps the places of those that are there (``origins_mm``) and says so in its checks.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom.dataset import Dataset

from medglip.errors import InputError
from medglip.imaging.dicom import BROKEN, DicomImage, functional, is_dicom, read_dicom, read_header
from medglip.imaging.volume import Volume, spacing_of_affine

# Attributes that may tell frames at one place apart, in the order in which they are tried, with their enhanced names.
_SPLITTERS = {
    "EchoTime": "EffectiveEchoTime",
    "DiffusionBValue": "DiffusionBValue",
    "TemporalPositionIdentifier": "TemporalPositionIndex",
    "AcquisitionNumber": "FrameAcquisitionNumber",
    "TriggerTime": "NominalCardiacTriggerDelayTime",
    "AcquisitionTime": "FrameAcquisitionDateTime",
    "ContentTime": "FrameReferenceDateTime",
}
_TAG_GROUPS = ("MREchoSequence", "MRDiffusionSequence", "FrameContentSequence", "CardiacSynchronizationSequence")
_NO_IMAGES = ("SEG", "SR", "RTSTRUCT", "RTPLAN", "RTDOSE", "PR", "KO")
_GROUP_IDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality")
_SAME_PLACE_MM = 0.01
# A step is regular within 1 % or 0.1 mm of the median (highdicom allows 1 %, dicom2nifti 0.1 mm).
_REGULAR_RELATIVE, _REGULAR_MM = 0.01, 0.1
_TILT_DEGREES = 0.5


class Group(NamedTuple):
    """What frames of one volume have in common, beside their direction and pitch."""

    study: str
    series: str
    reference: str
    modality: str
    rows: int
    columns: int
    localizer: bool


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a DICOM file with its place.

    Attributes:
        path: The file.
        number: Frame of a multi-frame file, from 0; None for a single-frame file.
        sop_uid: SOPInstanceUID, with ``#number`` for a multi-frame file.
        orientation: (6,) row and column direction cosines, LPS+.
        position_mm: (3,) centre of the first pixel, LPS+ mm.
        spacing_mm: (row, column) pitch, or None.
        thickness_mm: Of the slice, or None.
        tags: What may tell it apart from a frame at the same place.
        group: What it has in common with the other frames of its volume.
    """

    path: Path
    number: int | None
    sop_uid: str
    orientation: np.ndarray
    position_mm: np.ndarray
    spacing_mm: tuple[float, float] | None
    thickness_mm: float | None
    tags: dict[str, str]
    group: Group

    @property
    def normal(self) -> np.ndarray:
        """Unit vector across the slice."""
        across = np.cross(self.orientation[:3], self.orientation[3:])
        return across / np.linalg.norm(across)


@dataclass(frozen=True, slots=True)
class References:
    """UIDs that a SEG or RTSTRUCT names: the series and SOP instances that it marks, and its own frames of reference."""

    series: set[str]
    instances: set[str]
    frames_of_reference: set[str]


@dataclass(frozen=True, eq=False)
class Series:
    """Frames that make one volume, sorted along their normal."""

    uid: str
    study: str
    frame_of_reference: str | None
    modality: str
    frames: tuple[Frame, ...]

    @property
    def sop_uids(self) -> tuple[str, ...]:
        """SOP instance of each frame, without frame numbers."""
        return tuple(frame.sop_uid.split("#")[0] for frame in self.frames)


def dicom_files(folder: Path) -> list[Path]:
    """All DICOM files under a folder, recognised by content, sorted by path."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and is_dicom(path))


def series_in(paths: Iterable[Path]) -> list[Series]:
    """The volumes that image files with positions make up, in order of their UIDs; other files are passed over.

    Raises:
        InputError: a file is missing or broken.
    """
    return series_of(frame for path in sorted(paths) for frame in frames_of(path, read_header(path)))


def series_of(frames: Iterable[Frame]) -> list[Series]:
    """The volumes that frames make up, in order of their UIDs."""
    groups: dict[Group, list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[frame.group].append(frame)
    found = []
    for group, members in sorted(groups.items()):
        for oriented in _by_orientation(members):
            for part in _by_splitter(oriented):
                found.append(Series(group.series, group.study, group.reference or None, group.modality, tuple(part)))
    return found


def frames_of(path: Path, header: Dataset) -> list[Frame]:
    """Frames of a file that have a place; none for a projection, a clip, or an object that is no image.

    Args:
        path: The file.
        header: Its ``read_header``.

    Raises:
        InputError: the header is broken.
    """
    if header.get("Modality") in _NO_IMAGES or "Rows" not in header:
        return []
    try:
        return _frames(path, header)
    except BROKEN as error:
        raise InputError(f"DICOM file {path.name!r} has a broken header: {error}.") from error


def read_series(series: Series) -> Volume:
    """Voxels of a series, sorted along its normal, with the affine that its positions give.

    Raises:
        InputError: a file is broken, or different pixels lie at one place and nothing tells them apart.
    """
    frames, first, voxels = _stacked(series)
    affine, spacing, origins, checks = _geometry(frames)
    flags = first.flags + (("gantry_tilt",) if "gantry_tilt_degrees" in checks else ())
    if affine is None:
        flags = (*flags, "orientation_unknown")
    return Volume(
        voxels=voxels, affine_ijk_to_mm=affine, spacing_kji_mm=spacing, unit=first.unit, window=first.window,
        inverted=first.inverted, origins_mm=origins, sop_uids=tuple(frame.sop_uid for frame in frames),
        frame_of_reference=series.frame_of_reference, patient=first.patient, study=first.study, series=first.series,
        detail=first.detail, checks=checks, flags=flags,
    )  # fmt: skip


def read_folder(folder: Path) -> Volume:
    """The volume of a folder that holds one DICOM series.

    Raises:
        InputError: it holds none, or more than one.
    """
    paths = dicom_files(folder) if folder.is_dir() else []
    found = series_in(paths)
    if len(found) != 1:
        raise InputError(
            f"Folder {folder.name!r} holds {len(paths)} DICOM files that make {len(found)} volumes; allowed: one;"
            " give the folder of one series."
        )
    return read_series(found[0])


def _frames(path: Path, header: Dataset) -> list[Frame]:
    """Frames of a file that have a place; none for a cine clip or a projection."""
    count = int(header.get("NumberOfFrames") or 1)
    multi = "NumberOfFrames" in header and (count > 1 or "PerFrameFunctionalGroupsSequence" in header)
    uid = str(header.get("SOPInstanceUID") or path.name)
    study, series, reference, modality = (str(header.get(name) or "") for name in _GROUP_IDS)
    localizer = "LOCALIZER" in (header.get("ImageType") or ())
    group = Group(study, series, reference, modality, int(header.Rows), int(header.Columns), localizer)
    found = []
    for number in range(count if multi else 1):
        position = _from(header, number, "PlanePositionSequence", "ImagePositionPatient", 3)
        orientation = _from(header, number, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
        if position is None or orientation is None or not np.linalg.norm(np.cross(orientation[:3], orientation[3:])):
            continue
        spacing = _from(header, number, "PixelMeasuresSequence", "PixelSpacing", 2)
        measures = functional(header, "PixelMeasuresSequence", number) or header
        thickness = float(measures.get("SpacingBetweenSlices") or measures.get("SliceThickness") or 0.0)
        found.append(Frame(
            path, number if multi else None, f"{uid}#{number}" if multi else uid, orientation, position,
            (float(spacing[0]), float(spacing[1])) if spacing is not None and spacing.min() > 0 else None,
            abs(thickness) or None, _tags(header, number), group,
        ))  # fmt: skip
    if multi and count > 1 and len({tuple(np.round(frame.position_mm, 3)) for frame in found}) == 1:
        # A clip in one place: its frames are moments, not slices.
        return []
    return found


def _from(header: Dataset, number: int, sequence: str, keyword: str, length: int) -> np.ndarray | None:
    """Numbers of a frame's functional group, else of the header itself; None where they are missing or not finite."""
    item = functional(header, sequence, number)
    value = item.get(keyword) if item is not None else header.get(keyword)
    if value is None or len(value) != length:
        return None
    numbers = np.array([float(part) for part in value])
    return numbers if np.isfinite(numbers).all() else None


def _tags(header: Dataset, number: int) -> dict[str, str]:
    """What may tell a frame apart: from its functional groups, else from the header."""
    groups = (functional(header, sequence, number) for sequence in _TAG_GROUPS)
    places = [group for group in groups if group is not None] + [header]
    found = {}
    for keyword, enhanced in _SPLITTERS.items():
        values = (place.get(name) for place in places for name in (enhanced, keyword))
        found[keyword] = next((str(value) for value in values if value is not None), "")
    return found


def _by_orientation(frames: list[Frame]) -> list[list[Frame]]:
    """Frames whose direction cosines agree within 0.001, together."""
    groups: list[list[Frame]] = []
    for frame in frames:
        for group in groups:
            if np.allclose(group[0].orientation, frame.orientation, atol=1e-3) and (
                group[0].spacing_mm is None
                or frame.spacing_mm is None
                or np.allclose(group[0].spacing_mm, frame.spacing_mm, rtol=1e-3)
            ):
                group.append(frame)
                break
        else:
            groups.append([frame])
    return groups


def _sorted(frames: list[Frame]) -> list[Frame]:
    normal = frames[0].normal
    return sorted(frames, key=lambda frame: (round(float(frame.position_mm @ normal), 3), frame.sop_uid, str(frame.path)))


def _collide(frames: list[Frame]) -> bool:
    along = [float(frame.position_mm @ frames[0].normal) for frame in _sorted(frames)]
    return bool((np.diff(along) < _SAME_PLACE_MM).any())


def _by_splitter(frames: list[Frame]) -> list[list[Frame]]:
    """One list where every place holds one frame; else the lists into which one attribute splits them cleanly."""
    frames = list({frame.sop_uid: frame for frame in reversed(_sorted(frames))}.values())  # a file stored twice
    frames = _sorted(frames)
    if not _collide(frames):
        return [frames]
    places = len(np.unique(np.round([float(frame.position_mm @ frames[0].normal) for frame in frames], 2)))
    for keyword in _SPLITTERS:
        parts: dict[str, list[Frame]] = defaultdict(list)
        for frame in frames:
            parts[frame.tags[keyword]].append(frame)
        if len(parts) > 1 and not any(_collide(part) or len(part) < places for part in parts.values()):
            return [_sorted(parts[value]) for value in sorted(parts)]
    return [frames]  # identical pixels may still explain it; reading will tell


def _stacked(series: Series) -> tuple[list[Frame], DicomImage, np.ndarray]:
    """Frames without repeats, the facts of the first, and their values (K, H, W[, 3])."""
    kept: list[Frame] = []
    first: DicomImage | None = None
    voxels: np.ndarray | None = None
    whole: dict[Path, DicomImage] = {}
    for frame in series.frames:
        if frame.number is None:
            image, values = (image := read_dicom(frame.path)), image.frames[0]
        else:
            image = whole[frame.path] = whole.get(frame.path) or read_dicom(frame.path)
            values = image.frames[frame.number]
        if first is None or voxels is None:
            first, voxels = image, np.empty((len(series.frames), *values.shape), values.dtype)
        if kept and abs(float((frame.position_mm - kept[-1].position_mm) @ frame.normal)) < _SAME_PLACE_MM:
            if np.array_equal(values, voxels[len(kept) - 1]):
                continue
            raise InputError(
                f"DICOM files {kept[-1].path.name!r} and {frame.path.name!r} lie at one place with different pixels,"
                " and no attribute tells them apart; give one acquisition at a time."
            )
        voxels = voxels.astype(np.result_type(voxels.dtype, values.dtype), copy=False)
        voxels[len(kept)] = values
        kept.append(frame)
    if first is None or voxels is None:
        raise InputError(f"DICOM series {series.uid!r} has no frame; give its image files.")
    return kept, first, voxels[: len(kept)]


def _geometry(
    frames: list[Frame],
) -> tuple[np.ndarray | None, tuple[float, float, float] | None, np.ndarray | None, dict[str, str]]:
    """Affine, spacing, single origins where the steps are uneven, and what was found."""
    first = frames[0]
    if first.spacing_mm is None:
        return None, None, None, {"spacing": "unknown"}
    affine = np.eye(4)
    affine[:3, 0] = first.orientation[:3] * first.spacing_mm[1]
    affine[:3, 1] = first.orientation[3:] * first.spacing_mm[0]
    affine[:3, 3] = first.position_mm
    positions = np.array([frame.position_mm for frame in frames])
    if len(frames) == 1:
        affine[:3, 2] = first.normal * (first.thickness_mm or 1.0)
        if first.thickness_mm is None:  # direction only: a pitch of 1 mm would be made up
            return affine, None, positions, {"slice_pitch": "unknown"}
        return affine, spacing_of_affine(affine), None, {"regular": "yes"}
    steps = np.diff(positions @ first.normal)
    step = float(np.median(steps))
    tolerance = max(_REGULAR_RELATIVE * step, _REGULAR_MM)
    checks: dict[str, str] = {}
    if np.abs(steps - step).max() <= tolerance:
        across = (positions[-1] - positions[0]) / (len(frames) - 1)
        affine[:3, 2] = across
        straight = positions[0] + np.arange(len(frames))[:, None] * across
        drift = float(np.abs(positions - straight).max())
        cosine = float(np.clip(across @ first.normal / np.linalg.norm(across), -1.0, 1.0))
        if (tilt := float(np.degrees(np.arccos(cosine)))) > _TILT_DEGREES:
            checks["gantry_tilt_degrees"] = f"{tilt:.2f}"
        if drift <= tolerance:
            return affine, spacing_of_affine(affine), None, {"regular": "yes"} | checks
    else:
        affine[:3, 2] = first.normal * step
        whole = np.rint(steps / step)
        if np.abs(steps - whole * step).max() <= tolerance:
            checks["missing_slices"] = str(int(whole.sum()) - len(steps))
    return affine, spacing_of_affine(affine), positions, {"regular": "no"} | checks
