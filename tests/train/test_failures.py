"""What goes wrong in training: what is said, and what is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from scenes import Scenes
from test_loop import losses

from medglip.errors import ModelError
from medglip.model import checkpoints
from medglip.train import loop, train
from medglip.train.failures import Stopping, memory
from medglip.train.run import Run
from medglip.train.state import load_state

SHORT = {"steps": 3, "batch": 2, "size": 64}


@pytest.fixture
def ctrl_c():
    """Ctrl-C is heard, also where the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def run(tmp_path):
    """A run of three steps, of which two may still come."""
    train(
        "tiny", [Scenes(4)], tmp_path / "run", show=False, validate=lambda model, info: {"score": 0.5}, validations=3, **SHORT
    )
    return tmp_path / "run"


def go_on(run, steps=4):
    return train("tiny", [Scenes(4)], run, show=False, resume=True, validate=lambda model, info: {"score": 0.5}, validations=3,
                 **(SHORT | {"steps": steps}))  # fmt: skip


def test_a_loss_that_is_no_number_stops_and_names_the_images(tmp_path, monkeypatch):
    data, real = Scenes(4), loop.grounding_loss
    calls = []

    def broken(*given):
        calls.append(1)
        terms = real(*given)
        return terms if len(calls) < 3 else {**terms, "box": terms["box"] * float("nan")}

    monkeypatch.setattr(loop, "grounding_loss", broken)
    with pytest.raises(ModelError, match=r"step 3: .*box is nan.*failed.pt") as error:
        train("tiny", [data], tmp_path, show=False, **(SHORT | {"steps": 5}))
    told = json.loads((tmp_path / "failed_batch.json").read_text())
    assert told["step"] == 3
    assert len(told["images"]) == 2
    for image in told["images"]:
        assert image["id"] in data.pixels
        assert image["id"] in str(error.value)
        assert image["source"] == "scenes"
    before = torch.load(tmp_path / "failed.pt", weights_only=True)
    assert before["counters"]["step"] == 2
    assert all(torch.isfinite(value).all() for value in before["learning"].values())


def test_a_gradient_that_is_no_number_stops_too(tmp_path, monkeypatch):
    real = Run.check
    monkeypatch.setattr(Run, "check", lambda run, terms, norm, *given: real(run, terms, float("inf"), *given))
    with pytest.raises(ModelError, match="step 1: gradient norm is inf"):
        train("tiny", [Scenes(4)], tmp_path, show=False, **SHORT)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), MemoryError(),
     RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")],
)  # fmt: skip
def test_out_of_memory_says_what_to_lower(error):
    plan = {"batch": 16, "phrases": 32, "accumulate": 1}
    with pytest.raises(ModelError, match=r"batch 16, size 640 and phrases 32 .*accumulate.*checkpointing"), memory(plan, 640):
        raise error


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes"), memory({"batch": 1, "phrases": 1}, 64):
        raise RuntimeError("shapes do not fit")


def _no_space(_, path):
    Path(path).write_bytes(b"the first half")
    raise SafetensorError("I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("file", ["state.new", "last/model.safetensors.new", "last/config.json.new"])
def test_a_full_disk_leaves_the_last_good_checkpoint(run, file, monkeypatch):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    before = {name: (run / name).read_bytes() for name in ("last/model.safetensors", "state.pt", "last/config.json")}
    with monkeypatch.context() as patch:
        if "model" in file:  # this library would put its own file in the link's place
            patch.setattr(checkpoints, "save_file", _no_space)
        else:
            (run / file).symlink_to("/dev/full")
        with pytest.raises(ModelError, match=r"the disk is full. The last good files are untouched \(best, last, state.pt\)"):
            go_on(run)
    assert not list(run.rglob("*.new"))
    load_file(run / "last/model.safetensors")
    assert torch.load(run / "state.pt", weights_only=True)["counters"]["step"] == 3
    if "model" in file:
        assert all((run / name).read_bytes() == content for name, content in before.items())
    go_on(run)
    assert sorted(losses(run)) == [1, 2, 3, 4]


def test_a_state_cut_in_half_goes_on_from_the_one_before_it(run, capsys):
    whole = (run / "state.pt").read_bytes()
    (run / "state.pt").write_bytes(whole[: len(whole) // 2])
    go_on(run)
    assert "state.pt is damaged" in capsys.readouterr().out
    assert sorted(losses(run)) == [1, 2, 3, 4]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"\x80\x02}q\x00."])
def test_without_a_good_state_there_is_one_sentence(run, content):
    for name in ("state.pt", "state.prev.pt"):
        (run / name).write_bytes(content)
    with pytest.raises(ModelError, match=r"state.pt is damaged: .*--fresh"):
        go_on(run)


def test_weights_cut_in_half_are_one_sentence(run):
    path = run / "best/model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:5000])
    with pytest.raises(ModelError, match=r"best.model.safetensors is damaged"):
        train("tiny", [Scenes(4)], run.parent / "next", show=False, start_from=run / "best", **SHORT)
    (run / "last/model.safetensors").write_bytes(path.read_bytes())
    with pytest.raises(ModelError, match=r"last.model.safetensors is damaged"):
        go_on(run)
    path.write_bytes(whole)  # with it, and the state, nothing is lost
    go_on(run)
    assert sorted(losses(run)) == [1, 2, 3, 4]


def test_a_state_of_another_optimiser_is_one_sentence(run):
    class Other:
        def load_state_dict(self, _):
            raise ValueError("loaded state dict has a different number of parameter groups")

    state = torch.load(run / "state.pt", weights_only=True)

    class Same:
        live = state["learning"]

    with pytest.raises(ModelError, match="other groups"):
        load_state(run / "state.pt", Same(), Other())


def test_a_second_ctrl_c_stops_at_once_and_the_handlers_come_back(ctrl_c):
    before = signal.getsignal(signal.SIGTERM)
    with Stopping() as stopping:
        os.kill(os.getpid(), signal.SIGINT)
        assert stopping.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before
    with pytest.raises(SystemExit) as ended:
        stopping.stop(signal.SIGTERM, 3)
    assert ended.value.code == 143


def test_what_ignores_ctrl_c_goes_on_ignoring_it(ctrl_c):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Stopping() as stopping:
        os.kill(os.getpid(), signal.SIGINT)
    assert stopping.signal == 0


CHILD = """
import sys, time
sys.path.insert(0, sys.argv[1])
from scenes import Scenes
from medglip.train import train

class Slow(Scenes):
    def display(self, name):
        time.sleep(0.02)
        return super().display(name)

train("tiny", [Slow(4)], sys.argv[2], show=False, steps=int(sys.argv[3]), batch=2, size=64)
"""


def test_a_run_that_was_terminated_goes_on_as_if_it_was_not(tmp_path):
    steps = 40
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(tmp_path / "run"), str(steps)]
    child = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True)
    log = tmp_path / "run/metrics.jsonl"
    while child.poll() is None and (not log.is_file() or log.read_text().count("\n") < 3):
        time.sleep(0.02)
    child.send_signal(signal.SIGTERM)
    told, _ = child.communicate(timeout=120)
    assert child.returncode == 143
    assert "goes on" in told
    done = max(losses(tmp_path / "run"))
    assert 3 <= done < steps
    assert not (tmp_path / "run/lock").exists()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        plan = {"steps": steps, "batch": 2, "size": 64, "show": False}
        train("tiny", [Scenes(4)], tmp_path / "run", resume=True, **plan)
        train("tiny", [Scenes(4)], tmp_path / "whole", **plan)
    finally:
        torch.set_num_threads(threads)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    one, other = (load_file(tmp_path / name / "last/model.safetensors") for name in ("run", "whole"))
    assert all(torch.equal(one[key], other[key]) for key in one)
