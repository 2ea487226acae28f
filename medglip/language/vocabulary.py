"""What to search for in an image: the concepts that training images of its modality know. Knows no boxes' truth.

Concepts that some image knows together form a group ("liver, kidneys, kidney stone"). A model was never taught that
there is no kidney in a brain, as no image was searched for both; so a group is dropped where another one plainly fits.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medglip.errors import ModelError
from medglip.language.grammar import is_finding
from medglip.records import ImageRecord, LabelTree, Region

VOCABULARY_FILE = "vocabulary.json"
# A group of concepts stays where the score of its best anatomy is at least this share of the best group's.
_FITS = 0.9
# Below this an anatomy says nothing of where the image is; a finding at or above it keeps its group.
_SEEN = 0.4

Groups = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Groups of concepts that were searched for together, by modality."""

    groups: Mapping[str, Groups]

    def of(self, modality: str | None) -> tuple[str, ...]:
        """Concepts of a modality; of all where it is unknown or was never trained."""
        return tuple(sorted({concept for group in self._groups_of(modality) for concept in group}))

    def fitting(self, modality: str | None, regions: Sequence[Region], tree: LabelTree) -> frozenset[str]:
        """Concepts of the groups that fit what was found; the others were not meant for such an image.

        Args:
            modality: Of the image, or None.
            regions: Predicted, of any score.
            tree: The label tree.
        """
        groups = self._groups_of(modality)
        if len(groups) < 2:
            return frozenset(self.of(modality))
        best = {group: _best(group, regions, tree, findings=False) for group in groups}
        bar = max(best.values(), default=0.0)
        fitting = [group for group in groups if bar >= _SEEN and best[group] >= _FITS * bar]
        seen = {region.concept for region in regions if (region.score or 0.0) >= _SEEN}
        places = {tree.body_region(tree.split(one)[0]) for group in fitting for one in seen.intersection(group)}
        for group in groups:
            if all(is_finding(concept, tree) for concept in group):
                near = not places or not places.isdisjoint(tree.body_region(tree.split(c)[0]) for c in group)
                if near or _best(group, regions, tree, findings=True) >= _SEEN:
                    fitting.append(group)
        return frozenset(concept for group in fitting or groups for concept in group)

    def _groups_of(self, modality: str | None) -> Groups:
        if modality is not None and modality in self.groups:
            return self.groups[modality]
        return _joined(set(group) for many in self.groups.values() for group in many)

    def save(self, folder: Path) -> None:
        """Write ``vocabulary.json``."""
        (folder / VOCABULARY_FILE).write_text(json.dumps(dict(self.groups), indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Vocabulary":
        """Read ``vocabulary.json``.

        Raises:
            ModelError: the file is missing or damaged.
        """
        path = folder / VOCABULARY_FILE
        try:
            plain: dict[str, Any] = json.loads(path.read_text())
            return cls({modality: tuple(tuple(group) for group in groups) for modality, groups in plain.items()})
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ModelError(f"{path}: no list of what to search for ({error}); train the language part again.") from error


def vocabulary_of(records: Iterable[ImageRecord]) -> Vocabulary:
    """Concepts that records mark or call absent, by modality and by what is searched for together."""
    known: dict[str, set[frozenset[str]]] = defaultdict(set)
    for record in records:
        known[record.modality].add(frozenset({region.concept for region in record.regions} | set(record.absent)))
    return Vocabulary({modality: groups for modality, sets in sorted(known.items()) if (groups := _joined(map(set, sets)))})


def _joined(sets: Iterable[set[str]]) -> Groups:
    """Sets that share a concept, joined; each sorted, and the groups in order."""
    groups: list[set[str]] = []
    for concepts in sets:
        joined = set(concepts)
        for other in [group for group in groups if group & joined]:
            groups.remove(other)
            joined |= other
        if joined:
            groups.append(joined)
    return tuple(sorted(tuple(sorted(group)) for group in groups))


def _best(group: Sequence[str], regions: Sequence[Region], tree: LabelTree, findings: bool) -> float:
    """Highest score of a region of the group's findings, or of its anatomy."""
    able = {concept for concept in group if is_finding(concept, tree) == findings}
    return max((region.score or 0.0 for region in regions if region.concept in able), default=0.0)
