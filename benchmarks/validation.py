"""Seconds and peak memory of validating 100,000 synthetic records, beside jsonschema and jsonschema-rs on documents.

Usage: scripts/bench validation [--images 100000] [--sample 1000] [--repeats 3]

The records are synthetic: the phantoms' images and regions (masks included), repeated under new ids. medglip checks the
whole dataset without opening pixels, and more rules than the schema has; the two others check the schema's rules on
documents that are already in memory: jsonschema a sample, scaled to all; jsonschema-rs ten times that sample, scaled.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from medglip import store
from medglip.store.manifest import totals
from medglip.store.schema import SCHEMAS

ROOT = Path(__file__).resolve().parents[1]
KIB_PER_MIB = 1024
# Columns with an id or a key: its first six digits become the number of the copy.
RENAMED = ("id", "image_id", "sha256", "group", "patient", "study", "series")
ROW_GROUP = {"images": 4096, "regions": 16384}

CHILD = """
import json, sys, time
from medglip.store.checks.validate import validate
wall, cpu = time.monotonic(), time.process_time()
problems = validate(sys.argv[1], check_pixels=False)
print(json.dumps({"seconds": time.monotonic() - wall, "cpu_seconds": time.process_time() - cpu, "problems": len(problems)}))
"""


def copy_of(table: pa.Table, number: int, rng: np.random.Generator) -> pa.Table:
    """The rows under the ids of one more copy."""
    digits = f"{number:06x}"
    for name in set(RENAMED).intersection(table.column_names):
        renamed = pc.utf8_replace_slice(table[name], 0, 6, digits)
        table = table.set_column(table.column_names.index(name), table.schema.field(name), renamed)
    if "parents" in table.column_names:
        lists = table["parents"].combine_chunks()
        values = pc.utf8_replace_slice(lists.flatten(), 0, 6, digits)
        at = table.column_names.index("parents")
        table = table.set_column(at, table.schema.field("parents"), pa.ListArray.from_arrays(lists.offsets, values))
    if "perceptual_hash" in table.column_names:
        hashes = [rng.bytes(8).hex() for _ in range(len(table))]
        at = table.column_names.index("perceptual_hash")
        table = table.set_column(at, table.schema.field("perceptual_hash"), pa.array(hashes))
    return table


def build(folder: Path, images: int) -> Path:
    """A dataset of that many synthetic images, with the shards of the phantoms that it repeats."""
    command = [sys.executable, "-m", "medglip"]
    subprocess.run([*command, "phantom", str(folder / "archive"), "--cases", "4"], check=True, capture_output=True)
    dataset = folder / "dataset"
    subprocess.run([*command, "convert", "phantom", str(folder / "archive"), str(dataset)], check=True, capture_output=True)
    manifest = json.loads((dataset / "manifest.json").read_text())
    for name in ("volumes", "texts", "rejects"):
        for file in dataset.glob(f"{name}/*.parquet"):
            pq.write_table(SCHEMAS[name].empty_table(), file)
    rng = np.random.default_rng(0)
    rows = {name: pa.concat_tables(map(pq.read_table, sorted(dataset.glob(f"{name}/*.parquet")))) for name in ROW_GROUP}
    place = rows["images"].column_names.index("n_texts")
    none = pa.array(np.zeros(len(rows["images"]), np.int32))
    rows["images"] = rows["images"].set_column(place, SCHEMAS["images"].field("n_texts"), none)
    whole, rest = divmod(images, len(rows["images"]))
    kept = pa.array(rows["images"]["id"].to_pylist()[:rest])
    parts = sorted(manifest["parts"])
    for name, table in rows.items():
        owner = "id" if name == "images" else "image_id"
        tail = table.filter(pc.is_in(table[owner], kept))
        copies = [copy_of(table.combine_chunks(), number, rng) for number in range(whole)]
        copies += [copy_of(tail.combine_chunks(), whole, rng)]
        files = sorted(dataset.glob(f"{name}/*.parquet"))
        for file in files[1:]:
            pq.write_table(SCHEMAS[name].empty_table(), file)
        joined = pa.concat_tables(copies).cast(SCHEMAS[name])
        pq.write_table(joined, files[0], compression="zstd", row_group_size=ROW_GROUP[name])
        for part in parts:
            manifest["parts"][part]["counts"][name] = len(joined) if part == parts[0] else 0
    for part in parts:
        manifest["parts"][part]["counts"].update(volumes=0, texts=0, rejects=0)
        manifest["parts"][part].pop("expected", None)
        for name, entry in manifest["parts"][part]["files"].items():
            content = (dataset / name).read_bytes()
            entry.update(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    manifest["counts"] = totals(manifest["parts"])
    (dataset / "manifest.json").write_text(json.dumps(manifest))
    return dataset


def ours(dataset: Path) -> dict:
    """Figures of one validation in a fresh process; the imports are not counted, the peak is the whole process's."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(dataset)], stdout=subprocess.PIPE, text=True)
    printed = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit("medglip's validation failed")
    return json.loads(printed) | {"peak_mib": round(usage.ru_maxrss / KIB_PER_MIB)}


def timed(check, documents: list[dict], images: int) -> dict:
    """Seconds of checking documents, scaled to all images; one thread, so CPU and wall time are alike."""
    wall, cpu = time.monotonic(), time.process_time()
    refused = sum(not check(document) for document in documents)
    scale = images / len(documents)
    found = {"seconds": (time.monotonic() - wall) * scale, "cpu_seconds": (time.process_time() - cpu) * scale}
    return found | {"refused": refused}


def main() -> None:
    import jsonschema
    import jsonschema_rs

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--sample", type=int, default=1_000, help="documents that jsonschema checks")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    schema = json.loads((ROOT / "schemas/record.schema.json").read_text("utf-8"))
    slow, fast = jsonschema.Draft202012Validator(schema), jsonschema_rs.validator_for(schema)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        dataset = build(Path(scratch), options.images)
        opened = store.open(dataset)
        regions, masks = (int(value) for value in opened.query("SELECT count(*), count(rle) FROM regions").iloc[0])
        mask_bytes = float(opened.query("SELECT avg(length(rle)) FROM regions").iloc[0, 0])
        documents = list(islice(opened.documents(), 10 * options.sample))
        for _ in range(options.repeats):
            load = os.getloadavg()[0]
            row = {
                "load_1min": round(load, 2),
                "medglip": ours(dataset),
                "jsonschema": timed(slow.is_valid, documents[: options.sample], options.images),
                "jsonschema_rs": timed(fast.is_valid, documents, options.images),
            }
            rows.append(row)
            print(json.dumps(row), flush=True)
    result = summary(rows) | {
        "what": __doc__.split("\n\n")[0], "synthetic": True, "images": options.images, "regions": regions, "masks": masks,
        "mean_mask_bytes": round(mask_bytes, 1), "jsonschema_documents": options.sample,
        "jsonschema_rs_documents": len(documents), "jsonschema_version": version("jsonschema"),
        "jsonschema_rs_version": version("jsonschema-rs"), "cores": os.cpu_count(),
        "cpu": platform.processor() or platform.machine(), "python": platform.python_version(), "repeats": rows,
    }  # fmt: skip
    target = ROOT / "benchmarks/results/validation.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "repeats"}, indent=1))


def summary(rows: list[dict]) -> dict:
    """Medians, and the ratios of each round with their spread."""
    result: dict = {"peak_mib": max(row["medglip"]["peak_mib"] for row in rows)}
    for name in ("medglip", "jsonschema", "jsonschema_rs"):
        for unit in ("seconds", "cpu_seconds"):
            result[f"{name}_{unit}"] = round(median(row[name][unit] for row in rows), 3)
    for unit in ("seconds", "cpu_seconds"):
        ratios = sorted(row["jsonschema"][unit] / row["medglip"][unit] for row in rows)
        result[f"times_faster_{unit}"] = {
            "median": round(median(ratios), 1), "least": round(ratios[0], 1), "most": round(ratios[-1], 1)
        }  # fmt: skip
    return result


if __name__ == "__main__":
    main()
