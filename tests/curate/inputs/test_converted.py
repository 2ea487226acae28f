"""A source converted from an archive gives the bytes of one converted from its folder, and is resumed from either."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from medglip.curate import convert, load_source
from medglip.curate.inputs import beginning, opened_input

TOML = """
name = "toy"
title = "Toy"
licence = "CC0-1.0"
[[part]]
converter = "mask_images"
modality = "ultrasound"
patient = "{patient}"
exhaustive = "all"
files = { image = "images/{patient}_{n}.png", mask = "masks/{patient}_{n}.png" }
options = { kind = "binary", label = "tumor" }
[part.labels]
"tumor" = "breast tumor"
"""


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def source(tmp_path):
    (tmp_path / "toy.toml").write_text(TOML)
    return load_source(tmp_path / "toy.toml")


@pytest.fixture
def forms(tmp_path):
    """The same files as a folder, as a ZIP with a folder at its top, and as a TAR without one."""
    rng = np.random.default_rng(0)
    mask = np.zeros((40, 50), np.uint8)
    mask[5:25, 10:30] = 255
    files = {}
    for patient in "abc":
        files[f"images/{patient}_0.png"] = png(rng.integers(0, 255, (40, 50), dtype=np.uint8))
        files[f"masks/{patient}_0.png"] = png(mask)
    for name, content in files.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with zipfile.ZipFile(tmp_path / "download.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(f"Toy v1/{name}", content)
    with tarfile.open(tmp_path / "download.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "folder", ".")
    return [tmp_path / name for name in ("folder", "download.zip", "download.tar.gz")]


def converted(source, given, dataset):
    patterns = [pattern for part in source.parts for pattern in part.files.values()]
    with opened_input(given) as folder:
        return convert(source, beginning(folder, patterns), dataset)


def bytes_of(dataset):
    return {path.relative_to(dataset): path.read_bytes() for path in dataset.rglob("*") if path.is_file()}


def test_folder_and_archives_give_the_same_bytes(source, forms, tmp_path):
    datasets = [tmp_path / f"d{number}" for number in range(len(forms))]
    results = [converted(source, form, dataset) for form, dataset in zip(forms, datasets, strict=True)]
    assert [result.images for result in results] == [3, 3, 3]
    assert bytes_of(datasets[0]) == bytes_of(datasets[1]) == bytes_of(datasets[2])


def test_a_second_run_on_an_archive_finds_its_cases_done(source, forms, tmp_path):
    assert converted(source, forms[1], tmp_path / "d").skipped == 0
    before = bytes_of(tmp_path / "d")
    for form in forms:
        assert (again := converted(source, form, tmp_path / "d")).skipped == again.cases == 3
    assert bytes_of(tmp_path / "d") == before
