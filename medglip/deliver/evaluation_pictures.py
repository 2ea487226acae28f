"""Pictures of cases for a page: what was found beside what is there, small enough to travel in one file."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from medglip.deliver.overlay import overlay
from medglip.evaluate.averages import ThresholdsOf
from medglip.evaluate.cases import Case
from medglip.evaluate.confusion import NOWHERE, landing
from medglip.evaluate.examples import best_iou
from medglip.language.questions import MODALITY_NAMES
from medglip.language.view import view_of_record
from medglip.records import LabelTree, Region, label_tree

# Longer side of a picture's image in pixels, and boxes of each kind on it at most.
SIDE, FOUND, TRUE = 384, 3, 6
# Tries at making a picture small enough: (share of its size, JPEG quality).
_TRIES = ((1.0, 85), (1.0, 70), (0.75, 70), (0.5, 60), (0.33, 50))


@dataclass(frozen=True)
class CasePicture:
    """A picture of the page.

    Attributes:
        uri: The image as a data URI; empty where no dataset has it.
        phrase: What was asked.
        image: Id of the image.
        facts: What came of it, in words.
    """

    uri: str
    phrase: str
    image: str
    facts: str


def case_pictures(
    cases: Sequence[Case], datasets: Mapping[str, Any], thresholds_of: ThresholdsOf, most_bytes: int
) -> list[CasePicture]:
    """The pictures of some cases.

    Args:
        cases: In the order of the page.
        datasets: Image id to the dataset that has it.
        thresholds_of: Boxes that would not be shown are drawn only where they are the best of their phrase.
        most_bytes: Of one data URI.
    """
    tree = label_tree()
    pictures = []
    for case in cases:
        uri = ""
        if case.image in datasets:
            uri = small_uri(case_overlay(case, datasets[case.image], thresholds_of(case.modality)[0]), most_bytes)
        pictures.append(CasePicture(uri, case.phrase, case.image, _facts(case, tree)))
    return pictures


def case_overlay(case: Case, data: Any, least_score: float) -> Image.Image:
    """The image with the boxes found (solid), the true ones and the one that the best box landed on (dashed).

    Of the boxes the best is drawn, and two more of a score of at least ``least_score``.
    """
    found = [
        region
        for place, (box, score) in enumerate(zip(case.boxes[:FOUND], case.scores, strict=False))
        if (place == 0 or score >= least_score) and (region := _region(case.concept, box, case, float(score)))
    ]
    true = [region for box in case.truth[:TRUE] if (region := _region(case.concept, box, case))]
    landed = landing(case)
    if landed not in (NOWHERE, case.concept):
        place = int(case.iou_any[0, len(case.truth) :].argmax())
        if region := _region(landed, case.others[place], case):
            true.append(region)
    view = view_of_record(data.record(case.image))
    return overlay(data.display(case.image), found, truth=true, sides=view.side_letters, least_side=SIDE, most_side=SIDE)


def small_uri(image: Image.Image, most_bytes: int) -> str:
    """The image as a JPEG data URI of at most so many characters: smaller and coarser until it fits."""
    uri = ""
    for share, quality in _TRIES:
        size = max(1, round(image.width * share)), max(1, round(image.height * share))
        buffer = io.BytesIO()
        image.resize(size, Image.Resampling.LANCZOS).convert("RGB").save(buffer, format="JPEG", quality=quality, optimize=True)
        uri = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        if len(uri) <= most_bytes:
            break
    return uri


def _region(concept: str, box: np.ndarray, case: Case, score: float | None = None) -> Region | None:
    """A box as a region that can be drawn; None where it lies outside the image."""
    width, height = case.size_wh
    x0, y0, x1, y1 = (float(edge) for edge in box)
    x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
    if x1 - x0 < 0.5 or y1 - y0 < 0.5:
        return None
    label, _, side = concept.partition("@")
    return Region(
        label=label, box_xyxy=(x0, y0, x1, y1), laterality=side or None,  # type: ignore[arg-type]
        score=None if score is None else min(1.0, score), provenance="human" if score is None else "predicted",
    )  # fmt: skip


def _facts(case: Case, tree: LabelTree) -> str:
    """What came of a case, in words."""
    words = [MODALITY_NAMES.get(case.modality, case.modality), case.source]
    words.append(f"score {case.scores[0]:.2f}" if len(case.scores) else "no box")
    words.append(f"presence {case.presence:.2f}")
    if not case.shown:
        return ", ".join([*words, "not in the image"])
    words.append(f"IoU {best_iou(case):.2f}")
    landed = landing(case)
    if landed == NOWHERE:
        words.append("on no marked region")
    elif landed != case.concept:
        words.append(f"on the {tree.concept_name(landed)}")
    return ", ".join(words)
