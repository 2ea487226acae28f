"""The mask head and what is pasted into the image."""

import pytest
import torch

from medglip.model.masks import MaskHead, paste

WIDTH, FINE = 16, 6


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def head():
    torch.manual_seed(0)
    return MaskHead(WIDTH, FINE)


def inputs(rows=2, count=3, height=64, width=96):
    points = draw(rows, count, 2, seed=5).sigmoid() * torch.tensor([width, height])
    return (
        [draw(rows, WIDTH, height // 8, width // 8, seed=1), draw(rows, WIDTH, height // 16, width // 16, seed=2)],
        draw(rows, FINE, height // 4, width // 4, seed=3),
        draw(rows, count, WIDTH, seed=4),
        draw(rows, count, WIDTH, seed=6),
        points,
    )


def test_one_mask_a_pair_at_stride_4(head):
    assert head(*inputs()).shape == (2, 3, 16, 24)
    levels, fine, *rest = inputs()
    assert head(levels, fine, *(value[:, :0] for value in rest)).shape == (2, 0, 16, 24)


def test_a_batch_answers_as_its_rows_and_pairs_do_alone(head):
    levels, fine, *rest = inputs(3)
    together = head(levels, fine, *rest)
    for row in range(3):
        one = slice(row, row + 1)
        for count in (1, 3):  # fewer pairs: padding of the others does not matter
            alone = head([level[one] for level in levels], fine[one], *(value[one, :count] for value in rest))
            assert torch.allclose(together[one, :count], alone, atol=1e-5)


def test_masks_follow_the_phrase_and_the_point(head):
    levels, fine, features, phrases, points = inputs(1)
    features, points = features[:, :1].expand(-1, 3, -1), points[:, :1].expand(-1, 3, -1)
    same = head(levels, fine, features, phrases[:, :1].expand(-1, 3, -1), points)
    assert torch.allclose(same[:, 0], same[:, 2], atol=1e-6)
    other = head(levels, fine, features, phrases, points)
    assert (other[:, 0] - other[:, 1]).abs().max() > 0.01
    moved = head(levels, fine, features, phrases, points + torch.tensor([16.0, 0]))
    assert (other - moved).abs().max() > 0.01


@pytest.mark.parametrize("axis", [0, 1])
def test_in_an_image_of_equal_pixels_a_mask_can_begin_at_its_point(head, axis):
    """The relative term alone tells two sides apart: logits rise all the way along x (axis 0) or along y (axis 1)."""
    levels, fine, features, phrases, _ = inputs(1, 2)
    levels, fine = [torch.ones_like(level) for level in levels], torch.ones_like(fine)
    points = torch.tensor([[[24.0, 24.0], [56.0, 40.0]]])
    along, across = (-1, -2) if axis == 0 else (-2, -1)
    with torch.no_grad():
        for layer in head.stack:  # zero padding would shade the borders
            for value in layer.parameters():
                value.zero_()
        head.kernel[-1].weight.zero_()
        head.kernel[-1].bias.zero_()[32 + 2 * axis] = 1.0  # the factor of d
        logits = head(levels, fine, features, phrases, points)
    assert (logits.diff(dim=along) > 0).all()
    assert torch.allclose(logits.diff(dim=across), torch.tensor(0.0), atol=1e-5)
    cells = logits.shape[along]
    for pair in range(2):
        first = int(points[0, pair, axis]) // 4
        assert (logits[0, pair] > -2.2).sum(dim=along).unique().tolist() == [cells - first]


def test_every_parameter_gets_a_gradient(head):
    logits = head(*inputs())
    (logits * draw(*logits.shape, seed=8)).sum().backward()
    assert [name for name, value in head.named_parameters() if value.grad is None or not value.grad.any()] == []


def test_bfloat16_changes_little(head):
    exact = head(*inputs())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = head(*inputs())
    assert rough.dtype == torch.float32
    assert torch.isfinite(rough).all()
    assert (exact - rough).abs().max() < 0.1


def test_pasted_masks_have_the_inputs_size_and_stay_in_their_boxes():
    logits = torch.full((3, 8, 8), 5.0)
    logits[1, :, :4] = -5.0
    masks = paste(logits, torch.tensor([[8.0, 8, 18, 28], [-3, 0, 40, 32], [40, 40, 50, 50]]), (32, 32))
    assert [mask.shape for mask in masks] == [(32, 32)] * 3
    assert all(mask.dtype == torch.bool for mask in masks)
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[4:32, 4:22] = True  # by a cell of 4 pixels at each side
    assert torch.equal(masks[0], inside)
    right = torch.zeros(32, 32, dtype=torch.bool)
    right[:, 16:] = True
    assert torch.equal(masks[1], right)
    assert not masks[2].any()  # outside the image
    assert paste(logits[:0], torch.zeros(0, 4), (32, 32)) == []


def test_a_large_box_grows_by_its_share():
    masks = paste(torch.full((1, 32, 32), 5.0), torch.tensor([[20.0, 40, 100, 60]]), (128, 128), margin=0.1)
    rows, columns = masks[0].nonzero(as_tuple=True)
    assert (columns.min(), columns.max() + 1) == (12, 108)  # a tenth of 80
    assert (rows.min(), rows.max() + 1) == (36, 64)  # a cell
