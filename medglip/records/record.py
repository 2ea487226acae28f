"""The currency of medglip: Region, ImageRecord, VolumeRecord and what they hold. No files, no pixels, no torch.

Frozen, and valid from birth: a bad value raises RecordError. One Region type serves as truth, prediction, evidence for
an answer and citation of a report.
"""

from dataclasses import dataclass, field, replace
from math import inf, isfinite
from typing import Literal

from medglip.errors import RecordError
from medglip.records.masks import Rle

MODALITIES = (
    "ct", "mr", "xray", "ultrasound", "endoscopy", "dermoscopy", "fundus",
    "histopathology", "microscopy", "pet", "mammography", "oct", "other",
)  # fmt: skip
LATERALITIES = ("left", "right", "bilateral", "midline")
SPLITS = ("train", "val", "test", "unassigned")
PHRASE_KINDS = (
    "name",
    "synonym",
    "adjective",
    "laterality",
    "site",
    "size",
    "relation",
    "attribute",
    "report",
    "machine",
)
TEXT_KINDS = ("report", "caption", "finding", "question", "template")

Box = tuple[float, float, float, float]
Laterality = Literal["left", "right", "bilateral", "midline"] | None


def _check(good: bool, who: str, found: object, allowed: str) -> None:
    if not good:
        raise RecordError(f"{who}: found {found!r}; allowed: {allowed}.")


def concept_of(label: str, laterality: str | None = None) -> str:
    """Key of what a region shows: the label, and the patient's side where it has one.

    >>> concept_of("abdomen.kidney", "left")
    'abdomen.kidney@left'
    """
    return f"{label}@{laterality}" if laterality in ("left", "right") else label


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words that name a region. ``kind`` says how they came about; spatial words mean the patient's side."""

    text: str
    kind: str = "name"

    def __post_init__(self) -> None:
        """Check."""
        _check(bool(self.text.strip()), "Phrase.text", self.text, "non-empty text")
        _check(self.kind in PHRASE_KINDS, "Phrase.kind", self.kind, ", ".join(PHRASE_KINDS))


@dataclass(frozen=True, slots=True)
class Region:
    """One labelled place in one stored image, drawn by a reader or predicted by a model.

    Attributes:
        label: Id in the label tree, for example ``abdomen.kidney.tumor``.
        box_xyxy: ``(x0, y0, x1, y1)`` float pixels of the stored image; pixel (0, 0) covers [0, 1) x [0, 1), half-open:
            x1 is one past the last column.
        mask: Run-length code of the image's size, or None where only a box is known.
        laterality: The patient's side: left, right, bilateral, midline, or None (unknown or not meant).
        phrases: Words that name it.
        attributes: What the source or the model adds, plain values: ``{"diameter_mm": 12.0, "birads": "4"}``.
        instance: Key that links the slices of one 3-D object (or the frames of one in a clip), or None.
        parents: Ids of the regions that contain it.
        id: Unique in its dataset; given by ``identified`` (empty until then).
        score: Confidence in [0, 1]; None for a reader's mark.
        provenance: ``human``, ``machine`` (a model's mask shipped by the source), ``synthetic`` or ``predicted``.
        flags: What a user of the region should know: ``tiny``, ``touches_border``, ``merged``, ``uncertain``.
        long_axis_mm: Largest diameter of the mask in the image plane; None without a mask or a calibrated spacing.
        short_axis_mm: Largest extent across the long axis; None like it.
    """

    label: str
    box_xyxy: Box
    mask: Rle | None = None
    laterality: Laterality = None
    phrases: tuple[Phrase, ...] = ()
    attributes: dict[str, str | float | int | bool] = field(default_factory=dict)
    instance: str | None = None
    parents: tuple[str, ...] = ()
    id: str = ""
    score: float | None = None
    provenance: str = "human"
    flags: tuple[str, ...] = ()
    long_axis_mm: float | None = None
    short_axis_mm: float | None = None

    def __post_init__(self) -> None:
        """Check."""
        who = f"Region {self.label!r}"
        _check(bool(self.label), "Region.label", self.label, "an id of the label tree")
        x0, y0, x1, y1 = self.box_xyxy
        _check(all(map(isfinite, self.box_xyxy)) and x0 < x1 and y0 < y1, f"{who} box_xyxy", self.box_xyxy,
               "finite (x0, y0, x1, y1) with x0 < x1 and y0 < y1")  # fmt: skip
        _check(self.laterality is None or self.laterality in LATERALITIES, f"{who} laterality", self.laterality,
               ", ".join(LATERALITIES))  # fmt: skip
        _check(self.score is None or 0.0 <= self.score <= 1.0, f"{who} score", self.score, "a number in [0, 1] or None")
        _check(self.provenance in ("human", "machine", "synthetic", "predicted"), f"{who} provenance", self.provenance,
               "human, machine, synthetic, predicted")  # fmt: skip
        axes = (self.long_axis_mm, self.short_axis_mm)
        _check(axes == (None, None) or (None not in axes and 0 < axes[1] <= axes[0] < inf), f"{who} axes in mm", axes,  # type: ignore[operator]
               "0 < short <= long, or None for both")  # fmt: skip

    @property
    def concept(self) -> str:
        """``label`` or ``label@side``."""
        return concept_of(self.label, self.laterality)


@dataclass(frozen=True, slots=True)
class Intensity:
    """What the stored numbers mean: ``value = stored * slope + intercept`` in ``unit``; ``window`` is what to show.

    Attributes:
        unit: ``HU``, ``SUVbw``, ``au`` (arbitrary, one channel) or ``rgb``.
        slope: Unit per stored step.
        intercept: Value of stored 0.
        window: (low, high) in ``unit``, shown as black and white.
        inverted: True where the source was MONOCHROME1 and the stored pixels have been inverted.
    """

    unit: str = "au"
    slope: float = 1.0
    intercept: float = 0.0
    window: tuple[float, float] = (0.0, 255.0)
    inverted: bool = False

    def __post_init__(self) -> None:
        """Check."""
        _check(self.unit in ("HU", "SUVbw", "au", "rgb"), "Intensity.unit", self.unit, "HU, SUVbw, au, rgb")
        _check(self.window[0] < self.window[1], "Intensity.window", self.window, "(low, high) with low < high")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the pixels came from: enough to find them again in the source.

    Attributes:
        dataset: Name of the source.
        file: Path relative to the input folder, with ``/``.
        case: Key of the case in the source.
        frame: Frame of a multi-frame file, from 0; None elsewhere.
        axis: Array axis of the volume that was cut across (``k``, ``j`` or ``i``); None for a 2-D source.
        slice: Index along that axis in the volume as stored by the source; None for a 2-D source.
    """

    dataset: str
    file: str
    case: str
    frame: int | None = None
    axis: str | None = None
    slice: int | None = None


@dataclass(frozen=True, slots=True)
class Keys:
    """Keyed hashes (HMAC, hex) of patient, study and series, or None where the source does not say. Never raw ids."""

    patient: str | None = None
    study: str | None = None
    series: str | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """Characters of a text that name regions: ``text[start:end]``, and the ids of the regions."""

    start: int
    end: int
    regions: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check."""
        _check(0 <= self.start < self.end, "Span", (self.start, self.end), "0 <= start < end")
        _check(bool(self.regions), "Span.regions", self.regions, "at least one id of a region")


@dataclass(frozen=True, slots=True)
class Text:
    """Words about an image: a report, a caption, image-level findings, a question with its answer.

    Attributes:
        text: The words; of a question the question alone.
        kind: One of ``TEXT_KINDS``.
        language: BCP 47 tag, of the answer too.
        spans: Which words of ``text`` mean which regions.
        answer: What a text of kind ``question`` is answered with; empty in every other text.
    """

    text: str
    kind: str = "report"
    language: str = "en"
    spans: tuple[Span, ...] = ()
    answer: str = ""

    def __post_init__(self) -> None:
        """Check."""
        _check(bool(self.text.strip()), "Text.text", self.text, "non-empty text")
        _check(self.kind in TEXT_KINDS, "Text.kind", self.kind, ", ".join(TEXT_KINDS))
        good = bool(self.answer.strip()) if self.kind == "question" else not self.answer
        _check(good, f"Text.answer of kind {self.kind!r}", self.answer, "non-empty text with the kind 'question', else empty")
        _check(all(span.end <= len(self.text) for span in self.spans), "Text.spans", self.spans,
               f"spans inside the {len(self.text)} characters of the text")  # fmt: skip


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One stored 2-D image with all that is known of it.

    Attributes:
        id: 16 hex digits, stable over runs and machines.
        sha256: Hash of the stored pixels (``medglip.store.pixel_sha256``).
        perceptual_hash: 16 hex digits, alike for pixels that look alike (``medglip.store.perceptual_hash``); empty where
            it was not computed.
        width: Columns of the stored image.
        height: Rows of the stored image.
        channels: 1 or 3.
        bits: 8 or 16, unsigned.
        modality: One of ``MODALITIES``.
        origin: Where it came from.
        licence: SPDX id or text, of the source.
        modality_detail: ``{"sequence": "T2", "view": "PA", ...}``.
        body_region: Id of the label tree's top level, or None.
        affine_px_to_mm: 3x4 rows; (column, row, slice offset, 1) of a pixel CENTRE to patient LPS+ mm; None if unknown.
        spacing_mm: (row, column) pixel pitch in mm; None if unknown, never 1.0 for unknown.
        spacing_source: ``PixelSpacing``, ``ImagerPixelSpacing``, ``ultrasound region``, ``affine``, ``source`` ...
        intensity: What the stored numbers mean.
        keys: Hashed patient, study, series.
        group: Images of one group are never split apart.
        split: train, val, test or unassigned.
        split_source: ``official``, ``hash`` or ``none``.
        regions: What is marked.
        absent: Concepts that this image was searched for and that are not there.
        exhaustive: Concepts that the source marks wherever they are.
        texts: Reports, captions, findings, questions with their answers.
        flags: ``burned_in_risk``, ``face_risk``, ``oblique``, ``lossy`` ...
    """

    id: str
    sha256: str
    width: int
    height: int
    channels: int
    bits: int
    modality: str
    origin: Origin
    licence: str
    perceptual_hash: str = ""
    modality_detail: dict[str, str] = field(default_factory=dict)
    body_region: str | None = None
    affine_px_to_mm: tuple[float, ...] | None = None
    spacing_mm: tuple[float, float] | None = None
    spacing_source: str | None = None
    intensity: Intensity = Intensity()
    keys: Keys = Keys()
    group: str = ""
    split: str = "unassigned"
    split_source: str = "none"
    regions: tuple[Region, ...] = ()
    absent: tuple[str, ...] = ()
    exhaustive: tuple[str, ...] = ()
    texts: tuple[Text, ...] = ()
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check."""
        who = f"Image {self.id!r} of {self.origin.dataset!r}"
        _check(self.width > 0 and self.height > 0, f"{who} size", (self.width, self.height), "at least 1 x 1")
        _check(self.modality in MODALITIES, f"{who} modality", self.modality, ", ".join(MODALITIES))
        _check(self.split in SPLITS, f"{who} split", self.split, ", ".join(SPLITS))
        _check(self.channels in (1, 3), f"{who} channels", self.channels, "1, 3")
        _check(self.bits in (8, 16), f"{who} bits", self.bits, "8, 16")
        _check(self.affine_px_to_mm is None or len(self.affine_px_to_mm) == 12, f"{who} affine_px_to_mm",
               self.affine_px_to_mm, "12 numbers, three rows of four, or None")  # fmt: skip
        _check(self.spacing_mm is None or min(self.spacing_mm) > 0, f"{who} spacing_mm", self.spacing_mm,
               "(row, column) above 0, or None")  # fmt: skip
        for region in self.regions:
            x0, y0, x1, y1 = region.box_xyxy
            _check(x0 >= 0 and y0 >= 0 and x1 <= self.width and y1 <= self.height, f"{who} region {region.label!r}",
                   region.box_xyxy, f"a box inside {self.width} x {self.height}")  # fmt: skip
            _check(region.mask is None or region.mask.size_hw == (self.height, self.width),
                   f"{who} region {region.label!r} mask", region.mask and region.mask.size_hw,
                   f"a mask of {(self.height, self.width)}")  # fmt: skip
        marked = {region.concept for region in self.regions}
        _check(not marked.intersection(self.absent), f"{who} absent", sorted(marked.intersection(self.absent)),
               "concepts that no region of the image shows")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Instance:
    """One 3-D object of a volume.

    Attributes:
        id: What ``Region.instance`` of its slices says.
        label: Id in the label tree.
        laterality: The patient's side, or None.
        box_kji: ``(k0, j0, i0, k1, j1, i1)`` voxel edges, half-open, of the volume as stored by the source.
        volume_mm3: From the voxel count; None where spacing is not trusted.
        voxels: Number of voxels.
        box_mm: ``(x0, y0, z0, x1, y1, z1)`` LPS+ mm, around the eight corners of ``box_kji``; None without an affine.
    """

    id: str
    label: str
    laterality: Laterality
    box_kji: tuple[int, int, int, int, int, int]
    volume_mm3: float | None
    voxels: int
    box_mm: tuple[float, float, float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class VolumeRecord:
    """One 3-D source: its geometry and its objects. The slices that were stored are ImageRecords.

    Attributes:
        id: 16 hex digits.
        modality: One of ``MODALITIES``.
        origin: Where it came from.
        licence: SPDX id or text.
        shape_kji: Slices, rows, columns.
        affine_ijk_to_mm: 16 numbers, rows of a 4x4; (i, j, k, 1) of a voxel CENTRE to LPS+ mm; None if unknown.
        spacing_kji_mm: Pitch along each array axis; None if unknown.
        orientation: Where i, j and k point, for example ``LPS``; None if unknown.
        keys: Hashed patient, study, series.
        checks: ``{"regular": "yes", "missing_slices": "3", ...}``.
        instances: Its objects.
    """

    id: str
    modality: str
    origin: Origin
    licence: str
    shape_kji: tuple[int, int, int]
    affine_ijk_to_mm: tuple[float, ...] | None = None
    spacing_kji_mm: tuple[float, float, float] | None = None
    orientation: str | None = None
    keys: Keys = Keys()
    checks: dict[str, str] = field(default_factory=dict)
    instances: tuple[Instance, ...] = ()


@dataclass(frozen=True, slots=True)
class Reject:
    """Something that was not converted, and why.

    Attributes:
        dataset: Name of the source.
        file: Path relative to the input folder.
        reason: Short code, the same for the same cause: ``unreadable_file``, ``size_mismatch``, ``unknown_label`` ...
        detail: One sentence: what was found, what is allowed, what to do.
        case: Key of the case, or empty.
    """

    dataset: str
    file: str
    reason: str
    detail: str
    case: str = ""


def identified(record: ImageRecord) -> ImageRecord:
    """The same record with an id for every region that has none: image id, hyphen, number in order."""
    regions = tuple(
        region if region.id else replace(region, id=f"{record.id}-{number:03d}") for number, region in enumerate(record.regions)
    )
    return replace(record, regions=regions)
