"""A tally gives the figures that a plain reckoning gives, for any multiplicities."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from asked import HEART, LUNG, case_of, random_cases

from medglip.evaluate.absence import auroc
from medglip.evaluate.boxes import THRESHOLDS, average_precision, match
from medglip.evaluate.phrases import NAMES, values_of
from medglip.evaluate.tally import OF_LABELS, Tally


def plainly(cases):
    """The figures from their definitions, case by case and label by label."""
    labels, sums = defaultdict(list), defaultdict(lambda: defaultdict(list))
    for case in cases:
        labels[case.source, case.concept].append(case)
    for (source, _), some in labels.items():
        shown = [case for case in some if case.shown]
        precision = average_precision([case.scores for case in some], [case.iou for case in some])
        one = {"ap": precision.mean(), "ap50": precision[0], "ap75": precision[5]}
        one["absence_auroc"] = auroc(np.array([case.presence for case in some]), np.array([case.shown for case in some]))
        if shown:
            total = sum(len(case.truth) for case in shown)
            one["ar"] = np.mean([match(case.iou, least).sum() for case in shown for least in THRESHOLDS]) * len(shown) / total
            one |= {name: np.mean([values_of(case)[place] for case in shown]) for place, name in enumerate(NAMES)}
        for name, value in one.items():
            if not np.isnan(value):
                sums[name][source].append(value)
    found = {name: np.mean([np.mean(values) for values in by_source.values()]) for name, by_source in sums.items()}
    found["acc50_micro"] = np.mean([values_of(case)[0] for case in cases if case.shown])
    found["false_positives_per_image"] = np.mean(list(wrong_boxes(cases).values()))
    return found


def wrong_boxes(cases):
    """Of each source the mean over images of boxes above 0.3 of phrases above 0.5 that take no true box."""
    images = defaultdict(lambda: defaultdict(int))
    for case in cases:
        shown = (case.scores >= 0.3).sum() if case.presence >= 0.5 else 0
        images[case.source][case.image] += shown - match(case.iou, 0.5)[:shown].sum()
    return {source: np.mean(list(counts.values())) for source, counts in images.items()}


@pytest.mark.parametrize("seed", range(4))
def test_figures_are_those_of_a_plain_reckoning(seed):
    cases = random_cases(seed)
    assert Tally(cases).figures() == pytest.approx(plainly(cases), abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_multiplicities_are_repeated_patients(seed):
    cases, rng = random_cases(seed), np.random.default_rng(seed)
    times = {patient: int(rng.integers(0, 4)) for patient in sorted({case.patient for case in cases})}
    weights = np.array([times[case.patient] for case in cases])
    repeated = [replace(case, image=f"{case.image} {copy}")
                for case, count in zip(cases, weights, strict=True) for copy in range(count)]  # fmt: skip
    tally = Tally(cases)
    assert tally.figures(weights) == pytest.approx(plainly(repeated), abs=1e-9)
    assert tally.figures(np.ones(len(cases))) == tally.figures()


def test_labels_whose_patients_are_not_drawn_are_left_out():
    rng = np.random.default_rng(0)
    cases = [case_of(rng, "1", source="a"), case_of(rng, "2", source="b"), case_of(rng, "3", source="b", concept=LUNG)]
    tally = Tally(cases)
    assert tally.figures(np.array([0, 0, 1])) == pytest.approx(Tally(cases[2:]).figures())
    assert set(tally.figures(np.zeros(3)).values()) == {None}


def test_nothing_is_defined_without_cases():
    assert set(Tally([]).figures().values()) == {None}
    assert Tally([]).by("source") == {}
    assert Tally([]).labels() == {}


def test_figures_of_a_hand_made_case():
    truth = np.float32([[0, 0, 10, 10], [20, 20, 30, 30]])
    rng = np.random.default_rng(0)
    there = case_of(rng, "1", truth=truth, boxes=np.float32([[0, 0, 10, 4], [20, 20, 30, 30], [20, 20, 30, 29]]),
                    scores=np.float32([0.9, 0.8, 0.7]), others=np.zeros((0, 4), np.float32), presence=0.9)  # fmt: skip
    absent = case_of(rng, "2", truth=truth[:0], boxes=truth[:1], scores=np.float32([0.95]), presence=0.6)
    found = Tally([there, absent]).figures()
    assert found["acc50"] == found["r1"] == found["found"] == found["acc50_micro"] == 0.0
    assert (found["r5"], found["recall01"], found["centre"]) == (1.0, 1.0, 1.0)
    assert found["miou"] == pytest.approx(0.4)
    assert found["ar"] == pytest.approx(0.5)  # one of two, at every overlap
    assert found["ap50"] == pytest.approx(51 / 101 / 3)  # the third box is the first right one, up to recall 0.5
    assert found["absence_auroc"] == 1.0
    assert found["false_positives_per_image"] == 1.5  # two beside the right one, and one of what is absent
    assert Tally([there, absent], lambda modality: (0.85, 0.7)).figures()["false_positives_per_image"] == 0.5


def test_a_part_has_the_figures_of_its_cases():
    cases = random_cases(1)
    tally = Tally(cases)
    weights = np.random.default_rng(0).integers(0, 3, len(cases))
    for name in ("source", "modality", "level", "concept"):
        parts = tally.by(name)
        assert list(parts) == sorted({getattr(case, name) for case in cases})
        for value, part in parts.items():
            some = [case for case in cases if getattr(case, name) == value]
            assert [case.image for case in part.cases] == [case.image for case in some]
            assert part.figures() == pytest.approx(Tally(some).figures())
            assert part.figures(weights[part.places]) == pytest.approx(Tally(some).figures(weights[part.places]))
    with pytest.raises(ValueError, match="allowed: source, modality, level, concept"):
        tally.by("colour")


def test_each_label_has_its_figures():
    cases = random_cases(2)
    labels = Tally(cases).labels()
    assert set(labels) == {(case.source, case.concept) for case in cases}
    for label, one in labels.items():
        assert tuple(one) == OF_LABELS
        mine = Tally([case for case in cases if (case.source, case.concept) == label]).figures()
        assert one == pytest.approx({name: mine[name] for name in OF_LABELS})


def test_a_mean_of_values_is_over_labels_then_sources():
    rng, truth = np.random.default_rng(0), np.float32([[0, 0, 9, 9]])
    cases = [case_of(rng, str(place), truth=truth, source=source, concept=concept)
             for place, (source, concept) in enumerate([("a", HEART), ("a", HEART), ("a", LUNG), ("b", HEART)])]  # fmt: skip
    cases.append(case_of(rng, "9", truth=truth[:0], source="b", concept=HEART))  # absent: it has no such value
    values = np.array([1.0, 0, 0, 1, np.nan])
    assert Tally(cases).macro(values) == (0.25 + 1) / 2
    assert Tally(cases).macro(values, np.array([2, 0, 0, 1, 1])) == 1.0
