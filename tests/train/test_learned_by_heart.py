"""Eight images are learned by heart: whatever is built in the model, the gradients of all of it point the right way."""

from dataclasses import replace

import pytest
from scenes import Scenes

from medglip import store
from medglip.curate import convert
from medglip.evaluate import evaluate
from medglip.phantoms import write_archive
from medglip.train import train


class Eight:
    """Eight images of a dataset, of as many modalities as it has, all of the split ``train``."""

    def __init__(self, data):
        self.manifest, self.display = data.manifest, data.display
        groups = {}
        for record in data.records():
            if record.regions:
                groups.setdefault(record.modality, []).append(record)
        picked = [records[len(records) // 2] for records in groups.values()] + [records[0] for records in groups.values()]
        self.kept = [replace(record, split="train") for record in picked[:8]]

    def records(self, split=None):
        return iter(self.kept)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    convert("phantom", write_archive(folder / "archive", cases=1), folder / "data")
    return Eight(store.open(folder / "data"))


def test_eight_phantoms_in_240_steps(phantoms, tmp_path):
    best = train("tiny", [phantoms], tmp_path, show=False, steps=240, views=1, cache_mb=100, specific=0.0, modality_dropout=0.0)
    found = evaluate(best, phantoms, "train")
    assert len(found["by_modality"]) == 7
    assert found["ap50"] > 0.95


def test_eight_scenes_in_120_steps_with_all_of_glip(tmp_path):
    data = Scenes(8, rich=True)
    glip = {"fuse": "words", "fusion_layers": 2, "text_layers": 1, "isolate": False, "head": "dynamic", "levels": 5}
    losses = {"hierarchy": 0.2, "contrast": 0.2, "words": 0.2, "masks": 0.3}
    best = train("tiny", [data], tmp_path, show=False, steps=120, size=96, views=1, cache_mb=100, far_negatives=0,
                 modality=["prompt", "film", "adapter", "encoder"], **glip, **losses)  # fmt: skip
    assert evaluate(best, data, "train")["ap50"] > 0.95
