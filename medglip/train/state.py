"""What a run needs to go on where it stopped: weights, averaged weights, optimiser, counters, chance. Knows no data.

``state.pt`` is written whole beside the old one, flushed to the disk and then renamed, and the one before it stays as
``state.prev.pt``. So a crash, a full disk or a file cut in half costs the steps since the last state, not the run.
With FSDP each process writes its own part: ``state.rank1.pt`` and so on beside that of process 0.
"""

import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medglip.errors import ModelError


class Average:
    """Exponential moving average of the parameters that learn; short memory at first, ``decay`` later."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.live = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.kept = {name: value.detach().clone() for name, value in self.live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the parameters after step ``step`` (from 1)."""
        weight = 1 - min(self.decay, step / (step + 9))
        torch._foreach_lerp_(list(self.kept.values()), [value.detach() for value in self.live.values()], weight)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the model's parameters and the averaged ones; a second call undoes it."""
        for name, value in self.live.items():
            other = self.kept[name].clone()
            self.kept[name].copy_(value)
            value.copy_(other)


@dataclass
class Counters:
    """Where a run stands.

    Attributes:
        step: Steps done.
        images: Images seen.
        seconds: Time spent training, over all resumptions.
        best: Best validation score so far.
        judged: Validations that were due so far.
        stale: Validations since the best one.
    """

    step: int = 0
    images: int = 0
    seconds: float = 0.0
    best: float = -1.0
    judged: int = 0
    stale: int = 0


@dataclass
class State:
    """What a state is made of.

    Attributes:
        average: The parameters that learn and their averages.
        optimizer: Of the run.
        counters: Where it stands.
        random: State of torch's random generators by device (``cpu``, ``cuda``), of each process.
        samples: What the order of the samples depends on (``Samples.state``).
        precision: State of the precision, for float16 the scale of the loss.
    """

    average: Average
    optimizer: Any
    counters: Counters
    random: Sequence[Mapping[str, Tensor]] = ()
    samples: dict[str, Any] = field(default_factory=dict)
    precision: dict[str, Any] = field(default_factory=dict)


def save_state(path: Path, state: State) -> None:
    """Write a state; it appears whole or not at all, and the one before it stays as ``*.prev.pt``.

    Raises:
        OSError: the disk is full, or the file cannot be written; the old state is as it was.
    """
    whole = {
        "learning": {name: value.detach() for name, value in state.average.live.items()},
        "average": state.average.kept,
        "optimizer": state.optimizer.state_dict(),
        "counters": vars(state.counters),
        "random": [dict(one) for one in state.random],
        "samples": state.samples,
        "precision": state.precision,
    }
    new, old = path.with_suffix(".new"), path.with_suffix(".prev.pt")
    with new.open("wb") as file:
        torch.save(whole, file)
        file.flush()
        os.fsync(file.fileno())
    if path.is_file():
        os.replace(path, old)
    os.replace(new, path)


def load_state(path: Path, average: Average, optimizer: Any) -> tuple[State, str]:
    """Put a state back into the model (through its average) and the optimiser.

    Returns:
        The state, and a sentence where the last one is damaged and the one before it was taken; else "".

    Raises:
        ModelError: there is no state that can be read, or it is of another model.
    """
    before = path.with_suffix(".prev.pt")
    if not path.is_file() and not before.is_file():
        raise ModelError(f"Nothing to resume: {path} is not there; train without resume first.")
    note, raw = "", _read(path)
    if isinstance(raw, str):
        earlier = _read(before) if before.is_file() else "there is none"
        if isinstance(earlier, str):
            raise ModelError(
                f"State {path} is damaged: {raw}; the one before it: {earlier}. Begin anew with --fresh, from the "
                f"weights in {path.parent / 'best'} or {path.parent / 'last'} with --from if they are whole."
            )
        note, raw = f"State {path} is damaged ({raw}); going on from the one before it, of step {{}}.", earlier
    own, saved = average.live, raw["learning"]
    if saved.keys() != own.keys() or any(saved[name].shape != own[name].shape for name in own):
        raise ModelError(f"State {path} is of another model; resume with the configuration that it was started with.")
    try:
        optimizer.load_state_dict(raw["optimizer"])
    except ValueError as error:
        raise ModelError(
            f"State {path} is of an optimiser with other groups ({error}); it was written by another medglip. Begin anew "
            f"with --from {path.parent / 'last'}."
        ) from error
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(saved[name])
            average.kept[name].copy_(raw["average"][name])
    counters = Counters(**raw["counters"])
    return State(average, optimizer, counters, raw["random"], raw["samples"], raw["precision"]), note.format(counters.step)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Torch's random generators of this process, on the CPU."""
    found = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(device)
    return found


def set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Put back what ``random_state`` gave; a device that it does not have is left alone."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def _read(path: Path) -> dict[str, Any] | str:
    """The file's content, or what is wrong with it."""
    if not path.is_file():
        return "it is not there"
    try:
        found = torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:100] if str(error) else 'cut short'}"
    wanted = {"learning", "average", "optimizer", "counters", "random", "samples", "precision"}
    if not isinstance(found, dict) or not wanted <= found.keys():
        return "it lacks parts; another medglip wrote it"
    return found
