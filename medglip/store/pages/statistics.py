"""Counts and sizes of what a dataset holds, as tables. Draws nothing and checks nothing."""

import pandas as pd

from medglip.records.labels import label_tree
from medglip.records.record import SPLITS
from medglip.store.pages.distributions import distributions
from medglip.store.read import Dataset


def statistics(dataset: Dataset) -> dict[str, pd.DataFrame]:
    """What a dataset holds.

    Args:
        dataset: An opened dataset.

    Returns:
        Tables by name:

        - ``sources``: one row a source: title, licence, images, regions, volumes, texts, rejects, patients (0 where the
          source does not say), groups, and images of each split;
        - ``modalities``: images, regions and labels of each modality;
        - ``labels``: name and level of each label, its regions, the images that show it, the images that were searched
          for it in vain (``absent``), and the median side of its boxes, the square root of their area, in pixels and,
          where the spacing is known, in mm;
        - ``levels``: labels and regions of each level of the label tree;
        - ``splits``: images, regions, groups and patients of each split;
        - ``rejects``: number of rejected items by source and reason;
        - ``label_counts``, ``box_sizes``, ``positions``, ``pairs``, ``spacings`` and ``empty``: see
          ``medglip.store.pages.distributions``.
    """
    spread = distributions(dataset)
    labels = _labels(dataset, spread["label_counts"])
    levels = labels.groupby("level", sort=False).agg(labels=("label", "size"), regions=("regions", "sum"))
    return {
        "sources": _sources(dataset),
        "modalities": dataset.query(
            """
            SELECT modality, images, coalesce(regions, 0) AS regions, coalesce(labels, 0) AS labels
            FROM (SELECT modality, count(*) AS images FROM images GROUP BY modality) LEFT JOIN
                (SELECT modality, count(*) AS regions, count(DISTINCT label) AS labels FROM regions GROUP BY modality)
                USING (modality)
            ORDER BY images DESC, modality
            """
        ),
        "labels": labels,
        "levels": levels.reset_index(),
        "splits": dataset.query(
            """
            SELECT split, count(*) AS images, sum(n_regions)::BIGINT AS regions, count(DISTINCT "group") AS groups,
                count(DISTINCT patient) AS patients
            FROM images GROUP BY split ORDER BY split
            """
        ),
        "rejects": dataset.query("SELECT dataset, reason, count(*) AS rejects FROM rejects GROUP BY ALL ORDER BY 1, 3 DESC, 2"),
        **spread,
    }


def _sources(dataset: Dataset) -> pd.DataFrame:
    splits = ", ".join(f"count(*) FILTER (split = '{split}') AS \"{split}\"" for split in SPLITS)
    rows = dataset.query(
        f"""
        SELECT * FROM (
            SELECT dataset, count(*) AS images, sum(n_regions)::BIGINT AS regions, sum(n_texts)::BIGINT AS texts,
                count(DISTINCT patient) AS patients, count(DISTINCT "group") AS groups, {splits}
            FROM images GROUP BY dataset
        ) FULL JOIN (SELECT dataset, count(*) AS volumes FROM volumes GROUP BY dataset) USING (dataset)
        FULL JOIN (SELECT dataset, count(*) AS rejects FROM rejects GROUP BY dataset) USING (dataset)
        ORDER BY dataset
        """
    ).rename(columns={"dataset": "source"})
    numbers = [name for name in rows.columns if name != "source"]
    rows[numbers] = rows[numbers].fillna(0).astype("int64")
    told = {part.get("source", name): part for name, part in reversed(list(dataset.manifest["parts"].items()))}
    for place, name in enumerate(("title", "licence"), 1):
        rows.insert(place, name, [told.get(source, {}).get(name, "") for source in rows["source"]])
    return rows


def _labels(dataset: Dataset, counts: pd.DataFrame) -> pd.DataFrame:
    """The table ``labels``; an image is in one split and of one modality, so its labels are in one row of ``counts`` each."""
    rows = dataset.query(
        """
        SELECT label, coalesce(regions, 0) AS regions, coalesce(absent, 0) AS absent,
            round(median_side_px, 1) AS median_side_px, round(median_side_mm, 1) AS median_side_mm
        FROM (
            SELECT label, count(*) AS regions,
                median(sqrt((x1 - x0) * (y1 - y0))) AS median_side_px,
                median(sqrt(width_mm * height_mm)) AS median_side_mm
            FROM regions GROUP BY label
        ) FULL JOIN (
            SELECT label, sum(n)::BIGINT AS absent FROM (
                SELECT unnest(list_distinct(list_transform(absent, lambda concept: split_part(concept, '@', 1)))) AS label, n
                FROM (SELECT absent, count(*) AS n FROM images GROUP BY absent)
            ) GROUP BY label
        ) USING (label)
        ORDER BY regions DESC, label
        """
    )
    images = counts.groupby("label")["images"].sum()
    rows.insert(2, "images", rows["label"].map(images).fillna(0).astype("int64"))
    tree = label_tree()
    known = [label in tree for label in rows["label"]]
    pairs = list(zip(rows["label"], known, strict=True))
    rows.insert(1, "name", [tree.name(label) if there else label for label, there in pairs])
    rows.insert(2, "level", [tree[label].level if there else "not in the tree" for label, there in pairs])
    return rows
