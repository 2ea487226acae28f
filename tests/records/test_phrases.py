"""Phrases: they name one concept, say the patient's side, and sizes only where they can be trusted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medglip.errors import SourceError
from medglip.records.labels import label_tree
from medglip.records.masks import box_of_mask, rle_of_mask
from medglip.records.phrases import concept_phrases, diameter_mm, region_phrases
from medglip.records.record import Region, concept_of

TREE = label_tree()


def texts(phrases, kind=None):
    return [phrase.text for phrase in phrases if kind in (None, phrase.kind)]


def every_concept():
    for label in TREE:
        yield label.id
        if label.laterality:
            yield concept_of(label.id, "left")
            yield concept_of(label.id, "right")


def test_no_phrase_means_two_concepts():
    meant: dict[str, str] = {}
    for concept in every_concept():
        for phrase in concept_phrases(concept, TREE):
            assert meant.setdefault(phrase.text.lower(), concept) == concept, phrase.text


def test_phrases_come_once_and_the_name_first():
    for concept in every_concept():
        found = texts(concept_phrases(concept, TREE))
        assert found[0] == TREE.concept_name(concept)
        assert len({text.lower() for text in found}) == len(found)


def test_phrases_of_a_side_say_the_side():
    for concept in every_concept():
        side = concept.partition("@")[2]
        if side:
            assert all(side in text for text in texts(concept_phrases(concept, TREE)))


def test_names_and_synonyms_resolve_back():
    for concept in every_concept():
        for phrase in concept_phrases(concept, TREE):
            if phrase.kind in ("name", "synonym", "laterality"):
                assert TREE.resolve(phrase.text) == TREE.split(concept), phrase.text


def test_aliases_are_never_spoken():
    found = texts(concept_phrases("musculoskeletal.vertebra", TREE))
    assert "vertebra" in found
    assert "vertebrae (upper)" not in found


def test_forms_of_a_finding():
    plain = concept_phrases("abdomen.kidney.tumor", TREE)
    assert texts(plain, "adjective") == ["renal tumor"]
    assert texts(plain, "site") == ["tumor of the kidney", "tumor in the kidney"]
    assert "kidney tumour" in texts(plain, "synonym")
    left = texts(concept_phrases("abdomen.kidney.tumor@left", TREE))
    assert {"left renal tumor", "kidney tumor on the left side", "tumor in the left kidney"} <= set(left)
    assert "effusion of the pleural cavity" not in texts(concept_phrases("thorax.pleura.effusion", TREE))
    assert "tumor on the right side of the brain" in texts(concept_phrases("head_neck.brain.tumor@right", TREE))


def test_unknown_concept():
    with pytest.raises(SourceError):
        concept_phrases("abdomen.kidny", TREE)


def region(label="abdomen.kidney.tumor", box=(10.0, 10.0, 30.0, 20.0), **more):
    return Region(label, box, **more)


def test_region_phrases_hold_the_plain_and_the_sided_name():
    found = texts(region_phrases(region(laterality="left"), TREE))
    assert {"kidney tumor", "left kidney tumor"} <= set(found)
    assert "both lungs" in texts(region_phrases(region("thorax.lung", laterality="bilateral"), TREE))
    assert texts(region_phrases(region("abdomen.liver"), TREE)) == texts(concept_phrases("abdomen.liver", TREE))


def test_size_needs_spacing():
    assert not texts(region_phrases(region(), TREE), "size")
    assert texts(region_phrases(region(), TREE, (0.5, 0.6)), "size") == ["12 mm kidney tumor", "12 mm tumor"]


@pytest.mark.parametrize(
    "unsaid",
    [
        region("abdomen.liver"),
        region("thorax.pleura.effusion"),
        region(flags=("touches_border",)),
        region(flags=("merged",)),
        region(box=(10.0, 10.0, 10.5, 10.5)),
    ],
)
def test_no_size_of_organs_fluids_cut_merged_or_minute_regions(unsaid):
    assert not texts(region_phrases(unsaid, TREE, (0.5, 0.5)), "size")


def test_relation_to_the_parent():
    kidney = region("abdomen.kidney", (0.0, 0.0, 60.0, 60.0), laterality="right")
    found = region_phrases(region("systemic.lesion"), TREE, (0.6, 0.6), kidney)
    assert texts(found, "relation") == ["lesion in the right kidney"]
    assert "12 mm lesion in the right kidney" in texts(found, "size")


def test_what_the_source_measured_comes_first():
    assert diameter_mm(region(attributes={"diameter_mm": 7.5}, flags=("merged",)), None) == 7.5


def masked(mask):
    return region(box=box_of_mask(mask), mask=rle_of_mask(mask))


def test_diameter_of_one_pixel_and_of_a_diagonal():
    mask = np.zeros((9, 9), bool)
    mask[4, 4] = True
    assert diameter_mm(masked(mask), (2.0, 2.0)) == pytest.approx(np.hypot(2, 2))
    assert diameter_mm(masked(np.eye(9, dtype=bool)), (1.0, 1.0)) == pytest.approx(9 * np.sqrt(2))
    assert diameter_mm(masked(np.ones((1, 5), bool)), (3.0, 1.0)) == pytest.approx(np.hypot(5, 3), rel=1e-3)


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(st.integers(0, 19), min_size=1, max_size=30),
    columns=st.integers(1, 20),
    spacing=st.tuples(st.floats(0.1, 5.0), st.floats(0.1, 5.0)),
)
def test_diameter_lies_between_the_box_side_and_its_diagonal(rows, columns, spacing):
    mask = np.zeros((20, 20), bool)
    mask[rows, np.arange(len(rows)) % columns] = True
    x0, y0, x1, y1 = box_of_mask(mask) or (0, 0, 0, 0)
    sides = (x1 - x0) * spacing[1], (y1 - y0) * spacing[0]
    found = diameter_mm(masked(mask), spacing) or 0.0
    assert max(sides) <= found + 1e-9
    assert found <= np.hypot(*sides) + 1e-9
    assert diameter_mm(masked(mask.T), spacing[::-1]) == pytest.approx(found, rel=1e-3)
