"""A dataset described in Croissant, the JSON-LD of MLCommons: its files, tables, licences and how it came about.

The description is of a dataset as it lies on disk; what is exported is therefore a medglip dataset too, with
``croissant.json`` in it. Knows no pixels.

Source: Croissant format specification 1.1 and Croissant RAI vocabulary 1.0, https://docs.mlcommons.org/croissant/docs/
"""

import hashlib
import itertools
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from medglip.errors import InputError
from medglip.exports.chosen import Choice, OnImage
from medglip.exports.columns import COLUMNS
from medglip.exports.facts import SourceFacts, each_once, sources_of, spdx_of
from medglip.exports.responsible import responsible
from medglip.records.picture import Picture
from medglip.records.record import ImageRecord
from medglip.store.manifest import NAME, bytes_of, table_files
from medglip.store.read import Dataset
from medglip.store.schema import ADDED, SCHEMAS
from medglip.store.write import write_part

FILE = "croissant.json"
CONFORMS_TO = ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]
_FORMATS = {".parquet": "application/x-parquet", ".tar": "application/x-tar", ".json": "application/json"}
# What Croissant calls our splits; it has no word for images that have none.
_SPLIT_URLS = {"train": "cr:TrainingSplit", "val": "cr:ValidationSplit", "test": "cr:TestSplit", "unassigned": None}
_DESCRIPTIONS = {
    "images": "One row an image: where its PNG lies, its size, geometry, intensity, origin, split and licence.",
    "regions": "One row a region: label, box, phrases, and its mask as a COCO run-length code.",
    "texts": "One row a text of an image: report, caption, finding, question with its answer.",
}
# A field that names a row of another table.
_REFERENCES = {("images", "split"): "splits/name", ("regions", "image_id"): "images/id", ("texts", "image_id"): "images/id"}

Document = dict[str, Any]


def write(dataset: Dataset, out: Path, choice: Choice, on_image: OnImage) -> dict[str, int]:
    """Write a medglip dataset with ``croissant.json`` in it.

    A whole dataset keeps its files: they are hard links where the disk is the same, so that pixels take no second
    place, and copies elsewhere. A choice of it is written anew; volumes and rejects are then left out, because they are
    not of single images.

    Args:
        dataset: What to export.
        out: Empty folder.
        choice: Which images and regions.
        on_image: Called with the number of images done and their total.

    Returns:
        ``images``, ``regions``, ``texts``, ``files``, ``volumes_left_out``, ``rejects_left_out`` and
        ``regions_too_small``.

    Raises:
        InputError: nothing is chosen.
    """
    total = choice.number(dataset)
    if not total:
        raise InputError(f"Export to croissant: found no image of {dataset!r} to write; choose another split.")
    counts: Counter = Counter(volumes_left_out=0, rejects_left_out=0)
    if choice == Choice():
        _link(dataset, out)
        on_image(total, total)
    else:
        _write_chosen(dataset, out, choice, on_image, counts)
        for name in ("volumes", "rejects"):
            counts[f"{name}_left_out"] = dataset.manifest["counts"].get(name, 0)
    written = Dataset(out)
    describe(written)
    for name in ("images", "regions", "texts"):
        counts[name] = written.manifest["counts"].get(name, 0)
    return {**counts, "files": len(_files(written))}


def _link(dataset: Dataset, out: Path) -> None:
    """The dataset's files, under the same names. A file of a dataset is never changed, only replaced, so links are safe."""
    place = dataset.place
    for name in _files(dataset):
        (out / name).parent.mkdir(exist_ok=True)
        if place.local is None:
            (out / name).write_bytes(place.read(name))
            continue
        try:
            os.link(place.local / name, out / name)
        except OSError:  # another disk, or one without hard links
            shutil.copyfile(place.local / name, out / name)
    for name in (NAME, "labels.json"):
        (out / name).write_bytes(place.read(name))


def _write_chosen(dataset: Dataset, out: Path, choice: Choice, on_image: OnImage, counts: Counter) -> None:
    """A dataset of the chosen images and regions, a part for each run of images of one source."""
    total, done = choice.number(dataset), 0

    def pictures(records: Iterator[ImageRecord]) -> Iterator[Picture]:
        nonlocal done
        for record in records:
            yield Picture(record, dataset.pixels(record.id))
            done += 1
            on_image(done, total)

    about = {part.get("source"): part for part in dataset.manifest["parts"].values()}
    runs = itertools.groupby(choice.records(dataset, counts), lambda record: record.origin.dataset)
    for number, (source, records) in enumerate(runs):
        # which cases were converted, and how many there should be, is said of the whole and not of a choice
        of_the_whole = ("counts", "files", "cases", "expected")
        info = {key: value for key, value in about.get(source, {}).items() if key not in of_the_whole}
        write_part(out, f"{source}-{number:05d}", pictures(records), (), (), {**info, "source": source})
    (out / ".lock").unlink(missing_ok=True)


def document(dataset: Dataset) -> Document:
    """The Croissant description of a dataset as it lies on disk; addresses of files are relative to its folder.

    Equal datasets have equal descriptions: it names no place and no time. Croissant recommends ``datePublished``,
    ``creator`` and ``url``; whoever publishes the dataset adds them.

    Args:
        dataset: The dataset.

    Returns:
        JSON-LD, to be written as ``croissant.json`` in the dataset's folder.
    """
    sources = sources_of(dataset)
    counts = dataset.manifest["counts"]
    splits = [split for split in _SPLIT_URLS if counts.get("splits", {}).get(split)]
    numbers = f"{counts.get('images', 0)} images with {counts.get('regions', 0)} regions and {counts.get('texts', 0)} texts"
    citations = each_once(source.citation for source in sources)
    digest = hashlib.sha256("".join(f"{name} {entry['sha256']}\n" for name, entry in _files(dataset).items()).encode())
    tables = [name for name in _DESCRIPTIONS if counts.get(name)]
    return {
        "@context": _context(),
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": f"medglip dataset of {', '.join(source.name for source in sources)}",
        "description": f"{numbers}, from {'; '.join(source.title for source in sources)}.",
        "keywords": ["medical imaging", "visual grounding", *sorted(counts.get("modalities", {}))],
        # the content decides: two datasets of one version are equal byte for byte
        "version": f"1.0.0+{digest.hexdigest()[:12]}",
        "license": _licences(sources),
        **({"citeAs": "\n\n".join(citations)} if citations else {}),
        **({"url": sources[0].page} if len(sources) == 1 and sources[0].page else {}),
        **responsible(dataset, sources),
        "distribution": _distribution(dataset, tables),
        "recordSet": [_splits(splits), *(_record_set(name, _too_late(dataset, name)) for name in tables), _pngs()],
    }


def describe(dataset: Dataset) -> None:
    """Write, or write anew, ``croissant.json`` in the dataset's own folder; it holds until the next commit."""
    dataset.place.write(FILE, bytes_of(document(dataset)))


def _licences(sources: list[SourceFacts]) -> list[Document]:
    found = []
    for source in sources:
        for licence in source.licences:
            spdx = spdx_of(licence)
            found.append({
                "@type": "sc:CreativeWork",
                "name": licence,
                "description": f"Licence of images of {source.name}; the column licence of the images says it of each.",
                **({"url": f"https://spdx.org/licenses/{spdx}.html"} if spdx else {}),
            })  # fmt: skip
    return found


def _files(dataset: Dataset) -> dict[str, Document]:
    """Path -> bytes and SHA-256 of the files that the manifest lists, by path; parts may share a shard."""
    parts = dataset.manifest["parts"].values()
    return dict(sorted((name, entry) for part in parts for name, entry in part["files"].items()))


def _distribution(dataset: Dataset, tables: list[str]) -> list[Document]:
    files = _files(dataset)
    labels = dataset.place.read("labels.json")
    files["labels.json"] = {"bytes": len(labels), "sha256": hashlib.sha256(labels).hexdigest()}
    objects = [
        {
            "@type": "cr:FileObject", "@id": name, "name": name, "contentUrl": name,
            "contentSize": f"{entry['bytes']} B", "sha256": entry["sha256"], "encodingFormat": _FORMATS[Path(name).suffix],
        }
        for name, entry in files.items()
    ]  # fmt: skip
    sets = [
        {
            "@type": "cr:FileSet", "@id": f"{table}-files", "name": f"{table}-files",
            "description": f"The Parquet files of the table {table}.",
            "encodingFormat": "application/x-parquet", "includes": table_files(dataset.manifest, table),
        }
        for table in tables
    ]  # fmt: skip
    pngs = {
        "@type": "cr:FileSet", "@id": "png-files", "name": "png-files",
        "description": "The images, lossless, each named by the SHA-256 of its pixels.",
        "containedIn": [{"@id": name} for name in files if name.endswith(".tar")],
        "encodingFormat": "image/png", "includes": "*.png",
    }  # fmt: skip
    return [*objects, *sets, pngs]


def _splits(names: list[str]) -> Document:
    """The record set of the splits, its rows in line."""
    fields = [
        {"@type": "cr:Field", "@id": "splits/name", "name": "name", "dataType": "sc:Text"},
        {"@type": "cr:Field", "@id": "splits/url", "name": "url", "dataType": "sc:URL"},
    ]
    return {
        "@type": "cr:RecordSet", "@id": "splits", "name": "splits", "dataType": "cr:Split",
        "description": "What an image is for. Images of one group (a patient, as a rule) are of one split.",
        "key": {"@id": "splits/name"}, "field": fields,
        "data": [{"splits/name": name, "splits/url": _SPLIT_URLS[name]} for name in names],
    }  # fmt: skip


def _too_late(dataset: Dataset, table: str) -> set[str]:
    """Columns that came with a later minor version than that of some file of the table; readers would not find them."""
    late = set(ADDED.get(table, ()))
    missing: set[str] = set()
    for name in table_files(dataset.manifest, table) if late else ():
        with dataset.place.parquet(name) as file:
            missing |= late.difference(file.schema_arrow.names)
    return missing


def _record_set(table: str, without: set[str]) -> Document:
    key = {"images": "images/id", "regions": "regions/id"}.get(table)
    return {
        "@type": "cr:RecordSet", "@id": table, "name": table, "description": _DESCRIPTIONS[table],
        **({"key": {"@id": key}} if key else {}),
        "field": [_field(table, field.name, field.type) for field in SCHEMAS[table] if field.name not in without],
    }  # fmt: skip


def _field(table: str, column: str, kind: pa.DataType) -> Document:
    source = {"fileSet": {"@id": f"{table}-files"}, "extract": {"column": column}}
    field: Document = {"@type": "cr:Field", "@id": f"{table}/{column}", "name": column}
    if about := COLUMNS.get((table, column)) or COLUMNS.get(("", column)):
        field["description"] = about
    if pa.types.is_list(kind):
        field |= {"isArray": True, "arrayShape": "-1"}
        kind = kind.value_type
    if pa.types.is_struct(kind):
        return {**field, "subField": [_sub_field(field["@id"], source, inner) for inner in kind]}
    field |= {"dataType": _data_type(kind), "source": source}
    if target := _REFERENCES.get((table, column)):
        field["references"] = {"field": {"@id": target}}
    return field


def _sub_field(parent: str, source: Document, inner: pa.Field) -> Document:
    several = pa.types.is_list(inner.type)
    return {
        "@type": "cr:Field", "@id": f"{parent}/{inner.name}", "name": inner.name,
        "dataType": _data_type(inner.type.value_type if several else inner.type),
        **({"isArray": True, "arrayShape": "-1"} if several else {}),
        "source": {**source, "transform": {"jsonPath": inner.name}},
    }  # fmt: skip


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_integer(kind):
        return "sc:Integer"
    if pa.types.is_floating(kind):
        return "sc:Float"
    return "sc:Boolean" if pa.types.is_boolean(kind) else "sc:Text"


def _pngs() -> Document:
    files = {"fileSet": {"@id": "png-files"}}
    return {
        "@type": "cr:RecordSet", "@id": "pngs", "name": "pngs", "key": {"@id": "pngs/sha256"},
        "description": "The pictures themselves, 8 or 16 bit; images/sha256 says which picture an image has.",
        "field": [
            {
                "@type": "cr:Field", "@id": "pngs/sha256", "name": "sha256", "dataType": "sc:Text",
                "description": COLUMNS["images", "sha256"],
                "source": {**files, "extract": {"fileProperty": "filename"}, "transform": {"regex": r"([0-9a-f]{64})\.png"}},
            },
            {
                "@type": "cr:Field", "@id": "pngs/content", "name": "content", "dataType": "sc:ImageObject",
                "description": "The PNG.", "source": {**files, "extract": {"fileProperty": "content"}},
            },
        ],
    }  # fmt: skip


def _context() -> Document:
    """The JSON-LD context of Croissant 1.1, with the RAI vocabulary."""
    own = ("annotation", "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field",
           "fileObject", "fileProperty", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5",
           "parentField", "path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate", "separator",
           "source", "subField", "transform")  # fmt: skip
    return {
        "@language": "en",
        "@vocab": "https://schema.org/",
        "cr": "http://mlcommons.org/croissant/",
        "rai": "http://mlcommons.org/croissant/RAI/",
        "dct": "http://purl.org/dc/terms/",
        "sc": "https://schema.org/",
        "conformsTo": "dct:conformsTo",
        "data": {"@id": "cr:data", "@type": "@json"},
        "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
        "examples": {"@id": "cr:examples", "@type": "@json"},
        "name": {"@container": "@language"},
        "description": {"@container": "@language"},
        **{name: f"cr:{name}" for name in own},
    }
