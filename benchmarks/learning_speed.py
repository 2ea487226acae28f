"""AP50 against steps and seconds of training on the same converted phantoms: ours, MM-Grounding-DINO, MONAI's RetinaNet.

Usage: scripts/bench learning_speed [--steps 240] [--trial-steps 60] [--cases 40] [--device cpu|cuda] [--seed 0] [--quick]
Writes benchmarks/results/learning_speed.json (learning_speed_cuda.json with --device cuda).

The same for all: a small Swin with the same random weights at the start, 256 pixels, the same images in the same views and
order, the same phrases (RetinaNet knows no phrases: it has one class a concept of the training images), AdamW with a warm-up
and a cosine, averaged weights, the evaluation. MiniLM reads the phrases of ours (frozen, as in `lite`) and of
MM-Grounding-DINO (learns at a tenth of the rate, as in its recipe), with the same weights. The learning rate of each is the
best of the same three, by AP50 on validation images after `--trial-steps`. Clipping of gradients is each system's own.

MM-Grounding-DINO runs with transformers' loss as it is, with auxiliary losses of its layers. Two rows: `mm_grounding_dino`
takes a batch at once; `mm_grounding_dino_singly` takes its images one by one and adds up gradients, so that the defect of that
loss in batches (see benchmarks/peers.py) cannot do harm. Seconds are of learning alone: loading, the same for all, and
evaluation are not in them.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from peers import (
    MOST_TOKENS,
    caption,
    copy_swin,
    dino,
    dino_boxes,
    dino_labels,
    machine,
    normalised,
    parameters,
    retinanet,
    swin_config,
    swin_of,
)
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from medglip import store
from medglip.curate import convert
from medglip.evaluate import evaluate
from medglip.evaluate.run import known_phrases
from medglip.model import build_model, load_config, make_prompt
from medglip.model.checkpoints import CheckpointInfo
from medglip.model.losses import grounding_loss
from medglip.model.view import fitted
from medglip.model.weights import MINILM_TOKENIZER, MINILM_WEIGHTS, find_weights
from medglip.phantoms import write_archive
from medglip.predict import Grounder
from medglip.records.labels import label_tree
from medglip.train.asking import KEPT, mirrored
from medglip.train.samples import Question, Samples, pad_target
from medglip.train.schedule import batches, learning_rate
from medglip.train.state import Average
from medglip.train.vocabulary import opposite

ROOT = Path(__file__).resolve().parents[1]
SIZE, WIDTH, TOP = 256, 128, 100
SWIN = {"embed_dim": 48, "depths": [2, 2, 2, 2], "num_heads": [2, 4, 8, 16], "window_size": 8}
DINO = {"d_model": WIDTH, "encoder_layers": 3, "decoder_layers": 3, "encoder_attention_heads": 4, "num_queries": 100,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 512, "decoder_ffn_dim": 512, "auxiliary_loss": True}  # fmt: skip
RATES = (2e-4, 6e-4, 2e-3)
CLIP = {"ours": 5.0, "mm_grounding_dino": 0.1, "mm_grounding_dino_singly": 0.1, "retinanet": 0.0}  # 0: none
PLAN = {"batch": 8, "views": 0, "workers": 0, "phrases": 16, "far_negatives": 3, "specific": 0.2, "modality_dropout": 0.15,
        "cache_mb": 0, "captions": 0.0}  # fmt: skip
WARMUP, EMA, DECAY, TEXT_RATE = 0.05, 0.99, 0.02, 0.1
ASKED_AT_ONCE = 24


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


def ours(swin: dict[str, Tensor], device: str, samples: Samples) -> Learner:
    """Our model: `lite` with the small Swin and the peers' width."""
    config = load_config("lite", width=WIDTH)
    config["image"] = {"encoder": "config", "config": {"model_type": "swin", **SWIN}, "size": SIZE, "tune": "full"}
    model = build_model(config, pretrained=False).to(device)
    copy_swin(swin, model.image_encoder.network)  # type: ignore[arg-type]

    def learn(questions: list[Question]) -> None:
        prompt = make_prompt([question.phrases for question in questions], model.text_encoder.text.tokenize).to(device)
        modality = model.modality.index([question.modality for question in questions]).to(device)
        targets = [pad_target(question.target, prompt.members.shape[1], device) for question in questions]
        output = model(pictures(questions, device), prompt, modality, targets=targets)
        grounding_loss(output, targets, config["loss"])["loss"].backward()

    modalities = tuple(sorted({item.modality for item in samples.items}))
    return Learner(model, learn, Grounder(model, CheckpointInfo(config, modalities=modalities), device))


def mm_grounding_dino(swin: dict[str, Tensor], device: str, *, singly: bool) -> Learner:
    """MM-Grounding-DINO in the size of ours, with MiniLM as its BERT."""
    from transformers import BertConfig

    text = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    model = dino("mm_grounding_dino", swin_config((2, 3, 4), **SWIN), text, **DINO).to(device)
    copy_swin(swin, swin_of(model))
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
            loss = model(pixel_values=normalised(pictures(part, device)), **asked.inputs, labels=labels).loss
            (loss / len(parts)).backward()

    def ask(images: Tensor, phrases: list[list[str]]) -> list[tuple[Tensor, Tensor]]:
        boxes, scores = [], []
        for start in range(0, max(map(len, phrases)), ASKED_AT_ONCE):
            part = [asked[start : start + ASKED_AT_ONCE] for asked in phrases]
            words = caption([asked or ["nothing"] for asked in part], ids).to(device)
            box, score = dino_boxes(model(pixel_values=normalised(images), **words.inputs), words, ASKED_AT_ONCE, SIZE)
            boxes.append(box.unsqueeze(1).expand(-1, ASKED_AT_ONCE, -1, -1))
            scores.append(score)
        box, score = torch.cat(boxes, dim=1), torch.cat(scores, dim=1)
        return [(box[row, : len(asked)], score[row, : len(asked)]) for row, asked in enumerate(phrases)]

    return Learner(model, learn, PeerGrounder(ask, device))


def classes(samples: Samples) -> list[str]:
    """Concepts of the training regions, and those on the other side, which mirrored views show."""
    seen = {concept for item in samples.items for concept in item.known.concepts}
    return sorted(seen | {opposite(concept) for concept in seen})


def monai_retinanet(swin: dict[str, Tensor], device: str, samples: Samples, names: dict[str, str]) -> Learner:
    """MONAI's RetinaNet with one class a concept; a question about a wider concept gets the boxes of all that it covers.

    Args:
        swin: Weights of the image encoder.
        device: Where it runs.
        samples: Whose concepts are its classes.
        names: Text of a question to its concept.
    """
    concepts = classes(samples)
    number_of = {concept: number for number, concept in enumerate(concepts)}
    model = retinanet(swin_config((2, 3, 4), **SWIN), len(concepts), WIDTH).to(device)
    copy_swin(swin, model.network.feature_extractor.body)  # type: ignore[union-attr, arg-type]
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


def build(name: str, swin: dict[str, Tensor], device: str, samples: Samples, names: dict[str, str], seed: int) -> Learner:
    """A system by its name, at its start."""
    torch.manual_seed(seed)
    makers: dict[str, Callable[[], Learner]] = {
        "ours": partial(ours, swin, device, samples),
        "mm_grounding_dino": partial(mm_grounding_dino, swin, device, singly=False),
        "mm_grounding_dino_singly": partial(mm_grounding_dino, swin, device, singly=True),
        "retinanet": partial(monai_retinanet, swin, device, samples, names),
    }
    return makers[name]()


def groups(model: nn.Module, rate: float) -> list[dict[str, Any]]:
    """Parameters that learn, with their peak rates; a pretrained text encoder learns slowly."""
    slow = [value for name, value in model.named_parameters() if value.requires_grad and "text_backbone" in name]
    inside = set(map(id, slow))
    rest = [value for value in model.parameters() if value.requires_grad and id(value) not in inside]
    pairs = [(rest, rate), (slow, rate * TEXT_RATE)]
    return [{"params": values, "lr": peak, "peak": peak} for values, peak in pairs if values]


def train(learner: Learner, samples: Samples, rate: float, clip: float, marks: Sequence[int],
          judge: Callable[[Grounder], dict[str, Any]]) -> list[dict[str, Any]]:  # fmt: skip
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


def judged(data: Any, split: str, limit: int) -> Callable[[Grounder], dict[str, Any]]:
    """A judge on at most ``limit`` images of a split."""

    def judge(grounder: Grounder) -> dict[str, Any]:
        found = evaluate(grounder, [data], split=split, limit=limit)
        return {name: found[name] for name in ("ap50", "ap", "found", "images")}

    return judge


def dataset(folder: Path, cases: int, seed: int) -> Any:
    """Phantoms of all modalities, converted; few of them fall into one split."""
    archive = write_archive(folder / "archive", cases=cases, seed=seed)
    convert("phantom", archive, folder / "dataset", workers=2)
    return store.open(folder / "dataset")


def run(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Rates, curves and sizes of all systems."""
    from transformers import SwinBackbone

    data = dataset(folder, asked.cases, asked.seed)
    tree = label_tree()
    samples = Samples([data], "train", tree, PLAN | {"seed": asked.seed}, SIZE)
    known = {concept for record in data.records() for concept in known_phrases(record, tree)}
    names = {tree.concept_name(concept): concept for concept in sorted(known)}
    torch.manual_seed(asked.seed)
    swin = SwinBackbone(swin_config((1, 2, 3, 4), **SWIN)).state_dict()
    marks = sorted({max(1, round(asked.steps * part / asked.marks)) for part in range(1, asked.marks + 1)})
    result: dict[str, Any] = {}
    for name in asked.systems.split(","):
        start = partial(build, name, swin, asked.device, samples, names, asked.seed)
        trials = {}
        for rate in RATES if asked.trial_steps else RATES[1:2]:
            if asked.trial_steps:
                learner = start()
                curve = train(
                    learner,
                    samples,
                    rate,
                    CLIP[name],
                    [asked.trial_steps],
                    judged(data, "train" if asked.quick else "val", asked.limit),
                )
                trials[rate] = curve[-1]["ap50"] or 0.0
                print(name, rate, curve[-1], flush=True)
        best = max(trials, key=lambda rate: trials[rate]) if trials else RATES[1]
        learner = start()
        curve = train(learner, samples, best, CLIP[name], marks, judged(data, "train" if asked.quick else "test", asked.limit))
        result[name] = {
            "rate": best, "val_ap50_by_rate": trials, "parameters": parameters(learner.model), "curve": curve,
            "seconds_a_step": round(curve[-1]["seconds"] / marks[-1], 4),
        }  # fmt: skip
        print(name, json.dumps(result[name]), flush=True)
    return {"systems": result, "training_images": len(samples), "classes_of_retinanet": len(classes(samples))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--trial-steps", type=int, default=60, help="steps with each of three rates; 0 takes the middle one")
    parser.add_argument("--marks", type=int, default=6, help="how often the test images are judged on the way")
    parser.add_argument("--cases", type=int, default=40, help="phantom cases a modality")
    parser.add_argument("--limit", type=int, default=48, help="at most so many images are judged")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--systems", default=",".join(CLIP))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--quick", action="store_true", help="two steps on few phantoms, judged on themselves; nothing is written"
    )
    asked = parser.parse_args()
    if asked.quick:
        asked.steps, asked.trial_steps, asked.marks, asked.cases, asked.limit = 2, 0, 1, 3, 8
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    result: dict[str, Any] = {
        "what": __doc__.splitlines()[0], "command": " ".join(["scripts/bench learning_speed", *sys.argv[1:]]),
        "machine": machine(asked.device), "seed": asked.seed, "size": SIZE, "swin": SWIN, "dino": DINO, "width": WIDTH,
        "plan": PLAN, "rates_tried": RATES, "clip": CLIP, "most_tokens": MOST_TOKENS,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        result |= run(asked, Path(scratch))
    if asked.quick:
        return
    name = "learning_speed.json" if asked.device == "cpu" else "learning_speed_cuda.json"
    (ROOT / "benchmarks/results" / name).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written to benchmarks/results/{name}")


if __name__ == "__main__":
    main()
