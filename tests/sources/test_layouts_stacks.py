"""Sources of arrays in their published layouts, generated tiny: counts, boxes, and the trap of each."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import sparse

from medglip.curate import convert, load_source
from medglip.curate.engine import found_tasks, run
from medglip.records import ImageRecord, Picture, Reject, VolumeRecord
from medglip.store.checks.validate import validate
from medglip.store.matrix import Matrix

NUCLEUS = "systemic.nucleus"
SIZE = (32, 40)


def colours(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3))


def pannuke(folder: Path) -> None:
    """Numbers of objects go on over the layers; the last layer is the background; everything is float64."""
    for fold, types in (("1", ["Breast", "Colon"]), ("3", ["HeadNeck"])):
        where = folder / f"Fold {fold}"
        masks = np.zeros((len(types), *SIZE, 6))
        masks[0, 3:9, 4:12, 0], masks[0, 3:9, 12:18, 0], masks[0, 20:26, 20:30, 4] = 1, 2, 3
        masks[..., 5] = (masks[..., :5] == 0).all(axis=-1)
        for name, array in (
            ("images", colours(len(types), int(fold)).astype(np.float64)), ("types", np.array(types)), ("masks", masks),
        ):  # fmt: skip
            path = where / ("masks" if name == "masks" else "images") / f"fold{fold}" / f"{name}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, array)
        (where / "images" / "by-nc-sa.md").write_text("licence")


LIVER, KIDNEY = (slice(2, 5), slice(4, 20), slice(5, 25)), (slice(1, 4), slice(22, 30), slice(28, 38))


def medsam(folder: Path) -> None:
    numbers = np.zeros((6, *SIZE), np.uint8)
    numbers[LIVER], numbers[KIDNEY] = 1, 13
    values = np.random.default_rng(2).integers(0, 256, numbers.shape).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "CT_Abd_FLARE22_Tr_0001.npz", imgs=values, gts=numbers, spacing=(0.7, 0.8, 5.0))


def imed361m(folder: Path) -> None:
    """The label of a layer stands one further on in dataset.json, for the background has no layer."""
    for name, modality, labels, stem in (
        ("BTCV", "ct", ["spleen", "right kidney", "left kidney"], "x___ABD_001_100"),
        ("ACDC", "mr", ["right ventricle", "myocardium", "left ventricle"], "x___patient001_3"),
        ("Totalsegmentator_dataset", "ct", ["spleen", "kidney_right", "kidney_left"], "x___s0001_3"),
    ):
        layers = np.zeros((3, *SIZE), np.uint8)
        layers[0, 4:20, 5:25], layers[2, 22:30, 28:38], layers[2, 6:10, 7:12] = 1, 1, 1  # they overlap
        root = folder / name
        for part in ("image", "label", "imask"):
            (root / part).mkdir(parents=True)
        Image.fromarray(colours(1, len(stem))[0, ..., 0].astype(np.uint8)).save(root / f"image/{stem}.png")
        sparse.save_npz(root / f"label/{stem}.{(*layers.shape, 1)}.npz", sparse.csr_matrix(layers.reshape(3, -1)))
        np.save(root / f"imask/{stem}.npy", np.full(SIZE, -1))
        names = {str(n): label for n, label in enumerate(["background", *labels])}
        entry = {"image": f"image/{stem}.png", "label": f"label/{stem}.{(*layers.shape, 1)}.npz"}
        said = {"name": name, "description": f"{modality}_{name}", "modality": {"0": modality}, "labels": names}
        (root / "dataset.json").write_text(json.dumps(said | {"numTraining": 1, "training": [entry]}))


LAYOUTS = {
    "path_pannuke": (pannuke, 3, {f"{NUCLEUS}.neoplastic": 4, f"{NUCLEUS}.epithelial": 2}),
    "ct_medsam_flare22": (medsam, 4, {"abdomen.liver": 3, "abdomen.kidney@left": 3}),
    "multi_imed361m": (imed361m, 2, {"abdomen.spleen": 1, "abdomen.kidney@left": 1, "thorax.heart.right_ventricle": 1,
                                     "thorax.heart.left_ventricle": 1}),
}  # fmt: skip


def items_of(source: str, folder: Path) -> tuple[list[ImageRecord], list[Reject], list]:
    tasks, rejects = found_tasks(load_source(source), folder)
    items = [item for task in tasks for item in run(task)]
    records = [item.record for item in items if isinstance(item, Picture)]
    return records, [*rejects, *(item for item in items if isinstance(item, Reject))], items


@pytest.mark.parametrize("source", LAYOUTS)
def test_a_published_layout_gives_its_counts(source: str, tmp_path: Path) -> None:
    write, images, concepts = LAYOUTS[source]
    write(tmp_path)
    records, rejects, _ = items_of(source, tmp_path)
    assert rejects == []
    assert len(records) == images
    assert Counter(region.concept for record in records for region in record.regions) == concepts
    matrix = Matrix({source: load_source(source).matrix})
    for record in records:
        shown = {region.concept for region in record.regions}
        assert "impossible" not in {matrix.state(source, record.modality, concept) for concept in shown}
        assert all(matrix.is_negative(record, concept) for concept in record.absent)


@pytest.mark.parametrize("source", LAYOUTS)
def test_its_dataset_validates_clean(source: str, tmp_path: Path) -> None:
    write, images, concepts = LAYOUTS[source]
    write(tmp_path / "in")
    done = convert(source, tmp_path / "in", tmp_path / "dataset")
    assert (done.images, done.regions) == (images, sum(concepts.values()))
    assert [problem for problem in validate(tmp_path / "dataset") if problem.level == "error"] == []


def test_pannuke_nuclei_that_touch_stay_apart_and_the_background_is_none(tmp_path: Path) -> None:
    pannuke(tmp_path)
    records, _, items = items_of("path_pannuke", tmp_path)
    assert sorted((region.concept, region.box_xyxy) for region in records[0].regions) == [
        (f"{NUCLEUS}.epithelial", (20, 20, 30, 26)), (f"{NUCLEUS}.neoplastic", (4, 3, 12, 9)),
        (f"{NUCLEUS}.neoplastic", (12, 3, 18, 9)),
    ]  # fmt: skip
    told = [(record.split, record.modality_detail["tissue"], len(record.regions)) for record in records]
    assert told == [("train", "Breast", 3), ("train", "Colon", 0), ("test", "HeadNeck", 3)]
    assert np.array_equal(items[1].pixels, colours(2, 1)[1])
    assert len(records[1].absent) == 5


def test_medsam_has_slices_first_and_the_spacing_last_to_first(tmp_path: Path) -> None:
    medsam(tmp_path)
    records, _, items = items_of("ct_medsam_flare22", tmp_path)
    (volume,) = [item for item in items if isinstance(item, VolumeRecord)]
    assert volume.spacing_kji_mm == (5.0, 0.8, 0.7)
    shown = {record.origin.slice: {region.concept: region.box_xyxy for region in record.regions} for record in records}
    liver, kidney = {"abdomen.liver": (5, 4, 25, 20)}, {"abdomen.kidney@left": (28, 22, 38, 30)}
    assert shown == {1: kidney, 2: liver | kidney, 3: liver | kidney, 4: liver}
    assert all(record.absent == () for record in records)


def test_imed_layers_are_named_by_their_own_folder(tmp_path: Path) -> None:
    imed361m(tmp_path)
    records, _, _ = items_of("multi_imed361m", tmp_path)
    shown = {record.modality: {region.concept: region.box_xyxy for region in record.regions} for record in records}
    assert shown == {
        "ct": {"abdomen.spleen": (5, 4, 25, 20), "abdomen.kidney@left": (7, 6, 38, 30)},
        "mr": {"thorax.heart.right_ventricle": (5, 4, 25, 20), "thorax.heart.left_ventricle": (7, 6, 38, 30)},
    }
    (tmp_path / "BTCV/dataset.json").write_text("{}")
    records, rejects, _ = items_of("multi_imed361m", tmp_path)
    assert {reject.file for reject in rejects} == {"BTCV/dataset.json"}
    assert {record.modality for record in records} == {"mr"}
