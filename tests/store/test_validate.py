import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medglip import store
from medglip.errors import DatasetError
from medglip.records.masks import rle_of_mask
from medglip.store.schema import SCHEMAS
from medglip.store.validate import LISTED, runs_of_counts, validate
from medglip.store.write import write_part


def rewrite(path: Path, table: str, change: Callable[[list[dict]], None]) -> None:
    """Plant a fault in a table, as a faulty writer would: the manifest's hashes fit."""
    file = next(path.glob(f"{table}/*.parquet"))
    rows = pq.read_table(file).to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, SCHEMAS[table]), file)
    manifest = json.loads((path / "manifest.json").read_text())
    entry = manifest["parts"]["made_up-0"]["files"][file.relative_to(path).as_posix()]
    entry.update(bytes=file.stat().st_size, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    (path / "manifest.json").write_text(json.dumps(manifest))


def first(**values: object) -> Callable[[list[dict]], None]:
    return lambda rows: rows[0].update(values)


def second(**values: object) -> Callable[[list[dict]], None]:
    return lambda rows: rows[1].update(values)


def test_a_clean_dataset_has_no_problem(dataset_path):
    done = []
    assert validate(dataset_path, on_progress=lambda number, total: done.append((number, total))) == []
    assert done[-1] == (7, 7)


FAULTS = [
    ("images", first(modality="x-ray"), "modality: "),
    ("images", first(licence=" "), "licence: "),
    ("images", first(row_mm=0.0), "spacing_mm"),
    ("images", first(id="G" * 16), "not in the dataset"),
    ("images", lambda rows: rows.append(rows[-1]), "more than once"),
    ("images", lambda rows: rows.pop(), "the tables hold"),
    ("images", first(n_regions=1), "n_regions"),
    ("images", second(width=3), "is not inside"),
    ("images", first(width=90), "its row says"),
    ("images", first(bits=16), "its row says"),
    ("images", first(sha256="0" * 64), "The tar member at its place"),
    ("images", first(tar_offset=700), "no member begins"),
    ("images", second(absent=["abdomen.kidney"]), "is listed as absent"),
    ("images", first(exhaustive=["abdomen.unicorn"]), "not in the label tree"),
    ("images", lambda rows: rows[3].update(split="test"), "several splits: test, train"),
    ("images", first(body_region="unicorn"), "not in the label tree"),
    ("images", first(modality_detail='{"UID": "1.2.840.10008.5.1.4.1.1.2"}'), "a DICOM UID"),
    ("images", first(file="/home/me/scan.dcm"), "an absolute path"),
    ("regions", first(label="abdomen.unicorn"), "not in the label tree"),
    ("regions", first(laterality="port"), "laterality"),
    ("regions", first(phrases=[], phrase_kinds=[]), "phrases"),
    ("regions", first(phrases=[" "]), "phrases/0/text"),
    ("regions", first(phrases=["DOE^JOHN"]), "a person's name"),
    ("regions", first(x1=900.0), "is not inside"),
    ("regions", first(x0=float("nan")), "is not inside"),
    ("regions", first(x0=0.0), "is not that of the mask"),
    ("regions", first(area_px=7), "the table says 7"),
    ("regions", first(rle="00"), "does not decode"),
    ("regions", first(split="val"), "is not that of its image"),
    ("regions", first(id="x", attributes='{"scanned": "2009-02-14"}'), "a date"),
    ("regions", first(attributes="{"), "cannot be put together"),
    ("regions", lambda rows: rows.reverse(), "not in their place"),
    ("texts", first(text="Seen on 20090214."), "a date"),
    ("texts", first(text="See C:\\Users\\me\\x.dcm"), "an absolute path"),
    ("texts", first(kind="poem"), "texts/0/kind"),
    ("volumes", first(shape_k=0), "shape_kji"),
    ("volumes", lambda rows: rows[0]["instances"][0].update(label="unicorn"), "objects of volumes"),
    ("rejects", first(detail="'/data/DOE/1.dcm' is broken."), "an absolute path"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "change", "words"), FAULTS)
def test_a_planted_fault_is_found(dataset_path, table, change, words):
    rewrite(dataset_path, table, change)
    errors = [problem for problem in validate(dataset_path) if problem.level == "error"]
    assert any(words in problem.what for problem in errors), errors


def test_a_public_file_name_that_looks_like_a_uid_is_only_noted(dataset_path):
    rewrite(dataset_path, "images", first(file="1.3.6.1.4.1.14519.5.2.1/20090214.dcm"))
    assert {problem.level for problem in validate(dataset_path)} == {"note"}


@pytest.mark.parametrize("word", ["shards", "texts", "images"])
def test_a_missing_or_changed_file_is_found(dataset_path, word):
    file = next(dataset_path.glob(f"{word}/*"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    assert any("the file was changed" in problem.what and word in problem.where for problem in validate(dataset_path))
    file.unlink()
    assert any("missing" in problem.what and word in problem.where for problem in validate(dataset_path))


def test_a_changed_pixel_is_found(tmp_path, plain_picture):
    picture = plain_picture(1)
    write_part(tmp_path / "d", "made_up-0", [picture])
    other = "1" * 64
    rewrite(tmp_path / "d", "images", first(sha256=other))
    shard = next(tmp_path.glob("d/shards/*"))
    shard.write_bytes(shard.read_bytes().replace(store.pixel_sha256(picture.pixels).encode(), other.encode()))
    what = [problem.what for problem in validate(tmp_path / "d")]
    assert any("do not hash" in text or "no member" in text for text in what)


def test_a_column_of_another_type_is_found(dataset_path):
    file = next(dataset_path.glob("texts/*"))
    table = pq.read_table(file)
    pq.write_table(table.drop_columns(["kind"]), file)
    assert any("'kind' is not there" in problem.what for problem in validate(dataset_path))


@pytest.mark.parametrize("content", ["{", '{"schema_version": "9.0"}'])
def test_a_broken_manifest_is_one_problem(dataset_path, content):
    (dataset_path / "manifest.json").write_text(content)
    assert [problem.level for problem in validate(dataset_path)] == ["error"]
    assert [problem.level for problem in validate(dataset_path / "nowhere")] == ["error"]


def test_counts_that_do_not_add_up_are_found(dataset_path):
    manifest = json.loads((dataset_path / "manifest.json").read_text())
    manifest["counts"]["labels"] = {}
    (dataset_path / "manifest.json").write_text(json.dumps(manifest))
    assert any("not the sums" in problem.what for problem in validate(dataset_path))


def test_an_absolute_path_in_the_manifest_is_found(tmp_path, plain_picture):
    write_part(tmp_path / "d", "p", [plain_picture(1)], info={"input": "/home/me/data"})
    assert any("absolute path" in problem.what for problem in validate(tmp_path / "d"))


def test_identical_pixels_in_two_splits_are_found(tmp_path, plain_picture):
    one = plain_picture(1, split="train", group="a")
    two = one._replace(record=replace(one.record, id="b" * 16, split="test", group="b"))
    write_part(tmp_path / "d", "p", [one, two])
    assert any("identical pixels" in problem.where for problem in validate(tmp_path / "d"))


def test_a_partial_copy_is_noted(tmp_path, plain_picture):
    info = {"source": "made_up", "expected": {"images": 780, "cases": 2}, "cases": {"a": "1", "b": "2"}}
    write_part(tmp_path / "d", "p", [plain_picture(n) for n in range(3)], info=info)
    notes = validate(tmp_path / "d")
    assert [(note.level, note.what) for note in notes] == [("note", "partial copy: 3 of 780 images.")]


def test_many_problems_are_counted(tmp_path, plain_picture):
    pictures = [plain_picture(n) for n in range(LISTED + 30)]
    write_part(tmp_path / "d", "made_up-0", pictures)
    rewrite(tmp_path / "d", "images", lambda rows: [row.update(file="/x/y/z.png") for row in rows])
    problems = validate(tmp_path / "d")
    assert len(problems) == LISTED + 1
    assert "30 more" in problems[-1].what


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)))
@settings(max_examples=60, deadline=None)
def test_runs_are_those_of_the_mask(mask):
    runs = runs_of_counts(rle_of_mask(mask).counts)
    values = np.repeat(np.arange(len(runs)) % 2, runs)
    assert np.array_equal(values.reshape(mask.shape, order="F"), mask)


@given(st.text(alphabet=[chr(code) for code in range(40, 127)], max_size=12))
@settings(max_examples=60, deadline=None)
def test_any_text_is_runs_or_none(text):
    runs = runs_of_counts(text)
    assert runs is None or (runs.min() >= 0 and runs.dtype == np.int64)


def test_a_large_mask_has_its_runs():
    mask = np.zeros((3000, 4000), bool)
    mask[:, 2000:] = True
    mask[5, 3999] = False
    assert runs_of_counts(rle_of_mask(mask).counts).tolist() == [6_000_000, 5_997_005, 1, 2994]


def test_validate_reads_what_open_refuses(tmp_path):
    with pytest.raises(DatasetError):
        store.open(tmp_path)
    assert validate(tmp_path)[0].level == "error"
