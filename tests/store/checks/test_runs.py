import numpy as np
import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medglip.records.masks import box_of_mask, rle_of_mask
from medglip.store.checks import runs
from medglip.store.checks.runs import measure

MASKS = st.lists(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)), max_size=6)


def measured(codes: list[str], sizes: list[tuple[int, int]]) -> runs.Measured:
    height, width = np.array(sizes, int).reshape(-1, 2).T
    return measure(pa.array(codes, pa.string()), height, width)


@given(MASKS, st.sampled_from([3, 40, 1 << 20]))
@settings(max_examples=80, deadline=None)
def test_area_and_box_are_those_of_the_masks(masks, piece):
    runs._PIECE, before = piece, runs._PIECE
    try:
        found = measured([rle_of_mask(mask).counts for mask in masks], [mask.shape for mask in masks])
    finally:
        runs._PIECE = before
    assert found.good.all()
    assert found.area.tolist() == [int(mask.sum()) for mask in masks]
    assert found.box_xyxy.tolist() == [list(box_of_mask(mask) or (0, 0, 0, 0)) for mask in masks]


@given(hnp.arrays(bool, (7, 9)), st.integers(0, 1000), st.characters(codec="ascii"))
@settings(max_examples=150, deadline=None)
def test_a_changed_code_never_spoils_its_neighbours(mask, place, letter):
    """What a changed character says is either refused, or a whole mask; the codes around it are read as before."""
    code = rle_of_mask(mask).counts
    at = place % len(code)
    changed = code[:at] + letter + code[at + 1 :]
    found = measured([code, changed, code[:-1], "", code], [mask.shape] * 5)
    assert found.good[[0, 4]].all()
    assert not found.good[3]
    assert found.area[0] == found.area[4] == mask.sum()
    assert found.good[1] or (found.area[1] == 0 and not found.box_xyxy[1].any())
    values = plain_runs(changed)
    assert found.good[1] == (values is not None and min(values) >= 0 and sum(values) == mask.size)


def plain_runs(code: str) -> list[int] | None:
    """The code read number by number, as COCO's ``rleFrString`` does."""
    values: list[int] = []
    digits = [ord(letter) - 48 for letter in code]
    if not digits or min(digits) < 0 or max(digits) > 63 or digits[-1] & 32:
        return None
    number = shift = 0
    for digit in digits:
        number |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            if shift > 35:
                return None
            number -= (digit & 16 and 1) << shift
            values.append(number + (values[-2] if len(values) > 2 else 0))
            number = shift = 0
    return values


@given(st.text(alphabet=[chr(code) for code in range(40, 127)], max_size=14))
@example("PPPPPPPPPPPP0")
@settings(max_examples=200, deadline=None)
def test_any_text_is_judged_as_number_by_number(text):
    values = plain_runs(text)
    size = max(1, sum(values)) if values else 1
    good = values is not None and min(values) >= 0 and sum(values) == size
    assert measured([text], [(1, size)]).good[0] == good


def test_a_large_mask_is_measured():
    mask = np.zeros((3000, 4000), bool)
    mask[:, 2000:] = True
    mask[5, 3999] = False
    found = measured([rle_of_mask(mask).counts], [mask.shape])
    assert (found.area[0], found.box_xyxy[0].tolist()) == (5_999_999, [2000, 0, 4000, 3000])


def test_no_masks_have_no_sizes():
    assert [len(column) for column in measured([], [])] == [0, 0, 0]
