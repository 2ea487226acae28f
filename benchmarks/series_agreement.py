"""Do medglip, SimpleITK and dcm2niix make the same volumes of DICOM series? Grey values and affines, series by series.

Usage: MEDGLIP_REAL_DATA=FOLDER scripts/bench series_agreement [--folder FOLDER] [--dcm2niix PROGRAM]

Every folder below FOLDER that holds DICOM series is read three times: by medglip, by SimpleITK (GDCM) and by dcm2niix,
whose NIfTI files are read back. Volumes are laid on one grid by their affines, never by their order, and compared voxel by
voxel. A difference is told by its size and by what medglip knows of the series (a tilted gantry, missing slices, a mosaic,
PET in SUV). Without dcm2niix its column stays empty.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK

from medglip.errors import InputError
from medglip.imaging.dicom import is_dicom, read_header
from medglip.imaging.frames import frames_of
from medglip.imaging.nifti import read_volume
from medglip.imaging.series import Series, read_series, series_of
from medglip.imaging.suv import suv_factor
from medglip.imaging.volume import GridError, Volume, on_grid_of

ROOT = Path(__file__).resolve().parents[1]
# What a property of a series means for the peers; the first that holds explains a difference.
REASONS = {
    "gzip": "packed with gzip, which only medglip unpacks",
    "mosaic": "a Siemens mosaic: medglip takes its slices apart, SimpleITK leaves them side by side",
    "false_mosaic": "a mosaic by its header, whose tiles do not divide the picture: medglip leaves it whole",
    "repeated": "several files with one SOPInstanceUID and other pixels: each program keeps another one of them",
    "gantry_tilt": "a tilted gantry: the same values; medglip's affine is sheared as the positions are, an ITK image and the"
                   " NIfTI file of dcm2niix cannot say so or are made upright",
    "missing_slices": "missing slices: the same values; medglip keeps the place of each slice, the other spaces them evenly",
    "uneven_slices": "uneven slices: the same values; medglip keeps the place of each, the other spaces them evenly",
    "suv": "a PET: the same values once medglip's SUV are compared with the other's activity times the SUV factor",
    "float": "floating-point pixel data, which SimpleITK does not read",
    "no_volume": "the other makes no volume of it (this build of dcm2niix has no decoder for the transfer syntax)",
    "sign": "header and codestream disagree about the sign: medglip believes the codestream",
    "pitch_across": "one slice: the same values and plane; the pitch across it is SpacingBetweenSlices for medglip, another"
                    " attribute or 1 mm for the other",
    "lossy": "compressed with loss: decoders differ by one step",
    "rounded": "the same values but for the rounding of a fractional rescale slope in 32-bit floats",
}  # fmt: skip


def series_in_folder(folder: Path) -> Iterator[Series]:
    """The series that files directly in a folder make."""
    frames = []
    for path in sorted(folder.iterdir()):
        if path.is_file() and is_dicom(path):
            try:
                frames += frames_of(path, read_header(path))
            except InputError:
                continue
    yield from series_of(frames)


def by_simpleitk(series: Series) -> Volume:
    """The series as SimpleITK reads it: the order of GDCM where it finds the same files, else medglip's."""
    files = list(dict.fromkeys(str(frame.path) for frame in series.frames))
    if len(files) > 1:
        theirs = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(series.frames[0].path.parent), series.uid)
        image = SimpleITK.ReadImage(list(theirs) if set(theirs) == set(files) else files)
    else:
        image = SimpleITK.ReadImage(files[0])
    array = SimpleITK.GetArrayFromImage(image)
    numbers = [frame.number for frame in series.frames]
    # Of a file that holds several volumes SimpleITK gives all frames in the order of the file.
    if len(files) == 1 and None not in numbers and len(array) != len(numbers) and array.shape[1:] == array.shape[-2:]:
        array = array[numbers]
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (image.GetDimension(),) * 2)[:3, :3] * np.array(image.GetSpacing()[:3])
    affine[:3, 3] = image.GetOrigin()[:3]
    return Volume(array, affine, None)


def run_dcm2niix(folder: Path, program: str, out: Path) -> None:
    """Let dcm2niix write its NIfTI files, named by series; Philips values as they are displayed, as the standard has them."""
    subprocess.run([program, "-b", "n", "-z", "n", "-d", "0", "-p", "n", "-f", "%j", "-o", str(out), str(folder)],
                   capture_output=True, check=False)  # fmt: skip


def by_dcm2niix(series: Series, out: Path) -> list[Volume]:
    """Every volume that dcm2niix made of a series."""
    found = []
    for path in sorted(path for path in out.glob("*.nii") if path.name.startswith(series.uid)):
        count = int(np.prod(nibabel.load(path).shape[3:]))  # type: ignore[attr-defined]
        for index in range(count):
            try:
                found.append(read_volume(path, index=index if count > 1 else None))
            except InputError:
                continue
    return found


def difference(ours: Volume, theirs: Volume) -> dict[str, Any]:
    """How far two volumes differ: in grey value and, at the worst corner, in voxels; or why they cannot be compared."""
    ours, theirs = (replace(volume, voxels=_one_number(volume.voxels), origins_mm=None) for volume in (ours, theirs))
    if theirs.voxels.shape[:3] != ours.voxels.shape and sorted(theirs.voxels.shape) != sorted(ours.voxels.shape):
        return {"state": "other shape", "their_shape_kji": list(theirs.voxels.shape[:3])}
    try:
        voxels, off = on_grid_of(ours, theirs, "peer")
        candidates = [voxels]
    except GridError:
        candidates, off = _flips(theirs.voxels), None
    own = ours.voxels.astype(np.float64)
    apart = min(float(np.abs(one.astype(np.float64) - own).max()) for one in candidates if one.shape == own.shape)
    state = "equal" if apart == 0 and off == 0.0 else "same grid" if off is not None else "other grid"
    return {"state": state, "largest_difference": round(apart, 6), "voxels_off": None if off is None else round(off, 4)}


def _flips(voxels: np.ndarray) -> list[np.ndarray]:
    """An array turned around along none, some or all of its axes."""
    return [voxels[:: 1 - 2 * k, :: 1 - 2 * j, :: 1 - 2 * i] for k in (0, 1) for j in (0, 1) for i in (0, 1)]


def _one_number(voxels: np.ndarray) -> np.ndarray:
    """Colours as one number a voxel, so that they are compared at once."""
    return voxels[..., :3].astype(np.float64) @ (65536.0, 256.0, 1.0) if voxels.ndim == 4 else voxels


def best(ours: Volume, candidates: list[Volume]) -> dict[str, Any]:
    """The difference to the most similar candidate."""
    found = [difference(ours, theirs) for theirs in candidates]
    order = {"equal": 0, "same grid": 1, "other grid": 2, "other shape": 3}
    return min(found, key=lambda one: (order[one["state"]], one.get("largest_difference", 0.0)), default={"state": "no volume"})


def reason_of(ours: Volume, series: Series, peer: str, result: dict[str, Any]) -> str:
    """What explains a difference; empty for none."""
    if result["state"] in ("equal", "not run"):
        return ""
    path, apart = series.frames[0].path, result.get("largest_difference")
    same = apart is not None and apart <= 1e-6 * max(1.0, float(np.abs(ours.voxels).max()))
    holds = {
        "gzip": path.suffix == ".gz",
        "mosaic": peer == "simpleitk" and "mosaic" in ours.flags,
        "repeated": "repeated_files" in ours.checks and not same,
        **{flag: flag in ours.flags and same for flag in ("gantry_tilt", "missing_slices", "uneven_slices")},
        "suv": ours.unit == "SUVbw" and same,
        "float": result["state"] == "refused" and "FloatPixelData" in read_header(path, pixels=True),
        "no_volume": result["state"] == "no volume",
        "pitch_across": same and result["state"] == "other grid" and len(series.frames) == 1,
        "sign": "bits_mismatch" in ours.flags,
        "false_mosaic": "MOSAIC" in (read_header(path).get("ImageType") or ()) and "mosaic" not in ours.flags,
        "lossy": "lossy" in ours.flags and apart is not None and apart <= 1.0,
        "rounded": same and result["state"] == "same grid",
    }
    return next((REASONS[key] for key, true in holds.items() if true), "not explained")


def compared(folder: Path, root: Path, program: str | None) -> Iterator[dict[str, Any]]:
    """A row for each series of a folder."""
    found = list(series_in_folder(folder))
    if not found:
        return
    with tempfile.TemporaryDirectory() as out:
        if program:
            run_dcm2niix(folder, program, Path(out))
        for series in found:
            yield {"folder": str(folder.relative_to(root)), "slices": len(series.frames)} | _row(series, program, Path(out))


def _row(series: Series, program: str | None, out: Path) -> dict[str, Any]:
    """What the three programs make of a series."""
    try:
        ours = read_series(series)
    except InputError as error:
        return {"medglip": getattr(error, "reason", "unreadable_file")}
    factor = suv_factor(read_header(series.frames[0].path)) if ours.unit == "SUVbw" else None
    row: dict[str, Any] = {"medglip": f"{' x '.join(map(str, ours.shape_kji))} {ours.unit}"}
    row["apart_by"] = ours.checks.get("apart_by")
    try:
        row["simpleitk"] = difference(ours, _times(by_simpleitk(series), factor))
    except (RuntimeError, ValueError, IndexError) as error:
        last = str(error).strip().splitlines()[-1]
        row["simpleitk"] = {"state": "refused", "why": last.replace(str(series.frames[0].path), series.frames[0].path.name)}
    theirs = [_times(volume, factor) for volume in by_dcm2niix(series, out)]
    row["dcm2niix"] = best(ours, theirs) if program else {"state": "not run"}
    for peer in ("simpleitk", "dcm2niix"):
        row[peer]["reason"] = reason_of(ours, series, peer, row[peer])
    return row


def _times(volume: Volume, factor: float | None) -> Volume:
    return volume if factor is None else replace(volume, voxels=(volume.voxels * factor).astype(np.float32))


def main() -> None:
    """Compare all series and write benchmarks/results/series_agreement.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=os.environ.get("MEDGLIP_REAL_DATA"))
    parser.add_argument("--dcm2niix", default=shutil.which("dcm2niix"))
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/series_agreement.json")
    given = parser.parse_args()
    if not given.folder:
        parser.error("give --folder, or set MEDGLIP_REAL_DATA to the folder that holds the samples")
    warnings.simplefilter("ignore")
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    root = Path(given.folder)
    folders = sorted({path.parent for path in root.rglob("*") if path.is_file()})
    rows = [row for folder in folders for row in compared(folder, root, given.dcm2niix)]
    versions = {"SimpleITK": SimpleITK.Version_VersionString(), "dcm2niix": _version(given.dcm2niix)}
    given.out.write_text(json.dumps({"versions": versions, "series": rows}, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        states = [row.get(peer, {}).get("state", "-") for peer in ("simpleitk", "dcm2niix")]
        print(f"{row['folder']:<55} {row['medglip']:<24} {states[0]:<12} {states[1]}")


def _version(program: str | None) -> str | None:
    if not program:
        return None
    done = subprocess.run([program, "-v"], capture_output=True, text=True, check=False)
    return (done.stdout.strip().splitlines() or ["?"])[-1]


if __name__ == "__main__":
    main()
