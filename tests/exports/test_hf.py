import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from medglip.errors import DatasetError, InputError
from medglip.exports import Choice, export
from medglip.exports import hf as hf_module
from medglip.exports.stored import with_pngs
from medglip.records.masks import Rle
from medglip.store import Dataset
from medglip.store.pixels import pixel_sha256

SPLITS = {"train": "train", "val": "validation", "test": "test"}


@pytest.fixture(scope="module")
def folder(exported) -> Path:
    return exported("hf")


@pytest.fixture(scope="module")
def loaded(folder, tmp_path_factory):
    """What Hugging Face's own reader makes of the folder, without a network."""
    datasets = pytest.importorskip("datasets")
    return datasets.load_dataset(str(folder), cache_dir=str(tmp_path_factory.mktemp("cache")))


def test_each_split_has_its_images_in_their_order(dataset, loaded):
    assert set(loaded) == set(SPLITS.values())
    for split, name in SPLITS.items():
        assert loaded[name]["id"] == dataset.ids(split)


def test_images_decode_to_the_stored_pixels(dataset, loaded):
    depths = set()
    for rows in loaded.values():
        for row in rows:
            pixels = np.asarray(row["image"])
            assert pixels.dtype == (np.uint16 if row["bits"] == 16 else np.uint8)
            assert pixel_sha256(pixels) == row["sha256"]
            depths.add(row["bits"])
            if row["bits"] == 16:
                assert np.array_equal(np.asarray(row["preview"]), dataset.display(row["id"]))
            else:
                assert row["preview"] is None
    assert depths == {8, 16}


def test_records_come_back_as_they_were(dataset, loaded):
    for rows in loaded.values():
        for row in rows:
            record = dataset.record(row["id"])
            for field in ("width", "height", "channels", "modality", "body_region", "spacing_source", "licence", "split",
                          "group", "perceptual_hash"):  # fmt: skip
                assert row[field] == getattr(record, field)
            for field in ("absent", "exhaustive", "flags"):
                assert row[field] == list(getattr(record, field))
            assert row["source"] == record.origin.dataset
            assert row["spacing_mm"] == (record.spacing_mm and list(record.spacing_mm))
            assert row["intensity"]["window"] == list(record.intensity.window)
            assert json.loads(row["modality_detail"]) == record.modality_detail
            assert len(row["objects"]) == len(record.regions)
            for thing, region in zip(row["objects"], record.regions, strict=True):
                assert tuple(thing["bbox"]) == region.box_xyxy
                assert (thing["mask"] and Rle(tuple(thing["mask"]["size"]), thing["mask"]["counts"])) == region.mask
                assert thing["phrases"] == [phrase.text for phrase in region.phrases]
                assert json.loads(thing["attributes"]) == region.attributes
                for field in ("id", "label", "laterality", "score", "provenance", "instance", "long_axis_mm", "short_axis_mm"):
                    assert thing[field] == getattr(region, field)
            for said, text in zip(row["texts"], record.texts, strict=True):
                for field in ("text", "kind", "language", "answer"):
                    assert said[field] == getattr(text, field)
                spans = [(span["start"], span["end"], tuple(span["regions"])) for span in said["spans"]]
                assert spans == [(span.start, span.end, span.regions) for span in text.spans]


def test_objects_are_named_with_their_side(loaded):
    names = {thing["name"] for rows in loaded.values() for row in rows for thing in row["objects"]}
    assert {"left kidney", "right kidney", "liver"} <= names


def test_card_says_splits_licences_and_sizes(folder):
    card = (folder / "README.md").read_text("utf-8")
    head = yaml.safe_load(card.split("---")[1])
    assert head["configs"][0]["data_files"] == [{"split": name, "path": f"data/{name}-*"} for name in SPLITS.values()]
    assert head["license"] == ["cc-by-4.0", "cc0-1.0"]
    assert head["size_categories"] == ["n<1K"]
    assert {"ct", "xray", "ultrasound"} <= set(head["tags"])
    assert "CC-BY-4.0 (3 images), CC0-1.0 (1 images)" in card
    assert "Nobody 2020" in card


def test_licence_that_the_hub_does_not_know_is_other(tmp_path, make_picture, write_dataset):
    picture = make_picture(np.zeros((8, 9), np.uint8), 7, licence="for research, ask us")
    data = write_dataset(tmp_path / "data", [picture])
    export(data, tmp_path / "out", "hf")
    card = (tmp_path / "out/README.md").read_text("utf-8")
    assert yaml.safe_load(card.split("---")[1])["license"] == "other"
    assert "for research, ask us (1 images)" in card


def test_files_are_of_bounded_size_and_numbered(tmp_path, make_picture, write_dataset):
    rng = np.random.default_rng(0)
    pictures = [make_picture(rng.integers(0, 256, (32, 32), dtype=np.uint8), number) for number in range(9)]
    data = write_dataset(tmp_path / "data", pictures)
    (out := tmp_path / "out").mkdir()
    seen: list[tuple[int, int]] = []
    counts = hf_module.write(data, out, Choice(), lambda done, total: seen.append((done, total)), file_bytes=3000)
    names = sorted(path.name for path in (out / "data").iterdir())
    assert names == [f"train-{number:05d}-of-{counts['files']:05d}.parquet" for number in range(counts["files"])]
    assert counts["files"] > 2
    assert [name for file in names for name in pq.read_table(out / "data" / file)["id"].to_pylist()] == data.ids()
    assert seen == [(number, 9) for number in range(1, 10)]


def test_small_regions_are_left_out_and_counted(tmp_path, dataset):
    counts = export(dataset, tmp_path / "out", "hf", choice=Choice("train", min_side_px=5))
    rows = pq.read_table(next((tmp_path / "out/data").iterdir())).to_pylist()
    boxes = [thing["bbox"] for row in rows for thing in row["objects"]]
    assert counts["regions_too_small"] == 2
    assert counts["regions"] == len(boxes) == 3
    assert all(min(box[2] - box[0], box[3] - box[1]) >= 5 for box in boxes)


def test_equal_datasets_give_equal_bytes(tmp_path, dataset, folder):
    export(Dataset(dataset.path), tmp_path / "again", "hf")
    for path in folder.rglob("*"):
        if path.is_file():
            assert (tmp_path / "again" / path.relative_to(folder)).read_bytes() == path.read_bytes(), path


def test_records_out_of_order_are_refused(dataset):
    records = list(dataset.records())
    with pytest.raises(DatasetError, match="in its order"):
        list(with_pngs(dataset, reversed(records)))
    with pytest.raises(DatasetError, match="not found"):
        list(with_pngs(dataset, [replace(records[0], id="0" * 15 + "f")]))


def test_missing_library_is_said_with_its_extra(tmp_path, dataset, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"huggingface_hub.*pip install 'medglip\[hub\]'"):
        export(dataset, tmp_path / "out", "hf")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", ["hf", "webdataset", "croissant", "nnunet"])
def test_empty_choice_is_refused(tmp_path, to, make_picture, write_dataset):
    data = write_dataset(tmp_path / "data", [make_picture(np.zeros((8, 9), np.uint8), 7)])
    (out := tmp_path / "out").mkdir()
    write = importlib.import_module(f"medglip.exports.{to}").write
    with pytest.raises(InputError, match=f"Export to {to}: found no image"):
        write(data, out, Choice("test"), lambda done, total: None)
