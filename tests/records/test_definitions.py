"""Names, lineages and definitions of all concepts of the tree: whole sentences that say where and what, and no word twice."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medglip.errors import InputError, SourceError
from medglip.records.definitions import WAYS, augmented, definition, lineage
from medglip.records.labels import Label, LabelTree, label_tree
from medglip.records.spelling import words_of

TREE = label_tree()
SIDES = ("", "@left", "@right")
CONCEPTS = [label.id + side for label in TREE for side in (SIDES if label.laterality else SIDES[:1])]
TEXTS = {concept: [augmented(concept, TREE, way) for way in WAYS] for concept in CONCEPTS}


def above(label: Label) -> Label | None:
    """What a label is in, by part or site."""
    found = label.part_of or (label.site[0] if label.site else None)
    return TREE[found] if found else None


def organ_of(concept: str) -> Label | None:
    """The organ above a label; None where there is none, and for an organ itself."""
    label = TREE[TREE.split(concept)[0]]
    if label.level == "organ":
        return None
    up = above(label)
    while up and up.level != "organ":
        up = above(up)
    return up


def test_examples_by_hand():
    assert TEXTS["abdomen.kidney.cyst@left"] == [
        "left kidney cyst",
        "left kidney cyst, in the left kidney, in the abdomen",
        "left kidney cyst: a finding in the left kidney, in the abdomen, a kind of cyst and of kidney lesion; "
        "also called left simple cyst of the kidney, left renal cyst",
    ]
    assert definition("head_neck.brain.glioma@right", TREE) == (
        "right glioma: a finding in the brain, in the head and neck, a kind of brain tumor, on the right side"
    )
    assert definition("thorax.lung", TREE) == "lung: an anatomical structure in the thorax, left or right"
    assert lineage("head_neck.brain.tumor.enhancing_core", TREE) == (
        "enhancing tumor core, in the tumor core, in the brain tumor, in the brain, in the head and neck"
    )
    assert lineage("head_neck.neck", TREE) == "neck"  # "in the head and neck" says no more
    assert lineage("musculoskeletal.calcaneus", TREE) == "calcaneus, in the musculoskeletal system"  # itself a tarsal bone
    assert lineage("head_neck.tooth.lower", TREE) == "lower teeth, in the head and neck"  # not in one tooth
    assert definition("abdomen", TREE) == "abdomen: a body region; also called belly"
    assert definition("thorax.heart.left_atrium", TREE).startswith("left atrium: a part of the heart, in the thorax")
    assert definition("systemic.tumor.malignant", TREE) == (
        "malignant tumor: a finding of the body, a kind of tumor; also called malignant neoplasm, cancer"
    )


def test_every_text_begins_with_the_name_and_is_whole():
    for concept, texts in TEXTS.items():
        name = TREE.concept_name(concept)
        assert texts[0] == name
        assert texts[1] == name or texts[1].startswith(f"{name}, in the ")
        assert texts[2].startswith(f"{name}: a")
        for text in texts:
            assert len(text.split()) < 40, text
            assert all(clause.strip(" ,.") for clause in re.split("[,:;]", text)), text
            assert text == " ".join(text.split()), text
            assert "None" not in text, text
            assert "@" not in text, text


def test_no_word_is_doubled():
    for texts in TEXTS.values():
        for text in texts:
            assert not re.search(r"\b([\w-]+) \1\b", text, re.IGNORECASE), text


def test_the_organ_is_named():
    said = 0
    for concept, (_, placed, defined) in TEXTS.items():
        organ = organ_of(concept)
        if organ:
            said += 1
            # upper teeth are no part of one tooth, and a third molar is one
            words = (organ.name, organ.plural)
            assert any(word in placed for word in words), placed
            assert any(word in defined for word in words), defined
    assert said > 800


def test_the_body_region_is_named():
    for concept, (_, placed, defined) in TEXTS.items():
        region = TREE[TREE.body_region(TREE.split(concept)[0])]
        if region.id == "systemic":
            assert "whole body" not in placed.removeprefix("whole body")
        else:
            near = ("head", "neck") if region.id == "head_neck" else (region.name,)
            assert any(name in placed for name in near), placed
            assert any(name in defined for name in near), defined


def test_kinds_are_told():
    for concept, (*_, defined) in TEXTS.items():
        label = TREE[TREE.split(concept)[0]]
        for kind in (label.is_a, *label.also_is):
            if kind:
                assert re.search(rf"a kind of ([^,;]* and of )?{re.escape(TREE[kind].name)}( and of|,|;|$)", defined), defined


def test_a_side_is_told_and_never_the_other():
    for concept, (_, placed, defined) in TEXTS.items():
        side = TREE.split(concept)[1]
        other = {"left": "right", "right": "left", None: None}[side]
        if other:
            assert not re.search(rf"\b{other}\b", placed + defined), defined
            assert re.search(rf"( in| of) the {side} |on the {side} side", defined), defined
        elif TREE[concept].is_finding is False:
            assert (", left or right" in defined) == TREE[concept].laterality, defined


def test_other_names_are_few_and_new():
    for name, _, defined in TEXTS.values():
        _, _, others = defined.partition("; also called ")
        names = others.split(", ") if others else []
        assert len(names) <= 3, defined
        said = [sorted(words_of(one)) for one in (name, *names)]
        assert all(words not in said[:number] for number, words in enumerate(said)), defined


def test_a_name_of_another_word_is_told_where_there_is_room():
    for concept, (name, _, defined) in TEXTS.items():
        label, side = TREE[TREE.split(concept)[0]], TREE.split(concept)[1]
        new = [text for text in label.synonyms if sorted(words_of(text)) != sorted(words_of(label.name))]
        if new and len(defined.split()) < 25:
            first = f"{side} {new[0]}" if side else new[0]
            assert f"; also called {first}" in defined, (name, defined)


def test_definitions_tell_concepts_apart():
    assert len({defined for *_, defined in TEXTS.values()}) == len(TEXTS)
    assert len({placed for _, placed, _ in TEXTS.values()}) == len(TEXTS)


@given(st.sampled_from(CONCEPTS))
def test_a_lineage_goes_up_the_tree_in_order(concept: str):
    label_id, _ = TREE.split(concept)
    chain = [label_id]
    while (up := above(TREE[chain[-1]])) is not None:
        chain.append(up.id)
    names = [TREE[one].name for one in chain]
    said = [clause.removeprefix("in the ") for clause in lineage(concept, TREE).split(", ")]
    places = [next(at for at, name in enumerate(names) if clause in (name, f"left {name}", f"right {name}")) for clause in said]
    assert places[0] == 0
    assert places == sorted(set(places))


def test_a_tree_of_ones_own():
    tree = LabelTree([
        Label("thorax", "thorax", "body_region"),
        Label("thorax.lung", "lung", "organ", part_of="thorax", laterality=True),
        Label("thorax.lung.clip", "lung clip", "finding", site=("thorax.lung",), coarse="device", laterality=True),
    ])  # fmt: skip
    assert definition("thorax.lung.clip", tree) == "lung clip: an object or a marking in the lung, in the thorax"
    assert lineage("thorax.lung.clip@right", tree) == "right lung clip, in the right lung, in the thorax"


@pytest.mark.parametrize("way", ["", "Definition", "knowledge"])
def test_an_unknown_way_is_refused(way: str):
    with pytest.raises(InputError, match=r"found .*allowed: name, lineage, definition"):
        augmented("thorax.lung", TREE, way)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("concept", ["thorax.lungs", "thorax.lung@up"])
def test_an_unknown_concept_is_refused(concept: str, way: str):
    with pytest.raises(SourceError):
        augmented(concept, TREE, way)
