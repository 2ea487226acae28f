"""Sources of instance maps in their published layouts, generated tiny: counts, boxes, and the trap of each."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from medglip.curate import convert, load_source
from medglip.curate.engine import found_tasks, run
from medglip.records import ImageRecord, Picture, Reject
from medglip.store.checks.validate import validate
from medglip.store.matrix import Matrix

NUCLEUS = "systemic.nucleus"
SIZE = (40, 50)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def tissue(path: Path, seed: int) -> None:
    save(path, np.random.default_rng(seed).integers(0, 255, (*SIZE, 3)).astype(np.uint8))


def objects(*numbers: int) -> np.ndarray:
    """Squares of 8 x 6 pixels that touch, numbered as given."""
    array = np.zeros(SIZE)
    for at, number in enumerate(numbers):
        array[5:11, 4 + 8 * at : 12 + 8 * at] = number
    return array


def glas(folder: Path) -> None:
    root = folder / "Warwick QU Dataset (Released 2016_07_08)"
    images = {"train_1": (1, 2, 3), "train_2": (1,), "testA_1": (2, 1), "testB_1": ()}
    for seed, (name, numbers) in enumerate(images.items()):
        tissue(root / f"{name}.bmp", seed)
        save(root / f"{name}_anno.bmp", objects(*numbers).astype(np.uint8))
    head = "name, patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)\n"
    rows = ["train_1, 3, benign, adenomatous",
            "train_2, 3, malignant, moderately differentiated", "testA_1, 8, benign, healthy",
            "testB_1, 9, malignant, poorly differentiated"]  # fmt: skip
    (root / "Grade.csv").write_text(head + "\n".join(rows) + "\n")


def consep(folder: Path) -> None:
    """The numbers of the maps are 64-bit; a class map says what each pixel is."""
    for seed, (case, classes) in enumerate((("Train/{}/train_1", (1, 3, 4, 6)), ("Test/{}/test_1", (2, 7)))):
        tissue(folder / "CoNSeP" / f"{case.format('Images')}.png", seed)
        numbers = objects(*range(1, len(classes) + 1))
        kinds = np.select([numbers == n for n in range(1, len(classes) + 1)], classes)
        told = {"inst_map": numbers, "type_map": kinds.astype(float), "inst_type": np.array(classes, float)[:, None],
                "inst_centroid": np.zeros((len(classes), 2))}  # fmt: skip
        (folder / "CoNSeP" / case.format("Labels")).parent.mkdir(parents=True, exist_ok=True)
        savemat(folder / "CoNSeP" / f"{case.format('Labels')}.mat", told)
        save(folder / "CoNSeP" / f"{case.format('Overlay')}.png", np.zeros(SIZE, np.uint8))


def lizard(folder: Path) -> None:
    """Numbers have gaps, and the classes are in the order of the list of ids, not of the numbers."""
    labels = folder / "Lizard_Labels" / "Labels"
    labels.mkdir(parents=True)
    for seed, (where, name) in enumerate((("Lizard_Images1", "consep_1"), ("Lizard_Images2", "dpath_12"))):
        tissue(folder / where / f"{name}.png", seed)
        told = {"inst_map": objects(7, 2, 30).astype(np.uint16), "id": [[30, 7, 2]], "class": [[6], [1], [2]],
                "bbox": np.zeros((3, 4)), "centroid": np.zeros((3, 2))}  # fmt: skip
        savemat(labels / f"{name}.mat", told)
    (folder / "Lizard_Labels" / "info.csv").write_text("Filename,Source,Split\nconsep_1,consep,1\ndpath_12,dpath,2\n")


def tnbc(folder: Path) -> None:
    root = folder / "TNBC_NucleiSegmentation"
    for seed, slide in enumerate(("01", "02")):
        for number in (1, 2):
            tissue(root / f"Slide_{slide}/{slide}_{number}.png", 2 * seed + number)
            mask = objects(255) + np.roll(objects(255), 20, axis=0)
            save(root / f"GT_{slide}/{slide}_{number}.png", mask.astype(np.uint8))


LAYOUTS = {
    "path_glas": (glas, 4, {"abdomen.colon.gland": 6}),
    "path_consep": (consep, 2, {NUCLEUS: 1, f"{NUCLEUS}.epithelial": 2, f"{NUCLEUS}.muscle": 1, f"{NUCLEUS}.inflammatory": 1,
                                f"{NUCLEUS}.endothelial": 1}),
    "path_lizard": (lizard, 2, {f"{NUCLEUS}.neutrophil": 2, f"{NUCLEUS}.epithelial": 2, f"{NUCLEUS}.connective": 2}),
    "path_tnbc": (tnbc, 4, {NUCLEUS: 8}),
}  # fmt: skip


def records_of(source: str, folder: Path) -> tuple[list[ImageRecord], list[Reject]]:
    tasks, rejects = found_tasks(load_source(source), folder)
    items = [item for task in tasks for item in run(task)]
    records = [item.record for item in items if isinstance(item, Picture)]
    return records, [*rejects, *(item for item in items if isinstance(item, Reject))]


@pytest.mark.parametrize("source", LAYOUTS)
def test_a_published_layout_gives_its_counts(source: str, tmp_path: Path) -> None:
    write, images, concepts = LAYOUTS[source]
    write(tmp_path)
    records, rejects = records_of(source, tmp_path)
    assert rejects == []
    assert len(records) == images
    assert Counter(region.concept for record in records for region in record.regions) == concepts
    matrix = Matrix({source: load_source(source).matrix})
    for record in records:
        states = {matrix.state(source, record.modality, region.concept) for region in record.regions}
        assert states <= {"exhaustive", "possible"}
        assert all(matrix.is_negative(record, concept) for concept in record.absent)


@pytest.mark.parametrize("source", LAYOUTS)
def test_its_dataset_validates_clean(source: str, tmp_path: Path) -> None:
    write, images, concepts = LAYOUTS[source]
    write(tmp_path / "in")
    done = convert(source, tmp_path / "in", tmp_path / "dataset")
    assert (done.images, done.regions) == (images, sum(concepts.values()))
    assert [problem for problem in validate(tmp_path / "dataset") if problem.level == "error"] == []


def test_glands_that_touch_stay_apart_and_images_of_a_patient_together(tmp_path: Path) -> None:
    glas(tmp_path)
    records, _ = records_of("path_glas", tmp_path)
    by_name = {Path(record.origin.file).stem: record for record in records}
    assert [region.box_xyxy for region in by_name["train_1"].regions] == [(4, 5, 12, 11), (12, 5, 20, 11), (20, 5, 28, 11)]
    assert by_name["train_1"].group == by_name["train_2"].group != by_name["testA_1"].group
    assert by_name["train_2"].modality_detail["grade"] == "malignant"
    assert by_name["testB_1"].absent == ("abdomen.colon.gland",)


def test_the_class_of_a_nucleus_is_that_of_its_pixels(tmp_path: Path) -> None:
    consep(tmp_path)
    records, _ = records_of("path_consep", tmp_path)
    train = next(record for record in records if record.split == "train")
    assert [(region.concept, region.box_xyxy[0]) for region in train.regions] == [
        (NUCLEUS, 4), (f"{NUCLEUS}.epithelial", 12), (f"{NUCLEUS}.epithelial", 20), (f"{NUCLEUS}.muscle", 28),
    ]  # fmt: skip
    assert {record.split for record in records} == {"train", "test"}


def test_classes_follow_the_list_of_ids(tmp_path: Path) -> None:
    lizard(tmp_path)
    records, _ = records_of("path_lizard", tmp_path)
    assert {(region.concept, region.box_xyxy) for region in records[0].regions} == {
        (f"{NUCLEUS}.neutrophil", (4, 5, 12, 11)), (f"{NUCLEUS}.epithelial", (12, 5, 20, 11)),
        (f"{NUCLEUS}.connective", (20, 5, 28, 11)),
    }  # fmt: skip
    assert len({record.group for record in records}) == 2


def test_slides_of_tnbc_are_patients(tmp_path: Path) -> None:
    tnbc(tmp_path)
    records, _ = records_of("path_tnbc", tmp_path)
    assert len({record.group for record in records}) == 2
    assert [region.box_xyxy for region in records[0].regions] == [(4, 5, 12, 11), (4, 25, 12, 31)]
