"""The mean of the house: over the cases of a label, over the labels of a source, over sources. Knows no figure."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from medglip.evaluate.cases import Case

# Least score and least presence for images of a modality, as ``CheckpointInfo.thresholds_of`` gives them.
ThresholdsOf = Callable[[str], tuple[float, float]]
# Flat names; a number, None where it is undefined, or the points of a curve.
Figures = dict[str, float | list[float] | list[list[float]] | None]


def usual_thresholds(modality: str) -> tuple[float, float]:
    """Those of a checkpoint that was never validated: 0.3 and 0.5, of every modality."""
    return 0.3, 0.5


def by_label(cases: Sequence[Case]) -> dict[tuple[str, str], np.ndarray]:
    """Numbers (N,) int64 of the cases of each label: of each (source, concept), in the order of its first case."""
    numbers: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, case in enumerate(cases):
        numbers[case.source, case.concept].append(number)
    return {label: np.array(some, np.int64) for label, some in numbers.items()}


def mean_over_labels(values: Mapping[tuple[str, str], float]) -> float | None:
    """Mean over the labels of each source, then over sources; NaN is left out, None where nothing is left.

    >>> mean_over_labels({("a", "liver"): 1.0, ("a", "spleen"): 0.0, ("b", "liver"): 1.0})
    0.75
    """
    sources: dict[str, list[float]] = defaultdict(list)
    for (source, _), value in values.items():
        if not np.isnan(value):
            sources[source].append(float(value))
    return rounded(np.mean([np.mean(some) for some in sources.values()])) if sources else None


def mean_over_cases(cases: Sequence[Case], values: np.ndarray) -> float | None:
    """Mean of a value of each case (N,) over the cases of each label, then as ``mean_over_labels``; NaN is left out."""
    known = ~np.isnan(values)
    means = {}
    for label, numbers in by_label(cases).items():
        some = numbers[known[numbers]]
        means[label] = values[some].mean() if len(some) else np.nan
    return mean_over_labels(means)


def rounded(value: float | np.floating) -> float | None:
    """A figure with four digits after the point; None for NaN."""
    return None if np.isnan(value) else round(float(value), 4)
