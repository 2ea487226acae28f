"""The weights inside medglip, as somebody uses them right after installation: no training, no download, no network."""

import hashlib
import json

import pytest
from PIL import Image
from typer.testing import CliRunner

import medglip
from medglip.cli import app
from medglip.errors import InputError
from medglip.evaluate import evaluate
from medglip.model.encoders import lite as encoder
from medglip.model.encoders import minilm
from medglip.model.shipped import checkpoint_folder
from medglip.phantoms import write_archive

pytestmark = pytest.mark.slow
SEED = 7  # of phantoms that the weights have not seen: they learned from those of seed 1000


@pytest.fixture(autouse=True)
def _nothing_is_looked_for_elsewhere(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("weights were looked for outside medglip")

    monkeypatch.setattr(encoder, "find_weights", refuse)
    monkeypatch.setattr(minilm, "find_weights", refuse)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    write_archive(folder / "archive", cases=3, seed=SEED)
    medglip.convert("phantom", folder / "archive", folder / "dataset")
    return medglip.open(folder / "dataset")


@pytest.fixture(scope="module")
def picture(phantoms, tmp_path_factory):
    """A CT slice as a PNG, and its record."""
    record = max(
        (r for r in phantoms.records() if r.modality == "ct"), key=lambda r: (len({x.concept for x in r.regions}), r.id)
    )
    path = tmp_path_factory.mktemp("picture") / "ct.png"
    Image.fromarray(phantoms.display(record.id)).save(path)
    return path, record


@pytest.fixture
def run():
    def typed(*words):
        done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    return typed


def test_it_finds_things_in_images_that_it_has_not_seen(phantoms):
    figures = evaluate("lite", [phantoms], split="all", limit=36)
    assert figures["ap50"] > 0.4
    assert figures["absence_auroc"] > 0.7
    assert set(figures["by_modality"]) == {"ct", "mr", "xray", "ultrasound", "endoscopy", "dermoscopy", "fundus"}


def test_it_grounds_answers_and_reports_by_its_name(run, picture, tmp_path):
    path, record = picture
    names = [medglip.label_tree().concept_name(region.concept) for region in record.regions]
    found = json.loads(
        run("ground", "lite", path, "; ".join(names), "--modality", "ct", "--overlay", tmp_path / "o.png", "--json")
    )
    assert any(one["regions"] for one in found["phrases"])
    assert Image.open(tmp_path / "o.png").width >= record.width
    assert run("ask", "lite", path, "Which organs are visible?", "--modality", "ct").strip()
    assert "Impression" in run("report", "lite", path, "--modality", "ct")


def test_its_evaluation_is_written_here_and_not_into_the_package(run, phantoms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inside = sorted(checkpoint_folder("lite").parent.iterdir())
    run("evaluate", "lite", phantoms.path, "--split", "all", "--limit", 3, "--draws", 5)
    assert (tmp_path / "evaluation-all-lite" / "index.html").is_file()
    assert sorted(checkpoint_folder("lite").parent.iterdir()) == inside


def test_its_cards_are_of_these_very_weights(run):
    card, page = json.loads(run("card", "lite", "--json")), run("card", "lite")
    weights = (checkpoint_folder("lite") / "model.safetensors").read_bytes()
    assert card["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    assert card["weights_sha256"] in page
    known = medglip.Grounder.load("lite").info.concepts
    assert [one["concept"] for one in card["concepts"]] == list(known)
    assert all(one["n_train"] > 0 and one["licences"] and one["sources"] for one in card["concepts"])
    for said in ("Where it works and where it fails", "must not be used for", "Figures on real images"):
        assert said in page


def test_training_goes_on_from_it(run, phantoms, tmp_path):
    run("train", "lite_shipped", phantoms.path, "--out", tmp_path / "run", "--from", "lite", "--steps", 1, "--set", "batch=2")
    assert medglip.Grounder.load(tmp_path / "run" / "best").info.trained["steps"] == 1


def test_a_checkpoint_without_a_card_is_told(tmp_path):
    done = CliRunner().invoke(app, ["card", str(tmp_path)])
    assert isinstance(done.exception, InputError)
    assert "has no card" in str(done.exception)


def test_the_fast_demo_ends_in_a_page_with_measured_figures(tmp_path):
    from medglip.demo import run_demo

    page = run_demo(tmp_path / "demo", cases=3, seed=SEED, fast=True)
    summary = json.loads((page.parent / "summary.json").read_text())
    assert 0 < summary["ap50"] <= 1
    assert summary["vqa_accuracy"] > summary["vqa_majority"]
    assert "ap50_without_modality" not in summary
    text = page.read_text(encoding="utf-8")
    assert "The model shipped with medglip" in text
    assert 'href="#training"' not in text


def test_a_fast_demo_of_real_sources_is_refused(tmp_path):
    from medglip.demo import run_demo

    with pytest.raises(InputError, match="medglip evaluate lite"):
        run_demo(tmp_path / "demo", real=tmp_path, fast=True)
    assert not (tmp_path / "demo").exists()
