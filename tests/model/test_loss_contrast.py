import math
import subprocess
import sys
from datetime import timedelta

import torch

from medglip.model.losses import Target
from medglip.model.losses.contrast import contrast_loss, gathered, same_of

ONE = torch.tensor(1.0)


def target(names, presence, concepts=None, parents=None):
    names = torch.tensor(names, dtype=torch.bool).reshape(-1, len(presence))
    return Target(
        torch.zeros(len(names), 4), names, torch.zeros(0, 4), torch.zeros(0, len(presence), dtype=torch.bool),
        torch.tensor(presence, dtype=torch.float32), None if concepts is None else torch.tensor(concepts),
        None if parents is None else torch.tensor(parents),
    )  # fmt: skip


def all_boxes(targets):
    return torch.tensor([(row, box) for row, target in enumerate(targets) for box in range(len(target.boxes))]).reshape(-1, 2)


def table(targets):
    """Rows of "+" (same), "-" (not same), "." (left out)."""
    same, is_negative = same_of(targets, all_boxes(targets))
    assert not (same & is_negative).any()
    signs = [
        ["+" if s else "-" if n else "." for s, n in zip(*row, strict=True)] for row in zip(same, is_negative, strict=True)
    ]
    return ["".join(row) for row in signs]


def test_loss_by_hand():
    """Cosines 1 and 0 of two regions and two phrases, scale ln 3: each row is 3/4 against 1/4."""
    vectors = torch.eye(2)
    loss = contrast_loss(vectors, vectors, torch.eye(2).bool(), ~torch.eye(2).bool(), torch.tensor(math.log(3)))
    assert torch.isclose(loss, torch.tensor(-math.log(3 / 4)))


def test_two_positives_share_the_target_and_unknown_pairs_are_in_no_denominator():
    """One region; phrases of logits 1, 1, 0 (both, both, negative) and a fourth left out.

    Region to phrases: ln(e + e + 1) - 1. Phrases to regions: two phrases with one candidate each: 0.
    """
    phrases = torch.tensor([[1.0, 0], [1, 0], [0, 1], [1, 0]])
    same, is_negative = torch.tensor([[True, True, False, False]]), torch.tensor([[False, False, True, False]])
    loss = contrast_loss(torch.tensor([[1.0, 0]]), phrases, same, is_negative, ONE)
    assert torch.isclose(loss, torch.tensor((math.log(2 * math.e + 1) - 1) / 2))


def test_left_out_pairs_get_no_gradient():
    phrases = torch.nn.functional.normalize(torch.randn(3, 4), dim=1).requires_grad_()
    same, is_negative = torch.tensor([[True, False, False]]), torch.tensor([[False, True, False]])
    contrast_loss(torch.nn.functional.normalize(torch.randn(1, 4), dim=1), phrases, same, is_negative, ONE).backward()
    assert phrases.grad.any(dim=1).tolist() == [True, True, False]


def test_nothing_to_find_costs_nothing_and_keeps_the_graph():
    for regions, phrases in ((0, 3), (3, 0), (0, 0), (2, 3)):
        vectors = [torch.ones(count, 4, requires_grad=True) for count in (regions, phrases)]
        scale = torch.tensor(2.0, requires_grad=True)
        none = torch.zeros(regions, phrases, dtype=torch.bool)
        for is_negative in (none, ~none):
            loss = contrast_loss(*vectors, none, is_negative, scale)
            loss.backward()
            assert loss == 0
            assert all((value.grad == 0).all() for value in (*vectors, scale))


def test_own_image():
    """Named; not named although known (there or absent); not known."""
    assert table([target([[True, False, False, False], [False, True, False, False]], [1, 1, 0, -1])]) == ["+--.", "-+-."]


def test_own_image_ancestors_are_no_negatives():
    """Phrase 1 is the parent of phrase 0; said to be absent it is lifted, and nobody said where it is."""
    assert table([target([[True, False, False], [False, False, True]], [1, 1, 1], parents=[[0, 1]])]) == ["+.-", "--+"]
    assert table([target([[True, False, False], [False, False, True]], [1, 0, 1], parents=[[0, 1]])]) == ["+.-", "-.+"]


def test_equal_labels_of_other_images_are_positives_and_free_text_is_left_out():
    """Concepts 7, 8 | 8, 7, none: across images 7 = 7, 8 = 8, whatever is there in the other image."""
    first = target([[True, False], [False, True]], [1, 1], [7, 8])
    second = target([[True, False, False]], [1, 0, 0], [8, 7, -1])
    padded = target([[True, False, False], [False, True, False]], [1, 1, -1], [7, 8, -1])
    assert first.names.shape[1] == 2
    assert table([padded, second]) == ["+-." + "-+.", "-+." + "+-.", "-+." + "+--"]


def test_a_region_named_by_free_text_alone_meets_only_its_own_image():
    assert table([target([[True]], [1], [-1]), target([[True]], [1], [5])]) == ["+.", ".+"]
    assert table([target([[True]], [1]), target([[True]], [1])]) == ["+.", ".+"]  # no concepts given


def test_concepts_of_which_one_covers_the_other_are_left_out():
    """Image 0 tells that 5 is under 6 and 6 under 4 (phrases 0 < 1 < 2); image 1 asks for 6, 4, 9 and shows 6."""
    first = target([[True, False, False]], [1, 1, 1], [5, 6, 4], [[0, 1], [1, 2]])
    second = target([[True, False, False]], [1, 1, 1], [6, 4, 9])
    assert table([first, second]) == ["+.." + "..-", ".+." + "+--"]


def test_box_number_0_counts():
    """The pitfall of code that takes number 0 for "no box"."""
    targets = [target([[True, False], [False, True]], [1, 1])] * 2
    same, is_negative = same_of(targets, torch.tensor([[0, 0], [1, 0], [1, 1]]))
    assert same.tolist() == [[True, False, False, False], [False, False, True, False], [False, False, False, True]]
    regions = torch.nn.functional.normalize(torch.randn(3, 4), dim=1).requires_grad_()
    contrast_loss(regions, torch.nn.functional.normalize(torch.randn(4, 4), dim=1), same, is_negative, ONE).backward()
    assert regions.grad.any(dim=1).all()


def test_descent_brings_regions_to_their_phrases():
    targets = [target([[True, False], [False, True]], [1, 1], [1, 2]), target([[True, False]], [1, 0], [2, 1])]
    same, is_negative = same_of(targets, all_boxes(targets))
    torch.manual_seed(0)
    vectors = [torch.randn(3, 8, requires_grad=True), torch.randn(4, 8, requires_grad=True)]
    unit = torch.nn.functional.normalize
    for _ in range(100):
        loss = contrast_loss(*(unit(x, dim=1) for x in vectors), same, is_negative, torch.tensor(10.0))
        gradients = torch.autograd.grad(loss, vectors)
        vectors = [(x - gradient).detach().requires_grad_() for x, gradient in zip(vectors, gradients, strict=True)]
    cosines = unit(vectors[0].detach(), dim=1) @ unit(vectors[1].detach(), dim=1).T
    assert cosines[same].min() > cosines[is_negative].max() + 0.5


def test_one_process_gathers_itself():
    values = torch.randn(3, 2)
    assert gathered(values) is values


def batch():
    """Two images of different numbers of regions and phrases, with vectors to learn."""
    torch.manual_seed(3)
    first = target([[True, False, False], [False, True, False]], [1, 1, 0], [7, 8, 9], [[1, 2]])
    second = target([[True, False]], [1, 1], [8, 7])
    regions = [torch.randn(2, 4), torch.randn(1, 4)]
    phrases = [torch.randn(1, 3, 4), torch.randn(1, 2, 4)]
    return [first, second], regions, phrases


def half(rank, store):
    """What process ``rank`` of two computes of its own image: the loss and its vectors' gradients."""
    torch.set_num_threads(1)
    targets, regions, phrases = batch()
    region, phrase = regions[rank].requires_grad_(), phrases[rank].requires_grad_()
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    try:
        same, is_negative = same_of([targets[rank]], all_boxes([targets[rank]]))
        loss = contrast_loss(gathered(region), gathered(phrase).flatten(0, 1), same, is_negative, torch.tensor(0.7))
        loss.backward()
        torch.distributed.barrier()
    finally:
        torch.distributed.destroy_process_group()
    return loss.detach(), region.grad, phrase.grad


def test_two_processes_learn_what_one_learns_of_both_images(tmp_path):
    """Gradients are twice as large in each process, for DDP takes their mean."""
    code = (
        "import importlib.util, sys, torch\n"
        f"spec = importlib.util.spec_from_file_location('contrast_of_two', {__file__!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        f"torch.save(module.half(1, {str(tmp_path / 'store')!r}), {str(tmp_path / 'answer.pt')!r})\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code])
    mine = half(0, tmp_path / "store")
    assert other.wait(timeout=60) == 0
    theirs = torch.load(tmp_path / "answer.pt")

    targets, regions, phrases = batch()
    padded = target([[True, False, False]], [1, 1, -1], [8, 7, -1])  # what gathering makes of the second
    vectors = [torch.cat(regions).requires_grad_(), torch.cat([phrases[0], torch.nn.functional.pad(phrases[1], (0, 0, 0, 1))])]
    vectors[1].requires_grad_()
    whole = [targets[0], padded]
    same, is_negative = same_of(whole, all_boxes(whole))
    loss = contrast_loss(vectors[0], vectors[1].flatten(0, 1), same, is_negative, torch.tensor(0.7))
    loss.backward()
    assert loss > 0.1
    assert torch.isclose(mine[0], loss)
    assert torch.isclose(theirs[0], loss)
    assert torch.allclose(torch.cat([mine[1], theirs[1]]), 2 * vectors[0].grad, atol=1e-6)
    assert torch.allclose(mine[2][0], 2 * vectors[1].grad[0], atol=1e-6)
    assert torch.allclose(theirs[2][0], 2 * vectors[1].grad[1, :2], atol=1e-6)
