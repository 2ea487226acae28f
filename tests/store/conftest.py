import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medglip.records.masks import box_of_mask, rle_of_mask
from medglip.records.picture import Picture
from medglip.records.record import (
    ImageRecord,
    Instance,
    Intensity,
    Keys,
    Origin,
    Phrase,
    Region,
    Reject,
    Text,
    VolumeRecord,
    identified,
)
from medglip.store import pixel_sha256, write_part

KIDNEY, TUMOR, LIVER = "abdomen.kidney", "abdomen.kidney.tumor", "abdomen.liver"


def _picture(seed: int, *, split: str = "train", dataset: str = "made_up") -> Picture:
    """A picture that uses every field of a record; odd seeds are 16-bit grey, even ones 8-bit colour."""
    rng = np.random.default_rng(seed)
    height, width = int(rng.integers(24, 40)), int(rng.integers(24, 40))
    pixels = (
        rng.integers(0, 65536, (height, width), dtype=np.uint16)
        if seed % 2
        else rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    )
    mask = np.zeros((height, width), bool)
    mask[4:14, 6:20] = rng.random((10, 14)) < 0.7
    tumor = np.zeros((height, width), bool)
    tumor[8, 9] = True
    regions = (
        Region(KIDNEY, box_of_mask(mask), rle_of_mask(mask), "left", (Phrase("left kidney", "laterality"),),
               {"diameter_mm": 12.5, "grade": 3, "sure": True, "note": "Ünlü"}, f"c{seed}-kidney", flags=("merged",)),
        Region(TUMOR, box_of_mask(tumor), rle_of_mask(tumor), phrases=(Phrase("tumor"), Phrase("tumour", "synonym")),
               parents=(f"{seed:016x}-000",), score=0.25, provenance="predicted", flags=("tiny", "uncertain")),
        Region(LIVER, (0.0, 0.5, float(width), 7.25), phrases=(Phrase("liver"),)),
    )  # fmt: skip
    record = ImageRecord(
        id=f"{seed:016x}", sha256=pixel_sha256(pixels), width=width, height=height,
        channels=3 if pixels.ndim == 3 else 1, bits=8 * pixels.dtype.itemsize,
        modality="ct" if seed % 2 else "endoscopy", origin=Origin(dataset, f"a/{seed}.dcm", f"c{seed}", 2, "k", 11),
        licence="CC-BY-4.0", modality_detail={"phase": "venous", "view": "AP"}, body_region="abdomen",
        affine_px_to_mm=(0.7, 0, 0, -100.1, 0, 0.7, 0, -90, 0, 0, 5, 33.3), spacing_mm=(0.7, 0.7),
        spacing_source="affine", intensity=Intensity("HU", 1.0, -1024.0, (-160.0, 240.0), inverted=True),
        keys=Keys("ab" * 8, "cd" * 8, None) if split == "train" else Keys(), group=f"{split}{seed % 3}", split=split,
        split_source="hash", regions=regions if seed % 5 else (), absent=("thorax.lung@left",),
        exhaustive=(KIDNEY, LIVER), texts=(Text("Both kidneys are seen."), Text("CT", "caption", "de"),
                                          Text("Wo ist die Zyste?", "question", "de", answer="In der Niere.")),
        flags=("oblique",),
    )  # fmt: skip
    return Picture(identified(record), pixels)


def _plain(seed: int, **changes: object) -> Picture:
    """A picture with nothing that may be left out."""
    pixels = np.full((5, 7), seed, np.uint8)
    record = ImageRecord(
        f"{seed:016x}", pixel_sha256(pixels), 7, 5, 1, 8, "xray", Origin("made_up", f"{seed}.png", str(seed)), "MIT"
    )
    return Picture(replace(record, **changes), pixels)


def _volume() -> VolumeRecord:
    return VolumeRecord(
        "f" * 16, "ct", Origin("made_up", "a/1.nii.gz", "c1"), "CC-BY-4.0", (4, 30, 31), tuple(np.eye(4).ravel()),
        (5.0, 0.7, 0.7), "LPS", Keys("ab" * 8), {"regular": "yes"},
        (Instance("case1-kidney", KIDNEY, "left", (0, 1, 2, 3, 4, 5), 12.5, 9),
         Instance("x", LIVER, None, (0, 0, 0, 1, 1, 1), None, 1)),
    )  # fmt: skip


_REJECT = Reject("made_up", "a/9.dcm", "corrupt_file", "'a/9.dcm' ends early; restore it.", "c9")
_INFO = {"source": "made_up", "title": "Made up", "licence": "CC-BY-4.0", "citation": "Nobody 2020"}


def _files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="session")
def make_picture() -> Callable[..., Picture]:
    return _picture


@pytest.fixture(scope="session")
def plain_picture() -> Callable[..., Picture]:
    return _plain


@pytest.fixture(scope="session")
def files_of() -> Callable[[Path], dict[str, str]]:
    return _files


@pytest.fixture
def volume() -> VolumeRecord:
    return _volume()


@pytest.fixture
def reject() -> Reject:
    return _REJECT


@pytest.fixture
def info() -> dict:
    return dict(_INFO)


@pytest.fixture
def pictures() -> list[Picture]:
    return [_picture(seed) for seed in range(7)]


@pytest.fixture(scope="session")
def template(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("template") / "dataset"
    write_part(path, "made_up-0", (_picture(seed) for seed in range(7)), [_volume()], [_REJECT], _INFO)
    return path


@pytest.fixture
def dataset_path(tmp_path, template) -> Path:
    """A clean dataset of one part, to be spoilt."""
    return Path(shutil.copytree(template, tmp_path / "dataset"))
