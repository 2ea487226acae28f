import numpy as np
import pytest

from medglip.records.labels import label_tree
from medglip.train.vocabulary import Vocabulary, opposite, sides_said

TREE = label_tree()
KIDNEY, CYST, VENTRICLE = "abdomen.kidney", "abdomen.kidney.cyst", "thorax.heart.left_ventricle"
MADE = Vocabulary(TREE, {f"{KIDNEY}@left": {"ct"}, CYST: {"ct", "mr"}, VENTRICLE: {"mr"}}, ["thorax.heart.myocardium"])


@pytest.mark.parametrize(("text", "sides"), [
    ("Left kidney", {"left"}), ("on the RIGHT-hand side", {"right"}), ("bright spot, upright", set()), ("cleft", set()),
    ("optic disc OD", {"right"}), ("linke Niere", {"left"}), ("ovarium sinistrum", {"left"}), ("左肾", {"left"}),
    ("at 11 o'clock", {"turn"}), ("left and right lung", {"left", "right"}), ("", set()),
])  # fmt: skip
def test_side_words_are_found(text, sides):
    assert sides_said(text) == sides


def test_every_concept_is_there_without_its_side_on_the_other_side_and_as_its_kinds():
    assert {KIDNEY, f"{KIDNEY}@left", f"{KIDNEY}@right", "systemic.cyst", "systemic.lesion"} <= set(MADE.concepts)
    assert list(MADE.concepts) == sorted(MADE.concepts)
    for number, concept in enumerate(MADE.concepts):
        assert MADE.number[concept] == number
        for other, narrow in enumerate(MADE.concepts):
            assert MADE.covers[number, other] == TREE.covers(concept, narrow)
        wide = {wide for wide in MADE.concepts if wide != concept and TREE.covers(wide, concept)}
        assert {MADE.concepts[wider] for wider in MADE.wider[number]} == wide
        at = MADE.opposite[number]
        assert MADE.concepts[at] == opposite(concept) if "@" in concept else at == -1
        assert MADE.concepts[MADE.unsided[number]] == concept.partition("@")[0]


def test_what_is_seen_and_what_is_called_by_a_side_is_told():
    seen = {concept for concept, is_seen in zip(MADE.concepts, MADE.is_seen, strict=True) if is_seen}
    assert seen == {f"{KIDNEY}@left", CYST, VENTRICLE}
    named = {concept for concept, names in zip(MADE.concepts, MADE.names_side, strict=True) if names}
    assert named == {VENTRICLE}


def test_searching_both_sides_is_searching_for_the_whole():
    both = MADE.searched((f"{KIDNEY}@left", f"{KIDNEY}@right"))
    assert both[MADE.number[KIDNEY]]
    assert not MADE.searched((f"{KIDNEY}@left",))[MADE.number[KIDNEY]]


def test_in_a_mirrored_picture_no_other_side_is_said():
    heart = "thorax.heart.myocardium"
    assert any(sides_said(text) for text in MADE.wordings(heart))
    assert not any(sides_said(text) for text in MADE.wordings(heart, mirrored=True))
    assert MADE.wordings(f"{KIDNEY}@left", mirrored=True) == MADE.wordings(f"{KIDNEY}@left")
    definition = MADE.told(KIDNEY, "definition")  # "... left or right ..."
    assert sides_said(definition) == {"left", "right"}
    assert MADE.told(KIDNEY, "definition", mirrored=True) == "kidney"
    assert MADE.told(f"{CYST}@left", "lineage", mirrored=True) == MADE.told(f"{CYST}@left", "lineage")


def test_wordings_vary_and_the_name_comes_most():
    texts = [MADE.wording(f"{KIDNEY}@left", np.random.default_rng(seed)) for seed in range(200)]
    assert 0.4 < texts.count("left kidney") / 200 < 0.6
    assert set(texts) == set(MADE.wordings(f"{KIDNEY}@left"))


def test_no_pair_is_made_of_a_phrase_without_a_concept():
    left, whole = MADE.number[f"{KIDNEY}@left"], MADE.number[KIDNEY]
    assert MADE.parents(np.array([whole, -1, left])).tolist() == [[2, 0]]
    assert MADE.parents(np.array([-1, -1])).shape == (0, 2)
    assert MADE.parents(np.empty(0, np.int64)).shape == (0, 2)
