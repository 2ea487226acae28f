"""How fast a card multiplies matrices, how many operations a run has, and where its time goes. No commands.

Operations are counted by torch's FlopCounterMode: products and convolutions, a multiplication and an addition each.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from model_speed import Row, prepared


def timed(run: Callable[[], Any], seconds: float, least: int = 3, most: int = 60) -> list[float]:
    """Seconds of runs one after another; ``run`` waits for the device itself."""
    taken: list[float] = []
    begun = time.perf_counter()
    while len(taken) < least or (len(taken) < most and time.perf_counter() - begun < seconds):
        before = time.perf_counter()
        run()
        taken.append(time.perf_counter() - before)
    return taken


def wait(device: str) -> None:
    """Until the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()


def product_rate(device: str, side: int) -> float:
    """TFLOP/s of the product of two square bf16 matrices of random numbers: the median of groups of ten."""
    first, second = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))

    def ten() -> None:
        for _ in range(10):
            first @ second
        wait(device)

    ten()
    return round(10 * 2 * side**3 / statistics.median(timed(ten, 1.0)) / 1e12, 2)


def operations(row: Row) -> float:
    """Floating-point operations of products and convolutions in one run, phrases read before."""
    from torch.utils.flop_counter import FlopCounterMode

    torch.backends.mha.set_fastpath_enabled(False)  # the fast path is one operation that the counter does not know
    _, run = prepared(row)
    run()
    with FlopCounterMode(display=False) as counter:
        run()
    torch.backends.mha.set_fastpath_enabled(True)
    return float(counter.get_total_flops())


def profile(row: Row, top: int = 15) -> dict[str, Any]:
    """Operations by their own time on the device, and the share of the time in which the device had work."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    _, run = prepared(row)
    for _ in range(3):
        run()
    on_gpu = row.device == "cuda"
    begun = time.perf_counter()
    with profiler(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as seen:
        run()
        took = time.perf_counter() - begun
    events, kind = list(seen.key_averages()), "self_device_time_total" if on_gpu else "self_cpu_time_total"
    events = [event for event in events if not on_gpu or str(event.device_type).endswith("CUDA")] or events
    events.sort(key=lambda event: -getattr(event, kind))
    total = sum(getattr(event, kind) for event in events)
    return {
        "device_ms": round(total / 1000, 2), "wall_ms_while_profiled": round(1000 * took, 2),
        "operations": {event.key[:90]: {"share": round(getattr(event, kind) / max(total, 1e-9), 4), "calls": event.count}
                       for event in events[:top]},
    }  # fmt: skip
