import math
from types import SimpleNamespace

import pytest
import torch

from medglip.errors import ModelError
from medglip.model.losses import Target, grounding_loss, sigmoid_focal
from medglip.model.losses.align import align_loss

WEIGHTS = {"align": 1.0, "box": 2.0, "quality": 0.5, "presence": 0.5}
EVERY = {**WEIGHTS, "hierarchy": 1.0, "contrast": 1.0, "words": 1.0, "masks": 1.0}


def target(boxes, names, presence, unsure=None, unsure_names=None, **more):
    phrases = len(presence)
    return Target(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(names, dtype=torch.bool).reshape(-1, phrases),
        torch.tensor(unsure or [], dtype=torch.float32).reshape(-1, 4),
        torch.tensor(unsure_names or [], dtype=torch.bool).reshape(-1, phrases),
        torch.tensor(presence, dtype=torch.float32),
        **{name: torch.tensor(value) for name, value in more.items()},
    )


def output(phrases=2, logit=0.0, rows=1, **learned):
    """What a model says of rows of 16 points, one every 8 pixels, each of which draws a box of 8 pixels around itself."""
    x, y = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="xy")
    points = (torch.stack([x, y], -1).reshape(-1, 2) + 0.5) * 8
    return SimpleNamespace(
        logits=torch.full((rows, 16, phrases), logit).requires_grad_(),
        boxes=torch.cat([points - 4, points + 4], dim=1).repeat(rows, 1, 1).requires_grad_(),
        quality=torch.zeros(rows, 16, requires_grad=True),
        presence=torch.full((rows, phrases), logit).requires_grad_(),
        uncertainty=torch.full((rows, phrases), -torch.inf),  # sure
        points=points,
        strides=torch.full((16,), 8.0),
        learned=SimpleNamespace(**learned) if learned else None,
    )


def extras(rows=1, regions=((0, 0),), masks=((0, 0),), words=2, phrases=2, assigned=(5,)):
    """What training adds: each row's points ``assigned`` learn its box 0."""
    number = torch.full((16,), -1)
    number[list(assigned)] = 0
    unit = torch.nn.functional.normalize
    generator = torch.Generator().manual_seed(0)
    return {
        "assigned": [number] * rows,
        "mask_logits": torch.randn(len(masks), 8, 8, generator=generator).requires_grad_(),
        "mask_of": torch.tensor(masks, dtype=torch.long).reshape(-1, 2),
        "region_vectors": unit(torch.randn(len(regions), 4, generator=generator), dim=1).requires_grad_(),
        "region_of": torch.tensor(regions, dtype=torch.long).reshape(-1, 2),
        "phrase_vectors": unit(torch.randn(rows, phrases, 4, generator=generator), dim=2).requires_grad_(),
        "contrast_scale": torch.tensor(10.0, requires_grad=True),
        "word_logits": torch.randn(words, 7, generator=generator).requires_grad_(),
        "word_labels": torch.arange(words),
    }


def rich():
    """A target with everything in it."""
    return target([[8, 8, 16, 16]], [[True, False]], [1, 0], concepts=[3, 4], parents=[[1, 0]],
                  masks=torch.ones(1, 8, 8).tolist(), mask_is_known=[True])  # fmt: skip


def test_focal_loss_by_hand():
    loss = sigmoid_focal(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.0]))
    p = 1 / (1 + math.exp(-2))
    assert torch.allclose(loss, torch.tensor([0.25 * 0.25 * math.log(2), 0.75 * p**2 * -math.log(1 - p)]))


def test_focal_loss_of_extreme_logits_is_finite():
    assert torch.isfinite(sigmoid_focal(torch.tensor([-200.0, 200.0]), torch.tensor([1.0, 0.0]))).all()


def test_alignment_by_hand():
    """Logits 0: a true pair costs 1/4 * 1/4 * ln 2, a false one 3/4 * 1/4 * ln 2; 2 true, 1 false, 1 not judged."""
    truth = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    is_judged = torch.tensor([[[True, True], [True, False]]])
    expected = (2 * 1 / 16 + 3 / 16) * math.log(2) / 2
    assert torch.isclose(align_loss(torch.zeros(1, 2, 2), truth, is_judged), torch.tensor(expected))


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


def test_an_empty_image_beside_another_changes_only_what_is_averaged():
    """The empty image's points cost 16 * 2 false pairs of 3/16 ln 2; it has no box, so boxes stay as they are."""
    full, empty = target([[8, 8, 16, 16]], [[True, False]], [1, 0]), target([], [], [0, 0])
    one, both = grounding_loss(output(), [full], WEIGHTS), grounding_loss(output(rows=2), [full, empty], WEIGHTS)
    assert torch.isclose(both["align"] - one["align"], torch.tensor(32 * 3 / 16 * math.log(2)), rtol=1e-5)
    for name in ("box", "quality", "presence"):
        assert torch.isclose(both[name], one[name]), name


def test_the_assignment_of_the_output_is_used():
    """Points 5 and 6 learn the box of point 5; point 6's box only touches it: IoU 0, GIoU 0."""
    given = output(**extras(assigned=(5, 6)))
    losses = grounding_loss(given, [target([[8, 8, 16, 16]], [[True, False]], [1, 0])], WEIGHTS)
    assert torch.isclose(losses["box"], torch.tensor(2.0 * (0 + 1) / 2))


def test_box_number_0_is_learned_in_every_row():
    out = output(rows=2, **extras(rows=2, regions=((0, 0), (1, 0)), masks=((0, 0), (1, 0))))
    losses = grounding_loss(out, [rich(), rich()], EVERY)
    losses["loss"].backward()
    for row in range(2):
        assert out.logits.grad[row, 5, 0] < 0
        assert out.learned.region_vectors.grad[row].abs().sum() > 0
        assert out.learned.mask_logits.grad[row].abs().sum() > 0


def test_every_term_is_there_once_it_weighs():
    assert set(grounding_loss(output(**extras()), [rich()], WEIGHTS)) == {"loss", *WEIGHTS}
    out = output(**extras())
    out.presence = torch.tensor([[0.0, 2.0]])  # the child, phrase 1, is thought likelier than its parent
    losses = grounding_loss(out, [rich()], EVERY)
    assert set(losses) == {"loss", *EVERY}
    assert all(losses[name] > 0 for name in ("hierarchy", "contrast", "words", "masks"))
    assert torch.isclose(losses["loss"], sum(losses[name] for name in EVERY))


@pytest.mark.parametrize("name", list(EVERY))
def test_a_weight_multiplies_its_term(name):
    out = output(logit=1.0, **extras(assigned=(5, 6)))
    out.presence = torch.tensor([[0.0, 2.0]])
    once = grounding_loss(out, [rich()], EVERY)[name]
    assert once > 0
    assert torch.isclose(grounding_loss(out, [rich()], {**EVERY, name: 3 * EVERY[name]})[name], 3 * once)


@pytest.mark.parametrize("truth", [target([], [], [0, 0]), target([], [], [-1, -1])], ids=["all absent", "nothing known"])
def test_what_has_nothing_to_judge_is_a_zero_with_a_gradient(truth):
    learned = extras(regions=(), masks=(), words=0, assigned=())
    out = output(**learned)
    losses = grounding_loss(out, [truth], EVERY)
    assert all(losses[name] == 0 for name in ("box", "quality", "hierarchy", "contrast", "words", "masks"))
    losses["loss"].backward()
    values = [*vars(out).values(), *(value for value in learned.values() if isinstance(value, torch.Tensor))]
    learns = [value for value in values if isinstance(value, torch.Tensor) and value.requires_grad]
    assert len(learns) == 4 + 5
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in learns)


def test_without_parts_for_them_the_further_terms_are_zeros():
    losses = grounding_loss(output(), [rich()], EVERY)
    assert all(losses[name] == 0 and losses[name].requires_grad for name in ("contrast", "words", "masks"))


def test_an_all_negative_batch_at_the_prior_costs_little():
    logit = -4.595  # 1 %
    targets = [target([], [], [0, 0, 0], concepts=[1, 2, 3], parents=[[0, 1]])] * 3
    nothing = extras(rows=3, regions=(), masks=(), words=0, phrases=3, assigned=())
    assert grounding_loss(output(3, logit, rows=3, **nothing), targets, EVERY)["loss"] < 0.1


def test_an_ancestor_of_a_true_label_is_never_a_negative():
    """Phrase 1 is the parent of phrase 0, whose box is there, and is said to be absent (0) or not said (-1)."""
    p = 0.5
    for said in (0, -1):
        out = output()
        losses = grounding_loss(out, [target([[8, 8, 16, 16]], [[True, False]], [1, said], parents=[[0, 1]])], WEIGHTS)
        losses["loss"].backward()
        assert (out.logits.grad[0, :, 1] == 0).all()  # where the parent is nobody said
        assert out.presence.grad[0, 1] < 0  # but it is there
        assert torch.isclose(losses["align"], torch.tensor((1 / 16 + 15 * 0.75 * p**2) * math.log(2)))


def test_an_ancestor_with_boxes_of_its_own_is_not_judged_on_its_childs_points():
    """Box 0 is the child's at point 5, box 1 the parent's at point 10; elsewhere the parent is judged."""
    boxes, names = [[8, 8, 16, 16], [16, 16, 24, 24]], [[True, False], [False, True]]
    out = output()
    grounding_loss(out, [target(boxes, names, [1, 1], parents=[[0, 1]])], WEIGHTS)["loss"].backward()
    parent = out.logits.grad[0, :, 1]
    assert parent[5] == 0
    assert parent[10] < 0
    assert (parent[[0, 1, 15]] > 0).all()
    assert out.logits.grad[0, 10, 0] > 0  # the child is not where its parent is


def test_masks_that_are_not_known_cost_nothing():
    """Rows: no masks, one known of two, all known (nothing said)."""
    ones = torch.ones(2, 8, 8).tolist()
    boxes, names = [[8, 8, 16, 16], [16, 16, 24, 24]], [[True, False], [False, True]]
    targets = [target(boxes, names, [1, 1]), target(boxes, names, [1, 1], masks=ones, mask_is_known=[False, True]),
               target(boxes, names, [1, 1], masks=ones)]  # fmt: skip
    learned = extras(rows=3, masks=((0, 0), (1, 0), (1, 1), (2, 0), (2, 1)))
    grounding_loss(output(rows=3, **learned), targets, {**WEIGHTS, "masks": 1.0})["loss"].backward()
    assert learned["mask_logits"].grad.flatten(1).any(dim=1).tolist() == [False, False, True, True, True]


def test_each_mask_is_held_against_its_own_truth():
    masks = torch.zeros(2, 8, 8)
    masks[0, :4], masks[1, 4:] = 1, 1
    boxes, names = [[8, 8, 16, 16], [16, 16, 24, 24]], [[True, False], [False, True]]
    targets = [target([], [], [0, 0]), target(boxes, names, [1, 1], masks=masks.tolist(), mask_is_known=[True, True])]
    learned = extras(rows=2, masks=((1, 1), (1, 0)))
    learned["mask_logits"] = (masks.flip(0) * 40 - 20).requires_grad_()
    losses = grounding_loss(output(rows=2, **learned), targets, {**WEIGHTS, "masks": 1.0})
    assert torch.isclose(losses["masks"], torch.tensor(0.0), atol=1e-5)


def test_half_precision_in_is_single_precision_inside():
    exact = output(logit=1.0, **extras(assigned=(5, 6)))
    rounded = output(logit=1.0, **extras(assigned=(5, 6)))
    for part in (exact, rounded), (exact.learned, rounded.learned):
        for name, value in vars(part[0]).items():
            if isinstance(value, torch.Tensor) and value.requires_grad:
                setattr(part[1], name, value.detach().bfloat16())
                setattr(part[0], name, value.detach().bfloat16().float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = grounding_loss(rounded, [rich()], EVERY)
    single = grounding_loss(exact, [rich()], EVERY)
    for name, value in single.items():
        assert half[name].dtype == torch.float32, name
        assert torch.isclose(half[name], value, rtol=1e-5, atol=1e-7), name


def test_a_wrong_weight_is_an_error():
    with pytest.raises(ModelError, match="hierachy"):
        grounding_loss(output(), [rich()], {**WEIGHTS, "hierachy": 1.0})
    with pytest.raises(ModelError, match="'box'"):
        grounding_loss(output(), [rich()], {name: value for name, value in WEIGHTS.items() if name != "box"})
