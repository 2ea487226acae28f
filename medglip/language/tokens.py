"""An observation as tokens for the VQA head: one a region, then one a searched concept. Knows no pixels."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from medglip.language.grammar import is_finding
from medglip.language.observe import Observation
from medglip.language.places import box_area
from medglip.language.scene import holder_of
from medglip.records import LabelTree, Region
from medglip.records.mentions import Mention

# Numbers of a token: kind (2), box (6), score, presence, side (2), finding, regions of the concept (3), and what links it
# to the question: whether it is the larger of two that are compared; whether the first, the second, any mention names it.
FEATURES = 20
LINKS, _MENTIONS = 4, 3
# Sums and maxima of the others over the regions and over the concepts that the first and the second mention name.
NAMED = 2 * 2 * 2 * (FEATURES - _MENTIONS)
_PRESENCE = 9
MOST_REGIONS, _MOST_CONCEPTS = 48, 32
# Scores from which regions of a concept are counted; the head learns which count to believe.
_COUNTED_FROM = (0.2, 0.35, 0.5)


class Tokens(NamedTuple):
    """Tokens of one scene (K, ...) or of a batch (B, K, ...).

    Attributes:
        names: (K,) int64 row of the concept's name in a table of word vectors.
        holders: (K,) int64 the same of the anatomy that holds a region; row 0, of zeros, where there is none.
        features: (K, FEATURES).
        answer: (K,) int64 place of the concept's name in the answers; -1 where it is none.
        holder_answer: (K,) int64 the same of the holder's name.
        there: (K,) bool, False for padding.
    """

    names: Tensor
    holders: Tensor
    features: Tensor
    answer: Tensor
    holder_answer: Tensor
    there: Tensor

    @classmethod
    def padded(cls, scenes: Sequence["Tokens"]) -> "Tokens":
        """A batch of scenes of different length."""
        pad = nn.utils.rnn.pad_sequence
        return cls(*(pad(list(field), batch_first=True) for field in zip(*scenes, strict=True)))


def tokens_of(seen: Observation, answers: Mapping[str, int], row_of: Callable[[str], int], tree: LabelTree) -> Tokens:
    """Tokens of an observation, not yet linked to a question: its regions in order, then its concepts in order.

    Args:
        seen: The observation.
        answers: Place of each answer in the closed vocabulary.
        row_of: Row of a name in the table of word vectors.
        tree: The label tree.
    """
    regions, concepts = seen.regions[:MOST_REGIONS], list(seen.presence)
    holders = [_holder_name(region, regions, tree) for region in regions] + [None] * len(concepts)
    names = [tree.concept_name(concept) for concept in (*(r.concept for r in regions), *concepts)]
    numbers = np.pad(_numbers(seen, regions, concepts, tree), ((0, 0), (0, LINKS)))
    return Tokens(
        names=torch.tensor([row_of(name) for name in names], dtype=torch.long),
        holders=torch.tensor([row_of(name) if name else 0 for name in holders], dtype=torch.long),
        features=torch.from_numpy(numbers),
        answer=torch.tensor([answers.get(name, -1) for name in names], dtype=torch.long),
        holder_answer=torch.tensor([answers.get(name or "", -1) for name in holders], dtype=torch.long),
        there=torch.ones(len(names), dtype=torch.bool),
    )


def linked_tokens(tokens: Tokens, linked: np.ndarray) -> Tokens:
    """The tokens as a question sees them: all regions, the concepts that it names, and the most present others.

    Args:
        tokens: From ``tokens_of``.
        linked: (K, LINKS) from ``links``.
    """
    features = torch.cat([tokens.features[:, :-LINKS], torch.from_numpy(linked)], 1)
    is_concept, presence = features[:, 1], features[:, _PRESENCE]
    rank = (is_concept * (presence + 2 * features[:, -1])).argsort(descending=True)
    kept = torch.cat([torch.nonzero(is_concept == 0).flatten(), rank[: min(_MOST_CONCEPTS, int(is_concept.sum()))]])
    return Tokens(*(field[kept] for field in tokens._replace(features=features)))


def links(seen: Observation, mentions: Sequence[Mention], tree: LabelTree) -> np.ndarray:
    """(K, LINKS) float32: whether a token is the larger of two, and answers the first, the second, any mention.

    Args:
        seen: The scene's observation.
        mentions: Of the question.
        tree: The label tree.
    """
    concepts = [region.concept for region in seen.regions[:MOST_REGIONS]] + list(seen.presence)
    linked = np.zeros((len(concepts), LINKS), dtype=np.float32)
    for number, mention in enumerate(mentions):
        exact = [concept in mention.concepts for concept in concepts]
        for row, concept in enumerate(concepts):
            if exact[row] or (not any(exact) and any(tree.covers(meant, concept) for meant in mention.concepts)):
                linked[row, 3] = 1.0
                linked[row, 1 + min(number, 1)] = 1.0
    # Regions come by falling score: the first that is named is the one to compare.
    firsts = [next((r for r, row in zip(seen.regions, linked, strict=False) if row[column]), None) for column in (1, 2)]
    if firsts[0] is not None and firsts[1] is not None:
        larger = 1 + int(box_area(firsts[1].box_xyxy) > box_area(firsts[0].box_xyxy))
        linked[:, 0] = linked[:, larger]
    return linked


def named_features(tokens: Tokens) -> Tensor:
    """(B, NAMED) sums and maxima over the tokens that the question names: attention's means cannot count."""
    numbers, linked = tokens.features[..., :-_MENTIONS], tokens.features[..., -_MENTIONS:]
    pooled = []
    for mention in (0, 1):
        for kind in (0, 1):
            chosen = numbers * (linked[..., mention] * numbers[..., kind] * tokens.there).unsqueeze(-1)
            total = chosen.sum(1) / 4
            pooled += [total, chosen.amax(1) if chosen.shape[1] else total]
    return torch.cat(pooled, -1)


def _numbers(seen: Observation, regions: Sequence[Region], concepts: Sequence[str], tree: LabelTree) -> np.ndarray:
    width, height = seen.view.width, seen.view.height
    counts = {
        concept: [sum(r.concept == concept and (1.0 if r.score is None else r.score) >= least for r in regions) / 4
                  for least in _COUNTED_FROM]
        for concept in {*concepts, *(region.concept for region in regions)}
    }  # fmt: skip
    rows = []
    for region in regions:
        x0, y0, x1, y1 = region.box_xyxy
        across, down = (x1 - x0) / width, (y1 - y0) / height
        box = [(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, across, down, float(np.log(across * down + 1e-5)) / 5,
               (x1 - x0) / (x1 - x0 + y1 - y0)]  # fmt: skip
        score = 1.0 if region.score is None else region.score
        rows.append([1.0, 0.0, *box, score, seen.presence.get(region.concept, score), *_sides(region.concept, tree),
                     float(is_finding(region.concept, tree)), *counts[region.concept]])  # fmt: skip
    for concept in concepts:
        scores = [1.0 if r.score is None else r.score for r in regions if r.concept == concept]
        rows.append([0.0, 1.0, *[0.0] * 6, max(scores, default=0.0), seen.presence[concept], *_sides(concept, tree),
                     float(is_finding(concept, tree)), *counts[concept]])  # fmt: skip
    return np.asarray(rows, dtype=np.float32).reshape(-1, FEATURES - LINKS)


def _sides(concept: str, tree: LabelTree) -> tuple[float, float]:
    side = tree.split(concept)[1]
    return float(side == "left"), float(side == "right")


def _holder_name(region: Region, regions: Sequence[Region], tree: LabelTree) -> str | None:
    """Name of the anatomy that holds a finding: one of its sites if there is one, else whatever lies around it."""
    if not is_finding(region.concept, tree):
        return None
    sure = [other for other in regions if other.score is None or other.score >= _COUNTED_FROM[0]]
    holder = holder_of(region, sure, tree) or holder_of(region, sure, tree, sites_only=False)
    return tree.concept_name(holder.concept) if holder else None
