import torch

from medglip.model.assign import assign
from medglip.model.pyramid import grid_points


def grid(size=64, strides=(8, 16, 32)):
    return grid_points([torch.zeros(1, 1, size // stride, size // stride) for stride in strides], strides)


def test_points_are_cell_centres_row_by_row():
    points, strides = grid(32, (8, 16))
    assert points[:3].tolist() == [[4, 4], [12, 4], [20, 4]]
    assert points[16].tolist() == [8, 8]
    assert strides.tolist() == [8.0] * 16 + [16.0] * 4


def test_a_box_of_the_anchors_size_is_learned_at_its_centre():
    points, strides = grid()
    box = torch.tensor([[4.0, 4, 36, 36]])  # an anchor of the finest level is 32 pixels; point (20, 20) is its centre
    assigned = assign(points, strides, box)
    assert assigned[((points == torch.tensor([20.0, 20.0])).all(dim=1)) & (strides == 8)].tolist() == [0]
    learners = points[assigned == 0]
    assert ((learners > box[0, :2]) & (learners < box[0, 2:])).all()


def test_no_box_no_learner():
    points, strides = grid()
    assert (assign(points, strides, torch.zeros(0, 4)) == -1).all()


def test_a_tiny_box_between_the_points_takes_the_nearest_one():
    points, strides = grid()
    boxes = torch.tensor([[7.0, 7, 9, 9], [0, 0, 60, 60]])
    assigned = assign(points, strides, boxes)
    learner = points[assigned == 0]
    assert len(learner) == 1
    assert (learner[0] - torch.tensor([8.0, 8.0])).abs().max() <= 4
    assert (assigned == 1).any()


def test_two_tiny_boxes_at_one_place_take_two_points():
    points, strides = grid()
    assigned = assign(points, strides, torch.tensor([[8.0, 8, 9, 9], [8, 8, 9.5, 9.5]]))
    assert sorted(assigned[assigned >= 0].tolist()) == [0, 1]


def test_every_box_is_learned():
    points, strides = grid()
    generator = torch.Generator().manual_seed(1)
    corner = torch.rand(12, 2, generator=generator) * 50
    boxes = torch.cat([corner, corner + 2 + torch.rand(12, 2, generator=generator) * 12], dim=1)
    assert set(range(12)) <= set(assign(points, strides, boxes).tolist())
