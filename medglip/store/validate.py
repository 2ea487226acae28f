"""Checks a dataset: files, tables, records, masks, labels, splits, privacy and pixels. Changes nothing.

Each check is a function that takes the opened dataset and yields problems.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pycocotools import mask as coco_mask

from medglip.errors import DatasetError
from medglip.records.labels import LabelTree, label_tree
from medglip.shelf import shelf
from medglip.store.manifest import read_manifest, table_files, totals
from medglip.store.pixels import member_name, pixel_sha256, pixels_of_png, read_bytes
from medglip.store.privacy import absolute_paths, columns_to_search, traces
from medglip.store.read import Dataset
from medglip.store.schema import SCHEMAS, TABLES

# Problems of one kind that are listed; the others are counted.
LISTED = 20


class Problem(NamedTuple):
    """Something wrong in a dataset.

    Attributes:
        level: ``error``, or ``note`` for what may be meant so.
        where: File, table, image or region.
        what: One sentence.
    """

    level: str
    where: str
    what: str


Problems = Iterator[Problem]


def validate(
    path: str | Path, *, check_pixels: bool = True, on_progress: Callable[[int, int], None] | None = None
) -> list[Problem]:
    """What is wrong with a dataset; an empty list, or one of notes only, means that it is clean.

    Args:
        path: Folder of the dataset.
        check_pixels: Also decode every PNG and compare it with its hash, which takes most of the time.
        on_progress: Called with the number of PNGs checked and their total.

    Returns:
        The problems, at most ``LISTED`` of a kind and one that counts the rest.
    """
    path = Path(path)
    try:
        manifest = read_manifest(path)
    except DatasetError as error:
        return [Problem("error", str(path / "manifest.json"), str(error))]
    files, tables = _capped(_files(path, manifest)), _capped(_tables(path, manifest))
    if any(problem.where.endswith(".parquet") for problem in tables):
        return files + tables  # nothing else can be checked while a table does not open
    dataset, tree = Dataset(path), label_tree()
    checks = (
        _ids(dataset), _schema(dataset), _boxes(dataset), _masks(dataset), _labels(dataset, tree),
        _absent(dataset, tree), _splits(dataset), _privacy(dataset), _expected(dataset),
        _pixels(dataset, on_progress) if check_pixels else iter(()),
    )  # fmt: skip
    return files + tables + [problem for check in checks for problem in _capped(check)]


def _capped(problems: Problems) -> list[Problem]:
    """The first problems of a check, and how many more there are."""
    listed: list[Problem] = []
    more: Counter = Counter()
    for number, problem in enumerate(problems):
        if number < LISTED:
            listed.append(problem)
        else:
            more[problem.level] += 1
    last = listed[-1].what if listed else ""
    return listed + [Problem(level, "as above", f"{n} more problems such as: {last}") for level, n in more.items()]


def _rows(frame: pd.DataFrame) -> Iterator[Any]:
    return frame.itertuples(index=False)


def _files(path: Path, manifest: dict[str, Any]) -> Problems:
    entries = {name: entry for part in manifest["parts"].values() for name, entry in part["files"].items()}
    for name, entry in sorted(entries.items()):
        if not (path / name).is_file():
            yield Problem("error", name, "The file is missing; restore it, or convert again.")
            continue
        with (path / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                yield Problem("error", name, "The bytes differ from the hash in the manifest: the file was changed.")
    for text in absolute_paths(manifest["parts"]):
        yield Problem("error", "manifest.json", f"Holds an absolute path ({text[:12]!r}...); give relative paths.")


def _tables(path: Path, manifest: dict[str, Any]) -> Problems:
    rows: Counter = Counter()
    for table in TABLES:
        for name in table_files(manifest, table):
            try:
                with pq.ParquetFile(path / name) as file:
                    found, rows[table] = file.schema_arrow, rows[table] + file.metadata.num_rows
            except (OSError, pa.ArrowException) as error:
                yield Problem("error", name, f"The table cannot be read ({error}); restore it.")
                continue
            for field in SCHEMAS[table]:
                at = found.get_field_index(field.name)
                if at < 0 or found.field(at) != field:
                    what = "is not there" if at < 0 else f"is {found.field(at).type}"
                    yield Problem("error", name, f"The column {field.name!r} {what}; it must be {field}.")
    counts = totals(manifest["parts"])
    if counts != manifest.get("counts"):
        yield Problem("error", "manifest.json", "The counts are not the sums over the parts.")
    for table in TABLES:
        if counts.get(table, 0) != rows[table]:
            yield Problem("error", table, f"The manifest counts {counts.get(table, 0)} {table}, the tables hold {rows[table]}.")


def _ids(dataset: Dataset) -> Problems:
    for table, column in (("images", "id"), ("regions", "id"), ("volumes", "id")):
        ids = dataset.table(table, [column])[column]
        for twice in ids[ids.duplicated()].unique():
            yield Problem("error", f"{table} {twice}", "The id occurs more than once.")
    images = dataset.table("images", ["id", "n_regions", "n_texts"])
    for table in ("regions", "texts"):
        owners = dataset.table(table, ["image_id"])["image_id"]
        for lost in owners[~owners.isin(images["id"])].unique():
            yield Problem("error", f"{table} of {lost}", "Their image is not in the dataset.")
        counted = images["id"].map(owners.value_counts()).fillna(0).astype(int)
        for row in _rows(images[counted != images[f"n_{table}"]]):
            yield Problem("error", f"image {row.id}", f"Its n_{table} is not its number of {table}.")
    regions = dataset.query(
        "SELECT r.id FROM regions r JOIN images i ON i.id = r.image_id"
        " WHERE (r.dataset, r.modality, r.split) IS DISTINCT FROM (i.dataset, i.modality, i.split)"
    )
    for region in regions["id"]:
        yield Problem("error", f"region {region}", "Its dataset, modality or split is not that of its image.")


def _schema(dataset: Dataset) -> Problems:
    """Every record against the published schema."""
    import jsonschema_rs

    schema = json.loads((shelf("schemas") / "record.schema.json").read_text("utf-8"))
    image = jsonschema_rs.validator_for(schema)
    volume = jsonschema_rs.validator_for({**schema, "$ref": "#/$defs/volume"})
    try:
        for checker, documents in ((image, dataset.documents()), (volume, dataset.volume_documents())):
            for document in documents:
                if not checker.is_valid(document):
                    for error in checker.iter_errors(document):
                        place = "/".join(map(str, error.instance_path)) or "the whole"
                        yield Problem("error", f"record {document['id']}", f"{place}: {error.message}.")
    except (DatasetError, ValueError, TypeError) as error:
        yield Problem("error", "images", f"The records cannot be put together: {error}")


def _boxes(dataset: Dataset) -> Problems:
    outside = dataset.query(
        "SELECT r.id, x0, y0, x1, y1, width, height FROM regions r JOIN images i ON i.id = r.image_id"
        " WHERE NOT (x0 >= 0 AND y0 >= 0 AND x0 < x1 AND y0 < y1 AND x1 <= width AND y1 <= height)"
        " OR NOT isfinite(x0 + y0 + x1 + y1)"
    )
    for row in _rows(outside):
        box = (row.x0, row.y0, row.x1, row.y1)
        yield Problem("error", f"region {row.id}", f"The box {box} is not inside {row.width} x {row.height} pixels.")


def _masks(dataset: Dataset) -> Problems:
    """Masks decode to the size of their image, and their box and area are those of the region."""
    size = dataset.table("images", ["id", "height", "width"]).drop_duplicates("id").set_index("id")
    columns = ["id", "image_id", "x0", "y0", "x1", "y1", "area_px", "rle"]
    for name in table_files(dataset.manifest, "regions"):
        with pq.ParquetFile(dataset.path / name) as file:
            for batch in file.iter_batches(16384, columns=columns):
                masks = batch.to_pandas().dropna(subset="rle")
                masks = masks.join(size, on="image_id", how="inner")
                for row in _rows(masks):
                    if what := _mask_fault(row):
                        yield Problem("error", f"region {row.id}", what)


def _mask_fault(row: Any) -> str | None:
    height, width = int(row.height), int(row.width)
    runs = runs_of_counts(row.rle)
    if runs is None or int(runs.sum()) != height * width:
        return f"The mask does not decode to {height} x {width} pixels."
    area = int(runs[1::2].sum())
    if area != row.area_px:
        return f"The mask has {area} pixels, the table says {row.area_px}."
    x, y, w, h = coco_mask.toBbox({"size": [height, width], "counts": row.rle.encode("ascii")})
    box = np.array([row.x0, row.y0, row.x1, row.y1])
    if area == 0 or np.abs(box - (x, y, x + w, y + h)).max() > 1:
        return f"The box {tuple(box.tolist())} is not that of the mask {(x, y, x + w, y + h)}."
    return None


def runs_of_counts(counts: str) -> np.ndarray | None:
    """Run lengths (zeros first) of COCO's compressed text, or None where the text is no such code.

    COCO's own decoder leaves memory unset where the runs are too short for the image, so they are counted before.

    Source: pycocotools ``rleFrString``: base 32 from the character "0", bit 5 says that more follows, bit 4 of the last
    is the sign, and from the fourth run on the difference to the run before the last is written.
    """
    codes = np.frombuffer(counts.encode("ascii", "replace"), np.uint8).astype(np.int64) - 48
    if not codes.size or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    ends = np.flatnonzero(~codes & 32 > 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 8:
        return None
    within = np.arange(codes.size) - np.repeat(starts, lengths)
    runs = np.add.reduceat((codes & 31) << (5 * within), starts)
    runs -= np.where(codes[ends] & 16, 1 << (5 * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs if runs.min() >= 0 else None


def _labels(dataset: Dataset, tree: LabelTree) -> Problems:
    used = dataset.query(
        """
        SELECT label, what, count(*) AS n FROM (
            SELECT label, 'regions' AS what FROM regions
            UNION ALL SELECT split_part(unnest(absent), '@', 1), 'images (absent)' FROM images
            UNION ALL SELECT split_part(unnest(exhaustive), '@', 1), 'images (exhaustive)' FROM images
            UNION ALL SELECT body_region, 'images (body_region)' FROM images WHERE body_region IS NOT NULL
            UNION ALL SELECT unnest(instances).label, 'objects of volumes' FROM volumes
        ) GROUP BY ALL ORDER BY ALL
        """
    )
    for row in _rows(used):
        if row.label not in tree:
            yield Problem("error", f"label {row.label}", f"{row.n} {row.what} use it; it is not in the label tree.")
        elif row.what == "regions" and tree[row.label].level in ("finding", "finding_part"):
            levels = {tree[ancestor].level for ancestor in tree.ancestors(row.label)}
            if not levels.intersection(("body_region", "organ", "substructure")):
                yield Problem("error", f"label {row.label}", f"{row.n} regions use this finding, which has no site.")


def _absent(dataset: Dataset, tree: LabelTree) -> Problems:
    """No image says of a concept both that it is absent and that it is there."""
    pairs = dataset.query(
        "SELECT a.concept AS absent, r.concept AS shown, count(DISTINCT r.image_id) AS n, min(r.image_id) AS image"
        " FROM (SELECT id, unnest(absent) AS concept FROM images) a JOIN regions r ON r.image_id = a.id"
        " GROUP BY ALL ORDER BY ALL"
    )
    for row in _rows(pairs):
        known = row.absent.partition("@")[0] in tree and row.shown.partition("@")[0] in tree
        if row.absent == row.shown or (known and tree.covers(row.absent, row.shown)):
            yield Problem(
                "error", f"image {row.image}",
                f"{row.absent!r} is listed as absent, and a region shows {row.shown!r} ({row.n} images).",
            )  # fmt: skip


def _splits(dataset: Dataset) -> Problems:
    """What belongs together is in one split: groups, patients, and images of identical pixels."""
    for column, name in (("group", "group"), ("patient", "patient"), ("sha256", "identical pixels")):
        torn = dataset.query(
            f"""
            SELECT "{column}" AS key, string_agg(DISTINCT split, ', ' ORDER BY split) AS splits, count(*) AS n,
                min(id) AS image
            FROM images WHERE key <> '' AND split <> 'unassigned'
            GROUP BY key HAVING count(DISTINCT split) > 1 ORDER BY key
            """
        )
        for row in _rows(torn):
            yield Problem(
                "error", f"{name} {row.key[:16]}",
                f"Its {row.n} images (for example {row.image}) are in several splits: {row.splits}.",
            )  # fmt: skip


def _privacy(dataset: Dataset) -> Problems:
    for table in TABLES:
        columns = columns_to_search(SCHEMAS[table])
        for name in table_files(dataset.manifest, table):
            with pq.ParquetFile(dataset.path / name) as file:
                first = 0
                for batch in file.iter_batches(65536, columns=columns):
                    for trace in traces(pa.Table.from_batches([batch])):
                        where = f"{name} row {first + trace.row}, column {trace.column!r}"
                        what = f"The text holds what looks like {trace.what}; a dataset must not name patients."
                        yield Problem("note" if trace.mild else "error", where, what)
                    first += batch.num_rows


def _expected(dataset: Dataset) -> Problems:
    """Counts against those of the whole published source."""
    for source, (expected, found) in expected_counts(dataset.manifest).items():
        for name, number in expected.items():
            if name in found and found[name] != number:
                how = "partial copy" if found[name] < number else "more than published"
                yield Problem("note", f"source {source}", f"{how}: {found[name]} of {number} {name}.")


def expected_counts(manifest: dict[str, Any]) -> dict[str, tuple[dict[str, int], dict[str, int]]]:
    """For each source of a manifest, the counts of the published whole and those of the dataset."""
    result: dict[str, tuple[dict[str, int], dict[str, int]]] = {}
    for name, part in manifest["parts"].items():
        _, found = result.setdefault(part.get("source", name), (part.get("expected") or {}, Counter()))
        found.update({key: value for key, value in part["counts"].items() if isinstance(value, int)})
        found["cases"] += len(part.get("cases", ()))
    return result


def _pixels(dataset: Dataset, on_progress: Callable[[int, int], None] | None) -> Problems:
    """Every PNG lies where its row says, under its name, of its size, and hashes to its key."""
    columns = ["id", "sha256", "shard", "tar_offset", "tar_bytes", "width", "height", "channels", "bits"]
    rows = dataset.table("images", columns).sort_values(["shard", "tar_offset"])
    places = rows.drop_duplicates(["shard", "tar_offset", "sha256", "width", "height", "channels", "bits"])
    for number, row in enumerate(_rows(places), 1):
        where = f"image {row.id}"
        try:
            name = member_name(dataset.path / row.shard, row.tar_offset)
            png = read_bytes(dataset.path / row.shard, row.tar_offset, row.tar_bytes)
            pixels = pixels_of_png(png, where)
        except DatasetError as error:
            yield Problem("error", where, str(error))
            continue
        found = (*pixels.shape[:2], 1 if pixels.ndim == 2 else pixels.shape[2], 8 * pixels.dtype.itemsize)
        told = (row.height, row.width, row.channels, row.bits)
        if name != f"{row.sha256}.png":
            yield Problem("error", where, f"The tar member at its place is {name!r}.")
        if found != told:
            yield Problem("error", where, f"Its PNG has (height, width, channels, bits) {found}, its row says {told}.")
        elif pixel_sha256(pixels) != row.sha256:
            yield Problem("error", where, "Its pixels do not hash to its sha256.")
        if on_progress:
            on_progress(number, len(places))
