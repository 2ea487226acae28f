"""Cases survive the disk exactly, and say what the model was asked and what was there."""

from dataclasses import fields
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medglip.errors import InputError
from medglip.evaluate.boxes import box_iou
from medglip.evaluate.cases import Case, ask, known_phrases, read_cases, write_cases
from medglip.predict import Grounder
from medglip.records import ImageRecord, Keys, Origin, Region, label_tree, rle_of_mask

LUNG, LEFT, HEART = "thorax.lung", "thorax.lung@left", "thorax.heart"


def random_boxes(rng, count):
    low = rng.uniform(0, 30, (count, 2))
    return np.hstack([low, low + rng.uniform(1, 20, (count, 2))]).astype(np.float32)


def random_mask(rng):
    return rle_of_mask(rng.random((32, 48)) < 0.3)


def random_case(rng, number):
    found, true, other = (int(rng.integers(0, 4)) for _ in range(3))
    return Case(
        image=f"image {number}", patient=f"films/{number // 2}", source="films", modality="xray", level="organ", concept=LEFT,
        phrase="left lung", size_wh=(48, 32), spacing_xy_mm=None if number % 2 else tuple(rng.uniform(0.1, 2, 2).tolist()),
        boxes=random_boxes(rng, found), scores=np.sort(rng.random(found).astype(np.float32))[::-1],
        presence=float(rng.random()), spread=float("nan") if number % 3 else float(rng.random()),
        truth=random_boxes(rng, true), others=random_boxes(rng, other), other_concepts=(HEART,) * other,
        found_masks=tuple(random_mask(rng) if rng.random() < 0.5 else None for _ in range(found)) if number % 4 else (),
        true_masks=tuple(random_mask(rng) if rng.random() < 0.5 else None for _ in range(true)),
    )  # fmt: skip


def assert_same(first, second):
    for field in fields(Case):
        one, other = getattr(first, field.name), getattr(second, field.name)
        if isinstance(one, np.ndarray):
            assert (one.dtype, one.shape) == (other.dtype, other.shape), field.name
            assert np.array_equal(one, other), field.name
        else:
            assert type(one) is type(other), field.name
            assert one == other or (one != one and other != other), field.name


@pytest.mark.parametrize("count", [0, 1, 40])
def test_cases_come_back_from_disk_exactly(tmp_path, count):
    rng = np.random.default_rng(count)
    cases = [random_case(rng, number) for number in range(count)]
    back = read_cases(write_cases(tmp_path / "cases.parquet", cases))
    assert len(back) == count
    for one, other in zip(cases, back, strict=True):
        assert_same(one, other)
    assert [path.name for path in tmp_path.iterdir()] == ["cases.parquet"]


def test_a_case_whose_lists_are_all_empty_comes_back(tmp_path):
    rng = np.random.default_rng(0)
    empty = random_case(rng, 0)
    nothing = np.zeros((0, 4), np.float32)
    empty = Case(**{field.name: getattr(empty, field.name) for field in fields(Case)} | {
        "boxes": nothing, "scores": nothing[:, 0], "truth": nothing, "others": nothing, "other_concepts": (),
        "found_masks": (), "true_masks": ()})  # fmt: skip
    assert_same(empty, read_cases(write_cases(tmp_path / "cases.parquet", [empty]))[0])
    assert not empty.shown
    assert empty.iou.shape == empty.iou_any.shape == (0, 0)


def test_overlaps_are_of_the_true_boxes_first():
    case = next(case for case in (random_case(np.random.default_rng(seed), 0) for seed in range(99))
                if min(len(case.boxes), len(case.truth), len(case.others)) > 1)  # fmt: skip
    assert np.array_equal(case.iou, box_iou(case.boxes, case.truth))
    assert np.array_equal(case.iou_any, box_iou(case.boxes, np.concatenate([case.truth, case.others])))


def test_what_is_no_file_of_cases_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_cases(tmp_path / "none.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="cannot be read"):
        read_cases(tmp_path / "broken.parquet")
    pq.write_table(pa.table({"image": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match="evaluate the checkpoint again"):
        read_cases(tmp_path / "other.parquet")


def test_a_mask_of_another_size_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    case = random_case(rng, 0)
    wrong = Case(**{field.name: getattr(case, field.name) for field in fields(Case)} | {
        "true_masks": (rle_of_mask(np.ones((3, 3))),)})  # fmt: skip
    with pytest.raises(InputError, match="its size"):
        write_cases(tmp_path / "cases.parquet", [wrong])


class Found(NamedTuple):
    boxes: np.ndarray
    scores: np.ndarray
    presence: np.ndarray


class Echo(Grounder):
    """Answers every phrase with one box, and notes what it was asked."""

    def __init__(self):
        self.asked = []

    def answer(self, images, phrases, modalities):
        self.asked.append((list(phrases), list(modalities)))
        boxes, scores = np.float32([[0, 0, 40, 80], [1, 1, 2, 2]]), np.float32([0.7, 0])
        counts = [len(texts) for texts in phrases]
        return [Found(np.tile(boxes, (n, 1, 1)), np.tile(scores, (n, 1)), np.full(n, 0.9)) for n in counts]


class Shown:
    def display(self, id):  # noqa: A002
        return np.zeros((100, 100), np.uint8)


def film(number, regions=(), **more):
    return ImageRecord(
        f"{number:016x}", "0" * 64, 100, 90, 1, 8, "xray", Origin("films", "a.png", "a"), "CC0-1.0", regions=regions, **more
    )


def test_asking_gives_a_case_for_every_known_phrase():
    lung, heart = Region(LUNG, (0, 0, 40, 80), laterality="left"), Region(HEART, (30, 30, 60, 60))
    records = [
        film(1, (lung, heart), exhaustive=(LUNG,), spacing_mm=(0.5, 0.25), group="p"),
        film(2),
        film(3, exhaustive=(HEART,), keys=Keys(patient="k")),
        film(4, absent=(HEART,)),
    ]
    grounder = Echo()
    cases = list(ask(grounder, [(Shown(), record) for record in records], label_tree()))
    assert grounder.asked == [([["lung", "left lung", "heart"], ["heart"], ["heart"]], ["xray"] * 3)]
    assert [(case.image[-1], case.concept, case.shown) for case in cases] == [
        ("1", LUNG, True), ("1", LEFT, True), ("1", HEART, True), ("3", HEART, False), ("4", HEART, False)]  # fmt: skip
    assert [case.patient for case in cases] == ["films/p"] * 3 + ["films/k", f"films/{4:016x}"]
    first = cases[0]
    assert first.boxes.tolist() == [[0, 0, 40, 80]]  # the suppressed box is gone
    assert first.scores.tolist() == [np.float32(0.7)]
    assert first.truth.tolist() == [[0, 0, 40, 80]]
    assert first.others.tolist() == [[30, 30, 60, 60]]
    assert (first.other_concepts, first.true_masks, first.found_masks) == ((HEART,), (None,), ())
    assert (first.size_wh, first.spacing_xy_mm, first.level, first.phrase) == ((100, 90), (0.25, 0.5), "organ", "lung")
    assert np.isnan(first.spread)


def test_images_of_which_nothing_is_known_are_not_asked():
    grounder = Echo()
    assert list(ask(grounder, [(Shown(), film(1))], label_tree())) == []
    assert grounder.asked == []
    assert known_phrases(film(1), label_tree()) == {}
