"""Checks a dataset: files, tables, records, masks, labels, splits, privacy and pixels. Changes nothing.

Each check is a function that yields problems; here they are called, in an order that lets each rely on those before it.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from medglip.errors import DatasetError, InputError, RecordError
from medglip.records.labels import label_tree
from medglip.shelf import shelf
from medglip.store.checks.dataset_checks import (
    check_counts,
    check_expected,
    check_files,
    check_ids,
    check_images,
    check_labels,
    check_pixels,
    check_rejects,
    check_tables,
    check_texts,
    check_volumes,
)
from medglip.store.checks.image_table import read_images
from medglip.store.checks.names import check_names, check_shards
from medglip.store.checks.problems import LISTED, Problem, Problems, capped
from medglip.store.checks.region_checks import Used, check_regions
from medglip.store.checks.split_checks import check_splits, check_twins
from medglip.store.manifest import read_manifest
from medglip.store.place import Place
from medglip.store.read import Dataset
from medglip.store.schema import Document

_BROKEN = (DatasetError, InputError, RecordError, OSError, ValueError, TypeError, pa.ArrowException, duckdb.Error)


def validate(
    path: str | Path | Place,
    *,
    check_pixels: bool = True,
    documents: bool = False,
    listed: int = LISTED,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Problem]:
    """What is wrong with a dataset; an empty list, or one of notes only, means that it is clean.

    Args:
        path: Folder or fsspec URL of the dataset.
        check_pixels: Also hash every shard, decode every PNG and compare it with its hash, which takes most of the time;
            without, a shard need only be there and be as long as it was.
        documents: Also put every record together and hold it against the published schema, one by one. The tables are
            held against the same rules column by column in any case.
        listed: Problems of a kind to list; the rest are counted.
        on_progress: Called with the number of PNGs checked and their total.

    Returns:
        The problems, at most ``listed`` of a kind and one that counts the rest.
    """
    place = Place(path)
    try:
        manifest = read_manifest(place)
    except DatasetError as error:
        return [Problem("error", f"{place.name}/manifest.json", str(error), "files")]
    except (KeyError, TypeError, AttributeError) as error:
        what = f"It is not what medglip writes ({error!r}); restore it, or convert again."
        return [Problem("error", f"{place.name}/manifest.json", what, "files")]
    files = capped(_safely(check_files(place, manifest, read_shards=check_pixels), "files", place), listed)
    tables = capped(_safely(check_tables(place, manifest), "tables", place), listed)
    if any(problem.where.endswith(".parquet") for problem in files + tables):
        return files + tables  # what a changed or broken table says is worth nothing
    dataset = Dataset(place)
    return files + tables + capped(_meaning(dataset, check_pixels, documents, on_progress), listed)


def _meaning(dataset: Dataset, with_pixels: bool, documents: bool, on_progress: Callable[[int, int], None] | None) -> Problems:
    """The checks of what the tables say."""
    try:
        images = read_images(dataset)
    except _BROKEN as error:
        yield Problem("error", "images", f"The table cannot be read: {error}", "tables")
        return
    used, texts = Used(np.zeros(len(images), np.int64)), np.zeros(len(images), np.int64)
    steps: list[tuple[str, Iterable[Problem]]] = [
        ("ids", check_ids(dataset)),
        ("schema", check_images(dataset)),
        ("schema", check_regions(dataset, images, used)),
        ("texts", check_texts(dataset, images, texts)),
        ("volumes", check_volumes(dataset)),
        ("ids", check_counts(images, {"regions": used.regions, "texts": texts})),
        ("labels", check_labels(dataset, images, used, label_tree())),
        ("splits", check_splits(dataset)),
        ("twins", check_twins(dataset, look=with_pixels)),
        ("privacy", check_rejects(dataset)),
        ("privacy", check_names(dataset)),
        ("expected", check_expected(dataset)),
    ]
    if documents:
        steps.append(("schema", check_documents(dataset)))
    if with_pixels:
        steps.append(("privacy", check_shards(dataset.place, dataset.manifest)))
        steps.append(("pixels", _pixels(dataset, on_progress)))
    for check, problems in steps:
        yield from _safely(problems, check, dataset.place)


def _pixels(dataset: Dataset, on_progress: Callable[[int, int], None] | None) -> Problems:
    return check_pixels(dataset, on_progress)


def _safely(problems: Iterable[Problem], check: str, place: Place) -> Problems:
    """The problems, and one more where the check cannot go on because the dataset is broken."""
    try:
        yield from problems
    except _BROKEN as error:
        yield Problem("error", place.name, f"It cannot be checked further: {error}", check)


def check_documents(dataset: Dataset) -> Problems:
    """Every record, put together as a document, against the published schema."""
    import jsonschema_rs

    schema = json.loads((shelf("schemas") / "record.schema.json").read_text("utf-8"))
    image = jsonschema_rs.validator_for(schema)
    volume = jsonschema_rs.validator_for({**schema, "$ref": "#/$defs/volume"})
    both: list[tuple[jsonschema_rs.Validator, Iterator[Document], str]] = [
        (image, dataset.documents(), "record"),
        (volume, dataset.volume_documents(), "volume"),
    ]
    for checker, documents, name in both:
        for document in documents:
            if not checker.is_valid(document):
                for error in checker.iter_errors(document):
                    place = "/".join(map(str, error.instance_path)) or "the whole"
                    shown = document["id"] if name == "record" else ""
                    yield Problem("error", f"{name} {document['id']}", f"{place}: {error.message}.", "schema", shown)
