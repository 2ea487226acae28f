import numpy as np
import pytest

from medglip.errors import RecordError
from medglip.records import rle_of_crop, rle_of_mask


def test_a_crop_gives_the_same_code_as_the_whole_mask() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        height, width = rng.integers(1, 12, 2)
        rows, columns = rng.integers(1, height + 1), rng.integers(1, width + 1)
        y, x = int(rng.integers(0, height - rows + 1)), int(rng.integers(0, width - columns + 1))
        crop = rng.random((rows, columns)) < rng.choice([0.0, 0.5, 1.0])
        mask = np.zeros((height, width), bool)
        mask[y : y + rows, x : x + columns] = crop
        assert rle_of_crop(crop, (x, y), (int(height), int(width))) == rle_of_mask(mask)


def test_a_crop_outside_the_image_is_refused() -> None:
    with pytest.raises(RecordError, match="does not lie"):
        rle_of_crop(np.ones((2, 2)), (4, 0), (5, 5))
