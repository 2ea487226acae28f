from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from medglip.records.masks import box_of_mask, rle_of_mask
from medglip.records.measures import axes_of_rle
from medglip.records.picture import Picture
from medglip.records.record import ImageRecord, Intensity, Keys, Origin, Phrase, Region, Span, Text, identified
from medglip.store import Dataset, perceptual_hash, pixel_sha256, write_part

INFO = {"source": "made_up", "title": "Made up", "licence": "CC-BY-4.0", "citation": "Nobody 2020", "page": "",
        "access": "open", "lineage": [], "source_digest": "0", "expected": {}, "cases": {}}  # fmt: skip
KIDNEY, CYST, LIVER, LUNG = "abdomen.kidney", "abdomen.kidney.cyst", "abdomen.liver", "thorax.lung"
NODULE = "thorax.lung.nodule"


def _picture(pixels: np.ndarray, number: int, regions: Sequence[Region] = (), **fields: object) -> Picture:
    record = ImageRecord(
        id=f"{number:016x}", sha256=pixel_sha256(pixels), width=pixels.shape[1], height=pixels.shape[0],
        channels=1 if pixels.ndim == 2 else 3, bits=8 * pixels.dtype.itemsize, regions=tuple(regions),
        perceptual_hash=perceptual_hash(pixels),
        **{"modality": "ct", "origin": Origin("made_up", f"a/{number}.png", f"c{number}"), "licence": "CC-BY-4.0",
           "group": f"g{number}", "split": "train", "split_source": "hash"} | fields,
    )  # fmt: skip
    return Picture(identified(record), pixels)


def _pictures() -> list[Picture]:
    """Deep, grey and colour pixels; masks and bare boxes; sides, parents, spans; negatives; three splits."""
    rng = np.random.default_rng(5)
    deep = rng.integers(0, 3000, (60, 48), dtype=np.uint16)
    kidney, cysts = np.zeros((2, 60, 48), bool), None
    kidney[0, 10:40, 5:20], kidney[1, 12:44, 28:44] = True, True
    kidney[0, 20:24, 9:12] = False
    cysts = np.zeros((2, 60, 48), bool)
    cysts[0, 14:18, 30:36], cysts[1, 30:33, 32:35] = True, True
    axes = axes_of_rle(rle_of_mask(kidney[1]), (0.7, 0.7))
    regions = [
        Region(KIDNEY, box_of_mask(kidney[0]), rle_of_mask(kidney[0]), "right", (Phrase("right kidney", "laterality"),)),
        Region(KIDNEY, (27.5, 12.0, 44.0, 44.25), rle_of_mask(kidney[1]), "left",
               (Phrase("left kidney", "laterality"), Phrase("Ünlü böbrek ✓", "report")), {"grade": 3, "sure": True},
               "c1-k", flags=("uncertain",), **dict(zip(("long_axis_mm", "short_axis_mm"), axes, strict=True))),
        *(Region(CYST, box_of_mask(cyst), rle_of_mask(cyst), "left", (Phrase("kidney cyst"),), provenance="machine",
                 parents=(f"{1:016x}-001",), flags=("tiny",)) for cyst in cysts),
        Region(LIVER, (0.0, 0.1, 21.7, 9.0), phrases=(Phrase("liver"),), score=0.75, provenance="predicted"),
    ]  # fmt: skip
    words = "Zwei Zysten – “é” – in der linken Niere."
    sound = rng.integers(0, 256, (32, 40, 3), dtype=np.uint8)
    film = rng.integers(0, 256, (40, 32), dtype=np.uint8)
    nodule = Region(NODULE, (4.0, 5.0, 12.5, 13.0), phrases=(Phrase("lung nodule"),))
    said = Text("ÄÖÜ: a nodule, no other nodule.", "report", spans=(Span(7, 13, (f"{3:016x}-000",)),))
    return [
        _picture(deep, 1, regions, affine_px_to_mm=(0.7, 0, 0, -100.1, 0, 0.7, 0, -90, 0, 0, 5, 33.3),
                 spacing_mm=(0.7, 0.7), spacing_source="affine", intensity=Intensity("HU", 1.0, -1024.0, (-160.0, 240.0)),
                 keys=Keys("ab" * 8, "cd" * 8), body_region="abdomen", modality_detail={"plane": "axial"},
                 texts=(Text(words, "report", "de", (Span(5, 11, (f"{1:016x}-002", f"{1:016x}-003")),)),),
                 absent=("abdomen.kidney.stone",), exhaustive=(f"{KIDNEY}@left", f"{KIDNEY}@right", LIVER)),
        _picture(sound, 2, modality="ultrasound", split="val", absent=(NODULE, f"{LUNG}@left"), exhaustive=(NODULE,),
                 intensity=Intensity("rgb")),
        _picture(film, 3, [nodule], modality="xray", split="test", texts=(said,), exhaustive=(NODULE,),
                 licence="CC0-1.0", flags=("lossy",)),
        _picture(film[:, ::-1].copy(), 4, modality="xray", split="train",
                 texts=(Text("Görülüyor mu?", "question", "tr", answer="Hayır, “yok”."), Text("Film.", "caption"))),
    ]  # fmt: skip


@pytest.fixture(scope="session")
def make_picture() -> Callable[..., Picture]:
    return _picture


@pytest.fixture(scope="session")
def write_dataset() -> Callable[[Path, Sequence[Picture]], Dataset]:
    def write(path: Path, pictures: Sequence[Picture]) -> Dataset:
        write_part(path, "made_up-0", pictures, (), (), INFO)
        return Dataset(path)

    return write


@pytest.fixture(scope="session")
def dataset(tmp_path_factory, write_dataset) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("exports") / "dataset", _pictures())


@pytest.fixture(scope="session")
def exported(dataset, tmp_path_factory) -> Callable[[str], Path]:
    """The dataset in a format, written once."""
    from medglip.exports import export

    done: dict[str, Path] = {}

    def folder(to: str) -> Path:
        if to not in done:
            done[to] = tmp_path_factory.mktemp("exported") / to
            export(dataset, done[to], to)
        return done[to]

    return folder
