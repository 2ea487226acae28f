"""Gathers what the demo's page shows: pictures of test patients, questions, one report. Measures nothing itself."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medglip.deliver.html import Asked, DemoFacts, Shown, demo_page
from medglip.deliver.overlay import overlay
from medglip.language import Observation, QuestionAnswer, Reporter, question_set
from medglip.language.observe import matched
from medglip.language.questions import MODALITY_NAMES
from medglip.language.report import report
from medglip.language.vqa import VQA
from medglip.records import ImageRecord, Region

if TYPE_CHECKING:
    from medglip.demo import Data

OVERLAYS_PER_MODALITY, WORST, QUESTIONS = 2, 4, 9
_SIDE = 720  # pixels of a picture's longer side, so that its writing can be read where two stand side by side


def write_page(folder: Path, data: "Data", summary: Mapping[str, Any], figures: Mapping[str, Any], language: Mapping[str, Any],
               seed: int) -> Path:  # fmt: skip
    """Write ``index.html`` of a run; see ``medglip.demo.run_demo`` for the arguments."""
    observations, reporter = language["observations"], language["reporter"]
    records = [record for record in data.records("test") if record.id in observations]
    recalls = {record.id: _recall(record, observations[record.id], reporter) for record in records if record.regions}
    shown = [_shown(data, record, observations, reporter) for record in _typical(records, recalls)]
    worst = sorted((r for r in records if r.id in recalls), key=lambda r: (recalls[r.id], r.id))[:WORST]
    told = _most_told(records, observations, reporter)
    real, log = "untrained" in figures, folder / "run" / "metrics.jsonl"
    without = figures.get("run_without_modality")
    trained = log.read_text(encoding="utf-8").splitlines() if without else []
    facts = DemoFacts(
        title="medglip on real images" if real else "medglip demo",
        summary=_sentence(data, real, bool(trained)),
        headline={"AP50": summary["ap50"], "Acc@0.5": summary["acc50"], "absence AUROC": summary["absence_auroc"],
                  **({"AP50 without modality": summary["ap50_without_modality"]} if without else {}),
                  "VQA accuracy": summary["vqa_accuracy"],
                  **({"VQA, question alone": summary["vqa_accuracy_without_boxes"]} if without else {}),
                  **({"AP50 untrained": summary["ap50_untrained"]} if real else {})},
        dataset=_dataset_rows(data),
        metrics=[json.loads(line) for line in trained],
        evaluation=figures["run"],
        evaluation_without=without,
        vqa={name: value for name, value in language.items() if name not in ("observations", "reporter")},
        overlays=shown,
        worst=[_shown(data, record, observations, reporter) for record in worst],
        questions=_asked(folder / "run" / "best", data, records, observations, reporter, seed),
        report=report(observations[told.id].scene(reporter.bands)) if told else None,
        report_image=data.display(told.id) if told else None,
        timings=summary.get("seconds_by_stage", {}),
        commands=[
            f"medglip preview {folder}/dataset",
            f'medglip ground {folder}/run/best IMAGE "left kidney; liver cyst" --modality ct --overlay found.png',
            f'medglip ask {folder}/run/best IMAGE "Is there a liver cyst?" --modality ct',
            f"medglip report {folder}/run/best IMAGE --to html",
        ],
        notes=_notes(real),
    )  # fmt: skip
    return demo_page(facts, folder / "index.html")


def _sentence(data: "Data", real: bool, trained: bool) -> str:
    counts = ", ".join(f"{len(data.ids(split))} {split}" for split in ("train", "val", "test"))
    kind = "real images of the sources below" if real else "synthetic phantoms of seven modalities"
    if not trained:
        return (
            f"The model shipped with medglip, which has seen none of them, on {kind}; measured on {len(data.ids('test'))} of "
            f"{len(data.ids())} images."
        )
    return f"Converted, trained, measured and reported on {kind}: {counts} images, split by patient."


def _notes(real: bool) -> list[str]:
    notes = ["All figures are measured on patients that no training image shows.",
             "Answers and reports are made of templates and predicted boxes; not for clinical use."]  # fmt: skip
    if real:
        return [*notes, "Test sets of a source are small (often one to five patients): read its figures as anecdotes."]
    return [*notes, "The images are synthetic: they show that every part works, not how well it works on patients."]


def _dataset_rows(data: "Data") -> list[dict[str, Any]]:
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for record in data.records():
        row = rows.setdefault((record.origin.dataset, record.modality), {
            "source": record.origin.dataset, "modality": MODALITY_NAMES.get(record.modality, record.modality),
            "images": 0, "patients": set(), "regions": 0, "labels": set(), "train": 0, "val": 0, "test": 0,
            "licence": record.licence,
        })  # fmt: skip
        row["images"] += 1
        row["regions"] += len(record.regions)
        row["patients"].add(record.group)
        row["labels"].update(region.concept for region in record.regions)
        row[record.split] += 1
    return [row | {"patients": len(row["patients"]), "labels": len(row["labels"])} for _, row in sorted(rows.items())]


def _recall(record: ImageRecord, seen: Observation, reporter: Reporter) -> float:
    """Share of the marked regions that are found under their name."""
    pairs = matched(_grounded(seen, reporter), record.regions)
    return sum(truth is not None for _, truth in pairs) / len(record.regions)


def _grounded(seen: Observation, reporter: Reporter) -> tuple[Region, ...]:
    """The regions that `medglip ground` would give for every concept searched for."""
    score, presence = reporter.grounder.info.thresholds_of(seen.view.modality)
    return tuple(
        region for region in seen.regions if (region.score or 0.0) >= score and seen.presence[region.concept] >= presence
    )


def _typical(records: list[ImageRecord], recalls: Mapping[str, float]) -> list[ImageRecord]:
    """For each modality the images whose recall is nearest the median: neither the best nor the worst."""
    chosen: list[ImageRecord] = []
    for modality in sorted({record.modality for record in records if record.id in recalls}):
        mine = [record for record in records if record.modality == modality and record.id in recalls]
        middle = sorted(recalls[record.id] for record in mine)[len(mine) // 2]
        mine.sort(key=lambda r: (abs(recalls[r.id] - middle), -len({region.concept for region in r.regions}), r.id))
        chosen += mine[:OVERLAYS_PER_MODALITY]
    return chosen


def _shown(data: "Data", record: ImageRecord, observations: Mapping[str, Observation], reporter: Reporter) -> Shown:
    seen = observations[record.id]
    grounded = _grounded(seen, reporter)
    found = matched(grounded, record.regions)
    hits = sum(truth is not None for _, truth in found)
    picture = overlay(data.display(record.id), _few(grounded), truth=_few(record.regions), sides=seen.view.side_letters,
                      most_side=_SIDE)  # fmt: skip
    caption = f"{hits} of {len(record.regions)} marked regions found under their name; {len(found) - hits} boxes too many."
    return Shown(picture, f"{record.origin.dataset}: {record.origin.case}", caption, record.modality)


def _few(regions: tuple[Region, ...], most: int = 12) -> tuple[Region, ...]:
    """The regions that a picture has room for: the best scored, else the largest."""

    def size(region: Region) -> float:
        x0, y0, x1, y1 = region.box_xyxy
        return (x1 - x0) * (y1 - y0)

    return tuple(sorted(regions, key=lambda r: (-(r.score or 0.0), -size(r)))[:most])


def _most_told(records: list[ImageRecord], observations: Mapping[str, Observation], reporter: Reporter) -> ImageRecord | None:
    """The test image whose report makes most statements."""

    def told(record: ImageRecord) -> int:
        return sum(s.polarity != "note" for s in report(observations[record.id].scene(reporter.bands)).sentences)

    return max(records, key=lambda record: (told(record), record.id), default=None)


def _asked(checkpoint: Path, data: "Data", records: list[ImageRecord], observations: Mapping[str, Observation],
           reporter: Reporter, seed: int) -> list[Asked]:  # fmt: skip
    """Test questions of different topics and modalities, with their answers and the boxes that these rest on."""
    by_id = {record.id: record for record in records}
    pairs = [pair for pair in question_set(by_id.values(), seed) if pair.image_id in by_id]
    chosen: list[QuestionAnswer] = []
    topics, modalities = Counter[str](), Counter[str]()
    while pairs and len(chosen) < QUESTIONS:
        best = min(pairs, key=lambda p: (topics[p.topic] + modalities[by_id[p.image_id].modality], p.id))
        pairs.remove(best)
        chosen.append(best)
        topics[best.topic] += 1
        modalities[by_id[best.image_id].modality] += 1
    vqa = VQA.load(checkpoint, reporter.grounder)
    answers = vqa.answer_all([(observations[pair.image_id], pair.question) for pair in chosen])
    asked = []
    for pair, answer in zip(chosen, answers, strict=True):
        sides = observations[pair.image_id].view.side_letters
        picture = overlay(data.display(pair.image_id), _few(answer.regions), sides=sides, most_side=_SIDE)
        asked.append(
            Asked(pair.question, answer.text, pair.answer, answer.confidence, picture, answer.abstained, answer.reason)
        )
    return asked
