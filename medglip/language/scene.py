"""A scene: what was searched for in one image, what is there, where, how large. No pixels, no model, no torch.

Made from a truth record (``scene_of_record``) or from predicted regions and presences (``scene_of_regions``); reports
read only scenes. "Absent" is said only of what was searched for.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from medglip.errors import InputError
from medglip.language.bands import Bands
from medglip.language.grammar import is_counted, is_finding, listed
from medglip.language.places import (
    area_px,
    box_iou,
    long_axis_mm,
    place_words,
    share_inside,
)  # fmt: skip
from medglip.language.view import ImageView, view_of_record
from medglip.language.wording import finding_in_words
from medglip.records import ImageRecord, LabelTree, Laterality, Region, Rle, label_tree

SCHEMA = "medglip.scene/1"
# A general concept ("kidney") whose region is this alike to that of a specific one ("left kidney") is the same thing.
_SAME_BOX = 0.6
# Share of a finding inside an organ from which it is said to lie in it.
_INSIDE = 0.5


@dataclass(frozen=True, slots=True)
class Presence:
    """A concept that was searched for, and the probability that it is in the image (1 or 0 in a truth record)."""

    concept: str
    name: str
    probability: float


@dataclass(frozen=True, slots=True)
class Finding:
    """One statement about the image: a concept, in one place, and the regions that show it.

    Attributes:
        id: ``F1``, ``F2`` ... in reading order; the number on an overlay.
        concept: Label id with side.
        name: Its English name.
        kind: ``anatomy`` or ``finding``.
        region_ids: Regions of the scene that show it.
        side: The patient's side, or None.
        count: Number of regions.
        size_mm: Longest extent of the largest one; None where the spacing is unknown.
        size_basis: What was measured, ``mask`` or ``box``, or None.
        within: Concept of the anatomy that holds it, or None.
        within_name: Its English name, or None.
        within_ids: Regions of that anatomy.
        place: Part of that anatomy (of the image where ``within`` is None); patient's directions where known.
        confidence: In [0, 1]; 1 for truth.
    """

    id: str
    concept: str
    name: str
    kind: Literal["anatomy", "finding"]
    region_ids: tuple[str, ...]
    side: Laterality = None
    count: int = 1
    size_mm: float | None = None
    size_basis: str | None = None
    within: str | None = None
    within_name: str | None = None
    within_ids: tuple[str, ...] = ()
    place: tuple[str, ...] = ()
    confidence: float = 1.0


@dataclass(frozen=True, slots=True)
class Scene:
    """What one image shows.

    Attributes:
        view: The picture itself.
        findings: What is there.
        uncertain: What may be there: presence between the bands, or presence without a region.
        absent: What was searched for and is not there.
        searched: All that was searched for, with its probability; nothing else was looked for.
        regions: The regions of findings and of what is uncertain.
        origin: ``truth`` or ``predicted``.
        image_id: Id of the record, or empty.
    """

    view: ImageView
    findings: tuple[Finding, ...] = ()
    uncertain: tuple[Finding, ...] = ()
    absent: tuple[Presence, ...] = ()
    searched: tuple[Presence, ...] = ()
    regions: tuple[Region, ...] = ()
    origin: Literal["truth", "predicted"] = "predicted"
    image_id: str = ""

    @property
    def asserted(self) -> tuple[Region, ...]:
        """The regions of findings: what the scene says is there."""
        shown = {region_id for finding in self.findings for region_id in finding.region_ids}
        return tuple(region for region in self.regions if region.id in shown)

    def region(self, region_id: str) -> Region:
        """The region of this id.

        Raises:
            InputError: the scene has no such region.
        """
        for region in self.regions:
            if region.id == region_id:
                return region
        raise InputError(f"Scene of image {self.image_id!r} has no region {region_id!r}; it has {len(self.regions)} others.")

    def to_json(self) -> dict[str, Any]:
        """Plain values with a stable schema (``medglip.scene/1``)."""
        plain = asdict(self)
        for region, shown in zip(self.regions, plain["regions"], strict=True):
            shown["concept"] = region.concept
        return {"schema": SCHEMA, **plain}

    def to_text(self) -> str:
        """The scene as a list in words, for a reader or a language model's prompt."""
        tree = label_tree()
        what = " ".join(filter(None, [self.view.plane, self.view.modality])) or "image of unknown modality"
        lines = [f"Image: {what}, {self.view.width} x {self.view.height} pixels."]
        for title, group in (("Present", self.findings), ("Uncertain", self.uncertain)):
            lines += [f"{title}: {finding_in_words(finding, tree)}" for finding in group]
        if self.absent:
            lines.append(f"Searched for and absent: {listed([item.name for item in self.absent])}.")
        lines.append("Nothing else was searched for.")
        return "\n".join(lines)


def scene_from_json(plain: Mapping[str, Any]) -> Scene:
    """The scene that ``Scene.to_json`` wrote.

    Raises:
        InputError: another schema.
    """
    if plain.get("schema") != SCHEMA:
        raise InputError(f"A scene must say schema {SCHEMA!r}; found {plain.get('schema')!r}.")
    view = dict(plain["view"])
    view["axes"] = tuple(tuple(pair) for pair in view["axes"])
    view["spacing_mm"] = view["spacing_mm"] and tuple(view["spacing_mm"])
    return Scene(
        view=ImageView(**view),
        findings=tuple(map(_finding_from_json, plain["findings"])),
        uncertain=tuple(map(_finding_from_json, plain["uncertain"])),
        absent=tuple(Presence(**item) for item in plain["absent"]),
        searched=tuple(Presence(**item) for item in plain["searched"]),
        regions=tuple(map(_region_from_json, plain["regions"])),
        origin=plain["origin"], image_id=plain["image_id"],
    )  # fmt: skip


def scene_of_record(record: ImageRecord, tree: LabelTree | None = None) -> Scene:
    """The scene that a record's own marks show: every region present, only ``record.absent`` absent."""
    tree = tree or label_tree()
    presence = {region.concept: 1.0 for region in record.regions} | dict.fromkeys(record.absent, 0.0)
    bands = Bands(present=0.5, absent=0.5, place=0.0)
    scene = scene_of_regions(record.regions, presence, view_of_record(record), bands, tree)
    return replace(scene, origin="truth", image_id=record.id)


def scene_of_regions(
    regions: Iterable[Region],
    presence: Mapping[str, float],
    view: ImageView,
    bands: Bands,
    tree: LabelTree | None = None,
    image_id: str = "",
) -> Scene:
    """The scene of predicted regions.

    Args:
        regions: Of any score; those without an id get ``R1``, ``R2`` ...
        presence: Probability of every concept that was searched for.
        view: The picture.
        bands: When to assert, hedge and deny.
        tree: The label tree.
        image_id: Id of the record, or empty.
    """
    tree = tree or label_tree()
    named = tuple(r if r.id else replace(r, id=f"R{number}") for number, r in enumerate(regions, start=1))
    sure = {concept for concept, value in presence.items() if value >= bands.present}
    placed = well_placed(named, presence, bands.place)
    counted = _distinct(_single_organs([region for region in placed if region.concept in sure], tree), tree)
    findings = [_finding(group, presence, counted, view, tree) for group in _grouped(counted, tree)]
    said = {finding.concept for finding in findings}
    # A sided concept that is there answers its general one; a general one that is not there answers its sides.
    open_concepts = [c for c in presence if not any(tree.covers(c, other) for other in said)]
    denied = [c for c in open_concepts if bands.may_deny(c, presence[c])]
    doubtful = [c for c in open_concepts if presence[c] >= bands.absent]
    uncertain = [_doubt(c, presence[c], placed, tree) for c in _general_last(doubtful, tree)]
    cited = {region_id for finding in (*findings, *uncertain) for region_id in finding.region_ids}
    findings.sort(key=lambda finding: _reading_order(finding.concept, tree))
    uncertain.sort(key=lambda finding: _reading_order(finding.concept, tree))
    return Scene(
        view=view,
        findings=tuple(replace(finding, id=f"F{n}") for n, finding in enumerate(findings, start=1)),
        uncertain=tuple(replace(f, id=f"F{n}") for n, f in enumerate(uncertain, start=len(findings) + 1)),
        absent=tuple(_presence(c, presence, tree) for c in sorted(denied, key=lambda c: _reading_order(c, tree))),
        searched=tuple(_presence(c, presence, tree) for c in sorted(presence)),
        regions=tuple(region for region in named if region.id in cited),
        image_id=image_id,
    )


def well_placed(regions: Iterable[Region], presence: Mapping[str, float], least: float) -> list[Region]:
    """Regions whose place is certain enough, in their order.

    A predicted score mixes whether a concept is there with where it is; divided by the presence, it says where. The best
    region of a concept needs only half: whether to speak of the concept at all is for the presence to say.

    Args:
        regions: Regions without a score are certain.
        presence: Probability of each concept.
        least: Certainty of place, in [0, 1].
    """
    sure: dict[str, float] = {}
    best: dict[str, str] = {}
    for region in regions:
        chance = max(presence.get(region.concept, 1.0), 1e-6)
        sure[region.id] = 1.0 if region.score is None else min(1.0, region.score / chance)
        if sure[region.id] > sure.get(best.get(region.concept, ""), -1.0):
            best[region.concept] = region.id
    firsts = set(best.values())
    return [r for r in regions if sure[r.id] >= least or (r.id in firsts and sure[r.id] >= least / 2)]


def _finding(group: list[Region], presence: Mapping[str, float], regions: list[Region], view: ImageView,
             tree: LabelTree) -> Finding:  # fmt: skip
    concept = group[0].concept
    largest = max(group, key=area_px)
    holder = holder_of(largest, regions, tree) if is_finding(concept, tree) else None
    holders = tuple(r.id for r in regions if holder is not None and r.concept == holder.concept)
    frame = holder.box_xyxy if holder is not None else (0.0, 0.0, float(view.width), float(view.height))
    size = long_axis_mm(largest, view.spacing_mm)
    return Finding(
        id="", concept=concept, name=tree.concept_name(concept),
        kind="finding" if is_finding(concept, tree) else "anatomy",
        region_ids=tuple(region.id for region in group), side=largest.laterality, count=len(group),
        size_mm=round(size[0], 1) if size else None, size_basis=size[1] if size else None,
        within=holder.concept if holder else None, within_name=tree.concept_name(holder.concept) if holder else None,
        within_ids=holders, place=place_words(largest.box_xyxy, frame, view.axes),
        confidence=round(min(presence.get(concept, 1.0), max(1.0 if r.score is None else r.score for r in group)), 4),
    )  # fmt: skip


def _grouped(regions: list[Region], tree: LabelTree) -> list[list[Region]]:
    """Regions of one concept in one organ, or of one anatomical concept."""
    groups: dict[tuple[str, str | None], list[Region]] = {}
    for region in regions:
        holder = holder_of(region, regions, tree) if is_finding(region.concept, tree) else None
        groups.setdefault((region.concept, holder.concept if holder else None), []).append(region)
    return list(groups.values())


def holder_of(region: Region, regions: Iterable[Region], tree: LabelTree, sites_only: bool = True) -> Region | None:
    """The smallest anatomical region that a region lies in: by its parents, else by geometry.

    Args:
        region: A finding.
        regions: Where to look.
        tree: The label tree.
        sites_only: Whether only the anatomy that the tree gives as the finding's place counts.
    """
    anatomy = [r for r in regions if r.id != region.id and not is_finding(r.concept, tree)]
    holding = [r for r in anatomy if r.id in region.parents]
    if not holding:
        sites = set(tree.ancestors(region.label))
        # A left finding does not lie in a right organ.
        able = [r for r in anatomy if region.laterality is None or r.laterality in (None, region.laterality, "bilateral")]
        able = [r for r in able if r.label in sites or not sites_only]
        holding = [r for r in able if share_inside(region, r) >= _INSIDE and area_px(r) > area_px(region)]
    return min(holding, key=area_px, default=None)


def _single_organs(regions: list[Region], tree: LabelTree) -> list[Region]:
    """Regions without further predicted boxes of anatomy that a body has once, or once on each side."""
    kept: list[Region] = []
    for region in sorted(regions, key=lambda r: -(1.0 if r.score is None else r.score)):
        label, side = tree.split(region.concept)
        most = 2 if tree[label].laterality and side is None else 1
        several = region.score is None or is_finding(region.concept, tree) or is_counted(region.concept, tree)
        if several or sum(other.concept == region.concept for other in kept) < most:
            kept.append(region)
    return [region for region in regions if region in kept]


def _distinct(regions: list[Region], tree: LabelTree) -> list[Region]:
    """Regions without those of a general concept that a more specific one already shows in the same place."""

    def repeated(region: Region) -> bool:
        return any(
            other.concept != region.concept and tree.covers(region.concept, other.concept)
            and box_iou(region.box_xyxy, other.box_xyxy) >= _SAME_BOX for other in regions
        )  # fmt: skip

    return [region for region in regions if not repeated(region)]


def _general_last(concepts: list[str], tree: LabelTree) -> list[str]:
    """Concepts without the general ones that a specific one among them already answers."""
    return [c for c in concepts if not any(other != c and tree.covers(c, other) for other in concepts)]


def _doubt(concept: str, probability: float, placed: list[Region], tree: LabelTree) -> Finding:
    seen = tuple(region.id for region in placed if region.concept == concept)
    kind: Literal["anatomy", "finding"] = "finding" if is_finding(concept, tree) else "anatomy"
    return Finding(id="", concept=concept, name=tree.concept_name(concept), kind=kind, region_ids=seen, count=len(seen),
                   side=tree.split(concept)[1], confidence=round(probability, 4))  # fmt: skip


def _presence(concept: str, presence: Mapping[str, float], tree: LabelTree) -> Presence:
    return Presence(concept=concept, name=tree.concept_name(concept), probability=round(float(presence[concept]), 4))


def _reading_order(concept: str, tree: LabelTree) -> tuple[int, int, str]:
    """Body regions from head to foot; in each, findings last; then by id, which keeps an organ's parts together."""
    label_id, _ = tree.split(concept)
    order = ("head_neck", "thorax", "abdomen", "pelvis", "musculoskeletal", "systemic")
    region = tree.body_region(label_id)
    return order.index(region) if region in order else len(order), int(is_finding(concept, tree)), concept


def _finding_from_json(plain: Mapping[str, Any]) -> Finding:
    tuples = {key: tuple(plain[key]) for key in ("region_ids", "within_ids", "place")}
    return Finding(**{**plain, **tuples})


def _region_from_json(plain: Mapping[str, Any]) -> Region:
    kept = {key: value for key, value in plain.items() if key not in ("concept", "phrases", "mask")}
    for key in ("box_xyxy", "parents", "flags"):
        kept[key] = tuple(kept[key])
    mask = plain["mask"] and Rle(size_hw=tuple(plain["mask"]["size_hw"]), counts=plain["mask"]["counts"])
    return Region(**kept, mask=mask)
