"""Strata: sizes, random guessing, what was seen in training."""

import numpy as np
import pytest
from asked import HEART, LUNG, NODULE, boxes_of, case_of, random_cases

from medglip.evaluate.boxes import box_iou
from medglip.evaluate.strata import by_size, chance_of_overlap, chances, diameter_mm, seen, share_of_image, zero_shot
from medglip.evaluate.tally import Tally
from medglip.model.checkpoints import CheckpointInfo
from medglip.records import label_tree, rle_of_mask


def drawn(rng, truth, guess_wh, size_wh, count=40_000):
    """The same chance by throwing boxes."""
    corner = rng.random((count, 2)) * np.maximum(size_wh - guess_wh, 0)
    return (box_iou(np.hstack([corner, corner + guess_wh]), truth[None])[:, 0] >= 0.5).mean()


@pytest.mark.parametrize("seed", range(8))
def test_the_chance_of_a_random_box_is_what_throwing_boxes_gives(seed):
    rng = np.random.default_rng(seed)
    size = rng.uniform(40, 90, 2)
    truth = boxes_of(rng, 1, 40.0)[0] if seed % 2 else np.array([2.0, 3, *(size - rng.uniform(1, 20, 2))])
    guess = np.minimum((truth[2:] - truth[:2]) * rng.uniform(0.7, 1.4, 2), size)
    ours = chance_of_overlap(truth[None], guess[None], size[None])[0]
    assert abs(ours - drawn(rng, truth, guess, size)) < 4 * np.sqrt(max(ours * (1 - ours), 1e-4) / 40_000) + 1e-3


def test_a_guess_as_large_as_the_image_has_one_place():
    size = np.array([[10.0, 20]])
    assert chance_of_overlap(np.array([[0.0, 0, 10, 20]]), size, size).tolist() == [1.0]
    assert chance_of_overlap(np.array([[0.0, 0, 5, 10]]), size, size).tolist() == [0.0]
    half = np.array([[10.0, 10]])  # as wide as the image; down, the first third of its places is near enough
    assert chance_of_overlap(np.array([[0.0, 0, 10, 10]]), half, size) == pytest.approx([1 / 3])


def test_guesses_are_of_the_labels_mean_size_and_need_something_there():
    rng = np.random.default_rng(0)
    near, far = np.float32([[0, 0, 20, 20]]), np.float32([[100, 100, 140, 140]])
    cases = [case_of(rng, "1", truth=near), case_of(rng, "2", truth=far), case_of(rng, "3", truth=near[:0]),
             case_of(rng, "4", truth=near, source="other")]  # fmt: skip
    found = chances(cases)
    guess, size = np.array([[30.0, 30]]), np.array([[200.0, 200]])
    assert found[:2] == pytest.approx([chance_of_overlap(true, guess, size)[0] for true in (near, far)])
    assert np.isnan(found[2])
    assert found[3] == pytest.approx(chance_of_overlap(near, np.array([[20.0, 20]]), size)[0])
    both = chances([case_of(rng, "1", truth=np.concatenate([near, near + 100]))])
    one = chance_of_overlap(np.concatenate([near, near + 100]), np.full((2, 2), 20.0), np.full((2, 2), 200.0))
    assert both == pytest.approx([one.sum()])
    assert np.isnan(chances(cases[2:3])).all()


def test_sizes_of_regions():
    rng = np.random.default_rng(0)
    box = np.float32([[10, 10, 30, 20]])
    mask = np.zeros((200, 200))
    mask[10:20, 10:20] = 1
    boxed = case_of(rng, truth=box, spacing_xy_mm=(0.5, 2.0))
    masked = case_of(rng, truth=box, spacing_xy_mm=(0.5, 2.0), true_masks=(rle_of_mask(mask),))
    assert diameter_mm(boxed) == pytest.approx(np.sqrt(20 * 0.5 * 10 * 2))
    assert diameter_mm(masked) == pytest.approx(2 * np.sqrt(100 / np.pi))
    assert share_of_image(boxed) == pytest.approx(0.5)
    assert np.isnan(diameter_mm(case_of(rng, truth=box)))
    assert np.isnan([diameter_mm(case_of(rng, truth=box[:0])), share_of_image(case_of(rng, truth=box[:0]))]).all()


def test_strata_part_the_phrases_that_are_there():
    rng = np.random.default_rng(0)
    truth = {side: np.float32([[10, 10, 10 + side, 10 + side]]) for side in (3, 5, 60)}
    right = case_of(rng, "1", truth=truth[3], boxes=truth[3], scores=np.float32([0.9]), spacing_xy_mm=(1.0, 1.0))
    wrong = case_of(rng, "2", truth=truth[5], boxes=truth[60], scores=np.float32([0.9]), spacing_xy_mm=(1.0, 1.0))
    unknown = case_of(rng, "3", truth=truth[60])
    cases = [right, wrong, unknown, case_of(rng, "4", truth=truth[3][:0])]
    chance = chances(cases)
    found = by_size(Tally(cases), chance)
    assert {name: one["phrases"] for name, one in found["mm"].items()} == {"<5": 1, "5-10": 1, "unknown": 1}
    assert {name: one["phrases"] for name, one in found["share"].items()} == {"<0.1": 2, "5-20": 1}
    assert (found["mm"]["<5"]["acc50"], found["mm"]["5-10"]["acc50"], found["share"]["<0.1"]["acc50"]) == (1.0, 0.0, 0.5)
    assert found["share"]["<0.1"]["random"] == pytest.approx(chance[:2].mean())


def test_a_wider_concept_is_seen_and_a_narrower_one_is_not():
    tree = label_tree()
    assert seen(LUNG, [f"{LUNG}@left"], tree)
    assert seen(f"{LUNG}@left", [f"{LUNG}@left"], tree)
    assert not seen(f"{LUNG}@left", [LUNG], tree)
    assert not seen(HEART, [LUNG, "no.label.of.this.tree"], tree)
    assert not seen(HEART, [], tree)


def test_zero_shot_figures_are_of_what_was_not_trained():
    cases = random_cases(0)
    tally = Tally(cases)
    info = CheckpointInfo({}, concepts=(LUNG, NODULE), modalities=("ct", "xray"), trained={"sources": ["films"]})
    found = zero_shot(tally, info, label_tree())
    unseen = [case for case in cases if case.concept == HEART]
    assert found["labels"]["unseen"] == pytest.approx(Tally(unseen).figures() | {"questions": len(unseen)})
    assert found["labels"]["seen"]["questions"] == len(cases) - len(unseen)
    assert list(found["modalities"]) == ["seen"]
    assert found["sources"]["unseen"]["questions"] == sum(case.source == "scans" for case in cases)
    assert "sources" not in zero_shot(tally, CheckpointInfo({}), label_tree())
