"""The guide of adding a source works as it stands there: its commands run one after the other, in an empty folder."""

import contextlib
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from medglip import store
from medglip.cli import app
from medglip.store.checks.validate import validate

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs/guide/add-a-source.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", GUIDE, re.DOTALL)
COMMANDS = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def worked(tmp_path_factory) -> tuple[Path, dict[str, Result]]:
    """The folder after all commands, and what each said. After the sketch is written, the TOML is the guide's."""
    folder = tmp_path_factory.mktemp("guide")
    said = {}
    with contextlib.chdir(folder):
        for command in COMMANDS:
            word, *rest = shlex.split(command)
            assert word == "medglip", command
            said[command] = CliRunner().invoke(app, rest)
            if rest[0] == "new-source":
                Path("skin_unit.toml").rename("sketched.toml")
                Path("skin_unit.toml").write_text(next(text for kind, text in BLOCKS if kind == "toml"))
    return folder, said


def test_every_command_runs(worked):
    _, said = worked
    assert len(said) == len(COMMANDS) > 8
    assert {command: done.output for command, done in said.items() if done.exit_code != 0} == {}


def test_the_sketch_is_what_the_guide_goes_on_from(worked):
    folder, said = worked
    sketched = tomllib.loads((folder / "sketched.toml").read_text())["part"][0]
    final = tomllib.loads((folder / "skin_unit.toml").read_text())["part"][0]
    assert sketched["converter"] == final["converter"]
    assert sketched["files"]["image"] == final["files"]["image"]
    assert sketched["files"]["about"] == final["files"]["about"]
    assert sketched["options"] == final["options"]
    assert set(sketched["labels"]) <= set(final["labels"])
    told = next(done.output for command, done in said.items() if " new-source " in f" {command} ")
    assert "to do: title" in told
    assert "to do: licence" in told


def test_the_dataset_of_the_guide_is_clean_and_keeps_patients_together(worked):
    folder, _ = worked
    assert [problem for problem in validate(folder / "skin") if problem.level == "error"] == []
    assert (folder / "skin/quality.html").stat().st_size > 1000
    assert (folder / "skin/report.html").stat().st_size > 1000
    records = list(store.open(folder / "skin").records())
    assert len(records) == 6
    assert len({record.keys.patient for record in records}) == 1  # one patient, twice examined
    assert all(record.texts and record.regions for record in records)
    assert all(record.absent for record in records)  # exhaustive: what was not marked is not there


def test_the_functions_of_a_converter_are_those_that_converters_have():
    names = re.findall(r"^def (\w+)\(part: Part", next(text for kind, text in BLOCKS if kind == "python"), re.MULTILINE)
    for path in (ROOT / "converters").glob("[a-z]*.py"):
        text = path.read_text(encoding="utf-8")
        assert all(
            re.search(rf"^(def {name}\(|{name} = |from .* import .*\b{name}\b)", text, re.MULTILINE) for name in names
        ), path


def test_the_guide_links_to_files_that_are_there():
    links = re.findall(r"\]\(([^)#]+\.md)\)", GUIDE)
    missing = [link for link in links if not (ROOT / "docs/guide" / link).is_file()]
    assert links
    assert missing == []
