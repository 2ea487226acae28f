"""Parents: by masks where there are masks, only where the label tree allows it, never across sides."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medglip.records.containment import INSIDE, parents_of, shares_inside, size_px
from medglip.records.labels import label_tree
from medglip.records.masks import box_of_mask, rle_of_mask
from medglip.records.record import Region

TREE = label_tree()


def boxed(label, box, side=None):
    return Region(label, tuple(map(float, box)), laterality=side)


def masked(label, mask, side=None):
    return Region(label, box_of_mask(mask), rle_of_mask(mask), laterality=side)


def square(x0, y0, x1, y1, size=40):
    mask = np.zeros((size, size), bool)
    mask[y0:y1, x0:x1] = True
    return mask


@pytest.mark.parametrize(
    ("inner", "outer", "held"),
    [
        ("abdomen.kidney.tumor", "abdomen.kidney", True),  # a finding in its site
        ("abdomen.kidney.tumor", "abdomen.liver", False),
        ("thorax.lung.nodule", "thorax.lung.upper_lobe", True),  # in a part of its site
        ("thorax.lung.upper_lobe", "thorax.lung", True),  # a part in its whole
        ("thorax.lung", "thorax.lung.upper_lobe", False),
        ("musculoskeletal.bone.fracture", "musculoskeletal.femur", True),  # in a kind of its site
        ("head_neck.brain.tumor.core", "head_neck.brain.tumor", True),
        ("head_neck.brain.tumor.core", "head_neck.brain", True),
        ("abdomen.kidney.cyst", "abdomen.kidney.tumor", False),  # a finding in a finding
        ("systemic.lesion", "abdomen.kidney", False),  # a general finding, by boxes
        ("abdomen.kidney", "abdomen.kidney", False),
    ],
)
def test_the_tree_has_a_say(inner, outer, held):
    regions = [boxed(inner, (10, 10, 12, 12)), boxed(outer, (5, 5, 30, 30))]
    assert parents_of(regions, TREE) == [(1,) if held else (), ()]


def test_a_general_finding_needs_masks():
    regions = [masked("systemic.lesion", square(10, 10, 14, 14)), masked("abdomen.kidney", square(5, 5, 30, 30), "left")]
    assert parents_of(regions, TREE) == [(1,), ()]
    assert parents_of([regions[0], boxed("abdomen.kidney", (5, 5, 30, 30))], TREE) == [(), ()]
    tool = masked("systemic.instrument", square(10, 10, 14, 14))
    assert parents_of([tool, regions[1]], TREE) == [(), ()]


def test_sides_agree():
    cyst, left, right = "abdomen.kidney.cyst", "left", "right"
    kidney = boxed("abdomen.kidney", (5, 5, 30, 30), left)
    assert parents_of([boxed(cyst, (6, 6, 9, 9), left), kidney], TREE)[0] == (1,)
    assert parents_of([boxed(cyst, (6, 6, 9, 9)), kidney], TREE)[0] == (1,)
    assert parents_of([boxed(cyst, (6, 6, 9, 9), right), kidney], TREE)[0] == ()
    both = [boxed("thorax.lung.nodule", (14, 6, 16, 9)), boxed("thorax.lung", (2, 2, 20, 30), right),
            boxed("thorax.lung", (12, 2, 30, 30), left)]  # fmt: skip
    assert parents_of(both, TREE)[0] == ()  # in both boxes: which lung is not known


def test_the_mask_counts_not_the_box():
    kidney = square(5, 5, 30, 30)
    kidney[10:20, 10:20] = False
    hole = masked("abdomen.kidney.tumor", square(12, 12, 18, 18))
    assert parents_of([hole, masked("abdomen.kidney", kidney)], TREE)[0] == ()
    for columns, held in ((9, True), (8, False)):  # of ten
        tumor = masked("abdomen.kidney.tumor", square(0, 0, 10, 10))
        assert parents_of([tumor, masked("abdomen.kidney", square(10 - columns, 0, 40, 40))], TREE)[0] == ((1,) if held else ())


def test_the_smallest_parent_comes_first():
    regions = [boxed("thorax.lung", (0, 0, 40, 40)), boxed("thorax.lung.nodule", (5, 5, 8, 8)),
               boxed("thorax.lung.upper_lobe", (0, 0, 40, 20))]  # fmt: skip
    assert parents_of(regions, TREE) == [(), (2, 0), (0,)]
    assert parents_of([], TREE) == []


masks = st.builds(
    lambda seed, fill: np.random.default_rng(seed).random((12, 9)) < fill, st.integers(0, 99), st.sampled_from([0.1, 0.5, 0.95])
).filter(lambda mask: mask.any())


@settings(max_examples=60, deadline=None)
@given(inner=st.lists(masks, min_size=1, max_size=3), outer=st.lists(masks, min_size=1, max_size=3))
def test_shares_are_those_of_the_pixels(inner, outer):
    one, other = [masked("a", mask) for mask in inner], [masked("b", mask) for mask in outer]
    expected = [[(a & b).sum() / a.sum() for b in outer] for a in inner]
    assert np.allclose(shares_inside(one, other), expected)
    assert [size_px(region) for region in one] == [mask.sum() for mask in inner]
    by_box = shares_inside([boxed("a", r.box_xyxy) for r in one], other)
    assert ((by_box >= 0) & (by_box <= 1)).all()


@settings(max_examples=30, deadline=None)
@given(inner=masks, outer=masks)
def test_a_parent_holds_its_region(inner, outer):
    regions = [masked("abdomen.kidney.tumor", inner), masked("abdomen.kidney", outer)]
    held = (inner & outer).sum() >= INSIDE * inner.sum() and outer.sum() >= inner.sum()
    assert parents_of(regions, TREE)[0] == ((1,) if held else ())
