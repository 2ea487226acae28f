"""Weights as 8-bit integers with one float16 scale a row: a quarter of float32's bytes. Knows no network and no files."""

from collections.abc import Mapping

import torch
from torch import Tensor

from medglip.errors import ModelError

SCALE = ".scale"
_MOST = 127


def pack(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices as int8 and, under their name with ``.scale``, float16 (rows, 1); other tensors as they are, in float32.

    The largest value of a row becomes 127 or -127, so zero stays zero. A value is off by half a step and what rounding the
    scale adds: at most 1/16 of a step at 127 steps, and more in rows whose largest value is below 0.008.

    Args:
        state: Names to floating-point tensors; of two dimensions are those that are packed.

    Raises:
        ModelError: a name ends in ``.scale``, or a row cannot be written with a float16 scale.
    """
    packed: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.endswith(SCALE):
            raise ModelError(f"Weights {name!r}: names that end in {SCALE!r} are taken by the scales; rename them.")
        if value.ndim != 2:
            packed[name] = value.float().contiguous()
            continue
        rows = value.float()
        scale = (rows.abs().amax(dim=1, keepdim=True) / _MOST).half()
        small = (scale == 0) & (rows != 0).any(dim=1, keepdim=True)
        if not scale.isfinite().all() or small.any():
            raise ModelError(f"Weights {name!r}: a row has values that no float16 scale can hold; leave them as they are.")
        steps = torch.where(scale > 0, rows / scale.float(), 0.0).round()
        packed[name] = steps.clamp(-_MOST, _MOST).to(torch.int8)  # a scale rounded down would give 127.02
        packed[name + SCALE] = scale
    return packed


def unpack(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What ``pack`` was given, in float32, each value to half a step of its row.

    Raises:
        ModelError: an int8 matrix has no scale, or one of another shape.
    """
    state: dict[str, Tensor] = {}
    for name, value in packed.items():
        if name.endswith(SCALE):
            continue
        if value.dtype != torch.int8:
            state[name] = value.float()
            continue
        scale = packed.get(name + SCALE)
        if scale is None or scale.shape != (len(value), 1):
            found = "nothing" if scale is None else tuple(scale.shape)
            raise ModelError(f"Packed weights {name!r}: the scale is {found}, needed {(len(value), 1)}; fetch the file again.")
        state[name] = value.float() * scale.float()
    return state
