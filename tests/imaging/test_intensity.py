import numpy as np
import pytest

from medglip.errors import InputError
from medglip.imaging.intensity import WINDOWS, display, encode, percentile_window, storage_of, to_stored, window_of
from medglip.records import Intensity


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


@pytest.mark.parametrize(
    ("name", "centre", "width"),
    [("soft_tissue", 40, 400), ("lung", -600, 1500), ("mediastinum", 40, 400), ("brain", 40, 80), ("bone", 400, 1800),
     ("subdural", 75, 280), ("abdomen", 50, 400), ("liver", 102.5, 255), ("pancreas", 50, 300), ("pelvis", 72.5, 255),
     ("colon", 59.5, 255)],
)  # fmt: skip
def test_presets_are_the_published_ones(name: str, centre: float, width: float) -> None:
    assert WINDOWS[name] == (centre - width / 2, centre + width / 2)


def test_three_windows_are_colours_and_leave_the_stored_pixels_alone() -> None:
    values = np.array([[-1225, -135, 0, 40, 80, 215, 1025]], np.int16)
    stored, intensity = to_stored(values, "HU", window="lung")
    before = stored.copy()
    colours = display(stored, intensity, "three")
    assert colours.shape == (1, 7, 3)
    assert colours.dtype == np.uint8
    for channel, (low, high) in enumerate(((-1225, 1025), (-135, 215), (0, 80))):
        expected = np.rint(np.clip((np.maximum(values, -1024) - low) / (high - low), 0, 1) * 255)
        assert np.array_equal(colours[..., channel], expected)
    assert np.array_equal(stored, before)
    assert intensity.window == WINDOWS["lung"]
    with pytest.raises(InputError, match="in 'au'"):
        display(*to_stored(np.arange(300, dtype=np.uint16).reshape(1, -1)), "three")


def test_another_window_may_be_looked_through() -> None:
    stored, intensity = to_stored(np.array([[-1000, 0, 40, 80]], np.int16), "HU")
    assert display(stored, intensity, "brain").tolist() == [[0, 0, 128, 255]]
    assert display(stored, intensity, (0, 40)).tolist() == [[0, 0, 255, 255]]
    assert display(stored, intensity, "percentile").max() == 255


def test_scanner_padding_is_clipped_to_air() -> None:
    stored, intensity = to_stored(np.array([[-9758, -3024, -2000, -1024, 4349]], np.int16), "HU")
    assert (stored * intensity.slope + intensity.intercept).tolist() == [[-1024, -1024, -1024, -1024, 4349]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64, bool])
@pytest.mark.parametrize("intercept", [0.0, -1024.0, 300.0, -40000.0, 70000.0, 0.5, -3e9, 3e9])
@pytest.mark.parametrize("unit", ["HU", "rgb"])
def test_whole_numbers_are_encoded_as_the_formula_says(dtype: type, intercept: float, unit: str) -> None:
    info = np.array([0, 1]) if dtype is bool else np.array([np.iinfo(dtype).min, np.iinfo(dtype).max], dtype=object)
    values = np.array([*info, 0, 1, 1, 1]).astype(dtype)
    values = np.concatenate([values, np.arange(100).astype(dtype)]).reshape(1, -1)
    steps, target = (255, np.uint8) if unit == "rgb" else (65535, np.uint16)
    expected = np.clip(np.rint(values.astype(np.float64) - intercept), 0, steps).astype(target)
    before = values.copy()
    found = encode(values, Intensity(unit, 1.0, intercept))
    assert found.dtype == (values.dtype if intercept == 0.0 and dtype in (np.uint8, np.uint16) else target)
    if found.dtype == target:
        assert np.array_equal(found, expected)
    assert np.array_equal(values, before)


def test_what_is_shown_belongs_to_the_one_who_asked() -> None:
    stored, intensity = to_stored(np.array([[-1000, 40, 240]], np.int16), "HU")
    first = display(stored, intensity)
    first[:] = 7
    assert display(stored, intensity).tolist() == [[0, 128, 255]]
