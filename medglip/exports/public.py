"""Whether images may be given to everybody, and what must be said with them. Writes nothing, looks at no pixels.

Refused are: licences that are not known to allow it, sources that are given out under an agreement, private sources whose
ids anybody can try, names of patients that the check on privacy finds, and images that carry a risk. All reasons are said
at once, with their numbers.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from medglip.errors import InputError
from medglip.exports.chosen import Choice
from medglip.exports.facts import terms_of
from medglip.store.checks.names import EVERYBODY, named_patients, private_sources
from medglip.store.checks.problems import errors
from medglip.store.read import Dataset

# Flags of images that may show a patient.
RISKS = ("burned_in_risk", "face_risk")
_MEANING = {"burned_in_risk": "text may be burned into the pixels", "face_risk": "a face can be made from the slices of a head"}
# How a source is given out, where its images are not ours to give on.
_CLOSED = ("agreement", "credentialed")
_SHOWN = 3


def _say_nothing(notice: str) -> None:
    """Of a program that reads the notices in LICENCES.txt."""


@dataclass(frozen=True)
class Public:
    """An export that is to be given to everybody.

    Attributes:
        keep_flagged: Somebody has looked at the images with a risk and found nothing.
        say: Called with each notice; they stand in LICENCES.txt too.
    """

    keep_flagged: bool = False
    say: Callable[[str], None] = _say_nothing


def public_notices(dataset: Dataset, choice: Choice, *, keep_flagged: bool = False) -> list[str]:
    """What must be said with the images when they are given to everybody; one sentence each.

    Args:
        dataset: The dataset.
        choice: Which of its images.
        keep_flagged: Somebody has looked at the images with a risk and found nothing.

    Raises:
        InputError: they must not be given to everybody; the sentence has all reasons with their numbers.
    """
    images = choice.images(dataset)
    reasons = [*_of_licences(images), *_of_sources(dataset, set(images["dataset"])), *_of_names(dataset)]
    risks = Counter(flag for flags in images["flags"] for flag in flags if flag in RISKS)
    if not keep_flagged:
        reasons += [
            f"{number} images have the flag {flag} ({_MEANING[flag]}); look at them and say `--flagged keep`, or leave them"
            " out by `--flagged leave-out`"
            for flag, number in sorted(risks.items())
        ]
    if reasons:
        listed = "; ".join(f"({number}) {reason}" for number, reason in enumerate(reasons, 1))
        raise InputError(f"Export --public of {dataset!r} is refused: {listed}.")
    return [*_terms(images), *_kept(risks), *_left_out(dataset, choice)]


def _of_licences(images: pd.DataFrame) -> list[str]:
    unknown = Counter(
        (source, licence)
        for source, licence in zip(images["dataset"], images["licence"], strict=True)
        if terms_of(licence) is None
    )
    shown = [
        f"{number} images of {source!r} have the licence {licence!r}, which is not known to allow passing on changed copies"
        for (source, licence), number in sorted(unknown.items())[:_SHOWN]
    ]
    more = [f"{len(unknown) - _SHOWN} more such licences"] if len(unknown) > _SHOWN else []
    advice = "read the terms and, if they allow it, write their SPDX id into the source's TOML and convert again"
    return [f"{', '.join([*shown, *more])}: {advice}"] if unknown else []


def _of_sources(dataset: Dataset, chosen: set[str]) -> list[str]:
    private, said = private_sources(dataset.manifest), []
    facts: dict[str, list[str]] = {}
    for part in dataset.manifest["parts"].values():
        source = str(part.get("source"))
        if source in chosen and part.get("access") in _CLOSED:
            facts.setdefault(source, []).append(str(part["access"]))
        if source in chosen & private and part.get("key_check") == EVERYBODY:
            said.append(f"{source!r} is private and was hashed under the key that everybody knows: convert it with a key")
    given = {"agreement": "under an agreement", "credentialed": "to credentialed people"}
    closed = [
        f"{source!r} is given out {given[access[0]]} only: leave it out, others ask for it where you did"
        for source, access in sorted(facts.items())
    ]
    return [*closed, *dict.fromkeys(said)]


def _of_names(dataset: Dataset) -> list[str]:
    if not (found := errors(named_patients(dataset))):
        return []
    return [f"the check on privacy finds {found} places that may name a patient: see `medglip validate`"]


def _terms(images: pd.DataFrame) -> list[str]:
    asked: Counter = Counter()
    for licence, number in Counter(images["licence"]).items():
        asked.update(dict.fromkeys(terms_of(licence) or (), number))
    said = {
        "non-commercial": "may be used for non-commercial purposes only",
        "share-alike": "may be passed on under the same licence only",
        "credit": "must be passed on with their licence and the credit that LICENCES.txt gives",
    }
    return [f"Notice: {asked[term]} of {len(images)} images {words}." for term, words in said.items() if asked[term]]


def _kept(risks: Counter) -> list[str]:
    return [
        f"Notice: {number} images with the flag {flag} ({_MEANING[flag]}) are in it, because whoever exported them said that"
        " somebody has looked at them."
        for flag, number in sorted(risks.items())
    ]


def _left_out(dataset: Dataset, choice: Choice) -> list[str]:
    if not choice.without_flags:
        return []
    before = len(Choice(choice.split).images(dataset))
    return [f"Notice: {before - choice.number(dataset)} images with the flags {', '.join(choice.without_flags)} were left out."]
