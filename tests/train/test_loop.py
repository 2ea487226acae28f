"""What training promises: it learns, it can be resumed, it refuses what does not fit."""

import json
import os
import signal
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scenes import CONCEPTS, Scenes

from medglip.errors import InputError, ModelError
from medglip.evaluate import evaluate, validator
from medglip.model import build_model, load_config
from medglip.model.checkpoints import FORMAT
from medglip.predict import Grounder
from medglip.train import loop, train
from medglip.train.features import FrozenFeatures
from medglip.train.loop import NO_IMAGES
from medglip.train.run import Run
from medglip.train.samples import pad_target
from medglip.train.schedule import batches, learning_rate, progress
from medglip.train.shares import counts, weigh

SHORT = {"steps": 4, "batch": 4, "size": 64}
TERMS = ("loss", "align", "box", "quality", "presence")


@pytest.fixture
def ctrl_c():
    """Ctrl-C is heard, also where the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


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


def losses(run):
    """The logged losses and norms by step, without times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: [line[name] for name in (*TERMS, "norm", "lr")] for line in lines if "loss" in line}


def judged(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["val_score"]) for line in lines if "val_score" in line]


def score_of_weights(model, info):
    """A judge that needs no image: what it says changes with every step."""
    return {"score": float(model.fusion.layers[0].ffn[0].weight.detach().abs().mean())}


def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(tmp_path, monkeypatch, ctrl_c):
    """Stopped by Ctrl-C in the step after which it would have been judged."""
    data = Scenes(6, rich=True)
    plan = SHORT | {"steps": 5, "validations": 5}
    whole = train("tiny", [data], tmp_path / "whole", show=False, validate=score_of_weights, **plan)
    tell = Run.tell

    def interrupt(run, *given):
        tell(run, *given)
        if run.counters.step == 1:  # the signal is looked at once a step
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "tell", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train("tiny", [data], tmp_path / "parts", show=False, validate=score_of_weights, **plan)
    assert sorted(losses(tmp_path / "parts")) == [1, 2]
    assert signal.getsignal(signal.SIGINT) is ctrl_c
    parts = train("tiny", [data], tmp_path / "parts", show=False, resume=True, validate=score_of_weights, **plan)
    assert losses(whole.parent) == losses(parts.parent)
    assert judged(whole.parent) == judged(parts.parent)
    assert [step for step, _ in judged(parts.parent)] == [1, 2, 3, 4, 5]
    for name in ("best", "last"):
        one, other = (load_file(tmp_path / run / name / "model.safetensors") for run in ("whole", "parts"))
        assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_batches_are_one_large_batch(tmp_path, parts):
    """Images with many boxes and with none are in one step: each counts for what it has, not as its batch does."""
    data = Scenes(8, rich=True)
    plan = {"steps": 3, "size": 64, "hierarchy": 1.0}
    one = train("tiny", [data], tmp_path / "one", show=False, batch=4, **plan)
    other = train("tiny", [data], tmp_path / "parts", show=False, batch=4 // parts, accumulate=parts, **plan)
    assert losses(one.parent).keys() == {1, 2, 3}
    for step, values in losses(one.parent).items():
        assert losses(other.parent)[step] == pytest.approx(values, abs=1e-4)


def test_masks_are_counted_before_the_model_runs_as_it_learns_them():
    config = load_config("tiny", size=64, batch=4, masks=1.0)
    model, samples = build_model(config), loop._samples(config, [Scenes(8, rich=True)], ())
    (questions,), _ = next(loop._steps(batches(samples, config["train"], 0, 0, 1), 1))
    prompt, labels = loop.asked(questions, model.text_encoder.text, config["loss"], 0)
    targets = [pad_target(question.target, prompt.members.shape[1], "cpu") for question in questions]
    part = loop._Batch(questions, prompt, model.modality.index([None] * 4), targets, labels)
    features = FrozenFeatures(model, samples, 0)
    output = model(NO_IMAGES, prompt, part.modality, features(questions, torch.device("cpu")), targets, labels)
    run = SimpleNamespace(model=model, fabric=SimpleNamespace(device=torch.device("cpu")))
    ahead = loop._assigned(run, part, features)
    assert all(torch.equal(one, other) for one, other in zip(ahead, output.learned.assigned, strict=True))
    names = ["align", "box", "masks", "presence"]
    found = dict(zip(names, counts(names, targets, ahead, prompt, labels).tolist(), strict=True))
    assert found["masks"] == len(output.learned.mask_of) > 0
    assert found["box"] == sum(int((number >= 0).sum()) for number in ahead)
    assert found["presence"] == sum(int((target.presence >= 0).sum()) for target in targets)


def test_shares_of_batches_sum_to_the_processes():
    """Averaged over processes, the weights of a term are those of one batch; an empty batch's negatives still count."""
    names = ["align", "box", "contrast"]
    own = [torch.tensor([0.0, 4.0, 1.0]), torch.tensor([6.0, 2.0, 1.0])]
    first, second = (weigh(one, own[0] + own[1], names, 1, 2) for one in own)
    assert (first / 2).tolist() == pytest.approx([1 / 6, 4 / 6, 0.5])
    assert (second / 2).tolist() == pytest.approx([1.0, 2 / 6, 0.5])
    assert weigh(own[1], own[1], names, 1, 1).tolist() == [1, 1, 1]


def test_words_and_contrast_are_accumulated_too(tmp_path):
    data = Scenes(4, rich=True)
    run = train("tiny", [data], tmp_path / "run", show=False, steps=1, batch=2, accumulate=2, size=64, fuse="words",
                words=1.0, contrast=1.0, captions=1.0)  # fmt: skip
    line = json.loads((run.parent / "metrics.jsonl").read_text().splitlines()[0])
    assert line["words"] > 0
    assert line["contrast"] > 0


def test_a_run_without_progress_stops_early(tmp_path):
    scores = iter([0.5, 0.6, 0.6, 0.4, 0.9])
    best = train("tiny", [Scenes(4)], tmp_path / "run", show=False, steps=5, batch=2, size=64, validations=5, patience=2,
                 validate=lambda model, info: {"score": next(scores)})  # fmt: skip
    assert max(losses(best.parent)) == 4
    assert json.loads((best / "config.json").read_text())["trained"]["steps"] == 2
    with pytest.raises(ModelError, match="nothing is validated"):
        train("tiny", [Scenes(4)], tmp_path / "other", show=False, patience=2, **SHORT)


def test_errors_of_a_validation_change_what_is_drawn_and_are_remembered(tmp_path):
    told = {"score": 0.5, "errors": {"scenes": {CONCEPTS[0]: 1.0, CONCEPTS[1]: 0.0, CONCEPTS[2]: 0.0}}}
    plan = {"steps": 8, "batch": 4, "size": 64, "validations": 4}
    drawn = {}
    for share in (0.0, 1.0):
        out = tmp_path / str(share)
        train("tiny", [Scenes(8)], out, show=False, error_aware=share, validate=lambda model, info: dict(told), **plan)
        drawn[share] = [line[0] for line in losses(out).values()]
        history = torch.load(out / "state.pt", weights_only=True)["samples"]["history"]
        assert [step for step, _ in history] == ([2, 4, 6, 8] if share else [])
    assert drawn[0.0][:2] == drawn[1.0][:2]
    assert drawn[0.0][2:] != drawn[1.0][2:]


def test_time_spent_waiting_for_data_is_told(tmp_path):
    class Slow(Scenes):
        def display(self, name):
            time.sleep(0.05)
            return super().display(name)

    run = train("tiny", [Slow(4)], tmp_path / "run", show=False, steps=2, batch=2, size=64)
    lines = [json.loads(line) for line in (run.parent / "metrics.jsonl").read_text().splitlines()]
    assert all(line["waiting"] >= 0.1 for line in lines)
    assert lines[-1]["seconds"] >= sum(line["waiting"] for line in lines)


def test_tensorboard_is_asked_for_where_it_is_not(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ModelError, match="pip install tensorboard"):
        train("tiny", [Scenes(2)], tmp_path / "run", show=False, tensorboard=True, **SHORT)


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
    for wrong in ({"accumulate": 0}, {"layer_decay": 0.0}, {"strategy": "dp"}):
        with pytest.raises(ModelError, match=f"{next(iter(wrong))}: found"):
            train("tiny", [Scenes(1)], tmp_path, show=False, **SHORT, **wrong)
    with pytest.raises(ModelError, match="GPU"):
        train("tiny", [Scenes(1)], tmp_path, show=False, strategy="fsdp", accelerator="cpu", **SHORT)
    with pytest.raises(ModelError, match="resume"):
        train("tiny", [Scenes(2)], tmp_path, resume=True, show=False, **SHORT)


@pytest.mark.parametrize("learn", ["head", "prompt", "lora"])
def test_tuning_needs_a_trained_model(tmp_path, learn):
    with pytest.raises(ModelError, match="give --from"):
        train("tiny", [Scenes(8)], tmp_path / "run", show=False, **SHORT, learn=learn)
    assert not (tmp_path / "run").exists()


def test_the_learning_rate_rises_and_falls():
    rates = [learning_rate(done, 0.1) for done in np.linspace(0, 1, 101)]
    assert max(rates) == pytest.approx(1, abs=1e-3)
    assert np.argmax(rates) == 10
    assert rates[-1] == pytest.approx(0.01, abs=1e-6)


def test_a_run_ends_by_steps_or_by_minutes():
    assert progress({"steps": 10, "minutes": 0}, 5, 1e9) == 0.5
    assert progress({"steps": 0, "minutes": 2}, 10**9, 60) == 0.5
    assert progress({"steps": 10, "minutes": 1}, 5, 90) == 1
