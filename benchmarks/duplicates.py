"""Near duplicates: seconds and memory for a million random hashes, and rates of right and wrong matches on real images.

Usage: scripts/bench duplicates [--hashes N] [--dataset DATASET]    DATASET: converted real images, for the rates.
"""

import argparse
import io
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from medglip import store
from medglip.store.groups.duplicates import (
    CORRELATION,
    DISTANCE,
    FAMILY_CORRELATION,
    FAMILY_DISTANCE,
    near_hashes,
    signature,
)
from medglip.store.groups.lineage import images_to_group, linked_by_keys

ROOT = Path(__file__).resolve().parents[1]
PLANTED = 1000  # neighbours of each distance
WITHIN_A_CLUSTER = 12  # bits that vary in images of one kind, such as frontal chest X-rays


def synthetic(count: int, kind: str) -> dict:
    """Search among synthetic hashes with planted neighbours; ``alike``: all of them near one of 100 prototypes."""
    rng = np.random.default_rng(0)
    if kind == "random":
        hashes = rng.integers(0, 2**63, count, dtype=np.uint64) << np.uint64(1)
    else:
        hashes = rng.integers(0, 2**63, 100, dtype=np.uint64)[rng.integers(0, 100, count)]
        for _ in range(WITHIN_A_CLUSTER):
            hashes ^= np.uint64(1) << rng.integers(0, 64, count, dtype=np.uint64)
    planted = []
    for distance in range(DISTANCE + 1):
        one, other = rng.choice(count, (2, PLANTED), replace=False)
        hashes[other] = hashes[one]
        for row in other:
            for bit in rng.choice(64, distance, replace=False):
                hashes[row] ^= np.uint64(1) << np.uint64(bit)
        planted += [(one, other)]
    begin = time.monotonic()
    found = near_hashes(hashes, DISTANCE, [np.arange(count)])
    seconds = time.monotonic() - begin
    pairs = set(map(tuple, found.pairs.tolist()))
    near = [
        (int(min(a, b)), int(max(a, b)))
        for one, other in planted
        for a, b in zip(one, other, strict=True)
        if int(hashes[a] ^ hashes[b]).bit_count() <= DISTANCE  # a later plant may have moved an earlier one
    ]
    return {
        "hashes": count, "kind": f"synthetic, {kind}", "bits": DISTANCE, "seconds": round(seconds, 2),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024), "pairs": len(found.pairs),
        "planted": len(near), "planted_found": sum(pair in pairs for pair in near), "crowded": found.crowded,
    }  # fmt: skip


def copies(shown: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Ways in which a copy of an image comes back."""
    height, width = shown.shape[:2]
    image, values = Image.fromarray(shown), shown.astype(np.float32)
    for quality in (50, 20):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        yield f"JPEG, quality {quality}", np.asarray(Image.open(buffer))
    yield "resized to half", np.asarray(image.resize((max(1, width // 2), max(1, height // 2)), Image.Resampling.BICUBIC))
    yield "resized to 256 x 256", np.asarray(image.resize((256, 256), Image.Resampling.BILINEAR))
    yield "gamma 0.7", (255 * (values / 255) ** 0.7).astype(np.uint8)
    yield "contrast +25 %", np.clip((values - 127.5) * 1.25 + 127.5, 0, 255).astype(np.uint8)
    yield "window of 60 %", np.clip((values - 51) / 153 * 255, 0, 255).astype(np.uint8)
    yield "histogram equalised", np.asarray(ImageOps.equalize(image))
    for percent in (2, 5):
        y, x = round(height * percent / 200), round(width * percent / 200)
        yield f"cropped by {percent} %", shown[y : height - y, x : width - x]


def hashed(shown: np.ndarray) -> int:
    return int(store.perceptual_hash(shown), 16)


def rates(path: Path, side: int) -> dict:
    """Of copies of real images, how many are found; of pairs of different groups, how many are taken for copies."""
    dataset = store.open(path)
    rows, seen = [], {"hash": [], "signature": []}
    images = images_to_group(dataset)
    for position in images["position"]:
        shown = dataset.display(int(position))
        if max(shown.shape[:2]) > side:
            image = Image.fromarray(shown)
            image.thumbnail((side, side), Image.Resampling.BILINEAR)
            shown = np.asarray(image)
        mine, own = signature(shown), hashed(shown)
        seen["hash"].append(own)
        seen["signature"].append(mine)
        for name, copy in copies(shown):
            rows.append((name, (hashed(copy) ^ own).bit_count(), float(signature(copy) @ mine)))
    frame = pd.DataFrame(rows, columns=["copy", "bits", "correlation"])
    strict = (frame["bits"] <= DISTANCE) & (frame["correlation"] >= CORRELATION)
    loose = (frame["bits"] <= FAMILY_DISTANCE) & (frame["correlation"] >= FAMILY_CORRELATION)
    found = frame.assign(found=strict, found_in_family=loose).groupby("copy", sort=False)[["found", "found_in_family"]].mean()
    group, _ = linked_by_keys(dataset, images)
    hashes, looks = np.array(seen["hash"], np.uint64), np.array(seen["signature"], np.float32)
    a, b = np.triu_indices(len(images), 1)
    a, b = (side[group[a] != group[b]] for side in (a, b))
    bits = np.bitwise_count(hashes[a] ^ hashes[b])
    alike = np.concatenate([np.einsum("ij,ij->i", looks[x], looks[y]) for x, y in _blocks(a, b)])
    sources = images["dataset"].to_numpy()
    foreign = sources[a] != sources[b]
    near = np.flatnonzero((bits <= FAMILY_DISTANCE) | (alike >= 0.8))
    near = near[np.argsort(-alike[near])][:12]
    return {
        "images": len(images), "sources": int(images["dataset"].nunique()), "longest_side_px": side,
        "copies": {str(name): {key: round(float(row[key]), 3) for key in row.index} for name, row in found.iterrows()},
        "pairs_of_different_groups": len(a),
        "taken_for_copies": int(((bits <= DISTANCE) & (alike >= CORRELATION)).sum()),
        "by_hash_alone": int((bits <= DISTANCE).sum()),
        "by_correlation_alone": int((alike >= CORRELATION).sum()),
        "pairs_of_different_sources": int(foreign.sum()),
        "taken_for_copies_in_family": int((foreign & (bits <= FAMILY_DISTANCE) & (alike >= FAMILY_CORRELATION)).sum()),
        "by_hash_alone_in_family": int((foreign & (bits <= FAMILY_DISTANCE)).sum()),
        "most_alike": [[str(sources[a[at]]), str(sources[b[at]]), int(bits[at]), round(float(alike[at]), 3)] for at in near],
    }  # fmt: skip


def _blocks(a: np.ndarray, b: np.ndarray, size: int = 4096) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(a), size):
        yield a[start : start + size], b[start : start + size]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hashes", type=int, default=1_300_000)
    parser.add_argument("--dataset", type=Path, help="a converted dataset of real images")
    parser.add_argument("--side", type=int, default=512, help="images are shrunk to this side first")
    parser.add_argument("--alone", choices=["random", "alike"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        print(json.dumps(synthetic(given.hashes, given.alone)))
        return
    target = ROOT / "benchmarks/results/duplicates.json"
    result = {"what": __doc__.splitlines()[0], "cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(),
              "python": platform.python_version(), "numpy": np.__version__,
              "thresholds": {"bits": DISTANCE, "correlation": CORRELATION, "bits_in_family": FAMILY_DISTANCE,
                             "correlation_in_family": FAMILY_CORRELATION}, "search": []}  # fmt: skip
    for kind in ("random", "alike"):  # a process each, so that each has its own peak
        command = [sys.executable, __file__, "--hashes", str(given.hashes), "--alone", kind]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        result["search"].append(json.loads(done.stdout))
        print(done.stdout.strip(), flush=True)
    if given.dataset:
        result["rates"] = rates(given.dataset, given.side)
        print(json.dumps(result["rates"], indent=1))
    target.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
