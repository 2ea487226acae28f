import numpy as np
import pytest

from medglip.errors import InputError
from medglip.imaging.intensity import WINDOWS, display, encode, percentile_window, storage_of, to_stored, window_of


def test_ct_is_stored_as_hounsfield_units_plus_1024() -> None:
    values = np.array([[-3024, -1024, 0, 40, 3071]], np.int16)
    stored, intensity = to_stored(values, "HU", window="abdomen")
    assert stored.dtype == np.uint16
    assert (stored * intensity.slope + intensity.intercept).tolist() == [[-1024, -1024, 0, 40, 3071]]
    assert intensity.window == WINDOWS["abdomen"]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32])
def test_stored_numbers_give_the_values_back(dtype: type) -> None:
    values = np.array([[0, 3, 100], [7, 80, 127]]).astype(dtype) - dtype(0 if np.dtype(dtype).kind == "u" else 50)
    stored, intensity = to_stored(values)
    assert stored.dtype == (np.uint8 if dtype == np.uint8 else np.uint16)
    back = stored * intensity.slope + intensity.intercept
    assert np.abs(back - values).max() <= intensity.slope / 2 + 1e-9
    if dtype != np.float32:
        assert np.array_equal(back, values)


def test_all_slices_of_a_volume_are_stored_alike() -> None:
    volume = np.random.default_rng(0).normal(100, 30, (4, 8, 8)).astype(np.float32)
    intensity = storage_of(volume)
    whole = encode(volume, intensity)
    assert all(np.array_equal(encode(volume[k], intensity), whole[k]) for k in range(4))


def test_display_runs_from_black_to_white_over_the_window() -> None:
    stored, intensity = to_stored(np.array([[-1000, -160, 40, 240, 2000]], np.int16), "HU")
    assert display(stored, intensity).tolist() == [[0, 0, 128, 255, 255]]
    assert display(stored, intensity).dtype == np.uint8


def test_eight_bit_images_are_shown_as_they_are() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for pixels, unit in ((grey, "au"), (np.stack([grey] * 3, axis=-1), "rgb")):
        stored, intensity = to_stored(pixels, unit)
        assert np.array_equal(display(stored, intensity), pixels)


def test_deep_colours_are_stored_with_8_bits() -> None:
    stored, intensity = to_stored(np.array([[[0, 2048, 4095]]], np.uint16), "rgb", window=(0, 4095))
    assert stored.dtype == np.uint8
    assert stored.tolist() == display(stored, intensity).tolist() == [[[0, 128, 255]]]


def test_percentiles_leave_the_air_out() -> None:
    noise = np.random.default_rng(0)
    image = np.abs(noise.normal(0, 3, (100, 100)))
    image[:10] = noise.uniform(400, 600, (10, 100))
    low, high = percentile_window(image)
    assert 395 < low < 410
    assert 590 < high < 600
    assert percentile_window(np.full((4, 4), 7.0)) == (7.0, 8.0)


def test_a_window_that_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match=r"'bones'.*allowed.*bone"):
        window_of(np.zeros(3), "HU", "bones")
    with pytest.raises(InputError, match="low below high"):
        window_of(np.zeros(3), "HU", (5, 5))
    with pytest.raises(InputError, match="float32"):
        display(np.zeros((2, 2), np.float32), storage_of(np.zeros((2, 2))))
