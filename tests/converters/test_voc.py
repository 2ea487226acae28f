from pathlib import Path

import pytest
from small_sources import Converted, boxes, converted, noise, save

PART = """
converter = "voc"
modality = "microscopy"
exhaustive = "all"
files = { image = "JPEGImages/{case}.jpg", annotation = "Annotations/{case}.xml" }
labels = { RBC = "red blood cell", WBC = "white blood cell", Dirt = "skip" }
"""
RED, WHITE = "systemic.blood.red_cell", "systemic.blood.white_cell"


def item(*corners: object, name: str = "RBC", extra: str = "") -> str:
    inner = "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=False))
    return f"<object><name>{name}</name>{extra}<bndbox>{inner}</bndbox></object>"


def one(tmp_path: Path, *items: str, size: tuple[int, int] = (60, 40), part: str = PART) -> Converted:
    folder = tmp_path / "in"
    save(folder, "JPEGImages/a.jpg", noise())
    (folder / "Annotations").mkdir(exist_ok=True)
    head = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    (folder / "Annotations/a.xml").write_text(f"<annotation>{head}{''.join(items)}</annotation>")
    return converted(folder, part)


def test_corners_that_count_from_one_and_lie_inside_become_half_open(tmp_path: Path) -> None:
    result = one(tmp_path, item(6, 7, 15, 18), item(1, 1, 60, 40, name="WBC"), item(1, 1, 9, 9, name="Dirt"))
    assert boxes(result.only) == [(RED, (5, 6, 15, 18)), (WHITE, (0, 0, 60, 40))]
    assert not result.rejects
    zero = one(tmp_path, item(5, 6, 14, 17), part=PART + "options.first_pixel = 0")
    assert boxes(zero.only) == [(RED, (5, 6, 15, 18))]


def test_flags_and_absent_labels(tmp_path: Path) -> None:
    (region,) = one(tmp_path, item(6, 7, 25, 28, extra="<truncated>1</truncated><difficult>0</difficult>")).only.regions
    assert region.flags == ("truncated",)
    assert one(tmp_path, item(6, 7, 15, 18)).only.absent == (WHITE,)
    assert one(tmp_path).only.absent == (RED, WHITE)


def test_a_box_over_the_border_is_clipped_up_to_a_pixel_and_refused_beyond(tmp_path: Path) -> None:
    result = one(tmp_path, item(0, 7, 15, 41), item(6, 7, 75, 18))
    assert boxes(result.only) == [(RED, (0, 6, 15, 40))]
    assert result.reasons == ["box_out_of_image"]
    assert "object 2" in result.rejects[0].file
    assert result.only.exhaustive == (WHITE,)


def test_bad_objects_are_refused_one_by_one(tmp_path: Path) -> None:
    result = one(tmp_path, item(15, 7, 6, 18), item("x", 7, 15, 18), item(6, 7), item(6, 7, 15, 18, name="Yeast"),
                 item(6, 7, 15, 18))  # fmt: skip
    assert boxes(result.only) == [(RED, (5, 6, 15, 18))]
    assert result.reasons == ["bad_box", "bad_box", "bad_box", "unknown_label"]


def test_another_size_is_refused_with_both_sizes(tmp_path: Path) -> None:
    result = one(tmp_path, item(6, 7, 15, 18), size=(640, 480))
    assert result.reasons == ["size_mismatch"]
    assert "640 x 480" in result.rejects[0].detail
    assert "60 x 40" in result.rejects[0].detail
    assert not one(tmp_path, item(6, 7, 15, 18), size=(0, 0)).rejects


@pytest.mark.parametrize("text", ["<annotation><object>", "", "<html></html>"])
def test_a_broken_file_is_listed(tmp_path: Path, text: str) -> None:
    one(tmp_path)
    (tmp_path / "in/Annotations/a.xml").write_text(text)
    result = converted(tmp_path / "in", PART)
    assert result.reasons == ["unreadable_file"]
    assert not result.records


def test_an_image_without_a_file_is_unlabelled_and_a_file_without_an_image_an_orphan(tmp_path: Path) -> None:
    one(tmp_path)
    (tmp_path / "in/Annotations/a.xml").rename(tmp_path / "in/Annotations/b.xml")
    result = converted(tmp_path / "in", PART)
    assert result.only.absent == ()
    assert result.reasons == ["orphan"]
