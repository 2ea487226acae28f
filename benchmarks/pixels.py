"""Random reads of pixels a second, cold and warm: medglip's tar shards beside loose PNG files and Hugging Face Arrow.

Usage: scripts/bench pixels [--images 4000] [--reads 1000] [--repeats 7] [--folder DIR]

The images are synthetic (512 x 512, smooth shapes with noise). The three layouts hold the same PNG bytes and are read in
turn, in one order that is new for each repeat; `bytes` reads the PNG, `pixels` decodes it as well. Cold means that this
script's own files were given up by posix_fadvise(DONTNEED); below a virtual machine the host may still keep them.
"""

import argparse
import gc
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SIDE = 512
LAYOUTS = ("medglip", "png_files", "hugging_face_arrow")

Reader = Callable[[int], Any]


def image(number: int) -> np.ndarray:
    """A synthetic grey image: two smooth shapes and noise."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    smooth = sum(np.exp(-((x - cx) ** 2 + (y - cy) ** 2) * 20) * 90 for cx, cy in rng.random((2, 2)))
    return np.clip(smooth + rng.normal(30, 6, (SIDE, SIDE)), 0, 255).astype(np.uint8)


def write_layouts(folder: Path, count: int) -> dict[str, float]:
    """The three layouts of the same images; seconds of writing each, with making the images and PNGs left out."""
    import datasets as hugging_face
    from medglip import store
    from medglip.records.picture import Picture
    from medglip.records.record import ImageRecord, Origin

    def pictures() -> Iterable[Picture]:
        for number in range(count):
            pixels = image(number)
            origin = Origin("synthetic", f"{number}.png", str(number))
            sha256 = store.pixel_sha256(pixels)
            yield Picture(ImageRecord(f"{number:016d}", sha256, SIDE, SIDE, 1, 8, "ct", origin, "CC0-1.0"), pixels)

    begin = time.perf_counter()
    store.Writer(folder / "medglip").write("synthetic", pictures())
    seconds = {"medglip_with_png_encoding_and_hashing": round(time.perf_counter() - begin, 2)}
    dataset = store.open(folder / "medglip")
    pngs = [dataset.place.read_range(*dataset.stored(number)) for number in range(count)]
    begin = time.perf_counter()
    (folder / "png_files").mkdir()
    for number, png in enumerate(pngs):
        (folder / "png_files" / f"{number:016d}.png").write_bytes(png)
    seconds["png_files"] = round(time.perf_counter() - begin, 2)
    begin = time.perf_counter()
    features = hugging_face.Features({"png": hugging_face.Value("binary")})
    hugging_face.Dataset.from_dict({"png": pngs}, features=features).save_to_disk(str(folder / "hugging_face_arrow"))
    seconds["hugging_face_arrow"] = round(time.perf_counter() - begin, 2)
    os.sync()
    return seconds


def readers(folder: Path, layout: str) -> tuple[Reader, Reader]:
    """What reads the PNG of an image by its number, and what decodes it too, opened anew."""
    from medglip import store
    from medglip.store.pixels import pixels_of_png

    if layout == "medglip":
        dataset = store.open(folder / layout)
        dataset.stored(0)
        return lambda number: dataset.place.read_range(*dataset.stored(number)), dataset.pixels
    if layout == "png_files":
        names = [str(folder / layout / f"{number:016d}.png") for number in range(len(os.listdir(folder / layout)))]

        def png(number: int) -> bytes:
            with open(names[number], "rb") as file:
                return file.read()
    else:
        import datasets as hugging_face

        rows = hugging_face.load_from_disk(str(folder / layout))

        def png(number: int) -> bytes:
            return rows[number]["png"]

    return png, lambda number: pixels_of_png(png(number), layout)


def give_up(folder: Path) -> None:
    """Ask the system to forget what it keeps in memory of the files of a folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def rate(folder: Path, layout: str, order: list[int], *, decode: bool, cold: bool) -> float:
    """Images a second of one pass over some images."""
    gc.collect()  # a mapped file that is still open is not given up
    if cold:
        give_up(folder / layout)
    read = readers(folder, layout)[decode]
    if not cold:
        for number in order:
            readers_keep = read(number)
        del readers_keep
    begin = time.perf_counter()
    for number in order:
        read(number)
    return len(order) / (time.perf_counter() - begin)


def check_equal(folder: Path, order: list[int]) -> None:
    """All layouts give the same bytes and pixels."""
    for number in order[:50]:
        found = [[read(number) for read in readers(folder, layout)] for layout in LAYOUTS]
        if not all(png == found[0][0] and np.array_equal(pixels, found[0][1]) for png, pixels in found):
            raise SystemExit(f"image {number} differs between the layouts")


def figures(folder: Path, count: int, reads: int, repeats: int) -> dict[str, Any]:
    """Rates of all layouts, and medglip's over the best other one, repeat by repeat."""
    seconds = write_layouts(folder, count)
    check_equal(folder, np.random.default_rng(0).permutation(count).tolist())
    result: dict[str, Any] = {"write_seconds": seconds}
    for what, cold in (("bytes", True), ("bytes", False), ("pixels", True), ("pixels", False)):
        runs: dict[str, list[float]] = {layout: [] for layout in LAYOUTS}
        for repeat in range(repeats):
            order = np.random.default_rng(repeat + 1).permutation(count)[:reads].tolist()
            for layout in np.roll(LAYOUTS, repeat).tolist():  # none is always the first
                runs[layout].append(rate(folder, layout, order, decode=what == "pixels", cold=cold))
        ratios = [
            runs["medglip"][repeat] / max(runs[layout][repeat] for layout in LAYOUTS if layout != "medglip")
            for repeat in range(repeats)
        ]
        name = f"{what}_{'cold' if cold else 'warm'}"
        result[name] = {layout: {"median": round(statistics.median(rates)), "range": [round(min(rates)), round(max(rates))]}
                        for layout, rates in runs.items()}  # fmt: skip
        result[name]["medglip_over_best_other"] = {
            "median": round(statistics.median(ratios), 2), "range": [round(min(ratios), 2), round(max(ratios), 2)],
        }  # fmt: skip
        print(json.dumps({name: result[name]}), flush=True)
    sizes = {layout: sum(p.stat().st_size for p in (folder / layout).rglob("*") if p.is_file()) for layout in LAYOUTS}
    return result | {"mb": {layout: round(size / 1e6, 1) for layout, size in sizes.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--reads", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where the layouts are made; default: a temporary folder")
    parser.add_argument("--try", dest="trial", action="store_true", help="print only; do not keep the results")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        found = figures(Path(scratch), given.images, given.reads, given.repeats)
    result = {
        "what": __doc__.splitlines()[0], "synthetic": True, "unit": "images a second", "images": given.images,
        "reads": given.reads, "repeats": given.repeats, "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(), "python": platform.python_version(), "load_at_end": os.getloadavg()[0], **found,
    }  # fmt: skip
    if not given.trial:
        target = ROOT / "benchmarks/results/pixels.json"
        target.write_text(json.dumps(result, indent=1) + "\n")
        print(f"written to {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
