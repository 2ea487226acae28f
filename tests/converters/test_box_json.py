import json
from pathlib import Path

import numpy as np
import pytest
from small_sources import boxes, converted, noise, save

from medglip.errors import InputError, SourceError

PART = """
converter = "box_json"
modality = "xray"
exhaustive = "all"
files = {{ image = "{folder}/{{case}}.png", annotations = "{{set:[a-z]+}}.json" }}
options = {{ {options} }}
labels = {{ Nodule = "lung nodule", Effusion = "pleural effusion", Device = "skip" }}
split = "{{annotated_in}}"
"""
COLUMNS = 'columns = { image = "file", label = "labels", box = "boxes", polygon = "rings" }, format = "xyxy"'
NODULE, EFFUSION = "thorax.lung.nodule", "thorax.pleura.effusion"
SQUARE = [[5, 6], [20, 6], [20, 18], [5, 18]]


def part(options: str = COLUMNS, folder: str = "images") -> str:
    return PART.format(options=options, folder=folder)


def folder(tmp_path: Path, *entries: dict, images: tuple[str, ...] = ("a", "b")) -> Path:
    where = tmp_path / "in"
    for number, name in enumerate(images):
        save(where, f"images/{name}.png", noise(40 + number))
    (where / "train.json").write_text(json.dumps(entries))
    return where


def test_an_item_is_its_polygon_else_its_box(tmp_path: Path) -> None:
    entry = {"file": "a.png", "labels": ["Nodule", "Effusion", "Device"],
             "boxes": [[5, 6, 20, 18], [1, 2, 30, 30], [0, 0, 5, 5]],
             "rings": [[5, 6, 20, 6, 20, 18, 5, 18], [], SQUARE]}  # fmt: skip
    result = converted(folder(tmp_path, entry), part())
    record = result.records["images/a.png"]
    assert boxes(record) == [(NODULE, (5, 6, 20, 18)), (EFFUSION, (1, 2, 30, 30))]
    mask = record.regions[0].mask
    assert mask is not None
    assert np.array_equal(np.argwhere(mask.decode()).min(axis=0), [6, 5])
    assert mask.area == 15 * 12
    assert record.regions[1].mask is None
    assert (record.split, record.split_source) == ("train", "official")
    assert result.rejects == []


def test_empty_lists_are_negatives_and_an_unnamed_image_is_unlabelled(tmp_path: Path) -> None:
    result = converted(folder(tmp_path, {"file": "a", "labels": [], "boxes": [], "rings": []}), part())
    assert result.records["images/a.png"].absent == (NODULE, EFFUSION)
    assert (result.records["images/b.png"].exhaustive, result.records["images/b.png"].split_source) == ((), "hash")


def test_lists_of_other_lengths_refuse_the_image_and_bad_items_their_label(tmp_path: Path) -> None:
    uneven = {"file": "a", "labels": ["Nodule"], "boxes": [[1, 2, 9, 9], [3, 4, 9, 9]], "rings": []}
    bad = {"file": "b", "labels": ["Nodule", "Effusion", "Nodul"], "boxes": [[1, 2, 900, 9], [1, 1, 9, 9], [1, 1, 5, 5]],
           "rings": [[], [[1, 1], [900, 1], [9, 9]], []]}  # fmt: skip
    result = converted(folder(tmp_path, uneven, bad), part())
    assert result.reasons == ["bad_list", "box_out_of_image", "box_out_of_image", "unknown_label"]
    assert all(record.exhaustive == record.absent == () for record in result.records.values())
    assert not any(record.regions for record in result.records.values())


def test_boxes_and_polygons_in_fractions_are_scaled(tmp_path: Path) -> None:
    ring = [[x / 60, y / 40] for x, y in SQUARE]
    entry = {"file": "a", "labels": ["Nodule", "Effusion"], "boxes": [[0, 0, 1, 1], [0, 0, 0.5, 0.5]], "rings": [ring, []]}
    result = converted(folder(tmp_path, entry), part(f"{COLUMNS}, frame = [1, 1]"))
    assert boxes(result.records["images/a.png"]) == [(NODULE, (5, 6, 20, 18)), (EFFUSION, (0, 0, 30, 20))]


def test_an_image_in_two_files_has_no_official_split(tmp_path: Path) -> None:
    where = folder(tmp_path, {"file": "a", "labels": ["Nodule"], "boxes": [[5, 6, 20, 18]], "rings": []})
    (where / "test.json").write_text((where / "train.json").read_text())
    record = converted(where, part()).records["images/a.png"]
    assert record.split_source == "hash"
    assert [(region.concept, region.attributes) for region in record.regions] == [(NODULE, {"readers": 2})]


def test_rows_without_their_image_and_wrong_options_are_named(tmp_path: Path) -> None:
    where = folder(tmp_path, {"file": "z.png", "labels": [], "boxes": [], "rings": []})
    assert [(reject.reason, reject.case) for reject in converted(where, part()).rejects] == [("missing_file", "z.png")]
    assert converted(where, part(f'{COLUMNS}, missing_images = "ignore"')).rejects == []
    with pytest.raises(SourceError, match="and box or polygon"):
        converted(where, part('columns = { image = "file", label = "labels" }'))
    (where / "train.json").unlink()
    with pytest.raises(InputError, match="no file is their annotations"):
        converted(where, part())
