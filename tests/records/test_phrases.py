"""Phrases: they name one concept, say the patient's side, and sizes only where they can be trusted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medglip.errors import SourceError
from medglip.records.labels import label_tree
from medglip.records.masks import box_of_mask, rle_of_mask
from medglip.records.phrases import concept_phrases, diameter_mm, phrased, region_phrases
from medglip.records.record import ImageRecord, Origin, Phrase, Region, Span, Text, concept_of

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


def image(*regions, **more):
    facts = {"modality": "ct", "body_region": "abdomen", "spacing_mm": (1.0, 1.0)} | more
    return ImageRecord(id="0" * 16, sha256="0" * 64, width=100, height=100, channels=1, bits=8,
                       origin=Origin("made_up", "1.png", "1"), licence="MIT", regions=regions, **facts)  # fmt: skip


def told(*regions, **more):
    return [texts(one.phrases) for one in phrased(image(*regions, **more), TREE).regions]


KIDNEYS = (region("abdomen.kidney", (0.0, 0.0, 50.0, 90.0), laterality="right"),
           region("abdomen.kidney", (50.0, 0.0, 100.0, 90.0), laterality="left"))  # fmt: skip


def test_an_image_gives_parents_ids_and_relations():
    cyst = region("abdomen.kidney.cyst", (60.0, 10.0, 72.0, 20.0))
    found = phrased(image(*KIDNEYS, cyst), TREE).regions
    assert [one.id for one in found] == [f"{'0' * 16}-00{n}" for n in range(3)]
    assert [one.parents for one in found] == [(), (), (found[1].id,)]
    assert "cyst in the left kidney" in texts(found[2].phrases, "relation")
    assert {"12 mm kidney cyst", "12 mm cyst", "12 mm cyst in the left kidney"} == set(texts(found[2].phrases, "size"))


def test_a_size_that_fits_several_is_said_of_all_or_of_none():
    here, there = (10.0, 10.0, 22.0, 20.0), (60.0, 30.0, 70.0, 42.0)
    kidney, liver = region("abdomen.kidney.tumor", here), region("abdomen.liver.tumor", there)
    both = told(kidney, liver)
    assert all("12 mm tumor" in found for found in both)
    assert "12 mm kidney tumor" in both[0]
    assert "12 mm kidney tumor" not in both[1]
    carcinoma = region("abdomen.liver.hepatocellular_carcinoma", there)  # is a liver tumor
    assert "12 mm liver tumor" in told(region("abdomen.liver.tumor", here), carcinoma)[1]
    unsized = region("abdomen.liver.tumor", there, flags=("touches_border",))
    assert "12 mm tumor" not in told(kidney, unsized)[0]
    assert "12 mm kidney tumor" in told(kidney, unsized)[0]


def test_a_relation_is_not_said_where_another_region_lies_half_in_the_place():
    inside, half = (10.0, 10.0, 20.0, 20.0), (45.0, 40.0, 55.0, 50.0)
    found = told(*KIDNEYS, region("abdomen.kidney.cyst", inside), region("abdomen.kidney.cyst", half))
    assert "cyst in the right kidney" not in found[2]
    found = told(*KIDNEYS, region("abdomen.kidney.cyst", inside), region("abdomen.kidney.cyst", (70.0, 40.0, 80.0, 50.0)))
    assert "cyst in the right kidney" in found[2]
    assert "cyst in the left kidney" in found[3]
    assert "cyst in the right kidney" not in found[3]


def test_the_long_axis_is_the_size_where_it_is_known():
    measured = region(long_axis_mm=17.2, short_axis_mm=3.0)
    assert diameter_mm(measured, None) == 17.2
    assert "17 mm tumor" in told(measured)[0]
    assert diameter_mm(region(long_axis_mm=17.2, short_axis_mm=3.0, flags=("touches_border",)), None) is None
    assert not texts(phrased(image(region(), flags=("spacing_uncalibrated",)), TREE).regions[0].phrases, "size")


def test_the_picture_is_named():
    assert {"liver in CT", "liver in abdominal CT"} <= set(told(region("abdomen.liver"))[0])
    polyp = region("abdomen.colon.polyp")
    assert {"colorectal polyp in endoscopy", "colorectal polyp in an endoscopic image"} <= set(
        told(polyp, modality="endoscopy")[0]
    )
    assert not any(" in " in text for text in told(region("abdomen.liver"), modality="other")[0])


def test_attributes_of_the_source_are_spoken():
    mass = region("thorax.breast.tumor", attributes={"birads": 4, "margin": "Spiculated", "note": "see 12", "shape": "3"})
    found = phrased(image(mass), TREE).regions[0].phrases
    assert texts(found, "attribute") == ["BI-RADS 4 breast tumor", "spiculated breast tumor"]
    unknown = region("thorax.breast.tumor", (50.0, 50.0, 60.0, 60.0))
    assert not texts(phrased(image(mass, unknown), TREE).regions[0].phrases, "attribute")


def test_words_and_sentences_of_a_report():
    text = "Both kidneys seen. Small cyst (1.2 cm) on the left! Liver and cyst."
    ids = [f"{'0' * 16}-00{n}" for n in range(3)]
    spans = (Span(25, 29, (ids[2],)), Span(52, 57, (ids[0],)), Span(62, 66, (ids[2],)))
    assert [text[span.start : span.end] for span in spans] == ["cyst", "Liver", "cyst"]
    regions = region("abdomen.liver"), region("abdomen.spleen"), region("abdomen.kidney.cyst")
    found = phrased(image(*regions, texts=(Text(text, "report", spans=spans),)), TREE).regions
    assert texts(found[2].phrases, "report") == ["cyst", "Small cyst (1.2 cm) on the left!"]
    assert texts(found[0].phrases, "report") == []  # the word is the name; its sentence names the cyst as well
    assert texts(found[1].phrases, "report") == []


def test_phrases_of_a_model_stay_and_all_else_is_made_anew():
    given = (Phrase("a round thing", "machine"), Phrase("left liver", "laterality"))
    record = phrased(image(region("abdomen.liver", phrases=given)), TREE)
    assert texts(record.regions[0].phrases, "machine") == ["a round thing"]
    assert "left liver" not in texts(record.regions[0].phrases)
    assert phrased(record, TREE) == record


LABELS = [label.id for label in TREE if label.level != "body_region"]
SOME = st.builds(
    lambda label, side, x, y, size: region(label, (x, y, x + size, y + size), laterality=side),
    st.sampled_from([*LABELS, *["abdomen.kidney", "abdomen.kidney.tumor", "abdomen.kidney.cyst", "systemic.tumor"] * 100]),
    st.sampled_from([None, "left", "right"]), st.integers(0, 60), st.integers(0, 60), st.integers(4, 40),
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(regions=st.lists(SOME, min_size=1, max_size=6))
def test_every_region_has_three_phrases_and_no_phrase_is_wrong(regions):
    record = phrased(image(*regions), TREE)
    for one in record.regions:
        found = texts(one.phrases)
        assert len(found) >= 3
        assert len({text.lower() for text in found}) == len(found)
        assert found[0] == TREE[one.label].name
        parents = {other.id: other for other in record.regions}
        for text in texts(one.phrases, "size"):
            assert text.startswith(f"{round(one.box_xyxy[2] - one.box_xyxy[0])} mm ")
        for text in texts(one.phrases, "relation"):
            assert any(text.endswith(f" in the {TREE.name(p.label, p.laterality)}") for p in map(parents.get, one.parents))
    named: dict[str, set[str]] = {}
    for one in record.regions:
        for phrase in one.phrases:
            if phrase.kind in ("name", "synonym", "adjective", "laterality"):
                named.setdefault(phrase.text.lower(), set()).add(one.label)
    assert all(len(labels) == 1 for labels in named.values())
