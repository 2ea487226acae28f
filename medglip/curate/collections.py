"""Collections (``datasets/collections/*.toml``): sources that are trained and tested on together, and what is held out.

Knows no model. ``training_view`` is what may be trained on, ``evaluation_view`` what is tested on, and ``zero_shot_view`` the
part of it that training was not allowed to see.
"""

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from medglip.curate.engine import Conversion, convert
from medglip.curate.grammar import load_source, source_names
from medglip.curate.source import Source
from medglip.curate.views import HeldOut, View, Viewed
from medglip.errors import InputError, SourceError
from medglip.records.labels import label_tree
from medglip.records.licences import Verdict, allows_derived_weights, verdict_on
from medglip.records.record import ImageRecord
from medglip.shelf import shelf
from medglip.store.groups.divided import Divided
from medglip.store.groups.splits import apply, assign_splits
from medglip.store.read import Dataset, open_dataset

OnSource = Callable[[str, Conversion], None]
_FOLDER = "collections"
_RULES = ("hash", "rank")


@dataclass(frozen=True)
class Collection:
    """Sources that are trained and tested on together.

    Attributes:
        name: Name of the file.
        title: In words.
        sources: Trained on (their patients in ``train``) and tested on.
        held_out_sources: Only tested on.
        held_out_labels: Ids of labels that training never sees.
        redistributable: Only images whose licence lets weights be passed on.
        rule: ``hash``: the dataset's own splits; ``rank``: the first share of each source's patients is tested on.
        test: Share of the patients, with the rule ``rank``.
        val: Share of the patients, with the rule ``rank``.
    """

    name: str
    title: str
    sources: tuple[str, ...]
    held_out_sources: tuple[str, ...] = ()
    held_out_labels: tuple[str, ...] = ()
    redistributable: bool = False
    rule: str = "hash"
    test: float = 0.25
    val: float = 0.1

    @property
    def all_sources(self) -> tuple[str, ...]:
        """Trained on or held out."""
        return self.sources + self.held_out_sources


def collection_names() -> tuple[str, ...]:
    """Names of the collections that medglip knows, sorted."""
    return tuple(sorted(path.stem for path in (shelf("datasets") / _FOLDER).glob("*.toml")))


def load_collection(name: str | Path) -> Collection:
    """The collection of that name (``-`` means ``_``), or described by the TOML at that path.

    Raises:
        SourceError: there is none, its TOML does not fit ``schemas/collection.schema.json``, a source or label is unknown or
            named twice, or a source's licence does not let weights be passed on where that is asked.
    """
    path = Path(name)
    if path.suffix != ".toml":
        path = shelf("datasets") / _FOLDER / f"{str(name).replace('-', '_')}.toml"
        if not path.is_file():
            raise SourceError(f"There is no collection {str(name)!r}; known: {', '.join(collection_names())}.")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceError(f"The collection {str(path)!r} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SourceError(f"The collection {str(path)!r} is not well-formed TOML: {error}.") from error
    try:
        wrong = next(_checker().iter_errors(data), None)
    except ValueError as error:  # a TOML date has no place in JSON
        raise SourceError(f"{path.name}: {error}; see schemas/collection.schema.json.") from error
    if wrong is not None:
        at = " ".join(str(step) for step in wrong.instance_path) or "the file"
        raise SourceError(f"{path.name}: {at}: {wrong.message}; see schemas/collection.schema.json.")
    flat = {**data, **data.pop("split")}
    flat = {key: tuple(value) if isinstance(value, list) else value for key, value in flat.items() if key != "split"}
    collection = Collection(**flat)
    _check(collection, path.name)
    return collection


def source_verdict(source: Source) -> Verdict:
    """Whether weights trained on a source may be passed on: its licence, and what its description says of that licence.

    A source whose images have licences of their own passes; of these, images that do not are left out one by one.
    """
    if source.access in ("agreement", "credentialed"):
        return Verdict(False, "is given out under an agreement")
    if any("not checked with the publisher" in defect and "the licence" in defect for defect in source.known_defects):
        return Verdict(False, "nobody has checked it with the publisher")
    if all(part.option("licence") for part in source.parts):
        return Verdict(True, "differs from image to image; only images that pass are taken")
    return verdict_on(source.licence)


def convert_collection(
    name: str | Collection, root: Path, out: Path, *, workers: int = 1, on_source: OnSource | None = None
) -> dict[str, Conversion]:
    """Convert each source of a collection whose folder is there into one dataset; a second run goes on.

    Then the dataset is divided as ``medglip split`` does, so that images that sources share are in one split.

    Args:
        name: Of the collection, or the collection.
        root: Holds a folder a source, named after it with hyphens: ``us-busi`` for ``us_busi``.
        out: The dataset; made if it is not there.
        workers: Processes.
        on_source: Called with the name of a source and the counts so far, after each case.

    Returns:
        What was done, by source.

    Raises:
        InputError: no folder of the collection's sources is there.
    """
    collection = load_collection(name) if isinstance(name, str) else name
    found = {source: root / source.replace("_", "-") for source in collection.all_sources}
    found = {source: folder for source, folder in found.items() if folder.is_dir()}
    if not found:
        raise InputError(
            f"Folder {str(root)!r} holds no source of {collection.name!r}; wanted: folders named after them, such as "
            f"{collection.sources[-1].replace('_', '-')!r}."
        )
    done: dict[str, Conversion] = {}
    for source, folder in found.items():

        def step(counts: Conversion, source: str = source) -> None:
            if on_source:
                on_source(source, counts)

        done[source] = convert(source, folder, out, workers=workers, on_case=step)
    dataset = open_dataset(out)
    apply(dataset, assign_splits(dataset))
    return done


def divided(dataset: Dataset, collection: Collection) -> Dataset | Divided:
    """The dataset with the splits that the collection's rule gives it."""
    return Divided(dataset, collection.test, collection.val) if collection.rule == "rank" else dataset


def training_view(data: Viewed, collection: Collection) -> View:
    """What may be trained on, and validated on while training: no held-out source, nothing said of held-out labels.

    Args:
        data: A dataset, from ``divided`` where the collection has a rule of its own.
        collection: What is held out.
    """
    held = HeldOut(collection.held_out_labels)
    change = partial(_for_training, collection=collection, held=held)
    return View(data, change, held.manifest_without(data.manifest))


def evaluation_view(data: Viewed, collection: Collection) -> View:
    """What is tested on: the sources' patients in ``test`` as they are, and all images of held-out sources."""
    return View(data, partial(_for_evaluation, collection=collection), moves=True)


def zero_shot_view(data: Viewed, collection: Collection) -> View:
    """What of ``evaluation_view`` training could not see: held-out sources whole, of other images only the held-out labels."""
    held = HeldOut(collection.held_out_labels)
    return View(evaluation_view(data, collection), partial(_unseen, collection=collection, held=held))


def _for_training(record: ImageRecord, collection: Collection, held: HeldOut) -> ImageRecord | None:
    if record.origin.dataset not in collection.sources or not _allowed(record, collection):
        return None
    return held.without(record) if held.kinds else record


def _for_evaluation(record: ImageRecord, collection: Collection) -> ImageRecord | None:
    if record.origin.dataset not in collection.all_sources or not _allowed(record, collection):
        return None
    if record.origin.dataset in collection.held_out_sources:
        return replace(record, split="test")
    return record if record.split == "test" else None


def _unseen(record: ImageRecord, collection: Collection, held: HeldOut) -> ImageRecord | None:
    if record.origin.dataset in collection.held_out_sources:
        return record
    seen = held.only(record)
    return seen if seen.regions or seen.absent or seen.exhaustive else None


def _allowed(record: ImageRecord, collection: Collection) -> bool:
    """Whether an image may be used, by its licence."""
    return not collection.redistributable or allows_derived_weights(record.licence)


def _check(collection: Collection, where: str) -> None:
    """Refuse sources and labels that are not there, are named twice, or may not be used."""
    known, tree = source_names(), label_tree()
    if unknown := [name for name in collection.all_sources if name not in known]:
        raise SourceError(f"{where}: there is no source {unknown[0]!r}; `medglip sources` lists all.")
    if both := sorted(set(collection.sources) & set(collection.held_out_sources)):
        raise SourceError(f"{where}: {both[0]!r} is trained on and held out; name it once.")
    if unknown := [label for label in collection.held_out_labels if label not in tree]:
        raise SourceError(f"{where}: there is no label {unknown[0]!r}; `medglip labels WORD` finds ids.")
    if collection.redistributable:
        for name in collection.all_sources:
            verdict = source_verdict(load_source(name))
            if not verdict.allowed:
                raise SourceError(
                    f"{where}: the licence of {name!r} {verdict.reason}, so weights trained on it cannot be passed on; leave "
                    "the source out."
                )


@cache
def _checker() -> Any:
    """Checker of ``schemas/collection.schema.json``."""
    import jsonschema_rs

    schema: Mapping[str, Any] = json.loads((shelf("schemas") / "collection.schema.json").read_text(encoding="utf-8"))
    return jsonschema_rs.validator_for(dict(schema))
