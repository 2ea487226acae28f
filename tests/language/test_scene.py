import json

import pytest
from language_world import EFFUSION, KIDNEY, KIDNEY_TUMOR, LIVER, LUNG, NODULE, noisy, record, region, world

from medglip.errors import InputError
from medglip.language.bands import Bands
from medglip.language.observe import observation_of_record
from medglip.language.scene import scene_from_json, scene_of_record, scene_of_regions
from medglip.language.view import ImageView, view_of_record

BANDS = Bands(present=0.6, absent=0.2, place=0.3)


def test_truth_scene_says_what_the_record_says():
    truth = record(
        [region(KIDNEY, (80, 80, 110, 110), "left", id="k"), region(KIDNEY_TUMOR, (82, 82, 92, 90), "left", parents=("k",))],
        absent=["abdomen.spleen"],
    )
    scene = scene_of_record(truth)
    kidney, tumor = scene.findings
    assert (kidney.kind, kidney.name, kidney.side) == ("anatomy", "left kidney", "left")
    assert (tumor.within_name, tumor.place, tumor.size_mm, tumor.size_basis) == (
        "left kidney",
        ("anterior", "right"),
        10.0,
        "box",
    )
    assert [item.concept for item in scene.absent] == ["abdomen.spleen"]
    assert scene.origin == "truth"
    assert {r.id for r in scene.asserted} == {"k", "image-001"}


def test_size_needs_spacing():
    scene = scene_of_record(record([region(LIVER, (0, 0, 20, 20))], spacing_mm=None))
    assert scene.findings[0].size_mm is None


def predicted(presence, regions=(), bands=BANDS):
    return scene_of_regions(regions, presence, ImageView(128, 128, "xray"), bands)


@pytest.mark.parametrize(
    ("presence", "score", "kind"), [(0.9, 0.8, "findings"), (0.9, 0.1, "uncertain"), (0.4, 0.8, "uncertain")]
)
def test_assertion_needs_presence_and_a_region(presence, score, kind):
    scene = predicted({NODULE: presence}, [region(NODULE, (5, 5, 15, 15), score=score)])
    assert [f.concept for f in getattr(scene, kind)] == [NODULE]
    assert not scene.absent


def test_denial_needs_a_low_presence_of_a_deniable_concept():
    assert [p.concept for p in predicted({NODULE: 0.1}).absent] == [NODULE]
    assert not predicted({NODULE: 0.3}).absent
    limited = Bands(present=0.6, absent=0.2, place=0.3, deniable=frozenset({EFFUSION}))
    assert not predicted({NODULE: 0.1}, bands=limited).absent
    assert not predicted({NODULE: 0.01}, bands=Bands()).absent, "uncalibrated bands deny nothing"


def test_a_side_that_is_there_answers_the_general_concept():
    boxes = [region(EFFUSION, (5, 5, 30, 30), "left", score=0.9), region(EFFUSION, (6, 5, 30, 31), score=0.8)]
    scene = predicted({EFFUSION: 0.9, f"{EFFUSION}@left": 0.95}, boxes)
    assert [f.concept for f in scene.findings] == [f"{EFFUSION}@left"]
    scene = predicted({EFFUSION: 0.05, f"{EFFUSION}@left": 0.95}, boxes[:1])
    assert not scene.absent, "what is there on one side is not denied as a whole"


def test_findings_are_grouped_by_concept_and_organ():
    lungs = [region(LUNG, (0, 0, 50, 100), "right", score=0.9), region(LUNG, (60, 0, 120, 100), "left", score=0.9)]
    nodules = [region(NODULE, (x, 10, x + 8, 18), score=0.8) for x in (5, 25, 70)]
    scene = predicted({NODULE: 0.9, f"{LUNG}@left": 0.9, f"{LUNG}@right": 0.9}, lungs + nodules)
    found = {(f.within_name, f.count) for f in scene.findings if f.kind == "finding"}
    assert found == {("right lung", 2), ("left lung", 1)}


def test_left_finding_is_never_put_into_a_right_organ():
    boxes = [region(LUNG, (0, 0, 60, 100), "right", score=0.9), region(NODULE, (5, 5, 12, 12), "left", score=0.9)]
    scene = predicted({f"{LUNG}@right": 0.9, f"{NODULE}@left": 0.9}, boxes)
    assert [f.within for f in scene.findings if f.kind == "finding"] == [None]


def test_json_round_trip():
    for truth in world(8):
        for scene in (scene_of_record(truth), noisy(truth).scene(BANDS)):
            assert scene_from_json(json.loads(json.dumps(scene.to_json()))) == scene


def test_json_of_another_schema_is_refused():
    with pytest.raises(InputError, match=r"medglip\.scene/1"):
        scene_from_json({"schema": "other"})


def test_scene_knows_its_regions():
    scene = scene_of_record(record([region(LIVER, (0, 0, 20, 20))]))
    assert scene.region("image-000").label == LIVER
    with pytest.raises(InputError, match="no region 'x'"):
        scene.region("x")


def test_text_names_what_was_searched_for():
    text = scene_of_record(record([region(LIVER, (0, 0, 20, 20))], absent=[KIDNEY_TUMOR])).to_text()
    assert "Present: the liver" in text
    assert "absent: kidney tumor." in text


def test_side_letters():
    assert view_of_record(record()).side_letters == ("R", "L")
    chest = ImageView(10, 10, "xray", body_region="thorax")
    assert chest.side_letters == ("R", "L")
    assert ImageView(10, 10, "xray", body_region="thorax", detail={"view": "lateral"}).side_letters is None
    assert ImageView(10, 10, "endoscopy").side_letters is None


def test_observation_of_a_record_is_its_truth():
    truth = world(1)[0]
    assert observation_of_record(truth).scene(BANDS).findings == scene_of_record(truth).findings
