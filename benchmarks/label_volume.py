"""Seconds and memory from a CT volume with 20 labels to regions and PNG images, beside the script that the field writes.

The peer is what segmentation sets are commonly made 2-D with (MedSAM's preprocessing is of this form): nibabel reads, the
window is mapped to 8 bit, and for each slice and each label scikit-image finds components and boxes; image and mask are
saved as PNG. medglip reads the same two files, keeps 16 bit, links the slices of each object, measures axes in mm, and
writes and commits a dataset. The volume is generated: smooth tissue with noise, ellipsoids as organs and lesions.

Usage: scripts/bench label_volume [--repeats 3] [--shape 300 512 512]
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
from importlib import import_module
from pathlib import Path

import nibabel
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
LABELS = ("spleen", "right kidney", "left kidney", "gallbladder", "esophagus", "liver", "stomach", "aorta",
          "inferior vena cava", "pancreas", "right adrenal gland", "left adrenal gland", "duodenum", "urinary bladder",
          "right lung", "left lung", "heart", "trachea", "liver tumor", "kidney cyst")  # fmt: skip
# Slices that each spans in a torso of 450 mm cut at 1.5 mm, from the organs' usual lengths; lesions are four each.
SLICES = (73, 73, 73, 40, 166, 133, 100, 200, 133, 60, 27, 27, 66, 46, 200, 200, 80, 80, 14, 14)
TORSO_SLICES = 300
NOISE_HU = 12.0
TOML = """
name = "generated_ct"
title = "Generated CT with 20 labels"
licence = "CC0-1.0"
names = "public"
annotation = "synthetic"

[[part]]
converter = "label_volumes"
modality = "ct"
exhaustive = "all"

[part.files]
image = "{{case}}_image.nii.gz"
labels = "{{case}}_label.nii.gz"

[part.labels]
{labels}
"""


def write_volume(folder: Path, shape_kji: tuple[int, int, int], cases: int) -> None:
    """Write cases of an image and a label file (NIfTI, gzipped), and the source's TOML."""
    for case in range(cases):
        rng = np.random.default_rng(case)
        k, j, i = (np.linspace(-1, 1, length, dtype=np.float32) for length in shape_kji)
        body = (i[None, None] ** 2 / 0.8 + j[None, :, None] ** 2 / 0.5 < 1) & (np.abs(k) < 2)[:, None, None]
        image = np.where(body, 40.0, -1000.0).astype(np.float32)
        labels = np.zeros(shape_kji, np.uint8)
        for value in range(1, len(LABELS) + 1):
            lesion = value > 18
            for _ in range(4 if lesion else 1):
                length = SLICES[value - 1] / TORSO_SLICES  # a radius, for an axis is two long
                centre = rng.uniform((length - 1, -0.55, -0.55), (1 - length, 0.55, 0.55))
                radii = np.array([length, *(rng.uniform(0.02, 0.06, 2) if lesion else rng.uniform(0.08, 0.3, 2))])
                low = [int((c - r + 1) / 2 * (n - 1)) for c, r, n in zip(centre, radii, shape_kji, strict=True)]
                high = [int((c + r + 1) / 2 * (n - 1)) + 2 for c, r, n in zip(centre, radii, shape_kji, strict=True)]
                box = tuple(slice(max(a, 0), b) for a, b in zip(low, high, strict=True))
                axes = np.ix_(*(axis[edge] for axis, edge in zip((k, j, i), box, strict=True)))
                inside = sum(((x - c) / r) ** 2 for x, c, r in zip(axes, centre, radii, strict=True)) < 1
                image[box][inside] = 40.0 + 8.0 * value
                labels[box][inside] = value
        image += rng.normal(0.0, NOISE_HU, shape_kji).astype(np.float32)
        affine = np.diag([-0.8, -0.8, 1.5, 1.0])
        for name, voxels in (("image", image.astype(np.int16)), ("label", labels)):
            written = nibabel.Nifti1Image(voxels.transpose(2, 1, 0), affine)
            written.to_filename(folder / f"case{case}_{name}.nii.gz")
    table = "\n".join(f'"{value}" = "{name}"' for value, name in enumerate(LABELS, 1))
    (folder / "generated.toml").write_text(TOML.format(labels=table))


def peer(folder: Path, out: Path) -> int:
    """The straightforward script; returns the number of boxes."""
    from skimage import io, measure

    boxes = []
    for image_file in sorted(folder.glob("*_image.nii.gz")):
        case = image_file.name.removesuffix("_image.nii.gz")
        image = nibabel.load(image_file).get_fdata()
        labels = nibabel.load(folder / f"{case}_label.nii.gz").get_fdata().astype(np.uint8)
        image = np.clip(image, -160, 240)
        image = (image - image.min()) / (image.max() - image.min()) * 255.0
        image = image.astype(np.uint8)
        for k in range(image.shape[2]):
            if not labels[:, :, k].any():
                continue
            io.imsave(out / f"{case}_{k:03d}.png", image[:, :, k].T, check_contrast=False)
            for value in np.unique(labels)[1:] if k == 0 else range(1, len(LABELS) + 1):
                mask = (labels[:, :, k] == value).T
                if not mask.any():
                    continue
                for region in measure.regionprops(measure.label(mask)):
                    y0, x0, y1, x1 = region.bbox
                    boxes.append({"image": f"{case}_{k:03d}.png", "label": int(value), "box": [x0, y0, x1, y1]})
                io.imsave(out / f"{case}_{k:03d}_{value}.png", mask.astype(np.uint8) * 255, check_contrast=False)
    (out / "boxes.json").write_text(json.dumps(boxes))
    return len(boxes)


def ours(folder: Path, out: Path, workers: int) -> int:
    """The conversion; returns the number of regions."""
    from medglip.curate import convert

    return convert(folder / "generated.toml", folder, out / "dataset", workers=workers).regions


def peak_mib() -> float:
    """Largest memory of this program so far; ``ru_maxrss`` would count what ran in its process before it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def child(what: str, folder: Path, workers: int) -> None:
    """One measured run in this process; prints JSON."""
    for module in ("medglip.curate", "medglip.converters.label_volumes", "skimage.io", "skimage.measure"):
        import_module(module)  # what a process needs before it begins is not what a volume costs

    before = peak_mib()
    with tempfile.TemporaryDirectory() as scratch:
        begin = time.monotonic()
        regions = peer(folder, Path(scratch)) if what == "peer" else ours(folder, Path(scratch), workers)
        seconds = time.monotonic() - begin
        size = sum(path.stat().st_size for path in Path(scratch).rglob("*") if path.is_file())
    after = peak_mib()
    print(
        json.dumps({"seconds": seconds, "regions": regions, "mb": size / 1e6, "peak_mib": after, "added_mib": after - before})
    )


def measured(what: str, folder: Path, workers: int = 1) -> dict:
    """Figures of one run in a fresh process."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1",
    }
    command = [sys.executable, __file__, "--child", what, "--folder", str(folder), "--workers", str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--shape", type=int, nargs=3, default=(300, 512, 512), metavar=("K", "J", "I"))
    parser.add_argument("--cases", type=int, default=6, help="volumes of the runs with one and two workers")
    parser.add_argument("--child", choices=("peer", "medglip"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=1, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, given.folder, given.workers)
        return
    shape = tuple(given.shape)
    runs: dict[str, list[dict]] = {"peer": [], "medglip": [], "one_worker": [], "two_workers": []}
    with tempfile.TemporaryDirectory() as single, tempfile.TemporaryDirectory() as many:
        write_volume(Path(single), shape, 1)
        write_volume(Path(many), shape, given.cases)
        for _ in range(given.repeats):
            for name in ("peer", "medglip"):
                runs[name].append(measured(name, Path(single)))
            for name, workers in (("one_worker", 1), ("two_workers", 2)):
                runs[name].append(measured("medglip", Path(many), workers))
            print({name: [round(run["seconds"], 1) for run in found] for name, found in runs.items()}, flush=True)
    volume_mib = np.prod(shape) * 2 / 2**20
    seconds = {name: [run["seconds"] for run in found] for name, found in runs.items()}
    ratios = [a / b for a, b in zip(seconds["peer"], seconds["medglip"], strict=True)]
    scaling = [a / b for a, b in zip(seconds["one_worker"], seconds["two_workers"], strict=True)]
    memory = [run["added_mib"] / volume_mib for run in runs["medglip"]]
    result = {
        "what": __doc__.splitlines()[0], "cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(),
        "python": platform.python_version(), "shape_kji": shape, "labels": len(LABELS), "volume_mib": volume_mib,
        "times_faster_than_peer": {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)},
        "two_workers_over_one": {"median": statistics.median(scaling), "least": min(scaling), "most": max(scaling)},
        "peak_memory_of_volume": {"median": statistics.median(memory), "most": max(memory)},
        "runs": runs,
    }  # fmt: skip
    target = ROOT / "benchmarks/results/label_volume.json"
    target.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "runs"}, indent=1))


if __name__ == "__main__":
    main()
