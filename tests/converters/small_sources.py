"""Converts a tiny source that a test has just written."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from medglip.curate import load_source
from medglip.curate.engine import found_tasks, run
from medglip.records import ImageRecord, Picture, Reject

HEAD = '\nname = "tiny"\ntitle = "Tiny"\nlicence = "CC0-1.0"\nnames = "public"\n'


class Converted(NamedTuple):
    """What came out: records by the name of their file, and the rejects."""

    records: dict[str, ImageRecord]
    rejects: list[Reject]
    pictures: list[Picture]

    @property
    def only(self) -> ImageRecord:
        (record,) = self.records.values()
        return record

    @property
    def reasons(self) -> list[str]:
        return sorted(reject.reason for reject in self.rejects)


def converted(folder: Path, part: str) -> Converted:
    """Convert ``folder`` by a TOML with one part."""
    toml = folder.parent / f"{folder.name}.toml"
    toml.write_text(HEAD + "[[part]]\n" + part)
    tasks, rejects = found_tasks(load_source(toml), folder)
    items = [item for task in tasks for item in run(task)]
    pictures = [item for item in items if isinstance(item, Picture)]
    rejects = rejects + [item for item in items if isinstance(item, Reject)]
    return Converted({picture.record.origin.file: picture.record for picture in pictures}, rejects, pictures)


def noise(height: int = 40, width: int = 60) -> np.ndarray:
    """A grey image with something to see, uint8 (H, W)."""
    return np.random.default_rng(height * width).integers(0, 255, (height, width)).astype(np.uint8)


def save(folder: Path, name: str, array: np.ndarray, **options: object) -> Path:
    """Write an array as the image file that its name says."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def boxes(record: ImageRecord) -> list[tuple[str, tuple[float, ...]]]:
    """Concept and box of each region, in order."""
    return [(region.concept, region.box_xyxy) for region in record.regions]
