"""The source x label matrix: its rule, sides, kinds, several parts; what a record knows to be absent."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import medglip
from medglip.errors import SourceError
from medglip.records.labels import label_tree
from medglip.records.record import MODALITIES, Region, concept_of
from medglip.store import write_part
from medglip.store.groups.divided import Divided
from medglip.store.matrix import STATES, Matrix, labels_seen, labels_unseen, matrix_of, source_label_matrix

TREE = label_tree()
LABELS = [label.id for label in TREE]
ANATOMY = [label.id for label in TREE if not label.is_finding]
CHEST = {"exhaustive": ["thorax.lung", "thorax.lung.nodule"], "field": ["thorax"]}


def one(modality, **facts):
    return Matrix({"s": {modality: [facts]}})


def state(concept, modality="xray", **facts):
    return one(modality, **(facts or CHEST)).state("s", modality, concept)


@pytest.mark.parametrize(
    ("concept", "expected"),
    [
        ("thorax.lung", "exhaustive"),
        ("thorax.lung@left", "exhaustive"),
        ("thorax.lung.nodule@right", "exhaustive"),
        ("thorax.heart", "possible"),
        ("thorax.lung.upper_lobe", "possible"),  # a part of what is marked is not marked itself
        ("thorax.heart.cardiomegaly", "possible"),
        ("musculoskeletal.femur", "possible"),  # bones, vessels, skin, tools may be anywhere
        ("abdomen.renal_artery", "possible"),
        ("systemic.aorta", "possible"),
        ("systemic.lesion", "possible"),
        ("systemic.catheter", "possible"),
        ("head_neck.brain", "impossible"),
        ("head_neck.brain.tumor", "impossible"),
        ("abdomen.kidney@left", "impossible"),
        ("systemic.nucleus.lymphocyte", "impossible"),
        ("systemic.skin.lesion.pigment_network", "impossible"),
    ],
)
def test_a_chest_film(concept, expected):
    assert state(concept) == expected


@pytest.mark.parametrize(
    ("modality", "field", "can", "cannot"),
    [
        ("dermoscopy", "systemic.skin", ["systemic.skin.melanoma", "systemic.artifact.ruler", "systemic.hair"],
         ["musculoskeletal.bone", "abdomen.liver", "head_neck.eye.retina.drusen"]),
        ("fundus", "head_neck.eye.retina", ["head_neck.eye.optic_cup", "head_neck.eye.glaucoma", "systemic.vessel"],
         ["head_neck.eye.cataract", "systemic.aorta", "systemic.skin.nevus"]),
        ("endoscopy", "abdomen.colon", ["abdomen.colon.polyp", "abdomen.gastrointestinal_tract.bleeding", "systemic.polyp",
         "systemic.instrument.snare"], ["abdomen.stomach.ulcer", "abdomen.liver", "systemic.cell"]),
        ("histopathology", "pelvis.prostate", ["pelvis.prostate.tumor_gland", "systemic.nucleus", "systemic.tissue.stroma"],
         ["abdomen.colon.gland", "thorax.lung.nodule"]),
        ("ct", "head_neck", ["head_neck.brain.hemorrhage", "head_neck.eye.lens"], ["thorax.lung", "abdomen.liver.tumor"]),
    ],
)  # fmt: skip
def test_other_pictures(modality, field, can, cannot):
    assert {state(c, modality, field=[field]) for c in can} == {"possible"}
    assert {state(c, modality, field=[field]) for c in cannot} == {"impossible"}


def test_possible_and_impossible_go_down_and_exhaustive_goes_first():
    facts = {"field": ["thorax"], "possible": ["head_neck.brain"], "impossible": ["musculoskeletal.femur", "thorax.heart"],
             "exhaustive": ["thorax.heart.cardiomegaly"]}  # fmt: skip
    assert state("head_neck.brain.tumor", **facts) == "possible"
    assert state("musculoskeletal.femur.fracture", **facts) == "impossible"
    assert state("thorax.heart.left_atrium", **facts) == "impossible"
    assert state("thorax.heart.cardiomegaly", **facts) == "exhaustive"


def test_both_sides_searched_is_all_searched():
    assert state("thorax.lung", exhaustive=["thorax.lung@left", "thorax.lung@right"]) == "exhaustive"
    assert state("thorax.lung", exhaustive=["thorax.lung@left"]) == "possible"
    assert state("thorax.breast.tumor.benign", exhaustive=["thorax.breast.tumor"]) == "exhaustive"
    assert state("thorax.breast.tumor", exhaustive=["thorax.breast.tumor.benign"]) == "possible"


def test_parts_of_one_modality_are_joined():
    liver = {"exhaustive": ["abdomen.liver"], "field": ["abdomen"]}
    breast = {"exhaustive": ["thorax.breast.tumor"], "field": ["thorax.breast"]}
    matrix = Matrix({"s": {"ultrasound": [liver, breast]}})
    found = {c: matrix.state("s", "ultrasound", c)
             for c in ("abdomen.liver", "thorax.breast.tumor", "abdomen.kidney", "head_neck.brain")}  # fmt: skip
    assert found == {"abdomen.liver": "exhaustive", "thorax.breast.tumor": "exhaustive", "abdomen.kidney": "possible",
                     "head_neck.brain": "impossible"}  # fmt: skip
    assert Matrix({"s": {"ct": [liver, {"field": ["abdomen"]}]}}).state("s", "ct", "abdomen.liver") == "possible"


def test_nothing_is_known_of_other_sources_and_without_a_field():
    matrix = one("xray", **CHEST)
    assert matrix.state("other", "xray", "head_neck.brain") == "possible"
    assert matrix.state("s", "ct", "head_neck.brain") == "possible"
    assert {state(label, exhaustive=["thorax.lung"]) for label in ("head_neck.brain", "pelvis.uterus")} == {"possible"}
    assert state("systemic.nucleus", exhaustive=["thorax.lung"]) == "impossible"
    with pytest.raises(SourceError):
        matrix.state("s", "xray", "thorax.lnug")


parts = st.fixed_dictionaries({
    "field": st.lists(st.sampled_from(ANATOMY), max_size=3),
    "exhaustive": st.lists(st.sampled_from(LABELS), max_size=4),
    "impossible": st.lists(st.sampled_from(LABELS), max_size=2),
})  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(facts=parts, modality=st.sampled_from(MODALITIES))
def test_a_kind_that_may_be_there_makes_the_wider_concept_possible(facts, modality):
    seen = labels_seen(modality, facts, TREE)
    for label in seen:
        assert all(wide in seen for wide in TREE.ancestors(label) if TREE.covers(wide, label))
    assert set(facts["exhaustive"]) <= seen
    assert set(labels_unseen(LABELS, modality, facts, TREE)) == set(LABELS) - seen
    assert set(facts["field"]) <= seen or facts["impossible"] or modality not in ("microscopy", "other")


@settings(max_examples=40, deadline=None)
@given(facts=parts, modality=st.sampled_from(MODALITIES), concept=st.sampled_from(LABELS))
def test_a_side_has_the_state_of_its_label(facts, modality, concept):
    matrix = one(modality, **facts)
    found = matrix.state("s", modality, concept)
    assert found in STATES
    if TREE[concept].laterality:
        assert {matrix.state("s", modality, concept_of(concept, side)) for side in ("left", "right")} == {found}
    wider = [wide for wide in TREE.ancestors(concept) if TREE.covers(wide, concept)]
    if found != "impossible":
        assert all(matrix.state("s", modality, wide) != "impossible" for wide in wider)


def test_what_a_record_knows_to_be_absent(plain_picture):
    matrix = Matrix({"made_up": {"xray": [CHEST]}})
    record = plain_picture(1, exhaustive=("thorax.lung", "thorax.lung.nodule"), absent=("thorax.lung.nodule",)).record
    assert matrix.is_negative(record, "thorax.lung.nodule@left")  # absent says so
    assert matrix.is_negative(record, "head_neck.brain")  # impossible
    assert not matrix.is_negative(record, "thorax.heart")  # not searched for
    assert matrix.is_negative(record, "thorax.lung@left")  # searched for
    unsearched = replace(record, exhaustive=(), absent=())
    assert not matrix.is_negative(unsearched, "thorax.lung.nodule")  # of the source, not of this image
    box = (1.0, 1.0, 3.0, 3.0)
    shown = replace(record, regions=(Region("thorax.lung", box),))
    assert not matrix.is_negative(shown, "thorax.lung")
    assert not matrix.is_negative(shown, "thorax.lung@left")  # it may be this one
    left = replace(record, regions=(Region("thorax.lung", box, laterality="left"),))
    assert matrix.is_negative(left, "thorax.lung@right")
    assert not matrix.is_negative(left, "thorax.lung")
    odd = replace(record, regions=(Region("head_neck.brain", box),))
    assert not matrix.is_negative(odd, "head_neck.brain")  # what is seen is there, whatever the matrix says


def test_a_dataset_keeps_the_facts_of_its_sources(tmp_path, plain_picture, info):
    write_part(tmp_path / "d", "made_up-0", iter([plain_picture(1)]), [], [], info | {"matrix": {"xray": [CHEST]}})
    more = info | {"matrix": {"xray": [CHEST, {"field": ["abdomen"]}]}}
    write_part(tmp_path / "d", "made_up-1", iter([plain_picture(2)]), [], [], more)
    dataset = medglip.open(tmp_path / "d")
    assert matrix_of(dataset).facts == {"made_up": {"xray": [CHEST, {"field": ["abdomen"]}]}}
    assert matrix_of(Divided(dataset)).facts == matrix_of(dataset).facts
    table = source_label_matrix(dataset)
    assert list(table.index) == [("made_up", "xray")]
    assert list(table.columns) == LABELS
    assert list(table["thorax.lung"].cat.categories) == list(STATES)
    row = table.loc[("made_up", "xray")]
    assert (row["thorax.lung"], row["abdomen.liver"], row["head_neck.brain"]) == ("exhaustive", "possible", "impossible")
    assert np.mean(row == "impossible") > 0.2


def test_a_dataset_without_facts_has_no_rows(dataset_path):
    dataset = medglip.open(dataset_path)
    assert source_label_matrix(dataset).shape == (0, len(LABELS))
    assert matrix_of(dataset).state("made_up", "ct", "head_neck.brain") == "possible"
