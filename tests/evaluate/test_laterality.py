from types import SimpleNamespace

import numpy as np
import pytest
from asked import case_of

from medglip.evaluate.laterality import figures, lies_on, other_side, sided_regions, swap_test
from medglip.records import ImageRecord, Origin, Region, label_tree

LUNG, LEFT, RIGHT, HEART = "thorax.lung", "thorax.lung@left", "thorax.lung@right", "thorax.heart"
A, B, C = [0, 0, 40, 80], [60, 0, 100, 80], [42, 0, 58, 80]
TREE = label_tree()


def boxes(*some):
    return np.array(some, np.float32).reshape(-1, 4)


def asked(concept, found, truth=(), others=(), presence=0.9, score=0.9, **given):
    """``others`` are (concept, box)."""
    found, truth = boxes(*found), boxes(*truth)
    return case_of(np.random.default_rng(0), concept=concept, truth=truth, boxes=found, presence=presence, size_wh=(100, 80),
                   scores=np.full(len(found), score, np.float32), others=boxes(*(box for _, box in others)),
                   other_concepts=tuple(name for name, _ in others), **given)  # fmt: skip


def test_a_box_lies_where_it_overlaps_most():
    assert lies_on(boxes(A), boxes(A), boxes(B)) == "own"
    assert lies_on(boxes(B), boxes(A), boxes(B)) == "other"
    assert lies_on(boxes(C), boxes(A), boxes(B)) == lies_on(boxes(), boxes(A), boxes(B)) == "neither"
    assert lies_on(boxes([0, 0, 100, 80]), boxes(A), boxes(A)) == "own"
    assert lies_on(boxes(A), boxes(), boxes()) == "neither"


def test_the_other_side_is_what_shows_the_same_there():
    case = asked(LEFT, [A], [A], [(RIGHT, B), (LUNG, C), (HEART, C), ("thorax.lung.upper_lobe@right", C)])
    assert other_side(case, TREE).tolist() == boxes(B).tolist()
    assert other_side(asked(LUNG, [A], [A], [(HEART, C)]), TREE).shape == (0, 4)
    assert other_side(asked(LEFT, [A], [A]), TREE).shape == (0, 4)


def test_figures_by_hand():
    cases = [
        asked(LEFT, [A], [A], [(RIGHT, B)]), asked(LEFT, [B], [A], [(RIGHT, B)]), asked(LEFT, [C], [A], [(RIGHT, B)]),
        asked(LEFT, [], [A], [(RIGHT, B)]), asked(RIGHT, [B], [B], [(LEFT, A)]),
        asked(LEFT, [A], [A]), asked(LEFT, [C], [A], [(HEART, C)]),
        asked(LEFT, [B], (), [(RIGHT, B)]), asked(LEFT, [B], (), [(RIGHT, B)], presence=0.1),
        asked(LEFT, [C], (), [(RIGHT, B)]), asked(LEFT, [B], (), [(RIGHT, B)], score=0.1),
        asked(HEART, [A], [C], [(RIGHT, B)]), asked(LEFT, [A], ()),
    ]  # fmt: skip
    found = figures(cases)
    assert found["laterality_accuracy"] == (0.5 + 1) / 2
    assert [found[f"laterality_{name}"] for name in ("own", "other", "neither")] == [(0.25 + 1) / 2, 0.125, 0.25]
    assert found["laterality_alone_own"] == 0.5
    assert found["laterality_absent_rejected"] == 0.5
    assert found["laterality_absent_other"] == 0.25
    assert [found[f"laterality_{name}"] for name in ("both", "alone", "absent")] == [5, 2, 4]


@pytest.mark.parametrize("cases", [[], [asked(HEART, [A], [A])]])
def test_without_sides_the_figures_are_none(cases):
    found = figures(cases)
    assert found["laterality_accuracy"] is None
    assert found["laterality_both"] == 0.0
    assert {value for value in found.values() if value} == set()


def film(*regions):
    return ImageRecord("0" * 16, "0" * 64, 100, 80, 1, 8, "xray", Origin("films", "a.png", "a"), "CC0-1.0", regions=regions)


def lung(side, box):
    return Region(LUNG, tuple(map(float, box)), laterality=side)


def test_a_label_with_a_region_of_no_known_side_is_left_out():
    assert sided_regions(film(lung("left", A), lung(None, B)), TREE) == {}
    assert sided_regions(film(lung("left", A), lung("bilateral", B)), TREE) == {}
    assert sided_regions(film(Region(HEART, (0.0, 0.0, 9.0, 9.0))), TREE) == {}
    ((label, (left, right)),) = sided_regions(film(lung("left", A), lung("left", C)), TREE).items()
    assert label == LUNG
    assert left.tolist() == boxes(A, C).tolist()
    assert right.shape == (0, 4)


class Says:
    """A grounder that answers each phrase with a box, or (None) finds it improbable; it keeps what it was asked."""

    def __init__(self, **boxes_of):
        self.boxes_of = boxes_of
        self.asked = []
        self.info = SimpleNamespace(thresholds_of=lambda modality: (0.3, 0.5))

    def answer(self, images, phrases, modalities):
        self.asked += phrases
        answers = []
        for (phrase,), image in zip(phrases, images, strict=True):
            assert image.shape == (80, 100)
            box = self.boxes_of[phrase.split()[0]]
            answers.append(SimpleNamespace(
                boxes=np.array([[box or [0, 0, 0, 0]]], np.float32), scores=np.array([[0.9 if box else 0.0]], np.float32),
                presence=np.array([0.9 if box else 0.1], np.float32),
            ))  # fmt: skip
        return answers


DATA = SimpleNamespace(display=lambda _: np.zeros((80, 100), np.uint8))
BOTH, ONLY_LEFT = film(lung("left", A), lung("right", B)), film(lung("left", A))


@pytest.mark.parametrize(
    ("record", "left", "right", "consistent", "stuck", "judged"),
    [
        (BOTH, A, B, 1.0, 0.0, 2),
        (BOTH, A, A, 0.0, 1.0, 1),  # deaf to the side: the right one's answer lies on the left one, and is not judged itself
        (BOTH, B, A, None, None, 0),
        (BOTH, A, None, 0.0, 0.0, 1),  # there, but called absent: it has not moved to the other side
        (BOTH, A, C, 0.0, 0.0, 1),
        (ONLY_LEFT, A, None, 1.0, 0.0, 1),
        (ONLY_LEFT, A, B, 1.0, 0.0, 1),
        (ONLY_LEFT, A, A, 0.0, 1.0, 1),
        (ONLY_LEFT, None, A, None, None, 0),
    ],
)  # fmt: skip
def test_swapped_phrases_must_move_the_box(record, left, right, consistent, stuck, judged):
    grounder = Says(left=left, right=right)
    found = swap_test(grounder, [(DATA, record)], TREE)
    assert grounder.asked == [["left lung"], ["right lung"]]  # each alone
    assert (found["swap_consistent"], found["swap_stuck"], found["swap_judged"]) == (consistent, stuck, judged)
    assert found["swap_asked"] == len(record.regions)


def test_swap_test_of_nothing_asks_nothing():
    grounder = Says()
    found = swap_test(grounder, [(DATA, film())], TREE)
    assert grounder.asked == []
    assert found["swap_consistent"] is None
    assert found["swap_asked"] == 0
