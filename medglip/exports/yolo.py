"""YOLO: one text file an image with classes and normalised boxes, or outlines, and ``data.yaml``. Knows no captions.

The format cannot say that a label was not looked for, nor the patient's side; see the guide. Outlines are lossy: holes
are filled, corners are cut, and the pieces of one region are joined by lines without width.

Source: https://docs.ultralytics.com/datasets/detect/ and https://docs.ultralytics.com/datasets/segment/
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np

from medglip.exports.chosen import Choice, OnImage, categories, write_picture
from medglip.records.labels import Label
from medglip.records.record import ImageRecord, Region
from medglip.store.read import Dataset

# Digits behind the point: 1e-4 px needs 9 in an image of 100,000 pixels.
_DIGITS = 10


def write(dataset: Dataset, out: Path, choice: Choice, on_image: OnImage, *, polygons: bool = False) -> dict[str, int]:
    """Write ``images/<split>/ID.png``, ``labels/<split>/ID.txt`` and ``data.yaml``.

    Args:
        dataset: The dataset.
        out: Empty folder.
        choice: Which images and regions.
        on_image: Called as ``on_image(done, total)`` after each image.
        polygons: Write outlines instead of boxes; a region without a mask gets the outline of its box.

    Returns:
        ``images``, ``regions``, ``classes``, ``negative_images`` (an empty text file), ``regions_too_small``; with
        polygons also ``boxes_as_polygons``.
    """
    shown, total = categories(dataset), choice.number(dataset)
    counts = Counter(images=0, regions=0, classes=len(shown), negative_images=0)
    classes = {label.id: number for number, label in enumerate(shown)}
    splits: set[str] = set()
    for record in choice.records(dataset, counts):
        if record.split not in splits:
            splits.add(record.split)
            for folder in ("images", "labels"):
                (out / folder / record.split).mkdir(parents=True)
        lines = [_line(classes[region.label], region, record, polygons) for region in record.regions]
        (out / "labels" / record.split / f"{record.id}.txt").write_text("".join(lines), encoding="ascii")
        write_picture(dataset, record, out / "images" / record.split / f"{record.id}.png")
        counts.update(images=1, regions=len(lines), negative_images=not lines)
        if polygons:
            counts["boxes_as_polygons"] += sum(region.mask is None for region in record.regions)
        on_image(counts["images"], total)
    (out / "data.yaml").write_text(_yaml(splits, shown), encoding="utf-8")
    return dict(counts)


def _yaml(splits: set[str], labels: list[Label]) -> str:
    """Paths of the splits, relative to the file, and the names of the classes; JSON strings are YAML strings."""
    lines = [f"{split}: images/{split}" for split in ("train", "val", "test", "unassigned") if split in splits]
    lines += ["names:", *(f"  {number}: {json.dumps(label.name)}" for number, label in enumerate(labels))]
    return "\n".join(lines) + "\n"


def _line(number: int, region: Region, record: ImageRecord, polygons: bool) -> str:
    x0, y0, x1, y1 = region.box_xyxy
    size = np.array([record.width, record.height], float)
    if not polygons:
        places = np.array([[(x0 + x1) / 2, (y0 + y1) / 2], [x1 - x0, y1 - y0]])
    elif region.mask is None:
        places = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    else:
        places = outline(region.mask.decode())
    return " ".join([str(number), *(f"{value:.{_DIGITS}f}" for value in (places / size).ravel())]) + "\n"


def outline(mask: np.ndarray) -> np.ndarray:
    """One closed line around a mask, its holes filled, its pieces joined.

    Args:
        mask: (H, W) bool, not empty.

    Returns:
        (N, 2) x and y in pixel edges (the middle of the first pixel is 0.5), without the first point again at the end.

    >>> outline(np.ones((1, 1), bool)).tolist()
    [[0.5, 1.0], [0.0, 0.5], [0.5, 0.0], [1.0, 0.5]]
    """
    from scipy.ndimage import binary_fill_holes
    from scipy.spatial import cKDTree
    from skimage.measure import find_contours

    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    crop = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]  # a nucleus in a large image costs its own size
    padded = np.pad(binary_fill_holes(crop), 1).astype(np.uint8)
    # rows and columns of pixel centres in the padded crop to x and y of pixel edges in the mask
    corner = np.array([columns[0], rows[0]]) - 0.5
    pieces = [line[:-1, ::-1] + corner for line in find_contours(padded, 0.5, fully_connected="high")]
    whole = pieces[0]
    for piece in pieces[1:]:
        gaps, nearest = cKDTree(whole).query(piece)
        there = int(gaps.argmin())
        here, loop = int(nearest[there]), np.roll(piece, -there, axis=0)
        whole = np.concatenate([whole[: here + 1], loop, loop[:1], whole[here:]])
    return whole
