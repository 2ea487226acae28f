import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medglip import store
from medglip.errors import InputError
from medglip.store.sampling import shuffled
from medglip.store.write import write_part


@given(
    count=st.integers(0, 60),
    seed=st.integers(0, 9),
    epoch=st.integers(0, 9),
    world=st.integers(1, 5),
    workers=st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_the_order_is_one_permutation_for_any_number_of_readers(count, seed, epoch, world, workers):
    positions = np.arange(100, 100 + count)
    whole = shuffled(positions, seed=seed, epoch=epoch)
    assert sorted(whole) == list(positions)
    put_together = np.full(count, -1)
    for rank in range(world):
        for worker in range(workers):
            mine = shuffled(positions, seed=seed, epoch=epoch, rank=rank, world=world, worker=worker, workers=workers)
            put_together[rank + world * worker :: world * workers] = mine
    assert np.array_equal(put_together, whole)


def test_epochs_and_seeds_differ():
    orders = {tuple(shuffled(np.arange(50), seed=seed, epoch=epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"rank": 2, "world": 2}, {"worker": 1}, {"epoch": -1}])
def test_numbers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InputError, match="allowed: numbers from 0"):
        shuffled(np.arange(3), **wrong)


def test_a_dataset_is_shuffled_within_a_split(tmp_path, plain_picture):
    split = ["train" if n % 3 else "val" for n in range(12)]
    write_part(tmp_path / "d", "p", [plain_picture(n, split=split[n]) for n in range(12)])
    dataset = store.open(tmp_path / "d")
    order = dataset.shuffled("train", seed=4)
    assert sorted(order) == [n for n in range(12) if n % 3]
    assert [dataset.pixels(n)[0, 0] for n in order] == list(order)
    assert sorted(np.concatenate([dataset.shuffled(rank=rank, world=5) for rank in range(5)])) == list(range(12))
    assert len(dataset.shuffled("test")) == 0
    with pytest.raises(InputError, match="allowed: train"):
        dataset.shuffled("all")
