"""What differs between two datasets: sources, images, regions, texts, splits and rejects. Opens no pixels.

Images are the same by id (which is made of source, file, frame and pixels' hash), regions by image, label, side, box and
mask. So two conversions of one archive by different versions are compared line by line, and a copy shows no difference.
"""

from typing import TYPE_CHECKING, Any

import pandas as pd

from medglip.store.read import Dataset
from medglip.store.schema import SCHEMAS, TABLES
from medglip.store.sql import connected

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Where the bytes of an image lie says nothing about it.
_STORAGE = ("id", "shard", "tar_offset", "tar_bytes")
_SAME_REGION = ("image_id", "label", "laterality", "x0", "y0", "x1", "y1", "rle")
_EXAMPLES = 5


def diff(a: Dataset, b: Dataset) -> dict[str, pd.DataFrame]:
    """What differs between two datasets; empty tables where nothing does.

    Args:
        a: The one before.
        b: The one after.

    Returns:
        Tables by name:

        - ``tables``: rows of each table in A and B, where their numbers differ;
        - ``sources``: ``source``, licence, images, regions and rejects in A and B, where one of them differs;
        - ``images``: ``what`` (only in A, only in B, same id with other pixels), ``images``, ``examples`` (ids);
        - ``same_pixels``: ``images`` only in A whose pixels are in B under another id;
        - ``columns``: ``column`` of images with one id that differs, ``images``, one ``example``;
        - ``splits``: ``from``, ``to``, ``images``;
        - ``regions``: for each ``label`` of images in both, regions only in A, only in B, and how many of these overlap by
          half (``moved``);
        - ``texts``: ``kind``, texts of images in both that are only in A, only in B;
        - ``rejects``: ``source``, ``reason``, rejects in A and B, where their numbers differ.
    """
    with connected({"a_": (a.place, a.manifest), "b_": (b.place, b.manifest)}) as connection:
        found = {
            "tables": _tables(connection), "sources": _sources(connection, a, b), "images": _images(connection),
            "same_pixels": connection.execute(
                "SELECT count(*) AS images FROM a_images WHERE id NOT IN (SELECT id FROM b_images)"
                " AND sha256 IN (SELECT sha256 FROM b_images) HAVING count(*) > 0").df(),
            "columns": _columns(connection),
            "splits": connection.execute(
                "SELECT a.split AS from, b.split AS to, count(*) AS images FROM a_images a JOIN b_images b USING (id)"
                " WHERE a.split <> b.split GROUP BY ALL ORDER BY ALL").df(),
            "regions": _regions(connection), "texts": _texts(connection),
            "rejects": connection.execute(
                """SELECT * FROM (
                    SELECT coalesce(a.dataset, b.dataset) AS source, coalesce(a.reason, b.reason) AS reason,
                        coalesce(a.n, 0) AS a, coalesce(b.n, 0) AS b
                    FROM (SELECT dataset, reason, count(*) AS n FROM a_rejects GROUP BY ALL) a FULL JOIN
                        (SELECT dataset, reason, count(*) AS n FROM b_rejects GROUP BY ALL) b
                        ON a.dataset = b.dataset AND a.reason = b.reason)
                WHERE a <> b ORDER BY source, reason""").df(),
        }  # fmt: skip
    return found


def _tables(connection: "DuckDBPyConnection") -> pd.DataFrame:
    rows = []
    for name in TABLES:
        numbers = [connection.execute(f"SELECT count(*) FROM {side}_{name}").fetchall()[0][0] for side in "ab"]
        if numbers[0] != numbers[1]:
            rows.append((name, *numbers))
    return pd.DataFrame(rows, columns=["table", "a", "b"])


def _sources(connection: "DuckDBPyConnection", a: Dataset, b: Dataset) -> pd.DataFrame:
    sides = {}
    for side, dataset in (("a", a), ("b", b)):
        counted = connection.execute(
            f"""SELECT dataset AS source, images, regions, rejects FROM
                (SELECT dataset, count(*) AS images, sum(n_regions)::BIGINT AS regions FROM {side}_images GROUP BY dataset)
                FULL JOIN (SELECT dataset, count(*) AS rejects FROM {side}_rejects GROUP BY dataset) USING (dataset)"""
        ).df()
        licences = {part.get("source", name): part.get("licence", "") for name, part in dataset.manifest["parts"].items()}
        counted["licence"] = counted["source"].map(licences).fillna("")
        sides[side] = counted.fillna(0).set_index("source")
    names = sorted(set(sides["a"].index) | set(sides["b"].index))
    empty: dict[str, Any] = {"images": 0, "regions": 0, "rejects": 0, "licence": ""}
    rows = []
    for name in names:
        left, right = (sides[side].loc[name].to_dict() if name in sides[side].index else empty for side in "ab")
        if any(left[key] != right[key] for key in empty):
            rows.append([name, left["licence"], right["licence"],
                         *(int(one[key]) for key in ("images", "regions", "rejects") for one in (left, right))])  # fmt: skip
    columns = [f"{key}_{side}" for key in ("licence", "images", "regions", "rejects") for side in "ab"]
    return pd.DataFrame(rows, columns=["source", *columns])


def _images(connection: "DuckDBPyConnection") -> pd.DataFrame:
    parts = {
        "only in A": "SELECT id FROM a_images ANTI JOIN b_images USING (id)",
        "only in B": "SELECT id FROM b_images ANTI JOIN a_images USING (id)",
        "other pixels": "SELECT id FROM a_images a JOIN b_images b USING (id) WHERE a.sha256 <> b.sha256",
    }
    rows = []
    for what, query in parts.items():
        count, examples = connection.execute(
            f"SELECT count(*), list(id ORDER BY id)[:{_EXAMPLES}] FROM ({query})"
        ).fetchall()[0]  # fmt: skip
        if count:
            rows.append((what, count, " ".join(examples)))
    return pd.DataFrame(rows, columns=["what", "images", "examples"])


def _columns(connection: "DuckDBPyConnection") -> pd.DataFrame:
    names = [name for name in SCHEMAS["images"].names if name not in _STORAGE]
    changed = [f'a."{name}" IS DISTINCT FROM b."{name}"' for name in names]
    counts = ", ".join(f"count(*) FILTER ({test}), min(id) FILTER ({test})" for test in changed)
    found = connection.execute(f"SELECT {counts} FROM a_images a JOIN b_images b USING (id)").fetchall()[0]
    rows = [(name, *found[2 * at : 2 * at + 2]) for at, name in enumerate(names) if found[2 * at]]
    return pd.DataFrame(rows, columns=["column", "images", "example"])


def _regions(connection: "DuckDBPyConnection") -> pd.DataFrame:
    """Regions of images in both that only one has; a pair of them with one label that overlaps by half has moved."""
    same = ", ".join(_SAME_REGION)
    both = "WHERE image_id IN (SELECT id FROM a_images) AND image_id IN (SELECT id FROM b_images)"
    for mine, other in (("a", "b"), ("b", "a")):
        connection.execute(
            f"CREATE TEMP TABLE only_{mine} AS SELECT {same} FROM {mine}_regions {both}"
            f" EXCEPT ALL SELECT {same} FROM {other}_regions {both}"
        )
    across = "(least(a.x1, b.x1) - greatest(a.x0, b.x0))"
    down = "(least(a.y1, b.y1) - greatest(a.y0, b.y0))"
    areas = "(a.x1 - a.x0) * (a.y1 - a.y0) + (b.x1 - b.x0) * (b.y1 - b.y0)"
    return connection.execute(
        f"""SELECT coalesce(a.label, b.label) AS label, coalesce(a.n, 0) AS only_in_a, coalesce(b.n, 0) AS only_in_b,
                coalesce(moved.n, 0) AS moved
            FROM (SELECT label, count(*) AS n FROM only_a GROUP BY label) a
            FULL JOIN (SELECT label, count(*) AS n FROM only_b GROUP BY label) b ON a.label = b.label
            LEFT JOIN (
                SELECT a.label, count(DISTINCT (a.image_id, a.x0, a.y0, a.x1, a.y1)) AS n
                FROM only_a a JOIN only_b b ON a.image_id = b.image_id AND a.label = b.label
                WHERE {across} > 0 AND {down} > 0 AND {across} * {down} >= 0.5 * ({areas} - {across} * {down})
                GROUP BY a.label
            ) moved ON moved.label = coalesce(a.label, b.label)
            ORDER BY label"""
    ).df()


def _texts(connection: "DuckDBPyConnection") -> pd.DataFrame:
    both = "WHERE image_id IN (SELECT id FROM a_images) AND image_id IN (SELECT id FROM b_images)"
    columns = "image_id, kind, text, answer"
    only = [
        f"SELECT kind, count(*) AS n FROM (SELECT {columns} FROM {mine}_texts {both} EXCEPT ALL"
        f" SELECT {columns} FROM {other}_texts {both}) GROUP BY kind"
        for mine, other in (("a", "b"), ("b", "a"))
    ]
    return connection.execute(
        f"""SELECT coalesce(a.kind, b.kind) AS kind, coalesce(a.n, 0) AS only_in_a, coalesce(b.n, 0) AS only_in_b
            FROM ({only[0]}) a FULL JOIN ({only[1]}) b ON a.kind = b.kind ORDER BY kind"""
    ).df()
