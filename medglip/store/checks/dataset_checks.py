"""Checks of a dataset's files, of its images, texts and volumes, and of its labels. Changes nothing.

The regions, by far the most rows, have a module of their own; so have the splits.
"""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from medglip.errors import DatasetError
from medglip.records.labels import LabelTree
from medglip.store.checks.image_table import Images, batches, rows_of
from medglip.store.checks.privacy import absolute_paths, traces
from medglip.store.checks.problems import Problem, Problems
from medglip.store.checks.region_checks import Used
from medglip.store.checks.rules import faults
from medglip.store.manifest import table_files, totals
from medglip.store.pixels import TAR_BLOCK, name_in_header, pixel_sha256, pixels_of_png
from medglip.store.place import Place
from medglip.store.read import Dataset
from medglip.store.schema import ADDED, SCHEMAS, TABLES

_ROUNDING_MM = 1e-3
# PNGs that are decoded ahead of their turn, so that all cores work and few pixels are in memory.
_AHEAD = 256
_Place = Any  # a row of the places of PNGs


def check_files(place: Place, manifest: dict[str, Any], *, read_shards: bool) -> Problems:
    """Every file is there, and its bytes are those that the manifest says; of shards perhaps their number only."""
    entries = {name: entry for part in manifest["parts"].values() for name, entry in part["files"].items()}
    for name, entry in sorted(entries.items()):
        try:
            size = place.size(name)
        except (OSError, DatasetError):
            yield Problem("error", name, "The file is missing; restore it, or convert again.", "files")
            continue
        if read_shards or name.endswith(".parquet"):
            changed = place.sha256(name) != entry.get("sha256")
        else:
            changed = size != entry.get("bytes")
        if changed:
            what = "The bytes differ from the manifest's: the file was changed; restore it, or convert again."
            yield Problem("error", name, what, "files")
    for text in absolute_paths(manifest["parts"]):
        yield Problem("error", "manifest.json", f"Holds an absolute path ({text[:12]!r}...); give relative paths.", "privacy")


def check_tables(place: Place, manifest: dict[str, Any]) -> Problems:
    """Every table opens, has its columns, and as many rows as the manifest says."""
    rows: Counter = Counter()
    for table in TABLES:
        for name in table_files(manifest, table):
            try:
                with place.parquet(name) as file:
                    found, rows[table] = file.schema_arrow, rows[table] + file.metadata.num_rows
            except DatasetError as error:
                yield Problem("error", name, str(error), "tables")
                continue
            for field in SCHEMAS[table]:
                at = found.get_field_index(field.name)
                if at < 0 and field.name in ADDED.get(table, {}):
                    continue  # the file is of an earlier minor version
                if at < 0 or found.field(at) != field:
                    what = "is not there" if at < 0 else f"is {found.field(at).type}"
                    what = f"The column {field.name!r} {what}; it must be {field}; convert the source again."
                    yield Problem("error", name, what, "tables")
    counts = totals(manifest["parts"])
    if counts != manifest.get("counts"):
        yield Problem("error", "manifest.json", "The counts are not the sums over the parts.", "tables")
    for table in TABLES:
        if counts.get(table, 0) != rows[table]:
            what = f"The manifest counts {counts.get(table, 0)} {table}, the tables hold {rows[table]}."
            yield Problem("error", table, what, "tables")


def check_ids(dataset: Dataset) -> Problems:
    """No id occurs twice, and what a region names as its parent is a region of its image."""
    for table in ("images", "regions", "volumes"):
        twice = dataset.query(f"SELECT id, count(*) AS n FROM {table} GROUP BY id HAVING n > 1 ORDER BY id")
        for row in rows_of(twice):
            image = row.id if table == "images" else ""
            yield Problem("error", f"{table} {row.id}", f"The id occurs more than once: {row.n} times.", "ids", image)
    lost = dataset.query(
        "SELECT child.id, child.image_id, parent FROM"
        " (SELECT id, image_id, unnest(parents) AS parent FROM regions WHERE len(parents) > 0) AS child"
        " ANTI JOIN regions ON regions.id = child.parent AND regions.image_id = child.image_id ORDER BY ALL"
    )
    for row in rows_of(lost):
        what = f"It names the parent {row.parent!r}, which is no region of its image."
        yield Problem("error", f"region {row.id}", what, "ids", row.image_id, row.id)


def check_images(dataset: Dataset) -> Problems:
    """Schema, windows and privacy of the images."""
    for name, first, batch in batches(dataset, "images"):
        yield from _table_faults("images", name, first, batch)
        low, high = (batch.column(column).to_numpy() for column in ("window_low", "window_high"))
        for row in np.flatnonzero(~(low < high)).tolist():
            image = batch.column("id")[row].as_py()
            yield Problem(
                "error", f"image {image}", f"Its window ({low[row]}, {high[row]}) is not from low to high.", "schema", image
            )


def check_counts(images: Images, found: dict[str, np.ndarray]) -> Problems:
    """Every image has as many regions and texts as its row says."""
    for table, numbers in found.items():
        for row in np.flatnonzero(images.number(f"n_{table}") != numbers).tolist():
            image = images.ids[row].as_py()
            yield Problem("error", f"image {image}", f"Its n_{table} is not its number of {table}.", "ids", image)


def _table_faults(table: str, name: str, first: int, batch: pa.RecordBatch) -> Problems:
    """Schema and privacy of some rows of images, texts, volumes or rejects."""
    for fault in faults(table, batch) if table != "rejects" else ():
        for number, row in enumerate(fault.rows.tolist()):
            found = repr(fault.found[number].as_py())
            what = f"{fault.place}: found {found[:80]}; allowed: {fault.allowed}."
            image = batch.column("image_id" if table == "texts" else "id")[row].as_py() or ""
            where = f"{name} row {first + row}" if table == "texts" else f"{table[:-1]} {image}"
            yield Problem("error", where, what, "schema", "" if table == "volumes" else image)
    for trace in traces(pa.Table.from_batches([batch])):
        if table == "rejects":
            level = "note" if trace.mild else "error"
            what = f"The text holds what looks like {trace.what}; a dataset must not name patients."
            yield Problem(level, f"{name} row {first + trace.row}, column {trace.column!r}", what, "privacy")
        else:
            yield trace.problem(f"{name} row {first + trace.row}", batch)


def check_texts(dataset: Dataset, images: Images, counted: np.ndarray) -> Problems:
    """Schema, privacy, place and spans of the texts; adds to ``counted`` the texts of each image."""
    for name, first, batch in batches(dataset, "texts"):
        yield from _table_faults("texts", name, first, batch)
        owner = images.owners(batch.column("image_id"))
        for row in np.flatnonzero(owner < 0).tolist():
            yield Problem("error", f"{name} row {first + row}", "Its image is not in the dataset.", "ids")
        counted += np.bincount(owner[owner >= 0], minlength=len(images))
        spans = pc.list_flatten(batch.column("spans"))
        rows = pc.list_parent_indices(batch.column("spans"))
        start, end = pc.struct_field(spans, "start"), pc.struct_field(spans, "end")
        length = pc.utf8_length(batch.column("text")).take(rows)
        outside = pc.fill_null(pc.or_kleene(pc.greater_equal(start, end), pc.greater(end, length)), True)
        for at in np.flatnonzero(outside.to_numpy(zero_copy_only=False)).tolist():
            row, image = rows[at].as_py(), batch.column("image_id")[rows[at].as_py()].as_py()
            what = f"A span ({start[at].as_py()}, {end[at].as_py()}) is not inside the text of {length[at].as_py()} characters."
            yield Problem("error", f"{name} row {first + row}", what, "texts", image)
    lost = dataset.query(
        "SELECT named.* FROM (SELECT image_id, unnest(span.regions) AS region FROM"
        " (SELECT image_id, unnest(spans) AS span FROM texts WHERE len(spans) > 0)) AS named"
        " ANTI JOIN regions ON regions.id = named.region AND regions.image_id = named.image_id ORDER BY ALL"
    )
    for row in rows_of(lost):
        what = f"A span of its text names {row.region!r}, which is no region of the image."
        yield Problem("error", f"image {row.image_id}", what, "texts", row.image_id)


def check_volumes(dataset: Dataset) -> Problems:
    """Schema and privacy of the volumes; boxes inside them, and in mm where the affine puts them."""
    for name, first, batch in batches(dataset, "volumes"):
        yield from _table_faults("volumes", name, first, batch)
        for row in batch.select(["id", "shape_k", "shape_j", "shape_i", "affine_ijk_to_mm", "instances"]).to_pylist():
            for instance in row["instances"] or ():
                if what := _instance_fault(row, instance):
                    yield Problem("error", f"volume {row['id']}, object {instance['id']}", what, "volumes")


def _instance_fault(volume: dict[str, Any], instance: dict[str, Any]) -> str | None:
    box, told = instance["box_kji"], instance["box_mm"]
    shape = [volume["shape_k"], volume["shape_j"], volume["shape_i"]]
    if box is None or len(box) != 6:
        return None  # the schema has said so
    if not all(0 <= low < high <= size for low, high, size in zip(box[:3], box[3:], shape, strict=True)):
        return f"Its box {tuple(box)} is not inside {' x '.join(map(str, shape))} voxels."
    affine = volume["affine_ijk_to_mm"]
    if told is None or len(told) != 6 or affine is None or len(affine) != 16:
        return "It has a box in mm, but its volume has no affine." if told is not None and affine is None else None
    right = box_mm_of(box, affine)
    if np.abs(right - told).max() > _ROUNDING_MM * max(1.0, float(np.abs(right).max())):
        return f"Its box in mm {tuple(told)} is not that of its voxels, {tuple(right.round(3).tolist())}."
    return None


def box_mm_of(box_kji: list[int], affine_ijk_to_mm: list[float]) -> np.ndarray:
    """Smallest box ``(x0, y0, z0, x1, y1, z1)`` in LPS+ mm around the eight corners of voxels ``(k0, j0, i0, k1, j1, i1)``."""
    ends = np.reshape(box_kji, (2, 3))[:, ::-1] - 0.5  # the affine takes a voxel's centre
    corners = np.array([[*choice, 1.0] for choice in product(*ends.T)]) @ np.reshape(affine_ijk_to_mm, (4, 4))[:3].T
    return np.concatenate([corners.min(0), corners.max(0)])


def check_labels(dataset: Dataset, images: Images, used: Used, tree: LabelTree) -> Problems:
    """Every label is in the tree, findings have a site, and no image says of a concept that it is absent and there."""
    rows = dataset.query(
        """
        SELECT split_part(concept, '@', 1) AS label, what, sum(n)::BIGINT AS n FROM (
            SELECT unnest(list) AS concept, what, n FROM (
                SELECT absent AS list, 'images (absent)' AS what, count(*) AS n FROM images GROUP BY ALL
                UNION ALL SELECT exhaustive, 'images (exhaustive)', count(*) FROM images GROUP BY ALL)
            UNION ALL SELECT body_region, 'images (body_region)', count(*) FROM images
                WHERE body_region IS NOT NULL GROUP BY ALL
            UNION ALL SELECT unnest(instances).label, 'objects of volumes', 1 FROM volumes
        ) GROUP BY ALL ORDER BY ALL
        """
    )
    marked = [(label, "regions", number) for label, number in sorted(used.labels.items(), key=str)]
    for label, what, number in [*marked, *rows.itertuples(index=False, name=None)]:
        if label not in tree:
            yield Problem("error", f"label {label}", f"{number} {what} use it; it is not in the label tree.", "labels")
        elif what == "regions" and tree[label].is_finding:
            levels = {tree[ancestor].level for ancestor in tree.ancestors(label)}
            if not levels.intersection(("body_region", "organ", "substructure")):
                yield Problem("error", f"label {label}", f"{number} regions use this finding, which has no site.", "labels")
    yield from _contradictions(images, used, tree)


def _contradictions(images: Images, used: Used, tree: LabelTree) -> Problems:
    concepts = list(used.concepts)
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for (which, number), (count, image) in used.pairs.items():
        shown = concepts[number]
        for absent in images.absent_lists[which]:
            if absent == shown or _covers(tree, absent, shown):
                before, first = found.get((absent, shown), (0, image))
                found[absent, shown] = before + count, min(first, image)
    for (absent, shown), (count, place) in sorted(found.items()):
        image = images.ids[place].as_py()
        what = f"{absent!r} is listed as absent, and a region shows {shown!r} ({count} images)."
        yield Problem("error", f"image {image}", what, "absent", image)


def _covers(tree: LabelTree, general: str, specific: str) -> bool:
    sides = all(concept.partition("@")[2] in ("", "left", "right") for concept in (general, specific))
    known = general.partition("@")[0] in tree and specific.partition("@")[0] in tree
    return sides and known and tree.covers(general, specific)


def check_rejects(dataset: Dataset) -> Problems:
    """Privacy of what was not converted."""
    for name, first, batch in batches(dataset, "rejects"):
        yield from _table_faults("rejects", name, first, batch)


def check_expected(dataset: Dataset) -> Problems:
    """Counts against those of the whole published source."""
    for source, (expected, found) in expected_counts(dataset.manifest).items():
        for name, number in expected.items():
            if name in found and found[name] != number:
                how = "partial copy" if found[name] < number else "more than published"
                yield Problem("note", f"source {source}", f"{how}: {found[name]} of {number} {name}.", "expected")


def expected_counts(manifest: dict[str, Any]) -> dict[str, tuple[dict[str, int], dict[str, int]]]:
    """For each source of a manifest, the counts of the published whole and those of the dataset."""
    result: dict[str, tuple[dict[str, int], dict[str, int]]] = {}
    for name, part in manifest["parts"].items():
        _, found = result.setdefault(part.get("source", name), (part.get("expected") or {}, Counter()))
        found.update({key: value for key, value in part["counts"].items() if isinstance(value, int)})
        found["cases"] += len(part.get("cases", ()))
    return result


def check_pixels(dataset: Dataset, on_progress: Callable[[int, int], None] | None) -> Problems:
    """Every PNG lies where its row says, under its name, of its size, and hashes to its key. All cores decode."""
    columns = ["id", "sha256", "shard", "tar_offset", "tar_bytes", "width", "height", "channels", "bits"]
    frame = dataset.table("images", columns).sort_values(["shard", "tar_offset"])
    places = frame.drop_duplicates(["shard", "tar_offset", "sha256", "width", "height", "channels", "bits"])
    with ThreadPoolExecutor() as pool:
        for first in range(0, len(places), _AHEAD):
            some = list(rows_of(places[first : first + _AHEAD]))
            for number, (row, found) in enumerate(
                zip(some, pool.map(lambda row: _png_faults(dataset, row), some), strict=True), 1
            ):
                for what in found:
                    yield Problem("error", f"image {row.id}", what, "pixels", row.id)
                if on_progress:
                    on_progress(first + number, len(places))


def _png_faults(dataset: Dataset, row: _Place) -> list[str]:
    where = f"Image {row.id!r} in {row.shard!r}"
    try:
        header = dataset.place.read_range(row.shard, max(0, row.tar_offset - TAR_BLOCK), TAR_BLOCK)
        name = name_in_header(header, where)
        pixels = pixels_of_png(dataset.place.read_range(row.shard, row.tar_offset, row.tar_bytes), where)
    except DatasetError as error:
        return [str(error)]
    except (OSError, ValueError) as error:
        return [f"{where} cannot be read ({error}); restore the shard."]
    result = [] if name == f"{row.sha256}.png" else [f"The tar member at its place in {row.shard!r} is {name!r}."]
    found = (*pixels.shape[:2], 1 if pixels.ndim == 2 else pixels.shape[2], 8 * pixels.dtype.itemsize)
    if found != (told := (row.height, row.width, row.channels, row.bits)):
        result.append(f"Its PNG has (height, width, channels, bits) {found}, its row says {told}.")
    elif pixel_sha256(pixels) != row.sha256:
        result.append(f"Its pixels in {row.shard!r} do not hash to its sha256; restore the shard.")
    return result
