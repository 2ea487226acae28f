"""Seconds, peak memory and counts of converting each real source, one fresh process a source.

Usage: scripts/bench conversion [--data DIR]      DIR holds the source folders; default MEDGLIP_REAL_DATA.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from medglip.curate import source_names

ROOT = Path(__file__).resolve().parents[1]
# `wait4` gives the peak of one child alone; ru_maxrss is in KiB on Linux.
KIB_PER_MIB = 1024


def converted(name: str, folder: Path) -> dict:
    """Figures of one conversion into a temporary dataset."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "medglip", "convert", name, str(folder), f"{scratch}/dataset", "--json"]
        begin = time.monotonic()
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        printed = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.monotonic() - begin
        child.returncode = os.waitstatus_to_exitcode(status)
        size = sum(path.stat().st_size for path in Path(scratch).rglob("*") if path.is_file())
    facts = json.loads(printed) if printed else {}
    return facts | {
        "exit_code": child.returncode,
        "seconds_with_start": round(seconds, 2),
        "peak_mib": round(usage.ru_maxrss / KIB_PER_MIB),
        "dataset_mb": round(size / 1e6, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("MEDGLIP_REAL_DATA", ROOT.parent / "shared/data")))
    data = parser.parse_args().data
    rows = []
    for name in source_names():
        folder = data / name.replace("_", "-")
        if folder.is_dir():
            rows.append(converted(name, folder))
            print(json.dumps(rows[-1]), flush=True)
    result = {"what": __doc__.splitlines()[0], "cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(),
              "python": platform.python_version(), "sources": rows}  # fmt: skip
    target = ROOT / "benchmarks/results/conversion.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{len(rows)} sources; written to {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
