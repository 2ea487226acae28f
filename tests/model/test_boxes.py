import torch

from medglip.model.boxes import box_area, box_iou, nms_keep, paired_iou


def random_boxes(generator, *shape):
    corner = torch.rand(*shape, 2, generator=generator) * 80
    return torch.cat([corner, corner + 1 + torch.rand(*shape, 2, generator=generator) * 40], dim=-1)


def test_iou_of_hand_cases():
    first = torch.tensor([[0.0, 0, 4, 4], [10, 10, 12, 12]])
    second = torch.tensor([[0.0, 0, 4, 4], [2, 0, 6, 4], [20, 20, 30, 30]])
    assert torch.allclose(box_iou(first, second), torch.tensor([[1, 8 / 24, 0], [0, 0, 0]]))


def test_inverted_box_has_no_area():
    assert box_area(torch.tensor([5.0, 5, 3, 9])) == 0


def test_giou_is_iou_minus_the_empty_part_of_the_hull():
    first, second = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[4.0, 0, 6, 2]])
    iou, giou = paired_iou(first, second)
    assert iou.item() == 0
    assert torch.isclose(giou, torch.tensor([-4 / 12]), atol=1e-6).all()  # hull 6 x 2, union 8


def test_nms_is_the_greedy_one():
    generator = torch.Generator().manual_seed(0)
    boxes = random_boxes(generator, 6, 60)
    keep = nms_keep(boxes, 0.3)
    for number in range(6):
        iou = box_iou(boxes[number], boxes[number])
        kept: list[int] = []
        for place in range(60):
            if all(iou[place, other] <= 0.3 for other in kept):
                kept.append(place)
        assert keep[number].nonzero().flatten().tolist() == kept


def test_nms_of_nothing():
    assert nms_keep(torch.zeros(2, 0, 4), 0.5).shape == (2, 0)
