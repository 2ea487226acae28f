"""RoIAlign on images whose answer is known, and the vectors of regions."""

import pytest
import torch

from medglip.model.regions import RegionPooler, roi_features

STRIDES = (8, 16, 32)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ramps(size=128, rows=2):
    """Levels on which channel 0 is x, channel 1 is y and channel 2 the stride, all in pixels of the image."""
    levels = []
    for stride in STRIDES:
        centres = (torch.arange(size // stride) + 0.5) * stride
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        levels.append(torch.stack([x, y, torch.full_like(x, stride)]).expand(rows, -1, -1, -1))
    return levels


def noise(rows=3, width=16):
    return [draw(rows, width, 128 // stride, 128 // stride, seed=stride) for stride in STRIDES]


BOXES = torch.tensor([[[20.0, 30, 50, 44], [40, 16, 96, 112]], [[64, 64, 64, 64], [33, 33, 34, 34]]])


@pytest.mark.parametrize("out", [1, 4, 7])
def test_a_linear_ramp_is_read_exactly(out):
    found = roi_features(ramps(), STRIDES, BOXES, out)
    assert found.shape == (2, 2, 3, out, out)
    share = (torch.arange(out) + 0.5) / out
    for axis in (0, 1):
        start, side = BOXES[..., axis], BOXES[..., axis + 2] - BOXES[..., axis]
        places = start[..., None] + side[..., None] * share
        expected = places.unsqueeze(-2 if axis == 0 else -1).expand(-1, -1, out, out)
        assert torch.allclose(found[:, :, axis], expected, atol=1e-4)


def test_the_side_of_a_box_chooses_its_level():
    sides = torch.tensor([0.0, 1, 111, 112, 223, 224, 447, 448, 5000])
    boxes = torch.stack([torch.zeros(9), torch.zeros(9), sides, sides], dim=-1).unsqueeze(0)
    strides = roi_features(ramps(rows=1), STRIDES, boxes, 1)[0, :, 2, 0, 0]
    assert strides.round().tolist() == [8, 8, 8, 8, 8, 16, 16, 32, 32]


def test_cells_average_what_lies_in_them():
    level = draw(1, 2, 8, 8)
    whole = roi_features([level], (8,), torch.tensor([[[8.0, 8, 56, 56]]]), 3)  # two level cells a side and cell
    expected = torch.nn.functional.avg_pool2d(level[:, :, 1:7, 1:7], 2)
    assert torch.allclose(whole[:, 0], expected, atol=1e-5)


def test_places_outside_read_the_nearest_cell():
    found = roi_features(ramps(rows=1), STRIDES, torch.tensor([[[-40.0, -40, -20, -20], [200, 200, 220, 220]]]), 2)
    assert torch.allclose(found[0, 0, :2], torch.tensor(4.0))
    assert torch.allclose(found[0, 1, :2], torch.tensor(124.0))


def test_no_box_gives_nothing_and_keeps_the_graph():
    levels = [level.requires_grad_() for level in noise()]
    empty = roi_features(levels, STRIDES, torch.zeros(3, 0, 4))
    assert empty.shape == (3, 0, 16, 7, 7)
    empty.sum().backward()
    assert RegionPooler(16, 8)(noise(), STRIDES, torch.zeros(3, 0, 4)).shape == (3, 0, 8)


def test_gradients_reach_each_level_and_the_box():
    levels = [level.double().requires_grad_() for level in noise(1, 2)]
    boxes = torch.tensor([[[20.3, 30.1, 50.2, 44.9], [1.0, 3, 230, 232]]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda *values: roi_features(values[:-1], STRIDES, values[-1], 2), (*levels, boxes), fast_mode=True
    )


@pytest.fixture
def pooler():
    torch.manual_seed(0)
    return RegionPooler(16, 12)


def test_tiny_and_whole_boxes_have_vectors_of_length_1(pooler):
    boxes = torch.tensor([[[0.0, 0, 128, 128], [60, 60, 60, 60], [127, 127, 128, 128], [60, 60, 50, 50]]]).expand(3, -1, -1)
    vectors = pooler(noise(), STRIDES, boxes)
    assert vectors.shape == (3, 4, 12)
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(3, 4), atol=1e-5)
    assert (vectors[:, 0] - vectors[:, 1]).abs().max() > 1e-3


def test_a_batch_answers_as_its_rows_and_boxes_do_alone(pooler):
    boxes = torch.cat([BOXES, BOXES[:1] + 3])
    together = pooler(noise(), STRIDES, boxes)
    for row in range(3):
        for count in (1, 2):
            alone = pooler([level[row : row + 1] for level in noise()], STRIDES, boxes[row : row + 1, :count])
            assert torch.allclose(together[row, :count], alone[0], atol=1e-5)


def test_what_is_in_the_box_decides_and_so_does_its_place(pooler):
    boxes = torch.tensor([[[16.0, 16, 48, 48]]]).expand(3, -1, -1)
    before, levels = pooler(noise(), STRIDES, boxes), noise()
    levels[0][:, 5, 3, 3] += 3.0
    assert (pooler(levels, STRIDES, boxes) - before).abs().max() > 1e-3
    flat = [torch.ones(1, 16, side, side) for side in (16, 8, 4)]
    vectors = pooler(flat, STRIDES, torch.tensor([[[16.0, 16, 48, 48], [80, 16, 112, 48]]]))
    assert (vectors[:, 0] - vectors[:, 1]).abs().max() > 1e-3


def test_every_parameter_gets_a_gradient(pooler):
    vectors = pooler(noise(), STRIDES, torch.cat([BOXES, BOXES[:1]]))
    (vectors * draw(*vectors.shape, seed=8)).sum().backward()
    assert [name for name, value in pooler.named_parameters() if value.grad is None or not value.grad.any()] == []


def test_bfloat16_changes_little(pooler):
    exact = pooler(noise(2), STRIDES, BOXES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = pooler(noise(2), STRIDES, BOXES)
    assert rough.dtype == torch.float32
    assert (exact - rough).abs().max() < 0.05
