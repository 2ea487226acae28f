import json
import os
import shutil
import tarfile
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from medglip import store
from medglip.errors import DatasetError, InputError
from medglip.records.record import Reject, identified
from medglip.store import commit
from medglip.store.arrange import compact, rewrite_tables
from medglip.store.checks.validate import validate
from medglip.store.merge import merge
from medglip.store.place import Place
from medglip.store.schema import SCHEMAS
from medglip.store.write import write_part


def contents(path) -> tuple:
    """All that a dataset holds, whatever its parts: records with pixels, volumes, rejects, cases, facts of sources."""
    dataset = store.open(path)
    parts = dataset.manifest["parts"]
    counts = {name: value for name, value in dataset.manifest["counts"].items() if name != "pictures_stored"}
    rejects = sorted(map(str, dataset.arrow("rejects", SCHEMAS["rejects"].names).to_pylist()))
    told = [{key: value for key, value in part.items() if key not in ("counts", "files")} for part in parts.values()]
    facts = {json.dumps(one, sort_keys=True) for one in told}
    cases = {key: value for part in parts for key, value in dataset.cases(part).items()}
    records = {record.id: (record, dataset.pixels(record.id).tobytes()) for record in dataset.records()}
    return records, sorted(map(str, dataset.volume_records())), rejects, facts, cases, counts


def members(path) -> list[str]:
    names = []
    for shard in path.glob("shards/*.tar"):
        with tarfile.open(shard) as tar:
            names += tar.getnames()
    return names


def errors(path) -> list:
    return [problem for problem in validate(path) if problem.level == "error"]


@pytest.fixture
def many(tmp_path, plain_picture, make_picture, info, volume):
    """Nine small parts of two sources, with pixels that parts share."""
    path = tmp_path / "many"
    writer = store.Writer(path, shard_bytes=4000)
    for number in range(8):
        picture = make_picture(10 + number)
        pictures = [picture, copied(picture, 500 + number), copied(make_picture(10 + max(0, number - 2)), 600 + number)]
        rejects = [Reject("made_up", f"{number}.dcm", "corrupt_file", "It ends early; restore it.", f"c{number}")]
        facts = {**info, "cases": {f"p:c{10 + number}": [f"f{number}", 3]}}
        writer.write(f"made_up-{hash_of(number)}", pictures, [volume] if not number else (), rejects, facts)
    writer.write("other-0", [plain_picture(77)], info={"source": "other", "licence": "MIT", "cases": {"x": ["y", 1]}})
    return path


def copied(picture, number: int):
    """The same pixels as another image."""
    regions = tuple(replace(region, id="", parents=()) for region in picture.record.regions)
    return picture._replace(record=identified(replace(picture.record, id=f"{number:016x}", regions=regions)))


def hash_of(number: int) -> str:
    return f"{(number * 7919) % 997:012x}"


def test_compact_keeps_all_and_leaves_few_files(many):
    before, names = contents(many), members(many)
    result = compact(many, shard_bytes=10**6)
    assert contents(many) == before
    assert sorted(members(many)) == sorted(set(names)) == sorted(names)
    assert result.parts == (9, 2)
    assert len(list(many.glob("shards/*.tar"))) == 2 < result.files[0]
    assert result.bytes[1] == sum(path.stat().st_size for path in many.glob("*/*.*"))
    assert errors(many) == []
    assert json.loads((many / "manifest.json").read_text()) == json.loads((many / "manifest.copy.json").read_text())


def test_a_second_compaction_does_nothing(many, files_of):
    compact(many)
    before = files_of(many)
    result = compact(many)
    assert files_of(many) == before
    assert result.parts == (2, 2)


def test_compact_respects_sizes_and_goes_on_after_more_parts(many, make_picture, info):
    result = compact(many, part_images=6, shard_bytes=2000)
    assert result.parts == (9, 5)
    assert max(part["counts"]["images"] for part in store.open(many).manifest["parts"].values()) == 6
    write_part(many, "made_up-new", [make_picture(40)], info={**info, "cases": {"z": ["z", 1]}})
    before = contents(many)
    compact(many)
    assert contents(many) == before
    assert errors(many) == []


def test_images_follow_the_cases(many):
    compact(many)
    cases = store.open(many).images["case"].tolist()[:24]
    first = [min(cases[n : n + 3]) for n in range(0, 24, 3)]
    assert first == sorted(first)


def test_pixels_that_belong_to_no_image_go(tmp_path, plain_picture, make_picture):
    path = tmp_path / "d"
    write_part(path, "p", [make_picture(seed) for seed in range(1, 60)])
    gone = set(store.open(path).ids()[5:])

    def without(name, table):
        owner = {"images": "id", "regions": "image_id", "texts": "image_id"}.get(name)
        return table if owner is None else table.filter(pc.invert(pc.is_in(table[owner], value_set=pa.array(sorted(gone)))))

    rewrite_tables(path, without)
    assert len(members(path)) == 59
    before = contents(path)
    assert len(before[0]) == 5
    compact(path)
    assert contents(path) == before
    assert len(members(path)) == 5


def test_a_compaction_that_ends_early_changes_nothing(many, monkeypatch, files_of):
    before, held = files_of(many), contents(many)

    def crash(*_args, **_more):
        raise OSError(28, "No space left on device")

    for moment in ((Place, "take"), (Place, "write"), (Place, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(*moment, crash)
            with pytest.raises(DatasetError, match="No space left"):
                compact(many)
        assert contents(many) == held
    assert before.items() <= files_of(many).items()
    compact(many)
    assert contents(many) == held
    assert not (many / ".writing").exists()


def test_a_flipped_bit_is_named_and_not_copied(many):
    row = store.open(many).images.iloc[4]
    shard = many / row["shard"]
    content = bytearray(shard.read_bytes())
    content[row["tar_offset"] + row["tar_bytes"] // 2] ^= 4
    shard.write_bytes(content)
    with pytest.raises(DatasetError, match=shard.name):
        compact(many)
    with pytest.raises(DatasetError, match=shard.name):
        store.open(many).pixels(4)


def test_who_commits_meanwhile_is_not_overwritten(many, plain_picture):
    calls = []

    def change(name, table):
        if not calls:
            calls.append(name)
            write_part(many, "meanwhile", [plain_picture(5)])
        return table

    with pytest.raises(DatasetError, match="meanwhile; it is as that left it"):
        rewrite_tables(many, change)
    assert f"{5:016x}" in store.open(many).ids()
    assert errors(many) == []


def test_rewritten_tables_are_counted_and_committed_at_once(many):
    before = store.open(many)
    held = {record.id: record for record in before.records()}

    def all_test(name, table):
        if name not in ("images", "regions", "texts"):
            return table
        at = table.schema.get_field_index("split")
        return table.set_column(at, table.schema.field("split"), pa.array(["test"] * len(table), pa.string()))

    rewrite_tables(many, all_test)
    after = store.open(many)
    assert after.manifest["counts"]["splits"] == {"test": len(held)}
    assert {record.id: replace(record, split="train") for record in after.records()} == {
        image: replace(record, split="train") for image, record in held.items()
    }
    assert {k: v for k, v in after.manifest["counts"].items() if k != "splits"} == {
        k: v for k, v in before.manifest["counts"].items() if k != "splits"
    }
    named = {name for part in after.manifest["parts"].values() for name in part["files"]}
    assert named == {path.relative_to(many).as_posix() for path in many.glob("*/*.*")}
    assert errors(many) == []


def test_a_change_of_columns_is_refused(many, files_of):
    before = files_of(many)
    with pytest.raises(InputError, match="cast the table"):
        rewrite_tables(many, lambda name, table: table.drop_columns(["dataset"]) if name == "texts" else table)
    assert files_of(many) == before


def test_merge_joins_and_keeps_equal_images_once(many, tmp_path, dataset_path):
    one, two = contents(many), contents(dataset_path)
    result = merge(tmp_path / "all", [many, dataset_path, many])
    found = contents(tmp_path / "all")
    assert found[0] == {**one[0], **two[0]}
    assert result.images == len(found[0])
    assert result.kept_once == len(one[0])
    assert found[1] == sorted({*one[1], *two[1]})
    assert found[2] == sorted({*one[2], *two[2]})
    assert found[4] == {**one[4], **two[4]}
    assert len(members(tmp_path / "all")) == len(set(members(many) + members(dataset_path)))
    assert set(store.open(tmp_path / "all").manifest["parts"]) == {
        *store.open(many).manifest["parts"], *store.open(dataset_path).manifest["parts"],
    }  # fmt: skip
    assert errors(tmp_path / "all") == []


def test_merge_does_not_depend_on_how_often_it_runs(many, tmp_path, dataset_path, files_of):
    for name in ("one", "two"):
        merge(tmp_path / name, [many, dataset_path])
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_images_that_differ_are_refused(many, tmp_path, make_picture):
    picture = make_picture(10)
    changed = picture._replace(record=replace(picture.record, split="test"))
    write_part(tmp_path / "other", "p", [changed])
    with pytest.raises(DatasetError, match=r"differ in its split"):
        merge(tmp_path / "all", [many, tmp_path / "other"])
    assert not (tmp_path / "all").exists()
    with pytest.raises(DatasetError, match="is there already"):
        merge(many, [tmp_path / "other"])
    with pytest.raises(InputError, match="at least one"):
        merge(tmp_path / "all", [])


def test_datasets_of_every_schema_version_but_this_are_refused(many, tmp_path):
    manifest = json.loads((many / "manifest.json").read_text())
    (many / "manifest.json").write_text(json.dumps({**manifest, "schema_version": "3.0"}))
    for refused in (lambda: merge(tmp_path / "all", [many]), lambda: compact(many), lambda: store.Writer(many)):
        with pytest.raises(DatasetError, match=r"found schema version '3\.0'"):
            refused()


def test_what_a_killed_writer_left_is_removed(many, plain_picture):
    left = many / ".writing" / "p-abc"
    left.mkdir(parents=True)
    (left / "00000.tar").write_bytes(b"x")
    (many / "shards" / f"p-00000-{'0' * 12}.tar").write_bytes(b"x")
    with (left / commit._OWNER).open("w") as owner:
        import fcntl

        fcntl.flock(owner, fcntl.LOCK_EX)  # a writer that is alive
        write_part(many, "q", [plain_picture(3)])
        assert left.exists()
    write_part(many, "r", [plain_picture(4)])
    assert not (many / ".writing").exists()
    assert not (many / "shards" / f"p-00000-{'0' * 12}.tar").exists()
    assert errors(many) == []
    shutil.rmtree(many)
    assert not os.path.exists(many)


def test_pixels_are_the_same_array(many):
    before = {image: store.open(many).pixels(image) for image in store.open(many).ids()}
    compact(many)
    for image, pixels in before.items():
        assert np.array_equal(store.open(many).pixels(image), pixels)
