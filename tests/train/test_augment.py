"""Views, canvases and grey values: what is moved is moved with its truth, what is not moved stays where it is."""

import numpy as np
import pytest
import torch
from scenes import Scenes

from medglip.errors import ModelError
from medglip.model import load_config
from medglip.model.view import View, fitted
from medglip.records.labels import label_tree
from medglip.records.masks import box_of_mask, rle_of_mask
from medglip.train.augment import Augmentation, jittered, masks_on_canvas, part_shown
from medglip.train.intensity import Intensity, jittered_window
from medglip.train.samples import Samples

PLAN = load_config("tiny")["train"]


@pytest.mark.parametrize("seed", range(8))
def test_a_mask_of_any_shape_is_drawn_whole(seed):
    """Speckles, an empty one, a full one: at scale 1 each cell is the mean of its 16 pixels."""
    rng = np.random.default_rng(seed)
    masks = [rng.random((20, 24)) < chance for chance in (0, 0.02, 0.5, 1)]
    masks[1][:, :7] = False
    view = View(24, (1.0, 1.0), (0.0, 0.0))
    drawn = masks_on_canvas([[rle_of_mask(mask)] for mask in masks] + [[]], view)
    for mask, cells in zip(masks, drawn, strict=False):
        assert np.allclose(cells, np.pad(mask, ((0, 4), (0, 0))).reshape(6, 4, 6, 4).mean((1, 3)), atol=1e-6)
    assert not drawn[4].any()


@pytest.mark.parametrize("size", [128, 192, 320])
@pytest.mark.parametrize("zooms", [(0.85, 1.25), (0.4, 0.5), (1.5, 2.5)])
def test_boxes_follow_zoom_and_canvas_to_the_pixel(size, zooms):
    """The box of what is drawn is the moved box, on every canvas and at every zoom."""
    image = np.zeros((240, 200), np.uint8)
    image[100:150, 80:130] = 255
    for seed in range(6):
        view = jittered(200, 240, size, np.random.default_rng(seed), may_mirror=True, zooms=zooms)
        assert zooms[0] * 0.92 <= view.scale[0] * 240 / size <= zooms[1] * 1.09
        drawn = view.draw(image)[0] > (127.5 if view.brightness == 0 else 110)
        box = view.boxes_on_canvas(np.array([[80, 100, 130, 150]], np.float32))[0]
        found = box_of_mask(drawn)
        assert found is not None
        assert np.abs(box.clip(0, size) - found).max() <= max(1.0, 0.6 * max(view.scale) + 0.5)


def test_canvases_of_two_sizes_show_the_same_part():
    one, other = (jittered(90, 70, size, np.random.default_rng(4), may_mirror=True) for size in (128, 256))
    boxes = np.array([[10, 20, 50, 60]], np.float32)
    assert np.allclose(one.boxes_on_canvas(boxes) * 2, other.boxes_on_canvas(boxes), atol=1e-3)
    assert one.mirrored == other.mirrored


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_the_part_shown_is_where_pixels_are_drawn(is_mirrored):
    for view in (
        fitted(50, 30, 64),
        View(64, (1.3, 0.7), (-9.0, 11.5), is_mirrored),
        View(64, (0.5, 0.5), (3, 4), is_mirrored),
    ):
        rows, columns = part_shown(50, 30, view)
        inside = np.zeros((64, 64), bool)
        inside[rows, columns] = True
        assert ((view.draw(np.full((30, 50), 255, np.uint8))[0] == 255) == inside).all()


def samples(**changes):
    return Samples([Scenes(6)], "train", label_tree(), {**PLAN, **changes}, 128)


def test_a_batch_shares_its_canvas_and_truth_lies_on_it():
    made = samples(views=0, sizes=[64, 96, 160], masks=True)
    batches = made.batches(4)
    seen = set()
    for _ in range(12):
        batch = next(batches)
        canvas = batch[0].canvas
        assert {place.canvas for place in batch} == {canvas}
        seen.add(canvas)
        for number, epoch, size in batch:
            question = made.question(number, epoch, canvas=size)
            assert question.image.shape == (3, size, size)
            assert question.key.canvas == size
            assert question.target.boxes.numel() == 0 or float(question.target.boxes.max()) <= size
            assert torch.equal(question.image, made.image(*question.key))
    assert seen == {64, 96, 160}
    again = samples(views=0, sizes=[64, 96, 160]).batches(4, first=3)
    assert [next(again) for _ in range(5)] == [batch for batch, _ in zip(_from(made, 3), range(5), strict=False)]


def _from(made, first):
    for step, batch in enumerate(made.batches(4)):
        if step >= first:
            yield batch


def test_a_fixed_view_has_one_canvas_of_its_own():
    made = samples(views=3, sizes=[64, 96])
    canvases = [{made.canvas(step, epoch) for step in range(20)} for epoch in range(9)]
    assert all(len(one) == 1 for one in canvases)
    assert canvases[:3] == canvases[3:6] == canvases[6:]
    assert set.union(*canvases) == {64, 96}
    assert {made.canvas(step, step) for step in range(9)} == {64, 96}
    assert samples(views=3).canvas(5, 5) == 128


def test_a_window_moves_within_its_share_and_keeps_the_order():
    grey = np.arange(-1000, 1000, 7.0)
    seen = set()
    for seed in range(50):
        low, high = jittered_window((-160.0, 240.0), 0.2, np.random.default_rng(seed))
        assert 320 - 1e-9 <= high - low <= 480 + 1e-9
        assert abs((low + high) / 2 - 40) <= 80 + 1e-9
        shown = np.rint(((grey - low) / (high - low)).clip(0, 1) * 255)
        assert (np.diff(shown) >= 0).all()
        seen.add((low, high))
    assert len(seen) == 50


@pytest.fixture(scope="module")
def every():
    return Intensity(1.0)


CANVAS = np.zeros((3, 64, 64), np.uint8)
CANVAS[:, 8:56, 4:60] = np.random.default_rng(0).integers(60, 100, (48, 56), dtype=np.uint8)
CANVAS[:, 20:40, 24:44] = 200
INSIDE = slice(8, 56), slice(4, 60)


@pytest.mark.parametrize("modality", ["ct", "mr", "ultrasound", "xray", "endoscopy"])
def test_grey_values_change_and_nothing_moves(every, modality):
    seen = []
    for seed in range(5):
        changed = every(CANVAS, modality, np.random.default_rng(seed), INSIDE)
        assert changed.dtype == np.uint8
        assert changed.shape == CANVAS.shape
        assert (changed[0] == changed[1]).all()  # grey stays grey
        assert (changed[0] == changed[2]).all()
        outside = np.ones((64, 64), bool)
        outside[INSIDE] = False
        assert not changed[:, outside].any()
        block, around = changed[0, 20:40, 24:44], changed[0, 8:56, 4:60]
        assert block.mean() > np.median(around) + 20
        # The block's centre of brightness stays in its place.
        weight = changed[0].astype(float) - np.median(around)
        weight[~np.pad(np.ones((26, 26), bool), ((17, 21), (21, 17)))] = 0
        rows, columns = np.mgrid[:64, :64] + 0.5
        weight = weight.clip(0)
        assert abs((weight * rows).sum() / weight.sum() - 30) < 1.5
        assert abs((weight * columns).sum() / weight.sum() - 34) < 1.5
        assert (changed == every(CANVAS, modality, np.random.default_rng(seed), INSIDE)).all()
        seen.append(changed.tobytes())
    assert len(set(seen)) == 5
    assert CANVAS[0, 30, 30] == 200  # not written to


def test_colours_change_only_where_light_and_staining_do(every):
    colours = CANVAS.copy()
    colours[1] //= 2
    never, always = Intensity(0.0), every
    assert (never(colours, "endoscopy", np.random.default_rng(0), INSIDE) == colours).all()

    def ratio(modality):
        changed = [
            always(colours, modality, np.random.default_rng(seed), INSIDE)[:, 20:40, 24:44].astype(float) for seed in range(8)
        ]
        return np.std([one[0].mean() - one[2].mean() for one in changed])

    assert ratio("dermoscopy") > 3
    assert ratio("xray") < 3  # red and blue are alike in it, and stay so but for noise


@pytest.mark.parametrize(("keys", "said"), [
    ({"zoom": [1.25, 0.85]}, "train.zoom"), ({"zoom": [1.0]}, "train.zoom"), ({"zoom": [0.1, 1]}, "train.zoom"),
    ({"sizes": [100]}, "train.sizes: found 100"), ({"sizes": [0]}, "train.sizes"), ({"window_jitter": 0.9}, "window_jitter"),
    ({"intensity": -0.1}, "train.intensity"), ({"paste": 1.1}, "train.paste"),
])  # fmt: skip
def test_a_bad_setting_is_refused(keys, said):
    with pytest.raises(ModelError, match=said):
        Augmentation.of(keys)


def test_what_an_older_configuration_does_not_say_is_taken_for_granted():
    assert Augmentation.of({}) == Augmentation()
    assert Augmentation.of({"sizes": [64, 96], "zoom": [1, 2]}) == Augmentation((1, 2), (64, 96))
