"""Records: valid from birth, frozen, and the sentence of a refusal says who and what."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medglip.errors import RecordError
from medglip.records import rle_of_mask
from medglip.records.record import (
    ImageRecord,
    Intensity,
    Origin,
    Phrase,
    Region,
    Text,
    concept_of,
    identified,
)

ORIGIN = Origin(dataset="phantom", file="a/b.dcm", case="1")


def image(**more):
    known = {"id": "0" * 16, "sha256": "f" * 64, "width": 40, "height": 30, "channels": 1, "bits": 8, "modality": "ct"}
    return ImageRecord(**{**known, "origin": ORIGIN, "licence": "CC0-1.0", **more})


def region(label="abdomen.kidney", box=(1.0, 2.0, 10.0, 12.0), **more):
    return Region(label, box, **more)


def test_concept():
    assert concept_of("abdomen.kidney") == "abdomen.kidney"
    assert region(laterality="left").concept == "abdomen.kidney@left"
    for laterality in ("bilateral", "midline", None):
        assert region(laterality=laterality).concept == "abdomen.kidney"


@given(st.tuples(*[st.floats(allow_nan=True, allow_infinity=True)] * 4))
def test_a_region_has_a_finite_box_of_some_size_or_is_refused(box):
    x0, y0, x1, y1 = box
    if all(map(np.isfinite, box)) and x0 < x1 and y0 < y1:
        assert region(box=box).box_xyxy == box
    else:
        with pytest.raises(RecordError, match="box_xyxy"):
            region(box=box)


@pytest.mark.parametrize(
    "bad",
    [
        {"label": ""},
        {"laterality": "up"},
        {"score": 1.5},
        {"score": float("nan")},
        {"provenance": "guess"},
    ],
)
def test_bad_regions_are_refused(bad):
    with pytest.raises(RecordError, match="allowed"):
        region(**bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"width": 0},
        {"modality": "telepathy"},
        {"channels": 4},
        {"bits": 12},
        {"split": "holdout"},
        {"spacing_mm": (0.0, 1.0)},
        {"affine_px_to_mm": (1.0,) * 16},
        {"regions": (region(box=(0.0, 0.0, 40.5, 10.0)),)},
        {"regions": (region(box=(-0.5, 0.0, 4.0, 10.0)),)},
        {"regions": (region(mask=rle_of_mask(np.ones((40, 30)))),)},
        {"regions": (region(laterality="left"),), "absent": ("abdomen.kidney@left",)},
    ],
)
def test_bad_images_are_refused_by_name(bad):
    with pytest.raises(RecordError, match="of 'phantom'"):
        image(**bad)


def test_what_touches_the_border_is_inside():
    whole = region(box=(0.0, 0.0, 40.0, 30.0), mask=rle_of_mask(np.ones((30, 40))))
    assert image(regions=(whole,)).regions == (whole,)


def test_absence_of_another_side_is_no_contradiction():
    both = image(regions=(region(laterality="left"),), absent=("abdomen.kidney@right",))
    assert both.absent == ("abdomen.kidney@right",)


def test_records_are_frozen():
    with pytest.raises(FrozenInstanceError):
        image().width = 3


def test_identified_gives_ids_once():
    record = identified(image(regions=(region(), region(id="mine"), region())))
    assert [r.id for r in record.regions] == [f"{record.id}-000", "mine", f"{record.id}-002"]
    assert identified(record) == record
    assert replace(record, regions=()) == image()


@pytest.mark.parametrize("make", [lambda: Phrase(" "), lambda: Text(""), lambda: Phrase("kidney", "guess"),
                                  lambda: Text("a", "poem"),
                                  lambda: Text("a?", "question"), lambda: Text("a?", "question", answer=" \n"),
                                  lambda: Text("a.", "report", answer="b"), lambda: Text("a.", answer=" "),
                                  lambda: Intensity(unit="counts"),
                                  lambda: Intensity(window=(1.0, 1.0))])  # fmt: skip
def test_small_records_check_too(make):
    with pytest.raises(RecordError, match="allowed"):
        make()
