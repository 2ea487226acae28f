"""The commands evaluate and compare, as a user types them, on a dataset of eight drawings and an untrained model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import medglip.cli.judging as judging
from medglip.cli.frame import app, main
from medglip.errors import DatasetError, InputError, ModelError
from medglip.model import build_model, load_config
from medglip.model.checkpoints import CheckpointInfo, save_checkpoint
from medglip.model.shipped import FOLDER
from medglip.records import ImageRecord, Origin, Region
from medglip.records.picture import Picture
from medglip.records.record import identified
from medglip.store import pixel_sha256, write_part

LIVER, SPLEEN = "abdomen.liver", "abdomen.spleen"


def drawing(number, source="drawings"):
    """A bright square on noise: the liver, of every second image."""
    pixels = np.random.default_rng((len(source), number)).integers(0, 90, (64, 64), dtype=np.uint8)
    regions = ()
    if number % 2:
        pixels[10:40, 8:44] = 200
        regions = (Region(LIVER, (8.0, 10.0, 44.0, 40.0)),)
    record = ImageRecord(
        f"{number + 100 * len(source):016x}", pixel_sha256(pixels), 64, 64, 1, 8, "ct",
        Origin(source, f"{number}.png", str(number)), "CC0-1.0", body_region="abdomen", group=f"p{number // 2}",
        split="test" if number < 6 else "val", split_source="hash",
        regions=regions, exhaustive=(LIVER,), absent=(SPLEEN,),
    )  # fmt: skip
    return Picture(identified(record), pixels)


def dataset_in(folder, source="drawings"):
    info = {"source": source, "matrix": {}}
    write_part(folder, f"{source}-0", [drawing(number, source) for number in range(8)], (), (), info)
    return folder


def checkpoint_in(folder, seed=0):
    torch.manual_seed(seed)
    config = load_config("tiny", size=64)
    model = build_model(config)
    info = CheckpointInfo(config, (LIVER,), ("ct",), score_threshold=0.01, presence_threshold=0.0)
    return save_checkpoint(folder, model, model.state_dict(), info)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("judging")
    dataset_in(place / "drawings")
    checkpoint_in(place / "plain/best")
    return place


def typed(*words, error=None):
    done = CliRunner().invoke(app, [str(word) for word in words])
    if error is None:
        assert done.exit_code == 0, done.output
        return done.stdout
    assert isinstance(done.exception, error), (done.exception, done.output)
    return str(done.exception)


@pytest.fixture(scope="module")
def evaluated(place):
    return typed("evaluate", place / "plain/best", place / "drawings", "--draws", 20)


def test_evaluation_is_printed_and_left_beside_the_checkpoint(place, evaluated):
    folder = place / "plain/evaluation-test"
    assert {path.name for path in folder.iterdir()} == {"figures.json", "cases.parquet", "index.html"}
    for words in ("AP50", "Absence AUROC", "6 images, 12 questions", "95 % intervals", str(folder / "index.html")):
        assert words in " ".join(evaluated.split())
    figures = json.loads((folder / "figures.json").read_text())
    assert figures["about"]["checkpoint"] == str(place / "plain/best")
    assert figures["about"]["datasets"][0]["name"] == "drawings"
    assert figures["bootstrap"]["draws"] == 20
    assert set(figures["intervals_by_modality"]) == {"ct"}
    low, high = figures["intervals"]["miou"]
    assert low <= figures["miou"] <= high
    page = (folder / "index.html").read_text()
    assert page.count("data:image/jpeg") >= 2


def test_options_of_evaluate(place, tmp_path):
    dataset_in(tmp_path / "more", "sketches")
    out = tmp_path / "here"
    told = json.loads(typed("evaluate", place / "plain/best", place / "drawings", tmp_path / "more", "--split", "all",
                            "--limit", 6, "--batch", 3, "--draws", 5, "--out", out, "--no-page", "--json"))  # fmt: skip
    assert told["images"] == 6
    assert set(told["by_source"]) == {"drawings", "sketches"}
    assert {path.name for path in out.iterdir()} == {"figures.json", "cases.parquet"}
    assert json.loads((out / "figures.json").read_text()) == told


def test_other_checkpoints_of_a_run_do_not_overwrite_the_best_ones(place):
    checkpoint_in(place / "plain/last")
    assert judging._beside(place / "plain/last", "val").name == "evaluation-val-last"
    assert judging._beside(place / "plain/best", "val") == place / "plain/evaluation-val"
    assert judging._beside(FOLDER / "lite", "all") == Path("evaluation-all-lite")  # not into the installed package


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (("--split", "tset"), InputError, "'tset'"),
        (("--split", "train"), DatasetError, "no image of split 'train'"),
    ],
)
def test_a_split_that_is_not_there_is_one_sentence(place, words, error, message):
    assert message in typed("evaluate", place / "plain/best", place / "drawings", *words, error=error)


def test_no_checkpoint_and_no_dataset_are_one_sentence(place, tmp_path):
    typed("evaluate", tmp_path, place / "drawings", error=ModelError)
    assert "no dataset" in typed("evaluate", place / "plain/best", tmp_path, error=DatasetError)


def test_compare_prints_differences_and_writes_a_page(place, evaluated, tmp_path):
    checkpoint_in(place / "other/best", seed=1)
    typed("evaluate", place / "other/best", place / "drawings", "--draws", 5, "--no-page")
    told = " ".join(typed("compare", place / "plain", place / "other", "--draws", 20, "--out", tmp_path / "page.html").split())
    for words in ("other less plain: 3 patients, 12 questions", "Acc@0.5", "difference", str(tmp_path / "page.html")):
        assert words in told
    assert "other − plain" in (tmp_path / "page.html").read_text()
    facts = json.loads(typed("compare", place / "plain", place / "other/evaluation-test", "--draws", 20, "--json"))
    assert facts["differences"][0]["figures"]["miou"]["a"] == facts["runs"][0]["figures"]["miou"]
    assert [warning[:12] for warning in facts["warnings"]] == ["Few patients"]


def test_a_folder_that_is_no_evaluation_is_exit_code_2(place, evaluated, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["medglip", "compare", str(place / "plain"), str(place / "drawings")])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    assert "is no evaluation" in told
    assert "Traceback" not in told
