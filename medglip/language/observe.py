"""What a grounder says of an image, concept by concept, with nothing decided yet. Knows no questions and no words.

An observation is the raw material of scenes (after thresholds) and of answers (which weigh it themselves). One pass of
the grounder an image is enough for any number of questions.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from medglip.errors import InputError
from medglip.language.bands import Bands, best_place, calibrate
from medglip.language.grammar import is_finding
from medglip.language.places import box_iou
from medglip.language.scene import Scene, scene_of_regions
from medglip.language.view import ImageView, view_of_record
from medglip.language.vocabulary import Vocabulary
from medglip.records import ImageRecord, LabelTree, Region, label_tree

if TYPE_CHECKING:
    from medglip.curate.views import Viewed
    from medglip.predict import Grounder

FOLDER = "language"
# Boxes kept a concept and score from which; a scene's own threshold is higher and calibrated.
_MOST_PER_CONCEPT, _LEAST_SCORE, _BATCH = 6, 0.05, 4
_ENOUGH_PAIRS = 100


@dataclass(frozen=True, slots=True)
class Observation:
    """Regions and presences of one image.

    Attributes:
        view: The picture.
        regions: Of any score, by falling score, with ids.
        presence: Probability of every concept that was searched for.
        image_id: Id of the record, or empty.
    """

    view: ImageView
    regions: tuple[Region, ...] = ()
    presence: Mapping[str, float] = field(default_factory=dict)
    image_id: str = ""

    def scene(self, bands: Bands, tree: LabelTree | None = None) -> Scene:
        """The scene that these bands make of it."""
        return scene_of_regions(self.regions, self.presence, self.view, bands, tree, self.image_id)


def observe(grounder: "Grounder", image: np.ndarray, view: ImageView, vocabulary: Vocabulary) -> Observation:
    """What the grounder says of one image.

    Args:
        grounder: A trained model.
        image: (H, W) or (H, W, 3) uint8, windowed for display.
        view: Facts of the picture; its modality conditions the model.
        vocabulary: What to search for.
    """
    return _observe_many(grounder, [image], [view], [""], vocabulary)[0]


def observe_dataset(
    grounder: "Grounder",
    dataset: "Viewed",
    vocabulary: Vocabulary,
    split: str | None = None,
    progress: Callable[..., None] | None = None,
) -> dict[str, Observation]:
    """What the grounder says of every image of a dataset, by image id; one pass an image.

    Args:
        grounder: A trained model.
        dataset: An open dataset, or a view of one.
        vocabulary: What to search for.
        split: One split, or None for all.
        progress: Called as ``progress(done, total)``.
    """
    records = list(dataset.records(split))
    found: dict[str, Observation] = {}
    for start in range(0, len(records), _BATCH):
        batch = records[start : start + _BATCH]
        ids = [record.id for record in batch]
        images, views = [dataset.display(image) for image in ids], [view_of_record(record) for record in batch]
        found.update(zip(ids, _observe_many(grounder, images, views, ids, vocabulary), strict=True))
        if progress is not None:
            progress(len(found), len(records))
    return found


def observation_of_record(record: ImageRecord) -> Observation:
    """What a perfect grounder would say: the record's regions with presence 1, its absent concepts with presence 0."""
    presence = {region.concept: 1.0 for region in record.regions} | dict.fromkeys(record.absent, 0.0)
    return Observation(view_of_record(record), record.regions, presence, record.id)


def calibrated_bands(
    records: Iterable[ImageRecord],
    observations: Mapping[str, Observation],
    deniable: Iterable[str],
    target: float = 0.8,
) -> Bands:
    """Bands of a report, from validation images: their truth and what the grounder says of them.

    The presence of findings decides for all concepts where there are enough of them: anatomy is easier.

    Args:
        records: Truth of validation images; those without an observation are left out.
        observations: By image id.
        deniable: Concepts that training images were searched for.
        target: Share of assertions and denials that must hold.
    """
    known = [(record, observations[record.id]) for record in records if record.id in observations]
    pairs = [pair for record, seen in known for pair in _known_pairs(record, seen)]
    findings = [pair for pair in pairs if is_finding(pair[0], label_tree())]
    used = findings if len(findings) >= _ENOUGH_PAIRS else pairs
    bands = calibrate([value for _, value, _ in used], [there for _, _, there in used], deniable, target=target)
    places, hits, marked = [], [], 0
    for record, seen in known:
        asserted = {concept for concept, value, there in _known_pairs(record, seen) if there and value >= bands.present}
        marked += sum(region.concept in asserted for region in record.regions)
        for region, hit in matched([r for r in seen.regions if r.concept in asserted], record.regions):
            places.append(min(1.0, (region.score or 0.0) / seen.presence[region.concept]))
            hits.append(hit is not None)
    return replace(bands, place=best_place(places, hits, marked))


def _known_pairs(record: ImageRecord, seen: Observation) -> list[tuple[str, float, bool]]:
    """Concept, presence and truth of what both the record and the observation speak of."""
    there = {region.concept for region in record.regions}
    concepts = sorted((there | set(record.absent)).intersection(seen.presence))
    return [(concept, seen.presence[concept], concept in there) for concept in concepts]


def matched(regions: Sequence[Region], truth: Sequence[Region], iou: float = 0.5) -> list[tuple[Region, Region | None]]:
    """Each predicted region, by falling score, with the true one of its concept that it finds; each true one once."""
    free = list(truth)
    pairs: list[tuple[Region, Region | None]] = []
    for region in sorted(regions, key=lambda r: -(r.score or 0.0)):
        alike = [other for other in free if other.concept == region.concept]
        best = max(alike, key=lambda other: box_iou(region.box_xyxy, other.box_xyxy), default=None)
        if best is not None and box_iou(region.box_xyxy, best.box_xyxy) >= iou:
            free.remove(best)
            pairs.append((region, best))
        else:
            pairs.append((region, None))
    return pairs


def deniable_of(records: Iterable[ImageRecord]) -> frozenset[str]:
    """Concepts that records call absent or mark exhaustively: the only ones that may ever be denied."""
    return frozenset(concept for record in records for concept in (*record.absent, *record.exhaustive))


def _observe_many(
    grounder: "Grounder",
    images: Sequence[np.ndarray],
    views: Sequence[ImageView],
    ids: Sequence[str],
    vocabulary: Vocabulary,
) -> list[Observation]:
    tree = label_tree()
    concepts = [vocabulary.of(view.modality) for view in views]
    if not all(concepts):
        raise InputError("The language part's vocabulary is empty; train it on images with regions or absent labels.")
    phrases = [[tree.concept_name(concept) for concept in asked] for asked in concepts]
    answers = grounder.answer(images, phrases, [view.modality for view in views])
    seen = []
    for view, image_id, asked, answer in zip(views, ids, concepts, answers, strict=True):
        found: list[Region] = []
        for place, concept in enumerate(asked):
            pairs = zip(answer.boxes[place], answer.scores[place], strict=True)
            good = [(box, score) for box, score in pairs if score >= _LEAST_SCORE][:_MOST_PER_CONCEPT]
            found += filter(None, (_region(concept, box, float(score), view, tree) for box, score in good))
        fitting = vocabulary.fitting(view.modality, found, tree)
        kept = sorted((region for region in found if region.concept in fitting), key=lambda region: -(region.score or 0.0))
        named = tuple(replace(region, id=f"R{number}") for number, region in enumerate(kept, start=1))
        chances = zip(asked, answer.presence, strict=True)
        presence = {concept: float(value) for concept, value in chances if concept in fitting}
        seen.append(Observation(view, named, presence, image_id))
    return seen


def _region(concept: str, box: np.ndarray, score: float, view: ImageView, tree: LabelTree) -> Region | None:
    """A predicted region clipped to the image; None where nothing is left."""
    x0, y0, x1, y1 = (round(float(edge), 2) for edge in box)
    x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, float(view.width)), min(y1, float(view.height))
    if x1 - x0 < 0.5 or y1 - y0 < 0.5:
        return None
    label, side = tree.split(concept)
    return Region(label=label, box_xyxy=(x0, y0, x1, y1), laterality=side,
                  score=round(min(1.0, score), 4), provenance="predicted")  # fmt: skip
