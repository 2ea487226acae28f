import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medglip.curate.cases import Case, Refused
from medglip.curate.source import Part
from medglip.curate.tables import Table, described, listed_cell, read_table, rows_naming
from medglip.errors import InputError
from medglip.records import Reject

NAMES = st.lists(st.sampled_from(("a", "b", "images", "p1", "p2")), min_size=1, max_size=4).map("/".join)


def part(options: dict, **more: object) -> Part:
    base = dict.fromkeys(("name", "converter", "source", "licence"), "x")
    return Part(**base, modality="ct", annotation="human", files={"about": "*"}, labels={}, options=options, **more)  # type: ignore[arg-type]


def cases(folder: Path, *images: str, about: tuple[str, ...]) -> list[Case]:
    return [Case(image, folder, {"image": (image,), "about": about}) for image in images]


def table(*cells: str) -> Table:
    return Table("t.csv", ("image",), tuple((cell,) for cell in cells))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '[{"id": 1, "words": "x", "boxes": [[1, 2.5]]}, {"id": 2, "seen": false}]'),
        ("a.jsonl", '{"id": 1, "words": "x", "boxes": [[1, 2.5]]}\n\n{"id": 2, "seen": false}\n'),
        ("a.ndjson", '\ufeff{"id": 1, "words": "x", "boxes": [[1, 2.5]]}\r\n{"id": 2, "seen": false}'),
        ("a.JSON.gz", '[{"id": 1, "words": "x", "boxes": [[1, 2.5]]}, {"id": 2, "seen": false}]'),
    ],
)
def test_objects_of_a_json_file_are_rows(name: str, text: str, tmp_path: Path) -> None:
    content = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    read = read_table(tmp_path, name)
    assert read.columns == ("id", "words", "boxes", "seen")
    assert read.rows == (("1", "x", "[[1, 2.5]]", ""), ("2", "", "", "false"))


def test_objects_of_objects_and_of_lists_have_their_names_in_a_column(tmp_path: Path) -> None:
    (tmp_path / "ids.json").write_text(json.dumps({"cju0": {"width": 5}, "cju1": {"width": 6}}))
    assert read_table(tmp_path, "ids.json").rows == (("cju0", "5"), ("cju1", "6"))
    (tmp_path / "splits.json").write_text(json.dumps({"train": [{"id": "a"}], "test": [{"id": "b"}]}))
    assert read_table(tmp_path, "splits.json").rows == (("train", "a"), ("test", "b"))


def test_each_object_of_a_list_is_a_row_with_what_is_said_around_it(tmp_path: Path) -> None:
    data = [{"image": "a", "findings": [{"text": "one"}, {"text": "two"}]}, {"image": "b", "findings": []}]
    (tmp_path / "a.json").write_text(json.dumps(data))
    assert read_table(tmp_path, "a.json", "findings").rows == (("a", "one"), ("a", "two"))


def test_one_line_of_json_is_one_row(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"image": "a", "text": "x"}\n')
    assert read_table(tmp_path, "a.jsonl").rows == (("a", "x"),)


@pytest.mark.parametrize("text", ["", "[1, 2", "not json", "[]", '{"a": []}', "[1]", '[{"a": 1}, 2]', '{"a": [1]}', "5"])
def test_json_without_a_row_is_an_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"'a\.json'"):
        read_table(tmp_path, "a.json")


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"id": 1}]')
    assert read_table(tmp_path, "a.json").rows == (("1",),)
    (tmp_path / "a.json").write_text('[{"id": 22}]')
    assert read_table(tmp_path, "a.json").rows == (("22",),)


@given(NAMES, NAMES, NAMES)
def test_a_name_in_several_folders_means_the_image_of_its_folder(one: str, two: str, name: str) -> None:
    cells = f"{one}/{name}.png", f"{two}/{name}.png"
    for cell in cells:
        found = rows_naming(table(*cells), 0, f"root/{cell}")
        assert cells.index(cell) in found
        assert one.casefold() == two.casefold() or one.endswith(two) or two.endswith(one) or found == [cells.index(cell)]


@pytest.mark.parametrize(
    ("cell", "image", "loose", "strict"),
    [
        ("a", "images/p1/a.png", True, True), ("A.JPG", "a.png", True, True), ("p1\\a.png", "images/p1/a.png", True, True),
        ("p2/a.png", "images/p1/a.png", True, False), ("/data/images/p1/a.png", "p1/a.png", True, True),
        ("50414267.0", "50414267", True, True), ('["p1/b.png", "p1/a.png"]', "p1/a.png", True, True),
        ("1.2.3", "1.2.3.4", False, False), ("ab", "a.png", False, False), ("", "a.png", False, False),
    ],
)  # fmt: skip
def test_a_cell_names_an_image(cell: str, image: str, loose: bool, strict: bool) -> None:
    assert (rows_naming(table(cell), 0, image) == [0]) is loose
    assert (rows_naming(table(cell), 0, image, exact=True) == [0]) is strict


def test_a_cell_that_only_looks_like_a_list_is_itself() -> None:
    assert listed_cell("[a, b") == ["[a, b"]
    assert listed_cell("[[1, 2]]") == [[1, 2]]


def test_lists_say_where_an_image_stands(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("p1/a.png\nb.png\n")
    (tmp_path / "val.txt").write_bytes(b"p2/a.png\r\nb.png\r\n")
    found = described(part({}), cases(tmp_path, "p1/a.png", "p2/a.png", "b.png", "c.png", about=("train.txt", "val.txt")))
    assert [case.fields["listed_in"] for case in found if isinstance(case, Case)] == ["train", "val", "", ""]


def test_an_image_without_a_row_is_refused_or_has_empty_names(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file,who\na.png,p1\n")
    images = cases(tmp_path, "a.png", "b.png", about=("t.csv",))
    refused = list(described(part({"about_key": "file"}), images))
    assert [one.reason for one in refused if isinstance(one, Reject)] == ["missing_row"]
    kept = list(described(part({"about_key": "file", "about_missing": "ignore"}, patient="{who}", split="{set}"), images))
    assert [(case.fields["who"], case.fields["set"]) for case in kept if isinstance(case, Case)] == [("p1", ""), ("", "")]
    none = list(described(part({"about_missing": "ignore"}, patient="{who}"), cases(tmp_path, "a.png", about=())))
    assert [case.fields for case in none if isinstance(case, Case)] == [{"who": ""}]


def test_an_image_is_described_by_an_id_that_is_not_its_name(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("study,who\ns1,p1\n")
    (case,) = cases(tmp_path, "s1/a.png", about=("t.csv",))
    known = Case(case.key, case.folder, case.files, {"study": "s1"})
    (found,) = described(part({"about_key": "study", "about_id": "{study}"}), [known])
    assert isinstance(found, Case)
    assert found.fields["who"] == "p1"
    with pytest.raises(Refused, match="no column 'patient'"):
        list(described(part({"about_key": "patient"}), [known]))


@pytest.mark.parametrize("text", ["", " \n", '"', '""\n""'])
def test_a_table_without_a_word_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=r"'t\.csv' is empty|holds? no|header"):
        read_table(tmp_path, "t.csv")
