"""Pools of workers: killed processes, cases that kill, order, spilled outcomes, and what ends with what."""

import os
import pickle
import select
import signal
import subprocess
import sys
import time

import psutil
import pytest
from deadly import DeadlyFolder, OnceDeadlyFolder, with_folder
from killing import write_source

from medglip.curate import cluster, load_source, pools
from medglip.curate.cluster import outcomes_on_dask
from medglip.curate.plan import measured
from medglip.curate.pools import has_room, outcomes_here, outcomes_in_processes
from medglip.curate.tasks import NoInputError, Outcome, found_tasks, spilled, worked
from medglip.errors import InputError
from medglip.records import Reject


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    source = load_source(write_source(folder, 6))
    return measured(found_tasks(source, folder / "in")[0])


def undisturbed():
    """The look of a run that nobody stops."""


def shown(outcomes):
    """What outcomes hold, to be compared."""
    found = []
    for outcome in outcomes:
        tables = outcome.pictures and [table.to_pylist() for table in outcome.pictures[:3]]
        found.append((tables, outcome.pictures and outcome.pictures.pngs, outcome.volumes, outcome.rejects))
    return found


def test_a_case_that_kills_its_worker_is_refused_by_name_and_the_others_are_done(cases, tmp_path, monkeypatch):
    monkeypatch.setattr(pools, "TRIES", 2)
    expected = shown(outcomes_here(cases[:3], undisturbed))
    folder = cases[0].task.case.folder
    deadly = [cases[0], with_folder(cases[1], DeadlyFolder(folder)), cases[2]]
    found = list(outcomes_in_processes(deadly, 2, tmp_path, undisturbed))
    (reject,) = found[1].rejects
    assert (reject.reason, reject.case) == ("killed_process", cases[1].task.key)
    assert shown(found[::2]) == expected[::2]


def test_a_worker_that_others_killed_costs_no_case(cases, tmp_path):
    folder = cases[0].task.case.folder
    once = [cases[0], with_folder(cases[2], OnceDeadlyFolder(folder))]
    assert shown(outcomes_in_processes(once, 2, tmp_path, undisturbed)) == shown(
        outcomes_here([cases[0], cases[2]], undisturbed)
    )


@pytest.mark.slow
def test_the_same_on_dask(cases):
    expected = shown(outcomes_here(cases, undisturbed))
    folder = cases[0].task.case.folder
    deadly = [with_folder(case, DeadlyFolder(folder)) if number == 2 else case for number, case in enumerate(cases)]
    found = list(outcomes_on_dask(deadly, 2, undisturbed))
    assert [reject.reason for reject in found[2].rejects] == ["killed_process"]
    del found[2], expected[2]
    assert shown(found) == expected


@pytest.mark.slow
def test_a_cluster_without_workers_is_made_anew(cases, monkeypatch):
    made, make = [], cluster._cluster
    monkeypatch.setattr(cluster, "_ASK_S", 0.2)
    monkeypatch.setattr(cluster, "_PATIENCE_S", 1.0)
    monkeypatch.setattr(cluster, "_cluster", lambda workers: made.append(workers) or make(0 if len(made) == 1 else workers))
    assert shown(outcomes_on_dask(cases[:3], 1, undisturbed)) == shown(outcomes_here(cases[:3], undisturbed))
    assert made == [1, 1]
    monkeypatch.setattr(cluster, "_cluster", lambda workers: make(0))
    with pytest.raises(InputError, match="no worker"):
        list(outcomes_on_dask(cases[:1], 1, undisturbed))


def test_an_outcome_waits_in_a_file_until_it_is_taken(cases, tmp_path):
    left = spilled(cases[0].task, str(tmp_path))
    assert [path.suffix for path in tmp_path.iterdir()] == [".outcome"]
    assert shown([left.taken()]) == shown([worked(cases[0].task)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("detail", [3, 5000])
def test_what_a_worker_says_is_sent_whole_or_not_at_all(cases, tmp_path, monkeypatch, detail):
    rejects = [Reject("toy", f"{number}.png", "failed", "d" * detail) for number in range(500)]
    monkeypatch.setattr("medglip.curate.tasks.worked", lambda task: Outcome(None, [], rejects, rejects))
    left = spilled(cases[0].task, str(tmp_path))
    assert len(pickle.dumps(left)) < select.PIPE_BUF - 1024  # what the pool writes around it is some 200 bytes
    assert left.taken().said == rejects


def test_processes_end_when_the_run_is_stopped(cases, tmp_path):
    stopped = []

    def look():
        if stopped:
            raise KeyboardInterrupt

    before = set(psutil.Process().children())
    outcomes = outcomes_in_processes(cases, 2, tmp_path, look)
    next(outcomes)
    stopped.append(True)
    with pytest.raises(KeyboardInterrupt):
        next(outcomes)
    assert not [child for child in set(psutil.Process().children()) - before if "spawn_main" in " ".join(child.cmdline())]


def test_few_large_cases_are_handed_out_at_once(cases, monkeypatch):
    assert has_room(cases[:5], 2)
    assert not has_room([*cases[:4], *cases[:4]], 2)
    monkeypatch.setattr(pools, "BYTES_AHEAD", 10)
    assert has_room(cases[:1], 2)  # nobody is idle
    assert not has_room(cases[:2], 2)


def test_an_input_that_went_is_said_and_blamed_on_no_case(cases, tmp_path):
    gone = [with_folder(case, tmp_path / "gone") for case in cases]
    with pytest.raises(NoInputError, match="is not there where"):
        list(outcomes_in_processes(gone, 2, tmp_path, undisturbed))


def test_workers_end_with_the_process_that_started_them(tmp_path):
    code = """
import os, time
from concurrent.futures import wait
from medglip.curate.pools import _Pool
if __name__ == "__main__":
    pool = _Pool(1, "")
    print(pool._submit(os.getpid).result(), flush=True)
    time.sleep(60)
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as driver:
        worker = psutil.Process(int(driver.stdout.readline()))
        os.kill(driver.pid, signal.SIGKILL)
    end = time.monotonic() + 20
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE and time.monotonic() < end:
        time.sleep(0.05)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


def test_a_script_without_a_guard_is_told_so(cases, tmp_path, monkeypatch):
    monkeypatch.setattr(pools._Pool, "is_ready", lambda pool, look: False)  # its processes die before they begin
    folder = DeadlyFolder(cases[0].task.case.folder)
    with pytest.raises(InputError, match="if __name__ =="):
        list(outcomes_in_processes([with_folder(case, folder) for case in cases[:2]], 2, tmp_path, undisturbed))


def test_a_scheduler_that_is_not_there(cases, monkeypatch):
    monkeypatch.setattr("medglip.curate.cluster._CONNECT_S", 1)
    with pytest.raises(InputError, match=r"found nobody at 'tcp://127.0.0.1:9'"):
        list(outcomes_on_dask(cases, 2, undisturbed, "tcp://127.0.0.1:9"))


def test_dask_that_is_not_installed(cases, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install 'medglip\[dask\]'"):
        list(outcomes_on_dask(cases, 2, undisturbed))
