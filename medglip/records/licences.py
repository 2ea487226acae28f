"""Which licences of images allow that weights trained on them are passed on. Knows no source and no file.

Strict: only CC BY, CC0, MIT, BSD and Apache pass, named plainly. Whether weights are an adaptation of the images they were
trained on is not settled, so a licence that forbids changed copies (ND) or binds them to its own terms (SA) does not pass,
nor one that forbids commercial use (NC), terms in words of one's own, or a licence that nobody has checked ("from memory").
"""

import re
from functools import lru_cache
from typing import NamedTuple

# What makes a text fail, whatever else it says, and why; the first that is found is the reason.
_AGAINST = (
    (r"\bnc\b|\bnon ?commercial", "forbids commercial use"),
    (r"\bnd\b|\bno ?derivatives", "forbids changed copies"),
    (r"\bsa\b|\bshare ?alike", "binds changed copies to its own terms, and whether weights are one is not settled"),
    (r"\bfrom memory\b|\bnot stated\b|\bnot checked\b", "nobody has checked it with the publisher"),
    (r"\b(?:every|each|per|by) image\b|\bits own terms\b", "differs from image to image"),
    (r"\b(?:terms|rules|agreement|credentialed|restricted|competition|challenge)\b", "has terms of its own"),
    (r"\b(?:research|education\w*|academic)\b", "is for some uses only"),
    (r"\bnot to be passed on\b|\bredistribution\b", "does not say that copies may be passed on"),
    (r"\bsee\b|\bothers say\b|\bread them\b", "is told elsewhere"),
)  # of texts in lower case, their hyphens as spaces
# The licences that pass, as SPDX writes them and as tables of images do.
_OPEN = re.compile(
    r"\bcc[- ]?by(?:[- ]?[1-4]\.\d)?(?![\w.])|\bcc[- ]?(?:0|zero)(?:[- ]1\.0)?(?![\w.])"
    r"|\bmit(?:-0)?(?![\w-])|\b(?:0bsd|bsd[- ][23][- ]clause)(?![\w-])|\bapache(?: license)?,?[- ](?:version )?2\.0(?![\w.])",
    re.IGNORECASE,
)
# Words that may stand beside a licence's name: what it is the licence of, and where that is said.
_PLAIN = frozenset(
    ("the", "of", "for", "on", "in", "as", "at", "a", "data", "page", "article", "repository", "images", "masks", "boxes",
     "polygons", "licence", "license")
)  # fmt: skip
_NOT_ONE = "is not one of CC BY, CC0, MIT, BSD and Apache-2.0, or says more than these names"


class Verdict(NamedTuple):
    """Whether weights that were trained on images of a licence may be passed on, and why (not)."""

    allowed: bool
    reason: str


def allows_derived_weights(licence: str) -> bool:
    """Whether weights trained on images of this licence may be passed on; unknown licences do not allow it.

    >>> [allows_derived_weights(text) for text in ("CC-BY-4.0", "MIT", "CC-BY-NC-4.0", "CC-BY-SA-4.0", "internal")]
    [True, True, False, False, False]
    """
    return verdict_on(licence).allowed


@lru_cache(maxsize=4096)
def verdict_on(licence: str) -> Verdict:
    """The same with its reason, a clause whose subject is the licence.

    Args:
        licence: SPDX id, or the words of a source; several, split by ``;``, ``,``, ``or`` or ``and``, must all pass.

    >>> verdict_on("CC0-1.0 or CC-BY-NC-4.0, image by image")
    Verdict(allowed=False, reason='forbids commercial use')
    """
    text = " ".join(licence.split()).lower()
    for pattern, reason in _AGAINST:
        if re.search(pattern, text.replace("-", " ")):
            return Verdict(False, reason)
    said = re.sub(r"\([^()]*\)", " ", text)  # who says so: checked above, and no licence of its own
    clauses = [clause for clause in re.split(r"[;,]|\bor\b|\band\b", said) if clause.strip()]
    if clauses and all(_is_open(clause) for clause in clauses):
        return Verdict(True, "asks for credit at most")
    return Verdict(False, _NOT_ONE)


def _is_open(clause: str) -> bool:
    """Whether a clause is the name of one open licence, and plain words beside it."""
    rest, count = _OPEN.subn(" ", clause)
    return count == 1 and set(re.findall(r"[^\s:.]+", rest)) <= _PLAIN
