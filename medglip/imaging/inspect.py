"""Says what a file or folder is: facts for programs, words for people. Reads headers first, pixels to find problems."""

from collections import Counter
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.imageglobals import LoggingOutputSuppressor
from PIL import Image

from medglip.errors import InputError, MedglipError
from medglip.imaging.dicom import MODALITY_OF, is_dicom, read_header
from medglip.imaging.explain import UNITS, Facts, counted, listed, orientation_words, pitch_words, problem_words, window_words
from medglip.imaging.frames import Frame, frames_of
from medglip.imaging.header import Bounded, no_image_of
from medglip.imaging.inspect_dicom import constant, inspect_dicom, span
from medglip.imaging.inspect_tables import (
    ARCHIVE_ENDINGS,
    TABLE_ENDINGS,
    VIDEO_ENDINGS,
    inspect_archive,
    inspect_array,
    inspect_json,
    inspect_table,
    inspect_text,
    inspect_xml,
)
from medglip.imaging.itk_header import check_itk_header
from medglip.imaging.nifti import is_itk, is_volume_file, read_volume
from medglip.imaging.raster import ENDINGS, is_tiff, pages_of, read_raster
from medglip.imaging.series import dicom_files, read_series, series_of
from medglip.imaging.slices import cuts
from medglip.imaging.tiles import slide_of
from medglip.imaging.volume import Volume

# At most so many different values make a picture look like a mask.
_FEW_VALUES = 12


def inspect(path: Path) -> list[Facts]:
    """Facts of a file, or of each series and kind of file in a folder.

    Args:
        path: A file or a folder.

    Returns:
        One dict a thing found, with ``path`` and ``format`` first; ``problems`` lists codes of what a user should know
        (``medglip.imaging.explain.MEANINGS``), ``words`` says all of it in sentences. A folder's files that cannot be
        read have ``format`` ``unreadable`` and a ``reason``.

    Raises:
        InputError: it is not there, is empty, or is a file that cannot be read.
    """
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise InputError(f"{str(path)!r} is not there; give a file or a folder.")
    try:
        return [_file(path)]
    except MedglipError:
        raise
    except Exception as error:  # whatever a strange file does, its user gets a sentence
        raise InputError(f"{path.name!r} cannot be read: {type(error).__name__}: {error}.") from error


def _folder(folder: Path) -> list[Facts]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    if not files:
        raise InputError(f"Folder {str(folder)!r} holds no file.")
    dicoms = dicom_files(folder)
    facts: list[Facts] = []
    if dicoms:
        facts += _dicom_folder(folder, dicoms)
    others = Counter("".join(path.suffixes[-2:]).lower() or "no ending" for path in files if path not in set(dicoms))
    if others:
        kinds = listed([f"{count} {ending}" for ending, count in others.most_common()], 20)
        facts.append({"path": str(folder), "format": "files", "by_ending": dict(others.most_common()),
                      "words": [f"Other files: {kinds}. Inspect one of them to learn what it holds."]})  # fmt: skip
    return facts


def _dicom_folder(folder: Path, paths: list[Path]) -> list[Facts]:
    """The kinds of DICOM files, the volumes that they make, and the files that cannot be read."""
    kinds: Counter[str] = Counter()
    frames: list[Frame] = []
    placed = 0
    broken: list[Facts] = []
    for path in paths:
        try:
            header = read_header(path)
            found = frames_of(path, header)
        except InputError as error:
            kinds["unreadable"] += 1
            broken.append({"path": str(path), "format": "unreadable", "reason": str(error), "words": [str(error)]})
            continue
        kinds[no_image_of(header) or ("image" if "Rows" in header else "no image")] += 1
        frames += found
        placed += bool(found)
    volumes = [_series_facts(series) for series in series_of(frames)]
    loose = kinds["image"] - placed
    shown = listed([f"{count} {kind}" for kind, count in sorted(kinds.items())])
    words = [f"{counted(len(paths), 'DICOM file')}: {shown}.", f"They make {counted(len(volumes), 'volume')}"
             + (f"; {counted(loose, 'image')} without a place in the patient (projections, clips, photographs)." if loose
                else ".")]  # fmt: skip
    head: Facts = {"path": str(folder), "format": "DICOM", "files": len(paths), "kinds": dict(sorted(kinds.items())),
                   "words": words}  # fmt: skip
    return [head, *volumes, *broken]


def _series_facts(series: Any) -> Facts:
    modality = MODALITY_OF.get(series.modality, "other")
    fact: Facts = {"path": str(series.frames[0].path.parent), "format": "DICOM series", "modality": modality,
                   "slices": len(series.frames)}  # fmt: skip
    try:
        volume = read_series(series)
    except InputError as error:
        reason = getattr(error, "reason", "unreadable_file")
        return fact | {"problems": [reason], "reason": str(error), "words": [
            f"A series of {counted(len(series.frames), 'frame')} ({modality}) that makes no volume. {error}"]}  # fmt: skip
    return fact | _volume_facts(volume, f"A {modality} series", "PixelSpacing and the places of the slices")


def _file(path: Path) -> Facts:
    name = path.name.lower()
    if path.stat().st_size == 0:
        raise InputError(f"{path.name!r} is empty (0 bytes).")
    if is_volume_file(path):
        return _volume_file(path)
    if is_dicom(path):
        return inspect_dicom(path)
    if name.endswith(ENDINGS) or is_tiff(path):
        return _raster(path)
    readers = ((TABLE_ENDINGS, inspect_table), ((".json", ".jsonl"), inspect_json), ((".xml",), inspect_xml),
               ((".npy", ".npz"), inspect_array), (ARCHIVE_ENDINGS, inspect_archive))  # fmt: skip
    for endings, reader in readers:
        if name.endswith(endings):
            return reader(path)
    if name.endswith(VIDEO_ENDINGS):
        return {"path": str(path), "format": "video", "words": ["A video. medglip reads no videos; export its frames as PNG."]}
    if (text := inspect_text(path)) is not None:
        return text
    with path.open("rb") as file:
        begins = file.read(8)
    raise InputError(
        f"{path.name!r} begins with {begins!r} and is of no format that medglip reads; allowed: DICOM, NIfTI, MGH, NRRD, MHA,"
        f" {', '.join(ENDINGS)}, CSV, JSON, XML, NPY, ZIP, TAR."
    )


def _volume_file(path: Path) -> Facts:
    """A NIfTI, MGH, NRRD or MetaImage file; of several volumes the first."""
    count = _volumes(path)
    volume = read_volume(path, index=0 if count > 1 else None)
    name = path.name.lower()
    kind = "NRRD" if name.endswith((".nrrd", ".nhdr")) else "MetaImage" if is_itk(path) else (
        "MGH" if name.endswith((".mgz", ".mgh")) else "NIfTI")  # fmt: skip
    facts: Facts = {"path": str(path), "format": "volume", "kind": kind, "volumes": count, "values": span(volume.voxels),
                    "type": str(volume.voxels.dtype)}  # fmt: skip
    facts |= _volume_facts(volume, f"A {kind} volume" + (f", the first of {count}" if count > 1 else ""), "the file's affine")
    values = np.unique(volume.voxels[:: max(1, len(volume.voxels) // 64)]) if volume.voxels.ndim == 3 else np.zeros(99)
    if len(values) <= 256 and np.array_equal(values, np.rint(values)) and values.min() >= 0 and len(values) > 1:
        facts["words"].append(f"Its values are {len(values)} whole numbers: it may be a label volume"
                              f" ({listed([f'{value:g}' for value in values])}).")  # fmt: skip
    if count > 1:
        facts["words"].append("Four dimensions: time or channels; a source's option `index` says which volume to use.")
    return facts


def _volumes(path: Path) -> int:
    """How many volumes a file of three or four dimensions holds; 1 where only reading it can tell."""
    if is_itk(path):
        import SimpleITK

        check_itk_header(path)
        reader = SimpleITK.ImageFileReader()
        reader.SetFileName(str(path))
        try:
            reader.ReadImageInformation()
        except RuntimeError:
            return 1  # reading it says what is wrong
        size, parts = reader.GetSize(), reader.GetNumberOfComponents()
        return int(np.prod(size[3:])) if len(size) > 3 else 1 if parts == 3 else max(parts, 1)
    try:
        with LoggingOutputSuppressor():
            shape: tuple[int, ...] = nibabel.load(path).shape  # type: ignore[attr-defined]
        return int(np.prod(shape[3:]))
    except Exception:
        return 1  # reading it says what is wrong


def _volume_facts(volume: Volume, what: str, source: str) -> Facts:
    """Geometry, values, planes and problems of a volume."""
    spacing = volume.spacing_kji_mm
    k, j, i = volume.shape_kji
    problems = [*volume.flags, *constant(volume.voxels)]
    problems += [code for code in ("sform_qform", "sheared", "not_finite_filled", "duplicate_slices", "repeated_files")
                 if code in volume.checks]  # fmt: skip
    problems += ["slice_pitch_unknown"] if volume.checks.get("slice_pitch") == "unknown" else []
    problems += ["spacing_unknown"] if spacing is None and "slice_pitch" not in volume.checks else []
    cut = cuts(volume)[0]
    problems += ["oblique"] if cut.oblique else []
    apart = volume.checks.get("apart_by")
    words = [
        f"{what} of {counted(k, 'slice')}, {i} x {j} pixels" + (f", one of several told apart by {apart}." if apart else "."),
        f"In the patient, {orientation_words(volume.orientation)}; {pitch_words(spacing, source)}."
        + (f" medglip cuts it across its plane of acquisition, {cut.plane}." if cut.plane else ""),
        f"Its values are {UNITS[volume.unit]} from {span(volume.voxels)}; medglip {window_words(volume.unit, volume.window)}.",
        *problem_words(problems),
    ]  # fmt: skip
    if "missing_slices" in volume.checks:
        words.append(f"{counted(int(volume.checks['missing_slices']), 'slice')} missing after slice"
                     f" {volume.checks['missing_after_slice']} (from 0).")  # fmt: skip
    return {
        "shape_kji": list(volume.shape_kji), "unit": volume.unit, "orientation": volume.orientation, "plane": cut.plane or None,
        "spacing_kji_mm": [round(float(pitch), 4) for pitch in spacing] if spacing else None,
        **volume.checks, **volume.detail, "problems": problems, "words": words,
    }  # fmt: skip


def _raster(path: Path) -> Facts:
    """A PNG, JPEG, TIFF, GIF or BMP; one too large for memory as a slide of tiles."""
    try:
        pixels = read_raster(path)
    except InputError as error:
        if getattr(error, "reason", "") != "too_large" or not is_tiff(path):
            raise
        slide = slide_of(path)
        words = [f"A {slide.kind} of {slide.size_px[0]} x {slide.size_px[1]} pixels in {counted(slide.tiles, 'tile')},"
                 f" {counted(len(slide.levels), 'level')}; {pitch_words(slide.spacing_mm, 'its tags')}.",
                 "medglip reads it tile by tile (medglip.imaging.tiles.tiles_of), never whole."]  # fmt: skip
        return {"path": str(path), "format": "TIFF", "size": f"{slide.size_px[0]} x {slide.size_px[1]}", "tiles": slide.tiles,
                "spacing_mm": slide.spacing_mm, "problems": [], "words": words}  # fmt: skip
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    pages, (kind, problems) = pages_of(path), _image_facts(path)
    distinct = _distinct(pixels)
    problems += constant(pixels)
    if 1 < len(distinct) <= _FEW_VALUES:
        problems.append("maybe_mask")
    colours = "grey" if channels == 1 else "colour"
    words = [
        f"A {colours} picture ({kind}) of {width} x {height} pixels, {pixels.dtype}, values {span(pixels)}"
        + (f", the first of {pages} pages or frames." if pages > 1 else "."),
        f"medglip {window_words('rgb' if channels == 3 else 'au', None)}; nothing says how large a pixel is.",
        *problem_words(problems),
    ]  # fmt: skip
    if "maybe_mask" in problems:
        words.append(f"Its values: {listed(distinct)}.")
    return {"path": str(path), "format": kind, "size": f"{width} x {height}", "channels": channels, "pages": pages,
            "type": str(pixels.dtype), "values": span(pixels), "problems": problems, "words": words}  # fmt: skip


def _distinct(pixels: np.ndarray) -> list[str]:
    """The different values or colours, ascending, of 8-bit pictures; at most one more than makes a picture look like a mask."""
    if pixels.dtype != np.uint8:
        return [f"{value:g}" for value in np.unique(pixels)[: _FEW_VALUES + 1]]
    if pixels.ndim == 2:
        return [str(value) for value in np.flatnonzero(np.bincount(pixels.ravel(), minlength=256))]
    present = np.zeros(1 << 24, bool)  # a table of all colours: many times faster than sorting a large image
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    present[((red << 16) | (green << 8) | blue).ravel()] = True
    return [f"({value >> 16}, {value >> 8 & 255}, {value & 255})" for value in np.flatnonzero(present)[: _FEW_VALUES + 1]]


def _image_facts(path: Path) -> tuple[str, list[str]]:
    """Format, and problems that the decoded pixels do not show."""
    problems = []
    with Image.open(Bounded(path)) as image:
        kind = str(image.format)
        if image.getexif().get(0x0112, 1) != 1:
            problems.append("turned_by_exif")
        if image.mode in ("RGBA", "LA", "PA") and len(set(image.getchannel("A").getextrema())) > 1:
            problems.append("alpha_varies")
    return kind, problems + (["lossy"] if kind == "JPEG" else [])
