import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from medglip.deliver.chart import line_chart, smoothed, ticks
from medglip.deliver.html import Asked, DemoFacts, Shown, data_uri, demo_page, report_page
from medglip.errors import InputError
from medglip.language.bands import Bands
from medglip.language.report import report
from medglip.language.scene import scene_of_regions
from medglip.language.view import ImageView
from medglip.records import Region

IMAGE = np.full((64, 80), 90, np.uint8)
FIGURES = {"ap": 0.4, "ap50": 0.7, "acc50": 0.8, "found": None, "absence_auroc": 0.9}


def made_report():
    boxes = [
        Region(label="abdomen.liver", box_xyxy=(5, 5, 40, 40), score=0.9),
        Region(label="abdomen.liver.lesion", box_xyxy=(9, 9, 20, 20), score=0.8),
    ]
    view = ImageView(80, 64, "ct")
    return report(scene_of_regions(boxes, {"abdomen.liver": 0.9, "abdomen.liver.lesion": 0.9, "abdomen.spleen": 0.01}, view,
                                   Bands(present=0.6, absent=0.2)))  # fmt: skip


def facts():
    picture = Image.new("RGB", (50, 40))
    return DemoFacts(
        title="A <demo>", summary="Synthetic.", headline={"AP50": 0.71234, "seconds": 5},
        dataset=[{"source": "phantom", "images": 1200}],
        metrics=[{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}, {"step": 2, "val_ap50": 0.5, "val_acc50": None}],
        evaluation={**FIGURES, "by_modality": {"ct": FIGURES, "mr": FIGURES}, "by_level": {"organ": FIGURES}},
        evaluation_without={**FIGURES, "ap50": 0.6, "by_modality": {"ct": {**FIGURES, "ap50": None}}},
        vqa={"vqa_accuracy": 0.9, "vqa_coverage": 0.8, "vqa_accuracy_answered": 0.95, "vqa_by_topic": {"side": 0.5},
             "report_f1": None},
        overlays=[Shown(picture, "CT 1", "fine", "ct")], worst=[Shown(picture, "CT 2")],
        questions=[Asked("Is there any liver lesion?", "yes", "yes", 0.9, picture), Asked("How many?", "2", "3", 0.5),
                   Asked("Which side?", "cannot tell", "left", 0.2, None, True, "low confidence")],
        report=made_report(), report_image=IMAGE, timings={"train": 61.0, "convert": 4.0}, commands=["medglip stats DATASET"],
        notes=["Nothing is real."],
    )  # fmt: skip


class Balanced(HTMLParser):
    """Raises where tags are not closed in order."""

    void = frozenset({"meta", "img", "br", "line", "circle", "rect", "image", "polyline"})

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links = [], set(), set()

    def handle_startendtag(self, tag, attrs):
        """A tag that closes itself."""

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.ids.add(named.get("id"))
        if named.get("href", "").startswith("#"):
            self.links.add(named["href"][1:])
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(path):
    parser = Balanced()
    parser.feed(path.read_text())
    assert not parser.open
    assert parser.links <= parser.ids
    return path.read_text()


def test_demo_page_is_whole_and_needs_no_network(tmp_path):
    page = parsed(demo_page(facts(), tmp_path / "new" / "demo.html"))
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page), "everything is inside the file"
    assert "A &lt;demo&gt;" in page
    for words in ("0.712", "1,200", "+0.100", "Nothing is real.", "1 min 01 s", "cannot tell", "truth: 3", "80 %", "MR"):
        assert words in page
    assert page.count('<svg class="chart"') == 2


def test_empty_facts_make_a_page_without_sections(tmp_path):
    page = parsed(demo_page(DemoFacts(), tmp_path / "demo.html"))
    assert "<h2" not in page


def test_report_page_links_sentences_to_boxes(tmp_path):
    made = made_report()
    page = parsed(report_page(made, IMAGE, tmp_path / "report.html"))
    for line in made.sentences:
        assert line.text in page
    boxes = set(re.findall(r'data-box="(\d+)"', page))
    assert boxes == {"1", "2"}
    cited = {number for numbers in re.findall(r'data-boxes="([\d ]*)"', page) for number in numbers.split()}
    assert cited == boxes


def test_report_of_another_image_is_refused(tmp_path):
    with pytest.raises(InputError, match="80 x 64"):
        report_page(made_report(), np.zeros((10, 10), np.uint8), tmp_path / "report.html")


def test_page_is_deterministic(tmp_path):
    first, again = demo_page(facts(), tmp_path / "a.html"), demo_page(facts(), tmp_path / "b.html")
    assert first.read_bytes() == again.read_bytes()


def test_verdicts():
    assert [asked.verdict for asked in facts().questions] == ["right", "wrong", "withheld"]
    assert Asked("?", "yes").verdict == ""


def test_images_travel_inside():
    assert data_uri(Image.new("RGB", (10, 10))).startswith("data:image/png;base64,")
    assert data_uri(Image.new("RGB", (1000, 1000))).startswith("data:image/jpeg;base64,")


@pytest.mark.parametrize(("low", "high"), [(0, 0.93), (3, 3), (-5, 12345), (0.2, 0.21)])
def test_ticks_enclose(low, high):
    found = ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert 2 <= len(found) <= 12


def test_chart_leaves_out_what_is_not_finite():
    assert line_chart({"a": [(0, float("nan"))]}, x_label="x", title="t") == ""
    chart = line_chart({"a": [(0, 1.0), (1, float("inf")), (2, 3.0)]}, x_label="x", title="t")
    assert chart.count("<circle") == 2


def test_smoothing_keeps_a_constant():
    assert [round(y, 9) for _, y in smoothed([(x, 2.0) for x in range(5)])] == [2.0] * 5
