"""The whole main job in one run: convert, train, measure, ground, ask, report, and a page that shows it all.

Phantoms by default, real sources with ``real``. Two models are trained side by side, one core each: with and without
modality conditioning; or, fast, the model shipped with medglip is judged on new phantoms. Nothing here is faked: every figure
of the page is measured on held-out patients.
"""

import json
import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from rich.console import Console

from medglip import store
from medglip.curate import Conversion, convert, source_names
from medglip.errors import InputError, ModelError
from medglip.model.shipped import checkpoint_folder
from medglip.progress import Bars, Step, bar
from medglip.store.groups.divided import Divided
from medglip.store.pages.preview import preview

PHANTOM_CASES, PHANTOM_MINUTES = 40, 7.5
FAST_CASES, SHIPPED = 8, "lite"
REAL_MINUTES = 14.0
PAGE, SUMMARY = "index.html", "summary.json"
RUN, RUN_WITHOUT = "run", "run_without_modality"
_GROUNDING_FIGURES = ("ap", "ap50", "acc50", "acc50_micro", "found", "absence_auroc", "images", "questions")
_LANGUAGE_FIGURES = (
    "vqa_accuracy", "vqa_accuracy_with_truth_boxes", "vqa_accuracy_with_wrong_boxes", "vqa_accuracy_without_boxes",
    "vqa_majority", "vqa_accuracy_answered", "vqa_coverage", "report_precision", "report_recall", "report_f1",
)  # fmt: skip

Data = store.Dataset | Divided


@dataclass(frozen=True)
class Job:
    """One training with its evaluation, for a process of its own.

    Attributes:
        dataset: Folder of the dataset.
        divided: Whether its images are divided anew (real sources).
        out: Folder of the run.
        config: Recipe.
        overrides: New values for keys of the recipe.
    """

    dataset: Path
    divided: bool
    out: Path
    config: str
    overrides: dict[str, Any]


@dataclass
class Clock:
    """Seconds of each stage, in the order in which they were begun."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        begun = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - begun, 1)


def run_demo(folder: Path, *, real: Path | None = None, minutes: float | None = None, steps: int = 0, cases: int = 0,
             seed: int = 0, fast: bool = False, console: Console | None = None) -> Path:  # fmt: skip
    """Run the main job from files to a page.

    Args:
        folder: Where everything is written; a run of the same kind that was ended is gone on with.
        real: Folder of source folders (``us-busi`` for the source ``us_busi``); None for phantoms.
        minutes: Wall time of the training; both models train at the same time.
        steps: Train for so many steps instead, whatever time they take: the same figures on a busy machine.
        cases: Phantom cases per modality; 0 for 40, or 8 where ``fast``.
        seed: Of phantoms, training and questions.
        fast: Train no model: judge the one shipped with medglip, on phantoms that it has not seen.
        console: Where progress is shown.

    Returns:
        The page, ``folder/index.html``; beside it ``summary.json``, ``dataset/`` and the checkpoint ``run/best/``.

    Raises:
        InputError: the folder holds another run, ``real`` holds no source that medglip knows, or ``fast`` is asked of real
            sources, some of which the shipped model was trained on.
        ModelError: ``fast``, and this build has no shipped model.
    """
    from medglip.demo_page import write_page

    length: dict[str, Any] = {"steps": steps, "minutes": 0.0} if steps else {"minutes": minutes or _usual_minutes(real)}
    if fast:
        _check_fast(real)
        length = {"fast": True}
    cases = cases or (FAST_CASES if fast else PHANTOM_CASES)
    _claim(folder, {"real": real is not None, "cases": cases, **length, "seed": seed})
    clock = Clock()
    with bar(console or Console(stderr=True)) as bars:
        with clock.stage("convert"):
            _write_dataset(folder, real, cases, seed, bars)
        data = opened(folder / "dataset", divided=fast or real is not None)
        with clock.stage("evaluate" if fast else "train and evaluate"):
            if fast:
                figures = {RUN: _judge_shipped(folder / RUN, data, bars.step("shipped model"))}
            else:
                figures = _train_and_judge(_jobs(folder, real, {**length, "seed": seed}), bars)
        with clock.stage("questions and reports"):
            language = (_ask if fast else _learn_language)(folder / RUN / "best", data, seed, bars.step("questions"))
        if real is not None:
            with clock.stage("untrained model"):
                job = _jobs(folder, real, {**length, "seed": seed})[0]
                figures["untrained"] = _untrained(job, data, bars.step("untrained model"))
        with clock.stage("pictures and pages"):
            preview(store.open(folder / "dataset"))
            summary = _summary(figures, language, data, clock)
            page = write_page(folder, data, summary, figures, language, seed)
    summary["seconds"] = round(sum(clock.seconds.values()), 1)
    summary["seconds_by_stage"] = clock.seconds
    (folder / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return page


def _usual_minutes(real: Path | None) -> float:
    return PHANTOM_MINUTES if real is None else REAL_MINUTES


def _check_fast(real: Path | None) -> None:
    """Refuse what a demo without training cannot show."""
    if real is not None:
        raise InputError(
            "A fast demo of real sources would judge the shipped model on patients that it was trained on; leave --fast out, "
            f"or convert your own images and run `medglip evaluate {SHIPPED} DATASET --split all`."
        )
    checkpoint_folder(SHIPPED)


def opened(dataset: Path, *, divided: bool) -> Data:
    """The dataset; ``divided`` holds out a quarter of each source's patients, where a split by hash may hold out none."""
    return Divided(store.open(dataset)) if divided else store.open(dataset)


def _claim(folder: Path, plan: dict[str, Any]) -> None:
    """Make the folder, or make sure that it holds a run of the same plan."""
    note = folder / "demo.json"
    if note.is_file():
        found = json.loads(note.read_text(encoding="utf-8"))
        if found != plan:
            raise InputError(f"Folder {str(folder)!r} holds a demo of {found}; asked for {plan}; name another folder.")
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"Folder {str(folder)!r} holds something else than a demo; name another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(plan) + "\n", encoding="utf-8")


def _write_dataset(folder: Path, real: Path | None, cases: int, seed: int, bars: Bars) -> None:
    from medglip.phantoms import write_archive

    if real is None:
        archive = folder / "archive"
        if not (archive / "README.txt").is_file():  # written last
            _remove_leftovers(archive)
            write_archive(archive, cases=cases, seed=seed, progress=bars.step("phantoms"))
        inputs = [("phantom", archive)]
    else:
        inputs = [(name, real / name.replace("_", "-")) for name in source_names()]
        inputs = [(name, path) for name, path in inputs if path.is_dir()]
    if not inputs:
        raise InputError(
            f"Folder {str(real)!r} holds no folder named after a source, such as 'us-busi'; see `medglip sources`."
        )
    # Starting processes costs seconds: it pays for the phantoms' hundreds of cases, not for a sample of a source.
    workers = 2 if real is None else 1
    for name, path in inputs:
        step = bars.step(f"convert {name}")
        convert(name, path, folder / "dataset", workers=workers, on_case=partial(_show_case, step))


def _show_case(step: Step, counts: Conversion) -> None:
    step(counts.done, counts.cases, f"{counts.rejects.total()} rejected")


def _remove_leftovers(archive: Path) -> None:
    shutil.rmtree(archive, ignore_errors=True)


def _jobs(folder: Path, real: Path | None, plan: dict[str, Any]) -> list[Job]:
    """The training with modality conditioning, and the one without."""
    config = "lite" if real is None else "lite_finetune"
    return [
        Job(folder / "dataset", real is not None, folder / RUN, config, plan),
        Job(folder / "dataset", real is not None, folder / RUN_WITHOUT, config, plan | {"modality": []}),
    ]


def _train_and_judge(jobs: list[Job], bars: Bars) -> dict[str, Any]:
    """Figures of each job, by the name of its folder; what was judged already is not trained again."""
    _side_by_side([job for job in jobs if not (job.out / "figures.json").is_file()], bars)
    return {job.out.name: json.loads((job.out / "figures.json").read_text()) for job in jobs}


def _judge_shipped(run: Path, data: Data, progress: Callable[..., None]) -> dict[str, Any]:
    """Copy the shipped model into the run, as a training would leave it there, and judge it on test patients."""
    from medglip.evaluate import evaluate

    shutil.copytree(checkpoint_folder(SHIPPED), run / "best", dirs_exist_ok=True)
    return evaluate(run / "best", [data], split="test", progress=progress)


def _side_by_side(jobs: list[Job], bars: Bars) -> None:
    """Train and judge all jobs at once, one core each, and show how far they are."""
    context = multiprocessing.get_context("spawn")
    steps = [bars.step("with modality" if job.out.name == RUN else "without modality") for job in jobs]
    running: list[BaseProcess] = [context.Process(target=work, args=(job,)) for job in jobs]
    for process in running:
        process.start()
    try:
        while any(process.is_alive() for process in running):
            time.sleep(1.0)
            for job, step in zip(jobs, steps, strict=True):
                step(*_news(job))
    finally:
        for process in running:
            process.terminate()
            process.join()
    for job, process in zip(jobs, running, strict=True):
        if process.exitcode != 0 or not (job.out / "figures.json").is_file():
            raise ModelError(f"The training in {str(job.out)!r} ended with code {process.exitcode}; its words are above.")


def work(job: Job) -> None:
    """Train one model and judge it on the test patients; runs in a process of its own."""
    import torch

    from medglip.evaluate import evaluate, validator
    from medglip.train import train
    from medglip.train.folder import clear

    torch.set_num_threads(1)
    clear(job.out)
    (job.out / "figures.json").unlink(missing_ok=True)
    data = opened(job.dataset, divided=job.divided)
    judge = validator([data]) if data.ids("val") else None
    best = train(job.config, [data], job.out, validate=judge, show=False, **job.overrides)
    used = time.process_time()
    figures = evaluate(best, [data], split="test") | {"training_cpu_seconds": round(used, 1)}
    (job.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def _news(job: Job) -> tuple[int, int, str]:
    """How far a job is: seconds (or steps) of training, of how many, and its loss."""
    log = job.out / "metrics.jsonl"
    total = job.overrides.get("steps") or round(60 * job.overrides["minutes"])
    last = next((line for line in reversed(log.read_text().splitlines()) if '"loss"' in line), "") if log.is_file() else ""
    if not last:
        return 0, total, "starting"
    line = json.loads(last)
    note = f"step {line['step']}, loss {line['loss']:.2f}, {line['images_per_second']:.0f} images/s"
    done = line["step"] if "steps" in job.overrides else round(line["seconds"])
    return min(total, done), total, note if done < total else "judging"


def _learn_language(checkpoint: Path, data: Data, seed: int, progress: Callable[..., None]) -> dict[str, Any]:
    """Look at every image once, train the answers and calibrate the reports, and measure both on test patients."""
    import torch

    from medglip.language import Bands, Reporter, observe_dataset, train_vqa, vocabulary_of
    from medglip.language.observe import FOLDER
    from medglip.predict import Grounder

    grounder = Grounder.load(checkpoint)
    vocabulary = vocabulary_of(data.records("train"))
    observations = observe_dataset(grounder, data, vocabulary, progress=progress)
    torch.set_num_threads(1)  # the head is tiny: threads cost it more than they give
    figures = train_vqa(grounder, [data], checkpoint, observations=observations, seed=seed, progress=progress)
    bands = Bands.load(checkpoint / FOLDER)
    return {
        **figures,
        "observations": observations,
        "reporter": Reporter(grounder, vocabulary, bands),
    }


def _ask(checkpoint: Path, data: Data, seed: int, progress: Callable[..., None]) -> dict[str, Any]:
    """Look at every test image once, and measure the answers and reports of a checkpoint that has learned them."""
    from medglip.language import VQA, Reporter, observe_dataset
    from medglip.language.vqa_training import measure_vqa

    vqa = VQA.load(checkpoint)
    reporter = Reporter.load(checkpoint, vqa.grounder)
    observations = observe_dataset(vqa.grounder, data, vqa.vocabulary, "test", progress)
    figures = measure_vqa(vqa, reporter.bands, [data], observations, seed)
    return {**figures, "observations": observations, "reporter": reporter}


def _untrained(job: Job, data: Data, progress: Callable[..., None]) -> dict[str, Any]:
    """The figures of the same model before its first step: what pretrained encoders alone give."""
    from medglip.evaluate import evaluate
    from medglip.model import build_model, load_config
    from medglip.model.checkpoints import CheckpointInfo
    from medglip.predict import Grounder

    config = load_config(job.config, **job.overrides)
    grounder = Grounder(build_model(config), CheckpointInfo(config, concepts=(), modalities=(), trained={}))
    progress(0, 1)
    figures = evaluate(grounder, [data], split="test")
    progress(1, 1)
    return figures


def _summary(figures: dict[str, Any], language: dict[str, Any], data: Data, clock: Clock) -> dict[str, Any]:
    """What ``summary.json`` holds: figures on held-out patients."""
    main, without = figures[RUN], figures.get(RUN_WITHOUT)
    summary = {
        **{name: main[name] for name in _GROUNDING_FIGURES},
        "ap50_by_modality": {name: one["ap50"] for name, one in main["by_modality"].items()},
        "ap50_by_source": {name: one["ap50"] for name, one in main["by_source"].items()},
        "ap50_by_level": {name: one["ap50"] for name, one in main["by_level"].items()},
        **{name: language.get(name) for name in _LANGUAGE_FIGURES},
        "images_by_split": {split: len(data.ids(split)) for split in ("train", "val", "test")},
        "seconds": round(sum(clock.seconds.values()), 1),
    }
    if without is not None:
        summary |= {f"{name}_without_modality": without[name] for name in ("ap50", "acc50", "absence_auroc")}
        by_modality = {name: one["ap50"] for name, one in without["by_modality"].items()}
        summary["ap50_by_modality_without_modality"] = by_modality
    if "untrained" in figures:
        summary["ap50_untrained"] = figures["untrained"]["ap50"]
        summary["found_untrained"] = figures["untrained"]["found"]
    return summary
