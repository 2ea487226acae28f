"""Plain lists beside the images: splits, sequences, names of class numbers."""

import json
from pathlib import Path

import pytest

from medglip.curate.cases import Case, Refused
from medglip.curate.lists import class_name, told
from medglip.curate.source import Part
from medglip.errors import InputError, SourceError

TEXT = "**/subgroup_{list:training|testing}.txt"


def part(lists: str = "", **options: object) -> Part:
    files = {"image": "{case}.png"} | ({"lists": lists} if lists else {})
    return Part("p", "mask_images", "ultrasound", "tiny", "CC0-1.0", "human", files, {}, options=options)


def cases(folder: Path, names: list[str], lists: dict[str, str]) -> list[Case]:
    for name, content in lists.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return [Case(name, folder, {"image": (f"{name}.png",), "lists": tuple(lists)}, {"case": name}) for name in names]


def said(found: list, name: str) -> dict[str, str]:
    return {case.key: case.fields[name] for case in found}


def test_the_file_that_names_a_case_says_its_word(tmp_path: Path) -> None:
    lists = {"s/subgroup_training.txt": "\ufeffp0001\r\np0002.png\r\n\r\n", "s/subgroup_testing.txt": "IMAGES/P0003\n"}
    found = list(told(part(TEXT), cases(tmp_path, ["p0001", "p0002", "p0003", "p0004"], lists)))
    assert said(found, "list") == {"p0001": "training", "p0002": "training", "p0003": "testing", "p0004": ""}


def test_a_key_says_what_a_line_names(tmp_path: Path) -> None:
    lists = {"subgroup_testing.txt": "patient0001\n"}
    found = list(told(part(TEXT, list_key="patient{case}"), cases(tmp_path, ["0001", "0002"], lists)))
    assert said(found, "list") == {"0001": "testing", "0002": ""}


def test_lists_in_json_have_their_keys_as_words_and_numbers_without_zeros(tmp_path: Path) -> None:
    lists = {"fold0.json": json.dumps({"train": [0, 31], "val": [7, "0100.jpg"]})}
    found = list(told(part("fold0.json"), cases(tmp_path, ["0000", "0007", "0031", "0100", "0310"], lists)))
    assert said(found, "list") == {"0000": "train", "0007": "val", "0031": "train", "0100": "val", "0310": ""}
    alone = list(told(part("{list:train|val}.json"), cases(tmp_path, ["0007"], {"val.json": "[7]"})))
    assert said(alone, "list") == {"0007": "val"}


def test_a_case_in_two_lists_is_rejected_and_the_others_go_on(tmp_path: Path) -> None:
    lists = {"subgroup_training.txt": "a\nb\n", "subgroup_testing.txt": "b\n"}
    first, second = told(part(TEXT), cases(tmp_path, ["a", "b"], lists))
    assert first.fields["list"] == "training"
    assert (second.reason, "'testing', 'training'" in second.detail) == ("ambiguous_list", True)


@pytest.mark.parametrize(
    ("pattern", "lists", "error"),
    [
        (TEXT, {}, InputError), ("all.txt", {"all.txt": "a\n"}, SourceError), ("fold0.json", {"fold0.json": "{"}, InputError),
        ("fold0.json", {"fold0.json": '{"train": {"a": 1}}'}, InputError),
    ],
)  # fmt: skip
def test_a_list_that_is_missing_broken_or_without_a_word_is_named(
    pattern: str, lists: dict[str, str], error: type, tmp_path: Path
) -> None:
    with pytest.raises(error):
        list(told(part(pattern), cases(tmp_path, ["a"], lists)))


def test_a_frame_belongs_to_the_sequence_that_began_last(tmp_path: Path) -> None:
    numbers = ["1", "25", "26", "0067", "68", "612", "0", "x"]
    found = list(told(part(sequence_starts=[1, 26, 68]), cases(tmp_path, numbers, {})))
    assert said(found[:6], "sequence") == {"1": "1", "25": "1", "26": "2", "0067": "2", "68": "3", "612": "3"}
    assert [reject.reason for reject in found[6:]] == ["no_sequence"] * 2


@pytest.mark.parametrize("table", [{"liver": "0002", "kidney": 1}, {"2": "liver", "0001": "kidney"}])
def test_a_class_number_is_named_whichever_way_the_table_is_written(table: dict, tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text(json.dumps({"A": table}))
    source = part(class_under="{set}", class_of="{class}")

    def name(group: str, number: str) -> str:
        return class_name(source, Case("c", tmp_path, {"names": ("names.json",)}, {"set": group, "class": number}))

    assert (name("A", "0002"), name("A", "1")) == ("liver", "kidney")
    for group, number in (("A", "0003"), ("B", "0002")):
        with pytest.raises(Refused) as refusal:
            name(group, number)
        assert refusal.value.reason == "unknown_label"
