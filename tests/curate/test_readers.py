"""Several readers: the order of the readers never matters, equal marks give themselves, distant ones stay apart."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medglip.curate import load_source
from medglip.curate.readers import (
    Mark,
    clusters,
    consensus,
    fused_boxes,
    overlap,
    point_distances,
    reader_name,
    regions_of_readers,
)
from medglip.curate.regions import region_of_box
from medglip.curate.source import Named
from medglip.errors import RecordError, SourceError

TOML = """
name = "tiny"
title = "Tiny"
licence = "CC0-1.0"
{more}
[[part]]
converter = "box_table"
modality = "xray"
files = {{ image = "*.png", table = "*.csv" }}
labels = {{ Nodule = "lung nodule" }}
options = {{ {options} }}
"""
SIZE = (100, 100)
corners = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(4, 40), st.integers(4, 40))
boxes = corners.map(lambda c: (float(c[0]), float(c[1]), float(c[0] + c[2]), float(c[1] + c[3])))
marked = st.lists(st.tuples(boxes, st.sampled_from("abcd")), min_size=1, max_size=7)
NODULE = Named("thorax.lung.nodule")


@pytest.fixture
def part(tmp_path: Path):
    def make(options: str = "", more: str = 'names = "public"'):
        path = tmp_path / "tiny.toml"
        path.write_text(TOML.format(options=options, more=more))
        return load_source(path).parts[0]

    return make


def told(found, drawn):
    """What was fused, without the numbers that the order of the marks gives."""
    return {(one.box_xyxy, one.readers, tuple(sorted(drawn[n] for n in one.members))) for one in found}


@settings(max_examples=80, deadline=None)
@given(marked, st.randoms(use_true_random=False))
def test_the_order_of_the_marks_does_not_matter(drawn, random) -> None:
    shuffled = list(drawn)
    random.shuffle(shuffled)
    assert told(fused_boxes(*zip(*drawn, strict=True)), drawn) == told(fused_boxes(*zip(*shuffled, strict=True)), shuffled)


@settings(max_examples=80, deadline=None)
@given(marked)
def test_every_mark_is_of_one_thing_and_lies_around_its_mean(drawn) -> None:
    found = fused_boxes(*zip(*drawn, strict=True))
    assert sorted(n for one in found for n in one.members) == list(range(len(drawn)))
    for one in found:
        members = np.array([drawn[n][0] for n in one.members])
        assert np.allclose(one.box_xyxy, members.mean(axis=0))
        assert one.readers == len({drawn[n][1] for n in one.members})
        assert len(one.members) == 1 or all(overlap(tuple(member), one.box_xyxy) > 0 for member in members)


@given(boxes, st.integers(1, 6))
def test_equal_boxes_give_themselves(box, count) -> None:
    (one,) = fused_boxes([box] * count, list(range(count)))
    assert one.box_xyxy == box
    assert one.readers == count


def test_boxes_that_share_half_or_less_stay_apart() -> None:
    third = (5.0, 0.0, 15.0, 10.0)
    assert overlap((0, 0, 10, 10), third) == pytest.approx(1 / 3)
    assert [one.readers for one in fused_boxes([(0, 0, 10, 10), third], ["a", "b"])] == [1, 1]
    # A step from one to the next does not chain the first to the last, which overlaps neither mean enough.
    row = [(float(x), 0.0, float(x) + 30, 30.0) for x in (0, 8, 16, 24)]
    assert sorted(len(one.members) for one in fused_boxes(row, list("abcd"))) != [4] or overlap(row[0], row[3]) > 0.1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_clusters_do_not_depend_on_the_order_and_part_what_is_far(points, random) -> None:
    def grouped(marks):
        distances = point_distances([np.array([[float(x), 0.0]]) for x, _ in marks])
        found = clusters(distances, [reader for _, reader in marks], 2.0, 4)
        return sorted((sorted(marks[n] for n in one.members), one.ambiguous) for one in found)

    shuffled = list(points)
    random.shuffle(shuffled)
    groups = grouped(points)
    assert groups == grouped(shuffled)
    for members, ambiguous in groups:
        steps = np.diff(sorted(x for x, _ in members))
        assert (steps <= 2.0).all()
        assert ambiguous == (len(members) > 4 or len({reader for _, reader in members}) < len(members))


def test_a_crowd_is_parted_with_less_tolerance() -> None:
    marks = [np.array([[x, 0.0]]) for x in (0.0, 0.1, 0.2, 3.0, 3.1, 3.2)]
    readers = ["1", "2", "3", "1", "2", "3"]
    found = clusters(point_distances(marks), readers, 5.0, 4)
    assert [one.members for one in found] == [(0, 1, 2), (3, 4, 5)]
    assert not any(one.ambiguous for one in found)
    (crowd,) = clusters(np.zeros((6, 6)), readers, 5.0, 4)
    assert crowd.ambiguous
    assert clusters(np.zeros((0, 0)), [], 5.0, 4) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_the_consensus_is_what_half_of_the_readers_drew(drawn, random) -> None:
    masks = [np.array(mask) for mask in drawn]
    agreed = consensus(masks)
    assert np.array_equal(agreed, np.mean(masks, axis=0) >= 0.5)
    random.shuffle(masks)
    assert np.array_equal(consensus(masks), agreed)
    assert np.array_equal(consensus([masks[0]] * 3), masks[0])


def test_a_consensus_of_nobody_or_of_nothing_is_refused() -> None:
    with pytest.raises(RecordError, match="0 masks"):
        consensus([])
    with pytest.raises(RecordError, match=r"0\.0"):
        consensus([np.ones(2)], 0.0)


def marks_of(part, *drawn: tuple[str, tuple[float, float, float, float]], birads: str = "") -> list[Mark]:
    about = {"birads": birads} if birads else {}
    return [
        Mark(reader, NODULE, replace(region_of_box(part, NODULE, box, SIZE), attributes=dict(about))) for reader, box in drawn
    ]


ONE, TWIN, NEAR, FAR = (10.0, 10.0, 40.0, 40.0), (10.0, 10.0, 40.0, 40.5), (12.0, 10.0, 42.0, 40.0), (60.0, 60.0, 90.0, 90.0)


def test_a_thing_says_how_many_of_the_readers_marked_it_and_where(part) -> None:
    marks = marks_of(part(), ("R9", NEAR), ("R8", ONE), ("R8", TWIN), ("R8", FAR), birads="4")
    thing, lone = regions_of_readers(part(), marks, 3, SIZE)
    assert thing.box_xyxy == (11.0, 10.0, 41.0, 40.0)  # the twin of R8 was the same box, entered twice
    assert thing.attributes == {
        "readers": 2, "agreement": 0.667, "birads": "4", "reader_boxes": "R8 10.0 10.0 40.0 40.0; R9 12.0 10.0 42.0 40.0",
    }  # fmt: skip
    assert "uncertain" not in thing.flags
    assert lone.attributes["agreement"] == 0.333
    assert "uncertain" in lone.flags


def test_each_reader_s_marks_know_the_thing_that_they_are_of(part) -> None:
    marks = marks_of(part('readers = "each"'), ("R9", NEAR), ("R8", ONE), ("R8", FAR))
    found = regions_of_readers(part('readers = "each"'), marks, 3, SIZE)
    assert [(region.box_xyxy, region.attributes) for region in found] == [
        (ONE, {"reader": "R8", "readers": 2, "agreement": 0.667, "consensus": 1}),
        (NEAR, {"reader": "R9", "readers": 2, "agreement": 0.667, "consensus": 1}),
        (FAR, {"reader": "R8", "readers": 1, "agreement": 0.333, "consensus": 2}),
    ]
    with pytest.raises(SourceError, match="allowed: consensus, each"):
        regions_of_readers(part('readers = "all"'), marks, 3, SIZE)


def test_readers_of_a_private_source_are_not_named(part) -> None:
    assert reader_name(part(), "R8") == "R8"
    hidden = reader_name(part(more=""), "Dr. Example")
    assert "Example" not in hidden
    assert len(hidden) == 16
    assert hidden != reader_name(part(more=""), "Dr. Sample")
