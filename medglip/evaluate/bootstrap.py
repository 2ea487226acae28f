"""How far figures may be off: intervals and paired differences by drawing patients anew. Knows cases and their tally only.

Cases of one patient are not independent, so whole patients are drawn, with replacement, as many as there are. They are
drawn within each source (stratified), so that no source vanishes from a mean over sources.

Ends are those of the basic interval: the percentiles of the draws, turned round the figure. Average precision needs that: of
fewer distinct patients it is higher, so most draws lie above the figure, and plain percentiles would be off the other way.
Of few patients every bootstrap interval is too narrow, and a source with one patient adds no spread at all.

Source: Davison and Hinkley, Bootstrap Methods and their Application, 1997, sections 3.2 (several samples), 3.8 (clusters) and
5.2.1 (basic intervals).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from medglip.errors import InputError
from medglip.evaluate.cases import Case
from medglip.evaluate.tally import Tally

# Share of the draws in which a figure must be defined to have an interval.
_DEFINED = 0.5
# The only figure that may be above 1.
_UNBOUNDED = "false_positives_per_image"

Interval = tuple[float, float]


class Difference(NamedTuple):
    """A figure of two models on the same cases.

    Attributes:
        a: Of the first model.
        b: Of the second.
        difference: ``b - a``.
        low: Lower end of its interval.
        high: Upper end.
        p: Two-sided bootstrap p-value of no difference, in (0, 1]; never less than 2 / (draws + 1), nor than 2 / 2^patients,
            the least that a test of signs could give.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Paired:
    """Two models on the same patients.

    Attributes:
        figures: Figure to its difference; None where it is undefined.
        patients: How many were compared.
        questions: Cases of each model that were compared.
        left_out: Cases of the first and of the second model that the other was not asked.
        other_truth: Compared cases whose true boxes differ: the datasets are not the same.
        reason: Why there are no differences; empty where there are.
    """

    figures: dict[str, Difference | None] = field(default_factory=dict)
    patients: int = 0
    questions: int = 0
    left_out: tuple[int, int] = (0, 0)
    other_truth: int = 0
    reason: str = ""


class Patients:
    """The patients of some cases, to be drawn anew within their sources.

    Args:
        cases: N of them; ``patient`` tells them apart and ``source`` which stratum they are of.

    Attributes:
        count: How many there are.
    """

    def __init__(self, cases: Sequence[Case]) -> None:
        names, self._of_case = np.unique([f"{case.source}\n{case.patient}" for case in cases], return_inverse=True)
        sources = np.array([name.split("\n", 1)[0] for name in names], str)
        self._strata = [np.flatnonzero(sources == source) for source in np.unique(sources)]
        self.count = len(names)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """(N,) int64: how often each case counts when as many patients as there are of each source are drawn from it."""
        counts = np.zeros(self.count, np.int64)
        for patients in self._strata:
            counts[patients] = np.bincount(rng.integers(0, len(patients), len(patients)), minlength=len(patients))
        return counts[self._of_case]


def intervals(
    judged: Tally | Sequence[Case], draws: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, Interval | None]:
    """A basic bootstrap interval of each figure.

    Args:
        judged: Cases, or their tally.
        draws: How often the patients are drawn; with 1000 the standard error of an end is about a fiftieth of the interval.
        seed: Equal seeds draw equal patients.
        level: Nominal coverage, in (0, 1).

    Returns:
        Figure to (low, high); None where the figure is undefined, or undefined in half of the draws, or of fewer than two
        patients.

    Raises:
        InputError: ``draws`` or ``level`` out of range.
    """
    _check(draws, level)
    tally = judged if isinstance(judged, Tally) else Tally(judged)
    figures = tally.figures()
    patients = Patients(tally.cases)
    if patients.count < 2:
        return dict.fromkeys(figures)
    drawn = _draws(lambda weight: _row(tally.figures(weight), figures), patients, draws, seed)
    found: dict[str, Interval | None] = {}
    for column, (name, value) in enumerate(figures.items()):
        ends = _ends(value, drawn[:, column], level)
        found[name] = ends and (max(ends[0], 0.0), ends[1] if name == _UNBOUNDED else min(ends[1], 1.0))
    return found


def every_interval(tally: Tally, draws: int = 1000, seed: int = 0, level: float = 0.95) -> dict[str, Any]:
    """The intervals that go into an evaluation's ``figures.json``; arguments and errors as in ``intervals``.

    Returns:
        ``intervals``; ``intervals_by_source``, ``intervals_by_modality``, ``intervals_by_level``: value to intervals;
        ``bootstrap``: ``draws``, ``seed``, ``level``.
    """
    groups = {
        f"intervals_by_{name}": {value: intervals(part, draws, seed, level) for value, part in tally.by(name).items()}
        for name in ("source", "modality", "level")
    }
    said = {"draws": draws, "seed": seed, "level": level}
    return {"intervals": intervals(tally, draws, seed, level), **groups, "bootstrap": said}


def paired(
    first: Tally | Sequence[Case], second: Tally | Sequence[Case], draws: int = 1000, seed: int = 0, level: float = 0.95
) -> Paired:  # fmt: skip
    """Differences of two models' figures on the same patients.

    Cases are matched by image and concept; what only one model was asked is left out and counted. Each draw takes the same
    patients for both, so that how hard a patient is cancels out.

    Args:
        first: Cases of the first model, or their tally.
        second: Of the second.
        draws: As in ``intervals``.
        seed: As in ``intervals``.
        level: As in ``intervals``.

    Returns:
        Differences, second less first; none, with the reason, where fewer than two patients are the same. The interval of
        level 1 - p ends at 0, unless the few patients are what keeps p from being less. A p-value is of one figure alone;
        correct it where many are tested.

    Raises:
        InputError: ``draws`` or ``level`` out of range.

    Source: Davison and Hinkley 1997, sections 4.4 (the draws' distance from the estimate as that from no difference) and 4.2
    (one added to the count and to the draws).
    """
    return _compared(matched(first, second), draws, seed, level)


def paired_by(
    name: str, first: Tally | Sequence[Case], second: Tally | Sequence[Case], draws: int = 1000, seed: int = 0,
    level: float = 0.95,
) -> dict[str, Paired]:  # fmt: skip
    """``paired`` for each ``source``, ``modality``, ``level`` or ``concept`` that both models were asked about."""
    both = matched(first, second)
    found = {}
    for value, mine in both.first.by(name).items():
        chosen = np.zeros(len(both.first.cases), bool)
        chosen[mine.places] = True
        found[value] = _compared(Matched(mine, both.second.part(chosen), (0, 0)), draws, seed, level)
    return found


class Matched(NamedTuple):
    """What two models were both asked, in the same order, and how many cases of each the other was not asked."""

    first: Tally
    second: Tally
    left_out: tuple[int, int]


def matched(first: Tally | Sequence[Case], second: Tally | Sequence[Case]) -> Matched:
    """The cases of two models that have the same image and concept; of equal ones in a model the first."""
    a, b = (one if isinstance(one, Tally) else Tally(one) for one in (first, second))
    mine, theirs = _by_key(a.cases), _by_key(b.cases)
    keys = [key for key in mine if key in theirs]
    return Matched(
        Tally([mine[key] for key in keys], a.thresholds_of), Tally([theirs[key] for key in keys], b.thresholds_of),
        (len(a.cases) - len(keys), len(b.cases) - len(keys)),
    )  # fmt: skip


def _compared(both: Matched, draws: int, seed: int, level: float) -> Paired:
    """The differences of matched cases."""
    _check(draws, level)
    first, second = both.first, both.second
    if not first.cases:
        return Paired(left_out=both.left_out, reason="The two evaluations share no question.")
    patients = Patients(first.cases)
    other = sum(not np.array_equal(a.truth, b.truth) for a, b in zip(first.cases, second.cases, strict=True))
    found = Paired(patients=patients.count, questions=len(first.cases), left_out=both.left_out, other_truth=other)
    if patients.count < 2:
        return replace(found, reason="The two evaluations share one patient; two at least are needed.")
    a, b = first.figures(), second.figures()
    drawn = _draws(lambda weight: _row(second.figures(weight), a) - _row(first.figures(weight), a), patients, draws, seed)
    least = 2.0 ** (1 - patients.count)
    return replace(found, figures={name: _difference(a[name], b[name], drawn[:, column], level, least)
                                   for column, name in enumerate(a)})  # fmt: skip


def _difference(a: float | None, b: float | None, drawn: np.ndarray, level: float, least_p: float) -> Difference | None:
    """One figure's difference; ``drawn`` (D,) of the draws, NaN where undefined."""
    if a is None or b is None or (ends := _ends(b - a, drawn, level)) is None:
        return None
    p = max(_p_value(b - a, drawn), least_p)
    return Difference(round(a, 4), round(b, 4), round(b - a, 4), *ends, round(p, 4))


def _ends(value: float | None, drawn: np.ndarray, level: float) -> Interval | None:
    """The basic interval of a figure, which holds the figure; None where it or most of its draws (D,) are undefined."""
    defined = drawn[~np.isnan(drawn)]
    if value is None or len(defined) <= _DEFINED * len(drawn):
        return None
    low, high = np.quantile(defined, ((1 - level) / 2, (1 + level) / 2))
    return round(min(value, 2 * value - float(high)), 4), round(max(value, 2 * value - float(low)), 4)


def _p_value(value: float, drawn: np.ndarray) -> float:
    """Two-sided: twice the share of draws (D,) as far from the difference as 0 is, on the other side of it, with one added."""
    apart = np.round(drawn[~np.isnan(drawn)] - 2 * value, 9)  # equal sums in another order are no difference
    beyond = min(int((apart >= 0).sum()), int((apart <= 0).sum()))
    return min(1.0, 2 * (beyond + 1) / (len(apart) + 1))


def _draws(figures: Callable[[np.ndarray], np.ndarray], patients: Patients, draws: int, seed: int) -> np.ndarray:
    """(D, F) float64: the figures of each draw of patients."""
    rng = np.random.default_rng(seed)
    weights = (patients.draw(rng) for _ in range(draws))
    return np.array([figures(weight) for weight in weights])


def _row(figures: Mapping[str, float | None], names: Iterable[str]) -> np.ndarray:
    """(F,) float64; NaN where undefined."""
    return np.array([np.nan if (value := figures[name]) is None else value for name in names], float)


def _by_key(cases: Iterable[Case]) -> dict[tuple[str, str], Case]:
    """Cases by image and concept; of equal ones the first."""
    found: dict[tuple[str, str], Case] = {}
    for case in cases:
        found.setdefault((case.image, case.concept), case)
    return found


def _check(draws: int, level: float) -> None:
    if draws < 1:
        raise InputError(f"Draws of the bootstrap: found {draws!r}; allowed: 1 or more; 1000 are usual.")
    if not 0 < level < 1:
        raise InputError(f"Level of an interval: found {level!r}; allowed: between 0 and 1, for example 0.95.")
