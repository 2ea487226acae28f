"""The recipes that medglip ships: whole, alike, and trainable as they stand but for the size of their parts."""

import json

import numpy as np
import pytest
from scenes import Scenes

from medglip.model import build_model
from medglip.model.checkpoints import CheckpointInfo, save_checkpoint
from medglip.model.config import FOLDER, load_config
from medglip.predict import Grounder
from medglip.train import train
from medglip.train.learning import WAYS

RECIPES = sorted(path.stem for path in FOLDER.glob("*.toml"))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_all_there_is_to_say(name):
    mine, tiny = load_config(name), load_config("tiny")
    for section in ("model", "train", "loss"):
        assert mine[section].keys() == tiny[section].keys(), section


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_begins_by_saying_what_it_is_for(name):
    first = (FOLDER / f"{name}.toml").read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert len(first.split()) >= 6


@pytest.mark.parametrize("name", ["linear_probe", "prompt_tuning", "lora", "few_shot", "replay"])
def test_what_begins_with_a_checkpoint_of_lite_is_of_its_shape(name):
    mine, lite = load_config(name), load_config("lite")
    assert mine["model"] == lite["model"]
    assert {**mine["image"], "train_from": 0} == {**lite["image"], "train_from": 0}
    assert (mine["text"], mine["loss"]) == (lite["text"], lite["loss"])


def test_every_way_of_learning_has_a_recipe_but_the_plainest():
    assert set(WAYS) - {load_config(name)["train"]["learn"] for name in RECIPES} == {"encoder_frozen"}


def small(name):
    """A recipe with parts of a test's size."""
    recipe = load_config(name, width=32, heads=2, steps=2, minutes=0, batch=2, captions=1.0, validations=0)
    # 256 pixels: on a CPU the weights of torch's bfloat16 convolutions get NaN gradients from maps of one cell.
    size = 256 if recipe["train"]["precision"] == "bf16-mixed" else 64
    recipe["image"], recipe["text"] = {"encoder": "tiny", "size": size}, {"encoder": "hashed"}
    recipe["train"]["workers"] = min(1, recipe["train"]["workers"])
    recipe["train"].update(sizes=[], patience=0)
    return recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_in_its_own_precision_with_its_own_losses(name, tmp_path):
    recipe, more = small(name), {}
    if recipe["train"]["learn"] != "all":
        begun = load_config(recipe, learn="all")
        model = build_model(begun)
        save_checkpoint(tmp_path / "begun", model, model.state_dict(), CheckpointInfo(begun))
        more["start_from"] = tmp_path / "begun"
    if recipe["train"]["replay"]:
        more["replay"] = [Scenes(4, seed=1)]
    best = train(recipe, [Scenes(8, rich=True)], tmp_path / "run", show=False, **more)
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2]
    assert {term for term, weight in recipe["loss"].items() if weight > 0} <= steps[0].keys()
    assert all(np.isfinite(step["loss"]) for step in steps)
    answer = Grounder.load(best, "cpu").answer([np.zeros((50, 60), np.uint8)], [["liver", "heart"]], ["ct"])[0]
    assert answer.presence.shape == (2,)
