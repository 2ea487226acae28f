"""The quality report: numbers that are those of the tables, every reason explained, the same bytes for the same dataset."""

from dataclasses import replace

from medglip.records.reasons import FLAGS, REASONS
from medglip.records.record import Reject
from medglip.store import open as open_dataset
from medglip.store import write_part
from medglip.store.pages.quality import quality, write_quality


def test_numbers_are_those_of_the_tables(tmp_path, make_picture, info, volume):
    pictures = [make_picture(seed) for seed in range(1, 5)]
    rejects = [Reject("made_up", f"{n}.png", "constant_image", "One value.") for n in range(5)]
    rejects.append(Reject("made_up", "z.png", "no_such_code", "Odd."))
    cases = {"c1": ["f", 1], "c2": ["f", 0]}
    more = {"cases": cases, "expected": {"images": 9}, "access": "open", "page": "https://example.org"}
    write_part(tmp_path / "d", "made_up-0", pictures, [volume], rejects, info | more)
    facts = quality(open_dataset(tmp_path / "d"))["made_up"]
    assert (facts["cases"], facts["without_images"]) == (2, 1)
    assert facts["images"] == 4
    assert facts["regions"] == sum(len(picture.record.regions) for picture in pictures) == sum(facts["labels"].values())
    assert facts["volumes"] == 1
    assert facts["splits"] == {"train": 4}
    assert {reason: told["number"] for reason, told in facts["rejects"].items()} == {"constant_image": 5, "no_such_code": 1}
    assert facts["rejects"]["constant_image"]["meaning"] == REASONS["constant_image"]
    assert facts["rejects"]["constant_image"]["examples"] == [f"{n}.png: One value." for n in range(3)]
    assert facts["flags"]["image"] == {"oblique": {"number": 4, "meaning": FLAGS["oblique"]}}
    assert facts["expected"] == {"images": {"published": 9, "found": 4}}


def test_what_was_searched_for_and_never_found_is_listed(tmp_path, make_picture, info):
    picture = make_picture(1)
    picture = picture._replace(record=replace(picture.record, exhaustive=("abdomen.kidney@left", "abdomen.spleen")))
    write_part(tmp_path / "d", "made_up-0", [picture], (), (), info | {"cases": {}})
    assert quality(open_dataset(tmp_path / "d"))["made_up"]["unseen"] == ["abdomen.spleen"]


def test_the_page_says_it_all_and_does_not_change(tmp_path, make_picture, info):
    text = "<b>& co</b>.png"
    reject = Reject("made_up", text, "orphan", "This mask belongs to no image.")
    write_part(tmp_path / "d", "made_up-0", [make_picture(1)], (), [reject], info | {"cases": {}})
    page = write_quality(open_dataset(tmp_path / "d"))
    first = page.read_bytes()
    assert REASONS["orphan"] in first.decode()
    assert text not in first.decode()
    assert write_quality(open_dataset(tmp_path / "d")).read_bytes() == first
