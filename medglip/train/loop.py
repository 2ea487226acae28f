"""The training loop, on Lightning Fabric: what happens in training happens in ``_learn``, in order.

What a step learns is a function of the configuration, the data and the step's number, so a run that is resumed goes on
as if it had never stopped.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from medglip.errors import ModelError
from medglip.model.checkpoints import CheckpointInfo, load_weights, save_checkpoint
from medglip.model.config import load_config
from medglip.model.dense import MedGLIP, build_model
from medglip.model.encoders import TextEncoder
from medglip.model.losses import grounding_loss, masked_words
from medglip.model.prompt import Prompt, Span, make_prompt
from medglip.records.labels import label_tree
from medglip.train.features import FrozenFeatures
from medglip.train.samples import GroundingData, Question, Samples, pad_target
from medglip.train.schedule import batches, learning_rate, progress
from medglip.train.state import Average, Counters, load_state, save_state

Validate = Callable[[MedGLIP, CheckpointInfo], dict[str, Any]]
# Of an image in training, where its truth needs it to be one row; ``phrases`` keeps it short long before.
_MOST_WORDS = 4096
NO_IMAGES = torch.zeros(0)  # the model is given frozen features instead


def train(config: str | Path | dict[str, Any], datasets: Sequence[GroundingData], out: str | Path, *,
          resume: bool = False, start_from: str | Path | None = None, validate: Validate | None = None,
          show: bool = True, **overrides: Any) -> Path:  # fmt: skip
    """Train a model on the images of split ``train``.

    Args:
        config: Name of a recipe (``tiny``, ``lite``), path to a TOML file, or its dicts.
        datasets: Opened datasets.
        out: Folder for ``last/``, ``best/``, ``metrics.jsonl``, ``config.toml`` and ``state.pt``.
        resume: Go on where ``out`` stopped.
        start_from: Checkpoint whose weights to begin with.
        validate: Judges the model now and then (``medglip.evaluate.validator`` makes one). Returns plain numbers, of
            which ``score`` chooses the best checkpoint; thresholds (see ``CheckpointInfo``) are kept.
        show: Show a bar with rate and time left.
        overrides: New values for keys of the configuration: ``steps=300, modality=[]``.

    Returns:
        The best checkpoint's folder, or the last one's where nothing validates.

    Raises:
        ModelError: the configuration, ``start_from`` or the state in ``out`` do not fit.
        DatasetError: there is nothing to learn from.
    """
    settings, out = load_config(config, **overrides), Path(out)
    plan = settings["train"]
    if not plan["steps"] and not plan["minutes"]:
        raise ModelError("Training needs an end: set steps or minutes above 0.")
    fabric = Fabric(accelerator=plan["accelerator"], devices=plan["devices"], precision=plan["precision"])
    fabric.launch()
    torch.manual_seed(plan["seed"])
    asking = {**plan, "masks": settings["loss"].get("masks", 0) > 0}
    samples = Samples(datasets, "train", label_tree(), asking, settings["image"]["size"])
    model = build_model(settings)
    if start_from is not None:
        load_weights(model, Path(start_from))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    net, optimizer = fabric.setup(model, torch.optim.AdamW(_groups(model, plan), weight_decay=plan["weight_decay"]))
    average = Average(model, plan["ema"])
    counters = load_state(out / "state.pt", average, optimizer) if resume else Counters()
    info = CheckpointInfo(
        settings,
        concepts=tuple(sorted(samples.words.seen_in)),
        modalities=tuple(sorted({item.modality for item in samples.items})),
        trained={"images": len(samples), "sources": sorted({item.source for item in samples.items})},
    )
    run = _Run(fabric, net, model, optimizer, average, counters, info, out, validate)
    run.open(fresh=not resume)
    _learn(run, samples, settings, show)
    return run.close()


def _learn(run: "_Run", samples: Samples, settings: dict[str, Any], show: bool) -> None:
    """Steps until the end of the plan; a keyboard interrupt leaves a state to resume from."""
    fabric, model, plan, counters = run.fabric, run.model, settings["train"], run.counters
    features = FrozenFeatures(model, samples, plan["cache_mb"] if plan["views"] else 0)
    loader = batches(samples, plan, counters.step, fabric.global_rank, fabric.world_size)
    with _bar(show and fabric.is_global_zero) as bar:
        task = bar.add_task("training", total=1000, note="")
        try:
            for questions in _while_unfinished(loader, plan, counters):
                begun = time.monotonic()
                rate = learning_rate(progress(plan, counters.step, counters.seconds), plan["warmup"])
                for group in run.optimizer.param_groups:
                    group["lr"] = group["peak"] * rate
                prompt, word_labels = asked(questions, model.text_encoder.text, settings["loss"], counters.step)
                modality = model.modality.index([q.modality for q in questions]).to(fabric.device)
                targets = [pad_target(q.target, prompt.members.shape[1], fabric.device) for q in questions]
                images = features.pixels(questions, fabric.device) if model.modality.needs_images else NO_IMAGES
                output = run.net(images, prompt.to(fabric.device), modality, features(questions, fabric.device), targets,
                                 word_labels.to(fabric.device))  # fmt: skip
                losses = grounding_loss(output, targets, settings["loss"], settings["model"]["quality_target"])
                fabric.backward(losses["loss"])
                fabric.clip_gradients(run.net, run.optimizer, max_norm=plan["clip"])
                run.optimizer.step()
                run.optimizer.zero_grad(set_to_none=True)

                counters.step += 1
                counters.images += len(questions) * fabric.world_size
                run.average.update(counters.step)
                seconds = time.monotonic() - begun
                counters.seconds += seconds
                done = progress(plan, counters.step, counters.seconds)
                run.log(losses, rate * plan["lr"], len(questions) * fabric.world_size / seconds)
                bar.update(task, completed=1000 * done, note=run.note)
                run.judge_if_due(done, plan["validations"])
        except KeyboardInterrupt:
            run.write("last")
            fabric.print(f"Interrupted after step {counters.step}; the same command with resume goes on.")
            raise


def asked(
    questions: Sequence[Question], text: TextEncoder, weights: Mapping[str, float], step: int
) -> tuple[Prompt, Tensor]:  # fmt: skip
    """The prompt of a batch, and the words of its captions that were masked (U, L), -100 elsewhere.

    Raises:
        ModelError: an image is asked nothing, or more than a row of words holds.
    """
    prompt = make_prompt([question.phrases for question in questions], text.tokenize, most_words=_MOST_WORDS)
    if prompt.image_of_row.tolist() != list(range(len(questions))):
        raise ModelError(
            "Training asks of an image nothing, or more than one row of words holds; set phrases or negatives lower."
        )
    if not weights.get("words", 0) or text.mask_id is None:
        return prompt, torch.full_like(prompt.tokens, -100)
    captions = {phrase.text for question in questions for phrase in question.phrases if isinstance(phrase, Span)}
    is_caption = torch.tensor([text in captions for text in prompt.texts]).unsqueeze(1)
    random = torch.Generator().manual_seed(step)
    is_inside = text.tokenize(prompt.texts).spans[..., 1] > 0  # special tokens stand for no characters
    tokens, labels = masked_words(
        prompt.tokens, prompt.token_is_word, is_inside & is_caption, text.mask_id, text.vocabulary, random
    )
    return prompt._replace(tokens=tokens), labels


def _while_unfinished(loader: Iterable[list[Question]], plan: dict[str, Any], counters: Counters) -> Iterator[list[Question]]:
    """Batches until the plan is done; loading counts as training time."""
    begun = time.monotonic()
    for questions in loader:
        counters.seconds += time.monotonic() - begun
        if progress(plan, counters.step, counters.seconds) >= 1:
            return
        yield questions
        begun = time.monotonic()


@dataclass
class _Run:
    """What a run carries along, and what it writes."""

    fabric: Fabric
    net: Any
    model: MedGLIP
    optimizer: Any
    average: Average
    counters: Counters
    info: CheckpointInfo
    out: Path
    validate: Validate | None
    speed: float = 0.0
    note: str = ""
    judged: int = 0

    def open(self, fresh: bool) -> None:
        """Make the folder; a fresh run forgets what an earlier one logged."""
        self.out.mkdir(parents=True, exist_ok=True)
        lines = [f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in section.items())
                 for name, section in self.info.config.items()]  # fmt: skip
        (self.out / "config.toml").write_text("\n".join(lines), encoding="utf-8")
        log = self.out / "metrics.jsonl"
        old = [] if fresh or not log.is_file() else log.read_text(encoding="utf-8").splitlines(keepends=True)
        log.write_text("".join(line for line in old if json.loads(line)["step"] <= self.counters.step), encoding="utf-8")

    def log(self, losses: dict[str, Tensor], rate: float, speed: float) -> None:
        """One line a step in ``metrics.jsonl``."""
        terms = {name: round(float(term.detach()), 5) for name, term in losses.items()}
        self.speed = speed if not self.speed else 0.9 * self.speed + 0.1 * speed
        self.note = f"step {self.counters.step}  loss {terms['loss']:.2f}  {self.speed:.1f} images/s"
        line = {"step": self.counters.step, "seconds": round(self.counters.seconds, 2), **terms,
                "lr": rate, "images_per_second": round(speed, 2)}  # fmt: skip
        self._append(line)

    def judge_if_due(self, done: float, times: int) -> None:
        """Validate the averaged model ``times`` times a run, the last time at its end; keep the best."""
        if self.validate is None or not times or int(done * times + 1e-9) <= self.judged:
            return
        self.judged = int(done * times + 1e-9)
        random = torch.get_rng_state()
        self.average.swap()
        self.model.eval()
        found = self.validate(self.model, self.info)
        self.model.train()
        self.average.swap()
        torch.set_rng_state(random)
        thresholds = {name: found[name] for name in ("score_threshold", "presence_threshold", "thresholds") if name in found}
        self.info = replace(self.info, **thresholds)
        self._append({"step": self.counters.step, **{f"val_{name}": value for name, value in found.items()}})
        if found["score"] > self.counters.best:
            self.counters.best = found["score"]
            self.write("best")
        self.write("last")

    def write(self, name: str) -> Path:
        """A checkpoint of the averaged weights and, beside it, the state to resume from."""
        if self.fabric.is_global_zero:
            trained = {**self.info.trained, "steps": self.counters.step, "seconds": round(self.counters.seconds, 1)}
            state = {**self.model.state_dict(), **self.average.kept}
            save_checkpoint(self.out / name, self.model, state, replace(self.info, trained=trained))
            save_state(self.out / "state.pt", self.average, self.optimizer, self.counters)
        return self.out / name

    def close(self) -> Path:
        """Write the last checkpoint; the folder of the best, which is the last where nothing judges."""
        last = self.write("last")
        if self.validate is None:
            return self.write("best")
        return self.out / "best" if (self.out / "best").is_dir() else last

    def _append(self, line: dict[str, Any]) -> None:
        if self.fabric.is_global_zero:
            with (self.out / "metrics.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")


def _groups(model: MedGLIP, plan: dict[str, Any]) -> list[dict[str, Any]]:
    """What learns, in two groups: the pretrained image encoder slowly, the rest at the full rate."""
    encoder = [value for value in model.image_encoder.parameters() if value.requires_grad]
    inside = set(map(id, encoder))
    rest = [value for value in model.parameters() if value.requires_grad and id(value) not in inside]
    groups = [(rest, plan["lr"]), (encoder, plan["lr"] * plan["encoder_rate"])]
    return [{"params": values, "lr": peak, "peak": peak} for values, peak in groups if values]


def _bar(show: bool) -> Progress:
    return Progress(TextColumn("training"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
                    TextColumn("{task.fields[note]}"), TimeRemainingColumn(), disable=not show)  # fmt: skip
