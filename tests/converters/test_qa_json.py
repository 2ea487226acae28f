import json
from pathlib import Path

import pytest
from small_sources import converted, noise, save

from medglip.errors import InputError, SourceError
from medglip.records import ImageRecord

PART = """
converter = "qa_json"
modality = "xray"
split = "{{asked_in}}"
files = {{ image = "images/{{case}}.png", questions = "{{set:[a-z]+}}.{{ending:json|jsonl|csv}}" }}
options = {{ {options} }}
"""
COLUMNS = 'columns = { image = "file", question = "q", answer = "a" }'


def part(options: str = COLUMNS) -> str:
    return PART.format(options=options)


def folder(tmp_path: Path, *images: str, **files: str) -> Path:
    where = tmp_path / "in"
    for number, image in enumerate(images or ("a",)):
        save(where, f"images/{image}.png", noise(40 + number))
    for name, text in files.items():
        (where / name.replace("_", ".")).write_text(text, encoding="utf-8")
    return where


def pairs(record: ImageRecord) -> list[tuple[str, str, str]]:
    assert {text.kind for text in record.texts} <= {"question"}
    return [(text.language, text.text, text.answer) for text in record.texts]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "train_json",
            json.dumps([{"file": "a.png", "q": "Why?\nOr\r\nnot? ", "a": 5}, {"file": "a", "q": "Is it?", "a": True}]),
        ),
        ("train_jsonl", '{"file": "a.png", "q": "Why? Or not?", "a": "5"}\n{"file": "a", "q": "Is it?", "a": "true"}\n'),
        ("train_csv", 'file,q,a\na.png,"Why?\nOr not?",5\na,Is it?,true\n'),
    ],
)
def test_pairs_of_every_kind_of_file(name: str, text: str, tmp_path: Path) -> None:
    record = converted(folder(tmp_path, **{name: text}), part()).only
    assert pairs(record) == [("en", "Why? Or not?", "5"), ("en", "Is it?", "true")]
    assert (record.split, record.split_source) == ("train", "official")
    assert (record.absent, record.exhaustive, record.regions) == ((), (), ())


def test_languages_are_kept_and_may_be_chosen(tmp_path: Path) -> None:
    data = [{"file": "a", "q": f"q{n}", "a": f"a{n}", "lang": lang} for n, lang in enumerate(("en", "zh", ""))]
    where = folder(tmp_path, train_json=json.dumps(data))
    tongue = COLUMNS.replace('"a" }', '"a", language = "lang" }')
    assert pairs(converted(where, part(f'{tongue}, language = "de"')).only) == [
        ("en", "q0", "a0"), ("zh", "q1", "a1"), ("de", "q2", "a2"),
    ]  # fmt: skip
    assert pairs(converted(where, part(f'{tongue}, languages = ["zh"]')).only) == [("zh", "q1", "a1")]


def test_the_turns_of_a_talk_are_pairs(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "<image>\nWhat is seen?"}, {"from": "gpt", "value": "A lung."},
            {"from": "user", "value": "Is it clear?"}, {"from": "assistant", "value": "Yes."},
            {"from": "human", "value": "And then?"}, {"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Hello."},
            {"from": "gpt", "value": "Anyone?"}, {"from": "human", "value": "Bye?"}]  # fmt: skip
    where = folder(tmp_path, train_jsonl=json.dumps({"id": 1, "image": "x/a.png", "conversations": talk}))
    result = converted(where, part('columns = { image = "image", turns = "conversations" }'))
    assert [pair for _, *pair in pairs(result.only)] == [
        ["What is seen?", "A lung."], ["Is it clear?", "Yes."], ["Hello?", "Hello."],
    ]  # fmt: skip
    assert result.reasons == ["missing_answer"] * 2  # "And then?" and "Bye?"


def test_a_question_without_an_answer_is_refused_and_the_same_pair_counts_once(tmp_path: Path) -> None:
    data = [{"file": "a", "q": "q", "a": "x"}, {"file": "a", "q": "q ", "a": "x"}, {"file": "a", "q": "q", "a": None},
            {"file": "a", "q": "", "a": "x"}]  # fmt: skip
    result = converted(folder(tmp_path, train_json=json.dumps(data)), part())
    assert pairs(result.only) == [("en", "q", "x")]
    assert result.reasons == ["missing_answer"] * 2


def test_an_image_that_two_files_ask_about_has_no_official_split(tmp_path: Path) -> None:
    one, both = {"file": "a", "q": "q", "a": "x"}, {"file": "b", "q": "q", "a": "x"}
    where = folder(tmp_path, "a", "b", "c", train_json=json.dumps([one, both]), test_json=json.dumps([both]))
    result = converted(where, part())
    assert {Path(name).stem: record.split_source for name, record in result.records.items()} == {
        "a": "official", "b": "hash", "c": "hash",
    }  # fmt: skip
    assert result.rejects == []


def test_questions_about_an_image_that_is_not_there_are_listed_once(tmp_path: Path) -> None:
    data = [{"file": name, "q": f"q{n}", "a": "x"} for n, name in enumerate(("a", "z.png", "z.png"))]
    where = folder(tmp_path, train_json=json.dumps(data))
    assert [(reject.reason, reject.case) for reject in converted(where, part()).rejects] == [("missing_file", "z.png")]
    assert converted(where, part(f'{COLUMNS}, missing_images = "ignore"')).rejects == []


def test_wrong_options_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="must name image, question, answer"):
        converted(folder(tmp_path, train_json="[]"), part('columns = { image = "file" }'))
    where = folder(tmp_path / "two")
    with pytest.raises(InputError, match="no file is their questions"):
        converted(where, part())
