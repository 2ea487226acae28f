import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medglip import store
from medglip.records import ImageRecord, Intensity, Keys, Origin, Picture
from medglip.store import perceptual_hash, pixel_sha256, write_part
from medglip.store.groups.duplicates import SIDE, near_duplicate_pairs, near_hashes, signature

PLAIN = Intensity()


def brute(hashes, distance, apart=()):
    """All near pairs by comparing every two; equal hashes that nothing tells apart count once, as the first."""
    rows = range(len(hashes))
    first = {}
    for row in rows:
        first.setdefault((int(hashes[row]), *(int(column[row]) for column in apart)), row)
    rows = sorted(first.values()) if apart else list(rows)
    return [
        (a, b)
        for a in rows
        for b in rows
        if a < b and int(hashes[a] ^ hashes[b]).bit_count() <= distance and all(column[a] != column[b] for column in apart)
    ]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 2**64 - 1), max_size=6),
    st.lists(st.tuples(st.integers(0, 5), st.sets(st.integers(0, 63), max_size=6), st.integers(0, 3)), max_size=12),
    st.sampled_from([0, 1, 4, 8]),
)
def test_every_near_pair_is_found_and_no_other(seeds, offspring, distance):
    hashes, groups = list(seeds), list(range(len(seeds)))
    for parent, flipped, group in offspring:
        if seeds:
            hashes.append(seeds[parent % len(seeds)] ^ sum(1 << bit for bit in flipped))
            groups.append(group)
    hashes, groups = np.array(hashes, np.uint64), np.array(groups, np.int64)
    assert list(map(tuple, near_hashes(hashes, distance).pairs.tolist())) == brute(hashes, distance)
    found = near_hashes(hashes, distance, [groups])
    assert list(map(tuple, found.pairs.tolist())) == brute(hashes, distance, [groups])
    assert all(int(hashes[a] ^ hashes[b]).bit_count() == bits for (a, b), bits in zip(found.pairs, found.distance, strict=True))


def test_planted_neighbours_among_many_random_hashes_are_found():
    rng = np.random.default_rng(1)
    hashes = rng.integers(0, 2**63, 60_000, dtype=np.uint64) << np.uint64(1)
    one, other = rng.choice(len(hashes), (2, 500), replace=False)
    for number, (a, b) in enumerate(zip(one, other, strict=True)):
        flipped = rng.choice(64, number % 7, replace=False)
        hashes[b] = hashes[a] ^ np.uint64(sum(1 << int(bit) for bit in flipped))
    found = set(map(tuple, near_hashes(hashes).pairs.tolist()))
    for number, (a, b) in enumerate(zip(one, other, strict=True)):
        near = int(hashes[a] ^ hashes[b]).bit_count() <= 4
        assert ((min(a, b), max(a, b)) in found) == near
        assert near or number % 7 > 4 or a in other or b in one


def test_a_hash_that_too_many_groups_share_is_left_out_and_said_so():
    hashes = np.array([5] * 9 + [4, 2**60, 2**60 + 1], np.uint64)
    found = near_hashes(hashes, 4, [np.arange(12)], popular=8)
    assert found.popular.tolist() == list(range(9))
    assert found.pairs.tolist() == [[9, 10], [9, 11], [10, 11]]
    assert len(near_hashes(hashes, 4, [np.arange(12)], popular=9).popular) == 0
    one_group = near_hashes(np.zeros(5000, np.uint64), 4, [np.zeros(5000, np.int64)])
    assert (len(one_group.pairs), len(one_group.popular)) == (0, 0)


def test_a_crowd_of_neighbours_is_bounded_and_counted():
    hashes = np.arange(64, dtype=np.uint64) << np.uint64(56)  # all agree in most bands
    whole, cut = near_hashes(hashes, 4), near_hashes(hashes, 4, crowd=3)
    assert whole.crowded == 0
    assert cut.crowded > 0
    assert set(map(tuple, cut.pairs.tolist())) < set(map(tuple, whole.pairs.tolist()))


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_to_compare(count):
    found = near_hashes(np.zeros(count, np.uint64), 4, [np.zeros(count, np.int64)])
    assert found.pairs.shape == (0, 2)
    assert (len(found.popular), found.crowded) == (0, 0)


def scene(seed, size=160):
    """A picture with coarse and fine structure, uint8 (size, size)."""
    rng = np.random.default_rng(seed)
    total = sum(
        np.asarray(Image.fromarray(rng.random((side, side), np.float32)).resize((size, size), Image.Resampling.BICUBIC))
        * weight
        for side, weight in ((5, 3.0), (12, 1.5), (30, 1.0))
    )
    return np.clip((total - total.min()) / np.ptp(total) * 255, 0, 255).astype(np.uint8)


def jpeg(pixels, quality=30):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def test_a_signature_survives_copying_and_tells_pictures_apart():
    whole = scene(0)
    mine = signature(whole)
    assert mine.shape == (SIDE * SIDE,)
    assert mine.dtype == np.float32
    assert abs(mine.sum()) < 1e-2
    assert np.isclose(mine @ mine, 1)
    half = np.asarray(Image.fromarray(whole).resize((80, 70)))
    for copy in (jpeg(whole), half, (whole // 2 + 40).astype(np.uint8), np.repeat(whole[..., None], 3, 2)):
        assert signature(copy) @ mine > 0.93
    for seed in range(1, 6):
        assert abs(signature(scene(seed)) @ mine) < 0.6


@pytest.mark.parametrize("level", [0, 77, 255])
def test_a_flat_picture_is_like_none(level):
    flat = signature(np.full((30, 40), level, np.uint8))
    assert not flat.any()
    assert not signature(np.full((1, 1, 3), level, np.uint8)).any()


def picture(number, pixels, *, source="one", group=None, intensity=PLAIN, look=None):
    look = pixels if look is None else look
    record = ImageRecord(
        id=f"{number:016x}", sha256=pixel_sha256(pixels), perceptual_hash=perceptual_hash(look), width=pixels.shape[1],
        height=pixels.shape[0], channels=1, bits=8 * pixels.dtype.itemsize, modality="ct",
        origin=Origin(source, f"{number}.png", str(number)), licence="MIT", intensity=intensity, keys=Keys(),
        group=group or f"g{number}", split="train", split_source="hash",
    )  # fmt: skip
    return Picture(record, pixels)


def test_pairs_are_found_across_parts_and_bit_depths(tmp_path):
    whole = scene(3)
    deep = whole.astype(np.uint16) * 256
    as_shown = Intensity("HU", 1.0, 0.0, (0.0, 65280.0))
    first = [picture(1, whole), picture(2, scene(4)), picture(3, scene(5)), picture(4, jpeg(scene(5)), group="g3")]
    write_part(tmp_path / "d", "one", iter(first), info={"source": "one"})
    write_part(
        tmp_path / "d", "two", iter([picture(9, deep, source="two", intensity=as_shown, look=whole)]), info={"source": "two"}
    )
    steps = []
    found = near_duplicate_pairs(store.open(tmp_path / "d"), lambda done, total: steps.append((done, total)))
    assert found[["image_a", "image_b"]].to_numpy().tolist() == [[f"{1:016x}", f"{9:016x}"]]  # 3 and 4 share a group
    assert found["distance"].tolist() == [0]
    assert found["correlation"][0] > 0.99
    assert steps == [(1, 2), (2, 2)]


def test_equal_hashes_of_different_pictures_are_no_pair(tmp_path):
    one, other = picture(1, scene(1)), picture(2, scene(2))
    other = Picture(replace(other.record, perceptual_hash=one.record.perceptual_hash), other.pixels)
    blank = [picture(number, np.full((9 + number, 9), 3, np.uint8)) for number in (3, 4)]
    write_part(tmp_path / "d", "p", iter([one, other, *blank]), info={"source": "one"})
    assert len(near_duplicate_pairs(store.open(tmp_path / "d"))) == 0


def test_sources_of_one_family_are_compared_more_loosely(tmp_path):
    whole = scene(7)
    values = whole.astype(np.float32)
    cut = np.clip((values - 60) / 130 * 255, 0, 255).astype(np.uint8)
    target = f"{int(perceptual_hash(whole), 16) ^ 0b1111110:016x}"  # as if six bits differed
    copy = Picture(replace(picture(2, cut, source="two").record, perceptual_hash=target), cut)
    for name, lineage in (("strangers", []), ("family", ["parent"])):
        write_part(tmp_path / name, "one", iter([picture(1, whole)]), info={"source": "one", "lineage": lineage})
        write_part(tmp_path / name, "two", iter([copy]), info={"source": "two", "lineage": lineage})
    assert len(near_duplicate_pairs(store.open(tmp_path / "strangers"))) == 0
    assert near_duplicate_pairs(store.open(tmp_path / "family"))["distance"].tolist() == [6]
