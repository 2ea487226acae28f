"""Two processes train as one does: the same images a step, the same losses, the same weights."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from scenes import Scenes
from test_loop import TERMS, losses

from medglip.train import train

PLAN = {"steps": 3, "size": 64, "hierarchy": 1.0, "contrast": 1.0, "validations": 1}
CHILD = """
import json, sys
sys.path.insert(0, sys.argv[1])
from scenes import Scenes
from medglip.train import train

judge = lambda model, info: {"score": float(model.fusion.layers[0].ffn[0].weight.detach().abs().mean())}
plan = json.loads(sys.argv[3])
train("tiny", [Scenes(8, rich=True)], sys.argv[2], show=False, validate=judge, accelerator="cpu", strategy="ddp", **plan)
train("tiny", [Scenes(8, rich=True)], sys.argv[2], show=False, validate=judge, accelerator="cpu", strategy="ddp", resume=True,
      **(plan | {"steps": 4}))
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A run of two processes of two images each, resumed once."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "child.py").write_text(CHILD)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_addr=127.0.0.1",
               f"--master_port={port}", str(folder / "child.py"), str(Path(__file__).parent), str(folder / "run"),
               json.dumps(PLAN | {"batch": 2})]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / "run"


def test_two_processes_learn_as_one_of_the_same_images(two, tmp_path):
    facts = json.loads((two / "run.json").read_text())
    assert facts["world_size"] == 2
    assert facts["images_a_step"] == 4
    assert len(facts["resumed"]) == 1
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        data = [Scenes(8, rich=True)]
        judge = {"validate": lambda model, info: {"score": 0.0}}
        train("tiny", data, tmp_path / "one", show=False, batch=4, **judge, **PLAN)
        train("tiny", data, tmp_path / "one", show=False, batch=4, resume=True, **judge, **(PLAN | {"steps": 4}))
    finally:
        torch.set_num_threads(threads)
    found, wanted = losses(two), losses(tmp_path / "one")
    assert found.keys() == wanted.keys() == {1, 2, 3, 4}
    for step, values in wanted.items():
        assert found[step] == pytest.approx(values, abs=1e-4), dict(zip(TERMS, values, strict=False))
    one, other = (load_file(path / "last/model.safetensors") for path in (tmp_path / "one", two))
    assert max(float((one[name] - other[name]).abs().max()) for name in one) < 1e-3


def test_one_process_writes_and_the_state_has_the_chance_of_both(two):
    lines = [json.loads(line) for line in (two / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    assert [line["step"] for line in lines if "val_score" in line] == [3, 4]
    state = torch.load(two / "state.pt", weights_only=True)
    assert len(state["random"]) == 2
    assert not torch.equal(state["random"][0]["cpu"], state["random"][1]["cpu"])
    assert not (two / "lock").exists()
