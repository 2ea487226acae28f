import numpy as np
import pytest

from medglip.model.view import View
from medglip.records.masks import rle_of_mask
from medglip.train.augment import masks_on_canvas


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
