"""Checks of the table of regions, in one pass over it: schema, place, box, mask, axes, derived columns, concepts."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from medglip.records.record import concept_of
from medglip.store.checks.image_table import Images, batches
from medglip.store.checks.privacy import traces
from medglip.store.checks.problems import Problem, Problems
from medglip.store.checks.rules import faults
from medglip.store.checks.runs import measure
from medglip.store.read import Dataset

# A mask's box may be rounded outward by a pixel; lengths in mm that follow from others may differ by rounding.
_PIXEL, _ROUNDING = 1.0, 1e-6


@dataclass(slots=True)
class Used:
    """What the regions use, filled while they are checked.

    Attributes:
        regions: Regions of each image, int64 (number of images,).
        labels: Regions of each label.
        concepts: The concepts, numbered as they are met.
        pairs: (number of a list of absent concepts, number of a concept) -> images that show it, and one of them.
    """

    regions: np.ndarray
    labels: Counter = field(default_factory=Counter)
    concepts: dict[str, int] = field(default_factory=dict)
    pairs: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)


def check_regions(dataset: Dataset, images: Images, used: Used) -> Problems:
    """What is wrong with the regions; fills ``used``."""
    last = -1
    for name, first, batch in batches(dataset, "regions"):
        owner = images.owners(batch.column("image_id"))
        yield from _schema(batch)
        for trace in traces(pa.Table.from_batches([batch])):
            yield trace.problem(f"{name} row {first + trace.row}", batch)
        lost = np.flatnonzero(owner < 0)
        yield from _found(batch, lost, "ids", lambda row: "Its image is not in the dataset.")
        kept = batch.take(pa.array(np.flatnonzero(owner >= 0))) if len(lost) else batch
        owner = owner[owner >= 0]
        if not len(owner):
            continue
        back = np.flatnonzero(np.diff(owner, prepend=last) < 0)
        yield from _found(kept, back, "ids", lambda row: "The regions are not in the order of their images.")
        last = int(owner[-1])
        used.regions += np.bincount(owner, minlength=len(images))
        _count(kept, owner, images, used)
        for check in (_boxes, _masks, _axes, _derived):
            yield from check(kept, owner, images)


def _schema(batch: pa.RecordBatch) -> Problems:
    for fault in faults("regions", batch):
        values = fault.found
        for number, row in enumerate(fault.rows):
            what = f"{fault.place}: found {_short(values[number])}; allowed: {fault.allowed}."
            yield _problem(batch, int(row), "schema", what)


def _short(value: pa.Scalar) -> str:
    text = repr(value.as_py())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _problem(batch: pa.RecordBatch, row: int, check: str, what: str) -> Problem:
    region, image = batch.column("id")[row].as_py(), batch.column("image_id")[row].as_py()
    return Problem("error", f"region {region}", what, check, image or "", region or "")


def _found(batch: pa.RecordBatch, rows: np.ndarray, check: str, what: Callable[[int], str]) -> Problems:
    for row in rows.tolist():
        yield _problem(batch, row, check, what(row))


def _numbers(batch: pa.RecordBatch, *names: str) -> list[np.ndarray]:
    return [batch.column(name).to_numpy(zero_copy_only=False) for name in names]


def _count(batch: pa.RecordBatch, owner: np.ndarray, images: Images, used: Used) -> None:
    """Labels, and which concepts are shown where others are said to be absent."""
    for entry in pc.value_counts(batch.column("label")).to_pylist():
        used.labels[entry["values"]] += entry["counts"]
    words = batch.column("concept").dictionary_encode()
    numbers = np.array([used.concepts.setdefault(text, len(used.concepts)) for text in words.dictionary.to_pylist()])
    width = len(used.concepts)
    shown = np.unique(owner * width + numbers[words.indices.to_numpy()])  # one entry an image and concept
    places, concepts = np.divmod(shown, width)
    pairs, at, counts = np.unique(images.absent[places] * width + concepts, return_index=True, return_counts=True)
    for pair, place, count in zip(pairs.tolist(), at, counts.tolist(), strict=True):
        key = divmod(pair, width)
        before, image = used.pairs.get(key, (0, int(places[place])))
        used.pairs[key] = before + count, image


def _boxes(batch: pa.RecordBatch, owner: np.ndarray, images: Images) -> Problems:
    x0, y0, x1, y1 = _numbers(batch, "x0", "y0", "x1", "y1")
    height, width = images.sizes[owner].T
    inside = (x0 >= 0) & (y0 >= 0) & (x0 < x1) & (y0 < y1) & (x1 <= width) & (y1 <= height)

    def what(row: int) -> str:
        return f"The box {_box(x0, y0, x1, y1, row)} is not inside {width[row]} x {height[row]} pixels."

    yield from _found(batch, np.flatnonzero(~inside), "boxes", what)


def _box(*values: np.ndarray | int) -> tuple[float, ...]:
    *sides, row = values
    return tuple(float(side[row]) for side in sides)  # type: ignore[index]


def _masks(batch: pa.RecordBatch, owner: np.ndarray, images: Images) -> Problems:
    """Masks decode to the size of their image, and their box and area are those of the region."""
    rows = np.flatnonzero(batch.column("rle").is_valid().to_numpy(zero_copy_only=False))
    if not len(rows):
        return
    codes = batch.column("rle").drop_null() if len(rows) < batch.num_rows else batch.column("rle")
    height, width = images.sizes[owner[rows]].T
    good, area, box = measure(codes, height, width)
    sides = [side[rows] for side in _numbers(batch, "x0", "y0", "x1", "y1")]
    told = batch.column("area_px").take(pa.array(rows))
    other_area = good & ~pc.fill_null(pc.equal(told, pa.array(area)), False).to_numpy(zero_copy_only=False)
    off = np.max([np.abs(side - box[:, at]) for at, side in enumerate(sides)], axis=0) > _PIXEL
    other_box = good & ~other_area & (off | (area == 0))
    for bad, what in (
        (~good, lambda at: f"The mask does not decode to {height[at]} x {width[at]} pixels."),
        (other_area, lambda at: f"The mask has {area[at]} pixels, the table says {told[at].as_py()}."),
        (other_box, lambda at: f"The box {_box(*sides, at)} is not that of the mask {tuple(box[at].tolist())}."),
    ):
        for at in np.flatnonzero(bad).tolist():
            yield _problem(batch, int(rows[at]), "masks", what(at))


def _axes(batch: pa.RecordBatch, owner: np.ndarray, images: Images) -> Problems:
    """The long axis of a mask is no shorter than its box is long, and no longer than the box's diagonal."""
    rows = np.flatnonzero(batch.column("long_axis_mm").is_valid().to_numpy(zero_copy_only=False))
    if not len(rows):
        return
    long, short, x0, y0, x1, y1 = (
        values[rows] for values in _numbers(batch, "long_axis_mm", "short_axis_mm", "x0", "y0", "x1", "y1")
    )
    row_mm, column_mm = images.number("row_mm")[owner[rows]], images.number("column_mm")[owner[rows]]
    across, down = (x1 - x0) * column_mm, (y1 - y0) * row_mm
    slack = row_mm + column_mm  # the box may be off by a pixel on each side
    least, most = np.maximum(across, down) - slack, np.hypot(across, down) + slack
    masked = batch.column("rle").is_valid().to_numpy(zero_copy_only=False)[rows]
    bad = ~(masked & (long >= least) & (long <= most) & (short <= long * (1 + _ROUNDING)))
    for at in np.flatnonzero(bad).tolist():
        if not masked[at] or np.isnan(slack[at]):
            what = "It has axes in mm, but no mask or no spacing to measure them."
        else:
            sides = f"{across[at]:.1f} x {down[at]:.1f} mm"
            what = f"Its axes, {long[at]:.1f} and {short[at]:.1f} mm, do not fit its box of {sides}."
        yield _problem(batch, int(rows[at]), "axes", what)


def _derived(batch: pa.RecordBatch, owner: np.ndarray, images: Images) -> Problems:
    """Columns that repeat or follow from others do."""
    places = pa.array(owner)
    for name in ("dataset", "modality", "split"):
        other = pc.not_equal(batch.column(name), images.columns[name].take(places)).to_numpy(zero_copy_only=False)
        yield from _found(batch, np.flatnonzero(other), "derived", partial(_say, f"Its {name} is not that of its image."))
    x0, y0, x1, y1, width_mm, height_mm = _numbers(batch, "x0", "y0", "x1", "y1", "width_mm", "height_mm")
    for name, told, pixels, pitch in (
        ("width_mm", width_mm, x1 - x0, "column_mm"),
        ("height_mm", height_mm, y1 - y0, "row_mm"),
    ):
        right = pixels * images.number(pitch)[owner].astype(float)
        other = ~np.isclose(told.astype(float), right, rtol=_ROUNDING, equal_nan=True)
        what = f"Its {name} is not its box times the spacing, or one of them is unknown."
        yield from _found(batch, np.flatnonzero(other), "derived", partial(_say, what))
    yield from _concepts(batch)
    masked, told = batch.column("rle").is_valid(), batch.column("area_px").is_valid()
    other = pc.not_equal(masked, told).to_numpy(zero_copy_only=False)
    yield from _found(
        batch, np.flatnonzero(other), "derived", lambda row: "It has a mask without area_px, or area_px without a mask."
    )


def _say(what: str, row: int) -> str:
    return what


def _concepts(batch: pa.RecordBatch) -> Problems:
    parts = [batch.column(name).dictionary_encode(null_encoding="encode") for name in ("label", "laterality", "concept")]
    words = [part.dictionary.to_pylist() for part in parts]
    sizes = tuple(max(1, len(known)) for known in words)
    codes = np.ravel_multi_index(tuple(part.indices.to_numpy() for part in parts), sizes)
    kinds, number = np.unique(codes, return_inverse=True)
    triples = zip(*np.unravel_index(kinds, sizes), strict=True)
    wrong = [concept_of(words[0][a], words[1][b]) != words[2][c] for a, b, c in triples]
    bad = np.flatnonzero(np.array(wrong, bool)[number])
    yield from _found(
        batch, bad, "derived", lambda row: f"Its concept {batch.column('concept')[row].as_py()!r} is not label@side."
    )
