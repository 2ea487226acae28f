"""Evaluation asks what is known of a split, judges it, and leaves a folder that can be read again."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from medglip.errors import DatasetError, InputError
from medglip.evaluate import Tally, evaluate, read_evaluation, validator
from medglip.evaluate.folders import add_figures, plain, weights_sha256, write_evaluation
from medglip.evaluate.run import known_phrases
from medglip.model import build_model, load_config
from medglip.model.checkpoints import CheckpointInfo
from medglip.predict import Answer, Grounder
from medglip.records import ImageRecord, Origin, Region, label_tree, rle_of_crop

LIVER, LEFT, RIGHT = "abdomen.liver", "abdomen.kidney@left", "abdomen.kidney@right"
SIDE = 64


class Scans:
    """Images that show a liver or two kidneys, drawn at random; each concept that is not shown is known to be absent."""

    def __init__(self, count=12, split=("train", "val", "test"), source="scans", modality="ct", seed=0):
        self.manifest = {"parts": {"all": {"source": source}}}
        rng = np.random.default_rng(seed)
        self.kept = [self._scan(number, split[number % len(split)], source, modality, rng) for number in range(count)]

    def _scan(self, number, split, source, modality, rng):
        regions = []
        for label, side in (("abdomen.liver", None), ("abdomen.kidney", "left"), ("abdomen.kidney", "right")):
            if rng.random() < 0.6:
                x, y, width, height = (int(value) for value in rng.integers(4, 30, 4))
                mask = rle_of_crop(np.ones((height, width)), (x, y), (SIDE, SIDE))
                regions.append(Region(label, (x, y, x + width, y + height), mask, laterality=side))
        return ImageRecord(
            f"{source}{number}", "0" * 64, SIDE, SIDE, 1, 8, modality, Origin(source, "a.png", "a"), "CC0-1.0",
            spacing_mm=(0.8, 0.8), group=str(number // 2), split=split, regions=tuple(regions), exhaustive=(LIVER, LEFT, RIGHT),
        )  # fmt: skip

    def records(self, split=None):
        return (record for record in self.kept if split in (None, record.split))

    def display(self, name):
        number = next(place for place, record in enumerate(self.kept) if record.id == name)
        return np.full((SIDE, SIDE), number, np.uint8)


class Knows(Grounder):
    """Finds what is there, some pixels off; says of what is absent that it is."""

    def __init__(self, data, info=None, off=0.0):
        self.data, self.off, self.asked = data, off, 0
        if info is not None:
            self.info = info

    def answer(self, images, phrases, modalities):
        tree = label_tree()
        return [
            self._answer(image, [tree.resolve(text) for text in texts]) for image, texts in zip(images, phrases, strict=True)
        ]

    def _answer(self, image, labels):
        self.asked += 1
        record = self.data.kept[int(image[0, 0])]
        boxes, scores = np.zeros((len(labels), 2, 4), np.float32), np.zeros((len(labels), 2), np.float32)
        for place, (label, side) in enumerate(labels):
            true = [one for one in record.regions if one.label == label and (side is None or one.laterality == side)]
            for number, region in enumerate(true):
                boxes[place, number], scores[place, number] = np.array(region.box_xyxy) + self.off, 0.9
        there = scores.max(axis=1)
        none = np.zeros((*scores.shape, 4), np.float32)
        return Answer(boxes, scores, there, none, none[:, 0], np.full(len(labels), 0.5), {})


INFO = CheckpointInfo({}, concepts=(LIVER,), modalities=("ct",), trained={"sources": ["scans"], "steps": 3})


def test_what_is_found_exactly_has_the_best_figures():
    data, steps = Scans(), []
    found = evaluate(Knows(data, INFO), data, "all", batch=5, progress=lambda *step: steps.append(step))
    assert steps == [(5, 12), (10, 12), (12, 12)]
    best = ("ap", "ap50", "ap75", "ar", "acc50", "acc50_micro", "r1", "r5", "r10", "found", "recall01", "centre")
    assert {name: found[name] for name in (*best, "absence_auroc", "miou")} == dict.fromkeys(
        (*best, "absence_auroc", "miou"), 1.0
    )
    assert found["false_positives_per_image"] == 0.0
    assert found["images"] == 12
    assert found["questions"] == sum(len(known_phrases(record, label_tree())) for record in data.kept)
    assert found["coco"]["AP"] == 1.0
    assert 0 < found["random"] < 0.2
    assert {name: list(found[f"by_{name}"]) for name in ("source", "modality", "level")} == {
        "source": ["scans"], "modality": ["ct"], "level": ["organ"]}  # fmt: skip
    assert set(found["by_concept"]) == {LIVER, LEFT, RIGHT}
    assert sum(one["questions"] for one in found["by_concept"].values()) == found["questions"]
    assert found["zero_shot"]["labels"]["seen"]["questions"] == found["by_concept"][LIVER]["questions"]
    assert "unseen" not in found["zero_shot"]["sources"]
    assert found["phrases"]["zero"]["silent"] == 1.0
    assert sum(one["phrases"] for one in found["by_size"]["mm"].values()) == found["phrases"]["one"]["phrases"]
    assert found["laterality"]["laterality_accuracy"] == 1.0
    assert {"absence", "froc", "masks", "calibration", "laterality", "hierarchy", "pointing"} < set(found)


def test_boxes_that_are_off_cost_what_they_should():
    data = Scans()
    found = evaluate(Knows(data, INFO, off=100.0), data, "test")
    assert (found["ap50"], found["acc50"], found["miou"], found["coco"]["AP"]) == (0.0, 0.0, 0.0, 0.0)
    assert found["absence_auroc"] == 1.0
    assert found["false_positives_per_image"] > 0


def test_sources_weigh_the_same_however_many_images_they_have():
    near, far = Scans(9, source="near"), Scans(3, source="far", modality="xray", seed=5)

    class Both(Knows):
        def answer(self, images, phrases, modalities):
            self.data, self.off = (near, 0.0) if modalities[0] == "ct" else (far, 100.0)
            return super().answer(images, phrases, modalities)

    found = evaluate(Both(near, INFO), [near, far], "all", batch=1)
    assert (found["by_source"]["near"]["ap50"], found["by_source"]["far"]["ap50"], found["ap50"]) == (1.0, 0.0, 0.5)
    assert found["acc50_micro"] > 0.5
    assert found["zero_shot"]["sources"]["unseen"]["questions"] == found["questions"]
    assert found["zero_shot"]["modalities"]["unseen"]["questions"] == found["by_modality"]["xray"]["questions"]


def test_the_folder_holds_what_was_returned(tmp_path):
    data = Scans()
    found = evaluate(Knows(data, INFO), data, "test", limit=3, out=tmp_path / "run" / "evaluation")
    kept = read_evaluation(tmp_path / "run" / "evaluation")
    assert {name: value for name, value in kept.figures.items() if name != "about"} == plain(
        {name: value for name, value in found.items() if name != "about"})  # fmt: skip
    assert len(kept.cases) == found["questions"]
    assert kept.about["split"] == "test"
    assert kept.about["limit"] == 3
    assert [(one["name"], one["images"], len(one["version"])) for one in kept.about["datasets"]] == [("scans", 3, 64)]
    assert kept.thresholds_of("ct") == (0.3, 0.5)
    again = {name: round(value, 4) for name, value in kept.tally().figures().items()}
    assert again == {name: found[name] for name in again}
    assert sorted(path.name for path in kept.folder.iterdir()) == ["cases.parquet", "figures.json"]


def test_figures_are_added_to_a_folder_and_a_mixed_one_is_refused(tmp_path):
    data = Scans()
    for name, split in (("a", "test"), ("b", "val")):
        evaluate(Knows(data, INFO), data, split, out=tmp_path / name)
    add_figures(tmp_path / "a", {"intervals": {"ap": (0.5, float("nan"))}})
    assert read_evaluation(tmp_path / "a").figures["intervals"] == {"ap": [0.5, None]}
    (tmp_path / "b" / "cases.parquet").write_bytes((tmp_path / "a" / "cases.parquet").read_bytes())
    with pytest.raises(InputError, match="not the one of"):
        read_evaluation(tmp_path / "b")
    with pytest.raises(InputError, match="cannot be read"):
        read_evaluation(tmp_path / "none")
    (tmp_path / "a" / "figures.json").write_text(json.dumps({"about": {"format": 99}}))
    with pytest.raises(InputError, match="found format 99"):
        read_evaluation(tmp_path / "a")
    write_evaluation(tmp_path / "a", {"ap": 1.0}, [])
    assert read_evaluation(tmp_path / "a").cases == []


def test_the_split_that_is_asked_for_must_be_there():
    data = Scans(split=("train", "test"))
    with pytest.raises(DatasetError, match=r"'scans' has no image of split 'val'; it has test \(6\), train \(6\)"):
        evaluate(Knows(data, INFO), data, "val")
    with pytest.raises(InputError, match=r"found 'tset'; allowed: train, val, test, unassigned, all"):
        evaluate(Knows(data, INFO), data, "tset")
    with pytest.raises(InputError, match="found 0"):
        evaluate(Knows(data, INFO), data, limit=0)
    data.kept = [replace(record, regions=(), exhaustive=()) for record in data.kept]
    with pytest.raises(DatasetError, match="has a known phrase"):
        evaluate(Knows(data, INFO), data, "test")


def test_a_peer_without_checkpoint_is_judged_too():
    data = Scans()
    found = evaluate(Knows(data), data, "all", limit=4)
    assert found["ap50"] == 1.0
    assert found["zero_shot"] == {}
    assert found["images"] == 4


def test_sides_are_swapped_where_that_is_asked_for():
    data = Scans()
    grounder = Knows(data, INFO)
    plainly = evaluate(grounder, data, "all")
    before = grounder.asked
    found = evaluate(grounder, data, "all", swap=12)
    assert grounder.asked > 2 * before
    assert not any(name.startswith("swap") for name in plainly["laterality"])
    assert found["laterality"]["swap_consistent"] == 1.0
    assert found["laterality"]["swap_stuck"] == 0.0


def test_a_validator_says_where_the_errors_are(tmp_path):
    data, none = Scans(), Scans(2, split=("test",))
    config = load_config("tiny", size=64)
    model = build_model(config, pretrained=False).eval()
    info = CheckpointInfo(config, concepts=(LIVER,), modalities=("ct",))
    found = validator([data, none], limit=None)(model, info)
    assert {"score", "ap50", "acc50", "absence_auroc", "score_threshold", "presence_threshold", "thresholds"} < set(found)
    shown = {region.concept for record in data.records("val") for region in record.regions}
    assert set(found["errors"]) == {"scans"}
    assert shown <= set(found["errors"]["scans"])
    assert found["score"] == pytest.approx(1 - np.mean(list(found["errors"]["scans"].values())), abs=1e-4)
    json.dumps(found)
    # The same model, written: the folder tells which weights were judged.
    evaluate(Grounder(model, info, "cpu"), data, "val", out=tmp_path)
    kept = read_evaluation(tmp_path)
    assert kept.about["weights_sha256"] == weights_sha256(model)
    assert Tally(kept.cases).figures()["ap50"] == pytest.approx(found["ap50"], abs=1e-4)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    assert kept.about["weights_sha256"] != weights_sha256(model)
