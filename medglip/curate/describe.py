"""What a source is, in words for a curator: layout, licence, labels, traps. Reads no data."""

from collections.abc import Sequence
from typing import Any

from medglip.curate.source import Source
from medglip.errors import InputError
from medglip.records import MODALITIES, label_tree


def source_facts(source: Source) -> dict[str, Any]:
    """Facts of a source as plain values, in reading order."""
    tree = label_tree()
    return {
        "name": source.name,
        "title": source.title,
        "modalities": ", ".join(source.modalities),
        "licence": source.licence,
        "access": source.access,
        "annotation": source.annotation,
        "page": source.page,
        "citation": source.citation,
        "layout": [
            f"{part.name} ({part.converter}, {part.modality}): {role} = {pattern}"
            for part in source.parts
            for role, pattern in part.files.items()
        ],
        "labels": [
            f"{raw} -> {tree.concept_name(named.concept) if named else 'left out'}"
            for part in source.parts
            for raw, named in part.labels.items()
        ]
        + [f"{' + '.join(one.raw)} -> {tree.concept_name(one.named.concept)}" for part in source.parts for one in part.derived],
        "marked wherever they are": sorted({tree.concept_name(c) for part in source.parts for c in part.exhaustive}),
        "images show": [
            f"{part.name} ({part.modality}): {', '.join(tree[label].name for label in part.field)}"
            for part in source.parts
            if part.field
        ],
        "traps": list(source.known_defects),
        "shares images with": list(source.lineage),
        "expected": [f"{count} {what}" for what, count in source.expected.items()],
    }


def facts_found(facts: Sequence[dict[str, Any]], modality: str | None = None, word: str | None = None) -> list[dict[str, Any]]:
    """Those of some sources that have images of a modality, and a word in name, title or labels.

    Args:
        facts: As ``source_facts`` gives them.
        modality: One of ``medglip.records.MODALITIES``; None: any.
        word: Upper and lower case alike; None: any.

    Raises:
        InputError: the modality is not known.
    """
    if modality is not None and modality not in MODALITIES:
        raise InputError(f"Modality: found {modality!r}; allowed: {', '.join(MODALITIES)}.")
    wanted = (word or "").casefold()
    return [
        fact for fact in facts
        if (modality is None or modality in fact["modalities"].split(", "))
        and any(wanted in text.casefold() for text in (fact["name"], fact["title"], *fact["labels"]))
    ]  # fmt: skip
