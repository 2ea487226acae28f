"""Questions with answers survive every writing and arranging; files of schema 2.0, which have no answers, still serve."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medglip import store
from medglip.records.record import Text
from medglip.store.arrange import compact, rewrite_tables
from medglip.store.checks.validate import validate
from medglip.store.diff import diff
from medglip.store.groups.splits import apply, assign_splits
from medglip.store.merge import merge
from medglip.store.schema import SCHEMAS
from medglip.store.write import write_part

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(str.strip)
QUESTIONS = st.builds(lambda text, answer: Text(text, "question", "en", (), answer), WORDS, WORDS)
TEXTS = st.lists(st.one_of(QUESTIONS, st.builds(Text, WORDS, st.sampled_from(["report", "caption", "finding"]))), max_size=3)


def texts_of(path: Path) -> dict[str, tuple[Text, ...]]:
    return {record.id: record.texts for record in store.open(path).records()}


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=st.lists(TEXTS, min_size=2, max_size=4))
def test_pairs_of_any_words_come_back_from_every_arrangement(found, tmp_path_factory, plain_picture, info):
    path = tmp_path_factory.mktemp("any")
    wanted = {}
    for number, texts in enumerate(found):
        picture = plain_picture(number + 1, texts=tuple(texts))
        wanted[picture.record.id] = picture.record.texts
        write_part(path / "a", f"made_up-{number}", [picture], (), (), info)
    merge(path / "b", [path / "a"])
    compact(path / "b")
    assert len(store.open(path / "b").manifest["parts"]) == 1
    assert texts_of(path / "a") == texts_of(path / "b") == wanted
    answers = sorted(text.answer for texts in wanted.values() for text in texts)
    assert sorted(store.open(path / "b").query("SELECT answer FROM texts")["answer"]) == answers


def aged(path: Path) -> Path:
    """The dataset as schema 2.0 wrote it: its tables of texts have no column for answers."""
    manifest = json.loads((path / "manifest.json").read_text())
    for part in manifest["parts"].values():
        for name in (name for name in part["files"] if name.startswith("texts/")):
            pq.write_table(pq.read_table(path / name).drop_columns(["answer"]), path / name)
            content = (path / name).read_bytes()
            part["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (path / "manifest.json").write_text(json.dumps({**manifest, "schema_version": "2.0"}))
    return path


def plain_texts(picture):
    return picture._replace(record=replace(picture.record, texts=picture.record.texts[:2]))


@pytest.fixture
def old(tmp_path, make_picture, info) -> Path:
    """Five pictures in a dataset of schema 2.0."""
    write_part(tmp_path / "old", "made_up-0", [plain_texts(make_picture(seed)) for seed in range(5)], (), (), info)
    return aged(tmp_path / "old")


def test_a_dataset_of_schema_2_0_opens_and_is_clean(old, make_picture):
    dataset = store.open(old)
    assert texts_of(old) == {f"{seed:016x}": make_picture(seed).record.texts[:2] for seed in range(5)}
    assert validate(old, documents=True) == []
    assert dataset.texts["answer"].tolist() == [""] * 10
    assert list(dataset.texts.columns) == list(dataset.texts.head(3).columns) == SCHEMAS["texts"].names
    assert dataset.texts.head(3)["answer"].tolist() == [""] * 3
    assert dataset.query("SELECT count(*) AS n FROM texts WHERE answer = ''")["n"][0] == 10
    assert dataset.arrow("texts", SCHEMAS["texts"].names).schema.equals(SCHEMAS["texts"])


def test_old_and_new_parts_live_in_one_dataset_and_are_joined(old, make_picture, info, tmp_path):
    before = texts_of(old)
    write_part(old, "made_up-1", [make_picture(5), make_picture(6)], (), (), info)
    wanted = before | {f"{seed:016x}": make_picture(seed).record.texts for seed in (5, 6)}
    merge(tmp_path / "merged", [old])

    def look() -> None:
        for path in (old, tmp_path / "merged"):
            assert texts_of(path) == wanted
            assert validate(path) == []
            asked = store.open(path).query("SELECT answer, count(*) AS n FROM texts GROUP BY answer ORDER BY answer")
            assert asked.to_dict("list") == {"answer": ["", "In der Niere."], "n": [14, 2]}
        assert all(frame.empty for frame in diff(store.open(old), store.open(tmp_path / "merged")).values())

    look()
    for path in (old, tmp_path / "merged"):
        rewrite_tables(path, lambda name, table: table)
        compact(path)
        apply(path, assign_splits(store.open(path), (0.5, 0.25, 0.25)))
    split = store.open(old).query("SELECT DISTINCT t.split = i.split AS same FROM texts t JOIN images i ON i.id = t.image_id")
    assert split["same"].tolist() == [True]
    look()


def test_a_question_of_schema_2_0_that_has_no_answer_is_named(old, make_picture, tmp_path, info):
    write_part(tmp_path / "asked", "made_up-0", [make_picture(1)], (), (), info)
    errors = [problem.what for problem in validate(aged(tmp_path / "asked")) if problem.level == "error"]
    assert len(errors) == 1
    assert "because its kind is question" in errors[0]
