"""What a source is, once its TOML has been read: parts, labels, and the facts of the source x label matrix."""

from dataclasses import dataclass
from dataclasses import field as dataclass_field
from difflib import get_close_matches
from functools import cached_property
from typing import Any

from medglip.errors import SourceError
from medglip.records import Laterality, concept_of, label_tree

SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Named:
    """A raw label resolved: id in the label tree, and the patient's side where the label says it."""

    label: str
    laterality: Laterality = None

    @property
    def concept(self) -> str:
        """``label`` or ``label@side``."""
        return concept_of(self.label, self.laterality)


@dataclass(frozen=True, slots=True)
class Derived:
    """A label that the source does not draw itself: the union of raw labels, such as an organ with its tumors.

    Attributes:
        named: The label.
        raw: The raw labels that make it up; some may be skipped on their own.
    """

    named: Named
    raw: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """Files of a source that are read the same way; see ``medglip.curate.grammar`` for every field."""

    name: str
    converter: str
    modality: str
    source: str
    licence: str
    annotation: str
    files: dict[str, str]
    labels: dict[str, Named | None]
    public_names: bool = False
    by_name: bool = False
    exhaustive: tuple[str, ...] = ()
    field: tuple[str, ...] = ()
    possible: tuple[str, ...] = ()
    impossible: tuple[str, ...] = ()
    detail: dict[str, str] = dataclass_field(default_factory=dict)
    spacing_mm: tuple[float, float] | None = None
    patient: str | None = None
    group: str | None = None
    patient_of: str | None = None
    group_of: str | None = None
    split: str | None = None
    split_words: dict[str, str] = dataclass_field(default_factory=dict)
    text: str | None = None
    options: dict[str, Any] = dataclass_field(default_factory=dict)
    derived: tuple[Derived, ...] = ()

    @property
    def all_named(self) -> tuple[Named, ...]:
        """The labels that its tables name, once each and in their order: those of raw labels, then the derived ones."""
        found = [named for named in self.labels.values() if named]
        return tuple(dict.fromkeys((*found, *(one.named for one in self.derived))))

    @property
    def facts(self) -> dict[str, list[str]]:
        """What the source x label matrix is made of (``medglip.store.matrix``), less what is empty."""
        said = {"exhaustive": self.exhaustive, "field": self.field, "possible": self.possible, "impossible": self.impossible}
        return {name: list(ids) for name, ids in said.items() if ids}

    def named(self, raw: str, where: str) -> Named | None:
        """What a raw label means; None where the source says to skip it.

        Args:
            raw: The label as the source writes it.
            where: File (and row) in which it stands, for the error.

        Raises:
            SourceError: neither the part's table nor, with ``labels_by_name``, the tree knows it.
        """
        if raw in self.labels:
            return self.labels[raw]
        if self.by_name:
            try:
                return Named(*label_tree().resolve(raw))
            except SourceError as error:
                raise SourceError(f"datasets/{self.source}.toml: {where}: {error}") from error
        near = get_close_matches(raw, self.labels, n=3, cutoff=0.0)
        raise SourceError(
            f"datasets/{self.source}.toml: the label {raw!r} ({where}) has no entry in [part.labels] of {self.name!r}."
            f' Nearest known: {", ".join(map(repr, near))}. Add the entry, or write "{raw}" = "{SKIP}" to leave it out.'
        )

    def option(self, name: str, default: Any = None) -> Any:
        """One of the converter's options."""
        return self.options.get(name, default)


@dataclass(frozen=True)
class Source:
    """A source data set, as its TOML describes it."""

    name: str
    title: str
    licence: str
    parts: tuple[Part, ...]
    page: str = ""
    citation: str = ""
    access: str = "open"
    annotation: str = "human"
    public_names: bool = False
    lineage: tuple[str, ...] = ()
    known_defects: tuple[str, ...] = ()
    expected: dict[str, int] = dataclass_field(default_factory=dict)
    digest: str = ""

    @cached_property
    def modalities(self) -> tuple[str, ...]:
        """Its modalities, sorted."""
        return tuple(sorted({part.modality for part in self.parts}))

    @cached_property
    def concepts(self) -> tuple[str, ...]:
        """The concepts that its tables name, sorted."""
        return tuple(sorted({named.concept for part in self.parts for named in part.all_named}))

    @cached_property
    def matrix(self) -> dict[str, list[dict[str, list[str]]]]:
        """Modality -> facts of its parts, equal ones once; what a dataset keeps of it for the source x label matrix."""
        found: dict[str, list[dict[str, list[str]]]] = {modality: [] for modality in self.modalities}
        for part in self.parts:
            if part.facts not in found[part.modality]:
                found[part.modality].append(part.facts)
        return found
