"""Grounds phrases in images with a trained model. Knows checkpoints and pixels; no datasets and no truth."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from medglip.errors import InputError, SourceError
from medglip.model.checkpoints import CheckpointInfo, load_checkpoint
from medglip.model.dense import MedGLIP, detect
from medglip.model.prompt import make_prompt
from medglip.model.view import fitted
from medglip.records.labels import label_tree
from medglip.records.phrases import concept_phrases
from medglip.records.record import MODALITIES, Phrase, Region

CHUNK = 64  # phrases asked at once
TOP = 100  # boxes a phrase before suppression


class Answer(NamedTuple):
    """Everything the model found in one image, nothing thrown away but what another box of the phrase suppresses.

    Attributes:
        boxes: (P, K, 4) float32 xyxy pixels of the image, by falling score.
        scores: (P, K) float32 in [0, 1]; 0 where suppressed.
        presence: (P,) float32 in [0, 1].
        features: (P, K, width) float32, what the model saw at each box.
        phrases: (P, width) float32, the phrases after looking at the image.
    """

    boxes: np.ndarray
    scores: np.ndarray
    presence: np.ndarray
    features: np.ndarray
    phrases: np.ndarray


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

    @classmethod
    def load(cls, path: str | Path, device: str | None = None) -> "Grounder":
        """From a checkpoint folder; raises ModelError where it is none, is damaged or does not fit."""
        return cls(*load_checkpoint(path), device)

    def ground(self, image: np.ndarray, phrases: Sequence[str], modality: str | None = None) -> list[Region]:
        """The regions that the phrases name, by falling score; none for a phrase that is absent.

        Args:
            image: (H, W) or (H, W, 3) uint8, windowed for display.
            phrases: What to look for; laterality means the patient's side.
            modality: One of ``MODALITIES``, or None where it is not known.

        Raises:
            InputError: pixels of another type, an unknown modality, or no phrase.
        """
        return list(self.look(image, phrases, modality).regions)

    def look(self, image: np.ndarray, phrases: Sequence[str], modality: str | None = None, most: int = 20) -> Look:
        """Regions, presence and features; at most ``most`` regions a phrase. Arguments as in ``ground``."""
        answer = self.answer([image], [phrases], [modality])[0]
        height, width = image.shape[:2]
        found: list[tuple[Region, np.ndarray]] = []
        for place, text in enumerate(phrases):
            if answer.presence[place] < self.info.presence_threshold:
                continue
            good = np.flatnonzero(answer.scores[place] >= self.info.score_threshold)[:most]
            for number in good:
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
        views = [fitted(image.shape[1], image.shape[0], self.size) for image in images]
        pixels = np.stack([view.draw(image) for view, image in zip(views, images, strict=True)])
        batch = torch.from_numpy(pixels).to(self.device, torch.float32).div_(255)
        frozen = self.model.image_encoder.frozen(batch.contiguous(memory_format=torch.channels_last))
        modality_index = self.model.modality.index(modalities).to(self.device)
        parts = []
        for start in range(0, max(map(len, phrases)), CHUNK):
            chunk = [list(asked[start : start + CHUNK]) for asked in phrases]
            prompt = make_prompt(chunk, self.model.text_encoder.text.tokenize).to(self.device)
            output = self.model(batch, prompt, modality_index, frozen)
            presence = output.presence.sigmoid().cpu().numpy()
            words = output.phrases.cpu().numpy()
            found = detect(output, self.size, TOP)
            parts.append(
                [
                    Answer(
                        view.boxes_in_image(one.boxes[:count].reshape(-1, 4).cpu().numpy()).reshape(
                            count, one.boxes.shape[1], 4
                        ),
                        one.scores[:count].cpu().numpy(),
                        presence[row, :count],
                        output.features[row][one.points[:count]].cpu().numpy(),
                        words[row, :count],
                    )
                    for row, (view, one, count) in enumerate(zip(views, found, map(len, chunk), strict=True))
                ]
            )
        return [
            Answer(*(np.concatenate(field) for field in zip(*answers, strict=True))) for answers in zip(*parts, strict=True)
        ]

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
            attributes={"phrase": place, "presence": round(float(answer.presence[place]), 4)},
            score=min(1.0, float(answer.scores[place, number])), provenance="predicted",
        )  # fmt: skip


def _check(image: np.ndarray, phrases: Sequence[str], modality: str | None) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or not (
        image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
    ):  # fmt: skip
        found = (image.shape, str(image.dtype)) if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"Image: found {found!r}; allowed: uint8 (H, W) or (H, W, 3), windowed for display.")
    if modality is not None and modality not in MODALITIES:
        raise InputError(f"Modality {modality!r} is unknown; allowed: {', '.join(MODALITIES)}, or none.")
    if isinstance(phrases, str) or not phrases or not all(phrase.strip() for phrase in phrases):
        raise InputError(f"Phrases: found {phrases!r}; give a list of at least one phrase, none of them empty.")
