"""Questions: their truth, their views, and that they stream from shards, the same in workers and in this process."""

import gc
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from scenes import KIDNEY, LIVER, Scenes
from torch.utils.data import DataLoader, Dataset

from medglip import store
from medglip.errors import DatasetError
from medglip.model import load_config
from medglip.model.losses import Target
from medglip.model.view import View
from medglip.records.definitions import lineage
from medglip.records.labels import label_tree
from medglip.records.picture import Picture
from medglip.records.record import Intensity, Region
from medglip.train.samples import Samples, pad_target

PLAN = load_config("tiny")["train"]


def samples(data, **changes):
    return Samples([data], "train", label_tree(), {**PLAN, **changes}, 128)


def test_truth_of_every_question_is_the_records():
    data, tree = Scenes(12), label_tree()
    made = samples(data, specific=0.0, phrases=8)
    for number, record in enumerate(data.records()):
        here = {region.concept for region in record.regions}
        for epoch in (0, 1, 2):
            question = made.question(number, epoch)
            for place, text in enumerate(question.phrases):
                concept = made.words.concepts[question.target.concepts[place]]
                assert text in (*made.words.wordings(concept), lineage(concept, tree))
                is_there = any(tree.covers(concept, other) for other in here)
                assert bool(question.target.presence[place]) == is_there, (text, here)
                assert bool(question.target.names[:, place].any()) == is_there


def test_a_question_is_a_function_of_image_and_epoch():
    made, again = (samples(Scenes(4, rich=True), captions=0.5, definitions=0.3, masks=True) for _ in range(2))
    for number in range(4):
        one, other = made.question(number, 3), again.question(number, 3)
        assert one.phrases == other.phrases
        assert torch.equal(one.image, other.image)
        for name in ("boxes", "names", "presence", "concepts", "parents", "masks"):
            assert torch.equal(getattr(one.target, name), getattr(other.target, name))


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
    data.kept = [replace(record, regions=(region,), absent=(), exhaustive=())]
    made = samples(data)

    view = made.view(0, 0)
    cut = View(128, view.scale, (view.shift[0] - 90, view.shift[1]))  # a third of the image is left on the canvas
    phrases, target = made.ask(made.items[0].known, cut, np.random.default_rng(0))
    assert phrases == ()
    assert len(target.boxes) == 0
    assert len(target.unsure_boxes) == 1


def test_without_a_phrase_the_whole_image_is_asked():
    data = Scenes(3)
    made = samples(data)
    for epoch in range(20):
        assert made.question(0, epoch).phrases


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
    assert padded.concepts is None
    assert padded.masks is None
    more = target._replace(concepts=torch.tensor([5, 7]), parents=torch.tensor([[0, 1]]), masks=torch.ones(1, 8, 8))
    padded = pad_target(more._replace(mask_is_known=torch.ones(1, dtype=torch.bool)), 4, "cpu")
    assert padded.concepts.tolist() == [5, 7, -1, -1]
    assert padded.parents.tolist() == [[0, 1]]
    assert torch.equal(padded.masks, torch.ones(1, 8, 8))
    assert padded.mask_is_known.tolist() == [True]


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
        box = made.view(0, view).boxes_on_canvas(made.items[0].known.boxes)[0].clip(0, 128)
        assert np.abs(box - [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).max() <= 2


def test_a_concept_has_one_number_in_all_images_and_none_elsewhere():
    made = samples(Scenes(8, rich=True), captions=1.0, specific=1.0, lineage=0.0)
    numbers = {}
    for number in range(8):
        question = made.question(number, 2)
        for text, concept in zip(question.phrases, question.target.concepts.tolist(), strict=True):
            is_concept = isinstance(text, str) and text != "24 mm kidney"
            assert (concept >= 0) == is_concept
            if is_concept:
                assert numbers.setdefault(text, concept) == concept
    assert len(set(numbers.values())) == 4  # the three, and the kidney without a side


@pytest.mark.parametrize(("modality", "label", "mirrors"), [
    ("ultrasound", KIDNEY, True), ("ultrasound", "thorax.heart.left_ventricle", False), ("ct", KIDNEY, False),
])  # fmt: skip
def test_only_what_has_another_side_or_none_is_mirrored(modality, label, mirrors):
    data = Scenes(1, modality=modality)
    side = "left" if label == KIDNEY else None
    region = Region(label, (10, 10, 40, 40), laterality=side)
    data.kept = [replace(data.kept[0], regions=(region,), absent=())]
    made = samples(data)
    assert any(made.view(0, view).mirrored for view in range(1, 30)) == mirrors


HU = Intensity("HU", 1.0, -1024.0, (-160.0, 240.0))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Six CTs with 16 bits in HU: air, and what Scenes paints as -160 to 240 HU."""
    scenes, pictures = Scenes(6, rich=True), []
    for record in scenes.records():
        stored = (scenes.pixels[record.id].astype(np.uint16) * 400 // 255) + (1024 - 160)
        record = replace(record, bits=16, intensity=HU, sha256=store.pixel_sha256(stored))
        pictures.append(Picture(record, stored))
    folder = tmp_path_factory.mktemp("shards") / "data"
    store.write_part(
        folder, "all", pictures, info={"source": "scenes", "title": "Scenes", "licence": "CC0-1.0", "citation": ""}
    )
    return folder


def streamed(folder, **changes):
    return Samples([store.open(folder)], "train", label_tree(), {**PLAN, "views": 0, **changes}, 64)


class Questions(Dataset):
    """What a loader asks: (image, epoch, canvas)."""

    def __init__(self, made):
        self.made = made

    def __len__(self):
        return len(self.made)

    def __getitem__(self, place):
        number, epoch, canvas = place
        return self.made.question(number, epoch, canvas=canvas)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_ask_as_this_process_does(shards, method):
    made = streamed(shards, sizes=[32, 64], window_jitter=0.2, paste=0.5, masks=True)
    batches = [batch for batch, _ in zip(made.batches(2), range(4), strict=False)]
    loader = DataLoader(Questions(made), batch_sampler=batches, num_workers=1, collate_fn=list, multiprocessing_context=method)
    for places, questions in zip(batches, loader, strict=True):
        for (number, epoch, canvas), question in zip(places, questions, strict=True):
            here = made.question(number, epoch, canvas=canvas)
            assert torch.equal(question.image, here.image)
            assert question.phrases == here.phrases
            assert question.key == here.key
            assert torch.equal(question.target.boxes, here.target.boxes)


def test_memory_does_not_grow_with_epochs(shards):
    made = streamed(shards, sizes=[32, 64], window_jitter=0.2, paste=0.5, error_aware=0.5)

    def held_after(first, last):
        for epoch in range(first, last):
            made.order(epoch, epoch)
            for number in range(len(made)):
                made.question(number, epoch)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        early = held_after(0, 18)  # by then the store remembers 64 windows, its most
        late = held_after(18, 30)
    finally:
        tracemalloc.stop()
    drawn = 12 * 6 * 3 * 64 * 64  # bytes of the canvases since then
    assert late - early < drawn / 8


def test_a_jittered_window_shows_other_greys_in_the_same_order(shards):
    plain, moved = streamed(shards), streamed(shards, window_jitter=0.3)
    assert torch.equal(plain.image(0, 0), moved.image(0, 0))  # view 0 is as evaluation sees it
    item = moved.items[0]
    assert item.window == (-160.0, 240.0)
    stored = item.data.pixels(item.id).astype(int)
    ladder = []
    for view in range(1, 8):
        assert not torch.equal(plain.image(0, view), moved.image(0, view))
        greys = moved._pixels(0, view, None)
        order = np.argsort(stored, axis=None)
        assert (np.diff(greys.ravel()[order].astype(int)) >= 0).all()
        ladder.append(tuple(np.unique(greys)))
        assert (greys == moved._pixels(0, view, None)).all()
    assert len(set(ladder)) == 7
    record = next(store.open(shards).records())
    assert record.intensity.unit == "HU"


def test_a_window_is_not_jittered_where_the_bits_are_gone():
    made = Samples([Scenes(2)], "train", label_tree(), {**PLAN, "views": 0, "window_jitter": 0.5}, 64)
    plain = Samples([Scenes(2)], "train", label_tree(), {**PLAN, "views": 0}, 64)
    assert made.items[0].window is None
    for view in range(4):
        assert torch.equal(made.image(0, view), plain.image(0, view))


def test_kept_pixels_are_those_of_no_window(shards):
    """With fixed views the image is remembered as its record shows it, and a jittered view is not mistaken for it."""
    made, plain = streamed(shards, views=3, window_jitter=0.3, cache_mb=100), streamed(shards, views=3, cache_mb=100)
    first = [made.image(1, view) for view in (0, 1, 2)]
    assert torch.equal(made.image(1, 0), plain.image(1, 0))
    assert [torch.equal(made.image(1, view), kept) for view, kept in enumerate(first)] == [True] * 3
    assert len({image.numpy().tobytes() for image in first}) == 3
