"""What learns how fast: groups of parameters by depth and by weight decay. Knows no loss and no data.

A parameter's peak rate is ``lr``; in the image encoder times ``encoder_rate``; and in the blocks of an image encoder, or of
a text encoder of the transformers library, times ``layer_decay`` once for every block between it and the encoder's output.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from medglip.model.dense import MedGLIP
from medglip.model.encoders import HubImageEncoder, HubTextEncoder


def build_optimizer(model: MedGLIP, plan: Mapping[str, Any]) -> torch.optim.AdamW:
    """AdamW over all that learns.

    Args:
        model: Its parameters that require a gradient.
        plan: The ``train`` section: ``lr``, ``encoder_rate``, ``layer_decay``, ``weight_decay``.
    """
    return torch.optim.AdamW(groups_of(model, plan), weight_decay=plan["weight_decay"])


def groups_of(model: MedGLIP, plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Groups of one rate and one weight decay, the fastest first; ``peak`` is the rate at the end of the warm-up."""
    factor = plan.get("layer_decay", 1.0)
    depths = dict(_below_output(model))
    groups: dict[tuple[float, bool], list[Tensor]] = {}
    for name, value in model.named_parameters():
        if not value.requires_grad:
            continue
        peak = plan["lr"] * factor ** depths.get(name, 0)
        if name.startswith("image_encoder."):
            peak *= plan["encoder_rate"]
        groups.setdefault((peak, decays(name, value)), []).append(value)
    return [
        {"params": values, "lr": peak, "peak": peak, "weight_decay": plan["weight_decay"] if is_decayed else 0.0}
        for (peak, is_decayed), values in sorted(groups.items(), key=lambda item: item[0], reverse=True)
    ]


def decays(name: str, value: Tensor) -> bool:
    """Whether a parameter of the model is pulled towards zero by weight decay.

    Not those of norms, biases and layer scales, which are no matrices (an axis of length 1 does not count), and not the
    modality tables: a row is moved by the images of its modality alone, and would fade where they are rare.
    """
    is_bias = name.rsplit(".", 1)[-1].endswith("bias") or ".bias." in name or ".out_bias." in name
    is_table = name.startswith(("modality.prompt.", "modality.film."))
    return sum(side > 1 for side in value.shape) > 1 and not is_bias and not is_table


def layer_numbers(network: nn.Module) -> dict[str, int]:
    """Of each parameter of a network the number of its block: from 1; 0 below the first; what is above the last has its number.

    Blocks are the elements of lists of modules of one class, of the innermost such lists: stages hold blocks. What a stage
    has beside its blocks, as the downsampling of a Swin or ConvNeXt stage, belongs to the block next to it.
    """
    homes = {
        f"{name}.{number}"
        for name, inner in network.named_modules()
        if isinstance(inner, nn.ModuleList) and len({type(one) for one in inner}) == 1
        for number in range(len(inner))
    }
    numbers: dict[str, int] = {}
    number_of: dict[str, int] = {}
    count, last = 0, ""
    for name, _ in network.named_parameters():  # in the order in which the network was built, which is that of its layers
        steps = name.split(".")
        inside = [".".join(steps[:end]) for end in range(len(steps), 0, -1)]
        home = next((outer for outer in inside if outer in homes), "")
        if home and home not in number_of:
            is_beside = bool(last) and (last.startswith(f"{home}.") or home.startswith(f"{last}."))
            count += not is_beside
            number_of[home] = count
        last = home or last
        numbers[name] = number_of[home] if home else count
    return numbers


def _below_output(model: MedGLIP) -> Iterator[tuple[str, int]]:
    """Names of the encoders' parameters, with how many steps below the output they are.

    Source: Clark et al., ELECTRA (arXiv 2003.10555), appendix A; in vision: Bao et al., BEiT (arXiv 2106.08254), section 3.
    """
    text, image = model.text_encoder.text, model.image_encoder
    networks: list[tuple[str, Any]] = [
        ("image_encoder.network.", image.network) if isinstance(image, HubImageEncoder) else ("image_encoder.", image)
    ]
    if isinstance(text, HubTextEncoder):
        networks.append(("text_encoder.text.network.", text.network))
    for prefix, network in networks:
        numbers = layer_numbers(network)
        top = max(numbers.values(), default=0)
        for name, number in numbers.items():
            yield prefix + name, top - number
