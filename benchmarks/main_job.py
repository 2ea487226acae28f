"""The main job from end to end, on phantoms or (--real) on real sources: figures on held-out patients, and time.

Usage: scripts/bench main_job [--real] [--minutes M | --steps N] [--seed S] [--keep DIR]
       scripts/bench main_job --of DIR       the figures of a run that `scripts/demo` has finished there
Writes benchmarks/results/demo.json or real.json. The peer is in the same run: the same model without modality
conditioning, trained side by side; with --real also the untrained model.
"""

import argparse
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch

from medglip.demo import run_demo

ROOT = Path(__file__).resolve().parents[1]


def figures_of(folder: Path) -> dict[str, Any]:
    """What a finished run measured, with what it was asked for and the machine."""
    plan, summary = (json.loads((folder / name).read_text("utf-8")) for name in ("demo.json", "summary.json"))
    judged = json.loads((folder / "run" / "figures.json").read_text("utf-8"))
    return {
        "what": __doc__.splitlines()[0],
        "data": "real sources" if plan["real"] else "synthetic phantoms",
        "plan": plan,
        "seconds_without_installation": summary["seconds"],
        "training_cpu_seconds_of_one_model": judged["training_cpu_seconds"],
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "summary": summary,
        **{name: judged[name] for name in ("by_source", "by_modality", "by_level")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", action="store_true", help="real sources, from MEDGLIP_REAL_DATA")
    parser.add_argument("--minutes", type=float, help="wall time of the trainings, one core each")
    parser.add_argument("--steps", type=int, default=0, help="steps of the trainings instead, whatever time they take")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="where to leave the run; default: a temporary folder")
    parser.add_argument("--of", type=Path, help="run nothing: take the figures of a finished run")
    asked = parser.parse_args()
    data = Path(os.environ.get("MEDGLIP_REAL_DATA", ROOT.parent / "shared/data")) if asked.real else None
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.of or asked.keep or Path(scratch) / "demo"
        if asked.of is None:
            run_demo(folder, real=data, minutes=asked.minutes, steps=asked.steps, seed=asked.seed)
        result = figures_of(folder)
    target = ROOT / "benchmarks/results" / ("real.json" if result["plan"]["real"] else "demo.json")
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written to {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
