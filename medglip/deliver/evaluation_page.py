"""The page of an evaluation: figures, curves, confusions and pictures, in one file without network. Runs no model.

It reads what ``medglip evaluate`` left in a folder: ``figures.json`` and ``cases.parquet``; pictures come from the datasets.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from medglip import __version__
from medglip.deliver.chart import line_chart
from medglip.deliver.evaluation_pictures import CasePicture, case_pictures
from medglip.deliver.html import judged_chart, loss_chart, pages, written
from medglip.evaluate import calibration, froc
from medglip.evaluate.bootstrap import Patients
from medglip.evaluate.boxes import RECALLS
from medglip.evaluate.cases import Case
from medglip.evaluate.compare import FEW
from medglip.evaluate.confusion import NOWHERE, confusion
from medglip.evaluate.curves import GRID, absence_roc, precision_recall
from medglip.evaluate.definitions import HEADLINE, SHORT, SPECIAL, definition
from medglip.evaluate.examples import best_cases, false_alarms, worst_cases, wrong_sides
from medglip.evaluate.folders import Evaluation, read_evaluation
from medglip.evaluate.strata import UNKNOWN, by_size, chances
from medglip.evaluate.tally import Tally
from medglip.language.questions import MODALITY_NAMES
from medglip.records import label_tree

NAME = "index.html"
# Characters of the page that pictures may take together, and one alone; the page stays below 5 MB.
_PICTURES, _PICTURE = 3_600_000, 90_000
# Rows of the table of labels.
_LABELS = 200
_CARDS = ("ap50", "ap", "acc50", "found", "absence_auroc", "false_positives_per_image")
_OF_LABELS = ("ap", "ap50", "acc50", "miou", "absence_auroc")
_GROUPS = {"modality": "By modality", "source": "By source", "level": "By level"}
_MOST_RATE = 8.0  # false positives an image at which FROC charts end, as CPM does

Facts = dict[str, Any]


def evaluation_page(folder: str | Path, datasets: Sequence[Any] = (), *, run: str | Path | None = None) -> Path:
    """Write the page of an evaluation into its folder as ``index.html``; comes back with its path.

    Args:
        folder: What ``medglip evaluate`` wrote.
        datasets: Opened datasets that hold the images; a picture whose image is in none is left out, its facts are not.
        run: Folder with the ``metrics.jsonl`` of the training; by default the one that holds ``folder``.

    Raises:
        InputError: the folder is no evaluation.
    """
    found = read_evaluation(folder)
    tally = found.tally()
    facts = {
        "title": _title(found), "summary": _summary(found), "version": __version__, "notes": _notes(found),
        **_figures(found, tally), "groups": [*_groups(found, tally), *_sizes(tally), *_unseen(found)],
        "curves": _curves(found.cases),
        "training": _training(Path(run) if run is not None else found.folder.resolve().parent),
        **_labels(tally), "confusion": _confusion(found.cases), "galleries": _galleries(found, datasets),
        "special": _special(found.figures),
    }  # fmt: skip
    facts["sections"] = _sections(facts)
    return written(found.folder / NAME, pages().get_template("evaluation.html").render(facts=facts))


def _title(found: Evaluation) -> str:
    checkpoint = found.about.get("checkpoint")
    return f"Evaluation of {checkpoint}" if checkpoint else "Evaluation"


def _summary(found: Evaluation) -> str:
    split = found.about.get("split")
    patients = Patients(found.cases).count
    images = len({case.image for case in found.cases})
    sources = ", ".join(sorted({case.source for case in found.cases}))
    where = {None: "", "all": "All splits: "}.get(split, f"Split {split}: ")
    return f"{where}{len(found.cases):,} questions about {images:,} images of {patients:,} patients, from {sources}."


def _notes(found: Evaluation) -> list[str]:
    notes = ["A question is a phrase whose truth is known for the image: marked in it, or searched for and absent. "
             "Figures are means over labels, then over sources."]  # fmt: skip
    if (told := found.figures.get("bootstrap")) is not None:
        notes.append(f"Intervals: {100 * told['level']:.0f} % of {told['draws']:,} draws of the patients of each source.")
    few = {}
    for source in sorted({case.source for case in found.cases}):
        few[source] = len({case.patient for case in found.cases if case.source == source})
    if small := [f"{source} ({count})" for source, count in few.items() if count < FEW]:
        notes.append(f"Few patients: {', '.join(small)}; read the figures of these sources as anecdotes.")
    return notes


def _figures(found: Evaluation, tally: Tally) -> Facts:
    """The cards and the table of the headline figures."""
    values, ends = tally.figures(), found.figures.get("intervals") or {}
    rows = [(one.title, values[name], ends.get(name), one.meaning) for name, one in HEADLINE.items() if name in values]
    cards = [(HEADLINE[name].title, values.get(name), ends.get(name), HEADLINE[name].meaning) for name in _CARDS]
    return {"cards": cards, "figures": rows}


def _groups(found: Evaluation, tally: Tally) -> list[Facts]:
    """Tables by modality, source and level."""
    tables = []
    for kind, title in _GROUPS.items():
        ends = found.figures.get(f"intervals_by_{kind}") or {}
        rows = []
        for value, part in tally.by(kind).items():
            figures, mine = part.figures(), ends.get(value) or {}
            name = MODALITY_NAMES.get(value, value) if kind == "modality" else value.replace("_", " ")
            counts = [Patients(part.cases).count, len({case.image for case in part.cases}), len(part.cases)]
            rows.append({"name": name, "counts": counts, "cells": [(figures[key], mine.get(key)) for key in SHORT]})
        tables.append({"id": kind, "title": title, "note": "", "counts": ["patients", "images", "questions"],
                       "columns": [definition(key).title for key in SHORT], "rows": rows})  # fmt: skip
    return tables


def _sizes(tally: Tally) -> list[Facts]:
    """Tables by size of the regions, beside random guessing."""
    keys = ("acc50", "miou", "recall01", "centre", "found")
    titles = {"mm": ("Size in mm", "By the diameter in mm of a circle of the same area."),
              "share": ("Share of the image", "By the share of the image that a box covers, in per cent.")}  # fmt: skip
    random = " Random: Acc@0.5 of a box of the label's mean size put anywhere in the image."
    tables = []
    for kind, strata in by_size(tally, chances(tally.cases)).items():
        shown = (keys[0], "random", *keys[1:])
        rows = [{"name": name, "counts": [one["phrases"]], "cells": [(one[key], None) for key in shown]}
                for name, one in strata.items()]  # fmt: skip
        title, note = titles[kind]
        columns = [definition(key).title for key in keys]
        if set(strata) - {UNKNOWN}:
            tables.append({"id": f"size_{kind}", "title": title, "note": note + random, "counts": ["phrases"],
                           "columns": [columns[0], "Random", *columns[1:]], "rows": rows})  # fmt: skip
    return tables


def _unseen(found: Evaluation) -> list[Facts]:
    """What the checkpoint saw in training beside what it did not, where there is something that it did not see."""
    rows = []
    for kind, parts in (found.figures.get("zero_shot") or {}).items():
        if "unseen" in parts:
            rows += [{"name": f"{kind}: {name}", "counts": [one["questions"]], "cells": [(one[key], None) for key in SHORT]}
                     for name, one in parts.items()]  # fmt: skip
    note = "Labels, sources and modalities that were part of the training, and those that were not (zero-shot)."
    columns = [definition(key).title for key in SHORT]
    table = {
        "id": "unseen",
        "title": "Seen and unseen",
        "note": note,
        "counts": ["questions"],
        "columns": columns,
        "rows": rows,
    }
    return [table] if rows else []


def _curves(cases: Sequence[Case]) -> list[tuple[Markup, str]]:
    """Precision over recall, FROC, reliability, ROC of absence; those that are defined."""
    unit = (0.0, 1.0)
    charts = [_precision(cases), _froc(cases), _roc(cases)]
    shown = np.array([case.shown for case in cases], bool)
    presence = calibration.reliability(np.array([case.presence for case in cases], float), shown)
    boxes = calibration.reliability(*calibration.box_outcomes(cases))
    lines = {"presence": _points(presence.confidence, presence.frequency), "boxes": _points(boxes.confidence, boxes.frequency),
             "perfect": [(0.0, 0.0), (1.0, 1.0)]}  # fmt: skip
    drawn = line_chart(lines, x_label="stated probability", title="Reliability", y_range=unit, x_range=unit, dashed=["perfect"])
    charts.append((drawn, "Reliability: of presence, how often the phrase is there; of boxes, how often a box of that score is "
                   "right at IoU 0.5. Above the dashed line the model is too modest, below it too sure."))  # fmt: skip
    return [(Markup(chart), caption) for chart, caption in charts if chart]


def _precision(cases: Sequence[Case]) -> tuple[str, str]:
    lines = {}
    for threshold in (0.5, 0.75):
        if (curve := precision_recall(cases, threshold)) is not None:
            lines[f"IoU {threshold}"] = _points(RECALLS, curve)
    drawn = line_chart(lines, x_label="recall", title="Precision over recall", y_range=(0.0, 1.0), x_range=(0.0, 1.0))
    return drawn, "Precision over recall, mean over labels and sources; the area under a line is the AP at that IoU."


def _froc(cases: Sequence[Case]) -> tuple[str, str]:
    figures = froc.figures(cases)
    names = {"IoU 0.1": figures["froc_iou10"], "IoU 0.5": figures["froc_iou50"], "centre in box": figures["froc_centre"]}
    lines = {name: [(x, y) for x, y in _points(figures["froc_rates"], values) if x <= _MOST_RATE]
             for name, values in names.items() if values}  # fmt: skip
    label = "false positives an image"
    drawn = line_chart(lines, x_label=label, title="FROC", y_range=(0.0, 1.0), x_range=(0.0, _MOST_RATE), dots=False)
    return drawn, "FROC of findings: share of them found at so many false boxes of that label an image."


def _roc(cases: Sequence[Case]) -> tuple[str, str]:
    curve = absence_roc(cases)
    if curve is None:
        return "", ""
    lines = {"presence": _points(GRID, curve), "chance": [(0.0, 0.0), (1.0, 1.0)]}
    label = "share of absent phrases called present"
    drawn = line_chart(lines, x_label=label, title="ROC of absence", y_range=(0.0, 1.0), x_range=(0.0, 1.0), dashed=["chance"])
    return drawn, "ROC of absence: share of shown phrases called present, mean over labels and sources; its area is the AUROC."


def _points(xs: Any, ys: Any) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in zip(xs, ys, strict=True)]


def _training(run: Path) -> list[Markup]:
    """Loss and validation figures over the steps, where the run left them; lines that cannot be read are passed over."""
    try:
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    metrics = []
    for line in lines:
        try:
            metrics.append(json.loads(line))
        except ValueError:  # the last line of a run that was cut off
            continue
    metrics = [one for one in metrics if isinstance(one, Mapping)]
    return [chart for chart in (loss_chart(metrics), judged_chart(metrics)) if chart]


def _labels(tally: Tally) -> Facts:
    """The table of labels, lowest AP50 first, then those that no image shows."""
    tree = label_tree()
    shown: dict[tuple[str, str], list[int]] = {}
    for case in tally.cases:
        shown.setdefault((case.source, case.concept), [0, 0])[not case.shown] += 1
    rows = []
    for (source, concept), values in tally.labels().items():
        counts = shown[source, concept]
        rows.append({"name": tree.concept_name(concept), "source": source, "shown": counts[0], "absent": counts[1],
                     "ap50": values["ap50"], "cells": [values[key] for key in _OF_LABELS]})  # fmt: skip
    rows.sort(key=lambda row: (row["ap50"] is None, row["ap50"] or 0.0, row["name"], row["source"]))
    more = len(rows) - _LABELS
    note = "Each label of each source: how many images show it and do not, and its figures."
    return {"labels": rows[:_LABELS], "label_columns": [definition(key).title for key in _OF_LABELS],
            "labels_note": note if more <= 0 else f"{note} {more:,} more labels are in cases.parquet."}  # fmt: skip


def _confusion(cases: Sequence[Case]) -> Facts | None:
    """The matrix of the most frequent labels as shares of its rows, and the worst pairs."""
    found, tree = confusion(cases), label_tree()
    if not found.concepts:
        return None
    count = len(found.concepts)
    kinds = ["", *[""] * count, "none"]
    rows = []
    for place, (concept, counts) in enumerate(zip(found.concepts, found.counts, strict=True)):
        total = int(counts.sum())
        cells = [(float(value) / total, int(value), "right" if column == place else kinds[column])
                 for column, value in enumerate(counts)]  # fmt: skip
        rows.append({"name": tree.concept_name(concept), "total": total, "cells": cells})
    mistakes = [(tree.concept_name(one.asked), tree.concept_name(one.landed), one.questions, one.share)
                for one in found.mistakes if one.landed != NOWHERE]  # fmt: skip
    return {"columns": [*(str(place + 1) for place in range(count)), "other", "none"], "rows": rows, "mistakes": mistakes}


def _galleries(found: Evaluation, datasets: Sequence[Any]) -> list[Facts]:
    """The worst and the best cases, wrong sides, and boxes of absent phrases."""
    told = found.about.get("shown_above") or {}
    limits = {modality: found.thresholds_of(modality) for modality in {case.modality for case in found.cases}}
    chosen = [
        ("worst", "Worst cases", "Shown phrases whose best box is farthest from the truth, at most 6 of a modality.",
         worst_cases(found.cases)),
        ("best", "Best cases", "Shown phrases whose best box is nearest to the truth, at most 2 of a modality.",
         best_cases(found.cases)),
        ("sides", "Wrong sides", "The best box of a phrase with a side lies on the other side.", wrong_sides(found.cases)),
        ("absent", "Boxes of what is absent", "Phrases that the image does not show and that would be shown with a box, the "
         "most confident first" + (", at the thresholds of the checkpoint." if told else "."),
         false_alarms(found.cases, limits)),
    ]  # fmt: skip
    every = [case for *_, cases in chosen for case in cases]
    held = _held(datasets, {case.image for case in every})
    room = min(_PICTURE, _PICTURES // max(1, len(every)))
    solid = " Solid: found, with its score. Dashed green: the truth, and the region that the box landed on."
    parts = []
    for name, title, note, cases in chosen:
        pictures: list[CasePicture] = case_pictures(cases, held, found.thresholds_of, room)
        parts.append({"id": name, "title": title, "note": note + solid, "pictures": pictures})
    return parts


def _held(datasets: Sequence[Any], wanted: set[str]) -> dict[str, Any]:
    """Image to the first dataset that has it, of the images that are wanted."""
    held: dict[str, Any] = {}
    for data in datasets:
        for image in wanted.intersection(data.ids()):
            held.setdefault(image, data)
    return held


def _special(figures: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, Any, str]]]]:
    """Figures of one kind, section by section; what is undefined or a curve is left out."""
    tables = [("COCO", [(name, value, "") for name, value in (figures.get("coco") or {}).items() if value is not None])]
    for key, (title, meanings) in SPECIAL.items():
        rows = [(definition(name).title, value if name in meanings else int(value), meanings.get(name, "how many"))
                for name, value in (figures.get(key) or {}).items() if isinstance(value, int | float)]  # fmt: skip
        tables.append((title, rows))
    return [(title, rows) for title, rows in tables if rows]


def _sections(facts: Facts) -> list[tuple[str, str]]:
    """What the page's head links to."""
    parts = [("figures", "Figures"), *((group["id"], group["title"]) for group in facts["groups"])]
    optional = (("curves", "Curves"), ("training", "Training"), ("labels", "Labels"), ("confusion", "Confusion"))
    parts += [(name, title) for name, title in optional if facts[name] or name == "labels"]
    parts += [(part["id"], part["title"]) for part in facts["galleries"]]
    return [*parts, ("more", "More figures")] if facts["special"] else parts
