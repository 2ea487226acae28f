"""Phantom scenes as NIfTI volumes, pictures, masks and tables. Knows no DICOM and nothing of how scenes are drawn.

Equal scenes give equal bytes: no file holds a time.
"""

import csv
import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image

from medglip.phantoms.scene import Scene, Thing
from medglip.records import box_of_mask, rle_of_mask

# Integers of the label volume of an abdomen; a find overwrites the organ in which it lies.
ABDOMEN_VALUES = {
    "liver": 1, "spleen": 2, "right kidney": 3, "left kidney": 4, "aorta": 5, "vertebra": 6, "liver cyst": 7,
    "liver tumor": 8, "right kidney cyst": 9, "left kidney cyst": 10, "right kidney stone": 11, "left kidney stone": 12,
}  # fmt: skip
# Colours of the masks of an eye.
FUNDUS_COLOURS = {
    "optic disc": (255, 255, 0), "optic cup": (0, 255, 255), "macula": (0, 0, 255), "hard exudate": (0, 255, 0),
    "soft exudate": (255, 128, 0), "microaneurysm": (255, 0, 255), "retinal hemorrhage": (255, 0, 0),
}  # fmt: skip
# How a volume lies in its file: the order of the axes (0 to the left, 1 to the back, 2 to the head), and their directions.
_LAYOUTS = (((0, 1, 2), (1, 1, 1)), ((0, 1, 2), (-1, -1, 1)), ((0, 1, 2), (1, -1, 1)), ((2, 0, 1), (1, -1, -1)))


def affine_of(scene: Scene) -> np.ndarray:
    """The oblique position of an MR scene: 4x4, voxel (i, j, k) of ``values`` kji to LPS+ mm."""
    rng = np.random.default_rng((*scene.exam.seed, 1))
    turn = np.radians(rng.uniform(-12, 12, 2))
    about_z = np.array([[np.cos(turn[0]), -np.sin(turn[0]), 0], [np.sin(turn[0]), np.cos(turn[0]), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(turn[1]), -np.sin(turn[1])], [0, np.sin(turn[1]), np.cos(turn[1])]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag((scene.spacing_mm or (1.0, 1.0, 1.0))[::-1])
    middle = (np.array(scene.values.shape[::-1]) - 1) / 2
    affine[:3, 3] = rng.uniform(-20, 20, 3) - affine[:3, :3] @ middle
    return affine


def write_mr(scene: Scene, path: Path) -> None:
    """The volume as ``.nii.gz``, oblique, its axes in an order and direction that differ from case to case."""
    _write_nifti(scene, scene.values, path)


def write_label_volume(scene: Scene, path: Path) -> None:
    """All things of a scene in one volume of integers (``ABDOMEN_VALUES``)."""
    values = np.zeros(scene.values.shape, np.uint8)
    for thing in scene.things:  # organs first, then what lies in them
        values[thing.mask] = ABDOMEN_VALUES[thing.name]
    _write_nifti(scene, values, path)


def write_binary_volumes(scene: Scene, folder: Path) -> None:
    """One volume of 0 and 1 for each name that was searched for, empty ones too."""
    for name in scene.searched:
        _write_nifti(scene, scene.mask(name).astype(np.uint8), folder / f"{slug(name)}.nii.gz")


def _write_nifti(scene: Scene, values: np.ndarray, path: Path) -> None:
    axes, signs = _LAYOUTS[scene.exam.seed[2] // 2 % len(_LAYOUTS)]
    stored = values.transpose(2, 1, 0)
    new_to_old = np.zeros((4, 4))  # a voxel of the file to a voxel (i, j, k) of the scene
    new_to_old[3, 3] = 1
    for new, (old, sign) in enumerate(zip(axes, signs, strict=True)):
        new_to_old[old, new] = sign
        new_to_old[old, 3] = 0 if sign > 0 else stored.shape[old] - 1
    stored = stored.transpose(axes)[tuple(slice(None, None, sign) for sign in signs)]
    ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine_of(scene) @ new_to_old
    image = nib.Nifti1Image(np.ascontiguousarray(stored), ras)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"synthetic phantom"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))


def write_picture(values: np.ndarray, path: Path) -> None:
    """uint8 (H, W) or (H, W, 3) as PNG or, by the path's ending, as JPEG of quality 92."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"quality": 92} if path.suffix == ".jpg" else {"compress_level": 4}
    Image.fromarray(values).save(path, **options)


def write_binary_masks(scene: Scene, folder: Path, frames: Iterable[int] | None = None) -> None:
    """One PNG of 0 and 255 a name: of what is there; in a clip, for all that was searched for in each of ``frames``."""
    for frame in (None,) if frames is None else frames:
        for name in scene.names() if frame is None else scene.searched:
            mask = scene.mask(name) if frame is None else scene.mask(name)[frame]
            stem = scene.exam.case if frame is None else f"{scene.exam.case}_f{frame}"
            write_picture(mask.astype(np.uint8) * 255, folder / f"{stem}_{slug(name)}.png")


def write_colour_masks(scene: Scene, folder: Path) -> None:
    """Two PNGs in ``FUNDUS_COLOURS``: what lies in nothing else, and what lies in that."""
    for layer, nested in enumerate((False, True), 1):
        picture = np.zeros((*scene.values.shape[:2], 3), np.uint8)
        for thing in scene.things:
            if bool(thing.within) == nested:
                picture[thing.mask] = FUNDUS_COLOURS[thing.name]
        write_picture(picture, folder / f"{scene.exam.case}_{layer}.png")


def box_rows(scene: Scene, file: str) -> list[tuple[str | int, ...]]:
    """Rows (file, label, x, y, width, height) of a scene; and one that says "No finding" where there is only anatomy."""
    rows: list[tuple[str | int, ...]] = [(file, thing.name, *_xywh(thing)) for thing in scene.things]
    sick = any(thing.within for thing in scene.things)
    return rows if sick else [*rows, (file, "No finding", "", "", "", "")]


def write_table(columns: Sequence[str], rows: Iterable[Sequence[object]], path: Path) -> None:
    """A CSV file with a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])


class CocoFile:
    """A COCO annotation file that grows scene by scene: boxes, run-length codes, categories."""

    def __init__(self, names: Sequence[str]) -> None:
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._numbers = {name: number for number, name in enumerate(names, 1)}

    def add(self, scene: Scene, file: str) -> None:
        """One image with its things; an image without any is listed too."""
        height, width = scene.values.shape[:2]
        number = len(self._images) + 1
        self._images.append({"id": number, "file_name": file, "width": width, "height": height})
        for thing in scene.things:
            code = {"size": [height, width], "counts": rle_of_mask(thing.mask).counts}
            self._annotations.append({
                "id": len(self._annotations) + 1, "image_id": number, "category_id": self._numbers[thing.name],
                "bbox": list(_xywh(thing)), "segmentation": code, "area": int(thing.mask.sum()), "iscrowd": 0,
            })  # fmt: skip

    def write(self, path: Path) -> None:
        """The file."""
        categories = [{"id": number, "name": name} for name, number in self._numbers.items()]
        content = {"info": {"description": "synthetic phantom"}, "images": self._images,
                   "annotations": self._annotations, "categories": categories}  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def slug(name: str) -> str:
    """A name as it stands in file names: ``left_lung``."""
    return name.replace(" ", "_")


def _xywh(thing: Thing) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = (int(edge) for edge in box_of_mask(thing.mask) or (0, 0, 0, 0))
    return x0, y0, x1 - x0, y1 - y0
