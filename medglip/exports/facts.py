"""What a dataset's manifest and tables say of its sources: licences, citations, who marked. Knows no export format."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from medglip.store.read import Dataset

# Licences that go by the same id, but for its case, on the SPDX list and on the Hugging Face hub.
_KNOWN_LICENCES = (
    "Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CC-BY-2.0", "CC-BY-2.5", "CC-BY-3.0", "CC-BY-4.0",
    "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC-BY-NC-2.0", "CC-BY-NC-3.0", "CC-BY-NC-4.0", "CC-BY-ND-4.0", "CC-BY-NC-ND-3.0",
    "CC-BY-NC-ND-4.0", "CC-BY-NC-SA-2.0", "CC-BY-NC-SA-3.0", "CC-BY-NC-SA-4.0",
)  # fmt: skip
_BY_KEY = {licence.lower(): licence for licence in _KNOWN_LICENCES}

PROVENANCES = {
    "human": "marked by people",
    "machine": "marked by a model that the source ran",
    "synthetic": "synthetic, exact by construction",
    "predicted": "predicted by a model after the source was published",
}


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """One source of a dataset, as its parts in the manifest describe it; empty where they say nothing.

    Attributes:
        name: Its name.
        title: What it calls itself.
        licences: Licences of its images, each once.
        page: Address of its page.
        citation: How to cite it.
        access: ``open``, ``registration``, ``agreement`` or ``credentialed``.
        lineage: Sources that share images with it.
        images: Number of its images.
        regions: Number of its regions.
        provenances: Who marked its regions: keys of ``PROVENANCES``.
    """

    name: str
    title: str
    licences: tuple[str, ...]
    page: str
    citation: str
    access: str
    lineage: tuple[str, ...]
    images: int
    regions: int
    provenances: tuple[str, ...]


def sources_of(dataset: Dataset) -> list[SourceFacts]:
    """The sources of a dataset that have images in it, by name."""
    parts: dict[str, dict[str, Any]] = {}
    for part in dataset.manifest["parts"].values():
        said = parts.setdefault(str(part.get("source") or ""), {})
        said.update({key: value for key, value in part.items() if value and key not in said})
    images = dataset.query("SELECT dataset, licence, count(*) AS n FROM images GROUP BY ALL ORDER BY ALL")
    regions = dataset.query("SELECT dataset, provenance, count(*) AS n FROM regions GROUP BY ALL ORDER BY ALL")
    found = []
    for name in sorted(images["dataset"].unique()):
        mine, marked = images[images["dataset"] == name], regions[regions["dataset"] == name]
        about = parts.get(name, {})
        found.append(
            SourceFacts(
                name=name,
                title=str(about.get("title") or name),
                licences=tuple(mine["licence"]),
                page=str(about.get("page") or ""),
                citation=str(about.get("citation") or ""),
                access=str(about.get("access") or ""),
                lineage=tuple(about.get("lineage") or ()),
                images=int(mine["n"].sum()),
                regions=int(marked["n"].sum()),
                provenances=tuple(marked["provenance"]),
            )
        )
    return found


def spdx_of(licence: str) -> str | None:
    """The SPDX id that a licence is, or None where it is other words or an id that is not known here.

    >>> spdx_of("cc-by-4.0"), spdx_of("CC BY-SA 4.0"), spdx_of("free for research")
    ('CC-BY-4.0', 'CC-BY-SA-4.0', None)
    """
    return _BY_KEY.get("-".join(licence.lower().split()))


# Creative Commons as tables of images write it, often without the version: "CC BY-NC-SA".
_CREATIVE_COMMONS = re.compile(r"cc-by(-nc)?(-sa)?(-[1-4]\.\d(-[a-z]{2,4})?)?")
_MAY_BE_PASSED_ON = ("cc0-1.0", "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "odc-by-1.0", "odbl-1.0", "pddl-1.0",
                     "cdla-permissive-2.0", "isc", "0bsd", "unlicense")  # fmt: skip
_ASK_NOTHING = ("cc0-1.0", "pddl-1.0", "0bsd", "unlicense")


def terms_of(licence: str) -> tuple[str, ...] | None:
    """What a licence asks of who passes images on in another form; None where it is not known to allow that.

    Not known are words of one's own ("internal", "see page"), terms of challenges, and licences that forbid changed copies
    (``ND``): a dataset is one.

    Returns:
        Of ``non-commercial``, ``share-alike`` and ``credit`` those that it asks.

    >>> terms_of("CC-BY-NC-SA-4.0"), terms_of("CC0-1.0"), terms_of("CC-BY-ND-4.0"), terms_of("internal")
    (('non-commercial', 'share-alike', 'credit'), (), None, None)
    """
    key = "-".join(licence.lower().split())
    if found := _CREATIVE_COMMONS.fullmatch(key):
        return (*(["non-commercial"] if found[1] else []), *(["share-alike"] if found[2] else []), "credit")
    if key not in _MAY_BE_PASSED_ON:
        return None
    return ("share-alike", "credit") if key == "odbl-1.0" else () if key in _ASK_NOTHING else ("credit",)


def marked_by(provenances: Collection[str]) -> str:
    """Who marked, in words: ``marked by people; predicted by a model ...``."""
    return "; ".join(PROVENANCES[name] for name in PROVENANCES if name in provenances) or "no regions"


def each_once(values: Iterable[str]) -> list[str]:
    """The values that are not empty, each once, in their order."""
    return list(dict.fromkeys(value for value in values if value))
