from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medglip.curate.boxes import add_once, box_of_numbers
from medglip.curate.cases import Refused
from medglip.curate.source import Part
from medglip.errors import SourceError
from medglip.records import Region

SIZE_HW = (40, 60)
CORNERS = st.tuples(st.integers(0, 59), st.integers(0, 39), st.integers(1, 60), st.integers(1, 40)).map(
    lambda box: (box[0], box[1], min(box[0] + box[2], 60), min(box[1] + box[3], 40))
)


def part(**options: object) -> Part:
    return Part("p", "c", "ct", "tiny", "l", "human", {}, {}, options=options)


@given(CORNERS)
def test_the_same_box_comes_from_every_form_and_frame(box: tuple[int, int, int, int]) -> None:
    x0, y0, x1, y1 = box
    forms = {"xyxy": box, "xywh": (x0, y0, x1 - x0, y1 - y0), "cxcywh": ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0)}
    for form, numbers in forms.items():
        found = [box_of_numbers(part(format=form), "t row 1", numbers, SIZE_HW),
                 box_of_numbers(part(format=form), "t row 1", [str(number) for number in numbers], SIZE_HW),
                 box_of_numbers(part(format=form, frame=[600, 400]), "t row 1", [10 * number for number in numbers], SIZE_HW),
                 box_of_numbers(part(format=form, frame=[1, 1]), "t row 1", [2 * number for number in numbers], SIZE_HW,
                                (120, 80))]  # fmt: skip
        assert all(one == pytest.approx(box) for one in found)


def test_corners_are_put_in_order_only_where_the_source_says_so() -> None:
    with pytest.raises(Refused, match=r"t row 1.*empty"):
        box_of_numbers(part(format="xyxy"), "t row 1", (20, 18, 5, 6), SIZE_HW)
    fixed = box_of_numbers(part(format="xyxy", swapped_corners="fix"), "t row 1", (20, 18, 5, 6), SIZE_HW)
    assert fixed == (5, 6, 20, 18)


@pytest.mark.parametrize("numbers", [(1, 2, 3), ("", "", "", ""), (1, 2, None, 4), ("a", 1, 1, 1)])
def test_what_is_no_box_is_refused(numbers: tuple) -> None:
    with pytest.raises(Refused, match="is not four numbers") as caught:
        box_of_numbers(part(), "t row 1", numbers, SIZE_HW)
    assert caught.value.reason == "bad_box"


def test_an_unknown_form_is_an_error_of_the_source() -> None:
    with pytest.raises(SourceError, match="xywh, xyxy, cxcywh"):
        box_of_numbers(part(format="yxyx"), "t row 1", (1, 2, 3, 4), SIZE_HW)


def test_a_box_that_is_there_counts_as_another_readers() -> None:
    region = Region("thorax.lung.nodule", (0.0, 0.0, 20.0, 20.0))
    regions = [region]
    assert add_once(regions, replace(region, box_xyxy=(0.0, 0.0, 20.0, 19.5))) == 0
    assert add_once(regions, replace(region, box_xyxy=(0.0, 0.0, 20.0, 15.0))) == 1
    assert add_once(regions, replace(region, laterality="left")) == 2
    assert [one.attributes for one in regions] == [{"readers": 2}, {}, {}]
