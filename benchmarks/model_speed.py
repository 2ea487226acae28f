"""Seconds and memory of grounding and of a training step, beside Grounding DINO and MM-Grounding-DINO of transformers.

Usage: scripts/bench model_speed [--device cpu|cuda] [--repeats 5] [--quick] [--only ground,step,rate] [--systems a,b]
                                 [--compile]
Writes benchmarks/results/model_speed.json (model_speed_cuda.json with --device cuda).

All have random weights and are given the same images and the same 16 phrases. `lite` and `swin_tiny` are ours;
`swin_tiny` and the peers have an image encoder (Swin-T) and a text encoder (BERT-base) of the same sizes; the peers have
their published sizes (900 queries, six layers each way). A frozen text encoder of ours remembers what it has read: `cached`
rows run as they do from the second time on, plain `ground` rows and `anew` steps forget it before each run; plain `step` rows
remember, as training does, whose phrases come again and again.
`mm_grounding_dino_text_frozen` does not learn its text encoder: a training step that is lighter than the published one.

ground: seconds from an image tensor to boxes and scores by phrase. step: forward, loss, backward and AdamW; the peers with
transformers' own loss, ours with all terms of its configuration. rate: images a second at 640 pixels (CUDA only; bf16 and
channels_last). The systems take turns in one process; memory is of a fresh process a row: the most that it held, less what it
held after its imports, weights included.
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
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from peers import caption, dino, dino_boxes, dino_labels, machine, normalised, parameters, swin_config
from torch import Tensor, nn

from medglip.errors import ModelError
from medglip.model import build_model, load_config, make_prompt
from medglip.model.dense import detect
from medglip.model.encoders.remembered import Remembered
from medglip.model.losses import Target, grounding_loss
from medglip.model.shipped import MINILM
from medglip.model.weights import MINILM_WEIGHTS, find_weights

ROOT = Path(__file__).resolve().parents[1]
OURS = ("lite", "swin_tiny")
PEERS = ("grounding_dino", "mm_grounding_dino")
FROZEN = "mm_grounding_dino_text_frozen"
PHRASES = ("left lung", "right lung", "heart", "liver", "spleen", "left kidney", "right kidney", "pleural effusion",
           "pneumothorax", "lung nodule", "rib fracture", "consolidation", "enlarged cardiac silhouette", "aorta", "stomach",
           "a mass in the upper lobe")  # fmt: skip
BOXES = 6
SEED = 0
SWIN_T = {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7}
ENDINGS = {"cached": "_cached", "step_anew": "_anew"}
TARGETS = {"ground": {"lite": 20.0, "swin_tiny": 2.0}, "step": {"swin_tiny": 2.0}, "memory_of_peer": 0.6}

Run = Callable[[], None]


@dataclass(frozen=True)
class Row:
    """What is run: ``what`` (ground, cached, step, step_anew or rate), by which system, how large, on what, and how."""

    what: str
    system: str
    batch: int
    size: int
    device: str
    compiled: bool = False
    half: bool | None = None  # bf16 autocast; None: where it runs on CUDA and is no `ground` row
    channels_last: bool = True

    @property
    def learns(self) -> bool:
        """Whether it is a training step."""
        return self.what.startswith("step")


def truth(size: int) -> tuple[Tensor, Tensor]:
    """Boxes (6, 4) xyxy pixels, each named by one of the phrases (6, 16)."""
    random = torch.Generator().manual_seed(SEED)
    corner, side = torch.rand(BOXES, 2, generator=random) * 0.6, torch.rand(BOXES, 2, generator=random) * 0.3 + 0.05
    return torch.cat([corner, corner + side], dim=1) * size, torch.eye(len(PHRASES), dtype=torch.bool)[:BOXES]


def pictures(row: Row) -> Tensor:
    """(B, 3, S, S) in [0, 1]."""
    images = torch.rand(row.batch, 3, row.size, row.size, generator=torch.Generator().manual_seed(SEED))
    return images.to(row.device).contiguous(memory_format=layout(row))


def layout(row: Row) -> torch.memory_format:
    """How images and weights of convolutions lie in memory."""
    return torch.channels_last if row.channels_last else torch.contiguous_format


def ready(model: nn.Module, row: Row) -> nn.Module:
    """The model on its device and in its mode."""
    model = model.to(row.device).to(memory_format=layout(row))  # type: ignore[call-overload]
    return model.train(row.learns)


def learn(model: nn.Module, loss: Callable[[], Tensor]) -> Run:
    """One step: forward, loss, backward, AdamW."""
    optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=1e-6)

    def run() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return run


def configured(name: str, size: int) -> dict[str, Any]:
    """One of our configurations; encoders that come from a hub are built in their size, with random weights."""
    config = load_config(name, size=size)
    if "/" in config["image"]["encoder"]:
        config["image"] |= {"encoder": "config", "config": {"model_type": "swin", **SWIN_T}}
    if "/" in config["text"]["encoder"]:
        config["text"] |= {"encoder": "config", "config": {"model_type": "bert"}, "folder": bert_tokenizer().name}
    elif not has_minilm():
        config["text"]["weights"] = "packed"
    return config


@cache
def bert_tokenizer() -> "tempfile.TemporaryDirectory[str]":
    """A folder with the tokenizer of bert-base-uncased, which MiniLM has too, as transformers reads it."""
    folder = tempfile.TemporaryDirectory()
    shutil.copy(MINILM / "tokenizer.json", folder.name)
    words = {f"{name}_token": f"[{name.upper()}]" for name in ("mask", "pad", "cls", "sep", "unk")}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **words}
    (Path(folder.name) / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def has_minilm() -> bool:
    """Whether the published weights of MiniLM are here; the 8-bit copy inside medglip always is."""
    try:
        find_weights(MINILM_WEIGHTS)
    except ModelError:
        return False
    return True


def ours(row: Row) -> tuple[nn.Module, Run]:
    """One of our configurations."""
    config = configured(row.system, row.size)
    model = build_model(config, pretrained=False)
    ready(model, row)
    images, asked = pictures(row), [PHRASES] * row.batch
    modality = model.modality.index(["xray"] * row.batch).to(row.device)
    net: Any = torch.compile(model) if row.compiled else model
    memories = [kept for module in model.modules() for kept in vars(module).values() if isinstance(kept, Remembered)]
    boxes, names = truth(row.size)
    none = torch.zeros(0, 4), torch.zeros(0, len(PHRASES), dtype=torch.bool)
    parts = (boxes, names, *none, names.any(dim=0).float())
    targets = [Target(*(value.to(row.device) for value in parts))] * row.batch

    def read() -> Any:
        for kept in memories if row.what in ("ground", "step_anew") else ():
            kept.clear()
        return make_prompt(asked, model.text_encoder.text.tokenize).to(row.device)

    def loss() -> Tensor:
        return grounding_loss(net(images, read(), modality, targets=targets), targets, config["loss"])["loss"]

    if row.learns:
        return model, learn(model, loss)
    return model, lambda: _found(net(images, read(), modality), row.size)


def _found(output: Any, size: int) -> None:
    """What is done to get boxes by phrase, suppression included."""
    detect(output, size)


def theirs(row: Row) -> tuple[nn.Module, Run]:
    """One of the peers, as large as published."""
    from transformers import BertConfig

    model = dino(row.system.removesuffix("_text_frozen"), swin_config((2, 3, 4), **SWIN_T), BertConfig())
    if row.system == FROZEN:
        model.model.text_backbone.requires_grad_(False)  # type: ignore[union-attr]
    ready(model, row)
    images = normalised(pictures(row))
    # Which ids the words have costs nothing; those of separators are fixed.
    ids = {word: 2000 + crc32(word.encode()) % 20000 for text in PHRASES for word in text.split()}
    asked = caption([PHRASES] * row.batch, lambda text: [ids[word] for word in text.split()]).to(row.device)
    if row.learns:
        labels = dino_labels(*truth(row.size), row.size)
        targets = [{name: value.to(row.device) for name, value in labels.items()}] * row.batch
        return model, learn(model, lambda: model(pixel_values=images, **asked.inputs, labels=targets).loss)
    net: Any = torch.compile(model) if row.compiled else model
    return model, lambda: _decoded(net(pixel_values=images, **asked.inputs), asked, row.size)


def _decoded(output: Any, asked: Any, size: int) -> None:
    """What the peers do to get boxes by phrase: they need no suppression."""
    dino_boxes(output, asked, len(PHRASES), size)[1].topk(100)


def prepared(row: Row) -> tuple[nn.Module, Run]:
    """The model of a row, and what runs it once."""
    torch.manual_seed(SEED)
    model, run = (ours if row.system in OURS else theirs)(row)
    half = row.device == "cuda" and row.what not in ("ground", "cached") if row.half is None else row.half

    def once() -> None:
        with torch.autocast(row.device, torch.bfloat16) if half else nullcontext(), torch.set_grad_enabled(row.learns):
            run()
        if row.device == "cuda":
            torch.cuda.synchronize()

    return model, once


def in_turn(rows: Sequence[Row], repeats: int) -> dict[str, Any]:
    """Seconds of rows of one kind, which take turns; the first round of each is not counted."""
    built = {}
    for row in rows:
        model, run = prepared(row)
        built[_name(row)] = (parameters(model), run)
        begun = time.perf_counter()
        run()
        print(f"  {row.what}, batch {row.batch}, {_name(row)}: first {time.perf_counter() - begun:.2f} s", flush=True)
    seconds: dict[str, list[float]] = {name: [] for name in built}
    for _ in range(repeats):
        for name, (_, run) in built.items():
            begun = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begun)
    return {
        name: {"median_s": statistics.median(taken), "least_s": min(taken), "most_s": max(taken), "seconds": taken,
               "images_a_second": rows[0].batch / statistics.median(taken), "parameters": built[name][0]}
        for name, taken in seconds.items()
    }  # fmt: skip


def _name(row: Row) -> str:
    return row.system + ENDINGS.get(row.what, "")


def ratios(found: dict[str, Any]) -> dict[str, Any]:
    """How many times faster ours are than each peer, from runs of the same round."""
    result = {}
    for mine in (name for name in found if name.startswith(OURS)):
        for other in (name for name in found if name.startswith(PEERS)):
            pairs = [b / a for a, b in zip(found[mine]["seconds"], found[other]["seconds"], strict=True)]
            result[f"{mine} over {other}"] = {"median": statistics.median(pairs), "least": min(pairs), "most": max(pairs)}
    return result


def held_mib(name: str) -> float:
    """``VmRSS`` (now) or ``VmHWM`` (the most so far) of this process; ru_maxrss would count its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0]) / 1024


def child(row: Row) -> None:
    """The memory of one row, in a process of its own; prints JSON."""
    import transformers

    for name in ("GroundingDinoForObjectDetection", "MMGroundingDinoForObjectDetection", "BertModel", "SwinBackbone"):
        getattr(transformers, name)  # what a process needs before it begins is not what a model costs
    before = held_mib("VmRSS")
    model, run = prepared(row)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the most so far is forgotten: building is not measured
    weights = sum(value.numel() * value.element_size() for value in model.parameters()) / 2**20
    if row.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(2):  # from the second step on the optimiser's state is there
        run()
    peak = torch.cuda.max_memory_allocated() / 2**20 if row.device == "cuda" else held_mib("VmHWM") - before
    print(json.dumps({"peak_mib": peak, "weights_mib": weights}))


def memory(row: Row) -> dict[str, float]:
    """Figures of one row from a fresh process."""
    command = [sys.executable, __file__, "--child", json.dumps(vars(row))]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "2"})
    if done.returncode:
        raise RuntimeError(f"{row} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def group(rows: Sequence[Row], repeats: int) -> dict[str, Any]:
    """Seconds, memory and ratios of rows of one kind."""
    found = in_turn(rows, repeats)
    gc.collect()
    if rows[0].device == "cuda":
        torch.cuda.empty_cache()
    for row in rows:
        found[_name(row)]["memory"] = memory(row)
    kept = {name: one["memory"]["peak_mib"] for name, one in found.items()}
    shares = {f"{mine} of {other}": kept[mine] / kept[other]
              for mine in kept if mine.startswith(OURS) for other in kept if other.startswith(PEERS)}  # fmt: skip
    return {"times_faster": ratios(found), "memory_share": shares, "systems": found}


def brief(found: dict[str, Any]) -> dict[str, Any]:
    """The medians of a group."""
    return {
        "times_faster": {name: round(ratio["median"], 2) for name, ratio in found["times_faster"].items()},
        "memory_share": {name: round(share, 2) for name, share in found["memory_share"].items()},
        "seconds": {name: round(one["median_s"], 3) for name, one in found["systems"].items()},
        "peak_mib": {name: round(one["memory"]["peak_mib"]) for name, one in found["systems"].items()},
    }


def plan(asked: argparse.Namespace) -> dict[str, list[Row]]:
    """Rows by group."""
    kinds, groups = asked.only.split(","), {}
    chosen, size = asked.systems.split(","), 256 if asked.quick else 512
    for batch in (1,) if asked.quick else (1, 8):
        rows = [Row(what, name, batch, size, asked.device) for name in (*OURS, *PEERS) for what in ("ground", "cached")
                if name in OURS or what == "ground"]  # fmt: skip
        groups[f"ground, batch {batch}"] = rows if "ground" in kinds else []
    for batch in (1,) if asked.quick else (1, 2):
        rows = [Row(what, name, batch, size, asked.device) for name in (*OURS, *PEERS, FROZEN)
                for what in ("step", "step_anew") if name in OURS or what == "step"]  # fmt: skip
        groups[f"step, batch {batch}"] = rows if "step" in kinds else []
    if asked.device == "cuda" and "rate" in kinds:
        for batch in (1, 8):
            groups[f"rate at 640, batch {batch}"] = [
                Row("rate", name, batch, 640, "cuda", asked.compile and name in OURS) for name in (*OURS, *PEERS)
            ]
    return {title: kept for title, rows in groups.items() if (kept := [row for row in rows if row.system in chosen])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--quick", action="store_true", help="one repeat of batch 1 at 256 pixels, to see that it runs; nothing is written"
    )
    parser.add_argument("--only", default="ground,step,rate", help="which groups")
    parser.add_argument("--systems", default=",".join((*OURS, *PEERS, FROZEN)))
    parser.add_argument("--compile", action="store_true", help="torch.compile ours in `rate`")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(2)
    if asked.child:
        child(Row(**json.loads(asked.child)))
        return
    result: dict[str, Any] = {
        "what": __doc__.splitlines()[0], "command": " ".join(["scripts/bench model_speed", *sys.argv[1:]]),
        "machine": machine(asked.device), "targets": TARGETS, "phrases": len(PHRASES), "seed": SEED, "groups": {},
    }  # fmt: skip
    name = "model_speed.json" if asked.device == "cpu" else "model_speed_cuda.json"
    for title, rows in plan(asked).items():
        result["groups"][title] = group(rows, 1 if asked.quick else asked.repeats)
        print(title, json.dumps(brief(result["groups"][title]), indent=1), flush=True)
        if not asked.quick:  # what was measured is kept, whatever ends the rest
            (ROOT / "benchmarks/results" / name).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
