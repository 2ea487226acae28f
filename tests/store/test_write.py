import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import weakref
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from medglip import store
from medglip.errors import DatasetError, InputError, RecordError
from medglip.records.record import Region
from medglip.store import commit
from medglip.store.known import KnownImages
from medglip.store.place import Place
from medglip.store.tables import GROUP_ROWS
from medglip.store.write import write_part


def test_records_and_pixels_come_back_exactly(dataset_path, pictures, volume, reject):
    dataset = store.open(dataset_path)
    assert list(dataset.records()) == [picture.record for picture in pictures]
    for picture in pictures:
        assert dataset.record(picture.record.id) == picture.record
        pixels = dataset.pixels(picture.record.id)
        assert pixels.dtype == picture.pixels.dtype
        assert np.array_equal(pixels, picture.pixels)
        for region, before in zip(dataset.record(picture.record.id).regions, picture.record.regions, strict=True):
            if before.mask:
                assert np.array_equal(region.mask.decode(), before.mask.decode())
    assert list(dataset.volume_records()) == [volume]
    row = dataset.rejects.iloc[0]
    assert [row[name] for name in ("dataset", "file", "reason", "detail", "case")] == [
        reject.dataset, reject.file, reject.reason, reject.detail, reject.case,
    ]  # fmt: skip


def test_the_manifest_counts_and_keeps_what_is_told_of_the_part(dataset_path, pictures, info):
    manifest = json.loads((dataset_path / "manifest.json").read_text())
    part = manifest["parts"]["made_up-0"]
    assert part["title"] == info["title"]
    assert manifest["counts"]["images"] == len(pictures) == manifest["counts"]["pictures_stored"]
    assert manifest["counts"]["regions"] == sum(len(picture.record.regions) for picture in pictures)
    assert manifest["counts"]["reject_reasons"] == {"corrupt_file": 1}
    assert manifest["counts"]["modalities"] == {"ct": 3, "endoscopy": 4}
    assert manifest["counts"]["labels"]["thorax.lung"] == 0  # searched for, and absent
    assert {"manifest.json", "labels.json"} < {path.name for path in dataset_path.iterdir()}
    assert set(part["files"]) == {path.relative_to(dataset_path).as_posix() for path in dataset_path.glob("*/*.*")}
    assert "abdomen" in json.loads((dataset_path / "labels.json").read_text())  # an ancestor of the labels used


def test_equal_input_gives_equal_bytes(tmp_path, pictures, volume, reject, info, files_of):
    for name in ("one", "two"):
        write_part(tmp_path / name, "p", iter(pictures), [volume], [reject], info)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    before = files_of(tmp_path / "one")
    write_part(tmp_path / "one", "p", iter(pictures), [volume], [reject], info)  # replaces itself
    assert files_of(tmp_path / "one") == before


def test_the_order_of_the_parts_does_not_matter(tmp_path, make_picture, files_of):
    parts = {"a": [make_picture(1)], "b": [make_picture(2)]}
    for name, order in (("one", "ab"), ("two", "ba")):
        for part in order:
            write_part(tmp_path / name, part, parts[part])
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_appending_stores_equal_pixels_once(tmp_path, dataset_path, plain_picture, make_picture, pictures):
    same, fresh = make_picture(3), plain_picture(9)
    again = same._replace(record=replace(same.record, id="a" * 16, regions=()))
    twice = fresh._replace(record=replace(fresh.record, id=f"{10:016x}"))
    counts = write_part(dataset_path, "more", iter([again, fresh, twice]))
    assert counts["images"] == 3
    assert counts["pictures_stored"] == 1
    dataset = store.open(dataset_path)
    assert len(dataset) == len(pictures) + 3
    assert np.array_equal(dataset.pixels("a" * 16), same.pixels)
    assert np.array_equal(dataset.pixels(f"{10:016x}"), plain_picture(9).pixels)
    members = []
    for shard in dataset_path.glob("shards/*.tar"):
        with tarfile.open(shard) as tar:
            members += tar.getnames()
    assert len(members) == len(set(members)) == len(pictures) + 1


def test_a_replaced_part_leaves_pixels_that_another_part_uses(tmp_path, plain_picture):
    path = tmp_path / "d"
    write_part(path, "a", [plain_picture(1)])
    write_part(path, "b", [plain_picture(1, id="b" * 16)])
    write_part(path, "a", [plain_picture(2)])
    dataset = store.open(path)
    assert np.array_equal(dataset.pixels("b" * 16), plain_picture(1).pixels)
    write_part(path, "b", [plain_picture(3)])
    assert len(list(path.glob("shards/*.tar"))) == 2  # nobody needs the first one any more
    assert len(list(path.glob("images/*.parquet"))) == 2


def test_shards_roll_and_every_row_knows_its_shard(tmp_path, plain_picture):
    path = tmp_path / "d"
    write_part(path, "p", (plain_picture(n) for n in range(20)), shard_bytes=3000)
    dataset = store.open(path)
    assert dataset.images["shard"].nunique() == len(list(path.glob("shards/*.tar"))) > 3
    for n in range(20):
        assert dataset.pixels(n)[0, 0] == n
    assert dataset.ids() == [f"{n:016x}" for n in range(20)]


def test_row_groups_are_crossed(tmp_path, monkeypatch, make_picture):
    for name in GROUP_ROWS:
        monkeypatch.setitem(GROUP_ROWS, name, 2)
    pictures = [make_picture(seed) for seed in range(9)]
    write_part(tmp_path / "d", "p", iter(pictures))
    dataset = store.open(tmp_path / "d")
    assert pq.ParquetFile(next((tmp_path / "d" / "regions").iterdir())).num_row_groups > 3
    assert list(dataset.records()) == [picture.record for picture in pictures]
    assert dataset.record(7) == pictures[7].record


def test_what_the_iterator_fills_as_it_goes_is_written(tmp_path, plain_picture, reject, volume):
    rejects, volumes, info = [], [], {}

    def pictures() -> Iterator:
        yield plain_picture(1)
        rejects.append(reject)
        volumes.append(volume)
        info["cases"] = {"1": "abc"}

    counts = write_part(tmp_path / "d", "p", pictures(), volumes, rejects, info)
    assert (counts["images"], counts["volumes"], counts["rejects"]) == (1, 1, 1)
    dataset = store.open(tmp_path / "d")
    assert dataset.cases("p") == {"1": "abc"}
    assert dataset.manifest["counts"]["cases"] == 1
    with pytest.raises(InputError, match="no such part"):
        dataset.cases("q")


def test_no_more_than_one_picture_is_held(tmp_path, plain_picture):
    alive: list[weakref.ref] = []

    def pictures() -> Iterator:
        for n in range(5):
            picture = plain_picture(n)
            alive.append(weakref.ref(picture.pixels))
            yield picture
            del picture
            assert sum(one() is not None for one in alive) <= 1

    write_part(tmp_path / "d", "p", pictures())


class EndedError(Exception):
    pass


def test_a_failing_converter_leaves_the_dataset_as_it_was(dataset_path, plain_picture, files_of, tmp_path):
    before = files_of(dataset_path)

    def pictures() -> Iterator:
        yield plain_picture(50)
        raise EndedError

    with pytest.raises(EndedError):
        write_part(dataset_path, "made_up-0", pictures())
    assert files_of(dataset_path) == before
    with pytest.raises(EndedError):
        write_part(tmp_path / "new", "p", pictures())
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("moment", [(Place, "replace"), (Place, "write"), (Place, "take"), (KnownImages, "holder")])
def test_a_crash_before_the_commit_keeps_the_old_dataset(dataset_path, pictures, plain_picture, monkeypatch, moment):
    """Killed at any moment before the manifest is replaced: old data readable, next run as if nothing had been."""

    def crash(*_args: object, **_more: object) -> None:
        raise EndedError

    with monkeypatch.context() as patch:
        patch.setattr(*moment, crash)
        patch.setattr(commit.shutil, "rmtree", lambda *_args, **_more: None)  # a killed process does not tidy up
        with pytest.raises(EndedError):
            write_part(dataset_path, "made_up-0", [plain_picture(50)])
    dataset = store.open(dataset_path)
    assert list(dataset.records()) == [picture.record for picture in pictures]
    assert np.array_equal(dataset.pixels(0), pictures[0].pixels)
    write_part(dataset_path, "made_up-0", [plain_picture(51)])
    assert store.open(dataset_path).ids() == [f"{51:016x}"]
    files = store.open(dataset_path).manifest["parts"]["made_up-0"]["files"]
    assert set(files) == {path.relative_to(dataset_path).as_posix() for path in dataset_path.glob("*/*.*")}
    assert not (dataset_path / ".writing").exists()


def test_bad_input_is_refused(dataset_path, tmp_path, plain_picture, files_of):
    before = files_of(dataset_path)
    good = plain_picture(60)
    cases = [
        ([good._replace(pixels=good.pixels + 1)], {}, RecordError, "hash"),
        ([good._replace(pixels=good.pixels[:3])], {}, RecordError, "its record says"),
        ([good, good], {}, RecordError, "twice"),
        ([good], {"files": 1}, InputError, "keeps that name"),
        ([good], {"when": np.float32(1)}, InputError, "no JSON"),
        ([plain_picture(0)], {}, DatasetError, "is in 'images/made_up-0"),
    ]
    for pictures, info, error, words in cases:
        with pytest.raises(error, match=words):
            write_part(dataset_path, "x", pictures, info=info)
        assert files_of(dataset_path) == before
    with pytest.raises(InputError, match="letters"):
        write_part(dataset_path, "../x", [good])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(DatasetError, match=r"thesis\.txt"):
        write_part(tmp_path / "mine", "x", [good])
    with pytest.raises(DatasetError, match="file"):
        write_part(tmp_path / "mine" / "thesis.txt", "x", [good])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_says_so(tmp_path, plain_picture):
    tmp_path.chmod(0o500)
    with pytest.raises(DatasetError, match="cannot be written"):
        write_part(tmp_path / "d", "x", [plain_picture(1)])


@pytest.mark.parametrize("call", ["mkdir", "replace"])
def test_a_system_that_refuses_is_told_in_one_sentence(dataset_path, plain_picture, files_of, monkeypatch, call):
    before = files_of(dataset_path)

    def refuse(*_args: object, **_more: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, call, refuse)
        with pytest.raises(DatasetError, match=r"cannot be written: Permission denied; what it held is untouched"):
            write_part(dataset_path, "x", [plain_picture(70)])
    write_part(dataset_path, "made_up-0", [plain_picture(71)])
    assert before.keys() - files_of(dataset_path).keys()
    assert not (dataset_path / ".writing").exists()


# A process may not write files longer than this: the system then fails its writes as a full disk does.
_FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from medglip import store
from medglip.errors import DatasetError
from medglip.records.picture import Picture
from medglip.records.record import ImageRecord, Origin

def pictures():
    for n in range(40):
        pixels = np.random.default_rng(n).integers(0, 256, (50, 60), np.uint8)
        yield Picture(ImageRecord(f"{n:016d}", store.pixel_sha256(pixels), 60, 50, 1, 8, "xray",
                                  Origin("made_up", f"{n}.png", str(n)), "MIT"), pixels)

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    store.write_part(sys.argv[1], "big", pictures())
except DatasetError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such limits there")
@pytest.mark.parametrize("limit", [2_000, 30_000])
def test_a_disk_that_is_full_leaves_the_dataset_as_it_was(dataset_path, files_of, limit):
    before = files_of(dataset_path)
    done = subprocess.run([sys.executable, "-c", _FULL, str(dataset_path), str(limit)], capture_output=True, text=True)
    assert "cannot be written" in done.stdout, done.stderr
    assert "what it held is untouched" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert not done.stderr
    assert files_of(dataset_path) == before
    assert not (dataset_path / ".writing").exists()


_KILLED = """
import os, signal, sys
from medglip import store
from medglip.store.place import Place

def end(self, *_args, **_more):
    calls.append(1)
    return original(self, *_args, **_more) if len(calls) <= int(sys.argv[3]) else os.kill(os.getpid(), signal.SIGKILL)

calls, original = [], getattr(Place, sys.argv[2])
setattr(Place, sys.argv[2], end)
exec(open(sys.argv[4]).read())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
@pytest.mark.parametrize("moment", [("take", 0), ("take", 1), ("replace", 0), ("write", 1), ("remove", 0)])
def test_a_killed_process_loses_nothing_and_the_next_run_tidies_up(dataset_path, pictures, plain_picture, tmp_path, moment):
    script = tmp_path / "replaces.py"
    script.write_text(
        "from medglip.store.arrange import rewrite_tables\n"
        "rewrite_tables(sys.argv[1], lambda name, table: table.slice(0, 0) if name == 'rejects' else "
        "table.set_column(2, table.schema.field(2), table[0]) if name == 'images' else table)\n"
    )
    done = subprocess.run([sys.executable, "-c", _KILLED, str(dataset_path), *map(str, moment), str(script)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [record.regions for record in store.open(dataset_path).records()] == [p.record.regions for p in pictures]
    assert np.array_equal(store.open(dataset_path).pixels(1), pictures[1].pixels)
    write_part(dataset_path, "made_up-1", [plain_picture(51)])
    files = {name for part in store.open(dataset_path).manifest["parts"].values() for name in part["files"]}
    assert files == {path.relative_to(dataset_path).as_posix() for path in dataset_path.glob("*/*.*")}
    assert not (dataset_path / ".writing").exists()


def test_a_manifest_cut_off_in_the_middle_names_the_copy_beside_it(dataset_path, pictures):
    path = dataset_path / "manifest.json"
    path.write_bytes(path.read_bytes()[:300])
    for refused in (store.open, store.Writer):
        with pytest.raises(DatasetError, match=r"manifest\.json' cannot be read .*; copy 'manifest\.copy\.json'"):
            refused(dataset_path)
    shutil.copy(dataset_path / "manifest.copy.json", path)
    assert list(store.open(dataset_path).records()) == [picture.record for picture in pictures]


def test_one_writer_writes_what_many_do(tmp_path, make_picture, files_of):
    pictures = [[make_picture(n), make_picture(n + 20)] for n in range(6)]
    writer = store.Writer(tmp_path / "one")
    for number, mine in enumerate(pictures):
        writer.write(f"p{number}", mine)
        write_part(tmp_path / "many", f"p{number}", mine)
    writer.write("p2", pictures[2][:1])
    write_part(tmp_path / "many", "p2", pictures[2][:1])
    assert files_of(tmp_path / "one") == files_of(tmp_path / "many")


def test_two_writers_of_one_dataset_see_each_other(tmp_path, plain_picture):
    one, two = store.Writer(tmp_path / "d"), store.Writer(tmp_path / "d")
    one.write("a", [plain_picture(1)])
    assert two.write("b", [plain_picture(1, id="b" * 16), plain_picture(2)])["pictures_stored"] == 1
    with pytest.raises(DatasetError, match="in 'images/b-"):
        one.write("c", [plain_picture(2)])
    one.write("b", [plain_picture(4)])
    two.write("c", [plain_picture(2)])
    dataset = store.open(tmp_path / "d")
    assert sorted(dataset.manifest["parts"]) == ["a", "b", "c"]
    assert [dataset.pixels(n)[0, 0] for n in range(3)] == [1, 4, 2]


def _write_many(path: Path, first: int, plain_picture) -> None:
    for number in range(first, first + 5):
        write_part(path, f"p{number:03d}", [plain_picture(number)])


def test_processes_that_write_at_once_lose_nothing(tmp_path, plain_picture):
    workers = [get_context("fork").Process(target=_write_many, args=(tmp_path / "d", n, plain_picture)) for n in (0, 5, 10)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    dataset = store.open(tmp_path / "d")
    assert [dataset.pixels(n)[0, 0] for n in range(15)] == list(range(15))
    assert not (tmp_path / "d" / ".writing").exists()


def test_regions_without_an_id_get_one(tmp_path, plain_picture):
    picture = plain_picture(1, regions=(Region("abdomen.liver", (0, 0, 2, 2)),) * 2)
    write_part(tmp_path / "d", "x", [picture])
    assert [region.id for region in store.open(tmp_path / "d").record(0).regions] == [
        f"{1:016x}-000", f"{1:016x}-001",
    ]  # fmt: skip
