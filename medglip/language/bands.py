"""When a scene asserts, hedges or denies: thresholds set on validation data. Knows no images and no words.

A model's probability is turned into one of three statements. "Present" needs a presence at or above ``present`` and a
region; "absent" needs a presence below ``absent``, for a concept that the training sources searched for everywhere;
whatever lies between is uncertain and is said to be.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.special import betaincinv

from medglip.errors import ModelError

BANDS_FILE = "bands.json"


@dataclass(frozen=True, slots=True)
class Bands:
    """Thresholds, and what they rest on.

    Attributes:
        present: Presence at and above which a concept may be asserted.
        absent: Presence below which a concept may be denied; 0 where nothing may be.
        place: Certainty of place (score over presence) at and above which a region counts; the best region of a concept
            that is there counts from half of it.
        deniable: Concepts that may be denied: those that training images were searched for. None allows all.
        target: Share of denials that must hold on validation images, at the lower confidence bound.
        pairs: Image-concept pairs of the validation images behind the thresholds; 0 means uncalibrated.
    """

    present: float = 0.5
    absent: float = 0.0
    place: float = 0.3
    deniable: frozenset[str] | None = None
    target: float = 0.8
    pairs: int = 0

    def may_deny(self, concept: str, presence: float) -> bool:
        """Whether a concept of this presence may be said to be absent."""
        return presence < self.absent and (self.deniable is None or concept in self.deniable)

    def save(self, folder: Path) -> None:
        """Write ``bands.json`` into a folder."""
        plain = asdict(self)
        plain["deniable"] = None if self.deniable is None else sorted(self.deniable)
        (folder / BANDS_FILE).write_text(json.dumps(plain, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Bands":
        """Read ``bands.json`` of a folder.

        Raises:
            ModelError: the file is missing or does not fit.
        """
        path = folder / BANDS_FILE
        try:
            plain = json.loads(path.read_text())
            deniable = plain.pop("deniable")
            return cls(**plain, deniable=None if deniable is None else frozenset(deniable))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ModelError(
                f"{path} does not hold the thresholds of a report ({error}); train the language part again."
            ) from error


def calibrate(presence: Sequence[float], there: Sequence[bool], deniable: Iterable[str], target: float = 0.8) -> Bands:
    """Bands whose denials and assertions hold on validation pairs.

    The threshold of the best balanced accuracy parts the two. ``absent`` is the highest threshold up to it below which
    the share of truly absent pairs, at its lower one-sided 90 % Clopper-Pearson bound, is at least ``target``;
    ``present`` the lowest from it on above which the share of truly present pairs is, in the same sense. Where none
    reaches the target, nothing is denied (``absent`` 0), and ``present`` is where the bound is highest.

    Args:
        presence: Predicted probabilities, one an image-concept pair that the truth knows.
        there: Whether the concept is in the image.
        deniable: Concepts that training images were searched for.
        target: Share in (0, 1).
    """
    values, truth = np.asarray(presence, dtype=float), np.asarray(there, dtype=bool)
    steps = np.unique(np.round(values, 4)) if values.size else np.array([])
    parting = _parting(values, truth, steps)
    absent = max((t for t in steps if t <= parting and _bound(~truth[values < t]) >= target), default=0.0)
    bounds = {t: _bound(truth[values >= t]) for t in steps if t >= parting}
    present = min(
        (t for t, bound in bounds.items() if bound >= target), default=max(bounds, key=bounds.__getitem__, default=parting)
    )
    return Bands(
        present=float(present), absent=float(absent), deniable=frozenset(deniable), target=target, pairs=int(values.size),
    )  # fmt: skip


def best_place(places: Sequence[float], hits: Sequence[bool], marked: int) -> float:
    """Threshold of the best F1 of predicted regions against ``marked`` true ones.

    Args:
        places: Certainty of place, one a predicted region.
        hits: Whether it matches a true region of its concept; every true region is matched at most once.
        marked: Number of true regions.
    """
    if not places or not marked:
        return 0.3
    order = np.argsort(places)[::-1]
    found = np.cumsum(np.asarray(hits, dtype=float)[order])
    f1 = 2 * found / (np.arange(1, len(found) + 1) + marked)
    return float(np.clip(np.asarray(places)[order][int(f1.argmax())], 0.05, 0.9))


def _bound(right: np.ndarray) -> float:
    """Lower one-sided 90 % Clopper-Pearson bound of the share of True; 0 for none."""
    hits, total = int(right.sum()), right.size
    return float(betaincinv(hits, total - hits + 1, 0.1)) if hits else 0.0


def _parting(values: np.ndarray, truth: np.ndarray, steps: np.ndarray) -> float:
    """Threshold of the best balanced accuracy; 0.5 where one class is missing."""
    if not truth.any() or truth.all():
        return 0.5
    return float(max(steps, key=lambda t: (values[truth] >= t).mean() + (values[~truth] < t).mean()))
