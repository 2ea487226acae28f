"""How sizes, places, spacings and labels of a dataset are distributed: tables for charts. Draws nothing.

Every table is one query over a few columns; masks are never read.
"""

import itertools
from collections import Counter

import pandas as pd

from medglip.store.read import Dataset

# Cells of a map of box centres, along each side of the image.
GRID = 16
# Pairs of labels that are listed.
PAIRS = 50
_BITS = 62  # labels that one number holds as bits
_QUERIES = {
    "label_counts": """
        SELECT label, split, modality, sum(n)::BIGINT AS regions, count(*) AS images
        FROM (SELECT label, split, modality, count(*) AS n FROM regions GROUP BY label, split, modality, hash(image_id))
        GROUP BY ALL ORDER BY label, split, modality
        """,
    "box_sizes": """
        SELECT modality, unit, power(2, bin / 2) AS low, power(2, (bin + 1) / 2) AS high, count(*) AS regions
        FROM (
            SELECT modality, 'px' AS unit, floor(log2((x1 - x0) * (y1 - y0))) AS bin FROM regions
            WHERE x1 > x0 AND y1 > y0
            UNION ALL SELECT modality, 'mm', floor(log2(width_mm * height_mm)) FROM regions
            WHERE width_mm > 0 AND height_mm > 0
        )
        GROUP BY modality, unit, bin ORDER BY modality, unit DESC, bin
        """,
    "positions": f"""
        SELECT label, r.modality, cell // {GRID} AS row, cell % {GRID} AS "column", count(*) AS regions
        FROM (
            SELECT label, r.modality,
                least({GRID - 1}, floor((y0 + y1) / 2 / height * {GRID}))::INT * {GRID}
                + least({GRID - 1}, floor((x0 + x1) / 2 / width * {GRID}))::INT AS cell
            FROM regions r JOIN images i ON i.id = r.image_id
        ) AS r GROUP BY ALL ORDER BY label, r.modality, row, "column"
        """,
    "spacings": """
        SELECT dataset, modality, count(*) AS images, count(row_mm) AS known,
            round(min(row_mm), 4) AS least, round(quantile_cont(row_mm, 0.25), 4) AS quarter,
            round(median(row_mm), 4) AS median, round(quantile_cont(row_mm, 0.75), 4) AS three_quarters,
            round(max(row_mm), 4) AS most
        FROM images GROUP BY ALL ORDER BY dataset, modality
        """,
    "empty": """
        SELECT dataset, modality, count(*) AS images, count(*) FILTER (n_regions = 0) AS empty,
            round(avg((n_regions = 0)::INT), 4) AS share
        FROM images GROUP BY ALL ORDER BY dataset, modality
        """,
}


def distributions(dataset: Dataset) -> dict[str, pd.DataFrame]:
    """Tables by name.

    - ``label_counts``: regions and images of each label, split and modality;
    - ``box_sizes``: regions of each modality by the side of their box, the square root of its area, in bins
      [``low``, ``high``) of half a power of two; ``unit`` is px, or mm where the spacing is known;
    - ``positions``: for each label and modality, regions whose box's centre is in a cell of ``GRID`` x ``GRID`` over the
      image, ``row`` from the top and ``column`` from the left;
    - ``pairs``: labels that images show together, the ``PAIRS`` most frequent, and in how many images;
    - ``spacings``: images of each source and modality, how many have a known spacing, and its quantiles in mm;
    - ``empty``: images of each source and modality, and how many have no region.
    """
    tables = {name: dataset.query(sql) for name, sql in _QUERIES.items()}
    return {**tables, "pairs": _pairs(dataset)}


def _pairs(dataset: Dataset) -> pd.DataFrame:
    """Images by the set of labels that they show, of which there are few; each set gives its pairs."""
    labels = dataset.query("SELECT DISTINCT label FROM regions ORDER BY label")["label"].tolist()
    if not labels:
        return pd.DataFrame({"label": [], "other": [], "images": []})
    numbers = ", ".join(f"('{label.replace(chr(39), chr(39) * 2)}', {number})" for number, label in enumerate(labels))
    words = [f"word{at}" for at in range(-(-len(labels) // _BITS))]
    columns = ", ".join(
        f"bit_or(CASE WHEN number // {_BITS} = {at} THEN 1::BIGINT << (number % {_BITS}) ELSE 0 END) AS {word}"
        for at, word in enumerate(words)
    )
    sets = dataset.query(
        f"""
        SELECT {", ".join(words)}, count(*) AS images FROM (
            SELECT {columns} FROM regions JOIN (VALUES {numbers}) AS known(label, number) USING (label) GROUP BY hash(image_id)
        ) GROUP BY ALL
        """
    )
    together: Counter[tuple[str, str]] = Counter()
    for *bits, images in sets.itertuples(index=False, name=None):
        shown = [label for n, label in enumerate(labels) if int(bits[n // _BITS]) >> (n % _BITS) & 1]
        for pair in itertools.combinations(shown, 2):
            together[pair] += int(images)
    most = sorted(together.items(), key=lambda item: (-item[1], item[0]))[:PAIRS]
    return pd.DataFrame([(*pair, images) for pair, images in most], columns=["label", "other", "images"])
