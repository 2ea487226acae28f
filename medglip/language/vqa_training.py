"""Trains the VQA head on templated questions over a grounder's own regions, and measures it. Knows datasets and truth.

Half of the training scenes are what the grounder says, half the truth, so that the head learns the detector's noise
and still reads good boxes. Every figure names its arm: predicted boxes, truth boxes, another image's boxes, no boxes.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from medglip.errors import DatasetError
from medglip.language.bands import Bands
from medglip.language.metrics import score_reports
from medglip.language.observe import (
    Observation,
    calibrated_bands,
    deniable_of,
    observation_of_record,
    observe_dataset,
)
from medglip.language.places import box_iou
from medglip.language.questions import CANNOT_TELL, QuestionAnswer, question_set
from medglip.language.report import report
from medglip.language.tokens import MOST_REGIONS, Tokens, linked_tokens, links, tokens_of
from medglip.language.vocabulary import vocabulary_of
from medglip.language.vqa import VQA, HeadConfig, VQAHead, WordVectors, padded_words
from medglip.records import ImageRecord, LabelTree, label_tree
from medglip.records.mentions import Lexicon

if TYPE_CHECKING:
    from medglip.curate.views import Viewed
    from medglip.predict import Grounder

_BATCH, _RATE, STEPS = 64, 2e-3, 900


@dataclass(frozen=True)
class Sample:
    """One question on one scene, as tensors.

    Attributes:
        words: (L, text width).
        tokens: The scene's.
        answer: Place of the answer, -1 where the vocabulary lacks it.
        evidence: (K,) float32, 1 for tokens that prove the answer.
        topic: What the question is about.
    """

    words: Tensor
    tokens: Tokens
    answer: int
    evidence: Tensor
    topic: str


class Samples:
    """Turns questions into tensors; what questions on one scene share is made once."""

    def __init__(self, answers: Sequence[str], vectors: WordVectors, tree: LabelTree) -> None:
        self.answers = {answer: place for place, answer in enumerate(answers)}
        self.vectors, self.tree = vectors, tree
        self._lexicon = Lexicon([label.id for label in tree], tree)
        self._scenes: dict[int, Tokens] = {}
        self._mentions: dict[str, Any] = {}

    def sample(self, pair: QuestionAnswer, seen: Observation, record: ImageRecord) -> Sample:
        """One sample. ``record`` holds the evidence regions."""
        if id(seen) not in self._scenes:
            self._scenes[id(seen)] = tokens_of(seen, self.answers, self.vectors.row_of, self.tree)
        if pair.question not in self._mentions:
            self._mentions[pair.question] = self._lexicon.mentions(pair.question)
        linked = links(seen, self._mentions[pair.question], self.tree)
        tokens = linked_tokens(self._scenes[id(seen)], linked)
        evidence = torch.zeros(len(tokens.answer))
        proof = [region for region in record.regions if region.id in pair.evidence]
        for place, region in enumerate(seen.regions[:MOST_REGIONS]):
            evidence[place] = any(
                other.concept == region.concept and box_iou(other.box_xyxy, region.box_xyxy) >= 0.5 for other in proof
            )
        answer = self.answers.get(pair.answer, -1)
        return Sample(self.vectors.words(pair.question), tokens, answer, evidence, pair.topic)


def train_vqa(
    grounder: "Grounder",
    datasets: Sequence["Viewed"],
    out: str | Path,
    observations: Mapping[str, Observation] | None = None,
    seed: int = 0,
    coverage: float = 0.9,
    steps: int = STEPS,
    progress: Callable[..., None] | None = None,
) -> dict[str, Any]:
    """Train the head, set the thresholds of answers and reports, write both into ``out``, measure on the test split.

    Args:
        grounder: The trained grounder of the checkpoint.
        datasets: Open datasets, or views of them, with train, val and test splits by patient.
        out: The checkpoint's folder; ``language/`` is written into it.
        observations: What the grounder says, by image id, where it is known already (see ``observe_dataset``).
        seed: Of questions, weights and order.
        coverage: Share of validation questions to answer; the least confident rest gets "cannot tell".
        steps: Of training, 64 questions each.
        progress: Called as ``progress(done, total, note)``.

    Returns:
        Accuracies on test questions: ``vqa_accuracy`` (predicted boxes), ``vqa_accuracy_with_truth_boxes``,
        ``vqa_accuracy_with_wrong_boxes`` (another image's), ``vqa_accuracy_without_boxes`` (a head trained on questions
        alone), ``vqa_majority``; after abstention ``vqa_accuracy_answered`` and ``vqa_coverage``; ``vqa_by_topic``;
        ``vqa_questions`` by split. Of the reports of test images: ``report_precision``, ``report_recall``,
        ``report_f1`` of findings, ``report_denial_precision``, ``report_denials``, ``report_box_precision``,
        ``reports``.

    Raises:
        DatasetError: no training question can be made.
    """
    records = {record.id: record for dataset in datasets for record in dataset.records()}
    train_records = [record for record in records.values() if record.split == "train"]
    vocabulary = vocabulary_of(train_records)
    if observations is None:
        observations = {}
        for dataset in datasets:
            observations |= observe_dataset(grounder, dataset, vocabulary, progress=progress)
    pairs = [pair for pair in question_set(records.values(), seed) if pair.image_id in observations]
    by_split = {split: [pair for pair in pairs if pair.split == split] for split in ("train", "val", "test")}
    if not by_split["train"]:
        raise DatasetError("No question can be made from the training images; they need regions or absent labels.")
    width = WordVectors(grounder.model.text_encoder.text).width
    config = HeadConfig(answers=answers_of(by_split["train"], records), text_width=width, coverage=coverage)
    vqa = VQA(grounder, VQAHead(config), config, vocabulary)
    vqa, blind = fit(vqa, by_split, records, observations, seed, steps, progress)
    folder = vqa.save(out)
    val = [record for record in records.values() if record.split == "val"]
    bands = calibrated_bands(val, observations, deniable_of(train_records))
    bands.save(folder)
    return measure(vqa, blind, by_split, records, observations) | _reports(records, observations, bands)


def measure_vqa(
    vqa: VQA, bands: Bands, datasets: Sequence["Viewed"], observations: Mapping[str, Observation], seed: int = 0
) -> dict[str, Any]:
    """The figures of ``train_vqa`` of a head that was trained before, but for that of the question alone.

    Args:
        vqa: The head, with its grounder.
        bands: When its reports assert, hedge and deny.
        datasets: As in ``train_vqa``; the questions of the split ``test`` are asked.
        observations: What the grounder says, by image id; of test images at least.
        seed: Of questions.
    """
    records = {record.id: record for dataset in datasets for record in dataset.records()}
    pairs = list(question_set(records.values(), seed))
    by_split = {split: [pair for pair in pairs if pair.split == split] for split in ("train", "val", "test")}
    return measure(vqa, None, by_split, records, observations) | _reports(records, observations, bands)


def _reports(records: Mapping[str, ImageRecord], observations: Mapping[str, Observation], bands: Bands) -> dict[str, Any]:
    """How good the reports of test images are."""
    test = [record for record in records.values() if record.split == "test" and record.id in observations]
    return score_reports((report(observations[record.id].scene(bands)), record) for record in test)


def fit(
    vqa: VQA,
    pairs: Mapping[str, Sequence[QuestionAnswer]],
    records: Mapping[str, ImageRecord],
    observations: Mapping[str, Observation],
    seed: int = 0,
    steps: int = STEPS,
    progress: Callable[..., None] | None = None,
) -> tuple[VQA, VQAHead]:
    """A trained and calibrated VQA, and a head of the same shape trained on the questions alone.

    Args:
        vqa: With an untrained head.
        pairs: Questions by split, ``train`` and ``val``.
        records: Truth by image id.
        observations: What the grounder says by image id.
        seed: Of weights and order.
        steps: Of training.
        progress: Called as ``progress(done, total, note)``.
    """
    samples = Samples(vqa.config.answers, vqa.vectors, vqa.tree)
    truth = {image_id: observation_of_record(record) for image_id, record in records.items()}
    empty = {image_id: Observation(seen.view) for image_id, seen in truth.items()}

    def made(split: str, scenes: Mapping[str, Observation]) -> list[Sample]:
        return [samples.sample(p, scenes[p.image_id], records[p.image_id]) for p in pairs[split] if p.image_id in scenes]

    both = [[a, b] for a, b in zip(made("train", observations), made("train", truth), strict=True)]
    blind = [[sample] for sample in made("train", empty)]
    val = made("val", observations) or [choice[0] for choice in both]
    table = vqa.vectors.table()
    torch.manual_seed(seed)
    head = _trained(VQAHead(vqa.config), both, table, seed, steps, progress)
    blind_head = _trained(VQAHead(vqa.config), blind, table, seed, max(1, steps // 3))
    temperature, threshold = _calibrated(head, val, table, vqa.config.coverage)
    config = replace(vqa.config, temperature=temperature, threshold=threshold)
    return VQA(vqa.grounder, head, config, vqa.vocabulary), blind_head


def measure(
    vqa: VQA,
    blind: VQAHead | None,
    pairs: Mapping[str, Sequence[QuestionAnswer]],
    records: Mapping[str, ImageRecord],
    observations: Mapping[str, Observation],
) -> dict[str, Any]:
    """Accuracy on the test questions in every arm; see ``train_vqa``."""
    test = [pair for pair in pairs["test"] if pair.image_id in observations]
    figures: dict[str, Any] = {"vqa_questions": {split: len(many) for split, many in pairs.items()}}
    if not test:
        return figures
    truth = {image_id: observation_of_record(record) for image_id, record in records.items()}
    turned = _turned(sorted({pair.image_id for pair in test}), records)
    arms = {
        "vqa_accuracy": (vqa, observations),
        "vqa_accuracy_with_truth_boxes": (vqa, truth),
        "vqa_accuracy_with_wrong_boxes": (vqa, {image_id: observations[other] for image_id, other in turned.items()}),
    }  # fmt: skip
    if blind is not None:
        unseen = {image_id: Observation(seen.view) for image_id, seen in truth.items()}
        arms["vqa_accuracy_without_boxes"] = (VQA(vqa.grounder, blind, vqa.config, vqa.vocabulary), unseen)
    for name, (model, scenes) in arms.items():
        # The blind head has no scene in which a label could have been searched for: its guess is its answer.
        given = model.answer_all([(scenes[pair.image_id], pair.question) for pair in test])
        right = [answer.guess == pair.answer for answer, pair in zip(given, test, strict=True)]
        if name != "vqa_accuracy_without_boxes":
            right = [_is_right(answer, pair.answer) for answer, pair in zip(given, test, strict=True)]
        figures[name] = float(np.mean(right))
        if name == "vqa_accuracy":
            topics: dict[str, list[bool]] = defaultdict(list)
            for pair, good in zip(test, right, strict=True):
                topics[pair.topic].append(good)
            figures["vqa_by_topic"] = {topic: float(np.mean(good)) for topic, good in sorted(topics.items())}
            answered = [good for good, answer in zip(right, given, strict=True) if not answer.abstained]
            figures["vqa_accuracy_answered"] = float(np.mean(answered)) if answered else None
            asked = [a for a, pair in zip(given, test, strict=True) if pair.answer != CANNOT_TELL]
            figures["vqa_coverage"] = float(np.mean([not a.abstained for a in asked])) if asked else None
    for common, _ in Counter(pair.answer for pair in pairs["train"]).most_common(1):
        figures["vqa_majority"] = float(np.mean([pair.answer == common for pair in test]))
    return figures


def answers_of(pairs: Sequence[QuestionAnswer], records: Mapping[str, ImageRecord]) -> tuple[str, ...]:
    """The closed vocabulary: answers of the training questions and names of all training concepts."""
    tree = label_tree()
    names = {tree.concept_name(region.concept) for pair in pairs for region in records[pair.image_id].regions}
    return tuple(sorted({pair.answer for pair in pairs} | names | {CANNOT_TELL, "yes", "no"}))


def _turned(ids: Sequence[str], records: Mapping[str, ImageRecord]) -> dict[str, str]:
    """For each image the next one of its modality, so that the boxes are plausible but wrong."""
    turned: dict[str, str] = {}
    for modality in sorted({records[image_id].modality for image_id in ids}):
        same = [image_id for image_id in ids if records[image_id].modality == modality]
        turned |= dict(zip(same, [*same[1:], same[0]], strict=True))
    return turned


def _is_right(answer: Any, truth: str) -> bool:
    """Without the confidence threshold: the best guess, or "cannot tell" where the label was not searched for."""
    given = answer.text if answer.reason == "not searched for" else answer.guess
    return bool(given == truth)


def _trained(
    head: VQAHead,
    choices: Sequence[Sequence[Sample]],
    table: Tensor,
    seed: int,
    steps: int,
    progress: Callable[..., None] | None = None,
) -> VQAHead:
    """The head after so many steps; at each, one scene of every question is drawn."""
    rng = np.random.default_rng(seed)
    known = [number for number, choice in enumerate(choices) if choice[0].answer >= 0]
    # Rare topics are drawn more often than they are asked: by the square root.
    counts = Counter(choices[number][0].topic for number in known)
    weight = np.array([counts[choices[number][0].topic] ** -0.5 for number in known])
    weight /= weight.sum()
    optimiser = torch.optim.AdamW(head.parameters(), lr=_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps, pct_start=0.1)
    head.train()
    for step in range(steps):
        drawn = rng.choice(known, size=min(_BATCH, len(known)), replace=False, p=weight)
        batch = [choices[number][int(rng.integers(len(choices[number])))] for number in drawn]
        loss = _loss(head, batch, table, rng)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if progress is not None and step % 20 == 0:
            progress(step, steps, f"question loss {loss.item():.2f}")
    if progress is not None:
        progress(steps, steps, "")
    return head.eval()


def _loss(head: VQAHead, batch: Sequence[Sample], table: Tensor, rng: np.random.Generator) -> Tensor:
    words, is_word, tokens, answer, evidence = collated(batch)
    # Jitter and dropout of tokens: the head meets other boxes than those it was trained on.
    features = tokens.features.clone()
    features[..., 2:8] += torch.from_numpy(rng.normal(0, 0.01, features[..., 2:8].shape).astype(np.float32))
    dropped = torch.from_numpy(rng.random(tokens.there.shape) < 0.02)
    tokens = tokens._replace(features=features, there=tokens.there & ~dropped)
    output = head(words, is_word, tokens, table)
    loss = functional.cross_entropy(output.answers, answer, label_smoothing=0.02)
    if tokens.there.any():
        there = tokens.there
        loss = loss + 0.5 * functional.binary_cross_entropy_with_logits(output.evidence[there], evidence[there])
    return loss


def collated(batch: Sequence[Sample]) -> tuple[Tensor, Tensor, Tokens, Tensor, Tensor]:
    """Words, which of them are words, tokens, answers and evidence of several samples."""
    words, is_word = padded_words([sample.words for sample in batch])
    evidence = nn.utils.rnn.pad_sequence([sample.evidence for sample in batch], batch_first=True)
    answer = torch.tensor([sample.answer for sample in batch])
    return words, is_word, Tokens.padded([sample.tokens for sample in batch]), answer, evidence


@torch.no_grad()
def _calibrated(head: VQAHead, samples: Sequence[Sample], table: Tensor, coverage: float) -> tuple[float, float]:
    """Temperature of the least loss, and the confidence that so many of the samples reach."""
    logits, answers = [], []
    for start in range(0, len(samples), _BATCH):
        words, is_word, tokens, answer, _ = collated(samples[start : start + _BATCH])
        logits.append(head(words, is_word, tokens, table).answers)
        answers.append(answer)
    every, truth = torch.cat(logits), torch.cat(answers)
    known = truth >= 0
    if not known.any():
        return 1.0, 0.0
    steps = np.geomspace(0.25, 8, 41)
    temperature = float(min(steps, key=lambda t: functional.cross_entropy(every[known] / t, truth[known]).item()))
    confidence = (every / temperature).softmax(-1).amax(-1)
    return temperature, float(torch.quantile(confidence, 1 - coverage))
