"""The training loop, on Lightning Fabric: what happens in training happens in ``_learn``, in order.

What a step learns is a function of the configuration, the data and the step's number, so a run that is resumed goes on
as if it had never stopped; and of the images of a step, not of how they are divided into batches and among processes.
"""

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from medglip.errors import ModelError
from medglip.model.assign import assign
from medglip.model.checkpoints import CheckpointInfo
from medglip.model.config import Config, load_config
from medglip.model.dense import build_model
from medglip.model.encoders import TextEncoder
from medglip.model.losses import Target, grounding_loss, masked_words
from medglip.model.prompt import Prompt, Span, make_prompt
from medglip.model.pyramid import grid_points
from medglip.records.labels import label_tree
from medglip.train import folder, learning
from medglip.train.devices import build_fabric, compile_parts
from medglip.train.failures import Stopping, is_whole, memory
from medglip.train.features import FrozenFeatures
from medglip.train.optimizer import build_optimizer
from medglip.train.run import Run, Validate
from medglip.train.samples import GroundingData, Question, Samples, pad_target
from medglip.train.schedule import batches, learning_rate, progress
from medglip.train.shares import counts, weigh
from medglip.train.state import Average

# Of an image in training, where its truth needs it to be one row; ``phrases`` keeps it short long before.
_MOST_WORDS = 4096
NO_IMAGES = torch.zeros(0)  # the model is given frozen features instead


def train(config: str | Path | dict[str, Any], datasets: Sequence[GroundingData], out: str | Path, *,
          resume: bool = False, start_from: str | Path | None = None, validate: Validate | None = None,
          show: bool = True, replay: Sequence[GroundingData] = (), **overrides: Any) -> Path:  # fmt: skip
    """Train a model on the images of split ``train``.

    Args:
        config: Name of a recipe (``tiny``, ``lite``), path to a TOML file, or its dicts.
        datasets: Opened datasets.
        out: Folder of the run (see ``medglip.train.folder``); it must not hold another run.
        resume: Go on where ``out`` stopped.
        start_from: Checkpoint whose weights to begin with, or the name of a shipped model (``lite``).
        validate: Judges the model now and then (``medglip.evaluate.validator`` makes one). Returns plain numbers, of
            which ``score`` chooses the best checkpoint; thresholds (see ``CheckpointInfo``) are kept; ``errors``
            ({source: {concept: 0 to 1}}), where it has them, change what is drawn from then on.
        show: Show a bar with rate and time left.
        replay: Datasets of an earlier training, mixed in.
        overrides: New values for keys of the configuration: ``steps=300, modality=[]``.

    Returns:
        The best checkpoint's folder, or the last one's where nothing validates.

    Raises:
        ModelError: the configuration, ``start_from`` or what is in ``out`` do not fit; or the training failed (see
            ``medglip.train.failures``).
        DatasetError: there is nothing to learn from.
        KeyboardInterrupt: after Ctrl-C, with a checkpoint written; SystemExit with 143 after SIGTERM.
    """
    settings, out = load_config(config, **overrides), Path(out)
    plan, given = settings["train"], copy.deepcopy(settings)
    _check(plan, validate, resume or start_from is not None)
    kept_whole: list[torch.nn.Parameter] = []
    fabric = build_fabric(plan, kept_whole)
    facts = folder.facts_of(given, datasets, replay, fabric.world_size)
    with ExitStack() as stack:

        def claim() -> None:
            stack.enter_context(folder.locked(out))
            folder.check(out, given, facts, resume)

        _first(fabric, claim)
        samples = _samples(settings, datasets, replay)
        run = _begin(fabric, settings, samples, (out, _weights(out) if resume else start_from, validate), kept_whole)
        if resume:
            run.load(samples)
        _first(fabric, lambda: folder.describe(out, given, facts, resume))
        if fabric.is_global_zero:
            folder.forget_after(out, run.counters.step)
            run.log = folder.Log(out, plan.get("tensorboard", False))
        _learn(run, samples, settings, show)
        return run.close(samples)


def _check(plan: Mapping[str, Any], validate: Validate | None, has_begun: bool) -> None:
    if not plan["steps"] and not plan["minutes"]:
        raise ModelError("Training needs an end: set steps or minutes above 0.")
    parts, patience = plan.get("accumulate", 1), plan.get("patience", 0)
    if isinstance(parts, bool) or not isinstance(parts, int) or parts < 1:
        raise ModelError(f"Configuration train.accumulate: found {parts!r}; allowed is a whole number from 1.")
    if patience and (validate is None or not plan["validations"]):
        raise ModelError(
            f"Configuration train.patience: found {patience!r}, but nothing is validated; give a dataset with a split 'val' "
            "and validations above 0, or set patience = 0."
        )
    if not has_begun and (learns := plan.get("learn", "all")) not in ("all", "encoder_frozen"):
        raise ModelError(f"Configuration train.learn: found {learns!r}, and no trained model to tune; give --from CHECKPOINT.")
    if not 0 < plan.get("layer_decay", 1.0) <= 1:
        raise ModelError(f"Configuration train.layer_decay: found {plan['layer_decay']!r}; allowed: above 0, at most 1.")


def _first(fabric: Fabric, act: Callable[[], None]) -> None:
    """Do something on the first process; what it refuses is refused on all."""
    refused = None
    if fabric.is_global_zero:
        try:
            act()
        except ModelError as error:
            refused = str(error)
    if refused := fabric.broadcast(refused):
        raise ModelError(refused)


def _samples(settings: Config, datasets: Sequence[GroundingData], replay: Sequence[GroundingData]) -> Samples:
    asking = {**settings["train"], "masks": settings["loss"].get("masks", 0) > 0}
    return Samples(datasets, "train", label_tree(), asking, settings["image"]["size"], replay)


def _weights(out: Path) -> Path | None:
    """A checkpoint of the run itself, a whole one if there is: what does not learn is only there, the state has the rest."""
    there = [out / name for name in ("last", "best") if (out / name / "model.safetensors").is_file()]
    return next(filter(is_whole, there), there[0] if there else None)


def _begin(
    fabric: Fabric, settings: Config, samples: Samples, paths: tuple[Path, str | Path | None, Validate | None],
    kept_whole: list[torch.nn.Parameter],
) -> Run:  # fmt: skip
    """The run before its first step: model, weights, what learns, optimiser, averages.

    Args:
        fabric: Launched.
        settings: The configuration; says afterwards what was added to the model.
        samples: What it learns from.
        paths: Folder of the run, checkpoint to begin with, judge.
        kept_whole: Gets the parameters that FSDP must not share out.
    """
    out, start, validate = paths
    plan, concepts = settings["train"], tuple(sorted(samples.words.seen_in))
    torch.manual_seed(plan["seed"])
    model = build_model(settings, pretrained=start is None)
    if start is not None:
        learning.begin(model, settings, start)
    learning.prepare(model, settings, concepts)
    kept_whole += [value for value in model.parameters() if not value.requires_grad]
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if plan.get("compile", False):
        compile_parts(model)
    net, optimizer = fabric.setup(model, build_optimizer(model, plan))
    if fabric.world_size > 1:  # what is drawn from now on, as by dropout, differs between processes
        torch.manual_seed(plan["seed"] + fabric.global_rank)
    info = CheckpointInfo(
        settings,
        concepts=concepts,
        modalities=tuple(sorted({item.modality for item in samples.items})),
        trained=dict(samples.trained),
    )
    return Run(fabric, net, model, optimizer, Average(model, plan["ema"]), info, out, validate)


def _learn(run: Run, samples: Samples, settings: Config, show: bool) -> None:
    """Steps until the end of the plan; Ctrl-C and SIGTERM leave a state to resume from."""
    fabric, plan, counters = run.fabric, settings["train"], run.counters
    features = FrozenFeatures(run.model, samples, plan["cache_mb"] if plan["views"] else 0)
    with _bar(show and fabric.is_global_zero) as bar, Stopping() as stopping:
        task = bar.add_task("training", total=1000, note="")
        if counters.step:  # it may have been stopped just before it was to be judged; and its plan may be longer now
            done = progress(plan, counters.step, counters.seconds)
            counters.judged = min(counters.judged, int(done * plan["validations"] + 1e-9))
            run.judge_if_due(done, plan["validations"], samples)
        while not _is_over(run, plan):
            loader = batches(samples, plan, counters.step, fabric.global_rank, fabric.world_size)
            for questions, waiting in _steps(loader, plan.get("accumulate", 1)):
                begun = time.monotonic()
                rate = learning_rate(progress(plan, counters.step, counters.seconds), plan["warmup"])
                for group in run.optimizer.param_groups:
                    group["lr"] = group["peak"] * rate
                with memory(plan, max(plan.get("sizes") or [samples.size])):
                    losses = _gradients(run, [_asked(run, some, settings, part, len(questions))
                                              for part, some in enumerate(questions)], features, settings)  # fmt: skip
                    clipped = fabric.clip_gradients(run.net, run.optimizer, max_norm=plan["clip"], error_if_nonfinite=False)
                    norm = math.nan if clipped is None else float(clipped)
                    run.check(losses, norm, _named(questions, samples), samples)
                    run.optimizer.step()
                    run.optimizer.zero_grad(set_to_none=True)

                counters.step += 1
                images = sum(map(len, questions)) * fabric.world_size
                counters.images += images
                run.average.update(counters.step)
                took = time.monotonic() - begun
                counters.seconds += waiting + took
                signal = run.agree(stopping.signal)
                done = progress(plan, counters.step, counters.seconds)
                run.tell(losses, {"lr": rate * plan["lr"], "norm": norm, "waiting": waiting, "took": took}, images)
                bar.update(task, completed=1000 * done, note=run.note)
                if signal:
                    run.save(samples)
                    fabric.print(f"Stopped after step {counters.step}; the same command with --resume goes on.")
                    stopping.stop(signal, counters.step)
                is_drawn_anew = run.judge_if_due(done, plan["validations"], samples)
                if is_drawn_anew or _is_over(run, plan):
                    break


class _Batch(NamedTuple):
    """The questions of one forward pass, on the device."""

    questions: Sequence[Question]
    prompt: Prompt
    modality: Tensor
    targets: Sequence[Target]
    word_labels: Tensor


def _asked(run: Run, questions: Sequence[Question], settings: Config, part: int, parts: int) -> _Batch:
    """Batch ``part`` of a step as the model reads it."""
    model, device = run.model, run.fabric.device
    number = (run.counters.step * parts + part) * run.fabric.world_size + run.fabric.global_rank
    prompt, word_labels = asked(questions, model.text_encoder.text, settings["loss"], number)
    modality = model.modality.index([question.modality for question in questions]).to(device)
    targets = [pad_target(question.target, prompt.members.shape[1], device) for question in questions]
    return _Batch(questions, prompt.to(device), modality, targets, word_labels.to(device))


def _gradients(run: Run, parts: Sequence[_Batch], features: FrozenFeatures, settings: Config) -> dict[str, float]:
    """Add up the gradients of a step's batches, each by its share of the step; the step's losses, over all processes."""
    fabric, world, device = run.fabric, run.fabric.world_size, run.fabric.device
    whole: Tensor | None = None
    told = torch.zeros(())
    names: list[str] = []
    ahead: list[Tensor] = []
    if len(parts) > 1:  # the shares depend on batches to come
        names = sorted(name for name, weight in settings["loss"].items() if weight > 0 or name in _ALWAYS)
        ahead = [counts(names, part.targets, _assigned(run, part, features), part.prompt, part.word_labels) for part in parts]
        whole = _summed(fabric, torch.stack(ahead).sum(0))
    for place, part in enumerate(parts):
        images = features.pixels(part.questions, device) if run.model.modality.needs_images else NO_IMAGES
        with fabric.no_backward_sync(run.net, enabled=place + 1 < len(parts)):
            output = run.net(images, part.prompt, part.modality, features(part.questions, device), part.targets,
                             part.word_labels)  # fmt: skip
            losses = grounding_loss(output, part.targets, settings["loss"], settings["model"]["quality_target"])
            del losses["loss"]
            names = names or sorted(losses)
            terms = torch.stack([losses[name] for name in names])
            if len(parts) * world > 1:
                own = (
                    ahead[place]
                    if ahead
                    else counts(names, part.targets, output.learned.assigned, part.prompt, part.word_labels)
                )
                whole = _summed(fabric, own.clone()) if whole is None else whole
                terms = terms * weigh(own, whole, names, len(parts), world)
            fabric.backward(terms.sum())
        told = told.to(terms) + terms.detach()
    values = _summed(fabric, told).div(world).tolist()
    return {"loss": math.fsum(values), **dict(zip(names, values, strict=True))}


def _assigned(run: Run, part: _Batch, features: FrozenFeatures) -> list[Tensor]:
    """The box that each point will learn, row by row, before the model has run."""
    side, strides = features.side(part.questions), run.model.head.pyramid.strides
    strides = (strides[0] // 2, *strides)  # the finest level speaks twice, see DenseHead
    levels = [torch.empty(1, 1, -(-side // stride), -(-side // stride), device=run.fabric.device) for stride in strides]
    points, steps = grid_points(levels, strides)
    return [assign(points, steps, target.boxes) for target in part.targets]


def _summed(fabric: Fabric, values: Tensor) -> Tensor:
    """Sums over all processes."""
    return values if fabric.world_size == 1 else fabric.all_reduce(values, reduce_op="sum")  # type: ignore[return-value]


_ALWAYS = ("align", "box", "quality", "presence")


def asked(
    questions: Sequence[Question], text: TextEncoder, weights: Mapping[str, float], number: int
) -> tuple[Prompt, Tensor]:  # fmt: skip
    """The prompt of a batch, and the words of its captions that were masked (U, L), -100 elsewhere.

    Args:
        questions: The batch.
        text: Whose tokens they become.
        weights: Of the losses; words are masked where ``words`` has one.
        number: Of the batch in the run, which decides what is masked.

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
    random = torch.Generator().manual_seed(number)
    is_inside = text.tokenize(prompt.texts).spans[..., 1] > 0  # special tokens stand for no characters
    tokens, labels = masked_words(
        prompt.tokens, prompt.token_is_word, is_inside & is_caption, text.mask_id, text.vocabulary, random
    )
    return prompt._replace(tokens=tokens), labels


def _is_over(run: Run, plan: Mapping[str, Any]) -> bool:
    """Whether the plan is done, or the last validations brought nothing."""
    return progress(dict(plan), run.counters.step, run.counters.seconds) >= 1 or run.is_stale(plan.get("patience", 0))


def _steps(loader: Iterable[list[Question]], parts: int) -> Iterator[tuple[list[list[Question]], float]]:
    """The batches of each step, and the seconds that were waited for them."""
    coming = iter(loader)
    while True:
        begun = time.monotonic()
        step = [next(coming) for _ in range(parts)]
        yield step, time.monotonic() - begun


def _named(questions: Sequence[Sequence[Question]], samples: Samples) -> list[dict[str, Any]]:
    """What to look for where a step went wrong."""
    keys = [question.key for some in questions for question in some]
    return [{"id": samples.items[key[0]].id, "source": samples.items[key[0]].source, "view": key[1]} for key in keys]


def _bar(show: bool) -> Progress:
    return Progress(TextColumn("training"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
                    TextColumn("{task.fields[note]}"), TimeRemainingColumn(), disable=not show)  # fmt: skip
