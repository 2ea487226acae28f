"""What makes a part, and shards: the same dataset however the work is divided."""

import shutil
import tarfile
from dataclasses import replace

import pytest
from killing import bytes_of, differences, write_source

from medglip import store
from medglip.curate import convert, load_source, plan
from medglip.curate.plan import Shard, cut, made_plan, measured
from medglip.curate.tasks import found_tasks
from medglip.errors import InputError
from medglip.store.settle import settle

CASES = 24


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("source"), CASES)


@pytest.fixture
def whole(source, tmp_path, monkeypatch):
    """The dataset of one undisturbed run."""
    monkeypatch.setattr(plan, "CASES_PER_PART", 5)
    convert(source, source.parent / "in", tmp_path / "whole")
    return tmp_path / "whole"


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_shards_give_the_bytes_of_one_run(source, whole, tmp_path, order):
    done = [convert(source, source.parent / "in", tmp_path / "shards", shard=f"{number}/3") for number in order]
    assert [one.complete for one in done] == [False, False, True]
    assert sum(one.cases for one in done) == CASES
    assert differences(whole, tmp_path / "shards") == []


def test_equal_pixels_of_two_shards_are_stored_twice_until_they_are_settled(source, whole, tmp_path, monkeypatch):
    monkeypatch.setattr("medglip.curate.engine.settle", lambda dataset, parts: 0)  # ended just then
    for number in (2, 1):
        convert(source, source.parent / "in", tmp_path / "d", shard=f"{number}/2")
    monkeypatch.undo()
    members = []
    for path in (tmp_path / "d" / "shards").iterdir():
        with tarfile.open(path) as tar:
            members += tar.getnames()
    assert len(members) > len(set(members))
    parts = sorted(store.open(tmp_path / "d").manifest["parts"])
    assert settle(tmp_path / "d", parts) > 0
    assert differences(whole, tmp_path / "d") == []
    before = bytes_of(tmp_path / "d")
    assert settle(tmp_path / "d", parts) == 0
    assert bytes_of(tmp_path / "d") == before


def test_a_shard_that_is_missing_is_filled_in_by_any_run(source, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "CASES_PER_PART", 5)
    convert(source, source.parent / "in", tmp_path / "d", shard="2/2")
    result = convert(source, source.parent / "in", tmp_path / "d")
    assert (result.complete, result.skipped) == (True, 10)
    assert differences(whole, tmp_path / "d") == []


def test_a_grown_input_is_added_the_same_in_shards(source, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "CASES_PER_PART", 5)
    folder = tmp_path / "in"
    shutil.copytree(source.parent / "in", folder)
    moved = [path for path in sorted(folder.rglob("*.png")) if int(path.name[1:4]) % 3 == 0]
    for path in moved:
        path.rename(tmp_path / f"{path.parent.name}-{path.name}")
    for name in ("one", "two"):
        assert convert(source, folder, tmp_path / name).cases == 16
    for path in moved:
        (tmp_path / f"{path.parent.name}-{path.name}").rename(path)
    assert convert(source, folder, tmp_path / "one").skipped == 16
    for number in (2, 1):
        last = convert(source, folder, tmp_path / "two", shard=f"{number}/2")
    assert last.complete
    assert differences(tmp_path / "one", tmp_path / "two") == []
    assert convert(source, folder, tmp_path / "two", shard="1/2").done == 0  # nothing is left to divide


def test_a_shard_without_parts_writes_nothing(source, tmp_path):
    result = convert(source, source.parent / "in", tmp_path / "d", shard="7/9")
    assert (result.cases, result.complete) == (0, False)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "-1/2", "a/b", "1/2/3", "1.0/2"])
def test_a_bad_shard_is_refused(source, tmp_path, text):
    with pytest.raises(InputError, match="i/n with i from 1 to n"):
        convert(source, source.parent / "in", tmp_path / "d", shard=text)


def test_every_part_is_of_one_shard():
    for of in (1, 2, 5):
        for number in range(12):
            assert sum(Shard(one, of).takes(number) for one in range(1, of + 1)) == 1


def test_a_part_ends_by_cases_or_by_bytes(source, monkeypatch):
    cases = measured(found_tasks(load_source(source), source.parent / "in")[0])
    monkeypatch.setattr(plan, "CASES_PER_PART", 10)
    assert [len(part) for part in cut(cases)] == [10, 10, 4]
    monkeypatch.setattr(plan, "BYTES_PER_PART", 300)
    sized = [replace(case, bytes=size) for case, size in zip(cases, [100] * 4 + [1000] + [0] * 19, strict=True)]
    assert [len(part) for part in cut(sized)] == [3, 2, 10, 9]
    assert [case for part in cut(sized) for case in part] == sized


def test_a_file_that_cases_share_counts_once_among_them(source):
    tasks = found_tasks(load_source(source), source.parent / "in")[0][:4]
    table = "masks/p002_1.png"
    shared = [replace(task, case=replace(task.case, files={**task.case.files, "mask": (table,)})) for task in tasks]
    size = (source.parent / "in" / table).stat().st_size
    alone = sum((source.parent / "in" / path).stat().st_size for task in tasks for path in task.case.files["image"])
    assert alone + size - len(tasks) < sum(case.bytes for case in measured(shared)) <= alone + size


def test_a_plan_follows_from_the_input_alone(source, whole, monkeypatch):
    monkeypatch.setattr(plan, "CASES_PER_PART", 5)
    loaded = load_source(source)
    cases = measured(found_tasks(loaded, source.parent / "in")[0])
    done = plan.cases_done(whole, loaded)
    full = made_plan("toy", cases, {})
    assert [*store.open(whole).manifest["parts"]] == full.names
    assert made_plan("toy", cases, done).finished == (full.id,)
    for missing in ({0}, {1, 3}, {4}):
        kept = {key: one for key, one in done.items() if full.number(one.part) not in missing}
        again = made_plan("toy", cases, kept)
        assert (again.id, again.parts, set(again.fresh)) == (full.id, full.parts, missing)
    grown = made_plan("toy", cases, {key: one for key, one in done.items() if key != cases[7].key})
    assert grown.id != full.id
    assert grown.parts == ((cases[7],),)


def test_what_the_input_holds_beside_its_cases_is_listed_once_and_never_lost(source, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "CASES_PER_PART", 5)
    folder = shutil.copytree(source.parent / "in", tmp_path / "in")
    reasons = {"unreadable_file": 1}
    (folder / "masks" / "z01_1.png").write_bytes(b"of no image")
    convert(source, folder, tmp_path / "d", shard="1/2")
    (folder / "masks" / "z02_1.png").write_bytes(b"of no image either")  # while a plan is under way
    assert convert(source, folder, tmp_path / "d").rejects == {"orphan": 1}
    assert store.open(tmp_path / "d").rejects["reason"].value_counts().to_dict() == reasons | {"orphan": 2}
    for number in (3, 4):  # when all cases are there
        (folder / "masks" / f"z0{number}_1.png").write_bytes(b"nor this")
        result = convert(source, folder, tmp_path / "d")
        assert (result.rejects, result.skipped, result.complete) == ({"orphan": 1}, CASES, True)
    assert store.open(tmp_path / "d").rejects["reason"].value_counts().to_dict() == reasons | {"orphan": 4}
