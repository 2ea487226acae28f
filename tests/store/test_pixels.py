import hashlib
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medglip.errors import DatasetError, RecordError
from medglip.store.pixels import (
    TAR_BLOCK,
    ShardWriter,
    name_in_header,
    pixel_sha256,
    pixels_of_png,
    png_bytes,
    read_bytes,
)

side = st.integers(1, 9)
images = st.one_of(
    st.tuples(side, side).flatmap(lambda hw: hnp.arrays(np.uint8, hw)),
    st.tuples(side, side).flatmap(lambda hw: hnp.arrays(np.uint8, (*hw, 3))),
    st.tuples(side, side).flatmap(lambda hw: hnp.arrays(np.uint16, hw)),
)


@given(images)
@settings(max_examples=60, deadline=None)
def test_png_is_lossless_and_keeps_the_type(pixels):
    back = pixels_of_png(png_bytes(pixels), "here")
    assert back.dtype == pixels.dtype
    assert np.array_equal(back, pixels)
    assert png_bytes(pixels) == png_bytes(np.asfortranarray(pixels))


@given(images)
@settings(max_examples=30, deadline=None)
def test_the_hash_is_of_pixels_and_shape(pixels):
    assert pixel_sha256(pixels) == pixel_sha256(np.asfortranarray(pixels))
    assert pixel_sha256(pixels) != pixel_sha256(np.concatenate([pixels, pixels]))
    changed = pixels.copy()
    changed.flat[0] ^= 1
    assert pixel_sha256(changed) != pixel_sha256(pixels)


def test_eight_and_sixteen_bits_of_the_same_numbers_differ():
    assert pixel_sha256(np.ones((2, 2), np.uint8)) != pixel_sha256(np.ones((2, 2), np.uint16))


@pytest.mark.parametrize(
    "pixels", [np.ones((2, 2)), np.ones((2, 2), np.int16), np.ones((2, 2, 4), np.uint8), np.ones((2, 2, 3), np.uint16),
               np.ones((0, 2), np.uint8), np.ones(3, np.uint8)]
)  # fmt: skip
def test_other_arrays_are_refused(pixels):
    with pytest.raises(RecordError, match="allowed"):
        pixel_sha256(pixels)


def test_shards_are_read_by_offset_and_by_tarfile(tmp_path):
    rng = np.random.default_rng(0)
    pngs = {hashlib.sha256(bytes([n])).hexdigest(): rng.bytes(int(rng.integers(1, 3000))) for n in range(30)}
    with ShardWriter(tmp_path, limit=10_000) as shards:
        places = {name: shards.add(name, png) for name, png in pngs.items()}
    assert len(shards.finished) > 2
    seen = {}
    for file in shards.finished:
        assert hashlib.sha256(file.path.read_bytes()).hexdigest() == file.sha256
        assert file.path.stat().st_size == file.size
        with tarfile.open(file.path) as tar:
            for member in tar:
                assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
                seen[member.name] = tar.extractfile(member).read()
    assert seen == {f"{name}.png": png for name, png in pngs.items()}
    for name, place in places.items():
        shard = shards.finished[place.shard].path
        assert read_bytes(shard, place.offset, place.size) == pngs[name]
        assert name_in_header(read_bytes(shard, place.offset - TAR_BLOCK, TAR_BLOCK), "here") == f"{name}.png"


def test_a_broken_shard_says_so(tmp_path):
    with pytest.raises(DatasetError, match=r"x\.tar"):
        read_bytes(tmp_path / "x.tar", 0, 5)
    (tmp_path / "x.tar").write_bytes(b"123")
    with pytest.raises(DatasetError, match="3 of 5"):
        read_bytes(tmp_path / "x.tar", 0, 5)
    with pytest.raises(DatasetError, match="no PNG"):
        pixels_of_png(b"123", "here")
    with pytest.raises(DatasetError):
        name_in_header(bytes(TAR_BLOCK), "here")
