"""A dataset as one HTML page: counts by source and label, rejects, and pictures with their regions. Needs no network.

The page lies in the dataset as ``report.html``, its pictures, and pages of large sources, in ``report_files/``.
"""

import io
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from medglip.errors import DatasetError
from medglip.records.labels import LabelTree, label_tree
from medglip.records.record import SPLITS, ImageRecord
from medglip.store.checks.dataset_checks import expected_counts
from medglip.store.checks.image_table import rows_of
from medglip.store.pages.charts import heat_maps, histograms
from medglip.store.pages.overlays import Overlay, name_of, overlay
from medglip.store.pages.statistics import statistics
from medglip.store.read import Dataset

# Pictures of a source at most, and of each of its labels.
PER_SOURCE, PER_LABEL = 12, 2
# Pictures that fit on one page; of more, each source shows its first and has a page of its own.
ON_ONE_PAGE, FIRST_OF_A_SOURCE = 150, 4
_LISTED_ABSENT, _LISTED_ASKED, _PAIRS = 6, 4, 12
_ONE = {
    "images": "image", "regions": "region", "labels": "label", "sources": "source", "modalities": "modality",
    "volumes": "volume", "texts": "text", "rejected items": "rejected item",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Card:
    """One picture of the page with what is said beside it."""

    file: str
    overlay: Overlay
    caption: str
    facts: tuple[str, ...]
    absent: tuple[str, ...]
    more_absent: int
    asked: tuple[tuple[str, str], ...]
    more_asked: int


def preview(dataset: Dataset | str | Path, *, per_label: int = PER_LABEL, per_source: int = PER_SOURCE) -> Path:
    """Write the page of a dataset.

    Args:
        dataset: The dataset, or its folder.
        per_label: Pictures that show a label of a source, where there are as many.
        per_source: Pictures of a source and modality at most.

    Returns:
        Path of the page.

    Raises:
        DatasetError: the dataset cannot be read, or its folder not be written.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    dataset = dataset if isinstance(dataset, Dataset) else Dataset(dataset)
    tables, tree = statistics(dataset), label_tree()
    folder = dataset.path / "report_files"
    environment = Environment(
        loader=PackageLoader("medglip", "store/pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    try:
        folder.mkdir(exist_ok=True)
        chosen = chosen_images(dataset, per_label, per_source)
        here = per_source if sum(map(len, chosen.values())) <= ON_ONE_PAGE else FIRST_OF_A_SOURCE
        groups, used = [], set()
        facts = _facts(dataset, tables, tree)
        for (source, modality), images in chosen.items():
            cards = [_card(dataset, image, tree, folder) for image in images]
            page = f"{source}-{modality}.html" if len(cards) > here else ""
            if page:
                shared = {"title": facts["title"], "source": facts["titles"][source], "modality": modality}
                text = environment.get_template("preview_page.html").render(shared, cards=cards)
                (folder / page).write_text(text, "utf-8")
            groups.append((source, modality, cards[:here], page, max(0, len(cards) - here)))
            used.update({page, *(card.file for card in cards)})
        for old in folder.iterdir():
            if old.name not in used:
                old.unlink()
        path = dataset.path / "report.html"
        path.write_text(environment.get_template("preview.html").render(facts, groups=groups), "utf-8")
    except OSError as error:
        raise DatasetError(
            f"Dataset {str(dataset.path)!r}: its page cannot be written ({error.strerror}); free space or copy the"
            " dataset to where you may write."
        ) from error
    return path


def chosen_images(dataset: Dataset, per_label: int, per_source: int) -> dict[tuple[str, str], list[str]]:
    """Images to look at: for each source and modality a few that together show every label, and one without regions.

    Where no image has a region, a few of them.

    Which ones depends on the images' ids only, which are hashes, so that the choice is the same each time and shows neither
    the best nor the first. One pass over the regions finds, for each label of each source, those with the lowest and the
    highest ids; nothing is sorted.

    Returns:
        Ids by (source, modality), in the order of the dataset's names.
    """
    # an image with many regions of a concept comes as often, so more are asked for than are shown
    asked = 8 * per_label
    candidates = dataset.query(
        f"""
        SELECT dataset, modality, concept, min(image_id, {asked}) AS low, max(image_id, {asked}) AS high
        FROM regions GROUP BY dataset, modality, concept
        UNION ALL SELECT dataset, modality, '', min(id, {asked}), [min(id)] FROM images
        WHERE n_regions = 0 GROUP BY dataset, modality
        ORDER BY dataset, modality, concept
        """
    )
    chosen: dict[tuple[str, str], list[str]] = {}
    for (source, modality), rows in candidates.groupby(["dataset", "modality"]):
        shows: dict[str, set[str]] = {}
        for row in rows_of(rows):
            for image in dict.fromkeys([*row.low, *row.high]):
                shows.setdefault(image, set()).add(row.concept)
        chosen[str(source), str(modality)] = _covering(shows, per_label, per_source)
    return chosen


def _covering(shows: dict[str, set[str]], per_label: int, at_most: int) -> list[str]:
    """Images that show every concept ``per_label`` times, if there are as many; those that show most go first."""
    left = {concept: 1 if concept == "" else per_label for concepts in shows.values() for concept in concepts}
    if not any(left):
        return sorted(shows)[:at_most]
    images: list[str] = []
    while len(images) < min(at_most, len(shows)):
        gain = {image: sum(left[c] > 0 for c in shows[image]) for image in shows if image not in images}
        best = max(gain, key=lambda image: gain[image])
        if not gain[best]:
            break
        images.append(best)
        for concept in shows[best]:
            left[concept] -= 1
    return images


def _card(dataset: Dataset, image: str, tree: LabelTree, folder: Path) -> Card:
    record = dataset.record(image)
    drawn = overlay(record, dataset.display(image), tree)
    file = folder / f"{image}.jpg"
    file.write_bytes(_jpeg(drawn.picture))
    absent = [name_of(concept, tree) for concept in record.absent]
    asked = [(text.text, text.answer) for text in record.texts if text.kind == "question"]
    return Card(
        file.name, drawn, record.origin.file, _said_of(record), tuple(absent[:_LISTED_ABSENT]),
        max(0, len(absent) - _LISTED_ABSENT), tuple(asked[:_LISTED_ASKED]), max(0, len(asked) - _LISTED_ASKED),
    )  # fmt: skip


def _jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def _said_of(record: ImageRecord) -> tuple[str, ...]:
    origin, spacing = record.origin, record.spacing_mm
    facts = [f"{record.width} × {record.height} px, {record.bits} bit", record.split]
    if spacing:
        facts.insert(1, f"{spacing[1]:.3g} × {spacing[0]:.3g} mm/px")
    if origin.slice is not None:
        facts.append(f"slice {origin.axis} = {origin.slice}")
    if origin.frame is not None:
        facts.append(f"frame {origin.frame}")
    return (*facts, *(f"{name} {value}" for name, value in record.modality_detail.items() if value))


def _facts(dataset: Dataset, tables: dict[str, pd.DataFrame], tree: LabelTree) -> dict[str, Any]:
    """What the template shows."""
    counts = dataset.manifest["counts"]
    sources = tables["sources"].to_dict("records")
    expected = expected_counts(dataset.manifest)
    for source in sources:
        source["note"] = _copy_note(*expected.get(source["source"], ({}, {})))
        source["rejects_by_reason"] = tables["rejects"].query("dataset == @source['source']").to_dict("records")
    labels = tables["labels"]
    tiles = [
        ("images", len(dataset)),
        ("regions", counts.get("regions", 0)),
        ("labels", int((labels["regions"] > 0).sum())),
        ("sources", len(sources)),
        ("modalities", len(tables["modalities"])),
        ("volumes", counts.get("volumes", 0)),
        ("texts", counts.get("texts", 0)),
        ("rejected items", counts.get("rejects", 0)),
    ]
    spacings = tables["spacings"].merge(tables["empty"][["dataset", "modality", "share"]])
    told = (spacings["known"] > 0) | (spacings["share"] > 0)
    return {
        "title": dataset.path.resolve().name,
        "version": _version(),
        "tiles": [(name if number != 1 else _ONE[name], number) for name, number in tiles if number],
        "sources": sources,
        "modalities": tables["modalities"].to_dict("records"),
        "splits": sorted(tables["splits"].to_dict("records"), key=lambda row: SPLITS.index(row["split"])),
        "split_names": [split for split in SPLITS if tables["sources"][split].sum()],
        "labels": _without_nan(labels),
        "most_regions": max(1, int(labels["regions"].max() if len(labels) else 1)),
        "titles": {source["source"]: source["title"] or source["source"] for source in sources},
        "histograms": histograms(tables["box_sizes"]),
        "maps": heat_maps(tables["positions"], tree),
        "pairs": [
            {**pair, "label": name_of(pair["label"], tree), "other": name_of(pair["other"], tree)}
            for pair in tables["pairs"].head(_PAIRS).to_dict("records")
        ],
        "spacings": _without_nan(spacings[told]),
        "without_spacing": int((~told).sum()),
    }


def _copy_note(expected: dict[str, int], found: dict[str, int]) -> str:
    """Whether the dataset holds the whole of a published source."""
    for name, number in expected.items():
        if name in found and found[name] != number:
            how = "partial copy" if found[name] < number else "more than published"
            return f"{how}: {found[name]:,} of {number:,} {name}"
    return ""


def _without_nan(table: pd.DataFrame) -> list[Any]:
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _version() -> str:
    try:
        return version("medglip")
    except PackageNotFoundError:
        return ""
