"""MedGLIP, a dense language-grounded detector: built from parts, readable in one sitting. Knows no files."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from medglip.model.boxes import nms_keep
from medglip.model.encoders import ImageEncoder, PhraseEncoder, build_image_encoder, build_text_encoder
from medglip.model.fusion import FusionLayer
from medglip.model.head import Alignment, DenseHead, FeaturePyramid, GroundingHead, Presence, grid_points, position_features
from medglip.model.modality import ModalityConditioning
from medglip.model.prompt import Prompt
from medglip.records.record import MODALITIES


class GroundingOutput(NamedTuple):
    """What the model says of B images, N points and P phrases.

    Attributes:
        logits: (B, N, P) alignment of point and phrase.
        boxes: (B, N, 4) xyxy pixels of the input.
        quality: (B, N) logit of the box's IoU with what it is on.
        presence: (B, P) logit of the phrase being in the image.
        features: (B, N, width) what each point shows, for heads built on top.
        points: (N, 2) x and y of the points in pixels.
        strides: (N,) pixels between the points of a level.
        phrases: (B, P, width) phrases after fusion.
    """

    logits: Tensor
    boxes: Tensor
    quality: Tensor
    presence: Tensor
    features: Tensor
    points: Tensor
    strides: Tensor
    phrases: Tensor


class MedGLIP(nn.Module):
    """Grounds phrases in images, conditioned on the modality.

    Args:
        image_encoder: Images to maps of stride 4, 8, 16, 32 (``frozen`` and ``forward``, see encoders).
        text_encoder: Tokens to one vector a phrase.
        modality: Conditioning of phrases and levels.
        fusion: Layers in which image and phrases look at each other.
        head: ``pyramid``, ``dense``, ``align`` and ``presence``.
    """

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: PhraseEncoder,
        modality: ModalityConditioning,
        fusion: nn.ModuleList,
        head: GroundingHead,
    ) -> None:
        super().__init__()
        self.image_encoder, self.text_encoder = image_encoder, text_encoder
        self.modality, self.fusion = modality, fusion
        self.head = head

    def forward(self, images: Tensor, prompt: Prompt, modality: Tensor, frozen: list[Tensor] | None = None) -> GroundingOutput:
        """Scores and boxes of every point for every phrase.

        Args:
            images: (B, 3, H, W) in [0, 1], sides divisible by 64; empty where ``frozen`` is given.
            prompt: The phrases asked of each image.
            modality: (B,) indices from ``modality.index``; 0 is unknown.
            frozen: ``image_encoder.frozen(images)`` where it is already known.
        """
        maps = self.image_encoder(self.image_encoder.frozen(images) if frozen is None else frozen)
        levels = self.modality.on_levels(self.head.pyramid(maps), modality)
        phrases = self.text_encoder(prompt.tokens, prompt.token_is_word)[prompt.place]
        phrases = self.modality.on_phrases(phrases, modality)
        for layer in self.fusion:
            levels, phrases = layer(levels, phrases, prompt.phrase_is_asked)

        maps_of_points = self.head.dense(levels, self.head.pyramid.strides)
        names, reaches, quality, features = maps_of_points.joined()
        points, strides = grid_points(maps_of_points.names, maps_of_points.strides)
        boxes = torch.cat([points - reaches[..., :2], points + reaches[..., 2:]], dim=-1)
        height, width = (side * maps_of_points.strides[0] for side in maps_of_points.names[0].shape[-2:])
        logits = self.head.align(names, phrases, position_features(points, (width, height)))
        presence = self.head.presence(levels, phrases, logits)
        return GroundingOutput(logits, boxes, quality, presence, features, points, strides, phrases)


class Detections(NamedTuple):
    """The best boxes of each phrase of one image, all of one length K, by falling score; suppressed ones score 0.

    Attributes:
        boxes: (P, K, 4) xyxy pixels of the input.
        scores: (P, K) in [0, 1].
        points: (P, K) int64, the point that each box came from.
    """

    boxes: Tensor
    scores: Tensor
    points: Tensor


@torch.no_grad()
def detect(output: GroundingOutput, size: int, top: int = 100, nms: float = 0.5) -> list[Detections]:
    """The ``top`` boxes a phrase after suppression within the phrase, for each image of a batch.

    A score is alignment^0.6 * quality^0.4 * presence: how well the point fits the phrase, how well the box fits, and
    whether the phrase is there at all.
    """
    scores = (output.logits.sigmoid() ** 0.6 * output.quality.sigmoid().unsqueeze(-1) ** 0.4).transpose(1, 2)
    scores = scores * output.presence.sigmoid().unsqueeze(-1)
    best, points = scores.topk(min(top, scores.shape[-1]), dim=-1)
    found = []
    for image, (score, point) in enumerate(zip(best, points, strict=True)):
        boxes = output.boxes[image][point].clamp(0, size)
        score = score * nms_keep(boxes, nms)
        score, order = score.sort(dim=-1, descending=True, stable=True)
        boxes = boxes.gather(1, order.unsqueeze(-1).expand(-1, -1, 4))
        found.append(Detections(boxes, score, point.gather(1, order)))
    return found


def build_model(config: Mapping[str, Any], pretrained: bool = True) -> MedGLIP:
    """The model that a configuration describes; ``pretrained=False`` where a checkpoint will be read over it."""
    image, text, model = config["image"], config["text"], config["model"]
    width, heads = model["width"], model["heads"]
    encoder = build_image_encoder(image["encoder"], pretrained, image.get("train_from", 16), image.get("folder"))
    phrases = PhraseEncoder(build_text_encoder(text["encoder"], text.get("folder")), width, heads)
    pyramid = FeaturePyramid(encoder.channels, width)
    fusion = nn.ModuleList(
        FusionLayer(width, heads, model["layer_scale"], model["image_looks"]) for _ in range(model["fusion_layers"])
    )
    dense = DenseHead(width, model["head_depth"], len(pyramid.strides))
    head = GroundingHead(pyramid, dense, Alignment(width), Presence(width, heads))
    conditioning = ModalityConditioning(MODALITIES, width, len(pyramid.strides), model["modality"])
    return MedGLIP(encoder, phrases, conditioning, fusion, head)
