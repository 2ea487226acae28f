"""export, import-coco and import-odvg as a user types them; what is left out, and what a failure leaves."""

import json
import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from medglip.cli import main
from medglip.errors import InputError
from medglip.exports import FORMATS, Choice, export
from medglip.records.masks import rle_of_mask
from medglip.records.record import Region, Span, Text
from medglip.store import open as open_dataset


@pytest.fixture
def run(monkeypatch, capsys):
    def typed(*words, code=0):
        monkeypatch.setattr(sys, "argv", ["medglip", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert (ended.value.code or 0) == code, said.err
        return said

    return typed


def test_out_and_back_in(run, dataset, tmp_path):
    facts = json.loads(run("export", dataset.path, tmp_path / "coco", "--to", "coco", "--split", "train", "--json").out)
    assert (facts["images"], facts["regions"], facts["negative_images"]) == (2, 5, 1)
    words = ("--images", tmp_path / "coco/images", "--licence", "CC-BY-4.0", "--source", "back", "--json")
    facts = json.loads(run("import-coco", tmp_path / "coco/instances_train.json", tmp_path / "d", *words).out)
    assert facts == {"source": "back", "images": 2, "regions": 5, "texts": 3, "rejects": {}}
    run("export", dataset.path, tmp_path / "odvg", "--to", "odvg")
    words = ("--images", tmp_path / "odvg/images", "--licence", "CC-BY-4.0")
    assert "regions: 1" in run("import-odvg", tmp_path / "odvg/test.jsonl", tmp_path / "d", *words).out
    assert len(open_dataset(tmp_path / "d")) == 3
    assert "clean" in run("validate", tmp_path / "d").out


def test_some_rejected_is_exit_code_3(run, exported, tmp_path):
    coco = json.loads((exported("coco") / "instances_train.json").read_text(encoding="utf-8"))
    coco["annotations"][4]["bbox"] = [-90, 0, 9, 9]
    (tmp_path / "spoilt.json").write_text(json.dumps(coco))
    words = ("--images", exported("coco") / "images", "--licence", "MIT")
    said = run("import-coco", tmp_path / "spoilt.json", tmp_path / "d", *words, code=3)
    assert "box_out_of_image" in said.out
    assert "1 items were rejected" in said.err


@pytest.mark.parametrize("name", ["export", "import-coco", "import-odvg"])
def test_help_has_an_example(run, name):
    assert f"Example: medglip {name} " in re.sub(r"\s+", " ", run(name, "--help").out)


def test_wrong_use_is_exit_code_2(run, dataset, exported, tmp_path):
    assert "'cocoa'; allowed: coco, odvg" in run("export", dataset.path, tmp_path / "x", "--to", "cocoa", code=2).err
    assert "files in it" in run("export", dataset.path, exported("coco"), "--to", "coco", code=2).err
    assert "allowed: train" in run("export", dataset.path, tmp_path / "x", "--to", "coco", "--split", "dev", code=2).err
    assert "no image in the split" in run(
        "export", dataset.path, tmp_path / "x", "--to", "coco", "--split", "unassigned", code=2
    ).err  # fmt: skip
    assert "min_side_px" in run("export", dataset.path, tmp_path / "x", "--to", "yolo", "--min-side", "-1", code=2).err
    assert "'yolo'" in run("export", dataset.path, tmp_path / "x", "--to", "coco", "--polygons", code=2).err
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_and_a_parent_that_is_not_there_are_fine(dataset, tmp_path):
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "a" / "b"):
        export(dataset, out, "yolo", choice=Choice("test"))
        assert (out / "data.yaml").is_file()
        assert [path.name for path in out.parent.iterdir() if path.name.startswith(".")] == []


def test_a_failure_leaves_nothing(dataset, tmp_path):
    def stop(done, total):
        assert total == len(dataset)
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(dataset, tmp_path / "coco", "coco", on_image=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_names_the_extra(dataset, tmp_path, monkeypatch):
    def write(*_):
        raise ModuleNotFoundError("No module named 'datasets'", name="datasets")

    monkeypatch.setitem(sys.modules, "medglip.exports.hf", SimpleNamespace(write=write))
    with pytest.raises(InputError, match=r"'datasets', which is not installed.*medglip\[hub\]"):
        export(dataset, tmp_path / "hf", "hf")
    assert list(tmp_path.iterdir()) == []


def test_licences_of_what_is_in_it(dataset, exported, tmp_path):
    said = json.loads((exported("coco") / "licences.json").read_text())
    assert said[0]["licences"] == {"CC-BY-4.0": 3, "CC0-1.0": 1}
    assert "Nobody 2020" in (exported("coco") / "LICENCES.txt").read_text()
    export(dataset, tmp_path / "x", "mdetr", choice=Choice("test"))
    assert json.loads((tmp_path / "x" / "licences.json").read_text())[0]["licences"] == {"CC0-1.0": 1}


def test_small_regions_are_left_out_and_all_that_speaks_of_them(write_dataset, make_picture, tmp_path):
    mask = np.zeros((40, 40), bool)
    mask[10, 10:20] = mask[10:20, 10] = True
    regions = [
        Region("abdomen.kidney", (1.0, 1.0, 30.0, 30.0), laterality="left", id="k"),
        Region("abdomen.kidney.cyst", (10.0, 10.0, 20.0, 20.0), rle_of_mask(mask), "left", parents=("k",), id="c"),
        Region("abdomen.kidney.stone", (5.0, 5.0, 8.0, 30.0), parents=("c", "k"), id="s"),
    ]
    text = Text("A cyst and a stone.", spans=(Span(2, 6, ("c",)), Span(13, 18, ("s", "c"))))
    searched = ("abdomen.kidney.cyst", "abdomen.kidney.stone", "abdomen.kidney@left", "abdomen.kidney@right")
    picture = make_picture(np.zeros((40, 40), np.uint8), 1, regions, exhaustive=searched, texts=(text,))
    dataset = write_dataset(tmp_path / "d", [picture])

    def kept(**limits):
        return next(replace(Choice(), **limits).records(dataset))

    assert kept() == picture.record
    no_stone = kept(min_side_px=4)
    assert [region.id for region in no_stone.regions] == ["k", "c"]
    assert no_stone.exhaustive == (searched[0], *searched[2:])
    assert [span.regions for span in no_stone.texts[0].spans] == [("c",), ("c",)]
    no_cyst = kept(min_area_px=20)  # the mask has 19 pixels, its box 100
    assert [(region.id, region.parents) for region in no_cyst.regions] == [("k", ()), ("s", ("k",))]
    assert [span.regions for span in no_cyst.texts[0].spans] == [("s",)]
    counts = export(dataset, tmp_path / "coco", "coco", choice=Choice(min_side_px=1000))
    assert (counts["images"], counts["regions"], counts["regions_too_small"]) == (1, 0, 3)


@pytest.mark.parametrize("to", [name for name in FORMATS if name in ("coco", "odvg", "mdetr", "yolo")])
def test_equal_datasets_give_equal_bytes(dataset, exported, tmp_path, to):
    export(dataset, tmp_path / to, to)
    for path in exported(to).rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / to / path.relative_to(exported(to))).read_bytes(), path
