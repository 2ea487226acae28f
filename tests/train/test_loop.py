"""What training promises: it learns, it can be resumed, it refuses what does not fit."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scenes import CONCEPTS, Scenes

from medglip.errors import InputError, ModelError
from medglip.evaluate import evaluate, validator
from medglip.model.checkpoints import FORMAT
from medglip.predict import Grounder
from medglip.train import loop, train
from medglip.train.schedule import learning_rate, progress

SHORT = {"steps": 4, "batch": 4, "size": 64}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """`tiny` on eight scenes for some seconds."""
    data = Scenes(8)
    out = tmp_path_factory.mktemp("run")
    judge = validator(data, "train")
    return data, out, train("tiny", [data], out, validate=judge, show=False, steps=140, size=96, far_negatives=0)


def test_eight_images_are_learned_by_heart(trained):
    data, _, best = trained
    found = evaluate(best, data, "train")
    assert found["ap50"] > 0.9
    assert found["acc50"] > 0.9
    assert found["absence_auroc"] > 0.95
    assert set(found["by_modality"]) == {"ct"}
    assert found["found"] >= found["acc50"] - 1e-9


def test_a_run_leaves_its_record(trained):
    _, out, best = trained
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 141))
    assert {"align", "box", "quality", "presence", "lr", "images_per_second", "seconds"} <= set(steps[0])
    assert steps[-1]["loss"] < steps[0]["loss"] / 2
    assert any("val_ap50" in line for line in lines)
    info = json.loads((best / "config.json").read_text())
    assert info["concepts"] == sorted(CONCEPTS)
    assert info["modalities"] == ["ct"]
    assert (out / "config.toml").is_file()


def test_the_checkpoint_grounds(trained):
    data, _, best = trained
    grounder = Grounder.load(best, device="cpu")
    record = next(record for record in data.records() if len(record.regions) == 3)
    phrases = ["liver", "left kidney", "right kidney"]
    regions = grounder.ground(data.display(record.id), phrases, "ct")
    best_of = {region.attributes["phrase"]: region for region in reversed(regions)}
    for place, concept in enumerate(CONCEPTS):
        true = next(region for region in record.regions if region.concept == concept)
        assert best_of[place].concept == concept
        assert best_of[place].provenance == "predicted"
        assert np.abs(np.subtract(best_of[place].box_xyxy, true.box_xyxy)).max() < 6
    look = grounder.look(data.display(record.id), phrases)
    assert set(look.presence) == set(phrases)
    assert look.features.shape == (len(look.regions), 32)


def test_an_absent_phrase_has_no_region(trained):
    data, _, best = trained
    grounder = Grounder.load(best, device="cpu")
    record = next(record for record in data.records() if "abdomen.liver" in record.absent)
    assert grounder.ground(data.display(record.id), ["liver"], "ct") == []


def test_many_phrases_are_asked_in_chunks(trained, monkeypatch):
    data, _, best = trained
    grounder = Grounder.load(best, device="cpu")
    image = data.display("0" * 16)
    monkeypatch.setattr("medglip.predict.WORDS", 3)
    answer = grounder.answer([image], [["liver", "left kidney", "right kidney"]], ["ct"])[0]
    assert answer.boxes.shape[0] == len(answer.presence) == 3
    one, three = grounder.answer([image, image], [["liver"], ["liver", "left kidney", "right kidney"]], ["ct", "ct"])
    assert (len(one.presence), len(three.presence)) == (1, 3)
    assert np.allclose(three.boxes, answer.boxes, atol=1e-3)
    alone = grounder.answer([image], [["liver"]], ["ct"])[0]  # deep fusion: what else is asked of an image counts
    assert np.allclose(one.presence, alone.presence, atol=1e-4)


def test_a_resumed_run_equals_an_unbroken_one(tmp_path, monkeypatch):
    data = Scenes(6)
    whole = train("tiny", [data], tmp_path / "whole", show=False, **SHORT)

    def interrupt(run, *_):
        if run.counters.step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "judge_if_due", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train("tiny", [data], tmp_path / "parts", show=False, **SHORT)
    parts = train("tiny", [data], tmp_path / "parts", show=False, resume=True, **SHORT)
    one, other = load_file(whole / "model.safetensors"), load_file(parts / "model.safetensors")
    for name in one:
        assert torch.allclose(one[name], other[name], atol=1e-6), name
    losses = [
        [json.loads(line)["loss"] for line in (run.parent / "metrics.jsonl").read_text().splitlines()] for run in (whole, parts)
    ]
    assert np.allclose(losses[0], losses[1], atol=1e-5)


def test_kept_features_train_like_fresh_ones(tmp_path):
    """Fixed views: whether their features are remembered or made again, the run is the same (but for float16)."""
    data = Scenes(4)
    runs = [
        train("tiny", [data], tmp_path / str(megabytes), show=False, views=2, cache_mb=megabytes, **SHORT)
        for megabytes in (0, 50)
    ]
    one, other = (load_file(run / "model.safetensors") for run in runs)
    assert max(float((one[name] - other[name]).abs().max()) for name in one) < 0.02


def test_a_checkpoint_of_another_shape_is_one_sentence(trained, tmp_path):
    data, _, best = trained
    with pytest.raises(ModelError, match=r"does not fit the configuration: '.*' is \("):
        train("tiny", [data], tmp_path, start_from=best, show=False, width=16, **SHORT)


def test_start_from_takes_the_weights(trained, tmp_path):
    data, _, best = trained
    run = train("tiny", [data], tmp_path, start_from=best, show=False, steps=1, batch=4, size=96, lr=1e-6)
    assert evaluate(run, data, "train")["ap50"] > 0.8


@pytest.mark.parametrize("damage", ["none", "empty", "json", "version"])
def test_what_is_no_checkpoint_is_refused(trained, tmp_path, damage):
    _, _, best = trained
    folder = tmp_path / "bad"
    folder.mkdir()
    if damage != "none":
        text = (best / "config.json").read_text()
        (folder / "config.json").write_text(
            {"json": "{", "version": text.replace(f'"format": {FORMAT}', '"format": 99')}.get(damage, text)
        )
        (folder / "model.safetensors").write_bytes(b"" if damage == "empty" else (best / "model.safetensors").read_bytes())
    with pytest.raises(ModelError, match="Checkpoint"):
        Grounder.load(folder)


def test_bad_questions_are_refused(trained):
    _, _, best = trained
    grounder = Grounder.load(best, device="cpu")
    image = np.zeros((20, 20), np.uint8)
    with pytest.raises(InputError, match="uint8"):
        grounder.ground(image.astype(np.float32), ["liver"])
    with pytest.raises(InputError, match="CAT"):
        grounder.ground(image, ["liver"], "CAT")
    for phrases in ([], [" "], "liver"):
        with pytest.raises(InputError, match="Phrases"):
            grounder.ground(image, phrases)


def test_unknown_keys_and_recipes_are_refused(tmp_path):
    with pytest.raises(ModelError, match="'stepps'"):
        train("tiny", [Scenes(1)], tmp_path, stepps=3)
    with pytest.raises(ModelError, match="tiny"):
        train("huge", [Scenes(1)], tmp_path)
    with pytest.raises(ModelError, match="steps or minutes"):
        train("tiny", [Scenes(1)], tmp_path, steps=0)
    with pytest.raises(ModelError, match="resume"):
        train("tiny", [Scenes(2)], tmp_path, resume=True, show=False, **SHORT)


def test_the_learning_rate_rises_and_falls():
    rates = [learning_rate(done, 0.1) for done in np.linspace(0, 1, 101)]
    assert max(rates) == pytest.approx(1, abs=1e-3)
    assert np.argmax(rates) == 10
    assert rates[-1] == pytest.approx(0.01, abs=1e-6)


def test_a_run_ends_by_steps_or_by_minutes():
    assert progress({"steps": 10, "minutes": 0}, 5, 1e9) == 0.5
    assert progress({"steps": 0, "minutes": 2}, 10**9, 60) == 0.5
    assert progress({"steps": 10, "minutes": 1}, 5, 90) == 1
