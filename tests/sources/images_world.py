"""Published layouts of pictures with masks, written tiny, and what their conversion must give."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK
from PIL import Image

from medglip.curate import convert, load_source
from medglip.curate.engine import found_tasks, run
from medglip.records import ImageRecord, Picture, Reject, label_tree
from medglip.store.checks.validate import validate
from medglip.store.matrix import Matrix

HEIGHT, WIDTH = 48, 64
Window = tuple[int, int, int, int]
Shown = list[tuple[str, tuple[float, ...]]]
# Windows on the grid of JPEG's blocks, so that compression leaves their edges where they are.
A, B, C = (8, 8, 24, 24), (32, 8, 56, 32), (40, 16, 48, 24)


@dataclass(frozen=True)
class World:
    """A layout.

    Attributes:
        source: Name of the source.
        files: Path -> picture, text or bytes.
        shown: Path of an image -> its regions, concept and box, sorted.
        absent: Path of an image -> concepts that must be negatives there, among others.
        splits: Path of an image -> official split.
        groups: Images that must share a group, set by set; images of two sets must not.
        reasons: Reasons of the rejects, sorted.
    """

    source: str
    files: dict[str, object]
    shown: dict[str, Shown]
    absent: dict[str, tuple[str, ...]] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    groups: tuple[set[str], ...] = ()
    reasons: tuple[str, ...] = ()


def scene(seed: int, colours: bool = True, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A picture with something to see, different for each seed."""
    shape = (height, width, 3) if colours else (height, width)
    return np.random.default_rng(seed).integers(30, 220, shape).astype(np.uint8)


def drawn(*windows: Window, value: int = 255, ground: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Rectangles (x0, y0, x1, y1) of one value on a ground."""
    return painted(*((window, value) for window in windows), ground=ground, height=height, width=width)


def painted(*marks: tuple[Window, object], ground: object = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Rectangles of values or colours on a ground; later ones lie on top."""
    array = np.zeros((height, width, *np.shape(ground)), np.uint8) + np.asarray(ground, np.uint8)
    for (x0, y0, x1, y1), value in marks:
        array[y0:y1, x0:x1] = value
    return array


def write(files: dict[str, object], folder: Path) -> Path:
    """Write the files of a layout, pictures as their endings say."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        elif isinstance(content, SimpleITK.Image):
            SimpleITK.WriteImage(content, str(path))
        else:
            image = content if isinstance(content, Image.Image) else Image.fromarray(content)
            image.save(path, **({"quality": 95, "subsampling": 0} if path.suffix in (".jpg", ".jpeg") else {}))
    return folder


def records_of(source: str, folder: Path) -> tuple[dict[str, ImageRecord], list[Reject]]:
    """Records by file, and everything that was rejected."""
    tasks, rejects = found_tasks(load_source(source), folder)
    items = [item for task in tasks for item in run(task)]
    pictures = [item.record for item in items if isinstance(item, Picture)]
    records = {record.origin.file: record for record in pictures}
    assert len(records) == len(pictures)
    return records, rejects + [item for item in items if isinstance(item, Reject)]


def check(world: World, folder: Path) -> dict[str, ImageRecord]:
    """Convert a layout and hold the result against what it must give; the records by file."""
    records, rejects = records_of(world.source, write(world.files, folder))
    assert tuple(sorted(reject.reason for reject in rejects)) == world.reasons, rejects
    assert sorted(records) == sorted(world.shown)
    for name, shown in world.shown.items():
        found = sorted((region.concept, region.box_xyxy) for region in records[name].regions)
        assert found == sorted(shown), f"{name}: {found}"
    for name, concepts in world.absent.items():
        assert set(concepts) <= set(records[name].absent), name
    for name, split in world.splits.items():
        assert (records[name].split, records[name].split_source) == (split, "official"), name
    groups = [{records[name].group for name in names} for names in world.groups]
    assert all(len(group) == 1 for group in groups)
    assert len(set().union(*groups)) == len(groups)
    check_matrix(world.source, records)
    return records


def check_matrix(source: str, records: dict[str, ImageRecord]) -> None:
    """Nothing impossible is shown, and nothing that is absent is shown under another name."""
    tree = label_tree()
    matrix = Matrix({source: load_source(source).matrix})
    for record in records.values():
        for region in record.regions:
            assert matrix.state(source, record.modality, region.concept) in ("exhaustive", "possible"), region.concept
            assert not matrix.is_negative(record, region.concept), region.concept
            assert len(region.phrases) >= 3
        for concept in record.absent:
            assert matrix.is_negative(record, concept), concept
            assert not any(tree.covers(concept, region.concept) for region in record.regions), concept


def check_dataset(world: World, folder: Path) -> None:
    """The dataset made of a layout holds its images and validates clean."""
    done = convert(world.source, write(world.files, folder / "in"), folder / "dataset")
    assert done.images == len(world.shown)
    assert done.regions == sum(map(len, world.shown.values()))
    assert [problem for problem in validate(folder / "dataset") if problem.level == "error"] == []
