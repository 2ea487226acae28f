import numpy as np
import pytest

from medglip.errors import ModelError
from medglip.language.bands import Bands, best_place, calibrate


def test_bands_hold_on_what_they_were_set_on():
    rng = np.random.default_rng(0)
    there = rng.random(800) < 0.5
    presence = np.clip(np.where(there, rng.normal(0.7, 0.2, 800), rng.normal(0.3, 0.2, 800)), 0, 1)
    bands = calibrate(presence, there, ["a"], target=0.9)
    assert 0 < bands.absent <= bands.present < 1
    assert (~there[presence < bands.absent]).mean() >= 0.9
    assert there[presence >= bands.present].mean() >= 0.9
    assert bands.pairs == 800


@pytest.mark.parametrize("count", [0, 5, 15])
def test_few_pairs_deny_nothing(count):
    # 15 right denials in a row leave a lower bound of 0.86.
    assert calibrate([0.01] * count, [False] * count, []).absent == 0


def test_noise_denies_nothing():
    rng = np.random.default_rng(1)
    assert calibrate(rng.random(400), rng.random(400) < 0.5, []).absent < 0.05


def test_best_place_splits_hits_from_false_alarms():
    assert best_place([0.9, 0.8, 0.7, 0.2, 0.1], [True, True, True, False, False], 3) == pytest.approx(0.7)
    assert best_place([], [], 3) == 0.3


def test_save_and_load(tmp_path):
    bands = Bands(0.7, 0.1, 0.4, frozenset({"b", "a"}), 0.9, 12)
    bands.save(tmp_path)
    assert Bands.load(tmp_path) == bands
    (tmp_path / "bands.json").write_text("{}")
    with pytest.raises(ModelError, match=r"bands\.json"):
        Bands.load(tmp_path)
