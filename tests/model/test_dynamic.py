"""Deformable convolution against a loop over every pixel, and the dynamic block."""

import math

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from medglip.errors import ModelError
from medglip.model.deform import DeformConv, bilinear_corners, deform_conv, weighted_rows
from medglip.model.dynamic import DynamicBlock, DynamicReLU

SIZES = [(8, 10), (4, 5), (2, 3), (1, 2)]  # the second and third are rounded up


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def target_size(size, step):
    return tuple(math.ceil(side / step) for side in size)


def naive(x, offset, mask, weight, bias, step):
    """The definition, one number at a time."""
    batch, channels, height, width = x.shape
    outputs = torch.zeros(batch, len(weight), *offset.shape[-2:], dtype=x.dtype)
    for b in range(batch):
        for i in range(offset.shape[-2]):
            for j in range(offset.shape[-1]):
                total = bias.clone()
                for k in range(9):
                    base_y, base_x = (i * step, j * step) if step >= 1 else ((i + 0.5) * step - 0.5, (j + 0.5) * step - 0.5)
                    y = base_y + k // 3 - 1 + offset[b, 2 * k, i, j].item()
                    x_place = base_x + k % 3 - 1 + offset[b, 2 * k + 1, i, j].item()
                    value = torch.zeros(channels, dtype=x.dtype)
                    for row in (math.floor(y), math.floor(y) + 1):
                        for column in (math.floor(x_place), math.floor(x_place) + 1):
                            if 0 <= row < height and 0 <= column < width:
                                value += x[b, :, row, column] * (1 - abs(y - row)) * (1 - abs(x_place - column))
                    total += weight[:, :, k // 3, k % 3] @ value * mask[b, k, i, j]
                outputs[b, :, i, j] = total
    return outputs


@pytest.mark.parametrize(("step", "size"), [(1.0, (5, 4)), (2.0, (5, 4)), (0.5, (2, 3)), (1.0, (1, 2))])
def test_it_is_what_a_loop_over_pixels_taps_and_corners_gives(step, size):
    target = target_size(size, step)
    x, offset, mask = draw(2, 3, *size), draw(2, 18, *target, seed=1) * 2, draw(2, 9, *target, seed=2).sigmoid()
    weight, bias = draw(4, 3, 3, 3, seed=3), draw(4, seed=4)
    expected = naive(x, offset, mask, weight, bias, step)
    assert torch.allclose(deform_conv(x, offset, mask, weight, bias, step), expected, atol=1e-12)
    single = deform_conv(*(value.float() for value in (x, offset, mask, weight, bias)), step)
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), expected, atol=1e-4)


@pytest.mark.parametrize("step", [1, 2])
def test_without_offsets_it_is_a_plain_convolution(step):
    x, weight, bias = draw(2, 3, 6, 7), draw(4, 3, 3, 3, seed=1), draw(4, seed=2)
    height, width = target_size((6, 7), step)
    offset, mask = torch.zeros(2, 18, height, width).double(), torch.ones(2, 9, height, width).double()
    found = deform_conv(x, offset, mask, weight, bias, float(step))
    assert torch.allclose(found, torch.nn.functional.conv2d(x, weight, bias, stride=step, padding=1), atol=1e-12)


def test_a_finer_target_reads_a_ramp_where_its_cells_lie():
    ramp = torch.arange(6.0, dtype=torch.float64).view(1, 1, 1, 6).expand(1, 1, 6, 6)
    weight = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    weight[0, 0, 1, 1] = 1
    offset, mask = torch.zeros(1, 18, 12, 12).double(), torch.ones(1, 9, 12, 12).double()
    found = deform_conv(ramp, offset, mask, weight, torch.zeros(1), 0.5)
    assert torch.allclose(found[0, 0, 5, 1:-1], (torch.arange(1, 11).double() + 0.5) / 2 - 0.5)


@pytest.mark.parametrize(("step", "size"), [(1.0, (3, 4)), (2.0, (4, 3)), (0.5, (2, 2))])
def test_its_gradients_are_those_of_its_values(step, size):
    target = target_size(size, step)
    inputs = (draw(2, 2, *size), draw(2, 18, *target, seed=1), draw(2, 9, *target, seed=2), draw(2, 2, 3, 3, seed=3), draw(2))
    inputs = tuple(value.requires_grad_() for value in inputs)
    assert torch.autograd.gradcheck(lambda *values: deform_conv(*values, step), inputs, fast_mode=True)


@pytest.mark.parametrize(("step", "target"), [(0.5, (8, 8)), (1.0, (8, 8)), (2.0, (4, 4))])
def test_offsets_of_another_level_are_refused(step, target):
    x, weight = draw(1, 2, 3, 3), draw(2, 2, 3, 3)
    with pytest.raises(ModelError, match="target's level"):
        deform_conv(x, torch.zeros(1, 18, *target), torch.ones(1, 9, *target), weight, torch.zeros(2), step)


def test_places_far_outside_read_nothing():
    x, weight, bias = draw(1, 2, 4, 4), draw(3, 2, 3, 3, seed=1), draw(3, seed=2)
    for step in (1.0, 2.0):
        height, width = target_size((4, 4), step)
        offset = torch.full((1, 18, height, width), 1e6, dtype=torch.float64)
        found = deform_conv(x, offset, torch.ones(1, 9, height, width), weight, bias, step)
        assert torch.equal(found, bias.view(1, -1, 1, 1).expand_as(found))


def test_corners_share_one_between_them_and_are_numbered_row_by_row():
    cells, weights = bilinear_corners(torch.tensor([1.25, -0.5]), torch.tensor([2.0, 0.0]), 3, 4)
    assert cells[0].tolist() == [6, 7, 10, 11]
    assert weights[0].tolist() == [0.75, 0, 0.25, 0]
    assert weights[1].sum() == 0.5  # half outside
    assert (weighted_rows(torch.ones(12, 2), cells, weights) == torch.tensor([[1.0, 1.0], [0.5, 0.5]])).all()


@pytest.fixture
def block():
    torch.manual_seed(0)
    block = DynamicBlock(16)
    torch.nn.init.normal_(block.offset.weight, std=0.1)
    return block


def levels(count=2, seed=0):
    return [draw(count, 16, *size, seed=seed + number, dtype=torch.float32) for number, size in enumerate(SIZES)]


def test_shapes_stay_and_a_batch_answers_as_its_images_do_alone(block):
    together = block(levels(3))
    assert [level.shape for level in together] == [level.shape for level in levels(3)]
    for row in range(3):
        alone = block([level[row : row + 1] for level in levels(3)])
        assert all(torch.allclose(a[row : row + 1], b, atol=1e-5) for a, b in zip(together, alone, strict=True))


def test_a_level_hears_its_neighbours_and_no_others(block):
    inputs, before = levels(1), block(levels(1))
    inputs[3] = inputs[3] + 1
    changed = [not torch.equal(a, b) for a, b in zip(before, block(inputs), strict=True)]
    assert changed == [False, False, True, True]
    one = block(levels(1)[:1])
    assert one[0].shape == inputs[0].shape


def test_at_first_the_same_level_is_read_by_half_a_plain_convolution():
    torch.manual_seed(0)
    block = DynamicBlock(16)
    read = []
    block.norms[0].register_forward_hook(lambda module, inputs, output: read.append(inputs[0]))
    block(levels(1)[:1])
    conv = block.convs[0]
    plain = torch.nn.functional.conv2d(levels(1)[0], conv.weight, None, padding=1) / 2 + conv.bias.view(-1, 1, 1)
    assert torch.allclose(read[0], plain, atol=1e-5)


def test_every_parameter_gets_a_gradient_and_recomputing_gives_the_same_one(block):
    sum((level * draw(*level.shape, seed=9).float()).sum() for level in block(levels())).backward()
    gradients = {name: value.grad.clone() for name, value in block.named_parameters()}
    assert [name for name, value in gradients.items() if not value.any()] == []
    block.zero_grad()
    out = checkpoint(block, levels(), use_reentrant=False)
    sum((level * draw(*level.shape, seed=9).float()).sum() for level in out).backward()
    assert all(torch.allclose(value.grad, gradients[name], atol=1e-5) for name, value in block.named_parameters())


def test_dynamic_relu_is_a_relu_where_nothing_was_chosen():
    relu = DynamicReLU(8)
    for value in relu.choose.parameters():
        torch.nn.init.zeros_(value)
    x = draw(2, 8, 3, 3).float()
    assert torch.equal(relu(x), x.relu())


def test_bfloat16_changes_little(block):
    exact = block(levels())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = block(levels())
    for a, b in zip(exact, rough, strict=True):
        assert torch.isfinite(b).all()
        assert (a - b.float()).abs().max() < 0.1 * a.abs().max()


def test_a_deformable_layer_starts_within_the_bounds_of_a_convolution():
    conv = DeformConv(4, 8)
    assert 0.12 < conv.weight.abs().max() <= 1 / 6
    assert conv.bias.abs().max() <= 1 / 6
