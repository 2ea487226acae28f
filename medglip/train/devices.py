"""Where a run computes: device, precision, processes; and what is shared out among them. Knows no data and no loss."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import FSDPStrategy
from torch import nn

from medglip.errors import ModelError

STRATEGIES = ("auto", "ddp", "fsdp")


def build_fabric(plan: Mapping[str, Any], kept_whole: list[nn.Parameter]) -> Fabric:
    """Fabric for a plan, launched. Under torchrun devices and nodes are torchrun's, whatever the plan says.

    Args:
        plan: The ``train`` section: ``accelerator``, ``devices``, ``precision``, ``strategy``.
        kept_whole: What FSDP must not share out; may be filled until the model is set up.

    Raises:
        ModelError: an unknown strategy, or FSDP without a GPU.
    """
    strategy = plan.get("strategy", "auto")
    if strategy not in STRATEGIES:
        raise ModelError(f"Configuration train.strategy: found {strategy!r}; allowed: {', '.join(STRATEGIES)}.")
    if strategy == "fsdp" and (plan["accelerator"] == "cpu" or not torch.cuda.is_available()):
        raise ModelError("Configuration train.strategy: 'fsdp' needs a GPU, and found none; use auto or ddp.")
    devices, nodes = plan["devices"], 1
    if torch.distributed.is_available() and torch.distributed.is_torchelastic_launched():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    fabric = Fabric(
        accelerator=plan["accelerator"], devices=devices, num_nodes=nodes, precision=plan["precision"],
        strategy=sharding(kept_whole) if strategy == "fsdp" else strategy,
    )  # fmt: skip
    fabric.launch()
    return fabric


def sharding(kept_whole: list[nn.Parameter]) -> FSDPStrategy:
    """FSDP that gathers the parameters once a step, and shares out gradients, optimiser and averaged weights.

    The whole model is one unit: methods of its parts are called outside their ``forward``, for which units inside it would
    have to be gathered one by one.

    Args:
        kept_whole: What does not learn: it is needed outside the model's ``forward`` too, for features that are kept.

    Source: Zhao et al., PyTorch FSDP (arXiv 2304.11277), section 3; without units it is ZeRO stage 2 (arXiv 1910.02054).
    """
    return FSDPStrategy(ignored_states=kept_whole, use_orig_params=True)


def compile_parts(model: Any) -> None:
    """Compile what is large and has one shape a canvas: the image encoder, the pyramid, the head; in place, by torch.compile.

    The names of the weights stay. Prompts differ in length from step to step, so what reads them is left as it is.
    """
    for part in (model.image_encoder, model.head.pyramid, model.head.dense):
        part.compile()
