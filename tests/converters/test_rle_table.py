import gzip
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from medglip.converters.rle_table import Form, mask_of_code
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian
from small_sources import boxes, converted, noise, save

from medglip.curate import load_source
from medglip.curate.cases import Refused
from medglip.curate.engine import found_tasks, run
from medglip.errors import InputError, SourceError
from medglip.records import ImageRecord, Picture

FORMS = [Form(order, first, relative) for order in ("columns", "rows") for first in (0, 1) for relative in (False, True)]
KAGGLE = Form()  # absolute, from 1, down the columns
PART = """
converter = "rle_table"
modality = "xray"
exhaustive = "all"
files = {{ image = "images/{{case}}.{{ending:png|dcm}}", table = "{{table:[a-z]+}}.csv{{packed:(?:[.]gz)?}}" }}
options = {{ {options} }}
labels = {{ Nodule = "lung nodule", Effusion = "pleural effusion", Device = "skip" }}
"""
COLUMNS = 'columns = { image = "file", code = "rle", label = "finding" }'
NODULE, EFFUSION, AIR = "thorax.lung.nodule", "thorax.pleura.effusion", "thorax.pleura.pneumothorax"


def part(options: str = "", columns: str = COLUMNS) -> str:
    return PART.format(options=", ".join(filter(None, [columns, options])))


def folder(tmp_path: Path, table: str | bytes, *images: str, name: str = "codes.csv") -> Path:
    where = tmp_path / "in"
    for image in images or ("a.png",):
        save(where, f"images/{image}", noise())
    (where / name).write_bytes(table if isinstance(table, bytes) else table.encode())
    return where


def rectangle(x0: int, y0: int, x1: int, y1: int, size_hw: tuple[int, int] = (40, 60)) -> np.ndarray:
    mask = np.zeros(size_hw, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def encoded(mask: np.ndarray, form: Form = KAGGLE) -> str:
    """The code of a mask, written pixel by pixel and so unlike the way it is read."""
    flat = (mask if form.order == "rows" else mask.T).ravel().tolist()
    edges = [at for at, (one, two) in enumerate(pairwise([False, *flat, False])) if one != two]
    words, last = [], 0
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        words += [start - last + (form.first if not last or not form.relative else 0), stop - start]
        last = stop if form.relative else 0
    return " ".join(map(str, words))


def dicom(path: Path, pixels: np.ndarray) -> None:
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = ComputedRadiographyImageStorage, path.stem
    data.Modality, data.PatientID, data.ViewPosition = "CR", path.stem, "PA"
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.Rows, data.Columns = pixels.shape
    data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
    data.PixelData = pixels.tobytes()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


@given(st.data())
def test_every_mask_comes_back_from_every_form(data: st.DataObject) -> None:
    size_hw = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    mask = data.draw(arrays(bool, size_hw))
    if not mask.any():
        mask[0, 0] = True
    for form in FORMS:
        assert np.array_equal(mask_of_code(encoded(mask, form), size_hw, form), mask)


@given(st.lists(st.integers(0, 30), max_size=8))
def test_any_numbers_are_a_mask_of_their_lengths_or_are_refused(numbers: list[int]) -> None:
    for form in FORMS:
        mask = None
        with suppress(Refused):
            mask = mask_of_code(" ".join(map(str, numbers)), (4, 6), form)
        if mask is not None:
            assert mask.shape == (4, 6)
            assert mask.sum() == sum(numbers[1::2])
            runs = list(zip(numbers[::2], numbers[1::2], strict=True))
            if not form.relative:  # then the order of the runs says nothing
                turned = " ".join(f"{start} {length}" for start, length in reversed(runs))
                assert np.array_equal(mask_of_code(turned, (4, 6), form), mask)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("1 2 3", "has 3 numbers"), ("1 2 2 1", "overlap"), ("5 2 4 2", "overlap"), ("1 0", "run 1 of"),
        ("24 2", "ends at 23"), ("0 1", "takes the pixels -1 to -1"), ("1 2 -1 3", "whole numbers"), ("1.0 2", "whole numbers"),
        ("none", "whole numbers"), ("1 99999999999999999999", "larger than"), ("1 2 " * 30 + "3", "..."),
    ],
)  # fmt: skip
def test_a_code_that_cannot_be_is_refused_with_what_is_wrong(code: str, words: str) -> None:
    with pytest.raises(Refused) as caught:
        mask_of_code(code, (4, 6))
    assert caught.value.reason == "bad_rle"
    assert words in str(caught.value)


def test_runs_may_come_in_any_order_and_the_last_pixel_counts() -> None:
    mask = mask_of_code("24 1 0001 2", (4, 6))
    assert np.argwhere(mask).tolist() == [[0, 0], [1, 0], [3, 5]]


def image_of(number: int) -> np.ndarray:
    return np.kron(np.random.default_rng(number).integers(0, 255, (8, 8), np.uint8), np.ones((128, 128), np.uint8))


def siim(tmp_path: Path, ending: str = "\n") -> tuple[dict[str, ImageRecord], list]:
    """The layout of the competition: images in folders named by UID, a header with a blank, -1, several rows an image."""
    uid, size_hw, form = "1.2.276.0.7230010.3.1.4.8323329.{}.1517875201.{}", (1024, 1024), Form(first=0, relative=True)
    names = [uid.format(number, 850819 + number) for number in range(5)]
    where = tmp_path / "siim"
    for number, name in enumerate(names[:4]):
        pixels = image_of(number)
        study, series = (name.replace("4.8323329", level) for level in "23")
        dicom(where / "dicom-images-train" / study / series / f"{name}.dcm", pixels)
    first, second = rectangle(100, 200, 300, 260, size_hw), rectangle(700, 150, 800, 151, size_hw)
    second |= np.add.outer((np.arange(1024) - 400) ** 2, (np.arange(1024) - 750) ** 2) < 90**2
    rows = [(names[0], "-1"), (names[1], encoded(first, form)), (names[1], encoded(second, form)),
            (names[2], encoded(first, form)), (names[4], "-1")]  # fmt: skip
    text = ending.join(["ImageId, EncodedPixels", *(f"{name}, {code}" for name, code in rows)]) + ending
    (where / "stage_2_train.csv").write_bytes(text.encode())
    tasks, items = found_tasks(load_source("xray_siim_acr_pneumothorax"), where)
    items += [item for task in tasks for item in run(task)]
    pictures = [item for item in items if isinstance(item, Picture)]
    by_number = {str(number): picture.record for picture in pictures for number in range(4)
                 if np.array_equal(picture.pixels, image_of(number))}  # fmt: skip
    assert len(by_number) == len(pictures)
    assert [np.array_equal(region.mask.decode(), truth) for region, truth in
            zip(by_number["1"].regions, (first, second), strict=True)] == [True, True]  # fmt: skip
    return by_number, [item for item in items if not isinstance(item, Picture)]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_the_layout_of_siim_acr(tmp_path: Path, ending: str) -> None:
    records, rejects = siim(tmp_path, ending)
    assert sorted(records) == ["0", "1", "2", "3"]
    assert boxes(records["0"]) == []
    assert records["0"].absent == (AIR,)
    assert boxes(records["1"]) == [(AIR, (100, 200, 300, 260)), (AIR, (661, 150, 840, 490))]
    assert records["1"].regions[0].mask.area == 200 * 60
    assert boxes(records["2"]) == [(AIR, (100, 200, 300, 260))]
    assert records["2"].exhaustive == (AIR,)
    assert (records["3"].absent, records["3"].exhaustive, records["3"].regions) == ((), (), ())  # without a row
    assert [reject.reason for reject in rejects] == ["missing_file"]
    assert len({record.keys.patient for record in records.values()}) == 4


def test_an_image_of_another_size_than_that_of_the_codes_is_refused(tmp_path: Path) -> None:
    where = folder(tmp_path, "file,finding,rle\na,Nodule,1 5\n", "a.png", "b.png")
    result = converted(where, part("size = [1024, 1024]"))
    assert result.reasons == ["size_mismatch"]
    assert "40 rows and 60 columns, its codes are for 1024 and 1024" in result.rejects[0].detail
    assert list(result.records) == ["images/b.png"]  # no row, so no code that could not fit
    assert not converted(where, part("size = [40, 60]")).rejects


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_the_options_say_how_starts_are_counted(tmp_path: Path, form: Form) -> None:
    where = folder(tmp_path, f"file,finding,rle\na.png,Effusion,{encoded(rectangle(5, 6, 20, 18), form)}\n")
    options = f'order = "{form.order}", first = {form.first}, relative = {str(form.relative).lower()}'
    (region,) = converted(where, part(options)).only.regions
    assert region.box_xyxy == (5, 6, 20, 18)
    assert np.array_equal(region.mask.decode(), rectangle(5, 6, 20, 18))


def test_rows_are_regions_of_their_own_or_parts_of_one(tmp_path: Path) -> None:
    one, two = rectangle(5, 6, 20, 18), rectangle(15, 10, 30, 30)
    rows = [("Effusion", one), ("Effusion", two), ("Device", one), ("Nodule", one), ("Nodule", one)]
    where = folder(tmp_path, "file,finding,rle\n" + "".join(f"a,{label},{encoded(mask)}\n" for label, mask in rows))
    record = converted(where, part()).only
    assert boxes(record) == [(EFFUSION, (5, 6, 20, 18)), (EFFUSION, (15, 10, 30, 30)), (NODULE, (5, 6, 20, 18))]
    assert [region.attributes for region in record.regions] == [{}, {}, {"readers": 2}]
    record = converted(where, part('several = "union"')).only
    assert boxes(record) == [(EFFUSION, (5, 6, 30, 30)), (NODULE, (5, 6, 20, 18))]
    assert np.array_equal(record.regions[0].mask.decode(), one | two)


def test_rows_that_say_nothing_is_there(tmp_path: Path) -> None:
    table = f"file,finding,rle\na,Nodule,-1\na,Effusion,\nb,Nodule,{encoded(rectangle(5, 6, 20, 18))}\nb,Effusion,-1\nc,,-1\n"
    where = folder(tmp_path, table, "a.png", "b.png", "c.png", "d.png")
    result = converted(where, part())
    assert {Path(file).stem: record.absent for file, record in result.records.items()} == {
        "a": (NODULE, EFFUSION), "b": (EFFUSION,), "c": (NODULE, EFFUSION), "d": (),
    }  # fmt: skip
    assert result.records["images/d.png"].exhaustive == ()
    assert not result.rejects
    partial = converted(where, part().replace('exhaustive = "all"\n', ""))  # then only what a row says
    assert [record.absent for record in partial.records.values()] == [(NODULE, EFFUSION), (EFFUSION,), (), ()]


def test_a_label_that_is_there_and_not_there_is_in_doubt(tmp_path: Path) -> None:
    where = folder(tmp_path, f"file,finding,rle\na,Nodule,-1\na,Nodule,{encoded(rectangle(5, 6, 20, 18))}\n")
    result = converted(where, part())
    assert result.reasons == ["contradiction"]
    assert "codes.csv row 1" in result.rejects[0].detail
    assert boxes(result.only) == [(NODULE, (5, 6, 20, 18))]
    assert result.only.exhaustive == (EFFUSION,)


def test_bad_codes_are_refused_by_row_and_image_and_leave_their_label_in_doubt(tmp_path: Path) -> None:
    codes = ["1 2 3", "2390 20", "5 9 7 2", encoded(rectangle(5, 6, 20, 18))]
    where = folder(tmp_path, "file,finding,rle\n" + "".join(f"a,Nodule,{code}\n" for code in codes))
    result = converted(where, part())
    assert result.reasons == ["bad_rle"] * 3
    assert [reject.file for reject in result.rejects] == [f"codes.csv row {number}" for number in (1, 2, 3)]
    assert all("image 'images/a.png'" in reject.detail for reject in result.rejects)
    assert boxes(result.only) == [(NODULE, (5, 6, 20, 18))]
    assert (result.only.exhaustive, result.only.absent) == ((EFFUSION,), (EFFUSION,))


def test_an_unknown_finding_is_named_and_the_rest_stays(tmp_path: Path) -> None:
    where = folder(tmp_path, "file,finding,rle\na,Nodul,1 50\na,Effusion,1 50\n")
    result = converted(where, part())
    assert [concept for concept, _ in boxes(result.only)] == [EFFUSION]
    assert result.reasons == ["unknown_label"]
    assert "'Nodul' (codes.csv row 1)" in result.rejects[0].detail


@pytest.mark.parametrize(
    "table",
    ["\ufeff File , rle\r\n\r\nsub/a.PNG, {}\r\n", "rle;file\n{};A\n", b"file\trle\na\t{}\n"],
    ids=["bom", "semicolons", "gzip_tabs"],
)
def test_tables_as_people_write_them(tmp_path: Path, table: str | bytes) -> None:
    code = encoded(rectangle(5, 6, 20, 18))
    content = gzip.compress(table.replace(b"{}", code.encode())) if isinstance(table, bytes) else table.format(code)
    where = folder(tmp_path, content, name="codes.csv.gz" if isinstance(table, bytes) else "codes.csv")
    result = converted(where, part('label = "Nodule"', 'columns = { image = "file", code = "RLE" }'))
    assert boxes(result.only) == [(NODULE, (5, 6, 20, 18))]
    assert not result.rejects


def test_images_are_found_by_an_id_that_is_not_their_name(tmp_path: Path) -> None:
    where = folder(tmp_path, f"file,finding,rle\ncase7_slice_0001,Nodule,{encoded(rectangle(5, 6, 20, 18))}\n", "skip.png")
    (where / "images/skip.png").unlink()
    save(where, "images/case7/slice_0001_266_266.png", noise())
    text = part('id = "{case}_slice_{slice}"').replace("images/{case}.", "images/{case}/slice_{slice}_266_266.")
    result = converted(where, text)
    assert boxes(result.only) == [(NODULE, (5, 6, 20, 18))]
    assert not result.rejects


def test_rows_without_their_image_are_listed_once_or_ignored(tmp_path: Path) -> None:
    where = folder(tmp_path, "file,finding,rle\n1.2.3.4,Nodule,1 5\n1.2.3.4,Nodule,-1\n", "1.2.3.png")
    result = converted(where, part())  # 1.2.3 is not 1.2.3.4 without its ending
    assert result.reasons == ["missing_file"]
    assert "'1.2.3.4'" in result.rejects[0].detail
    assert result.only.exhaustive == ()
    assert not converted(where, part('missing_images = "ignore"')).rejects


def test_a_file_that_is_named_by_its_uid_alone_keeps_all_of_it(tmp_path: Path) -> None:
    where = folder(tmp_path, "file,finding,rle\n1.2.3,Nodule,-1\n1.2.3.4,Effusion,-1\n", "a.png")
    dicom(where / "series/1.2.3.4", noise())
    result = converted(
        where, part().replace("images/{case}.{ending:png|dcm}", "series/{case}").replace('exhaustive = "all"', "")
    )
    assert result.only.absent == (EFFUSION,)
    assert [reject.case for reject in result.rejects] == ["1.2.3"]


WIDE = 'columns = { image = ["Path", "image_id"], code = ["Nodule", "Effusion"], size = ["rows", "columns"] }'
GRADED = f'{WIDE}, quality = {{ column = "grade", least = 0.7 }}'


def test_a_row_may_hold_a_code_a_label_with_its_size_and_grade(tmp_path: Path) -> None:
    one, two = encoded(rectangle(5, 6, 20, 18)), encoded(rectangle(15, 10, 30, 30))
    head = "image_id,grade,Nodule,Effusion,rows,columns\n"
    table = f"{head}a,0.9,{one},{two},40,60\nb,0.7,{one},,40.0,60.0\nc,0.69,{one},{two},40,60\nd,0.8,{one},{two},80,120\n"
    where = folder(tmp_path, table, *(f"{name}.png" for name in "abcd"))
    result = converted(where, part(GRADED, columns=""))
    assert {Path(file).stem: boxes(record) for file, record in result.records.items()} == {
        "a": [(NODULE, (5, 6, 20, 18)), (EFFUSION, (15, 10, 30, 30))], "b": [(NODULE, (5, 6, 20, 18))], "c": [], "d": [],
    }  # fmt: skip
    assert {region.score for record in result.records.values() for region in record.regions} == {0.9, 0.7}
    assert result.reasons == ["low_quality", "size_mismatch", "size_mismatch"]
    assert {Path(file).stem: record.absent for file, record in result.records.items()} == {
        "a": (), "b": (EFFUSION,), "c": (), "d": (),
    }  # fmt: skip


def test_an_empty_code_of_a_machine_makes_nothing_absent(tmp_path: Path) -> None:
    where = folder(tmp_path, f"image_id,Nodule,Effusion,rows,columns\na,{encoded(rectangle(5, 6, 20, 18))},,40,60\n")
    text = part(WIDE, columns="").replace('exhaustive = "all"\n', "")
    (record,) = machine(where, text)
    assert boxes(record) == [(NODULE, (5, 6, 20, 18))]
    assert record.absent == ()
    assert [region.provenance for region in record.regions] == ["machine"]


def machine(where: Path, text: str) -> list[ImageRecord]:
    """Records of a source whose regions a machine drew."""
    toml = where.parent / "machine.toml"
    head = 'name = "drawn"\ntitle = "Drawn"\nlicence = "CC0-1.0"\nnames = "public"\nannotation = "machine"\n'
    toml.write_text(f"{head}[[part]]\n{text}")
    tasks, rejects = found_tasks(load_source(toml), where)
    assert rejects == []
    return [item.record for task in tasks for item in run(task) if isinstance(item, Picture)]


def test_a_grade_that_is_no_number_is_named(tmp_path: Path) -> None:
    where = folder(tmp_path, f"image_id,grade,Nodule,Effusion,rows,columns\na,good,{encoded(rectangle(5, 6, 20, 18))},,40,60\n")
    result = converted(where, part(GRADED, columns=""))
    assert result.reasons == ["bad_number"]
    assert (boxes(result.only), result.only.absent) == ([], ())


def test_images_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    where = tmp_path / "in"
    for patient in ("p1", "p2", "p3"):
        save(where, f"{patient}/view.png", noise())
    code = encoded(rectangle(5, 6, 20, 18))
    (where / "codes.csv").write_text(f"file,finding,rle\nset/p1/view.jpg,Nodule,{code}\nset/p2/view.jpg,Effusion,{code}\n")
    result = converted(where, part().replace("images/{case}", "{patient}/{case}"))
    assert {Path(file).parent.name: [concept for concept, _ in boxes(record)] for file, record in result.records.items()} == {
        "p1": [NODULE], "p2": [EFFUSION], "p3": [],
    }  # fmt: skip


def test_an_image_in_two_tables_is_refused(tmp_path: Path) -> None:
    where = folder(tmp_path, "file,finding,rle\na,Nodule,1 5\n", "a.png", "b.png")
    (where / "more.csv").write_text("file,finding,rle\na,Nodule,-1\nb,Nodule,1 5\n")
    result = converted(where, part())
    assert result.reasons == ["ambiguous_table"]
    assert list(result.records) == ["images/b.png"]


def test_a_table_that_is_missing_or_lacks_a_column_is_an_error(tmp_path: Path) -> None:
    where = folder(tmp_path, "file,finding,code\na.png,Nodule,1 5\n")
    with pytest.raises(Refused, match=r"'codes.csv' has no column 'rle'"):
        converted(where, part())
    (where / "codes.csv").unlink()
    with pytest.raises(InputError, match="no file is their table"):
        converted(where, part())


@pytest.mark.parametrize(
    ("options", "columns", "words"),
    [
        ("", 'columns = { image = "file" }', "must name image and code"),
        ("", 'columns = { image = "file", code = "rle" }', "neither columns.label"),
        ('order = "diagonal"', COLUMNS, "'diagonal'; allowed: columns, rows"),
        ("first = 2", COLUMNS, "2; allowed: 0, 1"),
        ('relative = "yes"', COLUMNS, "'yes'; allowed: False, True"),
        ('several = "last"', COLUMNS, "'last'; allowed: each, union"),
        ("", 'columns = { image = "file", code = ["rle"] }, quality = { least = 1 }', "quality is"),
        ("size = [1024]", COLUMNS, r"\[1024\]; allowed: rows and columns"),
    ],
)
def test_a_wrong_option_is_named(tmp_path: Path, options: str, columns: str, words: str) -> None:
    where = folder(tmp_path, "file,finding,rle\n")
    with pytest.raises(SourceError, match=words):
        converted(where, part(options, columns))
