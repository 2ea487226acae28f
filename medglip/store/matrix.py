"""Source x label: what each source marks wherever it is, what may be there unmarked, what cannot be there. Reads no image.

The one place that says when a concept that is not marked may be called absent; losses, negative sampling and evaluation
ask it. The rule and its reasons are in ``docs/decisions/0006-source-label-matrix.md``.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from medglip.records.labels import Label, LabelTree, label_tree
from medglip.records.record import ImageRecord

if TYPE_CHECKING:
    import pandas as pd

STATES = ("exhaustive", "possible", "impossible")

Facts = Mapping[str, Sequence[str]]  # of one part of a source: its exhaustive, field, possible, impossible

# Pictures of surfaces and of thin layers: no organ shines through, and what is not in the field is not there.
_SURFACES = ("endoscopy", "dermoscopy", "fundus", "histopathology", "microscopy", "oct")
_MICROSCOPES = ("histopathology", "microscopy")
# Found all over the body, so that any radiograph or section may show them: kinds, and body regions as a whole.
_EVERYWHERE = (
    "musculoskeletal.bone", "musculoskeletal.muscle", "musculoskeletal.joint", "systemic.vessel", "systemic.lymph_node",
    "systemic.skin", "systemic.fat", "systemic.nerve", "systemic.cartilage",
)  # fmt: skip
_ALL_OVER = ("systemic", "musculoskeletal")
# Of these, what may also lie on, or shine through, a surface.
_ON_SURFACES = (
    "systemic.blood", "systemic.vessel", "systemic.artery", "systemic.vein", "systemic.vessel.capillary", "systemic.hair",
    "systemic.fat", "systemic.connective_tissue", "systemic.tissue", "systemic.tissue.mucus", "systemic.tissue.debris",
    "systemic.tissue.necrosis", "systemic.tissue.tumor", "systemic.tissue.soft",
)  # fmt: skip
# What only a microscope shows: the cells and glands of histology (coarse class "cell"), and these tissues.
_TISSUES = ("systemic.tissue.epithelium", "systemic.tissue.stroma", "systemic.tissue.lymphocytic_infiltrate")
# What only light shows: too fine for any radiograph, section or echo.
_FINE = (
    "systemic.skin.lesion.pigment_network", "systemic.skin.lesion.negative_network", "systemic.skin.lesion.streaks",
    "systemic.skin.lesion.globules", "systemic.skin.lesion.milia_like_cyst", "head_neck.eye.retina.microaneurysm",
    "head_neck.eye.retina.exudate", "head_neck.eye.retina.exudate.hard", "head_neck.eye.retina.exudate.soft",
    "head_neck.eye.retina.drusen", "head_neck.eye.retina.irma",
)  # fmt: skip


class Matrix:
    """The state of every concept in every source and modality; answers are remembered.

    Args:
        facts: Source -> modality -> facts of its parts: lists of ids by ``exhaustive`` (concepts), ``field``, ``possible``
            and ``impossible`` (labels), each empty or left out where nothing is said.
        tree: The label tree; by default that of this installation.

    >>> chest = {"exhaustive": ["thorax.lung"], "field": ["thorax"]}
    >>> matrix = Matrix({"films": {"xray": [chest]}})
    >>> [matrix.state("films", "xray", c) for c in ("thorax.lung@left", "thorax.heart", "head_neck.brain")]
    ['exhaustive', 'possible', 'impossible']
    """

    def __init__(self, facts: Mapping[str, Mapping[str, Sequence[Facts]]], tree: LabelTree | None = None) -> None:
        self.facts = facts
        self._tree = tree or label_tree()
        self._states: dict[tuple[str, str, str], str] = {}
        self._seen: dict[tuple[str, str], list[frozenset[str]]] = {}

    def state(self, source: str, modality: str, concept: str) -> str:
        """``exhaustive``, ``possible`` or ``impossible``.

        ``exhaustive``: images of the source were searched for it, or for a wider concept that it falls under (which alone
        may be marked then); it is marked wherever it is. ``possible``: it may be there, marked or not; all that is known
        of a source or modality without facts. ``impossible``: no such image can show it. Where a source has several
        parts of one modality, what holds for all of them.

        Args:
            source: ``ImageRecord.origin.dataset``.
            modality: ``ImageRecord.modality``.
            concept: ``label`` or ``label@left|right``.

        Raises:
            SourceError: the tree has no such concept.
        """
        key = source, modality, concept
        if key not in self._states:
            self._states[key] = self._found(*key)
        return self._states[key]

    def is_negative(self, record: ImageRecord, concept: str) -> bool:
        """Whether it is known that an image does not show a concept; False also where nothing is known.

        It is known where the record calls the concept, or a wider one, absent; where the record's own ``exhaustive`` has
        it and no region shows it under a wider or narrower name; and where the matrix calls it impossible. The matrix's
        ``exhaustive`` is of the source; a single image may not have been searched, so here the record's counts.
        """
        covers = self._tree.covers
        shown = {region.concept for region in record.regions}
        if any(covers(concept, other) for other in shown):
            return False
        if any(covers(wide, concept) for wide in record.absent):
            return True
        searched = _covered(record.exhaustive, concept, self._tree)
        if searched and not any(covers(other, concept) for other in shown):
            return True
        return self.state(record.origin.dataset, record.modality, concept) == "impossible"

    def _found(self, source: str, modality: str, concept: str) -> str:
        label_id, _ = self._tree.split(concept)
        parts = self.facts.get(source, {}).get(modality, ())
        if not parts:
            return "possible"
        key = source, modality
        if key not in self._seen:
            self._seen[key] = [labels_seen(modality, facts, self._tree) for facts in parts]
        states = set()
        for facts, seen in zip(parts, self._seen[key], strict=True):
            if _covered(facts.get("exhaustive", ()), concept, self._tree):
                states.add("exhaustive")
            else:
                states.add("possible" if label_id in seen else "impossible")
        if "possible" in states:
            return "possible"  # searched for in some of the files only
        return "exhaustive" if "exhaustive" in states else "impossible"


def matrix_of(dataset: Any) -> Matrix:
    """The matrix of an open dataset, from the facts that its manifest keeps of every source."""
    facts: dict[str, dict[str, list[Facts]]] = {}
    for part in dataset.manifest["parts"].values():
        for modality, parts in part.get("matrix", {}).items():
            known = facts.setdefault(part["source"], {}).setdefault(modality, [])
            known.extend(entry for entry in parts if entry not in known)
    return Matrix(facts)


def source_label_matrix(dataset: Any) -> "pd.DataFrame":
    """The matrix of an open dataset as a table.

    Returns:
        One row a (source, modality), one column a label of the tree; values are categories, in the order of ``STATES``.
    """
    import pandas as pd

    matrix, labels = matrix_of(dataset), [label.id for label in label_tree()]
    rows = sorted((source, modality) for source, by_modality in matrix.facts.items() for modality in by_modality)
    index = pd.MultiIndex.from_tuples(rows, names=["source", "modality"]) if rows else _no_rows()
    kind = pd.CategoricalDtype(list(STATES), ordered=True)
    columns = {label: pd.Categorical([matrix.state(*row, label) for row in rows], dtype=kind) for label in labels}
    return pd.DataFrame(columns, index=index)


def labels_seen(modality: str, facts: Facts, tree: LabelTree) -> frozenset[str]:
    """Ids of the labels that images of this modality with this field may show; the others are impossible.

    Args:
        modality: One of ``medglip.records.MODALITIES``.
        facts: Of one part. Without a field, only what the modality itself cannot show is impossible.
        tree: The label tree.
    """
    may_show = _rule(modality, facts, tree)
    seen = {label.id for label in tree if may_show(label)}
    # A wider concept may be there where one of its kinds may: "lesion" where "skin lesion" may.
    wider = {above for label in seen for above in tree.ancestors(label) if tree.covers(above, label)}
    return frozenset(seen | wider)


def labels_unseen(labels: Iterable[str], modality: str, facts: Facts, tree: LabelTree) -> list[str]:
    """Which of these labels images of this modality with this field cannot show; see ``labels_seen``."""
    may_show = _rule(modality, facts, tree)
    doubtful = [label for label in labels if not may_show(tree[label])]
    seen = labels_seen(modality, facts, tree) if doubtful else frozenset()
    return [label for label in doubtful if label not in seen]


def _rule(modality: str, facts: Facts, tree: LabelTree) -> Callable[[Label], bool]:
    """Whether such an image may show a label; its kinds are not looked at."""
    field = set(facts.get("field", ()))
    wholes = {above for label in field for above in _places(tree[label], tree)}
    denied, allowed = set(facts.get("impossible", ())), set(facts.get("possible", ()))
    marked = {tree.split(concept)[0] for concept in facts.get("exhaustive", ())}

    def may_show(label: Label) -> bool:
        own = {label.id, *tree.ancestors(label.id)} if allowed or denied else set()
        if allowed & own or label.id in marked:
            return True
        if denied & own or not _fits_modality(label, modality):
            return False
        return not field or _in_field(label, field, wholes, tree) or _is_general(label, modality, tree)

    return may_show


def _covered(searched: Iterable[str], concept: str, tree: LabelTree) -> bool:
    """Whether searching for these concepts is searching for this one too."""
    searched = tuple(searched)
    if any(tree.covers(wide, concept) for wide in searched):
        return True
    if "@" in concept or not tree[concept].laterality:
        return False
    sides = (f"{concept}@left", f"{concept}@right")
    return all(any(tree.covers(wide, side) for wide in searched) for side in sides)


def _places(label: Label, tree: LabelTree) -> set[str]:
    """The label, and what it is a part of or located in, up to its body region."""
    found: set[str] = set()
    queue = [label.id]
    while queue:
        here = tree[queue.pop()]
        if here.id not in found:
            found.add(here.id)
            queue += [above for above in (here.part_of, *here.site) if above]
    return found


def _in_field(label: Label, field: set[str], wholes: set[str], tree: LabelTree) -> bool:
    if field & _places(label, tree) or label.id in wholes or wholes.intersection(label.site):
        return True
    return any(tree.covers(shown, label.id) for shown in field)


def _is_general(label: Label, modality: str, tree: LabelTree) -> bool:
    """What may be in a picture whatever its field: of a surface general findings and tools, else also what is all over."""
    if label.site[:1] == ("systemic",) or label.id.startswith("systemic.lesion."):
        return True
    if modality in _MICROSCOPES:
        return tree.body_region(label.id) == "systemic" and not label.is_finding
    if modality in _SURFACES:
        return label.id in _ON_SURFACES
    if tree.body_region(label.id) in _ALL_OVER or label.coarse == "device":
        return True
    return any(tree.covers(kind, place) for place in _places(label, tree) for kind in _EVERYWHERE)


def _fits_modality(label: Label, modality: str) -> bool:
    cellular = (label.coarse == "cell" and label.id != "systemic.blood") or label.id in _TISSUES
    if cellular and modality not in (*_MICROSCOPES, "other"):
        return False
    return label.id not in _FINE or modality in (*_SURFACES, "other")


def _no_rows() -> "pd.MultiIndex":
    import pandas as pd

    return pd.MultiIndex.from_arrays([[], []], names=["source", "modality"])
