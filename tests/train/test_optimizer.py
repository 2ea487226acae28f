"""Groups of the optimiser: who learns how fast, and who is pulled towards zero."""

import pytest
import torch
from torch import nn

from medglip.model import build_model, load_config
from medglip.model.encoders import HubImageEncoder
from medglip.train.optimizer import build_optimizer, decays, groups_of, layer_numbers


def by_name(model, groups):
    names = {id(value): name for name, value in model.named_parameters()}
    return {names[id(value)]: group for group in groups for value in group["params"]}


def test_every_parameter_that_learns_is_in_one_group():
    config = load_config("tiny", modality=["prompt", "film", "adapter", "encoder"])
    model = build_model(config)
    model.head.pyramid.detail.weight.requires_grad_(False)
    groups = groups_of(model, config["train"])
    found = [id(value) for group in groups for value in group["params"]]
    assert sorted(found) == sorted(id(value) for value in model.parameters() if value.requires_grad)
    assert len(set(found)) == len(found)


def test_norms_biases_scales_and_modality_tables_do_not_decay():
    model = build_model(load_config("tiny", modality=["prompt", "film", "adapter", "encoder"]))
    free = {name for name, value in model.named_parameters() if not decays(name, value)}
    norms = [f"{name}.{part}" for name, module in model.named_modules() for part, _ in module.named_parameters(recurse=False)
             if isinstance(module, nn.LayerNorm | nn.GroupNorm)]  # fmt: skip
    assert len(norms) > 10
    assert free >= set(norms)
    assert {"modality.prompt.weight", "modality.film.0.weight", "modality.adapter.0.up_bias", "modality.encoder.bias.0",
            "modality.encoder.out_bias.1", "fusion.layers.0.phrase_scale", "fusion.layers.0.image_looks.nothing",
            "head.dense.reach"} <= free  # fmt: skip
    kept = {"modality.adapter.0.up", "modality.encoder.weight.0", "modality.encoder.out.0", "image_encoder.layers.0.0.weight",
            "fusion.layers.0.ffn.0.weight", "text_encoder.text.table.weight"}  # fmt: skip
    assert not free & kept
    assert all(name.endswith("bias") or value.squeeze().ndim <= 1 or name.startswith("modality.") or ".bias." in name
               for name, value in model.named_parameters() if name in free)  # fmt: skip


def test_a_block_learns_slower_than_the_one_above_it():
    config = load_config("tiny", lr=1.0, encoder_rate=0.5, layer_decay=0.1)
    model = build_model(config)
    groups = by_name(model, groups_of(model, config["train"]))
    rates = [groups[f"image_encoder.layers.{number}.0.weight"]["peak"] for number in range(5)]
    assert rates == pytest.approx([0.5 * 0.1**below for below in (4, 3, 2, 1, 0)])
    assert groups["head.dense.name.weight"]["peak"] == 1.0
    assert groups["text_encoder.text.table.weight"]["peak"] == 1.0


def test_without_layer_decay_there_are_two_rates():
    config = load_config("tiny", lr=1.0, encoder_rate=0.5)
    assert {group["peak"] for group in groups_of(build_model(config), config["train"])} == {1.0, 0.5}


def test_blocks_of_stages_are_counted_through():
    """As in Swin (downsampling after its stage's blocks) and ConvNeXt (before them): it belongs to the block beside it."""

    class Stage(nn.Module):
        def __init__(self, first):
            super().__init__()
            if first:
                self.down = nn.ModuleList([nn.LayerNorm(2), nn.Linear(2, 2)])
            self.blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(2))
            if not first:
                self.down = nn.Linear(2, 2)

    for first in (True, False):
        network = nn.Module()
        network.embed = nn.Linear(2, 2)
        network.stages = nn.ModuleList(Stage(first) for _ in range(2))
        network.norm = nn.LayerNorm(2)
        numbers = layer_numbers(network)
        assert numbers["embed.weight"] == 0
        assert [numbers[f"stages.{s}.blocks.{b}.weight"] for s in (0, 1) for b in (0, 1)] == [1, 2, 3, 4]
        assert numbers["norm.weight"] == 4
        down = "stages.1.down.1.weight" if first else "stages.0.down.weight"
        assert numbers[down] == (3 if first else 2)


def test_the_blocks_of_a_swin_are_found():
    from transformers import SwinConfig
    from transformers.models.swin.modeling_swin import SwinBackbone

    network = SwinBackbone(SwinConfig(embed_dim=8, depths=[1, 1, 2, 1], num_heads=[1, 1, 1, 1], window_size=2, image_size=32,
                                      out_features=["stage1", "stage2", "stage3", "stage4"]))  # fmt: skip
    numbers = layer_numbers(HubImageEncoder(network, how="full").network)
    assert max(numbers.values()) == 5
    assert min(number for name, number in numbers.items() if "embeddings" in name) == 0
    assert [numbers[name] for name in numbers if "downsample.reduction" in name] == [1, 2, 4]


def test_the_optimiser_moves_only_by_decay_where_there_is_no_gradient():
    config = load_config("tiny", lr=0.1, weight_decay=0.5)
    model = build_model(config)
    optimizer = build_optimizer(model, config["train"])
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for value in model.parameters():
        value.grad = torch.zeros_like(value)
    optimizer.step()
    for name, value in model.named_parameters():
        assert torch.allclose(value, before[name] * (0.95 if decays(name, value) else 1.0), atol=1e-7), name
