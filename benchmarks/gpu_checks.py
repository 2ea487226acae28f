"""What a model must compute on any device: in a batch as alone, in bf16 nearly as in float32, as on a CPU. No commands.

All weights are random. Numbers are compared by the norm of the difference as a part of the norm, over all points and phrases.
"""

from collections.abc import Sequence
from typing import Any

import torch
from model_speed import PHRASES, Row, configured, pictures, prepared
from torch import Tensor

from medglip.model import build_model, make_prompt

BATCH = 4
TOLERANCES = {"alone": 1e-4, "cpu": 1e-3, "bf16": 0.1}
# Phrases differ in number and length between images, so that padding would show where it is not masked.
ASKED = [PHRASES[:3], PHRASES, PHRASES[5:6], PHRASES[4:16]]
MODALITIES = ("xray", "ct", "mr", None)


def built(name: str, size: int, device: str) -> Any:
    """The model with its random weights, the same each time."""
    torch.manual_seed(0)
    return build_model(configured(name, size), pretrained=False).to(device).eval()


@torch.no_grad()
def said(model: Any, images: Tensor, which: Sequence[int] = range(BATCH), half: bool = False) -> list[dict[str, Tensor]]:
    """What a model says of those of the images about their own phrases, on the CPU in float32."""
    asked, images = [ASKED[row] for row in which], images[list(which)]
    device = images.device.type
    prompt = make_prompt(asked, model.text_encoder.text.tokenize).to(images.device)
    modality = model.modality.index([MODALITIES[row] for row in which]).to(images.device)
    with torch.autocast(device, torch.bfloat16, enabled=half):
        output = model(images, prompt, modality)
    return [
        {
            "logits": output.logits[row, :, : len(phrases)].float().cpu(),
            "boxes": output.boxes[row].float().cpu(),
            "presence": output.presence[row, : len(phrases)].float().cpu(),
        }
        for row, phrases in enumerate(asked)
    ]


def compared(found: list[dict[str, Tensor]], wanted: list[dict[str, Tensor]], tolerance: float) -> dict[str, Any]:
    """The largest relative difference of each kind, over the images, and whether all are within the tolerance."""
    result: dict[str, Any] = {}
    for name in found[0]:
        parts = [
            float((one[name] - other[name]).norm() / other[name].norm().clamp(min=1e-9))
            for one, other in zip(found, wanted, strict=True)
        ]
        result[name] = max(parts) if all(part == part for part in parts) else float("nan")
    within = all(value <= tolerance for value in result.values())  # never of nan
    return {**{name: float(f"{value:.3g}") for name, value in result.items()}, "tolerance": tolerance, "within": within}


def batch_independence(name: str, size: int, device: str) -> dict[str, Any]:
    """A batch with phrases of different numbers against its images one by one, in float32."""
    model, images = built(name, size, device), pictures(Row("ground", name, BATCH, size, device))
    alone = [said(model, images, [row])[0] for row in range(BATCH)]
    return compared(said(model, images), alone, TOLERANCES["alone"])


def half_precision(name: str, size: int, device: str) -> dict[str, Any]:
    """bf16 autocast against float32."""
    model, images = built(name, size, device), pictures(Row("ground", name, BATCH, size, device))
    return compared(said(model, images, half=True), said(model, images), TOLERANCES["bf16"])


def devices_agree(name: str, size: int, device: str) -> dict[str, Any]:
    """The device against a CPU, in float32."""
    row = Row("ground", name, BATCH, size, device)
    here, there = built(name, size, device), built(name, size, "cpu")
    images = pictures(row)
    return compared(said(here, images), said(there, images.cpu()), TOLERANCES["cpu"])


def finite_step(name: str, size: int, device: str) -> dict[str, Any]:
    """A training step in bf16: every parameter that learns has changed or stayed, and none is broken."""
    model, run = prepared(Row("step", name, 2, size, device, half=True))
    before = {key: value.detach().clone() for key, value in model.named_parameters() if value.requires_grad}
    run()
    after = dict(model.named_parameters())
    broken = [key for key in before if not bool(after[key].isfinite().all())]
    changed = sum(not torch.equal(before[key], after[key]) for key in before)
    return {"parameters": len(before), "changed": changed, "not_finite": len(broken), "within": not broken and changed > 0}
