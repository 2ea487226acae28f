"""Scores of answers and reports against truth, in plain Python: no download, no language model, no torch.

Reports are scored by what they state, not by how: a statement is a concept, a polarity and boxes. Only what the truth
record knows is scored; a statement about something that was never annotated counts neither way. BLEU and its kin are
left out on purpose: they hardly see a negation.
"""

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from medglip.language.grammar import is_finding
from medglip.language.places import box_iou
from medglip.language.report import Report
from medglip.records import Box, ImageRecord, LabelTree, label_tree
from medglip.records.mentions import Lexicon

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans(string.punctuation, " " * len(string.punctuation))


def normalised(text: str) -> str:
    """Lower case, without articles, punctuation and double spaces.

    >>> normalised("The left  lung.")
    'left lung'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(given: str, truth: str) -> bool:
    """Whether two answers are the same words; "normal" is not "no", and a word inside another is no match."""
    return normalised(given) == normalised(truth)


def token_f1(given: str, truth: str) -> float:
    """F1 of the bags of words of two answers, in [0, 1].

    Source: SQuAD v1.1 evaluation (Rajpurkar et al. 2016).

    >>> round(token_f1("left lower lobe", "left lobe"), 2)
    0.8
    """
    ours, theirs = normalised(given).split(), normalised(truth).split()
    if not ours or not theirs:
        return float(ours == theirs)
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs))


@dataclass(frozen=True, slots=True)
class Statement:
    """What a sentence claims of one concept: ``polarity`` is present, absent or uncertain; boxes in image pixels."""

    concept: str
    polarity: str
    boxes: tuple[Box, ...] = ()


@dataclass
class ReportScore:
    """Counts over reports; the rates are micro averages, None where nothing was counted.

    Attributes:
        right: Present statements that the truth shows.
        invented: Present statements that the truth denies.
        told: True findings that a present statement names.
        hedged: True findings that are only called uncertain.
        missed: True findings that are not named, or denied.
        denied_right: Absent statements that the truth denies too.
        denied_wrong: Absent statements of something that is there.
        boxes_right: Cited boxes of right statements with IoU of at least 0.5 with a true box.
        boxes: Cited boxes of right statements.
    """

    right: int = 0
    invented: int = 0
    told: int = 0
    hedged: int = 0
    missed: int = 0
    denied_right: int = 0
    denied_wrong: int = 0
    boxes_right: int = 0
    boxes: int = 0
    reports: int = field(default=0)

    def rates(self) -> dict[str, float | int | None]:
        """Precision, recall and F1 of findings, precision of denials, share of cited boxes that are right."""
        precision = _share(self.right, self.right + self.invented)
        recall = _share(self.told, self.told + self.hedged + self.missed)
        f1 = None
        if precision is not None and recall is not None:
            f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        return {
            "report_precision": precision,
            "report_recall": recall,
            "report_f1": f1,
            "report_denial_precision": _share(self.denied_right, self.denied_right + self.denied_wrong),
            "report_denials": self.denied_right + self.denied_wrong,
            "report_box_precision": _share(self.boxes_right, self.boxes),
            "reports": self.reports,
        }


def statements_of_report(report: Report) -> tuple[Statement, ...]:
    """What the findings of a report state, with the boxes that they cite."""
    statements = []
    for line in report.section("findings"):
        regions = [report.scene.region(region_id) for region_id in line.region_ids]
        for concept in line.concepts:
            boxes = tuple(region.box_xyxy for region in regions if region.concept == concept)
            statements.append(Statement(concept, line.polarity, boxes))
    return tuple(statements)


def statements_of_text(text: str, tree: LabelTree | None = None) -> tuple[Statement, ...]:
    """What a free-text report states, by the label tree's words and the negations before them; without boxes.

    >>> [(s.concept, s.polarity) for s in statements_of_text("No pneumothorax. Small left pleural effusion.")]
    [('thorax.pleura.pneumothorax', 'absent'), ('thorax.pleura.effusion@left', 'present')]
    """
    tree = tree or label_tree()
    mentions = Lexicon([label.id for label in tree], tree).mentions(text)
    return tuple(Statement(mention.concepts[0], mention.polarity) for mention in mentions if len(mention.concepts) == 1)


def score_report(
    statements: Sequence[Statement],
    truth: ImageRecord,
    score: ReportScore | None = None,
    tree: LabelTree | None = None,
    findings_only: bool = True,
) -> ReportScore:
    """Counts of one report, added to those before.

    A general statement ("tumor") is right where a kind of it is there; a denial must be covered by what the truth
    denies. What the truth does not know is left out.

    Args:
        statements: Of the report.
        truth: The record of its image.
        score: Counts so far, or None to begin.
        tree: The label tree.
        findings_only: Whether anatomy is left out.
    """
    tree = tree or label_tree()
    score = score or ReportScore()
    score.reports += 1
    counted = [s for s in statements if not findings_only or is_finding(s.concept, tree)]
    there = {region.concept for region in truth.regions if not findings_only or is_finding(region.concept, tree)}
    for statement in counted:
        shown = [concept for concept in there if tree.covers(statement.concept, concept)]
        if statement.polarity == "present":
            _count_present(statement, shown, truth, score, tree)
        elif statement.polarity == "absent":
            score.denied_wrong += bool(shown)
            score.denied_right += not shown and _denied(statement.concept, truth, tree)
    for concept in there:
        said = {s.polarity for s in counted if tree.covers(s.concept, concept)}
        if "present" in said:
            score.told += 1
        elif "uncertain" in said:
            score.hedged += 1
        else:
            score.missed += 1
    return score


def score_reports(pairs: Iterable[tuple[Report, ImageRecord]]) -> dict[str, float | int | None]:
    """Rates over reports and the records of their images; see ``ReportScore.rates``."""
    score = ReportScore()
    for report, truth in pairs:
        score_report(statements_of_report(report), truth, score)
    return score.rates()


def _count_present(statement: Statement, shown: Sequence[str], truth: ImageRecord, score: ReportScore, tree: LabelTree) -> None:
    if not shown:
        score.invented += _denied(statement.concept, truth, tree)
        return
    score.right += 1
    boxes = [region.box_xyxy for region in truth.regions if region.concept in shown]
    score.boxes += len(statement.boxes)
    score.boxes_right += sum(any(box_iou(cited, box) >= 0.5 for box in boxes) for cited in statement.boxes)


def _denied(concept: str, truth: ImageRecord, tree: LabelTree) -> bool:
    """Whether the truth denies the concept: it, a general one, or both of its sides."""
    label, side = tree.split(concept)
    if any(tree.covers(absent, concept) for absent in truth.absent):
        return True
    return side is None and {f"{label}@left", f"{label}@right"} <= set(truth.absent)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
