import numpy as np

from medglip.phantoms.shapes import (
    ROUND,
    blurred,
    curve,
    field,
    grain,
    grown,
    laid,
    outline,
    spot,
    strokes,
    whole,
    window,
    without_specks,
)  # fmt: skip


def test_outline_is_where_it_is_put_and_as_large():
    mask = ROUND.mask((64, 80), (30.0, 40.0), (10.0, 20.0))
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 40, 20, 60)
    assert abs(mask.sum() - np.pi * 200) < 20
    turned = ROUND.mask((64, 80), (30.0, 40.0), (10.0, 20.0), np.pi / 2)
    assert turned.any(axis=1).sum() > turned.any(axis=0).sum()


def test_outline_is_cut_at_the_border_and_empty_outside():
    assert ROUND.mask((20, 20), (0.0, 0.0), (5.0, 5.0))[0, 0]
    assert not ROUND.mask((20, 20), (-50.0, 5.0), (5.0, 5.0)).any()


def test_outlines_scale_without_changing_their_shape():
    shape = outline(np.random.default_rng(0), 0.2)
    small, large = shape.mask((200, 200), (100, 100), (20, 20)), shape.mask((200, 200), (100, 100), (60, 60))
    assert not (small & ~large).any()
    assert abs(large.sum() / small.sum() - 9) < 0.5


def test_spot_keeps_its_distance():
    room = np.zeros((60, 60), bool)
    room[10:40, 20:50] = True
    rng = np.random.default_rng(1)
    for _ in range(50):
        place = spot(rng, room, 8)
        assert place is not None
        assert not (ROUND.mask((60, 60), place, (8, 8)) & ~room).any()
    assert spot(rng, room, 20) is None
    assert spot(rng, np.zeros((5, 5), bool), 1) is None


def test_textures_have_the_promised_size_and_deviation():
    rng = np.random.default_rng(2)
    assert abs(grain(rng, (200, 200), 2.0).std() - 1) < 0.01
    assert field(rng, (30, 50)).shape == (30, 50)
    assert window(rng, grain(rng, (40, 40)), (30, 20)).shape == (30, 20)


def test_grown_whole_and_without_specks():
    mask = np.zeros((20, 20), bool)
    mask[5, 5] = mask[10:14, 10:14] = True
    assert grown(mask, 2)[3:8, 3:8].all()
    assert grown(mask, 2).sum() == 25 + 64
    assert whole(mask).sum() == 16
    assert without_specks(mask, 2).sum() == 16
    assert without_specks(mask, 1).sum() == 17
    assert not without_specks(mask, 100).any()
    assert not whole(np.zeros((3, 3), bool)).any()


def test_blur_of_a_mask_is_that_of_its_numbers():
    mask = ROUND.mask((60, 60), (8, 30), (6, 6))
    assert np.allclose(blurred(mask, 2.0), blurred(mask.astype(np.float32), 2.0), atol=1e-6)


def test_strokes_are_as_wide_as_asked_and_curves_as_long():
    line = curve((10.0, 5.0), 0.0, 60.0, np.zeros(3))
    assert np.allclose(np.diff(line, axis=0), (0, 3))
    assert abs(line[-1, 1] - 65) <= 3
    ink = strokes((30, 80), (line, 6.0))
    assert 5 <= (ink[:, 40] > 0.5).sum() <= 7
    assert ink.max() == 1
    assert ink[25].max() == 0


def test_paint_covers_by_its_share_and_leaves_the_rest():
    image = np.full((8, 8, 3), 100, np.float32)
    cover = np.zeros((8, 8), np.float32)
    cover[2, 3] = 0.25
    painted = laid(image, cover, (200, 100, 0))
    assert painted[2, 3].tolist() == [125, 100, 75]
    assert (painted[0] == 100).all()
    assert (image == 100).all()
