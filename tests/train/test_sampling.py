"""Which image comes when: by hand where numbers can be worked out, else the property that is promised."""

import json
from itertools import islice

import numpy as np
import pytest
from scenes import KIDNEY, LIVER, SPLEEN, TREE, Scenes

from medglip.errors import ModelError
from medglip.model import load_config
from medglip.store.matrix import Matrix
from medglip.train.asking import Known
from medglip.train.samples import Samples
from medglip.train.sampling import Balance, Visits, error_shares, few_shot, labels_of, shares
from medglip.train.vocabulary import Vocabulary

MATRIX = Matrix({})
LEFT = f"{KIDNEY}@left"


def known(source="a", modality="ct", concepts=(LIVER,)):
    none = tuple(() for _ in concepts)
    return Known(source, modality, MATRIX, np.zeros((len(concepts), 4), np.float32), tuple(concepts), none, (), ())


def words_of(images):
    return Vocabulary(TREE, {concept: {"ct"} for one in images for concept in one.concepts})


def visits(images, replayed=0, seed=0, **keys):
    return Visits(images, Balance(**keys), words_of(images), seed, replayed)


def test_shares_by_hand():
    images = [known(), known("a", "ct", (LIVER, LEFT)), known("a", "mr", ()), known("b", "ct")]
    alike = {"balance_source": 0.0, "balance_modality": 0.0, "balance_label": 0.0}
    assert shares(images, Balance(**alike)).tolist() == [0.25] * 4
    # three images of a, one of b
    assert np.allclose(shares(images, Balance(balance_source=1.0)), [1 / 6, 1 / 6, 1 / 6, 1 / 2])
    # three images of CT, one of MR
    assert np.allclose(shares(images, Balance(**alike | {"balance_modality": 1.0})), [1 / 6, 1 / 6, 1 / 2, 1 / 6])
    # the liver in three, the kidney in one, and one without anything; the rarest label of an image counts
    assert np.allclose(shares(images, Balance(**alike | {"balance_label": 1.0})), [1 / 8, 3 / 8, 3 / 8, 1 / 8])
    # powers multiply: 3^-.5 * 3^-1 * 3^-.5, 3^-.5 * 3^-1, 3^-.5, 3^-1 * 3^-.5
    all_three = np.array([1 / 9, 3**-1.5, 3**-0.5, 3**-1.5])
    found = shares(images, Balance(balance_source=0.5, balance_modality=1.0, balance_label=0.5))
    assert np.allclose(found, all_three / all_three.sum())


def test_an_epoch_visits_each_image_as_its_share_says():
    images = [known("large") for _ in range(90)] + [known("small") for _ in range(10)]
    made = visits(images, balance_source=1.0)
    counts = np.mean([np.bincount(made.order(epoch), minlength=100) for epoch in range(60)], axis=0)
    assert abs(counts[90:].mean() - 5.0) < 0.1  # half of 100 visits over ten images
    assert abs(counts[:90].mean() - 50 / 90) < 0.03
    assert made.order(3).tolist() == visits(images, balance_source=1.0).order(3).tolist()
    assert made.order(3).tolist() != visits(images, balance_source=1.0, seed=1).order(3).tolist()


@pytest.mark.parametrize("shots", [1, 3, 10])
def test_few_shots_show_each_label_often_enough(shots):
    rng = np.random.default_rng(shots)
    pool = [label.id for label in TREE if label.level == "organ"][:30]
    # label i is in about 2 / (i + 1) of the images
    images = [known(concepts=[label for i, label in enumerate(pool) if rng.random() < 2 / (i + 2)]) for _ in range(80)]
    kept = few_shot(images, shots, seed=5)
    assert kept.tolist() == sorted(set(kept.tolist()))
    for label in pool:
        there = [number for number, one in enumerate(images) if label in labels_of(one)]
        assert len(set(there) & set(kept.tolist())) >= min(shots, len(there)), label
    assert len(kept) < len(images)
    assert kept.tolist() == few_shot(images, shots, seed=5).tolist()
    # each image was needed when it was taken: no more than all that was asked for
    asked = sum(min(shots, sum(label in labels_of(one) for one in images)) for label in pool)
    assert len(kept) <= asked


def test_few_shots_take_the_image_that_shows_most():
    images = [known(concepts=[LIVER]), known(concepts=[LEFT]), known(concepts=[LIVER, LEFT, SPLEEN]), known(concepts=[])]
    for seed in range(5):
        assert few_shot(images, 1, seed).tolist() == [2]
        assert few_shot(images, 2, seed).tolist() == [0, 1, 2]


def test_another_seed_keeps_other_images():
    images = [known() for _ in range(50)]
    kept = {tuple(few_shot(images, 4, seed).tolist()) for seed in range(6)}
    assert len(kept) == 6
    assert all(len(one) == 4 for one in kept)


@pytest.mark.parametrize(("replay", "count"), [(0.25, 200), (0.5, 30), (0.9, 7)])
def test_replay_has_its_share_of_each_epoch(replay, count):
    images = [known(f"{number % 2}") for number in range(100)] + [known("before") for _ in range(count)]
    made = visits(images, replayed=count, replay=replay)
    for epoch in range(5):
        order = made.order(epoch)
        again = (order >= 100).sum()
        assert abs(again - replay * len(order)) <= 0.5 + 1e-9
        assert abs(len(order) - 100) <= 12 / (1 - replay)  # own visits are rounded at random, one by one
        often = np.bincount(order[order >= 100] - 100, minlength=count)
        assert often.max() - often.min() <= 1  # of one source, all alike


def test_replay_alone():
    made = visits([known() for _ in range(10)] + [known("before") for _ in range(4)], replayed=4, replay=1.0)
    assert sorted(np.bincount(made.order(0), minlength=14)[10:].tolist()) == [2, 2, 3, 3]
    assert made.order(0).min() >= 10


def test_shares_by_error_by_hand():
    images = [known("s"), known("s"), known("s", concepts=[LEFT]), known("t")]
    words, base = words_of(images), np.full(4, 0.25)
    # Means are 0.4 and 0.8, so s has a third; in it the liver has a quarter, of two images.
    errors = {"s": {LIVER: 0.2, KIDNEY: 0.6, SPLEEN: 1.0}, "t": {LIVER: 0.8}, "elsewhere": {LIVER: 1.0}}
    assert np.allclose(error_shares(images, errors, base, words), [1 / 24, 1 / 24, 1 / 4, 2 / 3])
    # Nothing is told of t: it has the mean of the others, which is that of s.
    assert np.allclose(error_shares(images, {"s": errors["s"]}, base, words), [1 / 16, 1 / 16, 3 / 8, 1 / 2])
    # Without an error in t, all goes to s; without any, nothing changes.
    assert np.allclose(error_shares(images, errors | {"t": {LIVER: 0.0}}, base, words), [1 / 8, 1 / 8, 3 / 4, 0])
    assert np.allclose(error_shares(images, {"s": {LIVER: 0.0}}, base, words), base)
    assert np.allclose(error_shares(images, {}, base, words), base)
    # Inside a concept, images keep their shares of the base.
    uneven = np.array([0.1, 0.3, 0.3, 0.3])
    assert np.allclose(error_shares(images, {"s": {LIVER: 1.0}, "t": {LIVER: 1.0}}, uneven, words), [1 / 8, 3 / 8, 0, 1 / 2])


def test_errors_are_mixed_with_the_base_from_their_step_on():
    images = [known("s"), known("s"), known("s", concepts=[LEFT]), known("t")]
    made = visits(images, balance_source=0.0, error_aware=0.5)
    made.reweigh(10, {"s": {LIVER: 0.2, KIDNEY: 0.6}, "t": {LIVER: 0.8}})
    assert made.shares(9).tolist() == [0.25] * 4
    mixed = (np.array([1 / 24, 1 / 24, 1 / 4, 2 / 3]) + 0.25) / 2
    assert np.allclose(made.shares(10), mixed)
    made.reweigh(20, {"s": {LIVER: 1.0}, "t": {LIVER: 0.0}})
    assert np.allclose(made.shares(19), mixed)
    assert np.allclose(made.shares(20), [3 / 8, 3 / 8, 1 / 8, 1 / 8])


def steps_of(made, size, first, count):
    return list(islice(made.batches(size, first), count))


def test_errors_count_from_their_step_on_and_a_resumed_run_sees_the_same():
    images = [known("s") for _ in range(20)] + [known("s", concepts=[LEFT]) for _ in range(20)]
    made, before = (visits(images, error_aware=1.0) for _ in range(2))
    made.reweigh(7, {"s": {LIVER: 0.0, LEFT: 1.0}})
    after = steps_of(made, 4, 7, 20)
    assert steps_of(made, 4, 0, 7) == steps_of(before, 4, 0, 7)  # what is past stays
    assert min(number for batch in after for number, _ in batch) >= 20  # in the middle of an epoch
    epochs = {epoch for batch in steps_of(made, 4, 0, 7) for _, epoch in batch}
    assert epochs.isdisjoint(epoch for batch in after for _, epoch in batch)

    again = visits(images, error_aware=1.0)
    again.restore(json.loads(json.dumps(made.state())))
    assert steps_of(again, 4, 0, 27) == steps_of(made, 4, 0, 27)
    for one in (made, again):
        one.reweigh(15, {"s": {LIVER: 1.0, LEFT: 0.0}})
    assert steps_of(again, 4, 12, 15) == steps_of(made, 4, 0, 27)[12:]
    assert max(number for batch in steps_of(again, 4, 15, 12) for number, _ in batch) < 20
    again.restore({})
    assert steps_of(again, 4, 0, 20) == steps_of(before, 4, 0, 20)


def test_every_image_is_visited_in_every_epoch_of_batches_that_do_not_divide_it():
    made = visits([known() for _ in range(10)])
    visited = [place for batch in steps_of(made, 4, 0, 15) for place in batch]
    for epoch in range(6):
        assert sorted(number for number, of in visited if of == epoch) == list(range(10))


def test_without_a_share_for_errors_nothing_changes():
    images = [known(), known(concepts=[LEFT])]
    made = visits(images)
    made.reweigh(0, {"a": {LIVER: 1.0, LEFT: 0.0}})
    assert made.state() == {"history": []}
    assert made.shares(5).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(("keys", "said"), [
    ({"balance_source": -0.1}, "train.balance_source"), ({"balance_label": 3}, "train.balance_label"),
    ({"shots": -1}, "train.shots"), ({"shots": 1.5}, "train.shots"), ({"error_aware": 1.2}, "train.error_aware"),
    ({"replay": 2.0}, "train.replay"), ({"replay": 0.2}, "0 images to replay"),
])  # fmt: skip
def test_a_bad_setting_is_refused(keys, said):
    with pytest.raises(ModelError, match=said):
        visits([known()], **keys)


def test_bad_errors_and_an_unasked_replay_are_refused():
    with pytest.raises(ModelError, match="1 images to replay"):
        visits([known(), known()], replayed=1)
    made = visits([known()], error_aware=0.5)
    with pytest.raises(ModelError, match=r"'abdomen.liver' in 'a': found 1.5"):
        made.reweigh(3, {"a": {LIVER: 1.5}})
    with pytest.raises(ModelError, match="found nan"):
        made.reweigh(3, {"a": {LIVER: float("nan")}})
    made.reweigh(3, {"a": {LIVER: 0.5}})
    with pytest.raises(ModelError, match="step 2"):
        made.reweigh(2, {"a": {LIVER: 0.5}})


def test_samples_keep_few_shots_and_say_how_many():
    plan = load_config("tiny")["train"]
    made = Samples([Scenes(40)], "train", TREE, {**plan, "shots": 2}, 128)
    counts = {label: sum(label in labels_of(item.known) for item in made.items) for label in (LIVER, KIDNEY)}
    assert min(counts.values()) >= 2
    assert made.trained == {"images": len(made), "sources": ["scenes"], "shots": 2, "images_before_shots": 40}
    assert len(made) <= 4


def test_samples_replay_what_they_are_given():
    plan = load_config("tiny")["train"] | {"replay": 0.5}
    made = Samples([Scenes(10)], "train", TREE, plan, 128, replay=[Scenes(6, seed=1)])
    order = made.order(0)
    assert (order < 10).sum() == (order >= 10).sum() > 0
    assert made.question(12, 0).phrases
    assert made.trained == {"images": 10, "sources": ["scenes"], "replayed": 6, "replayed_sources": ["scenes"]}
