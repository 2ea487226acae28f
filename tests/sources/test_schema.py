"""The schema of a source and what `load_source` takes: both accept, and both refuse, the same files."""

import json
import tomllib
from pathlib import Path

import jsonschema_rs
import pytest

from medglip.curate import load_source, source_names
from medglip.errors import SourceError
from medglip.records import MODALITIES
from medglip.shelf import shelf

SCHEMA = json.loads((shelf("schemas") / "source.schema.json").read_text(encoding="utf-8"))
CHECKER = jsonschema_rs.validator_for(SCHEMA)
HEAD = 'name = "tiny"\ntitle = "Tiny"\nlicence = "MIT"\n'
PART = '[[part]]\nconverter = "coco"\nmodality = "ct"\nfiles = { image = "*.png" }\n'

GOOD = (
    HEAD + PART,
    HEAD + 'access = "agreement"\nannotation = "machine"\nlineage = ["us_busi"]\nexpected = { images = 3 }\n' + PART,
    HEAD + PART + 'exhaustive = "all"\nlabels = { a = "lung", b = "skip" }\n',
    HEAD + PART + 'exhaustive = ["lung"]\nfield = ["thorax"]\npossible = ["brain"]\nimpossible = ["femur"]\n',
    HEAD + PART + 'spacing_mm = [0.5, 1]\nsplit = "{set}"\nsplit_words = { tr = "train" }\ndetail = { view = "PA" }\n',
    HEAD + PART + "labels_by_name = { enabled = true }\noptions = { frame = [1, 2], deep = { x = 1 } }\n",
)
BAD = (
    HEAD,  # no part
    'title = "Tiny"\nlicence = "MIT"\n' + PART,
    HEAD.replace('"Tiny"', '""') + PART,
    HEAD.replace('"tiny"', '"Tiny Set"') + PART,
    HEAD.replace('"MIT"', "3") + PART,
    HEAD + "part = []\n",
    HEAD + 'acess = "open"\n' + PART,
    HEAD + 'access = "secret"\n' + PART,
    HEAD + 'annotation = "robot"\n' + PART,
    HEAD + 'lineage = "us_busi"\n' + PART,
    HEAD + "known_defects = [1]\n" + PART,
    HEAD + 'expected = { images = "many" }\n' + PART,
    HEAD + "page = 3\n" + PART,
    HEAD + PART.replace('"ct"', '"smell"'),
    HEAD + PART.replace('converter = "coco"\n', ""),
    HEAD + PART.replace('{ image = "*.png" }', "{}"),
    HEAD + PART.replace('{ image = "*.png" }', "{ image = 1 }"),
    HEAD + PART + "spacing_mm = [0.5]\n",
    HEAD + PART + "spacing_mm = [0.5, 0]\n",
    HEAD + PART + 'exhaustive = "some"\n',
    HEAD + PART + 'field = "thorax"\n',
    HEAD + PART + "labels = { a = 1 }\n",
    HEAD + PART + 'split_words = { tr = "training" }\n',
    HEAD + PART + "detail = { view = 1 }\n",
    HEAD + PART + 'labels_by_name = { enabled = "yes" }\n',
    HEAD + PART + "colour = true\n",
)
# What only the label tree can refuse.
CONTRADICTIONS = {
    'labels = { a = "kidny" }\n': "'kidney'",
    'field = ["thorxa"]\n': "thorxa",
    'field = ["left lung"]\n': "without a side",
    'field = ["lung nodule"]\n': "anatomy, not findings",
    'field = ["thorax"]\nlabels = { a = "kidney" }\n': "cannot show",
    'impossible = ["lung"]\nlabels = { a = "lung nodule" }\n': "cannot show",
    'labels = { a = "cell nucleus" }\n': "cannot show",  # in CT
}


def write(folder: Path, toml: str) -> Path:
    path = folder / "tiny.toml"
    path.write_text(toml)
    return path


@pytest.mark.parametrize("name", source_names())
def test_every_source_fits_the_schema(name):
    data = tomllib.loads((shelf("datasets") / f"{name}.toml").read_text(encoding="utf-8"))
    assert [f"{error.instance_path}: {error.message}" for error in CHECKER.iter_errors(data)] == []


@pytest.mark.parametrize("toml", GOOD)
def test_both_accept(toml, tmp_path):
    assert CHECKER.is_valid(tomllib.loads(toml))
    assert load_source(write(tmp_path, toml)).name == "tiny"


@pytest.mark.parametrize("toml", BAD)
def test_both_refuse(toml, tmp_path):
    assert not CHECKER.is_valid(tomllib.loads(toml))
    with pytest.raises(SourceError, match=r"tiny\.toml"):
        load_source(write(tmp_path, toml))


@pytest.mark.parametrize("lines", CONTRADICTIONS)
def test_the_tree_refuses_what_contradicts_itself(lines, tmp_path):
    with pytest.raises(SourceError, match=CONTRADICTIONS[lines]):
        load_source(write(tmp_path, HEAD + PART + lines))


def test_the_schema_knows_the_keys_and_modalities_of_the_code(tmp_path):
    assert tuple(SCHEMA["$defs"]["part"]["properties"]["modality"]["enum"]) == MODALITIES
    for toml, keys in ((HEAD + "oops = 1\n" + PART, SCHEMA["properties"]),
                       (HEAD + PART + "oops = 1\n", SCHEMA["$defs"]["part"]["properties"])):  # fmt: skip
        with pytest.raises(SourceError) as refused:
            load_source(write(tmp_path, toml))
        assert str(refused.value).partition("allowed: ")[2].rstrip(".").split(", ") == sorted(keys)


def test_the_facts_of_a_source_are_what_its_parts_say(tmp_path):
    part = PART + 'exhaustive = ["lung", "left kidney"]\nfield = ["chest", "abdomen"]\n'
    source = load_source(write(tmp_path, HEAD + part + part.replace("[[part]]", '[[part]]\nname = "again"')))
    facts = {"exhaustive": ["abdomen.kidney@left", "thorax.lung"], "field": ["abdomen", "thorax"]}
    assert source.matrix == {"ct": [facts]}
