"""The main path as a user types it: phantom, convert, validate, stats, preview, train, evaluate, ground; exit codes."""

import json
import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def run(medglip_command):
    def typed(*words, code=0):
        done = subprocess.run([*medglip_command, *map(str, words)], capture_output=True, text=True, timeout=300)
        assert done.returncode == code, f"{words}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return typed


@pytest.fixture(scope="module")
def dataset(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    run("phantom", folder / "archive", "--cases", 2, "--seed", 3)
    facts = json.loads(run("convert", "phantom", folder / "archive", folder / "dataset", "--json").stdout)
    assert facts["images"] > 20
    assert facts["rejects"] == {}
    return folder / "dataset"


@pytest.fixture(scope="module")
def checkpoint(run, dataset, tmp_path_factory):
    config = tmp_path_factory.mktemp("config") / "brief.toml"
    recipe = Path(__file__).resolve().parents[2] / "medglip/configs/tiny.toml"
    lines = recipe.read_text().splitlines()
    config.write_text("\n".join("steps = 4" if line.startswith("steps") else line for line in lines))
    out = tmp_path_factory.mktemp("run")
    run("train", config, dataset, "--out", out)
    return out / "best"


@pytest.mark.slow
def test_dataset_is_clean_and_can_be_looked_at(run, dataset):
    assert "clean" in run("validate", dataset).stdout
    tables = json.loads(run("stats", dataset, "--json").stdout)
    assert {row["modality"] for row in tables["modalities"]} >= {"ct", "mr", "xray", "ultrasound", "fundus"}
    run("stats", dataset)
    page = Path(run("preview", dataset).stdout.strip())
    assert page.read_text(encoding="utf-8").count("<svg") >= 7


@pytest.mark.slow
def test_checkpoint_is_measured_and_grounds(run, dataset, checkpoint, tmp_path):
    figures = json.loads(run("evaluate", checkpoint, dataset, "--split", "train", "--json").stdout)
    assert 0.0 <= figures["ap50"] <= 1.0
    image = next((dataset.parent / "archive" / "fundus").rglob("*.png"))
    answer = json.loads(
        run("ground", checkpoint, image, "optic disc; optic cup", "--modality", "fundus", "--overlay",
            tmp_path / "o.png", "--json").stdout
    )  # fmt: skip
    assert [one["phrase"] for one in answer["phrases"]] == ["optic disc", "optic cup"]
    assert (tmp_path / "o.png").is_file()
    assert "no VQA head" in run("ask", checkpoint, image, "Is there an ulcer?", code=2).stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("convert", "no_such_source", ".", "x"), "no source"),
        (("convert", "us_busi", "no/such/folder", "x"), "is not there; give a folder"),
        (("stats", "."), "found no dataset"),
        (("ground", ".", "x.png", "liver"), "is not there"),
        (("ground", ".", "x.png", " ; "), "hold no words"),
        (("sources", "nowhere"), "no source"),
        (("inspect", "nothing"), "is not there"),
        (("phantom", ".", "--cases", "0"), "1 or more"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_code_2(run, words, message):
    done = run(*words, code=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_every_command_has_help_with_an_example(run):
    listed = run("--help").stdout
    commands = [line.split()[1] for line in listed.splitlines() if line.startswith("│ ") and line[2].isalpha()]
    assert len(commands) >= 13
    for command in commands:
        assert f"Example: medglip {command}" in " ".join(run(command, "--help").stdout.split())
