"""Captions: every region is named once, where the spans say; nothing is said that the record does not hold."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medglip.errors import SourceError
from medglip.records.captions import caption_of
from medglip.records.labels import LabelTree, label_tree, read_labels
from medglip.records.record import ImageRecord, Origin, Region, identified

TREE = label_tree()
LABELS = [label.id for label in TREE if label.level != "body_region"]


def record(regions=(), **more):
    shown = {"modality": "ct", "body_region": "abdomen"} | more
    return ImageRecord(id="0" * 16, sha256="0" * 64, width=64, height=64, channels=1, bits=8,
                       origin=Origin("made_up", "1.png", "1"), licence="MIT", regions=tuple(regions), **shown)  # fmt: skip


def region(label, side=None, **more):
    return Region(label, (1.0, 1.0, 9.0, 9.0), laterality=side, **more)


def said(caption):
    return [(caption.text[span.start : span.end], len(span.regions)) for span in caption.spans]


def test_anatomy_then_findings_then_what_is_absent():
    shown = [region("abdomen.kidney.cyst", "left"), region("abdomen.liver"), region("abdomen.kidney.cyst", "left"),
             region("abdomen.kidney", "left")]  # fmt: skip
    caption = caption_of(
        record(shown, absent=("abdomen.kidney.stone", "abdomen.spleen"), modality_detail={"plane": "axial"}), TREE
    )
    assert caption.text == "Axial CT of the abdomen showing liver, left kidney and two left kidney cysts. No kidney stone."
    assert said(caption) == [("liver", 1), ("left kidney", 1), ("two left kidney cysts", 2)]
    assert caption.kind == "template"
    assert caption.spans[2].regions == (f"{'0' * 16}-000", f"{'0' * 16}-002")


def test_without_regions_only_the_picture_is_named():
    assert caption_of(record(modality="fundus", body_region=None), TREE).text == "Fundus photograph."
    assert caption_of(record(modality="microscopy", body_region="systemic"), TREE).text == "Microscopy image."
    assert caption_of(record(modality="xray", body_region="thorax"), TREE).text == "X-ray image of the thorax."


@pytest.mark.parametrize(
    ("label", "sides", "phrases"),
    [
        ("systemic.nucleus", [None] * 11, [("11 nuclei", 11)]),
        ("systemic.nucleus", [None] * 10, [("ten nuclei", 10)]),
        ("thorax.lung", [None, None], [("lungs", 2)]),
        ("thorax.lung", ["left", "right"], [("left lung", 1), ("right lung", 1)]),
        ("thorax.lung", ["bilateral"], [("both lungs", 1)]),
        ("abdomen.liver", ["midline", None, "bilateral"], [("liver", 3)]),
        ("head_neck.tooth", [None], [("tooth", 1)]),
        ("head_neck.tooth", ["left", "left", "left"], [("three left teeth", 3)]),
    ],
)
def test_equal_phrases_are_one_span(label, sides, phrases):
    assert said(caption_of(record([region(label, side) for side in sides]), TREE)) == phrases


def test_an_absence_that_a_region_contradicts_or_another_implies_is_not_said():
    shown = [region("thorax.breast.tumor.benign")]
    assert "No" not in caption_of(record(shown, absent=("thorax.breast.tumor",)), TREE).text
    absent = ("thorax.breast.tumor", "thorax.breast.tumor.benign", "thorax.breast.tumor.malignant")
    assert caption_of(record(absent=absent), TREE).text.endswith("abdomen. No breast tumor.")
    absent = ("thorax.pleura.effusion@left", "thorax.lung.pneumothorax")
    sided = caption_of(record([region("thorax.pleura.effusion", "right")], absent=absent[:1]), TREE).text
    assert sided.endswith("showing right pleural effusion. No left pleural effusion.")


def test_an_unknown_label_is_refused():
    with pytest.raises(SourceError, match="kidny"):
        caption_of(record([region("abdomen.kidny")]), TREE)


REGIONS = st.lists(
    st.builds(region, st.sampled_from(LABELS), st.sampled_from([None, "left", "right", "bilateral", "midline"])), max_size=12
)


def check_spans(caption, ids):
    end = 0
    for span in caption.spans:
        assert end < span.start < span.end <= len(caption.text)
        assert caption.text[span.start : span.end].strip() == caption.text[span.start : span.end]
        assert not set(",.").intersection(caption.text[span.start - 1 : span.start])
        end = span.end
    assert sorted(one for span in caption.spans for one in span.regions) == sorted(ids)
    assert len(set(said(caption))) == len(caption.spans)


@settings(max_examples=150, deadline=None)
@given(regions=REGIONS, absent=st.lists(st.sampled_from(LABELS), max_size=5))
def test_every_region_is_in_one_span(regions, absent):
    shown = {one.concept for one in regions}
    image = record(regions, absent=tuple(concept for concept in absent if concept not in shown))
    caption = caption_of(image, TREE)
    check_spans(caption, [one.id for one in identified(image).regions])
    for span in caption.spans:
        phrase = caption.text[span.start : span.end]
        concepts = {one.concept for one in identified(image).regions if one.id in span.regions}
        assert len(concepts) == 1
        (concept,) = concepts
        label = TREE[TREE.split(concept)[0]]
        assert label.name in phrase or label.plural in phrase
    assert caption_of(image, TREE) == caption


@settings(max_examples=40, deadline=None)
@given(name=st.text(st.characters(categories=["L", "M", "S"]), min_size=1, max_size=8).map(lambda text: f"x{text}x"))
def test_spans_count_characters_whatever_they_are(name):
    tree = LabelTree(read_labels(f"[a]\nname = 'Ärm'\ncoarse = 'x'\n[a.organ]\n'a.b' = {{ name = '{name}' }}\n"))
    image = record([region("a.b"), region("a.b")], body_region="a")
    caption = caption_of(image, tree)
    assert said(caption) == [(name, 2)]
    check_spans(caption, [one.id for one in identified(image).regions])
