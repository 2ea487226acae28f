"""Runs that are killed or stopped: they go on, end with the same bytes, and say so."""

import json
import os
import shutil
import signal
import time

import pytest
from killing import CASES_PER_PART, differences, killed_run, started, workers_of, write_source
from typer.testing import CliRunner

from medglip import store
from medglip.cli import app
from medglip.cli.frame import describe_anew
from medglip.curate import convert, plan
from medglip.errors import InputError
from medglip.store.manifest import COPY

CASES = 60


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("source"), CASES)


@pytest.fixture
def whole(source, tmp_path, monkeypatch):
    """The dataset of one undisturbed run."""
    monkeypatch.setattr(plan, "CASES_PER_PART", CASES_PER_PART)
    convert(source, source.parent / "in", tmp_path / "whole")
    describe_anew(tmp_path / "whole")
    return tmp_path / "whole"


def test_kills_of_worker_and_writer_leave_no_trace(source, whole, tmp_path):
    kills = [("worker", 0.0), ("driver", 2.0)]
    assert killed_run(source, tmp_path / "d", ["--workers", "2"], kills)[0] == "worker"
    assert differences(whole, tmp_path / "d") == []


def test_what_was_killed_after_the_last_commit_is_tidied(source, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "d")
    (tmp_path / "d" / COPY).write_text("of the part before")
    (tmp_path / "d" / ".writing" / "toy-1-left").mkdir(parents=True)
    (tmp_path / "d" / ".manifest.json").write_text("half")
    (tmp_path / "d" / "shards" / "toy-1-00000-0123456789ab.tar").write_text("committed by nobody")
    assert convert(source, source.parent / "in", tmp_path / "d").skipped == CASES
    assert differences(whole, tmp_path / "d") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_clean_and_says_how_to_go_on(source, whole, tmp_path, number):
    run = started(source, tmp_path / "d", "--workers", "2", "--json")
    end = time.monotonic() + 60
    while not (tmp_path / "d" / "manifest.json").exists() and time.monotonic() < end:
        time.sleep(0.01)
    workers = workers_of(run)
    os.killpg(run.pid, number) if number == signal.SIGINT else run.send_signal(number)  # a terminal tells the whole group
    out, said = run.communicate(timeout=180)
    assert run.returncode == 130, said
    assert "cases are in the dataset; run the same command again to go on" in said
    assert "Traceback" not in said
    assert out == ""
    assert not any(worker.is_running() for worker in workers)
    assert 0 < len(store.open(tmp_path / "d")) < len(store.open(whole))
    convert(source, source.parent / "in", tmp_path / "d")
    describe_anew(tmp_path / "d")
    assert differences(whole, tmp_path / "d") == []


def test_the_command_shows_rejects_and_keeps_its_json_clean(source, tmp_path):
    run = started(source, tmp_path / "d", "--json")
    out, said = run.communicate(timeout=180)
    assert run.returncode == 3
    facts = json.loads(out)
    assert (facts["cases"], facts["images"], facts["rejects"], facts["complete"]) == (
        CASES,
        CASES - 1,
        {"unreadable_file": 1},
        True,
    )
    assert "rejected: unreadable_file: images/p001_1.png: " in said


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--engine", "ray"], "allowed: processes, dask"),
        (["--scheduler", "tcp://127.0.0.1:1"], "with --engine dask"),
        (["--shard", "3/2"], "i from 1 to n"),
    ],
)
def test_wrong_options_are_one_sentence(source, tmp_path, options, word):
    done = CliRunner().invoke(app, ["convert", str(source), str(source.parent / "in"), str(tmp_path / "d"), *options])
    assert isinstance(done.exception, InputError)
    assert done.exception.exit_code == 2
    assert word in str(done.exception)
    assert not (tmp_path / "d").exists()
