"""When what is learned: the order of batches, how far a run is, the learning rate. Knows no model."""

import math
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset, Sampler

from medglip.train.samples import Question, Samples


class _Questions(Dataset[Question]):
    """Questions by (image, epoch)."""

    def __init__(self, samples: Samples, with_image: bool) -> None:
        self.samples, self.with_image = samples, with_image

    def __getitem__(self, place: tuple[int, int]) -> Question:
        return self.samples.question(*place, with_image=self.with_image)


class _Order(Sampler[list[tuple[int, int]]]):
    """Batches of (image, epoch) from step ``first`` on, without end; every process takes its own part of each."""

    def __init__(self, samples: Samples, batch: int, first: int, rank: int, world: int) -> None:
        self.samples, self.batch, self.first, self.rank, self.world = samples, batch, first, rank, world

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        step, epoch, waiting = 0, 0, []
        whole = self.batch * self.world
        while True:
            waiting += [(int(number), epoch) for number in self.samples.order(epoch)]
            epoch += 1
            while len(waiting) >= whole:
                now, waiting = waiting[:whole], waiting[whole:]
                if step >= self.first:
                    yield now[self.rank :: self.world]
                step += 1


def batches(samples: Samples, plan: dict[str, Any], first: int, rank: int, world: int) -> DataLoader[list[Question]]:
    """Lists of questions, one a step, from step ``first`` on.

    Args:
        samples: The images.
        plan: The ``train`` section: ``batch`` (a process), ``workers``, ``views``.
        first: Steps already done.
        rank: Number of this process.
        world: Number of processes.
    """
    order = _Order(samples, plan["batch"], first, rank, world)
    # With kept features the pixels are read only when a view is new, so they are not sent along.
    questions = _Questions(samples, with_image=plan["views"] == 0)
    return DataLoader(questions, batch_sampler=order, num_workers=plan["workers"], collate_fn=list)  # type: ignore[arg-type]


def progress(plan: dict[str, Any], steps: int, seconds: float) -> float:
    """How far a run is, 0 to 1: by ``steps`` or by ``minutes``, whichever ends it first (0 is no limit)."""
    by_steps = steps / plan["steps"] if plan["steps"] else 0.0
    by_minutes = seconds / (60 * plan["minutes"]) if plan["minutes"] else 0.0
    return min(1.0, max(by_steps, by_minutes))


def learning_rate(done: float, warmup: float) -> float:
    """Part of the peak rate, 0 to 1, at progress ``done``: linear up to ``warmup``, a cosine down to 1 % after it."""
    if done < warmup:
        return (done + 1e-3) / (warmup + 1e-3)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))
