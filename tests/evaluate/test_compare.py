"""Evaluations on disk are found, compared, and what makes them unlike is said."""

import json

import pytest
from judged_cases import FAR, hit_or_miss, made, mixed_cases

from medglip.errors import InputError
from medglip.evaluate.compare import compare, evaluation_folder
from medglip.evaluate.folders import CASES, FIGURES, write_evaluation

ABOUT = {"split": "test", "limit": None, "version": "1", "datasets": [{"name": "scenes", "version": "aa", "images": 3}]}


def evaluation(folder, cases, **about):
    return write_evaluation(folder, {"about": ABOUT | about}, cases)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    evaluation(place / "plain/evaluation-test", mixed_cases(1, 8))
    evaluation(place / "better/evaluation-test", mixed_cases(1, 8, skill=3.5))
    return place


def test_runs_and_evaluations_are_found(two, tmp_path):
    assert evaluation_folder(two / "plain") == evaluation_folder(two / "plain/evaluation-test")
    evaluation(tmp_path / "run/evaluation-val", [made()])
    assert evaluation_folder(tmp_path / "run").name == "evaluation-val"
    evaluation(tmp_path / "run/evaluation-train", [made()])
    with pytest.raises(InputError, match=r"evaluation-train.*evaluation-val.*give the folder of one"):
        evaluation_folder(tmp_path / "run")
    evaluation(tmp_path / "run/evaluation-test", [made()])
    assert evaluation_folder(tmp_path / "run").name == "evaluation-test"


def test_what_is_no_evaluation_is_one_sentence(two, tmp_path):
    with pytest.raises(InputError, match="is no evaluation"):
        compare([two / "plain", tmp_path])
    with pytest.raises(InputError, match="is no evaluation"):
        compare([two / "plain", tmp_path / "nowhere"])
    with pytest.raises(InputError, match="two or more"):
        compare([two / "plain"])
    evaluation(tmp_path / "empty", [])
    with pytest.raises(InputError, match="holds no question"):
        compare([two / "plain", tmp_path / "empty"], draws=5)
    evaluation(tmp_path / "broken", [made()])
    (tmp_path / "broken" / FIGURES).write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        compare([two / "plain", tmp_path / "broken"])
    evaluation(tmp_path / "cut", [made()])
    (tmp_path / "cut" / CASES).write_bytes(b"PAR1")
    with pytest.raises(InputError, match="cannot be read"):
        compare([two / "plain", tmp_path / "cut"])


def test_comparison_is_plain_and_whole(two):
    found = compare([two / "plain", two / "better"], draws=40)
    assert json.loads(json.dumps(found)) == found
    assert [run["name"] for run in found["runs"]] == ["plain", "better"]
    assert found["runs"][0]["questions"] == 24
    (pair,) = found["differences"]
    assert (pair["a"], pair["b"], pair["patients"], pair["left_out"]) == ("plain", "better", 8, [0, 0])
    assert pair["figures"]["acc50"]["difference"] > 0
    assert set(pair["by_modality"]) == {"ct", "xray"}
    assert set(pair["by_source"]) == {"films", "scenes"}
    for name, one in pair["figures"].items():
        if one is not None:
            assert one["a"] == found["runs"][0]["figures"][name], name
            assert one["low"] <= one["high"], name
    assert found["warnings"] == ["Few patients: better and plain share 8; intervals of so few are too narrow."]


def test_verdict_turns_for_figures_that_are_better_low(tmp_path):
    cases = hit_or_miss([1] * 12)
    noisy = [made(case.image, f"p{place}", boxes=((*case.boxes[0], 0.9), (*FAR, 0.8))) for place, case in enumerate(cases)]
    runs = [evaluation(tmp_path / "quiet", cases), evaluation(tmp_path / "noisy", noisy)]
    figures = compare(runs, draws=40)["differences"][0]["figures"]
    assert figures["false_positives_per_image"]["verdict"] == "worse"
    assert figures["acc50"]["verdict"] == "unclear"
    figures = compare(runs[::-1], draws=40)["differences"][0]["figures"]
    assert figures["false_positives_per_image"]["verdict"] == "better"


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"split": "val"}, "The splits differ: plain 'test', other 'val'"),
        ({"version": "2"}, "versions of medglip differ"),
        ({"limit": 5}, "limits of images differ"),
        ({"datasets": [{"name": "scenes", "version": "bb"}]}, "versions of the datasets"),
        ({"datasets": [{"name": "films", "version": "aa"}]}, "The datasets differ"),
    ],
)
def test_what_differs_is_said(two, tmp_path, about, words):
    evaluation(tmp_path / "other", mixed_cases(1, 8), **about)
    assert any(words in warning for warning in compare([two / "plain", tmp_path / "other"], draws=5)["warnings"])


def test_other_questions_and_other_truth_are_said(two, tmp_path):
    cases = mixed_cases(1, 8)[:-2]
    cases[0] = made(cases[0].image, "p0", cases[0].concept, truth=(FAR,), source=cases[0].source)
    evaluation(tmp_path / "other", cases)
    found = compare([two / "plain", tmp_path / "other"], draws=5)
    assert any("true boxes of 1 of 22" in warning for warning in found["warnings"])
    assert any("2 questions of plain and 0 of other are left out" in warning for warning in found["warnings"])


def test_names_tell_runs_apart(two, tmp_path):
    evaluation(tmp_path / "a/run/evaluation", [made("a", "p1"), made("b", "p2")])
    evaluation(tmp_path / "b/run/evaluation", [made("a", "p1"), made("b", "p2")])
    found = compare([tmp_path / "a/run", tmp_path / "b/run", tmp_path / "a/run"], draws=5)
    names = [run["name"] for run in found["runs"]]
    assert len(set(names)) == 3
    assert [pair["b"] for pair in found["differences"]] == names[1:]
    found = compare([tmp_path / "a/run", tmp_path / "b/run"], draws=5)
    assert [run["name"] for run in found["runs"]] == ["a/run", "b/run"]
