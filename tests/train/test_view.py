import numpy as np
import pytest

from medglip.model.view import View, fitted
from medglip.train.augment import jittered


@pytest.mark.parametrize("size_wh", [(96, 96), (200, 120), (37, 90)])
@pytest.mark.parametrize("seed", range(8))
def test_pixels_and_boxes_move_together(size_wh, seed):
    """A bright block is drawn; its box on the canvas is found again in the pixels."""
    width, height = size_wh
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width), np.uint8)
    x0, y0 = int(width * 0.35), int(height * 0.35)
    x1, y1 = int(width * 0.6), int(height * 0.6)
    image[y0:y1, x0:x1] = 255
    view = jittered(width, height, 128, rng, may_mirror=True)
    canvas = view.draw(image)
    rows, columns = np.flatnonzero((canvas[0] > 127).any(1)), np.flatnonzero((canvas[0] > 127).any(0))
    found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    assert np.abs(view.boxes_on_canvas(np.array([[x0, y0, x1, y1]], np.float32))[0] - found).max() <= 2


def test_boxes_come_back():
    view = jittered(120, 80, 128, np.random.default_rng(3), may_mirror=True)
    boxes = np.array([[3.0, 4, 50, 60], [0, 0, 120, 80]], np.float32)
    assert np.allclose(view.boxes_in_image(view.boxes_on_canvas(boxes)), boxes, atol=1e-3)


def test_fitted_shows_the_whole_image_in_the_middle():
    view = fitted(200, 100, 128)
    assert view.boxes_on_canvas(np.array([[0.0, 0, 200, 100]], np.float32)).tolist() == [[0, 32, 128, 96]]
    canvas = view.draw(np.full((100, 200, 3), 200, np.uint8))
    assert canvas.shape == (3, 128, 128)
    assert (canvas[:, 32:96] == 200).all()
    assert not canvas[:, :32].any()


def test_what_does_not_mirror_never_does():
    views = [jittered(64, 64, 64, np.random.default_rng(seed), may_mirror=False) for seed in range(30)]
    assert not any(view.mirrored for view in views)


def test_mirroring_swaps_left_and_right():
    image = np.zeros((10, 10), np.uint8)
    image[:, :3] = 255
    plain, mirrored = View(10, (1, 1), (0, 0)), View(10, (1, 1), (0, 0), mirrored=True)
    assert np.array_equal(plain.draw(image)[:, :, ::-1], mirrored.draw(image))
    assert mirrored.boxes_on_canvas(np.array([[0.0, 0, 3, 10]], np.float32)).tolist() == [[7, 0, 10, 10]]
