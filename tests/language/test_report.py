import json
import re

import numpy as np
import pytest
from language_world import EFFUSION, KIDNEY, KIDNEY_TUMOR, LIVER, LUNG, NODULE, SPLEEN, Grounder, noisy, record, region, world

from medglip.errors import ModelError
from medglip.language.bands import Bands
from medglip.language.grammar import is_finding
from medglip.language.metrics import statements_of_text
from medglip.language.observe import FOLDER
from medglip.language.report import NOTICE, Reporter, report
from medglip.language.scene import scene_of_record, scene_of_regions
from medglip.language.view import ImageView
from medglip.language.vocabulary import Vocabulary
from medglip.records import label_tree

TREE = label_tree()
BANDS = Bands(present=0.6, absent=0.2, place=0.3)
SCENES = [scene for truth in world(40) for scene in (scene_of_record(truth), noisy(truth).scene(BANDS))]


def lines(truth):
    return [line.text for line in report(scene_of_record(truth)).sentences]


def test_positive_sentences_cite_regions_of_their_concepts_and_others_state_no_more_than_the_scene():
    for scene in SCENES:
        absent = {item.concept for item in scene.absent}
        uncertain = {finding.concept for finding in scene.uncertain}
        for line in report(scene).sentences:
            assert line.kind == "template"
            cited = {scene.region(region_id).concept for region_id in line.region_ids}
            if line.polarity == "present":
                assert cited == set(line.concepts)
            elif line.polarity == "absent":
                assert set(line.concepts) <= absent
                assert not line.region_ids
            elif line.polarity == "uncertain":
                assert set(line.concepts) <= uncertain


def test_every_finding_is_said_once_in_each_section():
    for scene in SCENES:
        made = report(scene)
        said = [concept for line in made.section("findings") if line.polarity == "present" for concept in line.concepts]
        assert sorted(said) == sorted(finding.concept for finding in scene.findings)
        impression = [concept for line in made.section("impression") if line.polarity == "present" for concept in line.concepts]
        assert sorted(impression) == sorted(f.concept for f in scene.findings if is_finding(f.concept, TREE))


def test_text_read_back_says_the_same():
    for scene in SCENES:
        for line in report(scene).section("findings"):
            if line.polarity == "absent" and len(line.concepts) == 1:
                stated = {s.concept for s in statements_of_text(line.text) if s.polarity == "absent"}
                assert set(line.concepts) <= stated or "Not seen" in line.text


def test_sentences_are_grammatical():
    for scene in SCENES:
        for line in report(scene).sentences:
            assert re.fullmatch(r"[A-Z0-9][^.]*(\.\d[^.]*)?\.", line.text), line.text
            assert "  " not in line.text
            assert not re.search(r"\b(two|three|four) [a-z ]+ is\b|\ba [aeio]|\bNone\b|image-", line.text, re.IGNORECASE), (
                line.text
            )


def test_wording():
    truth = record(
        [region(KIDNEY, (80, 80, 110, 110), "left", id="k"), region(KIDNEY_TUMOR, (82, 82, 92, 90), "left", parents=("k",))],
        absent=[SPLEEN, "abdomen.liver.lesion"],
    )
    assert lines(truth) == [
        "A left kidney tumor is seen in the anterior medial part of the kidney, with a bounding extent of about 10 mm.",
        "The left kidney is seen.",
        "No liver lesion is seen.",
        "Not seen in this image: the spleen.",
        "A left kidney tumor in the anterior medial part of the kidney.",
    ]


def test_anatomy_outside_the_image_is_counted_beyond_eight():
    bones = [label.id for label in TREE if label.is_a == "musculoskeletal.vertebra.thoracic" and not label.laterality]
    assert len(bones) > 10
    made = report(scene_of_record(record(absent=bones)))
    assert made.sentences[0].text.endswith(f"and {len(bones) - 8} other structures.")
    assert set(made.sentences[0].concepts) == set(bones)


def test_absent_cells_and_pairs_are_plural():
    platelet = "systemic.blood.platelet"
    assert lines(record(absent=[platelet], exhaustive=()))[0] == "Not seen in this image: platelets."
    both = [f"{KIDNEY}@left", f"{KIDNEY}@right"]
    assert lines(record(absent=both, exhaustive=()))[0] == "Not seen in this image: the kidneys."
    kidneys = [region(KIDNEY, (5, 5, 20, 20), "right"), region(KIDNEY, (50, 5, 70, 20), "left")]
    assert lines(record(kidneys))[0] == "Both kidneys are seen."


def test_both_sides_denied_are_one_denial():
    truth = record(absent=[f"{EFFUSION}@left", f"{EFFUSION}@right", f"{NODULE}@left"], exhaustive=())
    assert "No left lung nodule or pleural effusion is seen." in lines(truth)


def test_counts_and_places_without_spacing():
    lung = region(LUNG, (0, 0, 60, 128), "right", id="lung")
    nodules = [region(NODULE, (5, y, 12, y + 8), "right", parents=("lung",)) for y in (5, 60, 100)]
    text = " ".join(lines(record([lung, *nodules], spacing_mm=None, affine_px_to_mm=None, modality="xray")))
    assert "Three right lung nodules are seen." in text
    assert " mm" not in text


def test_uncertain_is_said_to_be():
    scene = scene_of_regions(
        [region(NODULE, (5, 5, 20, 20), score=0.9)], {NODULE: 0.5, EFFUSION: 0.25}, ImageView(50, 50), BANDS
    )
    texts = [line.text for line in report(scene).sentences]
    assert texts == [
        "Possible lung nodule; the model is uncertain.",
        "Whether there is any pleural effusion could not be decided.",
        "Uncertain: lung nodule.",
    ]


def test_nothing_to_say_is_not_called_normal():
    made = report(scene_of_regions([], {LIVER: 0.3}, ImageView(50, 50), Bands()))
    assert "normal" not in made.to_text().lower()
    assert made.section("impression")[0].text == "No finding was searched for."


def test_text_numbers_are_the_cited_regions():
    for scene in SCENES[:20]:
        made = report(scene)
        text = made.to_text()
        numbers = {int(n) for group in re.findall(r"\[([\d, ]+)\]", text) for n in group.split(",")}
        assert numbers == set(range(1, len(made.cited()) + 1))
        assert text.endswith(NOTICE)


def test_json_is_plain_and_radfact_boxes_are_normalised():
    made = report(scene_of_record(world(2)[0]))
    plain = json.loads(json.dumps(made.to_json()))
    assert plain["schema"] == "medglip.report/1"
    assert {r["id"] for r in plain["regions"]} == set(made.cited())
    for phrase in made.to_radfact():
        assert phrase["boxes"] is None or phrase["boxes"]
        for box in phrase["boxes"] or ():
            assert 0 <= box["x_min"] < box["x_max"] <= 1


def test_technique_owns_up():
    chest = report(scene_of_record(record([region(LUNG, (0, 0, 9, 9), "left")], modality="xray", spacing_mm=(0.1, 0.1),
                                          spacing_source="ImagerPixelSpacing")))  # fmt: skip
    assert "at the detector" in chest.technique
    assert "spacing unknown" in report(scene_of_regions([], {}, ImageView(5, 5), BANDS)).technique


def test_reporter_looks_at_an_image(tmp_path):
    reporter = Reporter(Grounder({"liver": 0.9, "spleen": 0.01}), Vocabulary({"ct": ((LIVER, SPLEEN),)}), BANDS)
    text = reporter.report(np.zeros((64, 64), np.uint8), modality="ct").to_text()
    assert "The liver is seen. [1]" in text
    assert "Not seen in this image: the spleen." in text
    folder = tmp_path / FOLDER
    folder.mkdir()
    reporter.vocabulary.save(folder)
    reporter.bands.save(folder)
    again = Reporter.load(tmp_path, reporter.grounder)
    assert again.report(np.zeros((64, 64), np.uint8), modality="ct").to_text() == text


def test_checkpoint_without_language_is_refused(tmp_path):
    with pytest.raises(ModelError, match="language"):
        Reporter.load(tmp_path, Grounder())
