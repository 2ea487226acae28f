"""What a run needs to go on where it stopped: averaged weights, optimiser, counters. Knows no data."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

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
    """

    step: int = 0
    images: int = 0
    seconds: float = 0.0
    best: float = -1.0


def save_state(path: Path, average: Average, optimizer: torch.optim.Optimizer, counters: Counters) -> None:
    """Write the state; it appears whole or not at all."""
    state = {
        "learning": {name: value.detach() for name, value in average.live.items()},
        "average": average.kept,
        "optimizer": optimizer.state_dict(),
        "counters": vars(counters),
        "random": torch.get_rng_state(),
    }
    torch.save(state, path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


def load_state(path: Path, average: Average, optimizer: torch.optim.Optimizer) -> Counters:
    """Put a state back into the model (through its average), the optimiser and torch's random generator.

    Raises:
        ModelError: there is no state, or it is of another model.
    """
    if not path.is_file():
        raise ModelError(f"Nothing to resume: {path} is not there; train without resume first.")
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    own = average.live
    saved = state["learning"]
    if saved.keys() != own.keys() or any(saved[name].shape != own[name].shape for name in own):
        raise ModelError(f"State {path} is of another model; resume with the configuration that it was started with.")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(saved[name])
            average.kept[name].copy_(state["average"][name])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    return Counters(**state["counters"])
