"""What differs between two datasets: nothing between copies, and each kind of change under its own name."""

from dataclasses import replace

import pytest

from medglip.records.record import Reject
from medglip.store import open as open_dataset
from medglip.store import write_part
from medglip.store.diff import diff


@pytest.fixture
def written(tmp_path, make_picture, info):
    """Write pictures as a dataset of a name and open it."""

    def write(name, pictures, rejects=(), **more):
        write_part(tmp_path / name, "one", pictures, (), rejects, info | more)
        return open_dataset(tmp_path / name)

    return write


def changed(picture, **changes):
    return picture._replace(record=replace(picture.record, **changes))


def filled(tables):
    return {name for name, frame in tables.items() if not frame.empty}


def test_a_copy_holds_the_same(written, make_picture):
    pictures = [make_picture(seed) for seed in range(6)]
    assert filled(diff(written("a", pictures), written("b", pictures[::-1]))) == set()


def test_images_that_only_one_has_are_told(written, make_picture):
    a = written("a", [make_picture(seed) for seed in (1, 2, 3)])
    b = written("b", [make_picture(seed) for seed in (2, 3, 4)])
    found = diff(a, b)
    assert dict(zip(found["images"]["what"], found["images"]["images"], strict=True)) == {"only in A": 1, "only in B": 1}
    assert found["images"]["examples"].tolist() == [f"{1:016x}", f"{4:016x}"]
    assert filled(found) == {"images"}  # other regions of other images are no change of a region


def test_the_same_pixels_under_another_id_are_told(written, make_picture):
    picture = make_picture(1)
    found = diff(written("a", [picture]), written("b", [changed(picture, id="b" * 16, regions=())]))
    assert found["same_pixels"]["images"].tolist() == [1]


def test_each_changed_column_and_the_moves_between_splits_are_counted(written, make_picture):
    pictures = [make_picture(seed) for seed in (1, 2, 3)]
    others = [changed(pictures[0], split="val", licence="MIT"), changed(pictures[1], split="val"), pictures[2]]
    found = diff(written("a", pictures), written("b", others))
    assert dict(zip(found["columns"]["column"], found["columns"]["images"], strict=True)) == {"split": 2, "licence": 1}
    assert found["splits"].to_dict("records") == [{"from": "train", "to": "val", "images": 2}]
    assert found["regions"].empty


def test_a_region_that_moved_is_told_from_one_that_went(written, make_picture):
    picture = make_picture(1)
    kidney, tumor, liver = picture.record.regions
    x0, y0, x1, y1 = liver.box_xyxy
    nudged = replace(liver, box_xyxy=(x0, y0, x1 - 1, y1))
    other = changed(picture, regions=(kidney, nudged))
    found = diff(written("a", [picture]), written("b", [other]))["regions"].set_index("label")
    assert found.loc[liver.label].to_dict() == {"only_in_a": 1, "only_in_b": 1, "moved": 1}
    assert found.loc[tumor.label].to_dict() == {"only_in_a": 1, "only_in_b": 0, "moved": 0}
    assert kidney.label not in found.index


def test_texts_rejects_and_licences_of_sources_are_compared(written, make_picture):
    picture = make_picture(1)
    rejects = [Reject("made_up", "x.png", "constant_image", "One value.")]
    a, b = written("a", [picture], rejects), written("b", [changed(picture, texts=picture.record.texts[:1])], licence="new")
    found = diff(a, b)
    assert found["texts"].to_dict("records") == [
        {"kind": kind, "only_in_a": 1, "only_in_b": 0} for kind in ("caption", "question")
    ]
    assert found["rejects"].to_dict("records") == [{"source": "made_up", "reason": "constant_image", "a": 1, "b": 0}]
    assert found["sources"]["licence_b"].tolist() == ["new"]
    assert found["sources"][["rejects_a", "rejects_b"]].to_numpy().tolist() == [[1, 0]]


def test_a_question_with_another_answer_is_another_text(written, make_picture):
    picture = make_picture(1)
    *others, question = picture.record.texts
    b = written("b", [changed(picture, texts=(*others, replace(question, answer="In der Leber.")))])
    found = diff(written("a", [picture]), b)
    assert filled(found) == {"texts"}
    assert found["texts"].to_dict("records") == [{"kind": "question", "only_in_a": 1, "only_in_b": 1}]
