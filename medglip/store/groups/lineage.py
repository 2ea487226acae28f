"""Which images belong together by what is written of them: keys, equal pixels, sources with one ancestor. Compares no looks.

A *link* joins two images that must not be split apart; whatever is joined by a chain of links is one group.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from medglip.store.read import Dataset

# Column of `images` -> what a link by it is called in reports.
KEYS = {"group": "group", "patient": "patient", "study": "study", "series": "series", "sha256": "identical pixels"}

Edges = np.ndarray


def connected(count: int, edges: Iterable[Edges]) -> np.ndarray:
    """The component of each of ``count`` images that links make: int64 (count,), numbered from 0.

    Args:
        count: Number of images.
        edges: int64 (2, E) each: positions of linked images; any number, any order, either way round.

    >>> connected(5, [np.array([[0, 3], [3, 4]])]).tolist()
    [0, 1, 2, 0, 0]
    """
    both = np.concatenate([np.zeros((2, 0), np.int64), *edges], axis=1)
    graph = coo_matrix((np.ones(both.shape[1], bool), (both[0], both[1])), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def links_by(values: pd.Series) -> Edges:
    """Links between images of one key: each with the first that has it; int64 (2, E). No key, or an empty one, links nothing.

    >>> links_by(pd.Series(["a", None, "b", "a", "", "a"])).tolist()
    [[3, 5], [0, 0]]
    """
    codes, _ = pd.factorize(values.mask(values == ""))
    keyed = np.flatnonzero(codes >= 0)
    _, first, inverse = np.unique(codes[keyed], return_index=True, return_inverse=True)
    heads = keyed[first][inverse]
    return np.stack([keyed, heads])[:, keyed != heads].astype(np.int64)


def images_to_group(dataset: Dataset, joined: dict[str, str] | None = None) -> pd.DataFrame:
    """What decides how images belong together: one row an image, in the order of the ids, whatever the order of the parts.

    Args:
        dataset: An opened dataset.
        joined: Group keys that were joined before -> the key that stands for them now.

    Returns:
        Columns ``id``, ``dataset``, ``position`` (in the dataset), ``group`` (after ``joined``; the image's id where it
        has none), ``patient``, ``study``, ``series``, ``sha256``, ``perceptual_hash``, ``split``, ``split_source``,
        ``written`` (the group as it stands in the dataset).
    """
    columns = ["id", "dataset", "group", "patient", "study", "series", "sha256", "perceptual_hash", "split", "split_source"]
    images = dataset.table("images", columns).rename_axis("position").reset_index()
    images = images.sort_values("id", ignore_index=True)
    written = images["group"]
    stands = written.map(joined).fillna(written) if joined else written
    return images.assign(written=written, group=stands.where(stands != "", images["id"]))


def linked_by_keys(dataset: Dataset, images: pd.DataFrame) -> tuple[np.ndarray, set[str]]:
    """The components that group, patient, study, series and equal pixels make.

    Images of one flat colour are alike without having anything in common (the empty slices of volumes are), so their
    equal pixels link nothing.

    Args:
        dataset: An opened dataset; its pixels are read only where equal ones are in several groups.
        images: From ``images_to_group``.

    Returns:
        The component of each row, int64; and the pixel hashes of flat images that several components share.
    """
    written = [links_by(images[column]) for column in KEYS if column != "sha256"]
    component = connected(len(images), written)
    shared = images.assign(component=component).groupby("sha256").agg(parts=("component", "nunique"), at=("position", "first"))
    several = shared.loc[shared["parts"] > 1, "at"]
    flat = {str(sha256) for sha256, at in several.items() if _is_flat(dataset.pixels(int(at)))}
    equal = images["sha256"].mask(images["sha256"].isin(flat))
    return connected(len(images), [*written, links_by(equal)]), flat


def _is_flat(pixels: np.ndarray) -> bool:
    return bool((pixels == pixels[:1, :1]).all())


def families(manifest: dict[str, Any]) -> dict[str, str]:
    """Source -> the name that stands for its family: sources that share images, by what they declare as ``lineage``.

    Two subsets of one data set are a family even where that data set itself is not here.

    Args:
        manifest: Of a dataset.

    >>> part = {"source": "rsna", "lineage": ["nih"]}, {"source": "siim", "lineage": ["nih"]}, {"source": "busi"}
    >>> families({"parts": dict(enumerate(part))})
    {'busi': 'busi', 'rsna': 'nih', 'siim': 'nih'}
    """
    declared = [(part.get("source", name), part.get("lineage") or []) for name, part in manifest["parts"].items()]
    names = sorted({name for source, parents in declared for name in (source, *parents)})
    at = {name: number for number, name in enumerate(names)}
    pairs = [(at[source], at[parent]) for source, parents in declared for parent in parents]
    component = connected(len(names), [np.array(pairs, np.int64).reshape(-1, 2).T])
    stands = {number: name for name, number in reversed(list(zip(names, component.tolist(), strict=True)))}
    return {source: stands[component[at[source]]] for source in sorted({source for source, _ in declared})}
