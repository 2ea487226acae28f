import numpy as np
import pytest

from medglip.imaging.grey import inverted, padding_as_air, rescaled


def exact(array: np.ndarray, steps: list[tuple[float, float]]) -> list[float]:
    """Python's own numbers, which never overflow."""
    return [
        value * slope + offset for frame, (slope, offset) in zip(array, steps, strict=True) for value in frame.ravel().tolist()
    ]


def narrowest(numbers: list, *types: str) -> np.dtype:
    fits = [np.dtype(kind) for kind in types if np.iinfo(kind).min <= min(numbers) and max(numbers) <= np.iinfo(kind).max]
    return (*fits, np.dtype(np.float32))[0]


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4"])
@pytest.mark.parametrize("slope", [1.0, 2.0, -1.0, -300.0, 70000.0])
@pytest.mark.parametrize("intercept", [0.0, -1024.0, 40000.0, -3e9])
def test_whole_numbers_stay_exact_in_the_narrowest_type(dtype: str, slope: float, intercept: float) -> None:
    ends = [np.iinfo(dtype).min, 0, 1, 100, np.iinfo(dtype).max]
    for chosen in (ends, ends[1:4], ends[:3]):
        array = np.array([[chosen], [chosen[::-1]]], dtype)
        steps = [(slope, intercept), (1.0, 3.0)]
        values = rescaled(array, steps)
        wanted = exact(array, steps)
        assert values.dtype == narrowest(wanted, "i2", "u2", "i4")
        assert values.ravel().tolist() == np.array(wanted).astype(values.dtype).tolist()


def test_what_is_not_rescaled_is_not_copied() -> None:
    array = np.zeros((2, 3, 3), np.uint16)
    assert rescaled(array, [(1.0, 0.0)] * 2) is array


def test_fractions_are_computed_with_64_bit() -> None:
    array = np.array([[[65535, 3]], [[7, 9]]], np.uint16)
    steps = [(0.1, 0.3), (1.0, 0.0)]
    values = rescaled(array, steps)
    assert values.dtype == np.float32
    assert values.ravel().tolist() == np.array(exact(array, steps)).astype(np.float32).tolist()
    third = np.array([[[1 / 3]]], np.float32)
    assert rescaled(third, [(3.0, 1e-9)])[0, 0, 0] == np.float32(float(third[0, 0, 0]) * 3.0 + 1e-9)


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4"])
@pytest.mark.parametrize("total", [255.0, -1.0, 4095.0, 130000.0])
def test_inverted_twice_is_the_same_and_once_is_exact(dtype: str, total: float) -> None:
    values = np.array([[[0, 1, 77, 100]]], dtype)
    turned = inverted(values, total)
    assert turned.ravel().tolist() == [total - value for value in values.ravel().tolist()]
    if dtype != "f4":
        assert turned.dtype == narrowest([total, total - 100], dtype, "i2", "u2", "i4")
    assert np.array_equal(inverted(turned, total), values)


def test_bright_padding_becomes_air_and_dark_padding_stays() -> None:
    array = np.array([[[63536, 0, 1024, 2000]]], np.uint16)
    for stored, expected in ((63536, -1024), (0, None)):
        values = array.astype(np.int32) - 1024
        found = padding_as_air(values, array, (stored, stored), None)
        if expected is None:
            assert found is values
        else:
            assert found.ravel().tolist() == [expected, -1024, 0, 976]
    assert padding_as_air(values, array, (0, 0), -1024.0) is values
