import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medglip import store
from medglip.store import known
from medglip.store.known import KnownImages
from medglip.store.manifest import ManifestText, bytes_of, read_manifest, totals
from medglip.store.place import Place
from medglip.store.schema import SCHEMA_VERSION
from medglip.store.write import write_part


@pytest.mark.parametrize("recent", [0, 3, 1000])
def test_images_are_known_by_id_and_pixels_whatever_the_order_of_commits(tmp_path, plain_picture, monkeypatch, recent):
    monkeypatch.setattr(known, "_RECENT", recent)
    place = Place(tmp_path / "d")
    followed = KnownImages(place)
    there: dict[str, list[int]] = {}
    for part, images in (("a", [1, 2]), ("b", [3, 4, 5]), ("c", [6]), ("a", [7, 2]), ("b", [8]), ("d", [9, 10, 1])):
        write_part(place, part, [plain_picture(n) for n in images])
        there[part] = images
        followed.follow(read_manifest(place))
        fresh = KnownImages(place)
        fresh.follow(read_manifest(place))
        rows = store.open(place).images.frame().set_index("id")
        for number in range(11):
            holder = next((name for name, held in there.items() if number in held), None)
            picture = plain_picture(number)
            for index in (followed, fresh):
                found = index.holder(picture.record.id, but="")
                assert (found or "/none-").split("/")[1][0] == (holder or "none")[0]
                assert index.holder(picture.record.id, but=holder or "") is None
                place_of = index.pixels(picture.record.sha256, but="")
                if holder:
                    row = rows.loc[picture.record.id]
                    assert tuple(place_of) == (row["shard"], row["tar_offset"], row["tar_bytes"])
                    assert index.pixels(picture.record.sha256, but=holder) is None
                else:
                    assert place_of is None


def test_pixels_of_two_parts_are_found_in_either(tmp_path, plain_picture):
    place = Place(tmp_path / "d")
    picture = plain_picture(1)
    write_part(place, "a", [picture])
    write_part(place, "b", [picture._replace(record=replace(picture.record, id="b"))])
    index = KnownImages(place)
    index.follow(read_manifest(place))
    found = {index.pixels(picture.record.sha256, but=part) for part in ("", "a", "b")}
    assert len(found) == 1
    assert None not in found


counts = st.fixed_dictionaries(
    {"images": st.integers(0, 9)}, optional={"labels": st.dictionaries(st.sampled_from("abc"), st.integers(0, 9))}
)
entries = st.fixed_dictionaries({"counts": counts, "files": st.dictionaries(st.text(max_size=3), st.just({"bytes": 1}))},
                                optional={"title": st.text(max_size=5)})  # fmt: skip


@given(st.lists(st.dictionaries(st.sampled_from(["p", "q", "r", 'ü"\n']), entries, max_size=4), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_a_manifest_written_piece_by_piece_is_the_one_written_at_once(commits):
    text, parts = ManifestText(), {}
    for change in commits:
        parts = {**parts, **change}
        for now in (parts, dict(list(parts.items())[1:]), parts):
            manifest, content = text.write(now)
            assert manifest == {"schema_version": SCHEMA_VERSION, "counts": totals(now), "parts": now}
            assert content == bytes_of(manifest)
            assert json.loads(content) == manifest
