from medglip.evaluate.run import known_phrases
from medglip.records import ImageRecord, Origin, Region, label_tree

LUNG, LEFT, RIGHT, HEART = "thorax.lung", "thorax.lung@left", "thorax.lung@right", "thorax.heart"


def film(*regions, absent=(), exhaustive=(LUNG, LEFT, RIGHT, HEART)):
    return ImageRecord(
        "0" * 16, "0" * 64, 100, 100, 1, 8, "xray", Origin("films", "a.png", "a"), "CC0-1.0",
        regions=regions, absent=absent, exhaustive=exhaustive,
    )  # fmt: skip


def lung(side=None, x=0.0):
    return Region(LUNG, (x, 0.0, x + 40.0, 80.0), laterality=side)


def test_what_was_searched_for_and_not_marked_is_absent():
    assert known_phrases(film(), label_tree()) == {LUNG: False, LEFT: False, RIGHT: False, HEART: False}


def test_a_lung_without_a_side_may_be_either():
    known = known_phrases(film(lung(), lung(x=50.0)), label_tree())
    assert known == {LUNG: True, HEART: False}


def test_a_sided_lung_is_a_lung_and_denies_the_other_side_only():
    assert known_phrases(film(lung("left")), label_tree()) == {LUNG: True, LEFT: True, RIGHT: False, HEART: False}


def test_what_is_not_searched_for_is_unknown_unless_said_to_be_absent():
    assert known_phrases(film(lung("left"), absent=(HEART,), exhaustive=()), label_tree()) == {LEFT: True, HEART: False}
