"""Pyramid, dense head and presence: sizes, places, old names of parameters, and what may not touch what."""

import math

import pytest
import torch

from medglip.errors import ModelError
from medglip.model.head import Alignment, DenseHead, Presence, expected_sigmoid
from medglip.model.pyramid import FeaturePyramid, grid_points, position_features

CHANNELS, WIDTH = (4, 6, 8, 10), 16


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def maps(count, height, width):
    return [draw(count, c, height // s, width // s, seed=s) for c, s in zip(CHANNELS, (4, 8, 16, 32), strict=True)]


def make(part, *arguments, **options):
    torch.manual_seed(0)
    return part(*arguments, **options)


def silent(module):
    return [name for name, value in module.named_parameters() if value.grad is None or not value.grad.any()]


@pytest.mark.parametrize("levels", [4, 5])
def test_sides_are_divided_and_rounded_up(levels):
    pyramid = make(FeaturePyramid, CHANNELS, WIDTH, levels)
    out = pyramid(maps(1, 96, 160))
    assert pyramid.strides == (8, 16, 32, 64, 128)[:levels]
    sizes = [(math.ceil(96 / stride), math.ceil(160 / stride)) for stride in pyramid.strides]
    assert [tuple(level.shape) for level in out] == [(1, WIDTH, *size) for size in sizes]


def test_cells_of_a_rounded_level_keep_their_place():
    """With position alone left, a level says of each cell where its centre lies, in whole and in rounded levels."""
    pyramid = make(FeaturePyramid, CHANNELS, 6, 5)
    for name, value in pyramid.named_parameters():
        torch.nn.init.zeros_(value)
        if name == "position.weight":
            value.data[:, :, 0, 0] = torch.eye(6)
    with torch.no_grad():
        out = pyramid(maps(1, 96, 160))
    said = torch.cat([level[0].flatten(1) for level in out], dim=1).T
    points, strides = grid_points(out, pyramid.strides)
    assert torch.allclose(said, position_features(points, (160, 96)), atol=1e-6)
    last = points[strides == 64][-1]
    assert last.tolist() == [160.0, 96.0]  # third column, second row: on the corner of the image
    assert torch.allclose(said[strides == 64][-1][:2], torch.ones(2), atol=1e-6)


def test_another_number_of_levels_is_refused():
    with pytest.raises(ModelError, match="found 3 levels"):
        FeaturePyramid(CHANNELS, WIDTH, 3)


def test_parameters_of_earlier_checkpoints_keep_their_names():
    def convs(*names):
        return {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}

    pyramid = convs("detail", "coarsest", "position", *(f"{part}.{i}" for part in ("lateral", "smooth") for i in range(3)))
    assert set(FeaturePyramid(CHANNELS, WIDTH).state_dict()) == pyramid
    assert set(FeaturePyramid(CHANNELS, WIDTH, 5).state_dict()) == pyramid | convs("beyond.0")
    towers = convs(*(f"{part}_tower.{i}.{j}" for part in ("name", "box") for i in range(2) for j in range(2)))
    outputs = convs("name", "box", "quality", "fine_name", "fine_box", "fine_quality") | {"reach"}
    assert set(DenseHead(WIDTH, 2, 4).state_dict()) == towers | outputs
    judge = convs("judge.0", "judge.1", "judge.3", "look.query", "look.memory", "look.out") | {"trust"}
    assert set(Presence(WIDTH, 2).state_dict()) == judge | convs("spread")


@pytest.mark.parametrize("kind", ["conv", "dynamic"])
def test_a_batch_answers_as_its_images_do_alone(kind):
    pyramid, head = make(FeaturePyramid, CHANNELS, WIDTH), make(DenseHead, WIDTH, 2, 4, kind)
    images = maps(3, 64, 96)
    together = head(pyramid(images), pyramid.strides).joined()
    for row in range(3):
        alone = head(pyramid([image[row : row + 1] for image in images]), pyramid.strides).joined()
        assert all(torch.allclose(a[row], b[0], atol=1e-5) for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize("kind", ["conv", "dynamic"])
def test_points_are_those_of_the_levels_and_of_quarter_cells(kind):
    pyramid, head = make(FeaturePyramid, CHANNELS, WIDTH, 5), make(DenseHead, WIDTH, 1, 5, kind)
    out = head(pyramid(maps(1, 64, 96)), pyramid.strides)
    assert out.strides == [4, 8, 16, 32, 64, 128]
    names, reaches, quality, features = out.joined()
    points, _ = grid_points(out.names, out.strides)
    assert names.shape == features.shape == (1, len(points), WIDTH)
    assert len(points) == 16 * 24 + 8 * 12 + 4 * 6 + 2 * 3 + 1 * 2 + 1
    assert quality.shape == (1, len(points))
    assert (reaches > 0).all()


@pytest.mark.parametrize("kind", ["conv", "dynamic"])
def test_every_parameter_gets_a_gradient(kind):
    pyramid, head = make(FeaturePyramid, CHANNELS, WIDTH, 5), make(DenseHead, WIDTH, 2, 5, kind)
    names, reaches, quality, _ = head(pyramid(maps(2, 64, 64)), pyramid.strides).joined()
    ((names * draw(*names.shape)).sum() + reaches.log().sum() + (quality * draw(*quality.shape)).sum()).backward()
    assert silent(pyramid) == []
    assert silent(head) == []


def test_in_the_dynamic_head_a_coarse_level_speaks_at_fine_points():
    head = make(DenseHead, WIDTH, 1, 4, "dynamic")
    levels = [draw(1, WIDTH, side, side, seed=side) for side in (8, 4, 2, 1)]
    before = head(levels, (8, 16, 32, 64))
    levels[1] = levels[1] + 1
    after = head(levels, (8, 16, 32, 64))
    assert not torch.equal(before.names[0], after.names[0])
    assert torch.equal(before.names[4], after.names[4])  # two levels away


def test_another_kind_of_head_is_refused():
    with pytest.raises(ModelError, match="found kind 'deform'"):
        DenseHead(WIDTH, 1, 4, "deform")


def test_presence_of_a_phrase_does_not_depend_on_padding_or_neighbours():
    presence = make(Presence, WIDTH, 2)
    torch.nn.init.normal_(presence.spread.weight)
    levels, phrases, logits = [draw(2, WIDTH, side, side) for side in (8, 4)], draw(2, 5, WIDTH), draw(2, 30, 5)
    whole = presence(levels, phrases, logits)
    for row, count in ((0, 3), (1, 1)):
        part = presence(
            [level[row : row + 1] for level in levels], phrases[row : row + 1, :count], logits[row : row + 1, :, :count]
        )
        assert all(torch.allclose(a[row, :count], b[0], atol=1e-5) for a, b in zip(whole, part, strict=True))


def test_presence_is_sure_at_first_and_learns_both_numbers():
    presence = make(Presence, WIDTH, 2)
    logit, log_variance = presence([draw(2, WIDTH, 40, 4)], draw(2, 3, WIDTH), draw(2, 30, 3))
    assert logit.shape == log_variance.shape == (2, 3)
    assert (log_variance == -4).all()
    expected_sigmoid(logit, log_variance).sum().backward()
    assert [name for name in silent(presence) if name != "look.memory.bias"] == []


def test_expected_sigmoid_is_near_the_mean_of_the_sigmoid():
    noise = torch.special.ndtri((torch.arange(4000, dtype=torch.float64) + 0.5) / 4000)
    for mean in (-6.0, -1.0, 0.0, 0.5, 3.0):
        for log_variance in (-4.0, 0.0, 2.0, 4.0):
            truth = torch.sigmoid(mean + math.exp(log_variance / 2) * noise).mean()
            found = expected_sigmoid(torch.tensor(mean), torch.tensor(log_variance))
            assert abs(found - truth) < 0.02
    sure = expected_sigmoid(torch.tensor(1.5, dtype=torch.bfloat16), torch.tensor(-40.0))
    assert torch.isclose(sure, torch.tensor(1.5).sigmoid())


@pytest.mark.parametrize("kind", ["conv", "dynamic"])
def test_bfloat16_changes_little(kind):
    pyramid, head, align, presence = (
        make(FeaturePyramid, CHANNELS, WIDTH),
        make(DenseHead, WIDTH, 1, 4, kind),
        make(Alignment, WIDTH),
        make(Presence, WIDTH, 2),
    )

    def answer():
        levels, phrases = pyramid(maps(1, 64, 64)), draw(1, 3, WIDTH)
        out = head(levels, pyramid.strides)
        names, reaches, quality, _ = out.joined()
        logits = align(names, phrases, position_features(grid_points(out.names, out.strides)[0], (64, 64)))
        return [logits, reaches / reaches.mean(), quality, *presence(levels, phrases, logits)]

    exact = answer()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = answer()
    for a, b in zip(exact, rough, strict=True):
        assert torch.isfinite(b).all()
        assert (a - b.float()).abs().max() < 0.15
