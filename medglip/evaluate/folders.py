"""Evaluation folders: ``figures.json`` and ``cases.parquet``, with what was judged on what. Knows no figure.

``figures.json`` holds the figures and, under ``about``, what they are of:

``format``; ``checkpoint``, its folder as it was given, or None; ``weights_sha256``, of names, types, shapes and values of the
weights; ``trained``, what the checkpoint says of its training; ``shown_above``, least score and least presence of what it
shows, of ``all`` and of single modalities; ``split``; ``limit``; ``datasets``, each with ``name``, ``version`` (hash of the
manifest, as ``sha256sum manifest.json``) and the number of ``images`` asked about; ``version`` of medglip, ``versions`` of the
rest; ``cases_sha256``, which ties the two files together.
"""

import hashlib
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from medglip import __version__
from medglip.errors import InputError
from medglip.evaluate.averages import usual_thresholds
from medglip.evaluate.cases import Case, read_cases, write_cases
from medglip.evaluate.tally import Tally
from medglip.predict import Grounder
from medglip.store.manifest import bytes_of

FORMAT = 1
FIGURES, CASES = "figures.json", "cases.parquet"


class Evaluation(NamedTuple):
    """An evaluation on disk.

    Attributes:
        folder: Where it lies.
        figures: What ``medglip.evaluate.evaluate`` returned and what was added since; plain values of JSON.
        cases: Every question with its answer.
    """

    folder: Path
    figures: dict[str, Any]
    cases: list[Case]

    @property
    def about(self) -> Mapping[str, Any]:
        """What was judged on what; see the module."""
        return self.figures["about"]

    def thresholds_of(self, modality: str) -> tuple[float, float]:
        """Least score and least presence of what the checkpoint shows; the usual ones where it was not said."""
        told = self.about.get("shown_above") or {}
        score, presence = told.get(modality) or told.get("all") or usual_thresholds(modality)
        return float(score), float(presence)

    def tally(self) -> Tally:
        """The tally of its cases, at the checkpoint's thresholds."""
        return Tally(self.cases, self.thresholds_of)


def about_of(grounder: Grounder, datasets: Sequence[tuple[Any, int]], asked: Mapping[str, Any]) -> dict[str, Any]:
    """What an evaluation is of; see the module.

    Args:
        grounder: What is judged; a peer in a comparison may have neither ``model`` nor ``info``.
        datasets: Each with the number of its images that are asked about.
        asked: ``checkpoint``, ``split`` and ``limit``.
    """
    model, info = getattr(grounder, "model", None), getattr(grounder, "info", None)
    about: dict[str, Any] = {
        "format": FORMAT,
        **asked,
        "weights_sha256": None if model is None else weights_sha256(model),
        "datasets": [{"name": name_of(data), "version": manifest_sha256(data.manifest), "images": count}
                     for data, count in datasets],
        "version": __version__,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }  # fmt: skip
    if info is not None:
        about["trained"] = info.trained
        about["shown_above"] = {"all": (info.score_threshold, info.presence_threshold), **info.thresholds}
    return about


def name_of(data: Any) -> str:
    """What to call a dataset: the name of its folder, or its sources where it lies in none."""
    place = getattr(data, "place", None)
    if place is not None:
        return str(place.name).rstrip("/").rpartition("/")[2]
    return " ".join(sorted({part["source"] for part in data.manifest["parts"].values()}))


def weights_sha256(model: torch.nn.Module) -> str:
    """Hash of names, types, shapes and values of a model's weights: the same for the same weights, wherever they lie."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def manifest_sha256(manifest: Mapping[str, Any]) -> str:
    """Hash of a dataset's manifest, that of the file."""
    return hashlib.sha256(bytes_of(manifest)).hexdigest()


def write_evaluation(folder: str | Path, figures: Mapping[str, Any], cases: Sequence[Case]) -> Path:
    """Write an evaluation; each file appears whole or not at all, ``figures.json`` last.

    Args:
        folder: Made if it is not there; an evaluation in it is replaced, other files are left alone.
        figures: Numbers that are not finite become None.
        cases: Every question with its answer.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tie = {"format": FORMAT, "cases_sha256": _sha256(write_cases(folder / CASES, cases))}
    _write_json(folder / FIGURES, {**figures, "about": {**figures.get("about", {}), **tie}})
    return folder


def add_figures(folder: str | Path, added: Mapping[str, Any]) -> Path:
    """Add figures to an evaluation folder, or replace them: what is worked out from its cases, such as intervals.

    Raises:
        InputError: the folder holds no evaluation, or the cases are not those of its figures.
    """
    found = read_evaluation(folder)
    _write_json(found.folder / FIGURES, {**found.figures, **added, "about": found.about})
    return found.folder


def read_evaluation(folder: str | Path) -> Evaluation:
    """The evaluation in a folder.

    Raises:
        InputError: there is none, it is damaged or of another format, or its two files are not of one evaluation.
    """
    folder = Path(folder)
    try:
        figures = json.loads((folder / FIGURES).read_text(encoding="utf-8"))
        about = dict(figures["about"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"Evaluation {str(folder)!r}: {FIGURES} cannot be read ({error!r}); give a folder that an evaluation wrote."
        ) from error
    if about.get("format") != FORMAT:
        raise InputError(
            f"Evaluation {str(folder)!r}: found format {about.get('format')!r}; this medglip reads {FORMAT}; evaluate the"
            " checkpoint again."
        )
    cases = read_cases(folder / CASES)
    if _sha256(folder / CASES) != about.get("cases_sha256"):
        raise InputError(
            f"Evaluation {str(folder)!r}: found a {CASES} that is not the one of {FIGURES}; evaluate the checkpoint again."
        )
    return Evaluation(folder, figures, cases)


def plain(value: Any) -> Any:
    """The same as plain values of JSON: numpy's numbers as Python's, tuples as lists, what is not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_json(path: Path, document: Any) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(plain(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(new, path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
