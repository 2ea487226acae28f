"""Tallies: the headline figures of some cases, quickly again for other multiplicities of the cases. Knows no files.

What does not change with the multiplicities is worked out once: which boxes are right, the ranking of a label's boxes, the
ranks of presence. A bootstrap then asks for figures a thousand times.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from medglip.evaluate.absence import boxes_shown
from medglip.evaluate.averages import ThresholdsOf, usual_thresholds
from medglip.evaluate.boxes import MOST, RECALLS, THRESHOLDS, matches
from medglip.evaluate.cases import Case
from medglip.evaluate.phrases import NAMES, values_of

_GROUPS = ("source", "modality", "level", "concept")
_RANKED = ("ap", "ap50", "ap75", "ar")
OF_LABELS = (*_RANKED, *NAMES, "absence_auroc")


class Tally:
    """The headline figures of some cases.

    Args:
        cases: Of any images, labels and sources.
        thresholds_of: ``CheckpointInfo.thresholds_of`` of the model that was asked; ``false_positives_per_image`` alone
            depends on it.

    Attributes:
        cases: The cases.
        places: (N,) their numbers among the cases of the tally that ``by`` parted; 0 to N - 1 in a tally of its own.
    """

    def __init__(self, cases: Sequence[Case], thresholds_of: ThresholdsOf = usual_thresholds) -> None:
        self.cases, self.places = tuple(cases), np.arange(len(cases))
        self.thresholds_of = thresholds_of
        self._taken = [matches(case.iou[:MOST], THRESHOLDS) >= 0 for case in self.cases]

    def figures(self, weights: np.ndarray | None = None) -> dict[str, float | None]:
        """Figures with each case counted so many times.

        Args:
            weights: (N,) multiplicities, 0 or more; each case once by default. The figures are those of the cases repeated
                so often, each beside its copies and of an image of its own, but where boxes of one case have the same score.

        Returns:
            Figures, each in [0, 1] but the last; None where no case defines it. Means over the cases of a label, over the
            labels of a source, over sources: ``ap`` (IoU 0.5 to 0.95), ``ap50``, ``ap75``; ``ar``, the share of true boxes
            that 100 boxes find, mean over the same overlaps; ``acc50``, ``r1``, ``r5``, ``r10``, ``miou``, ``found``,
            ``recall01``, ``centre`` (``medglip.evaluate.phrases.values_of``; ``r1`` is ``acc50``); ``absence_auroc``.
            ``acc50_micro``: mean over all phrases that are there. ``false_positives_per_image``: boxes shown that take no
            true box at IoU 0.5, mean over the images of a source, then over sources.
        """
        weight = np.ones(len(self.cases)) if weights is None else np.asarray(weights, float)
        result = {name: self._over_sources(values) for name, values in self._of_labels(weight).items()}
        hits, there = self.values[:, 0], self._shown * weight
        result["acc50_micro"] = float(hits @ there / there.sum()) if there.any() else None
        result["false_positives_per_image"] = self._false_positives(weight)
        return result

    def labels(self, weights: np.ndarray | None = None) -> dict[tuple[str, str], dict[str, float | None]]:
        """The figures of each label, (source, concept): those of ``OF_LABELS``."""
        weight = np.ones(len(self.cases)) if weights is None else np.asarray(weights, float)
        found = self._of_labels(weight)
        return {label: {name: None if np.isnan(values[place]) else float(values[place]) for name, values in found.items()}
                for place, label in enumerate(self._labels.names)}  # fmt: skip

    @cached_property
    def values(self) -> np.ndarray:
        """(N, V) float64, the values of ``phrases.NAMES`` of each case, 0 where it is absent."""
        return np.nan_to_num(np.array([values_of(case) for case in self.cases]).reshape(-1, len(NAMES)))

    def right_boxes(self) -> list[np.ndarray]:
        """For each case which of its first 100 boxes (K,) bool take a true box at IoU 0.5."""
        return [taken[0] for taken in self._taken]

    def by(self, name: str) -> dict[str, "Tally"]:
        """A tally for each ``source``, ``modality``, ``level`` or ``concept``, sorted by its value."""
        if name not in _GROUPS:
            raise ValueError(f"Tally.by: found {name!r}; allowed: {', '.join(_GROUPS)}.")
        values = np.array([getattr(case, name) for case in self.cases], object)
        return {value: self.part(values == value) for value in sorted(set(values))}

    def part(self, chosen: np.ndarray) -> "Tally":
        """The tally of the cases where ``chosen`` (N,) bool says so."""
        part = Tally.__new__(Tally)
        part.places = np.flatnonzero(chosen)
        part.cases = tuple(self.cases[place] for place in part.places)
        part._taken = [self._taken[place] for place in part.places]
        part.thresholds_of = self.thresholds_of
        part.values = self.values[part.places]  # what is worked out is kept
        return part

    def macro(self, values: np.ndarray, weights: np.ndarray | None = None) -> float | None:
        """Mean of a value of each case (N,) over the phrases of a label that are there, over labels, over sources."""
        weight = self._shown * (1.0 if weights is None else weights)
        known = np.where(self._shown > 0, values, 0.0)
        return self._over_sources(self._labels.mean(known[:, None], weight)[:, 0])

    # ---- inside

    @cached_property
    def _shown(self) -> np.ndarray:
        return np.array([case.shown for case in self.cases], float)

    @cached_property
    def _labels(self) -> "_Groups":
        return _Groups.of([(case.source, case.concept) for case in self.cases])

    @cached_property
    def _sources(self) -> "_Groups":
        return _Groups.of([case.source for case in self.cases])

    @cached_property
    def _ranking(self) -> "_Ranking":
        return _Ranking.of(self.cases, self._taken, self._labels)

    @cached_property
    def _order_of_presence(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cases by label and presence; for each place the first and one past the last place of the same presence."""
        presence, label = np.array([case.presence for case in self.cases], float), self._labels.of_case
        order = np.lexsort((presence, label))
        fresh = np.append(True, (np.diff(presence[order]) != 0) | (np.diff(label[order]) != 0))[: len(order)]
        starts = np.append(np.flatnonzero(fresh), len(order))
        tie = fresh.cumsum() - 1
        return order, starts[tie], starts[tie + 1]

    @cached_property
    def _wrong(self) -> tuple[np.ndarray, np.ndarray]:
        """For each case (N,) its boxes shown that are wrong, and its share of its image."""
        counts = boxes_shown(self.cases, self.thresholds_of)
        wrong = [count - taken[0, :count].sum() for count, taken in zip(counts, self._taken, strict=True)]
        images = _Groups.of([(case.source, case.image) for case in self.cases])
        return np.array(wrong, float), 1 / images.sum(np.ones(len(self.cases)))[images.of_case]

    def _of_labels(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        """For each figure its value (L,) of each label; NaN where undefined."""
        precision, recall = self._ranking.figures(weight, self._labels)
        values = self._labels.mean(self.values, weight * self._shown)
        return {
            "ap": precision.mean(axis=1), "ap50": precision[:, 0], "ap75": precision[:, 5], "ar": recall.mean(axis=1),
            **{name: values[:, column] for column, name in enumerate(NAMES)},
            "absence_auroc": self._auroc(weight),
        }  # fmt: skip

    def _auroc(self, weight: np.ndarray) -> np.ndarray:
        """(L,): of each label how often presence where it is there is above presence where it is not, ties half."""
        order, first, last = self._order_of_presence
        ordered, shown = weight[order], self._shown[order]
        below = np.append(0.0, (ordered * (1 - shown)).cumsum())
        start = self._labels.starts[self._labels.of_case[order]]
        beaten = (below[first] + below[last]) / 2 - below[start]
        pairs = np.bincount(self._labels.of_case[order], ordered * shown * beaten, len(self._labels.names))
        there, absent = self._labels.sum(weight * self._shown), self._labels.sum(weight * (1 - self._shown))
        return _ratio(pairs, there * absent)

    def _false_positives(self, weight: np.ndarray) -> float | None:
        wrong, share = self._wrong
        means = _ratio(self._sources.sum(weight * wrong), self._sources.sum(weight * share))
        return float(np.nanmean(means)) if not np.isnan(means).all() else None

    def _over_sources(self, values: np.ndarray) -> float | None:
        """Mean over the labels (L,) of each source, then over sources; NaN is left out, None where nothing is left."""
        known, source = ~np.isnan(values), self._source_of_label
        counts = np.bincount(source, known, len(self._sources.names))
        sums = np.bincount(source, np.where(known, values, 0.0), len(self._sources.names))
        return float((sums[counts > 0] / counts[counts > 0]).mean()) if counts.any() else None

    @cached_property
    def _source_of_label(self) -> np.ndarray:
        number = {name: place for place, name in enumerate(self._sources.names)}
        return np.array([number[source] for source, _ in self._labels.names], int)


class _Groups(NamedTuple):
    """Cases parted by a key: ``names`` sorted; of each case its group; cases in the order of groups, and where each starts."""

    names: list
    of_case: np.ndarray
    order: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, keys: Sequence) -> "_Groups":
        names = sorted(set(keys))
        number = {name: place for place, name in enumerate(names)}
        of_case = np.array([number[key] for key in keys], int)
        counts = np.bincount(of_case, minlength=len(names))
        return cls(names, of_case, np.argsort(of_case, kind="stable"), np.append(0, counts.cumsum()[:-1])[: len(names)])

    def sum(self, values: np.ndarray) -> np.ndarray:
        """(N,) or (N, V) summed within each group."""
        if not self.names:
            return np.zeros((0, *values.shape[1:]))
        return np.add.reduceat(values[self.order], self.starts, axis=0)

    def mean(self, values: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """(N, V) to weighted means (G, V), NaN where the weights of a group are 0."""
        return _ratio(self.sum(values * weight[:, None]), self.sum(weight)[:, None])


class _Ranking(NamedTuple):
    """The boxes of each label by falling score, and the right ones among them at each threshold.

    Precision falls at every wrong box, so its best values are at right ones: they alone are gone through, with the number of
    boxes ranked up to each.

    Attributes:
        case: (B,) case of each box; of a label no box after its last right one.
        start: (L,) first box of each label.
        place: (R,) place of right boxes in ``case``, by label, then threshold, then rank.
        curve: (R,) label * T + threshold of each.
        true: (N,) true boxes of each case.
    """

    case: np.ndarray
    start: np.ndarray
    place: np.ndarray
    curve: np.ndarray
    true: np.ndarray

    @classmethod
    def of(cls, cases: Sequence[Case], taken: Sequence[np.ndarray], labels: _Groups) -> "_Ranking":
        true = np.array([len(case.truth) for case in cases], float)
        kept, places, curves, start = [], [], [], []
        length = 0
        for label, some in enumerate(np.split(labels.order, labels.starts[1:])):
            start.append(length)
            if not len(some):
                continue
            scores = np.concatenate([cases[number].scores[:MOST] for number in some]).astype(float)
            order = np.argsort(-scores, kind="mergesort")
            right = np.concatenate([taken[number] for number in some], axis=1)[:, order]
            last = int(np.flatnonzero(right.any(axis=0))[-1]) + 1 if right.any() else 0
            threshold, place = np.nonzero(right[:, :last])
            kept.append(np.repeat(some, [taken[number].shape[1] for number in some])[order[:last]])
            places.append(place + length)
            curves.append(threshold + label * len(THRESHOLDS))
            length += last
        case, place, curve = (np.concatenate([np.zeros(0, np.int64), *some]) for some in (kept, places, curves))
        return cls(case, np.array(start[: len(labels.names)], int), place, curve, true)

    def figures(self, weight: np.ndarray, labels: _Groups) -> tuple[np.ndarray, np.ndarray]:
        """Average precision and recall (L, T) of each label at each threshold; NaN where it has no true box."""
        count = len(labels.names) * len(THRESHOLDS)
        total = labels.sum(weight * self.true)
        ranked = np.append(0.0, weight[self.case].cumsum())
        label = self.curve // len(THRESHOLDS)
        beside = ranked[self.place + 1] - ranked[self.start[label]]
        mine = weight[self.case[self.place]]
        found = np.bincount(self.curve, mine, count)
        before = np.append(0.0, found.cumsum()[:-1])[:count]
        hits = mine.cumsum() - before[self.curve]
        precision = np.divide(hits, beside, out=np.zeros(len(hits)), where=beside > 0)
        # The best from here on, within a curve: steps of 2 between curves keep them apart, at a cost of 1e-12.
        apart = 2.0 * (count - self.curve)
        best = np.maximum.accumulate((precision + apart)[::-1])[::-1] - apart
        recall = np.divide(hits, total[label], out=np.zeros(len(hits)), where=total[label] > 0)
        reached = np.searchsorted(RECALLS, recall, side="right")
        previous = np.append(0, reached[:-1])[: len(reached)]
        previous[np.append(True, np.diff(self.curve) != 0)[: len(reached)]] = 0
        area = np.bincount(self.curve, best * (reached - previous), count) / len(RECALLS)
        known = (total > 0)[:, None]
        shape = (len(labels.names), len(THRESHOLDS))
        return (np.where(known, area.reshape(shape), np.nan),
                np.where(known, found.reshape(shape) / np.maximum(total[:, None], 1e-300), np.nan))  # fmt: skip


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """``part / whole``, NaN where ``whole`` is 0."""
    whole = np.broadcast_to(whole, part.shape)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
