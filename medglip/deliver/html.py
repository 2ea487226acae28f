"""Self-contained pages: of a demo run and of a report. One file each, no network; knows facts, computes no figures."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from medglip.deliver.chart import line_chart, smoothed
from medglip.deliver.overlay import PREDICTED, badge_size, badge_spots, enlarged, region_text
from medglip.errors import InputError
from medglip.language.questions import MODALITY_NAMES
from medglip.language.report import NOTICE, Report
from medglip.language.scene import Scene

_FIGURES = {"ap": "AP", "ap50": "AP50", "acc50": "Acc@0.5", "found": "Found", "absence_auroc": "Absence AUROC"}
_REPORT_FIGURES = {
    "report_precision": "precision of findings", "report_recall": "recall of findings", "report_f1": "F1",
    "report_denial_precision": "precision of denials", "report_denials": "denials",
    "report_box_precision": "cited boxes right", "reports": "reports",
}  # fmt: skip
_ARMS = {
    "vqa_accuracy": "predicted boxes", "vqa_accuracy_with_truth_boxes": "truth boxes",
    "vqa_accuracy_with_wrong_boxes": "boxes of another image", "vqa_accuracy_without_boxes": "question alone",
    "vqa_majority": "most frequent answer",
}  # fmt: skip
# Room around a report's picture for the badges of boxes at its border, in its pixels.
_ROOM = 26


@dataclass(frozen=True)
class Shown:
    """A picture of the page.

    Attributes:
        image: What to show, as ``overlay`` makes it.
        title: Above it.
        caption: Beneath it; may be empty.
        modality: What it is sorted by.
    """

    image: Image.Image
    title: str
    caption: str = ""
    modality: str = ""


@dataclass(frozen=True)
class Asked:
    """A question of the page.

    Attributes:
        question: As it was asked.
        answer: As it was given; "cannot tell" for an abstention.
        truth: The right answer, or None where it is not known.
        confidence: In [0, 1].
        image: The picture with the evidence boxes, or None.
        abstained: Whether no answer was given.
        reason: Why not.
    """

    question: str
    answer: str
    truth: str | None = None
    confidence: float = 0.0
    image: Image.Image | None = None
    abstained: bool = False
    reason: str = ""

    @property
    def verdict(self) -> str:
        """``right``, ``wrong``, ``withheld`` or empty where the truth is not known."""
        if self.truth is None:
            return ""
        if self.answer == self.truth:
            return "right"
        return "withheld" if self.abstained else "wrong"


@dataclass(frozen=True)
class DemoFacts:
    """Everything that the page of a demo run shows. What is empty is left out of the page.

    Attributes:
        title: Heading.
        summary: One or two sentences under it: what ran, on what.
        headline: Name to figure, for example ``{"AP50": 0.81}``; floats are shown with three digits.
        dataset: Rows of the dataset table, all with the same keys, which are its columns.
        metrics: Lines of ``metrics.jsonl``: ``step`` with ``loss``, or with ``val_ap50``, ``val_acc50`` and
            ``val_absence_auroc``.
        evaluation: What ``evaluate`` gives for the model on test patients.
        evaluation_without: The same for the run without modality conditioning, or None.
        vqa: What ``train_vqa`` gives, with the figures of the reports.
        overlays: Truth against prediction.
        worst: The images that went worst.
        questions: Questions with their answers and evidence.
        report: One report.
        report_image: (H, W) or (H, W, 3) uint8, the image of the report.
        timings: Stage to seconds.
        commands: What to type next.
        notes: What a reader must know: synthetic data, sizes of the test sets.
    """

    title: str = "medglip demo"
    summary: str = ""
    headline: Mapping[str, float | str | None] = field(default_factory=dict)
    dataset: Sequence[Mapping[str, Any]] = ()
    metrics: Sequence[Mapping[str, Any]] = ()
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    evaluation_without: Mapping[str, Any] | None = None
    vqa: Mapping[str, Any] = field(default_factory=dict)
    overlays: Sequence[Shown] = ()
    worst: Sequence[Shown] = ()
    questions: Sequence[Asked] = ()
    report: Report | None = None
    report_image: np.ndarray | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    commands: Sequence[str] = ()
    notes: Sequence[str] = ()


def demo_page(facts: DemoFacts, out: str | Path) -> Path:
    """Write the page of a demo run as one HTML file; comes back with its path."""
    keys = {"Modality": "by_modality", "Level": "by_level", "Source": "by_source"}
    groups = [(name, rows) for name, key in keys.items() if (rows := _group_rows(facts, key))]
    total = sum(facts.timings.values())
    shown = [(name, seconds, seconds / total if total else 0.0) for name, seconds in facts.timings.items()]
    page = pages().get_template("demo.html").render(
        facts=facts, groups=groups, overall=_overall_row(facts), figures=_FIGURES,
        loss_chart=loss_chart(facts.metrics), judged_chart=judged_chart(facts.metrics), timings=shown, total=total,
        arms=[(title, facts.vqa[key]) for key, title in _ARMS.items() if facts.vqa.get(key) is not None],
        report_figures=[(title, facts.vqa[key]) for key, title in _REPORT_FIGURES.items() if key in facts.vqa],
        report=_report_facts(facts.report, facts.report_image), notice=NOTICE,
    )  # fmt: skip
    return written(Path(out), page)


def report_page(report: Report, display_image: np.ndarray, out: str | Path) -> Path:
    """Write a report as one HTML file: the image with numbered boxes, sentences linked to them.

    Args:
        report: The report.
        display_image: (H, W) or (H, W, 3) uint8, the image that its boxes are pixels of.
        out: The file.

    Raises:
        InputError: the image is not the report's.
    """
    page = pages().get_template("report.html").render(report=_report_facts(report, display_image), notice=NOTICE)
    return written(Path(out), page)


def _report_facts(report: Report | None, display_image: np.ndarray | None) -> dict[str, Any] | None:
    if report is None or display_image is None:
        return None
    view = report.scene.view
    if display_image.shape[:2] != (view.height, view.width):
        raise InputError(
            f"The report is of an image of {view.width} x {view.height} pixels; found one of "
            f"{display_image.shape[1]} x {display_image.shape[0]}; give the image that was reported."
        )
    cited = report.cited()
    numbers = {region_id: place for place, region_id in enumerate(cited, start=1)}
    sections = {
        name: [(line, [numbers[region_id] for region_id in line.region_ids]) for line in report.section(name)]
        for name in ("findings", "impression")
    }
    boxes = [(report.scene.region(region_id), numbers[region_id]) for region_id in cited]
    return {
        "technique": report.technique, "sections": sections, "figure": _figure(report.scene, display_image, cited),
        "legend": [(number, region_text(region), _colour(number)) for region, number in boxes],
        "searched": [item.name for item in report.scene.searched],
    }  # fmt: skip


def _figure(scene: Scene, display_image: np.ndarray, cited: Sequence[str]) -> Markup:
    """The image with its numbered boxes as inline SVG: each box a group that the page's sentences can light up."""
    picture, scale = enlarged(display_image)
    width, height = picture.width + 2 * _ROOM, picture.height + 2 * _ROOM
    boxes = []
    for region_id in cited:
        x0, y0, x1, y1 = (round(edge * scale) + _ROOM for edge in scene.region(region_id).box_xyxy)
        boxes.append((x0, y0, x1, y1))
    parts = [
        f'<svg class="scan" viewBox="0 0 {width} {height}" role="img" aria-label="The image with the cited boxes">',
        f'<rect width="{width}" height="{height}" fill="#0B0F14"/>',
        f'<image x="{_ROOM}" y="{_ROOM}" width="{picture.width}" height="{picture.height}" href="{data_uri(picture)}"/>',
    ]
    for letter, x in zip(scene.view.side_letters or (), (_ROOM // 2, width - _ROOM // 2), strict=False):
        parts.append(f'<text class="side" x="{x}" y="{height // 2}">{letter}</text>')
    for number, (box, spot) in enumerate(zip(boxes, badge_spots(boxes, (0, 0, width, height)), strict=True), start=1):
        x0, y0, x1, y1 = box
        badge_width, badge_height = badge_size(number)
        parts.append(
            f'<g class="box" data-box="{number}" style="--c:{_colour(number)}">'
            f'<rect class="edge" x="{x0 - 1}" y="{y0 - 1}" width="{x1 - x0 + 2}" height="{y1 - y0 + 2}"/>'
            f'<rect class="badge" x="{spot[0]}" y="{spot[1]}" width="{badge_width}" height="{badge_height}" rx="4"/>'
            f'<text x="{(spot[0] + spot[2]) / 2}" y="{spot[1] + 14}">{number}</text></g>'
        )
    return Markup("".join([*parts, "</svg>"]))


def _group_rows(facts: DemoFacts, key: str) -> list[dict[str, Any]]:
    """Rows of a table: the figures of each group, and AP50 of the run without modality conditioning."""
    other = (facts.evaluation_without or {}).get(key) or {}
    figures = facts.evaluation.get(key) or {}
    return [_row(MODALITY_NAMES.get(name, name), found, other.get(name)) for name, found in figures.items()]


def _overall_row(facts: DemoFacts) -> dict[str, Any] | None:
    return _row("all", facts.evaluation, facts.evaluation_without) if facts.evaluation else None


def _row(name: str, figures: Mapping[str, Any], other: Mapping[str, Any] | None) -> dict[str, Any]:
    without = (other or {}).get("ap50")
    gain = None if without is None or figures.get("ap50") is None else figures["ap50"] - without
    return {"name": name, "without": without, "gain": gain, **{key: figures.get(key) for key in _FIGURES}}


def loss_chart(metrics: Sequence[Mapping[str, Any]]) -> Markup:
    """The training loss, smoothed, of the lines of ``metrics.jsonl``; empty where there is none."""
    loss = [(float(line["step"]), float(line["loss"])) for line in metrics if "loss" in line and "step" in line]
    thin = max(1, len(loss) // 300)
    return Markup(line_chart({"training loss (smoothed)": smoothed(loss)[::thin]}, x_label="step", title="Training loss"))


def judged_chart(metrics: Sequence[Mapping[str, Any]]) -> Markup:
    """The validation figures of the lines of ``metrics.jsonl``; empty where there are none."""
    names = {"val_ap50": "AP50", "val_acc50": "Acc@0.5", "val_absence_auroc": "absence AUROC"}
    series = {}
    for key, title in names.items():
        series[title] = [(float(line["step"]), float(line[key])) for line in metrics if line.get(key) is not None]
    label = "step, validation patients"
    return Markup(line_chart(series, x_label=label, title="Validation figures", y_range=(0.0, 1.0)))


def data_uri(image: Image.Image) -> str:
    """The image as a data URI: PNG where it has few colours or is small, else JPEG."""
    buffer = io.BytesIO()
    if image.width * image.height <= 400_000:
        image.save(buffer, format="PNG", optimize=True)
        kind = "png"
    else:
        image.convert("RGB").save(buffer, format="JPEG", quality=90)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _colour(number: int) -> str:
    return PREDICTED[(number - 1) % len(PREDICTED)]


def _number(value: Any, digits: int = 3) -> str:
    """A table's figure: an en dash where there is none."""
    if value is None or (isinstance(value, float) and value != value):
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}".replace("-", "−")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


@cache
def pages() -> jinja2.Environment:
    """The templates of all pages, with the filters that they use."""
    made = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True,
                               undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    made.filters.update(number=_number, signed=_signed, duration=_duration, percent=_percent, uri=data_uri)
    return made


def written(path: Path, page: str) -> Path:
    """The path of a page, written; its folder is made if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path
