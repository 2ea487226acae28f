"""A run on its way: what it carries along, when it is judged, what it writes. Knows no loss and no data."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from medglip.model.checkpoints import CheckpointInfo, save_checkpoint
from medglip.model.dense import MedGLIP
from medglip.train.failures import check_finite, saving
from medglip.train.folder import Log
from medglip.train.samples import Samples
from medglip.train.state import Average, Counters, State, load_state, random_state, save_state, set_random_state

Validate = Callable[[MedGLIP, CheckpointInfo], dict[str, Any]]
_KEPT = ("score_threshold", "presence_threshold", "thresholds")  # of a validation, in the checkpoint


@dataclass
class Run:
    """What a run carries along, and what it writes.

    Attributes:
        fabric: Device, precision and processes.
        net: The model as the processes share it.
        model: The model itself.
        optimizer: Of its parameters.
        average: Of its parameters.
        info: What its checkpoints say of themselves.
        out: Its folder.
        validate: Who judges it, or None.
        log: Where its figures go; None on all processes but the first.
        counters: Where it stands.
        note: What the bar says.
    """

    fabric: Fabric
    net: Any
    model: MedGLIP
    optimizer: Any
    average: Average
    info: CheckpointInfo
    out: Path
    validate: Validate | None
    log: Log | None = None
    counters: Counters = field(default_factory=Counters)
    note: str = ""
    _speed: tuple[float, float] = (0.0, 0.0)
    _saved: int = -1

    def load(self, samples: Samples) -> None:
        """Go on from the folder's state.

        Raises:
            ModelError: there is none that can be read, or it is of another model.
        """
        state, note = load_state(self._state_path("state"), self.average, self.optimizer)
        if note:
            self.fabric.print(note)
        self.counters = state.counters
        samples.restore(state.samples)
        if state.precision:
            self.fabric.strategy.precision.load_state_dict(state.precision)
        if self.fabric.global_rank < len(state.random):  # on more processes than before, the new ones keep their own
            set_random_state(state.random[self.fabric.global_rank], self.fabric.device)

    def agree(self, signal: int) -> int:
        """The signal that came to any process; and the time of the slowest one is the time of all, as rates depend on it."""
        if self.fabric.world_size == 1:
            return signal
        told = torch.tensor([self.counters.seconds, float(signal)], dtype=torch.float64, device=self.fabric.device)
        seconds, signal = self.fabric.all_reduce(told, reduce_op="max").tolist()  # type: ignore[union-attr]
        self.counters.seconds = seconds
        return int(signal)

    def check(self, terms: Mapping[str, float], norm: float, images: Sequence[Mapping[str, Any]], samples: Samples) -> None:
        """Nothing where losses and gradients are finite; else the state before the step is saved and the batch is named.

        With float16 a gradient may overflow: the precision then leaves the step out and lowers its scale.

        Raises:
            ModelError: they are not.
        """
        norm = 0.0 if str(self.info.config["train"]["precision"]).startswith("16-") else norm
        if math.isfinite(norm) and all(map(math.isfinite, terms.values())):
            return
        with saving(self.out):
            self._save_state("failed", samples)
        every = [image for part in self._of_all(list(images)) for image in part]
        check_finite(terms, norm, self.counters.step + 1, every, self.out)

    def tell(self, terms: Mapping[str, float], more: Mapping[str, float], images: int) -> None:
        """One line a step in the log, and the bar's note.

        Args:
            terms: Losses.
            more: ``lr``, ``norm``, ``waiting`` (seconds for data) and ``took`` (seconds for the rest).
            images: Of the step, on all processes.
        """
        took = more["took"] + more["waiting"]
        speed, share = images / took, more["waiting"] / took
        before = self._speed if self._speed[0] else (speed, share)
        self._speed = 0.9 * before[0] + 0.1 * speed, 0.9 * before[1] + 0.1 * share
        self.note = (
            f"step {self.counters.step}  loss {terms['loss']:.2f}  {self._speed[0]:.1f} images/s, "
            f"{100 * self._speed[1]:.0f} % of the time waiting for data"
        )
        self._write({"step": self.counters.step, "seconds": round(self.counters.seconds, 2),
                     **{name: round(value, 5) for name, value in terms.items()},
                     "lr": more["lr"], "norm": round(more["norm"], 4), "images_per_second": round(speed, 2),
                     "waiting": round(more["waiting"], 4)})  # fmt: skip

    def judge_if_due(self, done: float, times: int, samples: Samples) -> bool:
        """Validate the averaged model ``times`` times a run, the last time at its end; keep the best.

        The first process judges, the others wait for what it finds.

        Returns:
            Whether the samples are drawn by other weights from now on.
        """
        if self.validate is None or not times or int(done * times + 1e-9) <= self.counters.judged:
            return False
        self.counters.judged = int(done * times + 1e-9)
        found = self._judged()
        self.info = replace(self.info, **{name: found[name] for name in _KEPT if name in found})
        errors = found.pop("errors", None)
        self._write({"step": self.counters.step, **{f"val_{name}": value for name, value in found.items()}})
        is_best = found["score"] > self.counters.best
        self.counters.best = max(found["score"], self.counters.best)
        self.counters.stale = 0 if is_best else self.counters.stale + 1
        if errors:
            samples.reweigh(self.counters.step, errors)
        if is_best:
            self.write("best")
        self.save(samples)
        return bool(errors)

    def is_stale(self, patience: int) -> bool:
        """Whether the last ``patience`` validations were no better than one before them; 0 never ends a run."""
        return 0 < patience <= self.counters.stale

    def save(self, samples: Samples) -> None:
        """``last/`` and, beside it, the state to resume from; once a step. All processes come here together."""
        if self._saved == self.counters.step:
            return
        self.write("last")
        with saving(self.out):
            self._save_state("state", samples)
        self._saved = self.counters.step

    def write(self, name: str) -> Path:
        """A checkpoint of the averaged weights. All processes come here together.

        Raises:
            ModelError: the disk is full.
        """
        weights = self._averaged()
        if self.fabric.is_global_zero:
            trained = {**self.info.trained, "steps": self.counters.step, "seconds": round(self.counters.seconds, 1)}
            with saving(self.out):
                save_checkpoint(self.out / name, self.model, weights, replace(self.info, trained=trained))
        return self.out / name

    def close(self, samples: Samples) -> Path:
        """Write the last checkpoint; the folder of the best, which is the last where nothing judges."""
        self.save(samples)
        if self.log is not None:
            self.log.close()
        if self.validate is None:
            return self.write("best")
        return self.out / ("best" if (self.out / "best").is_dir() else "last")

    def _judged(self) -> dict[str, Any]:
        """What the first process finds, on all."""
        random = random_state(self.fabric.device)
        self.average.swap()
        self.model.eval()
        found: dict[str, Any] = {}
        with self._whole():
            if self.fabric.is_global_zero and self.validate is not None:
                found = self.validate(self.model, self.info)
        found = self.fabric.broadcast(found)
        self.model.train()
        self.average.swap()
        set_random_state(random, self.fabric.device)
        return found

    def _of_all(self, own: Any) -> list[Any]:
        """What each process has, by rank."""
        every = [own] * self.fabric.world_size
        if self.fabric.world_size > 1:
            torch.distributed.all_gather_object(every, own)
        return every

    def _save_state(self, name: str, samples: Samples) -> None:
        every = self._of_all(random_state(self.fabric.device))
        precision = self.fabric.strategy.precision.state_dict()
        state = State(self.average, self.optimizer, self.counters, every, samples.state(), precision)
        if self.fabric.is_global_zero or self._sharded is not None:
            save_state(self._state_path(name), state)

    def _state_path(self, name: str) -> Path:
        """Of the state; sharded, each process has its own."""
        rank = self.fabric.global_rank if self._sharded is not None else 0
        return self.out / (f"{name}.rank{rank}.pt" if rank else f"{name}.pt")

    @property
    def _sharded(self) -> Any:
        """The module whose parameters FSDP shares out, or None."""
        if self.info.config["train"].get("strategy") != "fsdp":
            return None
        from torch.distributed.fsdp import FullyShardedDataParallel

        return FullyShardedDataParallel.fsdp_modules(self.net)[0]

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Each process has all parameters inside, to read."""
        if (module := self._sharded) is None:
            yield
            return
        with type(module).summon_full_params(module, writeback=False):
            yield

    def _averaged(self) -> dict[str, Tensor]:
        """All weights, averaged where they learn; on the first process."""
        if (module := self._sharded) is None:
            return {**self.model.state_dict(), **self.average.kept}
        from torch.distributed.fsdp import FullStateDictConfig, StateDictType

        self.average.swap()
        with type(module).state_dict_type(module, StateDictType.FULL_STATE_DICT, FullStateDictConfig(True, True)):
            weights = module.state_dict()
        self.average.swap()
        return weights

    def _write(self, line: Mapping[str, Any]) -> None:
        if self.log is not None:
            with saving(self.out):
                self.log.write(line)
