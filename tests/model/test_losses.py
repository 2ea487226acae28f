import math

import torch

from medglip.model.dense import GroundingOutput
from medglip.model.head import grid_points
from medglip.model.losses import Target, grounding_loss, sigmoid_focal

WEIGHTS = {"align": 1.0, "box": 2.0, "quality": 0.5, "presence": 0.5}


def target(boxes, names, presence, unsure=None, unsure_names=None):
    phrases = len(presence)
    return Target(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(names, dtype=torch.bool).reshape(-1, phrases),
        torch.tensor(unsure or [], dtype=torch.float32).reshape(-1, 4),
        torch.tensor(unsure_names or [], dtype=torch.bool).reshape(-1, phrases),
        torch.tensor(presence, dtype=torch.float32),
    )


def output(phrases=2, logit=0.0):
    points, strides = grid_points([torch.zeros(1, 1, 4, 4)], (8,))
    boxes = torch.cat([points - 4, points + 4], dim=1).unsqueeze(0).requires_grad_()
    return GroundingOutput(
        torch.full((1, 16, phrases), logit).requires_grad_(), boxes, torch.zeros(1, 16), torch.zeros(1, phrases),
        torch.zeros(1, 16, 4), points, strides, torch.zeros(1, phrases, 4),
    )  # fmt: skip


def test_focal_loss_by_hand():
    loss = sigmoid_focal(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.0]))
    p = 1 / (1 + math.exp(-2))
    assert torch.allclose(loss, torch.tensor([0.25 * 0.25 * math.log(2), 0.75 * p**2 * -math.log(1 - p)]))


def test_focal_loss_of_extreme_logits_is_finite():
    assert torch.isfinite(sigmoid_focal(torch.tensor([-200.0, 200.0]), torch.tensor([1.0, 0.0]))).all()


def test_terms_by_hand():
    """One box equal to one point's box: GIoU 1 there; every quality logit 0 against IoU; presence logits 0."""
    losses = grounding_loss(output(), [target([[8, 8, 16, 16]], [[True, False]], [1, 0])], WEIGHTS)
    learners = 1  # the box holds one point
    focal = (0.25 * 0.25 + 31 * 0.75 * 0.25) * math.log(2) / learners
    assert torch.isclose(losses["align"], torch.tensor(focal), rtol=1e-5)
    assert torch.isclose(losses["box"], torch.tensor(0.0), atol=1e-5)
    assert torch.isclose(losses["quality"], torch.tensor(0.5 * math.log(2)), rtol=1e-5)
    assert torch.isclose(losses["presence"], torch.tensor(0.5 * math.log(2)), rtol=1e-5)
    parts = sum(losses[name] for name in ("align", "box", "quality", "presence"))
    assert torch.isclose(losses["loss"], parts)


def test_unknown_phrases_cost_nothing():
    known = grounding_loss(output(1), [target([[8, 8, 16, 16]], [[True]], [1])], WEIGHTS)
    padded = grounding_loss(output(2), [target([[8, 8, 16, 16]], [[True, False]], [1, -1])], WEIGHTS)
    for name in known:
        assert torch.isclose(known[name], padded[name]), name


def test_unsure_places_cost_nothing_for_their_phrase():
    sure = target([[8, 8, 16, 16]], [[True, False]], [1, 0])
    unsure = target([[8, 8, 16, 16]], [[True, False]], [1, 0], [[0, 0, 32, 32]], [[True, False]])
    high = output(logit=3.0)
    less = grounding_loss(high, [sure], WEIGHTS)["align"] - grounding_loss(high, [unsure], WEIGHTS)["align"]
    p = 1 / (1 + math.exp(-3))
    assert torch.isclose(less, torch.tensor(15 * 0.75 * p**2 * -math.log(1 - p)), rtol=1e-4)


def test_an_image_without_boxes_has_a_loss_and_gradients():
    out = output()
    losses = grounding_loss(out, [target([], [], [0, 0])], WEIGHTS)
    losses["loss"].backward()
    assert torch.isfinite(losses["loss"])
    assert out.logits.grad is not None
    assert out.boxes.grad is not None
    assert losses["box"] == 0


def test_two_names_of_one_box_are_both_learned():
    out = output()
    losses = grounding_loss(out, [target([[8, 8, 16, 16]], [[True, True]], [1, 1])], WEIGHTS)
    losses["loss"].backward()
    assert (out.logits.grad[0].min(dim=0).values < 0).all()  # each phrase is pulled up somewhere
