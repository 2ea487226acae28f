"""When what is learned: the order of batches, how far a run is, the learning rate. Knows no model."""

import math
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset, Sampler

from medglip.train.samples import Key, Question, Samples


class _Questions(Dataset[Question]):
    """Questions by (image, epoch, canvas)."""

    def __init__(self, samples: Samples, with_image: bool) -> None:
        self.samples, self.with_image = samples, with_image

    def __getitem__(self, place: Key) -> Question:
        number, epoch, canvas = place
        return self.samples.question(number, epoch, self.with_image, canvas)


class _Order(Sampler[list[Key]]):
    """Batches of (image, epoch, canvas) from step ``first`` on, without end.

    A step has ``parts`` batches a process. Its images are the same ones however they are divided into parts and among
    processes: the first batch of all processes takes the first ones.
    """

    def __init__(self, samples: Samples, batch: int, parts: int, first: int, place: tuple[int, int]) -> None:
        self.samples, self.batch, self.parts, self.first = samples, batch, parts, first
        self.rank, self.world = place

    def __iter__(self) -> Iterator[list[Key]]:
        together = self.batch * self.world
        for step in self.samples.batches(together * self.parts, self.first):
            for part in range(self.parts):
                yield step[part * together + self.rank : (part + 1) * together : self.world]


def batches(samples: Samples, plan: dict[str, Any], first: int, rank: int, world: int) -> DataLoader[list[Question]]:
    """Lists of questions from step ``first`` on, ``accumulate`` of them a step.

    Args:
        samples: The images.
        plan: The ``train`` section: ``batch`` (a process), ``accumulate``, ``workers``, ``views``.
        first: Steps already done.
        rank: Number of this process.
        world: Number of processes.
    """
    order = _Order(samples, plan["batch"], plan.get("accumulate", 1), first, (rank, world))
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
