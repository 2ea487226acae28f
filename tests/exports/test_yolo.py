"""YOLO: boxes to 1e-4 px, outlines close to the masks, one line a region."""

import re

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from medglip.exports import export
from medglip.exports.yolo import outline
from medglip.records.record import Region


def rows_of(folder, record):
    text = (folder / "labels" / record.split / f"{record.id}.txt").read_text()
    return [[float(word) for word in line.split()] for line in text.splitlines()]


def test_boxes_names_and_negatives(dataset, exported):
    folder = exported("yolo")
    about = yaml.safe_load((folder / "data.yaml").read_text(encoding="utf-8"))
    assert list(about["names"]) == list(range(len(about["names"])))
    assert about["train"] == "images/train"
    for record in dataset.records():
        size = np.array([record.width, record.height] * 2)
        rows = rows_of(folder, record)
        assert len(rows) == len(record.regions)
        for row, region in zip(rows, record.regions, strict=True):
            cx, cy, w, h = np.array(row[1:]) * size
            assert np.abs(np.subtract((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), region.box_xyxy)).max() < 1e-4
            assert about["names"][int(row[0])] == region.label.rsplit(".", 1)[-1] or " " in about["names"][int(row[0])]
        assert Image.open(folder / about[record.split] / f"{record.id}.png").size == (record.width, record.height)


@settings(max_examples=8, deadline=None)
@given(
    width=st.integers(1, 60000),
    corners=st.tuples(*[st.floats(0, 1)] * 4).filter(lambda c: abs(c[0] - c[2]) > 1e-6 and abs(c[1] - c[3]) > 1e-2),
)
def test_a_box_of_a_wide_image_comes_back(width, corners, tmp_path_factory, write_dataset, make_picture):
    folder = tmp_path_factory.mktemp("yolo")
    x0, x1 = sorted((corners[0] * width, corners[2] * width))
    y0, y1 = sorted((corners[1], corners[3]))
    picture = make_picture(np.zeros((1, width), np.uint8), 1, [Region("abdomen.liver", (x0, y0, x1, y1))])
    export(write_dataset(folder / "d", [picture]), folder / "yolo", "yolo")
    cx, _, w, _ = np.array(rows_of(folder / "yolo", picture.record)[0][1:]) * width
    assert abs(cx - w / 2 - x0) < 1e-4
    assert abs(cx + w / 2 - x1) < 1e-4


def test_polygons_are_one_line_a_region(dataset, tmp_path):
    counts = export(dataset, tmp_path / "yolo", "yolo", polygons=True)
    bare = sum(region.mask is None for record in dataset.records() for region in record.regions)
    assert counts["boxes_as_polygons"] == bare == 2
    for record in dataset.records():
        rows = rows_of(tmp_path / "yolo", record)
        assert len(rows) == len(record.regions)
        for row, region in zip(rows, record.regions, strict=True):
            assert all(0 <= value <= 1 for value in row[1:])
            points = np.reshape(row[1:], (-1, 2)) * (record.width, record.height)
            np.testing.assert_allclose([*points.min(axis=0), *points.max(axis=0)], region.box_xyxy, atol=0.51)


@pytest.mark.parametrize("pieces", [1, 2, 5])
def test_outline_covers_all_pieces(pieces):
    rows, columns = np.mgrid[:120, :200]
    mask = np.zeros((120, 200), bool)
    for number in range(pieces):
        mask |= (rows - 40 - 10 * number) ** 2 + (columns - 20 - 38 * number) ** 2 < 15**2
    line = outline(mask)
    drawn = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([line.ravel().tolist()], 120, 200))).astype(bool)
    assert (drawn & mask).sum() / (drawn | mask).sum() > 0.9


def test_outline_fills_holes():
    mask = np.ones((9, 9), bool)
    mask[4, 4] = False
    np.testing.assert_array_equal(outline(mask), outline(np.ones((9, 9), bool)))


def test_numbers_are_plain(exported):
    for path in exported("yolo").rglob("*.txt"):
        if path.parent.parent.name == "labels":
            assert re.fullmatch(r"(\d+( \d\.\d{10}){4}\n)*", path.read_text())
