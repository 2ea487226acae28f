"""Weights between those of two checkpoints of one configuration (WiSE-FT). Knows no training and no data.

Fine-tuning on a few sources costs what the model knew of others; a mean of the weights before and after keeps much of both.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from medglip.errors import ModelError
from medglip.model.checkpoints import CheckpointInfo, load_checkpoint
from medglip.model.config import Config
from medglip.model.dense import MedGLIP

# Of these sections every key must agree; what only says where files are or what learned may differ.
_SECTIONS = ("image", "text", "model")
_FREE = ("folder", "tune", "train_from", "checkpointing")


def merge(first: str | Path, second: str | Path, share: float = 0.5) -> tuple[MedGLIP, CheckpointInfo]:
    """The model whose every weight is ``(1 - share)`` of the first checkpoint's and ``share`` of the second's.

    Whole numbers (counters, indices) are not averaged: the second's are taken. So are its configuration and its thresholds,
    which were measured for its weights and not for these. Concepts and modalities are those of either.

    Args:
        first: Folder of a checkpoint, for example the one before fine-tuning.
        second: Folder of another, for example the one after it.
        share: Part of the second, 0 to 1.

    Returns:
        The model, in evaluation mode on the CPU, and what its checkpoint shall say; ``trained["merged"]`` has the share
        and what the two said of their training.

    Raises:
        ModelError: the share is no number from 0 to 1, a checkpoint is damaged, or the two are of different models.

    Source: Wortsman et al., Robust fine-tuning of zero-shot models (arXiv 2109.01903), section 3, equation 1.
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ModelError(f"Merging weights: found share {share!r}; allowed: 0 (the first) to 1 (the second).")
    (one, info), (model, other) = load_checkpoint(first), load_checkpoint(second)
    if difference := _difference(info.config, other.config) or _shapes_differ(one.state_dict(), model.state_dict()):
        raise ModelError(
            f"Merging weights of {str(first)!r} and {str(second)!r}: {difference}; allowed: two checkpoints of one "
            "configuration, of which one was trained on from the other or both from a third."
        )
    ours, theirs = one.state_dict(), model.state_dict()
    model.load_state_dict({name: _between(ours[name], value, share) for name, value in theirs.items()})
    sources = sorted({*info.trained.get("sources", ()), *other.trained.get("sources", ())})
    merged = {"share": share, "first": info.trained, "second": other.trained, "thresholds": "of the second, not measured anew"}
    joined = replace(
        other,
        concepts=tuple(sorted({*info.concepts, *other.concepts})),
        modalities=tuple(sorted({*info.modalities, *other.modalities})),
        trained={"sources": sources, "merged": merged},
    )
    return model.eval(), joined


def _between(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Summed in float64, so that equal weights stay equal and shares of 0 and 1 give one of the two."""
    if not second.is_floating_point():
        return second
    return (first.double() * (1 - share) + second.double() * share).to(second.dtype)


def _difference(first: Config, second: Config) -> str:
    """The first key in which two configurations contradict each other about the model; empty where they agree."""
    for section in _SECTIONS:
        for key in sorted(first[section].keys() & second[section].keys() - {*_FREE}):  # an older one lacks newer keys
            ours, theirs = (_plain(config[section][key]) for config in (first, second))
            if ours != theirs:
                return f"found {section}.{key} = {ours!r:.80} in the first and {theirs!r:.80} in the second"
    return ""


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _shapes_differ(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> str:
    for name in sorted({*first, *second}):
        ours, theirs = (tuple(state[name].shape) if name in state else "nothing" for state in (first, second))
        if ours != theirs:
            return f"found {name!r} as {ours!r} in the first and {theirs!r} in the second"
    return ""
