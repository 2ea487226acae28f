"""Cases: one phrase asked of one image and what came of it; asked, written, read. Knows no figures.

A label counts for an image when the image shows it, or its record says that it does not; what is not known is not asked.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medglip.errors import InputError
from medglip.evaluate.boxes import box_iou
from medglip.predict import Grounder
from medglip.records.labels import LabelTree
from medglip.records.masks import Rle
from medglip.records.record import ImageRecord, Region

FORMAT = "1"
_FORMAT_KEY = b"medglip.cases"
_TEXTS = ("image", "patient", "source", "modality", "level", "concept", "phrase")
_BOXES = pa.list_(pa.list_(pa.float32(), 4))
SCHEMA = pa.schema(
    [(name, pa.string()) for name in _TEXTS]
    + [
        ("size_wh", pa.list_(pa.int32(), 2)),
        ("spacing_xy_mm", pa.list_(pa.float64())),
        ("boxes", _BOXES),
        ("scores", pa.list_(pa.float32())),
        ("presence", pa.float64()),
        ("spread", pa.float64()),
        ("truth", _BOXES),
        ("others", _BOXES),
        ("other_concepts", pa.list_(pa.string())),
        ("found_masks", pa.list_(pa.string())),
        ("true_masks", pa.list_(pa.string())),
    ],
    metadata={_FORMAT_KEY: FORMAT.encode()},
)


@dataclass(frozen=True, eq=False)
class Case:
    """One phrase asked of one image, and what came of it.

    Attributes:
        image: Id of the image's record.
        patient: Key of the patient, whose cases are not independent: the source, "/", and the record's group or hashed
            patient; the image's id where neither is known.
        source: Name of the source.
        modality: One of ``medglip.records.MODALITIES``.
        level: Level of the concept in the label tree.
        concept: ``label`` or ``label@side``.
        phrase: The words that were asked.
        size_wh: Columns and rows of the image.
        spacing_xy_mm: Distance of columns and of rows in mm; None where it is unknown.
        boxes: (K, 4) float32 xyxy pixels of the image, by falling score.
        scores: (K,) float32 above 0.
        presence: Probability that the image shows the phrase.
        spread: Standard deviation of the logit of presence; NaN where the model does not say.
        truth: (G, 4) float32 xyxy, the regions that the concept covers; G = 0 where it is absent.
        others: (O, 4) float32 xyxy, every other region of the image.
        other_concepts: Theirs, in their order.
        found_masks: Masks of ``boxes``, of the image's size, None where there is none; () where the model has no mask head.
        true_masks: Masks of ``truth``, None where only the box is known.
    """

    image: str
    patient: str
    source: str
    modality: str
    level: str
    concept: str
    phrase: str
    size_wh: tuple[int, int]
    spacing_xy_mm: tuple[float, float] | None
    boxes: np.ndarray
    scores: np.ndarray
    presence: float
    spread: float
    truth: np.ndarray
    others: np.ndarray
    other_concepts: tuple[str, ...]
    found_masks: tuple[Rle | None, ...] = ()
    true_masks: tuple[Rle | None, ...] = ()

    @cached_property
    def iou(self) -> np.ndarray:
        """(K, G) float64 of the boxes with the true ones."""
        return box_iou(self.boxes, self.truth)

    @property
    def iou_any(self) -> np.ndarray:
        """(K, G + O) float64 of the boxes with every region of the image, the true ones first; not kept."""
        return np.concatenate([self.iou, box_iou(self.boxes, self.others)], axis=1)

    @property
    def shown(self) -> bool:
        """Whether the image shows what was asked."""
        return len(self.truth) > 0


def known_phrases(record: ImageRecord, tree: LabelTree) -> dict[str, bool]:
    """Concepts whose truth is known for an image: True where it shows them.

    Of a concept that is marked wherever it is and that no region shows nothing is known where a region of a wider concept
    may be it: a lung without a side may be the left one. What a model marked is no truth.
    """
    shown = [region.concept for region in _marked(record)]
    known = dict.fromkeys(record.absent, False)
    for concept in record.exhaustive:
        if any(tree.covers(concept, other) for other in shown):
            known[concept] = True
        elif not any(tree.covers(other, concept) for other in shown):
            known[concept] = False
    return known | dict.fromkeys(shown, True)


def _marked(record: ImageRecord) -> list[Region]:
    return [region for region in record.regions if region.provenance != "predicted"]


def ask(grounder: Grounder, pairs: Sequence[tuple[Any, ImageRecord]], tree: LabelTree) -> Iterator[Case]:
    """Ask every known phrase of some images at once.

    Args:
        grounder: Answers.
        pairs: Datasets, each with one of its records; a record of which nothing is known gives no case.
        tree: The label tree; it words the phrases.

    Yields:
        Cases, image by image, phrases in the order of ``known_phrases``.
    """
    asked = [(data, record, known) for data, record in pairs if (known := list(known_phrases(record, tree)))]
    if not asked:
        return
    images = [data.display(record.id) for data, record, _ in asked]
    texts = [[tree.concept_name(concept) for concept in concepts] for _, _, concepts in asked]
    has_masks = getattr(getattr(getattr(grounder, "model", None), "extras", None), "masks", None) is not None
    answers = grounder.answer(images, texts, [record.modality for _, record, _ in asked])
    for (_, record, concepts), phrases, answer in zip(asked, texts, answers, strict=True):
        for place, (concept, phrase) in enumerate(zip(concepts, phrases, strict=True)):
            yield _case(record, tree, (concept, phrase), answer, place, has_masks)


def _case(
    record: ImageRecord, tree: LabelTree, asked: tuple[str, str], answer: Any, place: int, has_masks: bool
) -> Case:  # fmt: skip
    """The case of one phrase of one image."""
    concept, phrase = asked
    regions = _marked(record)
    every = np.array([region.box_xyxy for region in regions], np.float32).reshape(-1, 4)
    mine = np.array([tree.covers(concept, region.concept) for region in regions], bool)
    kept = np.flatnonzero(answer.scores[place] > 0)
    spread = getattr(answer, "uncertainty", None)  # a peer in a comparison may have neither spread nor masks
    return Case(
        image=record.id,
        patient=f"{record.origin.dataset}/{record.group or record.keys.patient or record.id}",
        source=record.origin.dataset,
        modality=record.modality,
        level=tree[tree.split(concept)[0]].level,
        concept=concept,
        phrase=phrase,
        size_wh=(record.width, record.height),
        spacing_xy_mm=None if record.spacing_mm is None else (float(record.spacing_mm[1]), float(record.spacing_mm[0])),
        boxes=np.asarray(answer.boxes[place][kept], np.float32),
        scores=np.asarray(answer.scores[place][kept], np.float32),
        presence=float(answer.presence[place]),
        spread=float("nan") if spread is None else float(spread[place]),
        truth=every[mine],
        others=every[~mine],
        other_concepts=tuple(region.concept for region, own in zip(regions, mine, strict=True) if not own),
        found_masks=tuple(answer.masks.get((place, int(number))) for number in kept) if has_masks else (),
        true_masks=tuple(region.mask for region, own in zip(regions, mine, strict=True) if own),
    )


def write_cases(path: str | Path, cases: Sequence[Case]) -> Path:
    """Write cases as one Parquet file, whole or not at all; masks as COCO run-length codes of the image's size.

    Raises:
        InputError: a mask is not of its image's size.
    """
    path = Path(path)
    columns: list[pa.Array] = [pa.array([getattr(case, name) for case in cases], pa.string()) for name in _TEXTS]
    columns += [
        pa.array([case.size_wh for case in cases], SCHEMA.field("size_wh").type),
        pa.array([case.spacing_xy_mm for case in cases], SCHEMA.field("spacing_xy_mm").type),
        _boxes_column([case.boxes for case in cases]),
        pa.array([case.scores for case in cases], SCHEMA.field("scores").type),
        pa.array([case.presence for case in cases], pa.float64()),
        pa.array([case.spread for case in cases], pa.float64()),
        _boxes_column([case.truth for case in cases]),
        _boxes_column([case.others for case in cases]),
        pa.array([case.other_concepts for case in cases], SCHEMA.field("other_concepts").type),
        pa.array([_codes(case, case.found_masks) for case in cases], SCHEMA.field("found_masks").type),
        pa.array([_codes(case, case.true_masks) for case in cases], SCHEMA.field("true_masks").type),
    ]
    new = path.with_name(path.name + ".new")
    pq.write_table(pa.Table.from_arrays(columns, schema=SCHEMA), new, row_group_size=2**14)
    os.replace(new, path)
    return path


def read_cases(path: str | Path) -> list[Case]:
    """The cases that ``write_cases`` wrote, exactly.

    Raises:
        InputError: there is no such file, it is damaged, or holds no cases of this version.
    """
    path = Path(path)
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"Cases {str(path)!r} cannot be read ({error}); give a file that an evaluation wrote.") from error
    found = (table.schema.metadata or {}).get(_FORMAT_KEY, b"").decode()
    if found != FORMAT or table.schema.names != SCHEMA.names:
        raise InputError(
            f"Cases {str(path)!r}: found format {found!r}; this medglip reads {FORMAT!r}; evaluate the checkpoint again."
        )
    table = table.combine_chunks()
    boxes = {name: _boxes_of(table[name], 4) for name in ("boxes", "truth", "others")}
    scores = _boxes_of(table["scores"], 1)
    plain = {name: table[name].to_pylist() for name in SCHEMA.names if name not in ("boxes", "truth", "others", "scores")}
    return [_case_of_row(row, {name: plain[name][row] for name in plain},
                         {name: boxes[name][row] for name in boxes} | {"scores": scores[row][:, 0]})
            for row in range(len(table))]  # fmt: skip


def _case_of_row(row: int, plain: dict[str, Any], arrays: dict[str, np.ndarray]) -> Case:
    """One row of the file."""
    width, height = plain["size_wh"]
    masks = {
        name: tuple(None if code is None else Rle((height, width), code) for code in plain.pop(name))
        for name in ("found_masks", "true_masks")
    }
    spacing = plain.pop("spacing_xy_mm")
    return Case(**plain | arrays | masks | {
        "size_wh": (width, height), "spacing_xy_mm": None if spacing is None else (spacing[0], spacing[1]),
        "other_concepts": tuple(plain["other_concepts"]),
    })  # fmt: skip


def _codes(case: Case, masks: Sequence[Rle | None]) -> list[str | None]:
    """Run-length codes of masks, whose size the file does not repeat."""
    for mask in masks:
        if mask is not None and mask.size_hw != case.size_wh[::-1]:
            raise InputError(f"Image {case.image!r}: found a mask of {mask.size_hw}; allowed: {case.size_wh[::-1]}, its size.")
    return [None if mask is None else mask.counts for mask in masks]


def _boxes_column(arrays: Sequence[np.ndarray]) -> pa.Array:
    """Boxes (K, 4) of each case as a column."""
    offsets = np.cumsum([0, *(len(boxes) for boxes in arrays)]).astype(np.int32)
    joined = np.concatenate([np.zeros((0, 4), np.float32), *arrays]).astype(np.float32)
    return pa.ListArray.from_arrays(offsets, pa.FixedSizeListArray.from_arrays(joined.ravel(), 4))


def _boxes_of(column: pa.ChunkedArray, width: int) -> list[np.ndarray]:
    """The arrays (K, width) float32 of a column of lists, one a case."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    ends = np.cumsum(whole.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64))[:-1]
    flat = whole.flatten()
    values = (flat.flatten() if width > 1 else flat).to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    return np.split(values.reshape(-1, width), ends) if len(whole) else []
