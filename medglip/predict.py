"""Grounds phrases in images with a trained model. Knows checkpoints and pixels; no datasets and no truth."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from medglip.errors import InputError, ModelError, SourceError
from medglip.model.checkpoints import CheckpointInfo, load_checkpoint
from medglip.model.dense import Detections, GroundingOutput, MedGLIP, detect
from medglip.model.head import expected_sigmoid
from medglip.model.prompt import Prompt, make_prompt
from medglip.model.regions import RegionPooler
from medglip.model.view import View, fitted
from medglip.records.labels import label_tree
from medglip.records.masks import Rle, rle_of_mask
from medglip.records.phrases import concept_phrases
from medglip.records.record import MODALITIES, Phrase, Region

WORDS = 256  # words of phrases asked at once, of each image; GLIP's limit
ROWS = 8  # of them at once: thousands of phrases take time, not memory
TOP = 100  # boxes a phrase before suppression
MOST = 20  # regions a phrase
_REMEMBERED = 32  # prompts whose words are kept, read, where they have
_FEW = 256  # texts at most: those of thousands would fill the memory


class Answer(NamedTuple):
    """Everything the model found in one image, nothing thrown away but what another box of the phrase suppresses.

    Attributes:
        boxes: (P, K, 4) float32 xyxy pixels of the image, by falling score.
        scores: (P, K) float32 in [0, 1]; 0 where suppressed.
        presence: (P,) float32 in [0, 1].
        features: (P, K, width) float32, what the model saw at each box.
        phrases: (P, width) float32, the phrases after looking at the image.
        uncertainty: (P,) float32, standard deviation of the logit of presence.
        masks: (phrase, number) to the mask of that box in the image; only of boxes above the thresholds, and empty where
            the model has no mask head.
    """

    boxes: np.ndarray
    scores: np.ndarray
    presence: np.ndarray
    features: np.ndarray
    phrases: np.ndarray
    uncertainty: np.ndarray
    masks: dict[tuple[int, int], Rle]


@dataclass(frozen=True)
class Look:
    """What the model says about the phrases asked of one image.

    Attributes:
        regions: Boxes above the thresholds, by falling score; ``provenance`` is ``predicted``, ``attributes["phrase"]``
            the place of the phrase in the list asked, ``attributes["presence"]`` its presence.
        presence: Phrase to probability that it is in the image, for every phrase asked.
        features: (R, width) float32, one row a region, for heads that build on regions.
        phrases: (P, width) float32, one row a phrase asked, after it has looked at the image.
    """

    regions: tuple[Region, ...]
    presence: dict[str, float]
    features: np.ndarray
    phrases: np.ndarray


class Grounder:
    """A trained model with its thresholds.

    Args:
        model: The model; it is put into evaluation mode.
        info: What its checkpoint says of it.
        device: ``cpu``, ``cuda``, ...; None takes CUDA where there is one.

    Example:
        ``Grounder.load("run/best").ground(pixels, ["left lung", "pneumothorax"], modality="xray")``
    """

    def __init__(self, model: MedGLIP, info: CheckpointInfo, device: str | None = None) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = model.to(self.device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.info = info
        self.size = int(info.config["image"]["size"])
        self._read: OrderedDict[tuple[str, ...], Tensor] = OrderedDict()

    @classmethod
    def load(cls, path: str | Path, device: str | None = None) -> "Grounder":
        """From a checkpoint folder; raises ModelError where it is none, is damaged or does not fit."""
        return cls(*load_checkpoint(path), device)

    def ground(self, image: np.ndarray, phrases: Sequence[str], modality: str | None = None) -> list[Region]:
        """The regions that the phrases name, by falling score; none for a phrase that is absent.

        Args:
            image: (H, W) or (H, W, 3) uint8, windowed for display; or uint16, whose darkest and brightest half per cent
                are cut off and the rest stretched.
            phrases: What to look for; laterality means the patient's side. Any number of them.
            modality: One of ``MODALITIES``, or None where it is not known.

        Raises:
            InputError: pixels of another type, an unknown modality, or no phrase.
        """
        return list(self.look(image, phrases, modality).regions)

    def look(self, image: np.ndarray, phrases: Sequence[str], modality: str | None = None, most: int = MOST) -> Look:
        """Regions, presence and features; at most ``most`` regions a phrase, the first ``MOST`` with masks where there are any.

        Arguments as in ``ground``.
        """
        answer = self.answer([image], [phrases], [modality])[0]
        height, width = image.shape[:2]
        found: list[tuple[Region, np.ndarray]] = []
        for place, text in enumerate(phrases):
            for number in self._good(answer.scores[place], answer.presence[place], modality)[:most]:
                region = self._region(text, place, answer, int(number), (width, height))
                if region is not None:
                    found.append((region, answer.features[place, number]))
        found.sort(key=lambda pair: -(pair[0].score or 0.0))
        features = (
            np.stack([feature for _, feature in found]) if found else np.zeros((0, answer.features.shape[-1]), np.float32)
        )
        presence = {text: float(value) for text, value in zip(phrases, answer.presence, strict=True)}
        return Look(tuple(region for region, _ in found), presence, features, answer.phrases)

    @torch.no_grad()
    def answer(
        self, images: Sequence[np.ndarray], phrases: Sequence[Sequence[str]], modalities: Sequence[str | None]
    ) -> list[Answer]:
        """All boxes of all phrases, for several images at once; see ``Answer``.

        Raises:
            InputError: as in ``ground``.
        """
        for image, asked, modality in zip(images, phrases, modalities, strict=True):
            _check(image, asked, modality)
        shown = [_eight_bit(image) for image in images]
        views = [fitted(image.shape[1], image.shape[0], self.size) for image in shown]
        pixels = np.stack([view.draw(image) for view, image in zip(views, shown, strict=True)])
        batch = torch.from_numpy(pixels).to(self.device, torch.float32).div_(255)
        trained = [name if name in self.info.modalities else None for name in modalities]  # the rest is as unknown
        index = self.model.modality.index(trained).to(self.device)
        seen = self.model.see(batch.contiguous(memory_format=torch.channels_last), index)
        prompt = make_prompt(phrases, self.model.text_encoder.text.tokenize, WORDS).to(self.device)
        words = self._words(prompt)
        found: list[list[Answer]] = [[] for _ in images]
        for first in range(0, len(prompt.image_of_row), ROWS):
            part = prompt.rows(first, first + ROWS)
            output = self.model.ground(seen, part, index, words=words)
            detections = detect(output, self.size, TOP)
            for row, (image, one) in enumerate(zip(part.image_of_row.tolist(), detections, strict=True)):
                count = int(part.phrase_is_asked[row].sum())
                size = (shown[image].shape[1], shown[image].shape[0])
                found[image].append(self._row(output, row, count, one, views[image], size, modalities[image]))
        return [_joined(answers) for answers in found]

    @torch.no_grad()
    def region_vectors(self, image: np.ndarray, boxes: np.ndarray, modality: str | None = None) -> np.ndarray:
        """What is in boxes of an image, as vectors that ``phrase_vectors`` can be compared with; one pass for all boxes.

        Args:
            image: As in ``ground``.
            boxes: (K, 4) xyxy pixels of the image.
            modality: As in ``ground``.

        Returns:
            (K, 64) float32 of length 1.

        Raises:
            InputError: as in ``ground``.
            ModelError: the model was trained without the loss ``contrast``.
        """
        regions, _ = self._contrast()
        _check(image, ["anything"], modality)
        shown = _eight_bit(image)
        view = fitted(shown.shape[1], shown.shape[0], self.size)
        batch = torch.from_numpy(view.draw(shown)[None]).to(self.device, torch.float32).div_(255)
        index = self.model.modality.index([modality if modality in self.info.modalities else None]).to(self.device)
        placed = torch.from_numpy(view.boxes_on_canvas(np.asarray(boxes, np.float32).reshape(-1, 4))).to(self.device)
        levels = self.model.see(batch, index).levels
        return regions(levels, self.model.head.pyramid.strides, placed[None])[0].float().cpu().numpy()

    @torch.no_grad()
    def phrase_vectors(self, phrases: Sequence[str]) -> np.ndarray:
        """Phrases as (P, 64) float32 of length 1, to be compared with ``region_vectors``; raises as that does."""
        _, project = self._contrast()
        prompt = make_prompt([[phrase] for phrase in phrases], self.model.text_encoder.text.tokenize, WORDS).to(self.device)
        words = self.model.read(prompt).flatten(0, 1)[prompt.words]
        vectors = project(self.model.text_encoder.pool(words, prompt.members))[:, 0]
        return torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()

    def _contrast(self) -> tuple[RegionPooler, torch.nn.Linear]:
        extras = self.model.extras
        if extras.regions is None or extras.phrases is None:
            raise ModelError(
                "This model was trained without the loss 'contrast', so it has no vectors of regions; set its weight."
            )
        return extras.regions, extras.phrases

    def _words(self, prompt: Prompt) -> Tensor:
        """The prompt's words, read; those of the last prompts are remembered, if they are few."""
        if len(prompt.texts) > _FEW:
            return self.model.read(prompt)
        if prompt.texts not in self._read:
            self._read[prompt.texts] = self.model.read(prompt)
            if len(self._read) > _REMEMBERED:
                self._read.popitem(last=False)
        self._read.move_to_end(prompt.texts)
        return self._read[prompt.texts]

    def _good(self, scores: np.ndarray, presence: float, modality: str | None) -> np.ndarray:
        """Numbers of the boxes of a phrase that are shown, best first."""
        score, least = self.info.thresholds_of(modality)
        return np.flatnonzero(scores >= score) if presence >= least else np.zeros(0, int)

    def _row(
        self, output: GroundingOutput, row: int, count: int, one: Detections, view: View, size: tuple[int, int],
        modality: str | None,
    ) -> Answer:  # fmt: skip
        """The answer of one row about its ``count`` phrases."""
        presence = expected_sigmoid(output.presence[row, :count], output.uncertainty[row, :count]).float().cpu().numpy()
        scores, points = one.scores[:count].cpu().numpy(), one.points[:count]
        boxes = view.boxes_in_image(one.boxes[:count].reshape(-1, 4).cpu().numpy()).reshape(count, scores.shape[1], 4)
        masks = {}
        head = self.model.extras.masks
        pairs = [
            (place, int(number))
            for place in range(count)
            for number in self._good(scores[place], presence[place], modality)[:MOST]
        ]
        if head is not None and pairs:
            places = torch.tensor(pairs, device=self.device)
            at = points[places[:, 0], places[:, 1]]
            logits = head([level[row : row + 1] for level in output.seen.levels], output.seen.fine[row : row + 1],
                          output.features[row, at][None], output.phrases[row, places[:, 0]][None],
                          output.points[at][None])[0]  # fmt: skip
            for pair, probability in zip(pairs, logits.float().sigmoid().cpu().numpy(), strict=True):
                masks[pair] = _mask(view.map_in_image(probability, 4, size), boxes[pair])
        features = output.features[row][points].float().cpu().numpy()
        spread = (output.uncertainty[row, :count] / 2).exp().float().cpu().numpy()
        return Answer(boxes, scores, presence, features, output.phrases[row, :count].float().cpu().numpy(), spread, masks)

    def concept(self, phrase: str) -> str:
        """The concept that a phrase names: a trained one so worded, else the label tree's, else the phrase itself."""
        text = phrase.strip().lower()
        if text in self._wordings:
            return self._wordings[text]
        try:
            label, side = label_tree().resolve(text)
        except SourceError:
            return text
        return f"{label}@{side}" if side in ("left", "right") else label

    @cached_property
    def _wordings(self) -> dict[str, str]:
        tree = label_tree()
        pairs = [(phrase.text.lower(), concept) for concept in self.info.concepts for phrase in concept_phrases(concept, tree)]
        return dict(reversed(pairs))  # the first concept that claims a wording has it

    def _region(self, text: str, place: int, answer: Answer, number: int, size: tuple[int, int]) -> Region | None:
        """One predicted region inside the image; None where clipping leaves nothing."""
        x0, y0, x1, y1 = (float(edge) for edge in answer.boxes[place, number])
        box = (max(x0, 0.0), max(y0, 0.0), min(x1, float(size[0])), min(y1, float(size[1])))
        if box[2] - box[0] < 0.5 or box[3] - box[1] < 0.5:
            return None
        label, _, side = self.concept(text).partition("@")
        return Region(
            label=label, box_xyxy=box, laterality=side or None, phrases=(Phrase(text, "machine"),),  # type: ignore[arg-type]
            mask=answer.masks.get((place, number)),
            attributes={"phrase": place, "presence": round(float(answer.presence[place]), 4),
                        "presence_spread": round(float(answer.uncertainty[place]), 4)},
            score=min(1.0, float(answer.scores[place, number])), provenance="predicted",
        )  # fmt: skip


def _joined(answers: Sequence[Answer]) -> Answer:
    """The answers of an image's rows as one."""
    if len(answers) == 1:
        return answers[0]
    masks: dict[tuple[int, int], Rle] = {}
    first = 0
    for answer in answers:
        masks |= {(first + place, number): mask for (place, number), mask in answer.masks.items()}
        first += len(answer.presence)
    joined = {name: np.concatenate([getattr(answer, name) for answer in answers]) for name in Answer._fields[:-1]}
    return Answer(**joined, masks=masks)


def _mask(probability: np.ndarray, box: np.ndarray) -> Rle:
    """The mask (H, W) of what is likelier than not, inside its box made a tenth larger."""
    x0, y0, x1, y1 = box
    wider, higher = (x1 - x0) / 20, (y1 - y0) / 20
    inside = np.zeros(probability.shape, bool)
    rows = slice(max(0, math.floor(y0 - higher)), max(0, math.ceil(y1 + higher)))
    inside[rows, max(0, math.floor(x0 - wider)) : max(0, math.ceil(x1 + wider))] = True
    return rle_of_mask(inside & (probability > 0.5))


def _eight_bit(image: np.ndarray) -> np.ndarray:
    """uint8 pixels; of uint16 ones the darkest and brightest half per cent are cut off."""
    if image.dtype == np.uint8:
        return image
    low, high = np.percentile(image, (0.5, 99.5))
    return ((image.astype(np.float32) - low) * (255 / max(high - low, 1.0))).clip(0, 255).round().astype(np.uint8)


def _check(image: np.ndarray, phrases: Sequence[str], modality: str | None) -> None:
    right = isinstance(image, np.ndarray) and image.dtype in (np.uint8, np.uint16) and image.size > 0
    if not right or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        found = (image.shape, str(image.dtype)) if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"Image: found {found!r}; allowed: uint8 or uint16, (H, W) or (H, W, 3), with a pixel at least.")
    if modality is not None and modality not in MODALITIES:
        raise InputError(f"Modality {modality!r} is unknown; allowed: {', '.join(MODALITIES)}, or none.")
    if isinstance(phrases, str) or not len(phrases) or not all(phrase.strip() for phrase in phrases):
        raise InputError(f"Phrases: found {phrases!r}; give a list of at least one phrase, none of them empty.")
