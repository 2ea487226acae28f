"""Compares evaluations that lie on disk: figures with intervals, differences on the same patients. Runs no model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medglip.errors import InputError
from medglip.evaluate.bootstrap import Paired, Patients, intervals, paired, paired_by
from medglip.evaluate.definitions import definition
from medglip.evaluate.folders import CASES, FIGURES, Evaluation, read_evaluation
from medglip.evaluate.tally import Tally

# What of an evaluation should be equal where two are compared: key of ``about`` and how to call it.
_ALIKE = {"split": "splits", "limit": "limits of images", "version": "versions of medglip"}
_GROUPS = ("modality", "source")
FEW = 20  # patients below which a reader is warned


def evaluation_folder(path: str | Path) -> Path:
    """The evaluation folder that is meant: the folder itself, or the one inside a run's folder.

    Raises:
        InputError: there is none, or a run's folder has several and none is of the test split.
    """
    folder = Path(path)
    if (folder / FIGURES).is_file() and (folder / CASES).is_file():
        return folder
    inside = [one for one in sorted(folder.glob("evaluation*")) if (one / FIGURES).is_file() and (one / CASES).is_file()]
    usual = [one for one in inside if one.name in ("evaluation", "evaluation-test")]
    if usual or len(inside) == 1:
        return (usual or inside)[0]
    if inside:
        raise InputError(f"Run {str(path)!r} has the evaluations {[one.name for one in inside]!r}; give the folder of one.")
    raise InputError(
        f"Folder {str(path)!r} is no evaluation (it has no {FIGURES} and {CASES}); give what `medglip evaluate` wrote,"
        " or run it."
    )


def evaluation_of(path: str | Path) -> Evaluation:
    """An evaluation from its folder or its run's folder.

    Raises:
        InputError: it is none, is damaged, or holds no question.
    """
    found = read_evaluation(evaluation_folder(path))
    if not found.cases:
        raise InputError(f"Evaluation {str(path)!r} holds no question; evaluate again on images with known phrases.")
    return found


def compare(runs: Sequence[str | Path], draws: int = 1000, seed: int = 0, level: float = 0.95) -> dict[str, Any]:
    """Figures of several evaluations with intervals, and the differences of each from the first.

    Args:
        runs: Two or more folders of evaluations, or of runs that hold one.
        draws: As in ``bootstrap.intervals``.
        seed: As there.
        level: As there.

    Returns:
        ``runs``: for each ``name``, ``folder``, ``about``, ``images``, ``questions``, ``patients``, ``sources``, ``figures``,
        ``intervals``; ``differences``: of each from the first ``a``, ``b`` (names), ``patients``, ``questions``,
        ``left_out``, ``reason``, ``figures`` (each ``a``, ``b``, ``difference``, ``low``, ``high``, ``p``, ``verdict``:
        better, worse or unclear) and ``by_modality``, ``by_source`` of the same; ``warnings``, ``draws``, ``seed``, ``level``.

    Raises:
        InputError: fewer than two runs, or one is no evaluation.
    """
    if len(runs) < 2:
        raise InputError(f"Runs to compare: found {len(runs)}; give two or more folders of evaluations.")
    found = [evaluation_of(run) for run in runs]
    names = _names([one.folder for one in found])
    tallies = [one.tally() for one in found]
    facts = [_facts(name, one, intervals(tally, draws, seed, level), tally)
             for name, one, tally in zip(names, found, tallies, strict=True)]  # fmt: skip
    differences, warnings = [], _warnings(found, names)
    for name, tally in zip(names[1:], tallies[1:], strict=True):
        pair = paired(tallies[0], tally, draws, seed, level)
        groups = {
            f"by_{kind}": {value: _plain(one) for value, one in paired_by(kind, tallies[0], tally, draws, seed, level).items()}
            for kind in _GROUPS
        }
        differences.append({"a": names[0], "b": name, **_plain(pair), **groups})
        if 1 < pair.patients < FEW:
            warnings.append(f"Few patients: {name} and {names[0]} share {pair.patients}; intervals of so few are too narrow.")
        if pair.other_truth:
            warnings.append(f"{name}: the true boxes of {pair.other_truth} of {pair.questions} shared questions differ from "
                            f"those of {names[0]}: the datasets are not the same.")  # fmt: skip
        if any(pair.left_out):
            warnings.append(f"{name} and {names[0]} were not asked the same: {pair.left_out[0]} questions of {names[0]} and "
                            f"{pair.left_out[1]} of {name} are left out of the differences.")  # fmt: skip
    return {"runs": facts, "differences": differences, "warnings": warnings, "draws": draws, "seed": seed, "level": level}


def _facts(name: str, one: Evaluation, ends: Mapping[str, Any], tally: Tally) -> dict[str, Any]:
    """What the tables say of one evaluation."""
    return {
        "name": name, "folder": str(one.folder), "about": dict(one.about),
        "images": len({case.image for case in one.cases}), "questions": len(one.cases),
        "patients": Patients(one.cases).count, "sources": sorted({case.source for case in one.cases}),
        "figures": {key: None if value is None else round(value, 4) for key, value in tally.figures().items()},
        "intervals": {key: None if one is None else list(one) for key, one in ends.items()},
    }  # fmt: skip


def _plain(pair: Paired) -> dict[str, Any]:
    """A paired comparison as plain values."""
    figures = {}
    for name, one in pair.figures.items():
        figures[name] = None if one is None else {**one._asdict(), "verdict": _verdict(name, one.low, one.high)}
    return {"patients": pair.patients, "questions": pair.questions, "left_out": list(pair.left_out), "reason": pair.reason,
            "figures": figures}  # fmt: skip


def _verdict(name: str, low: float, high: float) -> str:
    """Whether the interval of a difference says that the second run is better."""
    if low <= 0 <= high:
        return "unclear"
    return "better" if (low > 0) == (definition(name).better == "higher") else "worse"


def _names(folders: Sequence[Path]) -> list[str]:
    """Short names that tell the folders apart: the run's, with as many folders above it as that takes."""
    parts = []
    for folder in folders:
        whole = [part for part in folder.resolve().parts if part != folder.resolve().anchor]
        parts.append(whole[:-1] if len(whole) > 1 and whole[-1] in ("evaluation", "evaluation-test") else whole)
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(some[-count:]) for some in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({place})" for place, name in enumerate(names, start=1)]


def _warnings(found: Sequence[Evaluation], names: Sequence[str]) -> list[str]:
    """A sentence for each thing that should be equal and is not."""
    said = []
    for key, words in _ALIKE.items():
        values = [one.about.get(key) for one in found]
        if any(value != values[0] for value in values):
            told = ", ".join(f"{name} {value!r}" for name, value in zip(names, values, strict=True))
            said.append(f"The {words} differ: {told}.")
    datasets = [_datasets(one) for one in found]
    for name, other in zip(names[1:], datasets[1:], strict=True):
        if set(other) != set(datasets[0]):
            said.append(f"The datasets differ: {names[0]} {sorted(datasets[0])!r}, {name} {sorted(other)!r}.")
        elif other != datasets[0]:
            changed = sorted(key for key in other if other[key] != datasets[0][key])
            said.append(f"The versions of the datasets {changed!r} differ between {names[0]} and {name}.")
    return said


def _datasets(one: Evaluation) -> dict[str, str]:
    """Names of the datasets with their versions; the sources of the cases where the evaluation does not say."""
    told = one.about.get("datasets")
    if isinstance(told, list):
        return {str(each.get("name")): str(each.get("version")) for each in told if isinstance(each, Mapping)}
    return dict.fromkeys(sorted({case.source for case in one.cases}), "")
