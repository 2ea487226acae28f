import numpy as np
import pytest
from PIL import Image

from medglip.imaging.colours import classes_of_colours

RED_BLUE = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255], [255, 255, 0], [0, 255, 0]])


def drawn(scale: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Random rectangles of the classes: colours (H, W, 3), and class numbers (H, W)."""
    rng = np.random.default_rng(3)
    classes = np.zeros((60, 80), np.uint8)
    for _ in range(12):
        y, x = rng.integers(0, 45), rng.integers(0, 65)
        classes[y : y + rng.integers(6, 15), x : x + rng.integers(6, 15)] = rng.integers(0, 5)
    classes = classes.repeat(scale, 0).repeat(scale, 1)
    return RED_BLUE[classes].astype(np.uint8), classes


def test_exact_colours_give_exact_classes() -> None:
    image, classes = drawn()
    found, unknown = classes_of_colours(image, RED_BLUE)
    assert np.array_equal(found, classes)
    assert not unknown


@pytest.mark.parametrize("quality", [95, 75, 50])
def test_compression_changes_edges_only(tmp_path, quality: int) -> None:
    image, classes = drawn(scale=4)
    Image.fromarray(image).save(tmp_path / "mask.jpg", quality=quality)
    found, unknown = classes_of_colours(np.asarray(Image.open(tmp_path / "mask.jpg")), RED_BLUE)
    assert not unknown
    assert (found == classes).mean() > 0.98


def test_no_third_class_appears_between_two(tmp_path) -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, :20], image[:, 20:] = (255, 0, 0), (0, 255, 0)  # half-way lies (128, 128, 0): a dark yellow
    blurred = np.asarray(Image.fromarray(image).resize((160, 160), Image.Resampling.BICUBIC))
    found, unknown = classes_of_colours(blurred, RED_BLUE)
    assert set(np.unique(found)) == {1, 4}
    assert not unknown


@pytest.mark.parametrize("colour", [(128, 0, 0), (3, 3, 3), (255, 0, 200), (255, 255, 255)])
def test_a_drawn_colour_that_is_not_in_the_table_is_found(colour: tuple[int, int, int]) -> None:
    image, classes = drawn()
    image[20:30, 30:40] = colour
    found, unknown = classes_of_colours(image, RED_BLUE)
    assert [entry.colour for entry in unknown] == [colour]
    assert unknown[0].pixels == 100
    assert (found[20:30, 30:40] == 0).all()
    outside = np.ones(classes.shape, bool)
    outside[20:30, 30:40] = False
    assert np.array_equal(found[outside], classes[outside])
