"""Cases a second with one and two workers, as processes and on Dask, and a model of a 64-core node made from them.

Usage: scripts/bench workers [--repeats 3] [--cases 6] [--slices 300] [--engines processes,dask] [--workers 1,2]

The cases are generated CT volumes with 20 labels (benchmarks/label_volume.py), read by `label_volumes`. Every run is a fresh
process, and the settings take turns, so that what else the machine does falls on all of them. Wall times are of `convert`
alone, with the start of the workers; CPU seconds are of the process that writes and of all workers.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from label_volume import write_volume

ROOT = Path(__file__).resolve().parents[1]
SIDE = 512
NODE_CORES = 64
REGIONS = 1_000_000
RUN = """
import json, resource, sys, time
from medglip.curate import convert

def peak():  # ru_maxrss would be that of the process that started this one, if that was larger
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

if __name__ == "__main__":
    folder, out, engine, workers = sys.argv[1:]
    import medglip.converters.label_volumes
    own = resource.getrusage(resource.RUSAGE_SELF)
    begin = time.monotonic()
    done = convert(f"{folder}/generated.toml", folder, out, workers=int(workers), engine=engine)
    seconds = time.monotonic() - begin
    now, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    print(json.dumps({
        "seconds": seconds, "cases": done.cases, "images": done.images, "regions": done.regions,
        "writer_cpu_s": now.ru_utime + now.ru_stime - own.ru_utime - own.ru_stime,
        "workers_cpu_s": others.ru_utime + others.ru_stime,
        "writer_peak_mib": peak() / 1024, "worker_peak_mib": others.ru_maxrss / 1024}))
"""
START = "import time, medglip.curate.engine, medglip.converters.label_volumes; print(time.process_time())"


def measured(script: Path, folder: Path, engine: str, workers: int) -> dict[str, Any]:
    """Figures of one run in a fresh process."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, str(script), str(folder), f"{scratch}/dataset", engine, str(workers)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        size = sum(path.stat().st_size for path in Path(scratch).rglob("*") if path.is_file())
    return {**json.loads(done.stdout.splitlines()[-1]), "dataset_mb": size / 1e6, "load": os.getloadavg()[0]}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Median and spread of runs of one setting."""
    names = ("seconds", "writer_cpu_s", "workers_cpu_s", "writer_peak_mib", "worker_peak_mib", "load")
    rates = [run["cases"] / run["seconds"] for run in runs]
    return {
        "cases_a_second": round(statistics.median(rates), 4),
        "lowest": round(min(rates), 4),
        "highest": round(max(rates), 4),
        **{name: round(statistics.median(run[name] for run in runs), 3) for name in names},
    }


def model(one: dict[str, Any], two: dict[str, Any], run: dict[str, Any], input_mb: float, start_s: float) -> dict[str, Any]:
    """What a million regions cost on a node, from CPU seconds, which other work on the machine moves less than wall time."""
    work_s = max(two["workers_cpu_s"] - 2 * start_s, 0.0)
    writer, worker = two["writer_cpu_s"] / run["regions"], work_s / run["regions"]
    alone_s = REGIONS * max(worker / (NODE_CORES - 1), writer)
    seconds = REGIONS * (worker + writer) / NODE_CORES
    input_gb, output_gb = (REGIONS / run["regions"] * mb / 1000 for mb in (input_mb, run["dataset_mb"]))
    return {
        "assumptions": [
            f"{NODE_CORES} cores like this one, all at work; no core waits for disk or network",
            "memory bandwidth and turbo clocks are left out: real nodes give less than cores times one core",
            "regions a case as in the generated volumes; as many shards as it takes for no writer to be waited for",
        ],
        "worker_cpu_ms_a_region": round(1000 * worker, 3),
        "writer_cpu_ms_a_region": round(1000 * writer, 3),
        "one_process_cpu_ms_a_region": round(1000 * one["writer_cpu_s"] / run["regions"], 3),
        "core_hours_a_million_regions": round(REGIONS * (worker + writer) / 3600, 3),
        "minutes_a_million_regions_on_the_node": round(seconds / 60, 2),
        "minutes_with_one_writer": round(alone_s / 60, 2),
        "workers_that_one_writer_can_serve": round(worker / writer, 1),
        "input_gb": round(input_gb, 1),
        "output_gb": round(output_gb, 1),
        "reading_mb_a_second": round(1000 * input_gb / seconds, 1),
        "writing_mb_a_second": round(1000 * output_gb / seconds, 1),
        "cpu_bound_speedup_of_two_workers_on_two_cores": round(2 * one["writer_cpu_s"] / (two["writer_cpu_s"] + work_s), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cases", type=int, default=6)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--engines", default="processes,dask")
    parser.add_argument("--workers", default="1,2")
    asked = parser.parse_args()
    settings = [(engine, int(workers)) for engine in asked.engines.split(",") for workers in asked.workers.split(",")]
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {setting: [] for setting in settings}
    with tempfile.TemporaryDirectory() as scratch:
        folder, script = Path(scratch) / "in", Path(scratch) / "run.py"
        folder.mkdir()
        script.write_text(RUN, "utf-8")
        write_volume(folder, (asked.slices, SIDE, SIDE), asked.cases)
        input_mb = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
        for repeat in range(asked.repeats):
            for setting in settings:
                runs[setting].append(measured(script, folder, *setting))
                print(f"repeat {repeat}, {setting[0]} {setting[1]}: {runs[setting][-1]['seconds']:.1f} s", flush=True)
        begun = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=True)
        start_s = float(begun.stdout)
    rows = [{"engine": engine, "workers": workers, **summary(runs[engine, workers])} for engine, workers in settings]
    found = {(row["engine"], row["workers"]): row for row in rows}
    one, two = found.get(("processes", 1)), found.get(("processes", 2))
    pairs = [engine for engine, workers in settings if workers == 2 and (engine, 1) in found]
    result = {
        "what": __doc__.splitlines()[0],
        "data": f"{asked.cases} generated volumes {SIDE}x{SIDE}x{asked.slices}, 20 labels",
        "cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version(), "repeats": asked.repeats,
        "images": runs[settings[0]][0]["images"], "regions": runs[settings[0]][0]["regions"],
        "worker_start_cpu_s": round(start_s, 2), "rows": rows,
        "speedup_of_two_workers": {
            engine: round(found[engine, 2]["cases_a_second"] / found[engine, 1]["cases_a_second"], 3) for engine in pairs
        },
        "model": model(one, two, runs["processes", 2][0], input_mb, start_s) if one and two else None,
    }  # fmt: skip
    target = ROOT / "benchmarks/results/workers.json"
    target.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps({name: result[name] for name in ("rows", "speedup_of_two_workers", "model")}, indent=1))


if __name__ == "__main__":
    main()
