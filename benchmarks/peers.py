"""The peers that the model is measured beside: Grounding DINO and MM-Grounding-DINO of transformers, and MONAI's RetinaNet.

Usage: scripts/bench peers     (builds each in a small size, runs it once forwards and backwards, and prints its parameters)

They run as their libraries have them. Three things are known of transformers' losses and left alone: the encoder's box
terms have no gradient, so that the heads which select queries do not learn; token targets are wrong in batches of three
images and more, and of two with different numbers of phrases (an offset is not summed up); ids of separators are those of
bert-base-uncased. ``mended`` gives a model a loss without the first two; weights, matching, terms and everything that the
model computes on the way to its boxes stay transformers'. MONAI's detector asks ``isinstance(matcher, torchvision's Matcher)``;
without torchvision that fails, so the method is overridden, as its own message proposes, and calls MONAI's ATSS matcher alone.
"""

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from medglip.model.encoders.lite import EfficientNetLite0

CLS, SEP, DOT = 101, 102, 1012  # bert-base-uncased; transformers compares with these numbers
MOST_TOKENS = 256
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


Tokenize = Callable[[str], Sequence[int]]  # one phrase to its ids, without special tokens


class Caption(NamedTuple):
    """Phrases of a batch as one text an image, as these models read them.

    Attributes:
        inputs: ``input_ids``, ``attention_mask`` and ``token_type_ids``, each (B, T) int64.
        phrase_of: (B, T) int64, the phrase of each token; -1 at separators and padding.
    """

    inputs: dict[str, Tensor]
    phrase_of: Tensor

    def to(self, device: torch.device | str) -> "Caption":
        """The same caption on another device."""
        return Caption({name: value.to(device) for name, value in self.inputs.items()}, self.phrase_of.to(device))


def caption(phrases: Sequence[Sequence[str]], tokenize: Tokenize) -> Caption:
    """``[CLS] phrase . phrase . [SEP]`` for each image; a text of more than 256 tokens raises ValueError."""
    rows, owners = [], []
    for asked in phrases:
        ids, owner = [CLS], [-1]
        for number, text in enumerate(asked):
            words = list(tokenize(text))
            ids += [*words, DOT]
            owner += [number] * len(words) + [-1]
        rows.append([*ids, SEP])
        owners.append([*owner, -1])
    length = max(map(len, rows))
    if length > MOST_TOKENS:
        raise ValueError(f"A caption has {length} tokens; {MOST_TOKENS} at most; ask fewer phrases at once.")
    tokens = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    phrase_of = torch.tensor([row + [-1] * (length - len(row)) for row in owners])
    inputs = {"input_ids": tokens, "attention_mask": (tokens != 0).long(), "token_type_ids": torch.zeros_like(tokens)}
    return Caption(inputs, phrase_of)


def normalised(images: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [0, 1], with the mean and deviation of ImageNet."""
    mean, deviation = (images.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, DEVIATION))
    return (images - mean) / deviation


def dino_labels(boxes: Tensor, names: Tensor, size: int) -> dict[str, Tensor]:
    """Truth of one image as transformers wants it; a box of several names is there once for each.

    Args:
        boxes: (G, 4) xyxy pixels.
        names: (G, P) bool, whether phrase p names box g.
        size: Side of the image in pixels.
    """
    box, phrase = names.nonzero(as_tuple=True)
    x0, y0, x1, y1 = (boxes[box] / size).unbind(-1)
    return {"class_labels": phrase, "boxes": torch.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], dim=-1)}


def dino_boxes(output: Any, asked: Caption, phrases: int, size: int) -> tuple[Tensor, Tensor]:
    """Boxes (B, Q, 4) xyxy pixels, and scores (B, P, Q): a phrase's is the mean over its tokens, as in MM-Grounding-DINO."""
    probability = output.logits.float().sigmoid()[..., : asked.phrase_of.shape[1]].nan_to_num(0.0)
    owns = asked.phrase_of.unsqueeze(1) == torch.arange(phrases, device=asked.phrase_of.device).view(1, -1, 1)  # (B, P, T)
    share = owns / owns.sum(dim=-1, keepdim=True).clamp(min=1)
    x, y, width, height = output.pred_boxes.float().unbind(-1)
    boxes = torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], dim=-1) * size
    return boxes, share.to(probability.dtype) @ probability.transpose(1, 2)


def swin_config(stages: Sequence[int], **sizes: Any) -> Any:
    """Configuration of a Swin whose ``stages`` (1 to 4: stride 4 to 32) are given; without ``sizes`` it is Swin-T."""
    from transformers import SwinConfig

    config = SwinConfig(**sizes)
    config.out_features = [f"stage{number}" for number in stages]
    return config


def dino(kind: str, backbone: Any, text: Any, **sizes: Any) -> nn.Module:
    """``grounding_dino`` or ``mm_grounding_dino`` with random weights; without ``sizes`` as large as published.

    Args:
        kind: Which of the two.
        backbone: Configuration of the image encoder, with stages 2 to 4.
        text: Configuration of the text encoder (a BERT).
        sizes: New values for keys of the configuration.
    """
    import transformers

    name = {"grounding_dino": "GroundingDino", "mm_grounding_dino": "MMGroundingDino"}[kind]
    config = getattr(transformers, f"{name}Config")(backbone_config=backbone, text_config=text, **sizes)
    return getattr(transformers, f"{name}ForObjectDetection")(config)


def mended(model: nn.Module) -> nn.Module:
    """The same model with two defects of its loss mended.

    First, the terms of the encoder's proposals (``_enc``) are computed from what selected them: the scores of the encoder's
    features against the fused text, and their boxes with gradient. The library takes the learned start of the decoder's
    queries against the text before fusion, and detached boxes, so that ``enc_output``, ``enc_output_norm`` and
    ``encoder_output_bbox_embed`` never learn. Second, the token targets of an image are read from its own label map; the
    library looks them up in all maps joined, at an offset that is not summed up. Nothing else is changed.
    """
    from transformers.loss.loss_for_object_detection import _set_aux_loss
    from transformers.loss.loss_grounding_dino import GroundingDinoHungarianMatcher, GroundingDinoImageLoss

    class ImageLoss(GroundingDinoImageLoss):
        def _get_target_classes_one_hot(self, outputs: Any, targets: Any, indices: Any) -> Tensor:
            wanted = torch.zeros_like(outputs["logits"], dtype=torch.long)
            for row, (target, (query, place)) in enumerate(zip(targets, indices, strict=True)):
                tokens = outputs["label_maps"][row][target["class_labels"][place]]
                wanted[row, query] = tokens.to(torch.long)
            return wanted

    kept: dict[str, Tensor] = {}

    def keep(module: nn.Module, given: Any, output: Any) -> None:
        kept.update(scores=output.enc_outputs_class, boxes=output.enc_outputs_coord_logits)

    def loss(logits: Tensor, labels: Any, device: Any, pred_boxes: Tensor, config: Any, *read: Any, **given: Any) -> Any:
        costs = {name: getattr(config, name) for name in ("class_cost", "bbox_cost", "giou_cost")}
        terms = ["labels", "boxes", "cardinality"]
        criterion = ImageLoss(GroundingDinoHungarianMatcher(**costs), config.focal_alpha, terms).to(device)
        texts = dict(zip(("label_maps", "text_mask"), read, strict=True))
        outputs = {"logits": logits, "pred_boxes": pred_boxes, **texts}
        layers = _set_aux_loss(given["outputs_class"], given["outputs_coord"]) if config.auxiliary_loss else None
        if layers is not None:
            outputs["auxiliary_outputs"] = [{**layer, **texts} for layer in layers]
        found = criterion(outputs, labels)
        scores, boxes = kept.pop("scores"), kept.pop("boxes")
        best = scores.max(-1).values.topk(config.num_queries, dim=1).indices.unsqueeze(-1)
        proposals = {
            "logits": scores.gather(1, best.expand(-1, -1, scores.shape[-1])),
            "pred_boxes": boxes.gather(1, best.expand(-1, -1, 4)).sigmoid(),
        }
        found |= {f"{name}_enc": value for name, value in criterion({**proposals, **texts}, labels).items()}
        weights = {"ce": 2.0, "bbox": config.bbox_loss_coefficient, "giou": config.giou_loss_coefficient}
        # Names are loss_TERM, loss_TERM_LAYER and loss_TERM_enc; the cardinality has no weight.
        weighted = [value * weights[name.split("_")[1]] for name, value in found.items() if name.startswith("loss_")]
        return torch.stack(weighted).sum(), found, layers

    model.model.register_forward_hook(keep)  # type: ignore[union-attr]
    model.loss_function = loss  # type: ignore[assignment]
    return model


def swin_of(model: nn.Module) -> nn.Module:
    """The image encoder inside a Grounding DINO."""
    return model.model.backbone.conv_encoder.model  # type: ignore[union-attr, return-value]


def copy_swin(state: Mapping[str, Tensor], swin: nn.Module) -> None:
    """Put the weights of one Swin into another; only norms of stages that one of them does not hand out may differ."""
    missing, unexpected = swin.load_state_dict(state, strict=False)
    left = [name for name in (*missing, *unexpected) if not name.startswith("hidden_states_norms")]
    if left:
        raise ValueError(f"The image encoders differ in {left[:4]!r}; build both with the same sizes.")


class Lite0(nn.Module):
    """EfficientNet-Lite0 with ImageNet weights, as these models read an image encoder: maps of stride 8, 16 and 32.

    Args:
        train_from: First of its 16 blocks that learns.
    """

    channels = (40, 112, 320)

    def __init__(self, train_from: int) -> None:
        super().__init__()
        self.body = EfficientNetLite0(True, train_from)

    def forward(self, images: Tensor, return_dict: bool = True) -> Any:
        """(B, 3, H, W) in [0, 1]; transformers asks for ``return_dict``."""
        return SimpleNamespace(feature_maps=self.body(self.body.frozen(images))[1:])


def on_lite0(model: nn.Module, train_from: int) -> nn.Module:
    """The same Grounding DINO with another image encoder, in place; its first layers after that are new."""
    inner: Any = model.model
    inner.backbone.conv_encoder.model = Lite0(train_from)
    for projection, inputs in zip(inner.input_proj_vision, (*Lite0.channels, Lite0.channels[-1]), strict=True):
        old = projection[0]
        projection[0] = nn.Conv2d(inputs, old.out_channels, old.kernel_size, old.stride, old.padding)
        nn.init.xavier_uniform_(projection[0].weight, gain=1)  # as transformers does
        nn.init.zeros_(projection[0].bias)
    return model


class Pyramid(nn.Module):
    """An image encoder as MONAI's RetinaNet reads it: hands on maps of stride 8, 16, 32 and 64."""

    def __init__(self, body: nn.Module, width: int) -> None:
        from monai.networks.blocks.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

        super().__init__()
        self.body: Any = body
        self.fpn = FeaturePyramidNetwork(2, list(self.body.channels), width, LastLevelMaxPool(2))
        self.out_channels = width

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] to four maps of ``width`` channels."""
        maps = self.body(images if isinstance(self.body, Lite0) else normalised(images)).feature_maps
        return list(self.fpn({str(number): level for number, level in enumerate(maps)}).values())


def retinanet(body: nn.Module, classes: int, width: int, base: float = 2.0) -> nn.Module:
    """MONAI's RetinaNetDetector, set up as in MONAI's detection tutorial (ATSS, hard negatives), on maps of stride 8 to 32.

    Boxes that go in and come out are (y0, x0, y1, x1): MONAI's first axis is the image's first.

    Args:
        body: Swin of stages 2 to 4, or ``Lite0``.
        classes: Number of names that it can tell apart.
        width: Channels of the pyramid and the heads.
        base: Smallest anchor of a level in strides.
    """
    from monai.apps.detection.networks.retinanet_detector import RetinaNetDetector
    from monai.apps.detection.networks.retinanet_network import RetinaNet
    from monai.apps.detection.utils.anchor_utils import AnchorGenerator

    class Detector(RetinaNetDetector):
        def compute_anchor_matched_idxs(self, anchors: Any, targets: Any, num_anchor_locs_per_level: Any) -> list[Tensor]:
            found = []
            for places, truth in zip(anchors, targets, strict=True):
                boxes = truth[self.target_box_key]
                if boxes.numel() == 0:
                    found.append(torch.full((len(places),), -1, dtype=torch.int64, device=places.device))
                else:
                    levels = (num_anchor_locs_per_level, self.num_anchors_per_loc)
                    found.append(self.proposal_matcher(boxes.to(places.device), places, *levels)[1])
            return found

    sizes: Any = tuple(tuple(base * stride * 2 ** (third / 3) for third in range(3)) for stride in (8, 16, 32, 64))
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 4)
    network = RetinaNet(2, classes, anchors.num_anchors_per_location()[0], Pyramid(body, width), size_divisible=64)
    detector = Detector(network, anchors)
    detector.set_atss_matcher(num_candidates=4, center_in_gt=False)
    detector.set_hard_negative_sampler(batch_size_per_image=64, positive_fraction=0.3, min_neg=16, pool_size=20)
    detector.set_box_selector_parameters(score_thresh=0.01, topk_candidates_per_level=200, nms_thresh=0.5)
    return detector


def parameters(model: nn.Module) -> dict[str, float]:
    """Parameters in millions: all, and those that learn."""
    counts = [(value.numel(), value.requires_grad) for value in model.parameters()]
    return {
        "all_m": round(sum(number for number, _ in counts) / 1e6, 2),
        "learning_m": round(sum(number for number, learns in counts if learns) / 1e6, 2),
    }


def machine(device: str) -> dict[str, Any]:
    """What a figure depends on beside the code."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "device": device,
        "threads": torch.get_num_threads(),
        "load_at_start": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{name: installed(name) for name in ("torch", "transformers", "monai", "numpy")},
    }


def installed(package: str) -> str | None:
    """The version of a package; None where it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main() -> None:
    """Each peer once, small, forwards and backwards."""
    from transformers import BertConfig, SwinBackbone

    torch.manual_seed(0)
    sizes = {"embed_dim": 24, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 3, 6], "window_size": 4}
    text = BertConfig(hidden_size=48, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    images = torch.rand(2, 3, 128, 128)
    asked = caption([["left lung", "liver"]] * 2, lambda phrase: [2000 + len(word) for word in phrase.split()])
    truth = [dino_labels(torch.tensor([[10.0, 20.0, 60.0, 90.0]]), torch.tensor([[True, False]]), 128)] * 2
    for kind in ("grounding_dino", "mm_grounding_dino", "mm_grounding_dino mended"):
        small = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "num_queries": 20, "encoder_attention_heads": 2,
                 "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}  # fmt: skip
        model = dino(kind.removesuffix(" mended"), swin_config((2, 3, 4), **sizes), text, **small)
        model = mended(model) if kind.endswith("mended") else model
        output = model(pixel_values=normalised(images), **asked.inputs, labels=truth)
        output.loss.backward()
        boxes, scores = dino_boxes(output, asked, 2, 128)
        idle = sorted(name for name, value in model.named_parameters() if value.requires_grad and value.grad is None)
        print(kind, parameters(model), "loss", round(output.loss.item(), 3), tuple(boxes.shape), tuple(scores.shape))
        print("  without gradient:", ", ".join(idle) or "none")
    detector = retinanet(SwinBackbone(swin_config((2, 3, 4), **sizes)), 3, 32)
    losses = detector(images, [{"boxes": torch.tensor([[20.0, 10.0, 90.0, 60.0]]), "labels": torch.tensor([1])}] * 2)
    torch.stack(list(losses.values())).sum().backward()
    detector.eval()
    with torch.no_grad():
        found = detector(images)
    print("retinanet", parameters(detector), {name: round(value.item(), 3) for name, value in losses.items()},
          len(found[0]["boxes"]), "boxes")  # fmt: skip


if __name__ == "__main__":
    main()
