"""The pages of an evaluation and of a comparison hold every section, need no network, and stay small."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from judged_cases import FAR, LEFT, OTHER, RIGHT, made, mixed_cases
from PIL import Image

from medglip.deliver.comparison_page import comparison_page
from medglip.deliver.evaluation_page import evaluation_page
from medglip.deliver.evaluation_pictures import case_overlay, small_uri
from medglip.errors import InputError
from medglip.evaluate.bootstrap import every_interval
from medglip.evaluate.compare import compare
from medglip.evaluate.examples import worst_cases
from medglip.evaluate.folders import add_figures, read_evaluation, write_evaluation
from medglip.evaluate.run import figures_of
from medglip.records import ImageRecord, Origin, label_tree

SECTIONS = {"figures", "modality", "source", "level", "size_share", "curves", "training", "labels", "confusion", "worst",
            "best", "sides", "absent", "more"}  # fmt: skip


class Noise:
    """Images of any id: 64 by 64 pixels of noise."""

    def __init__(self, ids):
        self.known = ids

    def ids(self, split=None):
        return list(self.known)

    def record(self, name):
        return ImageRecord(name, "0" * 64, 64, 64, 1, 8, "ct", Origin("scenes", "a.png", "a"), "CC0-1.0")

    def display(self, name):
        return np.random.default_rng(len(name)).integers(0, 255, (64, 64), dtype=np.uint8)


class Balanced(HTMLParser):
    """Raises where tags are not closed in order; keeps ids and links."""

    void = frozenset({"meta", "img", "br", "line", "circle", "polyline"})

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links = [], set(), set()

    def handle_startendtag(self, tag, attrs):
        """A tag that closes itself."""

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.ids.add(named.get("id"))
        self.links.add(named.get("href", "").partition("#")[2])
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(path):
    parser = Balanced()
    parser.feed(path.read_text(encoding="utf-8"))
    assert not parser.open
    assert parser.links <= parser.ids | {""}
    outside = re.findall(
        r'(?:src|href)="(?!data:|#|figures\.json|cases\.parquet)[^"]*|https?://|url\(|@import', path.read_text()
    )
    assert not outside, "everything is inside the file or beside it"
    return path.read_text(encoding="utf-8"), parser.ids


def many_cases():
    wrong_side = made("side", "p90", LEFT, ((*OTHER, 0.9),), others=((RIGHT, OTHER),))
    alarm = made("alarm <1>", "p91", boxes=((*FAR, 0.95),), truth=(), presence=0.9)
    return [*mixed_cases(2, 30, skill=0.5), wrong_side, alarm, made("no box", "p92", boxes=())]


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "evaluation-test"
    cases = many_cases()
    about = {"checkpoint": "runs/a & b", "split": "test"}
    write_evaluation(folder, {**figures_of(cases, None, label_tree()), "about": about}, cases)
    add_figures(folder, every_interval(read_evaluation(folder).tally(), draws=20))
    lines = ['{"step": 1, "loss": 2.0}', '{"step": 2, "loss": 1.0}', '{"step": 2, "val_ap50": 0.5}', "[1]", '{"step": 3, "lo']
    (folder.parent / "metrics.jsonl").write_text("\n".join(lines))
    return folder


def test_page_is_whole(judged):
    cases = read_evaluation(judged).cases
    path = evaluation_page(judged, [Noise({case.image for case in cases})])
    page, ids = parsed(path)
    assert ids >= SECTIONS
    worst = worst_cases(cases)
    assert len(worst) > 6
    for name in (*(case.image for case in worst), "side", "alarm &lt;1&gt;"):
        assert f"<code>{name}</code>" in page
    assert page.count("<img") > len(worst)
    assert page.count('<svg class="chart"') == 6
    assert "runs/a &amp; b" in page
    assert f"{read_evaluation(judged).tally().figures()['ap50']:.3f}" in page
    assert path.stat().st_size < 5_000_000
    assert "metrics" not in page


def test_page_without_images_training_and_intervals(tmp_path):
    write_evaluation(tmp_path / "alone", {"about": {}}, [made("only", truth=())])
    page, ids = parsed(evaluation_page(tmp_path / "alone"))
    assert "<img" not in page
    assert "training" not in ids
    assert "confusion" not in ids
    assert "Few patients: scenes (1)" in page


def test_pages_are_deterministic(judged):
    data = [Noise({case.image for case in read_evaluation(judged).cases})]
    assert evaluation_page(judged, data).read_bytes() == evaluation_page(judged, data).read_bytes()


def test_no_evaluation_no_page(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        evaluation_page(tmp_path)


def test_pictures_fit_their_room():
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (500, 600, 3), dtype=np.uint8))
    sizes = [len(small_uri(noise, most)) for most in (10**7, 100_000, 40_000)]
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes[1] <= 100_000
    assert sizes[2] <= 40_000


def test_boxes_outside_the_image_are_drawn_inside_or_not_at_all():
    data = Noise({"i0"})
    across, outside = (made(boxes=((*box, 0.9),)) for box in ((-20, -20, 90, 90), (-30, -30, -10, -10)))
    nothing = case_overlay(replace(across, boxes=across.boxes[:0], scores=across.scores[:0]), data, 0.3)
    assert np.array_equal(np.asarray(case_overlay(outside, data, 0.3)), np.asarray(nothing))
    assert not np.array_equal(np.asarray(case_overlay(across, data, 0.3)), np.asarray(nothing))


def test_comparison_page(tmp_path):
    for name, skill in (("plain", 0.5), ("be<tter", 3.5)):
        write_evaluation(tmp_path / name, {"about": {"split": name}}, mixed_cases(1, 8, skill=skill))
    facts = compare([tmp_path / "plain", tmp_path / "be<tter"], draws=20)
    page, ids = parsed(comparison_page(facts, tmp_path / "new" / "page.html"))
    assert {"figures", "pair1", "definitions"} <= ids
    assert "be&lt;tter − plain" in page
    assert "The splits differ" in page
    for words in ("By modality", "By source", "xray", "films"):
        assert words in page
    one = facts["differences"][0]["figures"]["acc50"]
    assert f"{one['difference']:+.3f}" in page


def test_comparison_without_common_patients(tmp_path):
    for name in ("a", "b"):
        write_evaluation(tmp_path / name, {"about": {}}, [made(name, name), made(name + name, name + name)])
    facts = compare([tmp_path / "a", tmp_path / "b"], draws=5)
    page, _ = parsed(comparison_page(facts, tmp_path / "page.html"))
    assert "share no question" in page
