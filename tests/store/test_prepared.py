"""Pictures prepared elsewhere are written as pictures are."""

from dataclasses import replace

import pytest

from medglip import store
from medglip.errors import RecordError
from medglip.store.prepared import prepared
from medglip.store.write import write_part


def test_prepared_pictures_give_the_same_bytes(tmp_path, pictures, volume, reject, info, files_of):
    write_part(tmp_path / "plain", "p", iter(pictures), [volume], [reject], info)
    write_part(
        tmp_path / "prepared", "p", [prepared(pictures[:3]), prepared([]), prepared(pictures[3:])], [volume], [reject], info
    )
    write_part(tmp_path / "mixed", "p", [*pictures[:2], prepared(pictures[2:5]), *pictures[5:]], [volume], [reject], info)
    assert files_of(tmp_path / "prepared") == files_of(tmp_path / "plain") == files_of(tmp_path / "mixed")


def test_shards_that_roll_within_prepared_pictures(tmp_path, plain_picture, files_of):
    many = [plain_picture(number) for number in range(20)]
    write_part(tmp_path / "plain", "p", many, shard_bytes=3000)
    write_part(tmp_path / "prepared", "p", [prepared(many)], shard_bytes=3000)
    assert len(list((tmp_path / "plain" / "shards").iterdir())) > 3
    assert files_of(tmp_path / "prepared") == files_of(tmp_path / "plain")


def test_equal_pixels_are_one_object(plain_picture):
    once = plain_picture(1)
    found = prepared([once, once._replace(record=replace(once.record, id="b" * 16))])
    assert found.pngs[0] is found.pngs[1]
    assert found.bytes == 2 * len(found.pngs[0])


def test_wrong_pixels_and_ids_that_are_there_are_refused(tmp_path, plain_picture):
    good = plain_picture(1)
    with pytest.raises(RecordError, match="hash"):
        prepared([good._replace(pixels=good.pixels + 1)])
    with pytest.raises(RecordError, match="twice"):
        write_part(tmp_path / "d", "p", [prepared([good]), prepared([good])])
    assert not (tmp_path / "d").exists()


def test_a_part_borrows_only_from_parts_that_lend(tmp_path, plain_picture):
    writer = store.Writer(tmp_path / "d")
    writer.write("a", [plain_picture(1)])
    twice = [plain_picture(1, id="b" * 16)]
    assert writer.write("b", twice, lends=lambda name: name != "a")["pictures_stored"] == 1
    assert writer.write("b", twice, lends=lambda name: True)["pictures_stored"] == 0
    assert writer.write("b", twice)["pictures_stored"] == 0
