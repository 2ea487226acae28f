import io
import json
import tarfile
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medglip.errors import InputError
from medglip.exports import Choice, export
from medglip.exports import webdataset as shards
from medglip.store import pixel_sha256
from medglip.store.schema import document_of, image_of


def _silent(done: int, total: int) -> None:
    """No progress."""


def _members(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        return tar.getnames()


@pytest.fixture(scope="module")
def folder(exported) -> Path:
    return exported("webdataset")


def test_stock_reader_gives_back_pixels_and_records(dataset, folder):
    reader = pytest.importorskip("webdataset")
    ids = defaultdict(list)
    for split in ("train", "val", "test"):
        urls = sorted(str(path) for path in (folder / split).glob("*.tar"))
        for sample in reader.WebDataset(urls, shardshuffle=False, empty_check=False):
            record = image_of(json.loads(sample["json"]))
            assert record == dataset.record(sample["__key__"])
            assert record.split == split
            with Image.open(io.BytesIO(sample["png"])) as image:
                assert pixel_sha256(np.asarray(image)) == record.sha256
            ids[split].append(record.id)
    assert {split: sorted(found) for split, found in ids.items()} == {
        split: sorted(dataset.ids(split)) for split in ("train", "val", "test")
    }


def test_stock_reader_decodes_by_extension(folder):
    reader = pytest.importorskip("webdataset")
    url = str(next((folder / "val").glob("*.tar")))
    image, document = next(
        iter(reader.WebDataset(url, shardshuffle=False, empty_check=False).decode("rgb8").to_tuple("png", "json"))
    )
    assert image.shape == (document["height"], document["width"], 3)
    assert document["modality"] == "ultrasound"


def test_list_of_shards_is_true(folder):
    for path in folder.glob("*/shards.json"):
        listed = json.loads(path.read_text())
        assert [entry["url"] for entry in listed["shardlist"]] == sorted(file.name for file in path.parent.glob("*.tar"))
        for entry in listed["shardlist"]:
            file = path.parent / entry["url"]
            assert entry["filesize"] == file.stat().st_size
            assert entry["nsamples"] == len(_members(file)) / 2


def test_members_say_no_time_and_no_owner(folder):
    for path in folder.glob("*/*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                assert (member.mtime, member.uid, member.gid, member.uname, member.mode) == (0, 0, 0, "", 0o644)
        assert path.stat().st_size % 10240 == 0


def test_equal_datasets_give_equal_bytes(tmp_path, dataset, folder):
    export(dataset, tmp_path / "again", "webdataset")
    tars = sorted(folder.glob("*/*.tar"))
    assert len(tars) == 3
    for path in tars:
        assert (tmp_path / "again" / path.relative_to(folder)).read_bytes() == path.read_bytes()


def test_group_stays_in_one_shard(tmp_path, make_picture, write_dataset):
    rng = np.random.default_rng(3)
    splits = ("train",) * 5 + ("val",) * 2
    pictures = [
        make_picture(rng.integers(0, 256, (24, 24), dtype=np.uint8), number, group=f"g{number % 7}", split=splits[number % 7])
        for number in range(40)
    ]
    data = write_dataset(tmp_path / "data", pictures)
    (out := tmp_path / "out").mkdir()
    limit = 60_000
    counts = shards.write(data, out, Choice(), _silent, shard_bytes=limit)
    assert counts["groups_over_shards"] == 0
    group_of = {picture.record.id: picture.record.group for picture in pictures}
    found: Counter = Counter()
    for path in out.glob("*/*.tar"):
        assert path.stat().st_size <= limit
        found.update({group_of[name.partition(".")[0]] for name in _members(path)})
    assert found == Counter(f"g{number}" for number in range(7))
    assert counts["shards"] == len(list(out.glob("*/*.tar"))) > 3


def test_group_larger_than_a_shard_takes_several(tmp_path, make_picture, write_dataset):
    rng = np.random.default_rng(4)
    sizes = ("a", "b", "b", "b", "b", "b", "b", "c")
    pictures = [
        make_picture(rng.integers(0, 256, (60, 60), dtype=np.uint8), number, group=group) for number, group in enumerate(sizes)
    ]
    data = write_dataset(tmp_path / "data", pictures)
    (out := tmp_path / "out").mkdir()
    counts = shards.write(data, out, Choice(), _silent, shard_bytes=25_000)
    assert counts["groups_over_shards"] == 1
    names = [name for path in out.glob("*/*.tar") for name in _members(path)]
    assert len(names) == len(set(names)) == 2 * len(pictures)
    assert all(path.stat().st_size <= 30_720 for path in out.glob("*/*.tar"))


@settings(max_examples=80, deadline=None)
@given(
    st.dictionaries(
        st.tuples(st.sampled_from(["train", "test"]), st.text("abcd", max_size=3)), st.integers(1, 50), max_size=30
    ),
    st.integers(1, 60),
)
def test_plan_keeps_the_limit(sizes, limit):
    plan = shards.planned(sizes, limit)
    assert plan.keys() == sizes.keys()
    filled: defaultdict = defaultdict(list)
    for place, shard in plan.items():
        assert shard[0] == place[0]
        filled[shard].append(sizes[place])
    for inside in filled.values():
        assert sum(inside) <= limit or len(inside) == 1
    for split in ("train", "test"):
        assert sorted(number for name, number in filled if name == split) == list(
            range(sum(name == split for name, _ in filled))
        )


def test_id_with_a_dot_is_refused(tmp_path, make_picture, write_dataset):
    picture = make_picture(np.zeros((8, 8), np.uint8), 1)
    data = write_dataset(tmp_path / "data", [picture._replace(record=replace(picture.record, id="1.2.840"))])
    with pytest.raises(InputError, match=r"'1.2.840'.*no WebDataset key"):
        export(data, tmp_path / "out", "webdataset")
    assert not (tmp_path / "out").exists()


def test_documents_are_whole(dataset, folder):
    with tarfile.open(next((folder / "test").glob("*.tar"))) as tar:
        name = next(name for name in tar.getnames() if name.endswith(".json"))
        document = json.load(tar.extractfile(name))
    assert document == json.loads(json.dumps(document_of(dataset.record(name.removesuffix(".json")))))
