"""The main job from end to end, on phantoms or (--real) on real sources: figures on held-out patients, and time.

Usage: scripts/bench main_job [--real] [--minutes M | --steps N] [--seed S] [--keep DIR]
Writes benchmarks/results/demo.json or real.json. The peer is in the same run: the same model without modality
conditioning, trained side by side; with --real also the untrained model.
"""

import argparse
import json
import os
import platform
import resource
import tempfile
import time
from pathlib import Path

import torch

from medglip.demo import run_demo

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", action="store_true", help="real sources, from MEDGLIP_REAL_DATA")
    parser.add_argument("--minutes", type=float, help="wall time of the trainings, one core each")
    parser.add_argument("--steps", type=int, default=0, help="steps of the trainings instead, whatever time they take")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="where to leave the run; default: a temporary folder")
    asked = parser.parse_args()
    data = Path(os.environ.get("MEDGLIP_REAL_DATA", ROOT.parent / "shared/data")) if asked.real else None
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.keep or Path(scratch) / "demo"
        begun = time.monotonic()
        page = run_demo(folder, real=data, minutes=asked.minutes, steps=asked.steps, seed=asked.seed)
        seconds = time.monotonic() - begun
        summary = json.loads((page.parent / "summary.json").read_text())
        figures = json.loads((page.parent / "run" / "figures.json").read_text())
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    result = {
        "what": __doc__.splitlines()[0],
        "data": "real sources" if asked.real else "synthetic phantoms",
        "seed": asked.seed,
        "wall_seconds": round(seconds, 1),
        "training_cpu_seconds": figures["training_cpu_seconds"],
        "cpu_seconds": round(sum(one.ru_utime + one.ru_stime for one in used), 1),
        "peak_mib_of_one_process": round(max(one.ru_maxrss for one in used) / 1024),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "summary": summary,
        "by_source": figures["by_source"],
        "by_modality": figures["by_modality"],
        "by_level": figures["by_level"],
    }
    target = ROOT / "benchmarks/results" / ("real.json" if asked.real else "demo.json")
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written to {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
