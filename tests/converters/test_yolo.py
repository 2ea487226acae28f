from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from medglip.converters.yolo import convert
from small_sources import boxes, converted, noise, save

from medglip.curate.cases import Case
from medglip.curate.source import Named, Part
from medglip.errors import InputError
from medglip.records import Picture

NODULE, EFFUSION = "thorax.lung.nodule", "thorax.pleura.effusion"
PART = """
converter = "yolo"
modality = "xray"
exhaustive = "all"
files = {{ image = "images/{{set}}/{{case}}.png", labels = "labels/{{set}}/{{case}}.txt"{more} }}
options = {{ {options} }}
labels = {{ Nodule = "lung nodule", Effusion = "pleural effusion" }}
"""
NAMES = 'names = ["Nodule", "Effusion"]'


def part(options: str = NAMES, more: str = "") -> str:
    return PART.format(options=options, more=more)


def folder(tmp_path: Path, **labels: str) -> Path:
    where = tmp_path / "in"
    for number, (name, text) in enumerate(labels.items()):
        save(where, f"images/train/{name}.png", noise(40 + number))
        path = where / f"labels/train/{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return where


def test_lines_are_boxes_or_outlines(tmp_path: Path) -> None:
    box, ring = "0 0.25 0.5 0.1 0.2", "1 0.1 0.25 0.5 0.25 0.5 0.5 0.1 0.5"
    record = converted(folder(tmp_path, a=f"{box}\n\n{ring}\n"), part()).only
    assert boxes(record) == [(NODULE, pytest.approx((12, 16, 18, 24))), (EFFUSION, (6, 10, 30, 20))]
    assert record.regions[0].mask is None
    mask = record.regions[1].mask
    assert mask is not None
    assert mask.area == 24 * 10


def test_an_empty_file_is_a_negative_and_a_missing_one_only_if_the_source_says_so(tmp_path: Path) -> None:
    where = folder(tmp_path, a="", b="0 0.5 0.5 0.2 0.2")
    save(where, "images/train/c.png", noise(50))
    absent = {Path(name).stem: record.absent for name, record in converted(where, part()).records.items()}
    assert absent == {"a": (NODULE, EFFUSION), "b": (EFFUSION,), "c": ()}
    negative = converted(where, part(f'{NAMES}, missing_labels = "negative"'))
    assert negative.records["images/train/c.png"].absent == (NODULE, EFFUSION)


def test_names_come_from_a_file_or_are_numbers(tmp_path: Path) -> None:
    where = folder(tmp_path, a="1 0.5 0.5 0.2 0.2")
    (where / "classes.txt").write_text("Effusion\nNodule \n\n")
    assert [name for name, _ in boxes(converted(where, part("", ', names = "classes.txt"')).only)] == [NODULE]
    numbered = part("").replace("Effusion =", '"1" =')
    assert [name for name, _ in boxes(converted(where, numbered).only)] == [EFFUSION]
    (where / "classes.txt").unlink()
    with pytest.raises(InputError, match="no file is their names"):
        converted(where, part("", ', names = "classes.txt"'))


def test_bad_lines_are_named_and_leave_their_label_in_doubt(tmp_path: Path) -> None:
    lines = [
        "0 0.5 0.5 0.2 0.2 0.9",
        "0 0.5 0.5 0.2",
        "0 0.5 x 0.2 0.2",
        "0 0.5 0.5 1.5 0.2",
        "1 0.5 0.5 0.2 0.2",
        "0 0.5 0.5 0 0.1",
    ]
    result = converted(folder(tmp_path, a="\n".join(lines), b="2 0.5 0.5 0.2 0.2", c="-1 0.5 0.5 0.2 0.2"), part())
    assert result.reasons == ["bad_box"] * 4 + ["box_out_of_image"] + ["unknown_label"] * 2
    assert [name for name, _ in boxes(result.records["images/train/a.png"])] == [EFFUSION]
    assert result.records["images/train/a.png"].exhaustive == (EFFUSION,)
    assert result.records["images/train/b.png"].exhaustive == ()


@given(st.tuples(st.integers(0, 50), st.integers(0, 30), st.integers(1, 10), st.integers(1, 10)))
def test_every_box_in_pixels_comes_back(tmp_path_factory: pytest.TempPathFactory, box: tuple[int, int, int, int]) -> None:
    x, y, w, h = box
    where = tmp_path_factory.getbasetemp() / "yolo"
    if not (where / "a.png").exists():
        save(where, "a.png", noise())
    (where / "a.txt").write_text(f"0 {(x + w / 2) / 60:.10f} {(y + h / 2) / 40:.10f} {w / 60:.10f} {h / 40:.10f}")
    one = Part("p", "yolo", "xray", "s", "l", "human", {}, {"0": Named(NODULE)})
    (item,) = convert(one, Case("a", where, {"image": ("a.png",), "labels": ("a.txt",)}))
    assert isinstance(item, Picture)
    assert np.allclose(item.record.regions[0].box_xyxy, (x, y, x + w, y + h), atol=1e-6)
