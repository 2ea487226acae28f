"""Explains one DICOM file: an image, or what else the object is, in facts and words. Prints no ids, names or dates."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from medglip.errors import InputError
from medglip.imaging.contours import read_contours
from medglip.imaging.decoders import syntax_name
from medglip.imaging.dicom import DicomImage, Unusable, read_dicom, read_header
from medglip.imaging.explain import UNITS, Facts, counted, listed, pitch_words, problem_words, window_words
from medglip.imaging.header import BROKEN, PIXEL_KEYWORDS, no_image_of, object_of, overlays_of
from medglip.imaging.pixels import syntax_of
from medglip.imaging.segmentation import read_segmentation
from medglip.imaging.tiles import is_slide, slide_of


def inspect_dicom(path: Path) -> Facts:
    """Facts and words of a DICOM file.

    Raises:
        InputError: it is broken, or an image that nothing decodes.
    """
    header = read_header(path)
    try:
        syntax = syntax_name(str(syntax_of(header)))
    except AttributeError:
        syntax = "not said"
    facts: Facts = {"path": str(path), "format": "DICOM", "object": object_of(header), "transfer_syntax": syntax}
    holds = no_image_of(header)
    if holds:
        return facts | _other(path, header, holds)
    if "Rows" not in header or not any(word in read_header(path, pixels=True) for word in PIXEL_KEYWORDS):
        words = [f"A DICOM object ({facts['object']}) without pixels.", "medglip passes it over."]
        return facts | {"holds": "no image", "words": words}
    return facts | (_slide(path) if is_slide(header) else _image(path, header, syntax))


def _image(path: Path, header: Dataset, syntax: str) -> Facts:
    image = read_dicom(path)
    count, height, width = image.frames.shape[:3]
    problems = [*image.flags, *(["constant_image"] if image.frames.min() == image.frames.max() else [])]
    if image.spacing_mm is None:
        problems.append("spacing_unknown")
    words = [
        f"A picture of modality {image.modality} ({object_of(header)}), {syntax}: {counted(count, 'frame')} of"
        f" {width} x {height} pixels.",
        f"Its values are {UNITS[image.unit]} from {image.frames.min():g} to {image.frames.max():g}"
        + ("; it is MONOCHROME1, so medglip turns black and white around." if image.inverted else "."),
        f"In the plane, {pitch_words(image.spacing_mm, image.spacing_source)}.",
        f"medglip {window_words(image.unit, image.window)}.",
        *_frame_words(count, header, image), *problem_words(problems),
    ]  # fmt: skip
    return {
        "modality": image.modality, "size": f"{width} x {height}", "frames": count, "unit": image.unit,
        "values": f"{image.frames.min():g} to {image.frames.max():g}", "window": image.window,
        "monochrome1": image.inverted, "photometric": str(header.get("PhotometricInterpretation") or "not said"),
        "bits_stored": header.get("BitsStored"), "spacing_mm": image.spacing_mm, "spacing_from": image.spacing_source,
        "overlays": len(overlays_of(header)), **image.detail, "problems": problems, "words": words,
    }  # fmt: skip


def _frame_words(count: int, header: Dataset, image: DicomImage) -> list[str]:
    if count == 1 or "mosaic" in image.flags:
        return []
    if "PerFrameFunctionalGroupsSequence" in header:
        return ["Its frames carry places of their own: as a series they may make a volume (inspect the folder)."]
    return ["Its frames are moments of one place (a clip): a converter shows some of them, evenly spread."]


def _slide(path: Path) -> Facts:
    slide = slide_of(path)
    words = [
        f"A whole slide of {slide.size_px[0]} x {slide.size_px[1]} pixels in {counted(slide.tiles, 'tile')} of"
        f" {slide.tile_px[0]} x {slide.tile_px[1]} ({slide.kind}).",
        f"In the plane, {pitch_words(slide.spacing_mm, 'PixelSpacing')}.",
        "medglip reads it tile by tile (medglip.imaging.tiles.tiles_of), never whole.",
    ]
    return {"modality": "histopathology", "size": f"{slide.size_px[0]} x {slide.size_px[1]}", "tiles": slide.tiles,
            "tile_size": f"{slide.tile_px[0]} x {slide.tile_px[1]}", "spacing_mm": slide.spacing_mm, "problems": [],
            "words": words}  # fmt: skip


def _other(path: Path, header: Dataset, holds: str) -> Facts:
    """Facts of an object that is no image."""
    explain = _OBJECTS.get(holds)
    try:
        found = explain(path, header) if explain else {"words": [f"It holds a {holds}."]}
    except Unusable:
        raise
    except BROKEN as error:
        raise InputError(f"DICOM file {path.name!r} is broken or cut off: {error}.") from error
    last = [] if holds in ("segmentation", "contours") else ["medglip makes no picture of it; it passes it over."]
    return {"holds": holds} | found | {"words": [*found["words"], *last]}


def _segmentation(path: Path, header: Dataset) -> Facts:
    found = read_segmentation(path)
    segments = [
        {"number": segment.number, "label": segment.label, "type": " ".join(segment.kind) if segment.kind else None,
         "region": " ".join(segment.region) if segment.region else None,
         "modifier": " ".join(segment.modifier) if segment.modifier else None}
        for segment in found.segments
    ]  # fmt: skip
    names = [f"{item['label']!r} ({item['type'] or 'no code'})" for item in segments]
    words = [
        f"A segmentation ({found.kind}) of {counted(len(segments), 'segment')}: {listed(names)}.",
        f"It has {counted(found.frames, 'frame')} of {header.get('Columns')} x {header.get('Rows')} pixels; it is placed on its"
        " image by positions. Convert it together with its image (converter dicom_seg).",
    ]
    return {"kind": found.kind, "frames": found.frames, "segments": segments, "words": words}


def _contours(path: Path, header: Dataset) -> Facts:
    rois = [{"name": roi.name, "contours": len(roi.contours)} for roi in read_contours(path)]
    total = sum(int(roi["contours"]) for roi in rois)  # type: ignore[call-overload]
    names = [f"{roi['name']!r} ({roi['contours']})" for roi in rois]
    words = [
        f"Contours of {counted(len(rois), 'region of interest', 'regions of interest')}, {total} in all: {listed(names, 30)}.",
        "Convert them together with the CT or MR that they were drawn on (converter dicom_rtstruct).",
    ]
    return {"rois": rois, "contours": total, "words": words}


def _report(path: Path, header: Dataset) -> Facts:
    kinds: Counter[str] = Counter()
    measured: Counter[str] = Counter()
    waiting = list(header.get("ContentSequence") or [])
    while waiting:
        item = waiting.pop()
        kinds[str(item.get("ValueType") or "?")] += 1
        if item.get("ValueType") == "NUM":
            measured[_meaning(item, "ConceptNameCodeSequence")] += 1
        waiting.extend(item.get("ContentSequence") or [])
    title = _meaning(header, "ConceptNameCodeSequence")
    told = f" It measures: {listed([f'{name} ({count})' for name, count in sorted(measured.items())])}." if measured else ""
    words = [f"A structured report titled {title!r} with {sum(kinds.values())} items"
             f" ({listed([f'{count} {kind}' for kind, count in sorted(kinds.items())])}).{told}"]  # fmt: skip
    return {
        "title": title,
        "items": dict(sorted(kinds.items())),
        "measurements": dict(sorted(measured.items())),
        "words": words,
    }


def _annotations(path: Path, header: Dataset) -> Facts:
    groups = [
        {"label": str(item.get("AnnotationGroupLabel") or ""), "shape": str(item.get("GraphicType") or ""),
         "annotations": int(item.get("NumberOfAnnotations") or 0), "type": _meaning(item, "AnnotationPropertyTypeCodeSequence")}
        for item in header.get("AnnotationGroupSequence") or []
    ]  # fmt: skip
    names = [f"{group['label']!r}: {group['annotations']} {group['shape']} of {group['type']}" for group in groups]
    return {"groups": groups, "words": [f"Annotations of a slide in {counted(len(groups), 'group')}: {listed(names)}."]}


def _plan(path: Path, header: Dataset) -> Facts:
    beams = len(header.get("BeamSequence") or header.get("IonBeamSequence") or [])
    return {"beams": beams, "words": [f"A radiotherapy plan of {counted(beams, 'beam')}."]}


def _dose(path: Path, header: Dataset) -> Facts:
    try:
        count: int | str = int(header.get("NumberOfFrames") or 1)
    except (TypeError, ValueError):
        count = "an unknown number of frames"
    kind = str(header.get("DoseUnits") or "no unit")
    size = f"{header.get('Columns')} x {header.get('Rows')} x {count}"
    return {"size": size, "unit": kind, "words": [f"A radiotherapy dose in {kind} on a grid of {size}."]}


def _waveform(path: Path, header: Dataset) -> Facts:
    groups = [(int(item.get("NumberOfWaveformChannels") or 0), float(item.get("SamplingFrequency") or 0))
              for item in header.get("WaveformSequence") or []]  # fmt: skip
    shown = listed([f"{channels} channels at {rate:g} Hz" for channels, rate in groups])
    return {"groups": len(groups), "words": [f"Waveforms: {shown}."]}


def _directory(path: Path, header: Dataset) -> Facts:
    kinds = Counter(str(item.get("DirectoryRecordType") or "?") for item in header.get("DirectoryRecordSequence") or [])
    shown = listed([f"{count} {kind}" for kind, count in sorted(kinds.items())])
    words = [f"A directory (DICOMDIR) of {shown}. medglip finds the files by itself; give the folder that holds them."]
    return {"records": dict(sorted(kinds.items())), "words": words}


def _meaning(item: Dataset, keyword: str) -> str:
    codes = item.get(keyword) or []
    return str(codes[0].get("CodeMeaning") or "not said") if codes else "not said"


_OBJECTS: dict[str, Callable[[Path, Dataset], Facts]] = {
    "segmentation": _segmentation, "contours": _contours, "structured report": _report, "annotations": _annotations,
    "key objects": _report, "radiotherapy plan": _plan, "dose": _dose, "waveform": _waveform,
    "directory of other files": _directory,
}  # fmt: skip


def constant(values: np.ndarray) -> list[str]:
    """``constant_image`` where all values are one."""
    return ["constant_image"] if values.size and values.min() == values.max() else []


def span(values: Any) -> str:
    """Lowest and highest value."""
    return f"{values.min():g} to {values.max():g}"
