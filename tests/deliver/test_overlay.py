import numpy as np
import pytest
from PIL import Image

from medglip.deliver.overlay import LEAST_SIDE, MOST_SIDE, badge_size, badge_spots, enlarged, overlay, region_text
from medglip.errors import InputError
from medglip.records import Region


def region(box, label="abdomen.liver", **more):
    return Region(label=label, box_xyxy=tuple(map(float, box)), **more)


def gradient(height=100, width=120):
    return np.add.outer(np.arange(height), np.arange(width)).astype(np.uint8)


def placed(canvas, picture):
    """The part of an overlay that shows the image."""
    left = (canvas.width - picture.width) // 2
    array = np.asarray(canvas)
    top = next(y for y in range(array.shape[0]) if (array[y, left : left + 40] == np.asarray(picture)[0, :40]).all())
    return array[top : top + picture.height, left : left + picture.width]


@pytest.mark.parametrize("truth", [False, True])
def test_pixels_inside_a_box_are_not_painted(truth):
    picture, scale = enlarged(gradient())
    box = (20, 30, 60, 71)
    canvas = overlay(gradient(), [] if truth else [region(box)], truth=[region(box)] if truth else [])
    shown, plain = placed(canvas, picture), np.asarray(picture)
    x0, y0, x1, y1 = (round(edge * scale) for edge in box)
    np.testing.assert_array_equal(shown[y0:y1, x0:x1], plain[y0:y1, x0:x1])
    assert (shown[y0 - 2 : y0, x0:x1] != plain[y0 - 2 : y0, x0:x1]).any(), "the outline lies just outside"


def test_small_images_are_enlarged_by_a_whole_factor_and_large_ones_shrunk():
    picture, scale = enlarged(gradient(64, 64))
    assert (picture.size, scale) == ((LEAST_SIDE, LEAST_SIDE), 8)
    picture, scale = enlarged(np.zeros((600, 300), np.uint8))
    assert (picture.size, scale) == ((300, 600), 1)
    picture, scale = enlarged(np.zeros((3000, 1500, 3), np.uint8))
    assert max(picture.size) == MOST_SIDE
    assert scale < 1
    assert max(enlarged(np.zeros((500, 400), np.uint8), most_side=720)[0].size) == 720


@pytest.mark.parametrize("count", [1, 5, 40])
def test_badges_never_overlap_and_stay_inside(count):
    rng = np.random.default_rng(count)
    corners = rng.integers(20, 300, (count, 2))
    boxes = [(int(x), int(y), int(x) + 30, int(y) + 20) for x, y in corners]
    spots = badge_spots(boxes, (0, 0, 400, 400))
    for place, (x0, y0, x1, y1) in enumerate(spots):
        assert (x1 - x0, y1 - y0) == badge_size(place + 1)
        assert x0 >= 0
        assert y0 >= 0
        assert x1 <= 400
        assert y1 <= 400
        for a0, b0, a1, b1 in spots[:place]:
            assert x1 <= a0 or a1 <= x0 or y1 <= b0 or b1 <= y0


def test_badge_of_a_lone_box_is_outside_it():
    for box in ((0, 0, 400, 400), (100, 100, 140, 140), (0, 350, 50, 400)):
        ((x0, y0, x1, y1),) = badge_spots([box], (-26, -26, 426, 426))
        assert x1 <= box[0] or x0 >= box[2] or y1 <= box[1] or y0 >= box[3]


def test_nothing_to_draw_leaves_the_image_alone():
    picture, _ = enlarged(gradient())
    np.testing.assert_array_equal(placed(overlay(gradient(), []), picture), np.asarray(picture))


def test_side_letters_and_title_are_drawn():
    bare = overlay(gradient(), [])
    assert np.asarray(overlay(gradient(), [], sides=("R", "L"))).tolist() != np.asarray(bare).tolist()
    assert overlay(gradient(), [], title="CT").height > bare.height


def test_colour_images_and_legend():
    canvas = overlay(np.zeros((50, 50, 3), np.uint8), [region((5, 5, 20, 20), score=0.5)])
    assert canvas.mode == "RGB"
    assert canvas.height > overlay(np.zeros((50, 50, 3), np.uint8), []).height


def test_legend_says_name_side_and_score():
    assert region_text(region((0, 0, 1, 1), "abdomen.kidney", laterality="left", score=0.876)) == "left kidney 0.88"
    assert region_text(region((0, 0, 1, 1), "no label of the tree")) == "no label of the tree"


@pytest.mark.parametrize(
    "image", [np.zeros((5, 5)), np.zeros((5, 5, 4), np.uint8), Image.new("L", (5, 5)), np.zeros((0, 5), np.uint8)]
)
def test_other_pixels_are_refused(image):
    with pytest.raises(InputError, match="uint8"):
        overlay(image, [])
