import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from medglip import store
from medglip.records.labels import label_tree
from medglip.records.masks import rle_of_mask
from medglip.records.record import Region, Text
from medglip.store.pages.charts import heat_maps, histograms
from medglip.store.pages.overlays import DRAWN, THUMBNAIL, edge_letters, overlay
from medglip.store.pages.preview import chosen_images, preview
from medglip.store.pages.statistics import statistics
from medglip.store.write import write_part


def test_the_page_needs_nothing_else_and_is_the_same_each_time(dataset_path, files_of):
    page = preview(dataset_path).read_text()
    before = files_of(dataset_path)
    assert "left kidney" in page
    assert "corrupt_file" in page
    assert not re.search(r"https?://|<script|@import", page)
    pictures = set(re.findall(r'src="(report_files/[^"]+)"', page))
    assert pictures == {f"report_files/{path.name}" for path in (dataset_path / "report_files").iterdir()}
    for name in pictures:
        assert max(Image.open(dataset_path / name).size) <= THUMBNAIL
    preview(store.open(dataset_path))
    assert files_of(dataset_path) == before


def test_words_of_the_source_are_text_not_markup(tmp_path, plain_picture, info):
    record = plain_picture(1).record
    picture = plain_picture(1, origin=replace(record.origin, file="<script>alert(1)</script>.png"))
    write_part(tmp_path / "d", "p", [picture], info={**info, "title": "A & B", "expected": {"images": 780}})
    page = preview(tmp_path / "d").read_text()
    assert "<script" not in page
    assert "A &amp; B" in page
    assert "partial copy: 1 of 780 images" in page


def test_a_card_has_the_first_questions_with_their_answers(tmp_path, plain_picture, info):
    asked = tuple(Text(f"Is it <{number}>?", "question", answer=f"No & {number}.") for number in range(6))
    write_part(tmp_path / "d", "p", [plain_picture(1, texts=(Text("Not shown."), *asked))], info=info)
    page = preview(tmp_path / "d").read_text()
    shown = [f"Is it &lt;{number}&gt;? <b>No &amp; {number}.</b>" in page for number in range(6)]
    assert shown == [True] * 4 + [False] * 2
    assert "2 more questions." in page
    assert "Not shown." not in page


def test_a_dataset_of_rejects_has_a_page(tmp_path, reject, info):
    write_part(tmp_path / "d", "p", [], [], [reject], info)
    assert "corrupt_file" in preview(tmp_path / "d").read_text()


def test_the_chosen_images_show_every_label(dataset_path):
    dataset = store.open(dataset_path)
    chosen = chosen_images(dataset, per_label=1, per_source=5)
    assert set(chosen) == {("made_up", "ct"), ("made_up", "endoscopy")}
    regions = dataset.regions
    for (_, modality), images in chosen.items():
        shown = {region.concept for image in images for region in dataset.record(image).regions}
        assert shown == set(regions["concept"][regions["modality"] == modality])
        assert len(images) <= 2
    assert any(not dataset.record(image).regions for images in chosen.values() for image in images)


def test_of_images_that_nobody_marked_a_few_are_chosen(tmp_path, plain_picture, info):
    write_part(tmp_path / "d", "p", [plain_picture(number) for number in range(12)], info=info)
    (chosen,) = chosen_images(store.open(tmp_path / "d"), per_label=1, per_source=5).values()
    assert len(set(chosen)) == 5


def test_a_large_dataset_has_a_page_a_source(dataset_path, monkeypatch, files_of):
    monkeypatch.setattr("medglip.store.pages.preview.ON_ONE_PAGE", 2)
    monkeypatch.setattr("medglip.store.pages.preview.FIRST_OF_A_SOURCE", 1)
    page = preview(dataset_path).read_text()
    links = re.findall(r'href="report_files/([^"]+)"', page)
    assert sorted(links) == ["made_up-ct.html", "made_up-endoscopy.html"]
    for link in links:
        text = (dataset_path / "report_files" / link).read_text()
        shown = re.findall(r'img src="([^"]+)" loading="lazy"', text)
        assert len(shown) > page.count('<img src="') / 2
        assert all((dataset_path / "report_files" / name).is_file() for name in shown)
    before = files_of(dataset_path)
    preview(dataset_path)
    assert files_of(dataset_path) == before
    monkeypatch.undo()
    preview(dataset_path)
    assert not list((dataset_path / "report_files").glob("*.html"))


def test_at_most_so_many_images_of_a_source_are_drawn(dataset_path):
    preview(dataset_path, per_source=1)
    assert len(list((dataset_path / "report_files").glob("*.jpg"))) == 2


def test_histograms_and_maps_stay_inside_their_frame(dataset_path):
    tables = statistics(store.open(dataset_path))
    bars = histograms(tables["box_sizes"])
    assert {(chart.title, chart.unit) for chart in bars} == {(m, u) for m in ("ct", "endoscopy") for u in ("px", "mm")}
    for chart in bars:
        assert all(bar.x >= 0 and bar.x + bar.width <= chart.width for bar in chart.bars)
        assert all(bar.y >= 0 and bar.y + bar.height <= chart.height + 0.1 for bar in chart.bars)
        assert chart.regions == sum(int(bar.title.rpartition(" ")[2]) for bar in chart.bars)
        places = [tick.x for tick in chart.ticks]
        assert all(b - a > 20 for a, b in itertools.pairwise(places))
    maps = heat_maps(tables["positions"], label_tree())
    assert {chart.title for chart in maps} == {"kidney", "kidney tumor", "liver"}
    assert all(0 <= x < chart.grid and 0 <= y < chart.grid and 0 < o <= 1 for chart in maps for x, y, o, _ in chart.cells)


def test_letters_follow_the_affine(plain_picture):
    record = plain_picture(1).record
    axial = (0.7, 0, 0, 0, 0, 0.7, 0, 0, 0, 0, 5, 0)
    sagittal = (0, 0, 5, 0, 0.7, 0.1, 0, 0, 0, -0.7, 0, 0)  # columns to posterior, rows to inferior
    mirrored = (-0.7, 0, 0, 0, 0, 0.7, 0, 0, 0, 0, 5, 0)
    assert edge_letters(replace(record, affine_px_to_mm=axial)) == ("R", "L", "A", "P")
    assert edge_letters(replace(record, affine_px_to_mm=mirrored)) == ("L", "R", "A", "P")
    assert edge_letters(replace(record, affine_px_to_mm=sagittal)) == ("A", "P", "S", "I")
    assert edge_letters(record) == ("", "", "", "")
    frontal = replace(record, modality_detail={"view": "PA"}, body_region="thorax")
    assert edge_letters(frontal) == ("R", "L", "", "")
    assert edge_letters(replace(frontal, modality_detail={"view": "LATERAL"})) == ("", "", "", "")


def _record(plain_picture, regions, height=200, width=400, **changes):
    pixels = np.zeros((height, width), np.uint8)
    return plain_picture(1, width=width, height=height, regions=tuple(regions), **changes).record, pixels


def test_boxes_and_outlines_lie_on_the_picture(plain_picture):
    mask = np.zeros((200, 400), bool)
    mask[50:150, 100:300] = True
    region = Region("abdomen.liver", (100, 50, 300, 150), rle_of_mask(mask))
    drawn = overlay(*_record(plain_picture, [region]), label_tree())
    assert (drawn.width, drawn.height) == (320, 160)
    shape = drawn.shapes[0]
    assert (shape.x, shape.y, shape.width, shape.height) == (80, 40, 160, 80)
    corners = np.array(re.findall(r"([\d.]+) ([\d.]+)", shape.outline), float)
    assert np.allclose([corners.min(0), corners.max(0)], [(80, 40), (240, 120)], atol=0.6)


def test_pixels_that_are_not_square_are_shown_square(plain_picture):
    drawn = overlay(*_record(plain_picture, [], spacing_mm=(2.0, 1.0)), label_tree())
    assert (drawn.width, drawn.height) == (320, 320)


@pytest.mark.parametrize("count", [1, 5, 40, DRAWN + 30])
def test_badges_never_lie_over_each_other_or_outside(plain_picture, count):
    rng = np.random.default_rng(count)
    labels = ["abdomen.liver", "abdomen.kidney", "thorax.lung"]
    corners = rng.uniform(0, 180, (count, 2))
    regions = [Region(labels[n % 3], (x, y, x + 15, y + 15)) for n, (x, y) in enumerate(corners)]
    drawn = overlay(*_record(plain_picture, regions), label_tree())
    centres = np.array([(badge.x, badge.y) for badge in drawn.badges])
    assert len(centres)
    assert (centres >= 8).all()
    assert (centres <= (drawn.width - 8, drawn.height - 8)).all()
    apart = np.linalg.norm(centres[:, None] - centres, axis=-1)[~np.eye(len(centres), dtype=bool)]
    assert (apart > 17).all()
    assert len(drawn.shapes) + drawn.hidden == count
    assert {entry.number for entry in drawn.legend} == {badge.number for badge in drawn.badges}
    assert sum(entry.regions for entry in drawn.legend) == count


def test_an_unknown_label_is_shown_by_its_id(plain_picture):
    drawn = overlay(*_record(plain_picture, [Region("abdomen.unicorn", (0, 0, 5, 5))]), label_tree())
    assert drawn.legend[0].name == "abdomen.unicorn"
