import numpy as np
import pytest
from language_world import LIVER, SPLEEN, Grounder, noisy, record, region, world

from medglip.errors import InputError
from medglip.language.observe import (
    calibrated_bands,
    deniable_of,
    matched,
    observe,
    observe_dataset,
)
from medglip.language.view import ImageView
from medglip.language.vocabulary import Vocabulary, vocabulary_of


class Memory:
    """What a view of a dataset offers, in memory."""

    def __init__(self, records):
        self.all = {truth.id: truth for truth in records}

    def records(self, split=None):
        return (truth for truth in self.all.values() if split in (None, truth.split))

    def display(self, image_id):
        return np.zeros((self.all[image_id].height, self.all[image_id].width), np.uint8)


def test_exhaustive_and_absent_concepts_are_deniable():
    assert deniable_of([record(absent=[SPLEEN], exhaustive=(LIVER,))]) == {SPLEEN, LIVER}


def test_observation_holds_every_presence_and_clipped_boxes():
    vocabulary = Vocabulary({"ct": ((LIVER, SPLEEN),)})
    seen = observe(Grounder({"liver": 0.9}), np.zeros((40, 60), np.uint8), ImageView(60, 40, "ct"), vocabulary)
    assert seen.presence == {LIVER: pytest.approx(0.9), SPLEEN: pytest.approx(0.02)}
    assert [(r.id, r.label, r.provenance) for r in seen.regions] == [("R1", LIVER, "predicted")]
    assert seen.regions[0].box_xyxy == (15, 10, 30, 20)


def test_empty_vocabulary_is_refused():
    with pytest.raises(InputError, match="vocabulary is empty"):
        observe(Grounder(), np.zeros((4, 4), np.uint8), ImageView(4, 4), Vocabulary({}))


def test_dataset_is_seen_once_an_image():
    records = world(7)
    calls = []
    seen = observe_dataset(
        Grounder(), Memory(records), vocabulary_of(records), progress=lambda done, total: calls.append((done, total))
    )
    assert list(seen) == [truth.id for truth in records]
    assert calls[-1] == (7, 7)
    assert set(observe_dataset(Grounder(), Memory(records), vocabulary_of(records), "test")) == {
        r.id for r in records if r.split == "test"
    }


def test_matching_uses_each_truth_once():
    truth = [region(LIVER, (0, 0, 10, 10))]
    found = [
        region(LIVER, (0, 0, 10, 9), score=0.5),
        region(LIVER, (0, 0, 10, 10), score=0.9),
        region(SPLEEN, (0, 0, 10, 10), score=0.8),
    ]
    assert [hit is not None for _, hit in matched(found, truth)] == [True, False, False]


def test_bands_of_a_fair_grounder_deny_and_assert():
    records = world(120)
    bands = calibrated_bands(records, {truth.id: noisy(truth, miss=0.02) for truth in records}, deniable_of(records))
    assert 0.1 < bands.absent < 0.8
    assert bands.place < 0.95
    assert bands.pairs > 300
