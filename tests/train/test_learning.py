"""What learns under each way of tuning, and that a tuned model is saved and loaded as any other."""

import numpy as np
import pytest
import torch
from scenes import CONCEPTS, TREE, Scenes
from torch import nn

from medglip.errors import ModelError
from medglip.model import build_model, load_config
from medglip.model.checkpoints import CheckpointInfo, load_checkpoint, save_checkpoint
from medglip.model.encoders import EfficientNetLite0, MiniLM
from medglip.model.losses import grounding_loss
from medglip.model.prompt import make_prompt
from medglip.predict import Grounder
from medglip.train.learning import OUTPUTS, WAYS, begin, prepare
from medglip.train.loop import asked
from medglip.train.samples import Samples, pad_target

SIZE = 64
SWIN = {
    "model_type": "swin", "image_size": 64, "embed_dim": 8, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 2],
    "window_size": 3, "mlp_ratio": 2.0,
}  # fmt: skip
IMAGE = np.random.default_rng(0).integers(0, 255, (60, 80), dtype=np.uint8)
OTHERS = ["thorax", "a round mass", "spleen tumor"]  # phrases of no tuned concept


def settings_of(learn, **more):
    config = load_config("tiny", size=SIZE, specific=0.0, captions=0.0, lineage=0.0, **more)
    config["train"]["learn"] = learn
    return config


def random_model(config):
    """A model as if it were trained: no weight is zero, and its presence answers are spread."""
    torch.manual_seed(0)
    model = build_model(config)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value) * 0.05)
    return model


def learn_two_steps(model, config):
    """Names of the values of the state that two steps change."""
    samples = Samples([Scenes(8)], "train", TREE, {**config["train"], "masks": False}, SIZE)
    learn = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(learn, lr=1e-2, weight_decay=0.1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    for step in range(2):
        questions = [samples.question(number, step) for number in range(4)]
        prompt, words = asked(questions, model.text_encoder.text, config["loss"], step)
        targets = [pad_target(question.target, prompt.members.shape[1], "cpu") for question in questions]
        images = torch.stack([question.image for question in questions]).float() / 255
        modality = model.modality.index([question.modality for question in questions])
        output = model(images, prompt, modality, None, targets, words)
        optimizer.zero_grad()
        grounding_loss(output, targets, config["loss"])["loss"].backward()
        optimizer.step()
    model.eval()
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


def answer(model, config, phrases, image=IMAGE):
    # Not shown through a Grounder of thresholds: every number counts here.
    grounder = Grounder(model, CheckpointInfo(config, modalities=("ct",), score_threshold=0.0, presence_threshold=0.0), "cpu")
    return grounder.answer([image], [phrases], ["ct"])[0]


def same(one, other):
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("boxes", "scores", "presence", "phrases"))


def is_output(name):
    return any(name == output or name.startswith(f"{output}.") for output in OUTPUTS)


def test_all_leaves_the_model_as_it_is():
    config = settings_of("all")
    model = random_model(config)
    learned = {name for name, value in model.named_parameters() if value.requires_grad}
    prepare(model, config, CONCEPTS)
    assert {name for name, value in model.named_parameters() if value.requires_grad} == learned
    assert config["model"] == load_config("tiny")["model"]


def test_a_linear_probe_changes_the_outputs_and_nothing_else():
    config = settings_of("head")
    model = random_model(config)
    prepare(model, config, CONCEPTS)
    changed = learn_two_steps(model, config)
    assert changed == {name for name in model.state_dict() if is_output(name)}
    parts = {name.split(".")[1] for name in changed}
    assert parts == {"align", "dense", "presence"}
    assert not any("tower" in name or "look" in name for name in changed)


def test_frozen_encoders_change_in_nothing_and_the_rest_does():
    config = settings_of("encoder_frozen")
    model = random_model(config)
    prepare(model, config, CONCEPTS)
    changed = learn_two_steps(model, config)
    assert not any(name.startswith(("image_encoder.", "text_encoder.text.")) for name in changed)
    assert {"text_encoder.narrow.weight", "fusion.layers.0.image_scale", "head.align.bias"} <= changed


@pytest.mark.parametrize("fuse", ["phrases", "words"])
def test_prompt_tuning_changes_its_offsets_and_no_answer_about_other_phrases(fuse):
    config = settings_of("prompt", fuse=fuse)
    model = random_model(config)
    tuned = ["liver", "right kidney"]
    before = [answer(model.eval(), config, phrases) for phrases in (OTHERS, tuned)]
    prepare(model, config, CONCEPTS)
    assert {"liver", "left kidney", "right kidney"} <= set(config["text"]["tuned_phrases"])
    assert same(answer(model.eval(), config, tuned), before[1])  # at first they add nothing
    assert learn_two_steps(model, config) == {"text_encoder.additions.offsets.table"}
    assert same(answer(model, config, OTHERS), before[0])
    after = answer(model, config, tuned)
    assert not np.allclose(after.presence, before[1].presence, atol=1e-4)
    assert np.array_equal(answer(model, config, ["LIVER"]).presence, answer(model, config, ["liver"]).presence)


def test_prompt_tuning_goes_on_where_it_was_and_takes_new_phrases(tmp_path):
    config = settings_of("prompt")
    model = random_model(config)
    prepare(model, config, CONCEPTS[:1])
    learn_two_steps(model, config)
    few = list(config["text"]["tuned_phrases"])
    learned = model.text_encoder.additions.offsets.table.detach().clone()
    prepare(model, config, CONCEPTS)
    table = model.text_encoder.additions.offsets.table
    assert config["text"]["tuned_phrases"][: len(few)] == few
    assert torch.equal(table[: len(learned)], learned)
    assert len(table) > len(learned)
    assert not table[len(learned) :].any()


def test_a_batch_without_a_tuned_phrase_still_has_gradients():
    config = settings_of("prompt")
    model = random_model(config)
    prepare(model, config, CONCEPTS)
    prompt = make_prompt([OTHERS], model.text_encoder.text.tokenize)
    model.train().read(prompt).sum().backward()
    assert not model.text_encoder.additions.offsets.table.grad.any()


def test_low_rank_additions_begin_as_the_model_and_are_all_that_changes():
    config = settings_of("lora")
    model = random_model(config)
    before = answer(model, config, ["liver", "heart"])
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    prepare(model, config, CONCEPTS)
    assert same(answer(model, config, ["liver", "heart"]), before)
    changed = learn_two_steps(model, config)
    assert changed == set(model.state_dict()) - set(weights)
    layers = {name.rpartition(".")[0] for name in changed}
    looks = ("phrases_look", "image_looks")
    assert layers == {f"fusion.layers.0.{look}.{part}" for look in looks for part in ("query", "memory", "out")}
    assert all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())


def test_low_rank_additions_to_a_backbone_of_the_library(tmp_path):
    config = settings_of("lora")
    config["image"] = {"encoder": "config", "config": SWIN, "size": SIZE, "tune": "full"}
    model = random_model(config).eval()
    before = answer(model, config, ["liver"])
    save_checkpoint(tmp_path / "whole", model, model.state_dict(), CheckpointInfo(config))
    prepare(model, config, CONCEPTS)
    assert np.allclose(answer(model, config, ["liver"]).scores, before.scores, atol=1e-6)
    changed = learn_two_steps(model, config)
    assert all(name.endswith(("lora_a", "lora_b")) for name in changed)
    assert {name.split(".")[0] for name in changed} == {"image_encoder", "fusion"}
    save_checkpoint(tmp_path / "tuned", model, model.state_dict(), CheckpointInfo(config))
    again, info = load_checkpoint(tmp_path / "tuned")
    assert same(answer(again, info.config, ["liver"]), answer(model, config, ["liver"]))
    probe = settings_of("head")
    probe["image"] = dict(config["image"], tune="full")
    del probe["image"]["lora_rank"]
    other = build_model(probe)
    begin(other, probe, tmp_path / "tuned")  # tuned on from a tuned model
    prepare(other, probe, CONCEPTS)
    assert same(answer(other, probe, ["liver"]), answer(model, config, ["liver"]))
    other.train()
    assert not other.image_encoder.network.training  # nothing is dropped at random where nothing learns


def test_low_rank_additions_to_minilm():
    config = settings_of("lora")
    config["text"] = {"encoder": "minilm"}
    model = random_model(config)
    text = model.text_encoder.text
    assert isinstance(text, MiniLM)
    tokens = text.tokenize(["left kidney", "liver", "ground glass opacity of the lung"])
    before = text(tokens.ids, tokens.is_word)
    prepare(model, config, CONCEPTS)
    assert torch.allclose(text(tokens.ids, tokens.is_word), before, atol=1e-5)
    changed = learn_two_steps(model, config)
    assert {"text_encoder.additions.lora.lora_a", "text_encoder.additions.lora.lora_b"} <= changed
    assert all("lora_" in name for name in changed)
    assert not torch.allclose(text(tokens.ids, tokens.is_word), before, atol=1e-3)
    alone = text.tokenize(["liver"])
    found = text(alone.ids, alone.is_word)[0]
    assert torch.allclose(found, text(tokens.ids, tokens.is_word)[1, : len(found)], atol=1e-5)  # padding changes nothing


@pytest.mark.parametrize("learn", [way for way in WAYS if way != "all"])
def test_a_tuned_model_is_saved_and_loaded_as_any_other(learn, tmp_path):
    config = settings_of(learn)
    model = random_model(config)
    prepare(model, config, CONCEPTS)
    learn_two_steps(model, config)
    save_checkpoint(tmp_path, model, model.state_dict(), CheckpointInfo(config, CONCEPTS))
    again, info = load_checkpoint(tmp_path)
    phrases = ["liver", "left kidney", "heart"]
    assert same(answer(again, info.config, phrases), answer(model, config, phrases))


@pytest.mark.parametrize("learn", ["prompt", "lora"])
def test_another_run_may_begin_with_a_tuned_model(learn, tmp_path):
    config = settings_of(learn)
    model = random_model(config)
    prepare(model, config, CONCEPTS)
    learn_two_steps(model, config)
    save_checkpoint(tmp_path, model, model.state_dict(), CheckpointInfo(config))
    other = settings_of("head")
    begun = build_model(other)
    begin(begun, other, tmp_path)
    assert same(answer(begun, other, ["liver", "heart"]), answer(model, config, ["liver", "heart"]))
    prepare(begun, other, CONCEPTS)
    assert all(map(is_output, learn_two_steps(begun, other)))


def test_frozen_batch_norms_keep_their_statistics():
    config = settings_of("head")
    model = random_model(config)
    layers = model.image_encoder.layers
    layers[0] = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16))
    prepare(model, config, CONCEPTS)
    assert not any("running" in name or "tracked" in name for name in learn_two_steps(model, config))


def test_blocks_of_the_lite_encoder_that_learned_are_frozen_too():
    config = settings_of("encoder_frozen")
    model = random_model(config)
    model.image_encoder = EfficientNetLite0(pretrained=False, train_from=3)
    prepare(model, config, CONCEPTS)
    assert not any(value.requires_grad for value in model.image_encoder.parameters())


@pytest.mark.parametrize(
    ("learn", "concepts", "more", "message"),
    [
        ("heads", CONCEPTS, {}, "'heads'; allowed: all, encoder_frozen, head, prompt, lora"),
        ("prompt", (), {}, "found no phrase"),
        ("lora", CONCEPTS, {"fusion_layers": 0}, "nothing that learns so"),
    ],
)
def test_what_cannot_learn_is_one_sentence(learn, concepts, more, message):
    config = settings_of(learn, **more)
    with pytest.raises(ModelError, match=message):
        prepare(random_model(config), config, concepts)


def test_a_bad_rank_is_one_sentence():
    config = settings_of("lora")
    config["train"]["rank"] = 0
    with pytest.raises(ModelError, match="lora_rank is 0"):
        prepare(random_model(config), config, CONCEPTS)


def test_weights_of_another_shape_are_refused(tmp_path):
    config = settings_of("all")
    model = random_model(config)
    save_checkpoint(tmp_path, model, model.state_dict(), CheckpointInfo(config))
    other = settings_of("head", width=48)
    with pytest.raises(ModelError, match="does not fit"):
        begin(build_model(other), other, tmp_path)
