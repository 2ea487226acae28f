"""The order in which images are visited in training. Knows numbers only."""

import numpy as np

from medglip.errors import InputError


def shuffled(
    positions: np.ndarray, *, seed: int = 0, epoch: int = 0, rank: int = 0, world: int = 1, worker: int = 0, workers: int = 1
) -> np.ndarray:
    """The share of one worker of one rank in a full permutation of images.

    The permutation depends on seed and epoch alone. Ranks take its elements in turn, and the workers of a rank take the
    rank's in turn; so all images are visited once, in the same order, however many read them.

    Args:
        positions: What to visit, int (n,).
        seed: At least 0.
        epoch: At least 0.
        rank: Number of the process, from 0.
        world: Processes.
        worker: Number of the worker in its process, from 0.
        workers: Workers of each process.

    Returns:
        int64 (m,).

    Raises:
        InputError: a number is not allowed.

    >>> shuffled(np.arange(6), seed=1).tolist()
    [0, 2, 5, 1, 3, 4]
    """
    if min(seed, epoch, rank, worker) < 0 or rank >= world or worker >= workers:
        raise InputError(
            f"Shuffled order: found seed {seed}, epoch {epoch}, rank {rank} of {world}, worker {worker} of {workers}; allowed:"
            " numbers from 0, rank below world, worker below workers."
        )
    order = np.random.default_rng([seed, epoch]).permutation(np.asarray(positions, np.int64))
    return order[rank::world][worker::workers]
