"""Which image is visited how often, and when: balance, few shots, replay, errors. Knows no pixels and no model.

Everything is a function of the seed, the epoch and what has been told of errors, so that a resumed run sees the same order.
"""

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medglip.errors import ModelError
from medglip.train.asking import Known
from medglip.train.vocabulary import Vocabulary

Errors = Mapping[str, Mapping[str, float]]  # source -> concept -> 0 (all right) to 1 (all wrong)


@dataclass(frozen=True)
class Balance:
    """How often what is visited: keys of the ``train`` section.

    Attributes:
        balance_source: An image's visits fall with the images of its source to this power; 0.5: a source's share grows
            with the square root of its images, 1: all sources are alike.
        balance_modality: The same with the images of its modality.
        balance_label: The same with the images that show the rarest of its labels.
        shots: Images kept of each label; 0 keeps all.
        error_aware: Share of the visits that follow what was told of errors, 0 to 1.
        replay: Share of the visits that go to the replay datasets, 0 to 1.

    Source: the rarest label of an image decides, as in repeat factor sampling of LVIS (arXiv 1908.03195), section 5.
    """

    balance_source: float = 0.5
    balance_modality: float = 0.0
    balance_label: float = 0.0
    shots: int = 0
    error_aware: float = 0.0
    replay: float = 0.0

    def __post_init__(self) -> None:
        """Check."""
        for name in ("balance_source", "balance_modality", "balance_label"):
            if not 0 <= getattr(self, name) <= 2:
                raise ModelError(f"Configuration train.{name}: found {getattr(self, name)!r}; allowed: a power from 0 to 2.")
        for name in ("error_aware", "replay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ModelError(f"Configuration train.{name}: found {getattr(self, name)!r}; allowed: a share from 0 to 1.")
        if isinstance(self.shots, bool) or not isinstance(self.shots, int) or self.shots < 0:
            raise ModelError(f"Configuration train.shots: found {self.shots!r}; allowed: a number of images, 0 for all.")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Balance":
        """The balance in a ``train`` section; what an older one does not say is taken for granted."""
        return cls(**{name: settings[name] for name in cls.__dataclass_fields__ if name in settings})


def labels_of(known: Known) -> frozenset[str]:
    """The labels that an image's regions show, without sides."""
    return frozenset(concept.partition("@")[0] for concept in known.concepts)


def shares(images: Sequence[Known], balance: Balance) -> np.ndarray:
    """(N,) float64 that sum to 1: each image's share of the visits by the powers of ``balance``.

    Images without any region count as one label more.
    """
    sources, modalities = Counter(one.source for one in images), Counter(one.modality for one in images)
    shown = [labels_of(one) or frozenset([""]) for one in images]
    labels = Counter(label for own in shown for label in own)
    weights = np.array([
        sources[one.source] ** -balance.balance_source
        * modalities[one.modality] ** -balance.balance_modality
        * min(labels[label] for label in own) ** -balance.balance_label
        for one, own in zip(images, shown, strict=True)
    ])  # fmt: skip
    return weights / weights.sum()


def few_shot(images: Sequence[Known], shots: int, seed: int) -> np.ndarray:
    """Numbers of the images kept, ascending: each label is shown by ``shots`` of them, or by all that there are.

    Of a random order the image is kept next that shows most labels of which too few are kept.

    Source: the few-shot rule of GLIP on ODinW (arXiv 2112.03857, section 5.2; ``few_shot`` in its released data loader):
    images in random order are kept while they show a label of which too few are kept. Taking the most useful one first
    keeps fewer of them.
    """
    order = np.random.default_rng((seed, 4)).permutation(len(images))
    shown = [labels_of(one) for one in images]
    missing = {label: min(shots, count) for label, count in Counter(label for own in shown for label in own).items()}
    # What an image adds only falls as others are kept, so that a stale figure is too high at most.
    waiting = [(-len(shown[number]), place, int(number)) for place, number in enumerate(order) if shown[number]]
    heapq.heapify(waiting)
    kept = []
    while waiting:
        told, place, number = heapq.heappop(waiting)
        adds = sum(missing[label] > 0 for label in shown[number])
        if adds == 0:
            continue
        if adds < -told:
            heapq.heappush(waiting, (-adds, place, number))
            continue
        kept.append(number)
        for label in shown[number]:
            missing[label] -= 1
    return np.sort(np.array(kept, np.int64))


def error_shares(images: Sequence[Known], errors: Errors, base: np.ndarray, words: Vocabulary) -> np.ndarray:
    """(N,) float64 that sum to 1: visits by error, first of the source, then of the concept inside the source.

    A source's share is that of its mean error; a source of which nothing is told has the mean of the others. Inside it, a
    concept's share is that of its error, and goes to the images that show it, as ``base`` has it among them. What no
    image of the source shows is left out. Without any error the answer is ``base``.

    Source: CURE (arXiv 2601.15408): error-aware weights of datasets and of classes inside them.
    """
    of_source: dict[str, list[int]] = {}
    for number, one in enumerate(images):
        of_source.setdefault(one.source, []).append(number)
    inside, level = {}, {}
    for source, numbers in of_source.items():
        own = base[numbers]
        told = {words.number[concept]: error for concept, error in errors.get(source, {}).items() if concept in words.number}
        rows = np.fromiter(told, np.int64, len(told))
        shows = np.array([words.covers[np.ix_(rows, words.numbers(images[n].concepts))].any(axis=1) for n in numbers])
        mass = (shows * own[:, None]).sum(axis=0)
        error = np.array(list(told.values()), float)[mass > 0]
        inside[source] = own / own.sum()
        if len(error):
            level[source] = error.mean()
            if error.sum() > 0:
                inside[source] = (shows * own[:, None])[:, mass > 0] @ (error / error.sum() / mass[mass > 0])
    if not sum(level.values()):
        return base
    usual = sum(level.values()) / len(level)
    whole = sum(level.get(source, usual) for source in of_source)
    found = np.zeros(len(images))
    for source, numbers in of_source.items():
        found[numbers] = level.get(source, usual) / whole * inside[source]
    return found


class Visits:
    """The order of visits, epoch by epoch; errors that are told change it from their step on.

    Args:
        images: What is known of all images, those of the replay datasets last.
        balance: How often what.
        words: The concepts.
        seed: Decides the rest.
        replayed: How many of the images, at the end, are replayed.

    Raises:
        ModelError: there is a share for replay but nothing to replay, or the other way round.
    """

    def __init__(self, images: Sequence[Known], balance: Balance, words: Vocabulary, seed: int, replayed: int = 0) -> None:
        if (balance.replay > 0) != (replayed > 0):
            raise ModelError(
                f"Configuration train.replay: found {balance.replay!r} and {replayed} images to replay; give datasets to "
                "replay and a share above 0, or neither."
            )
        self.balance, self.words, self.seed = balance, words, seed
        self.own, again = list(images[: len(images) - replayed]), list(images[len(images) - replayed :])
        self.history: list[tuple[int, dict[str, dict[str, float]]]] = []
        self._base = shares(self.own, balance)
        self._replayed = shares(again, balance) if again else np.empty(0)
        self._by_errors: dict[int, np.ndarray] = {}

    def shares(self, step: int) -> np.ndarray:
        """(N,) float64, of the images that are not replayed: their shares of the visits at a step; they sum to 1."""
        told = sum(begun <= step for begun, _ in self.history)
        if not told:
            return self._base
        if told not in self._by_errors:
            part = self.balance.error_aware
            by_error = error_shares(self.own, self.history[told - 1][1], self._base, self.words)
            self._by_errors[told] = part * by_error + (1 - part) * self._base
        return self._by_errors[told]

    def order(self, epoch: int, step: int = 0) -> np.ndarray:
        """Image numbers of one epoch, shuffled: about as many as there are images that are not replayed.

        What of a share is no whole visit is drawn, so that over many epochs each image has its share.

        Args:
            epoch: Its number.
            step: The step at which it begins; errors told up to it count.
        """
        rng = np.random.default_rng((self.seed, 1, epoch))
        visits = self.shares(step) * len(self.own) * (1 - self.balance.replay)
        repeats = np.floor(visits + rng.random(len(visits))).astype(int)
        numbers = np.repeat(np.arange(len(self.own)), repeats)
        if len(self._replayed):
            share = self.balance.replay
            count = len(self.own) if share == 1 else round(len(numbers) * share / (1 - share))
            numbers = np.concatenate([numbers, len(self.own) + self._again(count, epoch)])
        return rng.permutation(numbers)

    def batches(self, size: int, first: int = 0) -> Iterator[list[tuple[int, int]]]:
        """(image, epoch) of each step from ``first`` on, ``size`` at a time, without end.

        An epoch ends early where errors were told: the next begins with them.
        """
        step, epoch = 0, 0
        waiting: list[tuple[int, int]] = []
        while True:
            waiting += [(int(number), epoch) for number in self.order(epoch, step)]
            change = min((begun for begun, _ in self.history if begun > step), default=None)
            epoch += 1
            begin = 0
            while begin + size <= len(waiting) and step != change:
                if step >= first:
                    yield waiting[begin : begin + size]
                begin, step = begin + size, step + 1
            waiting = [] if step == change else waiting[begin:]

    def reweigh(self, step: int, errors: Errors) -> None:
        """Let errors, 0 to 1 by source and concept, count from a step on; nothing changes where ``error_aware`` is 0.

        Raises:
            ModelError: an error is not in 0 to 1, or errors of a later step were told before.
        """
        told = {source: {concept: float(error) for concept, error in own.items()} for source, own in errors.items()}
        for source, own in told.items():
            for concept, error in own.items():
                if not 0 <= error <= 1:
                    raise ModelError(f"Error of {concept!r} in {source!r}: found {error!r}; allowed: 0 to 1.")
        if self.history and step < self.history[-1][0]:
            raise ModelError(f"Errors at step {step}: found errors of step {self.history[-1][0]} before; tell them in order.")
        if self.balance.error_aware == 0:
            return
        self.history = [one for one in self.history if one[0] < step] + [(int(step), told)]
        self._by_errors.clear()

    def state(self) -> dict[str, Any]:
        """What ``restore`` needs, plain values."""
        return {"history": [[step, errors] for step, errors in self.history]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on as if all errors of a ``state`` had been told here; an empty one forgets them."""
        self.history = []
        self._by_errors.clear()
        for step, errors in state.get("history", ()):
            self.reweigh(step, errors)

    def _again(self, count: int, epoch: int) -> np.ndarray:
        """``count`` numbers of replayed images: each as often as its share says, rounded up or down."""
        rng = np.random.default_rng((self.seed, 9, epoch))
        mixed = rng.permutation(len(self._replayed))
        ends = np.cumsum(self._replayed[mixed]) * count
        places = np.searchsorted(ends, np.arange(count) + rng.random(), side="right")
        return mixed[places.clip(max=len(mixed) - 1)]
