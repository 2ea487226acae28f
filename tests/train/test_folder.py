"""The folder of a run: what is written in it, who may write, and when a run may go on."""

import json
import multiprocessing
import os
import socket
import tomllib
from pathlib import Path

import pytest
from scenes import Scenes

from medglip.cli.training import changed, ending
from medglip.errors import InputError, ModelError
from medglip.model import load_config
from medglip.train import folder, train

SHORT = {"steps": 2, "batch": 2, "size": 64}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    train("tiny", [Scenes(4)], out, show=False, modality=["film"], **SHORT)
    return out


def test_a_run_says_what_it_was_started_with(run):
    config = tomllib.loads((run / "config.toml").read_text())
    assert config == load_config("tiny", modality=["film"], **SHORT)
    facts = json.loads((run / "run.json").read_text())
    assert {"medglip", "torch", "python", "platform", "git", "command", "started", "host"} <= facts.keys()
    assert (facts["seed"], facts["world_size"], facts["images_a_step"], facts["resumed"]) == (0, 1, 2, [])
    assert len(facts["datasets"][0]["manifest"]) == 64
    assert not (run / "lock").exists()


def test_a_folder_that_holds_a_run_is_not_written_over(run):
    before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(ModelError, match=r"already holds a run .*--resume.*--fresh"):
        train("tiny", [Scenes(4)], run, show=False, **SHORT)
    assert (run / "metrics.jsonl").read_bytes() == before


def test_what_may_not_change_is_named(run):
    with pytest.raises(ModelError, match=r"train.lr was 0.003 and is now 0.1.*Allowed to change: steps") as error:
        train("tiny", [Scenes(4)], run, show=False, resume=True, modality=["film"], lr=0.1, workers=1, **SHORT)
    assert "workers was" not in str(error.value)
    with pytest.raises(ModelError, match=r"model.modality was \['film'\]"):
        train("tiny", [Scenes(4)], run, show=False, resume=True, **SHORT)
    with pytest.raises(ModelError, match="from 2 images a step, and would now from 4 "):
        train("tiny", [Scenes(4)], run, show=False, resume=True, modality=["film"], accumulate=2, **SHORT)
    other = Scenes(4, modality="mr")
    with pytest.raises(ModelError, match="other data: datasets were Scenes"):
        train("tiny", [other], run, show=False, resume=True, modality=["film"], **SHORT)


def test_more_steps_and_other_batches_of_the_same_images_go_on(run):
    train("tiny", [Scenes(4)], run, show=False, resume=True, modality=["film"], steps=3, batch=1, accumulate=2, size=64)
    facts = json.loads((run / "run.json").read_text())
    assert len(facts["resumed"]) == 1
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3]
    assert tomllib.loads((run / "config.toml").read_text())["train"]["steps"] == 3


def test_keys_of_another_version_change_nothing():
    assert folder.changed_keys({"train": {"lr": 1, "gone": 2}}, {"train": {"lr": 1, "new": 3}}) == []
    assert folder.changed_keys({"train": {"sizes": [64]}}, {"train": {"sizes": (64,)}}) == []
    assert folder.changed_keys({"train": {"lr": 1}}, {"train": {"lr": 2}}) == ["train.lr was 1 and is now 2"]


def test_one_process_at_a_time(tmp_path):
    with folder.locked(tmp_path), pytest.raises(ModelError, match=f"in use by process {os.getpid()} on "):  # noqa: SIM117
        with folder.locked(tmp_path):
            pass
    with folder.locked(tmp_path):
        assert (tmp_path / "lock").is_file()
    assert list(tmp_path.iterdir()) == []


def _die_with_the_lock(path):
    with folder.locked(path):
        os._exit(9)


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    child = multiprocessing.get_context("fork").Process(target=_die_with_the_lock, args=(tmp_path,))
    child.start()
    child.join()
    assert json.loads((tmp_path / "lock").read_text())["process"] == child.pid
    with folder.locked(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["process"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [{"host": "elsewhere"}, {"process": 1, "born": None}])
def test_the_lock_of_another_host_or_of_a_living_process_stays(tmp_path, change):
    held = {"host": socket.gethostname(), "process": 2**22 + 1, "born": 1, "since": "today"} | change
    (tmp_path / "lock").write_text(json.dumps(held))
    with pytest.raises(ModelError, match="since today"), folder.locked(tmp_path):
        pass
    assert json.loads((tmp_path / "lock").read_text()) == held


def test_a_number_that_another_process_has_now_is_no_lock(tmp_path):
    held = {"host": socket.gethostname(), "process": os.getpid(), "born": 1, "since": "today"}
    (tmp_path / "lock").write_text(json.dumps(held))
    with folder.locked(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["born"] != 1


def test_clear_removes_the_run_and_nothing_else(tmp_path):
    (tmp_path / "last").mkdir()
    for name in ("last/model.safetensors", "state.pt", "run.json", "notes.txt"):
        (tmp_path / name).write_text("x")
    folder.clear(tmp_path)
    folder.clear(tmp_path / "nowhere")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_log_that_was_cut_short_is_mended(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    folder.forget_after(tmp_path, 2)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


def test_tables_and_texts_survive_toml():
    config = {
        "image": {"config": {"model_type": "swin", "a key": [1, 2.5]}, "folder": 'a "b"\\c', "x": 1e-7},
        "train": {"on": True},
    }
    assert tomllib.loads(folder.to_toml(config)) == config


def test_the_command_reads_values_as_toml_does():
    found = changed(["batch=4", "lr=1e-4", "compile=true", "precision=bf16-mixed", "modality=['film']", 'strategy = "ddp"'])
    assert found == {
        "batch": 4,
        "lr": 1e-4,
        "compile": True,
        "precision": "bf16-mixed",
        "modality": ["film"],
        "strategy": "ddp",
    }
    for words, given in ((["batch"], ()), (["=4"], ()), (["batch=4", "batch=5"], ()), (["seed=4"], ("seed",))):
        with pytest.raises(InputError, match="--set"):
            changed(words, given)


def test_the_command_ends_with_the_checkpoint_its_figures_and_what_comes_next(tmp_path):
    (tmp_path / "best").mkdir()
    (tmp_path / "best/config.json").write_text('{"trained": {"steps": 4}}')
    lines = [{"step": 2, "val_score": 0.1, "val_ap50": 0.1},
             {"step": 4, "val_score": 0.5, "val_ap50": 0.512, "val_acc50": "no"},
             {"step": 4, "loss": 1.0}, {"step": 8, "val_score": 0.2, "val_ap50": 0.2}]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = ending(tmp_path / "best", tmp_path, [Path("busi")]).splitlines()
    assert told[0] == f"checkpoint: {tmp_path / 'best'}"
    assert told[1] == "ap50 0.512  (on the images of split val)"
    assert told[2] == f"next: medglip evaluate {tmp_path / 'best'} busi --split test"
    (tmp_path / "metrics.jsonl").write_text('{"step": 4, "loss": 1.0}\n')
    assert len(ending(tmp_path / "best", tmp_path, [Path("busi")]).splitlines()) == 2
