"""Backbones of the transformers library, small and random: four maps, exact in batches, tuned in three ways."""

import json
import shutil

import pytest
import torch

from medglip.errors import ModelError
from medglip.model.encoders import build_image_encoder

CHANNELS = {
    "swin": (8, 16, 32, 64),
    "swinv2": (8, 16, 32, 64),
    "convnext": (8, 12, 16, 20),
    "dinov2": (4, 8, 16, 16),
    "resnet": (8, 12, 16, 20),
}
SWIN = {"model_type": "swin", "image_size": 64, "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}


@pytest.fixture
def images():
    return torch.rand(3, 3, 96, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", CHANNELS)
@pytest.mark.parametrize("learns", [False, True])
def test_four_maps_and_a_batch_equals_its_images(name, learns, image_folder, images):
    torch.manual_seed(0)
    section = {"encoder": image_folder(name), "tune": "full" if learns else "frozen"}
    encoder = build_image_encoder(section, pretrained=True).train(name == "resnet")  # BatchNorm is the danger in training
    images = images.contiguous(memory_format=torch.channels_last)
    maps = encoder(encoder.frozen(images))
    assert encoder.channels == CHANNELS[name]
    wanted = [(3, width, 96 // stride, 64 // stride) for width, stride in zip(CHANNELS[name], (4, 8, 16, 32), strict=True)]
    assert [tuple(each.shape) for each in maps] == wanted
    for number in range(3):
        alone = encoder(encoder.frozen(images[number : number + 1]))
        for many, one in zip(maps, alone, strict=True):
            assert torch.allclose(many[number], one[0], rtol=1e-4, atol=1e-4 * one.abs().max().item())
    assert all(each.std() > 0 for each in maps)


def test_a_folder_gives_its_own_weights_and_statistics(image_folder, images):
    from transformers import SwinBackbone

    folder = image_folder("swin")
    encoder = build_image_encoder({"encoder": folder}, pretrained=True).eval()
    theirs = SwinBackbone.from_pretrained(folder, out_features=["stage1", "stage2", "stage3", "stage4"]).eval()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ([0.1, 0.2, 0.3], [0.5, 0.6, 0.7]))
    with torch.no_grad():
        wanted = theirs((images - mean) / std).feature_maps
    assert all(
        torch.allclose(one, other, atol=1e-5) for one, other in zip(encoder(encoder.frozen(images)), wanted, strict=True)
    )
    other = build_image_encoder({"encoder": folder}, pretrained=False)
    assert torch.allclose(other.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    assert not torch.allclose(next(other.network.parameters()), next(encoder.network.parameters()))
    other.load_state_dict(encoder.state_dict())
    assert all(
        torch.equal(one, two) for one, two in zip(other(other.frozen(images)), encoder(encoder.frozen(images)), strict=True)
    )


def test_a_copy_in_a_folder_stands_in_for_the_hub(image_folder):
    encoder = build_image_encoder({"encoder": "owner/name", "folder": image_folder("swin")}, pretrained=True)
    assert torch.allclose(encoder.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))


def test_frozen_learns_nothing_and_stays_in_evaluation(image_folder, images):
    for name in ("swin", "dinov2"):
        encoder = build_image_encoder({"encoder": image_folder(name)}, pretrained=True).train()
        kept = encoder.frozen(images)
        assert len(kept) == 4
        assert not any(each.requires_grad for each in kept)
        assert not any(module.training for module in encoder.network.modules())
        learn = [parameter for parameter in encoder.named_parameters() if parameter[1].requires_grad]
        if name == "swin":
            assert learn == []
            assert all(one is other for one, other in zip(encoder(kept), kept, strict=True))
        else:  # the pyramid over a plain transformer is new, so it learns
            assert {parameter.split(".")[0] for parameter, _ in learn} == {"pyramid"}
            sum(each.square().sum() for each in encoder(kept)).backward()
            assert all(value.grad.abs().sum() > 0 for _, value in learn)


@pytest.mark.parametrize("name", ["swin", "swinv2", "dinov2"])
def test_lora_begins_as_the_frozen_network(name, image_folder, images):
    torch.manual_seed(0)
    frozen = build_image_encoder({"encoder": image_folder(name)}, pretrained=True).eval()
    lora = build_image_encoder({"encoder": image_folder(name), "tune": "lora", "lora_rank": 2}, pretrained=True).eval()
    if lora.pyramid is not None:
        lora.pyramid.load_state_dict(frozen.pyramid.state_dict())
    assert lora.frozen(images)[0] is images
    maps = lora(lora.frozen(images))
    assert all(torch.equal(one, other) for one, other in zip(maps, frozen(frozen.frozen(images)), strict=True))
    sum((each * torch.rand_like(each)).sum() for each in maps).backward()
    learn = {parameter: value for parameter, value in lora.network.named_parameters() if value.requires_grad}
    assert learn
    assert all(".lora_" in parameter for parameter in learn)
    assert all(value.grad.abs().sum() > 0 for parameter, value in learn.items() if parameter.endswith("lora_b"))
    assert all(value.grad is None for value in lora.network.parameters() if not value.requires_grad)


@pytest.mark.parametrize("name", CHANNELS)
def test_full_reaches_every_parameter_that_can_be_reached(name, image_folder, images):
    torch.manual_seed(0)
    encoder = build_image_encoder({"encoder": image_folder(name), "tune": "full"}, pretrained=True).train()
    sum((each * torch.rand_like(each)).sum() for each in encoder(encoder.frozen(images))).backward()
    missing = [parameter for parameter, value in encoder.named_parameters() if value.requires_grad and value.grad is None]
    assert missing == []
    unreached = {parameter for parameter, value in encoder.named_parameters() if not value.requires_grad}
    allowed = {
        "swin": {"network.swin.layernorm.weight", "network.swin.layernorm.bias"},
        "dinov2": {"network.embeddings.mask_token"},
    }
    assert unreached == allowed.get(name, set())
    statistics = [module for module in encoder.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert bool(statistics) == (name == "resnet")
    assert all(module.num_batches_tracked == 0 for module in statistics)


def test_checkpointing_gives_the_same_gradients(image_folder, images):
    gradients = []
    for checkpointing in (False, True):
        section = {"encoder": image_folder("swin"), "tune": "full", "checkpointing": checkpointing}
        encoder = build_image_encoder(section, pretrained=True).train()
        for module in encoder.modules():  # drop-path would draw anew
            if "DropPath" in type(module).__name__ or isinstance(module, torch.nn.Dropout):
                module.eval()
        assert any(getattr(module, "gradient_checkpointing", False) for module in encoder.modules()) == checkpointing
        sum(each.square().sum() for each in encoder(encoder.frozen(images))).backward()
        gradients.append([value.grad for value in encoder.parameters() if value.requires_grad])
    assert all(torch.allclose(one, other, rtol=1e-3, atol=1e-3) for one, other in zip(*gradients, strict=True))


def test_a_table_builds_a_network_without_files_and_its_config_builds_it_again(images):
    torch.manual_seed(0)
    encoder = build_image_encoder({"encoder": "config", "config": SWIN}, pretrained=True)
    assert encoder.channels == (8, 16, 32, 64)
    table = json.loads(json.dumps(encoder.config))
    again = build_image_encoder({"encoder": "owner/name", "config": table}, pretrained=False)
    again.load_state_dict(encoder.state_dict())
    assert all(
        torch.equal(one, two) for one, two in zip(again(again.frozen(images)), encoder(encoder.frozen(images)), strict=True)
    )


def test_autocast_gives_finite_maps(image_folder, images):
    encoder = build_image_encoder({"encoder": image_folder("dinov2"), "tune": "full"}, pretrained=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(each.isfinite().all() for each in encoder(encoder.frozen(images)))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"encoder": "config"}, "the table config is missing"),
        ({"encoder": "config", "config": {"model_type": "swan"}}, "identifier: swan"),
        ({"encoder": "config", "config": {"embed_dim": 8}}, "model_type"),
        ({"encoder": "config", "config": SWIN | {"depths": [1, 1]}}, "four stages"),
        ({"encoder": "config", "config": SWIN | {"patch_size": 8}}, "strides 4, 8, 16, 32"),
        ({"encoder": "config", "config": {"model_type": "hiera", "embed_dim": 8}}, "64 x 64 pixels"),
        ({"encoder": "config", "config": SWIN, "tune": "some"}, "'some'; allowed: frozen, lora, full"),
        ({"encoder": "config", "config": {"model_type": "bert"}}, "'bert' is no backbone"),
        ({"encoder": "config", "config": {"model_type": "dinov2", "num_hidden_layers": 2, "hidden_size": 8}}, "2 layers"),
    ],
)
def test_what_does_not_fit_is_refused(section, message):
    with pytest.raises(ModelError, match=message):
        build_image_encoder(section, pretrained=True)


def test_lora_on_convolutions_and_odd_sides_are_refused(image_folder):
    with pytest.raises(ModelError, match="no linear layers called"):
        build_image_encoder({"encoder": image_folder("resnet"), "tune": "lora"}, pretrained=True)
    encoder = build_image_encoder({"encoder": image_folder("resnet")}, pretrained=True)
    with pytest.raises(ModelError, match="multiples of 32"):
        encoder.frozen(torch.zeros(1, 3, 64, 72))


def test_weights_of_another_network_are_refused(image_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    state = load_file(f"{image_folder('convnext')}/model.safetensors")
    gone = next(name for name in state if "layers" in name)
    save_file({name: value for name, value in state.items() if name != gone}, tmp_path / "model.safetensors", {"format": "pt"})
    shutil.copy(f"{image_folder('convnext')}/config.json", tmp_path)
    with pytest.raises(ModelError, match="the weights lack"):
        build_image_encoder({"encoder": str(tmp_path)}, pretrained=True)


def test_an_id_that_is_not_on_this_machine_is_one_clear_error(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for pretrained in (True, False):
        with pytest.raises(ModelError, match=r"'nobody/nothing' cannot be read .*hf download nobody/nothing"):
            build_image_encoder({"encoder": "nobody/nothing"}, pretrained)
    with pytest.raises(ModelError, match="check the files in this folder"):
        build_image_encoder({"encoder": str(tmp_path)}, pretrained=True)
