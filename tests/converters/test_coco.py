import json
from pathlib import Path

import numpy as np
import pytest
from small_sources import boxes, converted, noise, save

from medglip.errors import InputError
from medglip.records import rle_of_mask

PART = """
converter = "coco"
modality = "xray"
exhaustive = "all"
files = { image = "images/{folder}/{case}.png", annotations = "{set}.json" }
labels = { Nodule = "lung nodule", Lung = "lung", Ignore = "skip" }
"""
NAMES = {1: "Nodule", 2: "Lung", 3: "Ignore", 4: "Comet"}
NODULE, LUNG = "thorax.lung.nodule", "thorax.lung"


def coco(*annotations: dict, names: tuple[str, ...] = ("x/a.png",), size: tuple[int, int] = (60, 40)) -> dict:
    return {
        "images": [{"id": n, "file_name": name, "width": size[0], "height": size[1]} for n, name in enumerate(names, 1)],
        "annotations": [{"id": n, "image_id": 1, "category_id": 1, **entry} for n, entry in enumerate(annotations, 1)],
        "categories": [{"id": number, "name": name} for number, name in NAMES.items()],
    }


def folder(tmp_path: Path, *files: dict, images: tuple[str, ...] = ("x/a.png",)) -> Path:
    where = tmp_path / "in"
    for image in images:
        save(where, f"images/{image}", noise())
    for number, content in enumerate(files):
        (where / f"set{number}.json").write_text(json.dumps(content))
    return where


def test_boxes_polygons_and_both_kinds_of_run_length_codes(tmp_path: Path) -> None:
    inside = np.zeros((40, 60), bool)
    inside[6:18, 5:15] = True
    code = rle_of_mask(inside)
    runs = np.diff(np.flatnonzero(np.diff(np.r_[-1, inside.ravel("F"), -1])))
    content = coco(
        {"bbox": [5, 6, 10, 12], "segmentation": []},
        {"bbox": [0, 0, 1, 1], "segmentation": [[5, 6, 15, 6, 15, 18, 5, 18]]},
        {"segmentation": {"size": [40, 60], "counts": runs.tolist()}, "iscrowd": 1},
        {"segmentation": {"size": [40, 60], "counts": code.counts}},
        {"bbox": [1, 1, 5, 5], "category_id": 3},
    )
    result = converted(folder(tmp_path, content), PART)
    assert boxes(result.only) == [(NODULE, (5, 6, 15, 18))] * 4
    assert [region.mask and region.mask.area for region in result.only.regions] == [None, 120, 120, 120]
    assert "merged" in result.only.regions[2].flags
    assert result.only.absent == (LUNG,)
    assert not result.rejects


def test_an_image_without_annotations_is_negative_and_one_that_is_not_listed_is_not(tmp_path: Path) -> None:
    where = folder(tmp_path, coco(names=("x/a.png",)), images=("x/a.png", "x/b.png"))
    result = converted(where, PART)
    assert result.records["images/x/a.png"].absent == (LUNG, NODULE)
    assert result.records["images/x/b.png"].absent == ()
    unsure = converted(where, PART + 'options.unannotated = "unlabelled"')
    assert unsure.records["images/x/a.png"].absent == ()


def test_names_are_matched_with_their_folders_where_these_tell(tmp_path: Path) -> None:
    content = coco({"bbox": [1, 1, 9, 9]}, {"bbox": [2, 2, 9, 9], "image_id": 2}, names=("x/a.png", "root/y/A.PNG"))
    result = converted(folder(tmp_path, content, images=("x/a.png", "y/a.png")), PART)
    assert boxes(result.records["images/x/a.png"]) == [(NODULE, (1, 1, 10, 10))]
    assert boxes(result.records["images/y/a.png"]) == [(NODULE, (2, 2, 11, 11))]


def test_several_files_are_read_together_or_the_best_alone(tmp_path: Path) -> None:
    where = folder(tmp_path, coco({"bbox": [1, 1, 9, 9]}), coco({"bbox": [2, 2, 9, 9], "category_id": 2}))
    assert len(converted(where, PART).only.regions) == 2
    assert boxes(converted(where, PART + 'options.prefer = ["set1", "set0"]').only) == [(LUNG, (2, 2, 11, 11))]


def test_annotations_for_another_size_are_refused_or_scaled(tmp_path: Path) -> None:
    ring = {"segmentation": [[10, 12, 30, 12, 30, 36, 10, 36]]}
    where = folder(tmp_path, coco({"bbox": [10, 12, 20, 24]}, ring, size=(120, 80)))
    result = converted(where, PART)
    assert result.reasons == ["size_mismatch"]
    assert "120 x 80" in result.rejects[0].detail
    assert "60 x 40" in result.rejects[0].detail
    assert boxes(converted(where, PART + "options.rescale = true").only) == [(NODULE, (5, 6, 15, 18))] * 2


def test_bad_annotations_are_refused_one_by_one(tmp_path: Path) -> None:
    content = coco(
        {"bbox": [5, 6, 10, 12]}, {"bbox": [5, 6, 0, 12]}, {"bbox": [50, 6, 20, 12]}, {},
        {"category_id": 77, "bbox": [1, 1, 5, 5]},
        {"segmentation": {"size": [40], "counts": [3]}}, {"category_id": 4, "bbox": [1, 1, 5, 5]},
    )  # fmt: skip
    result = converted(folder(tmp_path, content), PART)
    assert boxes(result.only) == [(NODULE, (5, 6, 15, 18))]
    assert result.reasons == ["bad_box", "bad_box", "bad_mask", "box_out_of_image", "unknown_label", "unknown_label"]
    assert any("'Comet'" in reject.detail for reject in result.rejects)


def test_images_that_are_not_there_are_listed_or_ignored(tmp_path: Path) -> None:
    where = folder(tmp_path, coco(names=("x/a.png", "x/gone.png")))
    assert converted(where, PART).reasons == ["missing_file"]
    assert converted(where, PART + 'options.missing_images = "ignore"').reasons == []


@pytest.mark.parametrize(("text", "word"), [("{", "not JSON"), ('{"images": []}', "lacks 'annotations'")])
def test_a_broken_file_is_an_input_error(tmp_path: Path, text: str, word: str) -> None:
    where = folder(tmp_path)
    (where / "set0.json").write_text(text)
    with pytest.raises(InputError, match=word):
        converted(where, PART)
