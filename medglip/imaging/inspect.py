"""Says what a file or folder is, in plain facts for a curator. Reads headers first, pixels only to find problems."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.uid import UID

from medglip.errors import InputError
from medglip.imaging.dicom import MODALITY_OF, NO_IMAGE, is_dicom, read_dicom, read_header
from medglip.imaging.nifti import is_volume_file, read_volume
from medglip.imaging.raster import ENDINGS, read_raster
from medglip.imaging.series import dicom_files, read_series, series_in

Facts = dict[str, Any]


def inspect(path: Path) -> list[Facts]:
    """Facts of a file, or of each series and kind of file in a folder.

    Args:
        path: A file or a folder.

    Returns:
        One dict a thing found, with ``path`` and ``format`` first; ``problems`` lists what a user should know.

    Raises:
        InputError: it is not there, is empty, or is a file that cannot be read.
    """
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise InputError(f"{str(path)!r} is not there; give a file or a folder.")
    return [_file(path)]


def _folder(folder: Path) -> list[Facts]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    if not files:
        raise InputError(f"Folder {str(folder)!r} holds no file.")
    dicoms = dicom_files(folder)
    facts: list[Facts] = []
    kinds = Counter(NO_IMAGE.get(kind, "image") for kind in map(_dicom_kind, dicoms))
    if dicoms:
        facts.append({"path": str(folder), "format": "DICOM", "files": len(dicoms), "kinds": dict(sorted(kinds.items()))})
        facts += _series(dicoms)
    others = Counter("".join(path.suffixes[-2:]).lower() for path in files if path not in set(dicoms))
    if others:
        facts.append({"path": str(folder), "format": "files", "by_ending": dict(others.most_common())})
    return facts


def _series(paths: list[Path]) -> list[Facts]:
    facts = []
    readable = [path for path in paths if _dicom_kind(path) != "unreadable"]
    for series in series_in(readable):
        fact: Facts = {"path": str(series.frames[0].path.parent), "format": "DICOM series",
                       "modality": MODALITY_OF.get(series.modality, "other"), "slices": len(series.frames)}  # fmt: skip
        try:
            volume = read_series(series)
        except InputError as error:
            facts.append(fact | {"problems": [str(error)]})
            continue
        facts.append(fact | _geometry(volume))
    return facts


def _file(path: Path) -> Facts:
    if is_volume_file(path):
        volume = read_volume(path)
        return {"path": str(path), "format": "volume", "values": _span(volume.voxels)} | _geometry(volume)
    if is_dicom(path):
        return _dicom(path)
    if path.suffix.lower() in ENDINGS:
        pixels = read_raster(path)
        height, width = pixels.shape[:2]
        return {"path": str(path), "format": path.suffix[1:].upper(), "size": f"{width} x {height}",
                "channels": 1 if pixels.ndim == 2 else pixels.shape[2], "type": str(pixels.dtype),
                "values": _span(pixels), "problems": _constant(pixels)}  # fmt: skip
    raise InputError(
        f"{path.name!r} is of no format that medglip reads; allowed: DICOM, NIfTI, NRRD, MHA, {', '.join(ENDINGS)}."
    )


def _dicom(path: Path) -> Facts:
    header = read_header(path)
    kind = str(header.get("Modality") or "")
    facts: Facts = {"path": str(path), "format": "DICOM", "object": _uid_name(header.get("SOPClassUID")),
                    "transfer_syntax": _uid_name(header.file_meta.get("TransferSyntaxUID"))}  # fmt: skip
    if kind in NO_IMAGE or "Rows" not in header:
        return facts | {"holds": NO_IMAGE.get(kind, "no image")}
    image = read_dicom(path)
    count, height, width = image.frames.shape[:3]
    return facts | {
        "modality": image.modality, "size": f"{width} x {height}", "frames": count, "unit": image.unit,
        "values": _span(image.frames), "window": image.window, "monochrome1": image.inverted,
        "spacing_mm": image.spacing_mm, "spacing_from": image.spacing_source, **image.detail,
        "problems": [*image.flags, *_constant(image.frames)],
    }  # fmt: skip


def _uid_name(uid: Any) -> str:
    return uid.name if isinstance(uid, UID) else "not said"


def _dicom_kind(path: Path) -> str:
    try:
        return str(read_header(path).get("Modality") or "")
    except InputError:
        return "unreadable"


def _geometry(volume: Any) -> Facts:
    spacing = volume.spacing_kji_mm
    return {
        "shape_kji": list(volume.shape_kji), "unit": volume.unit, "orientation": volume.orientation,
        "spacing_kji_mm": [round(float(pitch), 4) for pitch in spacing] if spacing else None,
        **volume.checks, **volume.detail, "problems": list(volume.flags),
    }  # fmt: skip


def _span(values: np.ndarray) -> str:
    return f"{values.min():g} to {values.max():g}"


def _constant(values: np.ndarray) -> list[str]:
    return ["constant_image"] if values.min() == values.max() else []
