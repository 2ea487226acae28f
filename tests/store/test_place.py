import pickle
import threading
from multiprocessing import get_context

import fsspec
import numpy as np
import pytest

from medglip import store
from medglip.errors import DatasetError, InputError
from medglip.store.arrange import compact
from medglip.store.checks.validate import validate
from medglip.store.manifest import NAME
from medglip.store.merge import merge
from medglip.store.pixels import TAR_BLOCK
from medglip.store.place import Place
from medglip.store.write import write_part


@pytest.fixture
def memory():
    """An empty folder of the memory file system."""
    fsspec.filesystem("memory").store.clear()
    yield "memory://made/dataset"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture(scope="module")
def s3():
    """URL of an empty bucket of an S3 server on this machine, and the storage options for it."""
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {"key": "a", "secret": "b", "client_kwargs": {"endpoint_url": f"http://{host}:{port}"}}
    fsspec.filesystem("s3", **options).call_s3("create_bucket", Bucket="bucket")
    yield "s3://bucket", options
    server.stop()


@pytest.fixture(params=["memory", "s3"])
def remote(request, memory):
    """URL of a new dataset, and the storage options for it."""
    if request.param == "memory":
        return memory, None
    url, options = request.getfixturevalue("s3")
    return f"{url}/{request.node.name.partition('[')[0]}", options


def test_a_dataset_behind_a_url_is_written_and_read(remote, pictures, volume, reject, info, plain_picture):
    url, options = remote
    more = {"cases": {"a": ["b", 1]}}
    write_part(url, "one", iter(pictures), [volume], [reject], {**info, **more}, storage_options=options)
    again = pictures[1]._replace(record=plain_picture(50).record)
    write_part(url, "two", [plain_picture(50), plain_picture(51)], storage_options=options)
    dataset = store.open(url, storage_options=options)
    assert list(dataset.records())[: len(pictures)] == [picture.record for picture in pictures]
    for picture in (*pictures, plain_picture(50)):
        assert np.array_equal(dataset.pixels(picture.record.id), picture.pixels)
    joined = dataset.query("SELECT count(*) AS n FROM regions JOIN images ON images.id = image_id")
    assert joined["n"][0] == len(dataset.regions)
    assert list(dataset.volume_records()) == [volume]
    assert dataset.cases("one") == more["cases"]
    assert np.array_equal(pickle.loads(pickle.dumps(dataset)).pixels(0), pictures[0].pixels)
    with pytest.raises(DatasetError, match="in 'images/two"):
        write_part(url, "three", [plain_picture(51)], storage_options=options)
    with pytest.raises(DatasetError, match="no folder of this machine"):
        _ = dataset.path
    assert again.record.id == f"{50:016x}"


def test_it_holds_the_same_files_as_a_local_one(remote, tmp_path, pictures, info):
    url, options = remote
    for target, more in ((url, options), (tmp_path / "d", None)):
        write_part(target, "p", iter(pictures), info=info, shard_bytes=9000, storage_options=more)
    place = Place(url, options)
    here = sorted(path.relative_to(tmp_path / "d").as_posix() for path in (tmp_path / "d").rglob("*") if path.is_file())
    names = sorted(place.names("*.json") + place.names("*/*"))
    assert names == [name for name in here if name != ".lock"]
    for name in names:
        assert place.read(name) == (tmp_path / "d" / name).read_bytes()


def test_compact_and_merge_behind_a_url(remote, tmp_path, plain_picture, make_picture):
    url, options = remote
    for number in range(3):
        write_part(url, f"p{number}", [make_picture(number), plain_picture(30 + number)], storage_options=options)
    before = {record.id: record for record in store.open(url, storage_options=options).records()}
    place = Place(url, options)
    assert compact(place).parts == (3, 1)
    dataset = store.open(url, storage_options=options)
    assert {record.id: record for record in dataset.records()} == before
    assert len(place.names("shards/*")) == len(place.names("images/*")) == 1
    merge(tmp_path / "copy", [place])
    local = store.open(tmp_path / "copy")
    assert list(local.records()) == list(dataset.records())
    assert np.array_equal(local.pixels(2), dataset.pixels(2))


def test_of_two_writers_at_once_both_commits_stay(remote, plain_picture):
    """The second commits while the first is between reading the manifest and replacing it."""
    url, options = remote
    write_part(url, "a", [plain_picture(1)], storage_options=options)
    second = []

    def pictures():
        yield plain_picture(2)
        write_part(url, "c", [plain_picture(3)], storage_options=options)
        second.append(True)

    write_part(url, "b", pictures(), storage_options=options)
    assert second
    assert sorted(store.open(url, storage_options=options).manifest["parts"]) == ["a", "b", "c"]


def test_the_condition_holds_at_the_last_moment(remote, plain_picture, monkeypatch):
    url, options = remote
    write_part(url, "a", [plain_picture(1)], storage_options=options)
    original, raced = Place.replace, []

    def raced_replace(self, name, data, version):
        if not raced:
            raced.append(True)
            write_part(url, "c", [plain_picture(3)], storage_options=options)
        return original(self, name, data, version)

    monkeypatch.setattr(Place, "replace", raced_replace)
    write_part(url, "b", [plain_picture(2)], storage_options=options)
    dataset = store.open(url, storage_options=options)
    assert sorted(dataset.manifest["parts"]) == ["a", "b", "c"]
    assert [dataset.pixels(f"{n:016x}")[0, 0] for n in (1, 2, 3)] == [1, 2, 3]


def test_s3_refuses_the_second_of_two_replacements(s3):
    url, options = s3
    place, other = Place(f"{url}/conditions", options), Place(f"{url}/conditions", options)
    assert place.replace(NAME, b"1", None)
    assert not other.replace(NAME, b"2", None)
    version = other.version(NAME)
    assert place.replace(NAME, b"3", version)
    assert not other.replace(NAME, b"4", version)
    assert place.read(NAME) == b"3"


def test_many_threads_append_to_one_dataset_on_s3(s3, plain_picture):
    url, options = f"{s3[0]}/threads", s3[1]
    failures = []

    def write(number):
        try:
            write_part(url, f"p{number}", [plain_picture(number)], storage_options=options)
        except DatasetError as error:
            failures.append(str(error))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.open(url, storage_options=options)) + len(failures) == 4
    assert all("another writer was first" in failure for failure in failures)


def _first_pixel(dataset: store.Dataset) -> int:
    return int(dataset.pixels(0)[0, 0])


def test_a_spawned_worker_reads_s3(s3, plain_picture):
    url, options = f"{s3[0]}/spawned", s3[1]
    write_part(url, "p", [plain_picture(7)], storage_options=options)
    with get_context("spawn").Pool(1) as pool:
        assert pool.apply(_first_pixel, (store.open(url, storage_options=options),)) == 7


def test_what_is_not_there_or_broken_is_named(memory):
    system = fsspec.filesystem("memory")
    with pytest.raises(DatasetError, match=r"memory://nowhere/x.*no such folder"):
        store.open("memory://nowhere/x")
    system.pipe_file("/made/dataset/manifest.json", b"{")
    with pytest.raises(DatasetError, match=r"manifest\.json' cannot be read"):
        store.open(memory)
    with pytest.raises(InputError, match="no file system"):
        store.open("nosuch://x/y")


def test_a_short_shard_and_a_lost_table_are_named(memory, pictures):
    write_part(memory, "p", pictures)
    system, dataset = fsspec.filesystem("memory"), store.open(memory)
    shard = Place(memory).names("shards/*")[0]
    system.pipe_file(f"/made/dataset/{shard}", b"123")
    with pytest.raises(DatasetError, match="ends before byte"):
        dataset.pixels(0)
    system.rm(f"/made/dataset/{shard}")
    with pytest.raises(DatasetError, match="no such file"):
        dataset.pixels(0)
    system.rm(f"/made/dataset/{Place(memory).names('regions/*')[0]}")
    with pytest.raises(DatasetError, match="regions/p-"):
        dataset.record(1)


def test_urls_survive_pathlib_and_options_are_for_urls(tmp_path):
    from pathlib import Path

    assert Place(Path("s3://bucket/data")).name == "s3://bucket/data"
    assert Place(f"file://{tmp_path}").local == tmp_path
    assert Place("plain/folder").local == Path("plain/folder")
    assert "secret" not in repr(Place("s3://bucket", {"secret": "secret"}))
    with pytest.raises(InputError, match="for a URL only"):
        Place(tmp_path, {"anon": True})


def test_a_dataset_behind_a_url_is_validated(remote, pictures, volume, reject, info):
    url, options = remote
    write_part(url, "one", iter(pictures), [volume], [reject], info, storage_options=options)
    place = Place(url, options)
    assert validate(place) == []
    shard = next(name for name in place.names("shards/*"))
    content = bytearray(place.read(shard))
    content[TAR_BLOCK + 60] ^= 8  # in the first PNG
    place.write(shard, bytes(content))
    told = [problem.what for problem in validate(place)]
    assert any("bytes differ" in what for what in told)
    assert any(shard in what and "were changed" in what for what in told)
    place.remove(shard)
    assert any("missing" in problem.what for problem in validate(place, check_pixels=False))
