"""`medglip labels`: sizes, one label, the tree, a search; a word that nothing has is an error that helps."""

import json

import pytest
from typer.testing import CliRunner

from medglip.cli import app
from medglip.errors import InputError, SourceError
from medglip.records import label_tree

RUN = CliRunner()


def printed(*words):
    done = RUN.invoke(app, ["labels", *words])
    assert done.exit_code == 0, done.output
    return done.output


def test_sizes_are_those_of_the_tree():
    rows = json.loads(printed("--json"))
    assert [row["body_region"] for row in rows] == [
        *(label.id for label in label_tree() if label.level == "body_region"), "all"
    ]  # fmt: skip
    assert rows[-1]["all"] == len(label_tree()) == sum(row["all"] for row in rows[:-1])
    assert "abdomen" in printed()


@pytest.mark.parametrize("word", ["abdomen.kidney", "kidney", "Lt Kidney"])
def test_one_label_is_shown_complete(word):
    facts = json.loads(printed(word, "--json"))
    assert (facts["id"], facts["name"], facts["adjective"], facts["plural"]) == ("abdomen.kidney", "kidney", "renal", "kidneys")
    assert facts["SegmentedPropertyTypeCodeSequence"] == "SCT 64033007 Kidney"
    assert facts["ancestors"] == ["abdomen"]
    assert "abdomen.kidney.tumor" in facts["children"]
    assert any(line.startswith("ct_curvas_abdomen: 255,255,0") for line in facts["sources"])
    assert "abdomen.kidney.tumor" in printed(word)


def test_the_tree_has_every_label_once_and_indented():
    lines = printed("--tree").splitlines()
    assert len(lines) == len(label_tree())
    below = printed("abdomen.kidney", "--tree").splitlines()
    assert below[0] == "kidney  (abdomen.kidney)"
    assert "  kidney tumor  (abdomen.kidney.tumor)" in below
    rows = json.loads(printed("abdomen.kidney", "--tree", "--json"))
    assert [row["depth"] for row in rows] == [0, *[1] * (len(below) - 1)]


def test_a_search_finds_or_names_the_nearest():
    assert "abdomen.kidney.tumor: " in printed("--search", "Renal Cell")
    assert {row["id"] for row in json.loads(printed("--search", "kidney stone", "--json"))} == {"abdomen.kidney.stone"}
    done = RUN.invoke(app, ["labels", "--search", "kidny"])
    assert isinstance(done.exception, InputError)
    assert done.exception.exit_code == 2
    assert "abdomen.kidney" in str(done.exception)
    done = RUN.invoke(app, ["labels", "kidny"])
    assert isinstance(done.exception, SourceError)
    assert "'kidney'" in str(done.exception)
