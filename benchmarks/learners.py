"""Systems that learn the same images in the same views and order: ours, MM-Grounding-DINO, MONAI's RetinaNet. No commands.

All begin with the same image encoder and learn by ``train``: AdamW with a warm-up and a cosine, averaged weights. The encoder
is a small Swin of the same random weights, or EfficientNet-Lite0 with ImageNet weights, which learns at ENCODER_RATE of the
rate. RetinaNet knows no phrases: it has one class a concept of the training images. MiniLM reads the phrases of ours (frozen,
as in `lite`) and of MM-Grounding-DINO (learns at a tenth of the rate, as in its recipe), with the same weights. Clipping of
gradients is each system's own.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from peers import (
    Lite0,
    caption,
    copy_swin,
    dino,
    dino_boxes,
    dino_labels,
    mended,
    normalised,
    on_lite0,
    retinanet,
    swin_config,
    swin_of,
)
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from medglip.evaluate import evaluate
from medglip.evaluate.cases import known_phrases
from medglip.model import build_model, load_config, make_prompt
from medglip.model.checkpoints import CheckpointInfo
from medglip.model.encoders.lite import EfficientNetLite0
from medglip.model.losses import grounding_loss
from medglip.model.view import fitted
from medglip.model.weights import MINILM_TOKENIZER, MINILM_WEIGHTS, find_weights
from medglip.predict import Grounder
from medglip.records.labels import label_tree
from medglip.train.asking import KEPT, mirrored
from medglip.train.samples import Question, Samples, pad_target
from medglip.train.schedule import batches, learning_rate
from medglip.train.state import Average
from medglip.train.vocabulary import opposite

SIZE, WIDTH, TOP = 256, 128, 100
SWIN = {"embed_dim": 48, "depths": [2, 2, 2, 2], "num_heads": [2, 4, 8, 16], "window_size": 8}
DINO = {"d_model": WIDTH, "encoder_layers": 3, "decoder_layers": 3, "encoder_attention_heads": 4, "num_queries": 100,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 512, "decoder_ffn_dim": 512, "auxiliary_loss": True}  # fmt: skip
RATES = (2e-4, 6e-4, 2e-3)
SYSTEMS = ("ours", "mm_grounding_dino", "mm_grounding_dino_singly", "mm_grounding_dino_mended", "retinanet")
CLIP = {"ours": 5.0, "mm_grounding_dino": 0.1, "mm_grounding_dino_singly": 0.1, "mm_grounding_dino_mended": 0.1,
        "retinanet": 0.0}  # fmt: skip
PLAN = {"batch": 8, "views": 0, "workers": 0, "phrases": 16, "far_negatives": 3, "specific": 0.2, "modality_dropout": 0.15,
        "cache_mb": 0, "captions": 0.0}  # fmt: skip
WARMUP, EMA, DECAY, TEXT_RATE, ENCODER_RATE = 0.05, 0.99, 0.02, 0.1, 0.3
LITE0_FROM = 3  # first of the 16 blocks of EfficientNet-Lite0 that learns
ASKED_AT_ONCE = 24
SETTINGS = {"size": SIZE, "swin": SWIN, "dino": DINO, "width": WIDTH, "plan": PLAN, "warmup": WARMUP, "ema": EMA,
            "weight_decay": DECAY, "text_rate": TEXT_RATE, "clip": CLIP}  # fmt: skip

Weights = dict[str, Tensor] | None  # of the Swin; None for EfficientNet-Lite0
Judge = Callable[[Grounder], dict[str, Any]]


class Learner(NamedTuple):
    """A system that learns.

    Attributes:
        model: Its network.
        learn: Loss and gradients of some questions.
        grounder: Answers as ``medglip.evaluate`` asks.
    """

    model: nn.Module
    learn: Callable[[list[Question]], None]
    grounder: Grounder


class Found(NamedTuple):
    """What evaluation reads of an answer: boxes (P, K, 4) xyxy pixels of the image, scores (P, K) falling, presence (P,)."""

    boxes: np.ndarray
    scores: np.ndarray
    presence: np.ndarray


class PeerGrounder(Grounder):
    """A peer behind the name that ``medglip.evaluate`` calls.

    Args:
        ask: Images (B, 3, S, S) in [0, 1] and the phrases of each to, for each image, boxes (P, K, 4) xyxy of the canvas and
            scores (P, K).
        device: Where the images go.
    """

    def __init__(self, ask: Callable[[Tensor, list[list[str]]], list[tuple[Tensor, Tensor]]], device: str) -> None:
        self.ask, self.device = ask, torch.device(device)

    @torch.no_grad()
    def answer(self, images: Sequence[np.ndarray], phrases: Sequence[Sequence[str]], modalities: Any) -> list[Any]:
        """Boxes of all phrases of some images."""
        views = [fitted(image.shape[1], image.shape[0], SIZE) for image in images]
        pixels = np.stack([view.draw(image) for view, image in zip(views, images, strict=True)])
        found = self.ask(torch.from_numpy(pixels).to(self.device).float() / 255, [list(asked) for asked in phrases])
        answers = []
        for view, (boxes, scores) in zip(views, found, strict=True):
            scores, order = scores.sort(dim=1, descending=True, stable=True)
            best = boxes.gather(1, order.unsqueeze(-1).expand(-1, -1, 4))[:, :TOP].clamp(0, SIZE).cpu().numpy()
            placed = view.boxes_in_image(best.reshape(-1, 4)).reshape(best.shape)
            kept = scores[:, :TOP].cpu().numpy()
            answers.append(Found(placed, kept, kept.max(axis=1, initial=0.0)))
        return answers


def pictures(questions: list[Question], device: str) -> Tensor:
    """(B, 3, S, S) in [0, 1]."""
    return torch.stack([question.image for question in questions if question.image is not None]).to(device).float() / 255


def ours(swin: Weights, device: str, samples: Samples, changes: Mapping[str, Any]) -> Learner:
    """Our model: `lite` with the peers' encoder and width; ``changes`` are new values for keys of its recipe."""
    config = load_config("lite", width=WIDTH, **changes)
    config["image"] = {"encoder": "config", "config": {"model_type": "swin", **SWIN}, "size": SIZE, "tune": "full"}
    if swin is None:
        config["image"] = {"encoder": "efficientnet_lite0", "size": SIZE, "train_from": LITE0_FROM}
    model = build_model(config, pretrained=swin is None).to(device)
    if swin is not None:
        copy_swin(swin, model.image_encoder.network)  # type: ignore[arg-type]

    def learn(questions: list[Question]) -> None:
        prompt = make_prompt([question.phrases for question in questions], model.text_encoder.text.tokenize).to(device)
        modality = model.modality.index([question.modality for question in questions]).to(device)
        targets = [pad_target(question.target, prompt.members.shape[1], device) for question in questions]
        output = model(pictures(questions, device), prompt, modality, targets=targets)
        grounding_loss(output, targets, config["loss"])["loss"].backward()

    modalities = tuple(sorted({item.modality for item in samples.items}))
    return Learner(model, learn, Grounder(model, CheckpointInfo(config, modalities=modalities), device))


def mm_grounding_dino(swin: Weights, device: str, *, singly: bool = False, mend: bool = False) -> Learner:
    """MM-Grounding-DINO in the size of ours, with MiniLM as its BERT.

    Args:
        swin: Weights of the image encoder.
        device: Where it runs.
        singly: It takes a batch's images one by one and adds up gradients.
        mend: With the loss of ``peers.mended``; else transformers' as it is.
    """
    from transformers import BertConfig

    text = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    model = dino("mm_grounding_dino", swin_config((2, 3, 4), **SWIN), text, **DINO)
    model = mended(model) if mend else model
    prepared = normalised if swin is not None else (lambda images: images)  # Lite0 does it itself
    if swin is None:
        on_lite0(model, LITE0_FROM)
    else:
        copy_swin(swin, swin_of(model))
    model.to(device)
    missing, _ = model.model.text_backbone.load_state_dict(load_file(find_weights(MINILM_WEIGHTS)), strict=False)  # type: ignore[union-attr]
    if missing:
        raise ValueError(f"MiniLM lacks {missing[:4]!r}.")
    tokenizer = Tokenizer.from_file(str(find_weights(MINILM_TOKENIZER)))
    tokenizer.no_padding()
    tokenizer.no_truncation()

    def ids(phrase: str) -> list[int]:
        # A point inside a phrase would end it.
        return tokenizer.encode(phrase.replace(".", " ").replace("?", " "), add_special_tokens=False).ids

    def learn(questions: list[Question]) -> None:
        parts = [[question] for question in questions] if singly else [questions]
        for part in parts:
            labels = [dino_labels(question.target.boxes, question.target.names, SIZE) for question in part]
            labels = [{name: value.to(device) for name, value in one.items()} for one in labels]
            asked = caption([list(map(str, question.phrases)) for question in part], ids).to(device)
            loss = model(pixel_values=prepared(pictures(part, device)), **asked.inputs, labels=labels).loss
            (loss / len(parts)).backward()

    def ask(images: Tensor, phrases: list[list[str]]) -> list[tuple[Tensor, Tensor]]:
        boxes, scores = [], []
        for start in range(0, max(map(len, phrases)), ASKED_AT_ONCE):
            part = [asked[start : start + ASKED_AT_ONCE] for asked in phrases]
            words = caption([asked or ["nothing"] for asked in part], ids).to(device)
            box, score = dino_boxes(model(pixel_values=prepared(images), **words.inputs), words, ASKED_AT_ONCE, SIZE)
            boxes.append(box.unsqueeze(1).expand(-1, ASKED_AT_ONCE, -1, -1))
            scores.append(score)
        box, score = torch.cat(boxes, dim=1), torch.cat(scores, dim=1)
        return [(box[row, : len(asked)], score[row, : len(asked)]) for row, asked in enumerate(phrases)]

    return Learner(model, learn, PeerGrounder(ask, device))


def classes(samples: Samples) -> list[str]:
    """Concepts of the training regions, and those on the other side, which mirrored views show."""
    seen = {concept for item in samples.items for concept in item.known.concepts}
    return sorted(seen | {opposite(concept) for concept in seen})


def monai_retinanet(swin: Weights, device: str, samples: Samples, names: dict[str, str]) -> Learner:
    """MONAI's RetinaNet with one class a concept; a question about a wider concept gets the boxes of all that it covers.

    Args:
        swin: Weights of the image encoder.
        device: Where it runs.
        samples: Whose concepts are its classes.
        names: Text of a question to its concept.
    """
    from transformers import SwinBackbone

    concepts = classes(samples)
    number_of = {concept: number for number, concept in enumerate(concepts)}
    body: nn.Module = Lite0(LITE0_FROM)
    if swin is not None:
        body = SwinBackbone(swin_config((2, 3, 4), **SWIN))
        copy_swin(swin, body)
    model = retinanet(body, len(concepts), WIDTH).to(device)
    flip = [1, 0, 3, 2]  # MONAI's boxes begin with y
    tree = label_tree()

    def truth(question: Question) -> dict[str, Tensor]:
        item, view = samples.items[question.key[0]], samples.view(*question.key)
        known = mirrored(item.known) if view.mirrored else item.known
        whole = view.boxes_on_canvas(known.boxes)
        seen = whole.clip(0, SIZE)
        areas = [(boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1) for boxes in (seen, whole)]
        kept = areas[0] >= KEPT * np.maximum(areas[1], 1e-6)
        labels = [number_of[concept] for concept, is_kept in zip(known.concepts, kept, strict=True) if is_kept]
        boxes = torch.from_numpy(seen[kept][:, flip]).to(device)
        return {"boxes": boxes, "labels": torch.tensor(labels, dtype=torch.long, device=device)}

    def learn(questions: list[Question]) -> None:
        losses = model(pictures(questions, device), [truth(question) for question in questions])
        torch.stack([value.to(device) for value in losses.values()]).sum().backward()

    def ask(images: Tensor, phrases: list[list[str]]) -> list[tuple[Tensor, Tensor]]:
        result = []
        for found, asked in zip(model(images), phrases, strict=True):
            mine = torch.zeros(len(asked), len(concepts), dtype=torch.bool, device=images.device)
            for row, text in enumerate(asked):
                for column, concept in enumerate(concepts):
                    mine[row, column] = tree.covers(names[text], concept)
            scores = found["labels_scores"] * mine[:, found["labels"]]
            result.append((found["boxes"][:, flip].unsqueeze(0).expand(len(asked), -1, -1), scores))
        return result

    return Learner(model, learn, PeerGrounder(ask, device))


def small_swin(seed: int) -> dict[str, Tensor]:
    """The weights that every system's image encoder begins with: a function of the seed."""
    from transformers import SwinBackbone

    torch.manual_seed(seed)
    return SwinBackbone(swin_config((1, 2, 3, 4), **SWIN)).state_dict()


def build(name: str, device: str, samples: Samples, names: dict[str, str], seed: int,
          changes: Mapping[str, Any] | None = None, pretrained: bool = False) -> Learner:  # fmt: skip
    """A system of ``SYSTEMS`` at its start.

    Args:
        name: Which.
        device: Where it runs.
        samples: What it will learn.
        names: Text of a question to its concept.
        seed: Of its weights.
        changes: New values for keys of our recipe; the others have none.
        pretrained: Begin with EfficientNet-Lite0 and ImageNet weights, else with a random Swin.
    """
    swin = None if pretrained else small_swin(seed)
    torch.manual_seed(seed)
    makers: dict[str, Callable[[], Learner]] = {
        "ours": partial(ours, swin, device, samples, changes or {}),
        "mm_grounding_dino": partial(mm_grounding_dino, swin, device),
        "mm_grounding_dino_singly": partial(mm_grounding_dino, swin, device, singly=True),
        "mm_grounding_dino_mended": partial(mm_grounding_dino, swin, device, mend=True),
        "retinanet": partial(monai_retinanet, swin, device, samples, names),
    }
    return makers[name]()


def groups(model: nn.Module, rate: float) -> list[dict[str, Any]]:
    """Parameters that learn, with their peak rates; pretrained encoders learn slowly."""
    shares = [("text_backbone", TEXT_RATE)]
    shares += [(name, ENCODER_RATE) for name, part in model.named_modules() if isinstance(part, EfficientNetLite0)]
    of_share: dict[float, list[nn.Parameter]] = {}
    for name, value in model.named_parameters():
        if value.requires_grad:
            share = next((share for part, share in shares if part in name), 1.0)
            of_share.setdefault(share, []).append(value)
    return [{"params": values, "lr": rate * share, "peak": rate * share} for share, values in of_share.items()]


def train(learner: Learner, samples: Samples, rate: float, clip: float, marks: Sequence[int],
          judge: Judge) -> list[dict[str, Any]]:  # fmt: skip
    """Learn up to the last of ``marks`` steps, and judge at each; the same for every system.

    Returns:
        For each mark ``step``, ``seconds`` of learning so far, and what ``judge`` says of the averaged weights.
    """
    model, steps = learner.model, marks[-1]
    torch.manual_seed(samples.seed)
    optimizer = torch.optim.AdamW(groups(model, rate), weight_decay=DECAY)
    average, curve, seconds = Average(model, EMA), [], 0.0
    model.train()
    for step, questions in zip(range(1, steps + 1), batches(samples, PLAN, 0, 0, 1), strict=False):
        begun = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * learning_rate((step - 1) / steps, WARMUP)
        learner.learn(questions)
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(step)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds += time.perf_counter() - begun
        if step in marks:
            average.swap()
            model.eval()
            curve.append({"step": step, "seconds": round(seconds, 2), **judge(learner.grounder)})
            model.train()
            average.swap()
    return curve


def judged(data: Any, split: str, limit: int) -> Judge:
    """A judge on at most ``limit`` images of a split."""

    def judge(grounder: Grounder) -> dict[str, Any]:
        found = evaluate(grounder, [data], split=split, limit=limit)
        return {name: found[name] for name in ("ap50", "ap", "found", "images")}

    return judge


def names_of(data: Any) -> dict[str, str]:
    """Texts of all questions about a dataset to their concepts."""
    tree = label_tree()
    known = {concept for record in data.records() for concept in known_phrases(record, tree)}
    return {tree.concept_name(concept): concept for concept in sorted(known)}
