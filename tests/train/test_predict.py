"""What a grounder answers to what it was not made for: one clear sentence, or a right result."""

import numpy as np
import pytest
import torch
from scenes import Scenes

from medglip.errors import InputError, ModelError
from medglip.model import build_model, load_config
from medglip.model.checkpoints import CheckpointInfo
from medglip.predict import Grounder
from medglip.train import train


def grounder_of(**choices):
    """A random model that shows whatever it finds."""
    torch.manual_seed(0)
    config = load_config("tiny", **choices)
    return Grounder(build_model(config), CheckpointInfo(config, score_threshold=0.0, presence_threshold=0.0), "cpu")


@pytest.fixture(scope="module")
def grounder():
    return grounder_of()


GREY = np.random.default_rng(0).integers(0, 255, (80, 120), dtype=np.uint8)


def test_five_thousand_phrases_are_all_answered(grounder):
    phrases = [f"finding number {number}" for number in range(5000)]
    presence = grounder.answer([GREY], [phrases], [None])[0].presence
    assert presence.shape == (5000,)
    assert np.isfinite(presence).all()


@pytest.mark.parametrize("phrases", [["左肺"], ["лёгкое"], ["a" * 500], ["heart", "heart"], ["?!"]])
def test_odd_phrases_are_answered(grounder, phrases):
    assert len(grounder.answer([GREY], [phrases], [None])[0].presence) == len(phrases)


@pytest.mark.parametrize("phrases", [[], [""], ["heart", " \n"], "heart"])
def test_no_phrase_is_one_sentence(grounder, phrases):
    with pytest.raises(InputError, match="at least one phrase"):
        grounder.ground(GREY, phrases)


def test_a_phrase_longer_than_the_limit_is_refused_and_not_cut(grounder):
    with pytest.raises(ModelError, match=r"\d+ .*(tokens|words)"):
        grounder.ground(GREY, ["kidney " * 600])


@pytest.mark.parametrize("shape", [(1, 1), (20_000, 30), (30, 20_000, 3), (2, 700)])
def test_images_of_any_size_give_boxes_inside_them(grounder, shape):
    image = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    for region in grounder.ground(image, ["heart"]):
        x0, y0, x1, y1 = region.box_xyxy
        assert 0 <= x0 < x1 <= shape[1]
        assert 0 <= y0 < y1 <= shape[0]


def test_sixteen_bits_are_stretched_to_what_is_there(grounder):
    wide = GREY.astype(np.uint16) * 13 + 900
    answers = grounder.answer([wide, GREY], [["heart"], ["heart"]], ["ct", "ct"])
    assert np.allclose(answers[0].presence, answers[1].presence, atol=0.05)
    flat = np.full((20, 20), 4000, np.uint16)
    assert np.isfinite(grounder.answer([flat], [["heart"]], ["ct"])[0].presence).all()


@pytest.mark.parametrize("image", [GREY.astype(float), np.zeros((0, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), "scan.png"])
def test_what_is_no_image_is_one_sentence(grounder, image):
    with pytest.raises(InputError, match="uint8 or uint16"):
        grounder.ground(image, ["heart"])


def test_masks_are_learned_and_lie_in_their_boxes(tmp_path):
    data = Scenes(8, rich=True)
    best = train("tiny", [data], tmp_path, show=False, steps=150, size=96, far_negatives=0, masks=1.0, specific=0.0)
    grounder = Grounder.load(best, "cpu")
    overlaps = []
    for record in data.records():
        found = grounder.ground(data.display(record.id), ["liver", "left kidney", "right kidney"], "ct")
        for region in record.regions:
            name = region.label.rpartition(".")[2]
            best_of = [one for one in found if one.phrases[0].text.endswith(name) and one.laterality == region.laterality]
            if best_of:
                truth, mask = region.mask.decode(), best_of[0].mask.decode()
                overlaps.append((truth & mask).sum() / (truth | mask).sum())
    assert len(overlaps) > 8
    assert np.mean(overlaps) > 0.7


def test_thresholds_of_a_modality_are_its_own():
    config = load_config("tiny")
    model = build_model(config)
    info = CheckpointInfo(
        config, modalities=("ct", "mr"), score_threshold=0.0, presence_threshold=0.0, thresholds={"mr": (0.0, 1.1)}
    )
    grounder = Grounder(model, info, "cpu")
    assert grounder.ground(GREY, ["heart"], "ct")
    assert grounder.ground(GREY, ["heart"], "mr") == []


def test_vectors_of_regions_tell_which_phrase_names_them(tmp_path):
    data = Scenes(8, rich=True)
    best = train("tiny", [data], tmp_path, show=False, steps=100, size=96, far_negatives=0, contrast=1.0, specific=0.0)
    grounder = Grounder.load(best, "cpu")
    names = {"abdomen.liver": 0, "abdomen.kidney@left": 1, "abdomen.kidney@right": 2}
    words = grounder.phrase_vectors(["liver", "left kidney", "right kidney"])
    right = []
    for record in data.records():
        boxes = np.array([region.box_xyxy for region in record.regions])
        vectors = grounder.region_vectors(data.display(record.id), boxes, "ct")
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        right += list((vectors @ words.T).argmax(axis=1) == [names[region.concept] for region in record.regions])
    assert np.mean(right) > 0.9


def test_a_model_without_contrast_has_no_vectors(grounder):
    with pytest.raises(ModelError, match="contrast"):
        grounder.region_vectors(GREY, np.array([[0, 0, 5, 5]]))
