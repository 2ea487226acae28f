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

from medglip import store
from medglip.errors import DatasetError
from medglip.records.picture import Picture
from medglip.records.record import Phrase, Region, Span, Text
from medglip.store.checks.dataset_checks import box_mm_of
from medglip.store.checks.problems import ADVICE, LISTED, errors
from medglip.store.checks.validate import validate
from medglip.store.schema import SCHEMAS
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


def third(**values: object) -> Callable[[list[dict]], None]:
    return lambda rows: rows[2].update(values)


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
    ("regions", first(phrases=[" "]), "phrases/*.text"),
    ("regions", first(phrases=["DOE^JOHN"]), "a person's name"),
    ("regions", first(x1=900.0), "is not inside"),
    ("regions", first(x0=float("nan")), "is not inside"),
    ("regions", first(x0=0.0), "is not that of the mask"),
    ("regions", first(area_px=7), "the table says 7"),
    ("regions", first(rle="00"), "does not decode"),
    ("regions", first(split="val"), "is not that of its image"),
    ("regions", first(id="x", attributes='{"scanned": "2009-02-14"}'), "a date"),
    ("regions", first(attributes="{"), "a JSON object"),
    ("regions", lambda rows: rows.reverse(), "not in the order"),
    ("texts", first(text="Seen on 20090214."), "a date"),
    ("texts", first(text="See C:\\Users\\me\\x.dcm"), "an absolute path"),
    ("texts", first(kind="poem"), "texts/*/kind"),
    ("images", first(window_low=300.0), "not from low to high"),
    ("regions", first(concept="abdomen.kidney@right"), "is not label@side"),
    ("regions", first(width_mm=1.0), "width_mm is not"),
    ("regions", first(area_px=None), "without area_px"),
    ("regions", first(long_axis_mm=900.0, short_axis_mm=2.0), "do not fit its box"),
    ("regions", first(long_axis_mm=2.0, short_axis_mm=1.0), "do not fit its box"),
    ("regions", lambda rows: rows[2].update(long_axis_mm=3.0, short_axis_mm=2.0), "no mask or no spacing"),
    ("regions", first(long_axis_mm=9.0), "all of them, or none"),
    ("regions", second(parents=["nobody"]), "names the parent 'nobody'"),
    ("regions", first(phrases=["seen by jane.doe@hospital.org"]), "an e-mail address"),
    ("regions", first(phrases=["of 12345678"]), "a number like those"),
    ("regions", first(attributes='{"PatientName": "Doe"}'), "a patient's name or number"),
    ("texts", first(kind="question"), "because its kind is question"),
    ("texts", first(answer="No."), "because its kind is not question"),
    ("texts", third(answer=" "), "text with words"),
    ("texts", third(answer="Yes, on 20090214."), "a date"),
    ("texts", third(answer="Of 12345678."), "a number like those"),
    ("texts", first(text="MRN: 4711."), "a patient's name or number"),
    ("texts", first(text="Seen on 14.02.2009."), "a date"),
    ("texts", first(spans=[{"start": 3, "end": 90, "regions": ["0000000000000001-000"]}]), "not inside the text"),
    ("texts", first(spans=[{"start": 0, "end": 4, "regions": ["nobody"]}]), "names 'nobody'"),
    ("texts", first(image_id="f" * 16), "not in the dataset"),
    ("volumes", lambda rows: rows[0]["instances"][0].update(box_kji=[0, 1, 2, 3, 4, 500]), "is not inside 4 x 30 x 31"),
    ("volumes", lambda rows: rows[0]["instances"][0].update(box_mm=[0.0] * 6), "is not that of its voxels"),
    ("volumes", first(shape_k=0), "shape_kji"),
    ("volumes", lambda rows: rows[0]["instances"][0].update(label="unicorn"), "objects of volumes"),
    ("rejects", first(detail="'/data/DOE/1.dcm' is broken."), "an absolute path"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "change", "words"), FAULTS)
def test_a_planted_fault_is_found(dataset_path, table, change, words):
    rewrite(dataset_path, table, change)
    errors = [problem for problem in validate(dataset_path) if problem.level == "error"]
    assert any(words in problem.what for problem in errors), errors
    assert all(problem.check in ADVICE for problem in errors)


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


def near_pictures(plain_picture) -> list[Picture]:
    """A picture in train, nearly the same in test, another one with a near hash in val, and two without a hash."""
    rng = np.random.default_rng(0)
    scene, other = (np.kron(rng.integers(0, 200, (8, 8)), np.ones((16, 16))).astype(np.uint8) for _ in range(2))
    changes = [
        (scene, {"split": "train", "group": "a", "perceptual_hash": "0123456789abcdef"}),
        (
            scene + rng.integers(0, 9, scene.shape, np.uint8),
            {"split": "test", "group": "b", "perceptual_hash": "0123456789abcdee"},
        ),
        (other, {"split": "val", "group": "c", "perceptual_hash": "0123456789abcdfe"}),
        (scene + np.uint8(9), {"split": "train", "group": "d"}),
        (scene + np.uint8(8), {"split": "test", "group": "e"}),
    ]
    pictures = []
    for number, (pixels, change) in enumerate(changes):
        record = plain_picture(number).record
        size = {"width": 128, "height": 128, "sha256": store.pixel_sha256(pixels)}
        pictures.append(Picture(replace(record, **size, **change), pixels))
    return pictures


def test_images_that_look_alike_in_two_splits_are_errors_where_their_pixels_agree(tmp_path, plain_picture):
    write_part(tmp_path / "d", "p", near_pictures(plain_picture))
    [problem] = validate(tmp_path / "d")
    assert (problem.level, problem.check, problem.image) == ("error", "twins", f"{0:016x}")
    assert f"{1:016x}" in problem.what
    assert "train and test" in problem.what
    notes = validate(tmp_path / "d", check_pixels=False)
    assert {(note.level, note.check) for note in notes} == {("note", "twins")}
    assert len(notes) == 3


def test_spans_that_fit_are_clean(tmp_path, plain_picture):
    region = Region("abdomen.liver", (0, 0, 4, 2), phrases=(Phrase("liver"),))
    text = Text("The liver is fine.", spans=(Span(4, 9, (f"{1:016x}-000",)),))
    write_part(tmp_path / "d", "p", [plain_picture(1, regions=(region,), texts=(text,))])
    assert validate(tmp_path / "d") == []


def test_a_box_in_mm_is_around_all_corners():
    oblique = [0.0, -2.0, 0.0, 10.0, 1.5, 0.0, 0.0, 20.0, 0.0, 0.0, 3.0, 30.0, 0.0, 0.0, 0.0, 1.0]
    # voxel (k, j, i) = (0, 0, 0) alone: half a voxel around the centre (10, 20, 30)
    assert box_mm_of([0, 0, 0, 1, 1, 1], oblique).tolist() == [9.0, 19.25, 28.5, 11.0, 20.75, 31.5]


@pytest.mark.parametrize("documents", [False, True])
def test_documents_are_checked_on_request(dataset_path, documents):
    rewrite(dataset_path, "images", first(licence=" "))
    found = [problem.where for problem in validate(dataset_path, documents=documents) if problem.check == "schema"]
    assert found == [f"image {0:016x}"] + [f"record {0:016x}"] * documents


def test_without_pixels_a_shard_must_be_there_and_as_long(dataset_path):
    shard = next(dataset_path.glob("shards/*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 255
    shard.write_bytes(content)
    assert validate(dataset_path, check_pixels=False) == []
    shard.write_bytes(content[:-1])
    assert [problem.where for problem in validate(dataset_path, check_pixels=False)] == [f"shards/{shard.name}"]


def test_a_flipped_bit_in_a_picture_names_the_image_and_the_shard(dataset_path):
    shard = next(dataset_path.glob("shards/*"))
    place = store.open(dataset_path).images.iloc[3]
    content = bytearray(shard.read_bytes())
    content[place.tar_offset + place.tar_bytes // 2] ^= 4
    shard.write_bytes(content)
    found = [problem for problem in validate(dataset_path) if problem.check == "pixels"]
    assert [problem.image for problem in found] == [place.id]
    assert shard.name in found[0].what


@pytest.mark.parametrize("table", ["images", "regions", "texts"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.97])
def test_a_flipped_bit_in_a_table_is_one_problem_that_names_it(dataset_path, table, share):
    file = next(dataset_path.glob(f"{table}/*"))
    content = bytearray(file.read_bytes())
    content[int(share * len(content))] ^= 1
    file.write_bytes(content)
    problems = validate(dataset_path)
    assert problems
    assert {problem.where for problem in problems} <= {f"{table}/{file.name}", table}


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_a_manifest_cut_off_is_one_problem(template, tmp_path_factory, length):
    path = tmp_path_factory.mktemp("cut")
    text = (template / "manifest.json").read_text()
    (path / "manifest.json").write_text(text[: length % (len(text) - 2)])
    problems = validate(path)
    assert [(problem.level, problem.where) for problem in problems] == [("error", str(path / "manifest.json"))]


def test_errors_count_those_that_are_not_listed(tmp_path, plain_picture):
    write_part(tmp_path / "d", "made_up-0", [plain_picture(n) for n in range(LISTED + 5)])
    rewrite(tmp_path / "d", "images", lambda rows: [row.update(licence=" ") for row in rows])
    assert errors(validate(tmp_path / "d")) == LISTED + 5
    assert len(validate(tmp_path / "d", listed=10**6)) == LISTED + 5


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


def test_validate_reads_what_open_refuses(tmp_path):
    with pytest.raises(DatasetError):
        store.open(tmp_path)
    assert validate(tmp_path)[0].level == "error"
