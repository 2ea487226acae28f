"""The commands pseudo-label and merge-weights, from checkpoint to dataset and checkpoint."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import medglip.cli.teaching  # noqa: F401  (its commands join the application)
from medglip import store
from medglip.cli.frame import app
from medglip.deliver.pseudo_label import checkpoint_id
from medglip.errors import InputError
from medglip.model import build_model, load_config
from medglip.model.checkpoints import CheckpointInfo, load_checkpoint, save_checkpoint
from medglip.records import ImageRecord, Origin, Region, Text
from medglip.records.picture import Picture
from medglip.store import pixel_sha256, write_part
from medglip.train import train


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Two random models; the first believes whatever it is asked to be there."""
    folder = tmp_path_factory.mktemp("checkpoints")
    config = load_config("tiny", size=64)
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        model = build_model(config)
        info = CheckpointInfo(config, ("thorax.lung.nodule", "thorax.pleura.effusion"), ("xray",), presence_threshold=0.0)
        save_checkpoint(folder / name, model, model.state_dict(), info)
    return folder / "one", folder / "two"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films") / "films"
    pictures = []
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 50), dtype=np.uint8)
        record = ImageRecord(
            f"{number:016x}", pixel_sha256(pixels), 50, 40, 1, 8, "xray", Origin("films", f"{number}.png", str(number)), "MIT",
            split="train", texts=(Text("Pleural effusion. No pneumothorax."),), absent=("thorax.pleura.pneumothorax",),
            regions=(Region("thorax.heart", (10.0, 10.0, 30.0, 30.0)),),
        )  # fmt: skip
        pictures.append(Picture(record, pixels))
    info = {"source": "films", "title": "Films", "licence": "MIT", "matrix": {"xray": [{"field": ["thorax"]}]}}
    write_part(folder, "films-0", pictures, (), (), info)
    return folder


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("command", ["pseudo-label", "merge-weights"])
def test_help_has_an_example(command):
    assert f"medglip {command} " in run(command, "--help")


def test_boxes_of_a_teacher_become_a_dataset_that_trains(checkpoints, dataset, tmp_path):
    out = tmp_path / "boxed"
    said = json.loads(run("pseudo-label", checkpoints[0], dataset, out, "--threshold", "0", "--labels", "--json"))
    assert (said["images"], said["asked"]) == (3, 6)  # the effusion by the text, the nodule as it may be there
    assert said["boxes"] >= said["kept"] > 0
    assert said["left_out"] == {"denied": 3}
    predicted = [one for record in store.open(out).records() for one in record.regions if one.provenance == "predicted"]
    assert len(predicted) == said["boxes"]
    assert {one.attributes["checkpoint"] for one in predicted} == {checkpoint_id(checkpoints[0])}
    assert checkpoint_id(checkpoints[0]) != checkpoint_id(checkpoints[1])
    assert (out / "croissant.json").is_file()
    best = train("tiny", [store.open(out)], tmp_path / "run", show=False, steps=2, size=64, batch=2, validations=0)
    assert "thorax.lung.nodule" in load_checkpoint(best)[1].concepts
    words = run("pseudo-label", checkpoints[0], dataset, out, "--threshold", "0", "--labels")
    assert f"{said['boxes']} boxes for {said['kept']} of 6 phrases; left out: 3 denied" in words


def test_weights_are_merged_into_a_new_checkpoint(checkpoints, tmp_path):
    out = tmp_path / "between"
    said = json.loads(run("merge-weights", *checkpoints, out, "--share", "0.25", "--json"))
    assert said["share"] == 0.25
    states = [load_checkpoint(folder)[0].state_dict() for folder in (*checkpoints, out)]
    name = "head.align.text.weight"
    assert torch.allclose(states[2][name], 0.75 * states[0][name] + 0.25 * states[1][name], atol=1e-7)
    with pytest.raises(InputError, match="found files there"):
        run("merge-weights", *checkpoints, out)
