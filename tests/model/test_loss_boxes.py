import math

import pytest
import torch

from medglip.errors import ModelError
from medglip.model.losses.boxes import centerness_target, giou_loss, quality_loss

BOX = torch.tensor([[0.0, 0, 4, 4]])


def test_giou_loss_by_hand():
    """Equal boxes: 0. (0,0,4,4) and (4,0,8,4): IoU 0, hull as large as the union: 1. Beside a gap of 4: union 32, hull 48."""
    same, touching, apart = BOX, torch.tensor([[4.0, 0, 8, 4]]), torch.tensor([[8.0, 0, 12, 4]])
    assert torch.isclose(giou_loss(same, BOX), torch.tensor(0.0))
    assert torch.isclose(giou_loss(touching, BOX), torch.tensor(1.0))
    assert torch.isclose(giou_loss(apart, BOX), torch.tensor(1 + 16 / 48))
    assert torch.isclose(giou_loss(torch.cat([same, apart]), BOX.repeat(2, 1)), torch.tensor((1 + 16 / 48) / 2))


def test_centerness_by_hand():
    """Point (1, 1) of (0,0,4,4): min/max is 1/3 both ways, the root of 1/9 is 1/3; the middle 1, edge and outside 0."""
    points = torch.tensor([[1.0, 1], [2, 2], [0, 2], [-1, 2], [2, 1]])
    expected = torch.tensor([1 / 3, 1, 0, 0, math.sqrt(1 / 3)])
    assert torch.allclose(centerness_target(points, BOX.expand(5, 4)), expected)


def test_centerness_of_a_box_without_area_is_a_number():
    assert torch.isfinite(centerness_target(torch.tensor([[2.0, 2]]), torch.tensor([[2.0, 2, 2, 2]]))).all()


def test_quality_by_hand():
    """Drawn (0,0,4,2) of (0,0,4,4): IoU 1/2. Logit ln 3 says 3/4. Point (1, 1): centerness 1/3."""
    quality, drawn, point = torch.tensor([math.log(3)]), torch.tensor([[0.0, 0, 4, 2]]), torch.tensor([[1.0, 1]])
    for name, truth in (("iou", 1 / 2), ("centerness", 1 / 3)):
        expected = -truth * math.log(3 / 4) - (1 - truth) * math.log(1 / 4)
        assert torch.isclose(quality_loss(quality, drawn, BOX, point, name), torch.tensor(expected))


def test_the_box_does_not_learn_from_its_quality():
    drawn = torch.tensor([[0.0, 0, 4, 2]], requires_grad=True)
    quality = torch.zeros(1, requires_grad=True)
    quality_loss(quality, drawn, BOX, torch.ones(1, 2)).backward()
    assert quality.grad is not None
    assert drawn.grad is None


def test_an_unknown_quality_is_an_error():
    with pytest.raises(ModelError, match="'area'"):
        quality_loss(torch.zeros(1), BOX, BOX, torch.ones(1, 2), "area")
