"""Self-training: a teacher's boxes for what texts name, or labels leave open, and nobody marked; written as a new dataset.

Knows no training. A box is written as a region of provenance ``predicted`` with its score, beside the regions that are
there, so that ``medglip train`` reads the new dataset as any other; the dataset that was asked about is not touched.

Source: GLIP (arXiv 2112.03857), section 3.3: noun phrases of captions, boxes of score above 0.5. Here a phrase may stay
without a box: the teacher also says whether it is in the image at all.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from medglip.deliver.unmarked import Asked, Unmarked
from medglip.errors import DatasetError, InputError
from medglip.model.checkpoints import CheckpointInfo
from medglip.predict import Answer
from medglip.records import ImageRecord, LabelTree, Phrase, Region, Span, label_tree
from medglip.records.picture import Picture
from medglip.records.record import SPLITS, identified
from medglip.store.manifest import NAME, read_manifest
from medglip.store.matrix import matrix_of
from medglip.store.read import Dataset
from medglip.store.write import Writer

TOGETHER = 8  # images answered at once
SAME = 0.5  # IoU from which two boxes mean one place
MARK = "pseudo_labels"  # key of a part that was written here
_COUNTS = ("images", "asked", "kept", "boxes")

Progress = Callable[[int, int], None]


class Teacher(Protocol):
    """Who is asked (``medglip.predict.Grounder`` is one)."""

    info: CheckpointInfo

    def answer(
        self, images: Sequence[np.ndarray], phrases: Sequence[Sequence[str]], modalities: Sequence[str | None]
    ) -> list[Answer]:
        """All boxes of all phrases."""


@dataclass(frozen=True)
class Lesson:
    """What the teacher is asked, and what is believed.

    Attributes:
        checkpoint: Who the teacher is (``checkpoint_id``); written with every box.
        threshold: A box is kept where its score is above it, 0 to 1; GLIP: 0.5.
        split: Images that are asked about; the others are copied as they are. ``all``: all of them.
        labels: Also ask for every concept that the teacher knows, that the image may show and that nobody marks in it.
    """

    checkpoint: str
    threshold: float = 0.5
    split: str = "train"
    labels: bool = False

    def __post_init__(self) -> None:
        """Check."""
        if not 0 <= self.threshold < 1:
            raise InputError(f"Pseudo-labels: found threshold {self.threshold!r}; allowed: 0 to below 1; GLIP took 0.5.")
        if self.split not in (*SPLITS, "all"):
            raise InputError(f"Pseudo-labels: found split {self.split!r}; allowed: {', '.join((*SPLITS, 'all'))}.")


def checkpoint_id(folder: str | Path) -> str:
    """16 hex digits that tell a checkpoint from others: of its weights and its ``config.json``."""
    digest = hashlib.sha256()
    for name in ("model.safetensors", "config.json"):
        with (Path(folder) / name).open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def pseudo_label(
    teacher: Teacher, dataset: Dataset, out: str | Path, lesson: Lesson, *, overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write a dataset once more, with the teacher's boxes beside the regions that are there.

    Parts are written one after the other; where a run was stopped, the same call goes on after the last whole part.

    Args:
        teacher: Who is asked.
        dataset: Whose images are asked about; only read.
        out: Folder of the new dataset.
        lesson: What is asked and believed.
        overwrite: Begin anew where ``out`` was written by this function before.
        progress: Called with the images done and their total.

    Returns:
        ``lesson``, the counts ``images`` (asked about), ``asked`` (phrases), ``kept`` (phrases with a box), ``boxes``; the
        same by ``modalities``; ``left_out``: mentions and phrases that were not asked, by reason.

    Raises:
        DatasetError: ``out`` is the dataset itself, is another dataset, or was begun with another teacher or lesson.
    """
    folder = Path(out)
    done = _done(folder, dataset, overwrite)
    unmarked = Unmarked(label_tree(), matrix_of(dataset), teacher.info.concepts if lesson.labels else ())
    work = _Work(teacher, dataset, lesson, unmarked, progress)
    writer = Writer(folder)
    records, volumes = dataset.records(), dataset.volume_records()
    counts = []
    for part, entry in sorted(dataset.manifest["parts"].items()):
        made = {**asdict(lesson), "of": _fingerprint(entry)}
        mine = islice(records, entry["counts"].get("images", 0))
        own = list(islice(volumes, entry["counts"].get("volumes", 0)))
        if part in done:
            found = done[part][MARK]
            if {name: found.get(name) for name in made} != made:
                raise DatasetError(
                    f"Dataset {str(folder)!r}: part {part!r} was made with {_told(found)}, and now is asked for {_told(made)}; "
                    "give a new folder, or overwrite it."
                )
            work.seen += sum(1 for _ in mine)
            counts.append(found["counts"])
            continue
        tally = _Tally()
        info = {name: value for name, value in entry.items() if name not in ("counts", "files", "cases")}
        info[MARK] = {**made, "counts": tally.plain}  # filled while the pictures are written
        writer.write(part, work.pictures(mine, tally), own, (), info)
        counts.append(tally.plain)
    return {"out": str(folder), "lesson": asdict(lesson), **_joined(counts)}


def _done(folder: Path, dataset: Dataset, overwrite: bool) -> dict[str, Any]:
    """Parts that are there already."""
    if dataset.place.local is not None and folder.resolve() == dataset.place.local.resolve():
        raise DatasetError(
            f"Dataset {str(folder)!r}: found it as input and as output; the truth is not written to; name another."
        )
    if not (folder / NAME).exists():
        if folder.exists() and any(one.name != ".writing" and one.name != ".lock" for one in folder.iterdir()):
            raise DatasetError(f"Folder {str(folder)!r}: found files and no dataset; give a new folder.")
        return {}
    parts: dict[str, Any] = read_manifest(folder)["parts"]
    if strange := sorted(part for part, entry in parts.items() if MARK not in entry):
        raise DatasetError(
            f"Dataset {str(folder)!r}: found the part {strange[0]!r}, which is no pseudo-labels; give a new folder."
        )
    if overwrite:
        shutil.rmtree(folder)
        return {}
    return parts


def _fingerprint(entry: dict[str, Any]) -> str:
    """Of a part's files: another if anything in it changes."""
    return hashlib.sha256(json.dumps(entry["files"], sort_keys=True).encode()).hexdigest()[:16]


def _told(made: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value!r}" for name, value in made.items() if name != "counts")


class _Tally:
    """Counts of a part, as plain values that a manifest can keep; they fill as its pictures are written."""

    def __init__(self) -> None:
        self.plain: dict[str, Any] = {**dict.fromkeys(_COUNTS, 0), "modalities": {}, "left_out": {}}

    def add(self, modality: str, asked: int, kept: int, boxes: int) -> None:
        own = self.plain["modalities"].setdefault(modality, dict.fromkeys(_COUNTS, 0))
        for table in (self.plain, own):
            for name, more in zip(_COUNTS, (1, asked, kept, boxes), strict=True):
                table[name] += more

    def leave_out(self, reasons: Counter) -> None:
        for reason, more in reasons.items():
            self.plain["left_out"][reason] = self.plain["left_out"].get(reason, 0) + more


def _joined(counts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    total = _Tally().plain
    for one in counts:
        for name in _COUNTS:
            total[name] += one[name]
        for modality, table in one["modalities"].items():
            own = total["modalities"].setdefault(modality, dict.fromkeys(_COUNTS, 0))
            for name in _COUNTS:
                own[name] += table[name]
        for reason, more in one["left_out"].items():
            total["left_out"][reason] = total["left_out"].get(reason, 0) + more
    return total


@dataclass
class _Work:
    """Asks the teacher about images in order, some at a time."""

    teacher: Teacher
    dataset: Dataset
    lesson: Lesson
    unmarked: Unmarked
    progress: Progress | None
    seen: int = 0

    def pictures(self, records: Iterator[ImageRecord], tally: _Tally) -> Iterator[Picture]:
        """The images with what the teacher found in them."""
        while some := list(islice(records, TOGETHER)):
            asked = [self._asked(record, tally) for record in some]
            places = [place for place, phrases in enumerate(asked) if phrases]
            answers: dict[int, Answer] = {}
            if places:
                images = [self.dataset.display(some[place].id) for place in places]
                names = [[one.name for one in asked[place]] for place in places]
                found = self.teacher.answer(images, names, [some[place].modality for place in places])
                answers = dict(zip(places, found, strict=True))
            for place, record in enumerate(some):
                if place in answers:
                    record = self._taught(record, asked[place], answers[place], tally)
                yield Picture(record, self.dataset.pixels(record.id))
                self.seen += 1
                if self.progress is not None:
                    self.progress(self.seen, len(self.dataset))

    def _asked(self, record: ImageRecord, tally: _Tally) -> list[Asked]:
        if self.lesson.split not in ("all", record.split):
            return []
        asked, reasons = self.unmarked(record)
        tally.leave_out(reasons)
        return asked

    def _taught(self, record: ImageRecord, asked: Sequence[Asked], answer: Answer, tally: _Tally) -> ImageRecord:
        """The record with a region for each box that is believed, which the words of its texts name."""
        found = surest(self._believed(record, asked, answer), self.unmarked.tree)
        tally.add(record.modality, len(asked), len({one.concept for one, _ in found}), len(found))
        record = identified(record)
        taken = {region.id for region in record.regions}
        every = (f"{record.id}-{number:03d}" for number in count(len(taken)))
        free = (name for name in every if name not in taken)
        named = [(one, replace(region, id=name)) for (one, region), name in zip(found, free, strict=False)]
        regions_of: dict[str, list[str]] = {}
        for one, region in named:
            regions_of.setdefault(one.concept, []).append(region.id)
        spans: dict[int, list[Span]] = {}
        for one in asked:
            for number, start, end in one.places if one.concept in regions_of else ():
                spans.setdefault(number, []).append(Span(start, end, tuple(regions_of[one.concept])))
        texts = tuple(
            replace(text, spans=tuple(sorted([*text.spans, *spans.get(number, ())], key=lambda span: span.start)))
            for number, text in enumerate(record.texts)
        )
        return replace(record, regions=(*record.regions, *(region for _, region in named)), texts=texts)

    def _believed(self, record: ImageRecord, asked: Sequence[Asked], answer: Answer) -> list[tuple[Asked, Region]]:
        """Boxes above the threshold of the phrases that are there."""
        least = self.teacher.info.thresholds_of(record.modality)[1]
        found = []
        for place in np.flatnonzero(answer.presence[: len(asked)] >= least).tolist():
            for number in np.flatnonzero(answer.scores[place] > self.lesson.threshold).tolist():
                box = _inside(answer.boxes[place, number], record)
                if box is not None:
                    score, presence = float(answer.scores[place, number]), float(answer.presence[place])
                    found.append((asked[place], self._region(asked[place], box, score, presence)))
        return found

    def _region(self, asked: Asked, box: tuple[float, float, float, float], score: float, presence: float) -> Region:
        label, side = self.unmarked.tree.split(asked.concept)
        told = [Phrase(words, "report") for words in asked.words if words.lower() != asked.name.lower()]
        return Region(
            label, box, laterality=side, phrases=(Phrase(asked.name, "machine"), *told), score=min(1.0, score),
            provenance="predicted",
            attributes={"phrase": asked.name, "checkpoint": self.lesson.checkpoint, "presence": round(presence, 4)},
        )  # fmt: skip


def surest(found: Sequence[tuple[Asked, Region]], tree: LabelTree) -> list[tuple[Asked, Region]]:
    """Without the less sure of two boxes at one place that are the two sides of one label, or a concept and a wider one."""
    kept: list[tuple[Asked, Region]] = []
    for asked, region in sorted(found, key=lambda pair: -(pair[1].score or 0.0)):
        rivals = [
            other for _, other in kept if other.concept != region.concept and _related(other.concept, region.concept, tree)
        ]
        if all(iou(other.box_xyxy, region.box_xyxy) < SAME for other in rivals):
            kept.append((asked, region))
    return kept


def iou(first: Sequence[float], second: Sequence[float]) -> float:
    """Of two boxes xyxy.

    >>> iou((0, 0, 2, 2), (0, 0, 2, 1))
    0.5
    """
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return shared / (sum(areas) - shared)


def _related(first: str, second: str, tree: LabelTree) -> bool:
    same = first.partition("@")[0] == second.partition("@")[0]
    return same or tree.covers(first, second) or tree.covers(second, first)


def _inside(box: np.ndarray, record: ImageRecord) -> tuple[float, float, float, float] | None:
    """A box inside the image; None where less than half a pixel is left."""
    x0, y0, x1, y1 = map(float, box)
    x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, float(record.width)), min(y1, float(record.height))
    return (x0, y0, x1, y1) if x1 - x0 >= 0.5 and y1 - y0 >= 0.5 else None
