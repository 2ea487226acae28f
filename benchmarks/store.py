"""Tables of 5.3 million synthetic regions: writing, opening, queries and lookup in fresh processes, beside COCO JSON.

Usage: scripts/bench store [--scale 1.0] [--repeats 3] [--folder DIR]

The rows are synthetic, written by the store's own table writer; there are no pixels. COCO JSON holds a tenth of the rows,
loaded by pycocotools in the same run; figures for all rows are that times ten, which is an extrapolation.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

ROOT = Path(__file__).resolve().parents[1]
IMAGES, REGIONS, PARTS, COCO_SHARE = 1_300_000, 5_300_000, 20, 10
MANY_PARTS = 2000
RLE_BYTES = 119
MODALITIES = ("ct", "mr", "xray", "ultrasound", "endoscopy", "dermoscopy", "fundus")
LABELS = 198
QUERIES = {
    "group": """SELECT modality, len(string_split(label, '.')) AS level, split, count(*) AS n
                FROM regions GROUP BY ALL ORDER BY ALL""",
    "small_lesions": """SELECT label, count(*) AS n FROM regions
                        WHERE modality = 'ct' AND long_axis_mm < 10 GROUP BY label ORDER BY n DESC LIMIT 10""",
    "phrase": "SELECT count(*) AS n FROM regions WHERE list_contains(phrases, 'left lung')",
}
TASKS = ("open", *QUERIES, "lookup", "label_column")


def ids_of(numbers: np.ndarray) -> pa.Array:
    """16 hex digits for each number, as evenly spread as hashes."""
    mixed = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    nibbles = (mixed[:, None] >> np.arange(60, -4, -4, dtype=np.uint64)) & np.uint64(15)
    return _strings(digits[nibbles.astype(np.intp)])


def _strings(characters: np.ndarray) -> pa.Array:
    """Strings of equal length from ASCII codes, uint8 (n, length)."""
    count, length = characters.shape
    offsets = np.arange(count + 1, dtype=np.int32) * np.int32(length)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets.tobytes()), pa.py_buffer(characters.tobytes()))


def _chosen(values: list[str], picks: np.ndarray) -> pa.Array:
    return pa.array(values, pa.string()).take(pa.array(picks))


def _whole(name: str, rows: int, given: dict[str, pa.Array]) -> pa.Table:
    """A table of the schema; columns that are not given are empty or of one value."""
    from medglip.store.schema import SCHEMAS

    columns = []
    for field in SCHEMAS[name]:
        if field.name in given:
            columns.append(given[field.name].cast(field.type))
        elif field.nullable:
            columns.append(pa.nulls(rows, field.type))
        elif pa.types.is_list(field.type):
            columns.append(pa.array([[]] * rows, field.type))
        else:
            empty = "{}" if field.name in ("modality_detail", "attributes") else "synthetic"
            value = empty if pa.types.is_string(field.type) else pa.scalar(0).cast(field.type).as_py()
            columns.append(pa.array([value] * rows, field.type))
    return pa.table(columns, schema=SCHEMAS[name])


def synthetic_part(part: int, images: int, regions: int, first: int) -> dict[str, pa.Table]:
    """The tables of one part: images, and regions in their order."""
    from medglip.records.labels import label_tree

    rng = np.random.default_rng(part)
    tree = label_tree()
    labels = sorted(label.id for label in tree)[:: max(1, len(tree) // LABELS)][:LABELS]
    per_image = rng.multinomial(regions, np.full(images, 1 / images))
    modality, split = rng.integers(0, 7, images), rng.choice(3, images, p=(0.8, 0.1, 0.1))
    image_ids = ids_of(np.arange(first, first + images) + 1)
    splits = ["train", "val", "test"]
    table = {
        "id": image_ids,
        "sha256": _strings(np.frombuffer(b"0123456789abcdef", np.uint8)[rng.integers(0, 16, (images, 64))]),
        "perceptual_hash": ids_of(rng.integers(0, 2**62, images)),
        "shard": _chosen([f"shards/part-{part:02d}-{n:05d}.tar" for n in range(8)], np.arange(images) * 8 // images),
        "tar_offset": pa.array(np.arange(images, dtype=np.int64) * 100_000),
        "tar_bytes": pa.array(rng.integers(5e4, 1e5, images)),
        "width": pa.array(np.full(images, 512)), "height": pa.array(np.full(images, 512)),
        "modality": _chosen(list(MODALITIES), modality), "split": _chosen(splits, split),
        "group": ids_of(np.arange(first, first + images) // 20), "case": ids_of(np.arange(first, first + images) // 5),
        "n_regions": pa.array(per_image), "channels": pa.array(np.ones(images)), "bits": pa.array(np.full(images, 8)),
        "slope": pa.array(np.ones(images)), "window_high": pa.array(np.full(images, 255.0)),
        "unit": _chosen(["au"], np.zeros(images, np.int64)), "split_source": _chosen(["hash"], np.zeros(images, np.int64)),
    }  # fmt: skip
    owner = np.repeat(np.arange(images), per_image)
    label = np.minimum(rng.zipf(1.3, regions) - 1, len(labels) - 1)
    x0, y0, sides = rng.random(regions) * 400, rng.random(regions) * 400, np.minimum(rng.lognormal(3, 0.8, (regions, 2)), 110)
    axis = np.round(np.sort(sides, axis=1), 2)
    phrases = [[tree.name(name)] for name in labels] + [["left lung"]]
    spoken = np.where(rng.random(regions) < 0.01, len(labels), label)
    names = _chosen(labels, label)
    rows = {
        "id": ids_of(np.arange(regions) + first * 8), "image_id": image_ids.take(pa.array(owner)), "label": names,
        "concept": names, "modality": _chosen(list(MODALITIES), modality[owner]), "split": _chosen(splits, split[owner]),
        "x0": pa.array(x0), "y0": pa.array(y0), "x1": pa.array(x0 + sides[:, 0]), "y1": pa.array(y0 + sides[:, 1]),
        "phrases": pa.array(phrases, pa.list_(pa.string())).take(pa.array(spoken)),
        "phrase_kinds": pa.array([["name"]], pa.list_(pa.string())).take(pa.array(np.zeros(regions, np.int64))),
        "provenance": _chosen(["human"], np.zeros(regions, np.int64)),
        "area_px": pa.array((sides[:, 0] * sides[:, 1]).astype(np.int64)),
        "long_axis_mm": pa.array(axis[:, 1]), "short_axis_mm": pa.array(axis[:, 0]),
        "width_mm": pa.array(sides[:, 0] * 0.7), "height_mm": pa.array(sides[:, 1] * 0.7),
        "rle": _strings(rng.integers(48, 112, (regions, RLE_BYTES), dtype=np.uint8)),
    }  # fmt: skip
    return {"images": _whole("images", images, table), "regions": _whole("regions", regions, rows)}


def write_dataset(folder: Path, scale: float) -> dict[str, float]:
    """A dataset of synthetic tables; seconds and bytes of what the store did, without making the rows."""
    from medglip.store.commit import Committer, staging
    from medglip.store.place import Place
    from medglip.store.schema import TABLES
    from medglip.store.tables import Counts, TableFile

    images, regions = int(IMAGES * scale) // PARTS, int(REGIONS * scale) // PARTS
    committer, seconds, written = Committer(Place(folder)), 0.0, 0
    for part in range(PARTS):
        tables = synthetic_part(part, images, regions, part * images)
        begin = time.perf_counter()
        with staging(committer.place, "synthetic") as scratch:
            counts, files = Counts(), {}
            for name in TABLES:
                writer = TableFile(scratch, name)
                if name in tables:
                    writer.write(tables[name])
                    counts.add(name, tables[name])
                file = writer.close()
                files[f"{name}/part-{part:02d}-{file.sha256[:12]}.parquet"] = file
            entry = {
                "source": "synthetic", "licence": "CC0-1.0", "counts": counts.document(),
                "files": {name: {"bytes": file.size, "sha256": file.sha256} for name, file in files.items()},
            }  # fmt: skip
            written += sum(file.size for file in files.values())
            committer.commit(lambda manifest, part=part, entry=entry: {**manifest["parts"], f"part-{part:02d}": entry}, files)
        seconds += time.perf_counter() - begin
    return {
        "images": images * PARTS, "regions": regions * PARTS, "seconds": round(seconds, 2), "mb": round(written / 1e6, 1),
        "regions_per_s": round(regions * PARTS / seconds), "images_per_s": round(images * PARTS / seconds),
        "bytes_per_region": round(written / (regions * PARTS), 1),
    }  # fmt: skip


def write_coco(dataset: Path, target: Path, share: int) -> int:
    """One of every ``share`` parts' rows as COCO JSON; number of annotations."""
    from medglip import store

    opened = store.open(dataset)
    count = opened.manifest["counts"]["regions"] // share
    columns = ["image_id", "label", "x0", "y0", "x1", "y1", "area_px", "rle", "modality", "split", "phrases"]
    table = opened.arrow("regions", columns).slice(0, count)
    numbers: dict[str, int] = {}
    categories: dict[str, int] = {}
    annotations = []
    for number, row in enumerate(table.to_pylist(), 1):
        image = numbers.setdefault(row["image_id"], len(numbers) + 1)
        annotations.append({
            "id": number, "image_id": image, "category_id": categories.setdefault(row["label"], len(categories) + 1),
            "bbox": [row["x0"], row["y0"], row["x1"] - row["x0"], row["y1"] - row["y0"]], "area": row["area_px"], "iscrowd": 0,
            "segmentation": {"size": [512, 512], "counts": row["rle"]},
            "modality": row["modality"], "split": row["split"], "phrase": row["phrases"][0],
        })  # fmt: skip
    document = {
        "images": [{"id": n, "file_name": f"{name}.png", "width": 512, "height": 512} for name, n in numbers.items()],
        "annotations": annotations,
        "categories": [{"id": n, "name": name} for name, n in categories.items()],
    }
    with target.open("w") as file:
        json.dump(document, file)
    return count


def question(dataset: str, task: str, image: str) -> object:
    """One task on an opened dataset."""
    from medglip import store

    opened = store.open(dataset)
    if task in QUERIES:
        return opened.query(QUERIES[task]).iloc[0].tolist()
    if task == "lookup":
        return len(opened.record(image).regions)
    if task == "label_column":
        return int((opened.regions["label"] == "thorax.lung").sum())
    return len(opened)


def coco_question(file: str) -> object:
    """Loading COCO JSON and the group-by question."""
    from collections import Counter

    from pycocotools.coco import COCO

    loaded = COCO(file)
    names = {number: category["name"].count(".") + 1 for number, category in loaded.cats.items()}
    found = Counter((row["modality"], names[row["category_id"]], row["split"]) for row in loaded.dataset["annotations"])
    return len(found)


def child(task: str, path: str, image: str) -> None:
    """In a fresh process: time of a task without imports, peak memory of all."""
    import duckdb  # noqa: F401  (imported before the clock starts, as are the others)
    import pandas as pd  # noqa: F401

    import medglip.store  # noqa: F401

    before = _peak_mib()
    begin = time.perf_counter()
    answer = coco_question(path) if task == "coco" else question(path, task, image)
    seconds = time.perf_counter() - begin
    found = {"seconds": seconds, "peak_mib": _peak_mib(), "peak_after_imports_mib": before, "answer": answer}
    print(json.dumps(found, default=str))


def _peak_mib() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def measured(task: str, path: Path, image: str, repeats: int) -> dict[str, Any]:
    """Median and range of the seconds, highest peak, over fresh processes."""
    command = [sys.executable, __file__, "--child", task, str(path), image]
    runs = []
    for _ in range(repeats):
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    seconds = [run["seconds"] for run in runs]
    return {
        "seconds": round(statistics.median(seconds), 4), "seconds_range": [round(min(seconds), 4), round(max(seconds), 4)],
        "peak_mib": round(max(run["peak_mib"] for run in runs)),
        "peak_after_imports_mib": round(max(run["peak_after_imports_mib"] for run in runs)), "answer": runs[0]["answer"],
    }  # fmt: skip


def cost_of_parts(folder: Path, parts: int, images: int = 20) -> dict[str, Any]:
    """Seconds of one more part, by one Writer, early and late; the images are 16 x 16 pixels of noise."""
    from medglip import store
    from medglip.records.picture import Picture
    from medglip.records.record import ImageRecord, Origin

    def pictures(part: int) -> list[Picture]:
        pixels = np.random.default_rng(part).integers(0, 256, (images, 16, 16), np.uint8)
        origins = [Origin("synthetic", f"{part}/{n}.png", f"{part}") for n in range(images)]
        return [
            Picture(ImageRecord(f"{part:08d}{n:08d}", store.pixel_sha256(one), 16, 16, 1, 8, "ct", origin, "CC0-1.0"), one)
            for n, (one, origin) in enumerate(zip(pixels, origins, strict=True))
        ]

    writer, seconds = store.Writer(folder), []
    for part in range(parts):
        mine = pictures(part)
        info = {"source": "synthetic", "cases": {f"{part}-{n}": ["0" * 16, 1] for n in range(images)}}
        begin = time.perf_counter()
        writer.write(f"part-{part:06d}", mine, info=info)
        seconds.append(time.perf_counter() - begin)
    tenth = max(1, parts // 10)
    early, late = statistics.median(seconds[:tenth]), statistics.median(seconds[-tenth:])
    size = (folder / "manifest.json").stat().st_size
    return {
        "parts": parts, "images_a_part": images, "first_tenth_s": round(early, 4), "last_tenth_s": round(late, 4),
        "late_over_early": round(late / early, 2), "manifest_mb": round(size / 1e6, 2),
    }  # fmt: skip


def figures(folder: Path, scale: float, repeats: int, say: Callable[[str], None]) -> dict[str, Any]:
    """All figures."""
    from medglip import store

    written = write_dataset(folder / "dataset", scale)
    say(json.dumps({"write": written}))
    ids = store.open(folder / "dataset").arrow("images", ["id"])["id"]
    image = ids[len(ids) * 2 // 3].as_py()
    rows: dict[str, Any] = {}
    for task in TASKS:
        rows[task] = measured(task, folder / "dataset", image, repeats)
        say(json.dumps({task: rows[task]}))
    annotations = write_coco(folder / "dataset", folder / "coco.json", COCO_SHARE)
    coco = measured("coco", folder / "coco.json", "-", max(1, repeats - 1))
    coco |= {"annotations": annotations, "mb": round((folder / "coco.json").stat().st_size / 1e6, 1)}
    whole = {"seconds": round(coco["seconds"] * COCO_SHARE, 1), "peak_mib": coco["peak_mib"] * COCO_SHARE}
    ratio = {name: round(whole[name] / rows["group"][name], 1) for name in ("seconds", "peak_mib")}
    parts = cost_of_parts(folder / "parts", max(20, int(MANY_PARTS * scale)))
    say(json.dumps({"parts": parts}))
    return {
        "write": written,
        "parts": parts,
        "read": rows,
        "coco": coco,
        "coco_extrapolated": whole,
        "coco_over_group_query": ratio,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rows; the results are kept for 1.0 only")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the dataset is made; default: a temporary folder")
    parser.add_argument("--child", nargs=3)
    given = parser.parse_args()
    if given.child:
        child(*given.child)
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        found = figures(Path(scratch), given.scale, given.repeats, lambda line: print(line, flush=True))
    result = {
        "what": __doc__.splitlines()[0], "synthetic": True, "scale": given.scale, "repeats": given.repeats,
        "cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "python": platform.python_version(),
        "load_at_end": os.getloadavg()[0], **found,
    }  # fmt: skip
    if given.scale == 1.0:
        target = ROOT / "benchmarks/results/store.json"
        target.write_text(json.dumps(result, indent=1) + "\n")
        print(f"written to {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
