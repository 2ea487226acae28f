"""The recipes that medglip ships: whole, alike, and trainable as they stand but for the size of their parts."""

import json

import numpy as np
import pytest
from scenes import Scenes

from medglip.model.config import FOLDER, load_config
from medglip.predict import Grounder
from medglip.train import train

RECIPES = sorted(path.stem for path in FOLDER.glob("*.toml"))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_all_there_is_to_say(name):
    mine, tiny = load_config(name), load_config("tiny")
    for section in ("model", "train", "loss"):
        assert mine[section].keys() == tiny[section].keys(), section


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_in_its_own_precision_with_its_own_losses(name, tmp_path):
    # 256 pixels: on a CPU the weights of torch's bfloat16 convolutions get NaN gradients from maps of one cell.
    recipe = load_config(name, size=256, width=32, heads=2, steps=2, minutes=0, batch=2, workers=1, captions=1.0, validations=0)
    recipe["image"], recipe["text"] = {"encoder": "tiny", "size": 256}, {"encoder": "hashed"}
    best = train(recipe, [Scenes(8, rich=True)], tmp_path, show=False)
    steps = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2]
    assert {term for term, weight in recipe["loss"].items() if weight > 0} <= steps[0].keys()
    assert all(np.isfinite(step["loss"]) for step in steps)
    answer = Grounder.load(best, "cpu").answer([np.zeros((50, 60), np.uint8)], [["liver", "heart"]], ["ct"])[0]
    assert answer.presence.shape == (2,)
