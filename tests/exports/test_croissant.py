import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from medglip.exports import Choice, export
from medglip.exports.croissant import describe, document
from medglip.records.picture import Picture
from medglip.records.record import Origin, Phrase, Region
from medglip.store import Dataset, pixel_sha256, write_part
from medglip.store.checks.validate import validate
from medglip.store.schema import SCHEMAS


@pytest.fixture(scope="module")
def two_parts(tmp_path_factory, dataset, make_picture) -> Dataset:
    """The images of the shared dataset, and a second source whose licence is no SPDX id and whose spacing is unknown."""
    path = tmp_path_factory.mktemp("parts") / "dataset"
    about = {"source": "made_up", "title": "Made up", "citation": "Nobody 2020"}
    write_part(path, "made_up-0", [picture_of(dataset, image) for image in dataset.ids()], (), (), about)
    rng = np.random.default_rng(8)
    liver = Region("abdomen.liver", (1.0, 2.0, 9.0, 8.5), phrases=(Phrase("liver"),))
    facts = {"licence": "ask us", "split": "unassigned", "flags": ("burned_in_risk",), "modality": "mr"}
    others = [
        make_picture(
            rng.integers(0, 256, (20, 24), dtype=np.uint8),
            number,
            [liver],
            origin=Origin("ward", f"{number}.png", "c"),
            **facts,
        )
        for number in range(70, 73)
    ]
    about = {"source": "ward", "title": "Of the ward", "page": "https://example.org/ward", "access": "agreement"}
    write_part(path, "ward-0", others, (), (), about)
    return Dataset(path)


def picture_of(dataset: Dataset, image: str) -> Picture:
    return Picture(dataset.record(image), dataset.pixels(image))


@pytest.fixture(scope="module")
def folder(two_parts, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("croissant") / "out"
    export(two_parts, out, "croissant")
    return out


@pytest.fixture(scope="module")
def mlcroissant(tmp_path_factory):
    """The format's own reader, with a place of its own for the tars that it unpacks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROISSANT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield pytest.importorskip("mlcroissant")


def _records(mlcroissant, folder: Path, name: str) -> list[dict]:
    """A record set, texts as text. The reader keeps what it has read, so each reading takes a fresh one."""
    reader = mlcroissant.Dataset(str(folder / "croissant.json"))
    return [{key.partition("/")[2]: _text(value) for key, value in row.items()} for row in reader.records(name)]


def _text(value):
    if isinstance(value, list):
        return [_text(item) for item in value]
    if isinstance(value, dict):
        return {key.rpartition("/")[2]: _text(item) for key, item in value.items()}
    return value.decode() if isinstance(value, bytes) else value


def test_own_validator_finds_no_error(folder):
    pytest.importorskip("mlcroissant")
    command = [str(Path(sys.executable).with_name("mlcroissant")), "validate", "--jsonld", str(folder / "croissant.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = [line.strip() for line in done.stderr.splitlines() if line.strip().startswith("-")]
    # when it was published, only the publisher knows
    assert len(said) == 1, done.stderr
    assert "datePublished" in said[0]


@pytest.mark.parametrize("table", ["images", "regions", "texts"])
def test_reader_gives_back_the_tables(two_parts, folder, mlcroissant, table):
    found = _records(mlcroissant, folder, table)
    rows = two_parts.arrow(table, SCHEMAS[table].names).to_pylist()
    assert len(found) == len(rows) == two_parts.manifest["counts"][table]
    for mine, row in zip(found, rows, strict=True):
        assert mine.keys() == row.keys()
        for column, value in row.items():
            if column != "spans":
                assert mine[column] == value, column
            elif value:
                assert mine[column] == value


def test_reader_gives_back_the_pictures(two_parts, folder, mlcroissant):
    found = _records(mlcroissant, folder, "pngs")
    assert {row["sha256"] for row in found} == set(two_parts.arrow("images", ["sha256"])["sha256"].to_pylist())
    assert all(pixel_sha256(np.asarray(row["content"])) == row["sha256"] for row in found)


def test_splits_are_listed(folder, mlcroissant):
    assert [row["name"] for row in _records(mlcroissant, folder, "splits")] == ["train", "val", "test", "unassigned"]


def test_every_file_is_there_with_its_hash(folder):
    said = json.loads((folder / "croissant.json").read_text("utf-8"))
    files = [entry for entry in said["distribution"] if entry["@type"] == "cr:FileObject"]
    assert {Path(entry["contentUrl"]).suffix for entry in files} >= {".parquet", ".tar", ".json"}
    for entry in files:
        content = (folder / entry["contentUrl"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["contentSize"] == f"{len(content)} B"
    sets = {entry["@id"]: entry["includes"] for entry in said["distribution"] if entry["@type"] == "cr:FileSet"}
    assert len(sets["images-files"]) == 2
    assert all((folder / name).is_file() for name in sets["regions-files"])


def test_references_name_fields_that_exist(folder):
    said = json.loads((folder / "croissant.json").read_text("utf-8"))
    fields = {field["@id"]: field for table in said["recordSet"] for field in table["field"]}
    named = {name: field["references"]["field"]["@id"] for name, field in fields.items() if "references" in field}
    assert named == {"images/split": "splits/name", "regions/image_id": "images/id", "texts/image_id": "images/id"}
    assert set(named.values()) <= set(fields)
    assert all("description" in field for name, field in fields.items() if not name.startswith(("splits", "pngs")))


def test_responsible_fields_say_what_is_known(folder, two_parts):
    said = json.loads((folder / "croissant.json").read_text("utf-8"))
    assert "Of 7 images 1 have a pixel spacing" in said["rai:dataCollectionMissingData"]
    assert "burned-in text: 3; for a recognisable face: 0" in said["rai:personalSensitiveInformation"][-1]
    assert said["rai:dataAnnotationProtocol"] == [
        f"made_up: {len(two_parts.regions) - 3} regions, marked by people; marked by a model that the source ran; predicted by"
        " a model after the source was published.",
        "ward: 3 regions, marked by people.",
    ]
    assert (
        "Of the ward (3 images; the source is given out under an agreement; https://example.org/ward)"
        in said["rai:dataCollection"]
    )
    assert "3 images are in no split." in said["rai:dataLimitations"]
    licences = {(entry["name"], entry.get("url")) for entry in said["license"]}
    page = "https://spdx.org/licenses/{}.html"
    assert licences == {("CC-BY-4.0", page.format("CC-BY-4.0")), ("CC0-1.0", page.format("CC0-1.0")), ("ask us", None)}
    assert "Nobody 2020" in said["citeAs"]


def test_export_is_a_dataset_whose_pixels_take_no_second_place(folder, two_parts):
    again = Dataset(folder)
    assert list(again.records()) == list(two_parts.records())
    assert not [problem for problem in validate(folder) if problem.level == "error"]
    shards = list((folder / "shards").iterdir())
    assert shards
    assert all(os.path.samefile(path, two_parts.path / "shards" / path.name) for path in shards)


def test_copies_where_links_are_refused(tmp_path, two_parts, monkeypatch):
    def refuse(source, target):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    export(two_parts, tmp_path / "out", "croissant")
    again = Dataset(tmp_path / "out")
    assert list(again.records()) == list(two_parts.records())
    assert np.array_equal(again.pixels(0), two_parts.pixels(0))


def test_dataset_behind_a_url_is_copied(tmp_path, two_parts):
    url = "memory://croissant-export/dataset"
    for image in two_parts.ids()[:2]:
        write_part(url, f"part-{image}", [picture_of(two_parts, image)])
    export(remote := Dataset(url), tmp_path / "out", "croissant")
    assert list(Dataset(tmp_path / "out").records()) == list(remote.records())
    assert not [problem for problem in validate(tmp_path / "out") if problem.level == "error"]


@pytest.mark.parametrize("choice", [Choice("train"), Choice(min_side_px=5.0)], ids=["split", "size"])
def test_choice_is_a_dataset_of_its_own(tmp_path, two_parts, choice):
    counts = export(two_parts, tmp_path / "out", "croissant", choice=choice)
    again = Dataset(tmp_path / "out")
    assert list(again.records()) == list(choice.records(two_parts))
    assert counts["images"] == len(again)
    assert counts["regions"] == sum(len(record.regions) for record in again.records())
    for image in again.ids():
        assert np.array_equal(again.pixels(image), two_parts.pixels(image))
    assert not [problem for problem in validate(tmp_path / "out") if problem.level == "error"]
    assert json.loads((tmp_path / "out/croissant.json").read_text("utf-8")) == json.loads(json.dumps(document(again)))


def test_description_is_of_the_content_and_not_of_the_place(two_parts, folder):
    assert document(two_parts) == document(Dataset(folder))
    assert document(two_parts)["version"] != document(Dataset(_smaller(two_parts)))["version"]


def test_dataset_can_carry_its_own_description(two_parts):
    path = _smaller(two_parts)
    describe(Dataset(path))
    assert json.loads((path / "croissant.json").read_text("utf-8")) == json.loads(json.dumps(document(Dataset(path))))
    assert not [problem for problem in validate(path) if problem.level == "error"]


def test_a_column_that_some_file_is_too_old_to_have_is_not_described(two_parts, tmp_path):
    described = {field["@id"] for one in document(two_parts)["recordSet"] for field in one["field"]}
    path = Path(shutil.copytree(two_parts.path, tmp_path / "old"))
    for file in path.glob("texts/made_up-0*.parquet"):
        pq.write_table(pq.read_table(file).drop_columns(["answer"]), file)
    old = {field["@id"] for one in document(Dataset(path))["recordSet"] for field in one["field"]}
    assert described - old == {"texts/answer"}


def _smaller(dataset: Dataset) -> Path:
    path = dataset.path.parent / "smaller"
    if not path.exists():
        write_part(path, "made_up-0", [picture_of(dataset, dataset.ids()[0])])
    return path
