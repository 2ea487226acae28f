import io
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from medglip import store
from medglip.cli import app
from medglip.curate.cases import hash_split
from medglip.errors import DatasetError, InputError
from medglip.records import ImageRecord, Keys, Origin, Picture
from medglip.store import perceptual_hash, pixel_sha256, write_part
from medglip.store.checks.validate import validate
from medglip.store.groups.splits import NAME, apply, assign_splits, remembered, share_of, torn_groups

NAMES = st.sampled_from(["", "a", "b", "c", "d", "e"])
OFFICIAL = st.sampled_from([None, None, None, "train", "val", "test", "unassigned"])


def scene(seed, size=128):
    """A picture with structure, uint8 (size, size)."""
    rng = np.random.default_rng(seed)
    total = sum(
        np.asarray(Image.fromarray(rng.random((side, side), np.float32)).resize((size, size), Image.Resampling.BICUBIC))
        * weight
        for side, weight in ((5, 3.0), (12, 1.5), (30, 1.0))
    )
    return np.clip((total - total.min()) / np.ptp(total) * 255, 0, 255).astype(np.uint8)


def recompressed(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=40)
    return np.asarray(Image.open(buffer))


def picture(number, pixels=None, *, source="one", official=None, group=None, patient=None):
    """An image as `medglip convert` would write it; without pixels small and like no other."""
    if pixels is None:
        pixels = np.random.default_rng(number).integers(0, 256, (8, 9), dtype=np.uint8)
    group = f"g{number}" if group is None else group
    record = ImageRecord(
        id=f"{number:016x}", sha256=pixel_sha256(pixels), perceptual_hash=perceptual_hash(pixels), width=pixels.shape[1],
        height=pixels.shape[0], channels=1, bits=8, modality="xray", origin=Origin(source, f"{number}.png", str(number)),
        licence="MIT", keys=Keys(patient=patient), group=group, split=official or hash_split(group),
        split_source="official" if official else "hash",
    )  # fmt: skip
    return Picture(record, pixels)


def written(path, *pictures):
    """A dataset with one part a source."""
    for source in dict.fromkeys(picture.record.origin.dataset for picture in pictures):
        mine = [picture for picture in pictures if picture.record.origin.dataset == source]
        write_part(path, source, iter(mine), info={"source": source})
    return store.open(path)


def place_of(plan, column="split"):
    return dict(zip(plan.images["id"], plan.images[column], strict=True))


@pytest.mark.parametrize("twin", ["identical", "recompressed", "rescaled"])
def test_twins_in_two_sources_land_in_one_split(tmp_path, twin):
    wholes = [scene(seed) for seed in range(12)]
    copies = {
        "identical": lambda pixels: pixels,
        "recompressed": recompressed,
        "rescaled": lambda pixels: np.asarray(Image.fromarray(pixels).resize((70, 64))),
    }
    ones = [picture(number, whole) for number, whole in enumerate(wholes)]
    others = [picture(100 + number, copies[twin](whole), source="two") for number, whole in enumerate(wholes)]
    dataset = written(tmp_path / "d", *ones, *others)
    apart = sum(one.record.split != other.record.split for one, other in zip(ones, others, strict=True))
    assert apart > 2  # else this test shows nothing
    assert len(torn_groups(dataset)) == apart
    plan = assign_splits(dataset)
    split, group = place_of(plan), place_of(plan, "group")
    for number in range(12):
        assert group[f"{number:016x}"] == group[f"{100 + number:016x}"]
        assert split[f"{number:016x}"] == split[f"{100 + number:016x}"]
    assert len(set(group.values())) == 12
    assert plan.merged["why"].tolist() == ["identical pixels" if twin == "identical" else "near duplicates"] * 12
    assert len(plan.near) == (0 if twin == "identical" else 12)
    apply(dataset, plan)
    assert len(torn_groups(store.open(tmp_path / "d"))) == 0


@settings(max_examples=6, deadline=None)
@given(st.lists(st.tuples(NAMES, NAMES, OFFICIAL), min_size=3, max_size=14), st.sampled_from(["", "second"]))
def test_a_group_is_never_cut_and_an_official_test_image_stays_one(tmp_path_factory, keys, salt):
    path = tmp_path_factory.mktemp("any") / "d"
    made = [
        picture(number, group=group, patient=patient or None, official=official)
        for number, (group, patient, official) in enumerate(keys)
    ]
    write_part(path, "one", iter(made), info={"source": "one"})
    plan = assign_splits(store.open(path), salt)
    split = place_of(plan)
    for one in made:
        for other in made:
            a, b = one.record, other.record
            if (a.group and a.group == b.group) or (a.keys.patient and a.keys.patient == b.keys.patient):
                assert split[a.id] == split[b.id]
                assert place_of(plan, "group")[a.id] == place_of(plan, "group")[b.id]
        if one.record.split_source == "official" and one.record.split == "test":
            assert split[one.record.id] == "test"
    again = assign_splits(store.open(path), salt)
    assert plan.images.equals(again.images)
    apply(path, plan)
    dataset = store.open(path)
    assert dataset.table("images", ["id"])["id"].tolist() == [one.record.id for one in made]
    assert {record.id: record.split for record in dataset.records()} == split
    assert len(torn_groups(dataset)) == 0
    second = assign_splits(dataset, salt)
    assert len(second.changed) + len(second.merged) + len(second.conflicts) == 0
    columns = ["id", "group", "split", "split_source"]
    assert second.images[columns].equals(plan.images[columns])


def test_the_official_split_wins_and_conflicts_are_listed(tmp_path):
    dataset = written(
        tmp_path / "d",
        picture(1, official="test", patient="p"), picture(2, patient="p"), picture(3, official="train", patient="p"),
        picture(4, official="train", patient="q"), picture(5, patient="q"),
        picture(6, official="val", patient="r"), picture(7, official="train", patient="r"),
        picture(8, official="unassigned"), picture(9, official="unassigned", patient="s"),
        picture(10, official="val", patient="s"),
    )  # fmt: skip
    plan = assign_splits(dataset)
    assert plan.images["split"].tolist() == ["test"] * 3 + ["train"] * 2 + ["val"] * 2 + ["unassigned"] + ["val"] * 2
    assert plan.images["split_source"].tolist() == [
        "official", "hash", "hash", "official", "hash", "official", "hash", "official", "hash", "official",
    ]  # fmt: skip
    assert plan.conflicts[["id", "official", "split"]].to_numpy().tolist() == [
        [f"{3:016x}", "train", "test"], [f"{7:016x}", "train", "val"], [f"{9:016x}", "unassigned", "val"],
    ]  # fmt: skip
    assert plan.merged.loc[0, "why"] == "patient"


def test_without_a_salt_conversion_is_confirmed_and_another_salt_divides_anew(tmp_path):
    dataset = written(tmp_path / "d", *(picture(number) for number in range(60)))
    plain, salted = assign_splits(dataset), assign_splits(dataset, "second")
    assert len(plain.changed) == 0
    assert 5 < len(salted.changed) < 40
    assert share_of("g1") == share_of("g1", "")
    assert share_of("g1") != share_of("g1", "x")
    whole = assign_splits(dataset, shares=(0, 0, 3))
    assert set(whole.images["split"]) == {"test"}
    assert whole.shares == (0.0, 0.0, 1.0)


def test_the_order_of_the_sources_makes_no_difference(tmp_path):
    ones = [picture(number, scene(number)) for number in range(6)]
    others = [picture(50 + number, recompressed(scene(number)), source="two") for number in range(6)]
    forth = assign_splits(written(tmp_path / "forth", *ones, *others))
    back = assign_splits(written(tmp_path / "back", *reversed(others), *reversed(ones)))
    assert forth.images.equals(back.images)
    assert forth.near.equals(back.near)
    assert forth.merged.equals(back.merged)


@pytest.mark.parametrize("count", [0, 1])
def test_a_dataset_of_no_or_one_image(tmp_path, count):
    write_part(tmp_path / "d", "p", iter([picture(number) for number in range(count)]))
    dataset = store.open(tmp_path / "d")
    plan = assign_splits(dataset)
    assert len(plan.images) == count
    assert len(plan.merged) == len(plan.changed) == 0
    apply(dataset, plan)
    assert store.open(tmp_path / "d").ids() == dataset.ids()
    assert len(torn_groups(dataset)) == 0


def test_regions_and_texts_follow_their_image_and_nothing_else_changes(dataset_path, pictures):
    before = {record.id: record for record in store.open(dataset_path).records()}
    plan = assign_splits(store.open(dataset_path), shares=(0, 1, 0))
    assert set(plan.images["split"]) == {"val"}
    apply(dataset_path, plan)
    dataset = store.open(dataset_path)
    group = place_of(plan, "group")
    for record in dataset.records():
        assert record == replace(before[record.id], split="val", split_source="hash", group=group[record.id])
    for table in ("images", "regions", "texts"):
        assert set(dataset.table(table, ["split"])["split"]) == {"val"}
    assert dataset.manifest["counts"]["splits"] == {"val": len(pictures)}
    for number, made in enumerate(pictures):
        assert np.array_equal(dataset.pixels(number), made.pixels)
    assert [problem for problem in validate(dataset_path) if problem.level == "error"] == []


def test_a_second_writing_changes_no_byte(tmp_path, files_of):
    dataset = written(tmp_path / "d", picture(1, scene(1)), picture(2, recompressed(scene(1)), source="two", group="a0"))
    apply(dataset, assign_splits(dataset))
    before = files_of(tmp_path / "d")
    dataset = store.open(tmp_path / "d")
    apply(dataset, assign_splits(dataset))
    assert files_of(tmp_path / "d") == before
    assert remembered(tmp_path / "d") == {"salt": "", "shares": (0.8, 0.1, 0.1), "joined": {"g1": "a0"}}


def test_images_of_a_joined_group_that_come_later_find_it(tmp_path):
    dataset = written(tmp_path / "d", picture(1, scene(1)), picture(2, recompressed(scene(1)), source="two", group="a0"))
    apply(dataset, assign_splits(dataset))
    write_part(tmp_path / "d", "three", iter([picture(3, group="g1", source="three")]), info={"source": "three"})
    plan = assign_splits(store.open(tmp_path / "d"))
    assert plan.images["group"].tolist() == ["a0"] * 3
    assert len(set(plan.images["split"])) == 1
    apply(tmp_path / "d", plan)
    write_part(tmp_path / "d", "four", iter([picture(4, group="a0", patient="p", source="four"),
                                             picture(5, group="_", patient="p", source="four")]))  # fmt: skip
    apply(tmp_path / "d", assign_splits(store.open(tmp_path / "d")))
    assert remembered(tmp_path / "d")["joined"] == {"g1": "_", "a0": "_"}


def test_torn_groups_say_what_joins_them(tmp_path):
    dataset = written(
        tmp_path / "d",
        picture(1, official="train", patient="p"), picture(2, official="test", patient="p"),
        picture(3, scene(1), official="train"), picture(4, recompressed(scene(1)), official="val"),
        picture(5, official="test", patient="q"), picture(6, official="unassigned", patient="q"),
    )  # fmt: skip
    assert torn_groups(dataset).to_numpy().tolist() == [
        ["g1", "test, train", 2, "patient"], ["g3", "train, val", 2, "near duplicates"],
    ]  # fmt: skip
    assert torn_groups(dataset, looks=False)["group"].tolist() == ["g1"]


def test_what_was_not_compared_is_said(tmp_path):
    blank = np.full((6, 6), 9, np.uint8)
    unhashed = picture(3)
    unhashed = Picture(replace(unhashed.record, perceptual_hash=""), unhashed.pixels)
    plan = assign_splits(written(tmp_path / "d", picture(1, blank), picture(2, blank), unhashed, picture(4, patient="p")))
    assert dict(zip(plan.left_out["reason"], plan.left_out["images"], strict=True)) == {
        "no perceptual hash": 1, "equal pixels of one flat colour": 2,
    }  # fmt: skip
    assert plan.images["group"].nunique() == 4
    assert plan.quality.to_numpy().tolist() == [["one", 4, 3, 4]]


@pytest.mark.parametrize("shares", [(1, 1), (1, -1, 1), (0, 0, 0), (1, float("nan"), 1)])
def test_shares_that_are_none_are_refused(dataset_path, shares):
    with pytest.raises(InputError, match="80 10 10"):
        assign_splits(store.open(dataset_path), shares=shares)


def test_a_broken_memory_is_refused(dataset_path):
    (dataset_path / NAME).write_text('{"salt": ""}')
    with pytest.raises(DatasetError, match=NAME):
        assign_splits(store.open(dataset_path))


def test_the_command_shows_writes_and_remembers(tmp_path):
    pictures = [picture(number, patient=f"p{number // 2}") for number in range(40)]
    path = str(tmp_path / "d")
    written(tmp_path / "d", *pictures)
    run = CliRunner().invoke

    def told(*options):
        result = run(app, ["split", path, "--json", *options])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    tried = told("--salt", "x", "--shares", "60", "20", "20", "--dry-run")
    assert not (tmp_path / "d" / NAME).exists()
    done = told("--salt", "x", "--shares", "60", "20", "20")
    assert done == {**tried, "written": True}
    assert sum(row["images"] for row in done["changed"]) > 0
    assert len(done["merged_groups"]) == 20
    again = told()
    assert (again["salt"], again["shares"], again["changed"], again["merged_groups"]) == ("x", [0.6, 0.2, 0.2], [], [])
    shown = run(app, ["split", path])
    assert shown.exit_code == 0
    assert "nothing to change" in shown.stdout
    assert len({record.split for record in store.open(path).records() if record.keys.patient == "p3"}) == 1
