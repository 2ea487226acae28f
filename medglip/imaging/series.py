"""DICOM series as volumes: frames grouped, sorted by position and checked. Knows nothing of labels or datasets.

One SeriesInstanceUID is not one volume: frames are split by size, orientation, ImageType and stack, and, where several
lie at one place, by the attribute that tells them apart (echo, b-value, time), at last by the order of their numbers.
Slices are never invented: where some are missing, the volume keeps the places of those that are there
(``origins_mm``) and says so in its checks.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import ArrayLike

from medglip.errors import InputError
from medglip.imaging.dicom import DicomImage, Unusable, is_dicom, read_dicom, read_header
from medglip.imaging.frames import SPLITTERS, Frame, Group, frames_of
from medglip.imaging.plain import plain_values
from medglip.imaging.volume import Volume, spacing_of_affine

__all__ = ["Frame", "Group", "References", "Series", "dicom_files", "frames_of", "read_folder", "read_series", "series_in",
           "series_of"]  # fmt: skip

_SAME_PLACE_MM = 0.01
# A step is regular within 1 % or 0.1 mm of the median (highdicom allows 1 %, dicom2nifti 0.1 mm).
_REGULAR_RELATIVE, _REGULAR_MM = 0.01, 0.1
_TILT_DEGREES = 0.5


@dataclass(frozen=True, slots=True)
class References:
    """UIDs that a SEG or RTSTRUCT names: the series and SOP instances that it marks, and its own frames of reference."""

    series: set[str]
    instances: set[str]
    frames_of_reference: set[str]


@dataclass(frozen=True, eq=False)
class Series:
    """Frames that make one volume, sorted along their normal.

    Attributes:
        uid, study, frame_of_reference, modality: As the headers say.
        frames: Sorted.
        apart: What tells this volume from others of its series at the same places, ``(attribute, value)``; or None.
        repeated: Files left out because another one has the same SOPInstanceUID.
    """

    uid: str
    study: str
    frame_of_reference: str | None
    modality: str
    frames: tuple[Frame, ...]
    apart: tuple[str, str] | None = None
    repeated: int = 0

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
            single = list({frame.sop_uid: frame for frame in reversed(_sorted(oriented))}.values())
            repeated = len({frame.path for frame in oriented}) - len({frame.path for frame in single})
            for apart, part in _by_splitter(_sorted(single)):
                facts = (group.series, group.study, group.reference or None, group.modality)
                found.append(Series(*facts, tuple(part), apart, repeated))
    return found


def read_series(series: Series) -> Volume:
    """Voxels of a series, sorted along its normal, with the affine that its positions give.

    Raises:
        InputError: a file is broken, or different pixels lie at one place and nothing tells them apart.
    """
    frames, first, voxels = _stacked(series)
    affine, spacing, origins, checks = _geometry(frames)
    if dropped := len(series.frames) - len(frames):
        checks["duplicate_slices"] = str(dropped)
    if series.repeated:
        checks["repeated_files"] = str(series.repeated)
    if series.apart:
        checks["apart_by"] = "=".join(series.apart)
    flags = first.flags + (("gantry_tilt",) if "gantry_tilt_degrees" in checks else ())
    if checks.get("regular") == "no":
        flags = (*flags, "missing_slices" if "missing_slices" in checks else "uneven_slices")
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


def _by_orientation(frames: list[Frame]) -> list[list[Frame]]:
    """Frames whose direction cosines agree within 0.001, together."""
    groups: list[list[Frame]] = []
    for frame in frames:
        for group in groups:
            if _close(group[0].orientation, frame.orientation, atol=1e-3) and (
                group[0].spacing_mm is None
                or frame.spacing_mm is None
                or _close(group[0].spacing_mm, frame.spacing_mm, rtol=1e-3)
            ):
                group.append(frame)
                break
        else:
            groups.append([frame])
    return groups


def _close(first: ArrayLike, second: ArrayLike, rtol: float = 1e-5, atol: float = 1e-8) -> bool:
    """``np.allclose`` of finite numbers, which takes long to find out that they are equal, as almost all are."""
    return bool((np.asarray(first) == np.asarray(second)).all()) or np.allclose(first, second, rtol, atol)


def _sorted(frames: list[Frame]) -> list[Frame]:
    normal = frames[0].normal
    return sorted(frames, key=lambda frame: (round(float(frame.position_mm @ normal), 3), frame.sop_uid, str(frame.path)))


def _collide(frames: list[Frame]) -> bool:
    normal = frames[0].normal
    along = [float(frame.position_mm @ normal) for frame in _sorted(frames)]
    return bool((np.diff(along) < _SAME_PLACE_MM).any())


def _by_splitter(frames: list[Frame]) -> list[tuple[tuple[str, str] | None, list[Frame]]]:
    """One list where every place holds one frame; else the lists into which one attribute splits them cleanly."""
    if not _collide(frames):
        return [(None, frames)]
    places = len(np.unique(np.round([float(frame.position_mm @ frames[0].normal) for frame in frames], 2)))
    for keyword in SPLITTERS:
        parts: dict[str, list[Frame]] = defaultdict(list)
        for frame in frames:
            parts[frame.tags[keyword]].append(frame)
        if len(parts) > 1 and not any(_collide(part) or len(part) < places for part in parts.values()):
            return [((keyword, value), _sorted(parts[value])) for value in sorted(parts, key=_as_number)]
    if rounds := _by_instance(frames, places):
        return [(("InstanceNumber", str(number)), _sorted(part)) for number, part in enumerate(rounds, 1)]
    return [(None, frames)]  # identical pixels may still explain it; reading will tell


def _by_instance(frames: list[Frame], places: int) -> list[list[Frame]]:
    """Volumes by the order of the instance numbers, where it leaves no doubt; else none.

    Every place holds equally many frames, and the numbers run through all places of one volume before the next, or
    through all volumes of one place before the next.
    """
    rounds, rest = divmod(len(frames), places)
    ordered = sorted(frames, key=lambda frame: frame.instance)
    if rest or rounds < 2 or len({frame.instance for frame in frames}) < len(frames):
        return []
    for parts in ([ordered[at * places : (at + 1) * places] for at in range(rounds)],
                  [ordered[at::rounds] for at in range(rounds)]):  # fmt: skip
        if not any(_collide(part) for part in parts):
            return parts
    return []


def _as_number(text: str) -> tuple[float, str]:
    """A key that sorts numbers by their size, and other words after them."""
    try:
        return float(text), text
    except ValueError:
        return np.inf, text


def _stacked(series: Series) -> tuple[list[Frame], DicomImage, np.ndarray]:
    """Frames without repeats, the facts of the first, and their values (K, H, W[, 3])."""
    kept: list[Frame] = []
    first: DicomImage | None = None
    voxels: np.ndarray | None = None
    whole: dict[Path, DicomImage] = {}
    for frame in series.frames:
        # The facts are those of the first file, which is read in full.
        plain = plain_values(frame.path, frame.plain) if first is not None and frame.plain is not None else None
        if first is not None and plain is not None:
            image, values = first, plain
        elif frame.number is None:
            image, values = (image := read_dicom(frame.path)), image.frames[0]
        else:
            image = whole[frame.path] = whole.get(frame.path) or read_dicom(frame.path)
            values = image.frames[frame.number]
        if first is None or voxels is None:
            first, voxels = image, np.empty((len(series.frames), *values.shape), values.dtype)
        if kept and abs(float((frame.position_mm - kept[-1].position_mm) @ frame.normal)) < _SAME_PLACE_MM:
            if np.array_equal(values, voxels[len(kept) - 1]):
                continue
            raise Unusable(
                "conflicting_slices",
                f"DICOM files {kept[-1].path.name!r} and {frame.path.name!r} lie at one place with different pixels,"
                " and no attribute tells them apart; give one acquisition at a time.",
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
    step = median(steps.tolist())
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
            # Numbers of the slices that are there, from 0, after which others are missing, once for each missing one.
            gaps = np.repeat(np.arange(len(steps)), np.maximum(whole.astype(int) - 1, 0))
            checks["missing_after_slice"] = ", ".join(map(str, gaps))
    return affine, spacing_of_affine(affine), positions, {"regular": "no"} | checks
