"""The conversion engine: resume, any number of workers, refusals; with masks in PNG as the source."""

import hashlib
import shutil

import numpy as np
import pytest
from PIL import Image

from medglip import store
from medglip.curate import convert, load_source
from medglip.errors import DatasetError, InputError, SourceError

TOML = """
name = "toy"
title = "Toy"
licence = "CC0-1.0"
names = "public"
[expected]
images = 10
[[part]]
converter = "mask_images"
modality = "ultrasound"
patient = "{patient}"
exhaustive = "all"
[part.files]
image = "images/{patient}_{n}.png"
mask = "masks/{patient}_{n}.png"
[part.options]
kind = "binary"
label = "tumor"
[part.labels]
"tumor" = "breast tumor"
"""


@pytest.fixture
def toy(tmp_path):
    (tmp_path / "toy.toml").write_text(TOML)
    folder = tmp_path / "in"
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for patient in "abc":
        for n in range(2):
            image = rng.integers(0, 255, (40, 50), dtype=np.uint8)
            mask = np.zeros((40, 50), np.uint8)
            mask[5 + n : 25, 10:30] = 255
            Image.fromarray(image).save(folder / "images" / f"{patient}_{n}.png")
            Image.fromarray(mask).save(folder / "masks" / f"{patient}_{n}.png")
    return tmp_path / "toy.toml", folder


def bytes_of(dataset):
    """Hash of every file of a dataset."""
    return {
        str(path.relative_to(dataset)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(dataset.rglob("*"))
        if path.is_file()
    }


def test_boxes_patients_and_splits(toy, tmp_path):
    source, folder = toy
    result = convert(source, folder, tmp_path / "d")
    dataset = store.open(tmp_path / "d")
    assert (result.cases, result.images, result.regions, dict(result.rejects)) == (6, 6, 6, {})
    boxes = {record.origin.case[-3:]: record.regions[0].box_xyxy for record in dataset.records()}
    assert boxes["a_0"] == (10, 5, 30, 25)
    assert boxes["a_1"] == (10, 6, 30, 25)
    images = dataset.images
    assert images["group"].nunique() == 3
    assert (images.groupby("group")["split"].nunique() == 1).all()


def test_same_bytes_for_any_number_of_workers(toy, tmp_path, monkeypatch):
    source, folder = toy
    monkeypatch.setattr("medglip.curate.plan.CASES_PER_PART", 4)
    convert(source, folder, tmp_path / "one", workers=1)
    convert(source, folder, tmp_path / "two", workers=2)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_a_stopped_run_goes_on_and_ends_the_same(toy, tmp_path, monkeypatch):
    source, folder = toy
    monkeypatch.setattr("medglip.curate.plan.CASES_PER_PART", 2)
    convert(source, folder, tmp_path / "whole")

    def stop(counts):
        if counts.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, folder, tmp_path / "halves", on_case=stop)
    result = convert(source, folder, tmp_path / "halves")
    assert result.skipped == 2  # the part that was whole
    assert bytes_of(tmp_path / "whole") == bytes_of(tmp_path / "halves")


def test_a_second_run_changes_nothing(toy, tmp_path):
    source, folder = toy
    convert(source, folder, tmp_path / "d")
    before = bytes_of(tmp_path / "d")
    assert convert(source, folder, tmp_path / "d").skipped == 6
    assert bytes_of(tmp_path / "d") == before


def test_one_broken_file_is_listed_and_the_rest_is_done(toy, tmp_path):
    source, folder = toy
    (folder / "images" / "b_0.png").write_bytes(b"\x89PNG broken")
    (folder / "masks" / "z_9.png").write_bytes(b"no image for this")
    result = convert(source, folder, tmp_path / "d")
    rejects = store.open(tmp_path / "d").rejects
    assert result.images == 5
    assert sorted(rejects["reason"]) == ["orphan", "unreadable_file"]
    assert rejects.set_index("reason").loc["unreadable_file", "file"] == "images/b_0.png"
    again = convert(source, folder, tmp_path / "d")
    assert (again.skipped, sum(again.rejects.values())) == (6, 0)
    assert len(store.open(tmp_path / "d").rejects) == 2


def test_new_cases_are_added(toy, tmp_path):
    source, folder = toy
    convert(source, folder, tmp_path / "d")
    shutil.copy(folder / "masks" / "a_0.png", folder / "masks" / "d_0.png")
    shutil.copy(folder / "masks" / "a_1.png", folder / "images" / "d_0.png")
    result = convert(source, folder, tmp_path / "d")
    assert (result.images, result.skipped) == (1, 6)
    assert len(store.open(tmp_path / "d")) == 7


def test_bad_input_is_refused_in_one_sentence(toy, tmp_path):
    source, folder = toy
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("x")
    for place, message in (("none", "is not there"), ("empty", "holds no file"), ("other", "holds nothing of")):
        with pytest.raises(InputError, match=message):
            convert(source, tmp_path / place, tmp_path / "d")
    assert not (tmp_path / "d").exists()
    with pytest.raises(SourceError, match="no source 'us_bussi'; nearest known: us_busi"):
        convert("us_bussi", folder, tmp_path / "d")


def test_another_version_of_the_source_is_refused(toy, tmp_path):
    source, folder = toy
    convert(source, folder, tmp_path / "d")
    source.write_text(TOML.replace("Toy", "Toy 2"))
    with pytest.raises(DatasetError, match="another version"):
        convert(source, folder, tmp_path / "d")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('modality = "ultrasound"', 'modality = "sonar"', "sonar"),
        ('licence = "CC0-1.0"', 'licence = ""', "licence"),
        ('"breast tumor"', '"brest tumor"', "breast"),
        ("[expected]", "[expectation]", "expectation"),
        ("name =", "name", "well-formed"),
    ],
)
def test_a_wrong_description_is_refused(toy, old, new, message):
    source, _ = toy
    source.write_text(TOML.replace(old, new))
    with pytest.raises(SourceError, match=message):
        load_source(source)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [("mask_images", "mesk_images", "no converter"), ('kind = "binary"', "kinds = 1", "no option 'kinds'")],
)
def test_a_wrong_converter_or_option_is_refused(toy, tmp_path, old, new, message):
    source, folder = toy
    source.write_text(TOML.replace(old, new))
    with pytest.raises(SourceError, match=message):
        convert(source, folder, tmp_path / "d")
