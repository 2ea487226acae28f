"""The cards that come with weights: every number is a counted or a measured one."""

import hashlib
import json

import pytest
from judged_cases import hit_or_miss

from medglip.curate.collections import load_collection
from medglip.deliver.card import Judged, concept_card, count, judged_apart, model_card, write_cards
from medglip.evaluate.tally import Tally
from medglip.model.checkpoints import CheckpointInfo
from medglip.model.config import load_config
from medglip.records.labels import label_tree
from medglip.records.record import ImageRecord, Origin, Region

TUMOR, LEFT = "thorax.breast.tumor.benign", "abdomen.kidney@left"
INFO = CheckpointInfo(load_config("tiny"), (LEFT, TUMOR), ("ct", "ultrasound"), trained={"steps": 12, "sources": ["us_busi"]})
FIGURES = {
    "ap50": 0.5, "ap": 0.25, "acc50": 0.125, "found": None, "absence_auroc": 0.75, "images": 3, "questions": 8,
    "intervals": {"ap50": (0.375, 0.625), "acc50": None},
    "by_modality": {"ultrasound": {"questions": 4, "ap50": 0.0625, "acc50": None, "absence_auroc": 0.5}},
    "intervals_by_modality": {"ultrasound": {"ap50": (0.0, 0.125)}},
    "bootstrap": {"draws": 200, "seed": 0, "level": 0.95},
}  # fmt: skip
LABELS = {
    ("us_busi", TUMOR): {"ap50": 0.5, "absence_auroc": None}, ("other", TUMOR): {"ap50": 0.25, "absence_auroc": 0.75},
    ("us_busi", "thorax.breast.tumor"): {"ap50": 0.0625, "absence_auroc": 1.0},
}  # fmt: skip
LANGUAGE = {"vqa_accuracy": 0.5, "vqa_majority": 0.25, "report_precision": 0.75, "vqa_questions": {"test": 12}}
JUDGED = Judged(FIGURES, {}, LABELS, LANGUAGE)


def record(number, source, licence, modality, *regions, group=None):
    return ImageRecord(f"{number:016x}", "0" * 64, 9, 9, 1, 8, modality, Origin(source, f"{number}.png", str(number)), licence,
                       regions=regions, group=group or f"g{number}")  # fmt: skip


def kidney(side):
    return Region("abdomen.kidney", (0, 0, 4, 4), laterality=side)


@pytest.fixture
def counts():
    tumor = Region(TUMOR, (0, 0, 4, 4))
    return count([
        record(1, "us_busi", "CC0-1.0", "ultrasound", tumor, tumor),
        record(2, "us_busi", "CC BY 4.0", "ultrasound", tumor, group="g1"),
        record(3, "phantom", "Apache-2.0", "ct", kidney("left"), kidney("right")),
        record(4, "phantom", "Apache-2.0", "ct"),
    ])  # fmt: skip


def test_counts_by_hand(counts):
    one = counts.concepts[TUMOR]
    assert (one.regions, one.images, one.groups, one.licences) == (3, 2, {"g1"}, {"CC0-1.0", "CC BY 4.0"})
    assert set(counts.concepts) == {TUMOR, LEFT, "abdomen.kidney@right"}
    assert (counts.sources["phantom"].images, counts.sources["phantom"].regions) == (2, 2)


def test_the_concept_card_tells_of_each_trained_concept_and_of_no_other(counts):
    kept = concept_card(INFO, counts, LABELS)["concepts"]
    assert [one["concept"] for one in kept] == [LEFT, TUMOR]
    left, tumor = kept
    assert (tumor["n_train"], tumor["n_train_images"], tumor["sources"]) == (3, 2, ["us_busi"])
    assert tumor["licences"] == ["CC BY 4.0", "CC0-1.0"]
    assert (tumor["ap50"], tumor["presence_auroc"], tumor["test_sources"]) == (0.375, 0.75, ["other", "us_busi"])
    assert tumor["ap50_by_source"] == {"other": 0.25, "us_busi": 0.5}
    assert (left["label"], left["side"], left["name"]) == ("abdomen.kidney", "left", "left kidney")
    assert (left["ap50"], left["presence_auroc"], left["test_sources"]) == (None, None, [])
    assert left["code"] == dict(zip(("scheme", "value", "meaning"), label_tree()["abdomen.kidney"].codes["type"], strict=True))
    assert left["code"]["scheme"] == "SCT"
    json.dumps(kept)


def test_the_model_card_has_figures_with_intervals_credits_and_warnings(counts):
    card = model_card("lite", INFO, load_collection("lite_training"), counts, JUDGED, {"command": "scripts/train-lite"}, "ab12")
    assert "| `ap50` | 0.500 [0.375, 0.625] |" in card
    assert "| `acc50` | 0.125 |" in card
    assert "| `found` | not known |" in card
    assert "| ultrasound | 4 | 0.062 [0.000, 0.125] | not known | 0.500 |" in card
    assert "95 % intervals from 200 draws" in card
    assert "| us_busi | 2 | 1 | 3 | CC BY 4.0; CC0-1.0 |" in card
    assert "Al-Dhabyani W, Gomaa M" in card
    for said in ("not a medical device", "diagnosis", "`ab12`", "`scripts/train-lite`", "| steps | 12 |", "## Limits"):
        assert said in card
    assert "None" not in card
    assert "{" not in card


def test_the_card_says_where_the_model_works_fails_and_was_not_tried(counts):
    card = model_card("lite", INFO, load_collection("lite_training"), counts, JUDGED, {}, "ab12")
    assert "Of 3 labels of real test images, 1 have an AP50 of 0.5 or more and 1 one below 0.1" in card
    assert "| us_busi | 2 | benign breast tumor 0.50 | breast tumor |" in card
    assert "| other | 1 | none | none |" in card
    assert "No real test image is of ct: figures there are of drawings alone." in card
    assert "No training image is of other." in card
    assert "No synthetic image was tested." in card
    assert "On 12 questions" in card
    assert "| `vqa_majority` | 0.250 |" in card


def test_real_and_synthetic_images_are_judged_apart():
    cases = hit_or_miss([True] * 6) + hit_or_miss([False] * 6, source="phantom")
    shown = judged_apart(Tally(cases), {}, draws=20)
    assert (shown.real["acc50"], shown.synthetic["acc50"]) == (1.0, 0.0)
    assert (shown.real["images"], shown.real["questions"], set(shown.real["by_source"])) == (6, 6, {"scenes"})
    assert shown.real["intervals"]["acc50"] == (1.0, 1.0)
    assert shown.synthetic["by_modality"]["ct"]["acc50"] == 0.0
    assert judged_apart(Tally(hit_or_miss([True])), {}, draws=20).synthetic == {}


def test_without_intervals_the_card_says_so(counts):
    figures = {name: value for name, value in FIGURES.items() if "interval" not in name and name != "bootstrap"}
    card = model_card("lite", INFO, load_collection("medglip_bench"), counts, Judged({}, figures, {}, {}), {}, "ab12")
    assert "No intervals were worked out." in card
    assert "| `ap50` | 0.500 |" in card
    assert "forbids commercial use" not in card  # the bench takes any licence


def test_cards_name_the_very_weights_beside_them(counts, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    write_cards(tmp_path, "lite", INFO, load_collection("lite_training"), counts, JUDGED, {"command": "it"})
    sha256 = hashlib.sha256(b"weights").hexdigest()
    card = json.loads((tmp_path / "concepts.json").read_text())
    assert (card["weights_sha256"], card["model"], len(card["concepts"])) == (sha256, "lite", 2)
    assert sha256 in (tmp_path / "README.md").read_text()
