"""LoRA by hand-made numbers, and what learns under each way of tuning."""

import pytest
import torch
from torch import nn

from medglip.errors import ModelError
from medglip.model.encoders.tuning import LoraLinear, add_lora, merge_lora, projections, tune


class Attention(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.pooler = nn.Linear(width, width)

    def forward(self, x):
        return (self.query(x) @ self.key(x).transpose(-1, -2)).softmax(-1) @ self.value(x)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.dense = Attention(), nn.Linear(4, 4)

    def forward(self, x):
        return self.dense(self.attention(x))


@pytest.fixture
def block():
    torch.manual_seed(0)
    return Block()


def test_lora_by_hand():
    linear = nn.Linear(2, 1)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 2.0]]))
        linear.bias.fill_(3.0)
    lora = LoraLinear(linear, rank=1, alpha=4.0)
    with torch.no_grad():
        lora.lora_a.copy_(torch.tensor([[1.0, -1.0]]))
        lora.lora_b.fill_(0.5)
    x = torch.tensor([[5.0, 1.0]])
    assert lora(x).item() == 5 + 2 + 3 + 4 * 0.5 * (5 - 1)
    plain = lora.merged()
    assert type(plain) is nn.Linear
    assert plain.weight.tolist() == [[3.0, 0.0]]
    assert plain(x).item() == 18.0


def test_lora_begins_as_the_network_and_merges_into_it(block):
    x = torch.randn(2, 3, 4)
    before, names = block(x), set(block.state_dict())
    assert add_lora(block, rank=2) == 2
    assert torch.equal(block(x), before)
    assert names < set(block.state_dict())  # the old weights kept their names
    learn = {name for name, value in block.named_parameters() if value.requires_grad}
    assert learn == {f"attention.{layer}.lora_{part}" for layer in ("query", "value") for part in "ab"}
    optimizer = torch.optim.SGD([value for value in block.parameters() if value.requires_grad], 0.5)
    for _ in range(2):
        optimizer.zero_grad()
        block(x).square().sum().backward()
        optimizer.step()
    assert all(value.grad.abs().sum() > 0 for value in block.parameters() if value.requires_grad)
    assert block.dense.weight.grad is None
    after = block(x)
    assert not torch.allclose(after, before, atol=1e-3)
    assert merge_lora(block) == 2
    assert torch.allclose(block(x), after, atol=1e-5)
    assert set(block.state_dict()) == names


def test_lora_takes_other_layers_by_name(block):
    assert projections(block) == ("query", "value")
    assert add_lora(block, 1, names=("dense",)) == 1
    assert isinstance(block.dense, LoraLinear)
    assert type(block.attention.query) is nn.Linear


@pytest.mark.parametrize("rank", [0, -1, 1.5, "8", True])
def test_a_bad_rank_is_refused(block, rank):
    with pytest.raises(ModelError, match="lora_rank"):
        add_lora(block, rank)


def test_lora_needs_attention():
    with pytest.raises(ModelError, match="no linear layers called"):
        add_lora(nn.Sequential(nn.Linear(2, 2)), 2)


def test_what_learns_under_each_way(block):
    x = torch.randn(1, 3, 4)
    tune(block, "full", 8, lambda: [block(x)])
    learn = {name for name, value in block.named_parameters() if value.requires_grad}
    assert learn == {name for name, _ in block.named_parameters() if "pooler" not in name}  # nothing depends on the pooler
    tune(block, "frozen", 8, lambda: [block(x)])
    assert not any(value.requires_grad for value in block.parameters())
    with pytest.raises(ModelError, match="'half'; allowed: frozen, lora, full"):
        tune(block, "half", 8, lambda: [block(x)])
