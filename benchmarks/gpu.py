"""Every measurement on a GPU in one command of less than ten minutes: speed, memory, share of the card's rate, data, checks.

Usage: benchmarks/gpu.sh [--only a,b] [--minutes 9.3] [--data DIR] [--out FILE] [--device cuda|cpu] [--quick]
       python benchmarks/gpu.py --prepare DIR [--cases 40]    (phantoms, converted: what DATA needs where nothing can be)
Writes benchmarks/results/gpu.json after each part. DATA names a folder with such a dataset; without it phantoms are made.

Each group is a process of its own with its own share of the time: one that fails, hangs or runs out of memory leaves what it
had measured and an `error`, and the rest goes on; so does a row inside a group. Systems, images and phrases are those of
benchmarks/model_speed.py: 16 phrases, random weights, the peers with transformers' own loss and their published sizes.
`ground` rows of ours forget what they have read before each run; `rate` rows remember it, as a stream of images would.

Groups: card, checks (right on this card?), ground (512 px), step (training), rate (640 px), share (of the card's measured rate
of bf16 matrix products; operations counted by torch's FlopCounterMode, in which only products and convolutions count),
learn (a training of `lite` on phantoms), loader (workers beside the step), compiled (the last: torch.compile is slow to start).
"""

import argparse
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from gpu_checks import batch_independence, devices_agree, finite_step, half_precision
from gpu_rates import operations, product_rate, profile, timed, wait
from model_speed import FROZEN, OURS, PEERS, Row, has_minilm, held_mib, prepared
from peers import installed, machine
from throughput import logged, waiting

ROOT = Path(__file__).resolve().parents[1]
# Most seconds of each group, its start included, in the order of the groups. Most need less; the last has what is left.
GROUPS = {"card": 30, "checks": 50, "ground": 70, "step": 95, "rate": 45, "share": 55, "learn": 140, "loader": 50,
          "compiled": 180}  # fmt: skip
TARGETS = {"frames_a_second_at_640": 70, "share_of_measured_bf16_rate": 0.4, "ap50_of_learn": 0.6}
LEARN_SECONDS = 90


class Run:
    """A group that is being measured: what it has found so far, kept in a file.

    Args:
        asked: ``device``, ``quick``, ``data``.
        target: The file.
        until: When to begin no more rows, by ``time.monotonic``.
    """

    def __init__(self, asked: argparse.Namespace, target: Path, until: float) -> None:
        self.asked, self.device, self.quick = asked, asked.device, asked.quick
        self.found: dict[str, Any] = {}
        self.target, self.until = target, until

    @contextmanager
    def row(self, name: str) -> Iterator[dict[str, Any]]:
        """A part: what is put into it is kept; an error, or that no time is left, is kept in its place."""
        into: dict[str, Any] = {}
        self.found[name] = into
        try:
            yield into
        except Exception as error:  # the next row is measured whatever happened to this one
            into["error"] = traceback.format_exception_only(error)[-1].strip()[:400]
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
        self.target.write_text(json.dumps(self.found), encoding="utf-8")

    def check_time(self) -> None:
        """Raises TimeoutError where the group's time is over."""
        if time.monotonic() > self.until:
            raise TimeoutError("The time of this group was over.")


def measured(row: Row, quick: bool) -> dict[str, Any]:
    """Time and memory of a row; memory is what the device (CPU: the process) held at most, less what it held before."""
    on_gpu = row.device == "cuda"
    held = torch.cuda.memory_allocated() / 2**20 if on_gpu else held_mib("VmRSS")
    _, run = prepared(row)
    begun = time.perf_counter()
    run()
    first = time.perf_counter() - begun
    for _ in range(0 if quick else 2):
        run()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    taken = timed(run, 0.0 if quick else 0.8, 1 if quick else 3)
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else held_mib("VmHWM")
    return {
        "median_ms": round(1000 * statistics.median(taken), 3), "least_ms": round(1000 * min(taken), 3),
        "most_ms": round(1000 * max(taken), 3), "repeats": len(taken), "first_s": round(first, 2),
        "images_a_second": round(row.batch / statistics.median(taken), 2), "peak_mib": round(peak - held, 1),
    }  # fmt: skip


def rows_of(run: Run, rows: list[Row]) -> None:
    """Measure rows, each on its own."""
    for row in rows:
        precision = "bf16" if row.half else "fp32"
        with run.row(
            f"{row.system}, {row.size} px, batch {row.batch}, {precision}{', compiled' if row.compiled else ''}"
        ) as into:
            run.check_time()
            into |= measured(row, run.quick)


def card(run: Run) -> None:
    """What the figures depend on, and the rates of the card: products of bf16 matrices, and copying."""
    with run.row("machine") as into:
        into |= machine(run.device) | {"packages": {name: installed(name) for name in ("triton", "lightning-fabric")}}
        if run.device == "cuda":
            facts = torch.cuda.get_device_properties(0)
            into |= {"memory_gib": round(facts.total_memory / 2**30, 1), "multiprocessors": facts.multi_processor_count,
                     "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}  # fmt: skip
            if shutil.which("nvidia-smi"):
                command = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.max.sm,power.limit", "--format=csv,noheader"]
                into["nvidia_smi"] = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    side = 256 if run.quick else 8192
    with run.row("bf16 matrix product") as into:
        into |= {"side": side, "tflops": product_rate(run.device, side)}
    with run.row("copy on the device") as into:
        values = torch.empty(2**20 if run.quick else 2**30, dtype=torch.uint8, device=run.device)
        other = torch.empty_like(values)

        def copy() -> None:
            other.copy_(values)
            wait(run.device)

        copy()
        into["gb_a_second_read_and_written"] = round(2 * values.numel() / statistics.median(timed(copy, 0.5)) / 1e9, 1)


def checks(run: Run) -> None:
    """Whether the models compute the same as one by one, as in float32 and as on a CPU; the random weights are the same."""
    size = 128 if run.quick else 256
    for name in OURS:
        for title, check in (("a batch as its images alone", batch_independence), ("bf16 near fp32", half_precision),
                             ("the device as a CPU", devices_agree), ("a bf16 step", finite_step)):  # fmt: skip
            with run.row(f"{name}: {title}") as into:
                run.check_time()
                into |= check(name, size, run.device)


def ground(run: Run) -> None:
    size, batches = (256, (1,)) if run.quick else (512, (1, 8))
    rows_of(run, [Row("ground", name, batch, size, run.device, half=half)
                  for batch in batches for half in (False, True) for name in (*OURS, *PEERS)])  # fmt: skip


def step(run: Run) -> None:
    size, batches = (256, (2,)) if run.quick else (512, (2, 8, 16))
    rows_of(run, [Row("step", name, batch, size, run.device, half=True)
                  for batch in batches for name in (*OURS, *PEERS, FROZEN)])  # fmt: skip


def rate(run: Run) -> None:
    size, batches = (256, (1,)) if run.quick else (640, (1, 8))
    rows_of(run, [Row("rate", name, batch, size, run.device, half=True) for batch in batches for name in (*OURS, *PEERS)])


def rows_to_share(run: Run) -> list[Row]:
    """The rows whose share of the card's rate is measured: swin_tiny grounds and learns at 512 px in bf16."""
    size, batch = (128, 1) if run.quick else (512, 16)
    return [Row(what, "swin_tiny", batch, size, run.device, half=True) for what in ("rate", "step")]


def share(run: Run) -> None:
    """The share of the measured rate, with both layouts of memory, and where the time goes when the share is low."""
    with run.row("rate of products") as into:
        into["tflops"] = tflops = product_rate(run.device, 256 if run.quick else 8192)
    for row in rows_to_share(run):
        title = "training step" if row.learns else "grounding"
        counted = 0.0
        with run.row(f"{title}: operations") as into:
            run.check_time()
            counted = operations(row)
            into |= {"tflop_a_batch": round(counted / 1e12, 4), "batch": row.batch}
        for layout in (True, False):
            with run.row(f"{title}, {'channels_last' if layout else 'contiguous'}") as into:
                run.check_time()
                into |= measured(replace(row, channels_last=layout), run.quick)
                into["share"] = round(counted / (into["median_ms"] / 1000) / (tflops * 1e12), 4)
        with run.row(f"{title}: top operations") as into:
            run.check_time()
            best = max(run.found[f"{title}, {layout}"].get("share", 0) for layout in ("channels_last", "contiguous"))
            if best < TARGETS["share_of_measured_bf16_rate"]:
                into |= profile(row)


def compiled(run: Run) -> None:
    """The same rows, and grounding at 640 px, with torch.compile of ours."""
    sizes = [Row("rate", name, 1, 128 if run.quick else 640, run.device, True, True) for name in OURS[: 1 if run.quick else 2]]
    rows_of(run, sizes + ([] if run.quick else [replace(row, compiled=True) for row in rows_to_share(run)]))


def phantoms(folder: Path, cases: int) -> Path:
    """Phantoms, converted into the folder where they are not there yet."""
    from modality import make_dataset  # what reads files is not needed where the data are converted

    return make_dataset(folder, None, cases)


def dataset_in(folder: Path) -> Path:
    """The dataset: the folder itself, or what --prepare left in it."""
    return folder / "dataset" if (folder / "dataset").is_dir() else folder


def learn(run: Run) -> None:
    """Whether a training on this device learns."""
    from medglip import store
    from medglip.evaluate import evaluate
    from medglip.model import load_config
    from medglip.train import train

    changes: dict[str, Any] = {"steps": 2} if run.quick else {"steps": 0, "minutes": LEARN_SECONDS / 60, "validations": 0}
    with run.row("lite on phantoms") as into, tempfile.TemporaryDirectory() as out:
        data = store.open(dataset_in(run.asked.data))
        name = "tiny" if run.quick else "lite"
        config = load_config(name)
        if not run.quick and not has_minilm():
            config["text"]["weights"] = "packed"
        begun = time.monotonic()
        best = train(config, [data], out, show=False, accelerator=run.device, precision="bf16-mixed", **changes)
        lines = logged(Path(out) / "metrics.jsonl")
        into |= {"recipe": name, "seconds": round(time.monotonic() - begun, 1), "steps": lines[-1]["step"],
                 "first_loss": lines[0]["loss"], "last_loss": lines[-1]["loss"]}  # fmt: skip
        found = evaluate(best, [data], split="train" if run.quick else "test", limit=8 if run.quick else 96)
        into |= {name: found[name] for name in ("ap50", "acc50", "absence_auroc", "images")}
        into |= {"aim_ap50": TARGETS["ap50_of_learn"], "reached": (found["ap50"] or 0) >= TARGETS["ap50_of_learn"]}


def loader(run: Run) -> None:
    """Images a second that loader workers make ready, alone and beside a training, whose share of waiting is measured."""
    from model_speed import configured

    from medglip import store
    from medglip.model import load_config
    from medglip.records.labels import label_tree
    from medglip.train import train
    from medglip.train.samples import Samples
    from medglip.train.schedule import batches

    config, steps = (load_config("tiny"), 3) if run.quick else (configured("swin_tiny", 512), 20)
    config["train"] |= {"accelerator": run.device, "batch": 2 if run.quick else 16, "steps": steps, "minutes": 0}
    plan = config["train"] | {"masks": True}
    data = store.open(dataset_in(run.asked.data))
    for workers in (0, 1) if run.quick else (0, 4, 8, (os.cpu_count() or 2) - 1):
        with run.row(f"{workers} workers, alone") as into:
            run.check_time()
            samples = Samples([data], "train", label_tree(), plan, config["image"]["size"])
            arriving = iter(batches(samples, plan | {"workers": workers}, 0, 0, 1))
            next(arriving)  # workers have started
            for _ in range(2 * workers):
                next(arriving)  # what they had ready
            begun = time.perf_counter()
            for _ in range(steps):
                next(arriving)
            into["images_a_second"] = round(steps * plan["batch"] / (time.perf_counter() - begun), 1)
            del arriving
    with run.row("beside swin_tiny's training") as into, tempfile.TemporaryDirectory() as out:
        run.check_time()
        workers = 1 if run.quick else min(8, (os.cpu_count() or 2) - 1)
        precision = "bf16-mixed" if run.device == "cuda" else "32-true"
        config["train"] |= {"workers": workers, "steps": 3 * steps, "precision": precision, "validations": 0}
        train(config, [data], out, show=False)
        lines = logged(Path(out) / "metrics.jsonl")
        into |= {"workers": workers, **waiting(lines[len(lines) // 3 :], plan["batch"])}


def group(asked: argparse.Namespace) -> None:
    """Run one group, in a process of its own."""
    run = Run(asked, asked.out, time.monotonic() + asked.seconds)
    torch.manual_seed(0)
    if asked.device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # fp32 is fp32
    {"card": card, "checks": checks, "ground": ground, "step": step, "rate": rate, "share": share, "learn": learn,
     "loader": loader, "compiled": compiled}[asked.group](run)  # fmt: skip


def measure_all(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All groups, each in its process and its time."""
    begun = time.monotonic()
    result: dict[str, Any] = {"what": __doc__.splitlines()[0], "command": " ".join(["benchmarks/gpu.sh", *sys.argv[1:]]),
                              "targets": TARGETS, "groups": {}}  # fmt: skip
    if asked.data is None and {"learn", "loader"} & set(asked.only):
        try:
            asked.data = phantoms(folder, 3 if asked.quick else asked.cases)
        except Exception as error:  # the groups that need data will say so, the others need none
            result["data_error"] = traceback.format_exception_only(error)[-1].strip()[:400]
    for name in asked.only:
        left = min(GROUPS[name], asked.minutes * 60 - (time.monotonic() - begun) - 3) if asked.device == "cuda" else 3600.0
        target, before = folder / f"{name}.json", time.monotonic()
        options = ["--device", asked.device, "--seconds", str(max(left - 20, 1)), "--out", str(target), "--group", name]
        options += ["--data", str(asked.data)] * bool(asked.data) + ["--quick"] * asked.quick
        fault = ended(options, left) if left > 15 else f"Left out: {left:.0f} s were left."
        result["groups"][name] = json.loads(target.read_text("utf-8")) if target.is_file() else {}
        result["groups"][name] |= {"error": fault} if fault else {}
        result["groups"][name]["group_seconds"] = round(time.monotonic() - before, 1)
        print(name, json.dumps(result["groups"][name], indent=1), flush=True)
        if asked.out:
            whole = result | {"seconds": round(time.monotonic() - begun, 1)}
            asked.out.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    return result


def ended(options: list[str], seconds: float) -> str | None:
    """Run this file with the options for at most so many seconds; what went wrong, or None."""
    try:
        done = subprocess.run([sys.executable, __file__, *options], stderr=subprocess.PIPE, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"It was ended after {seconds:.0f} s."
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return (lines[-1][:400] if lines else f"It ended with {done.returncode}.") if done.returncode else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(GROUPS), help="groups, by comma")
    parser.add_argument("--minutes", type=float, default=9.3, help="of all on a GPU; groups without time are left out")
    parser.add_argument("--data", type=Path, default=os.environ.get("DATA") or None, help="a converted dataset; default: $DATA")
    parser.add_argument("--cases", type=int, default=40, help="phantom cases a modality where there is none")
    parser.add_argument("--out", type=Path, help="the file of results; default: benchmarks/results/gpu.json, none with --quick")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--prepare", type=Path, help="convert phantoms into this folder and end")
    parser.add_argument("--group", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.prepare:
        asked.prepare.mkdir(parents=True, exist_ok=True)
        print(phantoms(asked.prepare, asked.cases))
        return
    if asked.group:
        group(asked)
        return
    asked.out = asked.out or (None if asked.quick else ROOT / "benchmarks/results/gpu.json")
    with tempfile.TemporaryDirectory() as folder:
        measure_all(asked, Path(folder))


if __name__ == "__main__":
    main()
