"""The quality report of a dataset's conversions: what came in, what went out, what was refused and why, what to know.

``quality.html`` is written beside the tables by every conversion. Draws no images and checks nothing: ``preview`` and
``validate`` do.
"""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from medglip.errors import DatasetError
from medglip.records.labels import label_tree
from medglip.records.reasons import FLAGS, meaning_of_reason
from medglip.store.checks.dataset_checks import expected_counts
from medglip.store.read import Dataset

NAME = "quality.html"
_EXAMPLES = 3
_SPDX = re.compile(r"(CC0|CC-BY|CC BY|MIT|Apache|BSD)[\w .-]*")


def quality(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Facts of each source's conversion, as JSON values, by source.

    Returns:
        For each source: ``title``, ``licence``, ``open_licence``, ``access``, ``page``; ``cases`` (in the dataset, of which
        ``without_images``); ``images``, ``regions``, ``texts``, ``volumes``, ``patients``; ``splits``; ``modalities``;
        ``rejects`` (code -> number, meaning, examples); ``flags`` (of images and of regions: flag -> number, meaning);
        ``expected`` (what -> published and found); ``labels`` (regions by label) and ``unseen`` (labels that were searched
        for in every image and never found).
    """
    tables = {name: _by_source(dataset.query(sql)) for name, sql in _QUERIES.items()}
    expected = expected_counts(dataset.manifest)
    found: dict[str, dict[str, Any]] = {}
    for name, part in dataset.manifest["parts"].items():
        source = part.get("source", name)
        facts = found.setdefault(source, {
            "title": part.get("title", ""), "licence": part.get("licence", ""), "page": part.get("page", ""),
            "access": part.get("access", ""), "open_licence": bool(_SPDX.match(part.get("licence", ""))),
            "cases": 0, "without_images": 0,
        })  # fmt: skip
        cases = dataset.cases(name)
        facts["cases"] += len(cases)
        facts["without_images"] += sum(1 for _, images in cases.values() if not images)
    for source, facts in found.items():
        facts |= {key: int(value) for key, value in _first(tables["totals"], source, _TOTALS).items()}
        for name in ("splits", "modalities"):
            facts[name] = dict(_pairs(tables[name], source))
        facts["rejects"] = {
            row.reason: {"number": int(row.n), "meaning": meaning_of_reason(row.reason), "examples": list(row.examples)}
            for row in _rows(tables["rejects"], source)
        }
        facts["flags"] = {
            kind: {flag: {"number": n, "meaning": FLAGS.get(flag, "")} for flag, n in _pairs(tables[f"{kind}_flags"], source)}
            for kind in ("image", "region")
        }
        published, there = expected.get(source, ({}, Counter()))
        facts["expected"] = {what: {"published": number, "found": int(there[what])} for what, number in published.items()}
        facts["labels"] = dict(_pairs(tables["labels"], source))
        facts["unseen"] = sorted(
            {concept for concept, _ in _pairs(tables["searched"], source)} - set(dict(_pairs(tables["concepts"], source)))
        )
    return dict(sorted(found.items()))


_TOTALS = ("images", "regions", "texts", "volumes", "patients")
_QUERIES = {
    "totals": """
        SELECT dataset, images, regions, texts, coalesce(volumes, 0) AS volumes, patients FROM (
            SELECT dataset, count(*) AS images, sum(n_regions)::BIGINT AS regions, sum(n_texts)::BIGINT AS texts,
                count(DISTINCT patient) AS patients FROM images GROUP BY dataset
        ) LEFT JOIN (SELECT dataset, count(*) AS volumes FROM volumes GROUP BY dataset) USING (dataset)""",
    "splits": "SELECT dataset, split AS key, count(*) AS n FROM images GROUP BY ALL ORDER BY 1, 2",
    "modalities": "SELECT dataset, modality AS key, count(*) AS n FROM images GROUP BY ALL ORDER BY 1, 3 DESC",
    "rejects": f"""
        SELECT dataset, reason, count(*) AS n, list(file || ': ' || detail ORDER BY file, detail)[:{_EXAMPLES}] AS examples
        FROM rejects GROUP BY ALL ORDER BY 1, 3 DESC, 2""",
    "image_flags": """
        SELECT dataset, flag AS key, count(*) AS n FROM (SELECT dataset, unnest(flags) AS flag FROM images)
        GROUP BY ALL ORDER BY 1, 3 DESC, 2""",
    "region_flags": """
        SELECT dataset, flag AS key, count(*) AS n FROM (SELECT dataset, unnest(flags) AS flag FROM regions)
        GROUP BY ALL ORDER BY 1, 3 DESC, 2""",
    "labels": "SELECT dataset, label AS key, count(*) AS n FROM regions GROUP BY ALL ORDER BY 1, 3 DESC, 2",
    "concepts": "SELECT dataset, concept AS key, count(*) AS n FROM regions GROUP BY ALL",
    "searched": """
        SELECT dataset, concept AS key, sum(n)::BIGINT AS n FROM (
            SELECT dataset, unnest(exhaustive) AS concept, n FROM (
                SELECT dataset, exhaustive, count(*) AS n FROM images GROUP BY ALL)) GROUP BY ALL""",
}


def write_quality(dataset: Dataset) -> Path:
    """Write ``quality.html`` in a dataset's folder; equal datasets give equal bytes.

    Raises:
        DatasetError: the dataset lies behind a URL, or its folder cannot be written.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("medglip", "store/pages"), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    tree = label_tree()
    page = dataset.path / NAME
    text = environment.get_template("quality.html").render(
        sources=quality(dataset), name=lambda concept: tree.concept_name(concept)
    )
    try:
        page.write_text(text, "utf-8")
    except OSError as error:
        raise DatasetError(f"{str(page)!r} cannot be written ({error.strerror}); free space and run again.") from error
    return page


def _by_source(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {str(source): rows for source, rows in table.groupby("dataset", sort=False)}


def _rows(tables: dict[str, pd.DataFrame], source: str) -> list[Any]:
    return list(tables[source].itertuples(index=False)) if source in tables else []


def _pairs(tables: dict[str, pd.DataFrame], source: str) -> list[tuple[str, int]]:
    return [(row.key, int(row.n)) for row in _rows(tables, source)]


def _first(tables: dict[str, pd.DataFrame], source: str, names: tuple[str, ...]) -> dict[str, int]:
    rows = _rows(tables, source)
    return {name: getattr(rows[0], name) if rows else 0 for name in names}
