"""MedGLIP, a dense language-grounded detector: built from parts, readable in one sitting. Knows no files."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from medglip.errors import ModelError
from medglip.model.additions import rebuild
from medglip.model.boxes import nms_keep
from medglip.model.encoders import ImageEncoder, PhraseReader, build_image_encoder, build_text_encoder
from medglip.model.fusion import FusionLayer, TextLayer, may_look
from medglip.model.head import Alignment, DenseHead, GroundingHead, Presence, expected_sigmoid
from medglip.model.learned import Extras, Learned
from medglip.model.losses import Target
from medglip.model.modality import ModalityConditioning
from medglip.model.prompt import Prompt
from medglip.model.pyramid import FeaturePyramid, grid_points, position_features
from medglip.records.record import MODALITIES


class Seen(NamedTuple):
    """What the model sees in B images before it is asked anything.

    Attributes:
        levels: Pyramid levels (B, width, H, W), conditioned by the modality.
        fine: (B, C, H/4, W/4), the image encoder's map of stride 4.
    """

    levels: list[Tensor]
    fine: Tensor


class GroundingOutput(NamedTuple):
    """What the model says of R rows (an image with all or some of its phrases), N points and P phrases.

    Attributes:
        logits: (R, N, P) alignment of point and phrase.
        boxes: (R, N, 4) xyxy pixels of the input.
        quality: (R, N) logit of the box's IoU with what it is on (or of its centerness).
        presence: (R, P) logit of the phrase being in the image.
        uncertainty: (R, P) log variance of that logit.
        features: (R, N, width) what each point shows, for heads built on top.
        points: (N, 2) x and y of the points in pixels.
        strides: (N,) pixels between the points of a level.
        phrases: (R, P, width) phrases after fusion.
        seen: Levels after fusion and the map of stride 4, for masks; a row each.
        learned: What only the losses need; None where no targets were given.
    """

    logits: Tensor
    boxes: Tensor
    quality: Tensor
    presence: Tensor
    uncertainty: Tensor
    features: Tensor
    points: Tensor
    strides: Tensor
    phrases: Tensor
    seen: Seen
    learned: Learned | None = None


class Fusion(nn.Module):
    """The layers between seeing and answering.

    Args:
        layers: Image and words look at each other.
        texts: After each of them, layers in which words look at words.
        of_phrases: Phrases are pooled first and are the words (fast); else tokens are, as in GLIP.
        isolate: Words look only at words of their own text.
        checkpointing: Recompute in the backward pass what the layers made, to save memory.
    """

    def __init__(
        self, layers: nn.ModuleList, texts: nn.ModuleList, of_phrases: bool, isolate: bool, checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.layers, self.texts = layers, texts
        self.of_phrases, self.isolate, self.checkpointing = of_phrases, isolate, checkpointing

    def forward(self, levels: list[Tensor], words: Tensor, group: Tensor, is_real: Tensor) -> tuple[list[Tensor], Tensor]:
        """Levels (R, width, H, W) and words (R, T, width) of the texts ``group`` (R, T), after all layers."""
        allowed = may_look(group, is_real, self.isolate)
        for layer, texts in zip(self.layers, self.texts, strict=True):
            levels, words = self._run(layer, levels, words, is_real)
            for text in texts:  # type: ignore[attr-defined]
                words = self._run(text, words, allowed)
        return levels, words

    def _run(self, layer: nn.Module, *values: Any) -> Any:
        if self.checkpointing and self.training:
            return checkpoint(layer, *values, use_reentrant=False)
        return layer(*values)


class MedGLIP(nn.Module):
    """Grounds phrases in images, conditioned on the modality.

    Args:
        image_encoder: Images to maps of stride 4, 8, 16, 32 (``frozen`` and ``forward``, see encoders).
        text_encoder: Tokens to words, words to phrases.
        modality: Conditioning of maps, levels and words.
        fusion: Layers in which image and words look at each other.
        head: ``pyramid``, ``dense``, ``align`` and ``presence``.
        extras: What only some losses need.
    """

    def __init__(
        self, image_encoder: ImageEncoder, text_encoder: PhraseReader, modality: ModalityConditioning, fusion: Fusion,
        head: GroundingHead, extras: Extras,
    ) -> None:  # fmt: skip
        super().__init__()
        self.image_encoder, self.text_encoder = image_encoder, text_encoder
        self.modality, self.fusion = modality, fusion
        self.head, self.extras = head, extras

    def forward(
        self, images: Tensor, prompt: Prompt, modality: Tensor, frozen: list[Tensor] | None = None,
        targets: Sequence[Target] | None = None, word_labels: Tensor | None = None,
    ) -> GroundingOutput:  # fmt: skip
        """Scores and boxes of every point for every phrase.

        Args:
            images: (B, 3, H, W) in [0, 1], sides divisible by 32; may be empty where ``frozen`` is given.
            prompt: The phrases asked of each image.
            modality: (B,) indices from ``modality.index``; 0 is unknown.
            frozen: ``image_encoder.frozen(images)`` where it is already known.
            targets: The truth of each row, for training: ``learned`` is filled.
            word_labels: (U, L) int64 the words that were masked in ``prompt.tokens``, -100 elsewhere.
        """
        return self.ground(self.see(images, modality, frozen), prompt, modality, targets, word_labels)

    def see(self, images: Tensor, modality: Tensor, frozen: list[Tensor] | None = None) -> Seen:
        """What is in the images, whatever will be asked; arguments as in ``forward``."""
        maps = self.image_encoder(self.image_encoder.frozen(images) if frozen is None else frozen)
        maps = self.modality.on_maps(maps, modality, images if self.modality.needs_images else None)
        return Seen(self.modality.on_levels(self.head.pyramid(maps), modality), maps[0])

    def read(self, prompt: Prompt) -> Tensor:
        """The words of the prompt's distinct texts, (U, L, width): what of the text does not depend on an image."""
        return self.text_encoder(prompt.tokens, prompt.token_is_word)

    def ground(
        self, seen: Seen, prompt: Prompt, modality: Tensor, targets: Sequence[Target] | None = None,
        word_labels: Tensor | None = None, words: Tensor | None = None,
    ) -> GroundingOutput:  # fmt: skip
        """Answers about images that were seen; arguments as in ``forward``; ``words`` is ``read(prompt)`` if it is known."""
        rows = prompt.image_of_row
        if not torch.equal(rows, torch.arange(len(modality), device=rows.device)):  # many phrases: an image has several rows
            seen = Seen([level[rows] for level in seen.levels], seen.fine[rows])
            modality = modality[rows]
        words = (self.read(prompt) if words is None else words).flatten(0, 1)[prompt.words]
        before = self.text_encoder.pool(words, prompt.members)
        if self.fusion.of_phrases:
            order = torch.arange(before.shape[1], device=words.device).expand(len(before), -1)
            words, group, is_real = before, order, prompt.phrase_is_asked
        else:
            group, is_real = prompt.word_text, prompt.word_is_real
        words = self.modality.on_words(words, modality)
        levels, words = self.fusion(seen.levels, words, group, is_real)
        phrases = words if self.fusion.of_phrases else self.text_encoder.pool(words, prompt.members)

        output = self._points(Seen(levels, seen.fine), phrases)
        if targets is None:
            return output
        labels = word_labels.flatten()[prompt.words].where(prompt.word_is_real, -100) if word_labels is not None else None
        learned = self.extras(
            {"levels": seen.levels, "phrases": before},
            {"levels": levels, "fine": seen.fine, "words": words, **output._asdict()},
            targets, self.head.pyramid.strides, labels, self.text_encoder.text.embedding(),
        )  # fmt: skip
        return output._replace(learned=learned)

    def _points(self, seen: Seen, phrases: Tensor) -> GroundingOutput:
        """What every point says, of levels and phrases after fusion."""
        maps = self.head.dense(seen.levels, self.head.pyramid.strides)
        names, reaches, quality, features = maps.joined()
        points, strides = grid_points(maps.names, maps.strides)
        boxes = torch.cat([points - reaches[..., :2], points + reaches[..., 2:]], dim=-1)
        height, width = (side * maps.strides[0] for side in maps.names[0].shape[-2:])
        logits = self.head.align(names, phrases, position_features(points, (width, height)))
        presence, uncertainty = self.head.presence(seen.levels, phrases, logits)
        return GroundingOutput(logits, boxes, quality, presence, uncertainty, features, points, strides, phrases, seen)


class Detections(NamedTuple):
    """The best boxes of each phrase of one row, all of one length K, by falling score; suppressed ones score 0.

    Attributes:
        boxes: (P, K, 4) xyxy pixels of the input.
        scores: (P, K) in [0, 1].
        points: (P, K) int64, the point that each box came from.
    """

    boxes: Tensor
    scores: Tensor
    points: Tensor


@torch.no_grad()
def detect(output: GroundingOutput, size: int, top: int = 100, nms: float = 0.5, across: bool = False) -> list[Detections]:
    """The ``top`` boxes a phrase after suppression, for each row of a batch.

    A score is alignment^0.6 * quality^0.4 * presence: how well the point fits the phrase, how well the box fits, and
    whether the phrase is there at all, its uncertainty reckoned in.

    Args:
        output: What the model said.
        size: Side of the canvas, to which boxes are clipped.
        top: Boxes a phrase before suppression.
        nms: IoU above which the lower box goes.
        across: Boxes of different phrases suppress each other too (class-agnostic); else only those of one phrase.
    """
    scores = (output.logits.sigmoid() ** 0.6 * output.quality.sigmoid().unsqueeze(-1) ** 0.4).transpose(1, 2)
    scores = scores * expected_sigmoid(output.presence, output.uncertainty).unsqueeze(-1)
    best, points = scores.float().topk(min(top, scores.shape[-1]), dim=-1)
    found = []
    for row, (score, point) in enumerate(zip(best, points, strict=True)):
        boxes = output.boxes[row].float()[point].clamp(0, size)
        if across:
            order = score.flatten().argsort(descending=True, stable=True)
            keep = torch.zeros_like(order, dtype=torch.bool).scatter(0, order, nms_keep(boxes.flatten(0, 1)[order], nms))
            score = score * keep.view_as(score)
        else:
            score = score * nms_keep(boxes, nms)
        score, order = score.sort(dim=-1, descending=True, stable=True)
        boxes = boxes.gather(1, order.unsqueeze(-1).expand(-1, -1, 4))
        found.append(Detections(boxes, score, point.gather(1, order)))
    return found


def build_model(config: Mapping[str, Any], pretrained: bool = True) -> MedGLIP:
    """The model that a configuration describes; ``pretrained=False`` where a checkpoint will be read over it.

    Raises:
        ModelError: a part is unknown, or parts do not fit each other.
    """
    model, weights = config["model"], config["loss"]
    if model["fuse"] not in ("phrases", "words"):
        raise ModelError(f"Fusion of {model['fuse']!r}: allowed: phrases (fast), words (as GLIP).")
    if model["fuse"] == "phrases" and weights.get("words", 0) > 0:
        raise ModelError("Loss 'words' guesses masked words, and fuse = 'phrases' has none; set fuse = 'words'.")
    width, heads, scale = model["width"], model["heads"], model["layer_scale"]
    encoder = build_image_encoder(config["image"], pretrained)
    reader = PhraseReader(build_text_encoder(config["text"], pretrained), width, heads)
    pyramid = FeaturePyramid(encoder.channels, width, model["levels"])
    count = model["fusion_layers"]
    fusion = Fusion(
        nn.ModuleList(FusionLayer(width, heads, scale, model["image_looks"]) for _ in range(count)),
        nn.ModuleList(nn.ModuleList(TextLayer(width, heads, scale) for _ in range(model["text_layers"])) for _ in range(count)),
        model["fuse"] == "phrases", model["isolate"], model["checkpointing"],
    )  # fmt: skip
    dense = DenseHead(width, model["head_depth"], len(pyramid.strides), model["head"])
    head = GroundingHead(pyramid, dense, Alignment(width), Presence(width, heads))
    conditioning = ModalityConditioning(MODALITIES, width, encoder.channels, len(pyramid.strides), model["modality"])
    extras = Extras(width, encoder.channels[0], reader.text, weights)
    return rebuild(MedGLIP(encoder, reader, conditioning, fusion, head, extras), config)
