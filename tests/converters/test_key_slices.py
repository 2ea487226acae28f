from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_sources import Converted, boxes, converted

from medglip.errors import MedglipError, SourceError

PART = """
converter = "key_slices"
modality = "ct"
patient = "{who}"
split = "{set}"
files = { image = "png/{series}/{slice}.png", table = "info.csv" }
[part.split_words]
"1" = "train"
"3" = "test"
[part.options]
named = "{series}_{slice}.png"
columns = { image = "File", box = "Box", label = "Type", spacing = "Pitch", noisy = "Noisy", window = "Window" }
[part.labels]
"4" = "liver lesion"
"-1" = "lesion"
"9" = "skip"
"""
HEAD = "File,Who,Box,Type,Noisy,Pitch,Window,Set"
ROW = '{name},7,"{box}",{type},{noisy},"0.7, 0.9, 5","-100, 200",{split}'


def row(name: str = "s1_10.png", box: str = "2, 3, 12.5, 9", kind: str = "4", noisy: str = "0", split: str = "1") -> str:
    return ROW.format(name=name, box=box, type=kind, noisy=noisy, split=split)


def write(folder: Path, *rows: str, images: tuple[str, ...] = ("s1/010", "s1/10")) -> np.ndarray:
    """16-bit slices and their table; what is returned are their Hounsfield units."""
    hounsfield = np.random.default_rng(0).integers(-1200, 1500, (20, 30))
    for name in images:
        (folder / "png" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((hounsfield + 32768).astype(np.uint16)).save(folder / "png" / f"{name}.png")
    (folder / "info.csv").write_text("\n".join([HEAD, *rows]))
    return hounsfield


def run(folder: Path, part: str = PART) -> Converted:
    return converted(folder, part)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def test_only_slices_that_the_table_names_are_read(folder: Path) -> None:
    hounsfield = write(folder, row(), row(box="15, 3, 25, 12", kind="-1"))
    result = run(folder)
    assert result.rejects == []
    record = result.only
    assert boxes(record) == [("abdomen.liver.lesion", (2, 3, 12.5, 9)), ("systemic.lesion", (15, 3, 25, 12))]
    assert record.spacing_mm == (0.9, 0.7)  # of rows, of columns
    assert (record.split, record.absent) == ("train", ())
    meaning = record.intensity
    assert (meaning.unit, meaning.window) == ("HU", (-100, 200))
    values = result.pictures[0].pixels * meaning.slope + meaning.intercept
    assert np.array_equal(values, hounsfield.clip(-1024))


def test_one_bad_row_leaves_the_others(folder: Path) -> None:
    write(folder, row(), row(box="2, 3, 50, 9"), row(box="1, 2, 3"), row(box="none"), row(kind="5"), row(kind="9"))
    result = run(folder)
    assert result.reasons == ["bad_box", "bad_cell", "box_out_of_image", "unknown_label"]
    assert boxes(result.only) == [("abdomen.liver.lesion", (2, 3, 12.5, 9))]


def test_a_slice_of_which_no_row_can_be_used_is_rejected(folder: Path) -> None:
    write(folder, row(box="2, 3, 50, 9"))
    result = run(folder)
    assert result.reasons == ["box_out_of_image"]
    assert result.records == {}


def test_rows_without_an_image_are_rejected_once_or_ignored(folder: Path) -> None:
    write(folder, row(), row(name="s2_1.png"), row(name="s2_1.png"))
    assert run(folder).reasons == ["missing_file"]
    assert run(folder, PART.replace('named = "', 'missing_images = "ignore"\nnamed = "')).reasons == []


def test_doubtful_marks_are_flagged(folder: Path) -> None:
    write(folder, row(noisy="1"), row(box="15, 3, 25, 12"))
    assert [sorted(region.flags) for region in run(folder).only.regions] == [["tiny", "uncertain"], ["tiny"]]


def test_images_of_eight_bits_are_refused(folder: Path) -> None:
    write(folder, row())
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(folder / "png/s1/10.png")
    assert run(folder).reasons == ["unreadable_file"]


def test_a_missing_option_stops_the_source(folder: Path) -> None:
    write(folder, row())
    with pytest.raises(SourceError, match=r"the option columns of 'key_slices' lacks 'box'"):
        run(folder, PART.replace('box = "Box", ', ""))


def test_a_missing_column_stops_the_source(folder: Path) -> None:
    write(folder, row())
    (folder / "info.csv").write_text("Name,Box\ns1_10.png,1\n")
    with pytest.raises(MedglipError, match=r"no column 'File'"):
        run(folder)
