from dataclasses import replace

import numpy as np
import pytest
import torch
from scenes import CONCEPTS, KIDNEY, LIVER, Scenes

from medglip.errors import DatasetError
from medglip.model import load_config
from medglip.model.losses import Target
from medglip.model.view import View
from medglip.records.labels import label_tree
from medglip.records.record import Region
from medglip.train.samples import Samples, _merge, pad_target

PLAN = load_config("tiny")["train"]


def samples(data, **changes):
    return Samples([data], "train", label_tree(), {**PLAN, **changes}, 128)


def test_truth_of_every_question_is_the_records():
    data = Scenes(12)
    made = samples(data, specific=0.0, phrases=8)
    for number, record in enumerate(data.records()):
        here = {region.concept for region in record.regions}
        for epoch in (0, 1, 2):
            question = made.question(number, epoch)
            for place, text in enumerate(question.phrases):
                meant = [c for c in CONCEPTS if text in made.words.wordings.get(c, ())] or [KIDNEY]
                is_there = any(made.words.covers(concept, other) for concept in meant for other in here)
                assert bool(question.target.presence[place]) == is_there, (text, here)
                assert bool(question.target.names[:, place].any()) == is_there


def test_a_question_is_a_function_of_image_and_epoch():
    made, again = samples(Scenes(4)), samples(Scenes(4))
    for number in range(4):
        one, other = made.question(number, 3), again.question(number, 3)
        assert one.phrases == other.phrases
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.target.boxes, other.target.boxes)


def test_a_side_answers_the_label_without_one_and_not_the_other_side():
    data = Scenes(40)
    made = samples(data, specific=0.0)
    seen = set()
    for number, record in enumerate(data.records()):
        question = made.question(number, 1)
        for place, text in enumerate(question.phrases):
            if text == "kidney":
                sides = sum(region.label == KIDNEY for region in record.regions)
                assert question.target.names[:, place].sum() <= sides
                seen.add(int(question.target.names[:, place].sum()))
    assert {1, 2} <= seen


def test_a_phrase_of_one_region_names_only_that_region():
    data = Scenes(20)
    made = samples(data, specific=1.0)
    asked = 0
    for number, record in enumerate(data.records()):
        question = made.question(number, 0)
        if "24 mm kidney" in question.phrases:
            asked += 1
            column = question.target.names[:, question.phrases.index("24 mm kidney")]
            left = next(region for region in record.regions if region.concept == f"{KIDNEY}@left")
            view = made.view(number, 0)
            box = view.boxes_on_canvas(np.array([left.box_xyxy], np.float32))
            assert np.allclose(question.target.boxes[column].numpy(), box, atol=1e-3)
    assert asked


def test_a_box_cut_off_is_unsure_and_its_phrase_is_not_denied():
    data = Scenes(1, seed=5)
    record = next(data.records())
    region = Region(LIVER, (0, 40, 96, 56))
    data.kept = [replace(record, regions=(region,), absent=())]
    made = samples(data)

    view = made.view(0, 0)
    cut = View(128, view.scale, (view.shift[0] - 90, view.shift[1]))  # a third of the image is left on the canvas
    phrases, target = made._ask(made.items[0], cut, np.random.default_rng(0))
    assert phrases == ()
    assert len(target.boxes) == 0
    assert len(target.unsure_boxes) == 1


def test_without_a_phrase_the_whole_image_is_asked():
    data = Scenes(3)
    made = samples(data)
    for epoch in range(20):
        assert made.question(0, epoch).phrases


def test_equal_boxes_become_one_with_both_names():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10.2], [20, 20, 30, 30]], np.float32)
    merged, names = _merge(boxes, np.eye(3, dtype=bool))
    assert len(merged) == 2
    assert names.tolist() == [[True, True, False], [False, False, True]]


def test_only_what_the_source_cannot_show_is_denied_unasked():
    made = samples(Scenes(4))
    item = made.items[0]
    made.words.seen_in |= {"head_neck.brain": {"mr"}, "musculoskeletal.vertebra": {"mr"}, "abdomen.spleen": {"mr"}}
    assert made.words.elsewhere(item) == ["head_neck.brain"]
    assert made.words.elsewhere(item._replace(source="unknown")) == []


def test_padding_a_target_adds_unknown_phrases():
    target = Target(
        torch.zeros(1, 4),
        torch.ones(1, 2, dtype=torch.bool),
        torch.zeros(0, 4),
        torch.zeros(0, 2, dtype=torch.bool),
        torch.ones(2),
    )
    padded = pad_target(target, 4, "cpu")
    assert padded.presence.tolist() == [1, 1, -1, -1]
    assert padded.names.tolist() == [[True, True, False, False]]


def test_an_epoch_visits_small_sources_more():
    large, small = Scenes(64), Scenes(4, seed=1)
    small.kept = [replace(record, origin=replace(record.origin, dataset="small")) for record in small.kept]
    made = Samples([large, small], "train", label_tree(), PLAN, 128)
    visits = np.bincount(np.concatenate([made.order(epoch) for epoch in range(50)]), minlength=68)
    assert 3 < visits[64:].mean() / visits[:64].mean() < 5  # sqrt(64 / 4) = 4


def test_nothing_to_learn_is_said():
    with pytest.raises(DatasetError, match="'val'"):
        Samples([Scenes(2)], "val", label_tree(), PLAN, 128)


def test_a_large_image_is_drawn_where_its_boxes_are():
    """Shrinking before drawing does not move anything."""
    data = Scenes(1)
    record = data.kept[0]
    image = np.zeros((1200, 1601), np.uint8)
    image[300:700, 400:1000] = 255
    region = Region(LIVER, (400, 300, 1000, 700))
    data.kept = [replace(record, width=1601, height=1200, regions=(region,), absent=())]
    data.pixels[record.id] = image
    made = samples(data, views=2, cache_mb=100)
    for view in (0, 1):
        canvas = made.image(0, view).numpy()[0] > 127
        rows, columns = np.flatnonzero(canvas.any(1)), np.flatnonzero(canvas.any(0))
        box = made.view(0, view).boxes_on_canvas(made.items[0].boxes)[0].clip(0, 128)
        assert np.abs(box - [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).max() <= 2
