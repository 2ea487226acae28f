"""Checks that what belongs together is in one split: groups, patients, identical pixels, images that look alike."""

import re

import numpy as np
import pandas as pd

from medglip.store.checks.image_table import rows_of
from medglip.store.checks.problems import Problem, Problems
from medglip.store.groups.duplicates import DISTANCE, near_hashes, search
from medglip.store.groups.lineage import images_to_group, linked_by_keys
from medglip.store.read import Dataset

_HASH = re.compile("[0-9a-f]{16}")


def check_splits(dataset: Dataset) -> Problems:
    """A group, a patient or identical pixels in two splits."""
    for column, name in (("group", "group"), ("patient", "patient"), ("sha256", "identical pixels")):
        torn = dataset.query(
            f"""
            SELECT "{column}" AS key, string_agg(DISTINCT split, ', ' ORDER BY split) AS splits, count(*) AS n,
                min(id) AS image
            FROM images WHERE key <> '' AND split <> 'unassigned'
            GROUP BY key HAVING min(split) <> max(split) ORDER BY key
            """
        )
        for row in rows_of(torn):
            what = f"Its {row.n} images (for example {row.image}) are in several splits: {row.splits}."
            yield Problem("error", f"{name} {row.key[:16]}", what, "splits", row.image)


def check_twins(dataset: Dataset, *, look: bool) -> Problems:
    """Images that look alike, in two splits, and that nothing else says to belong together.

    Args:
        dataset: An opened dataset.
        look: Compare the pixels of those whose perceptual hashes are near: an error where they agree. Without, near hashes
            are a note.
    """
    images = images_to_group(dataset)
    images = images[images["perceptual_hash"].map(lambda text: bool(_HASH.fullmatch(text)))].reset_index(drop=True)
    split = pd.factorize(images["split"])[0]
    if look:
        pairs = search(dataset, images, linked_by_keys(dataset, images)[0], [split]).pairs
    else:
        hashes = np.array([int(text, 16) for text in images["perceptual_hash"]], np.uint64)
        near = near_hashes(hashes, DISTANCE, [pd.factorize(images["group"])[0], split])
        pairs = pd.DataFrame({"a": near.pairs[:, 0], "b": near.pairs[:, 1], "distance": near.distance})
    for pair in rows_of(pairs):
        one, other = images.iloc[pair.a], images.iloc[pair.b]
        if "unassigned" not in (one["split"], other["split"]):
            how = f"{pair.distance} of 64 bits of their hashes differ" + (
                f", pixels agree by {pair.correlation:.2f}" if look else ""
            )
            what = f"It looks like the image {other['id']} ({how}), and they are in {one['split']} and {other['split']}."
            yield Problem("error" if look else "note", f"image {one['id']}", what, "twins", one["id"])
