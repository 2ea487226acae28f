"""What a source is, in words for a curator: layout, licence, labels, traps. Reads no data."""

from typing import Any

from medglip.curate.source import Source
from medglip.records import label_tree


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
